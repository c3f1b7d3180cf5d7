"""BGP messages of clients made of octets, for counting instructions."""

from __future__ import annotations

ASN = 64512
MARKER = b"\xff" * 16


def message(kind: int, body: bytes) -> bytes:
    """One BGP message."""
    return MARKER + (19 + len(body)).to_bytes(2) + bytes([kind]) + body


def open_message(number: int, add_path: bool = False) -> bytes:
    """The OPEN of client `number`: IPv4 unicast, four-octet AS, perhaps ADD-PATH both ways."""
    capabilities = bytes((1, 4, 0, 1, 0, 1, 65, 4)) + ASN.to_bytes(4)
    capabilities += bytes((69, 4, 0, 1, 1, 3)) * add_path
    options = bytes((2, len(capabilities))) + capabilities
    body = b"\4" + ASN.to_bytes(2) + (90).to_bytes(2) + bytes((10, 0, 0, number)) + bytes([len(options)]) + options
    return message(1, body)
