"""The model of what a node has of its own: blocks, Services, routes of reachableBy (calico-bgp.md 7.2, 7.3, 7.6)."""

from __future__ import annotations

from typing import Any

from tests.property.calico_cluster import NODE, Cluster, Spec, host, inside, net
from tests.property.calico_sessions import asked_for

__all__ = ["EXCLUDE", "blocks", "communities", "excluded", "pools", "ranges", "single_addresses", "static_routes"]

EXCLUDE = "node.kubernetes.io/exclude-from-external-load-balancers"


def is_single(cidr: str) -> bool:
    """One address."""
    return net(cidr).num_addresses == 1


def blocks(cluster: Cluster, family: str) -> list[str]:
    """Own affinities that count (1.3): a host's, not pending, not deleted. Quirk 11: pendingDeletion does."""
    own = _pod_cidrs(cluster) if cluster.env.get("USE_POD_CIDR") == "true" else _affinities(cluster)
    return sorted({cidr for cidr in own if cluster.is_of(family, cidr)})


def _affinities(cluster: Cluster) -> list[str]:
    return [
        spec["cidr"]
        for spec in cluster.specs("BlockAffinity").values()
        if spec["node"] == NODE
        and spec.get("type", "host") == "host"
        and spec.get("state") != "pending"
        and spec.get("deleted") not in (True, "true")
    ]


def _pod_cidrs(cluster: Cluster) -> list[str]:
    """With host-local IPAM there are no affinities (1.4)."""
    own = next(document for document in cluster.of("Node") if document["metadata"]["name"] == NODE)
    found: list[str] = own["status"]["podCIDRs"]
    return found


def pools(cluster: Cluster, family: str) -> list[Spec]:
    """By CIDR as text (8.2); of several with one CIDR the first by name (1.3)."""
    found: dict[str, Spec] = {}
    for spec in cluster.specs("IPPool").values():
        if cluster.is_of(family, spec["cidr"]):
            found.setdefault(spec["cidr"], spec)
    return [found[cidr] for cidr in sorted(found)]


def communities(cluster: Cluster, family: str) -> list[tuple[str, list[str]]]:
    """prefixAdvertisements (7.5), names resolved: (CIDR, communities). A node's own list replaces the default one."""
    config = cluster.own if cluster.own.get("prefixAdvertisements") else cluster.default
    named = {entry["name"]: entry["value"] for entry in config.get("communities") or ()}
    return [
        (entry["cidr"], [named.get(text, text) for text in entry["communities"]])
        for entry in config.get("prefixAdvertisements") or ()
        if cluster.is_of(family, entry["cidr"])
    ]


# --- Services (7.6)


def excluded(cluster: Cluster) -> bool:
    """Whether the node announces nothing of Services."""
    return cluster.labels(NODE).get(EXCLUDE) == "true"


def ranges(cluster: Cluster, family: str) -> list[str]:
    """The whole CIDRs, announced by every node that is not excluded."""
    found = _cluster_ranges(cluster) + [cidr for cidr in cluster.cidrs("serviceExternalIPs") if not is_single(cidr)]
    if _aggregated(cluster):
        found += [cidr for cidr in cluster.cidrs("serviceLoadBalancerIPs") if not is_single(cidr)]
    return sorted({str(net(cidr)) for cidr in found if cluster.is_of(family, cidr)})


def _cluster_ranges(cluster: Cluster) -> list[str]:
    text = cluster.env.get("CALICO_ADVERTISE_CLUSTER_IPS")
    return [text] if text else cluster.cidrs("serviceClusterIPs")


def _aggregated(cluster: Cluster) -> bool:
    return cluster.default.get("serviceLoadBalancerAggregation") != "Disabled"


def single_addresses(cluster: Cluster, family: str) -> list[str]:
    """Prefixes of one address each, of all Services that are announced."""
    lists = (_cluster_ranges(cluster), cluster.cidrs("serviceExternalIPs"), cluster.cidrs("serviceLoadBalancerIPs"))
    if excluded(cluster) or not any(lists):
        return []
    found: set[str] = set()
    for service in cluster.of("Service"):
        if _announced(cluster, service):
            found.update(str(net(address)) for address in _addresses(cluster, service))
    return sorted(cidr for cidr in found if cluster.is_of(family, cidr))


def _announced(cluster: Cluster, service: Spec) -> bool:
    """The steps in the reference's order. Quirk 7: an empty policy is none; quirk 8: no slice, no address."""
    spec = service["spec"]
    slices = [entry for entry in cluster.of("EndpointSlice") if _belongs(entry, service)]
    if spec["type"] == "ExternalName" or spec.get("clusterIP") in (None, "", "None") or not slices:
        return False
    policy = spec.get("externalTrafficPolicy")
    if policy == "Cluster" and _has_single_entry(cluster, service):
        return True
    if policy != "Local" and _aggregated(cluster):
        return False
    addresses = spec.get("clusterIPs") or [spec["clusterIP"]]
    families = spec.get("ipFamilies") or ["IPv6" if ":" in address else "IPv4" for address in addresses]
    here = cluster.env.get("CALICO_K8S_NODE_REF") or NODE
    return any(
        policy != "Local" or endpoint.get("nodeName") == here
        for entry in slices
        if entry["addressType"] in families
        for endpoint in entry["endpoints"]
        if endpoint.get("conditions", {}).get("ready") is not False
    )


def _belongs(entry: Spec, service: Spec) -> bool:
    owner = entry["metadata"]["labels"].get("kubernetes.io/service-name")
    return (entry["metadata"]["namespace"], owner) == (service["metadata"]["namespace"], service["metadata"]["name"])


def _ingress(service: Spec) -> list[str]:
    entries = service.get("status", {}).get("loadBalancer", {}).get("ingress", ())
    return [entry["ip"] for entry in entries if entry.get("ip")]


def _has_single_entry(cluster: Cluster, service: Spec) -> bool:
    spec = service["spec"]

    def named(addresses: list[str], field: str) -> bool:
        single = [cidr for cidr in cluster.cidrs(field) if is_single(cidr)]
        return any(inside(address, cidr) for address in addresses for cidr in single)

    given = _ingress(service) + ([spec["loadBalancerIP"]] if spec.get("loadBalancerIP") else [])
    if spec["type"] == "LoadBalancer" and named(given, "serviceLoadBalancerIPs"):
        return True
    return named(spec.get("externalIPs", []), "serviceExternalIPs")


def _addresses(cluster: Cluster, service: Spec) -> list[str]:
    """Quirk 9: cluster IPs are not held against the ranges."""
    spec = service["spec"]

    def covered(addresses: list[str], field: str) -> list[str]:
        return [a for a in addresses if any(inside(a, cidr) for cidr in cluster.cidrs(field))]

    own = (spec.get("clusterIPs") or [spec["clusterIP"]]) if _cluster_ranges(cluster) else []
    external = covered(spec.get("externalIPs", []), "serviceExternalIPs")
    return own + external + covered(_ingress(service), "serviceLoadBalancerIPs")


# --- static routes


def static_routes(cluster: Cluster, family: str) -> list[dict[str, Any]]:
    """One a prefix, as Calico's cases state them."""
    found: dict[str, dict[str, Any]] = {}

    def put(cidr: str, kind: str, via: str | None = None) -> None:
        found.setdefault(cidr, {"cidr": cidr, "via": via, "active": True, "kind": kind})

    for cidr in blocks(cluster, family):
        if not is_single(cidr):
            put(cidr, "block")
    for cidr in () if excluded(cluster) else (*ranges(cluster, family), *single_addresses(cluster, family)):
        put(cidr, "service")
    for session in asked_for(cluster, family):
        if via := session.peer.get("reachableBy"):
            put(str(net(session.address)), "reachable_by", host(via))
    return list(found.values())
