"""The sessions of one node: mesh, global and node peers, reverse peerings (calico-bgp.md §6).

A candidate is a session before its parameters are worked out. Candidates come in passes of falling precedence; per
peer address and port one session runs. In every pass the order is that of names, so that equal resources give equal
sessions on every run.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from operator import attrgetter

from attrs import evolve, field, frozen

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
    """Mesh, Global, Node or Local_Workload: the first part of its name."""
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
    local_workload: bool = False

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
    """The sessions' settings, by name. One that must not run is held down, for a reason named in `problems`."""
    builder = _Builder(cluster, chains, problems)
    # In the candidates' order: that of precedence.
    found = list(_settled([builder.build(candidate) for candidate in wanted], problems))
    return tuple(sorted(found, key=attrgetter("name")))


def candidates(cluster: Cluster, problems: list[Problem]) -> list[Candidate]:
    """Every session that the node should have, before passwords are looked up."""
    explicit = _explicit(cluster, problems)
    own = {family: cluster.own.node.address(family) for family in FAMILIES}
    kept: dict[str, Candidate] = {}
    for candidate in [*explicit, *_mesh(cluster)]:
        # Without an own address the family is off; with this one the peer would be ourselves (6.1).
        if own[candidate.family] and own[candidate.family] != candidate.address:
            # One name twice: two nodes of one address.
            kept.setdefault(candidate.name, candidate)
    return list(kept.values())


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
        for host in cluster.selected(peer.peer_selector):
            yield from _to_host(kind, peer, host, FAMILIES)
    elif peer.local_workload_selector is not None and peer.asn is not None:
        for workload in cluster.workloads:
            if workload.peer == peer.name:
                for address in workload.addresses:
                    # Felix has matched the selector; the pod dials (6.7).
                    yield Candidate("Local_Workload", address, peer.asn, None, peer, passive=True, local_workload=True)


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
    for host in _ours(cluster, peer):
        if host.node is not own:
            yield from _to_host("Node", peer, host, families)


def _ours(cluster: Cluster, peer: r.BGPPeer) -> Iterable[Host]:
    """The nodes that have this peering."""
    if peer.node_selector is not None:
        return cluster.selected(peer.node_selector)
    return cluster.hosts if not peer.node else (host for host in cluster.hosts if host.name == peer.node)


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
    for name in peer.filters if applies else ():
        if name not in cluster.snapshot.of(r.BGPFilter):
            text = "names a BGPFilter that does not exist; from there on this peer's routes are rejected"
            problems.append(_field(peer, "filters", name, text, "an existing BGPFilter, or leave it out"))


def _field(peer: r.BGPPeer, field: str, value: str, text: str, allowed: str) -> Problem:
    return Problem(
        object=f"BGPPeer/{peer.name}", field=f"spec.{field}", value=value, text=text, allowed=allowed, refused=False
    )


# --- parameters (6.6, 6.9)


@frozen
class _Secret:
    """A password, or the reason why there is none although one is asked for."""

    password: str | None = None
    missing: str = ""


class _Builder:
    """Candidates to settings; remembers which secrets it has looked up."""

    def __init__(self, cluster: Cluster, chains: Chains, problems: list[Problem]) -> None:
        self._cluster = cluster
        self._chains = chains
        self._problems = problems
        self._secrets: dict[tuple[str, r.SecretRef], _Secret] = {}

    def build(self, candidate: Candidate) -> PeerSettings:
        peer = candidate.origin
        if peer is None:
            return self._mesh(candidate, self._secret("BGPConfiguration/default", self._cluster.config.mesh_password))
        if candidate.local_workload:
            return self._workload(candidate, peer)
        return self._explicit(candidate, peer, self._secret(f"BGPPeer/{peer.name}", peer.password))

    def _mesh(self, candidate: Candidate, secret: _Secret) -> PeerSettings:
        cluster = self._cluster
        restart = cluster.config.mesh_restart_time
        return PeerSettings(
            name=candidate.name,
            address=candidate.address,
            asn=candidate.asn,
            port=candidate.port or DEFAULT_PORT,
            passive=candidate.passive,
            source_address=cluster.own.node.address(candidate.family),
            password=secret.password,
            disabled=secret.missing,
            families=self._families(candidate, candidate.asn == cluster.own.asn, ()),
            restart_time=120 if restart is None else restart,
            label="node-to-node mesh",
        )

    def _workload(self, candidate: Candidate, peer: r.BGPPeer) -> PeerSettings:
        """A pod of this node: few of the BGPPeer's fields count (6.7), and the pod's own address is the one it has."""
        internal = candidate.asn == (peer.local_asn or self._cluster.own.asn)
        return PeerSettings(
            name=candidate.name,
            address=candidate.address,
            asn=candidate.asn,
            local_asn=peer.local_asn,
            passive=True,
            families=self._families(candidate, internal, peer.filters),
            label=f"BGPPeer {peer.name}",
        )

    def _explicit(self, candidate: Candidate, peer: r.BGPPeer, secret: _Secret) -> PeerSettings:
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
            password=secret.password,
            disabled=secret.missing,
            ttl_security_hops=peer.ttl_security or None,
            families=self._families(candidate, internal, peer.filters),
            keepalive_time=peer.keepalive_time,
            restart_time=120 if peer.restart_time is None else peer.restart_time,
            reflector_client=client,
            cluster_id=cluster_id if client else None,
            next_hop_mode=next_hop,
            allow_local_as=peer.allowed_local_asns if candidate.by_address else 0,
            label=f"BGPPeer {peer.name}",
        )

    def _families(self, candidate: Candidate, internal: bool, filters: tuple[str, ...]) -> tuple[FamilySettings, ...]:
        return self._chains.family(candidate.family, internal=internal, filters=filters)

    def _secret(self, owner: str, reference: r.SecretRef | None) -> _Secret:
        """What a reference leads to; a fault is told once."""
        if reference is None:
            return _NO_SECRET
        key = (owner, reference)
        if key not in self._secrets:
            found = self._find(reference)
            if isinstance(found, Problem):
                self._problems.append(_named(found, owner))
                self._secrets[key] = _Secret(missing=found.text.partition(", so ")[0])
            else:
                self._secrets[key] = _Secret(found)
        return self._secrets[key]

    def _find(self, reference: r.SecretRef) -> str | Problem:
        space = self._cluster.env.get("NAMESPACE", "") or "kube-system"
        secrets = self._cluster.snapshot.of(r.Secret)
        secret = secrets.get(f"{space}/{reference.name}") or secrets.get(f"/{reference.name}")
        closed = "so its sessions are held down rather than run without a password"
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


_NO_SECRET = _Secret()


def _named(problem: Problem, owner: str) -> Problem:
    field_name = "spec.password" if owner.startswith("BGPPeer/") else "spec.nodeMeshPassword"
    return evolve(problem, object=owner, field=field_name, refused=False)


# --- several sessions to one address


def _settled(peers: list[PeerSettings], problems: list[Problem]) -> Iterator[PeerSettings]:
    """Hold down what cannot run beside another session to the same address.

    Two to one address and port: BIRD runs one of them at a time, here it is the BGPPeer's rather than the mesh's. Two
    to different ports share the address's TCP-MD5 key and TTL rule, as the kernel tells incoming connections apart by
    nothing else.
    """
    first: dict[str, list[PeerSettings]] = {}
    for peer in peers:
        others = first.setdefault(peer.address, [])
        reason = next((text for other in others if (text := _clash(other, peer))), "")
        if reason and not peer.disabled:
            if not peer.name.startswith("Mesh_"):
                problems.append(_clashes(peer, reason))
            peer = evolve(peer, disabled=reason)
        elif not peer.disabled:
            others.append(peer)
        yield peer


def _clash(other: PeerSettings, peer: PeerSettings) -> str:
    if other.port == peer.port:
        return f"session {other.name} is to the same address and port"
    if (other.password, other.ttl_security_hops) != (peer.password, peer.ttl_security_hops):
        return f"session {other.name} to the same address has another password or another ttlSecurity"
    return ""


def _clashes(peer: PeerSettings, reason: str) -> Problem:
    return Problem(
        object=peer.label.replace(" ", "/"),
        field="spec",
        value=f"{peer.address} port {peer.port}",
        allowed="one password and one ttlSecurity for all ports of an address",
        text=f"its session is held down: {reason}",
        refused=False,
    )
