"""Two joined namespaces for each test: ours on one side, the foreign daemon on the other."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from attrs import define, field

from tests.interop.daemons.base import Daemon, find_program, require
from tests.interop.model import PeerConfig
from tests.interop.namespace import Namespace, join
from tests.interop.ours import Node, Ours, Reflector, Speaker

OURS4, OURS6 = "10.99.0.1", "fd99::1"
PEER4, PEER6 = "10.99.0.2", "fd99::2"
EXTRA4 = tuple(f"10.99.0.{n}" for n in range(11, 15))
"""Further addresses on either side: .11 and .12 on the peer's, .13 and .14 on ours."""
_numbers = itertools.count()


@define(eq=False)
class Pair:
    """A test's world."""

    ours: Namespace
    peer: Namespace
    directory: Path
    speakers: list[Ours] = field(factory=list)
    daemons: list[Daemon] = field(factory=list)

    def speaker(self, settings: dict[str, Any], kernel: bool = False) -> Speaker:
        """Our Speaker, not yet started."""
        speaker = Speaker(self.ours, self.directory / "ours", settings, kernel)
        self.speakers.append(speaker)
        return speaker

    def reflector(self, *flags: str) -> Reflector:
        """The product as a reflector, not yet started."""
        reflector = Reflector(self.ours, self.directory / "ours", flags)
        self.speakers.append(reflector)
        return reflector

    def node(self, name: str, resources: list[dict[str, Any]]) -> Node:
        """The product, not yet started."""
        node = Node(self.ours, self.directory / "ours", name, resources)
        self.speakers.append(node)
        return node

    def daemon(self, kind: type[Daemon], config: PeerConfig) -> Daemon:
        """The foreign daemon, not yet started."""
        daemon = kind(self.peer, self.directory / kind.name, config)
        self.daemons.append(daemon)
        return daemon

    def close(self) -> None:
        """Stop everything and remove the namespaces."""
        for daemon in self.daemons:
            daemon.stop()
        for speaker in self.speakers:
            speaker.stop()
        self.ours.close()
        self.peer.close()


@contextmanager
def joined(tmp_path: Path) -> Iterator[Pair]:
    """Two namespaces joined by a link, with addresses of both families on each side."""
    require(os.geteuid() == 0, "the interop tests need root: they make network namespaces")
    require(find_program("ip") is not None, "iproute2 is not installed (ip not found); apt-get install iproute2")
    for folder in (tmp_path, *tmp_path.parents[:2]):
        folder.chmod(0o755)  # FRR drops root before it opens its files
    number = f"{os.getpid()}-{next(_numbers)}"
    ours, peer = Namespace(f"{number}o"), Namespace(f"{number}p")
    world = Pair(ours, peer, tmp_path)
    try:
        join(ours, peer)
        ours.address("eth0", [f"{OURS4}/24", f"{OURS6}/64", *(f"{a}/24" for a in EXTRA4[2:])])
        peer.address("eth0", [f"{PEER4}/24", f"{PEER6}/64", *(f"{a}/24" for a in EXTRA4[:2])])
        yield world
    finally:
        world.close()


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    """A world for one test."""
    with joined(tmp_path) as world:
        yield world
