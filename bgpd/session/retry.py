"""When a session dials again, and how it is held back after errors (RFC 4271 §8.1.1, DampPeerOscillations)."""

from __future__ import annotations

import math

ERROR_MEMORY = 300.0
"""Seconds without an error after which the earlier ones are forgotten. A short Established changes nothing."""
IDLE_HOLD_LIMIT = 30.0
SHORTEST_DELAY = 0.1
"""Whatever is configured, a second dial in a row waits at least this long: no busy loop."""


class Retry:
    """Back-off of dialling: the connect delay first, then doubled with each failure up to the connect retry time."""

    __slots__ = ("failures",)

    def __init__(self) -> None:
        self.failures = 0

    def delay(self, connect_delay: float, connect_retry: float) -> float:
        """Seconds until the next dial, before jitter."""
        if self.failures == 0:
            return connect_delay
        delay = max(connect_delay, SHORTEST_DELAY) * 2.0 ** min(self.failures, 30)
        return min(delay, max(connect_retry, SHORTEST_DELAY))


class Damping:
    """Idle hold after errors: the configured time, doubled by each further error up to 30 s."""

    __slots__ = ("errors", "idle_until", "last_error_at")

    def __init__(self) -> None:
        self.errors = 0
        self.last_error_at = -math.inf
        self.idle_until: float | None = None

    def error(self, idle_hold: float, jitter: float, now: float) -> None:
        """Note one error; `idle_until` says how long to stay idle."""
        if now - self.last_error_at >= ERROR_MEMORY:
            self.errors = 0
        self.errors += 1
        self.last_error_at = now
        hold = idle_hold * 2.0 ** min(self.errors - 1, 30)
        self.idle_until = now + min(hold, max(idle_hold, IDLE_HOLD_LIMIT)) * jitter

    def refuses(self, now: float) -> bool:
        """Whether an incoming connection is refused: only the second error in a row closes that door too.

        One error must not lock out a peer that has just been repaired; a peer that keeps making them must not go round
        without delay only because it is the one that dials.
        """
        return self.errors >= 2 and self.idle_until is not None and now < self.idle_until
