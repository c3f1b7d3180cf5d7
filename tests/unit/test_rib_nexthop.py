"""Next-hop resolution (RFC 4271 §9.1.2.1), and which answers a change of the host's routes alters."""

from __future__ import annotations

import pytest

from bgpd.family import parse_address, parse_prefix
from bgpd.policy.terms import SourceKind
from bgpd.rib.nexthop import NextHop, NextHopTable, unusable
from bgpd.routes import Hop, LocalRoute


def route(
    prefix: str, kind: SourceKind, hop: Hop | None, interface: str = "eth0", reachable: bool = True
) -> LocalRoute:
    family, key = parse_prefix(prefix)
    return LocalRoute(family, key, kind, (hop,) if hop else (), 0, interface, 0, f"{kind.value} {prefix}", reachable)


def seen(hop: NextHop) -> tuple[bool, str]:
    """Read afresh: the object is changed in place."""
    return hop.reachable, hop.reason


def put(table: NextHopTable, prefix: str, kind: SourceKind, entry: LocalRoute | None) -> None:
    family, key = parse_prefix(prefix)
    for hop in table.set_route(family, key, kind, entry):
        table.refresh(hop, table.look_up(hop.address))


@pytest.mark.parametrize(
    ("subnet", "default", "near", "far", "gateway"),
    [
        ("10.0.0.0/24", "0.0.0.0/0", "10.0.0.9", "10.9.9.9", "10.0.0.254"),
        ("fd00:1::/64", "::/0", "fd00:1::9", "fd00:9::9", "fd00:1::fe"),
    ],
)
def test_longest_match_on_link_and_through_a_gateway(
    subnet: str, default: str, near: str, far: str, gateway: str
) -> None:
    table = NextHopTable()
    close, distant = table.get(parse_address(near)), table.get(parse_address(far))
    assert seen(close) == (False, "no local route covers it")
    put(table, subnet, SourceKind.DIRECT, route(subnet, SourceKind.DIRECT, Hop(b"", 2)))
    assert seen(close)[0] and close.hops == (Hop(parse_address(near), 2),) and close.cost == 0
    assert not seen(distant)[0]
    put(table, default, SourceKind.KERNEL, route(default, SourceKind.KERNEL, Hop(parse_address(gateway), 2)))
    assert seen(distant)[0] and distant.hops == (Hop(parse_address(gateway), 2),) and distant.cost == 1
    assert close.cost == 0
    host = f"{far}/{32 if '.' in far else 128}"
    put(table, host, SourceKind.KERNEL, route(host, SourceKind.KERNEL, None, "", reachable=False))
    assert not seen(distant)[0] and "unreachable or blackhole" in distant.reason
    put(table, host, SourceKind.KERNEL, None)
    assert seen(distant)[0]
    put(table, subnet, SourceKind.DIRECT, None)
    assert close.hops == (Hop(parse_address(gateway), 2),)
    put(table, default, SourceKind.KERNEL, None)
    assert not seen(close)[0] and not seen(distant)[0]


def test_only_covered_next_hops_are_touched() -> None:
    table = NextHopTable()
    inside, outside = table.get(parse_address("10.1.2.3")), table.get(parse_address("10.2.2.3"))
    six = table.get(parse_address("fd00::1"))
    family, key = parse_prefix("10.1.0.0/17")
    assert table.set_route(family, key, SourceKind.DIRECT, route("10.1.0.0/17", SourceKind.DIRECT, Hop(b"", 2))) == [
        inside
    ]
    family, key = parse_prefix("0.0.0.0/0")
    touched = table.set_route(family, key, SourceKind.KERNEL, route("0.0.0.0/0", SourceKind.KERNEL, Hop(b"abcd", 2)))
    assert touched == [inside, outside] and six not in touched


def test_own_addresses_are_no_next_hops() -> None:
    table = NextHopTable()
    put(table, "10.0.0.0/24", SourceKind.DIRECT, route("10.0.0.0/24", SourceKind.DIRECT, Hop(b"", 2)))
    own = table.get(parse_address("10.0.0.1"))
    assert seen(own)[0]
    for hop in table.set_own(frozenset((parse_address("10.0.0.1"),))):
        table.refresh(hop, table.look_up(hop.address))
    assert seen(own) == (False, "next hop is an address of this host")
    for hop in table.set_own(frozenset()):
        table.refresh(hop, table.look_up(hop.address))
    assert seen(own)[0]


@pytest.mark.parametrize("address", ["0.0.0.0", "127.0.0.1", "224.0.0.1", "255.255.255.255", "::", "::1", "ff02::1"])
def test_addresses_that_never_resolve(address: str) -> None:
    table = NextHopTable()
    everything = "::/0" if ":" in address else "0.0.0.0/0"
    put(table, everything, SourceKind.KERNEL, route(everything, SourceKind.KERNEL, Hop(b"", 2)))
    assert not table.get(parse_address(address)).reachable
    assert unusable(parse_address(address))


def test_a_speaker_without_a_kernel_takes_every_next_hop() -> None:
    table = NextHopTable(resolve=False)
    assert table.get(parse_address("203.0.113.1")).reachable
