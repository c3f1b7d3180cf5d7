"""What members that came from another group are told: only that in which the two groups differ, and in slices.

Nobody stores what a peer was told; it is what the old group's rules make of a path. So both groups' rules are asked for
each key that may differ, and what they tell differently is put into the new group's log, encoded once for all who came.
A key that changes before its turn comes is told whatever was said of it before: `touched`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, TypeAlias

from attrs import evolve

from bgpd.policy.chain import Leaf, pour
from bgpd.policy.narrow import concerned, enumerate_keys
from bgpd.policy.prefixes import Matcher, compile_prefixes
from bgpd.policy.terms import MatchPrefix
from bgpd.rib import slices
from bgpd.rib.chunks import Units, pack
from bgpd.rib.dump import by_path
from bgpd.rib.loc_rib import Change
from bgpd.rib.path import Path

if TYPE_CHECKING:
    from bgpd.rib.update_group import Member, UpdateGroup

_Told: TypeAlias = tuple[Leaf, Path, Sequence[bytes]]
"""Keys of a path that end in a leaf."""

_SCAN = 16384
"""Keys of which it is found out in one go whether they are concerned: some 3 ms."""


class Review:
    """One walk over the keys that two groups may tell differently, for all members that went from one to the other."""

    __slots__ = ("_at", "_before", "_group", "_keys", "_match", "_old", "_touched", "members")

    def __init__(self, group: UpdateGroup, old: UpdateGroup) -> None:
        self.members: set[Member] = set()
        self._group = group
        self._old = old
        self._before = old.exporter
        self._at = -1
        self._touched: dict[bytes, dict[bytes, None]] = {}
        """Keys that changed since: the units by which the members may know them."""
        for unfinished in old.reviews:
            self._take_over(unfinished)
        self._keys: list[bytes] = []
        self._match: Matcher | None = None

    def _take_over(self, unfinished: Review) -> None:
        """Members that move on before they were told all: nobody knows what they have of the rest."""
        for key in unfinished.left():
            units = self._touched.setdefault(key, {})
            units.update(unfinished._touched.get(key, ()))
            units.update(dict.fromkeys(self._old.all_units((key,))))

    def joinable(self, old: UpdateGroup) -> bool:
        """Whether members that come from this group now are told the right things: it has not begun."""
        return self._at < 0 and self._old is old

    def left(self) -> Iterable[bytes]:
        """Keys that it has still to look at."""
        if self._at < 0:
            self._begin()
        return self._concerned(self._keys[self._at :])

    def note(self, changes: dict[Change, list[bytes]]) -> None:
        """Keys change before their turn."""
        add_path, touched = self._group.key.add_path, self._touched
        for (old, new, _, _), keys in changes.items():
            path = old or new
            send_id = path.send_id if add_path and path is not None else b""
            for key in keys:
                touched.setdefault(key, {})[send_id + key] = None

    def _note_new(self) -> None:
        """What has changed since the last flush is in the table already, and no group has been told of it."""
        self.note(self._group.rib.changes)

    def _begin(self) -> None:
        """Take the keys at which it has to look: those inside the prefixes that the chains treat differently."""
        new, old, table = self._group.key, self._old.key, self._group.rib.table
        ranges = concerned(old.chain, new.chain) if evolve(old, chain=new.chain) == new else None
        keys: Iterable[bytes] = table
        if ranges is not None:
            ranges = tuple(entry for entry in ranges if entry.family == new.family)
            few = enumerate_keys(ranges)
            if few is not None:
                keys = few
            else:
                self._match = compile_prefixes([MatchPrefix(ranges)])
        self._keys = list(dict.fromkeys((*self._touched, *keys)) if self._touched else keys)
        self._at = 0

    def _concerned(self, keys: list[bytes]) -> Iterable[bytes]:
        match, touched = self._match, self._touched
        return keys if match is None else [key for key in keys if key in touched or match(key)]

    def run(self) -> Iterator[int]:
        """Do it, a slice at a time; yields what each cost, in units of `slices.SLICE` a turn."""
        self._note_new()
        if self._at < 0:
            self._begin()
            if len(self._keys) > slices.SLICE:
                yield slices.SLICE
                self._note_new()
        if self._match is not None:
            yield from self._scan()
        size = slices.first_size()
        while self.members and self._at < len(self._keys):
            keys = self._keys[self._at : self._at + size]
            self._at += len(keys)
            size = slices.next_size(len(keys), self._look_at(keys))
            yield slices.SLICE
            self._note_new()
        self._group.reviews.remove(self)

    def _scan(self) -> Iterator[int]:
        """Find the keys that are concerned."""
        found: list[bytes] = []
        for start in range(0, len(self._keys), _SCAN):
            found += self._concerned(self._keys[start : start + _SCAN])
            yield slices.SLICE // 2
            self._note_new()
        self._keys, self._match = found, None

    def _look_at(self, keys: list[bytes]) -> int:
        """Tell what differs; returns how many paths were looked at."""
        withdrawn: dict[bytes, None] = {}
        told: list[_Told] = []
        certain = keys
        if self._touched:
            changed = [key for key in keys if key in self._touched]
            certain = [key for key in keys if key not in self._touched]
            for key in changed:
                withdrawn.update(self._touched.pop(key))
            self._tell(self._present(changed), told, withdrawn)
        differing = [(path, self._differing(path, part)) for path, part in self._present(certain)]
        self._tell(differing, told, withdrawn)
        self._write(told, withdrawn)
        return len(differing) + len(told)

    def _present(self, keys: list[bytes]) -> Iterable[tuple[Path, Sequence[bytes]]]:
        return by_path(self._group, keys, list(map(self._group.rib.table.get, keys)))

    def _differing(self, path: Path, keys: Sequence[bytes]) -> Sequence[bytes]:
        """The keys of which the two groups tell other things, with this path."""
        group, before = self._group, self._before
        now = [(self._outcome(leaf, path), part) for leaf, part in pour(group.exporter.node(path), keys)]
        then = [
            (None if not leaf.accepted else _form(before.outgoing(leaf, path)), part)
            for leaf, part in pour(before.node(path), keys)
        ]
        if len(now) == len(then) == 1:
            return [] if now[0][0] == then[0][0] else keys
        told = {key: form for form, part in then for key in part}
        return [key for form, part in now for key in part if told[key] != form]

    def _outcome(self, leaf: Leaf, path: Path) -> tuple[bytes, bytes] | None:
        return _form(self._group.exporter.outgoing(leaf, path)) if leaf.accepted else None

    def _tell(
        self,
        parts: Iterable[tuple[Path, Sequence[bytes]]],
        told: list[_Told],
        withdrawn: dict[bytes, None],
    ) -> None:
        for path, keys in parts:
            if not keys:
                continue
            for leaf, poured in pour(self._group.exporter.node(path), keys):
                units = self._group.units(path, poured)
                if leaf.accepted:
                    told.append((leaf, path, poured))
                    for unit in units:
                        withdrawn.pop(unit, None)
                else:
                    withdrawn.update(dict.fromkeys(units))

    def _write(self, told: list[_Told], withdrawn: dict[bytes, None]) -> None:
        """Withdrawals first; members that were in the group before know all this."""
        group = self._group
        others = dict.fromkeys((member for member in group.members if member not in self.members), b"")
        encoded = [(group.encode(leaf, path, keys), leaf, path, keys) for leaf, path, keys in told]
        for messages, _, path, keys in encoded:
            if messages is None:
                withdrawn.update(dict.fromkeys(group.units(path, keys)))
        gone = (b"", list(withdrawn))
        for chunk in pack(group.withdrawals(gone)):
            group.append(chunk, (gone,), others)
        for messages, leaf, path, keys in encoded:
            if messages is not None:
                self._announce(messages, leaf, path, group.folded(path, keys), others)
        if told or withdrawn:
            group.appended(lambda: (*(group.folded(path, keys) for _, path, keys in told), gone))

    def _announce(
        self, messages: list[bytes], leaf: Leaf, path: Path, units: Units, others: dict[Member, bytes]
    ) -> None:
        group = self._group
        patches = others
        excluded = group.excluded(path, group.exporter.outgoing(leaf, path).next_hop)
        if excluded:
            # It may know the route by another next hop, or have been told another path.
            instead = b"".join(group.withdrawals(units))
            patches = {**others, **{member: instead for member in excluded if member in self.members}}
        for chunk in pack(messages):
            group.append(chunk, (units,), patches)
            patches = dict.fromkeys(patches, b"")


def _form(out: object) -> tuple[bytes, bytes]:
    return out.block, out.next_hop  # type: ignore[attr-defined]
