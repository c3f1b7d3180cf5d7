"""Graceful restart, the helper's side at session level: which families' routes are kept, and until when.

The session knows families and deadlines; the routes are the RIB's. A family is stale from a loss until its End-of-RIB,
its deadline, or a reopening that does not promise that the peer kept forwarding.

Deviation from RFC 4724 §4.2, with a switch: routes that are stale already stay over a further loss, until the restart
time counted from the first one. The RFC deletes them, and a daemon that restarts twice in a row then drops traffic.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from bgpd.family import Family

STALE_TIME = 360.0
"""Seconds that a reopened session has for its End-of-RIB before stale routes go (RFC 4724 §4.2 names no bound)."""

_NONE: frozenset[Family] = frozenset()


class Helper:
    """Stale families of one peer, with their deadlines."""

    __slots__ = ("_deadlines", "_established", "_stale_until")

    def __init__(self) -> None:
        self._deadlines: dict[Family, float] = {}
        self._established = False
        self._stale_until = math.inf

    @property
    def stale(self) -> frozenset[Family]:
        """Families of which stale routes are kept."""
        return frozenset(self._deadlines)

    def lose(self, families: frozenset[Family], time: float, keeps: bool, now: float) -> frozenset[Family]:
        """The session was lost; keep `families` for `time` seconds. Returns families whose routes that were stale
        before this loss must go first: always the overdue ones, and all of them unless `keeps`."""
        self._established = False
        kept = {family: at for family, at in self._deadlines.items() if family in families}
        expired = frozenset(family for family, at in kept.items() if not keeps or at <= now)
        self._deadlines = dict.fromkeys(families, now + time)
        self._deadlines.update((family, at) for family, at in kept.items() if family not in expired)
        return expired

    def reopen(self, forwarding: Iterable[Family], time: float, now: float) -> frozenset[Family]:
        """The session is Established again; `forwarding` are the negotiated families with the F bit.

        Returns the stale families whose routes must go now (RFC 4724 §4.2).
        """
        dropped = self.stale.difference(forwarding)
        for family in dropped:
            del self._deadlines[family]
        self._established = True
        self._stale_until = now + max(STALE_TIME, time)
        return dropped

    def synchronized(self, family: Family) -> None:
        """End-of-RIB came for the family: nothing of it is stale any more."""
        self._deadlines.pop(family, None)

    def clear(self) -> frozenset[Family]:
        """Give up everything; returns what was stale."""
        stale = self.stale
        self._deadlines.clear()
        return stale

    def deadline(self) -> float:
        """When `expire` has something to do."""
        if not self._deadlines:
            return math.inf
        return self._stale_until if self._established else min(self._deadlines.values())

    def expire(self, now: float) -> frozenset[Family]:
        """Families whose time is over; they are not stale any more afterwards."""
        if now < self.deadline():
            return _NONE
        if self._established:
            return self.clear()
        expired = frozenset(family for family, at in self._deadlines.items() if at <= now)
        for family in expired:
            del self._deadlines[family]
        return expired
