"""bgpctl against a real server behind a real Unix socket."""

from __future__ import annotations

import io
import json
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from attrs import evolve
from click.testing import CliRunner, Result
from rich.console import Console

from bgpd.api.schema import Explain, KernelTable, Peer, PeerDetail, Route, Status
from bgpd.api.state import DaemonState
from bgpd.ctl.client import Client, CtlError
from bgpd.ctl.commands import make_cli
from bgpd.ctl.frame import fitting

from .api_support import World, checked, serving

COUNTS = {"ipv4": 3, "ipv6": 1, "nexthops": 2, "failed": 0}


class Daemon:
    """A running daemon's socket, and a way to run bgpctl against it."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.cleaned: list[tuple[int | None, int | None]] = []
        self.counts = dict(COUNTS)

    def clean(self, table: int | None, protocol: int | None) -> dict[str, int]:
        self.cleaned.append((table, protocol))
        return self.counts

    def run(self, *arguments: str, columns: int = 100) -> Result:
        runner = CliRunner(env={"COLUMNS": str(columns)})
        return runner.invoke(make_cli(self.clean), ["--socket", self.path, *arguments])

    def json(self, *arguments: str) -> Any:
        result = self.run(*arguments, "-o", "json")
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    world = World({"10.60.0.0/16": (101, "Network is unreachable")})
    path = str(tmp_path_factory.mktemp("ctl") / "bgpd.sock")
    with serving(world.state, path):
        yield Daemon(path)


def test_json_has_the_shape_of_the_schema(daemon: Daemon) -> None:
    checked(daemon.json("status"), Status)
    checked(daemon.json("peers"), list[Peer])
    checked(daemon.json("peers", "tor"), PeerDetail)
    checked(daemon.json("routes"), list[Route])
    checked(daemon.json("explain", "10.60.0.0/16"), Explain)
    checked(daemon.json("kernel", "show"), KernelTable)


@pytest.mark.parametrize("columns", [80, 100, 120])
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["status"], ["node-a", "2 established of 3", "BGPPeer/tor-rack1 spec.asNumber: no AS number"]),
        (["peers"], ["Mesh_10_0_0_2", "Established", "absent: cannot connect"]),
        (["peers", "10.0.0.3"], ["BGPPeer tor", "hold time 240 s", "export 1  BGPFilter hide, rule 1"]),
        (["routes"], ["10.60.0.0/16", "refused", "fd00:99::/48"]),
        (["routes", "10.60.0.0/16"], ["10.0.0.2", "64600"]),
        (["routes", "--received", "tor"], ["10.50.1.0/24"]),
        (["routes", "--advertised", "tor", "--family", "ipv4"], ["10.244.1.5/32", "64512"]),
        (["routes", "10.244.1.5"], ["10.244.1.0/26", "10.244.1.5/32"]),
        (["routes", "10.244.0.0/16", "--longer"], ["10.244.7.0/26"]),
        (["explain", "10.60.0.0/16"], ["loses at the step", "errno 101"]),
        (["explain", "10.244.7.0/26", "--peer", "tor"], ["It is not announced to tor: BGPFilter hide, rule 1."]),
        (["kernel", "show"], ["10.60.0.0/16", "Network is unreachable"]),
    ],
)
def test_tables_say_it_in_plain_text(daemon: Daemon, arguments: list[str], words: list[str], columns: int) -> None:
    result = daemon.run(*arguments, columns=columns)
    assert result.exit_code == 0, result.output
    assert "\x1b" not in result.output, "no colour where there is no terminal"
    assert all(line == line.rstrip() for line in result.output.splitlines())
    for word in words:
        assert word in result.output


def test_limit_is_told(daemon: Daemon) -> None:
    result = daemon.run("routes", "--limit", "2")
    assert len(result.stdout.splitlines()) == 3
    assert "--limit was reached" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["peers", "nobody"], "there is no peer nobody; `bgpctl peers` lists"),
        (["routes", "11.0.0.0/8"], "there is no route for 11.0.0.0/8; `bgpctl explain 11.0.0.0/8` says"),
        (["routes", "--received", "nobody"], "there is no peer nobody"),
        (["routes", "x/y"], "'x/y' is not a prefix; write it like"),
        (["explain", "10.0.0.0/8", "--peer", "nobody"], "there is no peer nobody"),
        (["explain", "nonsense"], "is not a prefix"),
    ],
)
def test_mistakes_are_one_sentence_and_status_1(daemon: Daemon, arguments: list[str], words: str) -> None:
    result = daemon.run(*arguments)
    assert result.exit_code == 1
    assert words in result.stderr and len(result.stderr.splitlines()) == 1
    assert not result.stdout


def test_status_tells_the_limits_and_who_was_refused(tmp_path: Path) -> None:
    world = World()
    speaker = world.host.speaker
    template = evolve(speaker.settings.peers[0], max_attribute_sets=20_000, max_octets=64 << 20)
    speaker.settings = evolve(speaker.settings, dynamic=(("10.9.0.0/16", template),), max_dynamic=500)
    world.state.refused = lambda: {"unknown-address": 0, "connection-rate": 1204}
    path = str(tmp_path / "s")
    with serving(world.state, path):
        told = Daemon(path).run("status").stdout
    first = told.index("Limits")
    lines = [line.removeprefix("Limits").strip() for line in told[first:].splitlines()[:5]]
    assert lines == [
        "each of 10.9.0.0/16: 1,000 ipv4 prefixes, 20,000 attribute sets, 64 MiB",
        "each of 3 configured peers: 1,000 ipv4 prefixes",
        "500 dynamic peers",
        "10 connections a second from one address",
        "connections refused so far: 1,204 connection-rate",
    ]


def test_wrong_usage_is_status_2(daemon: Daemon) -> None:
    assert daemon.run("routes", "--received", "a", "--advertised", "b").exit_code == 2
    assert daemon.run("routes", "--limit", "0").exit_code == 2
    assert daemon.run("nothing").exit_code == 2


def test_explaining_what_is_not_there_tells_and_fails(daemon: Daemon) -> None:
    result = daemon.run("explain", "11.0.0.0/8")
    assert result.exit_code == 1
    assert "No peer has announced it" in result.stdout and "nothing" in result.stdout


def test_a_long_table_is_printed_as_it_comes(tmp_path: Path) -> None:
    world = World()
    table = next(iter(world.host.speaker.ribs.values())).table
    entry = table[bytes((24, 10, 50, 1))]
    table.update(dict.fromkeys((bytes((24, 11, i >> 8, i & 255)) for i in range(2000)), entry))
    path = str(tmp_path / "s")
    with serving(world.state, path):
        daemon = Daemon(path)
        lines = daemon.run("routes", "11.0.0.0/8", "--longer").stdout.splitlines()
        assert len(lines) == 2001
        assert lines[0].split()[:2] == ["Prefix", "Next"]
        assert lines[-1].split()[:2] == ["*", "11.7.207.0/24"]
        assert len(daemon.json("routes", "11.0.0.0/8", "--longer")) == 2000


def test_what_others_wrote_commands_no_terminal(tmp_path: Path) -> None:
    world = World()
    world.host.speaker.peers["absent"].session.statistics.last_error = "6/2 \x1b]0;owned\x07\x9b2J\nnext"
    path = str(tmp_path / "s")
    with serving(world.state, path):
        for arguments in (["peers"], ["peers", "absent"], ["explain", "10.244.1.0/26"]):
            result = Daemon(path).run(*arguments)
            assert result.exit_code == 0
            assert all(char.isprintable() or char == "\n" for char in result.output)
            assert "\\x1b]0;owned" in result.output


# Kernel


def test_clean_wants_yes_while_the_daemon_runs(daemon: Daemon) -> None:
    result = daemon.run("kernel", "clean")
    assert result.exit_code == 1 and "stop it first, or add --yes" in result.stderr
    assert daemon.cleaned == []
    result = daemon.run("kernel", "clean", "--yes", "--table", "100")
    assert result.exit_code == 0 and result.stdout == "removed: 3 ipv4, 1 ipv6, 2 nexthops\n"
    assert daemon.cleaned == [(100, None)]


def test_clean_needs_no_daemon_and_tells_of_failures(tmp_path: Path) -> None:
    daemon = Daemon(str(tmp_path / "absent"))
    assert json.loads(daemon.run("kernel", "clean", "-o", "json").stdout) == COUNTS
    daemon.counts["failed"] = 2
    result = daemon.run("kernel", "clean")
    assert result.exit_code == 1 and "refused to remove 2" in result.stderr


# No daemon


def test_no_daemon_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "bgpd.sock"
    daemon = Daemon(str(path))
    result = daemon.run("status")
    assert result.exit_code == 1 and "does not exist; see --socket" in result.stderr
    left = socket.socket(socket.AF_UNIX)
    left.bind(str(path))
    left.close()
    assert "nobody answers" in daemon.run("status").stderr
    monkeypatch.setattr("bgpd.ctl.client.socket_paths", lambda: (str(tmp_path / "a"), str(tmp_path / "b")))
    result = CliRunner().invoke(make_cli(daemon.clean), ["status"])
    assert result.exit_code == 1 and "start it, or name its socket with --socket" in result.stderr
    result = CliRunner().invoke(make_cli(daemon.clean), ["--socket", "http://127.0.0.1:1", "status"])
    assert "does not answer at http://127.0.0.1:1" in result.stderr
    result = CliRunner().invoke(make_cli(daemon.clean), ["--socket", "http://nowhere", "status"])
    assert "write http://ADDR:PORT" in result.stderr


def test_no_permission_is_told_as_such(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: socket.socket, path: str) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    result = Daemon(str(tmp_path)).run("status")
    assert result.exit_code == 1 and "run bgpctl as the user that runs bgpd, usually root" in result.stderr


def _answering(path: str, answer: bytes, hold: bool = False) -> threading.Event:
    """A server that says `answer` to the first question, whatever it is."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen(1)
    done = threading.Event()

    def serve() -> None:
        connection, _ = listener.accept()
        connection.recv(65536)
        connection.sendall(answer)
        if hold:
            done.wait(10)
        connection.close()
        listener.close()

    threading.Thread(target=serve, daemon=True).start()
    return done


OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"", "bgpd closed the connection"),
        (b"SSH-2.0-OpenSSH\r\n", "bgpd closed the connection"),
        (OK + b"Content-Length: 5\r\n\r\nhello", "no JSON"),
        (OK + b"Content-Length: 50\r\n\r\n{}", "broke off"),
        (b"HTTP/1.1 500 X\r\nContent-Length: 2\r\n\r\n{}", "HTTP status 500"),
        (b"HTTP/1.1 503 X\r\nContent-Length: 0\r\n\r\n", "HTTP status 503"),
    ],
)
def test_a_strange_server_is_one_sentence(tmp_path: Path, answer: bytes, words: str) -> None:
    path = str(tmp_path / "s")
    _answering(path, answer)
    result = Daemon(path).run("status")
    assert result.exit_code == 1 and words in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_a_silent_daemon_is_a_timeout(tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    done = _answering(path, b"", hold=True)
    result = Daemon(path).run("--timeout", "0.2", "status")
    done.set()
    assert result.exit_code == 1 and "did not answer within 0.2 s" in result.stderr


def test_an_answer_without_its_end_is_not_taken_for_whole(tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    _answering(path, OK + b'\r\n{"prefix":"10.0.0.0/8"}\n')
    with pytest.raises(CtlError, match="broke off before its end"):
        list(Client(path).routes())


def test_a_starting_daemon_says_what_it_waits_for(tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    with serving(DaemonState("node-a", "1"), path):
        daemon = Daemon(path)
        assert "no snapshot from the datastore" in daemon.run("status").stdout
        result = daemon.run("peers")
    assert result.exit_code == 1 and "it waits for its datastore" in result.stderr


def test_the_api_over_tcp_with_a_token(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("s3cret\n")
    with serving(World().state, str(tmp_path / "s"), api="127.0.0.1:0", token_file=str(token)) as server:
        where = f"http://{server.addresses['api']}"
        daemon = Daemon(where)
        assert f"bgpd at {where} asks for a token: give --token-file FILE" in daemon.run("status").stderr
        other = tmp_path / "other"
        other.write_text("guessed\n")
        refused = daemon.run("--token-file", str(other), "status")
        assert refused.exit_code == 1 and "does not take this token" in refused.stderr
        assert daemon.run("--token-file", str(token), "status").exit_code == 0


# The entry point


def test_further_commands_are_joined_when_they_are_needed(daemon: Daemon) -> None:
    asked = []

    @click.command()
    def validate() -> None:
        click.echo("fine")

    def more() -> list[click.Command]:
        asked.append(1)
        return [validate]

    cli = make_cli(daemon.clean, more)
    assert CliRunner().invoke(cli, ["--socket", daemon.path, "status"]).exit_code == 0
    assert not asked
    assert "fine" in CliRunner().invoke(cli, ["validate"]).output
    result = CliRunner().invoke(make_cli(daemon.clean, more), ["--help"])
    assert all(name in result.output for name in ("status", "peers", "routes", "explain", "kernel", "validate"))


def test_ctl_starts_without_the_speaker_and_the_servers_modules() -> None:
    import subprocess
    import sys

    code = "import sys, bgpd.ctl.commands; print(*sorted(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ)
    names = loaded.stdout.split()
    assert "bgpd.api.schema" in names
    assert not {"bgpd.speaker", "bgpd.api.server", "aiohttp", "asyncio", "rich", "prometheus_client"} & set(names)


def test_columns_go_in_order_until_a_row_fits_the_terminal_and_a_pipe_gets_them_all() -> None:
    names, rows = ("Peer", "Address", "AS"), [("n" * 20, "a" * 30, "65001")]
    for width, kept, dropped in ((80, [0, 1, 2], []), (40, [0, 2], ["Address"]), (10, [0], ["Address", "AS"])):
        terminal = Console(file=io.StringIO(), width=width, force_terminal=True)
        assert fitting(terminal, names, rows, ("Address", "AS", "Absent")) == (kept, dropped)
    pipe = Console(file=io.StringIO(), width=10)
    assert fitting(pipe, names, rows, ("Address",)) == ([0, 1, 2], [])
