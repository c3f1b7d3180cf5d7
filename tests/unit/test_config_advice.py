"""Every rule and check that can stop a route has a way out in `bgpctl explain`."""

from __future__ import annotations

import pytest

from bgpd.family import IPV4_UNICAST, parse_address
from bgpd.policy.terms import SourceKind, Verdict
from bgpd.rib.export import Exporter, GroupKey
from bgpd.rib.importer import ImportRules
from bgpd.rib.nexthop import NextHopTable, unusable
from bgpd.rib.path import Path, Source
from bgpd.rib.reflection import withheld
from bgpd.settings import NextHopMode
from bgpd.wire.attributes import AttributeTable, encode_communities, local_block, rebuild
from bgpd.wire.rules import Code
from config.advice import advice
from tests.unit.config_support import settings

CLUSTER = """
kind: Node
metadata: {name: a}
spec:
  bgp: {ipv4Address: 10.0.0.10/24, ipv6Address: 'fd00::a/64', routeReflectorClusterID: 244.0.0.1}
  wireguard: {interfaceIPv4Address: 10.1.0.1}
---
kind: Node
metadata: {name: b}
spec: {bgp: {ipv4Address: 10.0.0.9/24}, wireguard: {interfaceIPv4Address: 10.1.0.2}}
---
kind: BGPConfiguration
metadata: {name: default}
spec:
  programClusterRoutes: PROGRAM
  serviceClusterIPs: [{cidr: 10.96.0.0/12}]
  serviceExternalIPs: [{cidr: 192.0.2.0/24}]
---
kind: BlockAffinity
metadata: {name: x}
spec: {node: a, cidr: 10.244.1.0/26}
---
kind: IPPool
metadata: {name: open}
spec: {cidr: 10.244.0.0/16}
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
spec: {cidr: 10.247.0.0/16, ipipMode: CrossSubnet}
---
kind: BGPFilter
metadata: {name: f}
spec:
  exportV4: [{action: Reject, cidr: 10.0.0.0/8, matchOperator: In}]
  importV4: [{action: Reject, cidr: 10.0.0.0/8, matchOperator: In}]
---
kind: BGPPeer
metadata: {name: tor}
spec: {peerIP: 10.0.0.1, asNumber: 65001, filters: [f, missing]}
---
kind: BGPPeer
metadata: {name: inside}
spec: {peerIP: 10.0.0.2, asNumber: 64512, filters: [f]}
"""


@pytest.mark.parametrize("program", ["Enabled", "Disabled", "EnabledIPIPOnly", "EnabledNoEncapOnly"])
def test_every_rejecting_term_has_advice(program: str) -> None:
    speaker = settings(CLUSTER.replace("PROGRAM", program))
    chains = [chain for _, chain in speaker.fib.chains]
    chains += [*speaker.import_chains.values(), *speaker.export_chains.values()]
    labels = {term.label for chain in chains for term in chain if term.verdict is Verdict.REJECT}
    assert len(labels) > 8
    assert not [label for label in labels if not advice(label)]


def test_advice_names_the_object() -> None:
    assert "BGPFilter f that accepts it" in advice("BGPFilter f, exportV4 rule 2")
    assert "before rule 2 in spec.exportV4" in advice("BGPFilter f, exportV4 rule 2")
    assert advice("IPPool p: disableBGPExport").startswith("disableBGPExport: false in IPPool p")
    assert "an IPPool that covers it" in advice("outside every IPPool, own block and service range")
    assert advice("own block 10.0.0.0/26: covers this address").startswith("needs nothing: the block 10.0.0.0/26")
    assert advice("what nobody said") == ""


def _attributes(changes: dict[int, bytes | None], next_hop: str = "10.0.0.2") -> object:
    return AttributeTable().intern(IPV4_UNICAST, rebuild(local_block(), changes), parse_address(next_hop))


def test_every_loop_check_has_advice() -> None:
    router, cluster = parse_address("10.0.0.1"), parse_address("244.0.0.1")
    internal = ImportRules(64512, 64512, False, router, frozenset({cluster}), 0, True)
    external = ImportRules(64512, 65001, True, router, frozenset(), 0, True)
    own = b"\x02\x02" + (65001).to_bytes(4, "big") + (64512).to_bytes(4, "big")
    said = [
        external.refuse(_attributes({Code.AS_PATH: own})),  # type: ignore[arg-type]
        external.refuse(_attributes({Code.AS_PATH: b"\x02\x01" + bytes(3) + b"\x07"})),  # type: ignore[arg-type]
        internal.refuse(_attributes({Code.ORIGINATOR_ID: router})),  # type: ignore[arg-type]
        internal.refuse(_attributes({Code.CLUSTER_LIST: cluster})),  # type: ignore[arg-type]
    ]
    assert all(said) and all(advice(text) for text in said)


def test_every_reason_to_withhold_has_advice() -> None:
    plain = _attributes({})
    said = [withheld(SourceKind.IBGP, SourceKind.IBGP, plain)]  # type: ignore[arg-type]
    for value in (0xFFFFFF01, 0xFFFFFF02, 0xFFFFFF03):
        attrs = _attributes({Code.COMMUNITIES: encode_communities((value,))})
        said.append(withheld(SourceKind.EBGP, SourceKind.EBGP, attrs))  # type: ignore[arg-type]
    said += ["the path comes from this peer", "this peer is itself the next hop (RFC 4271 §5.1.3)"]
    for own, learned in (("", ""), ("", "fd00::1")):
        key = GroupKey(IPV4_UNICAST, SourceKind.IBGP, 64512, (), NextHopMode.AUTO, parse_address(own) if own else b"",
                       bytes(4), True, False, 4096, False)  # fmt: skip
        attrs = AttributeTable().intern(IPV4_UNICAST, local_block(), parse_address(learned) if learned else b"")
        table = NextHopTable()
        path = Path(Source("s", SourceKind.STATIC), 0, 0, attrs, attrs, table.get(attrs.next_hop), b"", 200)
        leaf = Exporter(key).node(path)
        said.append(leaf.label)  # type: ignore[union-attr]
    assert all(said) and not [text for text in said if not advice(text)]


def test_every_unusable_next_hop_has_advice() -> None:
    for text in ("0.0.0.0", "127.0.0.1", "224.0.0.1", "::", "::1", "ff02::1"):
        assert advice(f"{text}: {unusable(parse_address(text))}"), text
    table = NextHopTable()
    assert advice(f"10.0.0.9: {table.look_up(parse_address('10.0.0.9')).reason}")
    table.set_own(frozenset({parse_address("10.0.0.1")}))
    assert advice(f"10.0.0.1: {table.look_up(parse_address('10.0.0.1')).reason}")
    assert advice("10.0.0.9: covered by an unreachable or blackhole route (kernel route, protocol boot)")


def test_what_is_not_there_and_sessions_have_advice() -> None:
    for text in (
        "no route of this host",
        "no route of a peer",
        "no session (state Active: cannot connect: connection refused, 3 attempts)",
        "no session (state Idle: the peer sent NOTIFICATION 6/1 cease: maximum number of prefixes reached)",
        "no session (state Idle: we sent NOTIFICATION 2/2 OPEN message error: bad peer AS "
        "(the peer says AS 1, configured is 2))",
        "no session (state Idle: NOTIFICATION received)",
        "ipv6 is not negotiated with this peer",
        "none of the sessions carries ipv4",
        "held down: its Secret is missing",
        "another program's route has this prefix and metric (its protocol is 3)",
        "the best path is the host's own (kernel route, protocol 80)",
        "no export term accepts it",
        "the kernel refuses it: Nexthop has invalid gateway",
        "another program keeps changing this route",
    ):
        assert advice(text), text
