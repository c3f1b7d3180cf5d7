"""A client's attributes as a reflector passes them on (RFC 4456 §8): the short way gives what the long one does."""

from __future__ import annotations

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from bgpd.family import IPV4_UNICAST, IPV6_UNICAST, Family
from bgpd.policy.chain import Leaf
from bgpd.policy.terms import ACCEPT_ALL, SourceKind, Term, Verdict
from bgpd.rib.export import Exporter, GroupKey
from bgpd.rib.nexthop import NextHopTable
from bgpd.rib.path import Path, Source
from bgpd.settings import NextHopMode
from bgpd.wire import attributes as wire
from bgpd.wire.build import build_reach
from bgpd.wire.usual import REFLECTABLE

CLUSTER, ROUTER = bytes((9, 9, 9, 9)), bytes((7, 7, 7, 7))
LONG_WAY = (Term("look", Verdict.NEXT), *ACCEPT_ALL)
HEAD = b"\x40\x01\x01\0"
PATH = b"\x40\x02\x06\x02\x01\0\0\xfd\xe9"
PREF = b"\x40\x05\x04\0\0\0\x64"


def attribute(code: int, value: bytes) -> bytes:
    return wire.encode_known(code, value)


def exporter(
    chain: tuple[Term, ...],
    target: SourceKind = SourceKind.IBGP_CLIENT,
    add_path: bool = False,
    family: Family = IPV4_UNICAST,
) -> Exporter:
    keep, own = NextHopMode.KEEP, b"\x0a\0\0\x09"
    return Exporter(GroupKey(family, target, 64512, chain, keep, own, CLUSTER, True, add_path, 4096, False))


def path_of(block: bytes, kind: SourceKind, family: Family = IPV4_UNICAST, hop: bytes = b"\x0a\0\0\1") -> Path:
    source = Source("c", kind, b"\x0a\0\0\1", 64512)
    source.router_id = ROUTER
    attrs = wire.AttributeTable().intern(family, block, hop)
    return Path(source, 0, 0, attrs, attrs, NextHopTable(False).get(hop), b"\0\0\0\1", 100)


def told(chain: tuple[Term, ...], block: bytes, kind: SourceKind, target: SourceKind) -> tuple[bytes, bytes] | str:
    """(attributes, next hop), or why it is not passed on."""
    path, made = path_of(block, kind), exporter(chain, target)
    leaf = made.node(path)
    assert isinstance(leaf, Leaf)
    if not leaf.accepted:
        return leaf.label
    out = made.outgoing(leaf, path)
    return out.block, out.next_hop


optional = [
    attribute(4, b"\0\0\0\7"),
    PREF,
    attribute(6, b""),
    attribute(7, b"\0\0\xfd\xe9\x0a\0\0\1"),
    attribute(8, b"\0\1\0\2\xff\xff\xff\1"),
    attribute(8, b"\0\1\0\2" * 3),
    attribute(9, b"\1\1\1\1"),
    attribute(10, b"\2\2\2\2\3\3\3\3"),
    attribute(16, bytes(8)),
    attribute(32, bytes(12)),
    b"\xc0\xf0\x02ab",
]


def block_of(first: bytes, others: list[bytes], in_order: bool) -> bytes:
    codes = {other[1]: other for other in others}
    return HEAD + first + b"".join([codes[code] for code in sorted(codes)] if in_order else others)


blocks = st.builds(
    block_of,
    st.sampled_from([PATH, b"\x40\x02\0", b"\x50\x02\0\x06\x02\x01\0\0\xfd\xe9"]),
    st.lists(st.sampled_from(optional), max_size=6, unique=True),
    st.booleans(),
)
kinds = st.sampled_from([SourceKind.IBGP_CLIENT, SourceKind.IBGP, SourceKind.EBGP])


@given(blocks, kinds, st.sampled_from([SourceKind.IBGP_CLIENT, SourceKind.IBGP, SourceKind.EBGP]))
def test_the_short_way_gives_what_the_long_one_does(block: bytes, kind: SourceKind, target: SourceKind) -> None:
    assert told(ACCEPT_ALL, block, kind, target) == told(LONG_WAY, block, kind, target)


@given(
    blocks,
    kinds,
    st.sampled_from([SourceKind.IBGP_CLIENT, SourceKind.IBGP]),
    st.one_of(st.integers(1, 800), st.integers(800, 2500)),
    st.booleans(),
    st.booleans(),
)
def test_messages_made_in_one_go_are_the_same_messages(
    block: bytes, kind: SourceKind, target: SourceKind, count: int, add_path: bool, mixed: bool
) -> None:
    keys = [b"\x20" + number.to_bytes(4, "big") for number in range(count)]
    keys = [b"\x18" + key[2:] if mixed and number % 3 else key for number, key in enumerate(keys)]
    path, made = path_of(block, kind), exporter(ACCEPT_ALL, target, add_path)
    units = [path.send_id + key for key in keys] if add_path else keys
    messages = made.messages(path, keys)
    leaf = made.node(path)
    assert isinstance(leaf, Leaf)
    if messages is not None:
        assert leaf.accepted
        out = made.outgoing(leaf, path)
        assert build_reach(IPV4_UNICAST, out.block, out.next_hop, units) == messages
    reflected = kind is SourceKind.IBGP_CLIENT or (kind, target) == (SourceKind.IBGP, SourceKind.IBGP_CLIENT)
    usual = reflected and REFLECTABLE(block) is not None and b"\xff\xff\xff" not in block
    assert (messages is not None) == (usual and leaf.accepted)


@given(
    blocks,
    kinds,
    st.sampled_from([b"\xfd" * 16, b"\xfd" * 16 + b"\xfe\x80" + bytes(14), b"\x0a\0\0\1"]),
    st.one_of(st.integers(1, 20), st.integers(210, 260), st.integers(261, 600)),
    st.booleans(),
)
def test_so_are_ipv6_ones(block: bytes, kind: SourceKind, hop: bytes, count: int, add_path: bool) -> None:
    family, target = IPV6_UNICAST, SourceKind.IBGP_CLIENT
    keys = [b"\x7a\x20\1\x0d\xb8" + number.to_bytes(12, "big") for number in range(count)]
    path, made = path_of(block, kind, family, hop), exporter(ACCEPT_ALL, target, add_path, family)
    messages = made.messages(path, keys)
    leaf = made.node(path)
    assert isinstance(leaf, Leaf)
    if messages is not None:
        assert leaf.accepted
        out, path_id = made.outgoing(leaf, path), path.send_id if add_path else b""
        assert build_reach(family, out.block, out.next_hop, keys, path_id=path_id) == messages
    reflected = kind in (SourceKind.IBGP_CLIENT, SourceKind.IBGP) and REFLECTABLE(block) is not None
    assert (messages is not None) == (reflected and b"\xff\xff\xff" not in block and len(hop) != 4 and leaf.accepted)


def test_attributes_that_leave_no_room_are_left_to_the_long_way() -> None:
    block = HEAD + PATH + PREF + b"".join(attribute(8, bytes(252)) for _ in range(1))
    path, short = path_of(block, SourceKind.IBGP_CLIENT), exporter(ACCEPT_ALL)
    short.key = evolve(short.key, max_length=len(block) + 48)
    assert short.messages(path, [b"\x20\1\2\3\4"]) is None
    short.key = evolve(short.key, max_length=len(block) + 49)
    assert short.messages(path, [b"\x20\1\2\3\4"]) is not None


@pytest.mark.parametrize("end", [b"", attribute(16, bytes(8)), attribute(32, bytes(12))], ids=["none", "16", "32"])
def test_our_attributes_come_in_their_order(end: bytes) -> None:
    block = HEAD + PATH + attribute(4, b"\0\0\0\7") + PREF + attribute(8, bytes(4))
    assert REFLECTABLE(block + end)
    found = told(ACCEPT_ALL, block + end, SourceKind.IBGP_CLIENT, SourceKind.IBGP_CLIENT)
    assert found == (block + attribute(9, ROUTER) + attribute(10, CLUSTER) + end, b"\x0a\0\0\1")


def test_an_originator_stays_and_our_cluster_id_comes_first() -> None:
    block = HEAD + PATH + PREF + attribute(9, b"\1\1\1\1") + attribute(10, b"\2\2\2\2")
    assert not REFLECTABLE(block)
    found = told(ACCEPT_ALL, block, SourceKind.IBGP_CLIENT, SourceKind.IBGP)
    want = HEAD + PATH + PREF + attribute(9, b"\1\1\1\1") + attribute(10, CLUSTER + b"\2\2\2\2")
    assert found == (want, b"\x0a\0\0\1")


def test_a_missing_local_pref_is_written_and_no_advertise_stays_here() -> None:
    found = told(ACCEPT_ALL, HEAD + PATH, SourceKind.IBGP_CLIENT, SourceKind.IBGP_CLIENT)
    assert found == (HEAD + PATH + PREF + attribute(9, ROUTER) + attribute(10, CLUSTER), b"\x0a\0\0\1")
    hidden = HEAD + PATH + PREF + attribute(8, b"\xff\xff\xff\2")
    assert told(ACCEPT_ALL, hidden, SourceKind.IBGP_CLIENT, SourceKind.IBGP) == "community NO_ADVERTISE"


def test_non_transitive_extended_communities_stay_in_the_as() -> None:
    """RFC 4360 §6, RFC 5701 §2."""
    here, beyond = b"\x40\x04\xfd\xe9" + bytes(4), b"\0\x02\xfd\xe9" + bytes(4)
    here6, beyond6 = b"\x40\x0b" + bytes(18), b"\0\x0b" + bytes(18)
    both = HEAD + PATH + attribute(16, here + beyond + here) + attribute(25, here6 + beyond6)
    alone = HEAD + PATH + attribute(16, here) + attribute(25, here6)

    def sent(block: bytes, target: SourceKind) -> dict[int, bytes]:
        outgoing = {told(chain, block, SourceKind.EBGP, target) for chain in (ACCEPT_ALL, LONG_WAY)}
        ((octets, _),) = (one for one in outgoing if not isinstance(one, str))
        return {code: value for _, code, value in wire.walk(octets)}

    abroad = sent(both, SourceKind.EBGP)
    assert (abroad[16], abroad[25]) == (beyond, beyond6)
    assert not sent(alone, SourceKind.EBGP).keys() & {16, 25}
    at_home = sent(both, SourceKind.IBGP)
    assert (at_home[16], at_home[25]) == (here + beyond + here, here6 + beyond6)


def test_what_was_told_before_is_told_again_only_while_it_is_true() -> None:
    path, made = path_of(HEAD + PATH + PREF, SourceKind.IBGP_CLIENT), exporter(ACCEPT_ALL)
    keys = [b"\x20\x0a\0\0" + bytes((number,)) for number in range(4)]
    first = made.messages_again(path, keys)
    assert first == made.messages(path, keys) and made.messages_again(path, list(keys)) is first
    assert made.messages_again(path, keys[:2]) == made.messages(path, keys[:2]) != first
    path.source.router_id = bytes((8, 8, 8, 8))
    other = made.messages_again(path, keys[:2])
    assert other == made.messages(path, keys[:2]) and attribute(9, bytes((8, 8, 8, 8))) in b"".join(other or ())
    path.source.become(SourceKind.EBGP)
    assert made.messages_again(path, keys[:2]) is None
    path.source.become(SourceKind.IBGP_CLIENT)
    again = made.messages_again(path, keys[:2])
    made.forget()
    assert again == made.messages_again(path, keys[:2]) is not again
