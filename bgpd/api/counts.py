"""Counts that need a walk over the tables: accepted and stale routes, and the size of each Adj-RIB-Out.

They are made for all peers in one walk, in slices, and kept for a while that grows with what the walk cost: asking
often cannot take more than a small share of the processor, whatever the table's size.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable
from typing import TypeVar

from bgpd.api.limits import Pace
from bgpd.api.schema import FamilyCounts, Prefixes
from bgpd.family import Family
from bgpd.outbound import family_settings
from bgpd.peer import Peer
from bgpd.policy.chain import pour
from bgpd.rib.decision import best, offered, paths
from bgpd.rib.export import Exporter
from bgpd.rib.path import Entry, Path
from bgpd.rib.update_group import Member, UpdateGroup
from bgpd.speaker import Speaker

_T = TypeVar("_T")
_STEP = 1024
_COST_SHARE = 100
"""A walk is repeated after this many times its own cost: at most a hundredth of the processor."""


class Walk:
    """The outcome of one walk."""

    def __init__(self) -> None:
        self.families: list[FamilyCounts] = []
        self.peers: dict[str, dict[str, Prefixes]] = {}
        """Peer name -> family -> counts."""


class Counts:
    """Walks the tables when the last walk is too old."""

    def __init__(self) -> None:
        self._walk: Walk | None = None
        self._speaker: Speaker | None = None
        self._at = 0.0
        self._cost = 0.0
        self._busy = asyncio.Lock()

    async def get(self, speaker: Speaker, now: float, pace: Pace, max_age: float = 1.0) -> Walk:
        """Counts not older than `max_age` seconds, or than the cost of a walk allows."""
        async with self._busy:
            pace.resume()
            age = max(max_age, self._cost * _COST_SHARE)
            if self._walk is None or self._speaker is not speaker or now - self._at > age:
                self._walk, self._cost = await _walk(speaker, pace)
                self._speaker, self._at = speaker, now
            return self._walk


async def _walk(speaker: Speaker, pace: Pace) -> tuple[Walk, float]:
    result, before = Walk(), pace.used()
    for family in list(speaker.ribs):
        result.families.append(await _family(speaker, family, pace))
    sent: Counter[tuple[str, Family]] = Counter()
    for group in list(speaker.places.groups.values()):
        await _advertised(group, sent, pace)
    for name, peer in list(speaker.peers.items()):
        result.peers[name] = {
            str(family): await _peer(peer, family, sent[name, family], pace) for family in peer_families(peer)
        }
    return result, pace.used() - before


def peer_families(peer: Peer) -> list[Family]:
    """The families negotiated, or configured while there is no session."""
    negotiated = peer.session.negotiated
    if negotiated is not None:
        return sorted(negotiated.families)
    return sorted(entry.family for entry in peer.settings.families)


async def _family(speaker: Speaker, family: Family, pace: Pace) -> FamilyCounts:
    table = speaker.ribs[family].table
    entries: Counter[Entry | None] = Counter()
    for keys in slices(tuple(table)):
        entries.update(map(table.get, keys))
        await pace.rest()
    counts: FamilyCounts = {"family": str(family), "prefixes": len(table), "paths": 0, "best": 0, "local": 0}
    for entry, number in entries.items():
        known = paths(entry)
        counts["paths"] += number * len(known)
        counts["best"] += number * (best(entry) is not None)
        counts["local"] += number * sum(not path.source.is_bgp for path in known)
        await pace.rest()
    return counts


async def _peer(peer: Peer, family: Family, sent: int, pace: Pace) -> Prefixes:
    adj = peer.importer.adj.get(family)
    epoch = peer.source.epochs.get(family, 0)
    seen: Counter[Path] = Counter()
    if adj is not None:
        for part in slices(tuple(adj.routes.values())):
            seen.update(part)
            await pace.rest()
    try:
        limit = family_settings(peer, family).max_prefixes
    except KeyError:
        limit = 0
    return {
        "received": sum(seen.values()),
        "accepted": sum(number for path, number in seen.items() if not path.rejected),
        "stale": sum(number for path, number in seen.items() if path.epoch != epoch),
        "advertised": sent,
        "queued": _queued(peer, family),
        "end_of_rib": family in peer.end_of_rib,
        "limit": limit,
    }


def _queued(peer: Peer, family: Family) -> int:
    group_and_member = peer.members.get(family)
    return 0 if group_and_member is None else group_and_member[1].queued()


async def _advertised(group: UpdateGroup, sent: Counter[tuple[str, Family]], pace: Pace) -> None:
    """Adj-RIB-Out is not stored; its size is worked out as its content would be, through the group's own rules."""
    exporter, table = Exporter(group.key), group.rib.table
    members = list(group.members)
    total = 0
    without: Counter[Member] = Counter()
    for number, keys in enumerate(slices(tuple(table))):
        if not number % 4:
            # Emptied often: it would grow to a size whose emptying takes longer than a slice.
            exporter.forget()
        for entry, part in _by_entry(keys, map(table.get, keys)).items():
            for path in offered(entry, group.key.add_path):
                for leaf, poured in pour(exporter.node(path), part):
                    if leaf.accepted:
                        total += len(poured)
                        for member in group.excluded(path, exporter.outgoing(leaf, path).next_hop):
                            without[member] += len(poured)
            await pace.rest()
    for member in members:
        if isinstance(member.owner, Peer):
            sent[member.owner.settings.name, group.key.family] = total - without[member]


def _by_entry(keys: Iterable[bytes], entries: Iterable[Entry | None]) -> dict[Entry | None, list[bytes]]:
    groups: dict[Entry | None, list[bytes]] = {}
    for key, entry in zip(keys, entries, strict=True):
        groups.setdefault(entry, []).append(key)
    return groups


def slices(items: tuple[_T, ...]) -> Iterable[tuple[_T, ...]]:
    """`items` in runs short enough to be worked on between two looks at the clock."""
    for start in range(0, len(items), _STEP):
        yield items[start : start + _STEP]
