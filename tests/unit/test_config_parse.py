"""Resources: what is taken, what is refused, and how the fault is named."""

from __future__ import annotations

from typing import Any

import pytest

from bgpd.family import IPV4_UNICAST
from config import resources as r
from config.documents import load_yaml
from config.parse import identify, parse_resource, unfold
from config.problems import Problem, ResourceError

V3 = "projectcalico.org/v3"


def parsed(kind: str, spec: object, name: str = "x", group: str = V3, **metadata: object) -> Any:
    return parse_resource(
        {"apiVersion": group, "kind": kind, "metadata": {"name": name, **metadata}, "spec": spec}
    ).resource


def notices(kind: str, spec: object, name: str = "x") -> tuple[Problem, ...]:
    return parse_resource({"apiVersion": V3, "kind": kind, "metadata": {"name": name}, "spec": spec}).notices


def faults(kind: str, spec: object, name: str = "x") -> list[str]:
    """The refused fields of an object that must be refused."""
    with pytest.raises(ResourceError) as caught:
        parsed(kind, spec, name)
    for problem in caught.value.problems:
        assert problem.object == f"{kind}/{name}" and problem.text
    return [problem.field for problem in caught.value.problems if problem.refused]


PEER = {"peerIP": "192.0.2.1", "asNumber": 65001}


def test_node() -> None:
    node = parsed(
        "Node",
        {
            "bgp": {
                "asNumber": "1.10",
                "ipv4Address": "10.0.0.5/24",
                "ipv6Address": "FD00:1::5",
                "routeReflectorClusterID": "244.0.0.1",
            },
            "wireguard": {"interfaceIPv4Address": "10.244.3.3"},
            "addresses": [{"address": "10.0.0.5"}],
        },
        labels={"rack": "one", "on": True, "n": 3, "none": None},
    )
    assert (node.asn, node.ipv4_address, node.ipv6_address) == (65546, "10.0.0.5", "fd00:1::5")
    assert str(node.ipv4_network) == "10.0.0.0/24"
    assert (node.cluster_id, node.ipv4_wireguard) == ("244.0.0.1", "10.244.3.3")
    assert node.labels == {"rack": "one", "on": "true", "n": "3"}
    assert parsed("Node", None).address(IPV4_UNICAST) == ""


@pytest.mark.parametrize(
    ("bgp", "field"),
    [
        ({"asNumber": 0}, "spec.bgp.asNumber"),
        ({"asNumber": True}, "spec.bgp.asNumber"),
        ({"asNumber": 4294967296}, "spec.bgp.asNumber"),
        ({"ipv4Address": "10.0.0.5/33"}, "spec.bgp.ipv4Address"),
        ({"ipv4Address": "fd00::1"}, "spec.bgp.ipv4Address"),
        ({"ipv6Address": "10.0.0.1"}, "spec.bgp.ipv6Address"),
        ({"ipv4Address": 5}, "spec.bgp.ipv4Address"),
        ({"routeReflectorClusterID": "1"}, "spec.bgp.routeReflectorClusterID"),
        ({"routeReflectorClusterID": "0.0.0.0"}, "spec.bgp.routeReflectorClusterID"),
        ([], "spec.bgp"),
    ],
)
def test_node_refused(bgp: object, field: str) -> None:
    assert faults("Node", {"bgp": bgp}) == [field]


def test_configuration() -> None:
    config = parsed(
        "BGPConfiguration",
        {
            "logSeverityScreen": "debug",
            "nodeToNodeMeshEnabled": True,
            "asNumber": "64513",
            "listenPort": 1790,
            "bindMode": "NodeIP",
            "serviceClusterIPs": [{"cidr": "10.96.0.0/12"}, {}],
            "communities": [{"name": "pods", "value": "64512:100"}],
            "prefixAdvertisements": [{"cidr": "10.244.0.0/16", "communities": ["pods", "64512:7:9"]}],
            "nodeMeshPassword": {"secretKeyRef": {"name": "s", "key": "k"}},
            "nodeMeshMaxRestartTime": "200s",
            "ignoredInterfaces": ["eth1", "docker*"],
            "programClusterRoutes": "Disabled",
            "ipv4NormalRoutePriority": 512,
        },
        "default",
    )
    assert (config.log_severity, config.asn, config.listen_port) == (r.LogSeverity.DEBUG, 64513, 1790)
    assert [str(prefix) for prefix in config.service_cluster_ips] == ["10.96.0.0/12"]
    assert config.prefix_advertisements[0].communities == (64512 << 16 | 100, (64512, 7, 9))
    assert (config.mesh_password, config.mesh_restart_time) == (r.SecretRef("s", "k"), 200)
    assert (config.ipv4_priority, config.ipv6_priority) == (512, 1024)


def test_configuration_of_0_is_port_179() -> None:
    assert parsed("BGPConfiguration", {"listenPort": 0}, "default").listen_port is None


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({"asNumber": 0}, "spec.asNumber"),
        ({"listenPort": 65536}, "spec.listenPort"),
        ({"listenPort": "179"}, "spec.listenPort"),
        ({"nodeToNodeMeshEnabled": "yes"}, "spec.nodeToNodeMeshEnabled"),
        ({"bindMode": "nodeip"}, "spec.bindMode"),
        ({"logSeverityScreen": "Loud"}, "spec.logSeverityScreen"),
        ({"serviceClusterIPs": [{"cidr": "x"}]}, "spec.serviceClusterIPs[0].cidr"),
        ({"serviceClusterIPs": {"cidr": "10.0.0.0/8"}}, "spec.serviceClusterIPs"),
        (
            {"prefixAdvertisements": [{"cidr": "10.0.0.0/8", "communities": ["no"]}]},
            "spec.prefixAdvertisements[0].communities[0]",
        ),
        ({"communities": [{"name": "a", "value": 5}], "prefixAdvertisements": []}, "spec.communities[0].value"),
        ({"ignoredInterfaces": ["*"]}, "spec.ignoredInterfaces[0]"),
        ({"ignoredInterfaces": ["a/b"]}, "spec.ignoredInterfaces[0]"),
        ({"programClusterRoutes": "Maybe"}, "spec.programClusterRoutes"),
        ({"ipv4NormalRoutePriority": 0}, "spec.ipv4NormalRoutePriority"),
        ({"nodeMeshMaxRestartTime": "4096s"}, "spec.nodeMeshMaxRestartTime"),
        ({"nodeMeshMaxRestartTime": 60}, "spec.nodeMeshMaxRestartTime"),
        ({"nodeMeshPassword": {"secretKeyRef": {"name": "s"}}}, "spec.nodeMeshPassword"),
    ],
)
def test_configuration_refused(spec: object, field: str) -> None:
    assert faults("BGPConfiguration", spec, "default") == [field]


def test_configuration_notices() -> None:
    assert [n.field for n in notices("BGPConfiguration", {"asNumber": 64513}, "node.a")] == ["spec.asNumber"]
    assert [n.field for n in notices("BGPConfiguration", {}, "other")] == ["metadata.name"]
    off = {"nodeToNodeMeshEnabled": False, "nodeMeshMaxRestartTime": "60s"}
    assert [n.field for n in notices("BGPConfiguration", off, "default")] == ["spec.nodeMeshMaxRestartTime"]
    assert notices("BGPConfiguration", {"listenPort": 1790, "logSeverityScreen": "Info"}, "node.a") == ()


def test_peer() -> None:
    peer = parsed(
        "BGPPeer",
        {
            "nodeSelector": "rack == 'one'",
            "peerIP": "192.0.2.1:1790",
            "asNumber": "64600",
            "localASNumber": 65100,
            "sourceAddress": "None",
            "maxRestartTime": "60s",
            "keepaliveTime": "10.4s",
            "filters": ["a", "b"],
            "ttlSecurity": 1,
            "numAllowedLocalASNumbers": 2,
            "nextHopMode": "Self",
            "reachableBy": "192.0.2.254",
            "reversePeering": "Manual",
            "password": {"secretKeyRef": {"name": "s", "key": "k"}},
            "unknownField": 1,
        },
    )
    assert (peer.peer_ip.address, peer.peer_ip.port, peer.asn, peer.local_asn) == ("192.0.2.1", 1790, 64600, 65100)
    assert (peer.restart_time, peer.keepalive_time, peer.filters) == (60, 10, ("a", "b"))
    assert not peer.is_global


def test_peer_keepalive_of_0_is_unset() -> None:
    assert parsed("BGPPeer", {**PEER, "keepaliveTime": "0.3s"}).keepalive_time is None


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({**PEER, "asNumber": 0}, "spec.asNumber"),
        ({**PEER, "asNumber": "abc"}, "spec.asNumber"),
        ({**PEER, "localASNumber": 0}, "spec.localASNumber"),
        ({**PEER, "peerIP": "host"}, "spec.peerIP"),
        ({**PEER, "peerIP": "fe80::1"}, "spec.peerIP"),
        ({**PEER, "peerIP": "0.0.0.0"}, "spec.peerIP"),
        ({**PEER, "node": "a", "nodeSelector": "all()"}, "spec.node"),
        ({**PEER, "peerSelector": "all()", "asNumber": None}, "spec.peerIP"),
        ({"peerSelector": "all()", "asNumber": 65001}, "spec.asNumber"),
        ({"peerSelector": "all("}, "spec.peerSelector"),
        ({"localWorkloadSelector": "all()"}, "spec.asNumber"),
        ({**PEER, "localWorkloadSelector": "all()"}, "spec.localWorkloadSelector"),
        ({"asNumber": 65001}, "spec"),
        ({"peerSelector": "all()", "reachableBy": "192.0.2.254"}, "spec.reachableBy"),
        ({**PEER, "reachableBy": "fd00::1"}, "spec.reachableBy"),
        ({**PEER, "keepOriginalNextHop": True, "nextHopMode": "Self"}, "spec.keepOriginalNextHop"),
        ({**PEER, "ttlSecurity": 256}, "spec.ttlSecurity"),
        ({**PEER, "numAllowedLocalASNumbers": -1}, "spec.numAllowedLocalASNumbers"),
        ({**PEER, "nextHopMode": "self"}, "spec.nextHopMode"),
        ({**PEER, "filters": "a"}, "spec.filters"),
        ({**PEER, "filters": [1]}, "spec.filters[0]"),
        ({**PEER, "maxRestartTime": "2h"}, "spec.maxRestartTime"),
        ({**PEER, "nodeSelector": "a" * 2000}, "spec.nodeSelector"),
        ([], "spec"),
    ],
)
def test_peer_refused(spec: object, field: str) -> None:
    assert field in faults("BGPPeer", spec)


def test_all_faults_are_named_at_once() -> None:
    assert faults("BGPPeer", {"peerIP": "x", "asNumber": "y", "ttlSecurity": 999}) == [
        "spec.peerIP",
        "spec.asNumber",
        "spec.ttlSecurity",
    ]


def test_pool() -> None:
    pool = parsed("IPPool", {"cidr": "10.244.0.0/16", "vxlanMode": "CrossSubnet", "disableBGPExport": True})
    assert (str(pool.cidr), pool.vxlan, pool.export) == ("10.244.0.0/16", r.Encapsulation.CROSS_SUBNET, False)


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({}, "spec.cidr"),
        ({"cidr": "10.244.0.1/16"}, "spec.cidr"),
        ({"cidr": "10.244.0.0"}, "spec.cidr"),
        ({"cidr": "10.244.0.0/16", "ipipMode": "Always", "vxlanMode": "Always"}, "spec.ipipMode"),
        ({"cidr": "fd00::/64", "ipipMode": "Always"}, "spec.ipipMode"),
        ({"cidr": "10.244.0.0/16", "ipipMode": "Sometimes"}, "spec.ipipMode"),
        ({"cidr": "10.244.0.0/16", "nodeSelector": "global()"}, "spec.nodeSelector"),
        ({"cidr": "10.244.0.0/16", "allowedUses": ["LoadBalancer"], "disableBGPExport": True}, "spec.allowedUses"),
    ],
)
def test_pool_refused(spec: object, field: str) -> None:
    assert faults("IPPool", spec) == [field]


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({"blockSize": 33}, "spec.blockSize"),
        ({"blockSize": 12}, "spec.blockSize"),
        ({"allowedUses": ["Workload", "Pods"]}, "spec.allowedUses"),
        ({"assignmentMode": "Sometimes"}, "spec.assignmentMode"),
        ({"allowedUses": ["LoadBalancer"], "nodeSelector": "rack == 'one'"}, "spec.nodeSelector"),
    ],
)
def test_what_says_nothing_to_bgp_is_told_and_the_pool_counts(spec: dict[str, object], field: str) -> None:
    assert [notice.field for notice in notices("IPPool", {"cidr": "10.244.0.0/16", **spec})] == [field]
    assert notices("IPPool", {"cidr": "fd00::/64", "blockSize": 122, "allowedUses": ["Tunnel"]}) == ()


def test_affinity() -> None:
    # The v1 CRD has `deleted` as text; a missing state means confirmed.
    spec = {"node": "a", "cidr": "10.244.1.0/26", "deleted": "true", "type": "virtual"}
    affinity = parsed("BlockAffinity", spec, group="crd.projectcalico.org/v1")
    assert (affinity.state, affinity.deleted, affinity.host) == (r.AffinityState.CONFIRMED, True, False)
    assert faults("BlockAffinity", {"cidr": "10.244.1.0/26"}) == ["spec.node"]
    assert faults("BlockAffinity", {"node": "a", "cidr": "x", "state": "gone"}) == ["spec.cidr", "spec.state"]


def test_filter() -> None:
    found = parsed(
        "BGPFilter",
        {
            "exportV4": [
                {
                    "cidr": "10.244.0.0/16",
                    "matchOperator": "In",
                    "prefixLength": {"min": 8, "max": 28},
                    "peerType": "eBGP",
                    "source": "RemotePeers",
                    "interface": "*",
                    "communities": {"values": ["64512:1"]},
                    "asPathPrefix": [64512, "1.1"],
                    "priority": 512,
                    "action": "Accept",
                    "operations": [
                        {"addCommunity": {"value": "1:2:3"}},
                        {"prependASPath": {"prefix": [64512]}},
                        {"setPriority": {"value": 7}},
                    ],
                }
            ],
            "importV6": [{"action": "Reject"}],
        },
    )
    (rule,) = found.export_v4
    assert (rule.length, rule.community, rule.as_path_prefix) == ((16, 28), 64512 << 16 | 1, (64512, 65537))
    assert [op.set_priority for op in rule.operations] == [None, None, 7]
    assert found.import_v6 == (r.FilterRule(r.FilterAction.REJECT),)


@pytest.mark.parametrize(
    ("rule", "field"),
    [
        ({}, "action"),
        ({"action": "Drop"}, "action"),
        ({"action": "Accept", "cidr": "10.0.0.0/8"}, "matchOperator"),
        ({"action": "Accept", "matchOperator": "In"}, "cidr"),
        ({"action": "Accept", "cidr": "fd00::/8", "matchOperator": "In"}, "cidr"),
        ({"action": "Accept", "prefixLength": {"min": 8}}, "prefixLength"),
        (
            {"action": "Accept", "cidr": "10.0.0.0/8", "matchOperator": "In", "prefixLength": {"max": 33}},
            "prefixLength.max",
        ),
        ({"action": "Reject", "operations": [{"setPriority": {"value": 1}}]}, "operations"),
        ({"action": "Accept", "operations": [{}]}, "operations[0]"),
        (
            {"action": "Accept", "operations": [{"setPriority": {"value": 1}, "addCommunity": {"value": "1:1"}}]},
            "operations[0]",
        ),
        ({"action": "Accept", "operations": [{"setPriority": {"value": 0}}]}, "operations[0].setPriority.value"),
        ({"action": "Accept", "operations": [{"addCommunity": {}}]}, "operations[0].addCommunity"),
        (
            {"action": "Accept", "operations": [{"prependASPath": {"prefix": [64512, 0]}}]},
            "operations[0].prependASPath.prefix",
        ),
        ({"action": "Accept", "operations": [{"setPriority": {"value": 1}}] * 11}, "operations"),
        ({"action": "Accept", "communities": {"values": []}}, "communities.values"),
        ({"action": "Accept", "communities": {"values": ["1:1", "1:2"]}}, "communities.values"),
        ({"action": "Accept", "asPathPrefix": [-1]}, "asPathPrefix[0]"),
        ({"action": "Accept", "interface": "a b"}, "interface"),
        ({"action": "Accept", "source": "Me"}, "source"),
        ({"action": "Accept", "priority": 2147483647}, "priority"),
        ("x", ""),
    ],
)
def test_filter_refused(rule: object, field: str) -> None:
    path = f"spec.exportV4[0].{field}" if field else "spec.exportV4[0]"
    assert path in faults("BGPFilter", {"exportV4": [rule]})


def test_secret_is_never_shown() -> None:
    document = load_yaml(
        "{apiVersion: v1, kind: Secret, metadata: {name: s, namespace: ns},"
        " data: {a: aGVsbG8=}, stringData: {b: hello}}"
    )
    secret = parse_resource(document).resource
    assert isinstance(secret, r.Secret)
    assert secret.name == "ns/s" and secret.data == {"a": b"hello", "b": b"hello"}
    assert "hello" not in repr(secret)
    bad = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "data": {"a": "hunter2!"}}
    with pytest.raises(ResourceError) as caught:
        parse_resource(bad)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("document", "field"),
    [
        (None, ""),
        ([], ""),
        ({}, "kind"),
        ({"kind": 5}, "kind"),
        ({"kind": "Node"}, "apiVersion"),
        ({"kind": "Node", "apiVersion": V3}, "metadata.name"),
        ({"kind": "Node", "apiVersion": V3, "metadata": {"name": "a b"}}, "metadata.name"),
        ({"kind": "Node", "apiVersion": V3, "metadata": {"name": "a" * 254}}, "metadata.name"),
    ],
)
def test_identity_refused(document: object, field: str) -> None:
    with pytest.raises(ResourceError) as caught:
        identify(document)
    assert [problem.field for problem in caught.value.problems] == [field]


def test_kinds_are_known_by_group() -> None:
    assert not identify({"kind": "Node", "apiVersion": "v1", "metadata": {"name": "a"}}).known
    assert not identify({"kind": "Pod", "apiVersion": "v1", "metadata": {"name": "a"}}).known
    assert identify({"kind": "IPPool", "apiVersion": "crd.projectcalico.org/v1", "metadata": {"name": "a"}}).known


def test_lists_are_unfolded() -> None:
    found = unfold({"kind": "BGPPeerList", "apiVersion": V3, "items": [{"metadata": {"name": "a"}}, 5]})
    assert found == [({"kind": "BGPPeer", "apiVersion": V3, "metadata": {"name": "a"}}, "items[0]"), (5, "items[1]")]
    assert unfold({"kind": "List", "items": [{"kind": "Node"}]}) == [({"kind": "Node"}, "items[0]")]
    assert unfold({"kind": "List"}) == [({"kind": "List"}, "")]
