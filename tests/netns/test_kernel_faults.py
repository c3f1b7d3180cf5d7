"""What others do to our routes, and what links do to them: the kernel ends up as wanted. Real kernel, both families."""

from __future__ import annotations

import asyncio
import random
import time

import pytest

from bgpd.family import parse_address, parse_prefix
from bgpd.fib.table import FibStatus
from bgpd.routes import FibRoute, Hop, RouteKind
from bgpd.settings import FibSettings, LearnSettings
from bgpd.shell.kernel import Kernel
from tests.netns.support import Host, until
from tests.netns.test_kernel_writes import Case, case, host, objects, put, run, status, via

pytestmark = pytest.mark.netns
__all__ = ["case", "host", "objects"]


def test_deleted_route_is_back_at_once(host: Host, case: Case, objects: bool) -> None:
    async def steps(kernel: Kernel) -> None:
        put(kernel, case.prefix, via(host, case.gateways[0]))
        for _ in range(3):
            host.ip(f"{case.ip} route del {case.prefix} proto bird")
            await until(lambda: case.prefix in host.routes(case.version), 0.5)
        assert kernel.fib.counters.repaired == 3

    run(host, FibSettings(nexthop_objects=objects), steps)


def test_changed_route_is_set_right(host: Host, case: Case, objects: bool) -> None:
    async def steps(kernel: Kernel) -> None:
        put(kernel, case.prefix, via(host, case.gateways[0]))
        host.ip(f"{case.ip} route replace {case.prefix} via {case.gateways[5]} dev v0 metric 1024 proto bird")
        await until(lambda: host.routes(case.version)[case.prefix].get("gateway") == case.gateways[0], 0.5)
        # A second one of our protocol, under another metric, is nobody's: it goes.
        host.ip(f"{case.ip} route add {case.prefix} via {case.gateways[5]} dev v0 metric 40 proto bird")
        await until(lambda: len(host.routes(case.version)) == 1, 0.5)
        assert host.routes(case.version)[case.prefix]["metric"] == 1024
        # And one that nobody wants at all.
        host.ip(f"{case.ip} route add {case.other} via {case.gateways[5]} dev v0 proto bird")
        await until(lambda: case.other not in host.routes(case.version), 0.5)

    run(host, FibSettings(nexthop_objects=objects), steps)


def test_one_hop_of_several_deleted(host: Host) -> None:
    """IPv6 only: there the hops of a plain multipath route can be deleted one by one."""

    async def steps(kernel: Kernel) -> None:
        put(kernel, "fd01:2::/64", via(host, "fd00::2", "fd00::3", "fd00::4"))
        host.ip("-6 route del fd01:2::/64 via fd00::3 dev v0 metric 1024")
        await until(lambda: kernel.fib.counters.repaired > 0, 0.5)
        await until(lambda: len(host.routes(6)["fd01:2::/64"].get("nexthops", ())) == 3, 0.5)

    run(host, FibSettings(nexthop_objects=False), steps)


def test_appended_foreign_hop_survives_our_deletion(host: Host) -> None:
    """IPv6 merges a route appended under our metric into ours; our deletion names our hops and leaves the other."""

    async def steps(kernel: Kernel) -> None:
        put(kernel, "fd01:2::/64", via(host, "fd00::2", "fd00::3"))
        kernel._monitor.read = lambda limit=512: False  # type: ignore[method-assign]
        host.ip("-6 route append fd01:2::/64 via fd00::9 dev v0 metric 1024 proto static")
        put(kernel, "fd01:2::/64", None)
        left = host.routes(6, "fd01:2::/64")
        assert [route.get("gateway") for route in left.values()] == ["fd00::9"], left

    run(host, FibSettings(nexthop_objects=False), steps)


def test_someone_who_insists_slows_us_down(host: Host) -> None:
    async def steps(kernel: Kernel) -> None:
        put(kernel, "10.244.2.0/24", via(host, "10.0.0.2"))
        for _ in range(14):
            host.ip("route del 10.244.2.0/24 proto bird", check=False)
            await asyncio.sleep(0.005)
        assert kernel.fib.counters.repaired <= 12
        await until(lambda: "10.244.2.0/24" in host.routes(4), 1.0)

    run(host, FibSettings(), steps)


def test_deleted_nexthop_objects_come_back_with_their_routes(host: Host, case: Case) -> None:
    async def steps(kernel: Kernel) -> None:
        put(kernel, case.prefix, via(host, case.gateways[0]))
        put(kernel, case.other, via(host, *case.gateways[:3]))
        host.ip("nexthop flush proto 12")
        await until(lambda: set(host.routes(case.version)) == {case.prefix, case.other}, 0.5)
        assert len(host.routes(case.version)[case.other]["nexthops"]) == 3
        only = kernel.fib.state(*parse_prefix(case.prefix)).nexthop_id
        host.ip(f"nexthop del id {only}")
        await until(lambda: len(host.routes(case.version).get(case.other, {}).get("nexthops", ())) == 3, 0.5)
        await until(lambda: case.prefix in host.routes(case.version), 0.5)

    run(host, FibSettings(), steps)


def test_a_stolen_nexthop_object_is_left_to_the_thief(host: Host) -> None:
    async def steps(kernel: Kernel) -> None:
        put(kernel, "10.244.2.0/24", via(host, "10.0.0.2"))
        ident = kernel.fib.state(*parse_prefix("10.244.2.0/24")).nexthop_id
        host.ip(f"nexthop replace id {ident} via 10.0.0.66 dev v0 proto static")
        await until(lambda: host.routes(4)["10.244.2.0/24"].get("gateway") == "10.0.0.2", 0.5)
        assert host.nexthops()[ident]["gateway"] == "10.0.0.66"

    run(host, FibSettings(), steps)


def test_link_flap(host: Host, case: Case, objects: bool) -> None:
    """Routes that a kernel dropped without a word when the link went down are back when it is up again."""

    async def steps(kernel: Kernel) -> None:
        host.keep_addresses("v0")
        put(kernel, case.prefix, via(host, case.gateways[0]))
        put(kernel, case.other, via(host, case.far, link="w0"))
        for _ in range(3):
            host.ip("link set v0 down")
            await until(lambda: status(kernel, case.prefix) is not FibStatus.INSTALLED)
            assert status(kernel, case.other) is FibStatus.INSTALLED
            host.ip("link set v0 up")
            await until(lambda: status(kernel, case.prefix) is FibStatus.INSTALLED)
            assert host.routes(case.version)[case.prefix]["gateway"] == case.gateways[0]

    run(host, FibSettings(nexthop_objects=objects), steps)


def test_carrier_flap(host: Host, case: Case, objects: bool) -> None:
    async def steps(kernel: Kernel) -> None:
        put(kernel, case.prefix, via(host, case.gateways[0]))
        put(kernel, case.other, via(host, *case.gateways[1:3]))
        for _ in range(3):
            host.ip("link set v1 down")
            await asyncio.sleep(0.1)
            host.ip("link set v1 up")
            await until(
                lambda: (
                    {case.prefix, case.other} <= set(host.routes(case.version))
                    and status(kernel, case.prefix) is status(kernel, case.other) is FibStatus.INSTALLED
                )
            )

    run(host, FibSettings(nexthop_objects=objects), steps)


def test_a_group_whose_member_has_no_carrier_says_so(host: Host, case: Case) -> None:
    async def steps(kernel: Kernel) -> None:
        host.keep_addresses("w0")
        hops = (*via(host, case.gateways[0]).hops, *via(host, case.far, link="w0").hops)
        put(kernel, case.prefix, FibRoute(RouteKind.UNICAST, tuple(sorted(hops)), 1024))
        prefix = parse_prefix(case.prefix)
        assert kernel.fib.state(*prefix).text == ""
        host.ip("link set w1 down")
        # One hop: IPv4 shows it as the route's gateway, IPv6 as a list.
        await until(lambda: len(host.routes(case.version)[case.prefix].get("nexthops", [None])) == 1)
        await until(lambda: bool(kernel.fib.state(*prefix).text))
        state = kernel.fib.state(*prefix)
        assert state.status is FibStatus.INSTALLED and len(state.hops) == 2
        assert state.text.startswith("without 1 of its 2 next hops: ") and state.errno
        host.ip("link set w1 up")
        await until(lambda: len(host.routes(case.version)[case.prefix].get("nexthops", ())) == 2)
        await until(lambda: kernel.fib.state(*prefix).text == "")

    run(host, FibSettings(), steps)


def test_address_removed_and_back(host: Host, case: Case, objects: bool) -> None:
    """IPv4 drops all plain routes of an interface that loses its last address, and says nothing of it."""
    address = "10.9.0.1/24" if case.version == 4 else "fd09::1/64"

    async def steps(kernel: Kernel) -> None:
        put(kernel, case.other, via(host, case.far, link="w0"))
        host.ip(f"addr del {address} dev w0")
        if case.version == 4 and not objects:
            await until(lambda: status(kernel, case.other) is not FibStatus.INSTALLED)
        host.ip(f"addr add {address} dev w0" + (" nodad" if case.version == 6 else ""))
        await until(lambda: status(kernel, case.other) is FibStatus.INSTALLED)
        assert host.routes(case.version)[case.other]["gateway"] == case.far

    run(host, FibSettings(nexthop_objects=objects), steps)


def test_link_removed_and_made_anew(host: Host, case: Case, objects: bool) -> None:
    async def steps(kernel: Kernel) -> None:
        put(kernel, case.other, via(host, case.far, link="w0"))
        put(kernel, case.prefix, via(host, case.gateways[0]))
        host.ip("link del w0")
        await until(lambda: status(kernel, case.other) is FibStatus.REFUSED)
        assert status(kernel, case.prefix) is FibStatus.INSTALLED
        put(kernel, case.other, None)
        assert set(host.routes(case.version)) == {case.prefix}
        assert kernel.fib.deadline() > time.monotonic()

    run(host, FibSettings(nexthop_objects=objects), steps)


def test_an_object_lost_before_any_event_is_missed_at_once(host: Host) -> None:
    """Adding a route by an object that the kernel dropped fails; the object is asked for again."""

    async def steps(kernel: Kernel) -> None:
        put(kernel, "10.244.2.0/24", via(host, "10.0.0.2"))
        kernel._monitor.read = lambda limit=512: False  # type: ignore[method-assign]
        host.ip("nexthop flush proto 12")
        put(kernel, "10.244.3.0/24", via(host, "10.0.0.2"))
        await until(lambda: set(host.routes(4)) == {"10.244.2.0/24", "10.244.3.0/24"})

    run(host, FibSettings(), steps)


@pytest.mark.parametrize("release", (True, False))
def test_lost_events(host: Host, release: bool) -> None:
    """ENOBUFS: a tiny buffer, much churn by others and by us; in the end the kernel equals what is wanted."""
    wanted: dict[str, FibRoute] = {}
    dice = random.Random(4)

    async def body() -> None:
        kernel = Kernel(FibSettings(), LearnSettings(), lambda changes: None, monitor_buffer=4096)
        with host.entered():
            await kernel.start()
        if release:
            kernel.release()
        routes = [via(host, f"10.0.0.{number}") for number in range(2, 12)]
        prefixes = [f"10.{100 + number // 250}.{number % 250}.0/24" for number in range(2000)]
        family = parse_prefix(prefixes[0])[0]
        for _ in range(4):
            for prefix in prefixes:
                wanted[prefix] = dice.choice(routes)
            kernel.program(family, {parse_prefix(prefix)[1]: route for prefix, route in wanted.items()})
            await asyncio.sleep(0)
            host.batch(
                [f"route del {prefix} proto bird" for prefix in dice.sample(prefixes, 600)]
                + [f"route add 172.{16 + n // 250}.{n % 250}.0/24 via 10.0.0.2 proto static" for n in range(800)]
                + [f"route replace {prefix} via 10.0.1.99 metric 1024 proto bird" for prefix in prefixes[:300]]
            )
            host.batch([f"route del 172.{16 + n // 250}.{n % 250}.0/24" for n in range(100, 800)])
        assert kernel.lost_events
        index = host.index("v0")

        def equal() -> bool:
            shown = host.routes(4)
            names = {f"10.0.0.{number}" for number in range(2, 12)}
            return set(shown) == set(wanted) and all(
                route.get("gateway") in names and wanted[prefix].hops == (Hop(parse_address(route["gateway"]), index),)
                for prefix, route in shown.items()
            )

        await until(equal, 5.0)
        assert len(host.routes(4, "proto static")) == 100
        assert len([route for route in kernel.learner.routes() if route.protocol == 4]) == 100
        kernel.close()

    asyncio.run(body())


def test_our_own_writes_do_not_come_back(host: Host) -> None:
    """They are filtered in the kernel: no wake-up, no parsing."""
    heard: list[int] = []

    async def steps(kernel: Kernel) -> None:
        kernel._monitor._on_message = lambda kind, *rest: heard.append(kind)
        put(kernel, "10.244.2.0/24", via(host, "10.0.0.2"))
        put(kernel, "10.244.2.0/24", None)
        await asyncio.sleep(0.05)
        assert heard == []
        host.ip("route add 10.77.0.0/24 via 10.0.0.2")
        await until(lambda: bool(heard))

    run(host, FibSettings(), steps)


def test_a_large_change_does_not_stall_the_loop(host: Host) -> None:
    """It is written in slices; a later change of the same prefixes wins."""

    async def steps(kernel: Kernel) -> None:
        family = parse_prefix("10.0.0.0/8")[0]
        keys = [bytes((26,)) + ((172 << 24) + (number << 6)).to_bytes(4, "big") for number in range(20000)]
        kernel.program(family, dict.fromkeys(keys, via(host, "10.0.0.2")))
        assert kernel.fib.installed(family) < 20000
        kernel.program(family, dict.fromkeys(keys[:5000], via(host, "10.0.0.3")))
        await until(lambda: kernel.fib.installed(family) == 20000 and not kernel.fib.sides[2].pending)
        shown = host.routes(4)
        assert sum(1 for route in shown.values() if route["gateway"] == "10.0.0.3") == 5000 and len(shown) == 20000

    run(host, FibSettings(), steps)
