"""A plain reading of an UPDATE, slow and obvious: what the judge holds the codec against.

It shares no line with bgpd.wire. It says where the NLRI of a message are and which attributes came; it judges nothing.
"""

from __future__ import annotations

from typing import NamedTuple

IPV4, IPV6 = (1, 1), (2, 1)


class Attribute(NamedTuple):
    """One attribute as it lies in the message."""

    flags: int
    code: int
    value: bytes


class PlainUpdate(NamedTuple):
    """`reach` and `unreach` hold (AFI, SAFI) and the NLRI field's octets, whether or not they make sense."""

    attributes: list[Attribute]
    whole: bool
    """The attributes fill their block to the octet."""
    reach: list[tuple[tuple[int, int], bytes]]
    unreach: list[tuple[tuple[int, int], bytes]]


def read_update(body: bytes) -> PlainUpdate | None:
    """None where the two lengths do not fit into the message."""
    withdrawn_end = 2 + int.from_bytes(body[:2], "big")
    attributes_at = withdrawn_end + 2
    if attributes_at > len(body):
        return None
    attributes_end = attributes_at + int.from_bytes(body[withdrawn_end:attributes_at], "big")
    if attributes_end > len(body):
        return None
    attributes, whole = _attributes(body[attributes_at:attributes_end])
    reach, unreach = [], []
    if body[2:withdrawn_end]:
        unreach.append((IPV4, body[2:withdrawn_end]))
    if body[attributes_end:]:
        reach.append((IPV4, body[attributes_end:]))
    for attribute in attributes:
        value = attribute.value
        family = (int.from_bytes(value[:2], "big"), value[2] if len(value) > 2 else 0)
        if attribute.code == 14 and len(value) > 4:
            reach.append((family, value[5 + value[3] :]))
        elif attribute.code == 15 and len(value) > 2:
            unreach.append((family, value[3:]))
    return PlainUpdate(attributes, whole, reach, unreach)


def _attributes(block: bytes) -> tuple[list[Attribute], bool]:
    found: list[Attribute] = []
    rest = block
    while rest:
        header = 4 if rest[0] & 0x10 else 3
        size = int.from_bytes(rest[2:header], "big")
        if len(rest) < header + size or len(rest) < header:
            return found, False
        found.append(Attribute(rest[0], rest[1], rest[header : header + size]))
        rest = rest[header + size :]
    return found, True


def read_nlri(field: bytes, bits: int, path_ids: bool) -> list[str] | None:
    """Prefixes as bit strings, "id:" before them where there are path identifiers; None where the field is broken."""
    found: list[str] = []
    while field:
        path_id = ""
        if path_ids:
            path_id, field = f"{int.from_bytes(field[:4], 'big')}:", field[4:]
            if not field:
                return None
        length, octets = field[0], (field[0] + 7) // 8
        if length > bits or len(field) < 1 + octets:
            return None
        address = "".join(f"{octet:08b}" for octet in field[1 : 1 + octets])
        found.append(path_id + address[:length])
        field = field[1 + octets :]
    return found


def looks_internal(update: PlainUpdate) -> bool:
    """For messages that nobody says the peer of: LOCAL_PREF or an empty AS_PATH come from internal peers."""
    return any(a.code == 5 or (a.code == 2 and not a.value) for a in update.attributes)


def as_path_text(path: tuple[tuple[int, tuple[int, ...]], ...]) -> str:
    """An AS_PATH in the usual notation: sets in braces, confederation sequences in parentheses, their sets in brackets.

    Sets are shown sorted and without repeats.
    """
    parts: list[str] = []
    for kind, asns in path:
        if kind == 2:
            parts.append(" ".join(map(str, asns)))
        elif kind == 3:
            parts.append("(" + " ".join(map(str, asns)) + ")")
        else:
            members = ",".join(map(str, sorted(set(asns))))
            parts.append("{" + members + "}" if kind == 1 else "[" + members + "]")
    return " ".join(parts)
