"""The main job on real kernels: pods reach each other and the outside, and everything that changes is followed live."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest

from tests.lab import datastore as resources
from tests.lab.cluster import NODE_ASN, TOR_ASN, TOR_PREFIXES, Lab, Machine, Pod
from tests.lab.speakers import OurSpeaker
from tests.lab.watch import KernelRoute, RouteMonitor, prefixes, routes, wait_until
from tests.netns.e2e import running_lab, traffic, untouched

pytestmark = pytest.mark.netns
Figure = Callable[[str, object], None]
TOR_KINDS = ("ours", "bird")


@pytest.fixture(scope="module", params=TOR_KINDS)
def lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    with running_lab(request.param) as lab:
        for letter in "abc":
            lab.add_pod(lab.node(letter), f"pod-{letter}")
        yield lab


def pod(lab: Lab, letter: str) -> Pod:
    return lab.node(letter).pods[f"pod-{letter}"]


def ours(machine: Machine) -> OurSpeaker:
    assert isinstance(machine.bgp, OurSpeaker)
    return machine.bgp


def settled(lab: Lab) -> None:
    """Until all is as at the start: a test leaves the lab as it found it."""
    lab.wait_converged()
    lab.wait_settled()


def flaps(machine: Machine) -> dict[str, int]:
    return {peer["name"]: peer["flaps"] for peer in ours(machine).api("/v1/peers")}


def test_pods_and_outside_reach_each_other_in_both_families(lab: Lab, figure: Figure) -> None:
    a, b, c = (pod(lab, letter).endpoint for letter in "abc")
    with traffic([(a, b), (b, c), (a, lab.outside), (c, lab.outside)]) as probes:
        time.sleep(1)
        account = probes.finish()
    figure("packets", account)
    assert account.lost == 0, "\n".join(map(str, account.losses))


def test_node_kernel_holds_exactly_the_learned_routes_and_own_blackholes(lab: Lab) -> None:
    expected = {
        KernelRoute("10.244.1.0/26", "blackhole", "12", 0, ()),
        KernelRoute("10.244.2.0/26", "unicast", "12", 1024, (("172.20.0.12", "eth0"),)),
        KernelRoute("10.244.3.0/26", "unicast", "12", 1024, (("172.20.0.13", "eth0"),)),
        KernelRoute("fd00:10:244:1::/122", "blackhole", "12", 1024, ()),
        KernelRoute("fd00:10:244:2::/122", "unicast", "12", 1024, (("fd00:172:20::12", "eth0"),)),
        KernelRoute("fd00:10:244:3::/122", "unicast", "12", 1024, (("fd00:172:20::13", "eth0"),)),
    }
    found = routes(lab.node("a").namespace)
    assert expected <= found
    assert {route.prefix for route in found - expected} == set(TOR_PREFIXES)
    assert {route.metric for route in found - expected} == {2147483547}


def test_pod_outside_the_blocks_is_announced_and_withdrawn(lab: Lab, figure: Figure) -> None:
    node, observer = lab.node("a"), lab.node("b")
    addresses = ("10.244.200.7", "fd00:10:244:200::7")
    with RouteMonitor(observer.namespace, lab.folder) as monitor:
        new = lab.add_pod(node, "pod-new", *addresses)
        wait_until("the pod's routes at node-b", lambda: set(addresses) <= prefixes(observer.namespace))
        with traffic([(new.endpoint, pod(lab, "b").endpoint)], 200) as probes:
            account = probes.finish()
        gone_at = lab.remove_pod(new)
        wait_until("no route of the pod at node-b", lambda: not set(addresses) & prefixes(observer.namespace))
        changes = [change for change in monitor.changes() if change.prefix in addresses]
    assert account.lost == 0, "\n".join(map(str, account.losses))
    came = [1000 * (c.at - new.added_at) for c in changes if not c.deleted]
    went = [1000 * (c.at - gone_at) for c in changes if c.deleted]
    assert len(came) == 2 and len(went) == 2, changes
    figure("pod's route in the kernel here to route in the kernel there", f"{max(came):.1f} ms")
    figure("the same, taken away", f"{max(went):.1f} ms")


def test_pod_inside_its_block_changes_nothing_elsewhere(lab: Lab) -> None:
    with untouched(lab, "node-b", "node-c") as changes:
        new = lab.add_pod(lab.node("a"), "pod-inside")
        with traffic([(new.endpoint, pod(lab, "c").endpoint)], 200) as probes:
            account = probes.finish()
        lab.remove_pod(new)
    assert account.lost == 0
    assert not changes


def test_deleted_route_is_back(lab: Lab, figure: Figure) -> None:
    node = lab.node("a")
    before = routes(node.namespace)
    with RouteMonitor(node.namespace, lab.folder) as monitor:
        for prefix in ("10.244.2.0/26", "fd00:10:244:2::/122", "10.244.1.0/26"):
            family = "-6" if ":" in prefix else "-4"
            node.namespace.run(["ip", family, "route", "del", prefix, "proto", "12"])
        wait_until("the deleted routes are back", lambda: routes(node.namespace) == before, 10)
        changes = monitor.changes()
    for prefix in ("10.244.2.0/26", "fd00:10:244:2::/122", "10.244.1.0/26"):
        gone, back = (next(c.at for c in changes if c.prefix == prefix and c.deleted is d) for d in (True, False))
        figure(f"{prefix} back after", f"{1000 * (back - gone):.1f} ms")


def test_foreign_routes_are_left_alone(lab: Lab) -> None:
    node = lab.node("a")
    foreign = [
        ["10.99.0.0/16", "via", "172.20.0.13", "proto", "static"],
        ["10.244.2.0/26", "via", "172.20.0.13", "proto", "static", "metric", "4000"],
        ["fd00:99::/48", "via", "fd00:172:20::13", "proto", "static"],
    ]
    for route in foreign:
        node.namespace.run(["ip", "route", "add", *route])
    try:
        before = routes(node.namespace, None)
        with RouteMonitor(node.namespace, lab.folder) as monitor:
            node.bgp.kill()
            node.bgp.start()
            settled(lab)
            touched = [c for c in monitor.changes(None) if " proto 12" not in c.line and c.what == "route"]
        assert routes(node.namespace, None) == before
        assert not touched
        listed = {r.prefix for r in routes(lab.node("b").namespace)}
        assert not {"10.99.0.0/16", "fd00:99::/48"} & listed
    finally:
        for route in foreign:
            node.namespace.run(["ip", "route", "del", *route])


def test_foreign_route_of_the_same_prefix_and_metric_wins_until_it_goes(lab: Lab) -> None:
    """Outside the pools, so that node-b does not announce its static route as it would a pod's."""
    owner, node, other = lab.node("a"), lab.node("b"), lab.node("c")
    blocks = {"10.250.1.0/26": other.ipv4, "fd00:250:1::/122": other.ipv6}
    for prefix, gateway in blocks.items():
        node.namespace.run(["ip", "route", "add", prefix, "via", gateway, "proto", "static", "metric", "1024"])
    lab.datastore.put(*(resources.block(owner.name, prefix) for prefix in blocks))
    wait_until("node-c has them", lambda: set(blocks) <= prefixes(other.namespace))
    time.sleep(0.3)
    found = {(r.prefix, r.protocol, r.hops[0][0]) for r in routes(node.namespace, None) if r.prefix in blocks}
    assert found == {(prefix, "4", gateway) for prefix, gateway in blocks.items()}
    assert "foreign" in ours(node).control("routes", "10.250.1.0/26")
    for prefix in blocks:
        node.namespace.run(["ip", "route", "del", prefix, "proto", "static", "metric", "1024"])
    wait_until("ours are in once the others are gone", lambda: set(blocks) <= prefixes(node.namespace), 10)
    for prefix in blocks:
        lab.datastore.delete("BlockAffinity", resources.block(owner.name, prefix)["metadata"]["name"])
    wait_until("withdrawn", lambda: not set(blocks) & prefixes(node.namespace))


def test_peer_file_removed_and_added_touches_only_its_sessions(lab: Lab) -> None:
    node = lab.node("a")
    before = {name: count for name, count in flaps(node).items() if "172_20_0_1" not in name}
    assert lab.tor is not None
    address = lab.tor.ipv4
    lab.datastore.delete("BGPPeer", "tor-ipv4")
    outside4 = TOR_PREFIXES[0]
    wait_until("routes of the removed peer are gone", lambda: outside4 not in prefixes(node.namespace))
    assert TOR_PREFIXES[1] in prefixes(node.namespace)
    lab.datastore.put(resources.peer("tor-ipv4", address, TOR_ASN))
    settled(lab)
    after = flaps(node)
    assert {name: after[name] for name in before} == before


def test_block_added_and_removed_live(lab: Lab, figure: Figure) -> None:
    cidrs = ("10.244.77.0/26", "fd00:10:244:77::/122")
    node, observer = lab.node("c"), lab.node("a")
    with untouched(lab, "node-b") as changes:
        began = time.monotonic()
        lab.datastore.put(*(resources.block(node.name, cidr) for cidr in cidrs))
        wait_until("the block at node-a", lambda: set(cidrs) <= prefixes(observer.namespace), pause=0.01)
        figure("block file to route at another node", f"{1000 * (time.monotonic() - began):.0f} ms")
        assert set(cidrs) <= prefixes(node.namespace)
        for cidr in cidrs:
            name = resources.block(node.name, cidr)["metadata"]["name"]
            lab.datastore.delete("BlockAffinity", name)
        wait_until("the block gone from node-a", lambda: not set(cidrs) & prefixes(observer.namespace))
        wait_until("the blackhole gone from node-c", lambda: not set(cidrs) & prefixes(node.namespace))
        wait_until("the block gone from node-b", lambda: not set(cidrs) & prefixes(lab.node("b").namespace))
    assert not changes


def test_bad_resource_is_refused_and_the_last_good_one_stays(lab: Lab) -> None:
    node = lab.node("a")
    assert lab.tor is not None
    good = resources.peer("tor-ipv4", lab.tor.ipv4, TOR_ASN)
    with untouched(lab, "node-a", "node-b") as changes:
        lab.datastore.put(good | {"spec": {"peerIP": "300.1.2.3", "asNumber": TOR_ASN}})

        def problems() -> str:
            return str(ours(node).api("/v1/status")["datastore"]["problems"])

        wait_until("the problem in status", lambda: "tor-ipv4" in problems())
        assert "300.1.2.3" in problems()
        lab.datastore.put_text("BGPPeer", "nonsense", "kind: [unclosed\n")
        wait_until("the unreadable file in status", lambda: "nonsense" in problems())
        lab.datastore.put(good)
        lab.datastore.delete("BGPPeer", "nonsense")
        wait_until("no problem left", lambda: problems() == "[]")
    assert not changes


def test_felix_tunnel_and_direct_routes_stay_at_home(lab: Lab) -> None:
    """Only pods inside pools and own blocks are announced: no node subnet, no loopback, no gateway."""
    assert lab.tor is not None
    seen = prefixes(lab.tor.namespace, lab.tor.bgp.protocol)
    assert not {"172.20.0.0/24", "169.254.1.1", "fd00:172:20::/64"} & seen
    assert seen == lab.expected(lab.tor)


def test_status_peers_routes_and_explain_tell_the_same(lab: Lab) -> None:
    speaker = ours(lab.node("a"))
    status = speaker.api("/v1/status")
    assert status["asn"] == NODE_ASN and status["ready"]["ok"]
    assert status["peers"]["established"] == status["peers"]["configured"] == 6
    assert "10.244.2.0/26" in speaker.control("routes")
    assert "172.20.0.12" in speaker.control("explain", "10.244.2.0/26")
    assert "Established" in speaker.control("peers")
    assert "node-a" in speaker.control("status")


def test_link_down_and_up_restores_everything(lab: Lab, figure: Figure) -> None:
    """The kernel drops the routes of a link that goes down without a word about each."""
    node = lab.node("b")
    before = routes(node.namespace)
    node.namespace.run(["ip", "link", "set", "eth0", "down"])
    time.sleep(0.2)
    began = time.monotonic()
    node.namespace.run(["ip", "link", "set", "eth0", "up"])
    # The kernel removed the IPv6 addresses with the link; a node's network service puts them back.
    node.namespace.run(["ip", "addr", "replace", f"{node.ipv6}/64", "dev", "eth0", "nodad"])
    node.namespace.run(["ip", "route", "replace", "169.254.1.1", "dev", "eth0", "scope", "link"])
    wait_until("all routes are back", lambda: routes(node.namespace) == before, 60)
    figure("routes complete after the link is up", f"{time.monotonic() - began:.2f} s")
    settled(lab)


def test_kernel_clean_removes_all_of_ours_and_nothing_else(lab: Lab) -> None:
    node = lab.node("c")
    others = {route for route in routes(node.namespace, None) if route.protocol != "12"}
    node.bgp.kill()
    try:
        node.namespace.run([*ours(node).bgpctl, "kernel", "clean", "--yes"])
        assert routes(node.namespace) == frozenset()
        assert routes(node.namespace, None) == others
        assert "proto 12" not in node.namespace.run(["ip", "-N", "nexthop"])
    finally:
        node.bgp.start()
        settled(lab)
