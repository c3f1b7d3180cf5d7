"""The HTTP side: sockets and permissions, who may ask, limits, and readers that do not read."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from bgpd.api import endpoints, server
from bgpd.api.endpoints import ServeError, is_loopback, parse_endpoint, read_token
from bgpd.api.schema import Peer, Status
from bgpd.api.server import ApiServer
from bgpd.api.state import DaemonState
from bgpd.family import parse_prefix

from .api_support import World, checked

ANY = "127.0.0.1:0"


@asynccontextmanager
async def serving(
    state: DaemonState, path: Path | str | None = None, health: str = "none", api: str | None = None, token: Any = None
) -> AsyncIterator[ApiServer]:
    made = ApiServer(state)
    await made.start("none" if path is None else str(path), health, api, str(token) if token else None)
    try:
        yield made
    finally:
        await made.close()


@asynccontextmanager
async def asking(path: Path | str | None = None) -> AsyncIterator[aiohttp.ClientSession]:
    connector = aiohttp.UnixConnector(str(path)) if path else aiohttp.TCPConnector()
    async with aiohttp.ClientSession(connector=connector) as session:
        yield session


async def raw(address: str, request: bytes) -> bytes:
    """What a server says to these octets before it closes."""
    host, port = address.rsplit(":", 1)
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(request)
    answer = await reader.read()
    writer.close()
    return answer


@pytest.fixture(scope="module")
def world() -> World:
    return World()


def empty() -> DaemonState:
    return DaemonState("node-a", "1")


# Sockets


async def test_the_socket_is_for_its_owner_alone_and_goes_with_the_daemon(tmp_path: Path, world: World) -> None:
    path = tmp_path / "deep" / "bgpd.sock"
    async with serving(world.state, path) as made, asking(path) as session:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert made.addresses == {"socket": str(path)}
        async with session.get("http://x/v1/status") as answer:
            assert answer.status == 200
            checked(await answer.json(), Status)
        async with session.get("http://x/v1/peers") as answer:
            for row in await answer.json():
                checked(row, Peer)
    assert not path.exists()


async def test_a_socket_left_by_a_killed_daemon_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "bgpd.sock"
    left = socket.socket(socket.AF_UNIX)
    left.bind(str(path))
    left.close()
    async with serving(empty(), path), asking(path) as session, session.get("http://x/livez") as answer:
        assert answer.status == 200


async def test_a_second_daemon_is_refused_and_harms_nothing(tmp_path: Path) -> None:
    path = tmp_path / "bgpd.sock"
    async with serving(empty(), path):
        with pytest.raises(ServeError, match="another daemon answers"):
            await ApiServer(empty()).start(str(path), "none", None)
        async with asking(path) as session, session.get("http://x/livez") as answer:
            assert answer.status == 200


async def test_a_file_in_the_way_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "precious"
    path.write_text("data")
    with pytest.raises(ServeError, match="is no socket: remove it"):
        await ApiServer(empty()).start(str(path), "none", None)
    assert path.read_text() == "data"


@pytest.mark.parametrize("path", ["/proc/none/bgpd.sock", "/" + "x" * 200])
async def test_an_impossible_path_is_one_sentence(path: str) -> None:
    with pytest.raises(ServeError, match=r"--socket") as caught:
        await ApiServer(empty()).start(path, "none", None)
    assert "\n" not in str(caught.value)


async def test_the_usual_place_falls_back_to_a_private_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    private = tmp_path / "private" / "calico-bgpd.sock"
    monkeypatch.setattr(endpoints, "socket_paths", lambda: ("/proc/none/bgpd.sock", str(private)))
    made = ApiServer(empty())
    await made.start(None, "none", None)
    assert made.addresses["socket"] == str(private)
    assert stat.S_IMODE(private.parent.stat().st_mode) == 0o700
    assert caplog.text.count("the api is at") == 1
    await made.close()


async def test_a_private_place_that_others_may_write_is_not_used(tmp_path: Path, monkeypatch: Any) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    os.chmod(shared, 0o777)
    monkeypatch.setattr(endpoints, "socket_paths", lambda: ("/proc/none/bgpd.sock", str(shared / "calico-bgpd.sock")))
    with pytest.raises(ServeError, match="open to others"):
        await ApiServer(empty()).start(None, "none", None)


async def test_a_port_in_use_is_one_sentence_with_the_way_out() -> None:
    async with serving(empty(), health=ANY) as made:
        with pytest.raises(ServeError, match="another program listens there; choose another with --health"):
            await ApiServer(empty()).start("none", made.addresses["health"], None)


@pytest.mark.parametrize("text", ["", "9178", "host:1", "127.0.0.1:", "127.0.0.1:x", "127.0.0.1:65536", "::1:9:x"])
def test_malformed_addresses_are_refused(text: str) -> None:
    with pytest.raises(ServeError, match="--health"):
        parse_endpoint(text, "--health")


def test_addresses_in_all_their_forms() -> None:
    assert parse_endpoint("[::1]:9", "--x") == ("::1", 9)
    assert parse_endpoint("localhost:9", "--x") == ("127.0.0.1", 9)
    assert parse_endpoint(":9", "--x") == ("0.0.0.0", 9)
    assert is_loopback("127.3.2.1") and is_loopback("::1") and is_loopback("::ffff:127.0.0.1")
    assert not is_loopback("0.0.0.0") and not is_loopback("::") and not is_loopback("10.0.0.1")


# Who may ask


async def test_an_api_beyond_loopback_needs_a_token(tmp_path: Path) -> None:
    for address in ("0.0.0.0:0", "[::]:0"):
        with pytest.raises(ServeError, match="give --api-token-file"):
            await ApiServer(empty()).start("none", "none", address)
    with pytest.raises(ServeError, match="--api only"):
        await ApiServer(empty()).start("none", "none", None, str(tmp_path / "token"))


@pytest.mark.parametrize("content", ["", "\n", "two words", "tést", "\0"])
def test_a_useless_token_file_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "token"
    path.write_text(content)
    with pytest.raises(ServeError, match="holds no token"):
        read_token(str(path))
    with pytest.raises(ServeError, match="cannot be read"):
        read_token(str(tmp_path / "absent"))


async def test_with_a_token_only_its_holder_is_answered(tmp_path: Path, world: World) -> None:
    path = tmp_path / "token"
    path.write_text("s3cret-token\n")
    async with serving(world.state, api="0.0.0.0:0", token=path) as made, asking() as session:
        url = f"http://127.0.0.1:{made.addresses['api'].rsplit(':', 1)[1]}/v1/status"
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "s3cret-token"}):
            async with session.get(url, headers=headers) as answer:
                assert answer.status == 401
                assert (await answer.json())["error"]["code"] == "unauthorized"
        async with session.get(url, headers={"Authorization": "Bearer s3cret-token"}) as answer:
            assert answer.status == 200


async def test_a_foreign_host_name_is_refused_on_loopback() -> None:
    async with serving(empty(), health=ANY) as made, asking() as session:
        url = f"http://{made.addresses['health']}/"
        for name in ("evil.example", "evil.example:80"):
            async with session.get(url, headers={"Host": name}) as answer:
                assert answer.status == 400
        for name in ("localhost", "localhost:9178", "[::1]:5", "127.0.0.1"):
            async with session.get(url, headers={"Host": name}) as answer:
                assert answer.status == 200


async def test_health_serves_no_api(world: World) -> None:
    async with serving(world.state, health=ANY) as made, asking() as session:
        for path, status in (("/readyz", 200), ("/livez", 200), ("/metrics", 200), ("/", 200), ("/v1/status", 404)):
            async with session.get(f"http://{made.addresses['health']}{path}") as answer:
                assert answer.status == status, path


async def test_readyz_is_503_with_reasons_until_ready() -> None:
    async with serving(empty(), health=ANY) as made, asking() as session:
        async with session.get(f"http://{made.addresses['health']}/readyz") as answer:
            assert answer.status == 503
            body = await answer.json()
        assert [check["name"] for check in body["checks"] if not check["ok"]] == ["configuration", "kernel", "sessions"]


# What may be asked


async def test_questions_that_make_no_sense_get_json_and_the_way_out(tmp_path: Path, world: World) -> None:
    path = tmp_path / "s"
    cases = {
        "/nothing": (404, "unknown-path"),
        "/v1/peer": (400, "bad-request"),
        "/v1/peer?name=nobody": (404, "unknown-peer"),
        "/v1/explain": (400, "bad-request"),
        "/v1/explain?prefix=nonsense": (400, "bad-request"),
        "/v1/explain?prefix=10.0.0.0/8&peer=nobody": (404, "unknown-peer"),
        "/v1/routes?prefix=10.0.0.0/99": (400, "bad-request"),
        "/v1/routes?match=like": (400, "bad-request"),
        "/v1/routes?family=ipx": (400, "bad-request"),
        "/v1/routes?limit=-1": (400, "bad-request"),
        "/v1/routes?limit=9999999999999999999999": (400, "bad-request"),
        "/v1/routes?limit=%D9%A3": (400, "bad-request"),
        "/v1/routes?received=nobody": (404, "unknown-peer"),
        "/v1/routes?received=tor&advertised=tor": (400, "bad-request"),
    }
    async with serving(world.state, path), asking(path) as session:
        for question, (status, code) in cases.items():
            async with session.get(f"http://x{question}") as answer:
                assert answer.status == status, question
                error = (await answer.json())["error"]
                assert error["code"] == code and error["text"] and error["hint"], question


async def test_only_get_without_a_body(tmp_path: Path, world: World) -> None:
    path = tmp_path / "s"
    async with serving(world.state, path), asking(path) as session:
        for method in ("POST", "PUT", "DELETE", "PATCH"):
            async with session.request(method, "http://x/v1/status") as answer:
                assert answer.status == 405
        async with session.get("http://x/v1/status", data=b"x" * 100) as answer:
            assert answer.status == 413
        async with session.head("http://x/v1/status") as answer:
            assert answer.status == 200 and not await answer.read()


async def test_garbage_costs_a_connection_and_nothing_else() -> None:
    async with serving(empty(), health=ANY) as made:
        where = made.addresses["health"]
        tls = b"\x16\x03\x01\x02\x00\x01\x00"
        for garbage in (b"\0" * 64 + b"\r\n\r\n", tls, b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n"):
            async with asyncio.timeout(20):
                task = asyncio.create_task(raw(where, garbage + b"\n" * 8))
                done, _ = await asyncio.wait({task}, timeout=0.5)
                task.cancel()
            assert not done or b" 200 " not in task.result()
        long = b"GET /" + b"x" * 10000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n"
        assert b" 400 " in (await raw(where, long))[:20]
        assert b" 200 " in await raw(where, b"GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")


async def test_a_flood_of_questions_is_told_to_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "_RATE", 0.0)
    monkeypatch.setattr(server, "_BURST", 5.0)
    async with serving(empty(), health=ANY) as made, asking() as session:
        statuses = []
        for _ in range(8):
            async with session.get(f"http://{made.addresses['health']}/livez") as answer:
                statuses.append(answer.status)
        assert statuses == [200] * 5 + [429] * 3
        assert answer.headers["Retry-After"] == "1"


async def test_connections_beyond_the_limit_are_closed_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "MAX_CONNECTIONS", 3)
    async with serving(empty(), health=ANY) as made:
        host, port = made.addresses["health"].rsplit(":", 1)
        held = [await asyncio.open_connection(host, int(port)) for _ in range(3)]
        assert await raw(made.addresses["health"], b"") == b""
        for _, writer in held:
            writer.close()


async def test_a_connection_that_asks_nothing_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "FIRST_REQUEST_TIME", 0.05)
    async with serving(empty(), health=ANY) as made:
        host, port = made.addresses["health"].rsplit(":", 1)
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"GET /livez HT")
        with pytest.raises(ConnectionResetError):
            assert await asyncio.wait_for(reader.read(), 10) == b""
            raise ConnectionResetError
        writer.close()


# Long answers


def grown() -> World:
    """A world with 30,000 routes."""
    world = World()
    family, key = parse_prefix("10.50.1.0/24")
    table = world.host.speaker.ribs[family].table
    table.update(dict.fromkeys((bytes((24, 11, i >> 8 & 255, i & 255)) for i in range(30000)), table[key]))
    return world


async def test_routes_are_streamed_and_end_with_their_number(tmp_path: Path) -> None:
    path = tmp_path / "s"
    async with serving(grown().state, path), asking(path) as session:
        async with session.get("http://x/v1/routes") as answer:
            assert answer.content_type == "application/x-ndjson"
            lines = (await answer.read()).splitlines()
        end = json.loads(lines[-1])
        assert end["end"] and end["routes"] == len(lines) - 1 > 30000


async def test_a_reader_that_reads_nothing_is_cut_off_and_stalls_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "WRITE_TIME", 0.2)
    path = tmp_path / "s"
    async with serving(grown().state, path) as made, asking(path) as session:
        reader, writer = await asyncio.open_unix_connection(str(path), limit=1024)
        writer.write(b"GET /v1/routes HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await asyncio.sleep(0)
        async with session.get("http://x/v1/status") as answer:
            assert answer.status == 200
        async with asyncio.timeout(30):
            while made._streams or not answer.closed:
                await asyncio.sleep(0.05)
        answer_so_far = await reader.read()
        assert b'"end":true' not in answer_so_far
        writer.close()


async def test_only_so_many_tables_are_written_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "STREAMS", 1)
    path = tmp_path / "s"
    async with serving(grown().state, path) as made, asking(path) as session:
        _, writer = await asyncio.open_unix_connection(str(path), limit=1024)
        writer.write(b"GET /v1/routes HTTP/1.1\r\nHost: localhost\r\n\r\n")
        while not made._streams:
            await asyncio.sleep(0.01)
        async with session.get("http://x/v1/routes") as answer:
            assert answer.status == 429
        writer.close()


async def test_the_page_shows_peers_and_escapes_what_others_wrote(world: World) -> None:
    tor = world.host.speaker.peers["tor"]
    before = tor.session.statistics.last_error
    absent = world.host.speaker.peers["absent"].session.statistics
    absent.last_error = "<script>alert(1)</script>"
    try:
        async with serving(world.state, health=ANY) as made, asking() as session:
            answer = await session.get(f"http://{made.addresses['health']}/")
            text = await answer.text()
            assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
    finally:
        absent.last_error, tor.session.statistics.last_error = "", before
    assert "Mesh_10_0_0_2" in text and "2 of 3 sessions established" in text
    assert "<script" not in text and "&lt;script&gt;" in text


async def test_the_page_says_how_old_a_datastore_is_that_is_gone(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = {**world.state.datastore(), "connected": False, "text": "refused", "age_seconds": 130.0}
    monkeypatch.setattr(world.state, "datastore", lambda: gone)
    async with serving(world.state, health=ANY) as made, asking() as session:
        answer = await session.get(f"http://{made.addresses['health']}/")
        text = await answer.text()
    assert "not connected: refused" in text and "in force is what it held 2 min 10 s ago" in text


async def test_an_internal_error_is_500_and_in_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "s"
    state = empty()
    monkeypatch.setattr(state, "datastore", lambda: 1 / 0)
    async with serving(state, path), asking(path) as session, session.get("http://x/v1/status") as answer:
        assert answer.status == 500
        assert "ZeroDivision" not in await answer.text()
    assert "ZeroDivisionError" in caplog.text
