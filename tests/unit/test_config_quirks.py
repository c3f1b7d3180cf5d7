"""Habits of BIRD and confd, fixed or kept: a test for each row of docs/quirks.md, which names those of other files."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from bgpd.family import IPV4_UNICAST, format_prefix
from bgpd.policy.terms import SourceKind
from bgpd.settings import AddPath
from config.compile import compile
from config.parse import parse_resource
from config.problems import ResourceError
from config.resources import Workload
from config.snapshot import Put, Snapshot, StoreChange
from tests.unit.config_support import Route, chains, compiled, only_family, peers, run, settings, snapshot

NO_MESH = "kind: BGPConfiguration\nmetadata: {name: default}\nspec: {nodeToNodeMeshEnabled: false}\n---\n"
MESH = "kind: BGPConfiguration\nmetadata: {name: default}\nspec: {%s}\n---\n"
POOL = "kind: IPPool\nmetadata: {name: pods}\nspec: {cidr: 10.244.0.0/16}\n---\n"


def node(name: str, bgp: str) -> str:
    return f"kind: Node\nmetadata: {{name: {name}}}\nspec: {{bgp: {{{bgp}}}}}\n---\n"


def peer(name: str, spec: str) -> str:
    return f"kind: BGPPeer\nmetadata: {{name: {name}}}\nspec: {{{spec}}}\n---\n"


A = node("a", "ipv4Address: 10.0.0.10/24")
B = node("b", "ipv4Address: 10.0.0.9/24")


def test_1_of_two_peerings_the_first_by_name_gives_the_session() -> None:
    x, y = peer("x", "peerIP: 192.0.2.1, asNumber: 65001"), peer("y", "peerIP: 192.0.2.1, asNumber: 65002")
    for text in (NO_MESH + A + x + y, y + x + A + NO_MESH):
        assert peers(settings(text))["Global_192_0_2_1"].asn == 65001
        assert [problem.object for problem in compiled(text).problems] == ["BGPPeer/y"]


def test_2_a_peering_stands_for_the_mesh_session() -> None:
    found = peers(settings(A + B + peer("x", "peerIP: 10.0.0.9, asNumber: 64512")))
    assert not found["Global_10_0_0_9"].disabled and "Global_10_0_0_9" in found["Mesh_10_0_0_9"].disabled


def test_3_a_mesh_peer_without_a_number_has_the_clusters() -> None:
    text = MESH % "asNumber: 64600" + node("a", "ipv4Address: 10.0.0.10/24, asNumber: 64700") + B
    assert peers(settings(text))["Mesh_10_0_0_9"].asn == 64600


def test_5_the_nodes_own_port_makes_it_a_calico_node() -> None:
    text = MESH % "nodeToNodeMeshEnabled: false, listenPort: 1000" + A + B
    text += "kind: BGPConfiguration\nmetadata: {name: node.b}\nspec: {listenPort: 1790}\n---\n"
    # A Calico node's number need not be written, and its address makes one side passive.
    session = peers(settings(text + peer("x", "peerIP: '10.0.0.9:1790'")))["Global_10_0_0_9_port_1790"]
    assert (session.asn, session.passive) == (64512, True)


def test_6_a_former_address_is_no_nodes() -> None:
    text = NO_MESH + node("a", "ipv6Address: 'fd00::1'") + peer("x", "peerIP: 'fd00::9', asNumber: 64512")
    before = snapshot(text + node("b", "ipv6Address: 'fd00::9'"))
    after = before.apply([*_puts(node("b", "ipv6Address: 'fd00::8'"))])
    sessions = []
    for state in (before, after):
        found = compile(state, "a", {"CALICO_ROUTER_ID": "hash"}).settings
        assert found is not None
        sessions.append(peers(found)["Global_fd00__9"])
    assert [session.passive for session in sessions] == [True, False]


def _puts(text: str) -> list[StoreChange]:
    return [Put(held) for objects in snapshot(text).objects.values() for held in objects.values()]


def test_8_a_service_without_slices_has_no_addresses() -> None:
    service = "apiVersion: v1\nkind: Service\nmetadata: {name: s, namespace: n}\n"
    service += "spec: {type: ClusterIP, clusterIP: 10.96.0.20, externalTrafficPolicy: Local}\n---\n"
    piece = "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: s-1, namespace: n, "
    piece += "labels: {kubernetes.io/service-name: s}}\naddressType: IPv4\nendpoints: [{nodeName: a}]\n---\n"
    config = MESH % "serviceClusterIPs: [{cidr: 10.96.0.0/12}]"
    with_slice = snapshot(config + A + service + piece)

    def announced(state: Snapshot) -> list[str]:
        found = compile(state, "a", {}).settings
        assert found is not None
        return [format_prefix(route.family, route.key) for route in found.static_routes]

    assert announced(with_slice) == ["10.96.0.0/12", "10.96.0.20/32"]
    assert announced(with_slice.remove(("EndpointSlice", "n/s-1"))) == ["10.96.0.0/12"]


def test_11_a_block_on_its_way_out_covers_its_addresses() -> None:
    block = (
        "kind: BlockAffinity\nmetadata: {name: x}\nspec: {node: a, cidr: 10.244.1.0/26, state: pendingDeletion}\n---\n"
    )
    chain = chains(settings(A + B + POOL + block), "Mesh_10_0_0_9")[1]
    assert not run(chain, Route("10.244.1.5/32", SourceKind.KERNEL, "cali1", 1024)).accepted
    assert run(chain, Route("10.244.2.5/32", SourceKind.KERNEL, "cali1", 1024)).accepted


def test_14_one_bad_peer_does_not_freeze_the_node() -> None:
    text = NO_MESH + A + peer("x", "peerIP: 192.0.2.1") + peer("y", "peerIP: 192.0.2.2, asNumber: 65001")
    assert list(peers(settings(text))) == ["Global_192_0_2_2"]
    assert [(problem.object, problem.field) for problem in compiled(text).problems] == [("BGPPeer/x", "spec.asNumber")]
    with pytest.raises(ResourceError, match="link-local"):
        spec = {"peerIP": "fe80::1", "asNumber": 1}
        parse_resource(
            {"apiVersion": "projectcalico.org/v3", "kind": "BGPPeer", "metadata": {"name": "z"}, "spec": spec}
        )


@pytest.mark.parametrize("value", ["", "nonsense", "0.0.0.0", "hash"])
def test_14_a_router_id_can_always_be_told(value: str) -> None:
    text = node("a", "ipv6Address: 'fd00::1'")
    hashed = settings(text, env={"CALICO_ROUTER_ID": "hash"}).router_id
    assert settings(text, env={"CALICO_ROUTER_ID": value}).router_id == hashed
    assert bool(compiled(text, env={"CALICO_ROUTER_ID": value}).problems) is (value != "hash")


@pytest.mark.parametrize(
    ("operator", "accepted"),
    [("Equal", {24, 25, 26}), ("In", {24, 25, 26}), ("NotEqual", {16, 27}), ("NotIn", {16, 27})],
)
def test_15_prefix_length_decides_with_every_operator(operator: str, accepted: set[int]) -> None:
    rule = f"cidr: 10.1.0.0/16, matchOperator: {operator}, prefixLength: {{min: 24, max: 26}}, action: Accept"
    text = NO_MESH + A + peer("x", "peerIP: 192.0.2.1, asNumber: 65001, filters: [f]")
    text += f"kind: BGPFilter\nmetadata: {{name: f}}\nspec: {{exportV4: [{{{rule}}}]}}\n---\n"
    chain = chains(settings(text), "Global_192_0_2_1")[1]
    found = {n for n in (16, 24, 25, 26, 27) if run(chain, Route(f"10.1.0.0/{n}", SourceKind.KERNEL)).accepted}
    assert found == accepted


def test_17_ipv6_does_not_wait_for_ipv4() -> None:
    text = node("a", "ipv6Address: 'fd00::1'") + node("b", "ipv6Address: 'fd00::2'")
    assert list(peers(settings(text, env={"CALICO_ROUTER_ID": "hash"}))) == ["Mesh_fd00__2"]


def test_22_a_missing_filter_lets_nothing_pass() -> None:
    text = NO_MESH + A + POOL + peer("x", "peerIP: 192.0.2.1, asNumber: 65001, filters: [f]")
    for chain in chains(settings(text), "Global_192_0_2_1"):
        assert not run(chain, Route("10.244.2.0/26", SourceKind.EBGP)).accepted
    assert [(p.object, p.field, p.value) for p in compiled(text).problems] == [("BGPPeer/x", "spec.filters", "f")]


# --- what is kept


def test_4_the_passive_side_is_found_by_text() -> None:
    assert "10.0.0.9" > "10.0.0.10"
    assert peers(settings(A + B, "a"))["Mesh_10_0_0_9"].passive
    assert not peers(settings(A + B, "b"))["Mesh_10_0_0_10"].passive
    everywhere = NO_MESH + A + B + peer("x", "peerIP: 10.0.0.9, asNumber: 64512")
    assert peers(settings(everywhere, "a"))["Global_10_0_0_9"].passive
    for text in ("node: a, peerIP: 10.0.0.9, asNumber: 64512", "node: a, peerSelector: all()"):
        # Both sides of these dial.
        assert not peers(settings(NO_MESH + A + B + peer("x", text), "a"))["Node_10_0_0_9"].passive


def _service(spec: str, ingress: str = "") -> str:
    status = f"status: {{loadBalancer: {{ingress: [{{ip: {ingress}}}]}}}}\n" if ingress else ""
    text = f"apiVersion: v1\nkind: Service\nmetadata: {{name: s, namespace: n}}\nspec: {{{spec}}}\n{status}---\n"
    piece = "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: s-1, namespace: n, "
    return (
        text + piece + "labels: {kubernetes.io/service-name: s}}\naddressType: IPv4\nendpoints: [{nodeName: b}]\n---\n"
    )


def _announced(text: str) -> set[str]:
    return {format_prefix(route.family, route.key) for route in settings(text).static_routes}


def test_7_an_empty_policy_is_neither_cluster_nor_local() -> None:
    config = MESH % "serviceLoadBalancerIPs: [{cidr: 192.0.2.7/32}]"
    empty = "type: LoadBalancer, clusterIP: 10.96.0.20"
    assert _announced(config + A + _service(empty, "192.0.2.7")) == set()
    assert _announced(config + A + _service(empty + ", externalTrafficPolicy: Cluster", "192.0.2.7")) == {
        "192.0.2.7/32"
    }
    assert _announced(config + A + _service(empty + ", externalTrafficPolicy: Local", "192.0.2.7")) == set()


def test_9_one_decision_for_all_addresses_and_no_range_for_cluster_ips() -> None:
    config = MESH % "serviceExternalIPs: [{cidr: 203.0.113.7/32}], serviceClusterIPs: [{cidr: 10.112.0.0/12}]"
    spec = "type: ClusterIP, clusterIP: 10.96.0.20, externalIPs: [203.0.113.7], externalTrafficPolicy: Cluster"
    assert _announced(config + A + _service(spec)) == {"10.112.0.0/12", "10.96.0.20/32", "203.0.113.7/32"}


def test_16_every_path_is_offered_where_add_path_is_agreed() -> None:
    found = peers(settings(A + B + peer("x", "peerIP: 192.0.2.1, asNumber: 65001"))).values()
    assert {only_family(session).add_path for session in found} == {AddPath.BOTH}


def test_18_some_fields_do_not_count_for_some_peers() -> None:
    spec = "localASNumber: 65099, numAllowedLocalASNumbers: 3"
    text = NO_MESH + A + B + peer("x", f"peerSelector: all(), {spec}")
    session = peers(settings(text))["Global_10_0_0_9"]
    assert (session.local_asn, session.allow_local_as) == (None, 0)
    session = peers(settings(NO_MESH + A + peer("x", f"peerIP: 192.0.2.1, asNumber: 65001, {spec}")))[
        "Global_192_0_2_1"
    ]
    assert (session.local_asn, session.allow_local_as) == (65099, 3)
    pod = "localWorkloadSelector: all(), asNumber: 65009, keepaliveTime: 7s, maxRestartTime: 9s"
    secret = "password: {secretKeyRef: {name: none, key: none}}"
    found = compile(
        snapshot(NO_MESH + A + peer("x", f"{pod}, {secret}")), "a", {}, None, [Workload("w", "x", ("10.1.0.5",))]
    )
    assert found.settings is not None
    (session,) = found.settings.peers
    assert (session.password, session.disabled, session.keepalive_time, session.restart_time) == (None, "", None, 120)


def _for_kernel(text: str, route: Route) -> bool:
    return run(dict(settings(text).fib.chains)[IPV4_UNICAST], route).accepted


def test_19_what_lies_inside_a_service_range_stays_out_of_the_kernel() -> None:
    inside = Route("10.96.7.0/24", SourceKind.EBGP)
    assert not _for_kernel(MESH % "serviceClusterIPs: [{cidr: 10.96.0.0/12}]" + A, inside)
    assert _for_kernel(A, inside)


def test_20_disable_bgp_export_counts_for_services_inside_such_a_pool() -> None:
    config = MESH % "serviceClusterIPs: [{cidr: 10.96.0.0/12}]"
    for cidr, accepted in (("10.0.0.0/8", False), ("10.244.0.0/16", True)):
        pool = f"kind: IPPool\nmetadata: {{name: pods}}\nspec: {{cidr: {cidr}, disableBGPExport: true}}\n---\n"
        chain = chains(settings(config + A + B + pool), "Mesh_10_0_0_9")[1]
        assert run(chain, Route("10.96.0.0/12", SourceKind.STATIC)).accepted is accepted


def test_21_single_service_addresses_are_written_to_the_kernel() -> None:
    address = Route("192.0.2.7/32", SourceKind.STATIC)
    assert _for_kernel(MESH % "serviceLoadBalancerIPs: [{cidr: 192.0.2.7/32}]" + A, address)
    ranges = "serviceLoadBalancerIPs: [{cidr: 192.0.2.0/24}]"
    assert not _for_kernel(MESH % ranges + A, address)
    assert _for_kernel(MESH % f"{ranges}, serviceLoadBalancerAggregation: Disabled" + A, address)


def test_every_quirk_is_told_and_its_test_is_there() -> None:
    """The page has a row for each of the 22; the last column names its test, here or elsewhere."""
    root = Path(__file__).resolve().parents[2]
    rows = re.findall(r"^\| (\d+) \|.*\| ([^|]*) \|$", (root / "docs" / "quirks.md").read_text(), re.MULTILINE)
    assert [int(number) for number, _ in rows] == list(range(1, 23))
    for number, where in rows:
        if where.startswith("here"):
            assert any(name.startswith(f"test_{number}_") for name in globals())
        elif where != "none: it is calicoctl's":
            file, _, name = where.strip("`").partition("::")
            assert f"def {name}(" in (root / file).read_text(), where
