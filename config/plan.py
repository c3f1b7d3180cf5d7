"""What proposed resources would change on a node, before anything does: sessions, routes of configuration, problems.

Pure: two snapshots and what they compile to. What it means for the tables (prefixes announced and withdrawn, kernel
routes) is not known here; the composition roots add it. The answer has the form of `Plan` in the api's schema.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from attrs import frozen

from bgpd.settings import Cost, PeerSettings, SpeakerSettings
from config.compile import Compiled
from config.diff import Change, diff
from config.kinds import KINDS, find_kind
from config.parse import identify, parse_resource
from config.problems import Problem, ResourceError
from config.snapshot import Key, Put, Refuse, Remove, Snapshot, StoreChange

__all__ = ["Proposal", "key_of", "node_plan", "propose"]


@frozen
class Proposal:
    """Changes of a store, and what each object says of itself."""

    changes: tuple[StoreChange, ...]
    whole: bool = False
    """The changes are all objects that there would be."""

    def apply(self, snapshot: Snapshot) -> Snapshot:
        """The store after it. As in the daemon, a refused object keeps its last good version."""
        if not self.whole:
            return snapshot.apply(self.changes)
        kept = [Put(resource) for change in self.changes if isinstance(change, Refuse)
                if (resource := snapshot.objects.get(change.key[0], {}).get(change.key[1])) is not None]  # fmt: skip
        return Snapshot().apply([*kept, *self.changes])

    def objects(self, snapshot: Snapshot) -> list[dict[str, str]]:
        """What would become of each object, and, where the whole is given, of those that are not in it."""
        found = [{"object": "/".join(change.key), "action": _action(snapshot, change)} for change in self.changes]
        if self.whole:
            given = {change.key for change in self.changes}
            for kind in sorted(snapshot.objects):
                for name in sorted(snapshot.objects[kind]):
                    if (kind, name) not in given:
                        found.append({"object": f"{kind}/{name}", "action": "deleted"})
        return found


def _action(snapshot: Snapshot, change: StoreChange) -> str:
    kind, name = change.key
    before = snapshot.objects.get(kind, {}).get(name)
    if isinstance(change, Refuse):
        return "refused"
    if isinstance(change, Remove):
        return "missing" if before is None else "deleted"
    return "created" if before is None else "unchanged" if before == change.resource else "configured"


def propose(objects: Iterable[object], delete: Iterable[object] = (), *, whole: bool = False) -> Proposal:
    """A proposal of plain objects and "KIND/NAME"s. Raises ValueError, in one sentence, for what names no object."""
    changes = [*map(_change, objects), *(Remove(key_of(text)) for text in delete)]
    return Proposal(tuple(changes), whole)


def _change(value: object) -> StoreChange:
    try:
        identity = identify(value)
    except ResourceError as error:
        raise ValueError(f"an object cannot be told: {error}") from None
    if not identity.known:
        raise ValueError(f"{identity.not_read}; leave it out")
    try:
        parsed = parse_resource(value)
    except ResourceError as error:
        return Refuse((identity.kind, identity.name), error.problems)
    return Put(parsed.resource, parsed.notices)


def key_of(text: object) -> Key:
    """ "bgppeer/tor" -> ("BGPPeer", "tor"). Raises ValueError."""
    kind_text, slash, name = str(text).partition("/")
    kind = find_kind(kind_text)
    if kind is None or not slash or not name:
        known = ", ".join(one.aliases[0] for one in KINDS)
        raise ValueError(f"{str(text)[:80]!r} names no object; write KIND/NAME, KIND being one of {known}")
    return (kind.name, name)


def node_plan(
    node: str, before: Compiled, after: Compiled, old: SpeakerSettings | None, new: SpeakerSettings | None
) -> dict[str, Any]:
    """A `Plan` without objects and tables. `old`: what is in force; None: nothing yet. `new`: what would be; None: it
    could not be told, so what is in force would stay."""
    changes = diff(old, new) if new is not None else ()
    known, coming = set(map(_plain, before.problems)), set(map(_plain, after.problems))
    sessions = _sessions(old, new, changes) if new is not None else []
    return {
        "node": node,
        "running": False,
        "can_tell": new is not None,
        "objects": [],
        "problems": [dict(item) for problem in after.problems if (item := _plain(problem)) not in known],
        "mended": [dict(item) for problem in before.problems if (item := _plain(problem)) not in coming],
        "sessions": sessions,
        "routes": [_route(change) for change in changes if change.scope.startswith(_ROUTE)],
        "settings": [_setting(change) for change in changes if change.scope == "speaker"] if old is not None else [],
        "tables": [],
        "kernel": [],
        "notes": [],
    }


_ROUTE = "static route "
_PEER = "peer "


def _plain(problem: Problem) -> tuple[tuple[str, Any], ...]:
    """Without its place, which is another one in a proposal than in the store."""
    names = ("object", "field", "value", "allowed", "text", "refused")
    return tuple((name, getattr(problem, name)) for name in names)


def _setting(change: Change) -> dict[str, str]:
    return {
        "field": change.field,
        "family": change.family,
        "old": change.old,
        "new": change.new,
        "cost": change.cost.name.lower(),
    }


def _route(change: Change) -> dict[str, str]:
    label = f"{change.field}: {change.old} -> {change.new}" if change.field else change.new or change.old
    return {"prefix": change.scope.removeprefix(_ROUTE), "action": change.kind.value, "label": label}


def _sessions(old: SpeakerSettings | None, new: SpeakerSettings, changes: Sequence[Change]) -> list[dict[str, Any]]:
    by_peer: dict[str, list[Change]] = {}
    everywhere = [change for change in changes if change.scope == "speaker" and change.cost is Cost.RESTART]
    for change in changes:
        if change.scope.startswith(_PEER):
            by_peer.setdefault(change.scope.removeprefix(_PEER), []).append(change)
    before = {peer.name: peer for peer in old.peers} if old is not None else {}
    after = {peer.name: peer for peer in new.peers}
    names = dict.fromkeys([*before, *after]) if everywhere else by_peer
    rows = []
    for name in sorted(names):
        own = [*by_peer.get(name, ()), *(everywhere if name in before and name in after else ())]
        rows.append(_session(before, after, name, own))
    return rows


def _session(
    before: Mapping[str, PeerSettings], after: Mapping[str, PeerSettings], name: str, changes: Sequence[Change]
) -> dict[str, Any]:
    peer = after.get(name) or before[name]
    if name not in before or name not in after:
        action = "added" if name in after else "removed"
    else:
        action = "reset" if any(change.cost >= Cost.RESET for change in changes) else "changed"
    settings = [_setting(change) for change in changes if change.field or change.family]
    return {
        "peer": name,
        "address": peer.address,
        "asn": peer.asn,
        "label": peer.label,
        "action": action,
        "settings": settings if action in ("reset", "changed") else [],
    }
