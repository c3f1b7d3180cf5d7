"""BIRD's nodes become ours and BIRD's again, one after the other, under traffic (docs/calico-node.md).

BIRD is ended as a calico-node pod ends it, by SIGKILL; ours by SIGTERM. In between the cluster is mixed.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator

import pytest

from bgpd.api.bird.server import NAMES
from tests.lab.cluster import Lab, Machine
from tests.lab.speakers import Bird, OurSpeaker
from tests.lab.watch import RouteMonitor, rewritten, routes, wait_until
from tests.netns.e2e import Pair, running_lab, traffic
from tests.unit import bird_callers as callers

pytestmark = [pytest.mark.netns, pytest.mark.slow]
_BIRD_2_ROUTE = re.compile(r"(\S+/\d+) +(?:unicast|blackhole|unreachable) \[")
_BIRD_2_HOP = re.compile(r"\tvia (\S+) on (\S+)")
Figure = Callable[[str, object], None]


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with running_lab("bird", speaker="bird") as lab:
        for letter in "abc":
            lab.add_pod(lab.node(letter), f"pod-{letter}")
        yield lab


def pairs(lab: Lab) -> list[Pair]:
    a, b, c = (lab.node(letter).pods[f"pod-{letter}"].endpoint for letter in "abc")
    return [(a, b), (b, c), (c, a), (a, lab.outside), (b, lab.outside)]


def ways(machine: Machine, name: str) -> set[tuple[str, str, str]]:
    """(prefix, gateway, interface) of the routes in use that have a gateway, as the machine's control socket shows
    them: ours to one of Calico's programs, BIRD 2, whose layout is another one, to its own client."""
    speaker = machine.bgp
    version = ":" if name == "bird6.ctl" else "."
    if isinstance(speaker, OurSpeaker):
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


def replace(lab: Lab, node: Machine, kind: str) -> list[str]:
    """Another program takes the node over; what it did to kernel routes that are the same before and after."""
    before = routes(node.namespace)
    shown = [ways(node, name) for name in NAMES.values()]
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
        # A node's own link-local next hops are BIRD 2's way with a neighbour on the link.
        for name, rows in zip(NAMES.values(), shown, strict=True):
            found = {(prefix, via) for prefix, _, via in ways(node, name)}
            assert found == {(prefix, via) for prefix, _, via in rows}
        assert {route.prefix for route in after} == {route.prefix for route in before}
        return [f"{node.name}: {change.line}" for change in rewritten(monitor.changes(), before & after)]


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
    """Forward first, then back: both leave the lab whole."""
    touched = []
    for node in lab.nodes:
        if kind == "bird":
            if not isinstance(node.bgp, OurSpeaker):
                replace(lab, node, "ours")
            renew(node)
    lab.wait_converged()
    with traffic(pairs(lab)) as probes:
        for node in lab.nodes:
            touched += replace(lab, node, kind)
        account = probes.finish()
    figure(f"each node's speaker replaced by {kind}", account)
    figure(f"... kernel routes touched that stayed the same, by {kind}", len(touched))
    if kind == "ours":
        assert not touched, "\n".join(touched)
    assert account.lost == 0, "\n".join(map(str, account.losses))
