"""The sessions of one node: mesh, global and node peers, reverse peerings (calico-bgp.md §6).

A candidate is a session before its parameters are worked out. Candidates come in passes of falling precedence; per
peer address one session results, as connections are told apart by the peer's address alone. In every pass the order is
that of names, so that equal resources give equal sessions on every run.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from attrs import field, frozen

from bgpd.family import FAMILIES, Family, family_of
from bgpd.settings import FamilySettings, NextHopMode, PeerSettings
from config import resources as r
from config.chains import Chains
from config.cluster import DEFAULT_PORT, Cluster, Host
from config.problems import Problem
from config.values import ASN_FORM

__all__ = ["Candidate", "candidates", "peer_settings"]

PASSWORD_LIMIT = 80
"""Octets of a TCP-MD5 key (Linux)."""
_NEXT_HOP = {
    None: NextHopMode.AUTO,
    r.NextHop.AUTO: NextHopMode.AUTO,
    r.NextHop.SELF: NextHopMode.SELF,
    r.NextHop.KEEP: NextHopMode.KEEP,
}


@frozen
class Candidate:
    """One wanted session."""

    kind: str
    """Mesh, Global or Node: the first part of its name."""
    address: str
    asn: int
    port: int | None
    """As configured; None = nothing said, so 179."""
    origin: r.BGPPeer | None
    """None: the mesh."""
    cluster_id: str = ""
    """The peer's, where it is known."""
    by_address: bool = field(default=False)
    """From peerIP, not from a selector: local AS settings apply."""
    passive: bool = False

    @property
    def family(self) -> Family:
        """The one family of the session."""
        return family_of(self.address)

    @property
    def key(self) -> tuple[str, int]:
        """What two candidates of one owner must not share (6.5)."""
        return (self.address, self.port or DEFAULT_PORT)

    @property
    def name(self) -> str:
        """The session's name as Calico's status tools know it (6.8)."""
        name = f"{self.kind}_{self.address.replace('.', '_').replace(':', '_')}"
        return f"{name}_port_{self.port}" if self.port is not None and self.origin is not None else name


def peer_settings(
    cluster: Cluster, wanted: Iterable[Candidate], chains: Chains, problems: list[Problem]
) -> tuple[PeerSettings, ...]:
    """The sessions' settings, by name. What cannot be had is left out and named in `problems`."""
    builder = _Builder(cluster, chains, problems)
    found = (builder.build(candidate) for candidate in wanted)
    return tuple(sorted((peer for peer in found if peer is not None), key=lambda peer: peer.name))


def candidates(cluster: Cluster, problems: list[Problem]) -> list[Candidate]:
    """Every session that the node should have, before passwords are looked up."""
    explicit = _explicit(cluster, problems)
    own = {family: cluster.own.node.address(family) for family in FAMILIES}
    kept: dict[str, Candidate] = {}
    for candidate in [*explicit, *_mesh(cluster)]:
        mine = own[candidate.family]
        # Without an own address the family is off; with this one the peer would be ourselves (6.1).
        if not mine or mine == candidate.address:
            continue
        winner = kept.setdefault(candidate.address, candidate)
        if winner is not candidate:
            _conflict(winner, candidate, problems)
    return list(kept.values())


def _conflict(winner: Candidate, loser: Candidate, problems: list[Problem]) -> None:
    """Say so where two BGPPeers want different sessions to one address; the rest is settled by precedence alone."""
    if loser.origin is None or winner.origin is None or winner.origin is loser.origin or winner.key == loser.key:
        return
    problems.append(
        Problem(
            object=f"BGPPeer/{loser.origin.name}",
            field="spec.peerIP" if loser.by_address else "spec.peerSelector",
            value=f"{loser.address} port {loser.port or DEFAULT_PORT}",
            allowed="one session per address; remove one of the two, or give the peer a second address",
            text=f"gives no session: BGPPeer {winner.origin.name} has one to that address, port {winner.key[1]}",
            refused=False,
        )
    )


# --- mesh (6.2)


def _mesh(cluster: Cluster) -> Iterator[Candidate]:
    own = cluster.own.node
    if not cluster.config.mesh or own.cluster_id:
        return
    for host in cluster.hosts:
        if host.node is own or host.node.cluster_id:
            continue
        for family in FAMILIES:
            address, mine = host.node.address(family), own.address(family)
            if address and mine:
                # Both sides compare the texts, so exactly one of them dials.
                yield Candidate("Mesh", address, host.asn, host.port, None, passive=address > mine)


# --- BGPPeers (6.3 to 6.5)


def _explicit(cluster: Cluster, problems: list[Problem]) -> list[Candidate]:
    """The three passes; an earlier key wins over a later one, whoever owns it."""
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
    return list(kept.values())


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
        for host in cluster.hosts:
            if peer.peer_selector.matches(host.node.labels):
                yield from _to_host(kind, peer, host, FAMILIES)


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
    for host in cluster.hosts:
        if host.node is not own and _selects(peer, host):
            yield from _to_host("Node", peer, host, families)


def _selects(peer: r.BGPPeer, host: Host) -> bool:
    if peer.node_selector is not None:
        return peer.node_selector.matches(host.node.labels)
    return not peer.node or peer.node == host.name


def _duplicate(winner: Candidate, loser: Candidate, problems: list[Problem]) -> None:
    assert winner.origin is not None and loser.origin is not None
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
            problems.append(_field(peer, "peerIP", peer.peer_ip.address, text, "another node's or router's address"))
    if applies and peer.peer_ip is not None and _asn_of(cluster, peer) is None:
        text = "gives no session: spec.asNumber is missing, and the address is no node's of the cluster's AS"
        problems.append(_field(peer, "asNumber", "", text, ASN_FORM))
    if applies and peer.local_workload_selector is not None:
        text = "is without effect: peering with local pods is not supported yet"
        problems.append(_field(peer, "localWorkloadSelector", peer.local_workload_selector.text, text, ""))
    for name in peer.filters if applies else ():
        if name not in cluster.snapshot.of(r.BGPFilter):
            text = "names a BGPFilter that does not exist; from there on this peer's routes are rejected"
            problems.append(_field(peer, "filters", name, text, "an existing BGPFilter, or leave it out"))


def _field(peer: r.BGPPeer, field: str, value: str, text: str, allowed: str) -> Problem:
    return Problem(
        object=f"BGPPeer/{peer.name}", field=f"spec.{field}", value=value, text=text, allowed=allowed, refused=False
    )


# --- parameters (6.6, 6.9)


class _Builder:
    """Candidates to settings; remembers which secrets it has complained about."""

    def __init__(self, cluster: Cluster, chains: Chains, problems: list[Problem]) -> None:
        self._cluster = cluster
        self._chains = chains
        self._problems = problems
        self._passwords: dict[tuple[str, r.SecretRef], str | None] = {}

    def build(self, candidate: Candidate) -> PeerSettings | None:
        peer = candidate.origin
        password: str | None = None
        reference = self._cluster.config.mesh_password if peer is None else peer.password
        if reference is not None:
            owner = "BGPConfiguration/default" if peer is None else f"BGPPeer/{peer.name}"
            password = self._password(owner, reference, mesh=peer is None)
            if password is None:
                return None
        return self._mesh(candidate, password) if peer is None else self._explicit(candidate, peer, password)

    def _mesh(self, candidate: Candidate, password: str | None) -> PeerSettings:
        cluster = self._cluster
        restart = cluster.config.mesh_restart_time
        return PeerSettings(
            name=candidate.name,
            address=candidate.address,
            asn=candidate.asn,
            port=candidate.port or DEFAULT_PORT,
            passive=candidate.passive,
            source_address=cluster.own.node.address(candidate.family),
            password=password,
            families=(self._family(candidate, candidate.asn == cluster.own.asn, ()),),
            restart_time=120 if restart is None else restart,
            label="node-to-node mesh",
        )

    def _explicit(self, candidate: Candidate, peer: r.BGPPeer, password: str | None) -> PeerSettings:
        own = self._cluster.own
        local_asn = peer.local_asn if candidate.by_address else None
        internal = candidate.asn == (local_asn or own.asn)
        cluster_id = own.node.cluster_id
        client = bool(cluster_id) and internal and candidate.cluster_id != cluster_id
        next_hop = _NEXT_HOP[peer.next_hop_mode]
        if peer.next_hop_mode is None and peer.keep_original_next_hop and not internal:
            next_hop = NextHopMode.KEEP
        use_own = peer.source_address is r.SourceAddress.USE_NODE_IP
        return PeerSettings(
            name=candidate.name,
            address=candidate.address,
            asn=candidate.asn,
            local_asn=local_asn,
            port=candidate.port or DEFAULT_PORT,
            passive=candidate.passive,
            source_address=own.node.address(candidate.family) if use_own else None,
            password=password,
            ttl_security_hops=peer.ttl_security or None,
            families=(self._family(candidate, internal, peer.filters),),
            keepalive_time=peer.keepalive_time,
            restart_time=120 if peer.restart_time is None else peer.restart_time,
            reflector_client=client,
            cluster_id=cluster_id if client else None,
            next_hop_mode=next_hop,
            allow_local_as=peer.allowed_local_asns if candidate.by_address else 0,
            label=f"BGPPeer {peer.name}",
        )

    def _family(self, candidate: Candidate, internal: bool, filters: tuple[str, ...]) -> FamilySettings:
        family = candidate.family
        return FamilySettings(
            family,
            import_chain=self._chains.import_(family, internal=internal, filters=filters),
            export_chain=self._chains.export(family, internal=internal, filters=filters),
        )

    def _password(self, owner: str, reference: r.SecretRef, *, mesh: bool) -> str | None:
        """The password; None, told once, where there is none: then there must be no session either."""
        key = (owner, reference)
        if key not in self._passwords:
            found = self._find(reference)
            if isinstance(found, Problem):
                self._problems.append(_named(found, owner, mesh))
            self._passwords[key] = None if isinstance(found, Problem) else found
        return self._passwords[key]

    def _find(self, reference: r.SecretRef) -> str | Problem:
        space = self._cluster.env.get("NAMESPACE", "") or "kube-system"
        secrets = self._cluster.snapshot.of(r.Secret)
        secret = secrets.get(f"{space}/{reference.name}") or secrets.get(f"/{reference.name}")
        closed = "so its sessions are left out rather than run without a password"
        if secret is None:
            text = f"Secret {reference.name} is not there (namespace {space}), {closed}"
            return Problem(object="", value=reference.name, text=text, allowed="an existing Secret")
        value = secret.data.get(reference.key)
        if not value:
            text = f"Secret {reference.name} has no key {reference.key}, or it is empty, {closed}"
            return Problem(object="", value=reference.key, text=text, allowed="a key of the Secret")
        try:
            text = value.decode()
        except UnicodeDecodeError:
            text = ""
        if not text or len(value) > PASSWORD_LIMIT or "\0" in text:
            words = f"key {reference.key} of Secret {reference.name} cannot be a TCP-MD5 key, {closed}"
            return Problem(object="", text=words, allowed=f"UTF-8 text of 1-{PASSWORD_LIMIT} octets")
        return text


def _named(problem: Problem, owner: str, mesh: bool) -> Problem:
    field_name = "spec.nodeMeshPassword" if mesh else "spec.password"
    return Problem(
        object=owner, field=field_name, value=problem.value, text=problem.text, allowed=problem.allowed, refused=False
    )
