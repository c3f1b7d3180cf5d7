"""Random BGPPeers and BGPFilters for `calico_cases`: every field, alone and with others, as the API allows them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from random import Random
from typing import Any

from tests.property.calico_cluster import MAXIMUM

__all__ = ["FILTERS", "SELECTORS", "bgp_filter", "bgp_peer", "unset"]

FILTERS = ("f", "g", "h")
SELECTORS = (
    "all()", "  ", "rack == 'one'", "rack != 'one' && has(rr)", "!has(rr)", "rack not in {'one',}",
    "rr in {'true','x'} || rack starts with 'tw'", "!(rack contains 'w' || rr == \"true\")",
    "rack notin {} && rack ends  with 'e'",
)  # fmt: skip
_MISSING = "gone"
"""A filter that never exists."""
_NUMBERS = (64512, 64513, 65001, "1.10")
_ADDRESSES = (
    "10.0.0.9", "10.0.0.9:1790", "10.0.0.9:179", "10.0.0.10", "10.0.0.10:1790", "10.0.0.10:179", "10.0.0.10:177",
    "10.0.0.11", "10.0.0.11:177", "10.0.1.11", "10.244.1.70", "192.0.2.1", "192.0.2.1:1790", "fd00:1::9",
    "[fd00:1::9]:1790", "[fd00:1::9]:179", "fd00:1::a", "[fd00:1::a]:1790", "FD00:1:0::b", "[fd00:1::b]:177",
    "2001:db8::1", "[2001:db8::1]:50",
)  # fmt: skip
_PREFIXES = {
    "4": ("10.244.0.0/16", "10.244.1.0/26", "0.0.0.0/0", "10.244.1.5/32", "192.0.2.7/24", "10.0.0.0/8"),
    "6": ("fd00:10:244::/64", "::/0", "fd00:10:244::/122", "FD00:0010::1/32", "fd00:10:244::5/128"),
}
_LENGTHS: dict[str, Sequence[dict[str, int]]] = {
    "4": ({"min": 24, "max": 28}, {"min": 26}, {"max": 24}, {"min": 32, "max": 32}, {"min": 20, "max": 30}, {}),
    "6": ({"min": 64, "max": 122}, {"min": 122}, {"max": 64}, {"min": 128, "max": 128}, {"min": 0}, {}),
}


def bgp_peer(r: Random) -> dict[str, Any]:
    """A BGPPeer's spec."""
    spec = _own_side(r) | _peer_side(r)
    chances: Sequence[tuple[str, float, Sequence[Any]]] = (
        ("localASNumber", 0.25, (64512, 65001, "1.10")),
        ("numAllowedLocalASNumbers", 0.2, (0, 1, 3)),
        ("password", 0.2, [{"secretKeyRef": {"name": "sec", "key": key}} for key in ("k", "k", "gone", "empty")]),
        ("sourceAddress", 0.2, ("UseNodeIP", "None")),
        ("maxRestartTime", 0.2, ("10s", "400ms", "1m", "0s")),
        ("keepaliveTime", 0.2, ("7s", "0s", "1.6s")),
        ("ttlSecurity", 0.35, (0, 1, 255)),
        ("reversePeering", 0.3, ("Auto", "Manual")),
    )
    spec |= {name: r.choice(values) for name, chance, values in chances if r.random() < chance}
    if r.random() < 0.25:
        spec["keepOriginalNextHop"] = True
    elif r.random() < 0.3:
        spec["nextHopMode"] = r.choice(("Auto", "Self", "Keep"))
    if r.random() < 0.6:
        spec["filters"] = r.sample((*FILTERS, *FILTERS, _MISSING), r.randint(1, 3))
    return unset(r, spec, _UNSET_PEER)


_UNSET_PEER = {
    "node": "", "nodeSelector": "", "peerIP": "", "peerSelector": "", "localWorkloadSelector": "", "reachableBy": "",
    "localASNumber": None, "numAllowedLocalASNumbers": None, "password": None, "sourceAddress": "", "filters": None,
    "maxRestartTime": None, "keepaliveTime": None, "ttlSecurity": None, "reversePeering": None, "nextHopMode": None,
    "keepOriginalNextHop": False,
}  # fmt: skip


def unset(r: Random, spec: dict[str, Any], empty: Mapping[str, Any]) -> dict[str, Any]:
    """The spec with some fields that say nothing written out, as programs do."""
    return {field: value for field, value in empty.items() if r.random() < 0.04} | spec


def _own_side(r: Random) -> dict[str, Any]:
    choice = r.random()
    if choice < 0.25:
        return {"node": r.choice(("a", "a", "b", "node.d", "nowhere"))}
    return {"nodeSelector": r.choice(SELECTORS)} if choice < 0.6 else {}


def _peer_side(r: Random) -> dict[str, Any]:
    choice = r.random()
    if choice < 0.35:
        found: dict[str, Any] = {"peerSelector": r.choice(SELECTORS)}
        return {**found, "asNumber": 0} if r.random() < 0.1 else found
    if choice < 0.5:
        return {"localWorkloadSelector": "app == 'x'", "asNumber": r.choice((65010, *_NUMBERS))}
    found = {"peerIP": r.choice(_ADDRESSES)}
    if r.random() < 0.75:
        found["asNumber"] = r.choice(_NUMBERS)
    if r.random() < 0.3:
        found["reachableBy"] = "10.0.0.254" if "." in found["peerIP"] else "FD00:1::fe"
    return found


def bgp_filter(r: Random) -> dict[str, Any]:
    """A BGPFilter's spec."""
    lists = ("exportV4", "importV4", "exportV6", "importV6")
    found = {name: [_rule(r, name[-1]) for _ in range(r.randint(0, 3))] for name in lists if r.random() < 0.8}
    return unset(r, found, dict.fromkeys(lists))


def _rule(r: Random, version: str) -> dict[str, Any]:
    chances: Sequence[tuple[str, float, Sequence[Any]]] = (
        ("source", 0.2, ("RemotePeers",)),
        ("interface", 0.3, ("*", "eth0", "cali*", "*.calico", "e*0", "tunl0", "eth.", "lo")),
        ("peerType", 0.2, ("eBGP", "iBGP")),
        ("communities", 0.2, [{"values": [text]} for text in ("64512:100", "1:2:3", "65535:0", "64512:7:9")]),
        ("asPathPrefix", 0.25, ([65001], [64512, 65001], ["1.10"], [65001, 64999], [64512], [64513, 65001], [])),
        ("priority", 0.2, (512, 1024, 100, MAXIMUM - 100, MAXIMUM - 1)),
    )
    rule = {name: r.choice(values) for name, chance, values in chances if r.random() < chance}
    rule["action"] = r.choice(("Accept", "Reject"))
    if r.random() < 0.7:
        rule |= {"cidr": r.choice(_PREFIXES[version]), "matchOperator": r.choice(("In", "NotIn", "Equal", "NotEqual"))}
        if r.random() < 0.3:
            rule["prefixLength"] = r.choice(_LENGTHS[version])
    if rule["action"] == "Accept" and r.random() < 0.4:
        rule["operations"] = [r.choice(_OPERATIONS) for _ in range(r.randint(1, 3))]
    return rule


_OPERATIONS = (
    {"addCommunity": {"value": "64512:100"}},
    {"addCommunity": {"value": "9:8:7"}},
    {"prependASPath": {"prefix": [64512, "1.10"]}},
    {"prependASPath": {"prefix": [1]}},
    {"setPriority": {"value": 512}},
    {"setPriority": {"value": MAXIMUM - 1}},
)
