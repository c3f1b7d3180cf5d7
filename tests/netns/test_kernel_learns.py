"""What the kernel side tells of the host's own routes, on a real kernel: at the start, and while things change."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from bgpd.family import format_address, format_prefix, parse_address, parse_prefix
from bgpd.policy.terms import SourceKind
from bgpd.routes import LocalChange, LocalRoute
from bgpd.settings import FibSettings, LearnSettings
from bgpd.shell.kernel import Kernel
from tests.netns.support import Host, set_sysctl, until
from tests.netns.test_kernel_writes import case, host, run

pytestmark = pytest.mark.netns
__all__ = ["case", "host"]


def view(told: list[LocalChange]) -> dict[tuple[SourceKind, str], LocalRoute]:
    """The state that the changes add up to."""
    found: dict[tuple[SourceKind, str], LocalRoute] = {}
    for change in told:
        name = (change.kind, format_prefix(change.family, change.key))
        if change.route is None:
            del found[name]
        else:
            found[name] = change.route
    return found


def names(told: list[LocalChange], kind: SourceKind) -> set[str]:
    """Prefixes of a kind."""
    return {prefix for found, prefix in view(told) if found is kind}


def pod(host: Host, number: int) -> None:
    """A pod's interface and its route, as Felix makes them."""
    host.ip(f"link add cali{number} type veth peer name pod{number}")
    host.ip(f"link set cali{number} up")
    host.ip(f"link set pod{number} up")
    host.ip(f"route add 10.244.1.{number}/32 dev cali{number} proto 80 scope link metric 1024")
    host.ip(f"-6 route add fd01:1::{number}/128 dev cali{number} proto 80 metric 1024")


def test_first_dump_and_changes(host: Host) -> None:
    told: list[LocalChange] = []
    pod(host, 5)
    host.ip("addr add 192.0.2.1/32 dev lo")
    host.ip("addr add 10.99.0.1/24 dev cali5")
    host.ip("route add default via 10.0.0.254")
    host.ip("route add blackhole 10.244.9.0/24 proto 80")
    host.ip("route add 10.244.8.0/24 via 10.0.0.2 proto bird")

    async def steps(kernel: Kernel) -> None:
        assert names(told, SourceKind.DIRECT) == {
            "10.0.0.0/16", "10.9.0.0/24", "fd00::/64", "fd09::/64", "192.0.2.1/32",
        }  # fmt: skip
        assert names(told, SourceKind.KERNEL) == {"10.244.1.5/32", "fd01:1::5/128", "0.0.0.0/0", "10.244.9.0/24"}
        route = view(told)[SourceKind.KERNEL, "10.244.1.5/32"]
        assert (route.protocol, route.metric, route.interface) == (80, 1024, "cali5")
        assert route.label == "kernel route, protocol 80 (Felix workload)"
        assert not view(told)[SourceKind.KERNEL, "10.244.9.0/24"].reachable
        assert kernel.interface_name(host.index("cali5")) == "cali5"
        before = len(told)
        pod(host, 6)
        await until(lambda: {"10.244.1.6/32", "fd01:1::6/128"} <= names(told, SourceKind.KERNEL))
        host.ip("route del 10.244.1.5/32 dev cali5")
        await until(lambda: "10.244.1.5/32" not in names(told, SourceKind.KERNEL))
        host.ip("addr add 10.8.0.1/24 dev w0")
        await until(lambda: "10.8.0.0/24" in names(told, SourceKind.DIRECT))
        host.ip("addr del 10.8.0.1/24 dev w0")
        await until(lambda: "10.8.0.0/24" not in names(told, SourceKind.DIRECT))
        assert len(told) == before + 5

    run(host, FibSettings(), steps, told)


def test_a_pod_that_vanishes_with_its_link(host: Host) -> None:
    """The kernel drops the IPv4 route without a word."""
    told: list[LocalChange] = []

    async def steps(kernel: Kernel) -> None:
        pod(host, 5)
        pod(host, 6)
        await until(lambda: len(names(told, SourceKind.KERNEL)) == 4)
        host.ip("link del cali5")
        await until(lambda: names(told, SourceKind.KERNEL) == {"10.244.1.6/32", "fd01:1::6/128"}, 0.5)
        host.ip("link set cali6 down")
        await until(lambda: names(told, SourceKind.KERNEL) == set(), 0.5)

    run(host, FibSettings(), steps, told)


def test_link_down_takes_the_direct_route(host: Host) -> None:
    told: list[LocalChange] = []
    host.ip("route add 10.77.0.0/16 via 10.9.0.9")

    async def steps(kernel: Kernel) -> None:
        assert "10.77.0.0/16" in names(told, SourceKind.KERNEL)
        host.ip("link set w0 down")
        await until(lambda: "10.9.0.0/24" not in names(told, SourceKind.DIRECT))
        await until(lambda: "10.77.0.0/16" not in names(told, SourceKind.KERNEL))
        host.ip("link set w0 up")
        await until(lambda: "10.9.0.0/24" in names(told, SourceKind.DIRECT))

    run(host, FibSettings(), steps, told)


def test_bridge_ports_are_still_links(host: Host) -> None:
    """Leaving a bridge is told as the deletion of a link; it is not one."""
    told: list[LocalChange] = []

    async def steps(kernel: Kernel) -> None:
        host.ip("link add br0 type bridge")
        host.ip("link set w1 master br0")
        await asyncio.sleep(0.05)
        host.ip("link set w1 nomaster")
        await asyncio.sleep(0.05)
        assert kernel.interface_name(host.index("w1")) == "w1"

    try:
        host.ip("link add brtest type bridge")
    except AssertionError:
        pytest.skip("this kernel has no bridges")
    run(host, FibSettings(), steps, told)


def test_addresses_of_the_host_are_told(host: Host) -> None:
    told: list[frozenset[bytes]] = []

    async def body() -> None:
        kernel = Kernel(FibSettings(), LearnSettings(), lambda changes: None, told.append)
        with host.entered():
            await kernel.start()
        expected = {parse_address(text) for text in ("127.0.0.1", "::1", "10.0.0.1", "10.9.0.1", "fd00::1", "fd09::1")}
        assert len(told) == 1 and expected <= told[0]
        host.ip("addr add 10.0.7.7/32 dev v0")
        await until(lambda: parse_address("10.0.7.7") in told[-1])
        host.ip("addr del 10.0.7.7/32 dev v0")
        await until(lambda: parse_address("10.0.7.7") not in told[-1])
        kernel.close()

    asyncio.run(body())


def test_learning_without_programming(host: Host) -> None:
    told: list[LocalChange] = []
    host.ip("route add 10.244.8.0/24 via 10.0.0.2 proto bird")

    async def steps(kernel: Kernel) -> None:
        pod(host, 5)
        await until(lambda: "10.244.1.5/32" in names(told, SourceKind.KERNEL))
        assert set(host.routes(4)) == {"10.244.8.0/24"}

    run(host, FibSettings(enabled=False), steps, told)


def test_other_rules_of_learning_apply_at_once(host: Host) -> None:
    told: list[LocalChange] = []
    host.ip("route add 10.70.0.0/24 via 10.0.0.2 table 77 proto static")

    async def steps(kernel: Kernel) -> None:
        kernel.reconfigure(FibSettings(), LearnSettings(ignored_interfaces=("v*",), table=77))
        await until(lambda: names(told, SourceKind.DIRECT) == {"10.9.0.0/24", "fd09::/64"})
        await until(lambda: names(told, SourceKind.KERNEL) == {"10.70.0.0/24"})

    run(host, FibSettings(), steps, told)


def test_a_defect_in_one_message_costs_none_of_those_behind_it(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[LocalChange] = []

    async def steps(kernel: Kernel) -> None:
        heard, failures = kernel.learner.on_route_event, [1]

        def once(*message: Any) -> None:
            if failures:
                failures.pop()
                raise ZeroDivisionError("a defect")
            heard(*message)

        monkeypatch.setattr(kernel.learner, "on_route_event", once)
        host.batch([f"route add 10.71.{number}.0/24 via 10.0.0.2 proto static" for number in range(3)])
        await until(lambda: names(told, SourceKind.KERNEL) == {f"10.71.{number}.0/24" for number in range(3)})
        assert not failures

    run(host, FibSettings(), steps, told)


def test_a_resync_finds_what_no_event_told(host: Host) -> None:
    """The periodic dump is the net under the events."""
    told: list[LocalChange] = []

    async def steps(kernel: Kernel) -> None:
        kernel._monitor._on_message = lambda *message: None
        pod(host, 5)
        await until(lambda: "10.244.1.5/32" in names(told, SourceKind.KERNEL))
        assert kernel.dumps > 1

    run(host, FibSettings(resync_time=0.3), steps, told)


@pytest.mark.parametrize("policy", ("asyncio", "uvloop"))
def test_either_event_loop(host: Host, policy: str) -> None:
    """Events are heard, also after the kernel had to drop some, which it reports as an error of the socket."""
    told: list[LocalChange] = []
    factory = asyncio.new_event_loop
    if policy == "uvloop":
        factory = pytest.importorskip("uvloop").new_event_loop

    async def body() -> None:
        kernel = Kernel(FibSettings(), LearnSettings(), told.extend, monitor_buffer=4096)
        with host.entered():
            await kernel.start()
        pod(host, 5)
        await until(lambda: "10.244.1.5/32" in names(told, SourceKind.KERNEL))
        for number in (6, 7):
            lost = kernel.lost_events
            # In one go, so that the loop finds the error together with what there is to read.
            host.batch([f"route add 172.16.{n}.0/24 via 10.0.0.2 proto static" for n in range(200)])
            host.batch([f"route del 172.16.{n}.0/24" for n in range(200)])
            await until(lambda lost=lost: kernel.lost_events > lost)  # type: ignore[misc]
            await until(lambda: not any(name.startswith("172.16.") for name in names(told, SourceKind.KERNEL)))
            pod(host, number)
            await until(lambda number=number: f"10.244.1.{number}/32" in names(told, SourceKind.KERNEL))  # type: ignore[misc]
        kernel.close()
        kernel.close()

    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(body())


def test_idle_means_idle(host: Host) -> None:
    """No timer runs while nothing happens."""

    async def steps(kernel: Kernel) -> None:
        await asyncio.sleep(0.2)
        started, dumps = time.process_time(), kernel.dumps
        await asyncio.sleep(1.0)
        assert kernel.dumps == dumps
        assert time.process_time() - started < 0.05

    run(host, FibSettings(), steps)


def test_why_a_route_of_the_kernel_is_no_local_route(host: Host) -> None:
    """For explain: the kernel is asked for this one prefix, in both families."""
    host.ip("route add 10.5.0.0/16 dev w0 proto bird")
    host.ip("-6 route add fd05:1::/64 dev w0 proto bird")
    host.ip("route add 10.6.0.0/16 dev w0 table 100")
    host.ip("rule add to 10.6.0.0/16 table 100")
    host.ip("route add 10.7.0.0/16 dev w0 proto static")

    async def steps(kernel: Kernel) -> None:
        def why(prefix: str) -> str:
            return kernel.why_not_local(*parse_prefix(prefix))

        for prefix in ("10.5.0.0/16", "fd05:1::/64"):
            assert why(prefix).startswith("the kernel has it (protocol 12 (BIRD), table 254), but routes of BIRD's")
        assert "table 100), but routes are learned from table 254 alone" in why("10.6.0.0/16")
        for prefix in ("10.7.0.0/16", "10.7.1.0/24", "10.8.0.0/16", "fd08::/64"):
            assert why(prefix) == ""

    run(host, FibSettings(), steps, release=False)


@pytest.mark.parametrize("compat", [1, 0])
def test_routes_through_nexthop_objects_of_others(host: Host, compat: int) -> None:
    """As FRR writes them. The kernel tells nothing of the routes when their object goes or a group loses a member, and
    without compat mode nothing of a changed object either."""
    told: list[LocalChange] = []
    set_sysctl(host.name, {"ipv4/nexthop_compat_mode": compat})

    def gateways(prefix: str) -> set[str]:
        route = view(told).get((SourceKind.KERNEL, prefix))
        return {format_address(hop.gateway) for hop in route.hops} if route else set()

    async def steps(kernel: Kernel) -> None:
        for command in (
            "nexthop add id 5 via 10.0.0.2 dev v0",
            "nexthop add id 6 via 10.9.0.2 dev w0",
            "nexthop add id 7 group 5/6",
            "nexthop add id 8 via fd00::2 dev v0",
            "route add default nhid 7 proto static",
            "route add 172.16.0.0/16 nhid 5 proto static",
            "-6 route add default nhid 8 proto static",
        ):
            host.ip(command)
        await until(lambda: gateways("0.0.0.0/0") == {"10.0.0.2", "10.9.0.2"} and gateways("::/0") == {"fd00::2"})
        host.ip("nexthop replace id 5 via 10.0.0.3 dev v0")
        host.ip("nexthop replace id 8 via fd00::3 dev v0")
        await until(lambda: gateways("0.0.0.0/0") == {"10.0.0.3", "10.9.0.2"} and gateways("::/0") == {"fd00::3"})
        before = len(told)
        host.ip("link set w1 down")  # w0 loses its carrier, the group a member; the route stays
        await until(lambda: gateways("0.0.0.0/0") == {"10.0.0.3"})
        assert all(change.route is not None for change in told[before:]), told[before:]
        host.ip("nexthop del id 5")
        await until(lambda: not gateways("0.0.0.0/0") and not gateways("172.16.0.0/16"))
        host.ip("nexthop del id 8")
        await until(lambda: not gateways("::/0"))
        await until(lambda: not host.routes(4, "proto static") and not kernel.learner.suspect)

    run(host, FibSettings(), steps, told)
