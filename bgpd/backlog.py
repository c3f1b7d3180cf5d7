"""Work that takes long, done in slices behind what cannot wait."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from bgpd.rib.slices import SLICE


class Backlog:
    """Jobs in their order. Each yields after every slice what it cost (`bgpd.rib.slices`)."""

    def __init__(self) -> None:
        self._jobs: deque[Iterator[int]] = deque()

    def __bool__(self) -> bool:
        return bool(self._jobs)

    def add(self, job: Iterator[int]) -> None:
        """A job for later, behind those that wait."""
        self._jobs.append(job)

    def work(self) -> None:
        """Do a slice; short jobs behind each other are done in one go."""
        done = 0
        while self._jobs and done < SLICE:
            count = next(self._jobs[0], None)
            if count is None:
                self._jobs.popleft()
            else:
                done += max(count, 1)
