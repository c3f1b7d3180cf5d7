"""The store of resources: immutable, so that a compile never sees half a change.

An object that is refused keeps its last good version in force, and its problems stand beside it until a good version or
its removal comes.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, TypeVar

from attrs import field, frozen

from config import resources as r
from config.problems import Problem
from config.resources import Resource

__all__ = ["Key", "Objects", "Put", "Refuse", "Remove", "Snapshot", "StoreChange", "changed_since"]

Key = tuple[str, str]
"""(kind, name)."""

T = TypeVar("T", bound=Resource)
_NONE: Mapping[str, Any] = MappingProxyType({})


class Objects(dict[str, Resource]):
    """All objects of a kind by name. Never changed once it is in a snapshot; it knows in which names it differs from
    the ones that it came from, so that whoever has followed those need not look at thousands to find one."""

    __slots__ = ("_mark", "_steps")

    def __init__(self, before: Mapping[str, Resource] = MappingProxyType({})) -> None:
        super().__init__(before)
        self._mark = object()
        self._steps: tuple[tuple[object, frozenset[str]], ...] = ()
        """(mark of an earlier one, names changed since then until the next), the last step first."""

    def came_from(self, before: Mapping[str, Resource], names: Collection[str]) -> None:
        """Note that these names alone may differ from `before`."""
        if isinstance(before, Objects) and len(names) <= _STEPS:
            self._steps = ((before._mark, frozenset(names)), *before._steps[: _STEPS - 1])

    def changed_since(self, before: Mapping[str, Resource]) -> set[str] | None:
        """Names that may differ; None: it is not known, or they are many."""
        if before is self:
            return set()
        if not isinstance(before, Objects):
            return None
        names: set[str] = set()
        for mark, changed in self._steps:
            names |= changed
            if mark is before._mark:
                return names
        return None


_STEPS = 64
"""Changes that are remembered; and the largest one in which it is worth it."""


def changed_since(after: Mapping[str, Any], before: Mapping[str, Any]) -> set[str] | None:
    """The names by which two maps of one kind may differ; None: it is not known, or they are many."""
    return after.changed_since(before) if isinstance(after, Objects) else None


@frozen
class Put:
    """A good version of an object, with notices."""

    resource: Resource
    notices: tuple[Problem, ...] = ()

    @property
    def key(self) -> Key:
        """What it changes."""
        return (type(self.resource).__name__, self.resource.name)


@frozen
class Refuse:
    """A version of an object that cannot be used."""

    key: Key
    problems: tuple[Problem, ...]
    instead: Resource | None = None
    """What to go on with where there never was a good version: the object without the fields that mean nothing."""


@frozen
class Remove:
    """The object is gone."""

    key: Key


StoreChange = Put | Refuse | Remove


@frozen
class Snapshot:
    """All resources at one moment. `apply` gives the next one; maps of kinds that did not change are shared."""

    objects: Mapping[str, Mapping[str, Resource]] = field(factory=dict)
    problems: Mapping[Key, tuple[Problem, ...]] = field(factory=dict)
    """Of refused objects, and notices of accepted ones."""
    source_problems: tuple[Problem, ...] = ()
    """Faults of the datastore itself (a file that cannot be read, a folder that is gone)."""
    complete: bool = True
    """False: what the datastore shows now is held back, and this is an earlier state."""

    def apply(self, changes: Iterable[StoreChange]) -> Snapshot:
        """The snapshot after these changes, in order."""
        objects: dict[str, Any] = dict(self.objects)
        problems = dict(self.problems)
        changed: dict[str, set[str]] = {}
        for change in changes:
            kind, name = change.key
            if kind not in changed:
                changed[kind] = set()
                objects[kind] = Objects(objects.get(kind, {}))
            changed[kind].add(name)
            problems.pop(change.key, None)
            if isinstance(change, Put):
                objects[kind][name] = change.resource
                if change.notices:
                    problems[change.key] = change.notices
            elif isinstance(change, Refuse):
                problems[change.key] = change.problems
                if change.instead is not None:
                    objects[kind].setdefault(name, change.instead)
            else:
                objects[kind].pop(name, None)
        for kind, names in changed.items():
            objects[kind].came_from(self.objects.get(kind, {}), names)
        return Snapshot(objects, problems, self.source_problems, self.complete)

    def is_news_after(self, before: Snapshot) -> bool:
        """Whether it may differ from an earlier one. Maps of kinds are not looked into, as they may be large."""
        if self.objects.keys() != before.objects.keys():
            return True
        if any(held is not before.objects[kind] for kind, held in self.objects.items()):
            return True
        mine = (self.complete, self.source_problems, self.problems)
        return mine != (before.complete, before.source_problems, before.problems)

    def put(self, resource: Resource) -> Snapshot:
        """With this object in place of any earlier version."""
        return self.apply([Put(resource)])

    def refuse(self, key: Key, problems: Iterable[Problem]) -> Snapshot:
        """With the object's new version refused; the last good one, if any, stays."""
        return self.apply([Refuse(key, tuple(problems))])

    def remove(self, key: Key) -> Snapshot:
        """Without the object."""
        return self.apply([Remove(key)])

    def of(self, kind: type[T]) -> Mapping[str, T]:
        """All objects of a kind by name, in no order that means anything."""
        # The same object each time also where there is none: who compares maps stops at `is`.
        found: Any = self.objects.get(kind.__name__, _NONE)
        return found  # type: ignore[no-any-return]

    def refused_without_version(self, key: Key) -> bool:
        """Whether the object exists, but never had a version that could be used."""
        if self.objects.get(key[0], {}).get(key[1]) is not None:
            return False
        return any(problem.refused for problem in self.problems.get(key, ()))

    def all_problems(self) -> Iterator[Problem]:
        """Every problem, the datastore's first, then by kind and name."""
        yield from self.source_problems
        for key in sorted(self.problems):
            yield from self.problems[key]

    def __len__(self) -> int:
        return sum(map(len, self.objects.values()))

    def nodes(self) -> Mapping[str, r.Node]:
        """The nodes by name."""
        return self.of(r.Node)
