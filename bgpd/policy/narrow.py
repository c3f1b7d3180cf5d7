"""Which prefixes two chains may decide differently. Most changes of policy concern a few: an own block, one rule."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain

from bgpd.policy.terms import MatchPrefix, PrefixRange, Term
from bgpd.sequences import alike

_ENUMERABLE = 2048
"""Up to so many prefixes inside a range are looked up one by one, instead of looking at the whole table."""

_Content = tuple[object, ...]


def concerned(old: Sequence[Term], new: Sequence[Term]) -> tuple[PrefixRange, ...] | None:
    """Ranges outside of which both chains decide alike; None where that cannot be told.

    It can where the terms that differ name prefixes, and the others come in the same order: to a prefix outside, what
    differs is not there.
    """
    old, new = _apart(old, new)
    before, after = [_content(term) for term in old], [_content(term) for term in new]
    known, wanted = set(before), set(after)
    if len(known) != len(before) or len(wanted) != len(after):
        return None
    if [term for term in before if term in wanted] != [term for term in after if term in known]:
        return None
    ranges: list[PrefixRange] = []
    differing = [term for term in (*old, *new) if (content := _content(term)) not in known or content not in wanted]
    for term in differing:
        named = [c.ranges for c in term.conditions if isinstance(c, MatchPrefix) and not c.invert]
        if not named:
            return None
        ranges += named[0]
    return tuple(dict.fromkeys(ranges))


def _apart(old: Sequence[Term], new: Sequence[Term]) -> tuple[Sequence[Term], Sequence[Term]]:
    """Both without what they begin and end with alike: of hundreds of terms, a block more leaves three."""
    head = alike(old, new)
    old, new = old[head:], new[head:]
    tail = alike(old[::-1], new[::-1])
    return old[: len(old) - tail], new[: len(new) - tail]


def _content(term: Term) -> _Content:
    """All of a term but its label."""
    return term.verdict, term.conditions, term.actions


def enumerate_keys(ranges: Iterable[PrefixRange]) -> list[bytes] | None:
    """All NLRI keys inside these ranges; None where they are too many to look up one by one."""
    usable = list(ranges)
    if sum(_count(entry) for entry in usable) > _ENUMERABLE:
        return None
    return list(dict.fromkeys(chain.from_iterable(map(_keys, usable))))


def _count(entry: PrefixRange) -> int:
    # Lengths first..maximum of a prefix of length `own` hold 2^(maximum - own + 1) - 2^(first - own) prefixes.
    own = entry.key[0]
    first = max(entry.minimum, own)
    return 0 if first > entry.maximum else (2 << (entry.maximum - own)) - (1 << (first - own))


def _keys(entry: PrefixRange) -> list[bytes]:
    own, octets, bits = entry.key[0], entry.family.octets, entry.family.bits
    first = int.from_bytes(entry.key[1:].ljust(octets, b"\0"), "big")
    found: list[bytes] = []
    for length in range(max(entry.minimum, own), entry.maximum + 1):
        head, size = bytes((length,)), (length + 7) // 8
        # Without the octets behind the prefix, so that a number is one.
        unused = bits - 8 * size
        values = range(first >> unused, (first >> unused) + (1 << (8 * size - own)), 1 << (8 * size - length))
        found += [head + value.to_bytes(size, "big") for value in values]
    return found
