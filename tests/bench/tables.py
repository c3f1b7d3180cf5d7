"""The full table that a benchmark plays: the real one of 2015, or a generated one of the same shape."""

from __future__ import annotations

import gzip
import random
import struct
from pathlib import Path

from attrs import frozen

SHARED = Path(__file__).resolve().parents[3] / "shared"
MRT_2015 = SHARED / "vectors" / "mrt" / "updates.et-header.2015.gz"
_MARKER = b"\xff" * 16


@frozen
class Table:
    """UPDATE messages as they go over one iBGP session of `asn`, and how many distinct prefixes they announce."""

    name: str
    asn: int
    messages: tuple[bytes, ...]
    prefixes: int


def full_table(limit: int = 0) -> Table:
    """The real table where ../shared is there, else a generated one; `limit` cuts it to so many UPDATEs."""
    table = read_mrt(MRT_2015) if MRT_2015.exists() else generate(90_000)
    if limit and limit < len(table.messages):
        cut = table.messages[:limit]
        return Table(f"{table.name}, first {limit} UPDATEs", table.asn, cut, count_prefixes(cut))
    return table


def read_mrt(path: Path) -> Table:
    """The UPDATEs of a BGP4MP(_ET) MESSAGE_AS4 file (RFC 6396 §4.4.3, §3), octet for octet."""
    data = gzip.decompress(path.read_bytes())
    offset, asn = 0, 0
    messages: list[bytes] = []
    while offset < len(data):
        _, kind, subtype, length = struct.unpack_from("!IHHI", data, offset)
        start = offset + 12 + (4 if kind == 17 else 0)
        offset += 12 + length
        if kind not in (16, 17) or subtype != 4:
            continue
        asn, _, _, afi = struct.unpack_from("!IIHH", data, start)
        message = data[start + 12 + 2 * (4 if afi == 1 else 16) : offset]
        if message[18] == 2:
            messages.append(message)
    found = tuple(messages)
    return Table(f"MRT {path.name}", asn, found, count_prefixes(found))


def count_prefixes(messages: tuple[bytes, ...]) -> int:
    """Distinct IPv4 prefixes announced and not withdrawn again."""
    table: set[bytes] = set()
    for message in messages:
        withdrawn_end = 21 + int.from_bytes(message[19:21], "big")
        start = withdrawn_end + 2 + int.from_bytes(message[withdrawn_end : withdrawn_end + 2], "big")
        table.difference_update(_split(message[21:withdrawn_end]))
        table.update(_split(message[start:]))
    return len(table)


def _split(field: bytes) -> list[bytes]:
    out, offset = [], 0
    while offset < len(field):
        end = offset + 1 + (field[offset] + 7) // 8
        out.append(field[offset:end])
        offset = end
    return out


def generate(updates: int, asn: int = 3856, seed: int = 2015) -> Table:
    """A table like the real one: every UPDATE with attributes of its own, about 6.4 prefixes each, 2 to 7 hops."""
    chance = random.Random(seed)
    hops = [bytes([193, 218, chance.randrange(256), chance.randrange(1, 255)]) for _ in range(700)]
    messages, number, prefixes = [], 0, 0
    for _ in range(updates):
        path = [chance.randrange(1, 64000) for _ in range(chance.randint(2, 7))]
        communities = b"".join(
            struct.pack("!HH", path[0], chance.randrange(65536)) for _ in range(chance.randint(1, 6))
        )
        attributes = b"\x40\x01\x01\x00"
        attributes += (
            b"\x50\x02" + struct.pack("!HBB", 2 + 4 * len(path), 2, len(path)) + struct.pack(f"!{len(path)}I", *path)
        )
        attributes += b"\x40\x03\x04" + chance.choice(hops)
        attributes += b"\x80\x04\x04" + struct.pack("!I", chance.randrange(200))
        attributes += b"\x40\x05\x04" + struct.pack("!I", 100)
        attributes += b"\xc0\x08" + bytes([len(communities)]) + communities
        nlri = b""
        for _ in range(min(200, 1 + int(chance.expovariate(1 / 5.4)))):
            nlri += b"\x18" + struct.pack("!I", (1 << 24) + (number << 8))[:3]
            number += 1
        prefixes += len(nlri) // 4
        body = b"\0\0" + struct.pack("!H", len(attributes)) + attributes + nlri
        messages.append(_MARKER + struct.pack("!HB", 19 + len(body), 2) + body)
    return Table(f"generated ({updates} UPDATEs)", asn, tuple(messages), prefixes)
