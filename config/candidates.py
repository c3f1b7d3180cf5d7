"""The sessions that BGPPeers ask of one node: global and node peers, local pods, reverse peerings (calico-bgp.md §6).

A candidate is a session before its parameters are worked out. Candidates come in passes of falling precedence; per
peer address and port one results. In every pass the order is that of names, so that equal resources give equal
sessions on every run.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from attrs import field, frozen

from bgpd.family import FAMILIES, Family, family_of
from config import resources as r
from config.cluster import DEFAULT_PORT, Cluster
from config.hosts import Host
from config.memory import Memory
from config.problems import Problem
from config.values import ASN_FORM

__all__ = ["Candidate", "explicit_candidates"]


_TABLES = "candidates"
"""Where memory has them, by BGPPeer, kind and families."""


@frozen
class Candidate:
    """One session that a BGPPeer asks for."""

    kind: str
    """Global, Node or Local_Workload: the first part of its name."""
    address: str
    asn: int
    port: int | None
    """As configured; None = nothing said, so 179."""
    origin: r.BGPPeer
    cluster_id: str = ""
    """The peer's, where it is known."""
    by_address: bool = field(default=False)
    """From peerIP, not from a selector: local AS settings apply."""
    passive: bool = False
    local_workload: bool = False
    family: Family = field(init=False, eq=False)
    """The one family of the session."""
    key: tuple[str, int] = field(init=False, eq=False)
    """(address, port): what two candidates of one owner must not share (6.5)."""

    @family.default
    def _family(self) -> Family:
        return family_of(self.address)

    @key.default
    def _key(self) -> tuple[str, int]:
        return (self.address, self.port or DEFAULT_PORT)

    @property
    def name(self) -> str:
        """The session's name as Calico's status tools know it (6.8)."""
        name = session_name(self.kind, self.address)
        return f"{name}_port_{self.port}" if self.port is not None else name


def session_name(kind: str, address: str) -> str:
    """ "Mesh_10_0_0_9" (6.8)."""
    return f"{kind}_{address.replace('.', '_').replace(':', '_')}"


# --- BGPPeers (6.3 to 6.5)


def explicit_candidates(cluster: Cluster, problems: list[Problem]) -> list[Candidate]:
    """The three passes; an earlier key wins over a later one, whoever owns it. Families that are off are not left out.

    A function of the cluster's hosts, workloads, configuration and BGPPeers alone.
    """
    peers = [cluster.snapshot.of(r.BGPPeer)[name] for name in sorted(cluster.snapshot.of(r.BGPPeer))]
    kept: dict[tuple[str, int], Candidate] = {}

    def keep(found: Iterable[Candidate], *, tell: bool) -> None:
        for candidate in found:
            winner = kept.setdefault(candidate.key, candidate)
            if tell and winner is not candidate:
                _duplicate(winner, candidate, problems)

    keep((c for p in peers if p.is_global for c in _forward("Global", cluster, p)), tell=True)
    keep(
        (c for p in peers if not p.is_global and _is_ours(cluster, p) for c in _forward("Node", cluster, p)), tell=True
    )
    keep((c for p in peers for c in _reverse(cluster, p)), tell=False)
    for peer in peers:
        _check(cluster, peer, problems)
    tables = cluster.memory.table(_TABLES)
    for place in [place for place in tables if place[0] not in cluster.snapshot.of(r.BGPPeer)]:
        del tables[place]
    own = {family: cluster.own.node.address(family) for family in FAMILIES}
    # With this address the peer would be ourselves (6.1).
    return [c for c in kept.values() if own[c.family] != c.address]


def _is_ours(cluster: Cluster, peer: r.BGPPeer) -> bool:
    own = cluster.own.node
    # nodeSelector wins where both are set.
    return peer.node_selector.matches(own.labels) if peer.node_selector is not None else peer.node == own.name


def _forward(kind: str, cluster: Cluster, peer: r.BGPPeer) -> Iterator[Candidate]:
    if peer.peer_ip is not None:
        asn = _asn_of(cluster, peer)
        if asn is not None:
            yield _by_address(kind, cluster, peer, asn)
    elif peer.peer_selector is not None:
        yield from _to_hosts(cluster, kind, peer, cluster.selected(peer.peer_selector), FAMILIES)
    elif peer.local_workload_selector is not None and peer.asn is not None:
        for workload in cluster.workloads:
            if workload.peer == peer.name:
                for address in workload.addresses:
                    # Felix has matched the selector; the pod dials (6.7).
                    yield Candidate("Local_Workload", address, peer.asn, None, peer, passive=True, local_workload=True)


def _to_hosts(
    cluster: Cluster, kind: str, peer: r.BGPPeer, hosts: Iterable[Host], families: tuple[Family, ...]
) -> Iterator[Candidate]:
    """Those of thousands of nodes; the ones that did not change have the same candidates as before."""
    tables = cluster.memory.table(_TABLES)
    place = (peer.name, kind, families)
    if place not in tables or tables[place][0] is not peer:
        tables[place] = (peer, {})
    known = tables[place][1]
    for host in hosts:
        held = known.get(host.name)
        if held is None or held[0] is not host:
            held = known[host.name] = (host, tuple(_to_host(kind, peer, host, families)))
        yield from held[1]
    Memory.trim(known, cluster.hosts_by_name)


def _to_host(kind: str, peer: r.BGPPeer, host: Host, families: Iterable[Family]) -> Iterator[Candidate]:
    for family in families:
        address = host.node.address(family)
        if address:
            yield Candidate(kind, address, host.asn, host.port, peer, host.node.cluster_id)


def _asn_of(cluster: Cluster, peer: r.BGPPeer) -> int | None:
    """The AS of a peer given by address: as written, else the cluster's where the address is a node's of that AS."""
    if peer.asn is not None:
        return peer.asn
    return cluster.asn if any(True for _ in _hosts_at(cluster, peer)) else None


def _by_address(kind: str, cluster: Cluster, peer: r.BGPPeer, asn: int) -> Candidate:
    assert peer.peer_ip is not None
    address, port = peer.peer_ip.address, peer.peer_ip.port
    if port is None:
        port = next((host.port for host in _hosts_at(cluster, peer)), None)
    mine = cluster.own.node.address(peer.peer_ip.family)
    # Only all-nodes sessions to a Calico node have a passive side (6.3, quirk 4); both sides compare the texts.
    passive = kind == "Global" and address in cluster.by_address and address > mine
    return Candidate(kind, address, asn, port, peer, by_address=True, passive=passive)


def _hosts_at(cluster: Cluster, peer: r.BGPPeer) -> Iterator[Host]:
    """The Calico nodes that a peerIP means: same address, same AS, and the port where one is written."""
    assert peer.peer_ip is not None
    for host in cluster.by_address.get(peer.peer_ip.address, ()):
        port_fits = peer.peer_ip.port is None or peer.peer_ip.port == (host.port or DEFAULT_PORT)
        if host.asn == (peer.asn or cluster.asn) and port_fits:
            yield host


def _reverse(cluster: Cluster, peer: r.BGPPeer) -> Iterator[Candidate]:
    """The other side of a peering between Calico nodes (6.5, pass 3)."""
    if peer.reverse_peering is r.ReversePeering.MANUAL or peer.local_workload_selector is not None:
        return
    own = cluster.own.node
    if peer.peer_ip is not None:
        if all(host.node is not own for host in _hosts_at(cluster, peer)):
            return
        families: tuple[Family, ...] = (peer.peer_ip.family,)
    else:
        if peer.peer_selector is None or not peer.peer_selector.matches(own.labels):
            return
        families = FAMILIES
    others = (host for host in _ours(cluster, peer) if host.node is not own)
    yield from _to_hosts(cluster, "Node", peer, others, families)


def _ours(cluster: Cluster, peer: r.BGPPeer) -> Iterable[Host]:
    """The nodes that have this peering."""
    if peer.node_selector is not None:
        return cluster.selected(peer.node_selector)
    return cluster.hosts if not peer.node else (host for host in cluster.hosts if host.name == peer.node)


def _duplicate(winner: Candidate, loser: Candidate, problems: list[Problem]) -> None:
    if winner.origin is loser.origin:
        return
    problems.append(
        Problem(
            object=f"BGPPeer/{loser.origin.name}",
            field="spec.peerIP" if loser.by_address else "spec.peerSelector",
            value=f"{loser.address} port {loser.port or DEFAULT_PORT}",
            allowed="one BGPPeer for a node, address and port; remove one of the two or narrow its selectors",
            text=f"gives no session: BGPPeer {winner.origin.name} gives the same one and is first by name",
            refused=False,
        )
    )


def _check(cluster: Cluster, peer: r.BGPPeer, problems: list[Problem]) -> None:
    """Contradictions that only the whole cluster shows."""
    own = cluster.own.node
    applies = peer.is_global or _is_ours(cluster, peer)
    if peer.peer_ip is not None and peer.node == own.name and peer.node_selector is None:
        if peer.peer_ip.address in (own.ipv4_address, own.ipv6_address):
            text = f"gives no session: the peer is node {own.name} itself"
            problems.append(
                peer_problem(peer, "peerIP", peer.peer_ip.address, text, "another node's or router's address")
            )
    if applies and peer.peer_ip is not None and _asn_of(cluster, peer) is None:
        text = "gives no session: spec.asNumber is missing, and the address is no node's of the cluster's AS"
        problems.append(peer_problem(peer, "asNumber", "", text, ASN_FORM))


def peer_problem(peer: r.BGPPeer, field: str, value: str, text: str, allowed: str) -> Problem:
    return Problem(
        object=f"BGPPeer/{peer.name}", field=f"spec.{field}", value=value, text=text, allowed=allowed, refused=False
    )


def filter_problems(cluster: Cluster) -> Iterator[Problem]:
    """BGPFilters that peers of this node name and that do not exist."""
    known = cluster.snapshot.of(r.BGPFilter)
    for _, peer in sorted(cluster.snapshot.of(r.BGPPeer).items()):
        missing = [name for name in peer.filters if name not in known]
        if missing and (peer.is_global or _is_ours(cluster, peer)):
            text = "names a BGPFilter that does not exist; from there on this peer's routes are rejected"
            for name in missing:
                yield peer_problem(peer, "filters", name, text, "an existing BGPFilter, or leave it out")
