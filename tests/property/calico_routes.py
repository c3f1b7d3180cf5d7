"""The model of policy (calico-bgp.md 4, 7.4, 8): what becomes of one route on one session, and in the kernel."""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any

from attrs import define

from tests.property.calico_cluster import MAXIMUM, NODE, Cluster, Spec, asn, inside, net
from tests.property.calico_services import blocks, communities, excluded, pools, ranges, single_addresses

__all__ = ["Judge"]

Changes = dict[str, Any]
"""Of an accepted route, in the words of Calico's cases."""


@define
class _Route:
    """One route on its way through a policy."""

    net: str
    source: str
    interface: str
    metric: int | None
    local_pref: int | None
    as_path: list[int]
    communities: list[str]

    @classmethod
    def of(cls, given: Spec) -> _Route:
        found = [*given.get("communities", ()), *given.get("large_communities", ())]
        return cls(
            given["net"],
            given["source"],
            given.get("interface") or "",
            given.get("kernel_metric"),
            given.get("local_pref"),
            list(given.get("as_path", ())),
            found,
        )

    def add(self, community: str) -> None:
        """One that is present stays where it is."""
        if community not in self.communities:
            self.communities.append(community)

    def changes(self, given: Spec) -> Changes:
        """Communities and AS_PATH, where they are others than before."""
        found: Changes = {}
        for name, colons in (("communities", 1), ("large_communities", 2)):
            now = [text for text in self.communities if text.count(":") == colons]
            if now != given.get(name, []):
                found[name] = now
        if self.as_path != given.get("as_path", []):
            found["as_path"] = self.as_path
        return found


class Judge:
    """All verdicts of one family of a cluster: None = rejected, else what has changed."""

    def __init__(self, cluster: Cluster, family: str) -> None:
        self._cluster = cluster
        self._family = family
        self._filters = cluster.specs("BGPFilter")
        self._pools = pools(cluster, family)
        self._blocks = blocks(cluster, family)
        self._communities = communities(cluster, family)
        self._ranges = ranges(cluster, family)
        self._services = [] if excluded(cluster) else self._ranges + single_addresses(cluster, family)
        self._reflected = [
            cidr
            for field in ("serviceLoadBalancerIPs", "serviceExternalIPs")
            for cidr in cluster.cidrs(field, family)
            if cluster.cluster_id(NODE)
        ]
        self._normal = cluster.priority(family)

    # Filters (4)

    def _decided(self, session: Spec, route: _Route, direction: str) -> bool | None:
        """The first rule that matches; None where none does. Quirk 22: from a missing filter's place on, rejected."""
        version = "V4" if self._family == "ipv4" else "V6"
        for name in session[f"{direction}_filters"]:
            if name not in self._filters:
                return False
            for rule in self._filters[name].get(direction + version) or ():
                if self._matches(rule, route, session["ibgp"], direction):
                    for operation in rule.get("operations", ()):
                        _operate(operation, route)
                    return bool(rule["action"] == "Accept")
        return None

    def _matches(self, rule: Spec, route: _Route, ibgp: bool, direction: str) -> bool:
        """4.2: all conditions that are given hold."""
        path = [asn(number) for number in rule.get("asPathPrefix", ())]
        wanted = rule.get("communities", {}).get("values", ())
        return (
            ("peerType" not in rule or rule["peerType"] == ("iBGP" if ibgp else "eBGP"))
            and ("source" not in rule or direction == "import" or route.source == "bgp")
            and ("interface" not in rule or (bool(route.interface) and fnmatchcase(route.interface, rule["interface"])))
            and all(community in route.communities for community in wanted)
            and route.as_path[: len(path)] == path
            and ("priority" not in rule or route.local_pref == MAXIMUM - rule["priority"])
            and ("cidr" not in rule or _cidr_matches(rule, route.net))
        )

    # 7.4

    def export(self, session: Spec, given: Spec) -> Changes | None:
        """What goes out on a session; over eBGP the path begins with the session's AS before any filter (7.7)."""
        route = _Route.of(given)
        if not session["ibgp"]:
            route.as_path.insert(0, session["local_as"])
        metric = self._priority(route)
        accepted = self._decided(session, route, "export")
        if accepted is None:
            accepted = self._built_in(route, metric, session["ibgp"])
        if not accepted:
            return None
        changes = route.changes(given)
        return {**changes, "local_pref": route.local_pref} if session["ibgp"] else changes

    def _priority(self, route: _Route) -> int:
        """Step 1: the metric. A LOCAL_PREF above M wraps to the lowest priority, as with BIRD."""
        if route.source == "bgp":
            assert route.local_pref is not None
            return (MAXIMUM - route.local_pref) % 2**32
        metric = self._normal if route.metric is None else route.metric
        route.local_pref = MAXIMUM - metric
        return metric

    def _built_in(self, route: _Route, metric: int, ibgp: bool) -> bool:
        """Steps 3 to 10."""
        if any(pool.get("disableBGPExport") and inside(route.net, pool["cidr"]) for pool in self._pools):
            return False
        patterns = ["bpf*.cali"]
        if ibgp:
            patterns += ["*.cali", "*.calico"] if self._owns("IPIP") else ["*.cali", "*.calico", "tunl0"]
        if any(fnmatchcase(route.interface, pattern) for pattern in patterns):
            return False
        for cidr, added in self._communities:
            for community in added if inside(route.net, cidr) else ():
                route.add(community)
        for block in self._blocks:
            if inside(route.net, block):
                return net(route.net) == net(block) or metric < self._normal
        accepting = [pool["cidr"] for pool in self._pools if not pool.get("disableBGPExport")]
        return any(inside(route.net, cidr) for cidr in (*self._services, *self._reflected, *accepting))

    def _owns(self, encapsulation: str) -> bool:
        """programClusterRoutes: whether routes of these pools are ours (8.3)."""
        owned = self._cluster.default.get("programClusterRoutes") or "EnabledNoEncapOnly"
        return owned in ("Enabled", f"Enabled{encapsulation}Only")

    # 8

    def import_(self, session: Spec, given: Spec) -> Changes | None:
        """What a route is taken in as (8.1). LOCAL_PREF is believed on iBGP only, and 100 without it."""
        route = _Route.of(given)
        if not session["ibgp"] or route.local_pref is None:
            route.local_pref = 100
        before = route.local_pref
        accepted = self._decided(session, route, "import")
        if accepted is False:
            return None
        changes = route.changes(given)
        if route.local_pref != before:
            changes["local_pref"] = route.local_pref
        # A rule that accepts ends everything, this line too (4.3).
        if accepted is None and route.local_pref > MAXIMUM - self._normal:
            changes["preference"] = 200
        return changes

    def kernel(self, given: Spec) -> Changes | None:
        """What of a best route is written (8.2)."""
        if any(inside(given["net"], cidr) for cidr in self._ranges):
            return None
        changes: Changes = {}
        if given["source"] == "bgp":
            changes["kernel_metric"] = (MAXIMUM - given["local_pref"]) % 2**32
            if changes["kernel_metric"] < self._normal:
                changes["preference"] = 200
            if self._encrypted(given.get("next_hop")):
                return None
        return self._by_pool(given, changes)

    def _encrypted(self, next_hop: str | None) -> bool:
        """8.2, step 3: Felix programs routes to WireGuard peers."""
        cluster, family = self._cluster, self._family
        others = (node for node in cluster.nodes if node != NODE and cluster.wireguard(node, family))
        return cluster.wireguard(NODE, family) and any(cluster.address(node, family) == next_hop for node in others)

    def _by_pool(self, given: Spec, changes: Changes) -> Changes | None:
        """8.3. A node without an IPv4 network has no statement about IPv4 pools."""
        local = self._cluster.ipv4_network()
        found = (pool for pool in self._pools if inside(given["net"], pool["cidr"]))
        pool = next(found, None)
        if pool is None or (self._family == "ipv4" and not local):
            return changes
        if pool.get("vxlanMode") not in (None, "", "Never"):
            return None
        mode = pool.get("ipipMode") or "Never"
        if mode == "Never":
            return changes if self._owns("NoEncap") else None
        if not self._owns("IPIP"):
            return None
        near = bool(given.get("next_hop")) and inside(given["next_hop"], local)
        return changes if mode == "CrossSubnet" and near else {**changes, "tunnel": "tunl0"}


def _cidr_matches(rule: Mapping[str, Any], prefix: str) -> bool:
    """cidr with matchOperator and prefixLength. Quirk 15: with Equal and NotEqual too, a range of lengths decides."""
    cidr, operator, found = net(rule["cidr"]), rule["matchOperator"], net(prefix)
    within = inside(prefix, rule["cidr"])
    if "prefixLength" in rule:
        low = max(cidr.prefixlen, rule["prefixLength"].get("min", 0))
        high = rule["prefixLength"].get("max", cidr.max_prefixlen)
        holds = within and low <= found.prefixlen <= high
    else:
        holds = within if operator in ("In", "NotIn") else found == cidr
    return holds == (operator in ("In", "Equal"))


def _operate(operation: Mapping[str, Any], route: _Route) -> None:
    """4.3."""
    if "addCommunity" in operation:
        route.add(operation["addCommunity"]["value"])
    elif "prependASPath" in operation:
        numbers = (asn(number) for number in operation["prependASPath"]["prefix"])
        route.as_path[:0] = [number for number in numbers if number is not None]
    else:
        route.local_pref = MAXIMUM - operation["setPriority"]["value"]
