"""Forwarding through tunnels: each path of a route goes the way that the kernel chain gives it (Calico §8.3, §8.4)."""

from __future__ import annotations

from bgpd.family import IPV4_UNICAST, Family, parse_address, parse_prefix
from bgpd.policy import terms as t
from bgpd.policy.terms import SourceKind, Term, Verdict
from bgpd.rib.forwarding import Forwarding
from bgpd.rib.nexthop import NextHop
from bgpd.rib.path import PREFERENCE, Entry, LocalPath, Path, Source
from bgpd.routes import FibRoute, Hop, RouteKind
from bgpd.settings import FibSettings
from bgpd.wire.attributes import AttributeTable, rebuild

TABLE = AttributeTable()
TUNL0 = 9
ETH0 = Hop(parse_address("10.0.0.1"), 2)
SUBNET = t.MatchNextHopInside(IPV4_UNICAST, parse_prefix("10.0.0.0/24")[1])


def ipip(pool: str, cross_subnet: bool = False) -> tuple[Term, ...]:
    """What compile makes of an IPIP pool whose routes are ours to write."""
    family, key = parse_prefix(pool)
    inside = t.MatchPrefix((t.PrefixRange(family, key, key[0], family.bits),))
    plain = (Term("same subnet", Verdict.ACCEPT, (inside, SUBNET)),) if cross_subnet else ()
    through = Term("IPIP", Verdict.ACCEPT, (inside,), (t.SetTunnel("tunl0"),))
    return (*plain, through, Term("outside", Verdict.ACCEPT))


def forwarding(terms: tuple[Term, ...], **devices: int) -> Forwarding:
    return Forwarding(FibSettings(chains=((IPV4_UNICAST, terms),)), devices)


def path(next_hop: str, hop: Hop = ETH0, number: int = 1) -> Path:
    changes: dict[int, bytes | None] = {1: b"\0", 5: (2147483647 - 1024).to_bytes(4, "big")}
    attrs = TABLE.intern(IPV4_UNICAST, rebuild(bytes.fromhex("40010100 4002 00"), changes), parse_address(next_hop))
    source = Source(next_hop, SourceKind.IBGP, parse_address(next_hop))
    source.router_id = parse_address(next_hop)
    resolved = NextHop(attrs.next_hop)
    resolved.reachable, resolved.cost, resolved.hops = True, 1, (hop,)
    return Path(source, number, 0, attrs, attrs, resolved, b"\0\0\0\1", PREFERENCE[SourceKind.IBGP])


class Rib:
    """The two things that Forwarding needs of a LocRib."""

    family: Family = IPV4_UNICAST

    def __init__(self, table: dict[str, Entry]) -> None:
        self.table = {parse_prefix(prefix)[1]: entry for prefix, entry in table.items()}


def wanted(forwarding: Forwarding, table: dict[str, Entry]) -> dict[str, FibRoute | None]:
    rib = Rib(table)
    found = forwarding.wanted(rib, rib.table)  # type: ignore[arg-type]
    for key, route in found.items():
        assert forwarding.explain(IPV4_UNICAST, rib.table[key], key)[0] == route
    return dict(zip(table, (found[key] for key in rib.table), strict=True))


def unicast(*hops: Hop) -> FibRoute:
    return FibRoute(RouteKind.UNICAST, hops, 1024)


def onlink(next_hop: str) -> Hop:
    return Hop(parse_address(next_hop), TUNL0, True)


def test_route_of_an_ipip_pool_goes_to_the_next_hop_itself_through_the_device() -> None:
    ways = forwarding(ipip("10.244.0.0/16"), tunl0=TUNL0)
    routes = wanted(ways, {"10.244.2.0/26": path("10.9.0.9"), "192.0.2.0/24": path("10.9.0.9")})
    assert routes == {"10.244.2.0/26": unicast(onlink("10.9.0.9")), "192.0.2.0/24": unicast(ETH0)}


def test_cross_subnet_only_beyond_the_own_subnet() -> None:
    ways = forwarding(ipip("10.244.0.0/16", cross_subnet=True), tunl0=TUNL0)
    near = Hop(parse_address("10.0.0.9"), 2)
    routes = wanted(ways, {"10.244.2.0/26": path("10.0.0.9", near), "10.244.3.0/26": path("10.9.0.9")})
    assert routes == {"10.244.2.0/26": unicast(near), "10.244.3.0/26": unicast(onlink("10.9.0.9"))}


def test_multipath_keeps_the_tunnel_for_each_of_its_paths() -> None:
    ways = forwarding(ipip("10.244.0.0/16"), tunl0=TUNL0)
    entry = (path("10.9.0.9"), path("10.8.0.8", number=2))
    assert wanted(ways, {"10.244.2.0/26": entry})["10.244.2.0/26"] == unicast(onlink("10.8.0.8"), onlink("10.9.0.9"))


def test_multipath_across_subnets_mixes_both_forms() -> None:
    ways = forwarding(ipip("10.244.0.0/16", cross_subnet=True), tunl0=TUNL0)
    near, far = path("10.0.0.9", Hop(parse_address("10.0.0.9"), 2)), path("10.8.0.8", number=2)
    routes = wanted(ways, {"10.244.2.0/26": (near, far), "192.0.2.0/24": (near, far)})
    assert routes["10.244.2.0/26"] == unicast(Hop(parse_address("10.0.0.9"), 2), onlink("10.8.0.8"))
    assert routes["192.0.2.0/24"] == unicast(ETH0, Hop(parse_address("10.0.0.9"), 2))


def test_two_reflectors_words_about_one_next_hop_are_one_hop() -> None:
    ways = forwarding(ipip("10.244.0.0/16"), tunl0=TUNL0)
    entry = (path("10.9.0.9"), path("10.9.0.9", number=2))
    assert wanted(ways, {"10.244.2.0/26": entry})["10.244.2.0/26"] == unicast(onlink("10.9.0.9"))


def test_without_the_device_plain_and_told_so() -> None:
    ways = forwarding(ipip("10.244.0.0/16"))
    _, key = parse_prefix("10.244.2.0/26")
    assert wanted(ways, {"10.244.2.0/26": path("10.9.0.9")})["10.244.2.0/26"] == unicast(ETH0)
    assert "tunl0 does not exist or is down" in ways.explain(IPV4_UNICAST, path("10.9.0.9"), key)[1]
    assert ways.use_devices({"eth0": 2}) == []
    assert ways.use_devices({"eth0": 2, "tunl0": TUNL0}) == [IPV4_UNICAST]
    assert wanted(ways, {"10.244.2.0/26": path("10.9.0.9")})["10.244.2.0/26"] == unicast(onlink("10.9.0.9"))
    assert "through tunl0" in ways.explain(IPV4_UNICAST, path("10.9.0.9"), key)[1]
    assert ways.use_devices({"tunl0": TUNL0 + 1}) == [IPV4_UNICAST]
    assert ways.use_devices({}) == [IPV4_UNICAST]


def test_next_hop_of_ipv6_has_no_ipip_tunnel() -> None:
    ways = forwarding(ipip("10.244.0.0/16"), tunl0=TUNL0)
    assert wanted(ways, {"10.244.2.0/26": path("fd00::9")})["10.244.2.0/26"] == unicast(ETH0)


def test_a_chain_that_names_no_tunnel_hears_of_no_device() -> None:
    ways = forwarding(t.ACCEPT_ALL)
    assert ways.use_devices({"tunl0": TUNL0}) == []
    assert wanted(ways, {"10.244.2.0/26": path("10.9.0.9")})["10.244.2.0/26"] == unicast(ETH0)


def test_a_static_route_inside_an_ipip_pool_goes_by_its_gateway() -> None:
    """The host route of a peer's reachableBy: the gateway is a router, and need not be the end of a tunnel."""
    ways = forwarding(ipip("10.244.0.0/16"), tunl0=TUNL0)
    gateway = path("10.0.0.1").next_hop
    static = LocalPath(
        Source("static", SourceKind.STATIC), path("10.0.0.1").attrs, gateway, b"", "reachableBy", -1, "", None
    )
    assert wanted(ways, {"10.244.9.9/32": static})["10.244.9.9/32"] == FibRoute(RouteKind.UNICAST, (ETH0,), 0)
    assert ways.explain(IPV4_UNICAST, static, parse_prefix("10.244.9.9/32")[1])[1] == "IPIP"
