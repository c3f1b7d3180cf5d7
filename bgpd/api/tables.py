"""Loc-RIB, Adj-RIB-In and Adj-RIB-Out as lines of JSON, a slice at a time.

A table is walked over a copy of its keys (eight octets a route, the only thing that grows with the table), sorted in
runs that are merged on the way out. What a route's line has beyond its prefix is the same for all prefixes of a path,
so it is encoded once a path. A route that changes during the walk shows its state at the moment its line is made; one
that goes is left out.
"""

from __future__ import annotations

import heapq
import json
from collections.abc import AsyncIterator, Callable, Iterable, Iterator

from attrs import evolve

from bgpd.api import kernel, render
from bgpd.api.counts import slices
from bgpd.api.limits import Pace
from bgpd.api.lookup import Refused, RouteQuery, find_peer, speaker_of
from bgpd.api.schema import Route, RoutesEnd
from bgpd.api.state import DaemonState
from bgpd.family import Family
from bgpd.peer import Peer
from bgpd.policy.chain import Leaf, pour
from bgpd.policy.prefixes import compile_prefixes, truncate
from bgpd.policy.terms import MatchPrefix, PrefixRange
from bgpd.rib.adj_rib_in import AdjRibIn, key_of
from bgpd.rib.decision import best, multipath, offered, paths
from bgpd.rib.export import Exporter
from bgpd.rib.export import Outgoing as Sent
from bgpd.rib.path import Entry, Path
from bgpd.rib.update_group import Member, UpdateGroup
from bgpd.speaker import Speaker
from bgpd.wire.attributes import PathAttributes
from bgpd.wire.build import AttributesTooLong, build_reach

CHUNK = 32768
_CACHE_LIMIT = 1024
"""Entries; more would make the moment of emptying a cache longer than a slice."""
_RUN = 1024

ITS_OWN = "the path comes from this peer"
"""Why a path is withheld from where it was learned."""

Lines = Callable[[bytes], Iterable[bytes]]
"""What a table has for one of its keys: the rest of each line."""


class Table:
    """One family's part of an answer: the keys to walk, or entries of `adj`, and what each gives."""

    def __init__(self, family: Family, keys: tuple[bytes, ...], lines: Lines, adj: AdjRibIn | None = None) -> None:
        self.family = family
        self.keys = keys
        self.lines = lines
        self.adj = adj


def routes(state: DaemonState, query: RouteQuery, pace: Pace) -> AsyncIterator[bytes]:
    """The body of GET /v1/routes in chunks. Refused at once, before the first chunk, where the query is wrong."""
    speaker = speaker_of(state)
    if query.received and query.advertised:
        raise Refused("bad-request", "received and advertised exclude each other", "ask for one of them")
    return _body(_tables(state, speaker, query), query, pace)


def _tables(state: DaemonState, speaker: Speaker, query: RouteQuery) -> list[Table]:
    wanted = query.prefix[0] if query.prefix else query.family
    families = [family for family in speaker.ribs if wanted in (None, family)]
    if query.received:
        peer = find_peer(speaker, query.received)
        return [_received(speaker, peer.importer.adj[f], query) for f in families if f in peer.importer.adj]
    if query.advertised:
        peer = find_peer(speaker, query.advertised)
        return [_advertised(speaker, *peer.members[f], query) for f in families if f in peer.members]
    return [_loc_rib(state, speaker, family, query) for family in families]


async def _body(tables: list[Table], query: RouteQuery, pace: Pace) -> AsyncIterator[bytes]:
    out: list[bytes] = []
    size = number = 0
    truncated = False
    for table in tables:
        family = table.family
        head = f'{{"family":"{family}","prefix":"'
        async for key in _ordered(table, query, pace):
            text = ""
            for rest in table.lines(key):
                if query.limit and number >= query.limit:
                    truncated = True
                    break
                text = text or head + render.prefix(family, key_of(key))
                out.append(text.encode() + rest)
                size += len(out[-1])
                number += 1
            if size >= CHUNK:
                yield b"".join(out)
                out.clear()
                size = 0
            if truncated:
                break
        if truncated:
            break
    end: RoutesEnd = {"end": True, "routes": number, "truncated": truncated}
    out.append(_encode(end) + b"\n")
    yield b"".join(out)


async def _ordered(table: Table, query: RouteQuery, pace: Pace) -> AsyncIterator[bytes]:
    """A table's keys that the query asks for, in the order of addresses."""
    keys = table.keys
    if query.prefix is not None:
        keys = await _select(keys, query, pace)
    order = _order(table.adj)
    # Tuples of bytes are left alone by the garbage collector; lists of them would be walked with each full collection.
    runs: list[tuple[bytes, ...]] = []
    for start in range(0, len(keys), _RUN):
        runs.append(tuple(sorted(keys[start : start + _RUN], key=order)))
        await pace.rest()
    merged = heapq.merge(*runs, key=order) if len(runs) > 1 else runs[0] if runs else ()
    for count, key in enumerate(merged):
        yield key
        if not count & 31:
            await pace.rest()


def _order(adj: AdjRibIn | None) -> Callable[[bytes], tuple[bytes, int, int]]:
    """Sort key of table keys: address, length, path id."""
    if adj is None or not adj.by_id:
        return lambda key: (key[1:], key[0], 0)

    def order(entry: bytes) -> tuple[bytes, int, int]:
        key = key_of(entry)
        return key[1:], key[0], adj.path_id_of(entry)

    return order


async def _select(keys: tuple[bytes, ...], query: RouteQuery, pace: Pace) -> tuple[bytes, ...]:
    """The keys equal to, inside or around the prefix asked for."""
    assert query.prefix is not None
    family, wanted = query.prefix
    length = wanted[0]
    inside = compile_prefixes([MatchPrefix((PrefixRange(family, wanted, length, family.bits),))])
    selected: list[bytes] = []
    for part in slices(keys):
        if query.match == "longer":
            selected += [entry for entry in part if inside(key_of(entry))]
        elif query.match == "covering":
            pairs = ((entry, key_of(entry)) for entry in part)
            selected += [entry for entry, key in pairs if key[0] <= length and truncate(wanted, key[0]) == key]
        else:
            selected += [entry for entry in part if key_of(entry) == wanted]
        await pace.rest()
    return tuple(selected)


def _keys(table: dict[bytes, Path] | dict[bytes, Entry], query: RouteQuery, several: bool = False) -> tuple[bytes, ...]:
    """All keys, or, where that is enough, the one asked for. `several`: a prefix may have more entries than one."""
    if query.prefix is not None and query.match == "exact" and not several:
        return (query.prefix[1],) if query.prefix[1] in table else ()
    return tuple(table)


class _Cache:
    """Ends of lines by what they depend on."""

    def __init__(self) -> None:
        self._known: dict[object, bytes] = {}

    def get(self, key: object, make: Callable[[], bytes]) -> bytes:
        known = self._known.get(key)
        if known is None:
            if len(self._known) >= _CACHE_LIMIT:
                self._known.clear()
            known = self._known[key] = make()
        return known


def _loc_rib(state: DaemonState, speaker: Speaker, family: Family, query: RouteQuery) -> Table:
    table = speaker.ribs[family].table
    cache = _Cache()

    def lines(key: bytes) -> Iterator[bytes]:
        entry = table.get(key)
        chosen, known = best(entry), paths(entry)
        shared = multipath(known, chosen) if chosen is not None and len(known) > 1 else ()
        for path in known:
            programmed = kernel.state_of(state, family, key) if path is chosen else None
            flags = (path, path is chosen, len(shared) > 1 and path in shared, programmed)
            yield cache.get(flags, lambda p=path, f=flags: _rest(route(speaker, family, p, f[1], f[2], f[3])))  # type: ignore[misc]

    return Table(family, _keys(table, query), lines)


def _received(speaker: Speaker, adj: AdjRibIn, query: RouteQuery) -> Table:
    rib = speaker.ribs[adj.family].table
    cache = _Cache()

    def lines(key: bytes) -> Iterator[bytes]:
        path = adj.routes.get(key)
        if path is not None:
            chosen = best(rib.get(key_of(key))) is path
            yield cache.get(
                (path, chosen),
                lambda: _rest(
                    route(speaker, adj.family, path, chosen, False, None, attrs=path.received, add_path=adj.add_path)
                ),
            )

    return Table(adj.family, _keys(adj.routes, query, adj.by_id), lines, adj)


def _advertised(speaker: Speaker, group: UpdateGroup, member: Member, query: RouteQuery) -> Table:
    table, family = group.rib.table, group.key.family
    outgoing, cache = Outgoing(group, member), _Cache()

    def lines(key: bytes) -> Iterator[bytes]:
        entry = table.get(key)
        chosen = best(entry)
        for path in offered(entry, group.key.add_path):
            sent = outgoing.of(path, key)
            if sent is not None:
                attrs, rule = sent
                flags = (path, path is chosen, attrs, rule)
                yield cache.get(
                    flags,
                    lambda p=path, c=path is chosen, a=attrs, r=rule: _rest(  # type: ignore[misc]
                        route(speaker, family, p, c, False, None, a, r, group.key.add_path, sent=True)
                    ),
                )

    return Table(family, _keys(table, query), lines)


class Outgoing:
    """What a member of an update group is told of a path: worked out by the group's rules, in a copy of its own."""

    def __init__(self, group: UpdateGroup, member: Member | None) -> None:
        self.group = group
        self.member = member
        # Four-octet AS numbers, whatever the peer gets: this is to be read.
        self.exporter = Exporter(evolve(group.key, asn4=True))
        self._asked = 0
        self._last: Path | None = None
        self._made: dict[tuple[bytes, bytes], PathAttributes | str] = {}

    def asked_by(self, member: Member) -> Outgoing:
        """The same for another member: what was worked out so far is shared."""
        self.member = member
        return self

    def of(self, path: Path, key: bytes) -> tuple[PathAttributes, str] | None:
        """(attributes as sent, the rule's label), or None if the path is withheld."""
        attrs, why = self.decide(path, key)
        return None if attrs is None else (attrs, why)

    def decide(self, path: Path, key: bytes) -> tuple[PathAttributes | None, str]:
        """(attributes as sent, the accepting rule's label), or (None, why the path is withheld)."""
        attrs, leaf_or_why = self.decision(path, key)
        return attrs, leaf_or_why if isinstance(leaf_or_why, str) else leaf_or_why.label

    def decision(self, path: Path, key: bytes) -> tuple[PathAttributes | None, Leaf | str]:
        """(attributes as sent, the export chain's outcome), or (None, why the path is withheld)."""
        if path is not self._last:
            self._last = path
            self._asked += 1
            if not self._asked % _CACHE_LIMIT:
                self.exporter.forget()
        if self.member is not None and self.member.source is path.source:
            # Before the chain, which has no rule that could change this.
            return None, ITS_OWN
        leaf, _ = next(iter(pour(self.exporter.node(path), (key,))))
        if not leaf.accepted:
            return None, leaf.label
        out = self.exporter.outgoing(leaf, path)
        if self.member is not None and self.member in self.group.excluded(path, out.next_hop):
            return None, "this peer is itself the next hop (RFC 4271 §5.1.3)"
        made = self._made.get((out.block, out.next_hop))
        if made is None:
            if len(self._made) >= _CACHE_LIMIT:
                self._made.clear()
            made = self._made[out.block, out.next_hop] = self._read(out)
        return (made, leaf) if isinstance(made, PathAttributes) else (None, made)

    def _read(self, out: Sent) -> PathAttributes | str:
        """What is sent as attributes, or why they cannot be (RFC 4271 §9.2)."""
        key = self.group.key
        longest = bytes(4 if key.add_path else 0) + bytes((key.family.bits,)) + bytes(key.family.octets)
        try:
            build_reach(key.family, out.block, out.next_hop, [longest], key.max_length)
        except AttributesTooLong:
            return f"its attributes leave no room for a prefix in a message of {key.max_length} octets (RFC 4271 §9.2)"
        return PathAttributes(key.family, out.block, out.next_hop)


def route(
    speaker: Speaker,
    family: Family,
    path: Path,
    is_best: bool,
    shared: bool,
    programmed: str | None,
    attrs: PathAttributes | None = None,
    rule: str | None = None,
    add_path: bool | None = None,
    sent: bool = False,
    key: bytes = b"",
) -> Route:
    """One path as JSON. `attrs` and `rule` stand for those of import; `sent` takes the path id that we send."""
    number = int.from_bytes(path.send_id, "big") if sent else path.path_id
    if add_path is None:
        add_path = path.source.is_bgp and _adds_paths(speaker, path, family)
    return {
        "family": str(family),
        "prefix": render.prefix(family, key) if key else "",
        "source": render.source(path),
        "path_id": number if add_path else None,
        "best": is_best,
        "multipath": shared,
        "eligible": not path.rejected and path.next_hop.reachable,
        "stale": path.source.is_bgp and path.epoch != path.source.epochs.get(family, 0),
        "preference": path.preference,
        "rule": path.label if rule is None else rule,
        "attributes": render.attributes(path.attrs if attrs is None else attrs),
        "kernel": programmed,
    }


def _adds_paths(speaker: Speaker, path: Path, family: Family) -> bool:
    peer: Peer | None = speaker.peers.get(path.source.name)
    adj = peer.importer.adj.get(family) if peer is not None else None
    return adj is not None and adj.add_path


def _rest(line: Route) -> bytes:
    """A line from the end of the prefix on."""
    fields = {name: value for name, value in line.items() if name not in ("family", "prefix")}
    return b'",' + _encode(fields)[1:] + b"\n"


def _encode(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()
