"""OPEN messages (RFC 4271 §4.2, §6.2; RFC 5492; RFC 6286; RFC 6793; RFC 9072)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from struct import Struct

from attrs import frozen

from bgpd.errors import BGPError, ErrorCode
from bgpd.wire.capabilities import Capability, FourOctetAs, build_capability, parse_capabilities
from bgpd.wire.framing import MessageType, build_message

VERSION = 4

_FIXED = Struct(">BHH4sB")
_CAPABILITIES = 2
_EXTENDED = 255
"""RFC 9072: as first parameter type, the mark of the form with two-octet lengths."""


@frozen
class Open:
    """One OPEN. `asn` is the two-octet field; `router_id` the four octets of the BGP identifier; times in seconds."""

    asn: int
    hold_time: int
    router_id: bytes
    capabilities: tuple[Capability, ...] = ()
    version: int = VERSION

    @property
    def four_octet_asn(self) -> int:
        """The speaker's AS number: capability 65's if it is there, else the field's (RFC 6793 §3)."""
        for capability in self.capabilities:
            if isinstance(capability, FourOctetAs):
                return capability.asn
        return self.asn


def parse_open(body: bytes) -> Open:
    """Read an OPEN. Raises BGPError 2/x. Whether AS numbers suit each other and the peer, negotiation says."""
    version, asn, hold_time, router_id, length = _FIXED.unpack_from(body)
    if version != VERSION:
        raise BGPError(ErrorCode.OPEN_MESSAGE, 1, VERSION.to_bytes(2, "big"), f"version {version}")
    if asn == 0:
        raise BGPError(ErrorCode.OPEN_MESSAGE, 2, reason="AS 0 (RFC 7607)")
    if hold_time in (1, 2):
        raise BGPError(ErrorCode.OPEN_MESSAGE, 6, reason=f"hold time {hold_time}")
    if router_id == bytes(4):
        raise BGPError(ErrorCode.OPEN_MESSAGE, 3, reason="BGP identifier 0.0.0.0 (RFC 6286)")
    found: list[Capability] = []
    for kind, value in _parameters(length, body[_FIXED.size :]):
        if kind != _CAPABILITIES:
            raise BGPError(ErrorCode.OPEN_MESSAGE, 4, reason=f"optional parameter type {kind}")
        found += parse_capabilities(value)
    message = Open(asn, hold_time, router_id, tuple(found))
    if message.four_octet_asn == 0:
        raise BGPError(ErrorCode.OPEN_MESSAGE, 2, reason="AS 0 in capability 65 (RFC 7607)")
    return message


def _parameters(length: int, octets: bytes) -> Iterator[tuple[int, bytes]]:
    """(type, value) of each optional parameter, in either form of RFC 9072."""
    header = 2
    # RFC 9072 §2: the marker type decides; the one-octet length beside it is ignored unless 0.
    if length and octets[:1] == bytes((_EXTENDED,)):
        header = 3
        if len(octets) < 3:
            raise _malformed("extended parameters without a length")
        length = octets[1] << 8 | octets[2]
        octets = octets[3:]
    if length != len(octets):
        raise _malformed(f"parameter length {length}, {len(octets)} octets there")
    start = 0
    while start < length:
        value_at = start + header
        if value_at > length:
            raise _malformed("cut parameter")
        value_end = value_at + int.from_bytes(octets[start + 1 : value_at], "big")
        if value_end > length:
            raise _malformed("parameter runs over the message")
        yield octets[start], octets[value_at:value_end]
        start = value_end


def _malformed(reason: str) -> BGPError:
    return BGPError(ErrorCode.OPEN_MESSAGE, 0, reason=reason)


def build_open(message: Open) -> bytes:
    """The whole message: one parameter a capability, so that the oldest peers can read it (RFC 5492 §4).

    The form of RFC 9072 only where the parameters need more than 255 octets.
    """
    values = [build_capability(c) for c in message.capabilities]
    extended = b""
    if sum(2 + len(value) for value in values) > _EXTENDED:
        parameters = b"".join(_parameter(values, 2))
        extended = bytes((_EXTENDED,)) + len(parameters).to_bytes(2, "big")
    else:
        parameters = b"".join(_parameter(values, 1))
    length = _EXTENDED if extended else len(parameters)
    fixed = _FIXED.pack(message.version, message.asn, message.hold_time, message.router_id, length)
    return build_message(MessageType.OPEN, fixed + extended + parameters)


def _parameter(values: Iterable[bytes], width: int) -> Iterator[bytes]:
    return (bytes((_CAPABILITIES,)) + len(value).to_bytes(width, "big") + value for value in values)
