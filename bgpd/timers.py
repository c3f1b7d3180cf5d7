"""When which peer's session is to be looked at next."""

from __future__ import annotations

import heapq
import math
from collections import deque


class Timers:
    """Names by due time, earliest first.

    Sessions send their KEEPALIVEs at moments that they share, so there are far fewer moments than peers: the heap holds
    moments.
    """

    def __init__(self) -> None:
        self._heap: list[float] = []
        self._names: dict[float, deque[str]] = {}

    def add(self, due: float, name: str) -> None:
        """`name` is due at that time (seconds of the caller's clock), beside whatever it is due at already."""
        names = self._names.get(due)
        if names is None:
            self._names[due] = deque((name,))
            heapq.heappush(self._heap, due)
        else:
            names.append(name)

    def first(self) -> float:
        """The earliest due time; math.inf if there is none."""
        return self._heap[0] if self._heap else math.inf

    def take(self, now: float) -> str | None:
        """The name that has been due for longest; it is forgotten here, and the others are not. None: none is due."""
        if not self._heap or self._heap[0] > now:
            return None
        names = self._names[self._heap[0]]
        name = names.popleft()
        if not names:
            del self._names[heapq.heappop(self._heap)]
        return name
