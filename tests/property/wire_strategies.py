"""Hypothesis strategies for well-formed BGP values, and for messages with something wrong in them."""

from __future__ import annotations

from hypothesis import strategies as st

from bgpd.family import FAMILIES, IPV4_UNICAST, Family
from bgpd.wire import capabilities as c
from bgpd.wire.attributes import Item, build_block, encode_as_path
from bgpd.wire.open import Open

u32 = st.integers(0, 0xFFFFFFFF)
asns = st.one_of(st.integers(1, 0xFFFF), st.integers(1, 0xFFFFFFFF))
families = st.sampled_from(FAMILIES)
any_families = st.builds(Family, st.integers(0, 0xFFFF), st.integers(0, 255))


@st.composite
def keys(draw: st.DrawFn, family: Family) -> bytes:
    """A canonical NLRI key, no IPv4 multicast."""
    length = draw(st.integers(0, family.bits))
    octets = (length + 7) // 8
    address = draw(st.integers(0, (1 << length) - 1)) << (8 * octets - length) if length else 0
    body = bytearray(address.to_bytes(octets, "big"))
    if family == IPV4_UNICAST and length >= 4 and 0xE0 <= body[0] < 0xF0:
        body[0] &= 0x7F
    return bytes((length,)) + bytes(body)


def add_path_keys(family: Family) -> st.SearchStrategy[bytes]:
    """Path identifier and key."""
    return st.builds(lambda path_id, key: path_id + key, st.binary(min_size=4, max_size=4), keys(family))


def next_hops(family: Family) -> st.SearchStrategy[bytes]:
    """Addresses that a host can have."""
    if family == IPV4_UNICAST:
        return st.builds(
            lambda first, rest: bytes((first,)) + rest, st.integers(1, 126), st.binary(min_size=3, max_size=3)
        )
    one = st.binary(min_size=13, max_size=13).map(lambda rest: b"\x20\x01\x0d" + rest)
    both = st.builds(lambda a, b: a + b"\xfe\x80" + bytes(6) + b, one, st.binary(min_size=8, max_size=8))
    return st.one_of(one, both)


segments = st.tuples(st.just(2), st.lists(asns, min_size=1, max_size=12).map(tuple))
as_paths = st.one_of(st.just(()), st.lists(segments, min_size=1, max_size=3).map(tuple))
long_paths = st.lists(asns, min_size=200, max_size=255).map(lambda path: ((2, tuple(path)),))


def _multiple(size: int, most: int) -> st.SearchStrategy[bytes]:
    return st.integers(1, most).flatmap(lambda count: st.binary(min_size=count * size, max_size=count * size))


def _four() -> st.SearchStrategy[bytes]:
    return st.binary(min_size=4, max_size=4)


def _optional(flags: int, code: int, value: st.SearchStrategy[bytes]) -> st.SearchStrategy[list[Item]]:
    return st.one_of(st.just([]), value.map(lambda octets: [(flags, code, octets)]))


_aggregators = st.builds(lambda asn, address: asn.to_bytes(4, "big") + address, asns, _four())
_unknown = st.builds(
    lambda code, value: [(0xE0, code, value)],
    st.sampled_from((11, 28, 99, 128, 200, 255)),
    st.binary(max_size=600),
)


# None of them twice (RFC 8092 §3).
_large_communities = st.lists(st.binary(min_size=12, max_size=12), min_size=1, max_size=5, unique=True).map(b"".join)


@st.composite
def items(draw: st.DrawFn, external: bool) -> list[Item]:
    """Attributes of a canonical block, in type order, unknown ones last."""
    found: list[Item] = [(0x40, 1, bytes((draw(st.integers(0, 2)),)))]
    found.append((0x40, 2, encode_as_path(draw(st.one_of(as_paths, long_paths)))))
    found += draw(_optional(0x80, 4, _four()))
    if not external:
        found += draw(_optional(0x40, 5, _four()))
    found += draw(_optional(0x40, 6, st.just(b"")))
    found += draw(_optional(draw(st.sampled_from((0xC0, 0xE0))), 7, _aggregators))
    found += draw(_optional(draw(st.sampled_from((0xC0, 0xE0))), 8, _multiple(4, 90)))
    if not external:
        found += draw(_optional(0x80, 9, _four()))
        found += draw(_optional(0x80, 10, _multiple(4, 8)))
    found += draw(_optional(0xC0, 16, _multiple(8, 5)))
    found += draw(_optional(0xC0, 32, _large_communities))
    found += draw(_optional(0xC0, 35, _four()))
    found += draw(st.one_of(st.just([]), _unknown))
    return found


def blocks(external: bool) -> st.SearchStrategy[bytes]:
    """Canonical attribute blocks."""
    return items(external).map(build_block)


_family_flags = st.lists(st.tuples(any_families, st.booleans()), max_size=4).map(tuple)
known_capabilities = st.one_of(
    st.builds(c.MultiProtocol, any_families),
    st.just(c.RouteRefreshCapability()),
    st.just(c.EnhancedRouteRefresh()),
    st.just(c.ExtendedMessageCapability()),
    st.builds(c.GracefulRestartCapability, st.booleans(), st.booleans(), st.integers(0, 4095), _family_flags),
    st.builds(c.AddPathCapability, st.lists(st.tuples(any_families, st.integers(1, 3)), max_size=4).map(tuple)),
    st.builds(
        c.ExtendedNextHopCapability, st.lists(st.tuples(any_families, st.integers(0, 0xFFFF)), max_size=4).map(tuple)
    ),
    st.builds(
        c.LongLivedGracefulRestartCapability,
        st.lists(st.tuples(any_families, st.booleans(), st.integers(0, 0xFFFFFF)), max_size=4).map(tuple),
    ),
    st.builds(c.UnknownCapability, st.sampled_from((4, 66, 75, 128, 239)), st.binary(max_size=255)),
)


@st.composite
def opens(draw: st.DrawFn) -> Open:
    """OPENs that any speaker may send; sometimes with more than 255 octets of parameters."""
    asn = draw(asns)
    return Open(
        asn=asn if asn <= 0xFFFF else 23456,
        hold_time=draw(st.one_of(st.just(0), st.integers(3, 0xFFFF))),
        router_id=draw(st.binary(min_size=4, max_size=4).filter(any)),
        capabilities=(*draw(st.lists(known_capabilities, max_size=8)), c.FourOctetAs(asn)),
    )
