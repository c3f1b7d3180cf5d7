"""Values to UPDATE messages (RFC 4271 §4.3, §9.2; RFC 4760 §3, §4; RFC 4724 §2)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from struct import Struct

from bgpd.family import IPV4_UNICAST, Family
from bgpd.wire.attributes import encode_known
from bgpd.wire.framing import HEADER_LENGTH, MAX_LENGTH, MessageType, build_message
from bgpd.wire.rules import EXTENDED_LENGTH, Code

_OVERHEAD = HEADER_LENGTH + 4
"""Header and both length fields of an UPDATE."""
_NEXT_HOP = 7
"""NEXT_HOP, an IPv4 address."""
_MP_HEADER = 4
"""Flags, code and two octets of length."""
_MP_START = 5
"""What stands beside next hop and NLRI in MP_REACH_NLRI: family, length of the next hop, a reserved octet."""

_SHORT = Struct(">H").pack
UPDATE_HEAD = Struct(">16sHBHH").pack
"""(marker, length of the message, type, length of the withdrawn routes, length of the attributes)."""
_MP_REACH = Struct(">HBB").pack
_MP_UNREACH = Struct(">HB").pack


class AttributesTooLong(ValueError):
    """The attributes leave no room for a prefix: the route cannot be sent to this peer (RFC 4271 §9.2)."""


def build_reach(
    family: Family,
    block: bytes,
    next_hop: bytes,
    nlri: Sequence[bytes],
    max_length: int = MAX_LENGTH,
    path_id: bytes = b"",
) -> list[bytes]:
    """Whole messages that announce `nlri`, in order. Raises AttributesTooLong.

    IPv4 with a four-octet next hop takes the classic form; all else MP_REACH_NLRI, first of the attributes (RFC 7606
    §5.1). `nlri` holds keys; where ADD-PATH was agreed for sending, `path_id` goes before each, or they are path
    identifier + key and it is empty.
    """
    fields = _fields(nlri, room_for(family, block, next_hop, max_length), path_id)
    return build_reach_fields(family, block, next_hop, fields)


def build_reach_fields(family: Family, block: bytes, next_hop: bytes, fields: Iterable[bytes]) -> list[bytes]:
    """As `build_reach`, for fields of encoded NLRI that have room (`room_for`)."""
    if family == IPV4_UNICAST and len(next_hop) == 4:
        attributes = insert_next_hop(block, next_hop)
        head = b"\0\0" + _SHORT(len(attributes)) + attributes
        return [build_message(MessageType.UPDATE, head + field) for field in fields]
    return [_attributes_only(build_mp_reach(family, next_hop, field) + block) for field in fields]


def room_for(family: Family, block: bytes, next_hop: bytes, max_length: int) -> int:
    """Octets that an UPDATE with these attributes has for NLRI."""
    if family == IPV4_UNICAST and len(next_hop) == 4:
        return max_length - _OVERHEAD - len(block) - _NEXT_HOP
    return max_length - _OVERHEAD - _MP_HEADER - _MP_START - len(next_hop) - len(block)


def build_mp_reach(family: Family, next_hop: bytes, field: bytes) -> bytes:
    """The attribute MP_REACH_NLRI (RFC 4760 §3) with a field of encoded NLRI."""
    return encode_known(Code.MP_REACH_NLRI, _MP_REACH(*family, len(next_hop)) + next_hop + b"\0" + field)


def build_unreach(
    family: Family, nlri: Sequence[bytes], max_length: int = MAX_LENGTH, path_id: bytes = b""
) -> list[bytes]:
    """Whole messages that withdraw `nlri`; `path_id` as in `build_reach`."""
    if family == IPV4_UNICAST:
        fields = _fields(nlri, max_length - _OVERHEAD, path_id)
        return [build_message(MessageType.UPDATE, _SHORT(len(field)) + field + b"\0\0") for field in fields]
    start = _MP_UNREACH(*family)
    fields = _fields(nlri, max_length - _OVERHEAD - _MP_HEADER - len(start), path_id)
    return [_attributes_only(encode_known(Code.MP_UNREACH_NLRI, start + field)) for field in fields]


def build_end_of_rib(family: Family) -> bytes:
    """RFC 4724 §2."""
    if family == IPV4_UNICAST:
        return build_message(MessageType.UPDATE, bytes(4))
    return _attributes_only(encode_known(Code.MP_UNREACH_NLRI, _MP_UNREACH(*family)))


def insert_next_hop(block: bytes, next_hop: bytes) -> bytes:
    """A block with NEXT_HOP where type order puts it."""
    # ORIGIN and a short AS_PATH in front are the rule.
    if block[:3] == b"\x40\x01\x01" and block[4:6] == b"\x40\x02":
        at = 7 + block[6]
    else:
        at = _place(block, Code.NEXT_HOP)
    return block[:at] + b"\x40\x03\x04" + next_hop + block[at:]


def _place(block: bytes, code: int) -> int:
    """Offset of the first attribute with a higher code."""
    start = 0
    while start < len(block) and block[start + 1] < code:
        if block[start] & EXTENDED_LENGTH:
            start += 4 + (block[start + 2] << 8 | block[start + 3])
        else:
            start += 3 + block[start + 2]
    return start


def _attributes_only(attributes: bytes) -> bytes:
    return build_message(MessageType.UPDATE, b"\0\0" + _SHORT(len(attributes)) + attributes)


def _fields(nlri: Sequence[bytes], room: int, path_id: bytes) -> list[bytes]:
    """NLRI fields of at most `room` octets. One join where all fits, else slices of equally many keys.

    As a rule all keys are of one length, which the mean is then; else slices are sized for the longest.
    """
    if not nlri:
        return []
    field = path_id + path_id.join(nlri)
    if len(field) <= room:
        return [field]
    mean = -(-len(field) // len(nlri))
    fields = _slices(nlri, room // mean, path_id) if room >= mean else []
    if fields and max(map(len, fields)) <= room:
        return fields
    longest = len(path_id) + max(map(len, nlri))
    if room < longest:
        raise AttributesTooLong(f"{room} octets left for a prefix of {longest}")
    return _slices(nlri, room // longest, path_id)


def cut_field(field: bytes, keys: Sequence[bytes], room: int, path_id: bytes) -> list[bytes]:
    """The joined NLRI of `keys`, each behind `path_id`, cut into fields of at most `room` octets. Raises
    AttributesTooLong.

    Where all are of one length, as a client's blocks are, it is cut as it is: joining them again costs 20 ns a key.
    """
    at = len(path_id)
    size = at + len(keys[0])
    # Where each length octet is at its place, the next prefix begins where it ends.
    if room >= size and len(field) == size * len(keys) and field[at::size].count(keys[0][:1]) == len(keys):
        step = room // size * size
        return [field[i : i + step] for i in range(0, len(field), step)]
    return _fields(keys, room, path_id)


def _slices(nlri: Sequence[bytes], count: int, path_id: bytes) -> list[bytes]:
    # Joining by the path id puts it between: one operation in C, where an object a prefix costs ten times as much.
    return [path_id + path_id.join(nlri[i : i + count]) for i in range(0, len(nlri), count)]
