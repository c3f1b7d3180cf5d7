"""Loc-RIB of one family (RFC 4271 §3.2, §9.1): every usable path of every prefix, the best one first.

Three doors: `announce`, `withdraw` (a source's word), and `reselect` (a next hop's answer changed). Each works on
groups of keys that have the same entry before, so the decision is taken once for a group, and each records what
consumers need.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Sequence
from itertools import chain, repeat
from typing import Any

from bgpd.family import Family
from bgpd.rib.adj_rib_in import AdjRibIn
from bgpd.rib.decision import best, joined, order, parted, paths
from bgpd.rib.path import Entry, Path

_FEW = 16

Change = tuple[Path | None, Path | None, Path | None, Path | None]
"""(old path, new path, old best, new best): the first two are of one source and path id; None = absent."""


class LocRib:
    """All accepted paths of one family.

    `changes` maps a Change to the keys it happened to; `take_changes` empties it. A key may occur under several
    changes, or twice under one, when it changed more than once since: the table then has its present state, and all
    the old paths under which it occurs are what a consumer may still hold.
    """

    __slots__ = ("changes", "family", "plain", "table")

    def __init__(self, family: Family) -> None:
        self.family = family
        self.table: dict[bytes, Entry] = {}
        self.changes: dict[Change, list[bytes]] = {}
        self.plain = True
        """Since `take_changes`, keys only got their first path: none occurs twice in `changes`."""

    def __len__(self) -> int:
        return len(self.table)

    def take_changes(self) -> tuple[dict[Change, list[bytes]], set[bytes]]:
        """What changed since the last call, and the keys that did so more than once."""
        changes, plain = self.changes, self.plain
        self.changes, self.plain = {}, True
        if plain or len(set(chain.from_iterable(changes.values()))) == sum(map(len, changes.values())):
            return changes, set()
        counts = Counter(chain.from_iterable(changes.values()))
        return changes, {key for key, count in counts.items() if count > 1}

    def announce(self, adj: AdjRibIn, keys: list[bytes], path: Path) -> None:
        """A source says that `keys` have `path`.

        A rejected path is kept in Adj-RIB-In alone, and takes the source's older path of the same id out of the table.
        """
        path_id = path.path_id
        entries = keys if path_id == adj.usual else adj.entries(path_id, keys)
        if path.rejected:
            self.withdraw(adj, keys, path_id, forget=False)
            adj.routes.update(dict.fromkeys(entries, path))
            return
        if len(keys) <= _FEW:
            there = self._learn_few(adj.routes, keys, path) if entries is keys else self.table.get(keys[0])
            if entries is keys and there is None:
                return
            if there is not None and self._join_few(adj.routes, entries, keys, path, there):
                return
        new = dict.fromkeys(keys, path)
        self._put(new, path, adj, entries)
        adj.routes.update(new if entries is keys else dict.fromkeys(entries, path))

    def _learn_few(self, routes: dict[bytes, Path], keys: list[bytes], path: Path) -> Entry | None:
        """First paths for a few keys. Where one of them has a path already, nothing is done, and that is returned.

        Up to some 16 keys, which is what a full table has to an UPDATE, plain loops cost half of what building a dict
        and merging it twice does. What they cost is looking into large tables: one look a key into each.
        """
        table = self.table
        before, setdefault = len(table), table.setdefault
        for key in keys:
            there = setdefault(key, path)
            if there is not path:
                if len(table) != before:
                    self._unlearn(routes, keys, path)
                return there
        if len(table) - before != len(keys):  # some are repeated, in this message or from an earlier one
            keys = [key for key in dict.fromkeys(keys) if routes.get(key) is not path]
            if not keys:
                return None
        for key in keys:
            routes[key] = path
        self.changes.setdefault((None, path, None, path if path.next_hop.reachable else None), []).extend(keys)
        return None

    def _unlearn(self, routes: dict[bytes, Path], keys: list[bytes], path: Path) -> None:
        """Take out again what `_learn_few` has put in: keys of which Adj-RIB-In does not know that they have it."""
        for key in keys:
            if self.table.get(key) is path and routes.get(key) is not path:
                del self.table[key]

    def _join_few(
        self, routes: dict[bytes, Path], entries: list[bytes], keys: list[bytes], path: Path, there: Entry
    ) -> bool:
        """A second path for a few keys that all have the same one of another source: the other reflector's word.

        False, and nothing done, where it is otherwise.
        """
        table = self.table
        if isinstance(there, tuple) or there.source is path.source:
            return False
        for key in keys:
            if table.get(key) is not there:
                return False
        after = order((there, path))
        assert isinstance(after, tuple)
        for key in keys:
            table[key] = after
        for entry in entries:
            routes[entry] = path
        if len(set(keys)) != len(keys):
            keys = list(dict.fromkeys(keys))
        old_best = there if there.next_hop.reachable else None
        new_best = after[0] if after[0].next_hop.reachable else None
        self._record((None, path, old_best, new_best), keys)
        return True

    def put(self, keys: list[bytes], path: Path) -> None:
        """Put a path into the table, in place of the one of the same source and path id."""
        self._put(dict.fromkeys(keys, path), path)

    def _put(
        self, new: dict[bytes, Path], path: Path, adj: AdjRibIn | None = None, entries: Sequence[bytes] = ()
    ) -> None:
        """`adj`, not yet told of `entries`: what the source has not said before replaces none of its paths."""
        table = self.table
        # All of it in C where no key has a path yet: the case of a table that is being learned.
        if table.keys().isdisjoint(new):
            table.update(new)
            self.changes.setdefault((None, path, None, path if path.next_hop.reachable else None), []).extend(new)
            return
        fresh = adj is not None and adj.routes.keys().isdisjoint(entries)
        for entry, group in self._group(list(new)):
            old, after = (None, joined(entry, path)) if fresh and entry is not None else _replace(entry, path)
            table.update(dict.fromkeys(group, after))
            if old is not None and old.same(path):
                continue
            self._record((old, path, best(entry), best(after)), group)

    def withdraw(self, adj: AdjRibIn, keys: list[bytes], path_id: int, forget: bool = True) -> int:
        """A source has no longer anything for `keys` under this path id. Returns how many it had."""
        had = len(keys)
        if forget:
            before = len(adj.routes)
            _discard(adj.routes, adj.entries(path_id, keys))
            had = before - len(adj.routes)
        if had:
            self.drop(keys, adj.source, path_id)
        return had

    def drop(self, keys: list[bytes], source: object, path_id: int) -> None:
        """Take a source's path out of the table."""
        table = self.table
        for entry, group in self._group(keys):
            if entry is None:
                continue
            old, after = _without(entry, source, path_id)
            if old is None:
                continue
            if after is None:
                _discard(table, group)
            else:
                table.update(dict.fromkeys(group, after))
            self._record((old, None, best(entry), best(after)), group)

    def best_groups(self, wanted: Iterable[object]) -> list[tuple[Path | None, Entry, list[bytes]]]:
        """Keys with a path whose next hop is among `wanted`, grouped by entry, with the best path as of now.

        To be called before next hops change, and its result given to `reselect` after.
        """
        hops = set(map(id, wanted))
        touched: dict[Entry, bool] = {}
        groups: dict[Entry, list[bytes]] = {}
        for key, entry in self.table.items():
            hit = touched.get(entry)
            if hit is None:
                hit = touched[entry] = any(id(p.next_hop) in hops for p in paths(entry))
            if hit:
                groups.setdefault(entry, []).append(key)
        return [(best(entry), entry, keys) for entry, keys in groups.items()]

    def reselect(self, groups: list[tuple[Path | None, Entry, list[bytes]]]) -> None:
        """Decide again for groups from `best_groups`, after next hops have changed."""
        for old_best, entry, keys in groups:
            after = order(paths(entry))
            assert after is not None
            self.table.update(dict.fromkeys(keys, after))
            for path in paths(after):
                # Eligibility may have changed for any of them; consumers of paths look again.
                self._record((path, path, old_best, best(after)), keys)

    def _group(self, keys: list[bytes]) -> Iterable[tuple[Entry | None, list[bytes]]]:
        entries = list(map(self.table.get, keys))
        if entries and entries.count(entries[0]) == len(entries):
            return ((entries[0], keys),)
        groups: dict[Entry | None, list[bytes]] = {}
        for key, entry in zip(keys, entries, strict=True):
            try:
                groups[entry].append(key)
            except KeyError:
                groups[entry] = [key]
        return groups.items()

    def _record(self, change: Change, keys: list[bytes]) -> None:
        self.plain = False
        known = self.changes.get(change)
        if known is None:
            self.changes[change] = keys.copy()
        else:
            known.extend(keys)


def _discard(table: dict[bytes, Any], keys: Iterable[bytes]) -> None:
    """Take keys out, all in C. A peer may name a prefix twice in one message, or one that it never announced.

    A dict without keys keeps the room that it had for them until it is cleared: 5 MB after 100,000 prefixes.
    """
    deque(map(table.pop, keys, repeat(None)), maxlen=0)
    if not table:
        table.clear()


def _replace(entry: Entry | None, path: Path) -> tuple[Path | None, Entry]:
    """(the path of the same source and id that was there, the entry with `path` in its place)."""
    old: Path | None = None
    rest: list[Path] = []
    for other in paths(entry):
        if other.source is path.source and other.path_id == path.path_id:
            old = other
        else:
            rest.append(other)
    if not rest:
        return old, path
    after = order([*rest, path])
    assert after is not None
    return old, after


def _without(entry: Entry, source: object, path_id: int) -> tuple[Path | None, Entry | None]:
    found = [path for path in paths(entry) if path.path_id == path_id and path.source is source]
    if not found:
        return None, entry
    return found[0], parted(entry, found[0]) if isinstance(entry, tuple) else None
