"""NLRI fields: lists of prefixes to lists of keys (RFC 4271 §4.3; path identifiers: RFC 7911 §3).

The common field holds clean prefixes only. One pattern a family matches exactly those: a length octet, the octets that
it needs, no bit set beyond the length, no IPv4 multicast address. What it found, joined, equals the field; if not,
something in it is dirty or wrong, and a plain loop looks closer.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from types import MappingProxyType
from typing import TypeAlias

from bgpd.errors import BGPError, ErrorCode
from bgpd.family import IPV4_UNICAST, IPV6_UNICAST, Family

PATH_ID_LENGTH = 4

FindAll: TypeAlias = Callable[[bytes], list[bytes]]

# Lengths in the order in which they are likely; the pattern's branches are tried one after another.
_LIKELY = {32: (24, 32, 26, 22, 23, 21, 20, 19, 16, 18, 17), 128: (128, 122, 48, 32, 64, 44, 40, 36, 29, 56)}
_MULTICAST_LENGTH = 4
"""Prefixes of 224.0.0.0/4 and longer are no unicast routes (RFC 4271 §6.3). Of IPv6 nothing of the kind is said."""
_MULTICAST = range(0xE0, 0xF0)


def _octet_class(values: range | list[int]) -> bytes:
    return b"[" + b"".join(b"\\x%02x" % value for value in values) + b"]"


def _clean_prefix(length: int, bits: int) -> bytes:
    """A pattern for every clean unicast prefix of one length."""
    octets = (length + 7) // 8
    spare = -length % 8
    last = list(range(0, 256, 1 << spare))
    barred = _MULTICAST if bits == 32 and length >= _MULTICAST_LENGTH else range(0)
    unicast = b"[^\xe0-\xef]" if barred else b"."
    if octets == 0:
        body = b""
    elif octets == 1:
        body = _octet_class([value for value in last if value not in barred])
    elif spare:
        body = unicast + b"." * (octets - 2) + _octet_class(last)
    else:
        body = unicast + b"." * (octets - 1)
    return b"\\x%02x" % length + body


def _pattern(bits: int) -> bytes:
    order = [*_LIKELY[bits], *(n for n in range(bits + 1) if n not in _LIKELY[bits])]
    return b"|".join(_clean_prefix(length, bits) for length in order)


def _finders(head: bytes) -> MappingProxyType[Family, FindAll]:
    """Patterns of a clean prefix behind `head`."""
    return MappingProxyType(
        {
            family: re.compile(head + _pattern(family.bits) + b")", re.DOTALL).findall
            for family in (IPV4_UNICAST, IPV6_UNICAST)
        }
    )


_FIND = MappingProxyType({False: _finders(b"(?:"), True: _finders(b"." * PATH_ID_LENGTH + b"(?:")})
_FIND_BEHIND_ID = _finders(b"." * PATH_ID_LENGTH + b"(")


def finder(family: Family, add_path: bool) -> FindAll:
    """The bulk pattern: `b"".join(find(field)) == field` means that these are the field's keys, all clean unicast."""
    return _FIND[add_path][family]


def finder_behind_id(family: Family) -> FindAll:
    """The bulk pattern for a field in which all have one path identifier: it finds the keys alone.

    If it finds any, and `path_id + path_id.join(keys) == field`, these are the field's keys, all clean unicast: each
    match took four octets and a key, so matches of the field's length together leave nothing between them.
    """
    return _FIND_BEHIND_ID[family]


def split(data: bytes, family: Family) -> list[bytes]:
    """The keys of a field, in order, canonical, repeats included. Raises BGPError 3/10."""
    return _split(data, family, False)


def split_add_path(data: bytes, family: Family) -> list[bytes]:
    """As `split`; each key is behind the four octets of its path identifier."""
    return _split(data, family, True)


def _split(data: bytes, family: Family, add_path: bool) -> list[bytes]:
    keys = _FIND[add_path][family](data)
    if b"".join(keys) == data:
        return keys
    return split_carefully(data, family, add_path)


def split_carefully(data: bytes, family: Family, add_path: bool) -> list[bytes]:
    """The loop behind the patterns: clears spare bits, finds the fault. Raises BGPError 3/10."""
    keys: list[bytes] = []
    size = len(data)
    bits = family.bits
    path_id_length = PATH_ID_LENGTH if add_path else 0
    start = 0
    while start < size:
        length_at = start + path_id_length
        if length_at >= size:
            raise BGPError(ErrorCode.UPDATE_MESSAGE, 10, reason="cut path identifier")
        length = data[length_at]
        end = length_at + 1 + (length + 7 >> 3)
        if length > bits or end > size:
            text = f"prefix length {length}" if length > bits else f"prefix of length {length} cut"
            raise BGPError(ErrorCode.UPDATE_MESSAGE, 10, reason=f"{family}: {text}")
        keys.append(_clear_spare_bits(data[start:end], -length % 8))
        start = end
    return keys


def _clear_spare_bits(key: bytes, spare: int) -> bytes:
    if not spare or not key[-1] & (1 << spare) - 1:
        return key
    return key[:-1] + bytes((key[-1] >> spare << spare,))


def is_multicast(key: bytes, family: Family) -> bool:
    """The key (without path identifier) lies in 224.0.0.0/4: never a unicast route (RFC 4271 §6.3)."""
    return family.bits == 32 and key[0] >= _MULTICAST_LENGTH and key[1] in _MULTICAST
