"""The runner: order of effects, one flush a turn, back-pressure, faults, timers. A recording Speaker on both loops."""

from __future__ import annotations

import asyncio
import itertools
import logging
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from math import inf
from time import monotonic
from typing import Any

import pytest

from bgpd.effects import Close, Connect, Effect, Log, Program, Ready, ReleaseKernel, Send, Spread
from bgpd.family import IPV4_UNICAST, Family
from bgpd.routes import FibRoute, RouteKind
from bgpd.settings import FibSettings, LearnSettings, PeerSettings
from bgpd.shell.runner import Runner
from bgpd.wire.framing import KEEPALIVE
from tests.unit.shell_support import LOOPS, FakeSpeaker, client, echo, port_of, read_exactly, run_on, settings, until

PEER = PeerSettings("peer", "127.0.0.1", 64513)
pytestmark = pytest.mark.parametrize("kind", LOOPS)


class FakeKernel:
    """Records what is programmed."""

    def __init__(self) -> None:
        self.calls: list[Any] = []

    def program(self, family: Family, routes: dict[bytes, FibRoute | None]) -> None:
        self.calls.append((family, routes))

    def release(self) -> None:
        self.calls.append("release")

    def reconfigure(self, settings: FibSettings, learn: LearnSettings) -> None:
        self.calls.append((settings, learn))


class Refusing:
    """A transport whose writes fail."""

    def write(self, data: bytes) -> None:
        raise RuntimeError("Cannot call write() after write_eof()")

    def abort(self) -> None:
        """Nothing is open."""


@asynccontextmanager
async def running(speaker: FakeSpeaker, **options: Any) -> AsyncIterator[Runner]:
    runner = Runner(speaker, **options)
    runner.bind(settings(PEER))
    runner.start()
    try:
        yield runner
    finally:
        await runner.stop(False)


async def session(speaker: FakeSpeaker, runner: Runner) -> tuple[socket.socket, int]:
    """A client's socket and the id of its connection."""
    before = len(speaker.named("accepted"))
    sock = await client("127.0.0.1", port_of(runner))
    await until(lambda: len(speaker.named("accepted")) > before)
    return sock, speaker.named("accepted")[-1][1]


def test_effects_in_order_and_close_sends_what_was_written(kind: str) -> None:
    """In order, but that the kernel is released only when it has the routes of the same turn."""

    async def work() -> None:
        speaker, kernel = FakeSpeaker("127.0.0.1"), FakeKernel()
        route = FibRoute(RouteKind.BLACKHOLE, (), 0)

        def answer(conn: int, data: bytes) -> None:
            speaker.chunks[conn] = [b"pulled "]
            speaker.effects += [
                Send(conn, b"first "),
                Ready(conn),
                Send(conn, b"last"),
                Close(conn),
                Send(conn, b"never"),
            ]
            speaker.effects += [ReleaseKernel(), Program(IPV4_UNICAST, {b"\x08\x0a": route}), Close(conn), Ready(999)]

        speaker.on_data_hook = answer
        async with running(speaker, kernel=kernel) as runner:
            sock, _ = await session(speaker, runner)
            sock.send(b"x")
            assert await read_exactly(sock, 100) == b"first pulled last"
            assert kernel.calls == [(IPV4_UNICAST, {b"\x08\x0a": route}), "release"]
            sock.close()
            await until(lambda: not runner._open)
            assert speaker.named("lost") == []

    run_on(kind, work)


def test_a_change_is_in_the_kernel_before_peers_hear_of_it(kind: str) -> None:
    async def work() -> None:
        speaker, kernel = FakeSpeaker("127.0.0.1"), FakeKernel()
        heard: list[object] = []

        def flush(now: float) -> None:
            heard.append(kernel.calls.copy())

        async with running(speaker, kernel=kernel) as runner:
            sock, conn = await session(speaker, runner)
            speaker.on_data_hook = lambda conn, data: heard.append(data)
            speaker.program = lambda: speaker.effects.append(Program(IPV4_UNICAST, {}))  # type: ignore[method-assign]
            speaker.flush = flush  # type: ignore[method-assign]
            await asyncio.sleep(0.02)
            heard.clear()
            kernel.calls.clear()
            runner.buffer[:1] = b"x"
            runner.received(runner.connections[conn], 1)
            assert heard == [b"x", [(IPV4_UNICAST, {})]]
            runner.received(runner.connections[conn], 1)
            assert len(heard) == 3, "what follows at once is gathered"
            await until(lambda: len(heard) == 4)
            sock.close()

    run_on(kind, work)


def test_what_is_spread_reaches_the_others_when_one_connection_fails(kind: str) -> None:
    """Their places in the log have moved on: what is not written then is never written."""

    async def work() -> None:
        speaker = FakeSpeaker("127.0.0.1")
        async with running(speaker) as runner:
            sessions = [await session(speaker, runner) for _ in range(3)]
            conns = [conn for _, conn in sessions]

            broken = runner.connections[conns[1]]
            real, broken.transport = broken.transport, Refusing()  # type: ignore[assignment]
            speaker.effects.append(Spread([*conns, 999], b"told to all"))
            runner.on_devices({})
            for index in (0, 2):
                assert await read_exactly(sessions[index][0], 11) == b"told to all"
            await until(lambda: runner.defects)
            assert speaker.named("fault") == [("fault", broken.id)]
            real.abort()
            for sock, _ in sessions:
                sock.close()

    run_on(kind, work)


def test_notification_survives_unread_input(kind: str) -> None:
    """Octets that come after the Close must not turn the FIN into a RST that overtakes the NOTIFICATION."""

    async def work() -> None:
        speaker = FakeSpeaker("127.0.0.1")
        speaker.on_data_hook = lambda conn, data: speaker.effects.extend([Send(conn, b"N" * 21), Close(conn)])
        async with running(speaker) as runner:
            sock, _ = await session(speaker, runner)
            for _ in range(20):
                sock.send(b"z" * 4096)
                await asyncio.sleep(0)
            await asyncio.sleep(0.05)
            sock.send(b"z" * 4096)
            assert await read_exactly(sock, 100) == b"N" * 21
            sock.close()

    run_on(kind, work)


def test_one_flush_for_the_inputs_of_a_turn(kind: str) -> None:
    async def work() -> None:
        speaker = FakeSpeaker("127.0.0.1")
        async with running(speaker) as runner:
            clients = [await session(speaker, runner) for _ in range(10)]
            await asyncio.sleep(0.01)
            before = speaker.flushes
            for sock, _ in clients:
                sock.send(b"hello")
            await until(lambda: len(speaker.received) == 10)
            await asyncio.sleep(0.01)
            assert speaker.flushes == before + 1
            sock, conn = clients[0]
            sock.send(KEEPALIVE)
            await until(lambda: speaker.received[conn].endswith(KEEPALIVE))
            await asyncio.sleep(0.01)
            assert speaker.flushes == before + 1, "nothing to flush"
            for sock, _ in clients:
                sock.close()
            await until(lambda: len(speaker.named("lost")) == 10)
            assert {call[2] for call in speaker.named("lost")} == {"the peer closed the connection"}

    run_on(kind, work)


def test_back_pressure(kind: str) -> None:
    """A peer that reads nothing gets at most one chunk beyond what its TCP takes, and goes on when it reads."""

    async def work() -> None:
        speaker = FakeSpeaker("127.0.0.1")
        async with running(speaker, progress_time=0.01) as runner:
            sock, conn = await session(speaker, runner)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
            chunk, count = b"u" * 65536, 400
            speaker.chunks[conn] = [chunk] * count
            speaker.effects.append(Ready(conn))
            runner._schedule()
            await until(lambda: speaker.named("blocked"))
            connection = runner.connections[conn]
            assert connection.paused
            assert 0 < connection.transport.get_write_buffer_size() <= len(chunk)
            left = len(speaker.chunks[conn])
            assert left > 0
            await asyncio.sleep(0.05)
            assert len(speaker.chunks[conn]) == left
            for _ in range(100):
                speaker.calls.clear()
                speaker.effects.append(Ready(conn))
                runner._schedule()
                await asyncio.sleep(0.03)
                if not speaker.named("progress"):
                    break  # the peer's TCP has acknowledged all that it takes
            assert speaker.named("progress") == []

            total = len(await read_exactly(sock, 700_000))
            assert total == 700_000
            await until(lambda: speaker.named("progress") or speaker.named("unblocked"))
            total += len(await read_exactly(sock, len(chunk) * count - total))
            assert total == len(chunk) * count
            await until(lambda: not connection.paused)
            assert speaker.named("unblocked")
            assert not runner._blocked
            sock.close()

    run_on(kind, work)


def test_close_of_a_blocked_peer_is_bounded(kind: str) -> None:
    async def work() -> None:
        speaker = FakeSpeaker("127.0.0.1")
        async with running(speaker) as runner:
            sock, conn = await session(speaker, runner)
            speaker.chunks[conn] = [b"u" * 65536] * 400
            speaker.effects.append(Ready(conn))
            runner._schedule()
            await until(lambda: speaker.named("blocked"))
            speaker.effects += [Send(conn, b"N"), Close(conn)]
            runner._schedule()
            await until(lambda: conn not in runner.connections)
            assert runner._open
            await until(lambda: not runner._open, 3.0)
            assert speaker.named("lost") == []
            sock.close()

    run_on(kind, work)


def test_a_fast_peer_does_not_hold_up_the_others(kind: str) -> None:
    """Within one turn a connection gets a bounded share, however much its kernel takes."""

    async def work() -> None:
        speaker = FakeSpeaker("127.0.0.1")
        async with running(speaker) as runner:
            sock, conn = await session(speaker, runner)
            speaker.chunks[conn] = [b"u" * 1024] * 2048
            pulled: list[int] = []
            original = speaker.flush

            def flush(now: float) -> None:
                pulled.append(2048 - len(speaker.chunks[conn]))
                original(now)

            speaker.flush = flush  # type: ignore[method-assign]
            speaker.effects.append(Ready(conn))
            runner._schedule()
            assert len(await read_exactly(sock, 2048 * 1024)) == 2048 * 1024
            assert max(b - a for a, b in itertools.pairwise(pulled)) < 1024
            sock.close()

    run_on(kind, work)


def test_a_defect_costs_one_session(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    async def work() -> None:
        speaker = FakeSpeaker("127.0.0.1")
        async with running(speaker) as runner:
            bad, bad_conn = await session(speaker, runner)
            good, good_conn = await session(speaker, runner)

            def answer(conn: int, data: bytes) -> None:
                if conn == bad_conn:
                    raise ZeroDivisionError("a defect")
                speaker.effects.append(Send(conn, data))

            speaker.on_data_hook = answer
            bad.send(b"x")
            good.send(b"y")
            assert await read_exactly(good, 1) == b"y"
            await until(lambda: speaker.named("fault"))
            assert speaker.named("fault") == [("fault", bad_conn)]
            assert await read_exactly(bad, 1) == b""
            assert runner.defects == 1
            assert list(runner.connections) == [good_conn]
            bad.close()
            good.close()

    with caplog.at_level(logging.ERROR):
        run_on(kind, work)
    assert "ZeroDivisionError" in caplog.text


def test_defects_in_flush_and_timer_do_not_end_the_loop_or_spin(kind: str) -> None:
    async def work() -> None:
        speaker = FakeSpeaker("127.0.0.1")
        echo(speaker)
        async with running(speaker) as runner:
            sock, _ = await session(speaker, runner)

            def fail(now: float) -> None:
                raise ZeroDivisionError

            speaker.on_tick_hook = fail
            speaker.flush = fail  # type: ignore[method-assign]
            speaker.due = monotonic()
            runner._schedule()
            await until(lambda: speaker.named("tick"))
            await asyncio.sleep(0.05)
            assert len(speaker.named("tick")) == 1
            sock.send(b"still here")
            assert await read_exactly(sock, 10) == b"still here"
            sock.close()

    run_on(kind, work)


def test_defects_on_the_way_to_the_kernel_cost_no_peer_anything(
    kind: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Nor do those in changed settings: what comes next is carried out as ever."""

    def fail(*arguments: object) -> None:
        raise ZeroDivisionError

    async def work() -> None:
        speaker, kernel = FakeSpeaker("127.0.0.1"), FakeKernel()
        async with running(speaker, kernel=kernel) as runner:
            sock, conn = await session(speaker, runner)
            for owner, name in ((speaker, "program"), (kernel, "release"), (speaker, "reconfigure")):
                with monkeypatch.context() as patch:
                    patch.setattr(owner, name, fail)
                    before, flushes = runner.defects, speaker.flushes
                    speaker.calls.clear()
                    speaker.effects += [ReleaseKernel(), Send(conn, b"told")]
                    speaker.due = monotonic()
                    if name == "reconfigure":
                        runner.reconfigure(settings(PEER))
                    runner._schedule()
                    assert await read_exactly(sock, 4) == b"told"
                    await until(lambda: speaker.named("tick"))
                    speaker.due = inf
                    assert runner.defects > before and speaker.flushes > flushes
            assert kernel.calls[-1] == "release"
            sock.close()

    with caplog.at_level(logging.ERROR):
        run_on(kind, work)
    for what in ("kernel routes at the end of a turn", "the end of the restart phase", "changed settings"):
        assert f"internal error while handling {what}" in caplog.text


def test_timer_fires_at_the_deadline_and_follows_an_earlier_one(kind: str) -> None:
    async def work() -> None:
        speaker = FakeSpeaker("127.0.0.1")
        async with running(speaker) as runner:
            fired: list[float] = []

            def tick(now: float) -> None:
                fired.append(now)
                speaker.due = float("inf")

            speaker.on_tick_hook = tick
            speaker.due = monotonic() + 1000
            runner._schedule()
            await asyncio.sleep(0.01)
            wanted = speaker.due = monotonic() + 0.03
            runner._schedule()
            await until(lambda: fired)
            assert fired[0] >= wanted
            # Moved later after the timer was set: it fires at the old time and is set anew, without a tick.
            speaker.due = monotonic() + 0.02
            runner._schedule()
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            wanted = speaker.due = monotonic() + 0.06
            await until(lambda: len(fired) == 2)
            assert fired[1] >= wanted

    run_on(kind, work)


def test_after_a_standstill_sockets_are_read_before_timers(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hold timer that ran out while the process was stopped says nothing of the peer, whose KEEPALIVEs wait."""
    monkeypatch.setattr("bgpd.shell.runner.STALL_TIME", 0.002)

    async def work() -> None:
        speaker = FakeSpeaker("127.0.0.1")
        async with running(speaker) as runner:
            sock, _ = await session(speaker, runner)
            speaker.on_data_hook = lambda conn, data: speaker.calls.append(("data",))
            speaker.on_tick_hook = lambda now: setattr(speaker, "due", float("inf"))
            speaker.due = due = monotonic() + 0.001
            runner._arm()
            assert runner._timer is not None
            runner._timer.cancel()
            sock.send(KEEPALIVE)
            while monotonic() < due + 0.01:
                pass  # the process stands still
            runner._tick()  # a loop that was stopped while it waited may begin with its timers
            await until(lambda: speaker.named("tick"))
            assert [call for call in speaker.calls if call[0] in ("data", "tick")] == [("data",), ("tick",)]
            sock.close()

    run_on(kind, work)


def test_refused_by_the_speaker(kind: str) -> None:
    async def work() -> None:
        speaker = FakeSpeaker("127.0.0.1")
        speaker.accept = False
        async with running(speaker) as runner:
            sock, _ = await session(speaker, runner)
            assert await read_exactly(sock, 1) == b""
            assert not runner.connections
            sock.close()

    run_on(kind, work)


def test_lost_reason_and_reset(kind: str) -> None:
    async def work() -> None:
        speaker = FakeSpeaker("127.0.0.1")
        async with running(speaker) as runner:
            sock, conn = await session(speaker, runner)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            sock.close()
            await until(lambda: speaker.named("lost"))
            assert speaker.named("lost") == [("lost", conn, "the peer reset the connection")]

    run_on(kind, work)


def test_half_closed_peer_that_reads_nothing_is_lost_at_once(kind: str) -> None:
    async def work() -> None:
        speaker = FakeSpeaker("127.0.0.1")
        async with running(speaker) as runner:
            sock, conn = await session(speaker, runner)
            speaker.chunks[conn] = [b"u" * 65536] * 400
            speaker.effects.append(Ready(conn))
            runner._schedule()
            await until(lambda: speaker.named("blocked"))
            sock.shutdown(socket.SHUT_WR)
            await until(lambda: speaker.named("lost") and not runner._open)
            sock.close()

    run_on(kind, work)


def test_log_effect(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    async def work() -> None:
        speaker = FakeSpeaker("127.0.0.1")
        async with running(speaker) as runner:
            effects: list[Effect] = [Log(logging.WARNING, "peer went %s down", {"peer": "a"})]
            speaker.effects += effects
            runner._schedule()
            await until(lambda: "peer went %s down" in caplog.text)

    run_on(kind, work)


@pytest.mark.parametrize("send_cease", [True, False])
def test_stop(kind: str, send_cease: bool) -> None:
    async def work() -> None:
        speaker, kernel = FakeSpeaker("127.0.0.1"), FakeKernel()
        runner = Runner(speaker, kernel)
        runner.bind(settings(PEER))
        runner.start()
        sock, conn = await session(speaker, runner)
        program = Program(IPV4_UNICAST, {b"\x08\x0a": None})
        closing: list[Effect] = [Send(conn, b"CEASE"), Close(conn)] if send_cease else [Close(conn)]
        speaker.shutdown_effects = lambda: [*closing, program, ReleaseKernel()]
        stopping = asyncio.ensure_future(runner.stop(send_cease))
        assert await read_exactly(sock, 100) == (b"CEASE" if send_cease else b"")
        sock.close()
        await stopping
        assert speaker.named("shutdown") == [("shutdown", send_cease)]
        assert kernel.calls == []
        assert speaker.named("lost") == []
        with pytest.raises(OSError):
            await client("127.0.0.1", 1 if not runner.listener.addresses else port_of(runner))

    run_on(kind, work)


def test_dialled_connection_carries_data_both_ways(kind: str) -> None:
    async def work() -> None:
        speaker = FakeSpeaker()
        with socket.create_server(("127.0.0.1", 0)) as server:
            server.setblocking(False)
            peer = PeerSettings("tor", "127.0.0.1", 1, port=server.getsockname()[1], source_address="127.0.0.7")
            async with running(speaker) as runner:
                speaker.effects.append(Connect(peer))
                runner._schedule()
                sock, name = await asyncio.get_running_loop().sock_accept(server)
                assert name[0] == "127.0.0.7"
                await until(lambda: speaker.named("connected"))
                ((_, who, conn, local),) = speaker.named("connected")
                assert (who, local) == ("tor", "127.0.0.7")
                echo(speaker)
                sock.send(b"open")
                assert await read_exactly(sock, 4) == b"open"
                assert bytes(speaker.received[conn]) == b"open"
                sock.close()

    run_on(kind, work)
