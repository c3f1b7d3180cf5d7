"""The short road: patterns that match well-formed attribute blocks of the usual shape, and only those.

A match proves, in one call, all that `examine` would prove attribute by attribute: types in order, flags, lengths,
ORIGIN's value, one AS_SEQUENCE of the length that it claims, a next hop that can be one. Whatever is unusual
does not match and is examined. One thing no pattern sees, a large community that comes twice: `large_repeats` does.

Three attributes that only count between internal peers are in the pattern for external ones too, in groups apart:
they come often enough, and are cut out (RFC 7606 §7.5, §7.9, §7.10).

Wherever each UPDATE comes along, octets are looked for in a block by `find`: `in` tries them as a number first, and
makes an exception of that, with its text, each time.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from types import MappingProxyType
from typing import TypeAlias

Match: TypeAlias = "re.Match[bytes]"
Matcher: TypeAlias = Callable[[bytes], "Match | None"]

_ORIGIN = rb"(\x40\x01\x01[\x00-\x02])"
_NEXT_HOP = rb"\x40\x03\x04([^\x00\x7f\xe0-\xff]...)"
_MED = rb"(?:\x80\x04\x04....)?"
_LOCAL_PREF = rb"(?:\x40\x05\x04....)?"
_ATOMIC_AGGREGATE = rb"(?:\x40\x06\x00)?"
_AGGREGATOR = rb"(?:[\xc0\xe0]\x07\x08(?!\x00\x00\x00\x00)........)?"
_ORIGINATOR_ID = rb"(?:\x80\x09\x04....)?"
_OTC = rb"(?:[\xc0\xe0]\x23\x04....)?"


def _octet(value: int) -> bytes:
    return b"\\x%02x" % value


def _list(flags: bytes, code: int, size: int) -> bytes:
    """An attribute that holds 1 to n items of `size` octets; a branch a count, told apart by the length octet."""
    branches = (_octet(length) + b".{%d}" % length for length in range(size, 256, size))
    return b"(?:" + flags + _octet(code) + b"(?:" + b"|".join(branches) + b"))?"


def _as_path() -> bytes:
    """Empty, or one AS_SEQUENCE. Some speakers give AS_PATH a two-octet length always: that header is left out."""
    # The lengths of most Internet paths come first: the branches are tried one after another.
    counts = (4, 5, 3, 6, 2, 1, *range(7, 64))
    branches = (_octet(2 + 4 * n) + rb"\x02" + _octet(n) + b".{%d}" % (4 * n) for n in counts)
    return rb"(?:\x40\x02|\x50\x02\x00)(\x00|" + b"|".join(branches) + b")"


_MIDDLE = _ATOMIC_AGGREGATE + _AGGREGATOR + _list(rb"[\xc0\xe0]", 8, 4)
_CLUSTER_LIST = _list(rb"\x80", 10, 4)
_END = _list(rb"[\xc0\xe0]", 16, 8) + _list(rb"[\xc0\xe0]", 32, 12) + _OTC

_FROM_INTERNAL = b"(" + _MED + _LOCAL_PREF + _MIDDLE + _ORIGINATOR_ID + _CLUSTER_LIST + _END + b")"
_FROM_EXTERNAL = b"".join(
    b"(" + group + b")" for group in (_MED, _LOCAL_PREF, _MIDDLE, _ORIGINATOR_ID, _CLUSTER_LIST, _END)
)


def _plain() -> MappingProxyType[bool, Matcher]:
    head = b"(" + _ORIGIN[1:-1] + _as_path().replace(b")(", b")(?:", 1) + b")" + _NEXT_HOP
    # A block often ends where another attribute could stand: one look for the end saves looks for each of these.
    end = rb"(?:\Z|" + _END + b")"
    external = b"(" + _MED + _MIDDLE + end + b")"
    internal = b"(" + _MED + _LOCAL_PREF + _MIDDLE + rb"(?:\Z|" + _ORIGINATOR_ID + _CLUSTER_LIST + end + b"))"
    tails = {True: external, False: internal}
    return MappingProxyType({side: re.compile(head + tail, re.DOTALL).fullmatch for side, tail in tails.items()})


PLAIN = _plain()
"""Blocks beside an IPv4 NLRI field, by whether the peer is external, from which nothing is to be discarded. The groups
are what comes before NEXT_HOP, its value, and what follows: cutting it out is all there is to do, but where AS_PATH has
a length of two octets."""


def _compile(head: bytes) -> MappingProxyType[bool, Matcher]:
    """By whether the peer is external."""
    tails = {True: _FROM_EXTERNAL, False: _FROM_INTERNAL}
    return MappingProxyType({side: re.compile(head + tail, re.DOTALL).fullmatch for side, tail in tails.items()})


CLASSIC = _compile(_ORIGIN + _as_path() + _NEXT_HOP)
"""Blocks beside an IPv4 NLRI field, by whether the peer is external.

Groups: ORIGIN; AS_PATH from its length octet on; next hop; then, from an internal peer, all that follows; from an
external one six groups, of which LOCAL_PREF, ORIGINATOR_ID and CLUSTER_LIST (the second, fourth and fifth) are to be
discarded.
"""

REFLECTABLE: Matcher = re.compile(
    _ORIGIN[1:-1] + _as_path().replace(b")(", b")(?:", 1) + b"(" + _MED + _LOCAL_PREF[3:-2] + _MIDDLE + b")" + _END,
    re.DOTALL,
).fullmatch
"""Canonical blocks with LOCAL_PREF and without ORIGINATOR_ID and CLUSTER_LIST. NEXT_HOP belongs before the only group,
those two behind it."""

MULTIPROTOCOL = _compile(_ORIGIN + _as_path())
"""Blocks from which MP_REACH_NLRI was cut. Groups as in CLASSIC, without the next hop."""

several_large = re.compile(rb"[\xc0\xe0]\x20[\x18-\xfc]").search
"""Finds something in each block of the usual shape with more than one large community, and sometimes in others."""


def large_repeats(block: bytes) -> bool:
    """Whether a large community may be there twice (RFC 8092 §3), for a block in which `several_large` found something.

    Each place that looks like the attribute is looked at, as the first may be within another's value.
    """
    found = several_large(block)
    while found is not None:
        at = found.start() + 3
        values = [block[i : i + 12] for i in range(at, at + block[at - 1], 12)]
        if len(set(values)) != len(values):
            return True
        found = several_large(block, at - 2)
    return False
