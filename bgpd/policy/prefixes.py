"""Prefix conditions, compiled to one bytes regex over NLRI keys.

A key begins with its length octet, so "inside 10.244.0.0/16, up to /32" is `[\\x10-\\x20]\\x0a\\xf4`: one C-level
match a prefix, which lets a chain that looks at prefixes stay bulk (`all(map(match, keys))`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from bgpd.policy.terms import MatchPrefix, PrefixRange

Matcher = Callable[[bytes], object]
"""NLRI key to something true or false."""

# An alternation is tried branch by branch; beyond this many branches a look-up by length is cheaper.
_REGEX_LIMIT = 24


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
    return re.compile(b"|".join(map(_pattern, usable)), re.DOTALL).match


def _pattern(entry: PrefixRange) -> bytes:
    length = entry.key[0]
    pattern = _octets(max(entry.minimum, length), entry.maximum)
    whole, bits = divmod(length, 8)
    pattern += re.escape(entry.key[1 : 1 + whole])
    if bits:
        base = entry.key[1 + whole]
        pattern += _octets(base, base + (1 << (8 - bits)) - 1)
    return pattern


def _octets(low: int, high: int) -> bytes:
    return b"[\\x%02x-\\x%02x]" % (low, high)


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
