"""explain, branch by branch of Calico's export, import and kernel decisions (calico-bgp.md 7.4, 8.1, 8.2): the sentence
is right, names the object that decided, and says what would let the route through."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from attrs import evolve

from bgpd.api.explain import _untold, explain
from bgpd.api.explain_peers import BEST_ALONE
from bgpd.api.limits import Pace
from bgpd.api.schema import Explain, ExplainPath, ExplainPeer
from bgpd.api.state import DaemonState
from bgpd.ctl.story import story
from bgpd.family import IPV4_UNICAST, IPV6_UNICAST, parse_address, parse_prefix
from bgpd.policy import terms as t
from bgpd.policy.terms import SourceKind, Term, Verdict
from bgpd.routes import Hop, LocalChange, LocalRoute
from bgpd.settings import AddPath, FamilySettings, PeerSettings, SpeakerSettings
from config.advice import advice
from config.origin import origin
from tests.scenario.cluster import Cluster
from tests.unit.api_support import FakeKernel, checked, static
from tests.unit.config_support import settings, snapshot

A, B, C, TOR, B6 = "10.0.0.10", "10.0.0.9", "10.0.0.8", "10.0.0.1", "fd00::9"
MESH, MESH_C, EXTERNAL, MESH6 = "Mesh_10_0_0_9", "Mesh_10_0_0_8", "Global_10_0_0_1", "Mesh_fd00__9"
NORMAL = 2147483647 - 1024

CLUSTER = """
kind: Node
metadata: {name: a}
spec:
  bgp: {ipv4Address: 10.0.0.10/24, ipv6Address: 'fd00::a/64'CLUSTERID}
  wireguard: {interfaceIPv4Address: 10.1.0.1}
---
kind: Node
metadata: {name: b}
spec: {bgp: {ipv4Address: 10.0.0.9/24, ipv6Address: 'fd00::9/64'}}
---
kind: Node
metadata: {name: c}
spec: {bgp: {ipv4Address: 10.0.0.8/24}, wireguard: {interfaceIPv4Address: 10.1.0.3}}
---
kind: BGPConfiguration
metadata: {name: default}
spec:
  serviceClusterIPs: [{cidr: 10.96.0.0/12}, {cidr: 'fd00:96::/108'}]
  serviceExternalIPs: [{cidr: 192.0.2.0/24}]
  communities: [{name: blue, value: '65000:7'}]
  prefixAdvertisements: [{cidr: 10.244.0.0/16, communities: [blue]}]
---
kind: BlockAffinity
metadata: {name: a-1}
spec: {node: a, cidr: 10.244.1.0/26, state: confirmed}
---
kind: BlockAffinity
metadata: {name: b-1}
spec: {node: b, cidr: 10.244.2.0/26, state: confirmed}
---
kind: BlockAffinity
metadata: {name: b-2}
spec: {node: b, cidr: 10.244.3.0/26, state: pending}
---
kind: BlockAffinity
metadata: {name: a-6}
spec: {node: a, cidr: 'fd00:244::/122', state: confirmed}
---
kind: IPPool
metadata: {name: open}
spec: {cidr: 10.244.0.0/16}
---
kind: IPPool
metadata: {name: open6}
spec: {cidr: 'fd00:244::/48'}
---
kind: IPPool
metadata: {name: closed}
spec: {cidr: 10.245.0.0/16, disableBGPExport: true}
---
kind: IPPool
metadata: {name: vxlan}
spec: {cidr: 10.246.0.0/16, vxlanMode: Always}
---
kind: IPPool
metadata: {name: ipip}
spec: {cidr: 10.247.0.0/16, ipipMode: Always}
---
kind: BGPFilter
metadata: {name: f}
spec:
  exportV4:
  - {action: Reject, cidr: 10.244.9.0/24, matchOperator: In}
  - {action: Accept, cidr: 172.16.0.0/16, matchOperator: In}
  importV4:
  - {action: Accept, cidr: 198.51.100.0/24, matchOperator: Equal}
  - {action: Reject, cidr: 198.18.0.0/15, matchOperator: In}
  importV6:
  - {action: Reject, cidr: 'fd00:bad::/32', matchOperator: In}
---
kind: BGPPeer
metadata: {name: tor}
spec: {peerIP: 10.0.0.1, asNumber: 65001, filters: [f]}
---
kind: BGPPeer
metadata: {name: broken}
spec: {peerIP: 10.0.0.77, asNumber: 65002, filters: [absent]}
"""


def _peer(address: str, asn: int = 64512, own6: str = "", **changes: object) -> PeerSettings:
    peer = PeerSettings("node", address, asn, own_addresses=((IPV6_UNICAST, own6),) if own6 else ())
    return evolve(peer, **changes)  # type: ignore[arg-type]


class World:
    """Node a as Calico's resources make it, two nodes of its mesh, a ToR that speaks no ADD-PATH; v6 with one node."""

    def __init__(self, text: str = CLUSTER.replace("CLUSTERID", "")) -> None:
        self.cluster = cluster = Cluster()
        self.text = text
        self.settings = settings(text)
        plain = (evolve(FamilySettings(IPV4_UNICAST), add_path=AddPath.OFF),)
        cluster.add(A, self.settings)
        both = (static("10.244.41.0/26"),)
        cluster.add(B, SpeakerSettings(64512, B, peers=(_peer(A),), static_routes=both))
        cluster.add(C, SpeakerSettings(64512, C, peers=(_peer(A),)))
        cluster.add(
            TOR,
            SpeakerSettings(65001, TOR, peers=(_peer(A, families=plain, extended_messages=False),), static_routes=both),
        )
        cluster.add(B6, SpeakerSettings(64512, "10.0.0.99", peers=(_peer(A, own6=B6),)))
        for address in (A, B, C, TOR, B6):
            cluster.link(address, "10.0.0.0/24")
            cluster.link(address, "fd00::/64")
            cluster.start(address)
        self.host = cluster.hosts[A]
        self.state = DaemonState("a", "1", clock=lambda: cluster.now)
        self.state.speaker = self.host.speaker
        self.state.advice = advice
        resources = snapshot(text)
        self.state.origin = lambda family, key: origin(resources, "a", family, key)
        up = {MESH, MESH_C, EXTERNAL, MESH6} & set(self.host.speaker.peers)
        assert cluster.run(30, lambda: all(self.host.speaker.peers[name].members for name in up)), self.host.log
        assert cluster.run(60, lambda: not self.host.speaker.restart.active), self.host.log
        self.kernel = FakeKernel(self.settings)
        self.state.kernel = self.kernel

    def local(self, prefix: str, interface: str = "cali1", metric: int = 1024, gateway: str = "") -> None:
        """A kernel route of node a."""
        family, key = parse_prefix(prefix)
        hops = (Hop(parse_address(gateway) if gateway else b"", 5),)
        label = "kernel route, protocol 80 (Felix workload)"
        route = LocalRoute(family, key, SourceKind.KERNEL, hops, metric, interface, 80, label)
        self.host.speaker.on_local([LocalChange(SourceKind.KERNEL, family, key, route)], self.cluster.now)
        self.cluster._settle(self.host)

    def explain(self, prefix: str, peer: str = "", refuse: dict[str, tuple[int, str]] | None = None) -> Explain:
        """The answer, as it should be shaped, with the kernel caught up."""
        self.cluster.run(1)
        self.kernel.catch_up(self.host, self.cluster.now, refuse or {})
        answer = asyncio.run(explain(self.state, prefix, peer, Pace()))
        checked(answer, Explain)
        for width in (60, 80, 120):
            assert all(len(line) <= width for line in story(answer, width) if "  " in line.strip()), prefix
        return answer

    def peer(self, prefix: str, name: str) -> ExplainPeer:
        """What one peer is told."""
        return self.explain(prefix, name)["peers"][0]

    def path(self, prefix: str) -> ExplainPath:
        """The first path."""
        return self.explain(prefix)["paths"][0]


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    yield World()


# 7.4: export


EXPORT = (
    # (step, prefix, interface, metric, peer, announced, rule, hint)
    ("2 accept", "172.16.1.0/24", "eth0", 0, EXTERNAL, True, "BGPFilter f, exportV4 rule 2", ""),
    ("2 reject", "10.244.9.1/32", "cali1", 1024, EXTERNAL, False, "BGPFilter f, exportV4 rule 1", "of BGPFilter f"),
    ("3", "10.245.0.1/32", "cali1", 1024, MESH, False, "IPPool closed: disableBGPExport", "in IPPool closed"),
    ("4", "10.244.20.0/26", "vxlan.calico", 0, MESH, False, "route through Felix's device *.calico", "on purpose"),
    ("4 tunl0", "10.247.20.0/26", "tunl0", 0, MESH, False, "route through Felix's device tunl0", "on purpose"),
    ("4 eBGP", "10.244.20.0/26", "vxlan.calico", 0, EXTERNAL, True, "IPPool open", ""),
    ("5", "10.244.21.1/32", "bpfin.cali", 0, EXTERNAL, False, "route through Felix's device bpf*.cali", "on purpose"),
    ("6 own block", "10.244.1.0/26", "", 0, MESH, True, "own block 10.244.1.0/26", ""),
    ("6 migrates", "10.244.1.5/32", "cali1", 512, MESH, True,
     "own block 10.244.1.0/26: address with priority above normal", ""),
    ("6 inside", "10.244.1.6/32", "cali1", 1024, MESH, False, "own block 10.244.1.0/26: covers this address",
     "needs nothing: the block 10.244.1.0/26"),
    ("6 v6", "fd00:244::5/128", "cali1", 1024, MESH6, False, "own block fd00:244::/122: covers this address",
     "needs nothing"),
    ("7", "10.96.0.0/12", "", 0, MESH, True, "service range 10.96.0.0/12", ""),
    ("7 v6", "fd00:96::/108", "", 0, MESH6, True, "service range fd00:96::/108", ""),
    ("9 borrowed", "10.244.2.7/32", "cali1", 1024, MESH, True, "IPPool open", ""),
    ("9 v6", "fd00:244:0:1::7/128", "cali1", 1024, MESH6, True, "IPPool open6", ""),
    ("10", "172.17.0.0/16", "docker0", 0, MESH, False, "outside every IPPool, own block and service range",
     "an IPPool that covers it"),
    ("10 v6", "2001:db8::/32", "eth0", 0, MESH6, False, "outside every IPPool, own block and service range",
     "an IPPool that covers it"),
)  # fmt: skip


@pytest.mark.parametrize("case", EXPORT, ids=[case[0] for case in EXPORT])
def test_export_names_the_step(world: World, case: tuple[str, str, str, int, str, bool, str, str]) -> None:
    _, prefix, interface, metric, peer, announced, rule, hint = case
    if interface:
        world.local(prefix, interface, metric)
    told = world.peer(prefix, peer)
    assert (told["announced"], told["rule"]) == (announced, rule)
    assert told["text"] == ("announced" if announced else f"withheld: {rule}")
    assert hint in told["hint"] and bool(hint) == bool(told["hint"])


def test_rules_that_change_a_route_on_its_way_are_named(world: World) -> None:
    # Steps 1 and 5: LOCAL_PREF from the metric, communities of prefixAdvertisements.
    told = world.peer("10.244.1.0/26", MESH)
    assert told["passed"] == [
        "LOCAL_PREF from metric, 1024 where there is none", "BGPConfiguration: prefixAdvertisements 10.244.0.0/16"
    ]  # fmt: skip
    assert told["attributes"] is not None and told["attributes"]["communities"] == ["65000:7"]
    assert any("prefixAdvertisements 10.244.0.0/16" in line for line in story(world.explain("10.244.1.0/26"), 200))


def test_a_missing_filter_fails_closed_and_is_named(world: World) -> None:
    speaker = world.host.speaker
    chain = speaker.settings.export_terms(speaker.peers["Global_10_0_0_77"].settings.families[0])
    assert any(term.label == "BGPFilter absent does not exist" for term in chain)
    assert "creating BGPFilter absent" in advice("BGPFilter absent does not exist")
    told = world.peer("10.244.1.0/26", "Global_10_0_0_77")
    assert told["text"].startswith("no session (state") and "cannot connect" in told["text"]
    assert "no firewall between" in told["hint"]


def test_a_family_that_no_session_carries() -> None:
    world = World(CLUSTER.replace("ipv6Address: 'fd00::a/64'CLUSTERID", ""))
    answer = world.explain("fd00:244::/122")
    assert answer["stopped"] == "It is announced to no peer: none of the sessions carries ipv6."
    assert answer["hint"].startswith("spec.bgp.ipv6Address of this Node")


# Before the chain: reflection, well-known communities, next hops


def test_the_mesh_tells_nothing_on(world: World) -> None:
    world.cluster.local(B, "10.244.2.0/26")
    answer = world.explain("10.244.2.0/26")
    told = {peer["peer"]: peer for peer in answer["peers"]}
    assert "non-client over iBGP" in told[MESH_C]["text"] and "full mesh" in told[MESH_C]["hint"]
    assert told[EXTERNAL]["announced"] and told[EXTERNAL]["rule"] == "IPPool open"
    assert told[MESH6]["text"] == "this session carries no ipv4"
    assert answer["stopped"] == ""


def test_a_peer_is_not_told_its_own_route(world: World) -> None:
    world.cluster.local(TOR, "10.244.40.0/26")
    told = world.peer("10.244.40.0/26", EXTERNAL)
    assert told["text"].startswith("withheld: the path comes from this peer") and "needs nothing" in told["hint"]
    assert "ADD-PATH" not in told["text"]


def test_a_peers_own_route_is_kept_from_it_whatever_the_policy(world: World) -> None:
    """No pool would let it through to where it comes from; the others are another matter."""
    world.cluster.local(TOR, "198.51.100.0/24")
    answer = world.explain("198.51.100.0/24")
    told = {peer["peer"]: peer for peer in answer["peers"]}
    assert told[EXTERNAL]["text"].startswith("withheld: the path comes from this peer")
    assert "needs nothing" in told[EXTERNAL]["hint"]
    assert told[MESH]["text"] == told[MESH_C]["text"] == "withheld: outside every IPPool, own block and service range"
    assert answer["stopped"] == "It is announced to no peer: outside every IPPool, own block and service range."
    answer = world.explain("198.51.100.0/24", EXTERNAL)
    assert answer["stopped"] == f"It is not announced to {EXTERNAL}: the path comes from this peer."


def test_without_add_path_the_best_path_alone_counts(world: World) -> None:
    # Node b and the ToR both have it, b's AS_PATH is the shorter one; node b is held to the longer one by a filter.
    long = (Term("long", Verdict.ACCEPT, (), (t.PrependAsPath((65009, 65009)),)),)
    families = (FamilySettings(IPV4_UNICAST, export_chain=long),)
    both = (static("10.244.41.0/26"),)
    world.cluster.reconfigure(B, SpeakerSettings(64512, B, peers=(_peer(A, families=families),), static_routes=both))
    world.cluster.run(2)
    answer = world.explain("10.244.41.0/26")
    assert [path["route"]["source"]["peer"] for path in answer["paths"]] == [EXTERNAL, MESH]
    assert (answer["paths"][1]["lost_step"], answer["paths"][1]["lost_text"]) == (
        "AS_PATH length", "2, the best has 1"
    )  # fmt: skip
    told = {peer["peer"]: peer for peer in answer["peers"]}
    assert told[EXTERNAL]["text"] == (
        "withheld: the path comes from this peer; without ADD-PATH the best of 2 paths alone counts"
    )
    # Node c has ADD-PATH: the ToR's path goes to it, node b's does not (it hears that one itself).
    assert told[MESH_C]["announced"] and len(told[MESH_C]["path_ids"]) == 1
    assert told[MESH_C]["text"] == "announced"
    assert [why[:40] for why in told[MESH_C]["withheld"]] == ["learned from a non-client over iBGP: not"]
    assert any("other paths withheld: learned from" in line for line in story(answer, 200))


@pytest.mark.parametrize(
    ("community", "peer", "name"),
    ((0xFFFFFF01, EXTERNAL, "NO_EXPORT"), (0xFFFFFF02, EXTERNAL, "NO_ADVERTISE"),
     (0xFFFFFF03, EXTERNAL, "NO_EXPORT_SUBCONFED")),
)  # fmt: skip
def test_well_known_communities_are_named(world: World, community: int, peer: str, name: str) -> None:
    tag = (Term("tag", Verdict.ACCEPT, (), (t.AddCommunity(community),)),)
    tagged = _peer(A, families=(FamilySettings(IPV4_UNICAST, export_chain=tag),))
    world.cluster.reconfigure(B, SpeakerSettings(64512, B, peers=(tagged,)))
    prefix = f"10.244.50.{community & 3}/32"
    world.cluster.local(B, prefix)
    world.cluster.run(2)
    told = world.peer(prefix, peer)
    assert told["text"].startswith(f"withheld: community {name}") and name in told["hint"]
    world.cluster.reconfigure(B, SpeakerSettings(64512, B, peers=(_peer(A),)))
    world.cluster.run(2)


def test_one_reason_with_and_without_add_path_is_one_reason(world: World) -> None:
    prefix = "203.0.113.64/26"
    world.local(prefix, "eth0", 1024)
    world.cluster.local(TOR, prefix)
    world.cluster.run(2)
    answer = world.explain(prefix)
    texts = {peer["peer"]: peer["text"] for peer in answer["peers"] if peer["rule"]}
    reason = "outside every IPPool, own block and service range"
    assert texts[MESH] == f"withheld: {reason}" and "; without ADD-PATH the best of 2" in texts[EXTERNAL]
    assert answer["stopped"] == f"It is announced to no peer: {reason}." and "an IPPool" in answer["hint"]
    # As another ToR has it, to which neither path goes back.
    for peer in answer["peers"]:
        if peer["peer"] == EXTERNAL:
            peer["text"] = f"{texts[MESH]}{BEST_ALONE}the best of 2 paths alone counts"
            peer["rule"] = reason
    assert _untold(answer["peers"], "") == (f"It is announced to no peer: {reason}.", reason)


def test_the_next_hop_is_not_told_of_the_route_through_it(world: World) -> None:
    world.local("10.244.60.0/26", "eth0", 1024, gateway=C)
    told = world.peer("10.244.60.0/26", MESH_C)
    assert told["text"].startswith("withheld: this peer is itself the next hop") and told["hint"]
    assert world.peer("10.244.60.0/26", MESH)["announced"]


def test_attributes_that_fill_a_message_are_not_called_announced(world: World) -> None:
    many = tuple(t.AddCommunity(65000 << 16 | number) for number in range(1100))
    tag = (Term("tag", Verdict.ACCEPT, (), many),)
    big = _peer(A, families=(FamilySettings(IPV4_UNICAST, export_chain=tag),))
    world.cluster.reconfigure(B, SpeakerSettings(64512, B, peers=(big,)))
    world.cluster.local(B, "10.244.61.0/26")
    world.cluster.run(2)
    told = world.peer("10.244.61.0/26", EXTERNAL)
    assert told["text"].startswith("withheld: its attributes leave no room for a prefix in a message of 4096 octets")
    assert "RFC 8654" in told["hint"]
    world.cluster.reconfigure(B, SpeakerSettings(64512, B, peers=(_peer(A),)))
    world.cluster.run(2)


# 8.1: import


def test_import_names_the_filter_rule(world: World) -> None:
    world.cluster.local(TOR, "198.18.0.0/16")
    answer = world.explain("198.18.0.0/16")
    assert answer["stopped"] == "Import refused every path: BGPFilter f, importV4 rule 2."
    assert "before rule 2 in spec.importV4 of BGPFilter f" in answer["hint"]
    world.cluster.local(TOR, "198.51.100.0/24")
    assert world.path("198.51.100.0/24")["rule"] == "BGPFilter f, importV4 rule 1"
    world.cluster.local(TOR, "203.0.113.0/24")
    path = world.path("203.0.113.0/24")
    assert (path["verdict"], path["rule"], path["passed"]) == ("accepted", "accepted from every peer", [])


def test_a_priority_above_normal_is_told(world: World) -> None:
    raised = (Term("up", Verdict.ACCEPT, (), (t.SetLocalPref(NORMAL + 512),)),)
    families = (FamilySettings(IPV4_UNICAST, export_chain=raised),)
    world.cluster.reconfigure(B, SpeakerSettings(64512, B, peers=(_peer(A, families=families),)))
    world.cluster.local(B, "10.244.2.9/32")
    world.cluster.run(2)
    path = world.path("10.244.2.9/32")
    assert path["passed"] == ["priority above normal: preference 200"] and path["route"]["preference"] == 200
    assert any("priority above normal" in line for line in story(world.explain("10.244.2.9/32"), 200))
    world.cluster.reconfigure(B, SpeakerSettings(64512, B, peers=(_peer(A),)))
    world.cluster.run(2)


def test_an_own_block_told_by_another_loses_by_preference(world: World) -> None:
    world.cluster.local(B, "10.244.1.0/26")
    answer = world.explain("10.244.1.0/26")
    lost = answer["paths"][1]
    assert (lost["lost_step"], lost["lost_text"]) == ("preference", "100, the best has 200")
    assert answer["paths"][0]["route"]["source"]["label"] == "own block 10.244.1.0/26"


def test_next_hops_that_do_not_resolve(world: World) -> None:
    world.cluster.local(B, "10.244.70.0/26", gateway=parse_address("192.0.2.7"))
    answer = world.explain("10.244.70.0/26")
    assert answer["stopped"] == (
        "No path has a usable next hop: 192.0.2.7: covered by an unreachable or blackhole route (service range "
        "192.0.2.0/24)."
    )
    assert "than service range 192.0.2.0/24, which drops packets" in answer["hint"]
    world.cluster.local(B, "10.244.71.0/26", gateway=parse_address("100.64.0.7"))
    answer = world.explain("10.244.71.0/26")
    assert answer["stopped"] == "No path has a usable next hop: 100.64.0.7: no local route covers it."
    assert "reachableBy" in answer["hint"]


# 8.2: kernel


def test_kernel_rules_are_named(world: World) -> None:
    assert world.explain("10.96.0.0/12")["kernel"]["text"] == "service range 10.96.0.0/12: not for the kernel"  # type: ignore[index]
    world.cluster.local(C, "10.244.4.0/26")
    answer = world.explain("10.244.4.0/26")
    assert answer["kernel"] is not None
    assert answer["kernel"]["text"] == "WireGuard peer: Felix programs it" and "`wg`" in answer["kernel_hint"]
    for prefix, rule, hint in (
        ("10.246.4.0/26", "IPPool vxlan: VXLAN, Felix programs it", "vxlan.calico"),
        ("10.247.4.0/26", "IPPool ipip: IPIP and programClusterRoutes EnabledNoEncapOnly, Felix programs it",
         "programClusterRoutes"),
    ):  # fmt: skip
        world.cluster.local(B, prefix)
        answer = world.explain(prefix)
        assert answer["kernel"] is not None
        assert (answer["kernel"]["state"], answer["kernel"]["text"]) == ("unwanted", rule)
        assert hint in answer["kernel_hint"] and answer["stopped"] == ""
    world.cluster.local(B, "10.244.5.0/26")
    answer = world.explain("10.244.5.0/26")
    assert answer["kernel"] is not None
    assert (answer["kernel"]["state"], answer["kernel_rule"]) == ("installed", "IPPool open: no encapsulation")
    world.cluster.local(TOR, "203.0.113.0/24")
    assert world.explain("203.0.113.0/24")["kernel_rule"] == "outside every IPPool"
    world.local("172.17.0.0/16", "docker0", 0)
    answer = world.explain("172.17.0.0/16")
    assert answer["kernel"] is not None and "the best path is the host's own" in answer["kernel"]["text"]


def test_ipip_says_its_tunnel_or_that_it_is_not_there() -> None:
    text = CLUSTER.replace("CLUSTERID", "").replace(
        "serviceClusterIPs: [", "programClusterRoutes: Enabled\n  serviceClusterIPs: ["
    )
    world = World(text)
    world.cluster.local(B, "10.247.4.0/26")
    rule = world.explain("10.247.4.0/26")["kernel_rule"]
    assert rule == "IPPool ipip: IPIP Always; tunl0 does not exist or is down: without the tunnel"
    world.host.speaker.on_devices({"tunl0": 7})
    world.cluster._settle(world.host)
    assert world.explain("10.247.4.0/26")["kernel_rule"] == "IPPool ipip: IPIP Always; through tunl0"


def test_what_the_kernel_refuses_and_what_is_another_programs(world: World) -> None:
    world.cluster.local(B, "10.244.80.0/26")
    answer = world.explain("10.244.80.0/26", refuse={"10.244.80.0/26": (101, "Network is unreachable")})
    assert answer["stopped"] == "It is not in the kernel: Network is unreachable."
    world.cluster.local(B, "10.244.81.0/26")
    answer = world.explain("10.244.81.0/26", refuse={"10.244.81.0/26": (17, "File exists")})
    assert answer["kernel"] is not None and answer["kernel"]["state"] == "foreign"
    assert answer["stopped"].startswith("It is not in the kernel: ") and answer["kernel_hint"]


# What is not there


def test_who_should_announce_what_is_not_there(world: World) -> None:
    answer = world.explain("10.244.3.0/26")
    assert answer["origin"] == (
        "it is block 10.244.3.0/26 of node b (BlockAffinity b-2), which is pending: not announced before it is "
        "confirmed; it lies in IPPool open (10.244.0.0/16)"
    )
    assert any("By Calico's resources it is block 10.244.3.0/26 of node b" in line for line in story(answer, 200))
    assert (
        "it lies in IPPool closed (10.245.0.0/16), which has disableBGPExport"
        in world.explain("10.245.9.0/26")["origin"]
    )
    assert world.explain("11.0.0.0/8")["origin"] == "no IPPool covers 11.0.0.0/8"
    assert "lies in block fd00:244::/122 of this node" in world.explain("fd00:244::9/128")["origin"]


def test_a_malformed_update_is_told_where_its_route_is_missed(world: World) -> None:
    from bgpd.wire.framing import build_message

    world.cluster.local(TOR, "203.0.114.0/24")
    assert world.explain("203.0.114.0/24")["present"]
    # ORIGIN 7 (RFC 7606 §7.1): the route is withdrawn.
    attributes = bytes.fromhex("4001010740020602010000fde94003040a000001")
    body = b"\0\0" + len(attributes).to_bytes(2, "big") + attributes + bytes((24, 203, 0, 114))
    conn = world.host.speaker.peers[EXTERNAL].session.conn
    assert conn is not None
    world.host.speaker.on_data(conn, build_message(2, body), world.cluster.now)
    world.cluster._settle(world.host)
    answer = world.explain("203.0.114.0/24")
    (silent,) = [one for one in answer["silent"] if one["peer"] == EXTERNAL]
    assert silent["text"].startswith("announced it in a malformed UPDATE, which withdrew it (RFC 7606): ORIGIN")
    assert "without that error" in silent["hint"]
    assert answer["stopped"].startswith(f"{EXTERNAL} announced it in a malformed UPDATE")
    assert answer["hint"] == silent["hint"]
    # For people, the log and metrics: what was done, in words.
    assert world.host.speaker.peers[EXTERNAL].findings == {"ORIGIN: treated as withdraw": 1}
    assert any("ORIGIN: treated as withdraw (value 7; RFC 7606 §7.1)" in line for line in world.host.log)
    world.cluster.local(TOR, "203.0.114.0/24", present=False)


def test_a_route_of_before_is_held_by_the_restart_phase() -> None:
    world = World()
    family, key = parse_prefix("10.244.90.0/26")
    world.kernel.fib.want(family, {key: None}, world.cluster.now)
    other = _held(world, "10.244.90.0/26")
    assert other["kernel"] is not None and other["kernel"]["state"] == "held"
    assert "kept until the restart phase is over" in other["stopped"]
    assert any("held: via" in line for line in story(other, 200))


def _held(world: World, prefix: str) -> Explain:
    """A route of ours is found at the start, and nobody wants it yet."""
    from bgpd.fib import messages as nl

    _, key = parse_prefix(prefix)
    fib = FakeKernel(world.settings).fib
    fib.begin_dump()
    fib.dump_route(nl.AF_INET, key, nl.RouteShape(254, 12, 1, 0, ((parse_address(B), 2, False),)))
    fib.end_dump(True, world.cluster.now)
    world.kernel.fib = fib
    return asyncio.run(explain(world.state, prefix, "", Pace()))


def test_an_unconfirmed_start_says_that_end_of_rib_waits() -> None:
    world = World()
    group, member = world.host.speaker.peers[MESH].members[IPV4_UNICAST]
    group.hold_eor, member.eor = True, True
    assert "our End-of-RIB waits for the end of the restart phase" in world.peer("10.244.1.0/26", MESH)["text"]


# 6.6 and 6.9: reflection and loop checks


def test_a_reflectors_rules_and_loop_checks() -> None:
    world = World(CLUSTER.replace("CLUSTERID", ", routeReflectorClusterID: 244.0.0.1") + """
---
kind: BGPPeer
metadata: {name: clients}
spec: {node: a, peerSelector: all()}
""")  # fmt: skip
    names = {peer.address: name for name, peer in ((n, p.settings) for n, p in world.host.speaker.peers.items())}
    assert B in names and C in names, names
    world.cluster.run(20, lambda: bool(world.host.speaker.peers[names[B]].members))
    world.cluster.local(B, "10.244.2.0/26")
    told = world.peer("10.244.2.0/26", names[C])
    assert told["announced"] and told["attributes"] is not None
    assert told["attributes"]["cluster_list"] == ["244.0.0.1"] and told["attributes"]["originator_id"] == B
    looped = (Term("own", Verdict.ACCEPT, (), (t.PrependAsPath((64512,)),)),)
    families = (FamilySettings(IPV4_UNICAST, export_chain=looped),)
    world.cluster.reconfigure(B, SpeakerSettings(64512, B, peers=(_peer(A, families=families),)))
    world.cluster.run(3)
    answer = world.explain("10.244.2.0/26")
    assert answer["stopped"].startswith("Import refused every path: own AS 64512 is in AS_PATH 1 times, 0 allowed")
    assert "numAllowedLocalASNumbers" in answer["hint"]


def test_a_limit_of_prefixes_is_the_reason_for_no_session() -> None:
    world = World()
    host = world.host
    limited = tuple(
        evolve(p, families=(evolve(p.families[0], max_prefixes=2),)) if p.name == EXTERNAL else p
        for p in world.settings.peers
    )
    world.cluster.reconfigure(A, evolve(world.settings, peers=limited))
    for number in range(4):
        world.cluster.local(TOR, f"203.0.{number}.0/24")
    told = world.peer("10.244.1.0/26", EXTERNAL)
    assert "prefixes, 2 allowed" in told["text"], (told, host.log[-5:])
    assert "higher limit" in told["hint"]
