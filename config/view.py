"""Settings as plain values for people and JSON: prefixes as text, passwords hidden, terms as sentences."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Any

from attrs import fields, has

from bgpd.family import Family, format_address, format_prefix
from bgpd.policy import terms as t
from bgpd.settings import PeerSettings, StaticRoute

__all__ = ["HIDDEN", "plain", "term_text"]

HIDDEN = "(hidden)"


def plain(value: object) -> Any:
    """Settings of any depth as dict, list, str, int, bool or None."""
    if isinstance(value, Family):
        return str(value)
    if isinstance(value, t.Term):
        return term_text(value)
    if isinstance(value, StaticRoute):
        return _static(value)
    if isinstance(value, Enum):
        return value.name.lower()
    if isinstance(value, bytes):
        return format_address(value) if len(value) in (4, 16) else value.hex()
    if isinstance(value, PeerSettings):
        shown = _fields(value)
        shown["password"] = HIDDEN if value.password is not None else None
        return shown
    if has(type(value)):
        return _fields(value)
    if isinstance(value, (tuple, list, frozenset)):
        return [plain(item) for item in value]
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    return value


def _fields(value: Any) -> dict[str, Any]:
    return {attribute.name: plain(getattr(value, attribute.name)) for attribute in fields(type(value))}


def _static(route: StaticRoute) -> dict[str, Any]:
    return {
        "prefix": format_prefix(route.family, route.key),
        "kind": route.kind.name.lower(),
        "gateway": format_address(route.gateway) if route.gateway else None,
        "label": route.label,
    }


def term_text(term: t.Term) -> str:
    """One term as a sentence: "IPPool pods: if prefix in 10.244.0.0/16: accept"."""
    words = [term.label]
    if term.conditions:
        words.append("if " + " and ".join(map(_condition, term.conditions)))
    if term.actions:
        words.append(", ".join(map(_action, term.actions)))
    return ": ".join([*words, term.verdict.value])


def _range(entry: t.PrefixRange) -> str:
    prefix, length, bits = format_prefix(entry.family, entry.key), entry.key[0], entry.family.bits
    if (entry.minimum, entry.maximum) == (length, length):
        return f"exactly {prefix}"
    return prefix if (entry.minimum, entry.maximum) == (length, bits) else f"{prefix} {entry.minimum}-{entry.maximum}"


def _span(name: str, low: int, high: int) -> str:
    return f"{name} {low}" if low == high else f"{name} {low}-{high}"


def _community(value: int | tuple[int, int, int]) -> str:
    return f"{value >> 16}:{value & 0xFFFF}" if isinstance(value, int) else ":".join(map(str, value))


def _condition(condition: t.Condition) -> str:
    match condition:
        case t.MatchPrefix(ranges, invert):
            return f"prefix {'not ' if invert else ''}in {', '.join(map(_range, ranges))}"
        case t.MatchSource(kinds):
            return "source " + " or ".join(sorted(kind.value for kind in kinds))
        case t.MatchInterface(pattern):
            return f"interface {pattern}"
        case t.MatchCommunity(value) | t.MatchLargeCommunity(value):
            return f"community {_community(value)}"
        case t.MatchAsPathPrefix(asns):
            return "AS_PATH begins " + " ".join(map(str, asns))
        case t.MatchLocalPref(low, high):
            return _span("LOCAL_PREF", low, high)
        case t.MatchMetric(low, high):
            return _span("metric", low, high)
        case t.MatchNextHop(addresses):
            return "next hop " + " or ".join(sorted(map(format_address, addresses)))
        case t.MatchNextHopInside(family, key):
            return f"next hop in {format_prefix(family, key)}"


def _action(action: t.Action) -> str:
    match action:
        case t.AddCommunity(value) | t.AddLargeCommunity(value):
            return f"add community {_community(value)}"
        case t.PrependAsPath(asns):
            return "prepend " + " ".join(map(str, asns))
        case t.SetLocalPref(value):
            return f"LOCAL_PREF {value}"
        case t.SetPreference(value):
            return f"preference {value}"
        case t.LocalPrefFromMetric(base, default):
            return f"LOCAL_PREF {base} - metric ({default} where none)"
        case t.MetricFromLocalPref(base):
            return f"metric {base} - LOCAL_PREF"
        case t.SetTunnel(device):
            return f"through {device}"
