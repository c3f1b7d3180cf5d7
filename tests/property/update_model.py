"""RFC 7606 and its neighbours once more, written down from their text without a line of `bgpd.wire`.

Slow, and as plain as can be: one pass over the attributes, then the NLRI, then what the faults come to.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import MappingProxyType
from typing import TypeAlias

from attrs import Factory, define, frozen

from tests.vectors.plain import read_nlri

Path: TypeAlias = list[tuple[int, list[int]]]
Item: TypeAlias = tuple[int, int, object]
"""(flags, code, value); of AS_PATH the value is (segment type, AS number) of each hop."""

OPTIONAL, TRANSITIVE, PARTIAL = 0x80, 0x40, 0x20
BITS = MappingProxyType({1: 32, 2: 128})
FLAGS = MappingProxyType(
    dict.fromkeys((1, 2, 3, 5, 6), TRANSITIVE)
    | dict.fromkeys((4, 9, 10, 14, 15, 26, 29), OPTIONAL)
    | dict.fromkeys((7, 8, 16, 17, 18, 22, 23, 25, 32, 35, 40), OPTIONAL | TRANSITIVE)
)
_INTERNAL_ONLY = (5, 9, 10)
_NEVER = (26, 29)
_PASSED_ON = (22, 23, 40)
_DISCARDED = (6, 7, 17, 18, 40)
"""Attributes of which a malformed one is dropped; of all others it takes the route with it."""


class Reset(Exception):
    """Only the end of the session answers this."""


@frozen
class Agreed:
    """A session: AFIs of unicast families, of those with path identifiers, and of those with IPv6 next hops."""

    external: bool
    asn4: bool
    families: frozenset[int]
    add_path: frozenset[int]
    ipv6_next_hops: frozenset[int]

    @property
    def width(self) -> int:
        """Octets of an AS number in AS_PATH."""
        return 4 if self.asn4 else 2


@define
class Meaning:
    """What an UPDATE comes to: prefixes as bit strings, "id:" before them where there are path identifiers."""

    announced: dict[int, dict[str, set[bytes]]] = Factory(dict)
    """Next hops by AFI and prefix."""
    withdrawn: dict[int, set[str]] = Factory(dict)
    attributes: list[Item] | None = None


@define
class _Walk:
    agreed: Agreed
    values: dict[int, bytes] = Factory(dict)
    """NEXT_HOP, MP_REACH_NLRI, MP_UNREACH_NLRI."""
    items: list[tuple[int, int, bytes]] = Factory(list)
    seen: set[int] = Factory(set)
    withdraw: bool = False
    cut: bool = False
    only_sets: bool = True
    """Nothing is wrong but AS_SETs, which RFC 9774 refuses."""

    def fault(self, a_set: bool = False) -> None:
        self.withdraw = True
        self.only_sets = self.only_sets and a_set


def mean(body: bytes, agreed: Agreed) -> Meaning:
    """The meaning of an UPDATE's body. Raises Reset."""
    withdrawn_end = 2 + int.from_bytes(body[:2], "big")
    attributes_at = withdrawn_end + 2
    attributes_end = attributes_at + int.from_bytes(body[withdrawn_end:attributes_at], "big")
    if attributes_at > len(body) or attributes_end > len(body):
        raise Reset("lengths")  # RFC 4271 §6.3
    walk = _Walk(agreed)
    _attributes(walk, body[attributes_at:attributes_end])
    items = _merged(walk)
    gone = [*_ipv4(agreed, body[2:withdrawn_end]), *_unreach(walk)]
    came = [(1, walk.values.get(3, b""), unit) for _, unit in _ipv4(agreed, body[attributes_end:])]
    field, more = _reach(walk)
    _conditions(walk, bool(body[attributes_end:]), field)
    return _conclude(walk, items, gone, came + more)


def _attributes(walk: _Walk, block: bytes) -> None:
    while block:
        header = 4 if block[0] & 0x10 else 3
        size = int.from_bytes(block[2:header], "big")
        if len(block) < header + size or len(block) < header:
            if len(block) >= header and block[1] in (14, 15):
                raise Reset("a multiprotocol attribute that runs over the rest")
            walk.cut = True
            walk.fault()  # RFC 7606 §4
            return
        _attribute(walk, block[0], block[1], block[header : header + size])
        block = block[header + size :]


def _attribute(walk: _Walk, flags: int, code: int, value: bytes) -> None:
    if code in walk.seen:
        if code in (14, 15):
            raise Reset("a multiprotocol attribute twice")  # RFC 7606 §3 g
        return
    walk.seen.add(code)
    if code not in FLAGS:
        if not flags & OPTIONAL:
            raise Reset("an unknown well-known attribute")  # RFC 4271 §6.3
        if flags & TRANSITIVE:
            walk.items.append((OPTIONAL | TRANSITIVE | PARTIAL, code, value))
        return
    if (flags ^ FLAGS[code]) & (OPTIONAL | TRANSITIVE):  # RFC 7606 §3 c
        if code not in (*_NEVER, 40):
            walk.fault()
        if code in (3, 14, 15):
            walk.values[code] = value
        return
    if code not in _NEVER and not (walk.agreed.external and code in _INTERNAL_ONLY):
        _well_flagged(walk, flags, code, value)


def _well_flagged(walk: _Walk, flags: int, code: int, value: bytes) -> None:
    if code in (14, 15):
        walk.values[code] = value
        return
    right = _SOUND[code](value, walk.agreed)
    if not right:
        if code not in _DISCARDED:
            walk.fault()
        return
    if code == 3:
        walk.values[code] = value
        return
    if code == 2 and any(kind == 1 for kind, _ in _segments(value, walk.agreed.width)):
        walk.fault(a_set=True)
    if code == 32:  # RFC 8092 §3
        value = b"".join(dict.fromkeys(value[i : i + 12] for i in range(0, len(value), 12)))
    partial = PARTIAL if code in _PASSED_ON else flags & PARTIAL if FLAGS[code] == OPTIONAL | TRANSITIVE else 0
    walk.items.append((FLAGS[code] | partial, code, value))


# RFC 7606 §7 and the attributes' own RFCs: whether a value is as it should be.


def _segments(value: bytes, width: int) -> Path:
    """Raises ValueError."""
    found: Path = []
    while value:
        if len(value) < 2 or value[0] not in (1, 2, 3, 4) or not value[1] or len(value) < 2 + value[1] * width:
            raise ValueError
        end = 2 + value[1] * width
        found.append((value[0], [int.from_bytes(value[i : i + width], "big") for i in range(2, end, width)]))
        value = value[end:]
    return found


def _sound_path(value: bytes, width: int, kinds: tuple[int, ...], needs: int) -> bool:
    """Well-formed, without AS 0, of these segments alone, and with at least `needs` of type 1 or 2."""
    try:
        found = _segments(value, width)
    except ValueError:
        return False
    known = all(kind in kinds and 0 not in asns for kind, asns in found)
    return known and sum(kind in (1, 2) for kind, _ in found) >= needs


def _tunnels(value: bytes) -> bool:
    rest = value
    while len(rest) >= 4 + int.from_bytes(rest[2:4], "big") and len(rest) >= 4:
        rest = rest[4 + int.from_bytes(rest[2:4], "big") :]
    return bool(value) and not rest


def _prefix_sid(value: bytes) -> bool:
    while value:
        size = int.from_bytes(value[1:3], "big")
        if len(value) < 3 + size:
            return False
        if (value[0] == 1 and size != 7) or (value[0] == 3 and (size < 8 or (size - 2) % 6)):
            return False
        value = value[3 + size :]
    return True


def _size(*sizes: int) -> Callable[[bytes, Agreed], bool]:
    return lambda value, agreed: len(value) in sizes


def _items(size: int) -> Callable[[bytes, Agreed], bool]:
    return lambda value, agreed: len(value) > 0 and len(value) % size == 0


_SOUND: MappingProxyType[int, Callable[[bytes, Agreed], bool]] = MappingProxyType(
    {
        1: lambda value, agreed: value in (b"\0", b"\1", b"\2"),
        2: lambda value, agreed: _sound_path(value, agreed.width, (1, 2), 0),
        3: _size(4),
        4: _size(4),
        5: _size(4),
        6: _size(0),
        7: lambda value, agreed: len(value) == agreed.width + 4 and value[: agreed.width].strip(b"\0") != b"",
        8: _items(4),
        9: _size(4),
        10: _items(4),
        16: _items(8),
        17: lambda value, agreed: not agreed.asn4 and _sound_path(value, 4, (1, 2, 3, 4), 1),
        18: lambda value, agreed: not agreed.asn4 and len(value) == 8 and value[:4] != bytes(4),
        22: lambda value, agreed: len(value) >= 5,
        23: lambda value, agreed: _tunnels(value),
        25: _items(20),
        32: _items(12),
        35: _size(4),
        40: lambda value, agreed: _prefix_sid(value),
    }
)


def _hops(path: Path) -> int:
    return sum(len(asns) if kind == 2 else kind == 1 for kind, asns in path)


def _merged(walk: _Walk) -> list[Item]:
    """Four-octet AS numbers everywhere (RFC 6793 §4.2.3)."""
    width = walk.agreed.width
    by_code = {code: value for _, code, value in walk.items}
    # An AGGREGATOR that is not AS_TRANS beside AS4_AGGREGATOR: the long attributes are out of date.
    aggregator, long_one = by_code.get(7), by_code.get(18)
    outdated = aggregator is not None and long_one is not None and aggregator[:2] != b"\x5b\xa0"
    items: list[Item] = []
    for flags, code, value in walk.items:
        if code == 2:
            path = _segments(value, width)
            if 17 in by_code and not outdated:
                path = _merge(path, [entry for entry in _segments(by_code[17], 4) if entry[0] in (1, 2)])
                if any(kind == 1 for kind, _ in path):
                    walk.fault(a_set=True)
            items.append((flags, code, [(kind, asn) for kind, asns in path for asn in asns]))
        elif code == 7 and width == 2:
            items.append((flags, code, long_one if long_one is not None and not outdated else b"\0\0" + value))
        elif code not in (17, 18):
            items.append((flags, code, value))
    return items


def _merge(path: Path, long_one: Path) -> Path:
    surplus = _hops(path) - _hops(long_one)
    if surplus < 0:
        return path
    leading: Path = []
    for kind, asns in path:
        if not surplus:
            break
        taken = asns[:surplus] if kind == 2 else asns
        surplus -= len(taken) if kind == 2 else 1
        leading.append((kind, taken))
    return leading + long_one


# NLRI


def _units(agreed: Agreed, afi: int, field: bytes) -> list[str]:
    found = read_nlri(field, BITS[afi], afi in agreed.add_path)
    if found is None:
        raise Reset("NLRI")  # RFC 7606 §3 j, §5.3
    # RFC 4271 §6.3: multicast prefixes are ignored.
    return [unit for unit in found if afi != 1 or not unit.rpartition(":")[2].startswith("1110")]


def _ipv4(agreed: Agreed, field: bytes) -> Iterator[tuple[int, str]]:
    if 1 in agreed.families:
        yield from ((1, unit) for unit in _units(agreed, 1, field))


def _family(value: bytes, agreed: Agreed) -> int:
    """The AFI of a unicast family that was agreed, else 0."""
    if len(value) < 3:
        raise Reset("no family")
    afi = int.from_bytes(value[:2], "big")
    return afi if value[2] == 1 and afi in agreed.families else 0


def _unreach(walk: _Walk) -> list[tuple[int, str]]:
    value = walk.values.get(15)
    if value is None or not (afi := _family(value, walk.agreed)):
        return []
    return [(afi, unit) for unit in _units(walk.agreed, afi, value[3:])]


def _reach(walk: _Walk) -> tuple[bytes, list[tuple[int, bytes, str]]]:
    """The octets where NLRI are, of whatever family, and what is announced."""
    value = walk.values.get(14)
    if value is None:
        return b"", []
    afi = _family(value, walk.agreed)
    length = value[3] if len(value) > 3 else 0
    field = value[5 + length :]
    if not afi:
        return field, []
    allowed = (4, 16, 32) if afi in walk.agreed.ipv6_next_hops else (16, 32) if afi == 2 else (4,)
    if len(value) < 5 + length or length not in allowed:
        raise Reset("next hop")  # RFC 7606 §7.11
    return field, [(afi, value[4 : 4 + length], unit) for unit in _units(walk.agreed, afi, field)]


def _conditions(walk: _Walk, classic: bool, field: bytes) -> None:
    """RFC 7606 §3 d: what must be there. §5.2: a fault and nothing reachable. RFC 4271 §6.3: NEXT_HOP."""
    hop = walk.values.get(3, b"")
    if classic and 1 in walk.agreed.families and hop and not _is_a_host(hop):
        walk.fault()  # Also where no prefix of its field counts.
    if classic or field:
        if {1, 2, *((3,) if classic else ())} - walk.seen:
            walk.fault()
    elif walk.withdraw and not walk.only_sets and (walk.cut or walk.seen != {15}):
        raise Reset("nothing to withdraw")


def _is_a_host(hop: bytes) -> bool:
    if len(hop) == 4:
        return hop[0] not in (0, 127) and hop[0] < 224
    return int.from_bytes(hop[:16], "big") > 1 or hop[16:17] == b"\xfe"


def _conclude(
    walk: _Walk, items: list[Item], gone: list[tuple[int, str]], came: list[tuple[int, bytes, str]]
) -> Meaning:
    if any(hop and not _is_a_host(hop) for _, hop, _ in came):
        walk.fault()
    meaning = Meaning()
    for afi, hop, unit in came:
        if walk.withdraw:
            gone.append((afi, unit))
        else:
            meaning.announced.setdefault(afi, {}).setdefault(unit, set()).add(hop)
            meaning.attributes = items
    for afi, unit in gone:
        if unit not in meaning.announced.get(afi, ()):  # RFC 4271 §4.3
            meaning.withdrawn.setdefault(afi, set()).add(unit)
    return meaning
