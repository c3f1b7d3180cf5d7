"""Which sessions a node has, and with what parameters (calico-bgp.md §6)."""

from __future__ import annotations

import pytest

from bgpd.settings import NextHopMode, PeerSettings
from config.compile import compile
from config.parse_kubernetes import workload
from config.problems import Problem
from config.resources import Workload
from tests.unit.config_support import compiled, peers, settings, snapshot

DEFAULT = "kind: BGPConfiguration\nmetadata: {name: default}\nspec: {%s}\n---\n"


def node(name: str, v4: str = "", v6: str = "", more: str = "", labels: str = "") -> str:
    bgp = ", ".join(part for part in (v4 and f"ipv4Address: {v4}", v6 and f"ipv6Address: '{v6}'", more) if part)
    return f"kind: Node\nmetadata: {{name: {name}, labels: {{{labels}}}}}\nspec: {{bgp: {{{bgp}}}}}\n---\n"


def peer(name: str, spec: str) -> str:
    return f"kind: BGPPeer\nmetadata: {{name: {name}}}\nspec: {{{spec}}}\n---\n"


def secret(name: str, key: str, value: str, namespace: str = "kube-system") -> str:
    metadata = f"{{name: {name}, namespace: {namespace}}}" if namespace else f"{{name: {name}}}"
    return f"kind: Secret\nmetadata: {metadata}\nstringData: {{{key}: '{value}'}}\n---\n"


NO_MESH = DEFAULT % "nodeToNodeMeshEnabled: false"
A = node("a", "10.0.0.10/24", "fd00::a/64", labels="rack: one")
B = node("b", "10.0.0.9/24", "fd00::9/64", labels="rack: two, rr: 'true'")


def sessions(text: str, at: str = "a") -> dict[str, PeerSettings]:
    return peers(settings(text, at))


def told(text: str, at: str = "a") -> list[Problem]:
    return list(compiled(text, at).problems)


# --- mesh (6.2)


def test_mesh_has_one_session_per_family() -> None:
    found = sessions(A + B)
    assert list(found) == ["Mesh_10_0_0_9", "Mesh_fd00__9"]
    for session in found.values():
        assert (session.asn, session.local_asn, session.port, session.label) == (64512, None, 179, "node-to-node mesh")
        assert (
            not session.reflector_client and session.next_hop_mode is NextHopMode.AUTO and session.restart_time == 120
        )
        (family,) = session.families
        assert (":" in session.address) == (family.family.afi == 2)
    assert found["Mesh_10_0_0_9"].source_address == "10.0.0.10"
    assert found["Mesh_fd00__9"].source_address == "fd00::a"


def test_mesh_passive_side_is_found_by_text() -> None:
    # "10.0.0.9" > "10.0.0.10" as text: a waits, b dials.
    assert sessions(A + B)["Mesh_10_0_0_9"].passive
    assert not sessions(A + B, "b")["Mesh_10_0_0_10"].passive


def test_mesh_family_needs_both_addresses() -> None:
    assert list(sessions(A + node("b", "10.0.0.9/24"))) == ["Mesh_10_0_0_9"]
    assert list(sessions(node("a", v6="fd00::a") + B)) == ["Mesh_fd00__9"]
    assert sessions(node("a") + B) == {}


def test_mesh_ports_and_as_numbers() -> None:
    text = A + node("b", "10.0.0.9", more="asNumber: 65002") + node("c", "10.0.0.8")
    text += DEFAULT % "listenPort: 1790, nodeMeshMaxRestartTime: 90s"
    text += "kind: BGPConfiguration\nmetadata: {name: node.b}\nspec: {listenPort: 1791}\n"
    found = sessions(text)
    assert (found["Mesh_10_0_0_9"].port, found["Mesh_10_0_0_9"].asn) == (1791, 65002)
    assert (found["Mesh_10_0_0_8"].port, found["Mesh_10_0_0_8"].asn) == (1790, 64512)
    assert {session.restart_time for session in found.values()} == {90}


def test_mesh_peer_without_own_as_has_the_clusters_not_ours() -> None:
    # Calico configures our own number there, so that the session fails; see quirk 3.
    found = sessions(node("a", "10.0.0.10", more="asNumber: 65001") + B)
    assert found["Mesh_10_0_0_9"].asn == 64512


def test_mesh_is_off_by_configuration_and_for_reflectors() -> None:
    assert sessions(NO_MESH + A + B) == {}
    reflector = node("b", "10.0.0.9", more="routeReflectorClusterID: 244.0.0.1")
    assert sessions(A + reflector) == {}
    assert sessions(A + reflector, "b") == {}


def test_mesh_password_fails_closed() -> None:
    text = A + B + DEFAULT % "nodeMeshPassword: {secretKeyRef: {name: s, key: mesh}}"
    held = sessions(text)["Mesh_10_0_0_9"]
    assert held.password is None and held.disabled == "Secret s is not there (namespace kube-system)"
    (problem,) = told(text)
    assert (problem.object, problem.field) == ("BGPConfiguration/default", "spec.nodeMeshPassword")
    assert sessions(text + secret("s", "mesh", "pw"))["Mesh_10_0_0_9"].password == "pw"


def test_two_nodes_of_one_address_are_no_mesh_peers_of_each_other() -> None:
    assert sessions(node("a", "10.0.0.1") + node("b", "10.0.0.1")) == {}


# --- peerIP (6.3)


def test_global_peer_outside_the_cluster() -> None:
    found = sessions(NO_MESH + A + peer("tor", "peerIP: 10.0.0.1, asNumber: 65001"))
    session = found["Global_10_0_0_1"]
    assert (session.asn, session.port, session.passive, session.label) == (65001, 179, False, "BGPPeer tor")
    assert list(found) == ["Global_10_0_0_1"]


@pytest.mark.parametrize(
    ("spec", "at", "expected"),
    [
        ("node: a", "a", True),
        ("node: a", "b", False),
        ("node: nobody", "a", False),
        ("nodeSelector: rack == 'one'", "a", True),
        ("nodeSelector: rack == 'one'", "b", False),
    ],
)
def test_own_side(spec: str, at: str, expected: bool) -> None:
    found = sessions(NO_MESH + A + B + peer("tor", f"peerIP: 192.0.2.1, asNumber: 65001, {spec}"), at)
    assert list(found) == (["Node_192_0_2_1"] if expected else [])


def test_port_is_part_of_the_name() -> None:
    found = sessions(NO_MESH + A + peer("tor", "peerIP: '[fd00::1]:50', asNumber: 65001"))
    assert [(name, session.port) for name, session in found.items()] == [("Global_fd00__1_port_50", 50)]


def test_peer_ip_of_a_node_takes_its_port_and_side() -> None:
    text = NO_MESH + A + B + "kind: BGPConfiguration\nmetadata: {name: node.b}\nspec: {listenPort: 1790}\n---\n"
    text += peer("to-b", "peerIP: 10.0.0.9, asNumber: 64512")
    session = sessions(text)["Global_10_0_0_9_port_1790"]
    assert session.port == 1790 and session.passive
    # Another AS: the address alone still makes it a Calico node for the side, but not for the port.
    session = sessions(text.replace("asNumber: 64512", "asNumber: 65001"))["Global_10_0_0_9"]
    assert session.port == 179 and session.passive


def test_node_specific_sessions_are_never_passive() -> None:
    assert not sessions(NO_MESH + A + B + peer("x", "node: a, peerIP: 10.0.0.9, asNumber: 64512"))[
        "Node_10_0_0_9"
    ].passive


def test_missing_as_number_means_the_clusters_for_a_node_and_nothing_elsewhere() -> None:
    assert sessions(NO_MESH + A + B + peer("x", "peerIP: 10.0.0.9"))["Global_10_0_0_9"].asn == 64512
    text = NO_MESH + A + peer("bad", "peerIP: 192.0.2.1") + peer("good", "peerIP: 192.0.2.2, asNumber: 65001")
    assert list(sessions(text)) == ["Global_192_0_2_2"]
    (problem,) = told(text)
    assert (problem.object, problem.field) == ("BGPPeer/bad", "spec.asNumber")


def test_family_without_own_address_is_off() -> None:
    assert sessions(node("a", "10.0.0.10") + peer("x", "peerIP: 'fd00::1', asNumber: 65001")) == {}


def test_peer_that_is_the_node_itself() -> None:
    text = NO_MESH + A + peer("me", "node: a, peerIP: 10.0.0.10, asNumber: 64512")
    assert sessions(text) == {}
    assert [(problem.object, problem.field) for problem in told(text)] == [("BGPPeer/me", "spec.peerIP")]
    # An all-nodes peering to one of the nodes leaves that node out, which is no fault.
    text = NO_MESH + A + B + peer("rr", "peerIP: 10.0.0.10, asNumber: 64512, reversePeering: Manual")
    assert sessions(text) == {} and told(text) == []


# --- peerSelector and reverse peering (6.4, 6.5)

RR = node("b", "10.0.0.9", "fd00::9", "routeReflectorClusterID: 244.0.0.1", "rr: 'true'")


def test_reflectors_by_selector() -> None:
    text = NO_MESH + A + RR + node("c", "10.0.0.8") + peer("rrs", "nodeSelector: all(), peerSelector: rr == 'true'")
    assert list(sessions(text)) == ["Node_10_0_0_9", "Node_fd00__9"]
    reverse = sessions(text, "b")
    assert sorted(reverse) == ["Node_10_0_0_10", "Node_10_0_0_8", "Node_fd00__a"]
    for session in reverse.values():
        assert session.reflector_client and session.cluster_id == "244.0.0.1" and session.asn == 64512
    assert settings(text, "b").cluster_id == "244.0.0.1"
    assert not any(session.reflector_client for session in sessions(text).values())
    assert not any(session.passive for session in (*sessions(text).values(), *reverse.values()))


def test_reverse_of_peer_ip_has_its_family_only() -> None:
    text = (
        NO_MESH + A + RR + peer("rr", "nodeSelector: rack == 'one', peerIP: 10.0.0.9, asNumber: 64512, ttlSecurity: 1")
    )
    assert list(sessions(text)) == ["Node_10_0_0_9"]
    reverse = sessions(text, "b")
    assert list(reverse) == ["Node_10_0_0_10"]
    assert reverse["Node_10_0_0_10"].ttl_security_hops == 1


def test_reverse_needs_the_as_of_the_node() -> None:
    assert sessions(NO_MESH + A + RR + peer("rr", "node: a, peerIP: 10.0.0.9, asNumber: 65009"), "b") == {}


def test_reverse_can_be_switched_off() -> None:
    text = NO_MESH + A + RR + peer("rr", "node: a, peerSelector: rr == 'true', reversePeering: Manual")
    assert list(sessions(text)) == ["Node_10_0_0_9", "Node_fd00__9"]
    assert sessions(text, "b") == {}


def test_port_matched_peer_ip_uses_the_nodes_own_port() -> None:
    # Calico refuses the match where the default port is set and differs; see quirk 5.
    text = A + RR + DEFAULT % "nodeToNodeMeshEnabled: false, listenPort: 179"
    text += "kind: BGPConfiguration\nmetadata: {name: node.b}\nspec: {listenPort: 1790}\n---\n"
    text += peer("rr", "node: a, peerIP: '10.0.0.9:1790', asNumber: 64512")
    assert list(sessions(text, "b")) == ["Node_10_0_0_10_port_179"]


def test_local_as_is_for_peer_ip_only() -> None:
    options = "localASNumber: 65100, numAllowedLocalASNumbers: 2"
    by_ip = sessions(NO_MESH + A + peer("x", f"peerIP: 192.0.2.1, asNumber: 65001, {options}"))["Global_192_0_2_1"]
    assert (by_ip.local_asn, by_ip.allow_local_as) == (65100, 2)
    selected = sessions(NO_MESH + A + B + peer("x", f"peerSelector: rack == 'two', {options}"))["Global_10_0_0_9"]
    assert (selected.local_asn, selected.allow_local_as) == (None, 0)


# --- precedence and contradictions (6.5)


def test_first_by_name_wins_and_the_other_is_told() -> None:
    text = NO_MESH + A + peer("second", "peerIP: 192.0.2.1, asNumber: 65002")
    text += peer("first", "peerIP: '192.0.2.1:179', asNumber: 65001")
    assert [session.asn for session in sessions(text).values()] == [65001]
    (problem,) = told(text)
    assert problem.object == "BGPPeer/second" and "first" in problem.text and not problem.refused


def test_all_nodes_session_wins_over_a_nodes_own() -> None:
    text = NO_MESH + A + peer("a", "node: a, peerIP: 192.0.2.1, asNumber: 65001")
    text += peer("b", "peerIP: 192.0.2.1, asNumber: 65002")
    assert list(sessions(text)) == ["Global_192_0_2_1"]


def test_two_ports_of_one_address_are_two_sessions() -> None:
    text = (
        NO_MESH
        + A
        + peer("x", "peerIP: 192.0.2.1, asNumber: 65001")
        + peer("y", "peerIP: '192.0.2.1:1790', asNumber: 65001")
    )
    found = sessions(text)
    assert [(name, s.port, s.disabled) for name, s in found.items()] == [
        ("Global_192_0_2_1", 179, ""),
        ("Global_192_0_2_1_port_1790", 1790, ""),
    ]
    assert told(text) == []


@pytest.mark.parametrize("extra", ["ttlSecurity: 1", "password: {secretKeyRef: {name: s, key: k}}"])
def test_ports_of_one_address_must_agree_on_what_the_kernel_checks(extra: str) -> None:
    text = NO_MESH + A + secret("s", "k", "pw") + peer("x", "peerIP: 192.0.2.1, asNumber: 65001")
    text += peer("y", f"peerIP: '192.0.2.1:1790', asNumber: 65001, {extra}")
    found = sessions(text)
    assert not found["Global_192_0_2_1"].disabled
    assert "another password or another ttlSecurity" in found["Global_192_0_2_1_port_1790"].disabled
    assert [problem.object for problem in told(text)] == ["BGPPeer/y"]


def test_explicit_session_takes_the_place_of_the_mesh() -> None:
    text = A + node("b", "10.0.0.9") + peer("x", "peerIP: 10.0.0.9, asNumber: 64512, ttlSecurity: 1")
    assert [(name, s.ttl_security_hops, s.disabled) for name, s in sessions(text).items()] == [
        ("Global_10_0_0_9", 1, ""),
        ("Mesh_10_0_0_9", None, "session Global_10_0_0_9 is to the same address and port"),
    ]
    assert told(text) == []


# --- parameters (6.6, 6.9)


def test_parameters_of_an_explicit_session() -> None:
    spec = "sourceAddress: None, maxRestartTime: 60s, keepaliveTime: 10s, ttlSecurity: 3, nextHopMode: Self"
    session = sessions(NO_MESH + A + peer("x", f"peerIP: 192.0.2.1, asNumber: 65001, {spec}"))["Global_192_0_2_1"]
    assert (session.source_address, session.restart_time, session.keepalive_time) == (None, 60, 10)
    assert (session.ttl_security_hops, session.next_hop_mode, session.hold_time) == (3, NextHopMode.SELF, 240)
    assert session.graceful_restart


@pytest.mark.parametrize(
    ("spec", "mode"),
    [
        ("asNumber: 65001, keepOriginalNextHop: true", NextHopMode.KEEP),
        # Only eBGP sessions keep it, unless nextHopMode says so.
        ("asNumber: 64512, keepOriginalNextHop: true", NextHopMode.AUTO),
        ("asNumber: 64512, nextHopMode: Keep", NextHopMode.KEEP),
        ("asNumber: 65001, nextHopMode: Auto", NextHopMode.AUTO),
        # localASNumber decides what is eBGP.
        ("asNumber: 65001, localASNumber: 65001, keepOriginalNextHop: true", NextHopMode.AUTO),
    ],
)
def test_next_hop_mode(spec: str, mode: NextHopMode) -> None:
    assert sessions(NO_MESH + A + peer("x", f"peerIP: 192.0.2.1, {spec}"))["Global_192_0_2_1"].next_hop_mode is mode


@pytest.mark.parametrize(
    ("ours", "theirs", "client"),
    [
        ("244.0.0.1", "", True),
        ("244.0.0.1", "244.0.0.1", False),
        ("244.0.0.1", "244.0.0.2", True),
        ("", "244.0.0.1", False),
    ],
)
def test_reflector_client(ours: str, theirs: str, client: bool) -> None:
    def cluster(value: str) -> str:
        return f"routeReflectorClusterID: {value}" if value else ""

    text = (
        NO_MESH
        + node("a", "10.0.0.10", more=cluster(ours))
        + node("b", "10.0.0.9", more=cluster(theirs), labels="x: y")
    )
    session = sessions(text + peer("x", "node: a, peerSelector: has(x)"))["Node_10_0_0_9"]
    assert (session.reflector_client, session.cluster_id) == (client, ours if client else None)
    # BIRD looks for the own cluster id in what clients send, and nowhere else (6.6).
    assert session.allow_own_cluster is not client


def test_reflector_clients_by_address() -> None:
    text = NO_MESH + node("a", "10.0.0.10", more="routeReflectorClusterID: 244.0.0.1")
    text += node("b", "10.0.0.9", more="routeReflectorClusterID: 244.0.0.1")
    # The cluster id of a peer given by address counts as unknown; an eBGP peer is never a client.
    text += peer("x", "node: a, peerIP: 10.0.0.9, asNumber: 64512") + peer(
        "y", "node: a, peerIP: 192.0.2.1, asNumber: 65001"
    )
    found = sessions(text)
    assert found["Node_10_0_0_9"].reflector_client and not found["Node_192_0_2_1"].reflector_client


@pytest.mark.parametrize(
    ("secrets", "password"),
    [
        (secret("s", "k", "pw"), "pw"),
        (secret("s", "k", "pw", ""), "pw"),
        (secret("s", "k", "x" * 80), "x" * 80),
        ("", None),
        (secret("s", "other", "pw"), None),
        (secret("s", "k", ""), None),
        (secret("s", "k", "x" * 81), None),
        (secret("s", "k", "pw", "elsewhere"), None),
    ],
)
def test_password(secrets: str, password: str | None) -> None:
    text = NO_MESH + A + peer("x", "peerIP: 192.0.2.1, asNumber: 65001, password: {secretKeyRef: {name: s, key: k}}")
    text += peer("y", "peerIP: 192.0.2.2, asNumber: 65001") + secrets
    found = sessions(text)
    assert "Global_192_0_2_2" in found
    if password is None:
        # Never a session without the password that was asked for.
        held = found["Global_192_0_2_1"]
        assert held.disabled.startswith(("Secret s ", "key k of Secret s ")) and held.password is None
        assert [(problem.object, problem.field) for problem in told(text)] == [("BGPPeer/x", "spec.password")]
    else:
        assert found["Global_192_0_2_1"].password == password and told(text) == []


def test_secrets_come_from_the_speakers_namespace() -> None:
    text = NO_MESH + A + secret("s", "k", "pw", "calico-system")
    text += peer("x", "peerIP: 192.0.2.1, asNumber: 65001, password: {secretKeyRef: {name: s, key: k}}")
    assert peers(settings(text, env={"NAMESPACE": "calico-system"}))["Global_192_0_2_1"].password == "pw"


# --- local workload peers (6.7)


def workloads(*, peer: str = "pods", v6: str = "fd00:10::5/128") -> list[Workload]:
    nets = {"ipv4Nets": ["10.244.1.5/32", "10.244.1.6/32"], "ipv6Nets": [v6] if v6 else []}
    return [
        workload("pod1", {"ifaceName": "cali1", "bgpPeerName": peer, **nets}),
        workload("pod2", {"ifaceName": "cali2", "ipv4Nets": ["10.244.1.7/32"]}),
    ]


def local(text: str, pods: list[Workload], node: str = "a") -> dict[str, PeerSettings]:
    found = compile(snapshot(text), node, {}, None, pods).settings
    assert found is not None
    return peers(found)


PODS = peer("pods", "localWorkloadSelector: all(), asNumber: 65001, localASNumber: 65000, filters: [f]")


def test_local_workload_peers() -> None:
    text = NO_MESH + node("a", "10.0.0.10", "fd00::a") + PODS + "kind: BGPFilter\nmetadata: {name: f}\n---\n"
    found = local(text, workloads())
    assert list(found) == ["Local_Workload_10_244_1_5", "Local_Workload_fd00_10__5"]
    for session in found.values():
        assert (session.passive, session.source_address, session.asn, session.local_asn) == (True, None, 65001, 65000)
        assert session.label == "BGPPeer pods" and not session.disabled
    assert compile(snapshot(text), "a", {}, None, workloads()).problems == ()


def test_local_workload_peers_of_other_peerings_nodes_and_families() -> None:
    text = NO_MESH + A + node("b", "10.0.0.9") + PODS.replace("localWork", "node: b, localWork")
    assert local(text, workloads()) == {}
    # Without an IPv6 address the node has no IPv6 sessions.
    assert list(local(text, workloads(), "b")) == ["Local_Workload_10_244_1_5"]
    assert local(text, workloads(peer="other"), "b") == {}


def test_local_workload_peers_take_little_of_their_peering() -> None:
    more = "password: {secretKeyRef: {name: s, key: k}}, maxRestartTime: 7s, keepaliveTime: 7s, nextHopMode: Self"
    text = NO_MESH + A + PODS.replace("asNumber", f"{more}, ttlSecurity: 1, asNumber", 1)
    session = local(text, workloads())["Local_Workload_10_244_1_5"]
    assert (session.password, session.disabled, session.restart_time, session.keepalive_time) == (None, "", 120, None)
    assert session.next_hop_mode is NextHopMode.AUTO and session.ttl_security_hops is None


@pytest.mark.parametrize("asn", [64512, 65001])
def test_local_workload_peers_of_a_reflector_are_its_clients(asn: int) -> None:
    text = NO_MESH + node("a", "10.0.0.10", more="routeReflectorClusterID: 244.0.0.1")
    session = local(text + peer("pods", f"localWorkloadSelector: all(), asNumber: {asn}"), workloads())
    (found,) = session.values()
    internal = asn == 64512
    assert (found.reflector_client, found.cluster_id) == (internal, "244.0.0.1" if internal else None)


def test_local_workload_peer_is_the_address_part_of_its_net() -> None:
    pods = [workload("pod1", {"bgpPeerName": "pods", "ipv4Nets": ["10.244.1.5/26"], "ipv6Nets": ["FD00:10:0::5/122"]})]
    text = NO_MESH + node("a", "10.0.0.10", "fd00::a") + PODS
    assert [session.address for session in local(text, pods).values()] == ["10.244.1.5", "fd00:10::5"]


def test_paths_of_route_servers_are_taken_as_bird_takes_them() -> None:
    text = node("a", "10.0.0.10") + node("b", "10.0.0.9", more="asNumber: 65002")
    text += peer("rs", "peerIP: 192.0.2.1, asNumber: 65001") + peer("pods", "localWorkloadSelector: all(), asNumber: 1")
    found = local(text, workloads(v6=""))
    assert len(found) == 3 and not any(session.enforce_first_as for session in found.values())
