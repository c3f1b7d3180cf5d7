"""A large cluster's reflectors, laid out as in docs/scaling.md: real Speakers, settings from Calico's resources.

`python -m tests.scenario.scaling --nodes 20000` runs it at full size (minutes, a few GiB) and prints what it saw.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Iterator

from attrs import define, field

from bgpd.rib.path import Path
from config import resources as r
from config.compile import compile
from config.selector import parse_selector
from config.snapshot import Put, Snapshot
from config.values import prefix
from reflector.flags import without_kernel
from tests.scenario.fabric import ASN, Fabric, Node

PLANES = ("a", "b")


def leaf(zone: int, plane: str) -> str:
    """Address of a zone's reflector."""
    return f"172.{29 if plane == 'a' else 30}.{zone >> 8}.{zone & 255}"


def spine(plane: str) -> str:
    """Address of a plane's upper reflector."""
    return f"172.31.0.{PLANES.index(plane) + 1}"


@define
class Layout:
    """So many zones with so many nodes each; a leaf reflector a zone and plane, and one spine a plane."""

    zones: int
    zone_size: int
    blocks: int = 2
    linked: bool = False
    """The spines are peers of one another."""

    @property
    def total(self) -> int:
        """Blocks of the cluster."""
        return self.zones * self.zone_size * self.blocks

    def reflectors(self) -> Iterator[r.Node]:
        """Their Node resources. Each is a cluster of its own, so that a client of one of two is told everything too."""
        for plane in PLANES:
            labels = {"reflector": "spine", "plane": plane}
            yield r.Node(f"spine-{plane}", labels=labels, ipv4_address=spine(plane), cluster_id=spine(plane))
            for zone in range(self.zones):
                address, name = leaf(zone, plane), f"leaf-{plane}-{zone}"
                labels = {"reflector": "leaf", "plane": plane, "zone": str(zone)}
                yield r.Node(name, labels=labels, ipv4_address=address, cluster_id=address)

    def peerings(self) -> Iterator[r.BGPPeer]:
        """One BGPPeer a zone, one a plane, and perhaps one between the spines."""

        def peering(name: str, own: str, other: str) -> r.BGPPeer:
            return r.BGPPeer(name, node_selector=parse_selector(own), peer_selector=parse_selector(other))

        for zone in range(self.zones):
            yield peering(f"zone-{zone}", f"zone == '{zone}' && !has(reflector)",
                          f"zone == '{zone}' && reflector == 'leaf'")  # fmt: skip
        for plane in PLANES:
            yield peering(f"plane-{plane}", f"plane == '{plane}' && reflector == 'leaf'",
                          f"plane == '{plane}' && reflector == 'spine'")  # fmt: skip
        if self.linked:
            yield peering("spines", "reflector == 'spine'", "reflector == 'spine'")

    def node(self, number: int) -> Node:
        """A node, with its zone's two reflectors."""
        zone = number // self.zone_size
        return Node(number, self.blocks, tuple(leaf(zone, plane) for plane in PLANES))

    def snapshot(self) -> Snapshot:
        """All resources."""
        nodes = (self.node(number) for number in range(self.zones * self.zone_size))
        config = r.BGPConfiguration("default", mesh=False, asn=ASN)
        pool = r.IPPool("pods", prefix("10.0.0.0/8"))
        items: list[r.Resource] = [config, pool, *self.reflectors(), *self.peerings()]
        items += [
            r.Node(
                f"node-{node.number}", labels={"zone": str(node.number // self.zone_size)}, ipv4_address=node.address
            )
            for node in nodes
        ]
        return Snapshot().apply([Put(item) for item in items])


@define
class Simulation:
    """The cluster; each step says what it took."""

    layout: Layout
    fabric: Fabric = field(init=False)
    notes: list[str] = field(factory=list)

    def build(self) -> None:
        """Compile every reflector's settings, start them, and connect every node."""
        self.fabric = Fabric(self.layout.blocks)
        snapshot = self.layout.snapshot()
        for own in self.layout.reflectors():
            settings = compile(snapshot, own.name, {}).settings
            assert settings is not None
            self.fabric.add(own.ipv4_address, without_kernel(settings))
        for number in range(self.layout.zones * self.layout.zone_size):
            node = self.layout.node(number)
            self.fabric.nodes[node.address] = node
        for address in self.fabric.hosts:
            self.fabric.start(address)
        self.fabric.run_for(1)
        for node in self.fabric.nodes.values():
            for reflector in node.reflectors:
                assert self.fabric.dial(node, reflector), (node.address, reflector)
        self.fabric.run_for(1)
        self.fabric.announce()

    def settle(self, seconds: float = 20.0) -> None:
        """Let it converge."""
        self.fabric.run_for(seconds)

    def lose(self, address: str) -> None:
        """A reflector dies; all that knew it notice at once."""
        self.fabric.kill(address)

    def lose_node(self, node: Node) -> None:
        """A node's connections are closed, as when it reboots."""
        for conn in list(node.tables):
            self.fabric.hang_up(node, conn)

    def bring_back(self, address: str) -> None:
        """It starts anew, and its nodes connect again."""
        self.fabric.add(address, self.fabric.hosts[address].settings)
        self.fabric.start(address)
        self.fabric.run_for(10)  # the others dial it
        for node in self.fabric.nodes.values():
            if address in node.reflectors:
                assert self.fabric.dial(node, address)

    # What must hold

    def unreached(self) -> int:
        """Pairs of node and foreign block that the node has from no reflector."""
        whole = (1 << self.layout.total) - 1
        return sum((whole & ~node.own & ~node.union).bit_count() for node in self.fabric.nodes.values())

    def unequal(self) -> int:
        """Tables of nodes' sessions that are not exactly all foreign blocks."""
        whole = (1 << self.layout.total) - 1
        return sum(table != whole & ~node.own for node in self.fabric.nodes.values() for table in node.tables.values())

    def lost_routes(self) -> int:
        """Routes that a node lost for a moment although their node was there all the time."""
        return sum(node.lost_routes for node in self.fabric.nodes.values())

    def paths(self) -> tuple[int, int]:
        """In all reflectors: the most paths of one block, and paths refused (loops: an own cluster or router id)."""
        most = refused = 0
        for host in self.fabric.hosts.values():
            for rib in host.speaker.ribs.values() if host.alive else ():
                for entry in rib.table.values():
                    paths: tuple[Path, ...] = entry if isinstance(entry, tuple) else (entry,)
                    most = max(most, len(paths))
                    refused += sum(bool(path.rejected) for path in paths)
        return most, refused


def play(simulation: Simulation) -> Iterator[str]:
    """What happens to the cluster; after each step its name."""
    simulation.build()
    simulation.settle()
    yield "converged"
    for what, address in (("leaf", leaf(0, "a")), ("spine", spine("a"))):
        simulation.lose(address)
        simulation.settle(1)
        yield f"{what} {address} lost, its routes stale"
        simulation.settle(130)
        yield f"{what} {address} lost, its routes gone"
        simulation.bring_back(address)
        simulation.settle()
        yield f"{what} {address} back"


def main() -> int:
    """Run it at full size; 0 if all held."""
    parser = argparse.ArgumentParser(prog="python -m tests.scenario.scaling", description=__doc__)
    parser.add_argument("--nodes", type=int, default=20_000)
    parser.add_argument("--zones", type=int, default=40)
    parser.add_argument("--blocks", type=int, default=2, help="of each node")
    parser.add_argument("--linked", action="store_true", help="the two spines are peers")
    options = parser.parse_args()
    simulation = Simulation(Layout(options.zones, options.nodes // options.zones, options.blocks, options.linked))
    bad, began, delivered = 0, time.process_time(), 0
    for step in play(simulation):
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1048576
        fabric, (most, refused) = simulation.fabric, simulation.paths()
        faults = {
            "unreached": simulation.unreached(), "lost": simulation.lost_routes(), "looped": refused,
            "unequal": simulation.unequal() if step.endswith(("converged", "back")) else 0,
        }  # fmt: skip
        print(
            f"{step}: {time.process_time() - began:.1f} CPU s, peak {peak:.2f} GiB, "
            f"{fabric.delivered - delivered:,} routes delivered, paths of a block at most {most}, CLUSTER_LIST at most "
            f"{fabric.longest_cluster_list}, {', '.join(f'{name} {count}' for name, count in faults.items())}",
            flush=True,
        )
        bad += sum(faults.values())
        began, delivered = time.process_time(), fabric.delivered
    return 1 if bad else 0


if __name__ == "__main__":
    raise SystemExit(main())
