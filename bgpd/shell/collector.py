"""When Python's cycle collector may run.

By default it scans whatever survives, again and again while a table grows. Of the CPU seconds that a full table costs
(577,706 prefixes in 89,679 UPDATEs, one core, CPython 3.11) it takes 1.0 of 5.0 with its own thresholds, with single
stops of 0.15 to 0.4 s; 0.45 with thresholds of 20,000, 10 and 1,000; and nothing here, where what a burst has left
behind is set aside without a look (`gc.freeze` only relinks a list). Routes hold no cycles; what does (removed peers,
ended tasks, answered requests) is little and can wait for a quiet moment.
"""

from __future__ import annotations

import asyncio
import gc
from time import monotonic

__all__ = ["Collector"]

LOOK_TIME = 10.0
"""Seconds between looks. Cyclic garbage of a moment lives at most so long."""
BURST = 50_000
"""More new objects than this since the last look (net, as `gc.get_count` counts) are set aside unseen."""
QUIET = 2_000
"""With fewer than these, a full pass over everything may run: 0.3 s with a full table, a few ms with a node's."""
FULL_TIME = 3600.0
"""Seconds between full passes, which free what became garbage after it was set aside."""


class Collector:
    """Replaces the automatic runs of the collector by its own, on one loop."""

    def __init__(self, look_time: float = LOOK_TIME, full_time: float = FULL_TIME) -> None:
        self.full_passes = 0
        self._look_time = look_time
        self._full_time = full_time
        self._full_at = 0.0
        self._handle: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Set everything loaded so far aside, and take over. Call it when the daemon is ready."""
        gc.disable()
        self._full_pass()
        self._again()

    def stop(self) -> None:
        """Back to the automatic runs."""
        if self._handle is not None:
            self._handle.cancel()
        gc.unfreeze()
        gc.enable()

    def look(self) -> None:
        """Collect what can be collected within some milliseconds."""
        young = gc.get_count()[0]
        if young > BURST:
            gc.freeze()
        elif young < QUIET and monotonic() >= self._full_at:
            self._full_pass()
        else:
            gc.collect()
            gc.freeze()

    def _full_pass(self) -> None:
        gc.unfreeze()
        gc.collect()
        gc.freeze()
        self.full_passes += 1
        self._full_at = monotonic() + self._full_time

    def _again(self) -> None:
        self._handle = asyncio.get_running_loop().call_later(self._look_time, self._tick)

    def _tick(self) -> None:
        self.look()
        self._again()
