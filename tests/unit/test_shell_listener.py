"""Listener and connector: who gets in, TCP-MD5, GTSM over loopback, changes at run time, want of descriptors, dials."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import resource
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from attrs import evolve

from bgpd.effects import Connect
from bgpd.family import IPV4_UNICAST
from bgpd.settings import FamilySettings, PeerSettings, SpeakerSettings
from bgpd.shell import sockopt
from bgpd.shell.listener import Listener, ListenError, PeerIndex
from bgpd.shell.runner import Runner
from tests.unit.shell_support import (
    LOOPS,
    FakeSpeaker,
    client,
    echo,
    missing,
    port_of,
    read_exactly,
    run_on,
    settings,
    until,
)

PEER = PeerSettings("peer", "127.0.0.1", 64513)
loops = pytest.mark.parametrize("kind", LOOPS)


@asynccontextmanager
async def running(speaker: FakeSpeaker, wanted: SpeakerSettings, **options: Any) -> AsyncIterator[Runner]:
    runner = Runner(speaker, **options)
    runner.bind(wanted)
    runner.start()
    try:
        yield runner
    finally:
        await runner.stop(False)


def has_md5() -> bool:
    with socket.socket() as sock:
        try:
            sockopt.set_md5(sock, "127.0.0.2", "key")
        except sockopt.SocketOptionError as error:
            return error.errno not in (errno.ENOPROTOOPT, errno.EPERM)
    return True


def need_md5() -> None:
    if not has_md5():
        missing("this kernel has no TCP-MD5: keys were not tested")


def with_key(address: str, key: str | None) -> Callable[[socket.socket], None]:
    return lambda sock: sockopt.set_md5(sock, address, key) if key else None


async def refused(work: Any, limit: float = 0.3) -> bool:
    """True if the connection is not answered within the limit."""
    try:
        async with asyncio.timeout(limit):
            sock = await work
    except (TimeoutError, OSError):
        return True
    sock.close()
    return False


@loops
def test_unknown_source_is_closed_at_accept(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    async def work() -> None:
        speaker = FakeSpeaker("127.0.0.1")
        echo(speaker)
        async with running(speaker, settings(PEER)) as runner:
            for _ in range(30):
                sock = await client("127.0.0.1", port_of(runner), source="127.0.0.9")
                assert await read_exactly(sock, 1) == b""
                sock.close()
            assert speaker.named("accepted") == []
            assert runner.listener.refused_unknown == 30
            sock = await client("127.0.0.1", port_of(runner))
            sock.send(b"x")
            assert await read_exactly(sock, 1) == b"x"
            sock.close()

    with caplog.at_level(logging.WARNING):
        run_on(kind, work)
    assert 1 <= caplog.text.count("no such peer") <= 5


@loops
def test_listeners_come_and_go_without_touching_sessions(kind: str) -> None:
    async def work() -> None:
        speaker = FakeSpeaker("127.0.0.1", "::1")
        echo(speaker)
        first = settings(PEER, PeerSettings("six", "::1", 1), listen=(("127.0.0.1", 0), ("::1", 0)))
        async with running(speaker, first) as runner:
            assert len(runner.listener.addresses) == 2
            port4, port6 = port_of(runner, 0), port_of(runner, 1)
            four, six = await client("127.0.0.1", port4), await client("::1", port6)
            await until(lambda: len(runner.connections) == 2)
            assert {call[2] for call in speaker.named("accepted")} == {"127.0.0.1", "::1"}
            assert {call[3] for call in speaker.named("accepted")} == {"127.0.0.1", "::1"}
            runner.reconfigure(evolve(first, listen=(("::1", 0), ("127.0.0.3", 0))))
            with pytest.raises(OSError):
                await client("127.0.0.1", port4)
            assert port_of(runner, 0) == port6
            more = await client("127.0.0.3", port_of(runner, 1), source="127.0.0.1")
            await until(lambda: len(runner.connections) == 3)
            for sock in (four, six, more):
                sock.send(b"on")
                assert await read_exactly(sock, 2) == b"on"
                sock.close()

    run_on(kind, work)


@loops
def test_port_in_use_and_missing_address(kind: str) -> None:
    async def work() -> None:
        speaker = FakeSpeaker()
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
            runner = Runner(speaker)
            with pytest.raises(ListenError, match=rf"cannot listen on 127\.0\.0\.1:{port}: another program"):
                runner.bind(settings(listen=(("127.0.0.1", port),)))
        # An address or interface may come later: not an error at start.
        listener = Listener(asyncio.get_running_loop())
        listener.bind(settings(listen=(("192.0.2.77", 0), ("fe80::1%nosuch", 0), ("127.0.0.1", 0))))
        assert len(listener.addresses) == 1
        listener.close()

    run_on(kind, work)


def test_changes_while_an_address_is_missing_leave_one_timer(caplog: pytest.LogCaptureFixture) -> None:
    """Each change looks for the address at once; the look that was due before it is not one more from then on."""
    loop = asyncio.new_event_loop()
    due: list[asyncio.TimerHandle] = []
    later = loop.call_later

    def call_later(delay: float, work: Callable[..., object], *args: object) -> asyncio.TimerHandle:
        due.append(later(delay, work, *args))
        return due[-1]

    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(loop, "call_later", call_later)
            listener = Listener(loop)
            wanted = settings(PEER, listen=(("192.0.2.77", 0),))
            listener.bind(wanted)
            for number in range(3):
                wanted = evolve(wanted, connection_rate=100 + number)
                listener.apply(wanted)
            assert len([handle for handle in due if not handle.cancelled()]) == 1
            listener.close()
            assert all(handle.cancelled() for handle in due)
    finally:
        loop.close()
    assert caplog.text.count("cannot listen on 192.0.2.77:0") == 1


@loops
def test_a_listener_follows_the_name_of_its_interface(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    """An interface that is made anew has another number, to which the socket is not bound."""
    indices = {"late0": 0}

    def if_nametoindex(name: str) -> int:
        if not indices[name]:
            raise OSError(errno.ENODEV, "of whatever words")
        return indices[name]

    async def work() -> None:
        listener = Listener(asyncio.get_running_loop())
        with socket.create_server(("::1", 0), family=socket.AF_INET6) as free:
            port = free.getsockname()[1]

        def answers() -> bool:
            with socket.socket(socket.AF_INET6) as sock:
                return sock.connect_ex(("::1", port)) == 0

        # ::1 is of any interface; that of the socket is what counts here.
        listener.bind(settings(listen=(("::1%late0", port),)))
        listener.listen(lambda remote: False, lambda sock, remote: None)
        assert not listener.addresses and not answers()
        for index in (7, 7, 9, 0, 11):
            before = listener._sockets.get(("::1%late0", port))
            indices["late0"] = index
            assert listener._retry is not None  # also while all is well: nobody tells when an interface goes
            listener._look()
            assert (len(listener.addresses), answers()) == ((1, True) if index else (0, False))
            if before is not None:
                assert (listener._sockets.get(("::1%late0", port)) is before) == (before._scope == index)
        timer = listener._retry
        listener.close()
        assert timer is not None and timer.cancelled() and not answers()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket, "if_nametoindex", if_nametoindex)
        with caplog.at_level("INFO"):
            run_on(kind, work)
    assert caplog.text.count("there is no interface late0; trying again every 5 s") == 2
    assert caplog.text.count("listening on [::1%late0]") == 2


@loops
def test_md5_right_wrong_missing_changed_removed(kind: str) -> None:
    need_md5()

    async def work() -> None:
        speaker = FakeSpeaker("127.0.0.2", "127.0.0.3")
        echo(speaker)
        two = PeerSettings("two", "127.0.0.2", 1, password="secret")
        three = PeerSettings("three", "127.0.0.3", 1, password="other")
        first = settings(two, three)
        async with running(speaker, first) as runner:
            port = port_of(runner)

            def dial(key: str | None, source: str = "127.0.0.2") -> Any:
                return client("127.0.0.1", port, source, with_key("127.0.0.1", key))

            assert await refused(dial(None))
            assert await refused(dial("wrong"))
            old, neighbour = await dial("secret"), await dial("other", "127.0.0.3")
            await until(lambda: len(runner.connections) == 2)

            runner.reconfigure(evolve(first, peers=(evolve(two, password="changed"), three)))
            assert await refused(dial("secret"))
            new = await dial("changed")
            for sock in (old, neighbour, new):
                sock.send(b"alive")
                assert await read_exactly(sock, 5) == b"alive"

            runner.reconfigure(evolve(first, peers=(evolve(two, password=None), three)))
            assert await refused(dial("changed"))
            plain = await dial(None)
            assert await refused(dial(None, "127.0.0.3"))
            for sock in (old, neighbour, new, plain):
                sock.send(b"alive")
                assert await read_exactly(sock, 5) == b"alive"
                sock.close()

    run_on(kind, work)


@loops
def test_md5_for_a_dynamic_range(kind: str) -> None:
    need_md5()

    async def work() -> None:
        speaker = FakeSpeaker("127.0.8.1")
        template = PeerSettings("template", "0.0.0.0", 1, password="range")
        async with running(speaker, settings(dynamic=(("127.0.8.0/24", template),))) as runner:

            def dial(key: str | None) -> Any:
                return client("127.0.0.1", port_of(runner), "127.0.8.1", with_key("127.0.0.1", key))

            assert await refused(dial("wrong"))
            sock = await dial("range")
            await until(lambda: runner.connections)
            sock.close()

    run_on(kind, work)


@loops
def test_dial_with_wrong_key_ends_by_our_own_limit(kind: str) -> None:
    need_md5()

    async def work() -> None:
        speaker = FakeSpeaker("127.0.0.1", "127.0.0.2")
        server = PeerSettings("server", "127.0.0.2", 1, password="secret")
        async with running(speaker, settings(server), dial_time=0.3) as runner:
            peer = PeerSettings("dialled", "127.0.0.1", 1, port=port_of(runner), source_address="127.0.0.2")
            speaker.effects.append(Connect(evolve(peer, password="wrong")))
            runner._schedule()
            await until(lambda: speaker.named("connect_failed"))
            (_, name, reason) = speaker.named("connect_failed")[0]
            assert name == "dialled"
            assert reason == "no answer within 0.3 s (the peer is down or filtered, or has another TCP-MD5 key)"
            speaker.effects.append(Connect(evolve(peer, password="secret")))
            runner._schedule()
            await until(lambda: speaker.named("connected") and speaker.named("accepted"))

    run_on(kind, work)


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
@loops
def test_gtsm(kind: str, address: str) -> None:
    """TTL 255 passes, less is refused; other peers and the listener's SYN-ACK are not harmed by it."""

    async def work() -> None:
        strict = PeerSettings("strict", address, 1, ttl_security_hops=1)
        lax = PeerSettings("lax", "127.0.0.2" if address == "127.0.0.1" else "fd00::99", 1, ttl=7)
        listen = ((address, 0),)
        speaker = FakeSpeaker(address, lax.address)

        def options(ttl: int, least: int) -> Callable[[socket.socket], None]:
            def prepare(sock: socket.socket) -> None:
                sockopt.set_ttl(sock, ttl)
                sockopt.set_min_ttl(sock, least)

            return prepare

        async with running(speaker, settings(strict, lax, listen=listen)) as runner:
            port = port_of(runner)
            sock = await client(address, port, prepare=options(255, 255))
            await until(lambda: len(runner.connections) == 1)
            accepted = next(iter(runner.connections.values())).transport.get_extra_info("socket")
            level, number = (
                (socket.IPPROTO_IP, socket.IP_TTL)
                if address == "127.0.0.1"
                else (socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS)
            )
            assert accepted.getsockopt(level, number) == 255
            level, number = (
                (socket.IPPROTO_IP, socket.IP_TOS)
                if address == "127.0.0.1"
                else (socket.IPPROTO_IPV6, socket.IPV6_TCLASS)
            )
            assert accepted.getsockopt(level, number) == 0xC0
            sock.close()
            # The listener must take the lax peer's SYN, so what is wrong is seen after accept.
            far = await client(address, port, prepare=options(254, 0))
            assert await read_exactly(far, 1) == b""
            far.close()
            assert runner.listener.refused_ttl == 1
            assert len(speaker.named("accepted")) == 1
            if address == "127.0.0.1":
                other = await client(address, port, source="127.0.0.2")
                await until(lambda: len(speaker.named("accepted")) == 2)
                accepted = runner.connections[speaker.named("accepted")[-1][1]].transport.get_extra_info("socket")
                assert accepted.getsockopt(socket.IPPROTO_IP, socket.IP_TTL) == 7
                other.close()

        # With nobody else configured the kernel drops it: not one octet reaches the program.
        async with running(speaker, settings(strict, listen=listen)) as runner:
            assert await refused(client(address, port_of(runner), prepare=options(254, 0)))
            assert runner.listener.refused_ttl == 0
            sock = await client(address, port_of(runner), prepare=options(255, 255))
            await until(lambda: runner.connections)
            sock.close()

    run_on(kind, work)


@contextlib.contextmanager
def few_descriptors() -> Iterator[Callable[[], None]]:
    """Use up all descriptors on call; they come back at the end of the block."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken: list[int] = []

    def exhaust() -> None:
        highest = max(int(name) for name in os.listdir("/proc/self/fd"))
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(highest + 8, hard), hard))
        with contextlib.suppress(OSError):
            while True:
                taken.append(os.dup(0))

    try:
        yield exhaust
    finally:
        for descriptor in taken:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@loops
def test_want_of_descriptors(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    """Accepting pauses instead of spinning, sessions go on, a dial fails with a reason, and all recovers."""

    async def work() -> None:
        speaker = FakeSpeaker("127.0.0.1")
        echo(speaker)
        async with running(speaker, settings(PEER)) as runner:
            port = port_of(runner)
            first = await client("127.0.0.1", port)
            await until(lambda: runner.connections)
            later = socket.socket()
            later.setblocking(False)
            with few_descriptors() as exhaust:
                exhaust()
                with contextlib.suppress(BlockingIOError):
                    later.connect(("127.0.0.1", port))
                await until(lambda: runner.listener.pauses)
                speaker.effects.append(Connect(evolve(PEER, name="dialled")))
                runner._schedule()
                await until(lambda: speaker.named("connect_failed"))
                assert speaker.named("connect_failed")[0][2] == "too many open files"
                first.send(b"alive")
                assert await read_exactly(first, 5) == b"alive"
                await asyncio.sleep(0.3)
                assert runner.listener.pauses <= 3
                assert len(runner.connections) == 1
            await until(lambda: len(runner.connections) == 2)
            later.send(b"in")
            assert await read_exactly(later, 2) == b"in"
            first.close()
            later.close()

    with caplog.at_level(logging.ERROR):
        run_on(kind, work)
    assert caplog.text.count("too many open files; raise the limit") == 1


@loops
def test_dial_failures_have_reasons(kind: str) -> None:
    async def work() -> None:
        speaker = FakeSpeaker()
        with socket.create_server(("127.0.0.1", 0)) as closed:
            port = closed.getsockname()[1]
        async with running(speaker, settings()) as runner:
            for peer, reason in [
                (evolve(PEER, port=port), "connection refused"),
                (
                    evolve(PEER, port=port, source_address="192.0.2.1"),
                    "the source address 192.0.2.1 is not on this host",
                ),
                (
                    evolve(PEER, port=port, address="nonsense"),
                    "'nonsense' does not appear to be an IPv4 or IPv6 address",
                ),
                (
                    evolve(PEER, port=port, password="x" * 81),
                    "the TCP-MD5 key for 127.0.0.1 has 81 octets, at most 80 are allowed",
                ),
                (evolve(PEER, address="fe80::1%nosuch"), "there is no interface nosuch"),
            ]:
                speaker.calls.clear()
                speaker.effects.append(Connect(peer))
                runner._schedule()
                await until(lambda: speaker.named("connect_failed"))
                assert speaker.named("connect_failed") == [("connect_failed", "peer", reason)]
            await until(lambda: not len(runner.connector))

    run_on(kind, work)


@loops
def test_newer_dial_replaces_the_older_and_removed_peers_are_not_dialled(kind: str) -> None:
    async def work() -> None:
        speaker = FakeSpeaker()
        with socket.socket() as full, socket.socket() as filler, socket.create_server(("127.0.0.1", 0)) as server:
            # A full backlog answers no SYN: the dial hangs.
            full.bind(("127.0.0.1", 0))
            full.listen(0)
            filler.connect(full.getsockname())
            hanging = evolve(PEER, port=full.getsockname()[1])
            good = evolve(PEER, port=server.getsockname()[1])
            async with running(speaker, settings(hanging)) as runner:
                speaker.effects.append(Connect(hanging))
                runner._schedule()
                await until(lambda: len(runner.connector) == 1)
                speaker.effects.append(Connect(good))
                runner._schedule()
                await until(lambda: speaker.named("connected"))
                speaker.effects.append(Connect(hanging))
                runner._schedule()
                await until(lambda: len(runner.connector) == 1)
                runner.reconfigure(settings())
                await until(lambda: not len(runner.connector))
                assert speaker.named("connect_failed") == []

    run_on(kind, work)


def test_peer_index() -> None:
    plain = FamilySettings(IPV4_UNICAST)
    wide = PeerSettings("wide", "::", 1, password="w", ttl_security_hops=3, families=(plain,))
    narrow = PeerSettings("narrow", "::", 1)
    link = PeerSettings("link", "fe80::1%lo", 1, password="l")
    index = PeerIndex(settings(PEER, link, dynamic=(("fd00::/16", wide), ("fd00:1::/32", narrow))))
    assert index.find("127.0.0.1") is PEER
    assert index.find("127.0.0.2") is None
    assert index.find("fd00:1::5") is narrow
    assert index.find("fd00:2::5%eth0") is wide
    assert index.find("fe80::1%lo") is link
    assert index.keys(6) == {"fd00::/16": "w", "fe80::1%lo": "l"}
    assert index.keys(4) == {}
    assert index.min_ttl(4) == (0, False)
    assert index.min_ttl(6) == (0, True)
    only = PeerIndex(settings(PEER, dynamic=(("fd00::/16", wide),)))
    assert only.min_ttl(6) == (253, True)
