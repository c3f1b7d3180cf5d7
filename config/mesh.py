"""The node-to-node mesh (calico-bgp.md 6.2): one session a family with every other node that is no reflector.

Of thousands of sessions, a changed node costs its own alone.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from operator import is_

from attrs import evolve, frozen

from bgpd.family import FAMILIES, Family
from bgpd.sequences import parted
from bgpd.settings import PeerSettings
from config.candidates import session_name
from config.chains import Policy, families
from config.cluster import DEFAULT_PORT, Cluster
from config.hosts import Host
from config.memory import Memory
from config.passwords import Password, Passwords

__all__ = ["clash", "held_down", "mesh"]

_HELD = 20_000
"""Sessions held down that are remembered."""
Make = Callable[[Host], PeerSettings | None]


@frozen(eq=False)
class _Mesh:
    """The sessions of one family."""

    hosts: tuple[Host, ...]
    names: tuple[str, ...]
    """Of the nodes to which there are sessions, in order."""
    peers: tuple[PeerSettings, ...]
    """In the same order."""
    external: int
    """How many go to another AS."""

    def after(self, hosts: tuple[Host, ...], make: Make, asn: int) -> _Mesh:
        """With other nodes; `make` must give for the others what it gave before. `asn`: our own."""
        gone, come = parted(self.hosts, hosts)
        names, peers, external = list(self.names), list(self.peers), self.external
        for host in gone:
            place = bisect_left(names, host.name)
            if place < len(names) and names[place] == host.name:
                del names[place]
                external -= peers.pop(place).asn != asn
        for host in come:
            peer = make(host)
            if peer is not None:
                place = bisect_left(names, host.name)
                names.insert(place, host.name)
                peers.insert(place, peer)
                external += peer.asn != asn
        return _Mesh(hosts, tuple(names), tuple(peers), external)


_NONE = _Mesh((), (), (), 0)


def mesh(
    cluster: Cluster, explicit: Sequence[PeerSettings], passwords: Passwords
) -> Iterator[tuple[list[Policy], tuple[PeerSettings, ...]]]:
    """The mesh's sessions by family, with the policies that are theirs, by node.

    A BGPPeer's session to the same address and port, of those in `explicit`, stands for them.
    """
    own, memory = cluster.own.node, cluster.memory
    if not cluster.config.mesh or own.cluster_id:
        return
    password = passwords.of("BGPConfiguration/default", cluster.config.mesh_password)
    password = memory.shared("mesh password", password)
    running = memory.shared("running sessions", tuple(peer for peer in explicit if not peer.disabled))
    for family in FAMILIES:
        if not own.address(family):
            continue
        found = _of_family(cluster, family, password, running)
        internal = (len(found.peers) > found.external, True), (found.external > 0, False)
        yield [Policy(family, inside) for there, inside in internal if there], _unique(cluster, found.peers)


def _of_family(cluster: Cluster, family: Family, password: Password, running: tuple[PeerSettings, ...]) -> _Mesh:
    memory, asn = cluster.memory, cluster.own.asn
    known = memory.table(("mesh sessions", family), (cluster.own, cluster.config, password))
    at: dict[str, dict[int, PeerSettings]] = {}
    for other in running:
        at.setdefault(other.address, {})[other.port] = other

    def make(host: Host) -> PeerSettings | None:
        held = known.get(host.name)
        if held is None or held[0] is not host:
            held = known[host.name] = (host, _session(cluster, host, family, password))
        peer: PeerSettings | None = held[1]
        return peer if peer is None or peer.address not in at else _beside(memory, peer, at[peer.address])

    Memory.trim(known, cluster.hosts_by_name)
    inputs = (cluster.own, cluster.config, password, running)
    last = memory.last(("mesh", family))
    usable = last is not None and all(map(is_, last[0], inputs))
    before: _Mesh = last[1] if last is not None and usable else _NONE
    return memory.made(("mesh", family), (*inputs, cluster.hosts), lambda: before.after(cluster.hosts, make, asn))


def _session(cluster: Cluster, host: Host, family: Family, password: Password) -> PeerSettings | None:
    address, mine = host.node.address(family), cluster.own.node.address(family)
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
        enforce_first_as=False,
        allow_own_cluster=True,
        label="node-to-node mesh",
    )


def _beside(memory: Memory, peer: PeerSettings, others: dict[int, PeerSettings]) -> PeerSettings:
    """A session to an address to which there are others; the last of them stands for all but the one to its port."""
    several = (others.get(peer.port), next(reversed(others.values())))
    reason = next((text for other in several if other is not None and (text := clash(other, peer))), "")
    return held_down(memory, peer, reason) if reason and not peer.disabled else peer


def _unique(cluster: Cluster, peers: tuple[PeerSettings, ...]) -> tuple[PeerSettings, ...]:
    """Of several nodes with one address, the first by name."""
    if cluster.unique_addresses:
        return peers
    unique: dict[str, PeerSettings] = {}
    for peer in peers:
        unique.setdefault(peer.name, peer)
    return tuple(unique.values())


# --- several sessions to one address


def clash(other: PeerSettings, peer: PeerSettings) -> str:
    """Why a session cannot run beside another to the same address, or ""."""
    if other.port == peer.port:
        return f"session {other.name} is to the same address and port"
    if (other.password, other.ttl_security_hops) != (peer.password, peer.ttl_security_hops):
        return f"session {other.name} to the same address has another password or another ttlSecurity"
    return ""


def held_down(memory: Memory, peer: PeerSettings, reason: str) -> PeerSettings:
    """The session, that must not run."""
    known = memory.table("held down")
    if len(known) >= _HELD:
        known.clear()
    wanted = evolve(peer, disabled=reason)
    held: PeerSettings = known.setdefault(peer.name, wanted)
    if held != wanted:
        held = known[peer.name] = wanted
    return held
