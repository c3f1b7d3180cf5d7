"""One flush of one update group: who of its members is to be told what, collected first, then written to its log."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from bgpd.policy.chain import Leaf, pour
from bgpd.rib.chunks import CHUNK, pack
from bgpd.rib.path import Path
from bgpd.wire.build import build_unreach

if TYPE_CHECKING:
    from bgpd.rib.update_group import Member, UpdateGroup


class _Announcement:
    """Units of one leaf. `withdraw`: what members have to hear instead; empty for those who had nothing."""

    __slots__ = ("path", "units", "withdraw")

    def __init__(self, path: Path) -> None:
        self.path = path
        self.units: list[bytes] = []
        self.withdraw: dict[Member, list[bytes]] = {}


class Batch:
    """One flush of one group: collects, then writes withdrawals first, each unit once."""

    def __init__(self, group: UpdateGroup) -> None:
        self.group = group
        self.announced: dict[Leaf, _Announcement] = {}
        self.fresh: list[tuple[tuple[Member, ...], bytes, Sequence[bytes]]] = []
        """(excluded members, message, units) of first paths that went the short way."""
        self.withdrawn: dict[tuple[Member, ...], list[bytes]] = {}
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
            units = self.group.units(new, keys) if self._add_path else keys
            message = exporter.message(new, keys, units)
            if message is not None:
                source, hop, excluded = self._told
                if source is not new.source or hop != new.attrs.next_hop:
                    hop = new.attrs.next_hop
                    excluded = self.group.excluded(new, hop)
                    self._told = new.source, hop, excluded
                self.fresh.append((excluded, message, units))
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
        units = group.units(new, keys)
        item.units.extend(units)
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
            self.withdrawn.setdefault(excluded, []).extend(group.units(old, keys))
            return
        for leaf, part in pour(group.exporter.node(old), keys):
            if leaf.accepted:
                excluded = group.excluded(old, group.exporter.outgoing(leaf, old).next_hop)
                self.withdrawn.setdefault(excluded, []).extend(group.units(old, part))

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
                item.units.extend(group.units(new, (key,)))
                for member in group.excluded(new, group.exporter.outgoing(leaf, new).next_hop):
                    units = {unit for old in olds for unit in self._held_by(member, old, (key,))}
                    item.withdraw.setdefault(member, []).extend(units)
                return
        for old in olds:
            leaf, _ = next(pour(group.exporter.node(old), (key,)))
            if leaf.accepted:
                # To every member: one may have been excluded from this old path and hold another of them.
                self.withdrawn.setdefault((), []).extend(group.units(old, (key,)))
                return

    def close(self) -> None:
        """Write the collected changes into the group's log."""
        group = self.group
        if not self.announced and not self.withdrawn and not self.fresh:
            return
        lost: list[Sequence[bytes]] = []
        announcements = [(item, group.encode(leaf, item.path, item.units)) for leaf, item in self.announced.items()]
        for item, messages in announcements:
            if messages is None:
                lost.append(item.units)
                self.withdrawn.setdefault((), []).extend(item.units)
        for excluded, units in self.withdrawn.items():
            messages = build_unreach(group.key.family, units, group.key.max_length)
            for chunk in pack(messages):
                group.append(chunk, units, dict.fromkeys(excluded, b""))
        self._write_all([(item, messages) for item, messages in announcements if messages is not None])
        group.appended(self._touched)

    def _write_all(self, announcements: list[tuple[_Announcement, list[bytes]]]) -> None:
        """Neighbours that the same members must not get, who had nothing before, become one chunk."""
        run = _Run(self.group)
        for excluded, message, units in self.fresh:
            run.add_one(excluded, message, units)
        for item, messages in announcements:
            if any(item.withdraw.values()):
                run.write()
                self._write(item, messages)
            else:
                run.add(tuple(item.withdraw), messages, item.units)
        run.write()

    def _write(self, item: _Announcement, messages: list[bytes]) -> None:
        group = self.group
        patches = {
            member: b"".join(build_unreach(group.key.family, units, group.key.max_length)) if units else b""
            for member, units in item.withdraw.items()
        }
        for chunk in pack(messages):
            group.append(chunk, item.units, patches)
            patches = dict.fromkeys(patches, b"")

    def _touched(self) -> Iterable[bytes]:
        for _, _, fresh in self.fresh:
            yield from fresh
        for item in self.announced.values():
            yield from item.units
        for units in self.withdrawn.values():
            yield from units


class _Run:
    """Announcements that go to the same members."""

    __slots__ = ("_excluded", "_group", "_messages", "_size", "_units")

    def __init__(self, group: UpdateGroup) -> None:
        self._group = group
        self._excluded: tuple[Member, ...] = ()
        self._messages: list[bytes] = []
        self._units: list[bytes] = []
        self._size = 0

    def add_one(self, excluded: tuple[Member, ...], message: bytes, units: Sequence[bytes]) -> None:
        """As `add`, for one message."""
        size = self._size + len(message)
        if size > CHUNK or (excluded is not self._excluded and excluded != self._excluded):
            self.write()
            self._excluded, size = excluded, len(message)
        self._messages.append(message)
        self._units += units
        self._size = size

    def add(self, excluded: tuple[Member, ...], messages: Sequence[bytes], units: Sequence[bytes]) -> None:
        """One more; what does not go with those before begins a new chunk."""
        size = sum(map(len, messages))
        if self._messages and (excluded != self._excluded or self._size + size > CHUNK):
            self.write()
        if self._messages:
            self._messages += messages
            self._units += units
        else:
            self._excluded, self._messages, self._units = excluded, list(messages), list(units)
        self._size += size

    def write(self) -> None:
        """Put them into the log."""
        if self._messages:
            patches = dict.fromkeys(self._excluded, b"")
            for chunk in pack(self._messages):
                self._group.append(chunk, self._units, patches)
        self._messages, self._units, self._size = [], [], 0
