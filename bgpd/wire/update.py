"""UPDATE messages to values (RFC 4271 §4.3, §6.3; RFC 4760; RFC 7606).

Two roads. Nearly every UPDATE has attributes of the usual shape: `usual` proves them well-formed in one pattern match,
and a memo of blocks seen answers even faster. All else goes through `examine`, where each rule of RFC 7606 stands.
"""

from __future__ import annotations

from struct import Struct
from typing import TypeAlias

from bgpd.errors import BGPError, ErrorCode
from bgpd.family import FAMILIES, IPV4_UNICAST, Family
from bgpd.wire import aspath, usual
from bgpd.wire.attributes import AttributeTable, PathAttributes, encode_known
from bgpd.wire.build import AttributesTooLong, build_end_of_rib, build_reach, build_unreach
from bgpd.wire.examine import Examined, Finding, discarded, examine
from bgpd.wire.reader import FamilyReader, family_octets
from bgpd.wire.rules import RULES, Action, Code, Session, name_of

__all__ = [
    "Action",
    "AttributesTooLong",
    "Finding",
    "Memo",
    "ParsedUpdate",
    "UpdateContext",
    "UpdateParser",
    "build_end_of_rib",
    "build_reach",
    "build_unreach",
]

_MEMO_LIMIT = 8192
_NO_AS = bytes(4)
_TWO_LENGTHS = Struct(">HH").unpack_from

_Outcome: TypeAlias = tuple[PathAttributes | None, tuple[Finding, ...]]
"""Attributes to announce with, or None to withdraw; and why."""


class UpdateContext:
    """What reading a session's UPDATEs depends on."""

    __slots__ = ("add_path", "allow_as_sets", "asn4", "extended_next_hop", "external", "families", "table")

    def __init__(
        self,
        external: bool,
        asn4: bool,
        families: frozenset[Family],
        add_path: frozenset[Family],
        extended_next_hop: frozenset[Family],
        table: AttributeTable,
        allow_as_sets: bool = False,
    ) -> None:
        self.external = external
        self.asn4 = asn4
        self.families = families
        self.add_path = add_path
        """Families in which the peer sends path identifiers (RFC 7911)."""
        self.extended_next_hop = extended_next_hop
        """Families in which IPv6 next hops were agreed for IPv4 prefixes (RFC 8950)."""
        self.table = table
        self.allow_as_sets = allow_as_sets
        """Take paths with AS_SETs, against RFC 9774."""


class ParsedUpdate:
    """One UPDATE's meaning. A key announced and withdrawn in it counts as announced.

    Keys are NLRI keys. Where ADD-PATH was agreed, they are path identifier + key; or `path_id` is that of all, and not
    before each. They may repeat within a list, and a family may come twice in `reach` and `unreach`.
    """

    __slots__ = ("end_of_rib", "findings", "path_id", "reach", "unreach")

    def __init__(
        self,
        reach: list[tuple[Family, PathAttributes, list[bytes]]],
        unreach: list[tuple[Family, list[bytes]]],
        end_of_rib: Family | None = None,
        findings: tuple[Finding, ...] = (),
        path_id: bytes = b"",
    ) -> None:
        self.path_id = path_id
        self.reach = reach
        self.unreach = unreach
        self.end_of_rib = end_of_rib
        self.findings = findings


class Memo:
    """What attribute blocks seen before came to. Sessions that differ neither in `external`, `asn4` nor
    `allow_as_sets` may share one: two reflectors say the same."""

    __slots__ = ("classic", "multiprotocol")

    def __init__(self) -> None:
        self.classic: dict[bytes, _Outcome] = {}
        self.multiprotocol: dict[tuple[bytes, bytes], _Outcome] = {}

    def clear(self) -> None:
        """Forget all, and with it attributes that nobody else holds."""
        self.classic.clear()
        self.multiprotocol.clear()


class UpdateParser:
    """Reads the UPDATEs of one session."""

    __slots__ = (
        "_classic",
        "_context",
        "_ipv4",
        "_memo",
        "_mp_memo",
        "_multiprotocol",
        "_plain",
        "_readers",
        "_session",
    )

    def __init__(self, context: UpdateContext, memo: Memo | None = None) -> None:
        memo = memo or Memo()
        self._context = context
        self._session = Session(context.external, context.asn4, context.allow_as_sets)
        readers = (
            FamilyReader(family, family in context.add_path, family in context.extended_next_hop)
            for family in FAMILIES
            if family in context.families
        )
        self._readers = {family_octets(reader.family): reader for reader in readers}
        self._ipv4 = self._readers.get(family_octets(IPV4_UNICAST))
        self._plain = usual.PLAIN[context.external]
        self._classic = usual.CLASSIC[context.external]
        self._multiprotocol = usual.MULTIPROTOCOL[context.external]
        self._memo = memo.classic
        self._mp_memo = memo.multiprotocol

    def parse(self, body: bytes) -> ParsedUpdate:
        """Read the body of one UPDATE. Raises BGPError 3/x where only a session reset will do."""
        size = len(body)
        # Both lengths are in place when nothing is withdrawn. The framer saw to at least four octets.
        withdrawn, length = _TWO_LENGTHS(body) if size >= 4 else (size, 0)
        start = withdrawn + 2
        if withdrawn:
            if start + 2 > size:
                raise BGPError(ErrorCode.UPDATE_MESSAGE, 1, reason="withdrawn routes run over the message")
            length = body[start] << 8 | body[start + 1]
        end = start + 2 + length
        if end > size:
            raise BGPError(ErrorCode.UPDATE_MESSAGE, 1, reason="path attributes run over the message")
        block = body[start + 2 : end]
        if not withdrawn:
            if end != size:
                parsed = self._parse_classic(block, body[end:])
            elif block:
                parsed = self._parse_multiprotocol(block)
            else:
                return self._end_of_ipv4()
            if parsed is not None:
                return parsed
        elif not block and end == size and self._ipv4 is not None:
            found = self._ipv4.read(body[2:start])
            if found is not None:
                return ParsedUpdate([], [(IPV4_UNICAST, found[1])], None, (), found[0])
            findings: list[Finding] = []
            keys = self._ipv4.split(body[2:start], findings)
            return ParsedUpdate([], [(IPV4_UNICAST, keys)], None, tuple(findings))
        return self._parse_carefully(body[2:start], block, body[end:])

    def _end_of_ipv4(self) -> ParsedUpdate:
        return ParsedUpdate([], [], IPV4_UNICAST if self._ipv4 is not None else None)

    # The two methods below carry the load of a full table; they are long so that they call little.

    def _parse_classic(self, block: bytes, field: bytes) -> ParsedUpdate | None:
        """Nothing withdrawn, an IPv4 NLRI field. None: not of the usual shape."""
        reader = self._ipv4
        if reader is None:
            return None
        path_id = b""
        if not reader.add_path:
            keys = reader.find(field)
            if b"".join(keys) != field:
                return None
        elif (found := reader.read(field)) is not None:
            path_id, keys = found
        else:
            return None
        outcome = self._memo.get(block)
        if outcome is None:
            if not self._session.asn4 or (usual.several_large(block) and usual.large_repeats(block)):
                return None
            match = self._plain(block)
            # The second look is behind the length octets, whose zeros would look like the beginning of an AS number.
            if match is not None and (block.find(_NO_AS) < 0 or _NO_AS not in block[7 : match.end(1)]):
                head, next_hop, tail = match.groups()
                if block[4] == 0x50:
                    head = head[:4] + b"\x40\x02" + head[7:]
                outcome = self._context.table.intern(IPV4_UNICAST, head + tail, next_hop), ()
            else:
                match = self._classic(block)
                if match is None:
                    return None
                origin, path, next_hop, *tail = match.groups()
                if path.find(_NO_AS) >= 0:
                    return None
                outcome = self._accept(IPV4_UNICAST, next_hop, origin + b"\x40\x02" + path, tail)
            self._remember(block, outcome)
        known, findings = outcome
        if known is None:
            return ParsedUpdate([], [(IPV4_UNICAST, keys)], None, findings, path_id)
        return ParsedUpdate([(IPV4_UNICAST, known, keys)], [], None, findings, path_id)

    def _parse_multiprotocol(self, block: bytes) -> ParsedUpdate | None:
        """Attributes only. None: not of the usual shape."""
        cut = _find_multiprotocol(block)
        if cut is None:
            return None
        code, start, value_at, end = cut
        reader = self._readers.get(block[value_at : value_at + 3])
        if reader is None:
            return None
        if code == Code.MP_UNREACH_NLRI:
            if end - start != len(block):
                return None
            if value_at + 3 == end:
                return ParsedUpdate([], [], reader.family)
            field_at = value_at + 3
        else:
            field_at = value_at + 5 + block[value_at + 3] if end - value_at > 3 else end
            if field_at >= end or block[value_at + 3] not in reader.next_hop_lengths:
                return None
        found = reader.read(block[field_at:end])
        if found is None:
            return None
        path_id, keys = found
        family = reader.family
        if code == Code.MP_UNREACH_NLRI:
            return ParsedUpdate([], [(family, keys)], None, (), path_id)
        next_hop = block[value_at + 4 : field_at - 1]
        rest = block[:start] + block[end:]
        key = (block[value_at : field_at - 1], rest)
        outcome = self._mp_memo.get(key)
        if outcome is None:
            match = self._multiprotocol(rest) if self._session.asn4 else None
            if match is None or _unusable(next_hop):
                return None
            if usual.several_large(rest) and usual.large_repeats(rest):
                return None
            origin, path, *tail = match.groups()
            if path.find(_NO_AS) >= 0:
                return None
            outcome = self._accept(family, next_hop, origin + b"\x40\x02" + path, tail)
            self._remember_mp(key, outcome)
        known, findings = outcome
        if known is None:
            return ParsedUpdate([], [(family, keys)], None, findings, path_id)
        return ParsedUpdate([(family, known, keys)], [], None, findings, path_id)

    def _accept(self, family: Family, next_hop: bytes, head: bytes, tail: list[bytes]) -> _Outcome:
        """Intern a block of the usual shape; what `usual` has put into groups of its own is dropped."""
        intern = self._context.table.intern
        if len(tail) == 1:
            return intern(family, head + tail[0], next_hop), ()
        med, local_pref, middle, originator_id, cluster_list, end = tail
        dropped = 1 if local_pref else 0
        if originator_id:
            dropped += 2
        if cluster_list:
            dropped += 4
        return intern(family, head + med + middle + end, next_hop), _DROPPED[dropped]

    def _remember(self, block: bytes, outcome: _Outcome) -> None:
        if len(self._memo) >= _MEMO_LIMIT:
            self._memo.clear()
        self._memo[block] = outcome

    def _remember_mp(self, key: tuple[bytes, bytes], outcome: _Outcome) -> None:
        if len(self._mp_memo) >= _MEMO_LIMIT:
            self._mp_memo.clear()
        self._mp_memo[key] = outcome

    def _parse_carefully(self, withdrawn: bytes, block: bytes, field: bytes) -> ParsedUpdate:
        examined = examine(block, self._session)
        findings = examined.findings
        unreach: list[tuple[Family, list[bytes]]] = []
        reach: list[tuple[Family, bytes, list[bytes]]] = []
        if withdrawn and (reader := self._reader(IPV4_UNICAST, "withdrawn routes", findings)):
            unreach.append((IPV4_UNICAST, reader.split(withdrawn, findings)))
        announces = self._read_multiprotocol(examined, reach, unreach) or bool(field)
        if field and (reader := self._reader(IPV4_UNICAST, "NLRI", findings)):
            reach.append((IPV4_UNICAST, examined.apart.get(Code.NEXT_HOP, b""), reader.split(field, findings)))
        if announces:
            _check_mandatory(examined, bool(field))
        for family, next_hop, _ in reach:
            if next_hop and (reason := _unusable(next_hop)):
                code = Code.NEXT_HOP if family == IPV4_UNICAST and len(next_hop) == 4 else Code.MP_REACH_NLRI
                findings.append(Finding(code, name_of(code), Action.WITHDRAW, reason, "RFC 4271 §6.3"))
        if not announces:
            _check_without_nlri(examined)
        return self._conclude(examined, block, field, withdrawn, reach, unreach)

    def _conclude(
        self,
        examined: Examined,
        block: bytes,
        field: bytes,
        withdrawn: bytes,
        reach: list[tuple[Family, bytes, list[bytes]]],
        unreach: list[tuple[Family, list[bytes]]],
    ) -> ParsedUpdate:
        findings = tuple(examined.findings)
        faulty = examined.worst >= Action.WITHDRAW
        if faulty:
            unreach += ((family, keys) for family, _, keys in reach)
            announced = []
        else:
            canonical = examined.block() if reach else b""
            intern = self._context.table.intern
            announced = [(family, intern(family, canonical, hop), keys) for family, hop, keys in reach if keys]
            unreach = _without_announced(unreach, reach)
        alone = examined.seen.isdisjoint((Code.MP_REACH_NLRI, Code.MP_UNREACH_NLRI))
        if alone and field and reach and reach[0][2] and all(f.code for f in findings):
            self._remember(block, (None if faulty else announced[0][1], findings))
        end_of_rib = None
        if not announced and not findings and len(unreach) == 1 and not unreach[0][1] and not withdrawn:
            end_of_rib = unreach[0][0] if examined.seen == {Code.MP_UNREACH_NLRI} else None
        return ParsedUpdate(announced, [entry for entry in unreach if entry[1]], end_of_rib, findings)

    def _reader(self, family: Family, what: str, findings: list[Finding]) -> FamilyReader | None:
        reader = self._readers.get(family_octets(family))
        if reader is None:
            findings.append(Finding(0, what, Action.IGNORE, f"{family} was not agreed", "RFC 4760 §8"))
        return reader

    def _read_multiprotocol(
        self,
        examined: Examined,
        reach: list[tuple[Family, bytes, list[bytes]]],
        unreach: list[tuple[Family, list[bytes]]],
    ) -> bool:
        """Read MP_REACH_NLRI and MP_UNREACH_NLRI. True if there is reachable NLRI, of whatever family."""
        gone = examined.apart.get(Code.MP_UNREACH_NLRI)
        if gone is not None:
            family = _family_of(gone, Code.MP_UNREACH_NLRI)
            if reader := self._reader(family, "MP_UNREACH_NLRI", examined.findings):
                unreach.append((family, _split_mp(reader, gone[3:], Code.MP_UNREACH_NLRI, gone, examined.findings)))
        value = examined.apart.get(Code.MP_REACH_NLRI)
        if value is None:
            return False
        family = _family_of(value, Code.MP_REACH_NLRI)
        reader = self._reader(family, "MP_REACH_NLRI", examined.findings)
        length = value[3] if len(value) > 3 else 0
        field = value[5 + length :]
        if reader is not None:
            if len(value) < 5 + length or length not in reader.next_hop_lengths:
                raise BGPError(
                    ErrorCode.UPDATE_MESSAGE, 1, reason=f"MP_REACH_NLRI, {family}: next hop of length {length}"
                )
            keys = _split_mp(reader, field, Code.MP_REACH_NLRI, value, examined.findings)
            if keys:
                reach.append((family, value[4 : 4 + length], keys))
        return bool(field)


def _dropped() -> tuple[tuple[Finding, ...], ...]:
    """Findings for LOCAL_PREF (1), ORIGINATOR_ID (2) and CLUSTER_LIST (4) from an external peer, by their sum."""
    codes = {1: Code.LOCAL_PREF, 2: Code.ORIGINATOR_ID, 4: Code.CLUSTER_LIST}
    return tuple(tuple(discarded(RULES[codes[bit]]) for bit in codes if bit & total) for total in range(8))


_DROPPED = _dropped()


def _family_of(value: bytes, code: int) -> Family:
    if len(value) < 3:
        raise BGPError(ErrorCode.UPDATE_MESSAGE, 1, reason=f"{name_of(code)} of length {len(value)}")
    return Family(value[0] << 8 | value[1], value[2])


def _split_mp(reader: FamilyReader, field: bytes, code: int, value: bytes, findings: list[Finding]) -> list[bytes]:
    """RFC 4760 §7: a fault in these fields is an optional attribute error, 3/9."""
    try:
        return reader.split(field, findings)
    except BGPError as error:
        raise BGPError(
            ErrorCode.UPDATE_MESSAGE, 9, encode_known(code, value), f"{name_of(code)}: {error.reason}"
        ) from None


def _find_multiprotocol(block: bytes) -> tuple[int, int, int, int] | None:
    """(code, start, start of value, end) of the first MP attribute; None if there is none, or the block is damaged."""
    start = 0
    size = len(block)
    while start + 4 <= size:
        flags, code = block[start], block[start + 1]
        if flags & 0x10:
            value_at = start + 4
            end = value_at + (block[start + 2] << 8 | block[start + 3])
        else:
            value_at = start + 3
            end = value_at + block[start + 2]
        if code in (14, 15):
            return (code, start, value_at, end) if end <= size and flags & 0xEF == 0x80 else None
        start = end
    return None


def _check_mandatory(examined: Examined, classic: bool) -> None:
    """RFC 7606 §3 (d). NEXT_HOP goes with the NLRI field; MP_REACH_NLRI brings its own (RFC 4760 §3)."""
    wanted = (Code.ORIGIN, Code.AS_PATH, Code.NEXT_HOP) if classic else (Code.ORIGIN, Code.AS_PATH)
    for code in wanted:
        if code not in examined.seen:
            examined.findings.append(Finding(code, name_of(code), Action.WITHDRAW, "missing", "RFC 7606 §3 d"))


def _check_without_nlri(examined: Examined) -> None:
    """RFC 7606 §5.2: a fault beside no reachable NLRI leaves it open whether the NLRI were found at all: 3/1.

    An AS_SET is none of these faults: such a path is read without doubt, and refused.
    """
    faults = [f for f in examined.findings if f.action >= Action.WITHDRAW and f.reason != aspath.HAS_AS_SET]
    only_unreach = examined.seen == {Code.MP_UNREACH_NLRI} and not any(f.rfc == "RFC 7606 §4" for f in faults)
    if faults and not only_unreach:
        raise BGPError(ErrorCode.UPDATE_MESSAGE, 1, reason=f"no NLRI, and {faults[0]}")


def _unusable(next_hop: bytes) -> str:
    """Why an address cannot be a next hop at all; "" if it can (RFC 4271 §6.3). Whether it is ours, others know."""
    if len(next_hop) == 4:
        wrong = next_hop[0] in (0, 127) or next_hop[0] >= 224
    else:
        head = next_hop[:15]
        wrong = head == bytes(15) and next_hop[15] <= 1 and next_hop[16:17] != b"\xfe"
    return "next hop is no host's address" if wrong else ""


def _without_announced(
    unreach: list[tuple[Family, list[bytes]]], reach: list[tuple[Family, bytes, list[bytes]]]
) -> list[tuple[Family, list[bytes]]]:
    """RFC 4271 §4.3: a prefix in both places counts as announced."""
    if not unreach or not reach:
        return unreach
    announced = {(family, key) for family, _, keys in reach for key in keys}
    return [(family, [key for key in keys if (family, key) not in announced]) for family, keys in unreach]
