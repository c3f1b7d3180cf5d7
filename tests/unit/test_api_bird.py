"""BIRD's control sockets: Calico's callers played word for word, BIRD's own client, and clients that mean no good."""

from __future__ import annotations

import asyncio
import shutil
import socket
import stat
import subprocess
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest
import pytest_asyncio
from attrs import evolve

from bgpd.api.bird import server
from bgpd.api.bird.grammar import BirdError, Command, parse
from bgpd.api.bird.server import BirdSockets, ServeError, start_sockets
from bgpd.api.state import DaemonState
from bgpd.ctl import birdcl

from . import bird_callers as callers
from .api_support import World

T = TypeVar("T")


async def away(function: Callable[..., T], *arguments: Any) -> T:
    """Run what blocks, as another program would, beside the loop."""
    return await asyncio.get_running_loop().run_in_executor(None, function, *arguments)


@pytest.fixture(scope="module")
def world() -> World:
    return World()


@pytest_asyncio.fixture
async def place(world: World, tmp_path: Path) -> AsyncIterator[Path]:
    sockets = BirdSockets(world.state)
    await sockets.start(str(tmp_path))
    yield tmp_path
    await sockets.close()
    assert not list(tmp_path.glob("*.ctl"))


def ask(path: Path, *commands: str) -> list[list[str]]:
    dialogue = callers.Dialogue(path)
    answers = [dialogue.ask(command) for command in commands]
    dialogue.close()
    return answers


# The dialogues of Calico's programs


async def test_calicoctl_node_status_reads_the_table(place: Path) -> None:
    """The world's other names are no names of Calico's: its table leaves them out, too."""
    (row,) = await away(callers.peers_table, place / "bird.ctl", ".")
    address, kind, state, since, info = row
    assert (address, kind, state, info) == ("10.0.0.2", "node-to-node mesh", "up", "Established")
    assert since.count(":") == 2


async def test_show_protocols_word_for_word(place: Path) -> None:
    (lines,) = await away(ask, place / "bird.ctl", "show protocols")
    assert lines[0] == "2002-name     proto    table    state  since       info"
    assert lines[1].startswith("1002-static1  Static   master   up     ")
    assert all(line.startswith(" ") for line in lines[2:-1])
    assert lines[-1] == "0000 "
    names = [row[0] for row in callers.protocols(lines)]
    assert names == ["static1", "kernel1", "device1", "direct1", "Mesh_10_0_0_2", "absent", "tor"]
    absent = next(row for row in callers.protocols(lines) if row[0] == "absent")
    assert absent[3] == "start"
    assert absent[5] in ("Active", "Connect")
    assert absent[6].strip() == "Socket: Connection refused"


async def test_a_session_that_is_held_down_is_listed_with_its_reason(place: Path, world: World) -> None:
    """Calico's programs leave out rows of fewer than six columns."""
    peer = world.host.speaker.peers["absent"]
    settings = peer.settings
    peer.settings = evolve(settings, disabled="password of Secret bgp/one is missing")
    try:
        (lines,) = await away(ask, place / "bird.ctl", "show protocols")
    finally:
        peer.settings = settings
    row = next(row for row in callers.protocols(lines) if row[0] == "absent")
    assert row[6].strip() == "held down: password of Secret bgp/one is missing"


async def test_show_protocols_all_has_what_callers_search_for(place: Path) -> None:
    (lines,) = await away(ask, place / "bird.ctl", "show protocols all Mesh_10_0_0_2")
    text = "\n".join(lines)
    assert "BGP state:          Established" in text
    assert "Neighbor address: 10.0.0.2" in text
    assert [line for line in lines if line[:1].isdigit()][1:] == [lines[1], lines[2], "0000 "]


async def test_readiness_probe_follows_its_rule(place: Path, world: World) -> None:
    path = place / "bird.ctl"
    assert await away(callers.ready, path, False) == ""
    speaker = world.host.speaker
    speaker.restart.active = True
    try:
        assert await away(callers.ready, path, True) == "graceful restart in progress"
        speaker.restart.active = False
        assert await away(callers.ready, path, True) == ""
    finally:
        speaker.restart.active = False


async def test_show_status_word_for_word(place: Path, world: World) -> None:
    world.host.speaker.restart.active = True
    try:
        ((*lines, end),) = await away(ask, place / "bird6.ctl", "show status")
    finally:
        world.host.speaker.restart.active = False
    assert lines[0] == "1000-BIRD v1.2.3+calico-bgpd"
    assert lines[1] == "1011-Router ID is 10.0.0.1"
    starts = (" Current server time is 20", " Last reboot on 20", " Last reconfiguration on 20")
    assert all(line.startswith(start) for line, start in zip(lines[2:5], starts, strict=True))
    assert lines[5] == "0024-Graceful restart recovery in progress"
    assert lines[6].startswith("   Waiting for ")
    assert lines[7].startswith("   Wait timer is ")
    assert end == "0013 Daemon is up and running"


async def test_show_route_rows_are_taken_apart(place: Path) -> None:
    (lines,) = await away(ask, place / "bird.ctl", "show route")
    assert lines[0].startswith("1007-")
    rows = callers.routes(lines)
    found = {(row["prefix"], row["proto"]): row for row in rows}
    assert found["10.244.1.0/26", "static1"]["none"] == "blackhole"
    assert found["10.0.0.0/24", "direct1"]["dev"] == "eth0"
    assert found["10.99.0.0/16", "kernel1"]["dev"] == "cali1"
    mesh, tor = found["10.60.0.0/16", "Mesh_10_0_0_2"], found["10.60.0.0/16", "tor"]
    assert (mesh["gw"], mesh["via"], mesh["primary"], tor["primary"]) == ("10.0.0.2", "eth0", "*", None)
    assert found["10.70.0.0/16", "Mesh_10_0_0_2"]["none"] == "unreachable"
    assert [line for line in lines if line.startswith(" " * 20)], "the second path repeats its prefix"


async def test_each_socket_has_its_own_family(place: Path) -> None:
    v4, v6 = await away(ask, place / "bird.ctl", "show route"), await away(ask, place / "bird6.ctl", "show route")
    assert all(":" not in row["prefix"] for row in callers.routes(v4[0]))
    assert {row["prefix"] for row in callers.routes(v6[0])} >= {"fd00:99::/48", "fd00::/64"}
    (wrong,) = await away(ask, place / "bird.ctl", "show route for fd00:99::1")
    assert wrong[0].startswith("9001 ")


@pytest.mark.parametrize(
    ("command", "prefixes"),
    [
        ("show route for 10.244.2.7", {"10.244.2.0/26"}),
        ("show route 10.244.2.0/26 all", {"10.244.2.0/26"}),
        ("show route filtered", {"0.0.0.0/0"}),
        ("show route protocol direct1", {"10.0.0.0/24"}),
        ("show route primary protocol tor", {"10.50.1.0/24"}),
        ("show route export tor", {"10.244.1.0/26", "10.244.1.5/32", "10.244.2.0/26"}),
        ("show route export absent", set()),
        ("show route table master protocol static1", {"10.244.1.0/26", "10.244.7.0/26"}),
    ],
)
async def test_forms_of_show_route(place: Path, command: str, prefixes: set[str]) -> None:
    (lines,) = await away(ask, place / "bird.ctl", command)
    plain = [line for line in lines if not line.startswith(("1008-", "1012-", " \t"))]
    assert {row["prefix"] for row in callers.routes(plain)} == prefixes


async def test_export_is_what_the_peer_was_told(place: Path, world: World) -> None:
    """Against the other speaker's Adj-RIB-In."""
    (lines,) = await away(ask, place / "bird.ctl", "show route export tor")
    other = world.cluster.hosts["10.0.0.3"].speaker
    family = next(iter(other.ribs))
    adj = other.peers["node"].importer.adj[family]
    assert len(callers.routes(lines)) == len(adj.routes)


async def test_attributes_and_counts(place: Path) -> None:
    everything, count = await away(ask, place / "bird.ctl", "show route 10.50.1.0/24 all", "show route count")
    assert everything[1:] == [
        "1008-\tType: BGP unicast univ",
        "1012-\tBGP.origin: IGP",
        " \tBGP.as_path: 64600",
        " \tBGP.next_hop: 10.0.0.3",
        " \tBGP.local_pref: 300",
        "0000 ",
    ]
    assert count == ["0014 12 of 12 routes for 9 networks"]


# Errors, with BIRD's codes


@pytest.mark.parametrize(
    ("command", "code"),
    [
        ("foo", 9001),
        ("", 9001),
        ("show", 9001),
        ("show ospf", 9001),
        ("show protocols all tor more", 9001),
        ("show protocols nix", 9002),
        ('show protocols "X*"', 8003),
        ("show route for 99.9.9.9", 8001),
        ("show route 10.244.2.0/25", 8001),
        ("show route for", 9001),
        ("show route 1.2.3.4.5", 9001),
        ("show route protocol nix", 9001),
        ("show route export nix", 9001),
        ("show route table other", 9001),
        ("show route where source = RTS_BGP", 9001),
        ("disable tor", 8007),
        ("configure", 8007),
        ("down", 8007),
        ("restrict", 16),
        ("echo all", 0),
    ],
)
async def test_codes(place: Path, command: str, code: int) -> None:
    first, then = await away(ask, place / "bird.ctl", command, "show status")
    assert first[-1].startswith(f"{code:04d} "), first
    assert then[-1] == "0013 Daemon is up and running", "the connection goes on"


def test_every_word_of_a_long_line_is_short_in_its_error() -> None:
    with pytest.raises(BirdError) as caught:
        parse("x" * 4000)
    assert len(caught.value.text) < 120
    assert parse('show protocols all "M*"') == Command("protocols", all=True, name="M*", pattern=True)


async def test_a_daemon_without_a_speaker_answers(tmp_path: Path) -> None:
    sockets = BirdSockets(DaemonState("node-a", "1"))
    await sockets.start(str(tmp_path))
    answers = await away(
        ask, tmp_path / "bird.ctl", "show protocols", "show status", "show route", "show route for 10.0.0.1"
    )
    assert [row[3] for row in callers.protocols(answers[0])] == ["up", "start", "up", "up"]
    assert "0024-Graceful restart recovery in progress" in answers[1]
    assert answers[2] == ["0000 "]
    assert answers[3] == ["8001 Network not in table"]
    await sockets.close()


# Clients that mean no good


async def raw(path: Path, data: bytes) -> bytes:
    reader, writer = await asyncio.open_unix_connection(str(path))
    writer.write(data)
    writer.write_eof()
    answer = await reader.read()
    writer.close()
    return answer


async def test_too_long_and_garbage(place: Path) -> None:
    path = place / "bird.ctl"
    assert (await raw(path, b"x" * 100_000)).endswith(b"9000 Command too long\n")
    assert b"9001 syntax error" in await raw(path, b"\xff\xfe\0 show\n")
    assert (await raw(path, b"show status")).count(b"\n") == 1, "a line without its end is no command"
    assert (await raw(path, b"show status\n" * 300)).count(b"0013 ") == 300
    assert (await raw(path, b"show status\r\n")).endswith(b"running\n")


async def test_a_reader_that_takes_nothing_is_given_up(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "WRITE_TIME", 0.2)
    deaf = socket.socket(socket.AF_UNIX)
    deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    deaf.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(deaf, str(place / "bird.ctl"))

    async def pour() -> None:
        while True:
            await loop.sock_sendall(deaf, b"show route all\n" * 100)

    with pytest.raises(OSError):
        await asyncio.wait_for(pour(), 20)
    deaf.close()
    assert (await away(ask, place / "bird.ctl", "show status"))[0][-1].startswith("0013")


async def test_idle_connections_make_room(place: Path) -> None:
    """A hundred connections that ask nothing do not shut the probe out, and cost no more than the places there are."""
    held = [await asyncio.open_unix_connection(str(place / "bird.ctl")) for _ in range(100)]
    assert (await away(ask, place / "bird.ctl", "show status"))[0][-1].startswith("0013")
    ended = 0
    for reader, writer in held:
        try:
            greeting = await asyncio.wait_for(reader.readline(), 1)
            ended += not greeting or reader.at_eof()
        except (ConnectionError, TimeoutError):
            ended += 1
        writer.close()
    assert ended >= 100 - server.MAX_CONNECTIONS - 1


async def test_a_large_table_goes_out_in_slices(tmp_path: Path) -> None:
    world = World()
    from attrs import evolve

    from tests.unit.api_support import NODE, static

    routes = tuple(static(f"10.{100 + n // 65536}.{n // 256 % 256}.{n % 256}/32") for n in range(20_000))
    host = world.cluster.hosts[NODE]
    host.speaker.reconfigure(evolve(world.settings, static_routes=routes), world.cluster.now)
    sockets = BirdSockets(world.state)
    await sockets.start(str(tmp_path))
    (lines,) = await away(ask, tmp_path / "bird.ctl", "show route protocol static1")
    assert len(callers.routes(lines)) == 20_000
    await sockets.close()


# Places


async def test_sockets_have_birds_mode_and_a_living_daemon_keeps_its_own(place: Path, world: World) -> None:
    assert stat.S_IMODE((place / "bird.ctl").stat().st_mode) == 0o660
    other = BirdSockets(world.state)
    with pytest.raises(ServeError, match=r"another daemon answers.*--bird-sockets"):
        await start_sockets(other, str(place), default=False)
    assert (await away(ask, place / "bird.ctl", "show status"))[0][-1].startswith("0013")


async def test_the_default_place_is_used_with_the_default_api_socket_only(
    tmp_path: Path, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "BIRD_DIRECTORY", str(tmp_path))
    for wanted, default, there in ((None, True, True), (None, False, False), ("none", True, False)):
        sockets = BirdSockets(world.state)
        await start_sockets(sockets, wanted, default)
        assert (tmp_path / "bird6.ctl").exists() is there
        await sockets.close()


# BIRD's client, and ours


async def test_real_birdc_and_ours_print_the_same(place: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path, real = str(place / "bird.ctl"), shutil.which("birdcl")
    if real is None:
        pytest.skip("birdcl is not installed (package bird2)")
    for words in (
        ["show", "status"],
        ["show", "protocols"],
        ["show", "protocols", "all", "tor"],
        ["sh", "pro", "nix"],
        ["show", "route", "all"],
        ["foo"],
        ["-v", "show", "protocols"],
        ["-r", "disable", "tor"],
    ):
        theirs = await away(lambda w=words: subprocess.run([real, "-s", path, *w], capture_output=True, text=True))
        capfd.readouterr()
        status = await away(birdcl.main, ["-s", path, *words])
        assert capfd.readouterr().out == theirs.stdout
        assert status == theirs.returncode, words


def test_birdcl_without_a_daemon(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert birdcl.main(["-s", str(tmp_path / "none.ctl"), "show", "status"]) == 1
    assert capsys.readouterr().err.startswith("Unable to connect to server control socket (")
    assert birdcl.main(["-x"]) == 1
    assert "Usage: birdcl" in capsys.readouterr().err
