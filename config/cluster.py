"""What one node sees of the cluster: defaults filled in, nodes indexed by address. Made anew for each compile."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from ipaddress import IPv4Address

from attrs import frozen

from bgpd.family import Family
from config import resources as r
from config.problems import Problem
from config.snapshot import Snapshot
from config.values import Prefix, prefix

__all__ = ["DEFAULT_ASN", "Cluster", "Host", "view"]

DEFAULT_ASN = 64512
DEFAULT_PORT = 179
_EXCLUDE_LABEL = "node.kubernetes.io/exclude-from-external-load-balancers"


@frozen
class Host:
    """A node with what the defaults give it."""

    node: r.Node
    asn: int
    """Its own, else the cluster's."""
    port: int | None
    """The listenPort that configuration gives it; None = none given, so 179."""

    @property
    def name(self) -> str:
        """The node's name."""
        return self.node.name


@frozen
class Cluster:
    """The resources, seen from the node `own`."""

    snapshot: Snapshot
    env: Mapping[str, str]
    own: Host
    asn: int
    """The cluster's AS: that of nodes without one of their own."""
    config: r.BGPConfiguration
    own_config: r.BGPConfiguration | None
    hosts: tuple[Host, ...]
    """All nodes, by name."""
    by_address: Mapping[str, tuple[Host, ...]]
    cluster_ips: tuple[Prefix, ...]
    """serviceClusterIPs, or what the environment puts in their place."""

    @property
    def excluded_from_services(self) -> bool:
        """Whether this node must not attract service traffic."""
        return self.own.node.labels.get(_EXCLUDE_LABEL) == "true"

    def advertisements(self) -> tuple[r.PrefixAdvertisement, ...]:
        """The node's own prefixAdvertisements, which replace the default's as a whole, else the default's."""
        if self.own_config is not None and self.own_config.prefix_advertisements is not None:
            return self.own_config.prefix_advertisements
        return self.config.prefix_advertisements or ()

    def services(self, family: Family) -> tuple[Prefix, ...]:
        """The service ranges that are announced as a whole (calico-bgp.md 7.6, global routes)."""
        bits = family.bits
        config = self.config
        found = list(self.cluster_ips)
        found += [entry for entry in config.service_external_ips if entry.length < bits]
        if config.aggregate_load_balancer:
            found += [entry for entry in config.service_load_balancer_ips if entry.length < bits]
        return _of_family(found, family)

    def reflected_services(self, family: Family) -> tuple[Prefix, ...]:
        """The service ranges that a reflector passes on (calico-bgp.md 7.4 step 8)."""
        return _of_family([*self.config.service_load_balancer_ips, *self.config.service_external_ips], family)

    def blocks(self, family: Family) -> tuple[r.BlockAffinity, ...]:
        """The node's own blocks of a family, pending and deleted ones left out, by prefix."""
        own = self.own.name
        found = [
            block
            for block in self.snapshot.of(r.BlockAffinity).values()
            if block.node == own
            and block.cidr.family == family
            and block.host
            and not block.deleted
            and block.state is not r.AffinityState.PENDING
        ]
        unique = {block.cidr.key: block for block in sorted(found, key=lambda block: block.name, reverse=True)}
        return tuple(unique[key] for key in sorted(unique))

    def pools(self, family: Family) -> tuple[r.IPPool, ...]:
        """The pools of a family by text of their CIDR; of two with one CIDR, the first by name."""
        found = sorted(self.snapshot.of(r.IPPool).values(), key=lambda pool: pool.name, reverse=True)
        unique = {pool.cidr.key: pool for pool in found if pool.cidr.family == family}
        return tuple(sorted(unique.values(), key=lambda pool: str(pool.cidr)))


def _of_family(prefixes: list[Prefix], family: Family) -> tuple[Prefix, ...]:
    unique = {entry.key: entry for entry in prefixes if entry.family == family}
    return tuple(unique[key] for key in sorted(unique))


def view(snapshot: Snapshot, node: str, env: Mapping[str, str], problems: list[Problem]) -> Cluster | None:
    """The cluster as `node` sees it; None, with the reason in `problems`, where that cannot be told safely."""
    if not _usable(snapshot, node, problems):
        return None
    configs = snapshot.of(r.BGPConfiguration)
    default = configs.get("default") or r.BGPConfiguration("default")
    cluster_asn = default.asn or DEFAULT_ASN
    hosts: list[Host] = []
    by_address: dict[str, list[Host]] = {}
    for name in sorted(snapshot.nodes()):
        resource = snapshot.nodes()[name]
        override = configs.get(f"node.{name}")
        port = (override.listen_port if override else None) or default.listen_port
        host = Host(resource, resource.asn or cluster_asn, port)
        hosts.append(host)
        for address in (resource.ipv4_address, resource.ipv6_address):
            if address:
                by_address.setdefault(address, []).append(host)
    return Cluster(
        snapshot=snapshot,
        env=env,
        asn=cluster_asn,
        own=next(host for host in hosts if host.name == node),
        config=default,
        own_config=configs.get(f"node.{node}"),
        hosts=tuple(hosts),
        by_address={address: tuple(found) for address, found in by_address.items()},
        cluster_ips=_cluster_ips(default, env, problems),
    )


def _usable(snapshot: Snapshot, node: str, problems: list[Problem]) -> bool:
    """Whether the two objects that everything hangs on are there: nothing may be announced with a guessed AS."""
    if node not in snapshot.nodes():
        known = ", ".join(sorted(snapshot.nodes())[:5]) or "none"
        text = f"there is no usable Node {node}, so its settings cannot be told; nodes known: {known}"
        problems.append(Problem(object=f"Node/{node}", text=text, allowed="a Node object with spec.bgp"))
        return False
    if snapshot.refused_without_version(("BGPConfiguration", "default")):
        text = "is refused and has no earlier good version; nothing is done on a guessed AS number or mesh setting"
        problems.append(Problem(object="BGPConfiguration/default", text=text, allowed="a version without faults"))
        return False
    return True


def _cluster_ips(default: r.BGPConfiguration, env: Mapping[str, str], problems: list[Problem]) -> tuple[Prefix, ...]:
    text = env.get("CALICO_ADVERTISE_CLUSTER_IPS", "")
    if not text:
        return default.service_cluster_ips
    try:
        return (prefix(text),)
    except ValueError as error:
        problems.append(
            Problem(
                object="environment",
                field="CALICO_ADVERTISE_CLUSTER_IPS",
                value=repr(text[:80]),
                allowed="one prefix",
                text=f"is ignored: {error}",
                refused=False,
            )
        )
        return default.service_cluster_ips


def router_id(cluster: Cluster, problems: list[Problem]) -> str:
    """The BGP identifier, one for both families (calico-bgp.md 6.9).

    Where Calico's BIRD configuration would freeze (no IPv4 address, or a bad CALICO_ROUTER_ID), the hash stands in.
    """
    own = cluster.own.node
    text = cluster.env.get("CALICO_ROUTER_ID", "")
    if not text and own.ipv4_address:
        return own.ipv4_address
    if text and text != "hash":
        try:
            address = IPv4Address(text)
        except ValueError:
            address = IPv4Address(0)
        if int(address):
            return str(address)
        problems.append(_router_id_problem(text, "is no dotted quad; the hash of the node's name is used"))
    elif not text:
        problems.append(_router_id_problem("", f"is needed, as Node {own.name} has no IPv4 address; the hash is used"))
    return hashed_router_id(own.name)


def _router_id_problem(value: str, text: str) -> Problem:
    return Problem(
        object="environment",
        field="CALICO_ROUTER_ID",
        value=repr(value[:80]) if value else "",
        allowed='"hash", or a dotted quad',
        text=text,
        refused=False,
    )


def hashed_router_id(name: str) -> str:
    """First four octets of SHA-256 of the node's name; the first one less 32 where above 223 (no class D or E)."""
    digest = bytearray(hashlib.sha256(name.encode()).digest()[:4])
    if digest[0] > 223:
        digest[0] -= 32
    return str(IPv4Address(bytes(digest)))
