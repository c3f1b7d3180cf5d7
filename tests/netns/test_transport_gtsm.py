"""GTSM, link-local peers and lost peers over real links: two hosts and a router between them, in network namespaces."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from functools import partial

import pytest
from attrs import evolve

from bgpd.effects import Connect
from bgpd.settings import PeerSettings, SpeakerSettings
from bgpd.shell import sockopt
from bgpd.shell.runner import Runner
from tests.netns.support import set_sysctl
from tests.unit.shell_support import LOOPS, FakeSpeaker, missing, port_of, read_exactly, run_on, until

pytestmark = [pytest.mark.netns, pytest.mark.parametrize("kind", LOOPS)]
CLONE_NEWNET = 0x40000000


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


@contextlib.contextmanager
def inside(name: str) -> Iterator[None]:
    """Sockets made in this block belong to the namespace, also after it."""
    libc = ctypes.CDLL(None, use_errno=True)
    with open("/proc/self/ns/net") as home, open(f"/run/netns/{name}") as away:
        if libc.setns(away.fileno(), CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "setns")
        try:
            yield
        finally:
            libc.setns(home.fileno(), CLONE_NEWNET)


class Hosts:
    """near (10.9.1.1) - router (10.9.1.2, 10.9.2.2) - far (10.9.2.1); the same in fd09::, link-local on each link."""

    def __init__(self) -> None:
        prefix = f"cbs-{os.getpid()}"
        self.near, self.router, self.far = (f"{prefix}-{name}" for name in ("near", "router", "far"))

    def make(self) -> None:
        for name in (self.near, self.router, self.far):
            ip("netns", "add", name)
            ip("-n", name, "link", "set", "lo", "up")
            set_sysctl(name, {"ipv6/conf/default/accept_dad": 0})
        for number, host in (("1", self.near), ("2", self.far)):
            ip(
                "link",
                "add",
                "eth0",
                "netns",
                host,
                "type",
                "veth",
                "peer",
                "name",
                f"eth{number}",
                "netns",
                self.router,
            )
            for where, device, last in ((host, "eth0", "1"), (self.router, f"eth{number}", "2")):
                ip("-n", where, "addr", "add", f"10.9.{number}.{last}/24", "dev", device)
                ip("-n", where, "addr", "add", f"fd09:{number}::{last}/64", "dev", device, "nodad")
                ip("-n", where, "link", "set", device, "up")
            ip("-n", host, "route", "add", "default", "via", f"10.9.{number}.2")
            ip("-n", host, "route", "add", "default", "via", f"fd09:{number}::2")
        set_sysctl(self.router, {"ipv4/ip_forward": 1, "ipv6/conf/all/forwarding": 1})

    def remove(self) -> None:
        for name in (self.near, self.router, self.far):
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)


@pytest.fixture(scope="module")
def hosts() -> Iterator[Hosts]:
    if os.geteuid() != 0 or shutil.which("ip") is None:
        missing("network namespaces need root and iproute2: TTL security over a router was not tested")
    made = Hosts()
    try:
        made.make()
        yield made
    finally:
        made.remove()


def wanted(*peers: PeerSettings, listen: str = "0.0.0.0") -> SpeakerSettings:
    return SpeakerSettings(asn=64512, router_id="10.0.0.1", peers=peers, listen=((listen, 0),))


async def dial(where: str, address: str, port: int, ttl: int, least: int = 0) -> socket.socket:
    """A connection from a namespace; OSError or TimeoutError if nothing answers."""
    target = sockopt.socket_address(address, port)
    with inside(where):
        sock = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
    sock.setblocking(False)
    sockopt.set_ttl(sock, ttl)
    sockopt.set_min_ttl(sock, least)
    try:
        async with asyncio.timeout(0.5):
            await asyncio.get_running_loop().sock_connect(sock, target)
    except BaseException:
        sock.close()
        raise
    return sock


@pytest.mark.parametrize(
    ("near", "far", "listen"), [("10.9.1.1", "10.9.2.1", "0.0.0.0"), ("fd09:1::1", "fd09:2::1", "::")]
)
def test_one_hop_more_is_too_far(kind: str, hosts: Hosts, near: str, far: str, listen: str) -> None:
    """Through one router a packet sent with 255 arrives with 254: in reach of 2 hops, out of reach of 1."""

    async def work() -> None:
        for hops, passes in ((2, True), (1, False)):
            speaker = FakeSpeaker(far)
            runner = Runner(speaker)
            with inside(hosts.near):
                runner.bind(wanted(PeerSettings("far", far, 1, ttl_security_hops=hops), listen=listen))
            runner.start()
            if passes:
                # The dialling side is strict too: our SYN-ACK and all that follows must come with 255.
                sock = await dial(hosts.far, near, port_of(runner), 255, 254)
                await until(partial(getattr, runner, "connections"))
                sock.send(b"x")
                await until(partial(getattr, speaker, "received"))
                sock.close()
            else:
                with pytest.raises(TimeoutError):
                    await dial(hosts.far, near, port_of(runner), 255)
                assert not speaker.calls[1:]
            with pytest.raises(TimeoutError):
                await dial(hosts.far, near, port_of(runner), 254)
            await runner.stop(False)

    run_on(kind, work)


def test_low_ttl_within_a_session_never_reaches_the_program(kind: str, hosts: Hosts) -> None:
    async def work() -> None:
        speaker = FakeSpeaker("10.9.2.1", "10.9.2.77")
        runner = Runner(speaker)
        lax = PeerSettings("lax", "10.9.2.77", 1)
        with inside(hosts.near):
            runner.bind(wanted(PeerSettings("far", "10.9.2.1", 1, ttl_security_hops=2), lax))
        runner.start()
        sock = await dial(hosts.far, "10.9.1.1", port_of(runner), 255)
        await until(lambda: runner.connections)
        sock.send(b"good")
        await until(lambda: speaker.received)
        sockopt.set_ttl(sock, 254)
        sock.send(b"evil")
        await asyncio.sleep(0.1)
        assert [bytes(data) for data in speaker.received.values()] == [b"good"]
        sock.close()
        await runner.stop(False)

    run_on(kind, work)


def test_dial_with_gtsm(kind: str, hosts: Hosts) -> None:
    """What we dial is held to the same rule."""

    async def work() -> None:
        with inside(hosts.far):
            server = socket.create_server(("10.9.2.1", 0))
        server.setblocking(False)
        sockopt.set_ttl(server, 255)
        speaker = FakeSpeaker()
        runner = Runner(speaker, dial_time=0.5)
        peer = PeerSettings("far", "10.9.2.1", 1, port=server.getsockname()[1], ttl_security_hops=2)
        close = PeerSettings("close", "10.9.2.1", 1, port=peer.port, ttl_security_hops=1)
        with inside(hosts.near):
            speaker.effects += [Connect(peer), Connect(close)]
            runner._drain()
            # A dial makes its socket in the first step of its task.
            await asyncio.sleep(0)
        await until(lambda: speaker.named("connected") and speaker.named("connect_failed"))
        assert speaker.named("connected")[0][1] == "far"
        assert speaker.named("connected")[0][3] == "10.9.1.1"
        (_, name, reason) = speaker.named("connect_failed")[0]
        assert (name, reason) == (
            "close",
            "no answer within 0.5 s (the peer is down or filtered, or is more than 1 hops away)",
        )
        server.close()
        await runner.stop(False)

    run_on(kind, work)


def test_link_local_peers(kind: str, hosts: Hosts) -> None:
    """A link-local peer has its interface in its address, when it dials and when it is dialled; also with a key."""

    async def work() -> None:
        shown = subprocess.run(
            ["ip", "-n", hosts.router, "-o", "-6", "addr", "show", "dev", "eth1", "scope", "link"],
            check=True,
            capture_output=True,
            text=True,
        )
        other = shown.stdout.split()[3].split("/")[0]
        shown = subprocess.run(
            ["ip", "-n", hosts.near, "-o", "-6", "addr", "show", "dev", "eth0", "scope", "link"],
            check=True,
            capture_output=True,
            text=True,
        )
        own = shown.stdout.split()[3].split("/")[0]
        with inside(hosts.near):
            ours = f"%{socket.if_nametoindex('eth0')}"
        with inside(hosts.router):
            theirs = f"%{socket.if_nametoindex('eth1')}"
        speaker = FakeSpeaker(f"{other}%eth0", f"{other}{ours}")
        runner = Runner(speaker)
        peer = PeerSettings("link", f"{other}{ours}", 1, password="secret")
        with inside(hosts.router):
            sock = socket.socket(socket.AF_INET6)
        sock.setblocking(False)
        sockopt.set_md5(sock, own, "secret")
        with inside(hosts.near):
            runner.bind(wanted(peer, listen="::"))
            runner.start()
            with contextlib.suppress(BlockingIOError):
                sock.connect(sockopt.socket_address(own + theirs, port_of(runner)))
            await until(lambda: speaker.named("accepted"))
            with inside(hosts.router):
                server = socket.create_server(sockopt.socket_address(other + theirs, 0), family=socket.AF_INET6)
            speaker.effects.append(Connect(evolve(peer, port=server.getsockname()[1], password=None)))
            runner._drain()
            await until(lambda: speaker.named("connected"))
            assert speaker.named("connected")[0][3] == f"{own}%eth0"
            server.close()
        assert speaker.named("accepted")[0][2:] == (f"{other}%eth0", f"{own}%eth0")
        sock.send(b"x")
        await until(lambda: speaker.received)
        sock.close()
        await runner.stop(False)

    run_on(kind, work)


def test_peer_vanishes_while_data_is_on_its_way(kind: str, hosts: Hosts) -> None:
    """TCP_USER_TIMEOUT is the net under the hold timer: unanswered data ends the connection."""

    async def work() -> None:
        with inside(hosts.far):
            server = socket.create_server(("10.9.2.1", 0))
        server.setblocking(False)
        speaker = FakeSpeaker()
        runner = Runner(speaker)
        peer = PeerSettings("far", "10.9.2.1", 1, port=server.getsockname()[1])
        with inside(hosts.near):
            speaker.effects.append(Connect(peer))
            runner._drain()
            await asyncio.sleep(0)
        sock, _ = await asyncio.get_running_loop().sock_accept(server)
        await until(lambda: speaker.named("connected"))
        connection = next(iter(runner.connections.values()))
        ours = connection.transport.get_extra_info("socket")
        assert ours.getsockopt(socket.IPPROTO_TCP, sockopt.TCP_USER_TIMEOUT) == 540_000
        ours.setsockopt(socket.IPPROTO_TCP, sockopt.TCP_USER_TIMEOUT, 300)
        connection.write(b"before")
        assert await read_exactly(sock, 6) == b"before"
        # Nothing comes back any more, and nobody says why.
        ip("-n", hosts.router, "route", "add", "blackhole", "10.9.1.1/32")
        try:
            connection.write(b"after")
            await until(lambda: speaker.named("lost"))
            assert speaker.named("lost")[0][2] == "the peer's TCP stopped answering"
        finally:
            ip("-n", hosts.router, "route", "del", "blackhole", "10.9.1.1/32")
        sock.close()
        server.close()
        await runner.stop(False)

    run_on(kind, work)
