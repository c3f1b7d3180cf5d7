"""BIRD's nodes become ours and BIRD's again, one after the other, under traffic (docs/calico-node.md).

BIRD is ended as a calico-node pod ends it, by SIGKILL; ours by SIGTERM. In between the cluster is mixed. The first node
has BIRD 1.6, which is Calico's, where this machine has it; the others BIRD 2.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator

import pytest

from bgpd.api.bird.server import NAMES
from tests.lab import bird1
from tests.lab.bird1 import Bird1
from tests.lab.cluster import Lab, Machine
from tests.lab.probes import Account, Loss
from tests.lab.speakers import Bird, OurSpeaker
from tests.lab.watch import RouteMonitor, rewritten, routes, wait_until
from tests.netns.e2e import Pair, require, traffic
from tests.unit import bird_callers as callers

pytestmark = [pytest.mark.netns, pytest.mark.slow]
_BIRD_2_ROUTE = re.compile(r"(\S+/\d+) +(?:unicast|blackhole|unreachable) \[")
_CHANGING = re.compile(r"(?<=BIRD )\S+|\d\d:\d\d:\d\d|\d{4}-\d\d-\d\d")
_BIRD_2_HOP = re.compile(r"\tvia (\S+) on (\S+)")
Figure = Callable[[str, object], None]


def bird_of(lab: Lab, node: Machine) -> str:
    """Which BIRD a node has."""
    return "bird1" if node is lab.nodes[0] and bird1.available() else "bird"


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    require("bird")
    with Lab(nodes=3, tor="bird", speaker="bird") as lab:
        for node in lab.nodes:
            node.speaker = lab.speaker_for(node, bird_of(lab, node))
        lab.start()
        lab.wait_converged()
        lab.wait_settled()
        for letter in "abc":
            lab.add_pod(lab.node(letter), f"pod-{letter}")
        yield lab


def pairs(lab: Lab) -> list[Pair]:
    a, b, c = (lab.node(letter).pods[f"pod-{letter}"].endpoint for letter in "abc")
    return [(a, b), (b, c), (c, a), (a, lab.outside), (b, lab.outside)]


def between_birds(lab: Lab) -> set[str]:
    """The flows that no speaker of ours has a hand in."""
    birds = {"tor", *(f"pod-{node.name[-1]}" for node in lab.nodes if not isinstance(node.bgp, OurSpeaker))}
    return {f"{one.name} - {other.name}" for one, other in pairs(lab) if {one.name, other.name} <= birds}


def ways(machine: Machine, name: str) -> set[tuple[str, str, str]]:
    """(prefix, gateway, interface) of the routes in use that have a gateway, as the machine's control socket shows
    them: ours and BIRD 1.6 to Calico's programs, BIRD 2, whose layout is another one, to its own client."""
    speaker = machine.bgp
    version = ":" if name == "bird6.ctl" else "."
    if isinstance(speaker, OurSpeaker | Bird1):
        dialogue = callers.Dialogue(speaker.bird_sockets / name)
        rows = callers.routes(dialogue.ask("show route primary"))
        dialogue.close()
        return {(row["prefix"], row["gw"], row["via"]) for row in rows if row["gw"]}
    assert isinstance(speaker, Bird)
    found = set()
    prefix = ""
    for line in speaker.control("show route primary").splitlines():
        start, hop = _BIRD_2_ROUTE.match(line), _BIRD_2_HOP.match(line)
        prefix = start[1] if start else prefix
        if hop and version in prefix:
            found.add((prefix, hop[1], hop[2]))
    return found


def said(machine: Machine) -> dict[str, set[str]]:
    """What Calico's BIRD, or ours in its place, answers about itself: lines without versions, times and dates."""
    speaker, found = machine.bgp, {}
    if isinstance(speaker, OurSpeaker | Bird1):
        for name in NAMES.values():
            dialogue = callers.Dialogue(speaker.bird_sockets / name)
            lines = [*dialogue.ask("show protocols"), *dialogue.ask("show status"), *dialogue.ask("show protocols nix")]
            dialogue.close()
            # The first row has the code, whichever it is; BIRD's order is that of its file.
            found[name] = {_CHANGING.sub("", line.replace("1002-", " ")) for line in lines}
    return found


def replace(lab: Lab, node: Machine, kind: str) -> list[str]:
    """Another program takes the node over; what it did to kernel routes that are the same before and after."""
    before = routes(node.namespace)
    shown = [ways(node, name) for name in NAMES.values()]
    old = said(node)
    with RouteMonitor(node.namespace, lab.folder) as monitor:
        if isinstance(node.bgp, OurSpeaker):
            node.bgp.stop()
        else:
            node.bgp.kill()
        time.sleep(0.5)
        node.speaker = lab.speaker_for(node, kind)
        node.bgp.start()
        lab.wait_settled(90)
        lab.wait_converged()
        wait_until("only routes of its own", lambda: len(routes(node.namespace)) == len(before), 30)
        # BIRD looks at the kernel each two seconds.
        time.sleep(3)
        after = routes(node.namespace)
        if old and (new := said(node)):
            assert new == old
        # A node's own link-local next hops are BIRD 2's way with a neighbour on the link.
        for name, rows in zip(NAMES.values(), shown, strict=True):
            found = {(prefix, via) for prefix, _, via in ways(node, name)}
            assert found == {(prefix, via) for prefix, _, via in rows}
        assert {route.prefix for route in after} == {route.prefix for route in before}
        return [f"{node.name}: {change.line}" for change in rewritten(monitor.changes(), before & after)]


def single(node: Machine) -> bool:
    found = routes(node.namespace)
    return len({route.prefix for route in found}) == len(found)


def renew(node: Machine) -> None:
    """Have our speaker write its routes anew: they refer to nexthop objects now, which BIRD knows nothing of."""
    for route in routes(node.namespace):
        if route.kind == "unicast":
            version = "-6" if ":" in route.prefix else "-4"
            command = ["ip", version, "route", "del", route.prefix, "proto", "bird", "metric", str(route.metric)]
            node.namespace.run(command)

    def through_objects() -> bool:
        shown = node.namespace.run(["ip", "route", "show", "proto", "bird", "type", "unicast"])
        return shown.count("nhid") == len(shown.splitlines()) > 0

    wait_until("routes through nexthop objects", through_objects)


@pytest.mark.parametrize("kind", ["ours", "bird"])
def test_nodes_are_replaced_one_after_the_other(lab: Lab, kind: str, figure: Figure) -> None:
    """Forward first, then back: both leave the lab whole. What two BIRDs lose between them is reported: a BIRD that
    starts may meet another one's dial, which takes that for a second restart, and drops what it kept."""
    touched: list[str] = []
    for node in lab.nodes:
        if kind == "bird":
            if not isinstance(node.bgp, OurSpeaker):
                replace(lab, node, "ours")
            renew(node)
    lab.wait_converged()
    total: list[Loss] = []
    ours: list[Loss] = []
    for node in lab.nodes:
        with traffic(pairs(lab)) as probes:
            touched += replace(lab, node, "ours" if kind == "ours" else bird_of(lab, node))
            account = probes.finish()
        exempt = between_birds(lab)
        total += account.losses
        ours += [loss for loss in account.losses if loss.flow.split(" IPv")[0] not in exempt]
    which = kind if kind == "ours" else ", ".join(node.bgp.title for node in lab.nodes)
    figure(f"each node's speaker replaced by {which}", Account(tuple(total)))
    figure("... of flows that ours carries or carried", Account(tuple(ours)))
    figure("... kernel routes touched that stayed the same", len(touched))
    if kind == "ours":
        assert not touched, "\n".join(touched)
    lost = [str(loss) for loss in ours if loss.lost]
    assert not lost, "\n".join(lost)
