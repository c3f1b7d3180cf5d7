"""How much long work does in one go, so that nothing else waits for more than about 10 ms.

A job yields after each slice what it cost; a turn of the loop does jobs until they have cost SLICE.
"""

from __future__ import annotations

SLICE = 4096
"""Routes that are removed in one go; and what a turn's work may cost, in such routes."""
REVIEWED = 2048
"""Routes that are treated anew in one go, at most: with all that follows, each costs several times a removed one."""
PATHS = 96
"""And their paths, about: where hardly two prefixes share attributes, a path costs 100 microseconds with all that
follows from it."""


def next_size(size: int, paths: int) -> int:
    """How many routes the next slice is to have, when one of `size` had so many paths."""
    return min(max(size * PATHS // (paths or 1), 1), REVIEWED)
