"""Whole batches in one go: the same octets as message by message."""

from __future__ import annotations

import pytest

from bgpd.family import IPV4_UNICAST, IPV6_UNICAST, Family
from bgpd.fib import bulk
from bgpd.fib import messages as nl
from bgpd.fib.table import FibTable
from bgpd.routes import FibRoute, Hop, RouteKind
from bgpd.settings import FibSettings

LENGTHS = (0, 8, 20, 26, 32)


def _key(family: Family, number: int) -> bytes:
    length = LENGTHS[number % len(LENGTHS)] * (family.bits // 32)
    octets = (number.to_bytes(4, "big") * 4)[: (length + 7) // 8]
    return bytes((length,)) + octets


def _gateway(family: Family, number: int) -> bytes:
    return ((10 << 24) + number).to_bytes(4, "big") if family == IPV4_UNICAST else bytes((0xFD, *bytes(14), number))


def _check(table: FibTable) -> list[bool]:
    """Take all operations, compare both ways of packing them; which batches were of nexthop objects."""
    kinds = []
    sequence = 0x7FFFFF00
    while ops := table.take(64, 0.0):
        assert bulk.encode(ops, sequence) == nl.encode(ops, sequence)
        kinds.append(not ops[0][1])
        table.on_results(ops, {}, 0.0)
        sequence += len(ops)
    return kinds


@pytest.mark.parametrize("family", [IPV4_UNICAST, IPV6_UNICAST])
@pytest.mark.parametrize("number", [254, 1000])
@pytest.mark.parametrize("objects", [True, False])
def test_a_batch_is_packed_as_its_messages_are(family: Family, number: int, objects: bool) -> None:
    table = FibTable(FibSettings(table=number, nexthop_objects=objects))
    table.release(0.0)
    routes = {
        _key(family, n): FibRoute(RouteKind.UNICAST, (Hop(_gateway(family, n // 3), 5),), 100 + n % 7)
        for n in range(200)
    }
    table.want(family, routes, 0.0)
    assert set(_check(table)) == ({True, False} if objects else {False})
    assert table.installed(family) == len(routes)
    table.want(family, dict.fromkeys(routes), 0.0)
    _check(table)
    assert table.installed(family) == 0


def test_batches_of_unlike_messages() -> None:
    table = FibTable(FibSettings())
    table.release(0.0)
    gateway = _gateway(IPV4_UNICAST, 1)
    kinds = (
        FibRoute(RouteKind.UNICAST, (Hop(gateway, 5),), 7),
        FibRoute(RouteKind.UNICAST, (Hop(gateway, 6),), 0),
        FibRoute(RouteKind.UNICAST, (Hop(_gateway(IPV4_UNICAST, 2), 5, True),), 7),
        FibRoute(RouteKind.UNICAST, (Hop(_gateway(IPV6_UNICAST, 2), 5),), 7),
        FibRoute(RouteKind.UNICAST, (Hop(gateway, 5), Hop(_gateway(IPV4_UNICAST, 3), 5)), 7),
        FibRoute(RouteKind.BLACKHOLE, (), 7),
        FibRoute(RouteKind.UNICAST, (Hop(b"", 9),), 7),
    )
    table.want(IPV4_UNICAST, {_key(IPV4_UNICAST, n): kinds[n % len(kinds)] for n in range(150)}, 0.0)
    table.want(IPV6_UNICAST, {_key(IPV6_UNICAST, n): kinds[3] for n in range(150)}, 0.0)
    _check(table)
