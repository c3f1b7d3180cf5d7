"""One flush of one update group: who of its members is to be told what, collected first, then written to its log."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from bgpd.policy.chain import Leaf, pour
from bgpd.rib.chunks import CHUNK, Units, pack, unfold
from bgpd.rib.path import Path

if TYPE_CHECKING:
    from bgpd.rib.update_group import Member, UpdateGroup


class _Announcement:
    """Keys of one leaf. `withdraw`: units that members have to hear of instead; empty for those who had nothing."""

    __slots__ = ("keys", "path", "withdraw")

    def __init__(self, path: Path) -> None:
        self.path = path
        self.keys: list[bytes] = []
        self.withdraw: dict[Member, list[bytes]] = {}


class Batch:
    """One flush of one group: collects, then writes withdrawals first, each unit once."""

    def __init__(self, group: UpdateGroup) -> None:
        self.group = group
        self.announced: dict[Leaf, _Announcement] = {}
        self.fresh: list[tuple[tuple[Member, ...], list[bytes], Units]] = []
        """(excluded members, messages, units) of first paths that went the short way."""
        self.withdrawn: dict[tuple[Member, ...], dict[bytes, list[bytes]]] = {}
        """Excluded members -> path id -> keys: `Units`, as much as there is."""
        self.held: dict[tuple[bytes, bytes], set[Path]] = {}
        """(key, send id) that changed more than once: the paths that may have been told."""
        self._add_path = group.key.add_path
        self._told: tuple[object, bytes, tuple[Member, ...]] = (None, b"", ())
        """Source and next hop of the last first path, and who must not get it: they come in long runs."""

    def transition(self, old: Path | None, new: Path | None, keys: Sequence[bytes]) -> None:
        """`keys` went from one path to another, as this group sees it."""
        if new is None or not new.next_hop.reachable:
            if old is not None:
                self.withdraw(old, keys)
            return
        exporter = self.group.exporter
        if old is None and exporter.direct:
            messages = exporter.messages(new, keys)
            if messages is not None:
                source, hop, excluded = self._told
                if source is not new.source or hop != new.attrs.next_hop:
                    hop = new.attrs.next_hop
                    excluded = self.group.excluded(new, hop)
                    self._told = new.source, hop, excluded
                self.fresh.append((excluded, messages, (new.send_id if self._add_path else b"", keys)))
                return
        node = exporter.node(new)
        for leaf, part in ((node, keys),) if type(node) is Leaf else pour(node, keys):
            if leaf.accepted:
                self.announce(leaf, new, old, part)
            elif old is not None:
                self.withdraw(old, part)

    def announce(self, leaf: Leaf, new: Path, old: Path | None, keys: Sequence[bytes]) -> None:
        group = self.group
        item = self.announced.get(leaf)
        if item is None:
            item = self.announced[leaf] = _Announcement(new)
        item.keys.extend(keys)
        for member in group.excluded(new, group.exporter.outgoing(leaf, new).next_hop):
            held = item.withdraw.setdefault(member, [])
            if old is not None:
                held.extend(self._held_by(member, old, keys))

    def _held_by(self, member: Member, old: Path, keys: Sequence[bytes]) -> Iterable[bytes]:
        group = self.group
        for leaf, part in pour(group.exporter.node(old), keys):
            if leaf.accepted and member not in group.excluded(old, group.exporter.outgoing(leaf, old).next_hop):
                yield from group.units(old, part)

    def withdraw(self, old: Path, keys: Sequence[bytes]) -> None:
        group = self.group
        if group.exporter.direct and group.exporter.tells_all(old, keys):
            excluded = group.excluded(old, old.attrs.next_hop)
            self._withdraw_from(excluded, group.folded(old, keys))
            return
        for leaf, part in pour(group.exporter.node(old), keys):
            if leaf.accepted:
                excluded = group.excluded(old, group.exporter.outgoing(leaf, old).next_hop)
                self._withdraw_from(excluded, group.folded(old, part))

    def _withdraw_from(self, excluded: tuple[Member, ...], units: Units) -> None:
        path_id, keys = units
        self.withdrawn.setdefault(excluded, {}).setdefault(path_id, []).extend(keys)

    def revisit(self, old: Path | None, new: Path | None, keys: Sequence[bytes]) -> None:
        """Note one of several changes of these keys."""
        path = old or new
        send_id = path.send_id if path is not None and self.group.key.add_path else b""
        for key in keys:
            olds = self.held.setdefault((key, send_id), set())
            if old is not None:
                olds.add(old)

    def settle(self) -> None:
        """Keys that changed more than once: the table has the present, the changes all that may have been told."""
        table = self.group.rib.table
        for (key, send_id), olds in self.held.items():
            self._settle_one(key, olds, self.group.visible_as(table.get(key), send_id))

    def _settle_one(self, key: bytes, olds: set[Path], new: Path | None) -> None:
        group = self.group
        if new is not None:
            leaf, _ = next(pour(group.exporter.node(new), (key,)))
            if leaf.accepted:
                item = self.announced.get(leaf) or _Announcement(new)
                self.announced[leaf] = item
                item.keys.append(key)
                for member in group.excluded(new, group.exporter.outgoing(leaf, new).next_hop):
                    units = {unit for old in olds for unit in self._held_by(member, old, (key,))}
                    item.withdraw.setdefault(member, []).extend(units)
                return
        for old in olds:
            leaf, _ = next(pour(group.exporter.node(old), (key,)))
            if leaf.accepted:
                # To every member: one may have been excluded from this old path and hold another of them.
                self._withdraw_from((), group.folded(old, (key,)))
                return

    def close(self) -> None:
        """Write the collected changes into the group's log."""
        group = self.group
        if not self.announced and not self.withdrawn and not self.fresh:
            return
        announcements = [(item, group.encode(leaf, item.path, item.keys)) for leaf, item in self.announced.items()]
        for item, messages in announcements:
            if messages is None:
                self._withdraw_from((), group.folded(item.path, item.keys))
        for excluded, by_id in self.withdrawn.items():
            # Of several path ids, few have much to withdraw: they share messages.
            units = next(iter(by_id.items())) if len(by_id) == 1 else (b"", list(unfold(by_id.items())))
            for chunk in pack(group.withdrawals(units)):
                group.append(chunk, (units,), dict.fromkeys(excluded, b""))
        self._write_all([(item, messages) for item, messages in announcements if messages is not None])
        group.appended(self._touched)

    def _write_all(self, announcements: list[tuple[_Announcement, list[bytes]]]) -> None:
        """Neighbours that the same members must not get, who had nothing before, become one chunk."""
        group = self.group
        run = _Run(group)
        for excluded, messages, units in self.fresh:
            run.add(excluded, messages, units)
        for item, messages in announcements:
            if any(item.withdraw.values()):
                run.write()
                self._write(item, messages)
            else:
                run.add(tuple(item.withdraw), messages, group.folded(item.path, item.keys))
        run.write()

    def _write(self, item: _Announcement, messages: list[bytes]) -> None:
        group = self.group
        patches = {
            member: b"".join(group.withdrawals((b"", units))) if units else b""
            for member, units in item.withdraw.items()
        }
        for chunk in pack(messages):
            group.append(chunk, (group.folded(item.path, item.keys),), patches)
            patches = dict.fromkeys(patches, b"")

    def _touched(self) -> Iterable[Units]:
        for _, _, units in self.fresh:
            yield units
        for item in self.announced.values():
            yield self.group.folded(item.path, item.keys)
        for by_id in self.withdrawn.values():
            yield from by_id.items()


class _Run:
    """Announcements that go to the same members."""

    __slots__ = ("_excluded", "_group", "_messages", "_size", "_units")

    def __init__(self, group: UpdateGroup) -> None:
        self._group = group
        self._excluded: tuple[Member, ...] = ()
        self._messages: list[bytes] = []
        self._units: list[Units] = []
        self._size = 0

    def add(self, excluded: tuple[Member, ...], messages: Sequence[bytes], units: Units) -> None:
        """One more; what does not go with those before begins a new chunk."""
        size = len(messages[0]) if len(messages) == 1 else sum(map(len, messages))
        if self._size + size > CHUNK or (excluded is not self._excluded and excluded != self._excluded):
            self.write()
            self._excluded = excluded
        self._messages += messages
        self._units.append(units)
        self._size += size

    def write(self) -> None:
        """Put them into the log."""
        if self._messages:
            patches = dict.fromkeys(self._excluded, b"")
            for chunk in pack(self._messages):
                self._group.append(chunk, self._units, patches)
        self._messages, self._units, self._size = [], [], 0
