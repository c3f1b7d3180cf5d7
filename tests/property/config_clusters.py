"""Whole clusters as hypothesis makes them: every kind, every field, from few names and addresses so that they meet."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from config.resources import Workload

__all__ = ["clusters", "names", "resources", "workloads"]

EXCLUDE = "node.kubernetes.io/exclude-from-external-load-balancers"
IPIP = {"ipipMode": "CrossSubnet"}
names = st.sampled_from(["a", "b", "c", "d"])


def _object(kind: str, name: str, spec: object, **metadata: object) -> dict[str, object]:
    group = "v1" if kind == "Secret" else "projectcalico.org/v3"
    return {"apiVersion": group, "kind": kind, "metadata": {"name": name, **metadata}, "spec": spec}


addresses = st.integers(1, 12).map(lambda number: f"10.0.0.{number}")
addresses6 = st.integers(1, 6).map(lambda number: f"fd00::{number:x}")
nodes = st.builds(
    lambda name, v4, v6, asn, cluster, rack, wireguard: _object(
        "Node",
        name,
        {
            "bgp": {"ipv4Address": v4, "ipv6Address": v6, "asNumber": asn, "routeReflectorClusterID": cluster},
            **({"wireguard": {"interfaceIPv4Address": "10.9.0.1"}} if wireguard else {}),
        },
        labels={"rack": rack, EXCLUDE: "true" if wireguard and rack == "two" else "false"},
    ),
    names,
    st.none() | addresses | addresses.map(lambda address: f"{address}/24"),
    st.none() | addresses6,
    st.none() | st.sampled_from([64513, "1.1"]),
    st.sampled_from([None, None, "244.0.0.1", "244.0.0.2"]),
    st.sampled_from(["one", "two"]),
    st.booleans(),
)
selectors = st.sampled_from(["all()", "rack == 'one'", "rack == 'two'", "has(nothing)"])
own_sides: st.SearchStrategy[dict[str, str]] = (
    st.fixed_dictionaries({})
    | st.fixed_dictionaries({"node": names})
    | st.fixed_dictionaries({"nodeSelector": selectors})
)
peer_sides = (
    st.fixed_dictionaries({"peerSelector": selectors}) | st.just({"localWorkloadSelector": "all()", "asNumber": 65009})
) | st.fixed_dictionaries(
    {"peerIP": addresses | addresses6 | st.just("10.0.0.3:1790"), "asNumber": st.sampled_from([64512, 64513, 65001])},
    optional={
        "localASNumber": st.sampled_from([64513, 65009]),
        "numAllowedLocalASNumbers": st.integers(0, 3),
        "keepOriginalNextHop": st.booleans(),
    },
)
extras = st.fixed_dictionaries(
    {},
    optional={
        "filters": st.lists(st.sampled_from(["f", "g"]), max_size=2),
        "ttlSecurity": st.integers(0, 2),
        "nextHopMode": st.sampled_from(["Auto", "Self", "Keep"]),
        "reachableBy": st.sampled_from(["10.0.0.254", "fd00::fe"]),
        "sourceAddress": st.sampled_from(["UseNodeIP", "None"]),
        "keepaliveTime": st.sampled_from(["0s", "7s"]),
        "maxRestartTime": st.sampled_from(["400ms", "2m"]),
        "reversePeering": st.sampled_from(["Auto", "Manual"]),
        "password": st.just({"secretKeyRef": {"name": "s", "key": "k"}}),
    },
)


def _peer(name: str, *parts: dict[str, Any]) -> dict[str, object]:
    """Fields that cannot stand together are left out, as the API would have it."""
    spec: dict[str, Any] = {key: value for part in parts for key, value in part.items()}
    if "nextHopMode" in spec:
        spec.pop("keepOriginalNextHop", None)
    if ("." in spec.get("peerIP", "::")) != ("." in spec.get("reachableBy", "::")) or "peerIP" not in spec:
        spec.pop("reachableBy", None)
    return _object("BGPPeer", name, spec)


bgp_peers = st.builds(_peer, names, own_sides, peer_sides, extras)
configurations = st.builds(
    lambda name, spec: _object("BGPConfiguration", name, spec),
    st.sampled_from(["default", "node.a", "node.b"]),
    st.fixed_dictionaries(
        {},
        optional={
            "listenPort": st.sampled_from([0, 179, 1790]),
            "asNumber": st.sampled_from([64512, 64513]),
            "nodeToNodeMeshEnabled": st.booleans(),
            "bindMode": st.sampled_from(["None", "NodeIP"]),
            "serviceClusterIPs": st.just([{"cidr": "10.96.0.0/12"}]),
            "serviceLoadBalancerIPs": st.sampled_from([[{"cidr": "192.0.2.7/32"}], [{"cidr": "fd00:f::/64"}]]),
            "serviceLoadBalancerAggregation": st.sampled_from(["Enabled", "Disabled"]),
            "serviceExternalIPs": st.sampled_from([[{"cidr": "203.0.113.0/24"}], [{"cidr": "203.0.113.9/32"}]]),
            "programClusterRoutes": st.sampled_from(["Enabled", "Disabled", "EnabledIPIPOnly", "EnabledNoEncapOnly"]),
            "ignoredInterfaces": st.just(["eth1", "docker*"]),
            "ipv4NormalRoutePriority": st.sampled_from([512, 1024]),
            "nodeMeshPassword": st.just({"secretKeyRef": {"name": "s", "key": "k"}}),
            "nodeMeshMaxRestartTime": st.sampled_from(["60s", "200s"]),
            "logSeverityScreen": st.sampled_from(["Debug", "info"]),
            "communities": st.just([{"name": "pods", "value": "64512:100"}]),
            "prefixAdvertisements": st.sampled_from(
                [
                    [],
                    [
                        {"cidr": "10.244.0.0/16", "communities": ["64512:7"]},
                        {"cidr": "fd00::/16", "communities": ["1:2:3"]},
                    ],
                ]
            ),
        },
    ),
)
pools = st.builds(
    lambda name, cidr, mode, off: _object("IPPool", name, {**cidr, **mode, "disableBGPExport": off}),
    names,
    st.sampled_from([{"cidr": "10.244.0.0/16"}, {"cidr": "10.244.1.0/24"}, {"cidr": "10.245.0.0/16", **IPIP}]),
    st.sampled_from([{}, {"vxlanMode": "Never"}]),
    st.booleans(),
) | st.builds(
    lambda name, cidr, mode: _object("IPPool", name, {"cidr": cidr, "vxlanMode": mode}),
    names,
    st.sampled_from(["10.244.0.0/16", "fd00:10::/64"]),
    st.sampled_from(["Never", "Always"]),
)
blocks = st.builds(
    lambda name, node, cidr, state: _object("BlockAffinity", name, {"node": node, "cidr": cidr, "state": state}),
    names,
    names,
    st.sampled_from(["10.244.1.0/26", "10.244.2.0/26", "10.244.3.7/32", "fd00:10::/122"]),
    st.sampled_from(["", "pending", "confirmed", "pendingDeletion"]),
)
conditions = st.fixed_dictionaries(
    {},
    optional={
        "source": st.just("RemotePeers"),
        "interface": st.sampled_from(["lo", "*.cali"]),
        "peerType": st.sampled_from(["eBGP", "iBGP"]),
        "communities": st.just({"values": ["64512:7"]}),
        "asPathPrefix": st.just([64512, "1.1"]),
        "priority": st.sampled_from([512, 1024]),
    },
)
matches = st.sampled_from(["Equal", "NotEqual", "In", "NotIn"]).flatmap(
    lambda operator: st.sampled_from(
        [
            {},
            {"matchOperator": operator, "cidr": True},
            {"matchOperator": operator, "cidr": True, "prefixLength": {"min": 24}},
        ]
    )
)
verdicts = st.sampled_from(
    [
        {"action": "Accept"},
        {"action": "Reject"},
        {"action": "Accept", "operations": [{"setPriority": {"value": 512}}, {"prependASPath": {"prefix": [64512]}}]},
        {"action": "Accept", "operations": [{"addCommunity": {"value": "1:2:3"}}]},
    ]
)


def _rules(cidr: str) -> st.SearchStrategy[list[Any]]:
    one = st.builds(lambda a, b, c: {**a, **b, **({"cidr": cidr} if b else {}), **c}, conditions, matches, verdicts)
    return st.lists(one, max_size=2)


filters = st.builds(
    lambda name, spec: _object("BGPFilter", name, spec),
    st.sampled_from(["f", "g"]),
    st.fixed_dictionaries(
        {},
        optional={
            **dict.fromkeys(("exportV4", "importV4"), _rules("10.244.0.0/16")),
            **dict.fromkeys(("exportV6", "importV6"), _rules("fd00:10::/64")),
        },
    ),
)
secrets = st.just({**_object("Secret", "s", None), "stringData": {"k": "pw"}})
services = st.builds(
    lambda policy, kind, ip: {
        **_object("Service", "s", {"type": kind, "clusterIP": "10.96.0.7", "externalTrafficPolicy": policy}),
        "apiVersion": "v1",
        "status": {"loadBalancer": {"ingress": [{"ip": ip}]}},
    },
    st.sampled_from([None, "Cluster", "Local"]),
    st.sampled_from(["ClusterIP", "NodePort", "LoadBalancer", "ExternalName"]),
    st.sampled_from(["192.0.2.7", "fd00:f::7"]),
)
slices = st.builds(
    lambda ready, node: {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": "s-1", "labels": {"kubernetes.io/service-name": "s"}},
        "addressType": "IPv4",
        "endpoints": [{"nodeName": node, "conditions": {"ready": ready}}],
    },
    st.sampled_from([None, True, False]),
    names,
)
statuses = st.builds(
    lambda node, period: _object(
        "CalicoNodeStatus", "s", {"node": node, "classes": ["BGP"], "updatePeriodSeconds": period}
    ),
    names,
    st.sampled_from([0, 10]),
)
resources = st.one_of(
    *(nodes, nodes, bgp_peers, bgp_peers, configurations, pools, blocks, filters, secrets, services, slices, statuses)
)
clusters = st.lists(resources, max_size=14, unique_by=lambda item: (item["kind"], item["metadata"]["name"]))
workloads = st.lists(
    st.builds(
        Workload, st.sampled_from(["p", "q"]), names, st.sampled_from([("10.244.1.5",), ("10.244.1.6", "fd00::a")])
    ),
    max_size=2,
    unique_by=lambda found: found.name,
)
