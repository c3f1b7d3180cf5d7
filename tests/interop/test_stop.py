"""What a peer sees on the wire when the daemon is told to end: nothing but the end of TCP, unless asked otherwise."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
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


@pytest.mark.parametrize("closed", [(), (2,), (0, 1, 2)], ids=str)
def test_signals_and_closed_streams_end_nothing(closed: tuple[int, ...], tmp_path: Path) -> None:
    """Connections may come and go where the standard streams should be, and BIRD's signals are no reason to stop."""
    port = free_port()
    command = [
        sys.executable,
        "-m",
        "reflector",
        "--asn",
        "64512",
        "--router-id",
        "10.0.0.1",
        "--clients",
        "127.0.0.0/8",
    ]
    command += ["--cluster-id", "10.0.0.1", "--listen", f"127.0.0.1:{port}", "--health", "none", "--socket", "none"]
    with subprocess.Popen(command, preexec_fn=lambda: list(map(os.close, closed))) as daemon:
        for round_ in range(3):
            peer = Speaker(_connected(port, daemon), OpenOptions(64512, PEER, families=((1, 1),)))
            peer.handshake()
            daemon.send_signal((signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)[round_])
            peer.close()
        daemon.terminate()
    assert daemon.returncode == 0


def _connected(port: int, daemon: subprocess.Popen[bytes]) -> socket.socket:
    """A connection to the daemon, which may not be up yet."""
    until = time.monotonic() + 10
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port), 10, (PEER, 0))
        except ConnectionRefusedError:
            assert daemon.poll() is None and time.monotonic() < until
            time.sleep(0.05)
