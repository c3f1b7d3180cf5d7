"""Kubernetes' own objects, and what Felix leaves on the node: Secret, Service, EndpointSlice, Workload.

The API server has validated the first three, so only what BGP reads of them is looked at. Of an EndpointSlice, which
changes with every pod, only the nodes of ready endpoints are kept: most of its changes then change nothing here.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator, Mapping
from sys import intern

from bgpd.family import FAMILIES, IPV4_UNICAST, IPV6_UNICAST, Family, family_of
from config import resources as r
from config import values
from config.fields import Fields, Sink, convert
from config.problems import ResourceError, show
from config.values import Prefix

__all__ = ["endpoint_slice", "secret", "service", "workload"]

SERVICE_LABEL = "kubernetes.io/service-name"
_FAMILIES = {"IPv4": IPV4_UNICAST, "IPv6": IPV6_UNICAST}


def secret(name: str, top: Fields) -> r.Secret:
    """A Secret. Values are never shown: they are what the object is there to hide."""
    data: dict[str, bytes] = {}
    for key, value in top.mapping("data").value.items():
        try:
            data[str(key)] = base64.b64decode(value, validate=True) if isinstance(value, str) else b""
        except (binascii.Error, ValueError):
            top.sink.note(f"data.{show(key)}", "is not base64", allowed="base64, or plain text in stringData")
    for key, value in top.mapping("stringData").value.items():
        convert(top.sink, f"stringData.{show(key)}", "" if isinstance(value, str) else 0, str, "text, in quotes")
        data[str(key)] = value.encode("utf-8", "replace") if isinstance(value, str) else b""
    return r.Secret(name, data)


def _host(text: str) -> Prefix:
    if "/" in text:
        raise ValueError("a prefix, where an address is wanted")
    return values.prefix(str(values.host_address(text)))


def service(name: str, top: Fields) -> r.Service:
    """A Service: its addresses, and what decides whether they are announced (calico-bgp.md 7.6)."""
    spec = top.mapping("spec")
    addresses = tuple(_host(text) for text in _cluster_ips(spec))
    families = frozenset(_FAMILIES[item] for _, item in spec.items("ipFamilies") if item in tuple(_FAMILIES))
    ingress = top.mapping("status").mapping("loadBalancer").mappings("ingress")
    given = (entry.parsed("ip", _host, values.ADDRESS_FORM, 64) for entry in ingress)
    return r.Service(
        name,
        type=spec.choice("type", r.ServiceType) or r.ServiceType.CLUSTER_IP,
        cluster_ips=addresses,
        external_ips=spec.parsed_list("externalIPs", _host, values.ADDRESS_FORM),
        load_balancer_ip=spec.parsed("loadBalancerIP", _host, values.ADDRESS_FORM, 64),
        ingress_ips=tuple(address for address in given if address is not None),
        policy=spec.choice("externalTrafficPolicy", r.TrafficPolicy),
        families=families or frozenset(address.family for address in addresses),
    )


def _cluster_ips(spec: Fields) -> Iterator[str]:
    """clusterIPs, or clusterIP where there is no list; nothing for headless Services."""
    single = spec.value.get("clusterIP")
    if single in (None, "", "None"):
        return
    listed = spec.parsed_list("clusterIPs", str, values.ADDRESS_FORM)
    for text in listed or (spec.text("clusterIP", 64),):
        if text and convert(spec.sink, spec.name("clusterIPs"), text, _host, values.ADDRESS_FORM) is not None:
            yield text


def endpoint_slice(name: str, top: Fields) -> r.EndpointSlice:
    """An EndpointSlice: whose it is, and the nodes with a ready endpoint (a missing condition counts as ready)."""
    labels = top.mapping("metadata").mapping("labels")
    owner = labels.text(SERVICE_LABEL)
    nodes: set[str] = set()
    for entry in top.mappings("endpoints"):
        if entry.mapping("conditions").boolean("ready") is not False:
            nodes.add(intern(entry.text("nodeName")))
    space = name.partition("/")[0]
    family = _FAMILIES.get(top.text("addressType"))
    return r.EndpointSlice(name, f"{space}/{owner}" if owner else "", family, frozenset(nodes))


def workload(name: str, value: object) -> r.Workload:
    """One of Felix's endpoint-status files (calico-bgp.md 6.7). Raises ResourceError."""
    sink = Sink(f"Workload/{name}")
    if not isinstance(value, Mapping):
        sink.note("", "is no object", value=value, allowed="a mapping")
        raise ResourceError(sink.problems)
    top = Fields(value, "", sink)
    found = [_first(top, field, family) for field, family in zip(("ipv4Nets", "ipv6Nets"), FAMILIES, strict=True)]
    resource = r.Workload(
        name,
        peer=top.text("bgpPeerName"),
        addresses=tuple(address for address in found if address),
        interface=top.text("ifaceName"),
    )
    if sink.refused:
        raise ResourceError(sink.problems)
    return resource


def _address(text: str) -> str:
    """The address part of an address with prefix length."""
    values.prefix(text)
    return str(values.host_address(text.partition("/")[0]))


def _first(top: Fields, field: str, family: Family) -> str:
    addresses = top.parsed_list(field, _address, values.PREFIX_FORM)
    if not addresses:
        return ""
    if family_of(addresses[0]) != family:
        top.wrong(field, f"does not begin with a prefix of {family}", values.PREFIX_FORM)
        return ""
    return addresses[0]
