"""FibTable's write rules, one by one (design §5, "Beside the hot path"). The model test proves that they suffice."""

from __future__ import annotations

from collections.abc import Mapping
from errno import EEXIST, EINVAL, ENETUNREACH, ENOENT, ENOMEM, ESRCH
from math import inf
from typing import Any

import pytest

from bgpd.family import IPV4_UNICAST, IPV6_UNICAST
from bgpd.fib import messages as nl
from bgpd.fib.entries import Form, Nexthop
from bgpd.fib.table import FibStatus, FibTable
from bgpd.routes import FibRoute, Hop, RouteKind
from bgpd.settings import FibSettings

KEY, OTHER = b"\x18\x0a\1\1", b"\x18\x0a\1\2"
BASE = FibSettings().nexthop_id_base
WORDS = {nl.ADD: "add", nl.REPLACE: "replace", nl.DELETE: "delete"}


def route(*numbers: int, metric: int = 1024, link: int = 2) -> FibRoute:
    """By gateways 10.0.0.N."""
    return FibRoute(RouteKind.UNICAST, tuple(Hop(bytes((10, 0, 0, number)), link) for number in numbers), metric)


def shape(*numbers: int, metric: int = 1024, protocol: int = 12, ident: int = 0, link: int = 2) -> nl.RouteShape:
    """What the kernel shows of such a route."""
    hops = tuple((bytes((10, 0, 0, number)), link, False) for number in numbers)
    return nl.RouteShape(254, protocol, nl.RTN_UNICAST, metric, hops, ident)


BLACKHOLE = FibRoute(RouteKind.BLACKHOLE, (), 0)


def make(objects: bool = False, release: bool = True) -> FibTable:
    """A table after the first dump of an empty kernel."""
    table = FibTable(FibSettings(nexthop_objects=objects))
    dump(table)
    if release:
        table.release(0.0)
    return table


def dump(table: FibTable, *routes: tuple[bytes, nl.RouteShape], ifindex: int = 0, complete: bool = True) -> None:
    """A dump of IPv4 routes."""
    table.begin_dump(ifindex)
    for key, item in routes:
        table.dump_route(nl.AF_INET, key, item)
    table.end_dump(complete, 0.0)


def named(op: tuple[int, bytes, Form | Nexthop]) -> tuple[str, bytes | int, int]:
    """(verb, key or object id, metric or number of members)."""
    verb, key, target = op
    if isinstance(target, Nexthop):
        return WORDS[verb], target.id - BASE, len(target.members)
    return WORDS[verb], key, target.metric


def flush(
    table: FibTable, now: float = 0.0, errors: Mapping[Any, tuple[int, str]] | None = None
) -> list[tuple[str, bytes | int, int]]:
    """Carry all out; the named ones fail, once each. Returns what was asked for."""
    done = []
    errors = dict(errors or {})
    while ops := table.take(64, now):
        failed = {}
        for index, op in enumerate(ops):
            name = named(op)
            done.append(name)
            error = errors.pop(name[:2], None)
            if error:
                failed[index] = error
        table.on_results(ops, failed, now)
    return done


def want(table: FibTable, key: bytes, wanted: FibRoute | None, now: float = 0.0) -> None:
    """One wanted route."""
    table.want(IPV4_UNICAST, {key: wanted}, now)


def status(table: FibTable, key: bytes = KEY) -> FibStatus:
    """Where it stands."""
    return table.state(IPV4_UNICAST, key).status


def test_add_replace_delete() -> None:
    table = make()
    want(table, KEY, route(1))
    assert status(table) is FibStatus.PENDING
    assert flush(table) == [("add", KEY, 1024)]
    assert status(table) is FibStatus.INSTALLED
    want(table, KEY, route(2))
    assert flush(table) == [("replace", KEY, 1024)]
    want(table, KEY, None)
    assert flush(table) == [("delete", KEY, 1024)]
    assert status(table) is FibStatus.ABSENT
    assert table.deadline() == inf


def test_an_equal_route_is_not_written_again() -> None:
    table = make()
    want(table, KEY, route(2, 1))
    assert len(flush(table)) == 1
    want(table, KEY, route(1, 2, 1))
    assert flush(table) == []
    want(table, KEY, route(3))
    want(table, KEY, route(1, 2))
    assert flush(table) == []


def test_metric_change_adds_before_it_deletes() -> None:
    table = make()
    want(table, KEY, route(1))
    flush(table)
    want(table, KEY, route(1, metric=512))
    assert flush(table) == [("add", KEY, 512), ("delete", KEY, 1024)]


def test_no_metric_is_1024_in_ipv6() -> None:
    table = make()
    table.want(IPV6_UNICAST, {b"\x10\xfd\1": BLACKHOLE}, 0.0)
    table.want(IPV4_UNICAST, {KEY: BLACKHOLE}, 0.0)
    assert flush(table) == [("add", KEY, 0), ("add", b"\x10\xfd\1", 1024)]


def test_known_foreign_route_is_not_even_tried() -> None:
    table = make()
    dump(table, (KEY, shape(9, protocol=4)))
    want(table, KEY, route(1))
    assert flush(table) == []
    state = table.state(IPV4_UNICAST, KEY)
    assert (state.status, state.foreign_protocol, state.errno) == (FibStatus.FOREIGN, 4, EEXIST)
    table.on_route_event(False, 0, nl.AF_INET, KEY, shape(9, protocol=4), 1.0)
    assert flush(table, 1.0) == [("add", KEY, 1024)]


def test_foreign_route_of_another_metric_is_no_conflict() -> None:
    table = make()
    dump(table, (KEY, shape(9, protocol=4, metric=5)))
    want(table, KEY, route(1))
    assert flush(table) == [("add", KEY, 1024)]


def test_ours_beside_a_foreign_one_is_deleted_rather_than_replaced() -> None:
    table = make()
    want(table, KEY, route(1))
    flush(table)
    table.on_route_event(True, nl.F_APPEND, nl.AF_INET, KEY, shape(9, protocol=4), 0.0)
    assert flush(table) == []
    want(table, KEY, route(2))
    assert flush(table) == [("delete", KEY, 1024)]
    assert status(table) is FibStatus.FOREIGN


def test_a_second_one_beside_ours_of_another_metric_calls_for_a_dump() -> None:
    table = make()
    for flags, route_shape in ((0, shape(1, metric=512)), (0, shape(1)), (nl.F_APPEND, shape(2))):
        assert not table.suspect
        table.on_route_event(True, flags, nl.AF_INET, KEY, route_shape, 0.0)
    assert table.suspect
    dump(table, (KEY, shape(1, metric=512)), (KEY, shape(1)), (KEY, shape(2)))
    assert sorted(flush(table)) == [("delete", KEY, 512), ("delete", KEY, 1024), ("delete", KEY, 1024)]


def test_unknown_rival_calls_for_a_dump() -> None:
    table = make()
    want(table, KEY, route(1))
    flush(table, errors={("add", KEY): (EEXIST, "File exists")})
    assert table.suspect and status(table) is FibStatus.FOREIGN
    # It was ours all the time, only unheard of.
    dump(table, (KEY, shape(1)))
    assert flush(table) == [] and status(table) is FibStatus.INSTALLED


def test_refused_routes_are_asked_for_again_ever_later() -> None:
    table = make()
    want(table, KEY, route(1))
    want(table, OTHER, route(2))
    now, waits = 0.0, []
    assert flush(table, now, {("add", KEY): (ENOMEM, "no room")}) == [("add", KEY, 1024), ("add", OTHER, 1024)]
    for _ in range(10):
        state = table.state(IPV4_UNICAST, KEY)
        assert (state.status, state.text) == (FibStatus.REFUSED, "no room")
        assert table.deadline() == state.retry_at
        waits.append(state.retry_at - now)
        now = state.retry_at
        assert flush(table, now, {("add", KEY): (ENOMEM, "no room")}) == [("add", KEY, 1024)]
    assert waits[:4] == [0.25, 0.5, 1.0, 2.0] and waits[-1] == 30.0
    flush(table, now + 30.0)
    assert status(table) is FibStatus.INSTALLED
    assert table.counters.refused == 11


def test_a_new_wish_is_tried_at_once() -> None:
    table = make()
    want(table, KEY, route(1))
    flush(table, errors={("add", KEY): (ENETUNREACH, "")})
    want(table, KEY, route(2))
    assert flush(table) == [("add", KEY, 1024)]


def test_an_interface_that_comes_up_brings_a_retry() -> None:
    table = make()
    want(table, KEY, route(1))
    flush(table, errors={("add", KEY): (ENETUNREACH, "")})
    table.on_interface_ready(3, 0.0)
    assert flush(table, 0.02) == []
    table.on_interface_ready(2, 0.02)
    assert flush(table, 0.04) == [("add", KEY, 1024)]


@pytest.mark.parametrize("error", (ESRCH, ENOENT))
def test_deleting_what_is_gone_is_done(error: int) -> None:
    table = make()
    want(table, KEY, route(1))
    flush(table)
    want(table, KEY, None)
    assert flush(table, errors={("delete", KEY): (error, "")}) == [("delete", KEY, 1024)]
    assert status(table) is FibStatus.ABSENT and table.deadline() == inf


def test_replacing_what_is_gone_becomes_adding() -> None:
    table = make()
    want(table, KEY, route(1))
    flush(table)
    want(table, KEY, route(2))
    assert flush(table, errors={("replace", KEY): (ENOENT, "")}) == [("replace", KEY, 1024), ("add", KEY, 1024)]


def test_nothing_is_deleted_while_deletions_are_held() -> None:
    table = FibTable(FibSettings(nexthop_objects=False))
    dump(table, (KEY, shape(1)), (OTHER, shape(2, metric=77)))
    assert table.counters.adopted == 2
    want(table, KEY, route(1))
    assert flush(table) == []
    assert status(table, OTHER) is FibStatus.HELD
    want(table, KEY, None)
    assert flush(table) == []
    want(table, OTHER, route(3))
    assert flush(table) == [("add", OTHER, 1024), ("delete", OTHER, 77)]
    assert table.release(1.0) == 1
    assert flush(table) == [("delete", KEY, 1024)]


def test_plain_routes_found_stand_for_wanted_ones_with_objects() -> None:
    """BIRD's routes after an upgrade: the same forwarding, so nothing is written."""
    table = FibTable(FibSettings())
    dump(table, (KEY, shape(1)))
    want(table, KEY, route(1))
    assert not [op for op in flush(table) if op[1] == KEY]
    assert status(table) is FibStatus.INSTALLED


def test_deleted_by_others() -> None:
    table = make()
    want(table, KEY, route(1))
    flush(table)
    table.on_route_event(False, 0, nl.AF_INET, KEY, shape(1), 1.0)
    assert flush(table, 1.0) == [("add", KEY, 1024)]
    assert table.counters.repaired == 1
    # A late event about an older form of it changes nothing.
    want(table, KEY, route(2))
    flush(table, 1.0)
    table.on_route_event(False, 0, nl.AF_INET, KEY, shape(1), 1.0)
    assert flush(table, 1.0) == []


def test_those_who_insist_are_answered_more_slowly() -> None:
    table = make()
    want(table, KEY, route(1))
    flush(table)
    answered = 0
    for step in range(30):
        now = step * 0.01
        table.on_route_event(False, 0, nl.AF_INET, KEY, shape(1), now)
        answered += len(flush(table, now))
    assert answered < 12
    assert flush(table, 1.0) == [("add", KEY, 1024)]


def test_changed_by_others() -> None:
    table = make()
    want(table, KEY, route(1))
    flush(table)
    table.on_route_event(True, nl.F_REPLACE, nl.AF_INET, KEY, shape(9), 1.0)
    assert flush(table, 1.0) == [("replace", KEY, 1024)]
    table.on_route_event(True, 0x600, nl.AF_INET, KEY, shape(9, metric=3), 1.0)
    assert flush(table, 1.0) == [("delete", KEY, 3)]
    table.on_route_event(True, 0x600, nl.AF_INET, OTHER, shape(9), 1.0)
    assert flush(table, 1.0) == [("delete", OTHER, 1024)]


def test_replaced_by_a_foreign_route() -> None:
    table = make()
    want(table, KEY, route(1))
    flush(table)
    table.on_route_event(True, nl.F_REPLACE, nl.AF_INET, KEY, shape(9, protocol=4), 1.0)
    assert flush(table, 1.0) == []
    assert status(table) is FibStatus.FOREIGN


def test_after_lost_events_nothing_is_replaced_before_a_dump() -> None:
    table = make()
    want(table, KEY, route(1))
    flush(table)
    table.on_events_lost()
    want(table, KEY, route(2))
    want(table, OTHER, route(2))
    assert flush(table) == [("add", OTHER, 1024)]
    dump(table, (KEY, shape(9, protocol=4)), (OTHER, shape(2)))
    assert flush(table) == []
    assert status(table) is FibStatus.FOREIGN


def test_dump_and_difference() -> None:
    table = make()
    for key, number in ((KEY, 1), (OTHER, 2)):
        want(table, key, route(number))
    flush(table)
    dump(table, (OTHER, shape(7)), complete=False)
    assert flush(table) == [("replace", OTHER, 1024)]
    dump(table, (OTHER, shape(2)))
    assert flush(table) == [("add", KEY, 1024)]
    dump(table, ifindex=3)
    assert flush(table) == []
    dump(table, (KEY, shape(1)), ifindex=2)
    assert flush(table) == [("add", OTHER, 1024)]


def test_what_changed_during_a_dump_is_not_undone_by_it() -> None:
    table = make()
    want(table, KEY, route(1))
    flush(table)
    table.begin_dump()
    want(table, OTHER, route(2))
    want(table, KEY, None)
    flush(table)
    table.dump_route(nl.AF_INET, KEY, shape(1))
    table.end_dump(True, 0.0)
    assert flush(table) == []
    assert (status(table, KEY), status(table, OTHER)) == (FibStatus.ABSENT, FibStatus.INSTALLED)


# ---------------------------------------------------------------- nexthop objects


def test_objects_are_shared_and_made_first() -> None:
    table = make(objects=True)
    table.want(IPV4_UNICAST, {KEY: route(1), OTHER: route(1), b"\x08\x0a": route(1, 2)}, 0.0)
    assert flush(table) == [
        ("add", 0, 0),
        ("add", 1, 0),
        ("add", 2, 2),
        ("add", KEY, 1024),
        ("add", OTHER, 1024),
        ("add", b"\x08\x0a", 1024),
    ]


def test_unused_objects_go_after_a_while_groups_first_and_ids_are_not_used_again() -> None:
    table = make(objects=True)
    want(table, KEY, route(1, 2))
    flush(table)
    want(table, KEY, None)
    assert flush(table) == [("delete", KEY, 1024)]
    assert table.deadline() == 1.0
    assert flush(table, 1.0) == [("delete", 2, 2)]
    assert sorted(flush(table, 2.0)) == [("delete", 0, 0), ("delete", 1, 0)]
    assert table.deadline() == inf and not table.nexthops.by_id
    want(table, KEY, route(1), 3.0)
    assert flush(table, 3.0) == [("add", 3, 0), ("add", KEY, 1024)]


def test_an_object_wanted_again_in_time_stays() -> None:
    table = make(objects=True)
    want(table, KEY, route(1))
    flush(table)
    want(table, KEY, None)
    flush(table)
    want(table, OTHER, route(1), 0.5)
    assert flush(table, 0.5) == [("add", OTHER, 1024)]
    assert flush(table, 9.0) == []


def test_a_refused_object_tells_why_its_routes_wait() -> None:
    table = make(objects=True)
    table.want(IPV4_UNICAST, {KEY: route(1), OTHER: route(1, 2), b"\x08\x0a": route(2)}, 0.0)
    errors = {("add", 0): (ENETUNREACH, "Nexthop has invalid gateway"), ("add", 2): (EINVAL, "no member")}
    done = flush(table, 0.0, errors)
    assert done == [("add", 0, 0), ("add", 1, 0), ("add", 2, 2), ("add", b"\x08\x0a", 1024)]
    for key in (KEY, OTHER):
        state = table.state(IPV4_UNICAST, key)
        assert (state.status, state.errno, state.text) == (
            FibStatus.REFUSED,
            ENETUNREACH,
            "Nexthop has invalid gateway",
        )
    # Each is news once, as with routes that are refused themselves.
    assert {(afi, key, failure.text) for afi, key, failure in table.news} == {
        (nl.AF_INET, key, "Nexthop has invalid gateway") for key in (KEY, OTHER)
    }
    table.news.clear()
    assert flush(table, 0.25, errors) and not table.news
    table.on_interface_ready(2, 0.25)
    assert flush(table, 0.3) == [("add", 0, 0), ("add", 2, 2), ("add", KEY, 1024), ("add", OTHER, 1024)]


def test_an_id_in_anothers_hands_is_passed_over() -> None:
    table = make(objects=True)
    table.dump_nexthops([nl.NexthopObject(BASE, nl.AF_INET, 4, (b"\x0a\0\0\5", 2, False), ())], 0.0)
    want(table, KEY, route(1))
    assert flush(table, 0.0, {("add", 1): (EEXIST, "")}) == [("add", 1, 0), ("add", 2, 0), ("add", KEY, 1024)]


def test_objects_of_a_former_run_are_adopted() -> None:
    table = FibTable(FibSettings())
    hop = (bytes((10, 0, 0, 1)), 2, False)
    table.dump_nexthops(
        [
            nl.NexthopObject(BASE + 7, nl.AF_INET, 12, hop, ()),
            nl.NexthopObject(BASE + 9, nl.AF_INET, 12, (bytes((10, 0, 0, 2)), 2, False), ()),
        ],
        0.0,
    )
    dump(table, (KEY, shape(1, ident=BASE + 7)))
    want(table, KEY, route(1))
    want(table, OTHER, route(1))
    assert flush(table) == [("add", OTHER, 1024)]
    assert table.state(IPV4_UNICAST, KEY).nexthop_id == BASE + 7
    assert flush(table, 10.0) == []
    table.release(10.0)
    assert flush(table, 10.0) == [("delete", 9, 0)]
    want(table, KEY, route(3), 10.0)
    assert flush(table, 10.0)[0] == ("add", 10, 0)


def test_a_lost_object_is_made_again_and_its_routes_with_it() -> None:
    table = make(objects=True)
    table.want(IPV4_UNICAST, {KEY: route(1), OTHER: route(2)}, 0.0)
    flush(table)
    table.on_nexthop_event(False, nl.NexthopObject(BASE, nl.AF_INET, 12, (bytes((10, 0, 0, 1)), 2, False), ()), 1.0)
    assert flush(table, 1.0) == [("add", 0, 0), ("add", KEY, 1024)]
    # Unheard of: the route's failure tells.
    want(table, KEY, route(2), 2.0)
    assert flush(table, 2.0, {("replace", KEY): (EINVAL, "Nexthop id does not exist")}) == [
        ("replace", KEY, 1024),
        ("add", 1, 0),
        ("add", OTHER, 1024),
    ]
    assert flush(table, 2.25) == [("replace", KEY, 1024)]


def test_a_group_that_lost_a_member_is_mended() -> None:
    table = make(objects=True)
    want(table, KEY, route(1, 2))
    flush(table)
    member = next(item for item in table.nexthops.by_id.values() if not item.members)
    table.on_nexthop_event(False, nl.NexthopObject(member.id, 2, 12, member.hops[0], ()), 1.0)
    assert flush(table, 1.0) == [("add", member.id - BASE, 0), ("replace", 2, 2)]


def test_a_stolen_object_is_left_to_the_thief() -> None:
    table = make(objects=True)
    want(table, KEY, route(1))
    flush(table)
    table.on_nexthop_event(True, nl.NexthopObject(BASE, 2, 4, (bytes((10, 0, 0, 9)), 2, False), ()), 1.0)
    assert flush(table, 1.0) == [("add", 1, 0), ("replace", KEY, 1024)]
    want(table, KEY, None, 2.0)
    flush(table, 2.0)
    assert flush(table, 9.0) == [("delete", 1, 0)]


def test_answers_lost_ask_for_a_dump() -> None:
    table = make()
    want(table, KEY, route(1))
    ops = table.take(64, 0.0)
    table.on_lost(ops, 0.0)
    assert table.suspect
    dump(table, (KEY, shape(1)))
    assert flush(table) == [] and status(table) is FibStatus.INSTALLED


def test_memory_is_flat_over_many_changes() -> None:
    table = make(objects=True)
    for step in range(3000):
        want(table, KEY, route(step % 200 + 1, metric=step % 7 + 1), float(step))
        flush(table, float(step))
    want(table, KEY, None, 4000.0)
    for step in range(5):
        flush(table, 4000.0 + step)
    assert not table.nexthops.by_id and not table._forms and not table.sides[nl.AF_INET].extra
