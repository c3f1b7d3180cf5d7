"""NOTIFICATION messages (RFC 4271 §4.5), shutdown text (RFC 9003), hard reset (RFC 8538)."""

from __future__ import annotations

from attrs import frozen

from bgpd.errors import Cease, ErrorCode, describe
from bgpd.wire.framing import HEADER_LENGTH, MAX_LENGTH, MessageType, build_message

_SHUTDOWN_SUBCODES = (Cease.ADMINISTRATIVE_SHUTDOWN, Cease.ADMINISTRATIVE_RESET)
_TEXT_LIMIT = 255


@frozen
class Notification:
    """One NOTIFICATION. `str()` is fit for a log line: nothing of the peer's goes in unescaped."""

    code: int
    subcode: int
    data: bytes = b""

    def build(self) -> bytes:
        """The whole message. Data beyond the 4096 octets of a message is cut off."""
        body = bytes((self.code, self.subcode)) + self.data
        return build_message(MessageType.NOTIFICATION, body[: MAX_LENGTH - HEADER_LENGTH])

    def __str__(self) -> str:
        inner = unwrap_hard_reset(self)
        if inner is not None:
            # One level and no more: a peer may nest hard resets two thousand deep.
            return f"{describe(self.code, self.subcode)}, {inner.in_words}"
        return self.in_words

    @property
    def in_words(self) -> str:
        """Code pair and shutdown text, without a look into a hard reset."""
        text = describe(self.code, self.subcode)
        said = self.shutdown_text
        return f'{text} "{said}"' if said else text

    @property
    def shutdown_text(self) -> str | None:
        """The operator's text of an administrative shutdown or reset; None for every other NOTIFICATION."""
        if self.code == ErrorCode.CEASE and self.subcode in _SHUTDOWN_SUBCODES:
            return shutdown_text(self.data)
        return None

    @property
    def is_hard_reset(self) -> bool:
        """Cease/9: no graceful restart follows (RFC 8538 §3.1)."""
        return self.code == ErrorCode.CEASE and self.subcode == Cease.HARD_RESET


def parse_notification(body: bytes) -> Notification:
    """Never raises: an error in a NOTIFICATION is only logged (RFC 4271 §6.4). Missing octets count as 0."""
    padded = body[:2].ljust(2, b"\0")
    return Notification(padded[0], padded[1], body[2:])


def shutdown_text(data: bytes) -> str | None:
    """RFC 9003 text, control and undecodable octets escaped; None for no text. Its length octet is a claim only."""
    if not data:
        return None
    text = data[1 : 1 + data[0]].decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text) or None


def build_shutdown_data(text: str) -> bytes:
    """Data field for Cease/2 and Cease/4, at most 255 octets of text, never cut inside a character."""
    raw = text.encode("utf-8", "replace")[:_TEXT_LIMIT].decode("utf-8", "ignore").encode()
    return bytes((len(raw),)) + raw if raw else b""


def wrap_hard_reset(inner: Notification) -> Notification:
    """Cease/9 around the NOTIFICATION that says why (RFC 8538 §3.1)."""
    return Notification(ErrorCode.CEASE, Cease.HARD_RESET, bytes((inner.code, inner.subcode)) + inner.data)


def unwrap_hard_reset(notification: Notification) -> Notification | None:
    """The NOTIFICATION inside a Cease/9; None if this is no hard reset or holds nothing usable."""
    if not notification.is_hard_reset or len(notification.data) < 2:
        return None
    return parse_notification(notification.data)
