"""FibTable against a model kernel: whatever others do, it ends up as wanted, and nothing foreign is ever touched.

The model keeps the kernel's habits that matter: several routes under one prefix and metric, NLM_F_REPLACE that takes
the first one whoever owns it and never makes a second of the same, nexthop objects whose end takes their routes along
without a word, links that do the same.
"""

from __future__ import annotations

from collections.abc import Callable
from errno import EEXIST, EHOSTUNREACH, EINVAL, ENETDOWN, ENOENT, ENOMEM, ESRCH
from typing import NamedTuple

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from bgpd.family import IPV4_UNICAST, IPV6_UNICAST
from bgpd.fib import messages as nl
from bgpd.fib import writer
from bgpd.fib.entries import Form, Nexthop
from bgpd.fib.table import FibState, FibStatus, FibTable
from bgpd.routes import FibRoute, Hop, RouteKind
from bgpd.settings import FibSettings

OURS, OTHER = 12, 4
AFIS = (nl.AF_INET, nl.AF_INET6)
FAMILIES = {nl.AF_INET: IPV4_UNICAST, nl.AF_INET6: IPV6_UNICAST}
KEYS = (b"\x00", b"\x08\x0a", b"\x10\x0a\x01")
LINKS = (1, 2)
GATEWAYS = {
    nl.AF_INET: {1: (b"\x0a\0\0\1", b"\x0a\0\0\2"), 2: (b"\x0a\0\1\1",)},
    nl.AF_INET6: {1: (b"\xfd" + bytes(14) + b"\1", b"\xfd" + bytes(14) + b"\2"), 2: (b"\xfd" + bytes(14) + b"\3",)},
}


class Entry(NamedTuple):
    """One route of the model."""

    protocol: int
    type: int
    hops: tuple[nl.HopKey, ...]
    nexthop: int


class ModelKernel:
    """Routes, nexthop objects and links; `events` is what a monitor would read, our own doings left out."""

    def __init__(self) -> None:
        self.routes: dict[tuple[int, bytes, int], list[Entry]] = {}
        self.objects: dict[int, nl.NexthopObject] = {}
        self.up = dict.fromkeys(LINKS, True)
        self.down_gateways: set[bytes] = set()
        self.events: list[Callable[[FibTable, float], None]] = []
        self.failing = 0
        self.writes = 0

    def shape(self, metric: int, entry: Entry) -> nl.RouteShape:
        return nl.RouteShape(254, entry.protocol, entry.type, metric, entry.hops, entry.nexthop)

    def tell(self, new: bool, flags: int, name: tuple[int, bytes, int], entry: Entry) -> None:
        afi, key, metric = name
        shape = self.shape(metric, entry)
        self.events.append(lambda table, now: table.on_route_event(new, flags, afi, key, shape, now))

    def tell_nexthop(self, new: bool, item: nl.NexthopObject) -> None:
        self.events.append(lambda table, now: table.on_nexthop_event(new, item, now))

    # -- what we ask for

    def apply(self, verb: int, key: bytes, target: Form | Nexthop) -> tuple[int, str] | None:
        self.writes += 1
        if self.failing:
            self.failing -= 1
            return ENOMEM, "injected"
        error = self._nexthop(verb, target) if isinstance(target, Nexthop) else self._route(verb, key, target)
        return (error, "") if error else None

    def _bad_hop(self, hops: tuple[nl.HopKey, ...]) -> int:
        for gateway, link, _onlink in hops:
            if not self.up[link]:
                return ENETDOWN
            if gateway in self.down_gateways:
                return EHOSTUNREACH
        return 0

    def _nexthop(self, verb: int, target: Nexthop) -> int:
        there = self.objects.get(target.id)
        if verb == nl.DELETE:
            if there is None:
                return ENOENT
            assert there.protocol == OURS, "deleted another's nexthop object"
            assert not any(e.nexthop == target.id for es in self.routes.values() for e in es), "deleted one in use"
            self.remove_object(target.id, told=False)
            return 0
        if verb == nl.ADD and there is not None:
            return EEXIST
        if verb == nl.REPLACE and there is None:
            return ENOENT
        assert there is None or there.protocol == OURS, "replaced another's nexthop object"
        group = tuple(member.id for member in target.members)
        if group:
            if any(ident not in self.objects for ident in group):
                return EINVAL
            self.objects[target.id] = nl.NexthopObject(target.id, 0, OURS, None, group)
            self._refresh(target.id)
            return 0
        error = self._bad_hop(target.hops)
        if not error:
            self.objects[target.id] = nl.NexthopObject(target.id, target.afi, OURS, target.hops[0], ())
        return error

    def hops_of(self, ident: int) -> tuple[nl.HopKey, ...]:
        item = self.objects[ident]
        if item.hop:
            return (item.hop,)
        return tuple(sorted(hop for member in item.group for hop in self.hops_of(member)))

    def _refresh(self, ident: int) -> None:
        for entries in self.routes.values():
            entries[:] = [e._replace(hops=self.hops_of(ident)) if e.nexthop == ident else e for e in entries]

    def _route(self, verb: int, key: bytes, form: Form) -> int:
        kind, metric, hops = form.target
        name = (form.afi, key, metric)
        entries = self.routes.get(name, [])
        ident = form.nexthop.id if form.nexthop else form.nexthop_id
        if verb == nl.DELETE:
            for place, entry in enumerate(entries):
                named = ident or not hops or entry.hops == hops or (form.afi == nl.AF_INET and len(hops) > 1)
                if entry.protocol == OURS and entry.nexthop == ident and entry.type == kind and named:
                    self._take(name, place)
                    return 0
            return ESRCH
        if ident and ident not in self.objects:
            return EINVAL
        if not ident and self._bad_hop(hops):
            return self._bad_hop(hops)
        new = Entry(OURS, kind, self.hops_of(ident) if ident else hops, ident)
        if verb == nl.ADD:
            if entries:
                return EEXIST
            self.routes[name] = [new]
            return 0
        if not entries:
            return ENOENT
        if new in entries[1:]:
            return EEXIST
        assert entries[0].protocol == OURS, "replaced a foreign route"
        entries[0] = new
        return 0

    def _take(self, name: tuple[int, bytes, int], place: int) -> Entry:
        entries = self.routes[name]
        entry = entries.pop(place)
        if not entries:
            del self.routes[name]
        return entry

    # -- what others do

    def remove_object(self, ident: int, told: bool) -> None:
        item = self.objects.pop(ident)
        if told:
            self.tell_nexthop(False, item)
        for name, entries in list(self.routes.items()):
            kept = [entry for entry in entries if entry.nexthop != ident]
            if kept:
                self.routes[name] = kept
            else:
                del self.routes[name]
        for other in list(self.objects.values()):
            if ident in other.group:
                group = tuple(member for member in other.group if member != ident)
                if not group:
                    self.remove_object(other.id, told)
                    continue
                self.objects[other.id] = other._replace(group=group)
                self._refresh(other.id)
                if told:
                    self.tell_nexthop(True, self.objects[other.id])

    def link(self, link: int, up: bool) -> None:
        """Silent, but for the link's own message."""
        self.up[link] = up
        if up:
            return
        for item in list(self.objects.values()):
            if item.id in self.objects and item.hop and item.hop[1] == link:
                self.remove_object(item.id, told=False)
        for name, entries in list(self.routes.items()):
            kept = [e for e in entries if e.nexthop or not any(hop[1] == link for hop in e.hops)]
            if kept:
                self.routes[name] = kept
            else:
                del self.routes[name]


def route_values(afi: int) -> st.SearchStrategy[FibRoute]:
    """Wanted routes: one to three hops, or a blackhole."""
    hops = st.sampled_from([Hop(gateway, link) for link in LINKS for gateway in GATEWAYS[afi][link]])
    unicast = st.builds(
        FibRoute,
        st.just(RouteKind.UNICAST),
        st.lists(hops, min_size=1, max_size=3).map(tuple),
        st.sampled_from((512, 1024)),
    )
    return unicast | st.builds(FibRoute, st.just(RouteKind.BLACKHOLE), st.just(()), st.sampled_from((0, 1024)))


MAYBE: st.SearchStrategy[bool] = st.booleans()
VALUES = {afi: st.none() | route_values(afi) for afi in AFIS}


class FibMachine(RuleBasedStateMachine):
    """Random doings of ours and others; after each settling the kernel must be as wanted."""

    objects = True

    @initialize()
    def start(self) -> None:
        self.kernel = ModelKernel()
        self.now = 0.0
        self.foreign: set[tuple[int, bytes, int]] = set()
        self.wanted: dict[tuple[int, bytes], FibRoute] = {}
        self.lost = False
        self.checks: set[int] = set()
        self.table = FibTable(FibSettings(nexthop_objects=self.objects))
        self.dump()

    # -- the shell's part, as Kernel does it

    def deliver(self) -> None:
        events, self.kernel.events = self.kernel.events, []
        for event in events:
            event(self.table, self.now)

    def flush(self) -> None:
        self.deliver()
        for _ in range(1000):
            ops = self.table.take(4, self.now)
            if not ops:
                break
            errors = {}
            for index, (verb, key, target) in enumerate(ops):
                error = self.kernel.apply(verb, key, target)
                if error:
                    errors[index] = error
            self.table.on_results(ops, errors, self.now)
        else:
            raise AssertionError("writes for ever")

    def dump(self, link: int = 0, between: object = None) -> None:
        self.deliver()
        self.table.dump_nexthops(list(self.kernel.objects.values()), self.now)
        self.table.begin_dump(link)
        for afi in AFIS:
            for (family, key, metric), entries in list(self.kernel.routes.items()):
                for entry in entries:
                    if family == afi and (not link or any(hop[1] == link for hop in entry.hops)):
                        self.table.dump_route(afi, key, self.kernel.shape(metric, entry))
            if callable(between) and afi == nl.AF_INET:
                between()
                self.flush()
        self.deliver()
        self.table.end_dump(True, self.now)
        if not link:
            self.lost = False

    # -- rules

    @rule(data=st.data())
    def want(self, data: st.DataObject) -> None:
        afi = data.draw(st.sampled_from(AFIS))
        changes: dict[bytes, FibRoute | None] = {}
        for key in data.draw(st.sets(st.sampled_from(KEYS), min_size=1)):
            changes[key] = data.draw(VALUES[afi])
        self.table.want(FAMILIES[afi], changes, self.now)
        for key, route in changes.items():
            self.wanted.pop((afi, key), None)
            if route is not None:
                self.wanted[afi, key] = route

    @rule()
    def write(self) -> None:
        self.flush()

    @rule()
    def release(self) -> None:
        self.table.release(self.now)

    @rule(seconds=st.sampled_from((0.01, 0.3, 5.0, 60.0)))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule(
        afi=st.sampled_from(AFIS),
        key=st.sampled_from(KEYS),
        metric=st.sampled_from((512, 1024)),
        how=st.sampled_from((nl.F_CREATE | nl.F_EXCL, nl.F_REPLACE, nl.F_APPEND)),
        protocol=st.sampled_from((OTHER, OTHER, OURS)),
        pick=st.integers(0, 2),
    )
    def others_write(self, afi: int, key: bytes, metric: int, how: int, protocol: int, pick: int) -> None:
        name = (afi, key, metric)
        entries = self.kernel.routes.setdefault(name, [])
        link = LINKS[pick % 2]
        entry = Entry(protocol, nl.RTN_UNICAST, ((GATEWAYS[afi][link][0], link, False),), 0)
        if not self.kernel.up[link] or (how & nl.F_EXCL and entries) or (how & nl.F_REPLACE and not entries):
            pass
        elif how & nl.F_REPLACE and entry not in entries[1:]:
            entries[0] = entry
            self.kernel.tell(True, nl.F_REPLACE, name, entry)
        else:
            if entry not in entries:
                entries.append(entry)
                self.kernel.tell(True, how, name, entry)
        if not entries:
            del self.kernel.routes[name]

    @precondition(lambda self: self.kernel.routes)
    @rule(data=st.data())
    def others_delete(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.kernel.routes)))
        place = data.draw(st.integers(0, len(self.kernel.routes[name]) - 1))
        self.kernel.tell(False, 0, name, self.kernel._take(name, place))

    @precondition(lambda self: self.kernel.objects)
    @rule(data=st.data(), steal=st.booleans())
    def others_meddle_with_objects(self, data: st.DataObject, steal: bool) -> None:
        item = self.kernel.objects[data.draw(st.sampled_from(sorted(self.kernel.objects)))]
        if steal and item.hop and self.kernel.up[1]:
            gateway = GATEWAYS[item.family][1][1]
            stolen = item._replace(protocol=OTHER, hop=(gateway, 1, False))
            self.kernel.objects[item.id] = stolen
            self.kernel._refresh(item.id)
            for other in self.kernel.objects.values():
                if item.id in other.group:
                    self.kernel._refresh(other.id)
            self.kernel.tell_nexthop(True, stolen)
        else:
            self.kernel.remove_object(item.id, told=True)

    @rule(link=st.sampled_from(LINKS))
    def link_down(self, link: int) -> None:
        self.kernel.link(link, False)
        self.checks.add(link)

    @rule(link=st.sampled_from(LINKS))
    def link_up(self, link: int) -> None:
        self.kernel.link(link, True)
        self.table.on_interface_ready(link, self.now)

    @rule(afi=st.sampled_from(AFIS), gone=st.booleans())
    def gateway_changes(self, afi: int, gone: bool) -> None:
        gateway = GATEWAYS[afi][1][0]
        (self.kernel.down_gateways.add if gone else self.kernel.down_gateways.discard)(gateway)

    @rule(count=st.integers(1, 3))
    def errors(self, count: int) -> None:
        self.kernel.failing = count

    @rule()
    def lose_events(self) -> None:
        self.kernel.events.clear()
        self.lost = True
        self.table.on_events_lost()

    @rule()
    def check_links(self) -> None:
        for link in self.checks:
            self.dump(link)
        self.checks.clear()

    @rule(data=st.data())
    def full_dump(self, data: st.DataObject) -> None:
        def between() -> None:
            meddle = data.draw(MAYBE)
            if meddle and self.kernel.routes:
                self.others_delete(data)

        self.dump(between=between)

    @rule()
    def settle(self) -> None:
        """All faults over: in the end the kernel is as wanted, and then nothing is written any more."""
        self.table.release(self.now)
        self.kernel.failing = 0
        self.kernel.down_gateways.clear()
        for link in LINKS:
            self.link_up(link)
        self.check_links()
        if self.lost:
            self.dump()
        for _ in range(20):
            self.flush()
            if self.table.suspect:
                self.table.suspect = False
                self.dump()
            self.now += 5.0
        for _ in range(4):  # objects nobody uses go, groups first
            self.now += 30.0
            self.flush()
        self.compare()
        before = self.kernel.writes
        self.dump()
        self.flush()
        conflicts = sum(1 for state in self.states().values() if state.status is FibStatus.FOREIGN)
        assert self.kernel.writes <= before + conflicts, "wrote what was right already"

    def states(self) -> dict[tuple[int, bytes], FibState]:
        return {(afi, key): self.table.state(FAMILIES[afi], key) for afi in AFIS for key in KEYS}

    def compare(self) -> None:
        states = self.states()
        for afi in AFIS:
            for key in KEYS:
                entries = {
                    metric: entry
                    for (family, name, metric), found in self.kernel.routes.items()
                    for entry in found
                    if (family, name) == (afi, key) and entry.protocol == OURS
                }
                route = self.wanted.get((afi, key))
                if route is None:
                    assert not entries, (key, entries)
                    continue
                metric = route.metric or (1024 if afi == nl.AF_INET6 else 0)
                rivals = self.kernel.routes.get((afi, key, metric), [])
                if any(entry.protocol != OURS for entry in rivals) and metric not in entries:
                    assert states[afi, key].status is FibStatus.FOREIGN
                    assert not entries
                    continue
                assert set(entries) == {metric}, (key, route, entries, states[afi, key])
                hops = tuple(sorted({(hop.gateway, hop.interface, hop.onlink) for hop in route.hops}))
                assert entries[metric].hops == hops, (entries, hops)
                assert states[afi, key].status is FibStatus.INSTALLED

    def teardown(self) -> None:
        if hasattr(self, "table"):
            self.settle()


class PlainMachine(FibMachine):
    """Without nexthop objects."""

    objects = False


CHECKS = settings(max_examples=60, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck))


@pytest.mark.parametrize(("machine", "few"), ((FibMachine, 1), (PlainMachine, 1), (FibMachine, writer.FEW)))
def test_the_kernel_ends_up_as_wanted(machine: type[FibMachine], few: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """`few` 1: even a single addition takes the road of a whole table's."""
    monkeypatch.setattr(writer, "FEW", few)
    run_state_machine_as_test(machine, settings=CHECKS)
