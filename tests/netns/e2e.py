"""What the end-to-end tests share: may a lab be built here, and with which router."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.lab import speakers
from tests.lab.cluster import Lab
from tests.lab.netns import may_make_namespaces
from tests.lab.probes import Endpoint, Probes
from tests.lab.watch import RouteMonitor, rewritten, routes

RATE = 1000.0
Pair = tuple[Endpoint, Endpoint]


def require(tor: str = "ours") -> None:
    """Skip where this machine cannot run such a lab."""
    if not shutil.which("ip"):
        pytest.skip("the lab needs the program ip (package iproute2)")
    if not may_make_namespaces():
        pytest.skip("making network namespaces needs root (or: unshare -Urnm make test)")
    if tor not in speakers.available():
        pytest.skip(f"the router {tor} is not installed (packages bird2, frr)")


@contextmanager
def running_lab(tor: str = "ours", nodes: int = 3, reflectors: str = "", speaker: str = "ours") -> Iterator[Lab]:
    """A lab with every speaker up, every session Established and every kernel complete."""
    require(tor)
    with Lab(nodes=nodes, tor=tor, speaker=speaker, reflectors=reflectors) as lab:
        lab.start()
        lab.wait_converged()
        lab.wait_settled()
        yield lab


@contextmanager
def traffic(pairs: list[Pair], rate: float = RATE) -> Iterator[Probes]:
    """Packets both ways, both families, flowing when the block begins."""
    with Probes(pairs, rate) as probes:
        probes.begin()
        probes.wait_flowing()
        yield probes


@contextmanager
def untouched(lab: Lab, *names: str) -> Iterator[list[str]]:
    """Watches the kernels of some machines; after the block the list holds each needless change of an own route."""
    machines = [machine for machine in lab.machines if machine.name in names]
    before = {machine.name: routes(machine.namespace, machine.bgp.protocol) for machine in machines}
    monitors = {machine.name: RouteMonitor(machine.namespace, lab.folder) for machine in machines}
    found: list[str] = []
    try:
        yield found
        for machine in machines:
            after = routes(machine.namespace, machine.bgp.protocol)
            changes = monitors[machine.name].changes(machine.bgp.protocol)
            found += [f"{machine.name}: {c.line}" for c in rewritten(changes, before[machine.name] & after)]
            found += [f"{machine.name}: differs after: {route}" for route in before[machine.name] ^ after]
    finally:
        for monitor in monitors.values():
            monitor.close()
