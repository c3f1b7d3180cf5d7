"""The cases that are played over live sessions: the given message vectors, and malformed attributes in every place.

Each case becomes a `LiveCase`: what session it needs, the octets, and what may happen.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from attrs import frozen

from tests.interop.speakers import as_path, attribute, key, update
from tests.vectors.disputed_page import read_page

OUR_AS, EXTERNAL_AS = 65000, 65001
PREFIX4, PREFIX6 = "203.0.113.0/24", "2001:db8:113::/48"
HOP4, HOP6 = "10.0.0.2", "2001:db8::2"
STAY = frozenset(
    {
        "accept",
        "treat-as-withdraw",
        "attribute-discard",
        "accept-or-treat-as-withdraw",
        "loop-reject",
        "ignore-route",
        "ignore-prefix",
        "ignore",
    }
)
"""Actions after which the session must be up."""
GONE = frozenset({"treat-as-withdraw", "loop-reject"})
"""Actions after which none of the message's prefixes may be left."""
EXCEPTIONS = {
    "cb77d5cda36e": (
        "reset 3/1",
        "MED has a well-known attribute's flags (RFC 7606 3(c)) and nothing is reachable (5.2)",
    ),
    "bb72b7cd0a47": ("reset 3/1", "Total Path Attribute Length runs beyond the message (RFC 4271 6.3)"),
    "3e27c43e16f0": ("reset 7/1", "subtype 1 with a body that is not 4 octets long (RFC 7313 5)"),
}
"""Vector id -> an outcome that is right on a live session although the set calls for another, and the clause."""


@frozen
class LiveCase:
    """One case. `kind` is the message type's name; `also` are further outcomes that the set calls right."""

    name: str
    kind: str
    octets: bytes
    action: str
    internal: bool
    four_octet: bool
    add_path: bool
    reflector: bool = False
    notifications: frozenset[tuple[int, int]] = frozenset()
    """NOTIFICATIONs that are right where the session is to end; empty = any."""
    also: frozenset[str] = frozenset()
    asn: int = EXTERNAL_AS
    gone_if_up: bool = False
    """The set calls for the route's withdrawal, and no other outcome with the session up is right."""
    first_as: bool = False
    """The peer's AS must come first in the AS_PATH (RFC 4271 §6.3): off for vectors that come from elsewhere."""
    must_hold: bool = False
    """The prefix must have arrived at the observer."""

    @property
    def prefixes(self) -> tuple[tuple[int, bytes], ...]:
        """(path id octets + key as AFI, octets) of what the UPDATE announces, found leniently."""
        return tuple(dict.fromkeys(announced(self.octets[19:], self.add_path))) if self.kind == "UPDATE" else ()


def announced(body: bytes, add_path: bool) -> Iterator[tuple[int, bytes]]:
    """(AFI, NLRI octets, with the path id where there is one) of a possibly damaged UPDATE: all that can be found."""
    if len(body) < 4:
        return
    end = 2 + int.from_bytes(body[:2], "big")
    start = end + 2 + int.from_bytes(body[end : end + 2], "big")
    if start <= len(body) and end + 2 <= len(body):
        yield from ((1, item) for item in split(body[start:], 32, add_path))
    offset, stop = end + 2, min(start, len(body))
    while offset + 3 <= stop:
        flags, code = body[offset], body[offset + 1]
        wide = 2 if flags & 0x10 else 1
        length = int.from_bytes(body[offset + 2 : offset + 2 + wide], "big")
        value = body[offset + 2 + wide : offset + 2 + wide + length]
        offset += 2 + wide + length
        if code == 14 and len(value) > 5 and offset <= stop and value[2] == 1 and value[:2] in (b"\0\1", b"\0\2"):
            afi = value[1]
            yield from ((afi, item) for item in split(value[5 + value[3] :], 32 if afi == 1 else 128, add_path))


def split(field: bytes, bits: int, add_path: bool) -> list[bytes]:
    """The NLRI of a field, up to the first that is damaged; host bits cleared."""
    out, offset = [], 0
    skip = 4 if add_path else 0
    while offset + skip < len(field):
        length = field[offset + skip]
        end = offset + skip + 1 + (length + 7) // 8
        if length > bits or end > len(field):
            break
        item = bytearray(field[offset:end])
        if length % 8:
            item[-1] &= 0xFF << (8 - length % 8) & 0xFF
        out.append(bytes(item))
        offset = end
    return out


def given(folder: Path) -> Iterator[LiveCase]:
    """The message vectors of a folder (or one .jsonl file), with what disputed.md beside them allows."""
    files = [folder] if folder.is_file() else sorted(folder.glob("*.jsonl"))
    for file in files:
        disputed = read_page(file)
        for line in file.read_text().splitlines():
            yield from_json(json.loads(line), disputed)


def from_json(data: dict[str, Any], disputed: dict[str, frozenset[str]]) -> LiveCase:
    """A case of messages.jsonl."""
    octets, context, expect = bytes.fromhex(data["hex"]), data["context"], data["expect"]
    kind = data["type"]
    length = int.from_bytes(octets[16:18], "big")
    if expect["action"] in STAY and 19 <= length < len(octets):
        octets = octets[:length]  # what follows is the next message's beginning, cut from a stream
    internal, four_octet, add_path = _session(context, kind, octets)
    pairs = [(expect["code"], expect["subcode"])] if "code" in expect else []
    for item in expect.get("alt", ()):
        pairs.append(_pair(item))
    asn = OUR_AS if internal else EXTERNAL_AS
    if kind == "OPEN" and expect["action"] == "accept":
        asn = open_asn(octets[19:]) or asn
    action, also = expect["action"], disputed.get(data["id"], frozenset())
    if data["id"] in EXCEPTIONS:
        also |= {EXCEPTIONS[data["id"]][0]}
    if kind == "OPEN":
        also |= _open_exceptions(octets[19:])
    own = data["origin"].startswith("own")
    optional = "withdraw" in expect.get("note", "")  # right as well, the case itself says
    hidden = bool(re.search(r"08[0-9a-f]{2}ffffff0", data["hex"]))  # NO_EXPORT and its like stay with us
    return LiveCase(
        f"{data['id']} {data['name']}",
        kind,
        octets,
        action,
        internal,
        four_octet,
        add_path,
        bool(context.get("reflector")),
        frozenset(pairs),
        also,
        asn,
        action in GONE and not also & {"accept"} and "pass on unchanged" not in expect.get("note", ""),
        own and not internal,
        own and action in ("accept", "attribute-discard") and kind == "UPDATE" and not (also or hidden or optional),
    )


def _open_exceptions(body: bytes) -> frozenset[str]:
    """Outcomes that are right for an OPEN on a session of ours, though a parser alone would take it."""
    families = set(re.findall(rb"\x01\x04(..)\0(.)", body[10:], re.S))
    found = set()
    if families and not families & {(b"\0\1", b"\1"), (b"\0\2", b"\1")}:
        found.add("reset 2/7")  # no family in common (RFC 5492 §3, RFC 4760 §8)
    if body[1:3] == b"\x5b\xa0" and b"\x41\x04" not in body:
        found.add("reset 2/2")  # AS_TRANS stands for nobody without capability 65 (RFC 6793 §4.1)
    return frozenset(found)


def _pair(item: Any) -> tuple[int, int]:
    if isinstance(item, str):
        code, _, subcode = item.partition("/")
        return int(code), int(subcode)
    return (item["code"], item["subcode"]) if isinstance(item, dict) else (item[0], item[1])


def _session(context: dict[str, Any], kind: str, octets: bytes) -> tuple[bool, bool, bool]:
    """(internal, four-octet AS, ADD-PATH). Where the set is silent: iBGP if LOCAL_PREF or an empty AS_PATH is there."""
    four_octet, add_path = bool(context.get("asn4", True)), bool(context.get("addpath", False))
    if "peer" in context:
        return context["peer"] == "ibgp", four_octet, add_path
    if kind != "UPDATE" or len(octets) < 23:
        return False, four_octet, add_path
    codes = dict(attributes(octets[19:]))
    path = codes.get(2, b"")
    internal = 5 in codes or not path
    if four_octet and path and not _fits(path, 4) and _fits(path, 2):
        four_octet = False
    if not add_path and not _parses(octets[19:], False) and _parses(octets[19:], True):
        add_path = True
    return internal, four_octet, add_path


def _parses(body: bytes, add_path: bool) -> bool:
    """Whether every NLRI field of the message can be split to its end."""
    codes = dict(attributes(body))
    end = 2 + int.from_bytes(body[:2], "big")
    start = end + 2 + int.from_bytes(body[end : end + 2], "big")
    fields = [(body[2:end], 32), (body[start:], 32)]
    reach, gone = codes.get(14, b""), codes.get(15, b"")
    if len(reach) > 4:
        fields.append((reach[5 + reach[3] :], 128 if reach[:2] == b"\0\2" else 32))
    if len(gone) >= 3:
        fields.append((gone[3:], 128 if gone[:2] == b"\0\2" else 32))
    return all(sum(map(len, split(field, bits, add_path))) == len(field) for field, bits in fields)


def attributes(body: bytes) -> Iterator[tuple[int, bytes]]:
    """(code, value) of the attributes that can be walked."""
    end = 2 + int.from_bytes(body[:2], "big")
    offset, stop = end + 2, end + 2 + int.from_bytes(body[end : end + 2], "big")
    while offset + 3 <= min(stop, len(body)):
        wide = 2 if body[offset] & 0x10 else 1
        length = int.from_bytes(body[offset + 2 : offset + 2 + wide], "big")
        yield body[offset + 1], body[offset + 2 + wide : offset + 2 + wide + length]
        offset += 2 + wide + length


def _fits(path: bytes, width: int) -> bool:
    offset = 0
    while offset + 2 <= len(path):
        if path[offset] not in (1, 2, 3, 4) or not path[offset + 1]:
            return False
        offset += 2 + width * path[offset + 1]
    return offset == len(path)


def open_asn(body: bytes) -> int:
    """The AS that an OPEN names: capability 65's, else the field's."""
    asn = int.from_bytes(body[1:3], "big")
    match = re.search(rb"\x41\x04(....)", body[10:], re.S)
    return int.from_bytes(match[1], "big") if match else asn


# Malformed attributes in every place.

_CLUSTER = struct.pack("!I", 0x0A000009)
MALFORMED: dict[str, tuple[bytes, str, str]] = {
    "ORIGIN of 2 octets": (attribute(0x40, 1, b"\0\0"), "treat-as-withdraw", "treat-as-withdraw"),
    "ORIGIN 3": (attribute(0x40, 1, b"\3"), "treat-as-withdraw", "treat-as-withdraw"),
    "ORIGIN optional": (attribute(0xC0, 1, b"\0"), "treat-as-withdraw", "treat-as-withdraw"),
    "AS_PATH with an unknown segment": (
        attribute(0x40, 2, b"\x09\x01\0\0\xfd\xe9"),
        "treat-as-withdraw",
        "treat-as-withdraw",
    ),
    "AS_PATH overrun": (attribute(0x40, 2, b"\x02\x05\0\0\xfd\xe9"), "treat-as-withdraw", "treat-as-withdraw"),
    "AS_PATH with AS 0": (
        attribute(0x40, 2, b"\x02\x02\0\0\xfd\xe9\0\0\0\0"),
        "treat-as-withdraw",
        "treat-as-withdraw",
    ),
    "MED of 3 octets": (attribute(0x80, 4, b"\0\0\1"), "treat-as-withdraw", "treat-as-withdraw"),
    "LOCAL_PREF of 3 octets": (attribute(0x40, 5, b"\0\0\1"), "attribute-discard", "treat-as-withdraw"),
    "ATOMIC_AGGREGATE of 1 octet": (attribute(0x40, 6, b"\0"), "attribute-discard", "attribute-discard"),
    "AGGREGATOR of 7 octets": (attribute(0xC0, 7, bytes(7)), "attribute-discard", "attribute-discard"),
    "COMMUNITIES of 5 octets": (attribute(0xC0, 8, bytes(5)), "treat-as-withdraw", "treat-as-withdraw"),
    "COMMUNITIES empty": (attribute(0xC0, 8, b""), "treat-as-withdraw", "treat-as-withdraw"),
    "ORIGINATOR_ID of 3 octets": (attribute(0x80, 9, bytes(3)), "attribute-discard", "treat-as-withdraw"),
    "CLUSTER_LIST of 5 octets": (attribute(0x80, 10, _CLUSTER + b"\0"), "attribute-discard", "treat-as-withdraw"),
    "extended communities of 7 octets": (attribute(0xC0, 16, bytes(7)), "treat-as-withdraw", "treat-as-withdraw"),
    "AS4_PATH that overruns": (
        attribute(0xC0, 17, b"\x02\x09\0\0\xfd\xe9"),
        "attribute-discard",
        "attribute-discard",
    ),
    "AS4_AGGREGATOR of 7 octets": (attribute(0xC0, 18, bytes(7)), "attribute-discard", "attribute-discard"),
    "large communities of 11 octets": (attribute(0xC0, 32, bytes(11)), "treat-as-withdraw", "treat-as-withdraw"),
    "OTC of 5 octets": (attribute(0xC0, 35, bytes(5)), "treat-as-withdraw", "treat-as-withdraw"),
    "prefix SID of zeros": (attribute(0xC0, 40, bytes(40)), "attribute-discard", "attribute-discard"),
    "attribute 255 of 300 octets": (attribute(0xC0, 255, bytes(300)), "accept", "accept"),
}
"""Attribute, action on an external session, action on an internal one (RFC 7606 §7 and the attributes' own RFCs)."""


def generated() -> Iterator[LiveCase]:
    """Each malformed attribute first, in the middle and last; before MP_REACH_NLRI and behind it; both peer kinds."""
    for internal in (False, True):
        good = {1: attribute(0x40, 1, b"\0"), 2: as_path(*(() if internal else (EXTERNAL_AS,)))}
        if internal:
            good[5] = attribute(0x40, 5, struct.pack("!I", 100))
        for version in (4, 6):
            prefix = PREFIX4 if version == 4 else PREFIX6
            nlri = key(prefix)
            if version == 4:
                route = attribute(0x40, 3, bytes((10, 0, 0, 2)))
            else:
                hop = bytes.fromhex("20010db8000000000000000000000002")
                route = attribute(0x80, 14, struct.pack("!HBB", 2, 1, 16) + hop + b"\0" + nlri)
            for name, (bad, external_action, internal_action) in MALFORMED.items():
                rest = [value for code, value in good.items() if code != bad[1]]
                places = {
                    "first, route last": [bad, *rest, route],
                    "before the route": [*rest, bad, route],
                    "behind the route": [route, bad, *rest],
                    "last": [route, *rest, bad],
                }
                for place, parts in places.items():
                    octets = update(b"".join(parts), nlri if version == 4 else b"")
                    action = internal_action if internal else external_action
                    label = f"{name}, {place}, IPv{version}, {'internal' if internal else 'external'}"
                    yield LiveCase(
                        label,
                        "UPDATE",
                        octets,
                        action,
                        internal,
                        True,
                        False,
                        asn=OUR_AS if internal else EXTERNAL_AS,
                        gone_if_up=action == "treat-as-withdraw",
                        must_hold=action in ("accept", "attribute-discard"),
                    )
