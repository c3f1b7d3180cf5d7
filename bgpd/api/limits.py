"""What keeps the API small beside the sessions: slices of work, and a rate."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import monotonic

SLICE_TIME = 0.004
"""Seconds of work between two turns of the loop: a session's octets wait no longer for an answer of the API."""


class Pace:
    """Cuts long work into slices. `await pace.rest()` every hundred steps or so; it yields when a slice is used up."""

    __slots__ = ("_began", "_clock", "_used", "longest", "slice_time")

    def __init__(self, slice_time: float = SLICE_TIME, clock: Callable[[], float] = monotonic) -> None:
        self.slice_time = slice_time
        self.longest = 0.0
        """Seconds of the longest slice so far."""
        self._clock = clock
        self._used = 0.0
        self._began = clock()

    def used(self) -> float:
        """Seconds of work so far, without what was waited."""
        return self._used + self._clock() - self._began

    async def rest(self) -> None:
        """Let the loop turn if this slice has had its time."""
        spent = self._clock() - self._began
        if spent >= self.slice_time:
            self.longest = max(self.longest, spent)
            self._used += spent
            await asyncio.sleep(0)
            self._began = self._clock()

    def resume(self) -> None:
        """The loop has turned while something else was awaited: a new slice begins, and the wait was no work."""
        self._began = self._clock()


class Rate:
    """A token bucket: `burst` requests at once, `rate` a second in the long run."""

    __slots__ = ("_at", "_burst", "_clock", "_left", "_rate")

    def __init__(self, rate: float, burst: float, clock: Callable[[], float] = monotonic) -> None:
        self._rate = rate
        self._burst = burst
        self._clock = clock
        self._left = burst
        self._at = clock()

    def take(self, cost: float = 1.0) -> bool:
        """True if a request of this cost may be served now."""
        now = self._clock()
        self._left = min(self._burst, self._left + (now - self._at) * self._rate)
        self._at = now
        if self._left < cost:
            return False
        self._left -= cost
        return True
