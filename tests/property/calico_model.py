"""The model's answer to a cluster, in the form of Calico's cases (`tests.vectors.calico` compares it)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import sha256
from ipaddress import IPv4Address
from types import MappingProxyType
from typing import Any

from tests.property.calico_cluster import FAMILIES, NODE, Cluster, net
from tests.property.calico_routes import Judge
from tests.property.calico_services import blocks, communities, static_routes
from tests.property.calico_sessions import described

__all__ = ["expected"]

Routes = Sequence[Mapping[str, Any]]
_SESSIONS = MappingProxyType({"connect_retry": 5, "error_wait": (5, 30)})
"""6.9."""


def expected(cluster: Cluster, routes: Mapping[str, Routes]) -> dict[str, Any]:
    """What the node must do, by family; `routes`: those whose fate is worked out, by family."""
    return {family: _of_family(cluster, family, routes[family]) for family in FAMILIES}


def _of_family(cluster: Cluster, family: str, routes: Routes) -> dict[str, Any]:
    """A family is off on a node without its address (6)."""
    own, config = cluster.address(NODE, family), cluster.default
    bound = own if config.get("bindMode") == "NodeIP" else None
    patterns = [*(config.get("ignoredInterfaces") or ()), "cali*", "kube-ipvs*"]
    sessions = described(cluster, family)
    return {
        "enabled": bool(own),
        "router_id": _router_id(cluster),
        "local_as": cluster.asn_of(NODE),
        "listen": {"address": bound, "port": cluster.port(NODE) or 179},
        "log_level": _log_level(cluster),
        "direct_interfaces": [
            *({"pattern": pattern, "use": False} for pattern in patterns),
            {"pattern": "*", "use": True},
        ],
        "session_defaults": _SESSIONS,
        "kernel": {"learn": True, "merge_paths": True},
        "peers": sessions,
        "static_routes": static_routes(cluster, family),
        "blocks": [{"cidr": b, "originated": net(b).num_addresses > 1} for b in blocks(cluster, family)],
        "communities": [
            {"cidr": str(net(cidr)), "communities": added, "large_communities": []}
            for cidr, added in communities(cluster, family)
        ],
        "probes": {"routes": routes, "policies": _policies(cluster, family, sessions, routes)},
    }


def _router_id(cluster: Cluster) -> str:
    """6.9. Quirk 14: the hash stands in for one that is no dotted quad, and where there is no IPv4 address."""
    text = cluster.env.get("CALICO_ROUTER_ID") or cluster.address(NODE, "ipv4")
    if text.count(".") == 3:
        return text
    first, *rest = sha256(NODE.encode()).digest()[:4]
    return str(IPv4Address(bytes([first - 32 if first > 223 else first, *rest])))


def _log_level(cluster: Cluster) -> str:
    severity = cluster.own.get("logSeverityScreen") or cluster.default.get("logSeverityScreen") or "info"
    return {"debug": "debug", "info": "default"}.get(severity.lower(), "none")


def _policies(
    cluster: Cluster, family: str, sessions: Sequence[Mapping[str, Any]], routes: Routes
) -> list[dict[str, Any]]:
    judge = Judge(cluster, family)
    found: list[dict[str, Any]] = []
    for session in sessions:
        about = {"peers": [session["name"]], "ibgp": session["ibgp"], "local_as": session["local_as"]}
        sent = [_verdict(number, judge.export(session, route)) for number, route in enumerate(routes)]
        taken = [
            _verdict(number, judge.import_(session, route))
            for number, route in enumerate(routes)
            if route["source"] == "bgp"
        ]
        found += [
            {"direction": "export", "verdicts": sent, **about},
            {"direction": "import", "verdicts": taken, **about},
        ]
    written = [
        _verdict(number, judge.kernel(route) if route["source"] in ("bgp", "static") else None)
        for number, route in enumerate(routes)
    ]
    return [*found, {"direction": "kernel", "peers": [], "verdicts": written}]


def _verdict(number: int, changes: dict[str, Any] | None) -> list[Any]:
    return [number, "reject"] if changes is None else [number, "accept", changes]
