"""What a compile may take over from the one before: results of pure functions, by the identity of their inputs.

A compile always makes the whole wanted state; memory only spares it from making the same values again. Since resources
are immutable, a result whose inputs are the very same objects is the same result. Results are handed on as the same
objects too, so that whoever compares two settings can stop at `is`. Forgetting everything at any time changes nothing
but speed, and a property test holds compiles with memory against fresh ones.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from operator import is_
from typing import Any, TypeVar

from config.snapshot import changed_since

__all__ = ["Memory"]

T = TypeVar("T")


class Memory:
    """Belongs to one compiler; never shared."""

    def __init__(self) -> None:
        self._made: dict[object, tuple[tuple[object, ...], Any]] = {}
        self._values: dict[object, Any] = {}
        self._chosen: dict[object, tuple[tuple[object, ...], Mapping[str, Any], dict[str, Any]]] = {}
        self._tables: dict[object, tuple[tuple[object, ...], dict[Any, Any]]] = {}

    def made(self, key: object, inputs: tuple[object, ...], make: Callable[[], T]) -> T:
        """The result of `make`, or the former one under `key` if its inputs were these very objects."""
        known = self._made.get(key)
        if known is not None and _same(known[0], inputs):
            result: T = known[1]
            return result
        made = make()
        if known is not None and known[1] == made:
            # Other inputs, equal result: what is made of it in turn need not be made again.
            made = known[1]
        self._made[key] = (inputs, made)
        return made

    def last(self, key: object) -> tuple[tuple[Any, ...], Any] | None:
        """The inputs and the result of the last `made` under `key`."""
        return self._made.get(key)

    def shared(self, key: object, value: T) -> T:
        """`value`, as the object that it was before where it is equal to that."""
        known: T | None = self._values.get(key)
        if known is not None and known == value:
            return known
        self._values[key] = value
        return value

    def table(self, key: object, inputs: tuple[object, ...] = ()) -> dict[Any, Any]:
        """A place for results of one kind, emptied whenever `inputs` are other objects than before."""
        known = self._tables.get(key)
        if known is None or not _same(known[0], inputs):
            known = self._tables[key] = (inputs, {})
        return known[1]

    def chosen(
        self, key: object, objects: Mapping[str, T], keep: Callable[[T], bool], inputs: tuple[object, ...]
    ) -> dict[str, T]:
        """The objects that `keep`, which depends on `inputs`, keeps, by name: the same dict while they are the same.

        Where the map came from the last one, no more is looked at than what has changed.
        """
        known = self._chosen.get(key)
        found: dict[str, T] | None = None
        if known is not None and _same(known[0], inputs):
            names = changed_since(objects, known[1])
            if names is not None:
                kept: dict[str, T] = known[2]
                before = {name: kept[name] for name in names if name in kept}
                after = {name: objects[name] for name in names if name in objects and keep(objects[name])}
                found = kept if before == after else {**_without(kept, before), **after}
        if found is None:
            found = {name: entry for name, entry in objects.items() if keep(entry)}
        self._chosen[key] = (inputs, objects, found)
        return found

    @staticmethod
    def trim(table: dict[Any, Any], live: Collection[Any]) -> None:
        """Forget what is in the table beside `live` once that is the larger part."""
        if len(table) > 2 * len(live) + 64:
            kept = {key: table[key] for key in live if key in table}
            table.clear()
            table.update(kept)


def _without(objects: dict[str, T], gone: Collection[str]) -> dict[str, T]:
    return {name: entry for name, entry in objects.items() if name not in gone}


def _same(old: tuple[object, ...], new: tuple[object, ...]) -> bool:
    return len(old) == len(new) and all(map(is_, old, new))
