"""Kernel routes: from what is wanted and what is installed to operations, and from their results back. Pure.

The rules are told in `bgpd.fib.table`, whose FibTable adds what dumps and events say to the FibWriter here.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping, Sequence
from errno import EEXIST, EINVAL, ENOENT, ESRCH
from math import inf
from typing import TypeAlias, cast

from attrs import define

from bgpd.family import Family
from bgpd.fib import messages as nl
from bgpd.fib.entries import ABSENT, PRESENT, Failure, Form, Nexthop, Target, target_of
from bgpd.fib.nexthops import LINGER, NexthopTable
from bgpd.fib.operations import Additions, Op
from bgpd.fib.side import Side
from bgpd.routes import FibRoute
from bgpd.settings import FibSettings

_GONE = (ESRCH, ENOENT)
_REPAIRS_AT_ONCE = 8
"""In two seconds, for one prefix; further ones wait `_REPAIR_DELAY`."""
_REPAIR_DELAY = 0.2
FEW = 8
"""Prefixes from which on a batch is looked at as a whole."""
_KICK_DELAY = 0.01
"""A link that comes up says so several times."""


_Name: TypeAlias = tuple[int, Target | int, Nexthop | None]


def _name(afi: int, target: Target, nexthop: Nexthop | None) -> _Name:
    """What tells forms apart. With an object, type and metric do: the hops are the object's."""
    return (afi, target, None) if nexthop is None else (afi, target[1] << 8 | target[0], nexthop)


@define
class FibCounters:
    """Since the start."""

    added: int = 0
    replaced: int = 0
    deleted: int = 0
    refused: int = 0
    conflicts: int = 0
    repaired: int = 0
    adopted: int = 0


class FibWriter:
    """Routes of ours in one kernel table, both families: wanted, installed, and how the one becomes the other."""

    def __init__(self, settings: FibSettings) -> None:
        self.table = settings.table
        self.protocol = settings.protocol
        self.objects = settings.nexthop_objects
        """Write nexthop objects; the kernel side clears it where the kernel has none."""
        self.hold_deletes = True
        self.suspect = False
        """The picture may be wrong: a full dump is wanted. The caller clears it."""
        self.news: list[tuple[int, bytes, Failure]] = []
        """(address family, key, failure) of prefixes refused for the first time, themselves or their object."""
        self.counters = FibCounters()
        self._packer = nl.Packer(settings.table, settings.protocol)
        self.nexthops = NexthopTable(self._packer, settings.nexthop_id_base)
        self._ipv4, self._ipv6 = Side(nl.AF_INET), Side(nl.AF_INET6)
        self.sides = {nl.AF_INET: self._ipv4, nl.AF_INET6: self._ipv6}
        self._forms: dict[_Name, Form] = {}
        self._timers: list[tuple[float, int, int, bytes | Nexthop, Failure]] = []
        self._timer_number = 0
        self._repairs: dict[tuple[int, bytes], int] = {}
        self._repairs_since = -inf
        self._kicks: dict[int, float] = {}
        """Interface -> when what was refused because of it is asked for again."""
        self._blind = False
        """Events were lost: what stands may not be ours any more."""

    # ------------------------------------------------------------- wanted

    def want(self, family: Family, changes: Mapping[bytes, FibRoute | None], now: float) -> bool:
        """What shall stand for each prefix from now on; None = nothing of ours.

        True: these are a few prefixes and nothing else waits, and all that `take` gives now are additions, which fail
        where anything stands. What others did of late need not be known for them.
        """
        side = self.sides[nl.AF_INET if family.afi == 1 else nl.AF_INET6]
        if len(changes) < FEW:
            alone = not (self._timers or self._kicks or self._repairs or self.busy())
            new = alone and side.installed.keys().isdisjoint(changes)
            self._want_each(side, changes, now)
            return new and all(nexthop.state == ABSENT for nexthop in self.nexthops.todo)
        if not self._want_new(side, changes):
            self._want_each(side, changes, now)
        return False

    def _want_new(self, side: Side, changes: Mapping[bytes, FibRoute | None]) -> bool:
        """A table that comes in: no prefix was wanted before. False, and nothing done, where it is otherwise."""
        routes = changes.values()
        if side.refused or None in routes or not side.wanted.keys().isdisjoint(changes):
            return False
        forms: list[Form] = []
        last: FibRoute | None = None  # callers give one FibRoute for all prefixes of an attribute set, in one run
        for route in cast("Iterable[FibRoute]", routes):
            if route is not last:
                last, form = route, self._form_for(side.afi, target_of(side.afi, route))
            form.refs += 1
            forms.append(form)
        side.wanted.update(zip(changes, forms, strict=True))
        side.pending.update(dict.fromkeys(changes))
        return True

    def _want_each(self, side: Side, changes: Mapping[bytes, FibRoute | None], now: float) -> None:
        wanted, pending = side.wanted, side.pending
        last: FibRoute | None = None
        for key, route in changes.items():
            old = wanted.get(key)
            if route is None:
                if old is None:
                    continue
                del wanted[key]
            else:
                if route is not last:
                    last, form = route, self._form_for(side.afi, target_of(side.afi, route))
                if form is old:
                    continue
                wanted[key] = form
                form.refs += 1
            if old is not None:
                self._drop(old, now)
            if side.refused:
                side.refused.pop(key, None)
            pending[key] = None

    def release(self, now: float) -> int:
        """The restart phase is over: what nobody wants may go. Returns how many prefixes do."""
        self.hold_deletes, count = False, 0
        for side in self.sides.values():
            for key in side.installed:
                unwanted = key not in side.wanted
                if unwanted or key in side.extra:
                    side.pending[key] = None
                    count += unwanted
        return count

    def _form_for(self, afi: int, target: Target) -> Form:
        hops = target[2]
        if not (self.objects and hops):
            return self._form(afi, target, None)
        nexthop = self.nexthops.obtain(afi, hops)
        if nexthop.state != PRESENT or nexthop.members:
            self.nexthops.need(nexthop)
        return self._form(afi, target, nexthop)

    def _form(self, afi: int, target: Target, nexthop: Nexthop | None) -> Form:
        name = _name(afi, target, nexthop)
        form = self._forms.get(name)
        if form is None:
            form = self._forms[name] = Form(self._packer, afi, target, nexthop)
            form.live = True
            if nexthop is not None:
                nexthop.refs += 1
                self.nexthops.use(nexthop)
        return form

    def _register(self, form: Form) -> None:
        if form.live:
            return
        form.live = True
        self._forms.setdefault(_name(form.afi, form.target, form.nexthop), form)
        if form.nexthop is not None:
            form.nexthop.refs += 1
            self.nexthops.use(form.nexthop)

    def _hold(self, form: Form) -> None:
        self._register(form)
        form.refs += 1

    def _drop(self, form: Form, now: float) -> None:
        form.refs -= 1
        if form.refs > 0:
            return
        form.live = False
        name = _name(form.afi, form.target, form.nexthop)
        if self._forms.get(name) is form:
            del self._forms[name]
        if form.nexthop is not None:
            form.nexthop.refs -= 1
            self.nexthops.unused(form.nexthop, now)

    def _unpack(self, nexthop: Nexthop) -> None:
        """The object's id changed."""
        for side in self.sides.values():
            for form in {*side.wanted.values(), *side.installed.values()}:
                if form.nexthop is nexthop:
                    form.unpack()

    # --------------------------------------------------------- operations

    def take(self, limit: int, now: float) -> Sequence[Op]:
        """The next operations, at most `limit`: nexthop objects first, then routes, then objects nobody uses."""
        if self._timers or self._kicks or self._repairs:
            self._due(now)
        if self.nexthops.todo and (made := self.nexthops.operations(limit)):
            return made
        ops: list[Op] = []
        for side in self.sides.values():
            if side.pending:
                if not ops and len(side.pending) >= FEW and (new := self._take_new(side, limit)):
                    return new
                self._take_routes(side, limit, ops, now)
        if not ops and self.nexthops.todo:
            return self.take(limit, now)
        if not ops and self.nexthops.idle and not self.hold_deletes:
            ops.extend((nl.DELETE, b"", nexthop) for nexthop in self.nexthops.expired(now)[:limit])
        return ops

    def _take_new(self, side: Side, limit: int) -> Additions | None:
        """The common batch: the next prefixes are all new, and their nexthop objects are there. None, and nothing
        done, where it is otherwise."""
        keys = side.next_keys(limit)
        pending = side.pending
        forms = list(map(side.wanted.get, keys))
        if (
            None in forms
            or not all(map(pending.__contains__, keys))
            or not side.installed.keys().isdisjoint(keys)
            or not side.foreign.keys().isdisjoint(keys)
        ):
            return None
        found = cast("list[Form]", forms)
        for form in dict.fromkeys(found):
            if form.nexthop is not None and form.nexthop.state < PRESENT:
                return None
        side.take_keys(keys)
        return Additions(keys, found)

    def _take_routes(self, side: Side, limit: int, ops: list[Op], now: float) -> None:
        """Of the next prefixes, those for which there is something to do."""
        while side.pending and len(ops) < limit:
            left = limit - len(ops)
            keys = side.take_few() if len(side.pending) < min(FEW, left + 1) else side.take_next(left)
            for key in keys:
                if (op := self._decide(side, key, side.wanted.get(key), now)) is not None:
                    ops.append(op)

    def busy(self) -> bool:
        """Whether something waits to be taken now, timers apart."""
        return bool(self.nexthops.todo or self._ipv4.pending or self._ipv6.pending)

    def _decide(self, side: Side, key: bytes, form: Form | None, now: float) -> Op | None:
        """The next step for one prefix; its result makes the prefix pending again if more is to do."""
        have = side.installed.get(key)
        if form is None:
            return (nl.DELETE, key, have) if have is not None and not self.hold_deletes else None
        if have is not None and (have is form or have.target == form.target):
            if side.refused:
                side.refused.pop(key, None)
            extra = side.extra.get(key)
            return (nl.DELETE, key, extra[0]) if extra else None
        nexthop = form.nexthop
        if nexthop is not None and nexthop.state < PRESENT:
            self._await(side, key, nexthop)
            return None
        other = side.foreign.get(key, {}).get(form.metric)
        standing = have if have is None or have.metric == form.metric else side.swap(key, form.metric)
        if other is not None:
            self._conflict(side, key, form.metric, other.protocol, now)
            # Ours beside it, with what is no longer wanted: it cannot be replaced without risk to the other.
            return (nl.DELETE, key, have) if have is not None and not self.hold_deletes else None
        if standing is None:
            return nl.ADD, key, form
        if self._blind:
            side.deferred[key] = None
            return None
        return nl.REPLACE, key, form

    def _await(self, side: Side, key: bytes, nexthop: Nexthop) -> None:
        """The prefix is written when its object is there."""
        if nexthop.waiting is None:
            nexthop.waiting = {}
        if nexthop.failure is not None and (side.afi, key) not in nexthop.waiting:
            self.news.append((side.afi, key, nexthop.failure))
        nexthop.waiting[side.afi, key] = None
        self.nexthops.need(nexthop)

    def on_results(self, ops: Sequence[Op], errors: Mapping[int, tuple[int, str]], now: float) -> None:
        """How the operations of one `take` went: errors by index as (errno, text); no entry = done."""
        if not errors and type(ops) is Additions and (self._all_added(ops) if ops.keys[0] else self._all_made(ops)):
            return
        for index, (verb, key, target) in enumerate(ops):
            error = errors.get(index) if errors else None
            if isinstance(target, Nexthop):
                self._nexthop_result(verb, target, error, now)
            elif error is None:
                self._done(self.sides[target.afi], verb, key, target, now)
            else:
                self._failed(self.sides[target.afi], verb, key, target, error, now)

    def _all_added(self, ops: Additions) -> bool:
        """The common end of a batch: all of it is done, and nothing has happened since it was taken. False, and
        nothing done, where it is otherwise."""
        keys, forms = ops.keys, cast("list[Form]", ops.targets)
        side = self.sides[forms[0].afi]
        if (
            side.refused
            or side.extra
            or not side.installed.keys().isdisjoint(keys)
            or list(map(side.wanted.get, keys)) != forms
        ):
            return False
        side.installed.update(zip(keys, forms, strict=True))
        for form in forms:
            form.refs += 1
        self.counters.added += len(keys)
        if side.touched is not None:
            side.touched.update(keys)
        return True

    def _all_made(self, ops: Additions) -> bool:
        nexthops = cast("list[Nexthop]", ops.targets)
        for nexthop in nexthops:
            if nexthop.doubt or nexthop.groups or nexthop.failure is not None:
                return False
        self.nexthops.made(nexthops)
        self._wake([nexthop for nexthop in nexthops if nexthop.waiting])
        return True

    def on_lost(self, ops: Sequence[Op], now: float) -> None:
        """Nobody knows how these went: a dump will tell."""
        self.suspect = True
        for _verb, key, target in ops:
            if isinstance(target, Nexthop):
                target.doubt = True
                self.nexthops.need(target)
            else:
                self.sides[target.afi].pending[key] = None

    def _done(self, side: Side, verb: int, key: bytes, form: Form, now: float) -> None:
        if verb == nl.DELETE:
            self.counters.deleted += 1
            have = side.installed.get(key)
            if have is not None and have is not form and have.metric == form.metric:
                self.suspect = True  # two of ours, told apart by nothing that a deletion can always name
            if side.remove(key, form):
                self._drop(form, now)
            if key in side.installed or key in side.wanted:
                side.pending[key] = None
        else:
            old = side.installed.get(key)
            side.installed[key] = form
            if not form.live:
                self._register(form)
            form.refs += 1
            if verb == nl.ADD:
                self.counters.added += 1
                if old is not None:
                    side.extra.setdefault(key, []).append(old)
                    side.pending[key] = None
            else:
                self.counters.replaced += 1
                if old is not None:
                    self._drop(old, now)
            if side.wanted.get(key) is not form or key in side.extra:
                side.pending[key] = None
            elif side.refused:
                side.refused.pop(key, None)
        if side.touched is not None:
            side.touched.add(key)

    def _failed(self, side: Side, verb: int, key: bytes, form: Form, error: tuple[int, str], now: float) -> None:
        errno, text = error
        if verb == nl.DELETE and errno in _GONE:
            self._done(side, verb, key, form, now)
            return
        if side.touched is not None:
            side.touched.add(key)
        if verb == nl.ADD and errno == EEXIST:
            self._conflict(side, key, form.metric, 0, now)
            return
        if verb == nl.REPLACE and errno in _GONE:
            self._vanished(side, key, now)
            return
        if errno == EINVAL and form.nexthop is not None and form.nexthop.state == PRESENT and verb != nl.DELETE:
            # "Nexthop id does not exist": dropped with a link and not yet heard of. Asking for it again tells.
            for nexthop in (*form.nexthop.members, form.nexthop):
                if nexthop.state == PRESENT:
                    nexthop.doubt, nexthop.state = True, 0
            self.nexthops.need(form.nexthop)
        self.counters.refused += 1
        self._refuse(side, key, errno, text, now)

    def _conflict(self, side: Side, key: bytes, metric: int, protocol: int, now: float) -> None:
        if not protocol and metric not in side.foreign.get(key, {}):
            self.suspect = True
        if key not in side.refused:
            self.counters.conflicts += 1
        self._refuse(side, key, EEXIST, "another program's route has this prefix and metric", now)

    def _refuse(self, side: Side, key: bytes, errno: int, text: str, now: float) -> None:
        old = side.refused.get(key)
        attempts = old.attempts + 1 if old else 1
        failure = Failure(errno, text, attempts, now + min(30.0, 0.25 * 2 ** min(attempts - 1, 10)))
        side.refused[key] = failure
        if attempts == 1:
            self.news.append((side.afi, key, failure))
        self._timer(failure, side.afi, key)

    def _timer(self, failure: Failure, afi: int, what: bytes | Nexthop) -> None:
        self._timer_number += 1
        heapq.heappush(self._timers, (failure.retry_at, self._timer_number, afi, what, failure))

    def _nexthop_result(self, verb: int, nexthop: Nexthop, error: tuple[int, str] | None, now: float) -> None:
        ident, failure = nexthop.id, nexthop.failure
        lost: list[Nexthop] = []
        if error is None:
            usable, lost = self.nexthops.on_done(verb, nexthop, now)
        else:
            usable = self.nexthops.on_failed(verb, nexthop, *error, now)
            if usable:
                self.suspect = True  # it exists, but as what?
            if nexthop.failure is not None and nexthop.failure is not failure:
                self.counters.refused += 1
                self._timer(nexthop.failure, 0, nexthop)
                if nexthop.failure.attempts == 1:
                    self.news += [(afi, key, nexthop.failure) for afi, key in nexthop.waiting or ()]
        if nexthop.id != ident:
            self._unpack(nexthop)
        self._wake(usable)
        if lost:
            self._lose(lost, now)

    def _wake(self, nexthops: Iterable[Nexthop]) -> None:
        """Routes that waited for these objects can be written."""
        for nexthop in nexthops:
            if nexthop.waiting and nexthop.state >= PRESENT:
                for afi, key in nexthop.waiting:
                    self.sides[afi].pending[key] = None
                nexthop.waiting = None

    def _lose(self, nexthops: Iterable[Nexthop], now: float) -> None:
        """Objects went away, and the kernel took their routes along."""
        gone = set(nexthops)
        for side in self.sides.values():
            for key in [key for key, form in side.installed.items() if form.nexthop in gone]:
                self._vanished(side, key, now)

    def _vanished(self, side: Side, key: bytes, now: float) -> None:
        """Our route is not there any more."""
        form = side.installed.get(key)
        if form is not None:
            side.remove(key, form)
            self._drop(form, now)
        if key in side.wanted:
            self._repair(side, key, now)

    def _repair(self, side: Side, key: bytes, now: float) -> None:
        """Have it written again: at once, unless that has been done over and over."""
        if now - self._repairs_since > 2.0:
            self._repairs.clear()
            self._repairs_since = now
        count = self._repairs[side.afi, key] = self._repairs.get((side.afi, key), 0) + 1
        self.counters.repaired += 1
        if count <= _REPAIRS_AT_ONCE:
            side.pending[key] = None
            return
        failure = Failure(0, "another program keeps changing this route", count, now + _REPAIR_DELAY)
        side.refused[key] = failure
        side.pending.pop(key, None)
        self._timer(failure, side.afi, key)

    # --------------------------------------------------------------- time

    def deadline(self) -> float:
        """When `take` will have something without further input."""
        if self.busy():
            return -inf
        soonest = self._timers[0][0] if self._timers else inf
        if self._kicks:
            soonest = min(soonest, *self._kicks.values())
        if self.nexthops.idle and not self.hold_deletes:
            soonest = min(soonest, min(self.nexthops.idle.values()) + LINGER)
        return soonest

    def _due(self, now: float) -> None:
        if self._repairs and now - self._repairs_since > 2.0:
            self._repairs.clear()
        if not self._timers and not self._kicks:
            return
        while self._timers and self._timers[0][0] <= now:
            _at, _number, afi, what, failure = heapq.heappop(self._timers)
            if isinstance(what, Nexthop):
                if what.failure is failure:
                    self.nexthops.retry(what)
            elif self.sides[afi].refused.get(what) is failure:
                self.sides[afi].pending[what] = None
        for ifindex in [ifindex for ifindex, at in self._kicks.items() if at <= now]:
            del self._kicks[ifindex]
            self._kick(ifindex)

    @property
    def refusing(self) -> bool:
        """Whether the kernel refused something of late, so that a link that becomes ready may matter."""
        return bool(self._timers)

    def on_interface_ready(self, ifindex: int, now: float) -> None:
        """A link came up, or got an address or a subnet: what was refused because of it gets another try."""
        self._kicks.setdefault(ifindex, now + _KICK_DELAY)

    def _kick(self, ifindex: int) -> None:
        for nexthop in list(self.nexthops.by_id.values()):
            if nexthop.failure is not None and any(hop[1] == ifindex for hop in nexthop.hops):
                self.nexthops.retry(nexthop)
        for side in self.sides.values():
            for key, failure in side.refused.items():
                form = side.wanted.get(key)
                if form is not None and failure.errno not in (0, EEXIST) and form.uses(ifindex):
                    side.pending[key] = None
