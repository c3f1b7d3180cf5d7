"""Microseconds per kernel route: python -m tests.bench.netlink_bench [ROUTES]

Routes go through FibTable and Netlink as they do in the daemon, in a namespace of their own: first written, then moved
to another next hop each, then read in a dump, then deleted. With nexthop objects and with plain next hops. Needs root.
The column "kernel" is the floor of "add": the same messages, packed beforehand, and nothing done but sending them.
"""

from __future__ import annotations

import socket
import sys
import time
from collections.abc import Callable

from bgpd.family import IPV4_UNICAST, IPV6_UNICAST, Family
from bgpd.fib import bulk
from bgpd.fib import messages as nl
from bgpd.fib.netlink import BATCH, Netlink
from bgpd.fib.table import FibTable
from bgpd.routes import FibRoute, Hop, RouteKind
from bgpd.settings import FibSettings
from tests.netns.support import Host


def _keys(family: Family, count: int) -> list[bytes]:
    if family == IPV4_UNICAST:
        return [bytes((26,)) + ((172 << 24) + (number << 6)).to_bytes(4, "big") for number in range(count)]
    return [bytes((122, 0xFD, 0x10)) + (number << 6).to_bytes(14, "big") for number in range(count)]


def _hop(family: Family, number: int, ifindex: int) -> FibRoute:
    if family == IPV4_UNICAST:
        gateway = ((10 << 24) + 256 + number).to_bytes(4, "big")
    else:
        gateway = b"\xfd\x00" + bytes(6) + (256 + number).to_bytes(8, "big")
    return FibRoute(RouteKind.UNICAST, (Hop(gateway, ifindex),), 1024)


def _flush(netlink: Netlink, table: FibTable) -> None:
    while ops := table.take(BATCH, 0.0):
        errors = netlink.submit(ops)
        assert not errors, next(iter(errors.values()))
        table.on_results(ops, errors, 0.0)


def _timed(count: int, work: Callable[[], None]) -> float:
    started = time.perf_counter()
    work()
    return (time.perf_counter() - started) / count * 1e6


def _dump(netlink: Netlink, table: FibTable, family: Family) -> None:
    parser = nl.RouteParser()
    table.begin_dump()
    for data, places in netlink.routes(nl.AF_INET if family == IPV4_UNICAST else nl.AF_INET6, 254):
        for start, end in places:
            parsed = parser.parse(data, start, end)
            assert parsed
            table.dump_route(*parsed)
    table.end_dump(False, 0.0)


def floor(family: Family, count: int, hops: int, objects: bool) -> float:
    """µs a route that the kernel takes for additions, its notification to one listener included."""
    host = Host()
    try:
        with host.entered():
            sender, listener = (socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) for _ in "12")
        listener.bind((0, 1 << 6 | 1 << 10))  # RTMGRP_IPV4_ROUTE, RTMGRP_IPV6_ROUTE: heard as far as there is room
        table = FibTable(FibSettings(nexthop_objects=objects))
        ifindex = host.index("v0")
        routes = [_hop(family, number, ifindex) for number in range(hops)]
        table.want(family, {key: routes[place % hops] for place, key in enumerate(_keys(family, count))}, 0.0)
        buffers = []
        while ops := table.take(BATCH, 0.0):
            buffers.append(bulk.encode(ops, 1))
            table.on_results(ops, {}, 0.0)

        def work() -> None:
            for data in buffers:
                sender.send(data)
                kind, _flags, _sequence, start, end = next(nl.split(answer := sender.recv(65536)))
                assert kind == nl.NLMSG_ERROR and nl.parse_error(answer, 0, start, end)[0] == 0

        figure = _timed(count, work)
        sender.close()
        listener.close()
        return figure
    finally:
        host.close()


def run(family: Family, count: int, hops: int, objects: bool) -> tuple[float, float, float, float]:
    """µs a route: add, replace, dump, delete."""
    host = Host()
    try:
        with host.entered():
            netlink = Netlink()
        table = FibTable(FibSettings(nexthop_objects=objects))
        table.release(0.0)
        ifindex = host.index("v0")
        routes = [_hop(family, number, ifindex) for number in range(hops)]
        keys = _keys(family, count)
        first = {key: routes[place % hops] for place, key in enumerate(keys)}
        others = [_hop(family, number + (1 if hops == 1 else 0), ifindex) for number in range(hops)]
        second = {key: others[(place + 1) % hops] for place, key in enumerate(keys)}

        def write(changes: dict[bytes, FibRoute | None]) -> Callable[[], None]:
            def work() -> None:
                table.want(family, changes, 0.0)
                _flush(netlink, table)

            return work

        figures = (
            _timed(count, write(dict(first))),
            _timed(count, write(dict(second))),
            _timed(count, lambda: _dump(netlink, table, family)),
            _timed(count, write(dict.fromkeys(keys))),
        )
        netlink.close()
        return figures
    finally:
        host.close()


def main() -> None:
    """Print the table."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 20000
    print(f"{count} routes, µs a route    kernel     add  replace   dump  delete")
    for family in (IPV4_UNICAST, IPV6_UNICAST):
        for hops in (1, 500, 5000):
            for objects in (True, False):
                figures = (floor(family, count, hops, objects), *run(family, count, hops, objects))
                shown = "".join(f"{figure:8.2f}" for figure in figures)
                print(f"{family!s} {'objects' if objects else 'plain':8} {hops:5} next hops {shown}", flush=True)


if __name__ == "__main__":
    main()
