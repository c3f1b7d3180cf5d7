"""Routes through a tunnel device on a real kernel: onlink, with nexthop objects and without, single and multipath.

Not every kernel has IPIP: a veth named tunl0 stands for its device.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Any

import pytest

from bgpd.family import parse_address, parse_prefix
from bgpd.routes import FibRoute, Hop, RouteKind
from bgpd.settings import FibSettings, LearnSettings
from bgpd.shell.kernel import Kernel
from tests.netns.support import Host, require_namespaces, until

pytestmark = pytest.mark.netns
PREFIX = "10.244.2.0/26"
FAR = ("10.77.0.9", "10.77.0.10")
"""Next hops that no subnet of tunl0 covers."""


@pytest.fixture(params=(True, False), ids=("objects", "plain"))
def settings(request: pytest.FixtureRequest) -> FibSettings:
    return FibSettings(nexthop_objects=bool(request.param))


@pytest.fixture
def host() -> Iterator[Host]:
    require_namespaces()
    host = Host()
    add_tunnel(host)
    yield host
    host.close()


def add_tunnel(host: Host) -> None:
    host.ip("link add tunl0 type veth peer name tunl0-peer")
    host.ip("link set tunl0-peer up")
    host.ip("link set tunl0 up")


def through(host: Host, *next_hops: str) -> FibRoute:
    index = host.index("tunl0")
    return FibRoute(RouteKind.UNICAST, tuple(Hop(parse_address(hop), index, True) for hop in next_hops), 1024)


def hops(host: Host) -> set[tuple[str, str, bool]]:
    """(gateway, device, onlink) of the one route that is looked at."""
    route = host.routes(4)[PREFIX]
    found: list[dict[str, Any]] = route.get("nexthops", [route])
    return {(hop["gateway"], hop["dev"], "onlink" in hop.get("flags", [])) for hop in found}


def run(settings: FibSettings, host: Host, steps: Callable[[Kernel, list[Mapping[str, int]]], Awaitable[None]]) -> None:
    async def body() -> None:
        told: list[Mapping[str, int]] = []
        kernel = Kernel(settings, LearnSettings(), lambda changes: None, on_devices=told.append)
        with host.entered():
            await kernel.start()
        try:
            await steps(kernel, told)
        finally:
            kernel.close()

    asyncio.run(body())


def put(kernel: Kernel, route: FibRoute | None) -> None:
    family, key = parse_prefix(PREFIX)
    kernel.program(family, {key: route})


def test_onlink_single_multipath_and_back_to_plain(host: Host, settings: FibSettings) -> None:
    async def steps(kernel: Kernel, _: list[Mapping[str, int]]) -> None:
        kernel.release()
        put(kernel, through(host, FAR[0]))
        assert hops(host) == {(FAR[0], "tunl0", True)}
        put(kernel, through(host, *FAR))
        assert hops(host) == {(hop, "tunl0", True) for hop in FAR}
        mixed = (*through(host, FAR[0]).hops, Hop(parse_address("10.0.0.2"), host.index("v0")))
        put(kernel, FibRoute(RouteKind.UNICAST, mixed, 1024))
        assert hops(host) == {(FAR[0], "tunl0", True), ("10.0.0.2", "v0", False)}
        put(kernel, FibRoute(RouteKind.UNICAST, mixed[1:], 1024))
        assert hops(host) == {("10.0.0.2", "v0", False)}
        put(kernel, None)
        assert not host.routes(4)
        assert kernel.fib.counters.refused == 0

    run(settings, host, steps)


@pytest.mark.parametrize("count", [1, 2])
def test_restart_finds_its_tunnel_routes_and_leaves_them(host: Host, settings: FibSettings, count: int) -> None:
    route = through(host, *FAR[:count])

    async def first(kernel: Kernel, _: list[Mapping[str, int]]) -> None:
        put(kernel, route)

    async def second(kernel: Kernel, _: list[Mapping[str, int]]) -> None:
        assert kernel.fib.counters.adopted == 1
        put(kernel, route)
        kernel.release()
        counters = kernel.fib.counters
        assert (counters.added, counters.replaced, counters.deleted) == (0, 0, 0)
        assert hops(host) == {(hop, "tunl0", True) for hop in FAR[:count]}

    run(settings, host, first)
    run(settings, host, second)


def test_a_deleted_tunnel_route_is_back(host: Host, settings: FibSettings) -> None:
    async def steps(kernel: Kernel, _: list[Mapping[str, int]]) -> None:
        put(kernel, through(host, FAR[0]))
        host.ip(f"route del {PREFIX} proto bird")
        await until(lambda: PREFIX in host.routes(4))
        assert hops(host) == {(FAR[0], "tunl0", True)}

    run(settings, host, steps)


def test_devices_are_told_as_they_come_and_go(host: Host, settings: FibSettings) -> None:
    async def steps(kernel: Kernel, told: list[Mapping[str, int]]) -> None:
        assert told[-1]["tunl0"] == host.index("tunl0")
        put(kernel, through(host, FAR[0]))
        host.ip("link set tunl0 down")
        await until(lambda: "tunl0" not in told[-1])
        host.ip("link set tunl0 up")
        await until(lambda: "tunl0" in told[-1])
        await until(lambda: PREFIX in host.routes(4))
        host.ip("link del tunl0")
        await until(lambda: "tunl0" not in told[-1])
        put(kernel, FibRoute(RouteKind.UNICAST, (Hop(parse_address("10.0.0.2"), host.index("v0")),), 1024))
        await until(lambda: PREFIX in host.routes(4) and hops(host) == {("10.0.0.2", "v0", False)})
        add_tunnel(host)
        await until(lambda: "tunl0" in told[-1])
        put(kernel, through(host, FAR[0]))
        assert hops(host) == {(FAR[0], "tunl0", True)}

    run(settings, host, steps)
