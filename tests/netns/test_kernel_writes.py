"""Write rules of the kernel side on a real kernel: what is ours, what is not, and what is left alone. Both families."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator

import pytest

from bgpd.family import Family, parse_address, parse_prefix
from bgpd.fib.netlink import KernelError, Netlink, NetlinkLost
from bgpd.fib.table import FibStatus
from bgpd.routes import FibRoute, Hop, LocalChange, RouteKind
from bgpd.settings import FibSettings, LearnSettings
from bgpd.shell.kernel import Kernel, clean
from tests.netns.support import Host, require_namespaces, until

pytestmark = pytest.mark.netns
BASE = FibSettings().nexthop_id_base


class Case:
    """One address family: prefixes, gateways, and how `ip` shows them."""

    def __init__(self, version: int) -> None:
        self.version = version
        self.prefix = "10.244.2.0/24" if version == 4 else "fd01:2::/64"
        self.other = "10.244.3.0/24" if version == 4 else "fd01:3::/64"
        self.gateways = [f"10.0.0.{number}" if version == 4 else f"fd00::{number:x}" for number in range(2, 20)]
        self.far = "10.9.0.7" if version == 4 else "fd09::7"
        self.default = "0.0.0.0/0" if version == 4 else "::/0"
        self.ip = f"-{version}"

    def key(self, prefix: str) -> tuple[Family, bytes]:
        """Family and NLRI key."""
        return parse_prefix(prefix)


@pytest.fixture(params=(4, 6), ids=("ipv4", "ipv6"))
def case(request: pytest.FixtureRequest) -> Case:
    return Case(request.param)


@pytest.fixture(params=(True, False), ids=("objects", "plain"))
def objects(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.fixture
def host() -> Iterator[Host]:
    require_namespaces()
    host = Host()
    yield host
    host.close()


def via(host: Host, *gateways: str, link: str = "v0", metric: int = 1024, onlink: bool = False) -> FibRoute:
    """A route by gateways on one link."""
    index = host.index(link)
    hops = tuple(Hop(parse_address(gateway), index, onlink) for gateway in gateways)
    return FibRoute(RouteKind.UNICAST, hops, metric)


def run(
    host: Host,
    settings: FibSettings,
    steps: Callable[[Kernel], Awaitable[None]],
    told: list[LocalChange] | None = None,
    release: bool = True,
) -> None:
    """A started kernel side in the namespace, and what the test does with it."""

    async def body() -> None:
        changes = told if told is not None else []
        kernel = Kernel(settings, LearnSettings(), changes.extend)
        with host.entered():
            await kernel.start()
        try:
            if release:
                kernel.release()
            await steps(kernel)
        finally:
            kernel.close()

    asyncio.run(body())


def put(kernel: Kernel, prefix: str, route: FibRoute | None) -> None:
    """Program one prefix."""
    family, key = parse_prefix(prefix)
    kernel.program(family, {key: route})


def status(kernel: Kernel, prefix: str) -> FibStatus:
    """Where one prefix stands."""
    return kernel.fib.state(*parse_prefix(prefix)).status


def test_add_change_and_delete(host: Host, case: Case, objects: bool) -> None:
    async def steps(kernel: Kernel) -> None:
        put(kernel, case.prefix, via(host, case.gateways[0]))
        route = host.routes(case.version)[case.prefix]
        assert route["gateway"] == case.gateways[0] and route["metric"] == 1024
        assert ("nhid" in route) == objects
        put(kernel, case.prefix, via(host, case.gateways[1]))
        assert host.routes(case.version)[case.prefix]["gateway"] == case.gateways[1]
        put(kernel, case.prefix, via(host, case.gateways[1], metric=512))
        assert [(r["gateway"], r["metric"]) for r in host.routes(case.version).values()] == [(case.gateways[1], 512)]
        put(kernel, case.default, via(host, case.gateways[2]))
        assert host.routes(case.version)["default"]["gateway"] == case.gateways[2]
        put(kernel, case.prefix, None)
        put(kernel, case.default, None)
        assert not host.routes(case.version)
        assert kernel.fib.counters.refused == 0

    run(host, FibSettings(nexthop_objects=objects), steps)


def test_blackhole_unreachable_and_on_link(host: Host, case: Case, objects: bool) -> None:
    async def steps(kernel: Kernel) -> None:
        put(kernel, case.prefix, FibRoute(RouteKind.BLACKHOLE, (), 0))
        assert host.routes(case.version)[case.prefix]["type"] == "blackhole"
        put(kernel, case.prefix, FibRoute(RouteKind.UNREACHABLE, (), 0))
        assert host.routes(case.version)[case.prefix]["type"] == "unreachable"
        put(kernel, case.prefix, via(host, case.gateways[0], metric=0))
        assert host.routes(case.version)[case.prefix]["type"] == "unicast"
        put(kernel, case.other, FibRoute(RouteKind.UNICAST, (Hop(b"", host.index("v0")),), 700))
        assert host.routes(case.version)[case.other]["dev"] == "v0"
        put(kernel, case.prefix, FibRoute(RouteKind.BLACKHOLE, (), 0))
        put(kernel, case.prefix, None)
        put(kernel, case.other, None)
        assert not host.routes(case.version)
        assert kernel.fib.counters.refused == 0

    run(host, FibSettings(nexthop_objects=objects), steps)


def test_ecmp(host: Host, case: Case, objects: bool) -> None:
    async def steps(kernel: Kernel) -> None:
        wanted = via(host, *case.gateways[:3])
        put(kernel, case.prefix, wanted)
        hops = host.routes(case.version)[case.prefix]["nexthops"]
        assert sorted(hop["gateway"] for hop in hops) == sorted(case.gateways[:3])
        put(kernel, case.prefix, via(host, *case.gateways[1:5]))
        hops = host.routes(case.version)[case.prefix]["nexthops"]
        assert sorted(hop["gateway"] for hop in hops) == sorted(case.gateways[1:5])
        put(kernel, case.prefix, via(host, case.gateways[9]))
        assert host.routes(case.version)[case.prefix]["gateway"] == case.gateways[9]
        put(kernel, case.prefix, None)
        assert not host.routes(case.version)
        assert kernel.fib.counters.refused == 0

    run(host, FibSettings(nexthop_objects=objects), steps)


def test_ipv4_by_an_ipv6_neighbour_and_onlink(host: Host, objects: bool) -> None:
    async def steps(kernel: Kernel) -> None:
        put(kernel, "10.244.2.0/24", via(host, "fd00::9"))
        shown = host.routes(4)["10.244.2.0/24"]
        assert shown["via"] == {"family": "inet6", "host": "fd00::9"}
        put(kernel, "10.244.3.0/24", via(host, "192.0.2.1", onlink=True))
        put(kernel, "10.244.4.0/24", via(host, "fd00::9", "10.0.0.3"))
        assert host.routes(4)["10.244.3.0/24"]["gateway"] == "192.0.2.1"
        assert len(host.routes(4)["10.244.4.0/24"]["nexthops"]) == 2
        before = kernel.fib.counters.added
        kernel._want_check(0, 0.0)
        await until(lambda: kernel.dumps == 2)
        assert (kernel.fib.counters.repaired, kernel.fib.counters.added) == (0, before)

    run(host, FibSettings(nexthop_objects=objects), steps)


def test_foreign_route_is_left_and_ours_follows_when_it_goes(host: Host, case: Case, objects: bool) -> None:
    foreign = f"{case.ip} route add {case.prefix} via {case.gateways[5]} dev v0 metric 1024 proto static"

    async def steps(kernel: Kernel) -> None:
        put(kernel, case.prefix, via(host, case.gateways[0]))
        assert status(kernel, case.prefix) is FibStatus.FOREIGN
        assert host.routes(case.version, "proto static")[case.prefix]["gateway"] == case.gateways[5]
        put(kernel, case.prefix, via(host, case.gateways[1]))
        assert host.routes(case.version, "proto static")[case.prefix]["gateway"] == case.gateways[5]
        host.ip(f"{case.ip} route del {case.prefix} metric 1024")
        await until(lambda: status(kernel, case.prefix) is FibStatus.INSTALLED)
        assert host.routes(case.version)[case.prefix]["gateway"] == case.gateways[1]
        # A foreign route of another metric stands beside ours, and stays when ours goes.
        host.ip(f"{case.ip} route add {case.prefix} via {case.gateways[5]} dev v0 metric 77 proto static")
        put(kernel, case.prefix, None)
        assert not host.routes(case.version)
        assert host.routes(case.version, "proto static")[case.prefix]["metric"] == 77

    host.ip(foreign)
    run(host, FibSettings(nexthop_objects=objects), steps)


def test_foreign_route_that_no_event_told_of(host: Host, case: Case) -> None:
    """Between our last look and our write: EEXIST, then a dump tells whose it is."""

    async def steps(kernel: Kernel) -> None:
        host.ip(f"{case.ip} route add {case.prefix} via {case.gateways[5]} dev v0 metric 1024 proto static")
        kernel._monitor.read = lambda limit=512: False  # type: ignore[method-assign]
        put(kernel, case.prefix, via(host, case.gateways[0]))
        assert status(kernel, case.prefix) is FibStatus.FOREIGN
        await until(lambda: kernel.dumps == 2)
        assert kernel.fib.state(*parse_prefix(case.prefix)).foreign_protocol == 4
        assert host.routes(case.version, "proto static")[case.prefix]["gateway"] == case.gateways[5]

    run(host, FibSettings(), steps)


def test_foreign_replacement_of_ours_is_respected(host: Host, case: Case, objects: bool) -> None:
    async def steps(kernel: Kernel) -> None:
        put(kernel, case.prefix, via(host, case.gateways[0]))
        host.ip(f"{case.ip} route replace {case.prefix} via {case.gateways[6]} dev v0 metric 1024 proto static")
        await until(lambda: status(kernel, case.prefix) is FibStatus.FOREIGN)
        put(kernel, case.prefix, via(host, case.gateways[1]))
        assert host.routes(case.version, "proto static")[case.prefix]["gateway"] == case.gateways[6]
        put(kernel, case.prefix, None)
        assert host.routes(case.version, "proto static")[case.prefix]["gateway"] == case.gateways[6]

    run(host, FibSettings(nexthop_objects=objects), steps)


def test_metric_change_never_leaves_a_gap(host: Host, case: Case) -> None:
    """Add before delete, as `ip monitor` sees it."""
    events: list[str] = []

    async def steps(kernel: Kernel) -> None:
        put(kernel, case.prefix, via(host, case.gateways[0]))
        watcher = await asyncio.create_subprocess_exec(
            "ip", "-n", host.name, case.ip, "monitor", "route", stdout=asyncio.subprocess.PIPE
        )
        await asyncio.sleep(0.2)
        put(kernel, case.prefix, via(host, case.gateways[1], metric=300))
        await asyncio.sleep(0.2)
        watcher.terminate()
        assert watcher.stdout
        events.extend((await watcher.stdout.read()).decode().splitlines())
        await watcher.wait()

    run(host, FibSettings(), steps)
    ours = [line for line in events if case.prefix in line]
    assert len(ours) == 2, ours
    assert "metric 300" in ours[0] and not ours[0].startswith("Deleted")
    assert "metric 1024" in ours[1] and ours[1].startswith("Deleted")


def test_adoption_rewrites_nothing(host: Host, case: Case, objects: bool) -> None:
    """Routes that stand as wanted are not written again: those of our last run, and BIRD's plain ones."""
    plain = case.other
    host.ip(f"{case.ip} route add {plain} via {case.gateways[3]} dev v0 metric 1024 proto bird")
    stale = "10.244.99.0/24" if case.version == 4 else "fd01:99::/64"
    ecmp = "10.244.98.0/24" if case.version == 4 else "fd01:98::/64"
    settings = FibSettings(nexthop_objects=objects)

    async def first(kernel: Kernel) -> None:
        put(kernel, case.prefix, via(host, case.gateways[0]))
        put(kernel, stale, via(host, case.gateways[7]))
        put(kernel, ecmp, via(host, *case.gateways[7:9]))

    async def second(kernel: Kernel) -> None:
        assert status(kernel, stale) is FibStatus.HELD
        put(kernel, case.prefix, via(host, case.gateways[0]))
        put(kernel, plain, via(host, case.gateways[3]))
        put(kernel, ecmp, via(host, *case.gateways[7:9]))
        counters = kernel.fib.counters
        assert (counters.added, counters.replaced, counters.deleted) == (0, 0, 0)
        assert {case.prefix, plain, stale, ecmp} == set(host.routes(case.version))
        kernel.release()
        assert {case.prefix, plain, ecmp} == set(host.routes(case.version))
        assert (counters.added, counters.replaced, counters.deleted) == (0, 0, 1)

    run(host, settings, first, release=False)
    run(host, settings, second, release=False)


def test_unused_objects_of_a_former_run_are_removed(host: Host) -> None:
    async def first(kernel: Kernel) -> None:
        put(kernel, "10.244.2.0/24", via(host, "10.0.0.2"))
        put(kernel, "10.244.3.0/24", via(host, "10.0.0.3", "10.0.0.4"))

    async def second(kernel: Kernel) -> None:
        put(kernel, "10.244.2.0/24", via(host, "10.0.0.2"))
        assert len(host.nexthops()) == 5
        kernel.release()
        await until(lambda: set(host.nexthops()) == {BASE, 7})
        # A new object takes a number that has not been used.
        put(kernel, "10.244.3.0/24", via(host, "10.0.0.3"))
        assert max(host.nexthops()) > BASE + 3

    host.ip("nexthop add id 7 via 10.0.0.77 dev v0 proto static")
    run(host, FibSettings(), first)
    run(host, FibSettings(), second, release=False)


def test_ids_of_others_in_our_range_are_left_alone(host: Host) -> None:
    host.ip(f"nexthop add id {BASE} via 10.0.0.77 dev v0 proto static")

    async def steps(kernel: Kernel) -> None:
        host.ip(f"nexthop add id {BASE + 1} via 10.0.0.78 dev v0 proto static")
        kernel._monitor.read = lambda limit=512: False  # type: ignore[method-assign]
        put(kernel, "10.244.2.0/24", via(host, "10.0.0.2"))
        assert host.routes(4)["10.244.2.0/24"]["gateway"] == "10.0.0.2"
        assert [host.nexthops()[BASE + number]["gateway"] for number in (0, 1)] == ["10.0.0.77", "10.0.0.78"]

    run(host, FibSettings(), steps)


def test_clean_removes_ours_and_nothing_else(host: Host, case: Case, objects: bool) -> None:
    host.ip(f"{case.ip} route add {case.other} via {case.gateways[4]} dev v0 proto static")
    host.ip("nexthop add id 7 via 10.0.0.77 dev v0 proto static")
    settings = FibSettings(nexthop_objects=objects)

    async def steps(kernel: Kernel) -> None:
        put(kernel, case.prefix, via(host, case.gateways[0]))
        put(kernel, case.default, via(host, *case.gateways[:2], metric=500))
        put(kernel, "10.244.7.0/24", FibRoute(RouteKind.BLACKHOLE, (), 0))
        put(kernel, "fd01:7::/64", FibRoute(RouteKind.BLACKHOLE, (), 0))

    run(host, settings, steps)
    with host.entered():
        counts = clean(settings)
    assert counts["failed"] == 0
    assert counts["ipv4"] + counts["ipv6"] == 4
    assert counts["nexthops"] == (3 if objects else 0)
    assert not host.routes(4) and not host.routes(6)
    assert set(host.nexthops()) == {7}
    assert case.other in host.routes(case.version, "proto static")
    with host.entered():
        assert clean(settings) == {"ipv4": 0, "ipv6": 0, "nexthops": 0, "failed": 0}


def test_another_table_and_protocol(host: Host, case: Case) -> None:
    """A change of table: all is written there before the old routes go."""

    async def steps(kernel: Kernel) -> None:
        put(kernel, case.prefix, via(host, case.gateways[0]))
        kernel.reconfigure(FibSettings(table=1000, protocol=99), LearnSettings())
        await until(lambda: case.prefix in host.routes(case.version, "table 1000 proto 99"))
        await until(lambda: not host.routes(case.version))
        put(kernel, case.other, via(host, case.gateways[1]))
        put(kernel, case.prefix, None)
        assert set(host.routes(case.version, "table 1000 proto 99")) == {case.other}

    run(host, FibSettings(), steps)


def test_old_routes_go_also_where_the_first_attempt_fails(
    host: Host, case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And what looks at the kernel's routes goes on."""
    attempts: list[FibSettings] = []

    def lost(netlink: Netlink, settings: FibSettings) -> dict[str, int]:
        attempts.append(settings)
        monkeypatch.undo()
        raise NetlinkLost("no buffer space available")

    async def steps(kernel: Kernel) -> None:
        put(kernel, case.prefix, via(host, case.gateways[0]))
        monkeypatch.setattr("bgpd.shell.kernel._clean", lost)
        kernel.reconfigure(FibSettings(table=1000, protocol=99, resync_time=0.3), LearnSettings())
        await until(lambda: not host.routes(case.version))
        assert len(attempts) == 1 and case.prefix in host.routes(case.version, "table 1000 proto 99")

    run(host, FibSettings(), steps)


def test_refused_route_is_shown_and_retried(host: Host, case: Case, objects: bool) -> None:
    unreachable = "203.0.113.1" if case.version == 4 else "2001:db8::1"
    subnet = "203.0.113.9/24" if case.version == 4 else "2001:db8::9/64"

    async def steps(kernel: Kernel) -> None:
        put(kernel, case.prefix, via(host, unreachable))
        put(kernel, case.other, via(host, case.gateways[0]))
        state = kernel.fib.state(*parse_prefix(case.prefix))
        assert state.status is FibStatus.REFUSED and state.errno and state.text, state
        assert status(kernel, case.other) is FibStatus.INSTALLED
        host.ip(f"addr add {subnet} dev v0" + (" nodad" if case.version == 6 else ""))
        await until(lambda: status(kernel, case.prefix) is FibStatus.INSTALLED)
        assert host.routes(case.version)[case.prefix]["gateway"] == unreachable

    run(host, FibSettings(nexthop_objects=objects), steps)


def test_refused_route_follows_a_route_to_its_gateway(host: Host, case: Case, objects: bool) -> None:
    """An address whose subnet route someone else writes (noprefixroute): no word of the address tells of it."""
    gateway, subnet = ("203.0.113.1", "203.0.113.0/24") if case.version == 4 else ("2001:db8::1", "2001:db8::/64")

    async def steps(kernel: Kernel) -> None:
        put(kernel, case.prefix, via(host, gateway))
        assert status(kernel, case.prefix) is FibStatus.REFUSED
        kernel.fib._timers[:] = [(at + 60.0, *rest) for at, *rest in kernel.fib._timers]  # type: ignore[misc]
        host.ip(f"{case.ip} route add {subnet} dev v0 proto static")
        await until(lambda: status(kernel, case.prefix) is FibStatus.INSTALLED, 0.5)

    run(host, FibSettings(nexthop_objects=objects), steps)


def test_missing_privilege_is_one_sentence(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Netlink, "may_write", lambda self: False)

    async def steps(kernel: Kernel) -> None:
        raise AssertionError("started")

    with pytest.raises(KernelError, match="CAP_NET_ADMIN"):
        run(host, FibSettings(), steps)
