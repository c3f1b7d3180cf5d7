"""AS_PATH values (RFC 4271 §4.3, §5.1.2; RFC 5065; RFC 6793; RFC 7607; RFC 9774).

A value is the attribute's octets with four-octet AS numbers, unless a function says other.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from struct import unpack
from typing import TypeAlias

AS_SET = 1
AS_SEQUENCE = 2
AS_CONFED_SEQUENCE = 3
AS_CONFED_SET = 4
AS_TRANS = 23456

_MAX_SEGMENT = 255

HAS_AS_SET = "AS_SET (RFC 9774)"
"""The reason that `malformed` gives for a path which is well-formed and still not wanted."""

Segments: TypeAlias = tuple[tuple[int, tuple[int, ...]], ...]


def segments(value: bytes, width: int = 4) -> Iterator[tuple[int, bytes]]:
    """(segment type, octets of its AS numbers). Raises ValueError, in words, at the first malformed segment."""
    start = 0
    size = len(value)
    while start < size:
        if size - start < 2:
            raise ValueError("one octet left behind the last segment")
        kind, count = value[start], value[start + 1]
        end = start + 2 + count * width
        if not AS_SET <= kind <= AS_CONFED_SET:
            raise ValueError(f"segment type {kind}")
        if not count:
            raise ValueError("segment of length 0")
        if end > size:
            raise ValueError(f"segment of {count} AS numbers runs over the attribute")
        yield kind, value[start + 2 : end]
        start = end


def numbers(octets: bytes, width: int = 4) -> tuple[int, ...]:
    """Packed AS numbers to integers."""
    return unpack(f">{len(octets) // width}{'I' if width == 4 else 'H'}", octets)


def decode(value: bytes) -> Segments:
    """((segment type, AS numbers), ...). Raises ValueError."""
    return tuple((kind, numbers(octets)) for kind, octets in segments(value))


def encode(path: Segments, width: int = 4) -> bytes:
    """The inverse of `decode`. Segments hold 1 to 255 AS numbers."""
    out = bytearray()
    for kind, asns in path:
        out += bytes((kind, len(asns)))
        out += b"".join(asn.to_bytes(width, "big") for asn in asns)
    return bytes(out)


def malformed(value: bytes, width: int, allow_sets: bool) -> str:
    """Why an AS_PATH calls for treat-as-withdraw; "" if it does not (RFC 7606 §7.2)."""
    has_set = False
    try:
        for kind, octets in segments(value, width):
            if kind in (AS_CONFED_SEQUENCE, AS_CONFED_SET):
                return "confederation segment, and we are in none (RFC 5065 §5)"
            if 0 in numbers(octets, width):
                return "AS 0 (RFC 7607)"
            has_set = has_set or kind == AS_SET
    except ValueError as error:
        return str(error)
    return HAS_AS_SET if has_set and not allow_sets else ""


def length(value: bytes) -> int:
    """Length for the decision process: a set counts 1, confederations 0 (RFC 4271 §9.1.2.2 a, RFC 5065 §5.3)."""
    if value[:1] == b"\x02" and len(value) == 2 + 4 * value[1]:
        return value[1]
    total = 0
    for kind, octets in segments(value):
        if kind == AS_SEQUENCE:
            total += len(octets) >> 2
        elif kind == AS_SET:
            total += 1
    return total


def neighbor_as(value: bytes) -> int:
    """The leftmost AS number if the path begins with an AS_SEQUENCE, else 0."""
    return int.from_bytes(value[2:6], "big") if value[:1] == b"\x02" else 0


def count(value: bytes, asn: int) -> int:
    """How often an AS number is in the path, in whatever segments."""
    wanted = asn.to_bytes(4, "big")
    if wanted not in value:
        return 0
    return sum(numbers(octets).count(asn) for _, octets in segments(value))


def prepend(value: bytes, asns: Sequence[int]) -> bytes:
    """`asns` in front of the path: into a leading AS_SEQUENCE, or into new ones where it is full (RFC 4271 §5.1.2)."""
    octets = b"".join(asn.to_bytes(4, "big") for asn in asns)
    if value[:1] == b"\x02" and value[1] + len(asns) <= _MAX_SEGMENT:
        return bytes((AS_SEQUENCE, value[1] + len(asns))) + octets + value[2:]
    if value[:1] == b"\x02":
        split = 2 + 4 * value[1]
        octets, value = octets + value[2:split], value[split:]
    return _sequences(octets) + value


def _sequences(octets: bytes) -> bytes:
    """AS_SEQUENCE segments for packed AS numbers: full ones behind, the remainder in front."""
    first = len(octets) % (4 * _MAX_SEGMENT)
    parts = [octets[:first]] if first else []
    parts += [octets[i : i + 4 * _MAX_SEGMENT] for i in range(first, len(octets), 4 * _MAX_SEGMENT)]
    return b"".join(bytes((AS_SEQUENCE, len(part) >> 2)) + part for part in parts)


def widen(value: bytes) -> bytes:
    """A checked two-octet path to four octets."""
    out = bytearray()
    for kind, octets in segments(value, 2):
        out += bytes((kind, len(octets) >> 1))
        for i in range(0, len(octets), 2):
            out += b"\0\0" + octets[i : i + 2]
    return bytes(out)


def narrow(value: bytes) -> tuple[bytes, bytes | None]:
    """(two-octet AS_PATH, AS4_PATH or None where it is not needed) for an old speaker (RFC 6793 §4.2.2)."""
    path = decode(value)
    if all(asn <= 0xFFFF for _, asns in path for asn in asns):
        return encode(path, 2), None
    short = tuple((kind, tuple(asn if asn <= 0xFFFF else AS_TRANS for asn in asns)) for kind, asns in path)
    public = tuple(segment for segment in path if segment[0] in (AS_SET, AS_SEQUENCE))
    return encode(short, 2), encode(public)


def as4_path(value: bytes) -> bytes:
    """An AS4_PATH without its confederation segments (RFC 6793 §6). Raises ValueError where it must be discarded."""
    kept: list[tuple[int, tuple[int, ...]]] = []
    for kind, octets in segments(value):
        asns = numbers(octets)
        if 0 in asns:
            raise ValueError("AS 0 (RFC 7607)")
        if kind in (AS_SET, AS_SEQUENCE):
            kept.append((kind, asns))
    if not kept:
        raise ValueError("no AS number in it")
    return encode(tuple(kept))


def merge(value: bytes, as4: bytes) -> bytes:
    """AS_PATH and AS4_PATH of an old speaker to the path that was meant (RFC 6793 §4.2.3).

    An AS4_PATH longer than the AS_PATH is ignored.
    """
    surplus = length(value) - length(as4)
    if surplus < 0:
        return value
    leading: list[tuple[int, tuple[int, ...]]] = []
    for kind, asns in decode(value):
        if kind in (AS_CONFED_SEQUENCE, AS_CONFED_SET):
            leading.append((kind, asns))
            continue
        if not surplus:
            break
        if kind == AS_SEQUENCE:
            asns = asns[:surplus]
        surplus -= len(asns) if kind == AS_SEQUENCE else 1
        leading.append((kind, asns))
    head = encode(tuple(leading))
    if leading and leading[-1][0] == AS_SEQUENCE and len(leading) == 1:
        return _join(head, as4)
    return head + as4


def _join(head: bytes, tail: bytes) -> bytes:
    """One AS_SEQUENCE and a path: joined where both meet in an AS_SEQUENCE and fit."""
    if tail[:1] == b"\x02" and head[1] + tail[1] <= _MAX_SEGMENT:
        return bytes((AS_SEQUENCE, head[1] + tail[1])) + head[2:] + tail[2:]
    return head + tail
