"""NexthopObjects: which learned routes a message about a nexthop object concerns."""

from __future__ import annotations

from bgpd.fib import messages as nl
from bgpd.fib.objects import NexthopObjects

A, B, C = ((nl.AF_INET, bytes((32, 10, 0, 0, last))) for last in (1, 2, 3))


def single(ident: int, ifindex: int = 2) -> nl.NexthopObject:
    """An object with one hop."""
    return nl.NexthopObject(ident, nl.AF_INET, 11, (bytes((10, 0, 0, ident)), ifindex, False), ())


def group(ident: int, *members: int) -> nl.NexthopObject:
    """A group of other objects."""
    return nl.NexthopObject(ident, 0, 11, None, members)


def by(ident: int, metric: int = 0) -> list[nl.RouteShape]:
    """The shapes of a prefix with one route that leads to an object."""
    return [nl.RouteShape(254, 11, nl.RTN_UNICAST, metric, (), ident)]


def kernel() -> NexthopObjects:
    """Objects 1 and 2, group 7 of both and group 8 of the second; a route to the first and one to each group."""
    found = NexthopObjects()
    assert found.replace([single(1), single(2), group(7, 1, 2), group(8, 2)]) == []
    for name, ident in ((A, 1), (B, 7), (C, 8)):
        found.lead(name, (), by(ident))
    return found


def test_hops_of_objects_and_groups() -> None:
    objects = kernel()
    first, second = (single(ident).hop for ident in (1, 2))
    assert objects.hops(1) == (first,)
    assert objects.hops(7) == (first, second)
    assert objects.hops(9) == ()


def test_an_object_that_goes_concerns_its_routes_and_those_of_its_groups() -> None:
    objects = kernel()
    assert set(objects.put(False, single(2))) == {B, C}
    assert objects.hops(7) == (single(1).hop,)
    assert objects.put(False, single(2)) == [], "it is gone already"


def test_an_object_told_again_is_no_news_and_a_new_one_leads_elsewhere_for_nobody() -> None:
    objects = kernel()
    assert objects.put(True, single(1)) == []
    assert objects.put(True, single(3)) == []
    assert set(objects.put(True, single(1, ifindex=5))) == {A, B}


def test_a_group_that_loses_a_member_no_longer_follows_it() -> None:
    objects = kernel()
    assert objects.put(True, group(7, 1)) == [B]
    assert objects.put(True, single(2, ifindex=5)) == [C]


def test_a_dump_tells_what_changed_behind_our_back() -> None:
    objects = kernel()
    assert set(objects.replace([single(1), single(2, ifindex=5), group(7, 1), group(8, 2)])) == {B, C}
    assert set(objects.replace([single(1)])) == {B, C}
    assert 8 not in objects and 1 in objects


def test_routes_that_lead_elsewhere_now_are_not_concerned() -> None:
    objects = kernel()
    objects.lead(A, by(1), [])
    objects.lead(B, by(7), by(8))
    objects.lead(C, by(8), [*by(8), *by(8, metric=5)])
    objects.lead(C, [*by(8), *by(8, metric=5)], by(8, metric=5))
    assert objects.put(False, single(1)) == []
    assert set(objects.put(False, group(8, 2))) == {B, C}
