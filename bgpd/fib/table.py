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

from collections.abc import Iterable
from enum import Enum
from errno import EEXIST
from math import inf

from attrs import frozen

from bgpd.family import Family
from bgpd.fib import messages as nl
from bgpd.fib.entries import PRESENT, Form, Nexthop
from bgpd.fib.picture import Picture
from bgpd.fib.side import Side
from bgpd.fib.writer import FibCounters, FibWriter
from bgpd.settings import FibSettings

__all__ = ["FibCounters", "FibState", "FibStatus", "FibTable"]


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


def _standing(form: Form) -> FibState:
    """An installed route. One by a group does without the members whose link has no carrier, until they are back."""
    _type, metric, hops = form.target
    if form.nexthop is None:
        return FibState(FibStatus.INSTALLED, hops, metric)
    lost = [member for member in form.nexthop.members if member.state < PRESENT]
    failure = next((member.failure for member in lost if member.failure), None)
    if failure is None:
        return FibState(FibStatus.INSTALLED, hops, metric, nexthop_id=form.nexthop.id)
    text = f"without {len(lost)} of its {len(hops)} next hops: {failure.text}"
    retry = failure.retry_at
    return FibState(FibStatus.INSTALLED, hops, metric, failure.errno, text, retry, nexthop_id=form.nexthop.id)


class FibTable(FibWriter):
    """All routes of ours in one kernel table, both families."""

    def __init__(self, settings: FibSettings) -> None:
        super().__init__(settings)
        self._picture: Picture | None = None
        self._lost_since_begin = False
        """Events were lost since the running dump began."""

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

    def on_route_event(self, new: bool, flags: int, afi: int, key: bytes, shape: nl.RouteShape, now: float) -> None:
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
            if (flags & nl.F_APPEND or rival) and side.stands(key, form.metric):
                self.suspect = True  # it may stand beside what is there: a dump tells
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
            extra = side.extra.setdefault(key, [])
            former = [item for item in extra if item.metric == form.metric]
            self._hold(form)
            extra[:] = [item for item in extra if item.metric != form.metric] + [form]
            for item in former:
                self._drop(item, now)
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
            return _standing(have)
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
