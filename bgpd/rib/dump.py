"""The whole table as a group's members get it: a new member's first octets, and the answer to a route refresh.

It is encoded slice by slice as the fastest reader gets on, and shared by all who began at the same state of the table.
It is the table as it was when the walk began; what has changed since is in the group's log behind it, or among the
units that a member looks up.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import TYPE_CHECKING

from bgpd.policy.chain import pour
from bgpd.rib.chunks import CHUNK
from bgpd.rib.decision import best, paths
from bgpd.rib.path import Entry, Path, Source
from bgpd.wire.framing import MARKER

if TYPE_CHECKING:
    from bgpd.rib.update_group import UpdateGroup

_FIRST_SLICE = 2048
_MAX_SLICE = 8192
"""Keys encoded in one go: some 2 ms where they share attributes, 10 ms where hardly two do."""


class DumpChunk:
    """Octets, and where in them the routes of each source and each next hop are."""

    __slots__ = ("by_hop", "by_source", "data", "messages")

    def __init__(self) -> None:
        self.data = b""
        self.messages = 0
        self.by_source: dict[Source, list[tuple[int, int]]] = {}
        self.by_hop: dict[bytes, list[tuple[int, int]]] = {}

    def without(self, source: Source, address: bytes) -> tuple[bytes, int]:
        """(octets, messages) for a member: neither its own routes nor those with itself as next hop."""
        ranges = (*self.by_source.get(source, ()), *self.by_hop.get(address, ()))
        if not ranges:
            return self.data, self.messages
        pieces, at = [], 0
        for start, end in sorted(ranges):
            if start >= at:
                pieces.append(self.data[at:start])
            at = max(at, end)
        data = b"".join((*pieces, self.data[at:]))
        return data, data.count(MARKER)


class Dump:
    """One walk over the table for one group."""

    __slots__ = ("_chunks", "_ends", "_entries", "_group", "_keys", "_slice", "place")

    def __init__(self, group: UpdateGroup, place: int) -> None:
        self._group = group
        table = group.rib.table
        self._keys = list(table)
        self._entries = list(table.values())
        self._chunks: list[DumpChunk] = []
        self._ends: list[int] = []
        """How many keys were encoded with each chunk and those before it."""
        self._slice = _FIRST_SLICE
        self.place = place
        """Where in the group's log the walk began."""

    def chunk(self, number: int) -> DumpChunk | None:
        """The chunk with this number, or None behind the last."""
        while number >= len(self._chunks):
            start = self._ends[-1] if self._ends else 0
            if start >= len(self._keys):
                return None
            end = start + self._slice
            keys = self._keys[start:end]
            chunk = self._encode(keys, self._entries[start:end])
            self._chunks.append(chunk)
            self._ends.append(start + len(keys))
            # The next slice is to give about one chunk of octets.
            self._slice = min(max(CHUNK * len(keys) // (len(chunk.data) or 1), 64), _MAX_SLICE)
        return self._chunks[number]

    def left(self, number: int) -> list[bytes]:
        """The keys behind the first `number` chunks."""
        return self._keys[self._ends[number - 1] if number else 0 :]

    def _encode(self, keys: list[bytes], entries: list[Entry]) -> DumpChunk:
        group, chunk = self._group, DumpChunk()
        exporter = group.exporter
        pieces: list[bytes] = []
        size = 0
        for path, part in by_path(group, keys, entries):
            direct = exporter.messages_again(path, part) if exporter.direct else None
            told = self._told(path, part) if direct is None else ((direct, path.attrs.next_hop),)
            for messages, hop in told:
                start = size
                size += sum(map(len, messages))
                pieces += messages
                chunk.by_source.setdefault(path.source, []).append((start, size))
                chunk.by_hop.setdefault(hop, []).append((start, size))
        chunk.data = b"".join(pieces)
        chunk.messages = len(pieces)
        return chunk

    def _told(self, path: Path, keys: Sequence[bytes]) -> Iterable[tuple[list[bytes], bytes]]:
        """(messages, next hop) for a path's keys."""
        group = self._group
        for leaf, poured in pour(group.exporter.node(path), keys):
            if leaf.accepted:
                messages = group.encode(leaf, path, poured)
                if messages is not None:
                    yield messages, group.exporter.outgoing(leaf, path).next_hop


def by_path(
    group: UpdateGroup, keys: Sequence[bytes], entries: Sequence[Entry | None]
) -> Iterable[tuple[Path, Sequence[bytes]]]:
    """What a group tells of, before its rules: each path with its keys. Under ADD-PATH a key may come several times.

    Keys that were learned together have one entry, and lie together: such runs are found in C (30 ns a key, against
    100 and more for a loop that puts each into its place).
    """
    found: dict[Entry, list[bytes]] = {}
    start = 0
    for entry, run in groupby(entries):
        end = start + len(list(run))
        if entry is not None:
            known = found.get(entry)
            if known is None:
                found[entry] = list(keys[start:end])
            else:
                known += keys[start:end]
        start = end
    if group.key.add_path:
        return [(path, part) for entry, part in found.items() for path in paths(entry) if path.next_hop.reachable]
    told: dict[Path, list[bytes]] = {}
    for entry, part in found.items():
        chosen = best(entry)
        if chosen is not None:
            known = told.get(chosen)
            if known is None:
                told[chosen] = part
            else:
                known += part
    return told.items()
