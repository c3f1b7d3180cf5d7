"""UPDATEs: the answers of RFC 7606 and what must survive them. The vectors have the matrix; here is what they lack."""

from __future__ import annotations

import gc

import pytest

from bgpd.errors import BGPError
from bgpd.family import FAMILIES, IPV4_UNICAST, IPV6_UNICAST, Family, parse_prefix
from bgpd.wire.attributes import AttributeTable, PathAttributes, build_block, encode, encode_as_path, local_block
from bgpd.wire.build import AttributesTooLong, build_end_of_rib, build_reach, build_unreach
from bgpd.wire.rules import RULES, Action
from bgpd.wire.update import ParsedUpdate, UpdateContext, UpdateParser

NEXT_HOP = b"\x0a\0\0\x02"
NEXT_HOP_6 = b"\x20\x01\x0d\xb8" + bytes(11) + b"\x01"
KEY = parse_prefix("203.0.113.0/24")[1]
KEY_6 = parse_prefix("2001:db8::/32")[1]
PATH = encode_as_path(((2, (65001, 64512)),))
ORIGIN = encode(0x40, 1, b"\0")
AS_PATH = encode(0x40, 2, PATH)
HOP = encode(0x40, 3, NEXT_HOP)
BLOCK = ORIGIN + AS_PATH
MP_REACH = encode(0x80, 14, b"\0\2\1\x10" + NEXT_HOP_6 + b"\0" + KEY_6)
MP_UNREACH = encode(0x80, 15, b"\0\2\1" + KEY_6)


def parser(
    external: bool = True,
    *,
    families: tuple[Family, ...] = FAMILIES,
    add_path: tuple[Family, ...] = (),
    asn4: bool = True,
    allow_as_sets: bool = False,
    extended_next_hop: tuple[Family, ...] = (),
) -> UpdateParser:
    context = UpdateContext(
        external=external,
        asn4=asn4,
        families=frozenset(families),
        add_path=frozenset(add_path),
        extended_next_hop=frozenset(extended_next_hop),
        table=AttributeTable(),
        allow_as_sets=allow_as_sets,
    )
    return UpdateParser(context)


def body(attributes: bytes = b"", nlri: bytes = b"", withdrawn: bytes = b"") -> bytes:
    return len(withdrawn).to_bytes(2, "big") + withdrawn + len(attributes).to_bytes(2, "big") + attributes + nlri


def reach(update: ParsedUpdate) -> dict[Family, list[bytes]]:
    return {family: keys for family, _, keys in update.reach}


def unreach(update: ParsedUpdate) -> dict[Family, list[bytes]]:
    return {family: [k for f, keys in update.unreach if f == family for k in keys] for family, _ in update.unreach}


class TestShapes:
    def test_plain(self) -> None:
        update = parser().parse(body(BLOCK + HOP, KEY))
        ((family, attributes, keys),) = update.reach
        assert (family, keys, attributes.next_hop, attributes.block) == (IPV4_UNICAST, [KEY], NEXT_HOP, BLOCK)
        assert attributes.as_path == ((2, (65001, 64512)),) and attributes.neighbor_as == 65001

    @pytest.mark.parametrize("attributes", [MP_REACH + BLOCK, BLOCK + MP_REACH, ORIGIN + MP_REACH + AS_PATH])
    def test_multiprotocol_in_any_place(self, attributes: bytes) -> None:
        """RFC 7606 §5.1: senders put it first, receivers take it anywhere; the routes share their attributes."""
        subject = parser()
        first = subject.parse(body(MP_REACH + BLOCK)).reach
        assert subject.parse(body(attributes)).reach == first
        assert first[0][1].next_hop == NEXT_HOP_6 and first[0][1].block == BLOCK

    def test_both_families_in_one(self) -> None:
        update = parser().parse(body(MP_REACH + BLOCK + HOP, KEY))
        assert reach(update) == {IPV4_UNICAST: [KEY], IPV6_UNICAST: [KEY_6]}
        assert {attributes.next_hop for _, attributes, _ in update.reach} == {NEXT_HOP, NEXT_HOP_6}

    def test_announced_and_withdrawn_counts_as_announced(self) -> None:
        """RFC 4271 §4.3."""
        other = parse_prefix("198.51.100.0/24")[1]
        update = parser().parse(body(BLOCK + HOP, KEY, KEY + other))
        assert reach(update) == {IPV4_UNICAST: [KEY]} and unreach(update) == {IPV4_UNICAST: [other]}
        update = parser().parse(body(MP_UNREACH + MP_REACH + BLOCK))
        assert reach(update) == {IPV6_UNICAST: [KEY_6]} and not update.unreach

    @pytest.mark.parametrize("family", FAMILIES)
    def test_end_of_rib(self, family: Family) -> None:
        update = parser().parse(build_end_of_rib(family)[19:])
        assert update.end_of_rib == family and not update.reach and not update.unreach
        other = parser(families=tuple(f for f in FAMILIES if f != family)).parse(build_end_of_rib(family)[19:])
        assert other.end_of_rib is None

    def test_nothing_more_than_attributes_is_no_end_of_rib(self) -> None:
        assert parser().parse(body(BLOCK)).end_of_rib is None
        assert parser().parse(body(BLOCK + encode(0x80, 15, b"\0\2\1"))).end_of_rib is None

    def test_family_not_agreed_is_ignored(self) -> None:
        update = parser(families=(IPV6_UNICAST,)).parse(body(MP_REACH + BLOCK + HOP, KEY + b"\xff\xff"))
        assert reach(update) == {IPV6_UNICAST: [KEY_6]}
        assert [finding.action for finding in update.findings] == [Action.IGNORE]

    def test_extended_next_hop(self) -> None:
        """RFC 8950, only where agreed."""
        attributes = encode(0x80, 14, b"\0\1\1\x10" + NEXT_HOP_6 + b"\0" + KEY) + BLOCK
        update = parser(extended_next_hop=(IPV4_UNICAST,)).parse(body(attributes))
        assert reach(update) == {IPV4_UNICAST: [KEY]} and update.reach[0][1].next_hop == NEXT_HOP_6
        with pytest.raises(BGPError):
            parser().parse(body(attributes))

    def test_path_identifiers(self) -> None:
        subject = parser(add_path=(IPV4_UNICAST,))
        keys = [b"\0\0\0\1" + KEY, b"\0\0\0\2" + KEY]
        assert reach(subject.parse(body(BLOCK + HOP, b"".join(keys)))) == {IPV4_UNICAST: keys}
        assert reach(subject.parse(body(MP_REACH + BLOCK))) == {IPV6_UNICAST: [KEY_6]}

    def test_attributes_of_other_order_and_headers_are_the_same(self) -> None:
        """Extended Length where it is not needed, low flag bits, Partial on what is well-known: all cleared."""
        odd = b"\x50\x01\0\x01\0" + b"\x4f\x02" + AS_PATH[2:3] + PATH
        assert b"\x4f"[0] & 0x10 == 0
        update = parser().parse(body(odd + HOP, KEY))
        assert update.reach[0][1].block == BLOCK and not update.findings


class TestFaults:
    @pytest.mark.parametrize("place", range(4))
    def test_a_fault_hides_no_nlri(self, place: int) -> None:
        """A malformed attribute before or behind MP_REACH_NLRI: its prefixes are withdrawn all the same."""
        parts = [ORIGIN, AS_PATH, MP_REACH]
        parts.insert(place, encode(0x80, 4, b"\0\0\1"))
        update = parser().parse(body(b"".join(parts)))
        assert not update.reach and unreach(update) == {IPV6_UNICAST: [KEY_6]}

    def test_withdraw_takes_everything_announced(self) -> None:
        update = parser().parse(body(MP_REACH + ORIGIN + HOP, KEY))
        assert not update.reach and unreach(update) == {IPV4_UNICAST: [KEY], IPV6_UNICAST: [KEY_6]}
        assert [(finding.code, finding.rfc) for finding in update.findings] == [(2, "RFC 7606 §3 d")]

    def test_next_hop_is_not_borrowed(self) -> None:
        update = parser().parse(body(MP_REACH + BLOCK, KEY))
        assert not update.reach and set(unreach(update)) == set(FAMILIES)

    def test_nlri_without_attributes(self) -> None:
        update = parser().parse(body(b"", KEY))
        assert not update.reach and unreach(update) == {IPV4_UNICAST: [KEY]}

    def test_cut_block_still_finds_the_nlri(self) -> None:
        """RFC 7606 §4: Total Attribute Length holds."""
        for tail in (b"\x40", b"\xc0\x08", b"\xc0\x08\x40\0\0\0\1", b"\xd0\x08\x01"):
            update = parser().parse(body(BLOCK + HOP + tail, KEY))
            assert not update.reach and unreach(update) == {IPV4_UNICAST: [KEY]}

    @pytest.mark.parametrize(
        ("octets", "code"),
        [
            (b"\0\5\0\0", (3, 1)),
            (b"\0\0\0\5\0", (3, 1)),
            (body(MP_REACH + MP_REACH + BLOCK), (3, 1)),
            (body(MP_UNREACH + MP_UNREACH), (3, 1)),
            (body(BLOCK + MP_REACH[:-1]), (3, 1)),
            (body(BLOCK + encode(0x80, 14, b"\0\2\1\x0c" + bytes(13) + KEY_6)), (3, 1)),
            (body(BLOCK + encode(0x80, 14, b"\0\2\1\x10" + NEXT_HOP_6 + b"\0\x81")), (3, 9)),
            (body(encode(0x80, 15, b"\0\2")), (3, 1)),
            (body(encode(0x80, 15, b"\0\2\1\x40\x20")), (3, 9)),
            (body(BLOCK + HOP, b"\x21" + bytes(5)), (3, 10)),
            (body(BLOCK + HOP, b"\x18\x0a"), (3, 10)),
            (body(withdrawn=b"\x21" + bytes(5)), (3, 10)),
            (body(BLOCK + HOP + encode(0x40, 99, b"xyz"), KEY), (3, 2)),
            (body(ORIGIN + encode(0x40, 2, b"\x09")), (3, 1)),
            (body(MP_UNREACH + b"\x40"), (3, 1)),
        ],
    )
    def test_resets(self, octets: bytes, code: tuple[int, int]) -> None:
        with pytest.raises(BGPError) as caught:
            parser().parse(octets)
        assert (caught.value.code, caught.value.subcode) == code

    def test_unknown_well_known_attribute_is_named_in_the_data(self) -> None:
        octets = encode(0x40, 99, b"xyz")
        with pytest.raises(BGPError) as caught:
            parser().parse(body(BLOCK + HOP + octets, KEY))
        assert caught.value.data == octets

    def test_faulty_flags_of_mp_unreach_withdraw_what_it_withdraws(self) -> None:
        """RFC 7606 §5.2 lets one thing through: MP_UNREACH_NLRI alone."""
        update = parser().parse(body(encode(0xC0, 15, b"\0\2\1" + KEY_6)))
        assert unreach(update) == {IPV6_UNICAST: [KEY_6]}

    def test_discards_alone_need_no_nlri(self) -> None:
        assert parser().parse(body(BLOCK + encode(0x40, 6, b"x"))).findings[0].action == Action.DISCARD

    @pytest.mark.parametrize("external", [True, False])
    def test_what_only_internal_peers_may_send(self, external: bool) -> None:
        """RFC 7606 §7.5, §7.9, §7.10, on both roads."""
        internal = encode(0x40, 5, b"\0\0\0\x64") + encode(0x80, 9, NEXT_HOP) + encode(0x80, 10, NEXT_HOP)
        for more in (b"", encode(0xE0, 200, b"x")):
            for _ in range(2):
                update = parser(external).parse(body(BLOCK + HOP + internal + more, KEY))
                assert update.reach[0][1].block == BLOCK + (b"" if external else internal) + more
                assert [finding.code for finding in update.findings] == ([5, 9, 10] if external else [])

    def test_unknown_attributes(self) -> None:
        """RFC 4271 §5: optional transitive ones travel on with Partial, others end here."""
        update = parser().parse(body(BLOCK + HOP + encode(0xC0, 200, b"x" * 300) + encode(0x80, 201, b"y"), KEY))
        assert update.reach[0][1].items()[2:] == [(0xE0, 200, b"x" * 300)] and not update.findings

    @pytest.mark.parametrize("external", [True, False])
    @pytest.mark.parametrize("flags", [0xC0, 0xE0])
    @pytest.mark.parametrize("around", [b"", encode(0xC0, 8, b"\xc0\x20\x18\0"), encode(0xC0, 35, b"\xc0\x20\x18\x20")])
    def test_large_communities_that_come_again_are_removed(self, external: bool, flags: int, around: bytes) -> None:
        """RFC 8092 §3, on either road; what is there once stays in its order."""
        one, two, three = (b"\0\0\xfd\xe9" + bytes(7) + bytes((n,)) for n in (1, 2, 3))
        for came, kept in (
            ((two, one, two, three, one), (two, one, three)),
            ((one, one), (one,)),
            ((two, one), (two, one)),
        ):
            large = encode(flags, 32, b"".join(came))
            block = BLOCK + (around + large if around[1:2] == b"\x08" else large + around)
            for update in (
                parser(external).parse(body(block.replace(AS_PATH, AS_PATH + HOP), KEY)),
                parser(external).parse(body(MP_REACH + block)),
            ):
                ((_, attributes, _),) = update.reach
                assert attributes.get(32) == b"".join(kept) and not update.findings
                assert attributes.get(8) == (around[3:] if around[1:2] == b"\x08" else None)

    def test_as_sets(self) -> None:
        attributes = ORIGIN + encode(0x40, 2, encode_as_path(((2, (65001,)), (1, (7, 8))))) + HOP
        assert not parser().parse(body(attributes, KEY)).reach
        update = parser(allow_as_sets=True).parse(body(attributes, KEY))
        assert update.reach[0][1].as_path_length == 2
        # Beside no NLRI it is no reason for the reset of RFC 7606 §5.2.
        assert not parser().parse(body(attributes)).reach

    def test_what_is_malformed_behind_an_as_set_is_malformed(self) -> None:
        damaged = encode(0x40, 2, encode_as_path(((1, (7, 8)),)) + b"\x00\x01\0\0\0\x07")
        (finding,) = parser().parse(body(ORIGIN + damaged + HOP, KEY)).findings
        assert (finding.action, finding.reason) == (Action.WITHDRAW, "segment type 0")
        with pytest.raises(BGPError) as caught:
            parser().parse(body(ORIGIN + damaged + HOP))
        assert (caught.value.code, caught.value.subcode) == (3, 1)

    @pytest.mark.parametrize("hop", [bytes(4), b"\x7f\0\0\1", b"\xe0\0\0\1", b"\xff\xff\xff\xff", b"\xf0\0\0\1"])
    def test_next_hops_that_are_none(self, hop: bytes) -> None:
        update = parser().parse(body(BLOCK + encode(0x40, 3, hop), KEY))
        assert not update.reach and unreach(update) == {IPV4_UNICAST: [KEY]}

    @pytest.mark.parametrize("hop", [bytes(16), bytes(15) + b"\1"])
    def test_next_hops_that_are_none_ipv6(self, hop: bytes) -> None:
        update = parser().parse(body(encode(0x80, 14, b"\0\2\1\x10" + hop + b"\0" + KEY_6) + BLOCK))
        assert not update.reach and unreach(update) == {IPV6_UNICAST: [KEY_6]}

    def test_multicast_prefix_is_left_out(self) -> None:
        update = parser().parse(body(BLOCK + HOP, b"\x04\xe0" + KEY))
        assert reach(update) == {IPV4_UNICAST: [KEY]} and update.findings[0].action == Action.IGNORE
        update = parser().parse(body(BLOCK + HOP, b"\x08\xe0"))
        assert not update.reach and not update.unreach and update.end_of_rib is None

    def test_repeated_attributes_are_told_once(self) -> None:
        update = parser().parse(body(BLOCK + HOP + HOP * 50, KEY))
        assert len(update.findings) == 1 and update.reach[0][1].next_hop == NEXT_HOP


class TestOldSpeakers:
    """RFC 6793 §4.2.3, §6."""

    def parse(self, path: bytes, *more: bytes) -> ParsedUpdate:
        attributes = ORIGIN + encode(0x40, 2, path) + HOP + b"".join(more)
        return parser(asn4=False).parse(body(attributes, KEY))

    @pytest.mark.parametrize(
        ("path", "as4", "wanted"),
        [
            (((2, (65001, 23456, 64512)),), ((2, (196618, 64512)),), ((2, (65001, 196618, 64512)),)),
            (((2, (65001, 23456)),), ((2, (65001, 196618)),), ((2, (65001, 196618)),)),
            (((2, (65001,)),), ((2, (1, 2)),), ((2, (65001,)),)),
            (((2, (65001, 23456)),), ((3, (9,)), (2, (196618,))), ((2, (65001, 196618)),)),
            (((2, (1, 2)), (2, (3, 23456))), ((2, (196618,)),), ((2, (1, 2)), (2, (3,)), (2, (196618,)))),
        ],
    )
    def test_merge(self, path: object, as4: object, wanted: object) -> None:
        from bgpd.wire import aspath

        update = self.parse(aspath.encode(path, 2), encode(0xC0, 17, encode_as_path(as4)))  # type: ignore[arg-type]
        assert update.reach[0][1].as_path == wanted
        assert not {17, 18} & {code for _, code, _ in update.reach[0][1].items()}

    @pytest.mark.parametrize("as4", [b"\2\2\0\3", b"\2\0", b"\x09\1\0\0\0\1", b"\2\1\0\0\0\0", b"\3\1\0\3\0\x0a", b""])
    def test_malformed_as4_path_is_dropped(self, as4: bytes) -> None:
        update = self.parse(b"\2\2\xfd\xe9\x5b\xa0", encode(0xC0, 17, as4))
        assert update.reach[0][1].as_path == ((2, (65001, 23456)),)
        assert [finding.action for finding in update.findings] == [Action.DISCARD]

    def test_aggregators(self) -> None:
        trans, long = b"\x5b\xa0\x0a\0\0\1", b"\0\3\0\x0a\x0a\0\0\1"
        update = self.parse(b"\2\1\xfd\xe9", encode(0xC0, 7, trans), encode(0xC0, 18, long))
        assert update.reach[0][1].get(7) == long
        update = self.parse(b"\2\1\xfd\xe9", encode(0xC0, 7, b"\xfd\xe9\x0a\0\0\1"))
        assert update.reach[0][1].get(7) == b"\0\0\xfd\xe9\x0a\0\0\1"

    def test_new_aggregation_makes_the_long_ones_worthless(self) -> None:
        more = (
            encode(0xC0, 7, b"\xfd\xe9\x0a\0\0\1"),
            encode(0xC0, 17, b"\2\1\0\3\0\x0a"),
            encode(0xC0, 18, b"\0\3\0\x0a\x0a\0\0\1"),
        )
        update = self.parse(b"\2\2\xfd\xe9\x5b\xa0", *more)
        assert update.reach[0][1].as_path == ((2, (65001, 23456)),)
        assert update.reach[0][1].get(7) == b"\0\0\xfd\xe9\x0a\0\0\1"


class TestMemoAndTable:
    def test_memo_says_the_same(self) -> None:
        subject = parser()
        for attributes in (BLOCK + HOP, BLOCK + HOP + encode(0x80, 4, b"\1"), AS_PATH + ORIGIN + HOP):
            first, second = (subject.parse(body(attributes, KEY)) for _ in range(2))
            assert (first.reach, first.unreach, first.findings) == (second.reach, second.unreach, second.findings)

    def test_memo_is_bounded(self) -> None:
        subject = parser()
        for number in range(9000):
            subject.parse(body(BLOCK + HOP + encode(0x80, 4, number.to_bytes(4, "big")), KEY))
            subject.parse(body(MP_REACH + BLOCK + encode(0x80, 4, number.to_bytes(4, "big"))))
        assert len(subject._memo) <= 8192 and len(subject._mp_memo) <= 8192

    def test_equal_is_identical(self) -> None:
        table = AttributeTable()
        held = table.intern(IPV4_UNICAST, BLOCK, NEXT_HOP)
        assert table.intern(IPV4_UNICAST, bytes(bytearray(BLOCK)), NEXT_HOP) is held
        assert table.intern(IPV4_UNICAST, BLOCK, NEXT_HOP_6) is not held
        assert table.intern(IPV6_UNICAST, BLOCK, NEXT_HOP) is not held

    def test_a_sweep_in_slices_leaves_what_is_held_and_what_comes_meanwhile(self) -> None:
        table = AttributeTable()

        def made(number: int) -> PathAttributes:
            return table.intern(IPV4_UNICAST, local_block() + encode(0x80, 4, number.to_bytes(4, "big")), b"")

        held = {number: made(number) for number in range(20_000)}
        kept = {number: one for number, one in held.items() if number % 100 == 0}
        del held
        sweep = table.sweeping()
        assert next(sweep) == 8192
        kept[20_001] = made(20_001)
        assert sum(sweep) == 20_000 - 8192
        assert len(table._entries) == len(table) == len(kept)
        assert all(made(number) is one for number, one in kept.items())

    def test_table_forgets_what_nobody_holds(self) -> None:
        table = AttributeTable()
        held = [
            table.intern(IPV4_UNICAST, local_block() + encode(0x80, 4, n.to_bytes(4, "big")), b"") for n in range(10)
        ]
        for number in range(100_000):
            table.intern(IPV4_UNICAST, encode(0x80, 4, number.to_bytes(4, "big")), NEXT_HOP)
        gc.collect()
        assert len(table) == 10 and len(table._entries) <= 8192
        assert table.intern(IPV4_UNICAST, held[3].block, b"") is held[3]


class TestBuild:
    def test_attributes_that_leave_no_room(self) -> None:
        """RFC 4271 §9.2."""
        block = BLOCK + encode(0xE0, 200, bytes(4000))
        assert build_reach(IPV4_UNICAST, block, NEXT_HOP, [KEY])
        with pytest.raises(AttributesTooLong):
            build_reach(IPV4_UNICAST, block + encode(0xE0, 201, bytes(50)), NEXT_HOP, [KEY])
        assert build_reach(IPV4_UNICAST, block + encode(0xE0, 201, bytes(50)), NEXT_HOP, [KEY], 65535)

    def test_full_messages_are_full(self) -> None:
        keys = [bytes((24, 10, n >> 8, n & 255)) for n in range(3000)]
        messages = build_reach(IPV4_UNICAST, BLOCK, NEXT_HOP, keys)
        assert max(map(len, messages)) <= 4096 and len(messages) == 3
        assert build_unreach(IPV4_UNICAST, keys)[0].startswith(b"\xff" * 16)

    def test_next_hop_in_order(self) -> None:
        long = ORIGIN + encode(0x40, 2, encode_as_path(((2, tuple(range(1, 256))),))) + encode(0x80, 4, bytes(4))
        (message,) = build_reach(IPV4_UNICAST, long, NEXT_HOP, [KEY])
        ((_, attributes, _),) = parser().parse(message[19:]).reach
        assert attributes.block == long and message.index(HOP) == message.index(b"\x80\x04\x04") - len(HOP)

    def test_nothing_is_no_message(self) -> None:
        assert build_reach(IPV4_UNICAST, BLOCK, NEXT_HOP, []) == build_unreach(IPV6_UNICAST, []) == []


class TestTable:
    def test_every_row(self) -> None:
        for code, rule in RULES.items():
            assert rule.code == code and rule.name and rule.rfc.startswith("RFC ")
            assert rule.flags in (0x40, 0x80, 0xC0)
            external, internal = rule.malformed
            assert external in (Action.DISCARD, Action.WITHDRAW, Action.RESET) and external <= internal

    @pytest.mark.parametrize("code", sorted(set(RULES) - {3, 14, 15, 17, 18, 26, 29}))
    @pytest.mark.parametrize("external", [True, False])
    def test_flags_and_answers_come_from_the_row(self, code: int, external: bool) -> None:
        rule = RULES[code]
        rest = build_block(item for item in ((0x40, 1, b"\0"), (0x40, 2, PATH)) if item[1] != code)
        wrong = encode(rule.flags ^ 0x80, code, b"\0" * 7)
        update = parser(external).parse(body(rest + HOP + wrong, KEY))
        assert max(finding.action for finding in update.findings) == rule.flags_action
        assert bool(update.reach) == (rule.flags_action < Action.WITHDRAW)
        update = parser(external).parse(body(rest + HOP + encode(rule.flags, code, b"\x01\0\xff"), KEY))
        answer = rule.malformed[0 if external else 1]
        assert [finding.action for finding in update.findings] == [answer]
        assert bool(update.reach) == (answer < Action.WITHDRAW)
