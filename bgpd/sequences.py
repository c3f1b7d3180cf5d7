"""What differs between two long sequences of objects that are mostly the same ones."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import compress, count
from operator import is_not
from typing import TypeVar

__all__ = ["alike", "parted"]

T = TypeVar("T")


def parted(old: tuple[T, ...], new: tuple[T, ...]) -> tuple[list[T], list[T]]:
    """What is in `old` and not in `new`, and what is in `new` and not in `old`, as objects.

    Of ten thousand peers, those that are the same are passed over in C.
    """
    if old is new:
        return [], []
    head = alike(old, new)
    tail = alike(old[head:][::-1], new[head:][::-1])
    gone, come = list(old[head : len(old) - tail]), list(new[head : len(new) - tail])
    if len(gone) == len(come):
        other = list(map(is_not, gone, come))
        gone, come = list(compress(gone, other)), list(compress(come, other))
    before, after = set(map(id, gone)), set(map(id, come))
    return [one for one in gone if id(one) not in after], [one for one in come if id(one) not in before]


def alike(one: Sequence[object], other: Sequence[object]) -> int:
    """How many are the same objects from the beginning on."""
    return next(compress(count(), map(is_not, one, other)), min(len(one), len(other)))
