"""The whole compile: static routes, identifiers, listeners, what is told, what holds everything back; snapshots."""

from __future__ import annotations

import hashlib

import pytest

from bgpd.family import IPV4_UNICAST, format_address, format_prefix
from bgpd.settings import SpeakerSettings, StaticKind
from config import resources as r
from config.compile import compile
from config.problems import Problem
from config.snapshot import Refuse, Remove, Snapshot
from config.values import Prefix
from tests.unit.config_support import compiled, peers, settings, snapshot

NODE = "kind: Node\nmetadata: {name: a}\nspec: {bgp: {ipv4Address: 10.0.0.10/24, ipv6Address: 'fd00::a/64'}}\n---\n"
CONFIG = "kind: BGPConfiguration\nmetadata: {name: default}\nspec: {%s}\n---\n"


def statics(found: SpeakerSettings) -> list[tuple[str, StaticKind, str]]:
    return [
        (format_prefix(route.family, route.key), route.kind, format_address(route.gateway))
        for route in found.static_routes
    ]


def test_own_blocks_are_blackholes() -> None:
    text = NODE
    for name, spec in {
        "one": "node: a, cidr: 10.244.1.0/26, state: confirmed",
        "two": "node: a, cidr: 10.244.2.0/26, state: pending",
        "three": "node: a, cidr: 10.244.3.0/26, state: pendingDeletion",
        "four": "node: b, cidr: 10.244.4.0/26",
        "five": "node: a, cidr: 10.244.5.1/32",
        "six": "node: a, cidr: 'fd00:10::/122'",
        "seven": "node: a, cidr: 10.244.7.0/26, deleted: true",
        "eight": "node: a, cidr: 10.244.8.0/26, type: virtual",
    }.items():
        text += f"kind: BlockAffinity\nmetadata: {{name: {name}}}\nspec: {{{spec}}}\n---\n"
    assert statics(settings(text)) == [
        ("10.244.1.0/26", StaticKind.BLACKHOLE, "-"),
        ("10.244.3.0/26", StaticKind.BLACKHOLE, "-"),
        ("fd00:10::/122", StaticKind.BLACKHOLE, "-"),
    ]


def test_reachable_by_is_a_host_route() -> None:
    peer = "kind: BGPPeer\nmetadata: {name: %s}\nspec: {peerIP: '%s', asNumber: 65001, reachableBy: '%s'}\n---\n"
    text = NODE + peer % ("x", "192.0.2.1", "10.0.0.1") + peer % ("y", "fd00:1::1", "fd00::1")
    assert statics(settings(text)) == [
        ("192.0.2.1/32", StaticKind.GATEWAY, "10.0.0.1"),
        ("fd00:1::1/128", StaticKind.GATEWAY, "fd00::1"),
    ]


def test_reachable_by_stands_without_an_own_address_of_the_family() -> None:
    peer = "kind: BGPPeer\nmetadata: {name: y}\nspec: {peerIP: 'fd00:1::1', asNumber: 65001, reachableBy: 'fd00::1'}\n"
    found = settings(NODE.replace(", ipv6Address: 'fd00::a/64'", "") + peer)
    assert found.peers == () and statics(found) == [("fd00:1::1/128", StaticKind.GATEWAY, "fd00::1")]


@pytest.mark.parametrize(
    ("node", "env", "router_id", "told"),
    [
        (NODE, "", "10.0.0.10", False),
        (NODE, "hash", "hash", False),
        (NODE, "1.2.3.4", "1.2.3.4", False),
        # Where BIRD's configuration would freeze, the hash stands in and it is told (quirk 14).
        (NODE, "router", "hash", True),
        (NODE, "0.0.0.0", "hash", True),
        ("kind: Node\nmetadata: {name: a}\nspec: {bgp: {ipv6Address: 'fd00::a'}}\n", "", "hash", True),
    ],
)
def test_router_id(node: str, env: str, router_id: str, told: bool) -> None:
    found = compiled(node, env={"CALICO_ROUTER_ID": env} if env else {})
    digest = hashlib.sha256(b"a").digest()
    first = digest[0] - 32 if digest[0] > 223 else digest[0]
    expected = f"{first}.{digest[1]}.{digest[2]}.{digest[3]}" if router_id == "hash" else router_id
    assert found.settings is not None and found.settings.router_id == expected
    assert ["CALICO_ROUTER_ID" for problem in found.problems if problem.field == "CALICO_ROUTER_ID"] == (
        ["CALICO_ROUTER_ID"] if told else []
    )


def test_hash_never_gives_a_multicast_or_reserved_id() -> None:
    for number in range(300):
        text = f"kind: Node\nmetadata: {{name: n{number}}}\nspec: {{bgp: {{ipv4Address: 10.0.0.1}}}}\n"
        first = int(settings(text, f"n{number}", {"CALICO_ROUTER_ID": "hash"}).router_id.split(".")[0])
        assert first <= 223


@pytest.mark.parametrize(
    ("spec", "listen"),
    [
        ("{}", (("0.0.0.0", 179), ("::", 179))),
        ("{listenPort: 1790}", (("0.0.0.0", 1790), ("::", 1790))),
        ("{bindMode: NodeIP}", (("10.0.0.10", 179), ("fd00::a", 179))),
    ],
)
def test_listeners(spec: str, listen: tuple[tuple[str, int], ...]) -> None:
    assert settings(NODE + f"kind: BGPConfiguration\nmetadata: {{name: default}}\nspec: {spec}\n").listen == listen


def test_listener_of_the_nodes_own_port_and_families() -> None:
    text = "kind: Node\nmetadata: {name: a}\nspec: {bgp: {ipv4Address: 10.0.0.10}}\n---\n" + CONFIG % "listenPort: 1790"
    text += "kind: BGPConfiguration\nmetadata: {name: node.a}\nspec: {listenPort: 1791}\n"
    assert settings(text).listen == (("0.0.0.0", 1791),)


def test_as_number_log_level_and_interfaces() -> None:
    found = compiled(
        NODE + CONFIG % "asNumber: 64513, logSeverityScreen: warning, ignoredInterfaces: [eth1, 'docker*']"
    )
    assert found.settings is not None
    assert found.settings.asn == 64513 and found.log_severity is r.LogSeverity.WARNING
    assert found.settings.learn.ignored_interfaces == ("eth1", "docker*", "cali*", "kube-ipvs*")
    own = NODE.replace("{ipv4Address", "{asNumber: 65001, ipv4Address")
    assert settings(own + CONFIG % "asNumber: 64513").asn == 65001
    assert settings(NODE).asn == 64512


def test_without_the_node_nothing_is_told() -> None:
    found = compiled(NODE, "b")
    assert found.settings is None
    assert [problem.object for problem in found.problems] == ["Node/b"]


def test_node_without_addresses_has_no_sessions_but_the_rest() -> None:
    found = compiled("kind: Node\nmetadata: {name: a}\n", env={"CALICO_ROUTER_ID": "hash"})
    assert found.settings is not None and found.settings.peers == () and found.settings.listen == ()
    assert [problem.field for problem in found.problems] == ["spec.bgp"]


FAULT = Problem(object="x", text="is bad")


def test_refused_object_keeps_its_last_good_version() -> None:
    good = snapshot(NODE, CONFIG % "asNumber: 64513")
    bad = good.refuse(("BGPConfiguration", "default"), [FAULT])
    found = compile(bad, "a", {})
    assert found.settings is not None and found.settings.asn == 64513 and FAULT in found.problems
    assert compile(bad.apply([Remove(("BGPConfiguration", "default"))]), "a", {}).settings == settings(NODE)
    assert compile(good.put(r.BGPConfiguration("default", asn=64514)), "a", {}).problems == ()


@pytest.mark.parametrize("key", [("BGPConfiguration", "default"), ("Node", "a")])
def test_what_everything_hangs_on_is_never_guessed(key: tuple[str, str]) -> None:
    start = snapshot(NODE) if key[0] != "Node" else Snapshot()
    found = compile(start.refuse(key, [FAULT]), "a", {})
    assert found.settings is None and FAULT in found.problems


def test_one_bad_object_costs_no_other() -> None:
    start = snapshot(NODE, "kind: BGPPeer\nmetadata: {name: x}\nspec: {peerIP: 192.0.2.1, asNumber: 65001}\n")
    found = compile(start.refuse(("BGPPeer", "y"), [FAULT]), "a", {})
    assert found.settings is not None and list(peers(found.settings)) == ["Global_192_0_2_1"]


def test_snapshots_share_what_does_not_change() -> None:
    first = snapshot(NODE, CONFIG % "asNumber: 64513")
    second = first.put(r.IPPool("p", settings_prefix()))
    assert second.objects["Node"] is first.objects["Node"] and "IPPool" not in first.objects
    assert first.remove(("Node", "gone")) == first and len(second) == 3
    assert second.apply([Refuse(("IPPool", "p"), (FAULT,)), Remove(("IPPool", "p"))]).problems == {}


def settings_prefix() -> Prefix:
    return Prefix(IPV4_UNICAST, b"\x08\x0a", 8)
