"""Paths and attributes as text and JSON."""

from __future__ import annotations

from datetime import UTC, datetime
from socket import AF_INET, inet_ntop
from struct import unpack

from bgpd.api.schema import Attributes, RouteSource, UnknownAttribute
from bgpd.family import Family, format_address, format_prefix
from bgpd.rib.path import Path, Source
from bgpd.wire import aspath
from bgpd.wire.attributes import PathAttributes
from bgpd.wire.rules import Code

_ORIGINS = ("igp", "egp", "incomplete")
_KNOWN = frozenset({1, 2, 3, 4, 5, 8, 9, 10, 14, 15, 16, 32})
_SEGMENTS = {1: "{}", 3: "()", 4: "[]"}
"""Brackets by segment type: AS_SET, AS_CONFED_SEQUENCE, AS_CONFED_SET (RFC 4271 §4.3, RFC 5065 §3)."""
_WELL_KNOWN = {
    0xFFFF0000: "graceful-shutdown",
    0xFFFF0006: "llgr-stale",
    0xFFFF0007: "no-llgr",
    0xFFFF029A: "blackhole",
    0xFFFFFF01: "no-export",
    0xFFFFFF02: "no-advertise",
    0xFFFFFF03: "no-export-subconfed",
    0xFFFFFF04: "no-peer",
}


def timestamp(seconds: float) -> str:
    """Seconds since 1970 as ISO 8601 in UTC."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def prefix(family: Family, key: bytes) -> str:
    """NLRI key as text; the IPv4 way is short because whole tables are printed by it."""
    if family.afi == 1:
        return f"{inet_ntop(AF_INET, key[1:].ljust(4, bytes(1)))}/{key[0]}"
    return format_prefix(family, key)


def community(value: int) -> str:
    """ "64512:100", or the name of a well-known one (RFC 1997, 7999, 8326)."""
    return _WELL_KNOWN.get(value) or f"{value >> 16}:{value & 0xFFFF}"


def as_path(segments: tuple[tuple[int, tuple[int, ...]], ...]) -> str:
    """ "64512 64513 {64514 64515}"."""
    parts = []
    for kind, asns in segments:
        text = " ".join(map(str, asns))
        brackets = _SEGMENTS.get(kind)
        parts.append(f"{brackets[0]}{text}{brackets[1]}" if brackets else text)
    return " ".join(parts)


def next_hop(packed: bytes) -> str:
    """A next hop; with a link-local address beside the global one, both."""
    if len(packed) == 32:
        return f"{format_address(packed[:16])} {format_address(packed[16:])}"
    return format_address(packed)


def attributes(attrs: PathAttributes) -> Attributes:
    """Path attributes as JSON.

    Decoded here in one walk, not through the views of PathAttributes: those keep what they decode, which is of use to
    the decision process and would be lost memory for each path of a printed table.
    """
    items = attrs.items()
    values = {code: value for _, code, value in items}
    origin = values.get(Code.ORIGIN, b"\0")[0]
    return {
        "origin": _ORIGINS[origin] if origin < len(_ORIGINS) else str(origin),
        "as_path": as_path(aspath.decode(values.get(Code.AS_PATH, b""))),
        "next_hop": next_hop(attrs.next_hop),
        "med": _number(values.get(Code.MULTI_EXIT_DISC)),
        "local_pref": _number(values.get(Code.LOCAL_PREF)),
        "communities": [community(value) for value in _numbers(values.get(Code.COMMUNITIES, b""))],
        "large_communities": [
            ":".join(map(str, _numbers(value))) for value in _parts(values.get(Code.LARGE_COMMUNITIES, b""), 12)
        ],
        "extended_communities": [value.hex() for value in _parts(values.get(Code.EXTENDED_COMMUNITIES, b""), 8)],
        "originator_id": format_address(values[Code.ORIGINATOR_ID]) if Code.ORIGINATOR_ID in values else None,
        "cluster_list": [format_address(value) for value in _parts(values.get(Code.CLUSTER_LIST, b""), 4)],
        "unknown": [
            UnknownAttribute(code=code, flags=flags, value=value.hex())
            for flags, code, value in items
            if code not in _KNOWN
        ],
    }


def _number(value: bytes | None) -> int | None:
    return None if value is None else int.from_bytes(value, "big")


def _numbers(value: bytes) -> tuple[int, ...]:
    return unpack(f">{len(value) >> 2}I", value)


def _parts(value: bytes, size: int) -> list[bytes]:
    return [value[i : i + size] for i in range(0, len(value), size)]


def source(path: Path) -> RouteSource:
    """Where a path comes from. The label of a local one says which route or object it is."""
    origin: Source = path.source
    if origin.is_bgp:
        return {
            "kind": origin.kind.value,
            "peer": origin.name,
            "address": format_address(origin.address) if origin.address else None,
            "label": "",
        }
    return {"kind": origin.kind.value, "peer": None, "address": None, "label": path.label}
