"""Numbers and names as people read them in tables."""

from __future__ import annotations

from typing import TypeVar

from bgpd.api.schema import Attributes, Route, RouteSource, UnknownAttribute
from bgpd.ctl.exabgp_text import attribute_text

_T = TypeVar("_T")
_EXTENDED_COMMUNITIES = 16


def duration(seconds: float | None) -> str:
    """42s, 3m10s, 5h02m, 12d04h; - for None."""
    if seconds is None:
        return "-"
    whole = max(int(seconds), 0)
    if whole < 1:
        return "<1s"
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02}s"
    if whole < 86400:
        return f"{whole // 3600}h{whole % 3600 // 60:02}m"
    return f"{whole // 86400}d{whole % 86400 // 3600:02}h"


def printable(value: _T) -> _T:
    """An answer whose texts hold no control characters: what peers and files wrote must not command a terminal."""
    if isinstance(value, str):
        return value if value.isprintable() else _escaped(value)  # type: ignore[return-value]
    if isinstance(value, list):
        return [printable(item) for item in value]  # type: ignore[return-value]
    if isinstance(value, dict):
        return {printable(name): printable(item) for name, item in value.items()}  # type: ignore[return-value]
    return value


def _escaped(text: str) -> str:
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def origin_of(source: RouteSource) -> str:
    """A path's source: the peer, or what kind of local route it is."""
    return source["peer"] or source["kind"]


def flags(route: Route) -> str:
    """ "*" best, "=" shares traffic with the best, "!" not usable, "s" stale."""
    mark = "*" if route["best"] else "!" if not route["eligible"] else "=" if route["multipath"] else " "
    return mark + ("s" if route["stale"] else "")


def attributes(attrs: Attributes, next_hop: bool = True) -> str:
    """Path attributes on one line: what is absent is left out."""
    parts = [f"next hop {attrs['next_hop']}"] if next_hop and attrs["next_hop"] != "-" else []
    parts += [f"AS path {attrs['as_path'] or '(empty)'}", f"origin {attrs['origin']}"]
    named = (
        ("local pref", attrs["local_pref"]),
        ("MED", attrs["med"]),
        ("originator", attrs["originator_id"]),
    )
    parts += [f"{name} {value}" for name, value in named if value is not None]
    listed = (
        ("communities", attrs["communities"]),
        ("large communities", attrs["large_communities"]),
        ("extended communities", [_extended(value) for value in attrs["extended_communities"]]),
        ("cluster list", attrs["cluster_list"]),
    )
    parts += [f"{name} {' '.join(values)}" for name, values in listed if values]
    parts += map(_unknown, attrs["unknown"])
    return ", ".join(parts)


def _unknown(item: UnknownAttribute) -> str:
    """An attribute that is only passed on: in ExaBGP's words where they are to be had, else its size."""
    text = attribute_text(item["code"], item["flags"], item["value"])
    return f"attribute {item['code']} ({printable(text) if text else count(len(item['value']) // 2, 'octet')})"


def _extended(value: str) -> str:
    """One extended community of eight octets, given as hex digits (RFC 4360)."""
    return printable(attribute_text(_EXTENDED_COMMUNITIES, 0xC0, value) or value).replace(" ", "-")


def count(number: int, noun: str, plural: str = "") -> str:
    """ "1 path", "3 paths"."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"
