"""A mesh of our nodes and BIRD's: node-a and node-b run our daemon, node-c and node-d BIRD as Calico configures it.

Node-a is 172.20.0.10 and node-b 172.20.0.9, so that the order of the addresses as text is not that as numbers.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.lab.cluster import Lab, Machine
from tests.lab.speakers import Bird, OurSpeaker, Speaker
from tests.lab.watch import wait_until

_HOSTS = {"node-a": 10, "node-b": 9}
A, B, C, D = "172.20.0.10", "172.20.0.9", "172.20.0.13", "172.20.0.14"
BLOCKS = {letter: (f"10.244.{n}.0/26", f"fd00:10:244:{n}::/122") for n, letter in enumerate("abcd", 1)}


class MixedLab(Lab):
    """Four nodes and BIRD as top-of-rack router."""

    def __init__(self) -> None:
        super().__init__(nodes=4, tor="bird")

    def _machine(self, name: str, host: int, asn: int) -> Machine:
        machine = super()._machine(name, _HOSTS.get(name, host), asn)
        if name.startswith("node-"):
            machine.blocks = list(BLOCKS[name[-1]])
        return machine

    def speaker_for(self, node: Machine, kind: str) -> Speaker:
        """Ours on the first two nodes, BIRD on the others."""
        return super().speaker_for(node, "ours" if node.name in _HOSTS else "bird")

    def ours(self, letter: str) -> OurSpeaker:
        """Our daemon of a node."""
        speaker = self.node(letter).bgp
        assert isinstance(speaker, OurSpeaker)
        return speaker

    def bird(self, letter: str) -> Bird:
        """BIRD of a node, or ("t") of the top-of-rack router."""
        speaker = self.tor.bgp if letter == "t" and self.tor else self.node(letter).bgp
        assert isinstance(speaker, Bird)
        return speaker

    def heard(self, letter: str, prefix: str, teller: str) -> str:
        """BIRD's path for a prefix from one of the nodes, with all attributes; "" where it has none."""
        protocol = f"node_{teller}_{6 if ':' in prefix else 4}"
        text = self.bird(letter).control(f"show route {prefix} all protocol {protocol}")
        return text if "BGP.origin" in text else ""

    def told(self, letter: str, teller: str, version: int = 4) -> set[str]:
        """The prefixes that BIRD has from one of the nodes."""
        text = self.bird(letter).control(f"show route protocol node_{teller}_{version}")
        return set(re.findall(r"^([0-9a-f.:]+/\d+)", text, re.MULTILINE))

    def shown(self, letter: str, prefix: str) -> list[str]:
        """The kernel's routes for a prefix on a node, as iproute2 writes them."""
        command = ["ip", "-6" if ":" in prefix else "-4", "-n", self.node(letter).namespace.name, "-N", "route", "show"]
        text = subprocess.run([*command, prefix], capture_output=True, text=True, check=True).stdout
        lines: list[str] = []
        for line in text.splitlines():
            if line[:1].isspace() and lines:
                lines[-1] += " " + line.strip()
            else:
                lines.append(" ".join(line.split()))
        # -N writes types as numbers, too: 6 is a blackhole.
        return [re.sub(r"^6 ", "blackhole ", re.sub(r" nhid \d+", "", line)) for line in lines]

    def edited(self, kind: str, name: str, **spec: Any) -> dict[str, Any]:
        """An object of the datastore with some fields of its spec replaced."""
        import yaml

        document: dict[str, Any] = yaml.safe_load(self.datastore.path(kind, name).read_text())
        document["spec"] = {**document["spec"], **spec}
        return document

    @contextmanager
    def changed(self, *documents: dict[str, Any]) -> Iterator[None]:
        """Objects put into the datastore for a while; afterwards everything is as before."""
        before = {
            (d["kind"], d["metadata"]["name"]): path.read_text() if path.exists() else None
            for d in documents
            for path in [self.datastore.path(d["kind"], d["metadata"]["name"])]
        }
        self.datastore.put(*documents)
        try:
            yield
        finally:
            for (kind, name), text in before.items():
                if text is None:
                    self.datastore.delete(kind, name)
                else:
                    self.datastore.put_text(kind, name, text)
            self.wait_converged()
            self.wait_settled()

    def add_route(self, letter: str, route: str) -> None:
        """`ip route add` on a node."""
        self.node(letter).namespace.run(["ip", "route", "add", *route.split()])

    def delete_route(self, letter: str, route: str) -> None:
        """`ip route del` on a node."""
        self.node(letter).namespace.run(["ip", "route", "del", *route.split()])


def see(what: str, condition: Any, timeout: float = 10.0) -> None:
    """Wait for something that a change brings about."""
    wait_until(what, condition, timeout, 0.02)
