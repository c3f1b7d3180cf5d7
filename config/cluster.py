"""What one node sees of the cluster: defaults filled in, nodes indexed by address. Made anew for each compile, with
what `Memory` has of the one before."""

from __future__ import annotations

import hashlib
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import wraps
from ipaddress import IPv4Address
from operator import attrgetter
from typing import Any, TypeVar

from attrs import evolve, field, frozen

from bgpd.family import Family
from config import resources as r
from config.hosts import Host, Hosts
from config.memory import Memory
from config.problems import Problem
from config.selector import Selector
from config.services import ServiceAddress, ServiceRules, service_addresses
from config.snapshot import Snapshot
from config.values import Prefix, prefix

__all__ = ["DEFAULT_ASN", "Block", "Cluster", "view"]

DEFAULT_ASN = 64512
DEFAULT_PORT = 179
T = TypeVar("T")
_EXCLUDE_LABEL = "node.kubernetes.io/exclude-from-external-load-balancers"


def _once(method: Callable[[Cluster, Family], T]) -> Callable[[Cluster, Family], T]:
    """Each chain asks again; a cluster is one moment, and its answers are the same."""

    @wraps(method)
    def asked(cluster: Cluster, family: Family) -> T:
        place = (method, family)
        if place not in cluster.answers:
            cluster.answers[place] = method(cluster, family)
        found: T = cluster.answers[place]
        return found

    return asked


@frozen(eq=False)
class Cluster:
    """The resources, seen from the node `own`. What did not change since the last compile is the same object."""

    snapshot: Snapshot
    env: Mapping[str, str]
    memory: Memory
    own: Host
    asn: int
    """The cluster's AS: that of nodes without one of their own."""
    config: r.BGPConfiguration
    own_config: r.BGPConfiguration | None
    hosts: tuple[Host, ...]
    """All nodes, by name."""
    by_address: Mapping[str, tuple[Host, ...]]
    unique_addresses: bool
    """No two nodes have the same one."""
    cluster_ips: tuple[Prefix, ...]
    """serviceClusterIPs, or what the environment puts in their place."""
    workloads: tuple[r.Workload, ...]
    """Pods of this node, by name."""
    answers: dict[object, Any] = field(factory=dict, init=False, repr=False)
    """What `_once` has found."""

    @property
    def excluded_from_services(self) -> bool:
        """Whether this node must not attract service traffic."""
        return self.own.node.labels.get(_EXCLUDE_LABEL) == "true"

    def advertisements(self) -> tuple[r.PrefixAdvertisement, ...]:
        """The node's own prefixAdvertisements, which replace the default's as a whole, else the default's."""
        if self.own_config is not None and self.own_config.prefix_advertisements is not None:
            return self.own_config.prefix_advertisements
        return self.config.prefix_advertisements or ()

    @_once
    def services(self, family: Family) -> tuple[Prefix, ...]:
        """The service ranges that are announced as a whole (calico-bgp.md 7.6, global routes)."""
        bits = family.bits
        config = self.config
        found = list(self.cluster_ips)
        found += [entry for entry in config.service_external_ips if entry.length < bits]
        if config.aggregate_load_balancer:
            found += [entry for entry in config.service_load_balancer_ips if entry.length < bits]
        return self.memory.shared(("services", family), _of_family(found, family))

    @_once
    def reflected_services(self, family: Family) -> tuple[Prefix, ...]:
        """The service ranges that a reflector passes on (calico-bgp.md 7.4 step 8)."""
        found = _of_family([*self.config.service_load_balancer_ips, *self.config.service_external_ips], family)
        return self.memory.shared(("reflected services", family), found)

    @_once
    def service_addresses(self, family: Family) -> tuple[ServiceAddress, ...]:
        """The single addresses of Services that this node announces."""
        if self.excluded_from_services:
            return ()
        services, slices = self.snapshot.of(r.Service), self.snapshot.of(r.EndpointSlice)
        rules = self.memory.shared(
            "service rules",
            ServiceRules(
                node=self.env.get("CALICO_K8S_NODE_REF", "") or self.own.name,
                cluster_ips=self.cluster_ips,
                external_ips=self.config.service_external_ips,
                load_balancer_ips=self.config.service_load_balancer_ips,
                aggregate=self.config.aggregate_load_balancer,
            ),
        )
        found = self.memory.made(
            "service addresses",
            (rules, services, slices),
            lambda: service_addresses(rules, services, slices.values()),
        )
        mine = tuple(entry for entry in found if entry.prefix.family == family)
        return self.memory.shared(("service addresses", family), mine)

    @_once
    def blocks(self, family: Family) -> tuple[Block, ...]:
        """The node's own blocks of a family, pending and deleted ones left out, by prefix."""
        own = self.own.name
        if self.env.get("USE_POD_CIDR", "") == "true":
            found = self.own.node.pod_cidrs
        else:
            affinities = self.snapshot.of(r.BlockAffinity)
            mine = self.memory.chosen("own blocks", affinities, lambda entry: entry.node == own, (own,))
            found = self.memory.made("blocks", (mine,), lambda: tuple(b.cidr for b in mine.values() if _counts(b)))

        def make() -> tuple[Block, ...]:
            unique = {cidr.key: Block(cidr) for cidr in found if cidr.family == family}
            return tuple(unique[key] for key in sorted(unique))

        return self.memory.made(("blocks", family), (found,), make)

    @_once
    def pools(self, family: Family) -> tuple[r.IPPool, ...]:
        """The pools of a family by text of their CIDR; of two with one CIDR, the first by name."""
        pools = self.snapshot.of(r.IPPool)

        def make() -> tuple[r.IPPool, ...]:
            found = sorted(pools.values(), key=lambda pool: pool.name, reverse=True)
            unique = {pool.cidr.key: pool for pool in found if pool.cidr.family == family}
            return tuple(sorted(unique.values(), key=lambda pool: str(pool.cidr)))

        return self.memory.shared(("pools", family), self.memory.made(("pools", family), (pools,), make))

    def selected(self, selector: Selector) -> Iterator[Host]:
        """The hosts that a selector over Node labels matches, by name."""
        known = self.memory.table(("selector", selector.text))
        for host in self.hosts:
            answer = known.get(host.name)
            if answer is None or answer[0] is not host.node.labels:
                answer = known[host.name] = (host.node.labels, selector.matches(host.node.labels))
            if answer[1]:
                yield host
        Memory.trim(known, self.hosts_by_name)

    @property
    def hosts_by_name(self) -> Mapping[str, r.Node]:
        """The nodes by name."""
        return self.snapshot.nodes()


@frozen
class Block:
    """One of the node's own blocks."""

    cidr: Prefix


def _counts(block: r.BlockAffinity) -> bool:
    return block.host and not block.deleted and block.state is not r.AffinityState.PENDING


def _of_family(prefixes: list[Prefix], family: Family) -> tuple[Prefix, ...]:
    unique = {entry.key: entry for entry in prefixes if entry.family == family}
    return tuple(unique[key] for key in sorted(unique))


def view(
    snapshot: Snapshot,
    node: str,
    env: Mapping[str, str],
    problems: list[Problem],
    memory: Memory,
    workloads: Iterable[r.Workload] = (),
) -> Cluster | None:
    """The cluster as `node` sees it; None, with the reason in `problems`, where that cannot be told safely."""
    if not _usable(snapshot, node, problems):
        return None
    configs = snapshot.of(r.BGPConfiguration)
    default = configs.get("default") or memory.shared("default", r.BGPConfiguration("default"))
    cluster_asn = default.asn or DEFAULT_ASN
    nodes = snapshot.nodes()
    hosts = memory.made("hosts", (nodes, configs), lambda: _hosts(nodes, configs, cluster_asn, memory))
    return Cluster(
        snapshot=snapshot,
        env=env,
        memory=memory,
        asn=cluster_asn,
        own=hosts.named[bisect_left(hosts.names, node)],
        config=default,
        own_config=configs.get(f"node.{node}"),
        hosts=hosts.named,
        by_address=hosts.by_address,
        unique_addresses=not hosts.shared,
        cluster_ips=_cluster_ips(default, env, problems),
        workloads=memory.shared("workloads", tuple(sorted(workloads, key=_name_of))),
    )


_name_of = attrgetter("name")


def _hosts(
    nodes: Mapping[str, r.Node], configs: Mapping[str, r.BGPConfiguration], cluster_asn: int, memory: Memory
) -> Hosts:
    port = _ports(configs)

    def make(node: r.Node) -> Host:
        return Host(node, node.asn or cluster_asn, port(node.name), node.name)

    last = memory.last("hosts")
    if last is None:
        return Hosts.of(nodes, make)
    before: Hosts = last[1]
    if last[0][1] is configs:
        return before.after(nodes, make)
    fresh = Hosts.of(nodes, make, before.named)
    return evolve(before, nodes=nodes) if before.named == fresh.named else fresh


def _ports(configs: Mapping[str, r.BGPConfiguration]) -> Callable[[str], int | None]:
    """The listenPort that configuration gives a node."""
    default = configs.get("default")
    usual = default.listen_port if default is not None else None
    own = {name[5:]: config.listen_port for name, config in configs.items() if name.startswith("node.")}
    return lambda name: own.get(name) or usual


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
