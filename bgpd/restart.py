"""The restarting side of graceful restart (RFC 4724 §4.1), as a small clockless state.

After a start, routes are selected and announced as they arrive. Two things wait until the peers' tables are in again:
our End-of-RIB, and the removal of kernel routes found at start that no one has claimed. They wait until every peer
that *has connected* and restarts gracefully has sent its End-of-RIB and no further one has come for a quiet time; a
peer that stays away holds nothing up beyond that; where none has come at all, and in any case, the deadline ends it.
A peer without graceful restart never says that its routes are in: for the kernel it has the quiet time to send them.
"""

from __future__ import annotations

import math

from bgpd.family import Family

_OTHERS = ""
"""Stands for peers whose names are not known before they come."""
QUIET_TIME = 10.0
"""Seconds without a new peer before the phase may end while some are away: twice the connect retry time, so that an
active peer whose first dial met our closed port is not taken for absent."""


class RestartPhase:
    """Who is still awaited since the start."""

    def __init__(self) -> None:
        self.active = False
        self.holds_kernel = False
        self._awaited: set[tuple[str, Family]] = set()
        self._incomplete: set[tuple[str, Family]] = set()
        self._expected: set[str] = set()
        self._silent: set[str] = set()
        """Peers that have come and will send no End-of-RIB."""
        self._quiet_at = math.inf
        self._deadline = 0.0

    def begin(self, now: float, peers: set[str], longest: float, others: bool = False) -> None:
        """Start at `now`; `peers` are the configured ones, `longest` the seconds after which it ends regardless.

        `others`: dynamic peers may come as well, nobody knows how many: it ends when none has come for a quiet time.
        """
        self.active = self.holds_kernel = bool(peers) or others
        self._expected = set(peers)
        if others:
            self._expected.add(_OTHERS)
        self._quiet_at = math.inf
        self._deadline = now + longest

    def established(self, peer: str, families: frozenset[Family], restarting: bool, now: float) -> None:
        """A session came up; `families` are those for which it will send End-of-RIB, if any.

        A peer that is `restarting` as well may wait for our End-of-RIB, so ours does not wait for its (RFC 4724 §4.1).
        The kernel does: until the peer has sent its routes, those found at start may be its.
        """
        if self.holds_kernel:
            self._expected.discard(peer)
            self._incomplete |= {(peer, family) for family in families}
            if not families:
                self._silent.add(peer)
            if not restarting:
                self._awaited |= {(peer, family) for family in families}
            self._quiet_at = now + QUIET_TIME

    def end_of_rib(self, peer: str, family: Family) -> None:
        """A peer has sent all it has of a family."""
        self._awaited.discard((peer, family))
        self._incomplete.discard((peer, family))

    def lost(self, peer: str, now: float) -> None:
        """A session ended: its peer is awaited as one that has not connected yet, unless it had sent everything."""
        if peer in self._silent or any(name == peer for name, _ in self._incomplete):
            self._expected.add(peer)
            self._quiet_at = now + QUIET_TIME
        self._forget(peer)

    def _forget(self, peer: str) -> None:
        self._silent.discard(peer)
        self._awaited = {(name, family) for name, family in self._awaited if name != peer}
        self._incomplete = {(name, family) for name, family in self._incomplete if name != peer}

    def removed(self, peer: str) -> None:
        """A peer is configured no longer."""
        self._expected.discard(peer)
        self._forget(peer)

    def waiting_for(self) -> list[str]:
        """What the phase waits for, for people."""
        return sorted(f"End-of-RIB {family} of {name}" for name, family in self._incomplete)

    def missing(self) -> list[str]:
        """Peers that have not come back, and then what those that have did not send, for people."""
        return [*sorted(self._expected - {_OTHERS}), *self.waiting_for()]

    def deadline(self) -> float | None:
        """When to ask `over` again, if nothing happens before."""
        if not self.holds_kernel:
            return None
        waiting = self._awaited if self.active else self._incomplete
        return self._deadline if waiting else min(self._quiet_at, self._deadline)

    def over(self, now: float) -> bool:
        """True once, when the phase ends."""
        if not self.active:
            return False
        complete = not self._awaited and (not self._expected or now >= self._quiet_at)
        if complete or now >= self._deadline:
            self.active = False
            return True
        return False

    def releases(self, now: float) -> bool:
        """True once, when the kernel need not wait any longer: after `over`, with every connected peer's routes in."""
        if self.active or not self.holds_kernel:
            return False
        away = self._expected or self._silent
        complete = not self._incomplete and (not away or now >= self._quiet_at)
        if complete or now >= self._deadline:
            self.holds_kernel = False
            return True
        return False
