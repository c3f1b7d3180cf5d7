"""Operations on the kernel's table, in the batches in which the writer hands them out. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import repeat
from typing import TypeAlias, overload

from bgpd.fib.entries import Form, Nexthop
from bgpd.fib.messages import ADD

Op: TypeAlias = tuple[int, bytes, Form | Nexthop]
"""(verb, NLRI key, what to write); the key of a nexthop object is b""."""


class Additions(Sequence[Op]):
    """A batch of additions alone: of one family's routes, or (`keys` all b"") of nexthop objects without members.

    That is what a table that comes in consists of. Columns serve it at a third of the cost of a tuple an operation.
    """

    __slots__ = ("keys", "targets")

    def __init__(self, keys: list[bytes], targets: list[Form] | list[Nexthop]) -> None:
        self.keys = keys
        self.targets = targets

    def __len__(self) -> int:
        return len(self.targets)

    def __iter__(self) -> Iterator[Op]:
        return zip(repeat(ADD), self.keys, self.targets, strict=False)

    @overload
    def __getitem__(self, index: int) -> Op: ...

    @overload
    def __getitem__(self, index: slice) -> list[Op]: ...

    def __getitem__(self, index: int | slice) -> Op | list[Op]:
        if isinstance(index, slice):
            return list(self)[index]
        return ADD, self.keys[index], self.targets[index]
