"""Update groups: Adj-RIB-Out of all peers that are told the same (RFC 4271 §3.2, §9.2).

What the members of a group would get alike is encoded once, into a log of byte chunks; each member has its place in the
log. A member that must not get a chunk (it is the source, or its own address is the next hop) has a *patch* for it:
other bytes in its place, which are empty, or withdraw what it had before. A new member begins with a *dump* of the
table, shared by all that begin at the same state of it, and goes on with the log. A member too far behind leaves the
log and keeps the *set of units* it may be wrong about instead (a unit is an NLRI: key, with our path id before it under
ADD-PATH); as it drains, each unit is looked up: there = announce, absent = withdraw. So memory is bounded by the table
and one shared log, never by messages.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from bgpd.policy.chain import Leaf, pour
from bgpd.rib.batch import Batch
from bgpd.rib.chunks import CHUNK, ChunkLog, Units, pack, unfold
from bgpd.rib.decision import best, paths
from bgpd.rib.dump import Dump
from bgpd.rib.export import Exporter, GroupKey
from bgpd.rib.loc_rib import Change, LocRib
from bgpd.rib.path import Path, Source
from bgpd.rib.reflection import unheard as unheard_by
from bgpd.rib.review import Review
from bgpd.wire.build import AttributesTooLong, build_end_of_rib, build_reach, build_unreach
from bgpd.wire.framing import MARKER

LOG_LIMIT = 16 * 1024 * 1024
"""Octets of memory (`ChunkLog.cost`) by which a member may be behind before it falls back to the set of units."""
_SPREAD_MEMBERS = 512
_SPREAD_OCTETS = 2 * 1024 * 1024
"""What `spread` hands out in one go, at most: some 7 ms of writing. Who is left reads on by `pull`."""
_FIRST_SLICE = 512
_MAX_SLICE = 4096


class Member:
    """One peer's place in one group."""

    __slots__ = (
        "address",
        "backlog",
        "blocked",
        "closing",
        "conn",
        "cursor",
        "draining",
        "dump",
        "dumped",
        "eor",
        "eor_at",
        "owner",
        "patches",
        "pending",
        "plain",
        "sent",
        "slice",
        "source",
    )

    def __init__(self, owner: object, source: Source, address: bytes, conn: int | None = None) -> None:
        self.owner = owner
        self.conn = -1 if conn is None else conn
        """The connection by which the owner's shell reaches the peer."""
        self.plain = False
        """It follows the log and is due nothing else, or only an End-of-RIB that waits for our own restart: the short
        way is right for it."""
        self.blocked = False
        """Its TCP takes no more for now: nothing is handed to it before it asks."""
        self.source = source
        self.address = address
        self.cursor = 0
        self.patches: list[tuple[int, bytes]] = []
        self.dump: Dump | None = None
        """The table that is being sent, `dumped` chunks of it so far; then the log goes on, from where it began."""
        self.dumped = 0
        self.pending: dict[bytes, None] | None = None
        """Units to look up, for a member too far behind. None = follows the log."""
        self.draining: list[bytes] = []
        """The part of `pending` that is being sent; what changes meanwhile waits in `pending`, so nothing starves."""
        self.backlog: list[bytes] = []
        self.closing: list[bytes] = []
        """Messages due behind the dump: the end of a route refresh (RFC 7313)."""
        self.sent = 0
        """UPDATE messages handed out, for people."""
        self.slice = _FIRST_SLICE
        self.eor = True
        """End-of-RIB is still due after the initial table."""
        self.eor_at = 0
        """How far the log must have been read before End-of-RIB."""

    def queued(self) -> int:
        """Units that wait to be looked up, and keys of a table that is being sent."""
        return len(self.pending or ()) + len(self.draining) + (len(self.dump.left(self.dumped)) if self.dump else 0)

    def waits_for(self, key: bytes, add_path: bool) -> bool:
        """Whether a prefix is among what `queued` counts."""
        if self.dump is not None and key in self.dump.left(self.dumped):
            return True
        if not add_path:
            return key in (self.pending or ()) or key in self.draining
        return any(unit[4:] == key for unit in (*(self.pending or ()), *self.draining))


class UpdateGroup:
    """Peers of one GroupKey and what they are told of one Loc-RIB."""

    def __init__(
        self,
        key: GroupKey,
        rib: LocRib,
        too_long: Callable[[Path, Sequence[bytes]], None],
        like: UpdateGroup | None = None,
    ) -> None:
        """`like`: the group whose members come here."""
        self.key = key
        self.rib = rib
        self.exporter: Exporter = Exporter(key, like.exporter if like is not None else None)
        self.members: dict[Member, None] = {}
        self.reviews: list[Review] = []
        """What members that came from other groups have still to be told, the newest last."""
        self.log = ChunkLog()
        self._hold_eor = False
        self._too_long = too_long
        self._front = 0
        """Where the log ended before the last changes: members stand there that had read everything."""
        self._lagging = 0
        """Members that follow the log and have not read all of it."""
        self._dump: Dump | None = None
        self._by_source: dict[Source, Member] = {}
        self._by_address: dict[bytes, tuple[Member, ...]] = {}
        """Peers at one address differ in port."""

    @property
    def hold_eor(self) -> bool:
        """End-of-RIB waits: our own restart is not over (RFC 4724 §4.1)."""
        return self._hold_eor

    @hold_eor.setter
    def hold_eor(self, hold: bool) -> None:
        if self._hold_eor and not hold:
            for member in self.members:
                # Behind what is in the log by now, which is what the restart phase has brought.
                member.eor_at = self.log.end
                member.plain = member.plain and not member.eor
        self._hold_eor = hold

    # Membership

    def add(self, member: Member) -> None:
        """A peer joins; it starts with the whole table."""
        self._enrol(member)
        member.cursor = self.log.end
        member.plain = self._hold_eor
        self._send_all(member)

    def adopt(self, member: Member, old: UpdateGroup) -> Review | None:
        """A peer comes from another group, and is told only what the two groups tell differently.

        Returns the review that finds this out, if it is a new one: whoever asks has to `run` it.
        """
        shared = next((review for review in self.reviews if review.joinable(old)), None)
        review = shared or Review(self, old)
        old.remove(member)
        self._enrol(member)
        member.cursor = self.log.end
        review.members.add(member)
        if shared is not None:
            return None
        self.reviews.append(review)
        return review

    def _enrol(self, member: Member) -> None:
        self.members[member] = None
        self._by_source[member.source] = member
        self._by_address[member.address] = (*self._by_address.get(member.address, ()), member)

    def refresh(self, member: Member, begin: bytes, end: bytes) -> None:
        """A peer asks for everything again (RFC 2918); `begin` and `end` bracket it (RFC 7313) where not empty.

        What it has not read of the log comes behind, and tells of the same changes or later ones.
        """
        member.dump, member.plain = None, False
        self._send_all(member)
        member.backlog += [begin] if begin else []
        member.closing = [end] if end else []

    def _send_all(self, member: Member) -> None:
        """Begin with the whole table."""
        if not self.rib.table:
            return
        dump = self._dump
        if dump is None or dump.place != self.log.end:
            dump = self._dump = Dump(self, self.log.end)
        member.dump, member.dumped, member.plain = dump, 0, False

    def next_hops_changed(self) -> None:
        """Next hops resolve differently: what was worked out with them is no more.

        Walks over the table as it was end: they would tell of paths that came within reach only after they had been
        withdrawn, and of that the log knows nothing.
        """
        self.exporter.forget()
        for member in self.members:
            self._end_dump(member)

    def _end_dump(self, member: Member) -> None:
        """What is left of the table that a member is being sent is looked up instead."""
        if member.dump is not None:
            rest = self.all_units(member.dump.left(member.dumped))
            self._detach(member)
            assert member.pending is not None
            member.pending.update(dict.fromkeys(rest))
            member.dump = None
            self._forget_dump()

    def remove(self, member: Member) -> None:
        """A peer leaves. Its unread units are in `member.pending` afterwards, or it is None where there are none."""
        self._end_dump(member)
        if member.cursor < self.log.end:
            self._detach(member)
        if member.draining:
            assert member.pending is not None
            member.pending.update(dict.fromkeys(member.draining))
            member.draining = []
        member.patches.clear()
        del self.members[member]
        self._by_source.pop(member.source, None)
        others = tuple(other for other in self._by_address.pop(member.address, ()) if other is not member)
        if others:
            self._by_address[member.address] = others
        for review in self.reviews:
            review.members.discard(member)

    def all_units(self, keys: Iterable[bytes]) -> Sequence[bytes]:
        """Units of these keys, present or not (under ADD-PATH: present)."""
        if not self.key.add_path:
            return list(keys)
        table = self.rib.table
        return [path.send_id + key for key in keys for path in paths(table.get(key))]

    def units(self, path: Path, keys: Sequence[bytes]) -> Sequence[bytes]:
        """What these keys are called towards the members, with this path."""
        if not self.key.add_path:
            return keys
        send_id = path.send_id
        return [send_id + key for key in keys]

    def folded(self, path: Path, keys: Sequence[bytes]) -> Units:
        """The same, without naming each."""
        return path.send_id if self.key.add_path else b"", keys

    # Changes

    def apply(self, changes: dict[Change, list[bytes]], repeated: set[bytes]) -> None:
        """Tell the members of what changed in the Loc-RIB. `repeated`: keys that changed more than once."""
        if not self.members:
            return
        self._front = self.log.end
        for review in self.reviews:
            review.note(changes)
        batch = Batch(self)
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
                # But whoever joins now must not share the walk over the table that it began before this.
                self._dump = None
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

    def append(self, data: bytes, units: Sequence[Units], patches: dict[Member, bytes]) -> None:
        """Put a chunk into the log."""
        place = self.log.append(data, units)
        for member, replacement in patches.items():
            if member.pending is None:
                member.patches.append((place, replacement))

    def appended(self, touched: Callable[[], Iterable[Units]]) -> None:
        """All chunks of a flush are in the log; `touched` gives their units."""
        attached = 0
        for member in self.members:
            if member.pending is None:
                attached += 1
            else:
                member.pending.update(dict.fromkeys(unfold(touched())))
        self._lagging = attached
        if not attached:
            self.log.clear()
        elif self.log.cost > LOG_LIMIT:
            self._drop_laggards()

    def _drop_laggards(self) -> None:
        """Members that hold the log up beyond its limit fall back to sets of units; what no one needs goes."""
        floor = self.log.floor(LOG_LIMIT // 2)
        for member in self.members:
            if member.pending is None and member.cursor < floor:
                self._detach(member)
        if floor > self.log.base:
            self.log.trim(floor)

    def _detach(self, member: Member) -> None:
        if member.pending is not None:
            return
        if member.cursor < self.log.end:
            self._lagging -= 1
        member.pending, member.plain = self.log.units_from(member.cursor), False
        member.patches.clear()
        if self._lagging == 0:
            self.log.clear()

    # Sending

    def spread(self) -> tuple[list[int], bytes] | None:
        """(connections, octets): what all members that had read everything get alike; their places have moved on.

        Five hundred clients that are told of one prefix are the case to be fast in: asking each of them by `pull` costs
        three times as much.
        """
        log, start = self.log, self._front
        if not log.base <= start < log.end:
            return None
        end, data, _, count = log.window(start)
        limit = min(_SPREAD_MEMBERS, _SPREAD_OCTETS // len(data))
        conns: list[int] = []
        for member in self.members:
            if member.cursor == start and member.plain and not member.blocked and not member.patches:
                if len(conns) == limit:
                    break
                member.cursor = end
                member.sent += count
                conns.append(member.conn)
        if end == log.end:
            self._lagging -= len(conns)
            if self._lagging == 0:
                log.clear()
        return (conns, data) if conns else None

    def ready(self) -> list[int]:
        """Connections of the members for which `pull` would give something."""
        end, has_data = self.log.end, self.has_data
        return [m.conn for m in self.members if (m.cursor < end if m.plain else has_data(m))]

    def has_data(self, member: Member) -> bool:
        """Whether `pull` would give something."""
        if member.pending is None:
            if member.cursor < self.log.end:
                return True
        elif member.pending or member.draining:
            return True
        return bool(member.backlog or member.dump or member.closing or (member.eor and not self._hold_eor))

    def pull(self, member: Member) -> bytes | None:
        """The member's next octets: whole messages, about 64 KiB at most. None if there is nothing now; none at all
        (b"") where a part of the table held nothing for it: ask again, other work may go first."""
        if member.plain:
            return self._read_log(member)
        if member.backlog:
            data = member.backlog.pop(0)
            member.sent += data.count(MARKER)
            return data
        if member.dump is not None and (part := self._read_dump(member, member.dump)) is not None:
            return part
        if member.pending is not None and self._drain(member):
            return self.pull(member)
        if member.closing:
            # Behind what is left of a table that is looked up: EoRR says that all was told (RFC 7313 §4).
            return member.closing.pop(0)
        if member.eor and not self._hold_eor and member.cursor >= member.eor_at:
            member.eor = False
            member.sent += 1
            return build_end_of_rib(self.key.family)
        member.plain = not member.eor or self._hold_eor
        return self._read_log(member)

    def _read_dump(self, member: Member, dump: Dump) -> bytes | None:
        chunk = dump.chunk(member.dumped)
        if chunk is None:
            member.dump = None
            self._forget_dump()
            return None
        member.dumped += 1
        data, count = chunk.without(member.source, member.address)
        member.sent += count if data else 0
        return data

    def _forget_dump(self) -> None:
        if self._dump is not None and not any(member.dump is self._dump for member in self.members):
            self._dump = None

    def _read_log(self, member: Member) -> bytes | None:
        log = self.log
        while member.cursor < log.end:
            start = member.cursor
            end, data, offsets, count = log.window(start)
            member.cursor = end
            member.sent += count
            if member.patches and member.patches[0][0] < end:
                data = self._patched(member, start, end, data, offsets)
            if end == log.end:
                self._lagging -= 1
                if self._lagging == 0:
                    log.clear()
            if data:
                return data
        return None

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
        """Put the next slice of a member's units into its backlog: True. At the end it joins the log: False."""
        pending = member.pending
        assert pending is not None
        while pending or member.draining:
            if not member.draining:
                member.draining = list(pending)
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
        member.pending = None
        member.cursor = self.log.end
        return False

    def _look_up(self, member: Member, taken: list[bytes]) -> list[bytes]:
        """Chunks that make the member right about these units."""
        add_path, table = self.key.add_path, self.rib.table
        groups: dict[Path, list[bytes]] = {}
        absent: list[bytes] = []
        for unit in taken:
            key = unit[4:] if add_path else unit
            path = self.visible_as(table.get(key), unit[:4])
            if path is None:
                absent.append(unit)
            else:
                groups.setdefault(path, []).append(key)
        messages: list[bytes] = []
        for path, keys in groups.items():
            messages += self._announce_to(member, path, keys, absent)
        if absent:
            messages = build_unreach(self.key.family, absent, self.key.max_length) + messages
        return pack(messages)

    def visible_as(self, entry: Path | tuple[Path, ...] | None, send_id: bytes) -> Path | None:
        """The path of an entry that the members know by this path id; without ADD-PATH the best."""
        if not self.key.add_path:
            return best(entry)
        for path in paths(entry):
            if path.send_id == send_id:
                return path if path.next_hop.reachable else None
        return None

    def _announce_to(self, member: Member, path: Path, keys: list[bytes], absent: list[bytes]) -> list[bytes]:
        messages: list[bytes] = []
        for leaf, part in pour(self.exporter.node(path), keys):
            if leaf.accepted:
                out = self.exporter.outgoing(leaf, path)
                if member not in self.excluded(path, out.next_hop):
                    encoded = self.encode(leaf, path, part)
                    if encoded is not None:
                        messages += encoded
                        continue
            absent.extend(self.units(path, part))
        return messages

    def encode(self, leaf: Leaf, path: Path, keys: Sequence[bytes]) -> list[bytes] | None:
        """Messages that announce keys, or None where the attributes leave no room for one (RFC 4271 §9.2)."""
        out, key = self.exporter.outgoing(leaf, path), self.key
        path_id = path.send_id if key.add_path else b""
        try:
            return build_reach(key.family, out.block, out.next_hop, keys, key.max_length, path_id)
        except AttributesTooLong:
            self._too_long(path, keys)
            return None

    def withdrawals(self, units: Units) -> list[bytes]:
        """Messages that withdraw units."""
        path_id, keys = units
        return build_unreach(self.key.family, keys, self.key.max_length, path_id)
