"""A mixed mesh of our nodes and BIRD's, and the worked examples of Calico's behaviour (calico-bgp.md §14) in it.

Each example changes the datastore of a running cluster and takes the change back. The witnesses are BIRD (what it was
told, with all attributes) and the kernels.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator

import pytest

from tests.lab import datastore as resources
from tests.lab.cluster import NODE_ASN, TOR_ASN, TOR_PREFIXES, Lab, Pod
from tests.lab.watch import prefixes, routes
from tests.netns.e2e import Pair, require, traffic, untouched
from tests.netns.mixed import BLOCKS, A, B, C, MixedLab, see

pytestmark = [pytest.mark.netns, pytest.mark.slow]
Figure = Callable[[str, object], None]
NORMAL, ELEVATED = "BGP.local_pref: 2147482623", "BGP.local_pref: 2147483135"


@pytest.fixture(scope="module")
def lab() -> Iterator[MixedLab]:
    require("bird")
    with MixedLab() as lab:
        lab.start()
        lab.wait_converged()
        lab.wait_settled()
        for node in lab.nodes:
            lab.add_pod(node, f"pod-{node.name[-1]}")
        yield lab


def pods(lab: Lab) -> list[Pod]:
    return [node.pods[f"pod-{node.name[-1]}"] for node in lab.nodes]


def mesh_pairs(lab: Lab) -> list[Pair]:
    return [(one.endpoint, other.endpoint) for one, other in itertools.combinations(pods(lab), 2)]


def in_family(example: str, ipv4: str, ipv6: str) -> str:
    return ipv6 if ":" in example else ipv4


def host(address: str) -> str:
    """The prefix of one address."""
    return f"{address}/{in_family(address, '32', '128')}"


# The mesh


def test_the_side_with_the_lesser_address_as_text_waits(lab: MixedLab) -> None:
    """ "172.20.0.9" > "172.20.0.10": node-a is passive, node-b dials from its own address to node-a's port 179."""
    peer = lab.ours("a").api("/v1/peer?name=Mesh_172_20_0_9")
    assert peer["passive"] and peer["peer"]["state"] == "Established"
    assert not lab.ours("b").api("/v1/peer?name=Mesh_172_20_0_10")["passive"]
    text = lab.node("b").namespace.run(["ss", "-Htn", "state", "established"])
    (connection,) = (line.split() for line in text.splitlines() if f"{A}:" in line)
    local, remote = connection[-2:]
    assert remote == f"{A}:179" and local.startswith(f"{B}:") and not local.endswith(":179")


def test_add_path_and_graceful_restart_are_agreed_with_bird(lab: MixedLab) -> None:
    for letter in "ab":
        for name, family in (("Mesh_172_20_0_13", "ipv4"), ("Mesh_fd00_172_20__13", "ipv6")):
            agreed = lab.ours(letter).api(f"/v1/peer?name={name}")["negotiated"]
            assert agreed["families"] == agreed["add_path_receive"] == agreed["add_path_send"] == [family]
            assert agreed["graceful_restart"] is not None and agreed["hold_time"] == 240


def test_every_kernel_has_the_same_ways(lab: MixedLab) -> None:
    """Ours and BIRD's programmed routes are one table: each other node's block by that node, with metric 1024."""
    for node in lab.nodes:
        own = set(node.blocks)
        learned = {r for r in routes(node.namespace) if r.prefix in set(sum(BLOCKS.values(), ())) - own}
        expected = {
            (block, ((other.ipv6 if ":" in block else other.ipv4, "eth0"),), 1024)
            for other in lab.nodes
            if other is not node
            for block in other.blocks
        }
        assert {(r.prefix, r.hops, r.metric) for r in learned} == expected, node.name


def test_what_ours_and_bird_tell_is_told_alike(lab: MixedLab) -> None:
    for version in (4, 6):
        for listener, ours, birds in (("c", "a", "d"), ("d", "b", "c")):
            one = lab.heard(listener, BLOCKS[ours][version == 6], ours)
            other = lab.heard(listener, BLOCKS[birds][version == 6], birds)
            assert one and other
            for name in ("BGP.origin", "BGP.as_path", "BGP.local_pref"):
                lines = [next(row for row in text.splitlines() if name in row) for text in (one, other)]
                assert lines[0].split() == lines[1].split()


def test_all_pods_reach_each_other(lab: MixedLab, figure: Figure) -> None:
    with traffic(mesh_pairs(lab), 200) as probes:
        time.sleep(1)
        account = probes.finish()
    figure("packets between pods of all four nodes", account)
    assert account.lost == 0, "\n".join(map(str, account.losses))


@pytest.mark.parametrize("letter", ["a", "c"])
def test_one_side_dies_and_no_packet_is_lost_by_the_other(lab: MixedLab, letter: str, figure: Figure) -> None:
    """Node-a (ours) or node-c (BIRD) is killed and comes back. What BIRD does to its own kernel is BIRD's."""
    survivors = [node.name for node in lab.nodes if node.name[-1] in "ab" and node.name[-1] != letter]
    with untouched(lab, *survivors) as changes, traffic(mesh_pairs(lab), 200) as probes:
        machine = lab.node(letter)
        machine.bgp.kill()
        time.sleep(0.5)
        machine.bgp.start()
        lab.wait_settled(60)
        lab.wait_converged()
        account = probes.finish()
    figure(f"node-{letter} killed", account)
    assert not changes, "\n".join(changes)
    lossy = [str(loss) for loss in account.losses if loss.lost and not ("pod-c" in loss.flow or "pod-d" in loss.flow)]
    assert not lossy, "\n".join(lossy)


# The worked examples


def test_what_node_a_announces(lab: MixedLab) -> None:
    """Its block with the node as next hop; neither pods inside it, nor the nodes' subnet, nor a default route."""
    assert lab.told("c", "a") == {BLOCKS["a"][0]} and lab.told("c", "a", 6) == {BLOCKS["a"][1]}
    for prefix, address in ((BLOCKS["a"][0], A), (BLOCKS["a"][1], "fd00:172:20::10")):
        text = lab.heard("c", prefix, "a")
        assert f"BGP.next_hop: {address}" in text and NORMAL in text and "BGP.origin: IGP" in text
        assert "BGP.as_path: \n" in text


def test_kernel_of_node_a(lab: MixedLab) -> None:
    assert lab.shown("a", BLOCKS["b"][0]) == [f"{BLOCKS['b'][0]} via {B} dev eth0 proto 12 metric 1024"]
    assert lab.shown("a", BLOCKS["a"][0]) == [f"blackhole {BLOCKS['a'][0]} proto 12"]
    (pod,) = lab.shown("a", pods(lab)[0].ipv4)
    assert "dev calipoda" in pod and "proto 80" in pod and "metric 1024" in pod


@pytest.mark.parametrize("address", ["10.244.2.7", "fd00:10:244:2::7"])
def test_borrowed_address(lab: MixedLab, address: str) -> None:
    """A pod on node-a has an address of node-b's block: a route of its own, beside the block, with metric 1024."""
    gateway = in_family(address, A, "fd00:172:20::10")
    lab.add_route("a", f"{address} dev calipoda proto 80 metric 1024")
    see("the address in node-b's kernel", lambda: lab.shown("b", address))
    assert f"via {gateway} dev eth0 proto 12 metric 1024" in lab.shown("b", address)[0]
    see("the address at BIRD", lambda: NORMAL in lab.heard("c", host(address), "a"))
    lab.delete_route("a", f"{address} dev calipoda proto 80 metric 1024")
    see("gone again", lambda: not lab.shown("b", address) and not lab.heard("c", host(address), "a"))


@pytest.mark.parametrize("address", ["10.244.1.5", "fd00:10:244:1::5"])
def test_live_migration(lab: MixedLab, address: str) -> None:
    """A VM moves from node-a to node-b: there Felix's route has metric 512, and it wins over node-a's own."""
    target = in_family(address, B, "fd00:172:20::9")
    lab.add_route("a", f"{address} dev calipoda proto 80 metric 1024")
    lab.add_route("b", f"{address} dev calipodb proto 80 metric 512")
    see("LOCAL_PREF at BIRD", lambda: ELEVATED in lab.heard("c", host(address), "b"))
    see("both routes in node-a's kernel", lambda: len(lab.shown("a", address)) == 2)
    assert f"{address} via {target} dev eth0 proto 12 metric 512" in str(lab.shown("a", address))
    assert f"via {target} dev eth0" in lab.node("a").namespace.run(["ip", "route", "get", address])
    assert lab.shown("a", BLOCKS["b"][":" in address]), "the block stays as it was"
    lab.delete_route("a", f"{address} metric 1024")
    # Migrated: Felix sets the normal priority, and node-b tells it as any borrowed address.
    lab.add_route("b", f"{address} dev calipodb proto 80 metric 1024")
    lab.delete_route("b", f"{address} metric 512")
    see("normal LOCAL_PREF at BIRD", lambda: NORMAL in lab.heard("c", host(address), "b"))
    see("metric 1024", lambda: f"via {target} dev eth0 proto 12 metric 1024" in str(lab.shown("a", address)))
    lab.delete_route("b", f"{address} metric 1024")
    see("gone again", lambda: not lab.shown("a", address))


@pytest.mark.parametrize("address", ["10.244.2.9", "fd00:10:244:2::9"])
def test_live_migration_into_the_own_block(lab: MixedLab, address: str) -> None:
    """The elevated route leaves though it lies in node-b's own block, which hides its other pods."""
    lab.add_route("b", f"{address} dev calipodb proto 80 metric 512")
    see("the address at BIRD", lambda: ELEVATED in lab.heard("c", host(address), "b"))
    see("metric 512 in node-a's kernel", lambda: "metric 512" in str(lab.shown("a", address)))
    lab.delete_route("b", f"{address} metric 512")
    see("gone again", lambda: not lab.shown("a", address) and not lab.heard("c", host(address), "b"))


@pytest.mark.parametrize("address", ["10.244.1.6", "fd00:10:244:1::6"])
@pytest.mark.parametrize(("source", "target"), [("a", "c"), ("c", "a")])
def test_live_migration_between_ours_and_bird(lab: MixedLab, address: str, source: str, target: str) -> None:
    """From node-a to BIRD's node-c and back: each side raises the other's priority, and the source hands over."""
    gateway = in_family(address, lab.node(target).ipv4, lab.node(target).ipv6)
    lab.add_route(source, f"{address} dev calipod{source} proto 80 metric 1024")
    see("the source's own way", lambda: len(lab.shown(source, address)) == 1)
    lab.add_route(target, f"{address} dev calipod{target} proto 80 metric 512")
    wanted = f"via {gateway} dev eth0 proto 12 metric 512"
    see("the target's way on the source, with metric 512", lambda: wanted in str(lab.shown(source, address)))
    see("and on node-b", lambda: wanted in str(lab.shown("b", address)))
    assert len(lab.shown(source, address)) == 2, "Felix's own route is left alone"
    lab.delete_route(source, f"{address} metric 1024")
    lab.delete_route(target, f"{address} metric 512")
    see("gone again", lambda: not lab.shown(source, address) and not lab.shown("b", address))


@pytest.mark.parametrize("version", [4, 6])
def test_ebgp_router(lab: MixedLab, version: int) -> None:
    """It gets node-a's block and, by node-a, the others'; what it announces stays with the node that heard it."""
    own, announced = (A, TOR_PREFIXES[0]) if version == 4 else ("fd00:172:20::10", TOR_PREFIXES[1])
    for letter in "abc":
        text = lab.heard("t", BLOCKS[letter][version == 6], "a")
        assert f"BGP.next_hop: {own}" in text and f"BGP.as_path: {NODE_ASN}\n" in text and NORMAL not in text
    kernel = [(r.prefix, r.metric) for r in routes(lab.node("a").namespace) if r.prefix == announced]
    assert kernel == [(announced, 2147483547)]
    assert not lab.heard("c", announced, "a")


@pytest.mark.parametrize("version", [4, 6])
def test_default_route_of_the_router(lab: MixedLab, version: int) -> None:
    """Taken, with the lowest priority, and not told to the other nodes."""
    prefix, gateway = ("0.0.0.0/0", "172.20.0.1") if version == 4 else ("::/0", "fd00:172:20::1")
    path = lab.folder / "tor.bird.conf"
    before = path.read_text()
    path.write_text(before + f"protocol static default{version} {{ ipv{version}; route {prefix} blackhole; }}\n")
    lab.bird("t").control("configure")
    see("the default route", lambda: ours(lab, prefix))
    assert f"via {gateway} dev eth0 proto 12 metric 2147483547" in ours(lab, prefix)[0]
    see("the blocks as before", lambda: not list(lab.missing()))
    assert not lab.heard("c", prefix, "a")
    path.write_text(before)
    lab.bird("t").control("configure")
    see("gone again", lambda: not ours(lab, prefix))


def ours(lab: MixedLab, prefix: str) -> list[str]:
    """Node-a's own kernel routes for a prefix (every namespace has IPv6 defaults of the kernel's)."""
    return [line for line in lab.shown("a", prefix) if "proto 12" in line]


def test_disable_bgp_export(lab: MixedLab) -> None:
    with lab.changed(*(lab.edited("IPPool", f"pool-ipv{v}", disableBGPExport=True) for v in (4, 6))):
        see("nothing of the pool leaves node-b", lambda: not lab.told("c", "b") and not lab.told("c", "b", 6))
        see("node-a lost node-b's blocks", lambda: not set(BLOCKS["b"]) & prefixes(lab.node("a").namespace))
        see("nor to the router", lambda: not lab.told("t", "a") and not lab.told("t", "a", 6))


def test_cluster_id_without_peers_ends_the_mesh_session(lab: MixedLab) -> None:
    node = lab.edited("Node", "node-b")
    node["spec"]["bgp"]["routeReflectorClusterID"] = "244.0.0.1"
    with lab.changed(node):
        see("no session A to B", lambda: not any("172_20_0_9" in name for name in lab.ours("a").sessions()))
        see("no mesh on B", lambda: not any(name.startswith("Mesh_") for name in lab.ours("b").sessions()))


def test_reflector_by_peer_selector(lab: MixedLab) -> None:
    """Node-b, labelled, reflects: sessions to it, and from it to every node as a client, by one BGPPeer."""
    node = lab.edited("Node", "node-b")
    node["spec"]["bgp"]["routeReflectorClusterID"] = "244.0.0.1"
    node["metadata"]["labels"] = {"rr": "true"}
    peer = resources.resource("BGPPeer", "rr", {"nodeSelector": "all()", "peerSelector": "rr == 'true'"})
    conf = lab.edited("BGPConfiguration", "default", nodeToNodeMeshEnabled=False)
    with lab.changed(node, peer, conf):
        see("node-a's session", lambda: lab.ours("a").sessions().get("Node_172_20_0_9"))
        kinds = {row["name"]: row["kind"] for row in lab.ours("b").api("/v1/peers")}
        clients = {name for name, kind in kinds.items() if kind == "ibgp-client"}
        assert {"Node_172_20_0_10", "Node_172_20_0_13", "Node_172_20_0_14"} <= clients
        assert not any("172_20_0_9" in name for name in kinds)
        see("node-c's block by reflection", lambda: f"via {C} " in str(lab.shown("a", BLOCKS["c"][0])))
        see("node-a's block, reflected to BIRD", lambda: "cluster_list" in lab.heard("c", BLOCKS["a"][0], "b"))
        text = lab.heard("c", BLOCKS["a"][0], "b")
        assert f"BGP.originator_id: {A}" in text and "BGP.cluster_list: 244.0.0.1" in text
        assert f"BGP.next_hop: {A}" in text


def test_ipip_pool_is_felix_s_by_default(lab: MixedLab) -> None:
    """Blocks are announced as before, their routes are Felix's; what Felix writes by tunl0 is not announced again."""
    tunnel(lab)
    try:
        with lab.changed(lab.edited("IPPool", "pool-ipv4", ipipMode="Always")):
            see("node-a lost node-b's block", lambda: not lab.shown("a", BLOCKS["b"][0]))
            lab.add_route("a", f"{BLOCKS['b'][0]} via {B} dev tunl0 proto 80 onlink")
            time.sleep(0.3)
            assert lab.told("c", "a") == {BLOCKS["a"][0]}
            assert lab.told("c", "b") == {BLOCKS["b"][0]}
            lab.delete_route("a", f"{BLOCKS['b'][0]} proto 80")
    finally:
        no_tunnel(lab)


def test_ipip_pool_with_program_cluster_routes(lab: MixedLab) -> None:
    """Through tunl0, onlink, to the BGP next hop itself; plain while the device is not there."""
    documents = (
        lab.edited("IPPool", "pool-ipv4", ipipMode="Always"),
        lab.edited("BGPConfiguration", "default", programClusterRoutes="Enabled"),
    )
    plain = f"{BLOCKS['b'][0]} via {B} dev eth0 proto 12 metric 1024"
    through = f"{BLOCKS['b'][0]} via {B} dev tunl0 proto 12 metric 1024 onlink"
    tunnel(lab)
    try:
        with lab.changed(*documents):
            see("through the tunnel", lambda: lab.shown("a", BLOCKS["b"][0]) == [through])
            assert "tunl0" not in str(lab.shown("a", TOR_PREFIXES[0]))
            no_tunnel(lab)
            see("plain without it", lambda: lab.shown("a", BLOCKS["b"][0]) == [plain])
            assert "tunl0 does not exist" in lab.ours("a").control("explain", BLOCKS["b"][0])
            tunnel(lab)
            see("through the tunnel again", lambda: lab.shown("a", BLOCKS["b"][0]) == [through])
            with untouched(lab, "node-a") as changes:
                lab.node("a").bgp.kill()
                lab.node("a").bgp.start()
                lab.wait_settled(60)
            assert not changes, "\n".join(changes)
        see("plain again", lambda: lab.shown("a", BLOCKS["b"][0]) == [plain])
    finally:
        no_tunnel(lab)


def tunnel(lab: MixedLab) -> None:
    """A veth stands for IPIP's device, which not every kernel has."""
    namespace = lab.node("a").namespace
    namespace.run(["ip", "link", "add", "tunl0", "type", "veth", "peer", "name", "tunl0-peer"])
    for link in ("tunl0-peer", "tunl0"):
        namespace.run(["ip", "link", "set", link, "up"])


def no_tunnel(lab: MixedLab) -> None:
    namespace = lab.node("a").namespace
    if "tunl0" in namespace.run(["ip", "link", "show"]):
        namespace.run(["ip", "link", "del", "tunl0"])


def test_services(lab: MixedLab) -> None:
    """The range from both nodes, the address of a Local Service from the node with its pod; neither in any kernel."""
    meta = {"namespace": "default"}
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "web", **meta},
        "spec": {
            "type": "ClusterIP",
            "clusterIP": "10.96.0.20",
            "clusterIPs": ["10.96.0.20", "fd00:96::20"],
            "ipFamilies": ["IPv4", "IPv6"],
            "externalTrafficPolicy": "Local",
        },
    }
    endpoints = {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": "web-1", "labels": {"kubernetes.io/service-name": "web"}, **meta},
        "addressType": "IPv4",
        "endpoints": [{"addresses": ["10.244.1.5"], "nodeName": "node-a", "conditions": {"ready": True}}],
    }
    ranges = [{"cidr": "10.96.0.0/12"}, {"cidr": "fd00:96::/112"}]
    with lab.changed(lab.edited("BGPConfiguration", "default", serviceClusterIPs=ranges), service, endpoints):
        for letter in "ab":
            see(f"the ranges from node-{letter}", lambda one=letter: lab.heard("c", "10.96.0.0/12", one))
            see(f"the ranges from node-{letter}", lambda one=letter: lab.heard("c", "fd00:96::/112", one))
        see("the address from node-a", lambda: NORMAL in lab.heard("c", "10.96.0.20/32", "a"))
        see("the address from node-a", lambda: NORMAL in lab.heard("c", "fd00:96::20/128", "a"))
        assert not lab.heard("c", "10.96.0.20/32", "b")
        for letter in "ab":
            assert not {"10.96.0.0/12", "10.96.0.20", "fd00:96::/112"} & prefixes(lab.node(letter).namespace)
        node = lab.edited("Node", "node-a")
        node["metadata"]["labels"] = {"node.kubernetes.io/exclude-from-external-load-balancers": "true"}
        with lab.changed(node):
            see("nothing from the excluded node", lambda: not lab.heard("c", "10.96.0.0/12", "a"))
            assert not lab.heard("c", "10.96.0.20/32", "a") and lab.heard("c", "10.96.0.0/12", "b")
    see("gone again", lambda: not lab.heard("c", "10.96.0.0/12", "b"))


@pytest.mark.parametrize("address", ["10.244.1.5", "fd00:10:244:1::5"])
def test_filter_on_elevated_routes_to_the_router(lab: MixedLab, address: str) -> None:
    rule = {
        "priority": 512,
        "peerType": "eBGP",
        "action": "Accept",
        "operations": [{"addCommunity": {"value": "64512:7"}}],
    }
    bgp_filter = resources.resource("BGPFilter", "elevated", {"exportV4": [rule], "exportV6": [rule]})
    router = in_family(address, "172.20.0.1", "fd00:172:20::1")
    name = f"tor-ipv{in_family(address, '4', '6')}"
    peer = resources.peer(name, router, TOR_ASN, filters=["elevated"], nodeSelector="has(rack)")
    lab.add_route("b", f"{address} dev calipodb proto 80 metric 512")
    try:
        with lab.changed(bgp_filter, peer):
            see("the community at the router", lambda: "(64512,7)" in lab.heard("t", host(address), "b"))
            assert "community" not in lab.heard("t", BLOCKS["b"][":" in address], "b")
            assert "community" not in lab.heard("c", host(address), "b")
    finally:
        lab.delete_route("b", f"{address} metric 512")


@pytest.mark.parametrize("version", [4, 6])
def test_wireguard_peers_are_felix_s(lab: MixedLab, version: int) -> None:
    """Routes between two nodes that both have a WireGuard address of the family; the other family stays as it is."""
    addresses = {"a": "10.244.1.60", "b": "10.244.2.60"}
    if version == 6:
        addresses = {"a": "fd00:10:244:1::60", "b": "fd00:10:244:2::60"}
    field = f"interfaceIPv{version}Address"
    nodes = [lab.edited("Node", f"node-{one}", wireguard={field: address}) for one, address in addresses.items()]
    own, other = (version == 6), (version == 4)
    with lab.changed(*nodes):
        see("node-b's block is not ours to write", lambda: not lab.shown("a", BLOCKS["b"][own]))
        see("nor node-a's", lambda: not lab.shown("b", BLOCKS["a"][own]))
        assert lab.shown("a", BLOCKS["c"][own]) and lab.shown("a", BLOCKS["b"][other])
        assert lab.told("c", "a", version) == {BLOCKS["a"][own]}, "announced as before"
    assert lab.shown("a", BLOCKS["b"][own])
