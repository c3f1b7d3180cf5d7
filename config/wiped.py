"""A datastore that lost everything, or this node's own Node, is held back: nothing is withdrawn or reset. Pure.

Everything is also what Calico's definitions take with them when they are deleted in Kubernetes, where Nodes remain.

Objects vanish from a datastore all at once when it is restored empty, reached under a wrong name, or emptied by
mistake; nodes that believed it have taken whole networks down. What was in force stays until
- every object that is held is back, or
- this node's Node and at least half of them are back and nothing has changed for a moment, so that a restore that
  writes object by object is not taken for the whole, or
- somebody confirms it.
"""

from __future__ import annotations

from attrs import evolve, frozen

from config.coalesce import holds
from config.snapshot import Put, Refuse, Snapshot, StoreChange

__all__ = ["SETTLE", "Hold", "kept"]

KUBERNETES = frozenset({"Node", "Secret", "Service", "EndpointSlice"})
"""Kinds that are there without Calico, so that they say nothing about the loss of its own."""
SETTLE = 10.0
"""Seconds without a change after which a datastore that is partly back counts."""


@frozen
class Hold:
    """Why a datastore is held back."""

    text: str
    since: float
    """Wall clock, seconds since 1970."""
    changed: float
    """Loop's clock, of the last change of what the datastore shows."""

    @classmethod
    def weigh(
        cls, held: Hold | None, counts: Snapshot, seen: Snapshot, node: str, *, now: float, wall: float, changed: bool
    ) -> Hold | None:
        """The hold that is due, None for none. `counts` is in force, `seen` what the datastore shows."""
        text = _missing(counts, seen, node)
        if held is None:
            return None if text is None else cls(f"{text}; the earlier objects stay in force", wall, now)
        if changed:
            held = evolve(held, changed=now)
        if text is not None:
            return evolve(held, text=f"{text}; the earlier objects stay in force")
        wanted = {(kind, name) for kind, objects in counts.objects.items() for name in objects}
        absent = len(wanted - holds(seen))
        if not absent or (2 * absent <= len(wanted) and now - held.changed >= SETTLE):
            return None
        text = f"{absent} of {len(wanted)} objects are not back yet; the earlier ones stay in force"
        return evolve(held, text=text)


def _missing(counts: Snapshot, seen: Snapshot, node: str) -> str | None:
    # Secrets alone are read as long as they are named: without names there are none.
    if not any(objects for kind, objects in counts.objects.items() if kind != "Secret"):
        return None
    there = {kind for kind, objects in seen.objects.items() if objects} | {kind for kind, _ in seen.problems}
    if not there:
        return "the datastore holds no object any more"
    if node in counts.nodes() and node not in seen.nodes() and ("Node", node) not in seen.problems:
        return f"the datastore holds no Node {node} any more"
    own = {kind for kind, objects in counts.objects.items() if objects and kind not in KUBERNETES}
    if len(own) > 1 and there <= KUBERNETES:
        return "the datastore holds nothing of Calico's any more but Nodes"
    return None


def kept(held: Snapshot, seen: Snapshot) -> list[StoreChange]:
    """After a hold: objects that came back refused keep the good version from before it."""
    changes: list[StoreChange] = []
    for key, problems in seen.problems.items():
        earlier = held.objects.get(key[0], {}).get(key[1])
        if earlier is not None and seen.refused_without_version(key):
            changes += [Put(earlier), Refuse(key, problems)]
    return changes
