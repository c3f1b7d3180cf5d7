"""What the shell's tests share: a Speaker that only records, and loops of both kinds."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import socket
from collections.abc import Callable, Coroutine, Iterable, Mapping
from math import inf
from typing import Any

import pytest

from bgpd.effects import Effect, Send
from bgpd.routes import LocalChange
from bgpd.settings import PeerSettings, SpeakerSettings
from bgpd.shell.runner import Runner
from bgpd.wire.framing import KEEPALIVE

LOOPS = ("asyncio", "uvloop")


def missing(text: str) -> None:
    """Skip, or fail in CI, where everything must be there."""
    if os.environ.get("CI") == "true":
        pytest.fail(text)
    pytest.skip(text)


def run_on(kind: str, work: Callable[[], Coroutine[Any, Any, None]], timeout: float = 20.0) -> None:
    """Run a test's coroutine on a fresh loop of this kind."""

    async def limited() -> None:
        async with asyncio.timeout(timeout):
            await work()

    factory: Callable[[], asyncio.AbstractEventLoop] = asyncio.SelectorEventLoop
    if kind == "uvloop":
        if importlib.util.find_spec("uvloop") is None:
            missing("uvloop is not installed: the shell was tested on asyncio's loop only")
        import uvloop

        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(limited())


async def until(condition: Callable[[], object], timeout: float = 8.0) -> None:
    """Wait for a condition."""
    limit = asyncio.get_running_loop().time() + timeout
    while not condition():
        assert asyncio.get_running_loop().time() < limit, "the condition did not come true"
        await asyncio.sleep(0.002)


class FakeSpeaker:
    """Records what it is told; the test puts effects in and overrides the hooks it needs."""

    def __init__(self, *known: str) -> None:
        self.known = set(known)
        self.calls: list[tuple[Any, ...]] = []
        self.effects: list[Effect] = []
        self.received: dict[int, bytearray] = {}
        self.chunks: dict[int, list[bytes]] = {}
        self.flushes = 0
        self.accept = True
        self.due = inf
        self.on_data_hook: Callable[[int, bytes], None] = lambda conn, data: None
        self.on_tick_hook: Callable[[float], None] = lambda now: None
        self.shutdown_effects: Callable[[], list[Effect]] = list

    def start(self, now: float) -> None:
        self.calls.append(("start",))

    def reconfigure(self, settings: SpeakerSettings, now: float) -> None:
        self.calls.append(("reconfigure", settings))

    def shutdown(self, now: float, send_cease: bool) -> None:
        self.calls.append(("shutdown", send_cease))
        self.effects += self.shutdown_effects()

    def knows(self, remote_address: str) -> bool:
        return remote_address in self.known

    def on_connected(self, peer_name: str, conn: int, local_address: str, now: float) -> None:
        self.calls.append(("connected", peer_name, conn, local_address))

    def on_connect_failed(self, peer_name: str, reason: str, now: float) -> None:
        self.calls.append(("connect_failed", peer_name, reason))

    def on_accepted(self, conn: int, remote_address: str, local_address: str, now: float) -> bool:
        self.calls.append(("accepted", conn, remote_address, local_address))
        return self.accept

    def on_data(self, conn: int, data: memoryview, now: float) -> bool:
        octets = bytes(data)
        self.received.setdefault(conn, bytearray()).extend(octets)
        self.on_data_hook(conn, octets)
        return octets != KEEPALIVE

    def on_lost(self, conn: int, reason: str, now: float) -> None:
        self.calls.append(("lost", conn, reason))

    def on_fault(self, conn: int, now: float) -> None:
        self.calls.append(("fault", conn))

    def on_blocked(self, conn: int, now: float) -> None:
        self.calls.append(("blocked", conn))

    def on_progress(self, conn: int, now: float) -> None:
        self.calls.append(("progress", conn))

    def on_unblocked(self, conn: int, now: float) -> None:
        self.calls.append(("unblocked", conn))

    def on_tick(self, now: float) -> None:
        self.calls.append(("tick",))
        self.on_tick_hook(now)

    def on_local(self, changes: Iterable[LocalChange], now: float) -> None:
        self.calls.append(("local", list(changes)))

    def on_local_addresses(self, addresses: frozenset[bytes]) -> None:
        self.calls.append(("addresses", addresses))

    def on_devices(self, devices: Mapping[str, int]) -> None:
        self.calls.append(("devices", dict(devices)))

    def program(self) -> None:
        pass

    def flush(self, now: float) -> None:
        self.flushes += 1

    def deadline(self) -> float:
        return self.due

    def take_effects(self) -> list[Effect]:
        taken, self.effects = self.effects, []
        return taken

    def pull(self, conn: int) -> bytes | None:
        waiting = self.chunks.get(conn)
        return waiting.pop(0) if waiting else None

    def named(self, kind: str) -> list[tuple[Any, ...]]:
        """The recorded calls of one kind."""
        return [call for call in self.calls if call[0] == kind]


def echo(speaker: FakeSpeaker) -> None:
    """Let the fake answer every input with the same octets."""
    speaker.on_data_hook = lambda conn, data: speaker.effects.append(Send(conn, data))


def settings(
    *peers: PeerSettings, listen: tuple[tuple[str, int], ...] = (("127.0.0.1", 0),), **more: Any
) -> SpeakerSettings:
    """Settings with these peers."""
    return SpeakerSettings(asn=64512, router_id="10.0.0.1", peers=peers, listen=listen, **more)


def port_of(runner: Runner, index: int = 0) -> int:
    """The port that the kernel chose for a listener."""
    return int(runner.listener.addresses[index].rpartition(":")[2])


async def client(
    address: str, port: int, source: str | None = None, prepare: Callable[[socket.socket], None] | None = None
) -> socket.socket:
    """A connected non-blocking socket."""
    sock = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
    sock.setblocking(False)
    if prepare is not None:
        prepare(sock)
    if source is not None:
        sock.bind((source, 0))
    await asyncio.get_running_loop().sock_connect(sock, (address, port))
    return sock


async def read_exactly(sock: socket.socket, count: int) -> bytes:
    """Read so many octets, or up to the end."""
    loop = asyncio.get_running_loop()
    data = b""
    while len(data) < count and (piece := await loop.sock_recv(sock, count - len(data))):
        data += piece
    return data
