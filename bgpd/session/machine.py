"""One run of the state machine: a TCP connection with its framer and timers (RFC 4271 §8.2.1, §10)."""

from __future__ import annotations

import math

from bgpd.session.fsm import State
from bgpd.session.negotiate import Negotiated
from bgpd.wire.framing import HEADER_LENGTH, MARKER, Framer
from bgpd.wire.open import Open

LARGE_HOLD_TIME = 240.0
"""Seconds to wait for the peer's OPEN (RFC 4271 §8.2.2 suggests 4 minutes)."""


class Machine:
    """State, and while there is a connection its id, framer, OPENs and timers.

    Timers are plain deadlines or start times. The hold timer is `last_received` and a comparison: receiving costs one
    store.
    """

    __slots__ = (
        "blocked_at",
        "buffer",
        "confirmed_early",
        "conn",
        "decide_at",
        "framer",
        "hold_time",
        "keepalive_at",
        "last_received",
        "local_address",
        "negotiated",
        "outgoing",
        "probed_at",
        "received",
        "send_hold_time",
        "sent",
        "state",
    )

    def __init__(self, state: State = State.IDLE) -> None:
        self.state = state
        self.conn: int | None = None
        self.outgoing = False
        self.local_address = ""
        self.framer = Framer()
        self.buffer = bytearray()
        """Octets before the end of the first message."""
        self.sent: Open | None = None
        self.received: Open | None = None
        self.negotiated: Negotiated | None = None
        self.confirmed_early = False
        """The peer's KEEPALIVE came while the answer to its OPEN is put off."""
        self.decide_at = math.inf
        """Until when the answer to the peer's OPEN is put off in favour of another connection."""
        self.hold_time = 0.0
        """Seconds; 0 = no hold timer."""
        self.last_received = 0.0
        self.keepalive_at = math.inf
        self.send_hold_time = 0.0
        """Seconds; 0 = no send hold timer."""
        self.blocked_at = math.inf
        """Since when the peer's TCP has taken nothing (RFC 9687)."""
        self.probed_at = -math.inf

    def attach(self, conn: int, outgoing: bool, local_address: str) -> None:
        """A TCP connection is there."""
        self.conn = conn
        self.outgoing = outgoing
        self.local_address = local_address

    @property
    def undecided(self) -> bool:
        """Both OPENs are out, and the answer is put off."""
        return self.decide_at != math.inf

    def hold_at(self) -> float:
        """When the hold timer expires."""
        return self.last_received + self.hold_time if self.hold_time else math.inf

    def send_hold_at(self) -> float:
        """When the send hold timer expires."""
        return self.blocked_at + self.send_hold_time if self.send_hold_time else math.inf

    def deadline(self) -> float:
        """The earliest of the timers."""
        at = self.decide_at
        if self.keepalive_at < at:
            at = self.keepalive_at
        if self.hold_time and self.last_received + self.hold_time < at:
            at = self.last_received + self.hold_time
        if self.send_hold_time and self.blocked_at + self.send_hold_time < at:
            at = self.blocked_at + self.send_hold_time
        return at

    def first_message(self) -> bytes | None:
        """Cut the first message off the buffer once it is complete, or its header if that is wrong already.

        The messages behind an OPEN obey limits that this OPEN sets, so the framer must not see them earlier.
        """
        if len(self.buffer) < HEADER_LENGTH:
            return None
        length = int.from_bytes(self.buffer[16:18])
        if length > self.framer.max_length or self.buffer[:16] != MARKER:
            length = HEADER_LENGTH  # The framer will say what is wrong with it.
        if len(self.buffer) < length:
            return None
        length = max(length, HEADER_LENGTH)
        first = bytes(self.buffer[:length])
        del self.buffer[:length]
        return first
