"""Many changes of a store -> the few that make a difference. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from config.snapshot import Key, Put, Refuse, Remove, Snapshot, StoreChange

__all__ = ["coalesce", "complete", "holds"]


def coalesce(snapshot: Snapshot, changes: Iterable[StoreChange]) -> list[StoreChange]:
    """At most two changes per object (a good version and a later refusal), none where nothing changes.

    What equals what the snapshot has is left out, so that its objects stay the very same: duplicates cost nothing.
    """
    latest: dict[Key, StoreChange] = {}
    below: dict[Key, Put | Remove] = {}
    for change in changes:
        key = change.key
        if isinstance(change, Refuse):
            before = latest.get(key)
            if isinstance(before, Put | Remove):
                below[key] = before
        else:
            below.pop(key, None)
        latest[key] = change
    found: list[StoreChange] = []
    for key, change in latest.items():
        base = below.get(key)
        if base is not None and _matters(snapshot, base, notices=False):
            # The bare version: what is said about it is what the refusal says.
            found.append(Put(base.resource) if isinstance(base, Put) else base)
            found.append(change)
        elif _matters(snapshot, change):
            found.append(change)
    return found


def _matters(snapshot: Snapshot, change: StoreChange, *, notices: bool = True) -> bool:
    kind, name = change.key
    held = snapshot.objects.get(kind, {}).get(name)
    said = snapshot.problems.get(change.key, ())
    if isinstance(change, Put):
        return held != change.resource or (notices and said != change.notices)
    if isinstance(change, Refuse):
        return said != change.problems or (held is None and change.instead is not None)
    return held is not None or bool(said)


def complete(snapshot: Snapshot, changes: Iterable[StoreChange], unknown: Collection[str] = ()) -> list[StoreChange]:
    """The changes of a listing, and the removal of everything that it does not name, but for `unknown` kinds."""
    listed = list(changes)
    present = {change.key for change in listed}
    gone = [key for key in holds(snapshot) if key not in present and key[0] not in unknown]
    return [*listed, *map(Remove, gone)]


def holds(snapshot: Snapshot) -> set[Key]:
    """The keys of all objects that exist, refused ones included."""
    keys = {(kind, name) for kind, objects in snapshot.objects.items() for name in objects}
    return keys | snapshot.problems.keys()
