"""A route reflector's client in the plainest way: octets out by hand, octets in by hand, a table as a dict.

Nothing here is the project's own codec, so a fault that both sides of it share is seen.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

ASN = 64512
AFI_OF = {4: 1, 6: 2}
MARKER = b"\xff" * 16
KEEPALIVE = MARKER + b"\0\x13\x04"


@dataclass(frozen=True)
class Told:
    """What a client knows of one path."""

    hop: bytes
    local_pref: int
    med: int | None
    originator: bytes
    clusters: tuple[bytes, ...]


Place = tuple[int, bytes, bytes]
"""(4 or 6, path id or b"", prefix as on the wire)."""


@dataclass
class PlainClient:
    """One peer of the reflector."""

    address: str
    router_id: bytes
    add_path: bool
    client: bool
    """RFC 4456's word; else a non-client."""
    graceful: bool = False
    conn: int | None = None
    stalled: bool = False
    waiting: bool = False
    """The reflector has octets for it, which it has not taken."""
    table: dict[Place, Told] = field(default_factory=dict)
    ended: set[int] = field(default_factory=set)
    twice: int = 0
    """Withdrawals of what it did not have, which are harmless, for a look at waste."""

    def hop(self, version: int) -> bytes:
        """Its own address, as next hop."""
        packed = bytes(map(int, self.address.split(".")))
        return packed if version == 4 else b"\xfd" + bytes(11) + packed

    def open(self) -> bytes:
        """OPEN and the KEEPALIVE that answers the reflector's."""
        capabilities = [b"\x01\x04\0\x01\0\x01", b"\x01\x04\0\x02\0\x01", b"\x02\0", b"\x46\0",
                        b"\x41\x04" + struct.pack("!I", ASN)]  # fmt: skip
        if self.add_path:
            capabilities.append(b"\x45\x08\0\x01\x01\x03\0\x02\x01\x03")
        if self.graceful:
            capabilities.append(b"\x40\x0a" + struct.pack("!H", 100) + b"\0\x01\x01\x80\0\x02\x01\x80")
        parameters = b"".join(b"\x02" + bytes((len(item),)) + item for item in capabilities)
        body = struct.pack("!BHH4sB", 4, ASN, 90, self.router_id, len(parameters)) + parameters
        return message(1, body) + KEEPALIVE

    def receive(self, data: bytes) -> None:
        """Put what the reflector sent into the table."""
        while data:
            size = int.from_bytes(data[16:18], "big")
            assert data[:16] == MARKER and size <= 4096
            if data[18] == 2:
                self._update(data[19:size])
            data = data[size:]

    def _update(self, body: bytes) -> None:
        end = 2 + int.from_bytes(body[:2], "big")
        start = end + 2 + int.from_bytes(body[end : end + 2], "big")
        found = dict(attributes(body[end + 2 : start]))
        for place in self._places(4, body[2:end]):
            self._gone(place)
        if 15 in found:
            for place in self._places(6, found[15][3:]):
                self._gone(place)
        if not body[2:end] and not body[start:] and (not found or (set(found) == {15} and len(found[15]) == 3)):
            self.ended.add(6 if found else 4)
        if 14 in found:
            size = found[14][3]
            told = _told(found, found[14][4 : 4 + size])
            self.table.update(dict.fromkeys(self._places(6, found[14][5 + size :]), told))
        if body[start:]:
            self.table.update(dict.fromkeys(self._places(4, body[start:]), _told(found, found[3])))

    def _gone(self, place: Place) -> None:
        if self.table.pop(place, None) is None:
            self.twice += 1

    def _places(self, version: int, nlri: bytes) -> Iterator[Place]:
        while nlri:
            path_id, nlri = (nlri[:4], nlri[4:]) if self.add_path else (b"", nlri)
            size = 1 + (nlri[0] + 7) // 8
            yield version, path_id, nlri[:size]
            nlri = nlri[size:]


def message(kind: int, body: bytes) -> bytes:
    """A whole message."""
    return MARKER + struct.pack("!HB", 19 + len(body), kind) + body


def attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    """(code, value)."""
    while data:
        wide = 2 if data[0] & 0x10 else 1
        size = int.from_bytes(data[2 : 2 + wide], "big")
        yield data[1], data[2 + wide : 2 + wide + size]
        data = data[2 + wide + size :]


def _told(found: dict[int, bytes], hop: bytes) -> Told:
    clusters = found.get(10, b"")
    return Told(
        hop,
        int.from_bytes(found[5], "big"),
        int.from_bytes(found[4], "big") if 4 in found else None,
        found.get(9, b""),
        tuple(clusters[i : i + 4] for i in range(0, len(clusters), 4)),
    )


def announcement(version: int, told: Told, units: list[bytes]) -> bytes:
    """An UPDATE that announces units with these attributes; originator b"" and no clusters: attributes left out."""
    block = b"\x40\x01\x01\0\x40\x02\0\x40\x05\x04" + struct.pack("!I", told.local_pref)
    if told.med is not None:
        block += b"\x80\x04\x04" + struct.pack("!I", told.med)
    if told.originator:
        block += b"\x80\x09\x04" + told.originator
    if told.clusters:
        block += b"\x80\x0a" + bytes((4 * len(told.clusters),)) + b"".join(told.clusters)
    nlri = b"".join(units)
    if version == 4:
        block += b"\x40\x03\x04" + told.hop
        return message(2, b"\0\0" + struct.pack("!H", len(block)) + block + nlri)
    value = b"\0\x02\x01" + bytes((len(told.hop),)) + told.hop + b"\0" + nlri
    block += b"\x90\x0e" + struct.pack("!H", len(value)) + value
    return message(2, b"\0\0" + struct.pack("!H", len(block)) + block)


def withdrawal(version: int, units: list[bytes]) -> bytes:
    """An UPDATE that withdraws units."""
    nlri = b"".join(units)
    if version == 4:
        return message(2, struct.pack("!H", len(nlri)) + nlri + b"\0\0")
    value = b"\0\x02\x01" + nlri
    block = b"\x90\x0f" + struct.pack("!H", len(value)) + value
    return message(2, b"\0\0" + struct.pack("!H", len(block)) + block)


def end_of_rib(version: int) -> bytes:
    """End-of-RIB (RFC 4724 §2)."""
    return message(2, b"\0\0\0\0") if version == 4 else message(2, b"\0\0\0\x06\x80\x0f\x03\0\x02\x01")


def refresh(version: int) -> bytes:
    """ROUTE-REFRESH."""
    return message(5, struct.pack("!HBB", AFI_OF[version], 0, 1))
