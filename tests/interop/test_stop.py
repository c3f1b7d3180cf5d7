"""What a peer sees on the wire when the daemon is told to end: nothing but the end of TCP, unless asked otherwise."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.interop.etcd_server import free_port
from tests.interop.scripted import OpenOptions, SessionEnded, Speaker
from tests.lab import datastore as resources
from tests.lab.datastore import Datastore

pytestmark = pytest.mark.interop
PEER = "127.0.0.9"


@pytest.mark.parametrize(
    ("number", "more", "said"),
    [
        (signal.SIGTERM, [], None),
        (signal.SIGINT, [], None),
        (signal.SIGKILL, [], None),
        (signal.SIGTERM, ["--cease-on-exit"], (6, 2)),
    ],
)
def test_end_of_the_daemon(number: int, more: list[str], said: tuple[int, int] | None, tmp_path: Path) -> None:
    store = Datastore(tmp_path / "resources")
    store.put(resources.bgp_configuration(64512), resources.node("node-a", "127.0.0.1/8", "::1/128"))
    store.put(resources.peer("scripted", PEER, 64512))
    port = free_port()
    command = [sys.executable, "-m", "bgpd", "--node", "node-a", "--datastore", store.url, "--no-kernel", *more]
    command += ["--listen", f"127.0.0.1:{port}", "--health", "none", "--socket", str(tmp_path / "sock")]
    command += ["--state-dir", str(tmp_path / "state")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as daemon:
        assert daemon.stdout is not None
        assert daemon.stdout.readline().startswith("ready ")
        sock = socket.create_connection(("127.0.0.1", port), 10, (PEER, 0))
        peer = Speaker(sock, OpenOptions(64512, PEER, families=((1, 1),), graceful=120))
        peer.handshake()
        daemon.send_signal(number)
        with pytest.raises(SessionEnded) as ended:
            for _ in peer.messages(20):
                pass
        peer.close()
    told = ended.value.notification
    assert (told and told[:2]) == said
