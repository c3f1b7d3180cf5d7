"""The speaker in BIRD's terms, one family at a time, as plain values."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from datetime import datetime

from attrs import frozen

from bgpd.api.counts import slices
from bgpd.api.limits import Pace
from bgpd.api.render import prefix
from bgpd.api.state import DaemonState
from bgpd.family import Family, format_address
from bgpd.peer import Peer
from bgpd.policy.terms import SourceKind
from bgpd.rib.decision import best, gateways, multipath, paths
from bgpd.rib.path import Entry, Path
from bgpd.routes import Hop, RouteKind
from bgpd.session.fsm import State
from bgpd.speaker import Speaker

__all__ = [
    "BUILT_IN",
    "Agent",
    "Protocol",
    "Route",
    "Way",
    "agent",
    "bird_version",
    "peers_of",
    "protocol_name",
    "protocols",
    "route",
    "routes",
]

BUILT_IN = {"static": "static1", "kernel": "kernel1", "device": "device1", "direct": "direct1"}
"""Names that BIRD gives to Calico's protocols beside BGP."""
_TODAY = 20 * 3600
"""Seconds for which a time is shown without its date (BIRD's `timeformat protocol iso short`)."""
_MULTIPATH = 16


@frozen
class Protocol:
    """A row of `show protocols`."""

    name: str
    kind: str
    """BGP, Static, Kernel, Device or Direct."""
    state: str
    """up, start or down."""
    since: float
    """Wall clock."""
    address: str = ""
    """BGP: the peer's."""
    bgp_state: str = ""
    """Idle, Connect, Active, OpenSent, OpenConfirm, Established, Passive or Down."""
    trouble: str = ""
    """ "Socket: Connection refused"; "" where nothing is wrong."""


@frozen
class Way:
    """Where packets go: `kind` is via, dev, blackhole, unreachable or multipath."""

    kind: str
    gateway: str = ""
    interface: str = ""
    hops: tuple[tuple[str, str], ...] = ()
    """Multipath: (gateway, interface) of each."""


@frozen
class Route:
    """One path of a prefix."""

    prefix: str
    way: Way
    primary: bool
    path: Path


@frozen
class Agent:
    """What `show status` says."""

    version: str
    router_id: str
    now: float
    boot: float
    reconfigured: float
    recovering: bool
    waiting: int
    """Protocols that recovery waits for."""
    waits: float
    """Seconds that it has waited."""
    limit: float
    """Seconds after which it ends regardless."""


def bird_version(state: DaemonState) -> str:
    """What stands for BIRD's version, in the form of Calico's own ("v0.3.3+birdv1.6.8")."""
    return f"v{state.version.partition(' ')[0]}+calico-bgpd"


def wall(state: DaemonState, at: float) -> float:
    """The speaker's clock as wall clock."""
    return state.wall() - (state.clock() - at)


def short_time(state: DaemonState, at: float) -> str:
    """HH:MM:SS, or the date of what is more than 20 hours ago; local time, as BIRD."""
    form = "%H:%M:%S" if state.wall() - at < _TODAY else "%Y-%m-%d"
    return datetime.fromtimestamp(at).strftime(form)


def long_time(at: float) -> str:
    """Date and time, local."""
    return datetime.fromtimestamp(at).strftime("%Y-%m-%d %H:%M:%S")


def agent(state: DaemonState) -> Agent:
    """The daemon as a whole; also while it has no speaker yet."""
    speaker = state.speaker
    applied = state.datastore()["applied_at"]
    reconfigured = datetime.fromisoformat(applied).timestamp() if applied else state.started_at
    router_id = speaker.settings.router_id if speaker else "0.0.0.0"
    began = speaker.started_at if speaker else state.began
    recovering = speaker is None or not speaker.started or speaker.restart.active
    waiting, limit = 1, 0.0
    if speaker is not None and recovering:
        waiting = max(len(speaker.restart.waiting_for()), 1)
        due = speaker.restart.deadline()
        limit = 0.0 if due is None else max(due - began, 0.0)
    waits = state.clock() - began
    return Agent(
        bird_version(state), router_id, state.wall(), state.started_at, reconfigured, recovering, waiting, waits, limit
    )


def peers_of(speaker: Speaker, family: Family) -> Iterator[Peer]:
    """The peers with a session for a family, by name. One session for both families counts in both."""
    for _, peer in sorted(speaker.peers.items()):
        if any(entry.family == family for entry in peer.settings.families):
            yield peer


def protocols(state: DaemonState, family: Family) -> list[Protocol]:
    """All rows, in the order in which Calico's BIRD shows them."""
    speaker = state.speaker
    rows = [Protocol(BUILT_IN["static"], "Static", "up", state.started_at)]
    if state.kernel_wanted:
        kernel = "start" if state.kernel is None else "up"
        rows += [
            Protocol(BUILT_IN["kernel"], "Kernel", kernel, state.started_at),
            Protocol(BUILT_IN["device"], "Device", "up", state.started_at),
            Protocol(BUILT_IN["direct"], "Direct", "up", state.started_at),
        ]
    if speaker is not None:
        rows += [session(state, peer) for peer in peers_of(speaker, family)]
    return rows


def session(state: DaemonState, peer: Peer) -> Protocol:
    """The row of one BGP session."""
    found, statistics = peer.session, peer.session.statistics
    changed = statistics.changed_at
    since = state.started_at if changed is None else wall(state, changed)
    protocol = "down" if not found.running else "up" if found.state is State.ESTABLISHED else "start"
    kind, text = statistics.trouble
    trouble = f"{kind}: {text[:1].upper()}{text[1:]}" if kind and protocol != "up" else ""
    if peer.settings.disabled:
        trouble = f"held down: {peer.settings.disabled}"
    name, address = peer.settings.name, peer.settings.address
    return Protocol(name, "BGP", protocol, since, address, _bgp_state(peer), trouble)


def _bgp_state(peer: Peer) -> str:
    found = peer.session
    if not found.running:
        return "Down"
    if peer.settings.passive and found.state <= State.ACTIVE and found.idle_until is None:
        return "Passive"
    return str(found.state)


def protocol_name(path: Path) -> str:
    """The protocol that a path comes from."""
    return path.source.name if path.source.is_bgp else BUILT_IN[path.source.kind.value]


async def routes(state: DaemonState, family: Family, pace: Pace, merged: bool = True) -> AsyncIterator[list[Route]]:
    """Every path of every prefix, the best of each first, in lists as long as a slice of work allows. `merged`: see
    entry_routes."""
    speaker = state.speaker
    if speaker is None:
        return
    table = speaker.ribs[family].table
    found: list[Route] = []
    for keys in slices(tuple(table)):
        for number, key in enumerate(keys):
            entry = table.get(key)
            if entry is not None:
                found += entry_routes(state, speaker, family, key, entry, merged)
            if not number & 31:
                yield found
                found = []
                await pace.rest()
        yield found
        found = []


def entry_routes(
    state: DaemonState, speaker: Speaker, family: Family, key: bytes, entry: Entry, merged: bool = True
) -> list[Route]:
    """The paths of one prefix. `merged`: the best one has the ways of all that share its traffic, as on the way to the
    kernel; else each has its own, as in BIRD's table."""
    chosen, text, whole = best(entry), prefix(family, key), entry if merged else None
    return [route(state, speaker, family, key, path, path is chosen, whole, text) for path in paths(entry)]


def route(
    state: DaemonState,
    speaker: Speaker,
    family: Family,
    key: bytes,
    path: Path,
    primary: bool,
    entry: Entry | None = None,
    text: str = "",
) -> Route:
    """One path."""
    hops: tuple[Hop, ...] = ()
    if primary and entry is not None and path.source.is_bgp and len(multipath(paths(entry), path)) > 1:
        hops = gateways(paths(entry), path, _MULTIPATH)
    way = _ways(state, hops) if hops else _way(state, speaker, family, key, path)
    return Route(text or prefix(family, key), way, primary, path)


def _way(state: DaemonState, speaker: Speaker, family: Family, key: bytes, path: Path) -> Way:
    if path.source.is_bgp:
        if not path.next_hop.reachable:
            return Way("unreachable")
        if path.next_hop.hops:
            return _ways(state, path.next_hop.hops)
        # A speaker without a kernel role resolves nothing: the next hop is all that is known.
        return Way("via", format_address(path.attrs.next_hop), "?")
    if path.fixed is not None:
        return Way("blackhole" if path.fixed.kind is RouteKind.BLACKHOLE else "unreachable")
    if path.source.kind is SourceKind.STATIC:
        return _ways(state, path.next_hop.hops) if path.next_hop.hops else Way("unreachable")
    local = speaker.shared.next_hops.local(family, key, path.source.kind)
    if local is None or local.hops:
        hops = local.hops if local is not None else ()
        return _ways(state, hops, path.interface) if hops else Way("dev", interface=path.interface)
    return Way("blackhole" if "blackhole" in local.label else "unreachable")


def _ways(state: DaemonState, hops: tuple[Hop, ...], interface: str = "") -> Way:
    if len(hops) > 1:
        return Way("multipath", hops=tuple((format_address(h.gateway), _interface(state, h)) for h in hops))
    hop = hops[0]
    name = interface or _interface(state, hop)
    return Way("via", format_address(hop.gateway), name) if hop.gateway else Way("dev", interface=name)


def _interface(state: DaemonState, hop: Hop) -> str:
    return state.kernel.interface_name(hop.interface) if state.kernel is not None else str(hop.interface)
