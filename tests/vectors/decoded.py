"""Compares an outcome with what the origin of a case says it decodes to: exabgp's JSON, or a few fields of our own."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import ip_address, ip_network
from types import MappingProxyType
from typing import Any, TypeAlias

from bgpd.wire import aspath
from tests.vectors.outcome import Outcome

_FAMILIES = MappingProxyType(
    {"ipv4 unicast": (1, 1), "ipv6 unicast": (2, 1), "ipv4-unicast": (1, 1), "ipv6-unicast": (2, 1)}
)

Show: TypeAlias = Callable[[bytes], Any]


def compare(wanted: dict[str, Any] | None, outcome: Outcome) -> str:
    """What differs, or "". Families and attributes that we only pass on are not compared."""
    if not wanted:
        return ""
    if "end_of_rib" in wanted:
        family = _FAMILIES[wanted["end_of_rib"]]
        return "" if outcome.end_of_rib == family else f"End-of-RIB {outcome.end_of_rib}, {family} wanted"
    if isinstance(wanted.get("announce", wanted.get("withdraw")), list):
        return _compare_own(wanted, outcome)
    update = wanted.get("update") or wanted.get("neighbor", {}).get("message", {}).get("update", {})
    return _compare_routes(update, outcome) or _compare_attributes(update.get("attribute", {}), outcome)


def _compare_own(wanted: dict[str, Any], outcome: Outcome) -> str:
    for word, prefixes in (("announce", outcome.announced), ("withdraw", outcome.withdrawn)):
        found = {prefix for keys in prefixes.values() for prefix in keys}
        if word in wanted and found != {_bits(text) for text in wanted[word]}:
            return f"prefixes to {word} differ"
    hop = wanted.get("next_hop")
    hops = {str(ip_address(octets[:16])) for octets in outcome.next_hops.values()}
    return "" if hop is None or hops == {hop} else f"next hop {hops}, {hop} wanted"


def _bits(prefix: str) -> str:
    network = ip_network(prefix)
    return "".join(f"{octet:08b}" for octet in network.network_address.packed)[: network.prefixlen]


def _route(entry: dict[str, Any]) -> str:
    path_id = entry.get("path-information")
    return (f"{int(ip_address(path_id))}:" if path_id else "") + _bits(entry["nlri"])


def _compare_routes(update: dict[str, Any], outcome: Outcome) -> str:
    for name, family in _FAMILIES.items():
        by_hop = update.get("announce", {}).get(name, {})
        announced = {_route(entry) for entries in by_hop.values() for entry in entries}
        if announced - set(outcome.announced.get(family, ())):
            return f"{name}: announced prefixes differ"
        withdrawn = {_route(entry) for entry in update.get("withdraw", {}).get(name, ())}
        if withdrawn - set(outcome.withdrawn.get(family, ())):
            return f"{name}: withdrawn prefixes differ"
        hops = {str(ip_address(hop)) for hop in by_hop if hop != "no-nexthop"}
        if hops and str(ip_address(outcome.next_hops[family][:16])) not in hops:
            return f"{name}: next hop differs from {hops}"
    return ""


def _numbers(size: int) -> Show:
    def show(value: bytes) -> list[list[int]]:
        parts = [int.from_bytes(value[i : i + size], "big") for i in range(0, len(value), size)]
        count = 2 if size == 2 else 3
        return [parts[i : i + count] for i in range(0, len(parts), count)]

    return show


def _path(value: bytes) -> dict[str, Any]:
    kinds = {1: "as-set", 2: "as-sequence", 3: "as-confed-sequence", 4: "as-confed-set"}
    path = aspath.decode(value)
    return {str(i): {"element": kinds[kind], "value": list(asns)} for i, (kind, asns) in enumerate(path)}


def _aggregator(value: bytes) -> str:
    return f"{int.from_bytes(value[:4], 'big')}:{ip_address(value[4:])}"


def _addresses(value: bytes) -> list[str]:
    return [str(ip_address(value[i : i + 4])) for i in range(0, len(value), 4)]


_SHOW: MappingProxyType[str, tuple[int, Show]] = MappingProxyType(
    {
        "origin": (1, lambda value: ("igp", "egp", "incomplete")[value[0]]),
        "as-path": (2, _path),
        "med": (4, lambda value: int.from_bytes(value, "big")),
        "local-preference": (5, lambda value: int.from_bytes(value, "big")),
        "atomic-aggregate": (6, lambda value: True),
        "aggregator": (7, _aggregator),
        "community": (8, _numbers(2)),
        "originator-id": (9, lambda value: str(ip_address(value))),
        "cluster-list": (10, _addresses),
        "large-community": (32, _numbers(4)),
    }
)


def _compare_attributes(wanted: dict[str, Any], outcome: Outcome) -> str:
    values = {code: value for _, code, value in outcome.attributes}
    if not outcome.announced:
        return ""
    for name, (code, show) in _SHOW.items():
        if name in wanted and (code not in values or show(values[code]) != wanted[name]):
            shown = show(values[code]) if code in values else None
            return f"{name}: {shown}, {wanted[name]} wanted"
    if "extended-community" in wanted:
        octets = b"".join(item["value"].to_bytes(8, "big") for item in wanted["extended-community"])
        if sorted(_eights(values.get(16, b""))) != sorted(_eights(octets)):
            return "extended communities differ"
    return ""


def _eights(value: bytes) -> list[bytes]:
    return [value[i : i + 8] for i in range(0, len(value), 8)]
