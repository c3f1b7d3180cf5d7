"""Nexthop objects that routes of others lead to: what they mean now, and which of them matter. Pure.

The kernel is silent about the routes when such an object goes, or when a group loses a member with its link; where
nexthop_compat_mode is 0 it also names the object alone in each route. So what happens to an object that is in use
is news of its routes.
"""

from __future__ import annotations

from collections.abc import Iterable

from bgpd.fib import messages as nl


class NexthopObjects:
    """All nexthop objects of the kernel by id, and how many learned routes lead to each."""

    def __init__(self) -> None:
        self._items: dict[int, nl.NexthopObject] = {}
        self._uses: dict[int, int] = {}

    def count(self, shapes: Iterable[nl.RouteShape], by: int) -> None:
        """Learned routes of these shapes came (`by` 1) or went (-1)."""
        for shape in shapes:
            if ident := shape.nexthop_id:
                self._uses[ident] = self._uses.get(ident, 0) + by
                if not self._uses[ident]:
                    del self._uses[ident]

    def hops(self, ident: int) -> tuple[nl.HopKey, ...]:
        """Where an object leads."""
        item = self._items.get(ident)
        if item is None:
            return ()
        if item.hop:
            return (item.hop,)
        members = (self._items.get(member) for member in item.group)
        return tuple(member.hop for member in members if member and member.hop)

    def put(self, new: bool, item: nl.NexthopObject) -> set[int]:
        """An object is there, or is no more. Returns those in use that lead elsewhere by that, or are gone."""
        old = self._items.get(item.id)
        if new:
            self._items[item.id] = item
        else:
            self._items.pop(item.id, None)
        return self._used({item.id}) if old is not None and (not new or old != item) else set()

    def replace(self, items: Iterable[nl.NexthopObject]) -> set[int]:
        """All objects, from a dump. Returns as `put` does."""
        old, self._items = self._items, {item.id: item for item in items}
        return self._used({ident for ident, item in old.items() if self._items.get(ident) != item})

    def __contains__(self, ident: int) -> bool:
        return ident in self._items

    def _used(self, changed: set[int]) -> set[int]:
        if not changed or not self._uses:
            return set()
        groups = {item.id for item in self._items.values() if not changed.isdisjoint(item.group)}
        return (changed | groups) & self._uses.keys()
