"""Paths and attributes as text and JSON."""

from __future__ import annotations

from datetime import UTC, datetime
from socket import AF_INET, inet_ntop

from bgpd.api.schema import Attributes, RouteSource, UnknownAttribute
from bgpd.family import Family, format_address, format_prefix
from bgpd.rib.path import Path, Source
from bgpd.wire.attributes import PathAttributes

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
    """"64512:100", or the name of a well-known one (RFC 1997, 7999, 8326)."""
    return _WELL_KNOWN.get(value) or f"{value >> 16}:{value & 0xFFFF}"


def as_path(segments: tuple[tuple[int, tuple[int, ...]], ...]) -> str:
    """"64512 64513 {64514 64515}"."""
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


def attributes(attrs: PathAttributes, hop: bytes | None = None) -> Attributes:
    """Path attributes as JSON; `hop` stands for the next hop where it is not the one in `attrs`."""
    origin = attrs.origin
    return {
        "origin": _ORIGINS[origin] if origin < len(_ORIGINS) else str(origin),
        "as_path": as_path(attrs.as_path),
        "next_hop": next_hop(attrs.next_hop if hop is None else hop),
        "med": attrs.med,
        "local_pref": attrs.local_pref,
        "communities": [community(value) for value in attrs.communities],
        "large_communities": [":".join(map(str, value)) for value in attrs.large_communities],
        "extended_communities": [value.hex() for value in attrs.extended_communities],
        "originator_id": None if attrs.originator_id is None else format_address(attrs.originator_id),
        "cluster_list": [format_address(value) for value in attrs.cluster_list],
        "unknown": _unknown(attrs),
    }


def _unknown(attrs: PathAttributes) -> list[UnknownAttribute]:
    return [
        {"code": code, "flags": flags, "value": value.hex()}
        for flags, code, value in attrs.items()
        if code not in _KNOWN
    ]


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
