"""Prefix conditions, compiled to one bytes regex over NLRI keys.

A key begins with its length octet, so "inside 10.244.0.0/16, up to /32" is `[\\x10-\\x20]\\x0a\\xf4`: one C-level
match a prefix, which lets a chain that looks at prefixes stay bulk (`all(map(match, keys))`).
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence

from bgpd.policy.terms import MatchPrefix, PrefixRange

Matcher = Callable[[bytes], object]
"""NLRI key to something true or false."""

_Span = tuple[int, int]
_Intervals = tuple[list[bytes], list[bytes]]

_FEW = 8
"""Keys that are looked up by bisection, 1 microsecond each, before a pattern is made, which takes some 100."""
_REGEX_LIMIT = 1024
"""Beyond so many prefixes compiling a pattern takes longer (20 ms) than it is worth."""


class PrefixSet:
    """Prefix conditions that must all hold: one key at a time, or a run of keys by its ends."""

    __slots__ = ("_asked", "_conditions", "_intervals", "_match")

    def __init__(self, conditions: Sequence[MatchPrefix]) -> None:
        self._conditions = conditions
        self._asked = 0
        self._match: Matcher | None = None
        self._intervals: dict[int, tuple[_Intervals, ...]] = {}

    @property
    def match(self) -> Matcher:
        """For one key. Compiled when it is asked for: of a long chain few conditions ever are."""
        if self._match is None:
            self._match = compile_prefixes(self._conditions)
        return self._match

    def holds(self, key: bytes) -> object:
        """For one key. A chain that is asked about a few, and then gives way to the next, compiles nothing."""
        match = self._match
        if match is None:
            if self._asked < _FEW:
                self._asked += 1
                return self.alike(key, key)
            match = self.match
        return match(key)

    def alike(self, low: bytes, high: bytes) -> bool | None:
        """Whether the conditions hold for all keys from `low` to `high`, which are of one length; None: perhaps not.

        Two comparisons a key find `low` and `high` (50 ns), and then a whole chain needs no look at the keys; a
        pattern match costs 100 to 300 ns for each condition.
        """
        length = low[0]
        known = self._intervals.get(length)
        if known is None:
            known = self._intervals[length] = tuple(_intervals(c, length) for c in self._conditions)
        result: bool | None = True
        for condition, (starts, ends) in zip(self._conditions, known, strict=True):
            at = bisect_right(starts, low) - 1
            if at >= 0 and low <= ends[at]:
                inside: bool | None = True if high <= ends[at] else None
            else:
                inside = False if bisect_right(starts, high) - 1 == at else None
            if inside is None:
                result = None
            elif inside is condition.invert:
                return False
        return result


def _intervals(condition: MatchPrefix, length: int) -> _Intervals:
    """First and last key of this length inside each range; what overlaps is one."""
    size = 1 + (length + 7) // 8
    starts: list[bytes] = []
    ends: list[bytes] = []
    for entry in sorted(condition.ranges, key=lambda entry: entry.key[1:]):
        own = entry.key[0]
        if not max(entry.minimum, own) <= length <= entry.maximum:
            continue
        octets = entry.key[1:].ljust(size - 1, b"\0")
        bits = 8 * (size - 1)
        last = (int.from_bytes(octets, "big") | ((1 << (bits - own)) - 1)).to_bytes(size - 1, "big")
        start, end = bytes((length,)) + octets, bytes((length,)) + last
        if ends and start <= ends[-1]:
            ends[-1] = max(ends[-1], end)
        else:
            starts.append(start)
            ends.append(end)
    return starts, ends


def cuts(bounds: Mapping[bytes, Iterable[_Span]], length: int) -> list[bytes]:
    """First keys of the runs of this prefix length, in order, inside which no range tells keys apart.

    `bounds`: the lengths of all ranges, by the prefix that each is inside of.
    """
    size = (length + 7) // 8
    bits, head = 8 * size, bytes((length,))
    found = {0}
    for key, spans in bounds.items():
        own = key[0]
        if own <= length and any(low <= length <= high for low, high in spans):
            first = int.from_bytes(key[1:], "big") << (bits - 8 * len(key) + 8)
            found.add(first)
            found.add(first + (1 << (bits - own)))
    found.discard(1 << bits)
    return [head + first.to_bytes(size, "big") for first in sorted(found)]


def compile_prefixes(conditions: Iterable[MatchPrefix]) -> Matcher:
    """One matcher for prefix conditions that must all hold."""
    matchers = [_compile(condition) for condition in conditions]
    if len(matchers) == 1:
        return matchers[0]
    return lambda key: all(match(key) for match in matchers)


def _compile(condition: MatchPrefix) -> Matcher:
    match = _ranges(condition.ranges)
    if condition.invert:
        return lambda key: not match(key)
    return match


def _ranges(ranges: tuple[PrefixRange, ...]) -> Matcher:
    usable = [r for r in ranges if max(r.minimum, r.key[0]) <= r.maximum]
    if not usable:
        return lambda key: False
    if len(usable) > _REGEX_LIMIT:
        return _by_length(usable)
    return re.compile(_pattern(frozenset(map(_octets, usable))), re.DOTALL).match


def _octets(entry: PrefixRange) -> tuple[_Span, ...]:
    """What the octets of a key inside must be, from the length on: (lowest, highest) each."""
    length = entry.key[0]
    whole, bits = divmod(length, 8)
    spans = [(max(entry.minimum, length), entry.maximum), *((octet, octet) for octet in entry.key[1 : 1 + whole])]
    if bits:
        base = entry.key[1 + whole]
        spans.append((base, base + (1 << (8 - bits)) - 1))
    return tuple(spans)


def _pattern(wanted: frozenset[tuple[_Span, ...]]) -> bytes:
    """A pattern for any of these: a tree, in which octets that lead to the same are one character class.

    The regex engine passes over a branch that begins with another octet in some 3 ns, so hundreds of blocks of one
    pool cost what one does.
    """
    if () in wanted:
        return b""
    tails: dict[_Span, set[tuple[_Span, ...]]] = {}
    for first, *tail in wanted:
        tails.setdefault(first, set()).add(tuple(tail))
    firsts: dict[bytes, list[_Span]] = {}
    for first, found in sorted(tails.items()):
        firsts.setdefault(_pattern(frozenset(found)), []).append(first)
    branches = [
        b"[" + b"".join(b"\\x%02x-\\x%02x" % span for span in spans) + b"]" + tail for tail, spans in firsts.items()
    ]
    return branches[0] if len(branches) == 1 else b"(?:" + b"|".join(branches) + b")"


def _by_length(ranges: list[PrefixRange]) -> Matcher:
    table: dict[int, dict[bytes, list[tuple[int, int]]]] = {}
    for entry in ranges:
        bounds = (max(entry.minimum, entry.key[0]), entry.maximum)
        table.setdefault(entry.key[0], {}).setdefault(entry.key[1:], []).append(bounds)
    lengths = sorted(table.items())

    def match(key: bytes) -> bool:
        for length, nets in lengths:
            if length > key[0]:
                return False
            bounds = nets.get(truncate(key, length)[1:])
            if bounds and any(low <= key[0] <= high for low, high in bounds):
                return True
        return False

    return match


def truncate(key: bytes, length: int) -> bytes:
    """The NLRI key of the prefix of `length` bits that covers `key`; `length` is at most the key's own."""
    whole, bits = divmod(length, 8)
    octets = key[1 : 1 + whole]
    if bits:
        octets += bytes((key[1 + whole] & (0xFF00 >> bits) & 0xFF,))
    return bytes((length,)) + octets
