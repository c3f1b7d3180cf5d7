"""The file datastore under the real daemon, BIRD as its peer: its folder unmounted, emptied, not there at a start."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.interop.common import PEER_AS, peer_config, session
from tests.interop.conftest import OURS4, PEER4, Pair
from tests.interop.model import IPV4
from tests.interop.namespace import wait_until
from tests.interop.ours import Node, resource
from tests.interop.peers import Bird, Daemon, need

pytestmark = pytest.mark.interop

OUTAGE = float(os.environ.get("FILE_OUTAGE", "0.5"))
"""Seconds; 60 is the project's figure."""


def _run(*argv: str | Path) -> None:
    subprocess.run([str(word) for word in argv], check=True)


@contextlib.contextmanager
def mounted(folder: Path, *how: str) -> Iterator[Callable[[], None]]:
    """A mount at `folder`, by default a file system of its own; what is called unmounts it."""
    _run("mount", *(how or ("-t", "tmpfs", "tmpfs")), folder)
    with contextlib.ExitStack() as stack:
        # What runs inside may still have files open.
        stack.callback(_run, "umount", "--lazy", folder)
        yield stack.close


@contextlib.contextmanager
def shared(folder: Path) -> Iterator[None]:
    """What is mounted below `folder` is mounted for the daemon too, which has a mount namespace of its own."""
    with mounted(folder, "--bind", str(folder)):
        _run("mount", "--make-shared", folder)
        yield


@pytest.mark.timeout(300 + 5 * OUTAGE)
def test_the_daemon_without_its_folder(pair: Pair) -> None:
    """No session ends and no route goes, until what is missing comes or is confirmed."""
    need(Bird)
    ours = pair.node("a", [])
    bird = pair.daemon(Bird, peer_config(session(IPV4)))
    with shared(ours.directory):
        the_story(ours, bird)


def the_story(ours: Node, bird: Daemon) -> None:
    resources = (
        resource("Node", "a", bgp={"ipv4Address": f"{OURS4}/24", "asNumber": 65001}),
        resource("BGPConfiguration", "default", nodeToNodeMeshEnabled=False),
        resource("BGPPeer", "tor", peerIP=PEER4, asNumber=PEER_AS),
        resource("IPPool", "pods", cidr="10.244.0.0/16"),
        resource("BlockAffinity", "a-1", node="a", cidr="10.244.1.0/26", state="confirmed"),
    )

    def holds(words: str, routes: int) -> None:
        """The daemon says so, and nothing has changed for the peer."""
        wait_until(lambda: words in ours.get("/status")["datastore"]["text"], 30, words)
        end = time.monotonic() + OUTAGE
        while time.monotonic() < end:
            assert bird.established(OURS4) and len(bird.routes(OURS4)) == routes
            time.sleep(0.2)
        assert ours.get("/status")["datastore"]["age_seconds"] >= OUTAGE
        shown = ours.status()
        assert words in shown and re.search(r"in force is what it held \S+ ago", shown), shown

    def restart() -> None:
        ours.stop()
        ours.start()
        ours.wait_established(PEER4)
        wait_until(lambda: bird.established(OURS4), 30, "BIRD's side")

    with mounted(ours.datastore) as unmount:
        ours.put(*resources)
        bird.start()
        ours.start()
        ours.wait_established(PEER4)
        bird.wait_routes(OURS4, 1)
        # Below the mount there is an empty folder.
        unmount()
        holds("holds no object any more", 1)
        restart()
        bird.wait_routes(OURS4, 1)
        holds("holds no object any more", 1)
    with mounted(ours.datastore):
        ours.put(*resources, resource("BlockAffinity", "a-2", node="a", cidr="10.244.2.0/26", state="confirmed"))
        bird.wait_routes(OURS4, 2)
        wait_until(lambda: not ours.get("/status")["datastore"]["text"], 30, "all is well")
        for path in ours.datastore.iterdir():
            path.unlink()
        holds("holds no object any more", 2)
    ours.datastore.rmdir()
    holds("is gone or cannot be read (No such file or directory)", 2)
    restart()
    bird.wait_routes(OURS4, 2)
    holds("is gone or cannot be read (No such file or directory)", 2)
    assert "the last good copy, true until" in ours.status()

    # It is meant: the peer stays, and the blocks go.
    ours.datastore.mkdir()
    (ours.datastore / ".empty").touch()
    ours.put(*resources[:-1])
    bird.wait_routes(OURS4, 0)
    wait_until(lambda: not ours.get("/status")["datastore"]["text"], 30, "all is well")
    assert bird.established(OURS4) and ours.peers()[PEER4]["flaps"] == 0
