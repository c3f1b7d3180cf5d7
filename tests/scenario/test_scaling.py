"""The layout of docs/scaling.md at small size: two planes of reflectors over zones, with Calico's own peering rules."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.scenario.fabric import Fabric, Wrong
from tests.scenario.scaling import Layout, Simulation, leaf, spine


def converged(linked: bool = False) -> Simulation:
    simulation = Simulation(Layout(zones=5, zone_size=6, linked=linked))
    simulation.build()
    simulation.settle(5)
    assert simulation.unreached() == 0 and simulation.unequal() == 0
    return simulation


@pytest.mark.parametrize("linked", [False, True])
def test_every_node_has_every_block_from_both_planes_and_nothing_loops(linked: bool) -> None:
    simulation = converged(linked)
    layout = simulation.layout
    nodes = layout.zones * layout.zone_size
    assert simulation.fabric.delivered == nodes * 2 * (layout.total - layout.blocks)  # each once from each plane
    assert simulation.paths() == (1 + linked, 0)
    assert simulation.fabric.longest_cluster_list == 3


@pytest.mark.parametrize("address", [leaf(0, "a"), spine("b")])
def test_a_reflector_is_lost_and_comes_back_without_a_route_lost(address: str) -> None:
    simulation = converged()
    simulation.lose(address)
    for seconds in (1, 130):  # while the others keep its routes (graceful restart), and after
        simulation.settle(seconds)
        assert simulation.unreached() == 0 and simulation.lost_routes() == 0
    simulation.bring_back(address)
    simulation.settle()
    assert simulation.unreached() == 0 and simulation.unequal() == 0 and simulation.lost_routes() == 0
    assert simulation.paths() == (1, 0)


def test_a_rack_goes_dark_and_its_routes_go_everywhere() -> None:
    simulation = converged()
    fabric, layout = simulation.fabric, simulation.layout
    dark = [node for node in fabric.nodes.values() if node.number < layout.zone_size]
    for node in dark:
        simulation.lose_node(node)
    simulation.settle(5)
    gone = sum(node.own for node in dark)
    for node in fabric.nodes.values():
        assert not node.union & gone
    assert simulation.paths()[1] == 0


def two_reflectors_of_different_zones_and_planes(simulation: Simulation) -> None:
    simulation.lose(leaf(0, "a"))
    simulation.lose(leaf(1, "b"))
    simulation.settle(130)


@pytest.mark.parametrize(("linked", "unreached"), [(False, 2 * (6 * 12)), (True, 0)])
def test_linked_spines_survive_a_loss_in_each_plane(linked: bool, unreached: int) -> None:
    # Zone 0 is in plane b only and zone 1 in plane a only: without the link they do not see each other.
    simulation = converged(linked)
    two_reflectors_of_different_zones_and_planes(simulation)
    assert simulation.unreached() == unreached


@pytest.mark.parametrize(
    "spoil",
    [
        lambda attributes: attributes.replace(bytes((0x80, 9, 4)), bytes((0x80, 99, 4))),
        lambda attributes: attributes + bytes((0x80, 10, 8)) + b"\1\1\1\1" * 2,
        lambda attributes: attributes.replace(bytes((0x40, 3, 4, 172)), bytes((0x40, 3, 4, 173))),
    ],
)
def test_a_wrong_route_is_noticed(spoil: Callable[[bytes], bytes]) -> None:
    fabric = Fabric(2)
    hop = bytes((172, 16, 0, 1))
    attributes = bytes((0x40, 3, 4)) + hop + bytes((0x80, 9, 4)) + hop + bytes((0x80, 10, 4)) + b"\1\1\1\1"
    fabric._check(attributes, (0, 1))
    with pytest.raises(Wrong):
        fabric._check(spoil(attributes), (0, 1))
