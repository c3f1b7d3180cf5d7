"""How often one address may connect."""

from __future__ import annotations

__all__ = ["ConnectionPace"]

_SWEEP_SIZE = 1024
"""Addresses remembered before those that have been quiet are forgotten."""


class ConnectionPace:
    """A bucket of tokens for each address: `rate` new connections a second, and as many at once."""

    def __init__(self, rate: int) -> None:
        self.rate = rate
        """Connections a second; 0 = any number."""
        self._buckets: dict[str, tuple[float, float]] = {}  # address -> tokens left, and when that was
        self._sweep_at = _SWEEP_SIZE

    def __len__(self) -> int:
        return len(self._buckets)

    def allow(self, address: str, now: float) -> bool:
        """Whether a connection from this address may be served now; `now` in seconds."""
        if not self.rate:
            return True
        left, then = self._buckets.get(address, (float(self.rate), now))
        left = min(left + (now - then) * self.rate, float(self.rate))
        allowed = left >= 1.0
        self._buckets[address] = (left - 1.0 if allowed else left, now)
        if len(self._buckets) > self._sweep_at:
            self._sweep(now)
        return allowed

    def _sweep(self, now: float) -> None:
        """Forget addresses whose bucket is full again: after a second, all are."""
        self._buckets = {address: kept for address, kept in self._buckets.items() if now - kept[1] < 1.0}
        self._sweep_at = max(_SWEEP_SIZE, 2 * len(self._buckets))
