"""How much long work does in one go, so that nothing else waits for more than about 10 ms.

A job yields after each slice what it cost; a turn of the loop does jobs until they have cost SLICE.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import TypeAlias

Job: TypeAlias = Generator[int, None, int]
"""Yields what each slice cost; returns a number for the log, 0 for none."""

SLICE = 4096
"""Routes that are removed in one go; and what a turn's work may cost, in such routes."""
REVIEWED = 2048
"""Routes that are treated anew in one go, at most: with all that follows, each costs several times a removed one."""
PATHS_REMOVED = 384
"""And of how many paths they may be, about."""
PATHS = 96
"""And their paths, about: where hardly two prefixes share attributes, a path costs 100 microseconds with all that
follows from it."""


def first_size() -> int:
    """How many routes the first slice is to have, when nothing is known of their paths."""
    return min(PATHS, REVIEWED)


def next_size(size: int, paths: int) -> int:
    """How many routes the next slice is to have, when one of `size` had so many paths."""
    return min(max(size * PATHS // (paths or 1), 1), REVIEWED)


def next_removal(size: int, paths: int) -> int:
    """The same for routes that are removed."""
    return min(max(size * PATHS_REMOVED // (paths or 1), 1), SLICE)


def nothing() -> Job:
    """A job that is done."""
    yield from ()
    return 0
