"""Message headers: cutting a TCP stream into BGP messages (RFC 4271 §4.1, §6.1; RFC 8654)."""

from __future__ import annotations

from enum import IntEnum
from struct import Struct

from bgpd.errors import BGPError

HEADER_LENGTH = 19
MARKER = b"\xff" * 16
MAX_LENGTH = 4096
EXTENDED_MAX_LENGTH = 65535

_HEADER = Struct(">16sHB")
_LENGTH_AND_TYPE = Struct(">HB")


class MessageType(IntEnum):
    """Message types (RFC 4271 §4.1, RFC 2918)."""

    OPEN = 1
    UPDATE = 2
    NOTIFICATION = 3
    KEEPALIVE = 4
    ROUTE_REFRESH = 5


# Shortest whole message by type. ROUTE-REFRESH: RFC 7313 §5 has an error of its own (7/1) for a body of the wrong
# length; one without any body is a header error.
_SHORTEST = (0, 29, 23, 21, 19, 20)
_UPDATE, _SHORTEST_UPDATE = int(MessageType.UPDATE), _SHORTEST[MessageType.UPDATE]
# Longest: OPEN and KEEPALIVE never grow (RFC 8654 §4).
_LONGEST = (0, MAX_LENGTH, EXTENDED_MAX_LENGTH, EXTENDED_MAX_LENGTH, HEADER_LENGTH, EXTENDED_MAX_LENGTH)


def build_message(kind: int, body: bytes = b"") -> bytes:
    """A whole message: header and body. The caller sees to the maximum length."""
    return MARKER + _LENGTH_AND_TYPE.pack(HEADER_LENGTH + len(body), kind) + body


KEEPALIVE = build_message(MessageType.KEEPALIVE)


class Framer:
    """Collects octets and gives whole messages.

    `max_length` is 4096, or 65535 once both sides have sent the Extended Message capability. After a header error
    `error` is set and nothing more is read: the stream cannot be trusted from there on.
    """

    __slots__ = ("_rest", "error", "max_length")

    def __init__(self, max_length: int = MAX_LENGTH) -> None:
        self.max_length = max_length
        self.error: BGPError | None = None
        self._rest = b""

    def feed(self, data: bytes | bytearray | memoryview) -> list[tuple[int, bytes]]:
        """Messages completed by `data`, as (type, body without header); those before a header error included."""
        messages: list[tuple[int, bytes]] = []
        if self.error is not None:
            return messages
        # The copy is wanted: a transport may reuse its buffer as soon as this returns.
        stream = b"".join((self._rest, data))
        size = len(stream)
        limit = self.max_length
        start, header = 0, _HEADER.unpack_from
        while size - start >= HEADER_LENGTH:
            marker, length, kind = header(stream, start)
            if kind == _UPDATE and _SHORTEST_UPDATE <= length <= limit and marker == MARKER:
                pass  # nearly always
            elif (
                marker != MARKER
                or length > limit
                or not 1 <= kind <= 5
                or not _SHORTEST[kind] <= length <= _LONGEST[kind]
            ):
                self.error = _header_error(marker, length, kind, limit)
                self._rest = b""
                if marker == MARKER and kind == MessageType.NOTIFICATION:
                    # An error in a NOTIFICATION is not answered (RFC 4271 §6.4): what there is of it ends the session.
                    messages.append((kind, stream[start + HEADER_LENGTH : start + max(length, HEADER_LENGTH)]))
                return messages
            end = start + length
            if end > size:
                break
            messages.append((kind, stream[start + HEADER_LENGTH : end]))
            start = end
        self._rest = stream[start:]
        return messages


def _header_error(marker: bytes, length: int, kind: int, limit: int) -> BGPError:
    """The NOTIFICATION for a bad header, checks in the order of RFC 4271 §6.1."""
    if marker != MARKER:
        return BGPError(1, 1, reason="marker is not all ones")
    if HEADER_LENGTH <= length <= limit and not 1 <= kind <= 5:
        return BGPError(1, 3, bytes((kind,)), f"message type {kind}")
    return BGPError(1, 2, length.to_bytes(2, "big"), f"length {length} of message type {kind}")
