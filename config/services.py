"""Which addresses of Kubernetes Services this node announces (calico-bgp.md 7.6).

The whole ranges of BGPConfiguration are in `cluster`; here are the single addresses. All addresses of a Service are
announced, or none. A Service without any EndpointSlice has none: a slice that goes takes its addresses with it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from attrs import frozen

from bgpd.family import Family
from config import resources as r
from config.values import Prefix

__all__ = ["ServiceAddress", "ServiceRules", "service_addresses"]


@frozen
class ServiceAddress:
    """One announced address, and why."""

    prefix: Prefix
    label: str


@frozen
class ServiceRules:
    """What configuration says about Services. `single_*` hold entries of exactly one address."""

    node: str
    """The node's name in Kubernetes (CALICO_K8S_NODE_REF)."""
    cluster_ips: tuple[Prefix, ...]
    external_ips: tuple[Prefix, ...]
    load_balancer_ips: tuple[Prefix, ...]
    aggregate: bool

    @property
    def idle(self) -> bool:
        """Whether no address of any Service is announced."""
        return not (self.cluster_ips or self.external_ips or self.load_balancer_ips)


def service_addresses(
    rules: ServiceRules, services: Mapping[str, r.Service], slices: Iterable[r.EndpointSlice]
) -> tuple[ServiceAddress, ...]:
    """One entry a prefix, by prefix; of several Services with one address, the first by name."""
    if rules.idle:
        return ()
    of_service: dict[str, list[r.EndpointSlice]] = {}
    for entry in slices:
        if entry.service in services:
            of_service.setdefault(entry.service, []).append(entry)
    found: dict[tuple[Family, bytes], ServiceAddress] = {}
    for name in sorted(of_service):
        service = services[name]
        if _announced(rules, service, of_service[name]):
            for address in _addresses(rules, service):
                found.setdefault((address.prefix.family, address.prefix.key), address)
    return tuple(found[key] for key in sorted(found))


def _announced(rules: ServiceRules, service: r.Service, slices: list[r.EndpointSlice]) -> bool:
    """The steps 2 to 6 of the reference, in its order."""
    if service.type is r.ServiceType.EXTERNAL_NAME or not service.cluster_ips:
        return False
    if service.policy is r.TrafficPolicy.CLUSTER and _has_single_address(rules, service):
        return True
    local = service.policy is r.TrafficPolicy.LOCAL
    if not local and rules.aggregate:
        return False
    nodes = [entry.nodes for entry in slices if entry.family in service.families]
    return any(rules.node in found for found in nodes) if local else any(nodes)


def _has_single_address(rules: ServiceRules, service: r.Service) -> bool:
    """Whether an entry of the configuration names just one address, and it is this Service's."""
    if service.type is r.ServiceType.LOAD_BALANCER:
        given = {*service.ingress_ips, *((service.load_balancer_ip,) if service.load_balancer_ip else ())}
        if given.intersection(_single(rules.load_balancer_ips)):
            return True
    return bool(set(service.external_ips).intersection(_single(rules.external_ips)))


def _single(prefixes: Iterable[Prefix]) -> Iterator[Prefix]:
    return (prefix for prefix in prefixes if prefix.length == prefix.family.bits)


def _addresses(rules: ServiceRules, service: r.Service) -> Iterator[ServiceAddress]:
    if rules.cluster_ips:
        # They are not held against the ranges (quirk 9): the API server has given them out of its own.
        for prefix in service.cluster_ips:
            yield ServiceAddress(prefix, f"Service {service.name}: cluster IP")
    for prefix in service.external_ips:
        if _covered(prefix, rules.external_ips):
            yield ServiceAddress(prefix, f"Service {service.name}: external IP")
    for prefix in service.ingress_ips:
        if _covered(prefix, rules.load_balancer_ips):
            yield ServiceAddress(prefix, f"Service {service.name}: load balancer IP")


def _covered(prefix: Prefix, ranges: Iterable[Prefix]) -> bool:
    return any(entry.covers(prefix) for entry in ranges)
