"""Traffic never stops: speakers die under packets and come back; kernel routes that did not change are not touched.

Where our speaker is the helper of the one that dies, no packet may be lost. Where BIRD or FRR is, what they lose is
reported: after a second restart both follow RFC 4724 §4.2 and drop what was stale already.
"""

from __future__ import annotations

import random
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator
from ipaddress import ip_address, ip_network

import pytest

from tests.lab.cluster import Lab, Machine
from tests.lab.probes import Account, Loss
from tests.lab.watch import Change, RouteMonitor, routes
from tests.netns.e2e import Pair, running_lab, traffic, untouched

pytestmark = [pytest.mark.netns, pytest.mark.slow]
Figure = Callable[[str, object], None]
HELPERS = ("ours", "bird", "frr")


@pytest.fixture(scope="module", params=HELPERS)
def lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    with running_lab(request.param) as lab:
        for letter in "abc":
            lab.add_pod(lab.node(letter), f"pod-{letter}")
        yield lab


def pairs(lab: Lab) -> tuple[list[Pair], list[Pair]]:
    """Flows between pods (our speakers on both sides), and flows to the outside (the router as helper)."""
    a, b, c = (lab.node(letter).pods[f"pod-{letter}"].endpoint for letter in "abc")
    return [(a, b), (b, c)], [(a, lab.outside), (b, lab.outside)]


def back(lab: Lab, machine: Machine) -> None:
    machine.bgp.start()
    lab.wait_settled(60)
    lab.wait_converged()


def kill_once(lab: Lab, machine: Machine) -> None:
    machine.bgp.kill()
    time.sleep(1)
    back(lab, machine)


def kill_twice(lab: Lab, machine: Machine) -> None:
    """Calico's outage of 2017: the second restart, one second after the first."""
    machine.bgp.kill()
    machine.bgp.launch()
    time.sleep(1)
    machine.bgp.kill()
    back(lab, machine)


def kill_at_random(lab: Lab, machine: Machine) -> None:
    """Three kills, each at any moment of the start before it."""
    moments = random.Random(20170923)
    for _ in range(3):
        machine.bgp.kill()
        time.sleep(moments.uniform(0, 0.3))
        machine.bgp.launch()
        time.sleep(moments.uniform(0, 1.5))
    machine.bgp.kill()
    back(lab, machine)


def lost_by(account: Account, flows: list[Pair]) -> str:
    """The account of some of the flows."""
    names = {f"{one.name} - {other.name}" for one, other in flows}
    part = Account(tuple(loss for loss in account.losses if loss.flow.split(" IPv")[0] in names))
    return str(part)


@pytest.mark.parametrize("how", [kill_once, kill_twice, kill_at_random])
def test_node_speaker_dies_under_traffic(lab: Lab, how: Callable[[Lab, Machine], None], figure: Figure) -> None:
    between_pods, outside = pairs(lab)
    node = lab.node("b")
    with untouched(lab, "node-a", "node-b", "node-c") as changes, traffic([*between_pods, *outside]) as probes:
        how(lab, node)
        account = probes.finish()
    figure(f"{how.__name__}, pods to pods", lost_by(account, between_pods))
    figure(f"{how.__name__}, {lab.tor_kind} as helper", lost_by(account, outside))
    figure(f"{how.__name__}, unchanged kernel routes touched", len(changes))
    assert not changes, "\n".join(changes)
    must_not_lose = (
        account.losses if lab.tor_kind == "ours" else [loss for loss in account.losses if "tor" not in loss.flow]
    )
    lossy = [str(loss) for loss in must_not_lose if loss.lost]
    assert not lossy, "\n".join(lossy)


@pytest.mark.parametrize("how", [kill_once, kill_twice])
def test_router_dies_under_traffic(lab: Lab, how: Callable[[Lab, Machine], None], figure: Figure) -> None:
    """Our nodes as helpers of the router. Only our own keeps its kernel routes by itself, and is held to it."""
    assert lab.tor is not None
    if lab.tor_kind != "ours":
        others_router_dies(lab, how, figure)
        return
    _, outside = pairs(lab)
    nodes = untouched(lab, "node-a", "node-b", "node-c")
    with nodes as changes, untouched(lab, "tor") as of_router, traffic(outside) as probes:
        how(lab, lab.tor)
        account = probes.finish()
    figure(how.__name__, account)
    # Its three next hops for each block come back one peer after the other, and the route is replaced in place.
    figure(f"{how.__name__}, routes of the router replaced in place", len(of_router))
    deleted = [line for line in of_router if "]Deleted" in line or "differs" in line]
    assert not [*changes, *deleted], "\n".join([*changes, *deleted])
    assert account.lost == 0, "\n".join(map(str, account.losses))


def others_router_dies(lab: Lab, how: Callable[[Lab, Machine], None], figure: Figure) -> None:
    """The nodes keep the router's routes; what the router does to its own kernel is reported."""
    assert lab.tor is not None
    _, outside = pairs(lab)
    with traffic(outside) as probes:
        how(lab, lab.tor)
        account = probes.finish()
    figure(f"{how.__name__}, router {lab.tor_kind}", account)
    lab.wait_settled(60)


def test_sigterm_keeps_the_routes_and_loses_nothing(lab: Lab, figure: Figure) -> None:
    """A rolling upgrade: stop, start. Nothing is said to the peers, so each helper, BIRD and FRR too, keeps all.

    The one packet that may be lost is one that meets a gap which a router of another make made itself."""
    between_pods, outside = pairs(lab)
    node = lab.node("a")
    assert lab.tor is not None
    routers = routes(lab.tor.namespace, lab.tor.bgp.protocol)
    with (
        RouteMonitor(lab.tor.namespace, lab.folder) as of_router,
        untouched(lab, "node-a", "node-b", "node-c") as changes,
        traffic([*between_pods, *outside]) as probes,
    ):
        node.bgp.stop()
        time.sleep(0.5)
        back(lab, node)
        account = probes.finish()
    assert routes(lab.tor.namespace, lab.tor.bgp.protocol) == routers
    gaps = gaps_of(of_router.changes(lab.tor.bgp.protocol)) if lab.tor_kind != "ours" else Counter()
    figure(f"SIGTERM and start, {lab.tor_kind} as helper", account)
    figure(f"SIGTERM and start, routes that {lab.tor_kind} deleted and added again unchanged", gaps.total())
    assert not changes, "\n".join(changes)
    lossy = [loss for loss in account.losses if len(loss.outages) > gaps_towards(lab, loss, gaps)]
    assert not lossy, "\n".join(map(str, lossy))


def gaps_of(changes: list[Change]) -> Counter[str]:
    """How often the router took each route away only to put the same one back at once.

    FRR does that to an IPv6 route when one of its sessions ends or comes back, though the route stays what it is: for
    0.1 to 0.2 ms the kernel has none. Fails where what comes back is another route, or none: a route would be lost.
    """
    gaps: Counter[str] = Counter()
    last: dict[str, Change] = {}
    for change in changes:
        before = last.get(change.prefix) if change.what == "route" else None
        if before is not None and before.deleted:
            assert not change.deleted and _route_text(change) == _route_text(before), f"{before.line}\n{change.line}"
            gaps[change.prefix] += 1
        if change.what == "route":
            last[change.prefix] = change
    gone = [change.line for change in last.values() if change.deleted]
    assert not gone, "\n".join(gone)
    return gaps


def _route_text(change: Change) -> str:
    """What the route is, whichever nexthop object of the router's holds its next hops."""
    return re.sub(r"nhid \d+ ", "", change.line[change.line.index(change.prefix) :])


def gaps_towards(lab: Lab, loss: Loss, gaps: Counter[str]) -> int:
    """Gaps in the router's way to the receiver of a flow that passes the router."""
    pods = {pod.endpoint.name: pod.endpoint for node in lab.nodes for pod in node.pods.values()}
    receiver = pods.get(loss.flow.rpartition(" to ")[2])
    if receiver is None or "tor to " not in loss.flow:
        return 0
    address = ip_address(receiver.ipv6 if "IPv6" in loss.flow else receiver.ipv4)
    return sum(number for prefix, number in gaps.items() if address in ip_network(prefix))


def test_all_speakers_die_at_once(lab: Lab, figure: Figure) -> None:
    between_pods, _ = pairs(lab)
    with untouched(lab, "node-a", "node-b", "node-c") as changes, traffic(between_pods) as probes:
        for node in lab.nodes:
            node.bgp.kill()
        time.sleep(0.5)
        for node in lab.nodes:
            node.bgp.launch()
        for node in lab.nodes:
            back(lab, node)
        account = probes.finish()
    figure("every node's speaker killed at once", account)
    assert not changes, "\n".join(changes)
    assert account.lost == 0, "\n".join(map(str, account.losses))
