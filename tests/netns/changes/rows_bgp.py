"""Rows of BGPConfiguration and BGPPeer."""

from __future__ import annotations

import json

from tests.lab import datastore as resources
from tests.lab.cluster import NODE_ASN
from tests.netns.changes.lab import (
    BLOCK_A,
    BLOCK_A6,
    BLOCK_B,
    BORROWED,
    LOOPED,
    BirdPlan,
    ChangeLab,
    Edit,
)
from tests.netns.changes.rows import (
    BIRD4,
    BIRD6,
    FRR4,
    MAXIMUM,
    Row,
    Seen,
    at_bird,
    at_frr,
    away,
    bird_says,
    established,
    frr_next_hop,
    frr_path,
    in_kernel,
    restart_bird,
    restart_frr,
    row,
)

CONF, OWN, TOR = "BGPConfiguration/default", "BGPConfiguration/node.node-a", "BGPPeer/tor4"
KEY_ONE = {"secretKeyRef": {"name": "bgp", "key": "one"}}
MORE: Edit = ("BGPPeer/more", "", resources.peer("more", "172.20.0.77", 65077))
STILL_MORE: Edit = ("BGPPeer/more", "", resources.peer("more", "172.20.0.78", 65078))
ANOTHER_AS = (
    "no neighbor 172.20.0.11 peer-group node",
    "neighbor 172.20.0.11 remote-as 64999",
    "neighbor 172.20.0.11 timers connect 1",
    "neighbor 172.20.0.11 advertisement-interval 0",
    "address-family ipv4 unicast",
    "neighbor 172.20.0.11 activate",
)
NO_PASSWORD = ("no neighbor 172.20.0.11 password",)
_SERVED = [
    ("Service/web", "spec.externalIPs", ["203.0.113.5"]),
    ("Service/web", "spec.type", "LoadBalancer"),
    ("Service/web", "status", {"loadBalancer": {"ingress": [{"ip": "192.0.2.77"}]}}),
]


def conf(field: str, value: object, key: str = CONF) -> list[Edit]:
    """A field of the global BGPConfiguration, or of the node's."""
    return [(key, f"spec.{field}", value)]


def tor(field: str, value: object) -> list[Edit]:
    """A field of the BGPPeer of FRR's IPv4 session."""
    return [(TOR, f"spec.{field}", value)]


def communities(value: str) -> list[Edit]:
    """A named community that block and pods are announced with."""
    return [
        *conf("communities", [{"name": "pods", "value": value}]),
        *conf("prefixAdvertisements", [{"cidr": "10.244.0.0/16", "communities": ["pods"]}]),
    ]


def advertised(value: str) -> list[dict[str, object]]:
    """A prefixAdvertisement with one community."""
    return [{"cidr": "10.244.0.0/16", "communities": [value]}]


def debug_log(address: str) -> Seen:
    """The peer that came with the change is followed state by state in the log."""
    return lambda lab: f"({address}): IDLE -> " in lab.speaker.main.log.read_text()


def listening(*places: str) -> Seen:
    """The daemon listens there, and nowhere else."""

    def seen(lab: ChangeLab) -> bool:
        text = lab.node.namespace.run(["ss", "-Hltn"])
        ports = {line.split()[3] for line in text.splitlines()}
        return set(places) == {place for place in ports if not place.startswith("127.")}

    return seen


def restart_time_at_bird(seconds: int) -> Seen:
    """BIRD was told this restart time."""
    return lambda lab: f"Restart time: {seconds}" in lab.bird.control("show protocols all node_a_4")


def restart_time_at_frr(seconds: int) -> Seen:
    """FRR was told this restart time."""
    return lambda lab: f'"receivedRestartTimer": {seconds}' in json.dumps(lab.frr_neighbor("172.20.0.11"))


def keepalive(seconds: int) -> Seen:
    """Keepalives go to FRR in this interval."""
    return lambda lab: (lab.peer("Global_172_20_0_1").get("negotiated") or {}).get("keepalive_time") == seconds


def global_rows() -> list[Row]:
    """BGPConfiguration `default`."""
    c = "BGPConfiguration"
    return [
        row(
            f"{c}.logSeverityScreen",
            f"{c}.log_severity",
            "Info to Debug",
            [*conf("logSeverityScreen", "Debug"), MORE],
            "a new peer's states in the log",
            debug_log("172.20.0.77"),
        ),
        row(
            f"{c}.nodeToNodeMeshEnabled",
            f"{c}.mesh",
            "true to false",
            conf("nodeToNodeMeshEnabled", False),
            "the mesh's sessions are gone",
            away(BIRD4, BIRD6),
            gone=(BIRD4, BIRD6),
        ),
        row(
            f"{c}.asNumber",
            f"{c}.asn",
            "64512 to 64513",
            conf("asNumber", 64513),
            "all sessions stand, FRR's route has the new AS",
            frr_path(BLOCK_A, "64513"),
            bird=BirdPlan(asn=64513, peer_asn=64513),
            frr=("neighbor node remote-as 64513",),
            frr_undo=(f"neighbor node remote-as {NODE_ASN}",),
        ),
        row(
            f"{c}.listenPort",
            f"{c}.listen_port",
            "179 to 1790",
            conf("listenPort", 1790),
            "port 1790 accepts",
            lambda lab: lab.connects("172.20.0.11", 1790),
        ),
        row(
            f"{c}.bindMode",
            f"{c}.bind_mode",
            "None to NodeIP",
            conf("bindMode", "NodeIP"),
            "listens on the node's addresses only",
            listening("172.20.0.11:179", "[fd00:172:20::11]:179"),
        ),
        row(
            f"{c}.serviceClusterIPs",
            f"{c}.service_cluster_ips",
            "none to 10.96.0.0/16",
            conf("serviceClusterIPs", [{"cidr": "10.96.0.0/16"}]),
            "the range at BIRD",
            at_bird("10.96.0.0/16"),
        ),
        row(
            f"{c}.serviceExternalIPs",
            f"{c}.service_external_ips",
            "none to 203.0.113.0/24",
            conf("serviceExternalIPs", [{"cidr": "203.0.113.0/24"}]),
            "the range at BIRD",
            at_bird("203.0.113.0/24"),
        ),
        row(
            f"{c}.serviceLoadBalancerIPs",
            f"{c}.service_load_balancer_ips",
            "none to 192.0.2.0/24",
            conf("serviceLoadBalancerIPs", [{"cidr": "192.0.2.0/24"}]),
            "the range at BIRD",
            at_bird("192.0.2.0/24"),
        ),
        row(
            f"{c}.serviceLoadBalancerAggregation",
            f"{c}.aggregate_load_balancer",
            "Enabled to Disabled",
            conf("serviceLoadBalancerAggregation", "Disabled"),
            "the range gone from BIRD, the address there",
            lambda lab: not lab.at_bird("192.0.2.0/24") and lab.at_bird("192.0.2.77/32"),
            before=[*conf("serviceLoadBalancerIPs", [{"cidr": "192.0.2.0/24"}]), *_SERVED],
        ),
        row(
            f"{c}.communities",
            "PrefixAdvertisement.communities",
            "the value of a name: 64512:1 to 64512:2",
            communities("64512:2"),
            "the community at BIRD",
            bird_says(BLOCK_A, "(64512,2)"),
            before=communities("64512:1"),
        ),
        row(
            f"{c}.prefixAdvertisements",
            f"{c}.prefix_advertisements PrefixAdvertisement.prefix",
            "none to 10.244.0.0/16 with 64512:7",
            conf("prefixAdvertisements", advertised("64512:7")),
            "the community at BIRD",
            bird_says(BLOCK_A, "(64512,7)"),
        ),
        row(
            f"{c}.nodeMeshPassword",
            f"{c}.mesh_password SecretRef.name SecretRef.key",
            "none to a key",
            conf("nodeMeshPassword", KEY_ONE),
            "the mesh's sessions stand again",
            established(BIRD4, BIRD6),
            bird=BirdPlan(password="first-key"),
        ),
        row(
            f"{c}.nodeMeshMaxRestartTime",
            f"{c}.mesh_restart_time",
            "120s to 77s",
            conf("nodeMeshMaxRestartTime", "77s"),
            "BIRD was told 77 s",
            restart_time_at_bird(77),
            next_session=restart_bird,
        ),
        row(
            f"{c}.ignoredInterfaces",
            f"{c}.ignored_interfaces",
            "none to dummy*",
            conf("ignoredInterfaces", ["dummy*"]),
            "the direct route of dummy0 is gone",
            lambda lab: not lab.local_route("10.55.0.0/24"),
        ),
        row(
            f"{c}.localWorkloadPeeringIPV4",
            f"{c}.local_workload_ipv4",
            "none to 169.254.9.1",
            conf("localWorkloadPeeringIPV4", "169.254.9.1"),
        ),
        row(
            f"{c}.localWorkloadPeeringIPV6",
            f"{c}.local_workload_ipv6",
            "none to fd00:9::1",
            conf("localWorkloadPeeringIPV6", "fd00:9::1"),
        ),
        row(
            f"{c}.programClusterRoutes",
            f"{c}.program_cluster_routes",
            "EnabledNoEncapOnly to Disabled",
            conf("programClusterRoutes", "Disabled"),
            "the pool's routes left the kernel",
            in_kernel(BLOCK_B, False),
        ),
        row(
            f"{c}.ipv4NormalRoutePriority",
            f"{c}.ipv4_priority",
            "1024 to 2000",
            conf("ipv4NormalRoutePriority", 2000),
            "LOCAL_PREF at BIRD",
            bird_says(BLOCK_A, f"local_pref: {MAXIMUM - 2000}"),
        ),
        row(
            f"{c}.ipv6NormalRoutePriority",
            f"{c}.ipv6_priority",
            "1024 to 2000",
            conf("ipv6NormalRoutePriority", 2000),
            "LOCAL_PREF at BIRD",
            bird_says(BLOCK_A6, f"local_pref: {MAXIMUM - 2000}"),
        ),
    ]


def node_configuration_rows() -> list[Row]:
    """BGPConfiguration `node.NAME`."""
    c = "BGPConfiguration node.NAME"
    return [
        row(
            f"{c}.logSeverityScreen",
            "",
            "none to Debug",
            [*conf("logSeverityScreen", "Debug", OWN), STILL_MORE],
            "a new peer's states in the log",
            debug_log("172.20.0.78"),
        ),
        row(
            f"{c}.listenPort",
            "",
            "none to 1791",
            conf("listenPort", 1791, OWN),
            "port 1791 accepts",
            lambda lab: lab.connects("fd00:172:20::11", 1791),
        ),
        row(
            f"{c}.prefixAdvertisements",
            "",
            "none to 10.244.0.0/16 with 64512:8",
            conf("prefixAdvertisements", advertised("64512:8"), OWN),
            "the community at BIRD",
            bird_says(BLOCK_A, "(64512,8)"),
        ),
    ]


def peer_rows() -> list[Row]:
    """BGPPeer: that of FRR's IPv4 session, where nothing else is said."""
    p = "BGPPeer"
    reverse = resources.peer("reverse", "172.20.0.11", NODE_ASN, node="node-b")
    by_label = {"nodeSelector": "all()", "peerSelector": "role == 'x'"}
    selected = resources.resource("BGPPeer", "selected", {**by_label, "reversePeering": "Manual"})
    never = resources.resource("BGPFilter", "never", {"exportV4": [{"action": "Reject"}]})
    local = {"nodeSelector": "all()", "localWorkloadSelector": "app == 'a'", "asNumber": 64999}
    return [
        row(
            f"{p}.node",
            f"{p}.node",
            "every node to node-a",
            tor("node", "node-a"),
            "the session, under its new name, stands",
            established(FRR4),
        ),
        row(
            f"{p}.nodeSelector",
            f"{p}.node_selector",
            "all() to another that matches",
            tor("nodeSelector", "!has(gone)"),
            before=tor("nodeSelector", "all()"),
        ),
        row(
            f"{p}.nodeSelector",
            "",
            "all() to one that does not match",
            tor("nodeSelector", "has(gone)"),
            "the session is gone",
            away(FRR4),
            before=tor("nodeSelector", "all()"),
            gone=(FRR4,),
        ),
        row(
            f"{p}.peerIP",
            f"{p}.peer_ip",
            "172.20.0.1 to 172.20.0.99",
            tor("peerIP", "172.20.0.99"),
            "the session is gone",
            away(FRR4),
            gone=(FRR4,),
        ),
        row(
            f"{p}.asNumber",
            f"{p}.asn",
            "65001 to 65009",
            tor("asNumber", 65009),
            "the session stands again",
            established(FRR4),
            frr=("neighbor 172.20.0.11 local-as 65009 no-prepend replace-as",),
            frr_undo=("no neighbor 172.20.0.11 local-as",),
        ),
        row(
            f"{p}.localASNumber",
            f"{p}.local_asn",
            "none to 64999",
            tor("localASNumber", 64999),
            "AS_PATH at FRR",
            frr_path(BLOCK_A, "64999"),
            frr=ANOTHER_AS,
            frr_undo=("no neighbor 172.20.0.11", "neighbor 172.20.0.11 peer-group node"),
        ),
        row(
            f"{p}.peerSelector",
            f"{p}.peer_selector",
            "none to node-b, until then in the mesh",
            [("BGPPeer/selected", "spec.peerSelector", "role == 'b'")],
            "the sessions, under their new names, stand",
            lambda lab: "Node_172_20_0_12" in lab.speaker.sessions(),
            before=[("BGPPeer/selected", "", selected), ("Node/node-b", "metadata.labels", {"role": "b"})],
        ),
        row(
            f"{p}.localWorkloadSelector",
            f"{p}.local_workload_selector",
            "another (Felix evaluates it)",
            [("BGPPeer/local", "spec.localWorkloadSelector", "app == 'b'")],
            before=[("BGPPeer/local", "", resources.resource("BGPPeer", "local", local))],
        ),
        row(
            f"{p}.keepOriginalNextHop",
            f"{p}.keep_original_next_hop",
            "false to true",
            tor("keepOriginalNextHop", True),
            "next hop of node-b's block at FRR",
            frr_next_hop(BLOCK_B, "172.20.0.12"),
        ),
        row(
            f"{p}.nextHopMode",
            f"{p}.next_hop_mode",
            "Auto to Keep",
            tor("nextHopMode", "Keep"),
            "next hop of node-b's block at FRR",
            frr_next_hop(BLOCK_B, "172.20.0.12"),
        ),
        row(
            f"{p}.password",
            f"{p}.password",
            "none to a key",
            tor("password", KEY_ONE),
            "the session stands again",
            established(FRR4),
            frr=("neighbor 172.20.0.11 password first-key",),
            frr_undo=NO_PASSWORD,
        ),
        row(
            f"{p}.sourceAddress",
            f"{p}.source_address",
            "UseNodeIP to None",
            tor("sourceAddress", "None"),
            "the session stands again",
            established(FRR4),
        ),
        row(
            f"{p}.maxRestartTime",
            f"{p}.restart_time",
            "120s to 66s",
            tor("maxRestartTime", "66s"),
            "FRR was told 66 s",
            restart_time_at_frr(66),
            next_session=restart_frr,
        ),
        row(
            f"{p}.keepaliveTime",
            f"{p}.keepalive_time",
            "a third of the hold time to 2s",
            tor("keepaliveTime", "2s"),
            "keepalives every 2 s",
            keepalive(2),
        ),
        row(
            f"{p}.numAllowedLocalASNumbers",
            f"{p}.allowed_local_asns",
            "0 to 1",
            tor("numAllowedLocalASNumbers", 1),
            "a route with our AS in its path is in the kernel",
            in_kernel(LOOPED),
        ),
        row(
            f"{p}.ttlSecurity",
            f"{p}.ttl_security",
            "off to 1",
            tor("ttlSecurity", 1),
            "the session stands again",
            established(FRR4),
            frr=("neighbor 172.20.0.11 ttl-security hops 1",),
            frr_undo=("no neighbor 172.20.0.11 ttl-security hops 1",),
        ),
        row(
            f"{p}.reachableBy",
            f"{p}.reachable_by",
            "none to 172.20.0.12",
            tor("reachableBy", "172.20.0.12"),
            "a host route in the kernel",
            in_kernel("172.20.0.1/32"),
        ),
        row(
            f"{p}.filters",
            f"{p}.filters",
            "one that passes to one that rejects",
            tor("filters", ["never"]),
            "the pod's route gone from FRR",
            at_frr(BORROWED, False),
            before=[("BGPFilter/never", "", never)],
        ),
        row(
            f"{p}.reversePeering",
            f"{p}.reverse_peering",
            "Auto to Manual",
            [("BGPPeer/reverse", "spec.reversePeering", "Manual")],
            "the session is the mesh's again",
            lambda lab: "Mesh_172_20_0_12" in lab.speaker.sessions() and established(BIRD4)(lab),
            before=[("BGPPeer/reverse", "", reverse)],
        ),
        row(
            "Secret.stringData",
            "Secret.data",
            "another key of FRR's session",
            [("Secret/bgp", "stringData.one", "third-key")],
            "the session stands again",
            established(FRR4),
            before=tor("password", KEY_ONE),
            frr_before=("neighbor 172.20.0.11 password first-key",),
            frr=("neighbor 172.20.0.11 password third-key",),
            frr_undo=NO_PASSWORD,
        ),
        row(
            "Secret.data",
            "",
            "another key of a secret that no session here uses",
            [("Secret/bgp", "data", {"two": "b3RoZXI="})],
        ),
        row(
            "(a BGPPeer more)",
            "",
            "a peer that is not there",
            [MORE],
            "the session is tried",
            lambda lab: "Global_172_20_0_77" in lab.speaker.sessions(),
        ),
        row(
            "(a BGPPeer less)",
            "",
            "FRR's IPv4 session's",
            [(TOR, "", None)],
            "the session is gone",
            away(FRR4),
            gone=(FRR4,),
        ),
        row(
            "(a Secret less)",
            "",
            "the one that FRR's session uses: it fails closed",
            [("Secret/bgp", "", None)],
            "the session is gone",
            away(FRR4),
            before=tor("password", KEY_ONE),
            frr_before=("neighbor 172.20.0.11 password first-key",),
            frr_undo=NO_PASSWORD,
            gone=(FRR4,),
        ),
    ]
