"""bgpctl health: Calico's rule of readiness, its options, texts and exit status."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from bgpd.api.bird.ready import bird_ready
from bgpd.api.state import DaemonState
from bgpd.ctl.commands import make_cli
from bgpd.ctl.health import duration
from bgpd.family import IPV4_UNICAST
from bgpd.settings import FamilySettings

from .api_support import World, serving


class Node(World):
    """The world with Calico's names; `young` says whether it has just started."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.file = folder / "nodename"
        self.file.write_text("node-a")
        self.state.nodename_file = str(self.file)
        self.names("Mesh_10_0_0_2", "Node_10_0_0_3", "Global_10_0_0_9")
        self.host.speaker.restart.active = False

    def names(self, *names: str) -> None:
        """Give the sessions other names, without ending them."""
        speaker = self.host.speaker
        peers = sorted(speaker.peers.values(), key=lambda peer: peer.settings.address)
        for peer, name in zip(peers, names, strict=True):
            object.__setattr__(peer.settings, "name", name)
        speaker.peers = {peer.settings.name: peer for peer in peers}

    def aged(self, seconds: float) -> None:
        at = self.state.wall() - seconds
        os.utime(self.file, (at, at))


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)


def verdict(node: Node, check: str = "bird-ready") -> str:
    found = bird_ready(node.state, check)
    return "" if found["ok"] else found["text"]


def test_a_young_node_needs_all_sessions_an_old_one_any(node: Node) -> None:
    node.aged(29)
    assert verdict(node) == "BGP not established with 10.0.0.9"
    node.aged(31)
    assert verdict(node) == ""


def test_recovery_counts_while_the_node_is_young(node: Node) -> None:
    node.names("Mesh_10_0_0_2", "Node_10_0_0_3", "Local_Workload_10_0_0_9")
    node.aged(1)
    node.host.speaker.restart.active = True
    assert verdict(node) == "graceful restart in progress"
    node.aged(31)
    assert verdict(node) == ""
    node.host.speaker.restart.active = False
    node.aged(1)
    assert verdict(node) == "", "the workload's session, which is down, does not count"


def test_all_down_is_not_ready_and_none_is(node: Node) -> None:
    node.aged(3600)
    node.names("Local_Workload_1", "Local_Workload_2", "Global_10_0_0_9")
    assert verdict(node) == "BGP not established with 10.0.0.9"
    node.names("a", "b", "c")
    assert verdict(node) == ""


def test_each_family_by_itself(node: Node) -> None:
    for peer in node.host.speaker.peers.values():
        object.__setattr__(peer.settings, "families", (FamilySettings(IPV4_UNICAST),))
    node.aged(1)
    assert verdict(node, "bird6-ready") == ""
    assert verdict(node).startswith("BGP not established")


def test_without_a_nodename_file(node: Node) -> None:
    node.file.unlink()
    assert verdict(node) == f"Failed to stat() nodename file: stat {node.file}: no such file or directory"


def test_before_the_start(tmp_path: Path) -> None:
    state = DaemonState("a", "1")
    state.nodename_file = str(tmp_path)
    assert bird_ready(state, "bird-ready")["text"] == "the speaker has not started"


# The command


def run(socket: Path, *arguments: str) -> Result:
    cli = make_cli(lambda table, protocol: {})
    return CliRunner().invoke(cli, ["--socket", str(socket), "health", *arguments])


def test_failures_are_said_as_users_grep_for_them(node: Node, tmp_path: Path) -> None:
    socket = tmp_path / "sock"
    node.aged(1)
    with serving(node.state, str(socket)):
        young = run(socket, "--bird-ready")
        assert young.exit_code == 1
        assert young.output == "calico/node is not ready: BIRD is not ready: BGP not established with 10.0.0.9\n"
        assert run(socket, "--bird-ready", "--threshold-time", "500ms").output == ""
        node.aged(31)
        good = run(socket, "--bird-live", "--bird6-live", "--bird6-ready", "--threshold-time=30s")
        assert (good.exit_code, good.output) == (0, "")
        node.file.unlink()
        assert "BIRD6 is not ready: Failed to stat() nodename file" in run(socket, "--bird6-ready").output
    gone = run(socket, "--bird-live")
    assert gone.exit_code == 1
    assert gone.output.startswith("calico/node is not ready: bird/confd is not live: bgpd is not running")
    assert run(socket).exit_code == 2
    assert "at least one check is needed" in run(socket).output


class Felix(BaseHTTPRequestHandler):
    """Alive and not ready."""

    def do_GET(self) -> None:
        self.send_response({"/liveness": 204, "/readiness": 503}[self.path])
        self.end_headers()

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def felix() -> Iterator[int]:
    server = HTTPServer(("127.0.0.1", 0), Felix)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server.server_address[1]
    server.shutdown()
    thread.join()
    server.server_close()


def test_felix(felix: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FELIX_HEALTHHOST", "127.0.0.1")
    monkeypatch.setenv("FELIX_HEALTHPORT", str(felix))
    assert run(tmp_path, "--felix-live").exit_code == 0
    unready = run(tmp_path, "--felix-live", "--felix-ready")
    assert unready.output == "calico/node is not ready: felix is not ready: Felix answers with HTTP status 503\n"
    monkeypatch.setenv("FELIX_HEALTHPORT", "1")
    assert "felix is not live: Get http://127.0.0.1:1/liveness: " in run(tmp_path, "--felix-live").output


@pytest.mark.parametrize(("text", "seconds"), [("30s", 30), ("1m30s", 90), ("500ms", 0.5), ("7", 7), ("1.5h", 5400)])
def test_durations(text: str, seconds: float) -> None:
    command = click.Command("x")
    assert duration(click.Context(command), click.Option(["--t"]), text) == seconds


@pytest.mark.parametrize("text", ["", "s", "30x", "30 s", "-5s"])
def test_bad_durations(text: str) -> None:
    with pytest.raises(click.BadParameter):
        duration(click.Context(click.Command("x")), click.Option(["--t"]), text)
