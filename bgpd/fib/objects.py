"""Nexthop objects that routes of others lead to: what they mean now, and which routes that concerns. Pure.

The kernel is silent about the routes when such an object goes, or when a group loses a member with its link; where
nexthop_compat_mode is 0 it also names the object alone in each route. So what happens to an object that is in use
is news of its routes.
"""

from __future__ import annotations

from collections.abc import Iterable

from bgpd.fib import messages as nl

RouteName = tuple[int, bytes]
"""Address family and table key of a learned route."""


class NexthopObjects:
    """All nexthop objects of the kernel by id, the groups that each is in, and the learned routes that lead to each.

    One message costs what it concerns: a link that goes takes thousands of objects along, each with a message."""

    def __init__(self) -> None:
        self._items: dict[int, nl.NexthopObject] = {}
        self._groups: dict[int, dict[int, None]] = {}
        self._routes: dict[int, dict[RouteName, None]] = {}

    def lead(self, name: RouteName, before: Iterable[nl.RouteShape], now: Iterable[nl.RouteShape]) -> None:
        """The routes learned for a prefix had these shapes and have those."""
        old = {shape.nexthop_id for shape in before if shape.nexthop_id}
        new = {shape.nexthop_id for shape in now if shape.nexthop_id}
        for ident in new - old:
            self._routes.setdefault(ident, {})[name] = None
        for ident in old - new:
            routes = self._routes[ident]
            del routes[name]
            if not routes:
                del self._routes[ident]

    def hops(self, ident: int) -> tuple[nl.HopKey, ...]:
        """Where an object leads."""
        item = self._items.get(ident)
        if item is None:
            return ()
        if item.hop:
            return (item.hop,)
        members = (self._items.get(member) for member in item.group)
        return tuple(member.hop for member in members if member and member.hop)

    def put(self, new: bool, item: nl.NexthopObject) -> list[RouteName]:
        """An object is there, or is no more. Returns the routes that lead elsewhere by that, or nowhere."""
        old = self._items.get(item.id)
        self._store(item.id, item if new else None)
        return self._concerned([item.id]) if old is not None and (not new or old != item) else []

    def replace(self, items: Iterable[nl.NexthopObject]) -> list[RouteName]:
        """All objects, from a dump. Returns as `put` does."""
        found = {item.id: item for item in items}
        changed = [ident for ident, item in self._items.items() if found.get(ident) != item]
        for ident in self._items.keys() - found.keys():
            self._store(ident, None)
        for ident, item in found.items():
            self._store(ident, item)
        return self._concerned(changed)

    def __contains__(self, ident: int) -> bool:
        return ident in self._items

    def _store(self, ident: int, item: nl.NexthopObject | None) -> None:
        old = self._items.pop(ident, None)
        for member in old.group if old else ():
            groups = self._groups.get(member, {})
            groups.pop(ident, None)
            if not groups:
                self._groups.pop(member, None)
        if item is None:
            return
        self._items[ident] = item
        for member in item.group:
            self._groups.setdefault(member, {})[ident] = None

    def _concerned(self, changed: Iterable[int]) -> list[RouteName]:
        found: dict[RouteName, None] = {}
        for ident in changed:
            for each in (ident, *self._groups.get(ident, ())):
                found |= self._routes.get(each, {})
        return list(found)
