"""Our nexthop objects: found or made by content, numbered in a range of our own, removed when unused for a while. Pure.

Rules. An object is never changed to mean something else: routes are moved to another. An id is not used again before
the range has been walked through, so that no late event or route can mean a successor. Kernels drop objects silently
when a link goes down, so every object may be asked for again while routes still name it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from errno import EEXIST, EINVAL, ENOENT
from itertools import islice, repeat

from bgpd.fib import messages as nl
from bgpd.fib.entries import ABSENT, FAILED, PRESENT, STALE, Content, Failure, Nexthop
from bgpd.fib.operations import Additions, Op

ID_RANGE = 1 << 20
LINGER = 1.0
"""Seconds that an unused object is kept: a route that comes back soon finds it."""


def _content(afi: int, hops: tuple[nl.HopKey, ...]) -> Content:
    if len(hops) == 1:
        return (0 if hops[0][0] else afi), hops
    return (0 if all(hop[0] for hop in hops) else afi), hops


class NexthopTable:
    """All nexthop objects of ours: wanted, present, refused."""

    def __init__(self, packer: nl.Packer, base: int) -> None:
        self.packer = packer
        self.protocol = packer.protocol
        self.base = base
        self.by_id: dict[int, Nexthop] = {}
        self.by_content: dict[Content, Nexthop] = {}
        self.todo: dict[Nexthop, None] = {}
        self.idle: dict[Nexthop, float] = {}
        """Unused object -> since when."""
        self._taken: set[int] = set()
        self._next = base

    def obtain(self, afi: int, hops: tuple[nl.HopKey, ...]) -> Nexthop:
        """The object that leads to these hops, new if need be."""
        if len(hops) > 1:
            return self._obtain_group(afi, hops)
        gateway = hops[0][0]
        content = (0 if gateway else afi), hops
        found = self.by_content.get(content)
        if found is None:
            octets = len(gateway)
            family = nl.AF_INET6 if octets == 16 else nl.AF_INET if octets else afi
            found = Nexthop(self.packer, self._free_id(), family, content, ())
            self.by_id[found.id] = self.by_content[content] = found
        return found

    def _obtain_group(self, afi: int, hops: tuple[nl.HopKey, ...]) -> Nexthop:
        content = _content(afi, hops)
        found = self.by_content.get(content)
        if found is None:
            members = tuple(self.obtain(afi, (hop,)) for hop in hops)
            found = self._register(Nexthop(self.packer, self._free_id(), 0, content, members))
        return found

    def _register(self, nexthop: Nexthop) -> Nexthop:
        self.by_id[nexthop.id] = nexthop
        self.by_content.setdefault(nexthop.content, nexthop)
        for member in nexthop.members:
            member.groups += (nexthop,)
            self.idle.pop(member, None)
        return nexthop

    def _free_id(self) -> int:
        ident = self._next
        for _ in repeat(None, ID_RANGE):
            after = ident + 1 if ident < self.base + ID_RANGE - 1 else self.base
            if ident not in self.by_id and ident not in self._taken:
                self._next = after
                return ident
            ident = after
        raise AssertionError("more than 2^20 nexthop objects")

    def need(self, nexthop: Nexthop) -> None:
        """Have it made, members first, unless it is there or waits for its retry."""
        for member in nexthop.members:
            self.need(member)
        if nexthop.state in (ABSENT, STALE):
            self.todo[nexthop] = None

    def use(self, nexthop: Nexthop) -> None:
        """A route refers to it from now on."""
        self.idle.pop(nexthop, None)

    def unused(self, nexthop: Nexthop, now: float) -> None:
        """A route no longer refers to it."""
        if not nexthop.used:
            self.idle[nexthop] = now

    def forget(self, nexthop: Nexthop, now: float) -> None:
        """It is gone from the kernel and nothing of ours needs it."""
        self.by_id.pop(nexthop.id, None)
        self.idle.pop(nexthop, None)
        self.todo.pop(nexthop, None)
        if self.by_content.get(nexthop.content) is nexthop:
            del self.by_content[nexthop.content]
        for member in nexthop.members:
            member.groups = tuple(group for group in member.groups if group is not nexthop)
            self.unused(member, now)

    def expired(self, now: float) -> list[Nexthop]:
        """Unused ones that may be removed; groups come before their members by themselves."""
        return [nexthop for nexthop, since in self.idle.items() if now >= since + LINGER and not nexthop.used]

    # ------------------------------------------------------ what the kernel says

    def on_done(self, verb: int, nexthop: Nexthop, now: float) -> tuple[list[Nexthop], list[Nexthop]]:
        """An operation succeeded. Returns (objects now usable, objects that had been lost, with all their routes)."""
        if verb == nl.DELETE:
            if not nexthop.used:
                self.forget(nexthop, now)
                return [], []
            nexthop.state = ABSENT  # wanted again in the meantime
            self.need(nexthop)
            return [], [nexthop]
        self.todo.pop(nexthop, None)
        lost = [nexthop] if nexthop.doubt and verb == nl.ADD else []
        self._present(nexthop)
        for group in nexthop.groups:
            if lost and group.state == PRESENT:
                group.state = STALE
            self.retry(group)
            self.need(group)
        return [nexthop], lost

    def made(self, nexthops: Iterable[Nexthop]) -> None:
        """As `on_done` of many additions: of objects that are in no group, and whose being there was not in doubt."""
        todo = self.todo
        for nexthop in nexthops:
            todo.pop(nexthop, None)
            nexthop.state = PRESENT
            nexthop.attempts = 0

    def _present(self, nexthop: Nexthop) -> None:
        nexthop.state = PRESENT
        nexthop.doubt = False
        nexthop.attempts = 0
        nexthop.failure = None

    def on_failed(self, verb: int, nexthop: Nexthop, errno: int, text: str, now: float) -> list[Nexthop]:
        """An operation failed. Returns the objects that are usable all the same."""
        self.todo.pop(nexthop, None)
        if verb == nl.DELETE:
            self.on_done(verb, nexthop, now)
        elif verb == nl.REPLACE and errno == ENOENT:
            nexthop.state = ABSENT
            nexthop.doubt = True
            self.need(nexthop)
        elif errno == EEXIST and nexthop.doubt:
            self._present(nexthop)
            return [nexthop]
        elif errno == EEXIST:
            self.renumber(nexthop)
        else:
            self._refused(nexthop, errno, text, now)
        return []

    def _refused(self, nexthop: Nexthop, errno: int, text: str, now: float) -> None:
        bad = next((member for member in nexthop.members if member.failure), None)
        if errno == EINVAL and bad and bad.failure:
            errno, text = bad.failure.errno, bad.failure.text
        if nexthop.state == ABSENT:
            nexthop.state = FAILED
        nexthop.attempts += 1
        delay = min(30.0, 0.25 * 2 ** min(nexthop.attempts - 1, 10))
        nexthop.failure = Failure(errno, text, nexthop.attempts, now + delay)

    def renumber(self, nexthop: Nexthop) -> None:
        """Its id turned out to be another's: take a new one. The owner packs the routes anew."""
        del self.by_id[nexthop.id]
        self._taken.add(nexthop.id)
        nexthop.id = self._free_id()
        self.by_id[nexthop.id] = nexthop
        nexthop.state = ABSENT
        nexthop.doubt = False
        nexthop.unpack()
        for group in nexthop.groups:
            group.unpack()
            if group.state == PRESENT:
                group.state = STALE
            self.need(group)
        self.need(nexthop)

    def ours(self, item: nl.NexthopObject) -> bool:
        """Whether an object in the kernel is of our making."""
        return item.protocol == self.protocol and self.base <= item.id < self.base + ID_RANGE

    def _holds(self, nexthop: Nexthop, item: nl.NexthopObject) -> bool:
        if item.uneven:
            return False
        if nexthop.members:
            return sorted(item.group) == sorted(member.id for member in nexthop.members)
        return item.hop == nexthop.hops[0]

    def see(self, item: nl.NexthopObject, now: float) -> Nexthop | None:
        """An object is in the kernel. Returns one of ours that another took over, so that its routes must move."""
        known = self.by_id.get(item.id)
        if not self.ours(item):
            if self.base <= item.id < self.base + ID_RANGE:
                self._taken.add(item.id)
            return known
        if known is None:
            self._adopt(item, now)
        elif self._holds(known, item):
            if known.state != PRESENT:
                self._present(known)
                self.todo.pop(known, None)
        else:
            known.state = STALE
            if known.used:
                self.need(known)
        return None

    def _adopt(self, item: nl.NexthopObject, now: float) -> None:
        members = tuple(self.by_id[ident] for ident in item.group if ident in self.by_id)
        hops = (item.hop,) if item.hop else tuple(sorted(hop for member in members for hop in member.hops))
        if len(members) != len(item.group) or not hops or item.uneven or any(member.members for member in members):
            self._taken.add(item.id)
            return
        family = item.family if item.hop else next((m.afi for m in members if not m.hops[0][0]), 0)
        nexthop = self._register(Nexthop(self.packer, item.id, item.family, _content(family, hops), members))
        self._present(nexthop)
        self.idle[nexthop] = now
        if item.id >= self._next:
            self._next = self.base + (item.id + 1 - self.base) % ID_RANGE

    def gone(self, ident: int, now: float) -> list[Nexthop]:
        """An object left the kernel; so did all its routes. Returns those of ours that this concerns."""
        self._taken.discard(ident)
        nexthop = self.by_id.get(ident)
        if nexthop is None or nexthop.state in (ABSENT, FAILED):
            return []
        nexthop.state = ABSENT
        if not nexthop.used:
            self.forget(nexthop, now)
            return []
        nexthop.doubt = True
        for group in nexthop.groups:
            if group.state == PRESENT:
                group.state = STALE
            self.need(group)
        self.need(nexthop)
        return [nexthop]

    def on_dump(self, items: Iterable[nl.NexthopObject], now: float) -> tuple[list[Nexthop], list[Nexthop]]:
        """All objects of the kernel. Returns (ours that vanished, ours that another took over)."""
        seen = set()
        stolen = []
        self._taken.clear()
        for item in sorted(items, key=lambda item: len(item.group)):
            seen.add(item.id)
            other = self.see(item, now)
            if other is not None:
                stolen.append(other)
        lost = [nexthop for nexthop in self.by_id.values() if nexthop.state >= PRESENT and nexthop.id not in seen]
        return [item for nexthop in lost for item in self.gone(nexthop.id, now)], stolen

    def retry(self, nexthop: Nexthop) -> None:
        """Ask for a refused one again."""
        if nexthop.state == FAILED:
            nexthop.state = ABSENT
        self.need(nexthop)

    def operations(self, limit: int) -> Sequence[Op]:
        """What is to be made or mended, members before groups."""
        first = list(islice(self.todo, limit))
        if len(first) == len(self.todo):
            self.todo.clear()
        else:
            for item in first:
                del self.todo[item]
        if all(item.state == ABSENT and not item.members for item in first):
            return Additions([b""] * len(first), first)
        chosen = [item for item in first if item.state in (ABSENT, STALE)]
        chosen.sort(key=lambda item: len(item.members))
        return [(nl.ADD if item.state == ABSENT else nl.REPLACE, b"", item) for item in chosen]
