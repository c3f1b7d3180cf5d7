"""Errors of the protocol, and the codes that say them on the wire (RFC 4271 §4.5, §6).

One exception type leaves the codec and the session: `BGPError`. Anything else that escapes them is a defect.
"""

from __future__ import annotations

from enum import IntEnum


class ErrorCode(IntEnum):
    """NOTIFICATION error codes (RFC 4271 §4.5, RFC 7313 §5, RFC 9687 §4)."""

    MESSAGE_HEADER = 1
    OPEN_MESSAGE = 2
    UPDATE_MESSAGE = 3
    HOLD_TIMER_EXPIRED = 4
    FSM = 5
    CEASE = 6
    ROUTE_REFRESH = 7
    SEND_HOLD_TIMER_EXPIRED = 8


class Cease(IntEnum):
    """Cease subcodes (RFC 4486, RFC 8538 §3.1)."""

    MAXIMUM_PREFIXES = 1
    ADMINISTRATIVE_SHUTDOWN = 2
    PEER_DECONFIGURED = 3
    ADMINISTRATIVE_RESET = 4
    CONNECTION_REJECTED = 5
    OTHER_CONFIGURATION_CHANGE = 6
    COLLISION_RESOLUTION = 7
    OUT_OF_RESOURCES = 8
    HARD_RESET = 9


_SUBCODES: dict[int, dict[int, str]] = {
    1: {1: "connection not synchronized", 2: "bad message length", 3: "bad message type"},
    2: {
        1: "unsupported version number",
        2: "bad peer AS",
        3: "bad BGP identifier",
        4: "unsupported optional parameter",
        6: "unacceptable hold time",
        7: "unsupported capability",
        11: "role mismatch",
    },
    3: {
        1: "malformed attribute list",
        2: "unrecognized well-known attribute",
        3: "missing well-known attribute",
        4: "attribute flags error",
        5: "attribute length error",
        6: "invalid ORIGIN attribute",
        8: "invalid NEXT_HOP attribute",
        9: "optional attribute error",
        10: "invalid network field",
        11: "malformed AS_PATH",
    },
    5: {
        1: "unexpected message in OpenSent",
        2: "unexpected message in OpenConfirm",
        3: "unexpected message in Established",
    },
    6: {
        1: "maximum number of prefixes reached",
        2: "administrative shutdown",
        3: "peer de-configured",
        4: "administrative reset",
        5: "connection rejected",
        6: "other configuration change",
        7: "connection collision resolution",
        8: "out of resources",
        9: "hard reset",
        10: "BFD down",
    },
    7: {1: "invalid message length"},
}

_CODES = {
    1: "message header error",
    2: "OPEN message error",
    3: "UPDATE message error",
    4: "hold timer expired",
    5: "finite state machine error",
    6: "cease",
    7: "ROUTE-REFRESH message error",
    8: "send hold timer expired",
}


def describe(code: int, subcode: int) -> str:
    """A NOTIFICATION's code pair in words: "3/5 UPDATE message error: attribute length error"."""
    name = _CODES.get(code, "unknown error code")
    detail = _SUBCODES.get(code, {}).get(subcode)
    return f"{code}/{subcode} {name}: {detail}" if detail else f"{code}/{subcode} {name}"


def brief(code: int, subcode: int) -> str:
    """A NOTIFICATION's code pair in few words: "Attribute length error", "Hold timer expired"."""
    text = _SUBCODES.get(code, {}).get(subcode) or _CODES.get(code, "unknown error code")
    return text[0].upper() + text[1:]


class BGPError(Exception):
    """A fault of the peer that ends its session with one NOTIFICATION (RFC 4271 §6).

    `code`, `subcode` and `data` are the NOTIFICATION's fields; `reason` is for the log and names what was wrong.
    """

    def __init__(self, code: int, subcode: int = 0, data: bytes = b"", reason: str = "") -> None:
        super().__init__(code, subcode, data, reason)
        self.code = code
        self.subcode = subcode
        self.data = data
        self.reason = reason

    def __str__(self) -> str:
        text = describe(self.code, self.subcode)
        return f"{text} ({self.reason})" if self.reason else text
