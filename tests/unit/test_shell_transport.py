"""What much data becomes on its way into the kernel: pieces of a first window, in order, and nothing after the end."""

from __future__ import annotations

import asyncio
import errno
import os
import random
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from bgpd.settings import PeerSettings
from bgpd.shell.runner import Runner
from bgpd.shell.transport import FIRST_WINDOW, Connection
from tests.unit.shell_support import LOOPS, FakeSpeaker, client, port_of, read_exactly, run_on, settings, until

pytestmark = pytest.mark.parametrize("kind", LOOPS)


@asynccontextmanager
async def connected(speaker: FakeSpeaker) -> AsyncIterator[tuple[socket.socket, Connection]]:
    """A client's socket and the runner's side of it."""
    runner = Runner(speaker)
    runner.bind(settings(PeerSettings("peer", "127.0.0.1", 64513)))
    runner.start()
    try:
        sock = await client("127.0.0.1", port_of(runner))
        await until(lambda: speaker.named("accepted") and runner.connections)
        (connection,) = runner.connections.values()
        with sock:
            yield sock, connection
    finally:
        await runner.stop(False)


def test_much_is_written_in_pieces(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only what exceeds a first window is cut, and its end is the transport's."""
    sizes: list[int] = []
    os_write = os.write

    def counting(descriptor: int, octets: memoryview) -> int:
        sizes.append(len(octets))
        return os_write(descriptor, octets)

    async def work() -> None:
        async with connected(FakeSpeaker("127.0.0.1")) as (sock, connection):
            monkeypatch.setattr(os, "write", counting)
            for length in (1, FIRST_WINDOW, FIRST_WINDOW + 1, 3 * FIRST_WINDOW):
                sizes.clear()
                data = os.urandom(length)
                connection.write(data)
                assert sizes == [FIRST_WINDOW] * ((length - 1) // FIRST_WINDOW)
                assert await read_exactly(sock, length) == data
            await until(lambda: connection.acknowledged() == connection.written == 5 * FIRST_WINDOW + 2)

    run_on(kind, work)


def test_order_holds_for_a_peer_that_reads_slowly(kind: str) -> None:
    """Small and large writes, with the kernel full and not, reach the peer as they were written, up to the end."""
    rng = random.Random(6928)
    pieces = [rng.randbytes(rng.choice((19, 4096, 14_481, 48_000, 65_536, 200_000))) for _ in range(120)]
    expected = b"".join(pieces)

    async def work() -> None:
        async with connected(FakeSpeaker("127.0.0.1")) as (sock, connection):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 32_768)
            paused = 0
            got = bytearray()
            for piece in pieces:
                connection.write(piece)
                paused += connection.paused
                got += await read_exactly(sock, rng.choice((1, 20_000, 100_000)) if connection.paused else 1)
            assert 0 < paused < len(pieces)
            connection.close()
            got += await read_exactly(sock, len(expected))
            assert got == expected

    run_on(kind, work)


def test_what_stops_a_piece_is_told_as_the_reason(kind: str) -> None:
    """The kernel tells a reset once: the transport, which comes second, would only see a closed pipe."""
    speaker = FakeSpeaker("127.0.0.1")

    async def work() -> None:
        async with connected(speaker) as (sock, connection):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            sock.close()
            # No turn of the loop between: the write meets the reset, not the reader.
            connection.write(bytes(3 * FIRST_WINDOW))
            await until(lambda: speaker.named("lost"))
            assert speaker.named("lost") == [("lost", connection.id, "the peer reset the connection")]

    run_on(kind, work)


@pytest.mark.parametrize("code", [errno.EAGAIN, errno.ENOBUFS])
def test_a_piece_that_is_refused_goes_to_the_transport(kind: str, code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    speaker = FakeSpeaker("127.0.0.1")

    async def work() -> None:
        async with connected(speaker) as (sock, connection):

            def refusing(descriptor: int, octets: memoryview) -> int:
                raise OSError(code, os.strerror(code))

            monkeypatch.setattr(os, "write", refusing)
            data = os.urandom(3 * FIRST_WINDOW)
            connection.write(data)
            assert await read_exactly(sock, len(data)) == data
            sock.close()
            await until(lambda: speaker.named("lost"))
            assert speaker.named("lost") == [("lost", connection.id, "the peer closed the connection")]

    run_on(kind, work)


def test_a_closing_connection_writes_nothing_itself(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its descriptor's number may be another connection's already."""

    async def work() -> None:
        async with connected(FakeSpeaker("127.0.0.1")) as (_, connection):
            calls: list[int] = []
            monkeypatch.setattr(os, "write", lambda descriptor, octets: calls.append(len(octets)))
            connection.abort()
            connection.write(bytes(3 * FIRST_WINDOW))
            await asyncio.sleep(0)
            assert calls == []

    run_on(kind, work)
