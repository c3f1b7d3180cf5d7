"""The settings of a node's sessions (calico-bgp.md 6.2, 6.6, 6.9).

Sessions name their policy chains (`config.chains`), so that a changed chain costs no session anything. Those that do
not change are the same objects from one compile to the next.
"""

from __future__ import annotations

from attrs import frozen

from bgpd.settings import NextHopMode, PeerSettings
from config import resources as r
from config.candidates import Candidate, explicit_candidates
from config.chains import Policy, families
from config.cluster import DEFAULT_PORT, Cluster
from config.memory import Memory
from config.mesh import clash, held_down, mesh
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

    gateways: tuple[Candidate, ...]
    """Those whose BGPPeer says by which gateway the peer is reached."""
    peers: tuple[PeerSettings, ...]
    """Those of BGPPeers in their order, then the mesh by family and node."""
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
    memory, own = cluster.memory, cluster.own.node
    wanted = explicit_candidates(cluster, problems)
    # Without an own address the family is off; routes to its peers by gateways stand nevertheless (7.3).
    explicit = tuple(one for one in wanted if own.address(one.family))
    built, policies = _built(cluster, explicit, passwords)
    peers = _settled(memory, built, problems)
    for theirs, found in mesh(cluster, peers, passwords):
        policies.update(theirs)
        peers += found
    return Sessions(
        memory.shared("gateways", tuple(one for one in wanted if one.origin.reachable_by)),
        memory.shared("peers", tuple(peers)),
        tuple(sorted(policies)),
        tuple(problems),
    )


# --- sessions of BGPPeers (6.6, 6.9)


def _built(
    cluster: Cluster, explicit: tuple[Candidate, ...], passwords: Passwords
) -> tuple[list[PeerSettings], set[Policy]]:
    """The sessions, and the policies that they name. On a reflector they are thousands: those whose candidate is what
    it was are taken over."""
    known = cluster.memory.table("explicit sessions", (cluster.own,))
    if len(known) > 2 * len(explicit) + 64:
        known.clear()
    of_peer: dict[str, Password] = {}
    policies: dict[int, Policy] = {}
    built: list[PeerSettings] = []
    for candidate in explicit:
        origin = candidate.origin
        password = of_peer.get(origin.name)
        if password is None:
            password = of_peer[origin.name] = _password(candidate, passwords)
        last = known.get(candidate.key)
        if last is None or not (_same(last[0], candidate) and _same(last[1], password)):
            last = known[candidate.key] = (candidate, password, _session(cluster, candidate, password))
        peer: PeerSettings = last[2]
        built.append(peer)
        if id(peer.families) not in policies:
            policies[id(peer.families)] = _policy(cluster, candidate)
    return built, set(policies.values())


def _same(one: object, other: object) -> bool:
    return one is other or one == other


def _password(candidate: Candidate, passwords: Passwords) -> Password:
    """A pod's session has none (6.7)."""
    reference = None if candidate.local_workload else candidate.origin.password
    return passwords.of(f"BGPPeer/{candidate.origin.name}", reference)


def _session(cluster: Cluster, candidate: Candidate, password: Password) -> PeerSettings:
    return _workload(cluster, candidate) if candidate.local_workload else _explicit(cluster, candidate, password)


def _internal(cluster: Cluster, candidate: Candidate) -> bool:
    return candidate.asn == (_local_asn(candidate) or cluster.own.asn)


def _local_asn(candidate: Candidate) -> int | None:
    """localASNumber is not for peerSelector peers (quirk 18)."""
    return candidate.origin.local_asn if candidate.by_address or candidate.local_workload else None


def _policy(cluster: Cluster, candidate: Candidate) -> Policy:
    return Policy(candidate.family, _internal(cluster, candidate), candidate.origin.filters)


def _cluster_id(cluster: Cluster, candidate: Candidate) -> str | None:
    """Our cluster id where the peer is a reflector client of ours (6.6); None where it is none."""
    own = cluster.own.node.cluster_id
    return own if own and _internal(cluster, candidate) and candidate.cluster_id != own else None


def _workload(cluster: Cluster, candidate: Candidate) -> PeerSettings:
    """A pod of this node: few of the BGPPeer's fields count (6.7), and the pod dials whatever address it knows."""
    cluster_id = _cluster_id(cluster, candidate)
    return PeerSettings(
        name=candidate.name,
        address=candidate.address,
        asn=candidate.asn,
        local_asn=_local_asn(candidate),
        passive=True,
        families=families(cluster, _policy(cluster, candidate)),
        reflector_client=cluster_id is not None,
        cluster_id=cluster_id,
        enforce_first_as=False,
        allow_own_cluster=cluster_id is None,
        label=f"BGPPeer {candidate.origin.name}",
    )


def _explicit(cluster: Cluster, candidate: Candidate, password: Password) -> PeerSettings:
    own, peer = cluster.own, candidate.origin
    internal = _internal(cluster, candidate)
    cluster_id = _cluster_id(cluster, candidate)
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
        reflector_client=cluster_id is not None,
        cluster_id=cluster_id,
        next_hop_mode=next_hop,
        allow_local_as=peer.allowed_local_asns if candidate.by_address else 0,
        # As with BIRD: a route server's paths do not begin with its own AS (RFC 4271 §6.3 leaves the check open).
        enforce_first_as=False,
        # As with BIRD (6.6), which looks for the own cluster id in what clients send, and nowhere else.
        allow_own_cluster=cluster_id is None,
        label=f"BGPPeer {peer.name}",
    )


# --- several sessions to one address


def _settled(memory: Memory, peers: list[PeerSettings], problems: list[Problem]) -> list[PeerSettings]:
    """Hold down what cannot run beside an earlier session to the same address.

    Two to different ports share the address's TCP-MD5 key and TTL rule, as the kernel tells incoming connections apart
    by nothing else.
    """
    if len({peer.address for peer in peers}) == len(peers):
        return peers
    running: dict[str, list[PeerSettings]] = {}
    settled: list[PeerSettings] = []
    for peer in peers:
        others = running.setdefault(peer.address, [])
        reason = next((text for other in others if (text := clash(other, peer))), "")
        if reason and not peer.disabled:
            problems.append(_clash_problem(peer, reason))
            peer = held_down(memory, peer, reason)
        elif not peer.disabled:
            others.append(peer)
        settled.append(peer)
    return settled


def _clash_problem(peer: PeerSettings, reason: str) -> Problem:
    return Problem(
        object=peer.label.replace(" ", "/"),
        field="spec",
        value=f"{peer.address} port {peer.port}",
        allowed="one password and one ttlSecurity for all ports of an address",
        text=f"its session is held down: {reason}",
        refused=False,
    )
