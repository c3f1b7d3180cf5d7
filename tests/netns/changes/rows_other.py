"""Rows of BGPFilter, IPPool, Node, BlockAffinity, Service, EndpointSlice and CalicoNodeStatus."""

from __future__ import annotations

from typing import Any

from tests.lab import datastore as resources
from tests.netns.changes.lab import (
    BLOCK_A,
    BLOCK_B,
    BORROWED,
    BORROWED6,
    NODE_ADDRESSES,
    OUTSIDE,
    OUTSIDE6,
    SECOND_ADDRESSES,
    BirdPlan,
    Edit,
)
from tests.netns.changes.rows import (
    BIRD4,
    BIRD6,
    FRR4,
    FRR6,
    Row,
    Seen,
    at_bird,
    at_frr,
    away,
    established,
    frr_community,
    frr_path,
    in_kernel,
    metric_of,
    row,
)

Rule = dict[str, Any]
NODE, OTHER = "Node/node-a", "Node/node-b"
BLOCK = "BlockAffinity/node-a-10-244-1-0-26"
POOL = "IPPool/pool-ipv4"
SERVICE, SLICE = "Service/web", "EndpointSlice/web-1"
SERVED = [("BGPConfiguration/default", "spec.serviceClusterIPs", [{"cidr": "10.96.0.0/16"}])]
ADDRESS = "10.96.0.20/32"
_HOST = {"cidr": BORROWED, "matchOperator": "Equal"}


def rules(direction: str, *found: Rule) -> list[Edit]:
    """The rules of the filter that both of FRR's sessions use."""
    return [("BGPFilter/probe", f"spec.{direction}", list(found))]


def export(before: Rule, after: Rule, present: bool = False) -> dict[str, Any]:
    """An export rule that is changed, and with it whether FRR has the pod's route."""
    word = "there" if present else "gone"
    return {
        "edits": rules("exportV4", after),
        "before": rules("exportV4", before),
        "effect": f"the pod's route is {word} at FRR",
        "seen": at_frr(BORROWED, present),
    }


def accept(*operations: Rule, **more: Any) -> Rule:
    """An accepting rule for the pod's route."""
    return {"action": "Accept", **_HOST, **more, **({"operations": list(operations)} if operations else {})}


def imports(before: Rule, after: Rule, seen: Seen, effect: str) -> dict[str, Any]:
    """An import rule that is changed."""
    return {"edits": rules("importV4", after), "before": rules("importV4", before), "effect": effect, "seen": seen}


def filter_rows() -> list[Row]:
    """BGPFilter, each part of a rule by itself."""
    f, r = "BGPFilter", "BGPFilter rule"
    reject = {"action": "Reject"}
    inside = {"cidr": "10.244.200.0/24", "matchOperator": "In"}

    def of(field: str, attributes: str, what: str, parts: dict[str, Any]) -> Row:
        return row(f"{r}.{field}", " ".join(f"FilterRule.{a}" for a in attributes.split()), what, **parts)

    community = accept({"addCommunity": {"value": "64512:1"}})
    prepend = accept({"prependASPath": {"prefix": [64777]}})
    return [
        row(
            f"{f}.spec.exportV4",
            f"{f}.export_v4",
            "none to a rule that rejects",
            rules("exportV4", reject | _HOST),
            "the pod's route is gone at FRR",
            at_frr(BORROWED, False),
        ),
        row(
            f"{f}.spec.importV4",
            f"{f}.import_v4",
            "none to a rule that rejects",
            rules("importV4", reject),
            "FRR's route left the kernel",
            in_kernel(OUTSIDE, False),
        ),
        row(
            f"{f}.spec.exportV6",
            f"{f}.export_v6",
            "none to a rule that rejects",
            rules("exportV6", reject),
            "the pod's route is gone at FRR",
            at_frr(BORROWED6, False),
        ),
        row(
            f"{f}.spec.importV6",
            f"{f}.import_v6",
            "none to a rule that rejects",
            rules("importV6", reject),
            "FRR's route left the kernel",
            in_kernel(OUTSIDE6, False),
        ),
        of("action", "action", "Accept to Reject", export({"action": "Accept"} | _HOST, reject | _HOST)),
        of(
            "cidr", "cidr", "another to the pod's", export(reject | _HOST | {"cidr": "10.244.201.0/24"}, reject | _HOST)
        ),
        of(
            "matchOperator",
            "operator",
            "Equal to In",
            export(reject | inside | {"matchOperator": "Equal"}, reject | inside),
        ),
        of(
            "prefixLength",
            "length",
            "20-26 to 27-32",
            export(
                reject | inside | {"prefixLength": {"min": 24, "max": 26}},
                reject | inside | {"prefixLength": {"min": 27, "max": 32}},
            ),
        ),
        of(
            "source", "source", "RemotePeers to any", export(reject | {"source": "RemotePeers"} | _HOST, reject | _HOST)
        ),
        of(
            "interface",
            "interface",
            "eth* to cali*",
            export(reject | {"interface": "eth*"}, reject | {"interface": "cali*"}),
        ),
        of(
            "peerType",
            "peer_type",
            "iBGP to eBGP",
            export(reject | {"peerType": "iBGP"} | _HOST, reject | {"peerType": "eBGP"} | _HOST),
        ),
        of(
            "communities",
            "community",
            "one that FRR's route has not to none",
            imports(
                reject | {"communities": {"values": ["65001:9"]}},
                reject,
                in_kernel(OUTSIDE, False),
                "FRR's route left the kernel",
            ),
        ),
        of(
            "asPathPrefix",
            "as_path_prefix",
            "65009 to 65001",
            imports(
                reject | {"asPathPrefix": [65009]},
                reject | {"asPathPrefix": [65001]},
                in_kernel(OUTSIDE, False),
                "FRR's route left the kernel",
            ),
        ),
        of(
            "priority",
            "priority",
            "512 to 1024",
            export(reject | {"priority": 512} | _HOST, reject | {"priority": 1024} | _HOST),
        ),
        row(
            f"{r}.operations.addCommunity",
            "FilterRule.operations Operation.add_community",
            "64512:1 to 64512:2",
            rules("exportV4", accept({"addCommunity": {"value": "64512:2"}})),
            "the community at FRR",
            frr_community(BORROWED, "64512:2"),
            before=rules("exportV4", community),
        ),
        row(
            f"{r}.operations.prependASPath",
            "Operation.prepend_as_path",
            "64777 to 64778",
            rules("exportV4", accept({"prependASPath": {"prefix": [64778]}})),
            "AS_PATH at FRR",
            lambda lab: frr_path(BORROWED, "64512 64778")(lab) or frr_path(BORROWED, "64778 64512")(lab),
            before=rules("exportV4", prepend),
        ),
        row(
            f"{r}.operations.setPriority",
            "Operation.set_priority",
            "3000 to 2000",
            rules("importV4", {"action": "Accept", "operations": [{"setPriority": {"value": 2000}}]}),
            "the kernel route's metric",
            metric_of(OUTSIDE, 2000),
            before=rules("importV4", {"action": "Accept", "operations": [{"setPriority": {"value": 3000}}]}),
        ),
    ]


def pool_rows() -> list[Row]:
    """IPPool."""
    p = "IPPool"
    unread = {
        "disabled": True,
        "natOutgoing": True,
        "blockSize": 27,
        "allowedUses": ["Workload"],
        "assignmentMode": "Manual",
        "nodeSelector": "has(nothing)",
        "namespaceSelector": "all()",
    }
    return [
        row(
            f"{p}.cidr",
            f"{p}.cidr",
            "10.244.0.0/16 to 10.244.0.0/17",
            [(POOL, "spec.cidr", "10.244.0.0/17")],
            "the pod's route is gone from BIRD",
            at_bird(BORROWED, False),
        ),
        row(
            f"{p}.ipipMode",
            f"{p}.ipip",
            "Never to Always",
            [(POOL, "spec.ipipMode", "Always")],
            "the pool's routes left the kernel: Felix's now",
            in_kernel(BLOCK_B, False),
        ),
        row(
            f"{p}.vxlanMode",
            f"{p}.vxlan",
            "Never to Always",
            [(POOL, "spec.vxlanMode", "Always")],
            "the pool's routes left the kernel: Felix's now",
            in_kernel(BLOCK_B, False),
        ),
        row(
            f"{p}.disableBGPExport",
            f"{p}.export",
            "false to true",
            [(POOL, "spec.disableBGPExport", True)],
            "the block is gone from BIRD",
            at_bird(BLOCK_A, False),
        ),
        *(row(f"{p}.{name}", "", "another value", [(POOL, f"spec.{name}", value)]) for name, value in unread.items()),
        row(
            "(an IPPool less)",
            "",
            "the IPv4 pool",
            [(POOL, "", None)],
            "the pod's route is gone from BIRD",
            at_bird(BORROWED, False),
        ),
    ]


def node_rows() -> list[Row]:
    """Node: the speaker's own, and another of the cluster."""
    n, o = "Node (own)", "Node (another)"
    second4, second6 = SECOND_ADDRESSES
    wireguard = [(NODE, "spec.wireguard", {"interfaceIPv4Address": "10.244.9.1", "interfaceIPv6Address": "fd00:9::9"})]
    unread = {
        "spec.bgp.ipv4IPIPTunnelAddr": "10.244.1.1",
        "spec.ipv4VXLANTunnelAddr": "10.244.1.2",
        "spec.ipv6VXLANTunnelAddr": "fd00:10:244:1::2",
        "spec.vxlanTunnelMACAddr": "66:00:00:00:00:01",
        "spec.vxlanTunnelMACAddrV6": "66:00:00:00:00:02",
        "spec.orchRefs": [{"nodeName": "a", "orchestrator": "k8s"}],
        "spec.addresses": [{"address": "172.20.0.11"}],
        "spec.interfaces": [{"name": "eth0"}],
        "status.wireguardPublicKey": "key",
    }
    return [
        row(
            f"{n}.spec.bgp.asNumber",
            "Node.asn",
            "the cluster's to 64520",
            [(NODE, "spec.bgp.asNumber", 64520)],
            "AS_PATH at FRR",
            frr_path(BLOCK_A, "64520"),
            bird=BirdPlan(peer_asn=64520),
            frr=("neighbor node remote-as 64520",),
            frr_undo=("neighbor node remote-as 64512",),
        ),
        row(
            f"{n}.spec.bgp.ipv4Address",
            "Node.ipv4_address",
            f"{NODE_ADDRESSES[0]} to {second4}",
            [(NODE, "spec.bgp.ipv4Address", f"{second4}/24")],
            "BIRD's session with the new address stands",
            lambda lab: lab.sessions()[BIRD4] and lab.frr_neighbor(second4).get("bgpState") == "Established",
            bird=BirdPlan(peer4=second4),
            frr=(f"neighbor {second4} peer-group node",),
            frr_undo=(f"no neighbor {second4} peer-group node",),
            gone=(FRR4,),
        ),
        row(
            f"{n}.spec.bgp.ipv4Address",
            "Node.ipv4_network",
            "its prefix length, /24 to /25",
            [(NODE, "spec.bgp.ipv4Address", f"{NODE_ADDRESSES[0]}/25")],
        ),
        row(
            f"{n}.spec.bgp.ipv6Address",
            "Node.ipv6_address",
            f"{NODE_ADDRESSES[1]} to {second6}",
            [(NODE, "spec.bgp.ipv6Address", f"{second6}/64")],
            "BIRD's session with the new address stands",
            established(BIRD6),
            bird=BirdPlan(peer6=second6),
            frr=(f"neighbor {second6} peer-group node",),
            frr_undo=(f"no neighbor {second6} peer-group node",),
            gone=(FRR6,),
        ),
        row(
            f"{n}.spec.bgp.routeReflectorClusterID",
            "Node.cluster_id",
            "none to 244.0.0.1",
            [(NODE, "spec.bgp.routeReflectorClusterID", "244.0.0.1")],
            "the mesh's sessions are gone",
            away(BIRD4, BIRD6),
            gone=(BIRD4, BIRD6),
        ),
        row(
            f"{n}.metadata.labels",
            "Node.labels",
            "none to excluded from load balancers",
            [(NODE, "metadata.labels", {"node.kubernetes.io/exclude-from-external-load-balancers": "true"})],
            "the service range is gone from BIRD",
            at_bird("10.96.0.0/16", False),
            before=SERVED,
        ),
        row(
            f"{n}.spec.wireguard.interfaceIPv4Address",
            "Node.ipv4_wireguard",
            "none to one, as node-b",
            wireguard,
            "node-b's block left the kernel: Felix's now",
            in_kernel(BLOCK_B, False),
            before=[(OTHER, "spec.wireguard", {"interfaceIPv4Address": "10.244.9.2"})],
        ),
        row(
            f"{n}.spec.wireguard.interfaceIPv6Address",
            "Node.ipv6_wireguard",
            "none to one, as node-b",
            wireguard,
            "node-b's IPv6 block left the kernel",
            in_kernel("fd00:10:244:2::/122", False),
            before=[(OTHER, "spec.wireguard", {"interfaceIPv6Address": "fd00:9::8"})],
        ),
        row(
            f"{n}.status.podCIDRs",
            "Node.pod_cidrs",
            "none to one (read with USE_POD_CIDR only)",
            [(NODE, "status.podCIDRs", ["10.244.33.0/24"])],
        ),
        *(row(f"{n}.{path}", "", "another value", [(NODE, path, value)]) for path, value in unread.items()),
        row(
            f"{o}.spec.bgp.asNumber",
            "",
            "the cluster's to 64530",
            [(OTHER, "spec.bgp.asNumber", 64530)],
            "BIRD's sessions stand as eBGP",
            established(BIRD4, BIRD6),
            bird=BirdPlan(asn=64530),
        ),
        row(f"{o}.metadata.labels", "", "one more", [(OTHER, "metadata.labels", {"zone": "x"})]),
        row(
            f"(a {o} more)",
            "",
            "node-c",
            [("Node/node-c", "", resources.node("node-c", "172.20.0.13/24", "fd00:172:20::13/64"))],
            "the sessions are tried",
            lambda lab: "Mesh_172_20_0_13" in lab.speaker.sessions(),
        ),
        row(
            f"(a {o} less)",
            "",
            "node-b",
            [(OTHER, "", None)],
            "its sessions are gone",
            away(BIRD4, BIRD6),
            gone=(BIRD4, BIRD6),
        ),
    ]


def block_rows() -> list[Row]:
    """BlockAffinity."""
    b = "BlockAffinity"
    gone = ("the block is gone from BIRD", at_bird(BLOCK_A, False))
    return [
        row(f"{b}.node", f"{b}.node", "node-a to node-b", [(BLOCK, "spec.node", "node-b")], *gone),
        row(
            f"{b}.cidr",
            f"{b}.cidr",
            "10.244.1.0/26 to 10.244.7.0/26",
            [(BLOCK, "spec.cidr", "10.244.7.0/26")],
            "the new block at BIRD",
            at_bird("10.244.7.0/26"),
        ),
        row(f"{b}.state", f"{b}.state", "confirmed to pending", [(BLOCK, "spec.state", "pending")], *gone),
        row(f"{b}.deleted", f"{b}.deleted", "false to true", [(BLOCK, "spec.deleted", True)], *gone),
        row(f"{b}.type", f"{b}.host", "host to virtual", [(BLOCK, "spec.type", "virtual")], *gone),
        row(
            "(a BlockAffinity more)",
            "",
            "a second block",
            [
                (
                    "BlockAffinity/node-a-more",
                    "",
                    resources.resource(
                        b, "node-a-more", {"node": "node-a", "cidr": "10.244.8.0/26", "state": "confirmed"}
                    ),
                )
            ],
            "the block at FRR",
            at_frr("10.244.8.0/26"),
        ),
        row("(a BlockAffinity less)", "", "the IPv4 block", [(BLOCK, "", None)], *gone),
    ]


def service_rows() -> list[Row]:
    """Service and EndpointSlice."""
    s, e = "Service", "EndpointSlice"
    gone = ("its address is gone from BIRD", at_bird(ADDRESS, False))
    external = [("BGPConfiguration/default", "spec.serviceExternalIPs", [{"cidr": "203.0.113.0/24"}])]
    balanced = [
        ("BGPConfiguration/default", "spec.serviceLoadBalancerIPs", [{"cidr": "192.0.2.77/32"}]),
        (SERVICE, "spec.type", "LoadBalancer"),
        (SERVICE, "spec.externalTrafficPolicy", "Cluster"),
    ]
    given = {"loadBalancer": {"ingress": [{"ip": "192.0.2.77"}]}}
    elsewhere = [{"addresses": ["10.244.1.5"], "nodeName": "node-b", "conditions": {"ready": True}}]
    unready = [{"addresses": ["10.244.1.5"], "nodeName": "node-a", "conditions": {"ready": False}}]
    return [
        row(
            f"{s}.type",
            f"{s}.type",
            "ClusterIP to ExternalName",
            [(SERVICE, "spec.type", "ExternalName")],
            *gone,
            before=SERVED,
        ),
        row(
            f"{s}.clusterIPs",
            f"{s}.cluster_ips",
            "10.96.0.20 to 10.96.0.21",
            [(SERVICE, "spec.clusterIPs", ["10.96.0.21"]), (SERVICE, "spec.clusterIP", "10.96.0.21")],
            "the new address at BIRD",
            at_bird("10.96.0.21/32"),
            before=SERVED,
        ),
        row(
            f"{s}.externalIPs",
            f"{s}.external_ips",
            "none to 203.0.113.5",
            [(SERVICE, "spec.externalIPs", ["203.0.113.5"])],
            "the address at BIRD",
            at_bird("203.0.113.5/32"),
            before=external,
        ),
        row(
            f"{s}.loadBalancerIP",
            f"{s}.load_balancer_ip",
            "none to 192.0.2.77",
            [(SERVICE, "spec.loadBalancerIP", "192.0.2.77")],
            "the Service's cluster IP at BIRD",
            at_bird(ADDRESS),
            before=[*balanced, *SERVED],
        ),
        row(
            f"{s}.status.loadBalancer.ingress",
            f"{s}.ingress_ips",
            "none to 192.0.2.77",
            [(SERVICE, "status", given)],
            "the address at BIRD",
            at_bird("192.0.2.77/32"),
            before=balanced,
        ),
        row(
            f"{s}.externalTrafficPolicy",
            f"{s}.policy",
            "Local to Cluster",
            [(SERVICE, "spec.externalTrafficPolicy", "Cluster")],
            *gone,
            before=SERVED,
        ),
        row(
            f"{s}.ipFamilies",
            f"{s}.families",
            "IPv4 to IPv6",
            [(SERVICE, "spec.ipFamilies", ["IPv6"])],
            *gone,
            before=SERVED,
        ),
        row(
            f"{e}.metadata.labels",
            f"{e}.service",
            "another Service's",
            [(SLICE, "metadata|labels|kubernetes.io/service-name", "other")],
            *gone,
            before=SERVED,
        ),
        row(f"{e}.addressType", f"{e}.family", "IPv4 to IPv6", [(SLICE, "addressType", "IPv6")], *gone, before=SERVED),
        row(
            f"{e}.endpoints.nodeName",
            f"{e}.nodes",
            "node-a to node-b",
            [(SLICE, "endpoints", elsewhere)],
            *gone,
            before=SERVED,
        ),
        row(
            f"{e}.endpoints.conditions.ready",
            "",
            "true to false",
            [(SLICE, "endpoints", unready)],
            *gone,
            before=SERVED,
        ),
        row("(a Service less)", "", "the only one", [(SERVICE, "", None)], *gone, before=SERVED),
        row("(an EndpointSlice less)", "", "the Service's only one", [(SLICE, "", None)], *gone, before=SERVED),
    ]


def status_rows() -> list[Row]:
    """CalicoNodeStatus."""
    c = "CalicoNodeStatus"
    wish = "CalicoNodeStatus/status"
    return [
        row(f"{c}.node", f"{c}.node", "node-a to node-b", [(wish, "spec.node", "node-b")]),
        row(f"{c}.classes", f"{c}.classes", "BGP to Routes", [(wish, "spec.classes", ["Routes"])]),
        row(f"{c}.updatePeriodSeconds", f"{c}.period", "none to 10", [(wish, "spec.updatePeriodSeconds", 10)]),
    ]
