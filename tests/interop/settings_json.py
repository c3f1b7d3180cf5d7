"""SpeakerSettings from JSON, for tests of features that Calico's resources cannot express.

The JSON has the fields' own names. Families are "ipv4" and "ipv6", enumerations are member names in lower case, and a
family's chains are "accept", "reject" or {"reject": [prefixes]}.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Any

from attrs import fields

from bgpd.family import IPV4_UNICAST, IPV6_UNICAST, Family, parse_prefix
from bgpd.policy.terms import ACCEPT_ALL, REJECT_ALL, MatchPrefix, PrefixRange, Term, Verdict
from bgpd.settings import (
    AddPath,
    FamilySettings,
    FibSettings,
    LearnSettings,
    NextHopMode,
    PeerSettings,
    SpeakerSettings,
    StaticKind,
    StaticRoute,
)

_FAMILIES = {"ipv4": IPV4_UNICAST, "ipv6": IPV6_UNICAST}
_ENUMS: dict[str, type[Enum]] = {"add_path": AddPath, "next_hop_mode": NextHopMode}


def speaker_settings(data: Mapping[str, Any]) -> SpeakerSettings:
    """The whole settings. Raises TypeError or KeyError for names that the settings do not have."""
    values = dict(data)
    values["listen"] = tuple((host, port) for host, port in values.get("listen", [["0.0.0.0", 179], ["::", 179]]))
    values["peers"] = tuple(peer_settings(item) for item in values.get("peers", ()))
    values["dynamic"] = tuple((cidr, peer_settings(item)) for cidr, item in values.get("dynamic", ()))
    values["static_routes"] = tuple(_static(item) for item in values.get("static_routes", ()))
    # Scripted peers come as fast as they can, and from one address.
    values.setdefault("connection_rate", 0)
    values["learn"] = LearnSettings(**_tuples(values.get("learn", {})))
    values["fib"] = FibSettings(**_tuples(values.get("fib", {})))
    return SpeakerSettings(**values)


def peer_settings(data: Mapping[str, Any]) -> PeerSettings:
    """One peer; `families` is a list of names or of objects with FamilySettings' fields."""
    values = _enums(dict(data))
    values["families"] = tuple(_family(item) for item in values.get("families", ("ipv4", "ipv6")))
    own = values.get("own_addresses", {})
    values["own_addresses"] = tuple((_FAMILIES[family], address) for family, address in own.items())
    values.setdefault("label", f"test peer {values['name']}")
    known = {one.name for one in fields(PeerSettings)}
    if unknown := set(values) - known:
        raise KeyError(f"PeerSettings has no {sorted(unknown)}")
    return PeerSettings(**values)


def _family(item: str | Mapping[str, Any]) -> FamilySettings:
    if isinstance(item, str):
        return FamilySettings(_FAMILIES[item])
    values = _enums(dict(item))
    family = values["family"] = _FAMILIES[values["family"]]
    for name in ("import_chain", "export_chain"):
        if name in values:
            values[name] = _chain(family, values[name])
    return FamilySettings(**values)


def _chain(family: Family, item: str | Mapping[str, list[str]]) -> tuple[Term, ...]:
    if isinstance(item, str):
        return {"accept": ACCEPT_ALL, "reject": REJECT_ALL}[item]
    ranges = []
    for text in item["reject"]:
        of, key = parse_prefix(text)
        ranges.append(PrefixRange(of, key, key[0], family.bits))
    return (Term("test: refused prefixes", Verdict.REJECT, (MatchPrefix(tuple(ranges)),)), *ACCEPT_ALL)


def _static(item: Mapping[str, Any]) -> StaticRoute:
    family, key = parse_prefix(item["prefix"])
    return StaticRoute(family, key, StaticKind[item.get("kind", "blackhole").upper()], item.get("label", "test route"))


def _enums(values: dict[str, Any]) -> dict[str, Any]:
    for name, kind in _ENUMS.items():
        if isinstance(values.get(name), str):
            values[name] = kind[values[name].upper()]
    return values


def _tuples(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
