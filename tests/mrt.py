"""A small reader for MRT files (RFC 6396): whole BGP messages out of recorded sessions, gzip or plain.

Only what the tests and the bench replay is read: BGP4MP and BGP4MP_ET records that hold a message.
"""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path
from struct import Struct
from typing import NamedTuple

_HEADER = Struct(">IHHI")
_BGP4MP, _BGP4MP_ET = 16, 17
_AS_OCTETS = {1: 2, 4: 4, 6: 2, 7: 4, 8: 2, 9: 4, 10: 2, 11: 4}
"""Subtypes that hold a message, and the width of AS numbers in it. 8 to 11 hold paths with identifiers (RFC 8050)."""
_ADD_PATH = (8, 9, 10, 11)


class Recorded(NamedTuple):
    """One BGP message as somebody received it. `message` is whole: marker, length, type, body."""

    time: float
    peer: str
    peer_asn: int
    asn4: bool
    add_path: bool
    message: bytes


def read_messages(path: Path) -> Iterator[Recorded]:
    """The messages of a file, in order. A cut last record ends the reading; records of other kinds are skipped."""
    octets = path.read_bytes()
    if octets[:2] == b"\x1f\x8b":
        octets = gzip.decompress(octets)
    start = 0
    while start + _HEADER.size <= len(octets):
        seconds, kind, subtype, length = _HEADER.unpack_from(octets, start)
        record = octets[start + _HEADER.size : start + _HEADER.size + length]
        start += _HEADER.size + length
        if len(record) < length:
            return
        if kind not in (_BGP4MP, _BGP4MP_ET) or subtype not in _AS_OCTETS:
            continue
        fraction = 0.0
        if kind == _BGP4MP_ET:
            fraction, record = int.from_bytes(record[:4], "big") / 1e6, record[4:]
        yield _message(seconds + fraction, subtype, record)


def _message(time: float, subtype: int, record: bytes) -> Recorded:
    """Peer AS, local AS, interface, AFI, both addresses, then the message."""
    width = _AS_OCTETS[subtype]
    peer_asn = int.from_bytes(record[:width], "big")
    address_at = 2 * width + 4
    size = 4 if record[address_at - 2 : address_at] == b"\0\1" else 16
    address = record[address_at : address_at + size]
    message = record[address_at + 2 * size :]
    return Recorded(time, str(ip_address(address)), peer_asn, width == 4, subtype in _ADD_PATH, message)


def updates(path: Path) -> Iterator[tuple[str, bytes]]:
    """(peer, whole message) of each UPDATE in a file."""
    return ((recorded.peer, recorded.message) for recorded in read_messages(path) if recorded.message[18:19] == b"\x02")
