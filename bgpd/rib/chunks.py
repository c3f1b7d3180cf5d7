"""The log of an update group: what its members are told, as chunks of whole messages.

Each member has its place in the log and reads on from there. Members at one place are given the same octets object.
The units of each chunk (NLRI, with our path id before it under ADD-PATH) are kept beside it, for a member that falls
too far behind and looks up what it missed instead. Until then nobody asks for them one by one: they are kept as path id
and keys.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeAlias

from bgpd.wire.framing import MARKER

CHUNK = 65536
"""Octets of a chunk, and of what is handed to a transport at once, at most."""
_UNIT_COST = 48
"""Octets of memory that a unit costs beside its message: a reference, and the key where no table holds it any more."""

Units: TypeAlias = tuple[bytes, Sequence[bytes]]
"""(path id, keys): each key with the path id before it is a unit. An empty path id: the keys are units as they are."""

Window = tuple[int, bytes, list[int], int]
"""(end, octets, offset of each chunk, messages) of a run of chunks in the log."""


class ChunkLog:
    """Chunks from place `base` to place `end`; places only grow."""

    __slots__ = ("_chunks", "_units", "_windows", "base", "cost", "end")

    def __init__(self) -> None:
        self._chunks: list[bytes] = []
        self._units: list[Sequence[Units]] = []
        self._windows: dict[int, Window] = {}
        self.base = 0
        self.end = 0
        self.cost = 0
        """Octets of memory, about."""

    def append(self, data: bytes, units: Sequence[Units]) -> int:
        """Put a chunk at the end; returns its place."""
        place = self.end
        self._chunks.append(data)
        self._units.append(units)
        self.cost += _cost(data, units)
        self.end = place + 1
        if self._windows:
            self._windows.clear()
        return place

    def window(self, start: int) -> Window:
        """The run of chunks at `start`, of CHUNK octets at most but at least one chunk."""
        known = self._windows.get(start)
        if known is not None:
            return known
        first = start - self.base
        index, size, offsets = first, 0, []
        while index < len(self._chunks) and (index == first or size + len(self._chunks[index]) <= CHUNK):
            offsets.append(size)
            size += len(self._chunks[index])
            index += 1
        offsets.append(size)
        run = self._chunks[first] if index == first + 1 else b"".join(self._chunks[first:index])
        window = self._windows[start] = (self.base + index, run, offsets, run.count(MARKER))
        return window

    def units_from(self, start: int) -> dict[bytes, None]:
        """Units of all chunks from a place on."""
        found: dict[bytes, None] = {}
        for units in self._units[start - self.base :]:
            found.update(dict.fromkeys(unfold(units)))
        return found

    def clear(self) -> None:
        """Forget all chunks: everyone has read them."""
        self.base, self.cost = self.end, 0
        self._chunks.clear()
        self._units.clear()
        self._windows.clear()

    def floor(self, cost: int) -> int:
        """The first place from which on what is kept costs no more than `cost`."""
        index, left = 0, self.cost
        while index < len(self._chunks) and left > cost:
            left -= _cost(self._chunks[index], self._units[index])
            index += 1
        return self.base + index

    def trim(self, floor: int) -> None:
        """Forget the chunks before a place."""
        count = floor - self.base
        self.cost -= sum(map(_cost, self._chunks[:count], self._units[:count]))
        del self._chunks[:count], self._units[:count]
        self.base = floor
        self._windows.clear()


def _cost(data: bytes, units: Sequence[Units]) -> int:
    return len(data) + _UNIT_COST * sum([len(keys) for _, keys in units])


def unfold(units: Iterable[Units]) -> Iterable[bytes]:
    """One by one."""
    for path_id, keys in units:
        if path_id:
            for key in keys:
                yield path_id + key
        else:
            yield from keys


def pack(messages: list[bytes]) -> list[bytes]:
    """Join whole messages to chunks of at most CHUNK octets."""
    if len(messages) <= 1:
        return messages
    if sum(map(len, messages)) <= CHUNK:
        return [b"".join(messages)]
    chunks: list[bytes] = []
    run: list[bytes] = []
    size = 0
    for message in messages:
        if size + len(message) > CHUNK and run:
            chunks.append(b"".join(run))
            run, size = [], 0
        run.append(message)
        size += len(message)
    chunks.append(b"".join(run))
    return chunks
