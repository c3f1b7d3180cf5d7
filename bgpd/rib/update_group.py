"""Update groups: Adj-RIB-Out of all peers that are told the same (RFC 4271 §3.2, §9.2).

What the members of a group would get alike is encoded once, into a log of byte chunks; each member has its place in the
log. A member that must not get a chunk (it is the source, or its own address is the next hop) has a *patch* for it:
other bytes in its place, which are empty, or withdraw what it had before. A member too far behind leaves the log and
keeps the *set of units* it may be wrong about instead (a unit is an NLRI: key, with our path id before it under
ADD-PATH); as it drains, each unit is looked up: there = announce, absent = withdraw. A new member starts in that form,
with the whole table. So memory is bounded by the table and one shared log, never by messages.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from bgpd.policy.chain import Leaf, pour
from bgpd.rib.decision import best, paths
from bgpd.rib.export import Exporter, GroupKey
from bgpd.rib.loc_rib import Change, LocRib
from bgpd.rib.path import Path, Source
from bgpd.rib.reflection import unheard as unheard_by
from bgpd.wire.framing import MARKER
from bgpd.wire.update import AttributesTooLong, build_end_of_rib, build_reach, build_unreach

CHUNK = 65536
LOG_LIMIT = 8 * 1024 * 1024
"""Octets of log a member may be behind before it falls back to the set of units."""
_FIRST_SLICE = 512
_MAX_SLICE = 4096


_Window = tuple[int, bytes, list[int], int]
"""(end, octets, offset of each chunk, messages) of a run of chunks in the log."""


class Member:
    """One peer's place in one group."""

    __slots__ = (
        "address",
        "backlog",
        "closing",
        "cursor",
        "draining",
        "eor",
        "owner",
        "patches",
        "pending",
        "sent",
        "slice",
        "source",
    )

    def __init__(self, owner: object, source: Source, address: bytes) -> None:
        self.owner = owner
        self.source = source
        self.address = address
        self.cursor = 0
        self.patches: list[tuple[int, bytes]] = []
        self.pending: dict[bytes, bool] | None = {}
        """Units to look up; the value says whether the member may hold something for it. None = follows the log."""
        self.draining: list[tuple[bytes, bool]] = []
        """The part of `pending` that is being sent; what changes meanwhile waits in `pending`, so nothing starves."""
        self.backlog: list[bytes] = []
        self.closing: list[bytes] = []
        """Messages due when all pending units are sent: the end of a route refresh (RFC 7313)."""
        self.sent = 0
        """UPDATE messages handed out, for people."""
        self.slice = _FIRST_SLICE
        self.eor = True
        """End-of-RIB is still due after the initial table."""


class _Announcement:
    __slots__ = ("path", "units", "withdraw")

    def __init__(self, path: Path) -> None:
        self.path = path
        self.units: list[bytes] = []
        self.withdraw: dict[Member, list[bytes]] = {}


class UpdateGroup:
    """Peers of one GroupKey and what they are told of one Loc-RIB."""

    def __init__(self, key: GroupKey, rib: LocRib, too_long: Callable[[Path, Sequence[bytes]], None]) -> None:
        self.key = key
        self.rib = rib
        self.exporter = Exporter(key)
        self.members: dict[Member, None] = {}
        self.hold_eor = False
        """End-of-RIB waits: our own restart is not over (RFC 4724 §4.1)."""
        self._too_long = too_long
        self._log: list[bytes] = []
        self._log_units: list[Sequence[bytes]] = []
        self._log_size = 0
        self._base = 0
        self._lagging = 0
        self._windows: dict[int, _Window] = {}
        self._by_source: dict[Source, Member] = {}
        self._by_address: dict[bytes, tuple[Member, ...]] = {}
        """Peers at one address differ in port."""

    # Membership

    def add(self, member: Member) -> None:
        """A peer joins; it starts with the whole table."""
        self._enrol(member)
        member.pending = dict.fromkeys(self.all_units(), False)

    def adopt(self, member: Member, units: Iterable[bytes]) -> None:
        """A peer comes from another group: it may be wrong about `units` only."""
        self._enrol(member)
        pending = member.pending if member.pending is not None else {}
        for unit in units:
            pending[unit] = True
        member.pending = pending

    def _enrol(self, member: Member) -> None:
        self.members[member] = None
        self._by_source[member.source] = member
        self._by_address[member.address] = (*self._by_address.get(member.address, ()), member)

    def refresh(self, member: Member, begin: bytes, end: bytes) -> None:
        """A peer asks for everything again (RFC 2918); `begin` and `end` bracket it (RFC 7313) where not empty."""
        self._detach(member)
        assert member.pending is not None
        member.pending.update(dict.fromkeys(self.all_units(), True))
        member.backlog += [begin] if begin else []
        member.closing = [end] if end else []

    def remove(self, member: Member) -> None:
        """A peer leaves. Its unread units are in `member.pending` afterwards."""
        self._detach(member)
        assert member.pending is not None
        member.pending.update((unit, True) for unit, _ in member.draining)
        member.draining.clear()
        del self.members[member]
        self._by_source.pop(member.source, None)
        others = tuple(other for other in self._by_address.pop(member.address, ()) if other is not member)
        if others:
            self._by_address[member.address] = others

    def all_units(self) -> list[bytes]:
        """Units of the whole table."""
        table = self.rib.table
        if not self.key.add_path:
            return list(table)
        return [path.send_id + key for key, entry in table.items() for path in paths(entry)]

    def differences(self, other: UpdateGroup) -> list[bytes]:
        """Units that `other` would tell its members differently: what moves with a member from here to there."""
        if self.key.add_path != other.key.add_path:
            return other.all_units()
        units: list[bytes] = []
        for path, keys in self._table_by_path():
            mine, theirs = self._outcomes(path, keys), other._outcomes(path, keys)
            changed = [key for key in keys if mine.get(key) != theirs.get(key)]
            units += self._units(path, changed)
        return units

    def _table_by_path(self) -> Iterable[tuple[Path, list[bytes]]]:
        groups: dict[Path, list[bytes]] = {}
        for key, entry in self.rib.table.items():
            for path in self._visible(entry):
                groups.setdefault(path, []).append(key)
        return groups.items()

    def _visible(self, entry: Path | tuple[Path, ...] | None) -> Sequence[Path]:
        """The paths of an entry that this group tells of, before its rules."""
        if self.key.add_path:
            return [path for path in paths(entry) if path.next_hop.reachable]
        chosen = best(entry)
        return () if chosen is None else (chosen,)

    def _outcomes(self, path: Path, keys: Sequence[bytes]) -> dict[bytes, tuple[bytes, bytes]]:
        result: dict[bytes, tuple[bytes, bytes]] = {}
        for leaf, part in pour(self.exporter.node(path), keys):
            if leaf.accepted:
                out = self.exporter.outgoing(leaf, path)
                result.update(dict.fromkeys(part, (out.block, out.next_hop)))
        return result

    def _units(self, path: Path, keys: Sequence[bytes]) -> Sequence[bytes]:
        if not self.key.add_path:
            return keys
        send_id = path.send_id
        return [send_id + key for key in keys]

    # Changes

    def apply(self, changes: dict[Change, list[bytes]], repeated: set[bytes]) -> None:
        """Tell the members of what changed in the Loc-RIB. `repeated`: keys that changed more than once."""
        if not self.members:
            return
        batch = _Batch(self)
        add_path, unheard = self.key.add_path, unheard_by(self.key.target)
        # A peer alone in its group is told nothing of its own paths.
        alone = next(iter(self.members)).source if len(self.members) == 1 else None
        for (old_path, new_path, old_best, new_best), keys in changes.items():
            old, new = (old_path, new_path) if add_path else (old_best, new_best)
            if unheard is not None:
                old = None if old is not None and old.source.kind is unheard else old
                new = None if new is not None and new.source.kind is unheard else new
                if old is None and new is None:
                    continue
            if alone is not None and (old is None or old.source is alone) and (new is None or new.source is alone):
                continue
            if repeated and not repeated.isdisjoint(keys):
                batch.revisit(old, new, [key for key in keys if key in repeated])
                keys = [key for key in keys if key not in repeated]
            if keys and (add_path or not (old is new or (old is not None and new is not None and new.same(old)))):
                batch.transition(old, new, keys)
        batch.settle()
        batch.close()

    def excluded(self, path: Path, next_hop: bytes) -> tuple[Member, ...]:
        """Members that must not get this path: its source, and who is its next hop (RFC 4271 §5.1.3)."""
        source = self._by_source.get(path.source)
        hops = self._by_address.get(next_hop, ())
        return hops if source is None or source in hops else (source, *hops)

    def append(self, data: bytes, units: Sequence[bytes], patches: dict[Member, bytes]) -> None:
        """Put a chunk into the log."""
        index = self._base + len(self._log)
        self._log.append(data)
        self._log_units.append(units)
        self._log_size += len(data)
        for member, replacement in patches.items():
            if member.pending is None:
                member.patches.append((index, replacement))

    def appended(self, touched: Callable[[], Iterable[bytes]]) -> None:
        """All chunks of a flush are in the log."""
        self._windows.clear()
        attached = 0
        for member in self.members:
            if member.pending is None:
                attached += 1
            else:
                pending = member.pending
                for unit in touched():
                    pending.setdefault(unit, True)
        self._lagging = attached
        if not attached:
            self._clear()
        elif self._log_size > LOG_LIMIT:
            self._drop_laggards()

    def _clear(self) -> None:
        self._base += len(self._log)
        self._log.clear()
        self._log_units.clear()
        self._log_size = 0
        self._windows.clear()

    def _drop_laggards(self) -> None:
        """Members that hold the log up beyond its limit fall back to sets of units; what no one needs goes."""
        size, index = self._log_size, 0
        while index < len(self._log) and size > LOG_LIMIT // 2:
            size -= len(self._log[index])
            index += 1
        floor = self._base + index
        for member in self.members:
            if member.pending is None and member.cursor < floor:
                self._detach(member)
        del self._log[:index], self._log_units[:index]
        self._base, self._log_size = floor, size
        self._windows.clear()

    def _detach(self, member: Member) -> None:
        if member.pending is not None:
            return
        if member.cursor < self._base + len(self._log):
            self._lagging -= 1
        pending: dict[bytes, bool] = {}
        for units in self._log_units[member.cursor - self._base :]:
            pending.update(dict.fromkeys(units, True))
        member.pending = pending
        member.patches.clear()
        if self._lagging == 0:
            self._clear()

    # Sending

    def has_data(self, member: Member) -> bool:
        """Whether `pull` would give something."""
        if member.backlog or member.pending or member.draining:
            return True
        if member.pending is None:
            return member.cursor < self._base + len(self._log)
        return member.eor and not self.hold_eor

    def pull(self, member: Member) -> bytes | None:
        """The member's next octets: whole messages, about 64 KiB at most. None if there is nothing now."""
        if member.backlog:
            data = member.backlog.pop(0)
            member.sent += data.count(MARKER)
            return data
        if member.pending is not None and not self._drain(member):
            return None
        return self.pull(member) if member.backlog else self._read_log(member)

    def _read_log(self, member: Member) -> bytes | None:
        while member.cursor < self._base + len(self._log):
            start = member.cursor
            end, data, offsets, count = self._windows.get(start) or self._window(start)
            member.cursor = end
            member.sent += count
            if member.patches and member.patches[0][0] < end:
                data = self._patched(member, start, end, data, offsets)
            if end == self._base + len(self._log):
                self._lagging -= 1
                if self._lagging == 0:
                    self._clear()
            if data:
                return data
        return None

    def _window(self, start: int) -> _Window:
        """The run of chunks at `start`; shared by all members at that place."""
        first = start - self._base
        index, size, offsets = first, 0, []
        while index < len(self._log) and (index == first or size + len(self._log[index]) <= CHUNK):
            offsets.append(size)
            size += len(self._log[index])
            index += 1
        offsets.append(size)
        run = self._log[first] if index == first + 1 else b"".join(self._log[first:index])
        window = (self._base + index, run, offsets, run.count(MARKER))
        self._windows[start] = window
        return window

    def _patched(self, member: Member, start: int, end: int, data: bytes, offsets: list[int]) -> bytes:
        pieces: list[bytes] = []
        at = used = 0
        for index, replacement in member.patches:
            if index >= end:
                break
            used += 1
            pieces += (data[at : offsets[index - start]], replacement)
            at = offsets[index - start + 1]
        del member.patches[:used]
        pieces.append(data[at:])
        return b"".join(pieces)

    def _drain(self, member: Member) -> bool:
        """Put the next slice of a member's units into its backlog; at the end it joins the log.

        False: nothing is to be sent now, since our End-of-RIB waits.
        """
        pending = member.pending
        assert pending is not None
        while pending or member.draining:
            if not member.draining:
                member.draining = list(pending.items())
                member.draining.reverse()
                pending.clear()
            taken = member.draining[-member.slice :]
            del member.draining[-member.slice :]
            chunks = self._look_up(member, taken)
            size = sum(map(len, chunks))
            # The next slice is to give about one chunk of octets.
            member.slice = min(max(CHUNK * len(taken) // (size or 1), 64), _MAX_SLICE)
            if chunks:
                member.backlog.extend(chunks)
                return True
        if member.closing:
            member.backlog.append(member.closing.pop(0))
            return True
        if member.eor and self.hold_eor:
            return False
        member.pending = None
        member.cursor = self._base + len(self._log)
        if member.eor:
            member.eor = False
            member.backlog.append(build_end_of_rib(self.key.family))
        return True

    def _look_up(self, member: Member, taken: list[tuple[bytes, bool]]) -> list[bytes]:
        """Chunks that make the member right about these units."""
        add_path, table = self.key.add_path, self.rib.table
        groups: dict[Path, list[bytes]] = {}
        absent: list[bytes] = []
        held = dict(taken)
        for unit in held:
            key = unit[4:] if add_path else unit
            path = self._visible_as(table.get(key), unit[:4])
            if path is None:
                absent.append(unit)
            else:
                groups.setdefault(path, []).append(key)
        messages: list[bytes] = []
        for path, keys in groups.items():
            messages += self._announce_to(member, path, keys, absent)
        gone = [unit for unit in absent if held[unit]]
        if gone:
            messages = build_unreach(self.key.family, gone, self.key.max_length) + messages
        return _pack(messages)

    def _visible_as(self, entry: Path | tuple[Path, ...] | None, send_id: bytes) -> Path | None:
        if not self.key.add_path:
            return best(entry)
        for path in paths(entry):
            if path.send_id == send_id:
                return path if path.next_hop.reachable else None
        return None

    def _announce_to(self, member: Member, path: Path, keys: list[bytes], absent: list[bytes]) -> list[bytes]:
        messages: list[bytes] = []
        for leaf, part in pour(self.exporter.node(path), keys):
            units = self._units(path, part)
            if leaf.accepted:
                out = self.exporter.outgoing(leaf, path)
                if member not in self.excluded(path, out.next_hop):
                    encoded = self.encode(leaf, path, units)
                    if encoded is not None:
                        messages += encoded
                        continue
            absent.extend(units)
        return messages

    def encode(self, leaf: Leaf, path: Path, units: Sequence[bytes]) -> list[bytes] | None:
        """Messages that announce units, or None where the attributes leave no room for one (RFC 4271 §9.2)."""
        out = self.exporter.outgoing(leaf, path)
        try:
            return build_reach(self.key.family, out.block, out.next_hop, units, self.key.max_length)
        except AttributesTooLong:
            self._too_long(path, units)
            return None


class _Batch:
    """One flush of one group: collects, then writes withdrawals first, each unit once."""

    def __init__(self, group: UpdateGroup) -> None:
        self.group = group
        self.announced: dict[Leaf, _Announcement] = {}
        self.withdrawn: dict[tuple[Member, ...], list[bytes]] = {}
        self.held: dict[tuple[bytes, bytes], set[Path]] = {}
        """(key, send id) that changed more than once: the paths that may have been told."""

    def transition(self, old: Path | None, new: Path | None, keys: Sequence[bytes]) -> None:
        """`keys` went from one path to another, as this group sees it."""
        if new is None or not new.next_hop.reachable:
            if old is not None:
                self.withdraw(old, keys)
            return
        for leaf, part in pour(self.group.exporter.node(new), keys):
            if leaf.accepted:
                self.announce(leaf, new, old, part)
            elif old is not None:
                self.withdraw(old, part)

    def announce(self, leaf: Leaf, new: Path, old: Path | None, keys: Sequence[bytes]) -> None:
        group = self.group
        item = self.announced.get(leaf)
        if item is None:
            item = self.announced[leaf] = _Announcement(new)
        units = group._units(new, keys)
        item.units.extend(units)
        for member in group.excluded(new, group.exporter.outgoing(leaf, new).next_hop):
            held = item.withdraw.setdefault(member, [])
            if old is not None:
                held.extend(self._held_by(member, old, keys))

    def _held_by(self, member: Member, old: Path, keys: Sequence[bytes]) -> Iterable[bytes]:
        group = self.group
        for leaf, part in pour(group.exporter.node(old), keys):
            if leaf.accepted and member not in group.excluded(old, group.exporter.outgoing(leaf, old).next_hop):
                yield from group._units(old, part)

    def withdraw(self, old: Path, keys: Sequence[bytes]) -> None:
        group = self.group
        for leaf, part in pour(group.exporter.node(old), keys):
            if leaf.accepted:
                excluded = group.excluded(old, group.exporter.outgoing(leaf, old).next_hop)
                self.withdrawn.setdefault(excluded, []).extend(group._units(old, part))

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
            self._settle_one(key, olds, self.group._visible_as(table.get(key), send_id))

    def _settle_one(self, key: bytes, olds: set[Path], new: Path | None) -> None:
        group = self.group
        if new is not None:
            leaf, _ = next(pour(group.exporter.node(new), (key,)))
            if leaf.accepted:
                item = self.announced.get(leaf) or _Announcement(new)
                self.announced[leaf] = item
                item.units.extend(group._units(new, (key,)))
                for member in group.excluded(new, group.exporter.outgoing(leaf, new).next_hop):
                    units = {unit for old in olds for unit in self._held_by(member, old, (key,))}
                    item.withdraw.setdefault(member, []).extend(units)
                return
        for old in olds:
            leaf, _ = next(pour(group.exporter.node(old), (key,)))
            if leaf.accepted:
                # To every member: one may have been excluded from this old path and hold another of them.
                self.withdrawn.setdefault((), []).extend(group._units(old, (key,)))
                return

    def close(self) -> None:
        """Write the collected changes into the group's log."""
        group = self.group
        if not self.announced and not self.withdrawn:
            return
        lost: list[Sequence[bytes]] = []
        announcements = [(item, group.encode(leaf, item.path, item.units)) for leaf, item in self.announced.items()]
        for item, messages in announcements:
            if messages is None:
                lost.append(item.units)
                self.withdrawn.setdefault((), []).extend(item.units)
        for excluded, units in self.withdrawn.items():
            messages = build_unreach(group.key.family, units, group.key.max_length)
            for chunk in _pack(messages):
                group.append(chunk, units, dict.fromkeys(excluded, b""))
        for item, messages in announcements:
            if messages is not None:
                self._write(item, messages)
        group.appended(self._touched)

    def _write(self, item: _Announcement, messages: list[bytes]) -> None:
        group = self.group
        patches = {
            member: b"".join(build_unreach(group.key.family, units, group.key.max_length)) if units else b""
            for member, units in item.withdraw.items()
        }
        for chunk in _pack(messages):
            group.append(chunk, item.units, patches)
            patches = dict.fromkeys(patches, b"")

    def _touched(self) -> Iterable[bytes]:
        for item in self.announced.values():
            yield from item.units
        for units in self.withdrawn.values():
            yield from units


def _pack(messages: list[bytes]) -> list[bytes]:
    """Join whole messages to chunks of at most CHUNK octets."""
    if len(messages) <= 1:
        return messages
    total = sum(map(len, messages))
    if total <= CHUNK:
        return [b"".join(messages)]
    chunks: list[bytes] = []
    run: list[bytes] = []
    size = 0
    for message in messages:
        if size + len(message) > CHUNK and run:
            chunks.append(b"".join(run))
            run, size = [], 0
        run.append(message)
        size += len(message)
    chunks.append(b"".join(run))
    return chunks
