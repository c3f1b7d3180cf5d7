"""Kernel routes: wanted against installed, and the operations that close the gap. Pure.

`want` says what shall be there, dumps and events say what is; `take` gives operations, in batches that the caller
carries out at once and answers with `on_results` before it takes the next.

Rules (why: traffic never stops, and a foreign route is never touched):

* New prefixes are added so that anything that stands there makes the addition fail. NLM_F_REPLACE would overwrite a
  foreign route of the same prefix and metric, so it is used only on what a dump, an event or our own success shows as
  ours, and never where a foreign route shares prefix and metric.
* A changed metric is another route to the kernel: the new one is added before the old one is deleted.
* EEXIST means foreign: leave it, show it, try again when it goes. Where no foreign route is known, `suspect` asks for a
  dump.
* Where events were lost, nothing is replaced until a dump has told what stands.
* What is right already is not written again, in whatever form it stands (plain hops or nexthop object).
* While `hold_deletes` is set (restart phase), no installed prefix loses its route.
* What others delete or change is put back at once; when they insist, a little later each time.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping, Sequence
from enum import Enum
from errno import EEXIST, EINVAL, ENOENT, ESRCH
from itertools import islice
from math import inf
from typing import TYPE_CHECKING

from attrs import define, frozen

from bgpd.family import Family
from bgpd.fib import messages as nl
from bgpd.fib.entries import PRESENT, Failure, Form, Nexthop, Target, target_of
from bgpd.fib.nexthops import LINGER, NexthopTable
from bgpd.fib.picture import Picture
from bgpd.fib.side import Side
from bgpd.routes import FibRoute
from bgpd.settings import FibSettings

if TYPE_CHECKING:
    Op = tuple[int, bytes, Form | Nexthop]

_GONE = (ESRCH, ENOENT)
_REPAIRS_AT_ONCE = 8
"""In two seconds, for one prefix; further ones wait `_REPAIR_DELAY`."""
_REPAIR_DELAY = 0.2
_KICK_DELAY = 0.01
"""A link that comes up says so several times."""


class FibStatus(Enum):
    """Where a prefix stands."""

    ABSENT = "absent"
    INSTALLED = "installed"
    PENDING = "pending"
    REFUSED = "refused"
    FOREIGN = "foreign"
    HELD = "held"
    """Not wanted, but kept until the restart phase is over."""


@frozen
class FibState:
    """One prefix, for people. Hops are (packed gateway, interface index, onlink); metrics as the kernel shows them."""

    status: FibStatus
    hops: tuple[nl.HopKey, ...] = ()
    metric: int = 0
    errno: int = 0
    text: str = ""
    retry_at: float = inf
    foreign_protocol: int = 0
    nexthop_id: int = 0


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


class FibTable:
    """All routes of ours in one kernel table, both families."""

    def __init__(self, settings: FibSettings) -> None:
        self.table = settings.table
        self.protocol = settings.protocol
        self.objects = settings.nexthop_objects
        """Write nexthop objects; the kernel side clears it where the kernel has none."""
        self.hold_deletes = True
        self.suspect = False
        """The picture may be wrong: a full dump is wanted. The caller clears it."""
        self.news: list[tuple[int, bytes, Failure]] = []
        """(address family, key, failure) of prefixes refused for the first time. The caller clears it."""
        self.counters = FibCounters()
        self._packer = nl.Packer(settings.table, settings.protocol)
        self.nexthops = NexthopTable(self._packer, settings.nexthop_id_base)
        self.sides = {nl.AF_INET: Side(nl.AF_INET), nl.AF_INET6: Side(nl.AF_INET6)}
        self._forms: dict[tuple[int, Target, Nexthop | None], Form] = {}
        self._timers: list[tuple[float, int, int, bytes | Nexthop, Failure]] = []
        self._timer_number = 0
        self._repairs: dict[tuple[int, bytes], int] = {}
        self._repairs_since = -inf
        self._kicks: dict[int, float] = {}
        """Interface -> when what was refused because of it is asked for again."""
        self._picture: Picture | None = None
        self._blind = self._lost_since_begin = False
        """Events were lost, so that what stands may not be ours any more; and that since the running dump began."""

    # ------------------------------------------------------------- wanted

    def want(self, family: Family, changes: Mapping[bytes, FibRoute | None], now: float) -> None:
        """What shall stand for each prefix from now on; None = nothing of ours."""
        side = self.sides[nl.AF_INET if family.afi == 1 else nl.AF_INET6]
        wanted, pending = side.wanted, side.pending
        memo: dict[int, Form] = {}  # by identity: callers give one FibRoute for all prefixes of an attribute set
        for key, route in changes.items():
            old = wanted.get(key)
            if route is None:
                if old is None:
                    continue
                del wanted[key]
            else:
                form = memo.get(id(route))
                if form is None:
                    form = memo[id(route)] = self._form_for(side.afi, target_of(side.afi, route))
                if form is old:
                    continue
                wanted[key] = form
                form.refs += 1
            if old is not None:
                self._drop(old, now)
            if side.refused:
                side.refused.pop(key, None)
            pending[key] = None

    def release(self, now: float) -> None:
        """The restart phase is over: what nobody wants may go."""
        self.hold_deletes = False
        for side in self.sides.values():
            for key in side.installed:
                if key not in side.wanted or key in side.extra:
                    side.pending[key] = None

    def _form_for(self, afi: int, target: Target) -> Form:
        hops = target[2]
        nexthop = self.nexthops.obtain(afi, hops) if self.objects and hops else None
        if nexthop is not None:
            self.nexthops.need(nexthop)
        return self._form(afi, target, nexthop)

    def _form(self, afi: int, target: Target, nexthop: Nexthop | None) -> Form:
        form = self._forms.get((afi, target, nexthop))
        if form is None:
            form = Form(self._packer, afi, target, nexthop)
            self._register(form)
        return form

    def _register(self, form: Form) -> None:
        if form.live:
            return
        form.live = True
        self._forms.setdefault((form.afi, form.target, form.nexthop), form)
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
        name = (form.afi, form.target, form.nexthop)
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

    def take(self, limit: int, now: float) -> list[Op]:
        """The next operations, at most `limit`: nexthop objects first, then routes, then objects nobody uses."""
        self._due(now)
        if self.nexthops.todo:
            made: list[Op] = [(verb, b"", nexthop) for verb, nexthop in self.nexthops.operations(limit)]
            if made:
                return made
        ops: list[Op] = []
        for side in self.sides.values():
            if side.pending:
                self._take_routes(side, limit, ops, now)
        if not ops and self.nexthops.todo:
            return self.take(limit, now)
        if not ops and self.nexthops.idle and not self.hold_deletes:
            ops.extend((nl.DELETE, b"", nexthop) for nexthop in self.nexthops.expired(now)[:limit])
        return ops

    def _take_routes(self, side: Side, limit: int, ops: list[Op], now: float) -> None:
        pending, wanted, installed, foreign = side.pending, side.wanted, side.installed, side.foreign
        while pending and len(ops) < limit:
            for key in list(islice(pending, limit - len(ops))):
                del pending[key]
                form = wanted.get(key)
                if form is not None and key not in installed and key not in foreign:
                    nexthop = form.nexthop
                    if nexthop is None or nexthop.state >= PRESENT:
                        ops.append((nl.ADD, key, form))
                        continue
                op = self._decide(side, key, form, now)
                if op is not None:
                    ops.append(op)

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
            if nexthop.waiting is None:
                nexthop.waiting = {}
            nexthop.waiting[side.afi, key] = None
            self.nexthops.need(nexthop)
            return None
        other = side.foreign.get(key, {}).get(form.metric)
        standing = side.swap(key, form.metric)
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

    def on_results(self, ops: Sequence[Op], errors: Mapping[int, tuple[int, str]], now: float) -> None:
        """How the operations of one `take` went: errors by index as (errno, text); no entry = done."""
        for index, (verb, key, target) in enumerate(ops):
            error = errors.get(index) if errors else None
            if isinstance(target, Nexthop):
                self._nexthop_result(verb, target, error, now)
            elif error is None:
                self._done(self.sides[target.afi], verb, key, target, now)
            else:
                self._failed(self.sides[target.afi], verb, key, target, error, now)

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
        if self.nexthops.todo or any(side.pending for side in self.sides.values()):
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

    # ------------------------------------------------------- the kernel's word

    def uses(self, ifindex: int) -> bool:
        """Whether any route of ours leaves by the interface."""
        return any(form.uses(ifindex) for form in self._forms.values())

    def _own_form(self, afi: int, shape: nl.RouteShape) -> Form:
        nexthop = self.nexthops.by_id.get(shape.nexthop_id) if shape.nexthop_id else None
        hops = nexthop.hops if nexthop is not None else shape.hops
        target = (shape.type, shape.metric, hops)
        if nexthop is not None or not shape.nexthop_id:
            return self._form(afi, target, nexthop)
        # Ours by protocol, through an object that is not: such a form is never written, and shared with nothing.
        form = Form(self._packer, afi, target, None, shape.nexthop_id)
        form.live = True
        return form

    def on_route_event(
        self, new: bool, flags: int, afi: int, key: bytes, shape: nl.RouteShape, now: float
    ) -> None:
        """A route message that is not an echo of our own writing."""
        if shape.special or shape.table != self.table:
            return
        side = self.sides[afi]
        if side.touched is not None:
            side.touched.add(key)
        if shape.protocol == self.protocol:
            form = self._own_form(afi, shape)
            form.refs += 1
            self._own_event(side, new, flags, key, form, now)
            self._drop(form, now)
        elif new:
            rivals = side.foreign.setdefault(key, {})
            have = side.installed.get(key)
            if flags & nl.F_REPLACE and have is not None and have.metric == shape.metric:
                if shape.metric in rivals:
                    self.suspect = True  # which of the two it replaced, a dump tells
                else:
                    self._vanished(side, key, now)
            rivals[shape.metric] = shape
        else:
            side.remove_foreign(key, shape.metric)
            if key in side.refused:
                side.pending[key] = None

    def _own_event(self, side: Side, new: bool, flags: int, key: bytes, form: Form, now: float) -> None:
        have = side.installed.get(key)
        if new:
            rival = form.metric in side.foreign.get(key, ())
            if have is not None and have.metric == form.metric and (flags & nl.F_APPEND or rival):
                self.suspect = True  # it may stand beside ours: a dump tells
            if flags & nl.F_REPLACE:
                side.remove_foreign(key, form.metric)
            self._seen(side, key, form, now)
        elif have is not None and have.metric == form.metric:
            if have is form or have.target == form.target:
                self._vanished(side, key, now)
            elif set(form.target[2]) < set(have.target[2]):  # IPv6 tells of one hop of several
                rest = tuple(hop for hop in have.target[2] if hop not in form.target[2])
                self._seen(side, key, self._form(side.afi, (have.target[0], have.metric, rest), None), now)
        else:
            extra = next((item for item in side.extra.get(key, ()) if item.target == form.target), None)
            if extra is not None and side.remove(key, extra):
                self._drop(extra, now)

    def _seen(self, side: Side, key: bytes, form: Form, now: float) -> None:
        """A route of our protocol stands there, written by someone else."""
        have = side.installed.get(key)
        if have is form:
            return
        if have is not None and have.metric != form.metric:
            if all(item.metric != form.metric for item in side.extra.get(key, ())):
                self._hold(form)
                side.extra.setdefault(key, []).append(form)
                side.pending[key] = None
            return
        self._hold(form)
        side.installed[key] = form
        if have is not None:
            self._drop(have, now)
        if key in side.wanted:
            if side.wanted[key].target != form.target:
                self._repair(side, key, now)
        else:
            side.pending[key] = None

    def on_nexthop_event(self, new: bool, item: nl.NexthopObject, now: float) -> None:
        """A message about a nexthop object that is not an echo of our own writing."""
        if new:
            stolen = self.nexthops.see(item, now)
            if stolen is not None:
                self._move(stolen, now)
            elif item.id in self.nexthops.by_id:
                self._wake([self.nexthops.by_id[item.id]])
        else:
            lost = self.nexthops.gone(item.id, now)
            if lost:
                self._lose(lost, now)

    def _move(self, nexthop: Nexthop, now: float) -> None:
        """Another program made our object its own: our routes are moved to a new one."""
        for side in self.sides.values():
            for key, form in list(side.installed.items()):
                if form.nexthop is nexthop:
                    # Equals nothing that can be wanted.
                    old = Form(self._packer, form.afi, (nl.RTN_UNICAST, form.metric, ()), None, nexthop.id)
                    old.refs, old.live = 1, True
                    side.installed[key] = old
                    side.pending[key] = None
                    self._drop(form, now)
        self.nexthops.renumber(nexthop)
        self._unpack(nexthop)

    def take_over(self, other: FibTable) -> None:
        """Want what another table wants: settings changed so much that it is started anew."""
        for afi, side in self.sides.items():
            for key, form in other.sides[afi].wanted.items():
                mine = self._form_for(afi, form.target)
                mine.refs += 1
                side.wanted[key] = mine
                side.pending[key] = None
        self.hold_deletes = other.hold_deletes

    def on_events_lost(self) -> None:
        """The kernel dropped events. The caller sees to a full dump."""
        self._blind = self._lost_since_begin = True

    # -------------------------------------------------------------- dumps

    def begin_dump(self, ifindex: int = 0) -> None:
        """A dump begins: of the whole table, or of the routes that leave by one interface."""
        self._picture = Picture(ifindex)
        self._lost_since_begin = False
        for side in self.sides.values():
            side.touched = set()

    def dump_nexthops(self, items: Iterable[nl.NexthopObject], now: float) -> None:
        """All nexthop objects; comes before the routes of a dump."""
        lost, stolen = self.nexthops.on_dump(items, now)
        for nexthop in stolen:
            self._move(nexthop, now)
        self._wake(self.nexthops.by_id.values())
        if lost:
            self._lose(lost, now)

    def dump_route(self, afi: int, key: bytes, shape: nl.RouteShape) -> None:
        """One route of the dump."""
        assert self._picture is not None
        if shape.special or shape.table != self.table:
            return
        if shape.protocol != self.protocol:
            self._picture.foreign[afi].setdefault(key, {})[shape.metric] = shape
            return
        forms = self._picture.forms[afi]
        form = forms.get(shape)
        if form is None:
            form = forms[shape] = self._own_form(afi, shape)
            form.refs += 1  # until the dump ends
        self._picture.add(afi, key, form)

    def end_dump(self, complete: bool, now: float) -> None:
        """The dump is over. An incomplete one (`complete` False) shows what is there, not what is not."""
        picture = self._picture
        assert picture is not None
        self._picture = None
        for side in self.sides.values():
            touched, side.touched = side.touched or set(), None
            self._end_own(side, picture, touched, complete, now)
            for key in side.end_foreign(picture.foreign[side.afi], touched, picture.ifindex, complete):
                if key in side.refused:
                    side.pending[key] = None
        for forms in picture.forms.values():
            for form in forms.values():
                self._drop(form, now)
        if complete and not picture.ifindex and not self._lost_since_begin:
            self._blind = False
            for side in self.sides.values():
                side.pending.update(side.deferred)
                side.deferred.clear()

    def _end_own(self, side: Side, picture: Picture, touched: set[bytes], complete: bool, now: float) -> None:
        own, ifindex = picture.own[side.afi], picture.ifindex
        for key, found in own.items():
            if key in touched:
                self.suspect |= not side.knows(key, found if isinstance(found, list) else [found])
            elif side.installed.get(key) is not found or key in side.extra:
                forms = list(found) if isinstance(found, list) else [found]
                forms += (form for form in side.beyond(key, ifindex) if form not in forms)
                self._reconcile(side, key, forms, now)
        if not complete:
            return
        for key, form in list(side.installed.items()):
            if key in own or key in touched or (key not in side.extra and not form.shown(ifindex)):
                continue
            kept = side.beyond(key, ifindex)
            if kept:
                self._reconcile(side, key, kept, now)
                continue
            for extra in side.extra.pop(key, ()):
                self._drop(extra, now)
            self._vanished(side, key, now)

    def _reconcile(self, side: Side, key: bytes, found: list[Form], now: float) -> None:
        """Take over what a dump shows of ours for one prefix."""
        wanted = side.wanted.get(key)
        have = side.installed.get(key)
        main = next((form for form in found if wanted is not None and form.target == wanted.target), None)
        if main is None:
            main = have if have in found else found[0]
        assert main is not None
        old = ([have] if have is not None else []) + side.extra.pop(key, [])
        for form in found:
            self._hold(form)
        side.installed[key] = main
        rest = [form for form in found if form is not main]
        if rest:
            side.extra[key] = rest
        for form in old:
            self._drop(form, now)
        if have is None:
            self.counters.adopted += 1
        if wanted is None or rest:
            side.pending[key] = None
        elif main.target != wanted.target:
            self._repair(side, key, now)
        elif key in side.refused:
            side.pending[key] = None

    # ------------------------------------------------------------ for people

    def state(self, family: Family, key: bytes) -> FibState:
        """Where one prefix stands."""
        side = self.sides[nl.AF_INET if family.afi == 1 else nl.AF_INET6]
        form, have = side.wanted.get(key), side.installed.get(key)
        shown = form or have
        if shown is None:
            return FibState(FibStatus.ABSENT)
        hops, metric = shown.target[2], shown.metric
        if form is None:
            held = FibStatus.HELD if self.hold_deletes else FibStatus.PENDING
            return FibState(held, hops, metric)
        if have is not None and have.target == form.target:
            return FibState(FibStatus.INSTALLED, hops, metric, nexthop_id=have.nexthop.id if have.nexthop else 0)
        failure = side.refused.get(key) or (form.nexthop.failure if form.nexthop else None)
        other = side.foreign.get(key, {}).get(metric)
        if other is not None or (failure is not None and failure.errno == EEXIST):
            protocol = other.protocol if other else 0
            retry = failure.retry_at if failure else inf
            text = failure.text if failure else ""
            return FibState(FibStatus.FOREIGN, hops, metric, EEXIST, text, retry, protocol)
        if failure is not None:
            return FibState(FibStatus.REFUSED, hops, metric, failure.errno, failure.text, failure.retry_at)
        return FibState(FibStatus.PENDING, hops, metric)

    def installed(self, family: Family) -> int:
        """How many prefixes have a route of ours."""
        return len(self.sides[nl.AF_INET if family.afi == 1 else nl.AF_INET6].installed)
