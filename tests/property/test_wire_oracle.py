"""Our codec beside ExaBGP's, on valid messages."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bgpd.family import FAMILIES, Family, format_prefix
from bgpd.wire.attributes import AttributeTable, encode
from bgpd.wire.build import build_reach, build_unreach
from bgpd.wire.capabilities import Capability, FourOctetAs, MultiProtocol, RouteRefreshCapability
from bgpd.wire.open import Open, build_open
from bgpd.wire.update import UpdateContext, UpdateParser
from tests.property import wire_strategies as wire

oracle = pytest.importorskip("tests.oracle_exabgp", reason="exabgp 5.0.15 is not installed (make venv brings it)")

_NAMES = {(1, 1): "ipv4 unicast", (2, 1): "ipv6 unicast"}
_ANY_ORDER = {8: 4, 16: 8, 32: 12}
"""Lists that ExaBGP sorts, and the size of an item."""


def _route(family: Family, key: bytes, add_path: bool) -> tuple[str, int, str]:
    path_id = int.from_bytes(key[:4], "big") if add_path else 0
    return _NAMES[family], path_id, format_prefix(family, key[4:] if add_path else key)


def _comparable(code: int, octets: bytes) -> object:
    """Value only: ExaBGP and we differ in flags where Partial was set on the way."""
    value = octets[4 if octets[0] & 0x10 else 3 :]
    size = _ANY_ORDER.get(code)
    if size is None:
        return value
    found = {value[i : i + size] for i in range(0, len(value), size)}
    return sorted(item for item in found if code != 16 or not _mac_mobility(item))


def _mac_mobility(item: bytes) -> bool:
    """Of this extended community (RFC 7432 §7.7) ExaBGP keeps no reserved bits, and takes others for it."""
    return item[0] & 0x0F == 6 and item[1] == 0


@settings(max_examples=150, deadline=None)
@given(st.data(), wire.families, st.booleans(), st.booleans())
def test_both_read_an_update_alike(data: st.DataObject, family: Family, external: bool, add_path: bool) -> None:
    items = [item for item in data.draw(wire.items(external)) if item[1] in (1, 2, 4, 5, 6, 7, 8, 9, 10, 16, 32)]
    block = b"".join(encode(*item) for item in items)
    hop = data.draw(wire.next_hops(family))[:16]  # it makes two routes of one with two next hops
    strategy = wire.add_path_keys(family) if add_path else wire.keys(family)
    keys = data.draw(st.lists(strategy, min_size=1, max_size=10))
    theirs = oracle.Oracle(external, add_path)
    (message,) = build_reach(family, block, hop, keys)
    read = theirs.read_update(message[19:])
    wanted = {(*_route(family, key, add_path), str(ip_address(hop))) for key in keys}
    assert read.announced == wanted and not read.withdrawn
    for _, code, value in items:
        if code == 2 and not value:
            continue  # ExaBGP drops an empty AS_PATH
        if code == 2 and value.count(b"\x02") and len(value) > 2 + 4 * value[1]:
            continue  # it joins neighbouring sequences
        assert _comparable(code, read.attributes[code]) == _comparable(code, encode(0xC0, code, value))


@settings(max_examples=100, deadline=None)
@given(st.data(), wire.families, st.booleans())
def test_we_read_what_it_writes(data: st.DataObject, family: Family, add_path: bool) -> None:
    keys = data.draw(st.lists(wire.add_path_keys(family) if add_path else wire.keys(family), min_size=1, max_size=10))
    hop = data.draw(wire.next_hops(family))[:16]
    block = b"".join(encode(*item) for item in data.draw(wire.items(False)) if item[1] in (1, 2, 4, 5, 8, 9, 10))
    table = AttributeTable()
    families = frozenset(FAMILIES)
    context = UpdateContext(False, True, families, families if add_path else frozenset(), frozenset(), table)
    parser = UpdateParser(context)
    (message,) = build_reach(family, block, hop, keys)
    theirs = oracle.Oracle(False, add_path).read_update(message[19:]).messages
    updates = [parser.parse(octets[19:]) for octets in theirs]
    assert not any(update.findings for update in updates)
    found = [
        (attributes, update.path_id + key) for update in updates for _, attributes, some in update.reach for key in some
    ]
    assert {key for _, key in found} == set(keys)
    original = table.intern(family, block, hop)
    for attributes in {attributes for attributes, _ in found}:
        assert attributes.next_hop == hop
        assert (attributes.origin, attributes.med, attributes.local_pref, attributes.as_path_length) == (
            original.origin,
            original.med,
            100 if original.local_pref is None else original.local_pref,  # it adds what it thinks is missing
            original.as_path_length,
        )
        assert set(attributes.communities) == set(original.communities)
        assert attributes.cluster_list == original.cluster_list


@settings(max_examples=60, deadline=None)
@given(st.data(), wire.families)
def test_withdrawals(data: st.DataObject, family: Family) -> None:
    keys = data.draw(st.lists(wire.keys(family), min_size=1, max_size=10))
    (message,) = build_unreach(family, keys)
    read = oracle.Oracle(True, False).read_update(message[19:])
    assert read.withdrawn == {_route(family, key, False) for key in keys} and not read.announced


@settings(max_examples=60, deadline=None)
@given(wire.asns, st.one_of(st.just(0), st.integers(3, 0xFFFF)), st.binary(min_size=4, max_size=4).filter(any))
def test_open(asn: int, hold_time: int, router_id: bytes) -> None:
    families = [MultiProtocol(family) for family in FAMILIES]
    field = asn if asn <= 0xFFFF else 23456
    capabilities: tuple[Capability, ...] = (*families, RouteRefreshCapability(), FourOctetAs(asn))
    message = build_open(Open(field, hold_time, router_id, capabilities))
    assert oracle.read_open(message[19:]) == (field, hold_time, str(ip_address(router_id)), {1, 2, 65})
