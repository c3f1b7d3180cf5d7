"""The settings of a node's sessions (calico-bgp.md 6.2, 6.6, 6.9).

Sessions name their policy chains (`config.chains`), so that a changed chain costs no session anything; and of
thousands of sessions, a changed node costs its own alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from operator import attrgetter

from attrs import evolve, frozen

from bgpd.family import FAMILIES, Family
from bgpd.settings import NextHopMode, PeerSettings
from config import resources as r
from config.candidates import Candidate, explicit_candidates, session_name
from config.chains import Policy, families
from config.cluster import DEFAULT_PORT, Cluster, Host
from config.memory import Memory
from config.passwords import Password, Passwords
from config.problems import Problem

__all__ = ["Sessions", "sessions"]

_NEXT_HOP = {
    None: NextHopMode.AUTO,
    r.NextHop.AUTO: NextHopMode.AUTO,
    r.NextHop.SELF: NextHopMode.SELF,
    r.NextHop.KEEP: NextHopMode.KEEP,
}


@frozen(eq=False)
class Sessions:
    """Which sessions there are. The same object while none of them changes."""

    explicit: tuple[Candidate, ...]
    peers: tuple[PeerSettings, ...]
    """Those of BGPPeers by name, then the mesh by family and node."""
    policies: tuple[Policy, ...]
    """Whose chains they name."""
    problems: tuple[Problem, ...]


def sessions(cluster: Cluster) -> Sessions:
    """Every session that the node should have. One that must not run is held down, for a reason in `problems`."""
    snapshot = cluster.snapshot
    inputs = (
        cluster.hosts,
        cluster.own,
        cluster.config,
        cluster.workloads,
        snapshot.of(r.BGPPeer),
        snapshot.of(r.Secret),
    )
    return cluster.memory.made("sessions", inputs, lambda: _sessions(cluster))


def _sessions(cluster: Cluster) -> Sessions:
    problems: list[Problem] = []
    passwords = Passwords(cluster, problems)
    explicit = tuple(explicit_candidates(cluster, problems))
    policies = {_policy(cluster, candidate) for candidate in explicit}
    settled = _settled([_session(cluster, candidate, passwords) for candidate in explicit], problems)
    running = {(peer.address, peer.port): peer for peer in settled if not peer.disabled}
    peers = sorted(settled, key=attrgetter("name"))
    for policy, found in _mesh(cluster, running, {peer.address: peer for peer in running.values()}, passwords):
        policies.add(policy)
        peers += found
    return Sessions(explicit, cluster.memory.shared("peers", tuple(peers)), tuple(sorted(policies)), tuple(problems))


# --- mesh (6.2)


def _mesh(
    cluster: Cluster,
    running: dict[tuple[str, int], PeerSettings],
    addresses: dict[str, PeerSettings],
    passwords: Passwords,
) -> Iterator[tuple[Policy, tuple[PeerSettings, ...]]]:
    """The mesh's sessions, by policy and node. A BGPPeer's session to the same address and port stands for them."""
    own = cluster.own.node
    if not cluster.config.mesh or own.cluster_id:
        return
    password = passwords.of("BGPConfiguration/default", cluster.config.mesh_password)
    password = cluster.memory.shared("mesh password", password)
    for family in FAMILIES:
        mine = own.address(family)
        if not mine:
            continue
        inputs = (cluster.own, cluster.config, password)
        known = cluster.memory.table(("mesh", family), inputs)
        inside: list[PeerSettings] = []
        outside: list[PeerSettings] = []
        for host in cluster.hosts:
            held = known.get(host.name)
            if held is None or held[0] is not host:
                held = known[host.name] = (host, _mesh_session(cluster, host, family, mine, password))
            peer = held[1]
            if peer is not None:
                if peer.address in addresses:
                    peer = _beside(peer, (running.get((peer.address, peer.port)), addresses[peer.address]))
                (inside if host.asn == cluster.own.asn else outside).append(peer)
        Memory.trim(known, cluster.hosts_by_name)
        for internal, found in ((True, inside), (False, outside)):
            if found:
                yield Policy(family, internal), _unique(cluster, found)


def _mesh_session(cluster: Cluster, host: Host, family: Family, mine: str, password: Password) -> PeerSettings | None:
    address = host.node.address(family)
    if host.node is cluster.own.node or host.node.cluster_id or not address or address == mine:
        return None
    restart = cluster.config.mesh_restart_time
    return PeerSettings(
        name=session_name("Mesh", address),
        address=address,
        asn=host.asn,
        port=host.port or DEFAULT_PORT,
        # Both sides compare the texts, so exactly one of them dials.
        passive=address > mine,
        source_address=mine,
        password=password.key,
        disabled=password.missing,
        families=families(cluster, Policy(family, host.asn == cluster.own.asn)),
        restart_time=120 if restart is None else restart,
        label="node-to-node mesh",
    )


def _beside(peer: PeerSettings, others: Iterable[PeerSettings | None]) -> PeerSettings:
    reason = next((text for other in others if other is not None and (text := _clash(other, peer))), "")
    return evolve(peer, disabled=reason) if reason and not peer.disabled else peer


def _unique(cluster: Cluster, peers: list[PeerSettings]) -> tuple[PeerSettings, ...]:
    """Of several nodes with one address, the first by name."""
    if all(len(hosts) == 1 for hosts in cluster.by_address.values()):
        return tuple(peers)
    unique: dict[str, PeerSettings] = {}
    for peer in peers:
        unique.setdefault(peer.name, peer)
    return tuple(unique.values())


# --- sessions of BGPPeers (6.6, 6.9)


def _internal(cluster: Cluster, candidate: Candidate) -> bool:
    return candidate.asn == (_local_asn(candidate) or cluster.own.asn)


def _local_asn(candidate: Candidate) -> int | None:
    """localASNumber is not for peerSelector peers (quirk 18)."""
    return candidate.origin.local_asn if candidate.by_address or candidate.local_workload else None


def _policy(cluster: Cluster, candidate: Candidate) -> Policy:
    return Policy(candidate.family, _internal(cluster, candidate), candidate.origin.filters)


def _session(cluster: Cluster, candidate: Candidate, passwords: Passwords) -> PeerSettings:
    if candidate.local_workload:
        return _workload(cluster, candidate)
    return _explicit(cluster, candidate, passwords.of(f"BGPPeer/{candidate.origin.name}", candidate.origin.password))


def _workload(cluster: Cluster, candidate: Candidate) -> PeerSettings:
    """A pod of this node: few of the BGPPeer's fields count (6.7), and the pod dials whatever address it knows."""
    return PeerSettings(
        name=candidate.name,
        address=candidate.address,
        asn=candidate.asn,
        local_asn=_local_asn(candidate),
        passive=True,
        families=families(cluster, _policy(cluster, candidate)),
        label=f"BGPPeer {candidate.origin.name}",
    )


def _explicit(cluster: Cluster, candidate: Candidate, password: Password) -> PeerSettings:
    own, peer = cluster.own, candidate.origin
    internal = _internal(cluster, candidate)
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
        local_asn=_local_asn(candidate),
        port=candidate.port or DEFAULT_PORT,
        passive=candidate.passive,
        source_address=own.node.address(candidate.family) if use_own else None,
        password=password.key,
        disabled=password.missing,
        ttl_security_hops=peer.ttl_security or None,
        families=families(cluster, _policy(cluster, candidate)),
        keepalive_time=peer.keepalive_time,
        restart_time=120 if peer.restart_time is None else peer.restart_time,
        reflector_client=client,
        cluster_id=cluster_id if client else None,
        next_hop_mode=next_hop,
        allow_local_as=peer.allowed_local_asns if candidate.by_address else 0,
        label=f"BGPPeer {peer.name}",
    )


# --- several sessions to one address


def _settled(peers: list[PeerSettings], problems: list[Problem]) -> list[PeerSettings]:
    """Hold down what cannot run beside an earlier session to the same address.

    Two to different ports share the address's TCP-MD5 key and TTL rule, as the kernel tells incoming connections apart
    by nothing else.
    """
    running: dict[str, list[PeerSettings]] = {}
    settled: list[PeerSettings] = []
    for peer in peers:
        others = running.setdefault(peer.address, [])
        reason = next((text for other in others if (text := _clash(other, peer))), "")
        if reason and not peer.disabled:
            problems.append(_clash_problem(peer, reason))
            peer = evolve(peer, disabled=reason)
        elif not peer.disabled:
            others.append(peer)
        settled.append(peer)
    return settled


def _clash(other: PeerSettings, peer: PeerSettings) -> str:
    if other.port == peer.port:
        return f"session {other.name} is to the same address and port"
    if (other.password, other.ttl_security_hops) != (peer.password, peer.ttl_security_hops):
        return f"session {other.name} to the same address has another password or another ttlSecurity"
    return ""


def _clash_problem(peer: PeerSettings, reason: str) -> Problem:
    return Problem(
        object=peer.label.replace(" ", "/"),
        field="spec",
        value=f"{peer.address} port {peer.port}",
        allowed="one password and one ttlSecurity for all ports of an address",
        text=f"its session is held down: {reason}",
        refused=False,
    )
