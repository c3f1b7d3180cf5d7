"""A standalone reflector finds its clients in Calico's resources, with and without a Node resource of its own."""

from __future__ import annotations

from typing import Any

import pytest

from bgpd.settings import SpeakerSettings
from config import resources as r
from config.compile import compile
from config.memory import Memory
from config.selector import parse_selector
from config.snapshot import Put, Remove, Snapshot
from config.values import PeerAddress, prefix
from reflector.options import parse_arguments
from reflector.resources import IdentityError, compile_reflector

RR = "10.9.0.1"


def snapshot(*more: Any, mesh: bool = False) -> Snapshot:
    nodes = [
        r.Node(f"n{i}", labels={"rack": str(i % 2)}, ipv4_address=f"10.0.0.{i}", ipv6_address=f"fd00::{i}")
        for i in (1, 2, 3)
    ]
    config = r.BGPConfiguration("default", mesh=mesh, asn=64512)
    return Snapshot().apply([Put(item) for item in (config, *nodes, *more)])


def settings(state: Snapshot, *flags: str) -> SpeakerSettings:
    options = parse_arguments(["--datastore", "file:/x", "--node", "rr1", *flags], "x")
    compiled = compile_reflector(state, options, {})
    assert compiled.settings is not None, compiled.problems
    return compiled.settings


def test_a_pod_without_node_resource_is_found_by_the_bgppeers_that_name_its_address() -> None:
    peering = r.BGPPeer("to-rr", node_selector=parse_selector("rack == '1'"), peer_ip=PeerAddress(RR), asn=64512)
    found = settings(snapshot(peering), "--address", RR, "--cluster-id", "1.1.1.1", "--asn", "64512")
    assert [peer.address for peer in found.peers] == ["10.0.0.1", "10.0.0.3"]
    assert all(peer.reflector_client and peer.cluster_id == "1.1.1.1" for peer in found.peers)
    assert all(peer.max_octets and peer.families[0].max_prefixes == 100_000 for peer in found.peers)
    assert found.cluster_id == "1.1.1.1" and found.router_id == RR
    assert not found.fib.enabled and found.forwarding_kept and not found.static_routes


def test_both_families_and_a_port_of_its_own() -> None:
    peers = [
        r.BGPPeer(f"to-rr{n}", peer_ip=PeerAddress(address, 1790), asn=64512)
        for n, address in enumerate((RR, "fd00:9::1"))
    ]
    flags = ("--listen", f"{RR}:1790", "--listen", "[fd00:9::1]:1790", "--cluster-id", "1.1.1.1", "--asn", "64512")
    found = settings(snapshot(*peers), *flags, "--peers", "10.9.0.2", "--router-id", "9.9.9.9")
    clients = sorted(peer.address for peer in found.peers if peer.reflector_client)
    assert clients == [*(f"10.0.0.{i}" for i in (1, 2, 3)), *(f"fd00::{i}" for i in (1, 2, 3))]
    assert [peer.address for peer in found.peers if not peer.reflector_client] == ["10.9.0.2"]
    assert found.router_id == "9.9.9.9"


def test_without_node_resource_and_flags_it_waits() -> None:
    options = parse_arguments(["--datastore", "file:/x", "--node", "rr1"], "x")
    assert compile_reflector(snapshot(), options, {}).settings is None


@pytest.mark.parametrize(
    ("flags", "missing"),
    [
        ((), "--cluster-id and --address"),
        (("--address", RR), "--cluster-id"),
        (("--cluster-id", "1.1.1.1"), "--address"),
    ],
)
def test_what_it_waits_for_may_be_a_flag(flags: tuple[str, ...], missing: str) -> None:
    options = parse_arguments(["--datastore", "file:/x", "--node", "rr1", *flags], "x")
    (problem,) = compile_reflector(snapshot(), options, {}).problems
    assert problem.object == "Node/rr1"
    assert problem.allowed.endswith(f"; or, for a reflector without one, {missing} on its command line")


def test_a_node_resource_says_everything_and_the_other_reflectors_cluster_decides() -> None:
    own = r.Node("rr1", labels={"rr": "yes"}, ipv4_address=RR, cluster_id="1.1.1.1")
    twin = r.Node("rr2", labels={"rr": "yes"}, ipv4_address="10.9.0.2", cluster_id="1.1.1.1")
    other = r.Node("rr3", labels={"rr": "yes"}, ipv4_address="10.9.0.3", cluster_id="3.3.3.3")
    clients = r.BGPPeer("c", node_selector=parse_selector("!has(rr)"), peer_selector=parse_selector("has(rr)"))
    among = r.BGPPeer("r", node_selector=parse_selector("has(rr)"), peer_selector=parse_selector("has(rr)"))
    found = settings(snapshot(own, twin, other, clients, among))
    kinds = {peer.address: peer.reflector_client for peer in found.peers}
    assert kinds == {"10.0.0.1": True, "10.0.0.2": True, "10.0.0.3": True, "10.9.0.2": False, "10.9.0.3": True}


def test_a_node_that_reflects_needs_no_other_switch() -> None:
    """`bgpd` on a node whose Node resource has a cluster id: the same clients, with a kernel."""
    own = r.Node("rr1", labels={"rr": "yes"}, ipv4_address=RR, cluster_id="1.1.1.1")
    clients = r.BGPPeer("c", node_selector=parse_selector("!has(rr)"), peer_selector=parse_selector("has(rr)"))
    compiled = compile(snapshot(own, clients, mesh=True), "rr1", {}).settings
    assert compiled is not None and compiled.cluster_id == "1.1.1.1" and compiled.fib.enabled
    assert {peer.address: peer.reflector_client for peer in compiled.peers} == {f"10.0.0.{i}": True for i in (1, 2, 3)}


def test_as_numbers_must_agree() -> None:
    own = r.Node("rr1", asn=64700, ipv4_address=RR, cluster_id="1.1.1.1")
    with pytest.raises(IdentityError, match=r"--asn is 64512, but by the resources Node/rr1 has 64700"):
        settings(snapshot(own), "--asn", "64512")
    assert settings(snapshot(own), "--asn", "64700").asn == 64700


def test_cluster_ids_must_agree() -> None:
    own = r.Node("rr1", ipv4_address=RR, cluster_id="1.1.1.1")
    with pytest.raises(IdentityError, match=r"--cluster-id is 2\.2\.2\.2, but Node/rr1 has 1\.1\.1\.1"):
        settings(snapshot(own), "--cluster-id", "2.2.2.2")
    with pytest.raises(IdentityError, match="has no routeReflectorClusterID"):
        settings(snapshot(r.Node("rr1", ipv4_address=RR)))
    assert settings(snapshot(r.Node("rr1", ipv4_address=RR)), "--cluster-id", "2.2.2.2").cluster_id == "2.2.2.2"


OWN = r.Node("rr1", labels={"rr": "yes"}, ipv4_address=RR, cluster_id="1.1.1.1")
BY_NODE = r.BGPPeer("c", node_selector=parse_selector("!has(rr)"), peer_selector=parse_selector("has(rr)"))
BY_ADDRESS = r.BGPPeer("c", node_selector=parse_selector("!has(rr)"), peer_ip=PeerAddress(RR), asn=64512)


@pytest.mark.parametrize(
    ("first", "flags"),
    [
        ((OWN, BY_NODE), ()),
        ((BY_ADDRESS,), ("--listen", f"{RR}:1790", "--cluster-id", "1.1.1.1", "--asn", "64512", "--peers", "10.9.0.2")),
    ],
    ids=["node resource", "flags"],
)
def test_what_does_not_change_is_kept_from_one_compile_to_the_next(
    first: tuple[Any, ...], flags: tuple[str, ...]
) -> None:
    """And what does is as if it were made from nothing."""
    options = parse_arguments(["--datastore", "file:/x", "--node", "rr1", *flags], "x")
    memory, state, before = Memory(), snapshot(*first), dict[str, Any]()
    changes: list[Put | Remove] = [
        Put(r.BlockAffinity("b", "n1", prefix("10.244.0.0/26"))),
        Put(r.Node("n2", labels={"rack": "0"}, ipv4_address="10.0.0.22")),
        Put(r.Node("n4", ipv4_address="10.0.0.4")),
        Put(r.IPPool("p", prefix("10.244.0.0/16"))),
        Remove(("Node", "n1")),
    ]
    for change in changes:
        state = state.apply([change])
        kept = compile_reflector(state, options, {}, memory).settings
        assert kept is not None and kept == compile_reflector(state, options, {}).settings
        peers = {peer.name: peer for peer in kept.peers}
        assert all(peers[name] is peer for name, peer in before.items() if peers.get(name) == peer)
        before = peers
    assert {peer.address for peer in before.values()} >= {"10.0.0.3", "10.0.0.4", "10.0.0.22"}
