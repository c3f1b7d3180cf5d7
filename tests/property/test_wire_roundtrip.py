"""What is built reads back as it was, and whatever is read, only BGPError leaves the codec."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from bgpd.errors import BGPError
from bgpd.family import FAMILIES, IPV4_UNICAST, Family
from bgpd.wire import aspath, nlri
from bgpd.wire.attributes import AttributeTable, build_block, rebuild, to_two_octet, walk
from bgpd.wire.build import AttributesTooLong, build_end_of_rib, build_reach, build_unreach
from bgpd.wire.examine import examine
from bgpd.wire.framing import Framer, MessageType, build_message
from bgpd.wire.notification import (
    Notification,
    build_shutdown_data,
    parse_notification,
    shutdown_text,
    unwrap_hard_reset,
    wrap_hard_reset,
)
from bgpd.wire.open import Open, build_open, parse_open
from bgpd.wire.reader import FamilyReader
from bgpd.wire.refresh import RouteRefresh, build_refresh, parse_refresh
from bgpd.wire.rules import RULES, Session
from bgpd.wire.update import UpdateContext, UpdateParser
from tests.property import wire_strategies as wire

octets = st.binary(max_size=200)
relaxed = settings(deadline=None)


def parser(
    external: bool = True, add_path: bool = False, table: AttributeTable | None = None, asn4: bool = True
) -> UpdateParser:
    families = frozenset(FAMILIES)
    return UpdateParser(
        UpdateContext(
            external=external,
            asn4=asn4,
            families=families,
            add_path=families if add_path else frozenset(),
            extended_next_hop=frozenset((IPV4_UNICAST,)),
            table=AttributeTable() if table is None else table,
        )
    )


def body_of(message: bytes) -> bytes:
    """Through the framer, so that its length and marker are proved too."""
    ((kind, body),) = Framer(65535).feed(message)
    assert kind in tuple(MessageType)
    return body


@relaxed
@given(wire.opens())
def test_open(message: Open) -> None:
    assert parse_open(body_of(build_open(message))) == message


@relaxed
@given(st.integers(0, 255), st.integers(0, 255), octets)
def test_notification(code: int, subcode: int, data: bytes) -> None:
    notification = Notification(code, subcode, data)
    assert parse_notification(body_of(notification.build())) == notification
    assert unwrap_hard_reset(wrap_hard_reset(notification)) == notification
    assert str(notification).isprintable()


@relaxed
@given(st.text(max_size=300))
def test_shutdown_text(text: str) -> None:
    data = build_shutdown_data(text)
    assert len(data) <= 256
    said = shutdown_text(data)
    cut = text.encode("utf-8", "replace")[:255].decode("utf-8", "ignore")
    assert (said or "") == "".join(c if c.isprintable() else ascii(c)[1:-1] for c in cut)


@relaxed
@given(wire.any_families, st.integers(0, 2))
def test_refresh(family: Family, subtype: int) -> None:
    refresh = RouteRefresh(family, subtype)
    assert parse_refresh(body_of(build_refresh(refresh))) == refresh


@relaxed
@given(st.data(), wire.families, st.booleans())
def test_nlri(data: st.DataObject, family: Family, add_path: bool) -> None:
    strategy = wire.add_path_keys(family) if add_path else wire.keys(family)
    keys = data.draw(st.lists(strategy, max_size=20))
    field = b"".join(keys)
    read = nlri.split_add_path(field, family) if add_path else nlri.split(field, family)
    assert read == keys == nlri.split_carefully(field, family, add_path)


@relaxed
@given(st.data(), wire.families)
def test_dirty_nlri_become_canonical(data: st.DataObject, family: Family) -> None:
    keys = data.draw(st.lists(wire.keys(family), min_size=1, max_size=8))
    dirt = data.draw(st.integers(0, 255))
    dirty = [key[:-1] + bytes((key[-1] | dirt & (1 << -key[0] % 8) - 1,)) if key[0] else key for key in keys]
    assert nlri.split(b"".join(dirty), family) == keys


@relaxed
@given(octets, wire.families, st.booleans())
def test_pattern_and_loop_agree_on_anything(field: bytes, family: Family, add_path: bool) -> None:
    """What the bulk pattern takes for a clean field, the loop reads alike."""
    keys = nlri.finder(family, add_path)(field)
    if b"".join(keys) == field:
        assert nlri.split_carefully(field, family, add_path) == keys


@relaxed
@given(st.data(), wire.families, st.booleans())
def test_a_path_id_that_all_have_is_read_once(data: st.DataObject, family: Family, damaged: bool) -> None:
    """One path id or several, clean or not: what is read together is what the loop reads."""
    ids = data.draw(st.lists(st.sampled_from([b"\0\0\0\1", b"\x18\x0a\0\0", b"\xff" * 4]), min_size=1, max_size=2))
    keys = data.draw(st.lists(wire.keys(family), min_size=1, max_size=12))
    units = [data.draw(st.sampled_from(ids)) + key for key in keys]
    field = b"".join(units)
    if damaged:
        at = data.draw(st.integers(0, len(field) - 1))
        field = field[:at] + data.draw(st.binary(max_size=3)) + field[at + data.draw(st.integers(0, 3)) :]
    found = FamilyReader(family, True, False).read(field) if field else None
    if found is not None:
        path_id, read = found
        assert [path_id + key for key in read] == nlri.split_carefully(field, family, True)
    if not damaged:
        assert found == ((units[0][:4], keys) if len({unit[:4] for unit in units}) == 1 else (b"", units))


@relaxed
@given(st.data(), wire.families, st.booleans(), st.booleans())
def test_reach(data: st.DataObject, family: Family, external: bool, add_path: bool) -> None:
    block = data.draw(wire.blocks(external))
    next_hop = data.draw(wire.next_hops(family))
    strategy = wire.add_path_keys(family) if add_path else wire.keys(family)
    keys = data.draw(st.lists(strategy, min_size=1, max_size=30))
    table = AttributeTable()
    read = parser(external, add_path, table)
    messages = build_reach(family, block, next_hop, keys, 65535)
    again: list[bytes] = []
    for message in messages:
        for _ in range(2):  # from the octets, then from the memo
            update = read.parse(body_of(message))
            assert not update.unreach and not update.findings and not update.end_of_rib
            ((found, attributes, some),) = update.reach
        again += [update.path_id + key for key in some]
        assert found == family
        assert attributes is table.intern(family, block, next_hop)
    assert again == keys


@relaxed
@given(st.data(), wire.families, st.booleans())
def test_reach_keeps_to_the_length(data: st.DataObject, family: Family, add_path: bool) -> None:
    block = data.draw(wire.blocks(False))
    strategy = wire.add_path_keys(family) if add_path else wire.keys(family)
    keys = data.draw(st.lists(strategy, min_size=1, max_size=60))
    limit = data.draw(st.integers(200, 1200))
    try:
        messages = build_reach(family, block, data.draw(wire.next_hops(family)), keys, limit)
    except AttributesTooLong:
        assert len(block) + 23 + 60 > limit - 21
        return
    assert all(len(message) <= limit for message in messages)
    updates = [parser(False, add_path).parse(message[19:]) for message in messages]
    assert [update.path_id + key for update in updates for _, _, some in update.reach for key in some] == keys


@relaxed
@given(st.data(), wire.families, st.integers(100, 4096), st.binary(min_size=4, max_size=4))
def test_a_path_id_before_each_key_is_the_same_as_in_each_key(
    data: st.DataObject, family: Family, limit: int, path_id: bytes
) -> None:
    keys = data.draw(st.lists(wire.keys(family), max_size=60))
    units = [path_id + key for key in keys]
    hop = data.draw(wire.next_hops(family))
    assert build_unreach(family, keys, limit, path_id) == build_unreach(family, units, limit)
    assert build_reach(family, b"", hop, keys, limit, path_id) == build_reach(family, b"", hop, units, limit)


@relaxed
@given(st.data(), wire.families, st.booleans())
def test_unreach(data: st.DataObject, family: Family, add_path: bool) -> None:
    strategy = wire.add_path_keys(family) if add_path else wire.keys(family)
    keys = data.draw(st.lists(strategy, min_size=1, max_size=300))
    messages = build_unreach(family, keys, 400)
    assert all(len(message) <= 400 for message in messages)
    updates = [parser(add_path=add_path).parse(body_of(message)) for message in messages]
    assert [update.path_id + key for update in updates for _, some in update.unreach for key in some] == keys
    assert not any(update.reach or update.findings for update in updates)


@relaxed
@given(wire.families)
def test_end_of_rib(family: Family) -> None:
    update = parser().parse(body_of(build_end_of_rib(family)))
    assert update.end_of_rib == family and not update.reach and not update.unreach


@relaxed
@given(wire.items(False), st.data())
def test_what_decides_is_found_wherever_it_stands(items: list[tuple[int, int, bytes]], data: st.DataObject) -> None:
    """The quick looks at the usual places say what a walk says, in whatever order attributes come."""
    items = data.draw(st.one_of(st.just(items), st.permutations(items)))
    attributes = AttributeTable().intern(IPV4_UNICAST, build_block(items), b"\x0a\0\0\1")
    values = {code: value for _, code, value in items}
    numbers = {code: int.from_bytes(values[code], "big") if code in values else None for code in (4, 5)}
    assert attributes.local_pref == numbers[5]
    path = values[2]
    assert attributes.facts() == (
        values[1][0],
        aspath.length(path),
        aspath.neighbor_as(path),
        numbers[4],
        numbers[5],
        values.get(9),
        len(values.get(10, b"")) // 4,
    )
    assert attributes.local_pref == numbers[5]


@relaxed
@given(wire.items(False), st.data())
def test_rebuild(items: list[tuple[int, int, bytes]], data: st.DataObject) -> None:
    block = build_block(items)
    assert list(walk(block)) == items and rebuild(block, {}) == block
    codes = [code for _, code, _ in items if code in (4, 5, 8, 32)]
    removed = dict.fromkeys(codes)
    assert list(walk(rebuild(block, removed))) == [item for item in items if item[1] not in codes]
    value = data.draw(st.binary(min_size=4, max_size=4))
    changed = list(walk(rebuild(block, {4: value})))
    assert (0x80, 4, value) in changed and [item for item in changed if item[1] != 4] == [i for i in items if i[1] != 4]
    known = [code for _, code, _ in changed if code in RULES]
    assert known == sorted(known)


@relaxed
@given(st.data(), wire.families)
def test_old_speakers_lose_nothing(data: st.DataObject, family: Family) -> None:
    """RFC 6793: what a two-octet speaker passes on is put together again."""
    block = data.draw(wire.blocks(True))
    key = data.draw(wire.keys(family))
    hop = data.draw(wire.next_hops(family))
    table = AttributeTable()
    (message,) = build_reach(family, to_two_octet(block), hop, [key], 65535)
    update = parser(True, False, table, asn4=False).parse(message[19:])
    ((_, attributes, _),) = update.reach
    original = table.intern(family, block, hop)
    flat = [asn for _, asns in original.as_path for asn in asns]
    assert [asn for _, asns in attributes.as_path for asn in asns] == flat
    assert attributes.as_path_length == original.as_path_length
    assert attributes.get(7) == original.get(7)


@relaxed
@given(wire.as_paths, st.lists(wire.asns, min_size=1, max_size=300))
def test_prepend(path: aspath.Segments, asns: list[int]) -> None:
    value = aspath.prepend(aspath.encode(path), asns)
    assert aspath.malformed(value, 4, False) == ""
    assert [asn for _, some in aspath.decode(value) for asn in some] == asns + [asn for _, some in path for asn in some]
    assert aspath.length(value) == len(asns) + sum(len(some) for _, some in path)
    assert aspath.count(value, asns[0]) == [asn for _, some in aspath.decode(value) for asn in some].count(asns[0])
    assert aspath.neighbor_as(value) == asns[0]


@relaxed
@given(st.data(), st.booleans())
def test_short_and_careful_road_agree(data: st.DataObject, external: bool) -> None:
    """A block that the patterns take, and one octet of which may be damaged: both roads say the same."""
    block = bytearray(data.draw(wire.blocks(False)))
    if data.draw(st.booleans()):
        block[data.draw(st.integers(0, len(block) - 1))] = data.draw(st.integers(0, 255))
    family = data.draw(wire.families)
    messages = build_reach(
        family, bytes(block), data.draw(wire.next_hops(family)), [data.draw(wire.keys(family))], 65535
    )
    short, careful = parser(external), parser(external)
    for message in messages:
        body = message[19:]
        assert _result(short.parse, body) == _result(lambda octets: _carefully(careful, octets), body)


def _carefully(subject: UpdateParser, body: bytes) -> object:
    withdrawn = 2 + int.from_bytes(body[:2], "big")
    end = withdrawn + 2 + int.from_bytes(body[withdrawn : withdrawn + 2], "big")
    return subject._parse_carefully(body[2:withdrawn], body[withdrawn + 2 : end], body[end:])


def _result(parse: object, body: bytes) -> object:
    try:
        update = parse(body)  # type: ignore[operator]
    except BGPError as error:
        return error.code, error.subcode, error.data
    reach = [(family, a.block, a.next_hop, keys) for family, a, keys in update.reach]
    findings = {(finding.code, finding.action) for finding in update.findings}
    return reach, update.unreach, update.end_of_rib, findings


@relaxed
@given(octets, st.booleans(), st.booleans(), st.booleans())
def test_any_update_body(body: bytes, external: bool, add_path: bool, asn4: bool) -> None:
    try:
        parser(external, add_path, asn4=asn4).parse(b"\0\0" + body if len(body) < 2 else body.ljust(4, b"\0"))
    except BGPError as error:
        assert error.code == 3


@relaxed
@given(octets, octets, st.booleans())
def test_any_attributes(block: bytes, field: bytes, external: bool) -> None:
    try:
        parser(external).parse(b"\0\0" + len(block).to_bytes(2, "big") + block + field)
    except BGPError as error:
        assert error.code == 3


@relaxed
@given(octets, st.booleans(), st.booleans())
def test_any_block_examines_to_a_canonical_one(block: bytes, external: bool, asn4: bool) -> None:
    try:
        found = examine(block, Session(external, asn4, False))
    except BGPError:
        return
    assert list(walk(found.block())) == found.items
    str(found.findings)


@relaxed
@given(octets)
def test_any_open(body: bytes) -> None:
    try:
        parse_open(body.ljust(10, b"\0"))
    except BGPError as error:
        assert error.code == 2


@relaxed
@given(octets, st.booleans())
def test_any_refresh(body: bytes, enhanced: bool) -> None:
    try:
        parse_refresh(body, enhanced)
    except BGPError as error:
        assert (error.code, error.subcode) == ((7, 1) if enhanced else (1, 2))


@relaxed
@given(octets)
def test_any_notification(body: bytes) -> None:
    assert str(parse_notification(body)).isprintable()


@relaxed
@given(octets)
def test_any_stream(stream: bytes) -> None:
    framer = Framer()
    assert framer.feed(stream) == [] or framer.error
    assert framer.error is None or framer.error.code == 1


@relaxed
@given(st.lists(st.tuples(st.sampled_from((2, 3, 5)), st.binary(min_size=10, max_size=40)), max_size=6), st.data())
def test_stream_in_any_pieces(messages: list[tuple[int, bytes]], data: st.DataObject) -> None:
    stream = b"".join(build_message(kind, body) for kind, body in messages)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    framer = Framer()
    found: list[tuple[int, bytes]] = []
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        found += framer.feed(memoryview(stream)[start:end])
    assert found == messages and framer.error is None
