"""Export, import and kernel decisions (calico-bgp.md §4, §7.4, §7.5, §8.1 to §8.3, and the worked examples of §14)."""

from __future__ import annotations

import pytest
from attrs import evolve

from bgpd.family import IPV4_UNICAST, IPV6_UNICAST, Family, parse_address
from bgpd.policy.terms import SourceKind
from config.chains import MAXIMUM
from tests.unit.config_support import Outcome, Route, chains, compiled, run, settings

BASE = """
kind: Node
metadata: {name: a}
spec: {bgp: {ipv4Address: 10.0.0.10/24}}
---
kind: Node
metadata: {name: b, labels: {rr: 'true'}}
spec: {bgp: {ipv4Address: 10.0.0.9/24}}
---
kind: BlockAffinity
metadata: {name: a-1}
spec: {node: a, cidr: 10.244.1.0/26, state: confirmed}
---
kind: BlockAffinity
metadata: {name: b-1}
spec: {node: b, cidr: 10.244.2.0/26, state: confirmed}
---
kind: BGPPeer
metadata: {name: tor}
spec: {peerIP: 10.0.0.1, asNumber: 65001}
---
"""
POOL = "kind: IPPool\nmetadata: {name: pods}\nspec: {cidr: 10.244.0.0/16}\n---\n"
CONFIG = "kind: BGPConfiguration\nmetadata: {name: default}\nspec: {%s}\n---\n"
CLUSTER = BASE + POOL
NORMAL = MAXIMUM - 1024
MESH, TOR = "Mesh_10_0_0_9", "Global_10_0_0_1"

BLOCK = Route("10.244.1.0/26", SourceKind.STATIC)
POD = Route("10.244.1.5/32", SourceKind.KERNEL, "cali123", 1024)
LEARNED = Route("10.244.2.0/26", SourceKind.IBGP, "eth0", local_pref=NORMAL, next_hop=parse_address("10.0.0.9"))


def export(text: str, route: Route, peer: str = MESH, at: str = "a") -> Outcome:
    return run(chains(settings(text, at), peer)[1], route)


def import_(text: str, route: Route, peer: str = MESH) -> Outcome:
    return run(chains(settings(text), peer)[0], route)


def kernel(text: str, route: Route, family: Family = IPV4_UNICAST) -> Outcome:
    return run(dict(settings(text).fib.chains)[family], route)


# --- export (7.4)


@pytest.mark.parametrize("peer", [MESH, TOR])
def test_own_block_goes_out_and_covers_its_addresses(peer: str) -> None:
    outcome = export(CLUSTER, BLOCK, peer)
    assert outcome.accepted and outcome.route.local_pref == 2147482623
    assert not export(CLUSTER, POD, peer).accepted
    assert not export(CLUSTER, Route("10.244.1.0/27", SourceKind.KERNEL, metric=1024), peer).accepted


def test_elevated_address_of_an_own_block_goes_out() -> None:
    outcome = export(CLUSTER, evolve(POD, metric=512))
    assert outcome.accepted and outcome.route.local_pref == 2147483135
    assert not export(CLUSTER, evolve(POD, metric=1024)).accepted


def test_priority_of_learned_routes_follows_local_pref() -> None:
    learned = evolve(LEARNED, prefix="10.244.1.5/32")
    assert not export(CLUSTER, learned, TOR).accepted
    assert export(CLUSTER, evolve(learned, local_pref=MAXIMUM - 512), TOR).accepted
    # Beyond the range of priorities BIRD's subtraction wraps to the lowest one.
    assert not export(CLUSTER, evolve(learned, local_pref=MAXIMUM + 1), TOR).accepted


def test_borrowed_address_goes_out() -> None:
    assert export(CLUSTER, evolve(POD, prefix="10.244.2.7/32")).accepted


@pytest.mark.parametrize(
    "route",
    [
        Route("0.0.0.0/0", SourceKind.KERNEL, "eth0", 100),
        Route("10.0.0.0/24", SourceKind.DIRECT, "eth0"),
        Route("10.0.0.0/8", SourceKind.STATIC),
        Route("172.16.0.0/12", SourceKind.EBGP, "eth0"),
    ],
)
def test_outside_the_pools_nothing_goes_out(route: Route) -> None:
    assert not export(CLUSTER, route).accepted
    assert export(CLUSTER, route).label.startswith("outside every IPPool")


def test_learned_blocks_go_to_the_tor() -> None:
    assert export(CLUSTER, LEARNED, TOR).accepted


def test_disabled_pool_hides_everything_in_it() -> None:
    hidden = BASE + POOL.replace("16}", "16, disableBGPExport: true}")
    for route in (BLOCK, LEARNED, evolve(POD, metric=512)):
        assert not export(hidden, route, TOR).accepted
    # It wins over an enabled pool around it, whatever the names.
    small = "kind: IPPool\nmetadata: {name: zz}\nspec: {cidr: 10.244.2.0/24, disableBGPExport: true}\n---\n"
    assert not export(CLUSTER + small, LEARNED, TOR).accepted
    assert export(CLUSTER + small, BLOCK, TOR).accepted


@pytest.mark.parametrize(
    ("interface", "to_mesh", "to_tor"),
    [
        ("vxlan.calico", False, True),
        ("wireguard.cali", False, True),
        ("tunl0", False, True),
        ("bpfout.cali", False, False),
        ("eth0", True, True),
        ("", True, True),
    ],
)
def test_felix_tunnel_routes_stay_off_ibgp(interface: str, to_mesh: bool, to_tor: bool) -> None:
    route = Route("10.244.2.0/26", SourceKind.KERNEL, interface, 1024)
    assert export(CLUSTER, route).accepted is to_mesh
    assert export(CLUSTER, route, TOR).accepted is to_tor


def test_tunl0_is_ours_where_we_program_ipip() -> None:
    route = Route("10.244.2.0/26", SourceKind.KERNEL, "tunl0", 1024)
    for value, accepted in (
        ("Enabled", True),
        ("EnabledIPIPOnly", True),
        ("EnabledNoEncapOnly", False),
        ("Disabled", False),
    ):
        assert export(CLUSTER + CONFIG % f"programClusterRoutes: {value}", route).accepted is accepted


@pytest.mark.parametrize(
    ("state", "blackhole", "covers"),
    [("pending", False, False), ("''", True, True), ("confirmed", True, True), ("pendingDeletion", True, True)],
)
def test_affinity_states(state: str, blackhole: bool, covers: bool) -> None:
    # pendingDeletion keeps covering its addresses; Calico lets them leak (quirk 11).
    text = CLUSTER.replace("cidr: 10.244.1.0/26, state: confirmed", f"cidr: 10.244.1.0/26, state: {state}")
    assert bool(settings(text).static_routes) is blackhole
    assert export(text, POD).accepted is not covers


def test_block_of_one_address_has_no_blackhole_but_goes_out() -> None:
    text = CLUSTER.replace("10.244.1.0/26", "10.244.1.5/32")
    assert settings(text).static_routes == ()
    assert export(text, POD).accepted


def test_normal_priority_is_configurable_per_family() -> None:
    text = CLUSTER + CONFIG % "ipv4NormalRoutePriority: 100"
    assert export(text, BLOCK).route.local_pref == MAXIMUM - 100
    assert not export(text, evolve(POD, metric=512)).accepted
    assert export(text, evolve(POD, metric=99)).accepted


def test_prefix_advertisements_add_communities() -> None:
    text = CLUSTER + CONFIG % (
        "communities: [{name: pods, value: '64512:100'}],"
        " prefixAdvertisements: [{cidr: 10.244.0.0/16, communities: [pods, '64512:7:9']},"
        " {cidr: 10.244.1.0/24, communities: ['1:2']}]"
    )
    assert export(text, BLOCK).route.communities == (64512 << 16 | 100, (64512, 7, 9), 1 << 16 | 2)
    assert export(text, LEARNED, TOR).route.communities == (64512 << 16 | 100, (64512, 7, 9))
    # A node's own list replaces the default's as a whole, also where it is empty.
    own = "kind: BGPConfiguration\nmetadata: {name: node.a}\nspec: {prefixAdvertisements: %s}\n---\n"
    assert export(text + own % "[{cidr: 10.244.1.0/24, communities: ['3:4']}]", BLOCK).route.communities == (
        3 << 16 | 4,
    )
    assert export(text + own % "[]", BLOCK).route.communities == ()


# --- services as whole ranges (7.6, 8.2 rule 1)

SERVICES = CONFIG % (
    "serviceClusterIPs: [{cidr: 10.96.0.0/12}], serviceExternalIPs: [{cidr: 203.0.113.7/32}],"
    " serviceLoadBalancerIPs: [{cidr: 198.51.100.0/24}]"
)


def test_service_ranges_are_originated_announced_and_kept_from_the_kernel() -> None:
    labels = {route.label for route in settings(CLUSTER + SERVICES).static_routes}
    assert labels == {"own block 10.244.1.0/26", "service range 10.96.0.0/12", "service range 198.51.100.0/24"}
    service = Route("10.96.0.0/12", SourceKind.STATIC)
    assert export(CLUSTER + SERVICES, service).accepted
    assert not kernel(CLUSTER + SERVICES, service).accepted
    # A range of one address belongs to single services only.
    assert not export(CLUSTER + SERVICES, Route("203.0.113.7/32", SourceKind.STATIC)).accepted


def test_aggregation_can_be_off() -> None:
    text = CLUSTER + SERVICES.replace("spec: {", "spec: {serviceLoadBalancerAggregation: Disabled, ")
    assert not export(text, Route("198.51.100.0/24", SourceKind.STATIC)).accepted


def test_excluded_node_keeps_the_kernel_rule_only() -> None:
    label = "labels: {node.kubernetes.io/exclude-from-external-load-balancers: 'true'}"
    text = (CLUSTER + SERVICES).replace("{name: a}", f"{{name: a, {label}}}")
    service = Route("10.96.0.0/12", SourceKind.STATIC)
    assert [route.label for route in settings(text).static_routes] == ["own block 10.244.1.0/26"]
    assert not export(text, service).accepted and not kernel(text, service).accepted


def test_environment_replaces_cluster_ips() -> None:
    env = {"CALICO_ADVERTISE_CLUSTER_IPS": "10.112.0.0/12"}
    found = settings(CLUSTER + SERVICES, env=env)
    assert "service range 10.112.0.0/12" in {route.label for route in found.static_routes}
    assert "service range 10.96.0.0/12" not in {route.label for route in found.static_routes}
    bad = compiled(CLUSTER + SERVICES, env={"CALICO_ADVERTISE_CLUSTER_IPS": "all"})
    assert [problem.field for problem in bad.problems] == ["CALICO_ADVERTISE_CLUSTER_IPS"]


def test_reflector_passes_service_ranges_on() -> None:
    text = CLUSTER.replace("ipv4Address: 10.0.0.10/24", "ipv4Address: 10.0.0.10/24, routeReflectorClusterID: 244.0.0.1")
    text += CONFIG % "serviceExternalIPs: [{cidr: 203.0.113.7/32}]"
    route = Route("203.0.113.7/32", SourceKind.IBGP_CLIENT, "eth0")
    assert export(text, route, TOR).accepted
    plain = CLUSTER + CONFIG % "serviceExternalIPs: [{cidr: 203.0.113.7/32}]"
    assert not export(plain, route, TOR).accepted


# --- import (8.1)


@pytest.mark.parametrize(
    ("local_pref", "preference"),
    [(None, 0), (100, 0), (NORMAL, 0), (NORMAL + 1, 200), (MAXIMUM - 512, 200), (2**32 - 1, 200)],
)
def test_everything_is_imported_and_elevated_priority_preferred(local_pref: int | None, preference: int) -> None:
    for prefix in ("0.0.0.0/0", "10.244.1.0/26", "192.0.2.0/24"):
        outcome = import_(CLUSTER, Route(prefix, SourceKind.IBGP, local_pref=local_pref))
        assert outcome.accepted and outcome.route.preference == preference


# --- kernel (8.2, 8.3)


def test_kernel_takes_learned_and_static_routes_only() -> None:
    assert kernel(CLUSTER, LEARNED).accepted and kernel(CLUSTER, BLOCK).accepted
    assert kernel(CLUSTER, Route("0.0.0.0/0", SourceKind.EBGP, "eth0")).accepted
    assert not kernel(CLUSTER, POD).accepted
    assert not kernel(CLUSTER, Route("10.0.0.0/24", SourceKind.DIRECT, "eth0")).accepted


@pytest.mark.parametrize(
    "mode", ["ipipMode: Always", "ipipMode: CrossSubnet", "vxlanMode: Always", "vxlanMode: CrossSubnet"]
)
def test_encapsulated_pools_are_felix_s(mode: str) -> None:
    text = BASE + POOL.replace("16}", f"16, {mode}}}")
    assert not kernel(text, LEARNED).accepted and not kernel(text, BLOCK).accepted
    assert kernel(text, Route("0.0.0.0/0", SourceKind.EBGP, "eth0")).accepted
    assert export(text, BLOCK).accepted


@pytest.mark.parametrize(
    ("value", "accepted"),
    [("Enabled", True), ("EnabledNoEncapOnly", True), ("Disabled", False), ("EnabledIPIPOnly", False)],
)
def test_program_cluster_routes(value: str, accepted: bool) -> None:
    assert kernel(CLUSTER + CONFIG % f"programClusterRoutes: {value}", LEARNED).accepted is accepted


@pytest.mark.parametrize("value", ["Enabled", "EnabledIPIPOnly"])
@pytest.mark.parametrize(
    ("mode", "next_hop", "tunnel"),
    [
        ("Always", "10.0.0.9", "tunl0"),
        ("Always", "192.0.2.9", "tunl0"),
        ("CrossSubnet", "10.0.0.9", ""),
        ("CrossSubnet", "192.0.2.9", "tunl0"),
    ],
)
def test_ipip_routes_go_through_the_tunnel(value: str, mode: str, next_hop: str, tunnel: str) -> None:
    text = BASE + POOL.replace("16}", f"16, ipipMode: {mode}}}") + CONFIG % f"programClusterRoutes: {value}"
    outcome = kernel(text, evolve(LEARNED, next_hop=parse_address(next_hop)))
    assert outcome.accepted and outcome.route.tunnel == tunnel
    assert compiled(text).problems == ()


def test_first_pool_by_text_decides() -> None:
    inner = "kind: IPPool\nmetadata: {name: aa}\nspec: {cidr: 10.244.2.0/24, vxlanMode: Always}\n---\n"
    # "10.244.0.0/16" comes before "10.244.2.0/24" as text.
    assert kernel(CLUSTER + inner, LEARNED).accepted


def test_without_a_v4_network_pools_do_not_count() -> None:
    text = (BASE + POOL.replace("16}", "16, vxlanMode: Always}")).replace(
        "ipv4Address: 10.0.0.10/24", "ipv6Address: 'fd00::a'"
    )
    assert kernel(text, LEARNED).accepted


def test_wireguard_peers_are_felix_s() -> None:
    text = CLUSTER
    for address in ("10.0.0.10/24", "10.0.0.9/24"):
        guard = f"ipv4Address: {address}}}, wireguard: {{interfaceIPv4Address: 10.244.9.{address[7]}}}"
        text = text.replace(f"ipv4Address: {address}}}", guard)
    assert not kernel(text, LEARNED).accepted
    assert kernel(text, evolve(LEARNED, next_hop=parse_address("10.0.0.8"))).accepted
    assert kernel(CLUSTER, LEARNED).accepted


def test_families_are_apart() -> None:
    text = CLUSTER + "kind: IPPool\nmetadata: {name: v6}\nspec: {cidr: 'fd00:10::/64', vxlanMode: Always}\n---\n"
    assert not kernel(text, Route("fd00:10::/122", SourceKind.IBGP), IPV6_UNICAST).accepted
    assert kernel(text, LEARNED).accepted


# --- BGPFilter (§4)


def filtered(rules: str, names: str = "[f]", direction: str = "exportV4") -> str:
    text = CLUSTER.replace("asNumber: 65001", f"asNumber: 65001, filters: {names}")
    return text + f"kind: BGPFilter\nmetadata: {{name: f}}\nspec: {{{direction}: {rules}}}\n---\n"


def test_first_rule_that_holds_decides_everything() -> None:
    text = filtered("[{interface: lo, action: Accept}, {cidr: 10.244.1.0/26, matchOperator: Equal, action: Reject}]")
    assert export(text, Route("192.0.2.1/32", SourceKind.DIRECT, "lo"), TOR).accepted
    outcome = export(text, BLOCK, TOR)
    assert not outcome.accepted and outcome.label == "BGPFilter f, exportV4 rule 2"
    # No rule holds: the built-in policy decides. And the mesh takes no filters.
    assert export(text, LEARNED, TOR).accepted
    assert export(text, BLOCK, MESH).accepted


@pytest.mark.parametrize(
    ("condition", "matching", "other"),
    [
        ("cidr: 10.244.0.0/16, matchOperator: In", "10.244.2.0/26", "10.245.0.0/26"),
        ("cidr: 10.244.0.0/16, matchOperator: In", "10.244.0.0/16", "10.0.0.0/8"),
        ("cidr: 10.244.0.0/16, matchOperator: NotIn", "10.245.0.0/26", "10.244.2.0/26"),
        ("cidr: 10.244.2.0/26, matchOperator: Equal", "10.244.2.0/26", "10.244.2.0/27"),
        ("cidr: 10.244.2.0/26, matchOperator: NotEqual", "10.244.2.0/27", "10.244.2.0/26"),
        ("cidr: 10.244.0.0/16, matchOperator: In, prefixLength: {min: 24, max: 28}", "10.244.2.0/26", "10.244.2.7/32"),
        ("cidr: 10.244.0.0/16, matchOperator: In, prefixLength: {min: 24}", "10.244.2.7/32", "10.244.0.0/16"),
        ("cidr: 10.244.0.0/16, matchOperator: In, prefixLength: {max: 20}", "10.244.0.0/16", "10.244.2.0/26"),
        (
            "cidr: 10.244.0.0/16, matchOperator: NotIn, prefixLength: {min: 24, max: 28}",
            "10.244.2.7/32",
            "10.244.2.0/26",
        ),
        # The range counts with Equal and NotEqual too (BIRD: never and always; quirk 15).
        (
            "cidr: 10.244.0.0/16, matchOperator: Equal, prefixLength: {min: 26, max: 26}",
            "10.244.2.0/26",
            "10.244.2.0/27",
        ),
        (
            "cidr: 10.244.0.0/16, matchOperator: NotEqual, prefixLength: {min: 26, max: 26}",
            "10.244.2.0/27",
            "10.244.2.0/26",
        ),
    ],
)
def test_prefix_conditions(condition: str, matching: str, other: str) -> None:
    text = filtered(f"[{{{condition}, action: Accept}}, {{action: Reject}}]")
    assert export(text, evolve(LEARNED, prefix=matching), TOR).accepted
    assert not export(text, evolve(LEARNED, prefix=other), TOR).accepted


@pytest.mark.parametrize(
    ("condition", "matching", "other"),
    [
        ("source: RemotePeers", LEARNED, BLOCK),
        ("interface: 'eth*'", LEARNED, BLOCK),
        ("interface: eth0", LEARNED, evolve(LEARNED, interface="eth01")),
        ("communities: {values: ['1:2']}", evolve(LEARNED, communities=(65538,)), LEARNED),
        ("communities: {values: ['1:2:3']}", evolve(LEARNED, communities=((1, 2, 3),)), LEARNED),
        ("asPathPrefix: [64512, 65002]", evolve(LEARNED, as_path=(64512, 65002, 1)), evolve(LEARNED, as_path=(64512,))),
        ("priority: 1024", BLOCK, evolve(LEARNED, local_pref=100)),
        ("priority: 512", evolve(POD, metric=512), POD),
        ("peerType: eBGP", LEARNED, None),
        ("peerType: iBGP", None, LEARNED),
        ("source: RemotePeers, interface: eth0", LEARNED, evolve(LEARNED, interface="eth1")),
    ],
)
def test_conditions(condition: str, matching: Route | None, other: Route | None) -> None:
    text = filtered(f"[{{{condition}, action: Accept}}, {{action: Reject}}]")
    assert matching is None or export(text, matching, TOR).accepted
    assert other is None or not export(text, other, TOR).accepted


def test_source_is_always_true_on_import() -> None:
    text = filtered("[{source: RemotePeers, action: Reject}]", direction="importV4")
    assert not import_(text, Route("10.244.2.0/26", SourceKind.EBGP), TOR).accepted


def test_operations() -> None:
    operations = (
        "[{addCommunity: {value: '64512:7'}}, {addCommunity: {value: '1:2:3'}}, {prependASPath: {prefix: [1, 2]}}"
    )
    text = filtered(f"[{{action: Accept, operations: {operations}, {{setPriority: {{value: 7}}}}]}}]")
    route = export(text, evolve(LEARNED, as_path=(64512,)), TOR).route
    assert route.communities == (64512 << 16 | 7, (1, 2, 3))
    assert route.as_path == (1, 2, 64512) and route.local_pref == MAXIMUM - 7


def test_import_accept_skips_the_preference() -> None:
    elevated = Route("10.244.1.5/32", SourceKind.EBGP, local_pref=MAXIMUM - 512)
    text = filtered("[{action: Accept}]", direction="importV4")
    assert import_(text, elevated, TOR).route.preference == 0
    assert import_(CLUSTER, elevated, TOR).route.preference == 200


def test_filters_run_in_the_order_of_the_peer() -> None:
    second = "kind: BGPFilter\nmetadata: {name: g}\nspec: {exportV4: [{action: Accept}]}\n---\n"
    assert not export(filtered("[{action: Reject}]", "[f, g]") + second, BLOCK, TOR).accepted
    assert export(filtered("[{action: Reject}]", "[g, f]") + second, BLOCK, TOR).accepted


def test_missing_filter_fails_closed_and_is_told() -> None:
    text = filtered("[{cidr: 10.244.1.0/26, matchOperator: Equal, action: Accept}]", "[f, gone]")
    assert export(text, BLOCK, TOR).accepted
    outcome = export(text, LEARNED, TOR)
    assert not outcome.accepted and outcome.label == "BGPFilter gone does not exist"
    assert not import_(text, LEARNED, TOR).accepted
    assert [(problem.object, problem.field) for problem in compiled(text).problems] == [("BGPPeer/tor", "spec.filters")]
    assert export(text, LEARNED, MESH).label != outcome.label


def test_peer_type_follows_local_as() -> None:
    text = filtered("[{peerType: iBGP, action: Reject}]")
    assert export(text, BLOCK, TOR).accepted
    assert not export(text.replace("asNumber: 65001", "asNumber: 65001, localASNumber: 65001"), BLOCK, TOR).accepted


def test_worked_example_elevated_routes_towards_the_tor() -> None:
    rule = "[{priority: 512, peerType: eBGP, action: Accept, operations: [{addCommunity: {value: '64512:7'}}]}]"
    assert export(filtered(rule), evolve(POD, metric=512), TOR).route.communities == (64512 << 16 | 7,)
    assert export(filtered(rule), BLOCK, TOR).route.communities == ()


def test_sessions_alike_share_one_chain() -> None:
    text = CLUSTER + "kind: Node\nmetadata: {name: c}\nspec: {bgp: {ipv4Address: 10.0.0.8/24}}\n"
    found = settings(text)
    assert chains(found, MESH)[1] is chains(found, "Mesh_10_0_0_8")[1]
