"""Two reflectors in the place of the mesh share the nodes; either may go, and no packet is lost.

In all three ways to run one: bgp-reflector with flags, bgp-reflector with Calico's resources, and nodes whose Node
resource has a cluster id.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator

import pytest

from tests.lab import datastore as resources
from tests.lab import watch
from tests.lab.cluster import CLUSTER_ID, NODE_ASN, Lab, Machine
from tests.lab.speakers import OurSpeaker
from tests.netns.e2e import running_lab, traffic, untouched
from tests.unit import bird_callers as callers

pytestmark = [pytest.mark.netns, pytest.mark.slow]
Figure = Callable[[str, object], None]
ANYCAST = ("10.244.77.7", "fd00:10:244:77::7")


@pytest.fixture(scope="module", params=["flags", "datastore", "nodes"])
def lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    with running_lab("ours", nodes=4, reflectors=request.param) as lab:
        for letter in "abcd":
            lab.add_pod(lab.node(letter), f"pod-{letter}")
        yield lab


def reflectors(lab: Lab) -> list[Machine]:
    return lab.reflectors or lab.nodes[:2]


def test_no_node_has_sessions_with_other_nodes(lab: Lab) -> None:
    """Centralised: a node talks to the two reflectors and the router, in two families."""
    addresses = {address for one in reflectors(lab) for address in (one.ipv4, one.ipv6)}
    for node in lab.nodes[2:]:
        talks = {row["address"] for row in node.bgp.api("/v1/peers")}  # type: ignore[attr-defined]
        assert lab.tor is not None
        assert talks == addresses | {lab.tor.ipv4, lab.tor.ipv6}
    for one in reflectors(lab):
        assert one.bgp.api("/v1/status")["cluster_id"] == CLUSTER_ID  # type: ignore[attr-defined]


def test_a_reflector_goes_and_comes_back(lab: Lab, figure: Figure) -> None:
    """One after the other: the first is killed, the second is stopped for good as far as its peers are told (Cease)."""
    c, d, b = (lab.node(letter).pods[f"pod-{letter}"].endpoint for letter in "cdb")
    with untouched(lab, "node-c", "node-d") as found, traffic([(c, d), (b, d), (c, lab.outside)]) as probes:
        for one, how in zip(reflectors(lab), (signal.SIGKILL, signal.SIGTERM), strict=True):
            one.bgp.main.signal(how)
            time.sleep(2)
            one.bgp.start()
            lab.wait_settled(60)
        lab.wait_converged()
        account = probes.finish()
    figure("packets", account)
    figure("unchanged kernel routes touched", len(found))
    assert not [str(loss) for loss in account.losses if loss.lost]
    assert not found, "\n".join(found)


def test_the_mesh_beside_reflectors_comes_and_goes(lab: Lab, figure: Figure) -> None:
    """From the mesh to reflectors and back (docs/reflector.md): next hops are the same, so no kernel route changes."""

    def turn(mesh: bool) -> None:
        lab.datastore.put(resources.bgp_configuration(NODE_ASN, mesh=mesh))
        clients = [node for node in lab.nodes if node not in reflectors(lab)]
        watch.wait_until(
            f"the mesh is {'there' if mesh else 'gone'}",
            lambda: all(any(n.startswith("Mesh_") for n in node.bgp.sessions()) is mesh for node in clients),
        )
        lab.wait_settled(60)

    c, d, b = (lab.node(letter).pods[f"pod-{letter}"].endpoint for letter in "cdb")
    with untouched(lab, "node-c", "node-d") as found, traffic([(c, d), (b, d), (c, lab.outside)]) as probes:
        for mesh in (True, False):
            turn(mesh)
        lab.wait_converged()
        account = probes.finish()
    figure("packets, mesh on and off", account)
    assert account.lost == 0, "\n".join(map(str, account.losses))
    assert not found, "\n".join(found)


@pytest.fixture
def shared_address(lab: Lab) -> Iterator[Machine]:
    """Two nodes announce one address of each family; the node that shares its packets between them (ADD-PATH)."""
    pods = [lab.add_pod(lab.node(letter), f"any-{letter}", *ANYCAST) for letter in "bc"]
    node = lab.node("d")
    wanted = [{lab.node(letter).ipv4 for letter in "bc"}, {lab.node(letter).ipv6 for letter in "bc"}]
    try:
        watch.wait_until(
            "node-d has two gateways in both families",
            lambda: [gateways(node, address) for address in ANYCAST] == wanted,
            20,
        )
        yield node
    finally:
        for pod in pods:
            lab.remove_pod(pod)
    watch.wait_until("the address is gone", lambda: not any(gateways(node, one) for one in ANYCAST), 20)


def upgrade(lab: Lab) -> None:
    """One after the other: stopped as a service manager does, started at once."""
    for one in reflectors(lab):
        one.bgp.stop()
        one.bgp.start()
        lab.wait_settled(60)


def lose_both(lab: Lab) -> None:
    """Both at one moment: graceful restart alone keeps the routes."""
    for one in reflectors(lab):
        one.bgp.kill()
    time.sleep(1)
    for one in reflectors(lab):
        one.bgp.start()
    lab.wait_settled(60)


def test_clients_keep_both_paths_of_a_prefix(shared_address: Machine) -> None:
    """Calico's programs read each path with its own gateway; together they are on the way to the kernel alone."""
    for name, address in zip(("bird.ctl", "bird6.ctl"), ANYCAST, strict=True):
        wanted, length = gateways(shared_address, address), "/128" if ":" in address else "/32"
        assert isinstance(shared_address.bgp, OurSpeaker)
        dialogue = callers.Dialogue(shared_address.bgp.bird_sockets / name)
        rows = callers.routes(dialogue.ask(f"show route {address}{length}"))
        assert {row["gw"] for row in rows} == wanted
        merged = dialogue.ask(f"show route {address}{length} export kernel1")
        dialogue.close()
        assert " multipath [" in merged[0]
        assert {line.split()[1] for line in merged[1:-1]} == wanted


@pytest.mark.parametrize("how", [upgrade, lose_both])
def test_reflectors_are_restarted_under_traffic(
    lab: Lab, shared_address: Machine, how: Callable[[Lab], None], figure: Figure
) -> None:
    """No packet is lost and no kernel route changes, also not one of two gateways."""
    c, d, b = (lab.node(letter).pods[f"pod-{letter}"].endpoint for letter in "cdb")
    before = [gateways(shared_address, one) for one in ANYCAST]
    with untouched(lab, "node-c", "node-d") as found, traffic([(c, d), (b, d), (c, lab.outside)], 300) as probes:
        how(lab)
        lab.wait_converged()
        account = probes.finish()
    figure(f"{how.__name__}, packets", account)
    figure(f"{how.__name__}, unchanged kernel routes touched", len(found))
    assert [gateways(shared_address, one) for one in ANYCAST] == before
    assert account.lost == 0, "\n".join(map(str, account.losses))
    assert not found, "\n".join(found)


def gateways(node: Machine, address: str) -> set[str]:
    """The gateways of the routes of ours for an address, as the kernel has them."""
    found = [route for route in watch.routes(node.namespace, node.bgp.protocol) if route.prefix == address]
    return {gateway for route in found for gateway, _ in route.hops}
