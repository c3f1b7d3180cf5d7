"""Habits of BIRD and confd that are fixed here: one test for each row of docs/quirks.md that concerns configuration."""

from __future__ import annotations

import pytest

from bgpd.family import format_prefix
from bgpd.policy.terms import SourceKind
from config.compile import compile
from config.parse import parse_resource
from config.problems import ResourceError
from config.snapshot import Put, Snapshot, StoreChange
from tests.unit.config_support import Route, compiled, only_family, peers, run, settings, snapshot

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
    chain = only_family(peers(settings(A + B + POOL + block))["Mesh_10_0_0_9"]).export_chain
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
    chain = only_family(peers(settings(text))["Global_192_0_2_1"]).export_chain
    found = {n for n in (16, 24, 25, 26, 27) if run(chain, Route(f"10.1.0.0/{n}", SourceKind.KERNEL)).accepted}
    assert found == accepted


def test_17_ipv6_does_not_wait_for_ipv4() -> None:
    text = node("a", "ipv6Address: 'fd00::1'") + node("b", "ipv6Address: 'fd00::2'")
    assert list(peers(settings(text, env={"CALICO_ROUTER_ID": "hash"}))) == ["Mesh_fd00__2"]


def test_22_a_missing_filter_lets_nothing_pass() -> None:
    text = NO_MESH + A + POOL + peer("x", "peerIP: 192.0.2.1, asNumber: 65001, filters: [f]")
    family = only_family(peers(settings(text))["Global_192_0_2_1"])
    for chain in (family.export_chain, family.import_chain):
        assert not run(chain, Route("10.244.2.0/26", SourceKind.EBGP)).accepted
    assert [(p.object, p.field, p.value) for p in compiled(text).problems] == [("BGPPeer/x", "spec.filters", "f")]
