"""`show route ...`, laid out as BIRD 1.6 does, in slices: a table is never held as text."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from ipaddress import ip_network
from struct import iter_unpack

from bgpd.api.bird.facts import (
    BUILT_IN,
    Route,
    entry_routes,
    peers_of,
    protocol_name,
    route,
    routes,
    session,
    short_time,
)
from bgpd.api.bird.grammar import NOT_IN_TABLE, SYNTAX_ERROR, BirdError, Command
from bgpd.api.bird.replies import Replies
from bgpd.api.counts import slices
from bgpd.api.limits import Pace
from bgpd.api.render import attributes
from bgpd.api.state import DaemonState
from bgpd.api.tables import Outgoing
from bgpd.family import Family, family_of, format_address, network_key
from bgpd.peer import Peer
from bgpd.policy.prefixes import truncate
from bgpd.policy.terms import SourceKind
from bgpd.rib.adj_rib_in import key_of
from bgpd.rib.path import Path
from bgpd.speaker import Speaker
from bgpd.wire.rules import Code

ROUTE, TYPE, ATTRIBUTES, COUNT = 1007, 1008, 1012, 14
_CHUNK = 32768
_TYPES = {SourceKind.STATIC: "static", SourceKind.KERNEL: "inherit", SourceKind.DIRECT: "device"}
_ORIGINS = {"igp": "i", "egp": "e", "incomplete": "?"}

_MEMO = 1024
"""Paths whose end of the line is kept."""


async def show_route(
    state: DaemonState, family: Family, command: Command, pace: Pace, replies: Replies
) -> AsyncIterator[bytes]:
    """The whole answer in chunks. Raises BirdError before the first."""
    writer = _Writer(state, family, command, replies)
    keep = _keep(state, family, command)
    shown = total = networks = 0
    last = ""
    async for found in _source(state, family, command, pace):
        for item in found:
            total += 1
            networks += item.prefix != last
            last = item.prefix
            if keep(item):
                shown += 1
                if not command.count:
                    writer.write(item)
        if replies.size >= _CHUNK:
            yield replies.take()
    if command.count:
        replies.end(COUNT, f"{shown} of {total} routes for {networks} networks")
    else:
        replies.end()
    yield replies.take()


async def _source(state: DaemonState, family: Family, command: Command, pace: Pace) -> AsyncIterator[list[Route]]:
    speaker = state.speaker
    if command.prefix:
        if speaker is None:
            raise BirdError(NOT_IN_TABLE, "Network not in table")
        yield _one(state, speaker, family, command)
    elif command.filtered and speaker is not None:
        async for found in _filtered(state, speaker, family, command, pace):
            yield found
    else:
        async for found in routes(state, family, pace, _merged(command)):
            yield found


def _merged(command: Command) -> bool:
    """Whether paths that share traffic are one route: only on the way to the kernel. Calico's programs, which read the
    table, do not know the word `multipath`."""
    return command.peer == BUILT_IN["kernel"]


def _one(state: DaemonState, speaker: Speaker, family: Family, command: Command) -> list[Route]:
    """The routes of the prefix asked for, or of the longest one around it."""
    if family_of(command.prefix) != family:
        raise BirdError(SYNTAX_ERROR, f"{command.prefix} is of the other family, whose control socket is another one")
    key, table = network_key(ip_network(command.prefix)), speaker.ribs[family].table
    lengths = range(key[0], -1, -1) if command.longest else (key[0],)
    for length in lengths:
        wanted = truncate(key, length)
        if (entry := table.get(wanted)) is not None:
            return entry_routes(state, speaker, family, wanted, entry, _merged(command))
    raise BirdError(NOT_IN_TABLE, "Network not in table")


async def _filtered(
    state: DaemonState, speaker: Speaker, family: Family, command: Command, pace: Pace
) -> AsyncIterator[list[Route]]:
    """What import refused: it is in Adj-RIB-In alone."""
    for peer in list(peers_of(speaker, family)):
        adj = peer.importer.adj.get(family)
        if adj is None or command.protocol not in ("", peer.settings.name):
            continue
        for items in slices(tuple(adj.routes.items())):
            yield [route(state, speaker, family, key_of(e), path, False) for e, path in items if path.rejected]
            await pace.rest()


def _keep(state: DaemonState, family: Family, command: Command) -> Callable[[Route], bool]:
    """Whether a route is asked for. Raises BirdError for a name that is no protocol's."""
    tests: list[Callable[[Route], bool]] = []
    if command.protocol:
        _check_name(state, family, command.protocol)
        tests.append(lambda item: protocol_name(item.path) == command.protocol)
    if command.primary:
        tests.append(lambda item: item.primary)
    if command.export:
        tests.append(_exported(state, family, command))
    return lambda item: all(test(item) for test in tests)


def _check_name(state: DaemonState, family: Family, name: str) -> None:
    peers = peers_of(state.speaker, family) if state.speaker is not None else ()
    if name not in BUILT_IN.values() and all(peer.settings.name != name for peer in peers):
        raise BirdError(SYNTAX_ERROR, f"{name[:80]} is not a protocol")


def _exported(state: DaemonState, family: Family, command: Command) -> Callable[[Route], bool]:
    """Through the very rules of the peer's update group. A peer that is down is told nothing."""
    _check_name(state, family, command.peer)
    peer = state.speaker.peers.get(command.peer) if state.speaker is not None else None
    if peer is None:
        return _to_kernel(state, family, command)
    place = peer.members.get(family)
    if place is None:
        return lambda item: False
    group, member = place
    outgoing, add_path = Outgoing(group, member), group.key.add_path

    def test(item: Route) -> bool:
        if not (item.primary or add_path) or not item.path.next_hop.reachable or item.path.source is peer.source:
            return False
        if command.export == "preexport":
            return True
        sent = outgoing.of(item.path, network_key(ip_network(item.prefix))) is not None
        return sent is (command.export == "export")

    return test


def _to_kernel(state: DaemonState, family: Family, command: Command) -> Callable[[Route], bool]:
    """`export kernel1`: what is wanted in the kernel; the other built-in protocols take nothing."""
    speaker = state.speaker
    if speaker is None or command.peer != BUILT_IN["kernel"]:
        return lambda item: False
    rib = speaker.ribs[family]

    def test(item: Route) -> bool:
        if not item.primary:
            return False
        if command.export == "preexport":
            return item.path.source.kind not in (SourceKind.KERNEL, SourceKind.DIRECT)
        key = network_key(ip_network(item.prefix))
        wanted = speaker.forwarding.wanted(rib, (key,)).get(key) is not None
        return wanted is (command.export == "export")

    return test


class _Writer:
    """Routes as lines. What the lines of one session share is made once."""

    def __init__(self, state: DaemonState, family: Family, command: Command, replies: Replies) -> None:
        self._state = state
        self._family = family
        self._all = command.all
        self._replies = replies
        self._times: dict[str, str] = {}
        self._ends: dict[Path, str] = {}
        self._prefix = ""

    def write(self, item: Route) -> None:
        path, way, line = item.path, item.way, self._replies.line
        name = protocol_name(path)
        via = {"via": f"via {way.gateway} on {way.interface}", "dev": f"dev {way.interface}"}.get(way.kind, way.kind)
        mark = " *" if item.primary else ""
        origin = f"{name} {self._time(name)}{_from(path, way.gateway)}"
        # A prefix is written once, before the first of its routes.
        prefix, self._prefix = "" if item.prefix == self._prefix else item.prefix, item.prefix
        line(ROUTE, f"{prefix:<18} {via} [{origin}]{mark}{self._end(path)}")
        for gateway, interface in way.hops:
            line(ROUTE, f"\tvia {gateway} on {interface} weight 1" if gateway != "-" else f"\tdev {interface} weight 1")
        if self._all:
            line(TYPE, f"\tType: {_TYPES.get(path.source.kind, 'BGP')} unicast univ")
            for text in _attributes(path):
                line(ATTRIBUTES, text)

    def _end(self, path: Path) -> str:
        known = self._ends.get(path)
        if known is None:
            if len(self._ends) >= _MEMO:
                self._ends.clear()
            known = self._ends[path] = _info(self._family, path)
        return known

    def _time(self, name: str) -> str:
        """Since when the session is up that a route came by: there is no account of each route's own age."""
        known = self._times.get(name)
        if known is None:
            speaker = self._state.speaker
            peer: Peer | None = speaker.peers.get(name) if speaker is not None else None
            at = session(self._state, peer).since if peer is not None else self._state.started_at
            known = self._times[name] = short_time(self._state, at)
        return known


def _from(path: Path, gateway: str) -> str:
    """The peer, where it is not the gateway itself."""
    if not path.source.is_bgp or not path.source.address:
        return ""
    peer = format_address(path.source.address)
    return "" if peer == gateway else f" from {peer}"


def _info(family: Family, path: Path) -> str:
    """Preference, staleness and cost of the next hop, then AS and origin."""
    if not path.source.is_bgp:
        return f" ({path.preference})"
    stale = "s" if path.epoch != path.source.epochs.get(family, 0) else ""
    cost = path.next_hop.cost if path.next_hop.reachable else "-"
    shown = attributes(path.attrs)
    asns = shown["as_path"].split()
    origin = f"AS{asns[-1]}" if asns and asns[-1].isdigit() else ""
    return f" ({path.preference}{stale}/{cost}) [{origin}{_ORIGINS.get(shown['origin'], '?')}]"


def _attributes(path: Path) -> Iterator[str]:
    if path.source.kind is SourceKind.KERNEL:
        yield f"\tKernel.metric: {path.metric}"
    if not path.source.is_bgp:
        return
    shown = attributes(path.attrs)
    yield f"\tBGP.origin: {shown['origin'].upper() if shown['origin'] != 'incomplete' else 'Incomplete'}"
    yield f"\tBGP.as_path: {shown['as_path']}"
    yield f"\tBGP.next_hop: {shown['next_hop']}"
    for name, number in (("med", shown["med"]), ("local_pref", shown["local_pref"])):
        if number is not None:
            yield f"\tBGP.{name}: {number}"
    if value := path.attrs.get(Code.COMMUNITIES):
        yield "\tBGP.community: " + " ".join(f"({high},{low})" for high, low in iter_unpack(">HH", value))
    if shown["originator_id"]:
        yield f"\tBGP.originator_id: {shown['originator_id']}"
    if shown["cluster_list"]:
        yield "\tBGP.cluster_list: " + " ".join(shown["cluster_list"])
    if shown["large_communities"]:
        large = (", ".join(text.split(":")) for text in shown["large_communities"])
        yield "\tBGP.large_community: " + " ".join(f"({text})" for text in large)
