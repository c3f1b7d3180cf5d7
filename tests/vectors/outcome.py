"""What came of a case: filled by the codec here, and by anything else that can play one (a session over TCP)."""

from __future__ import annotations

from typing import Any

from attrs import Factory, define

ACCEPT = "accept"
WITHDRAW = "treat-as-withdraw"
IGNORE = "ignore"
RESET = "session-reset"
CLOSE = "close"
INCOMPLETE = "incomplete"
"""The octets are no whole message: nothing happens until more come."""


@define
class Outcome:
    """`result` is one of the words above. Of an UPDATE the rest says what it came to."""

    result: str
    code: int = 0
    subcode: int = 0
    data: bytes = b""
    reason: str = ""
    announced: dict[tuple[int, int], list[str]] = Factory(dict)
    """Prefixes in the form of `plain.read_nlri`, by (AFI, SAFI)."""
    withdrawn: dict[tuple[int, int], list[str]] = Factory(dict)
    end_of_rib: tuple[int, int] | None = None
    attributes: list[tuple[int, int, bytes]] = Factory(list)
    """(flags, code, value) of what was kept for announced routes, next hop and MP attributes apart."""
    next_hops: dict[tuple[int, int], bytes] = Factory(dict)
    findings: list[Any] = Factory(list)
    """bgpd.wire.examine.Finding, or anything with code, action, reason and rfc."""
    path: tuple[tuple[int, tuple[int, ...]], ...] = ()
    fault: str = ""
    """A defect of ours: an exception of the wrong type, a round trip that changes something."""
