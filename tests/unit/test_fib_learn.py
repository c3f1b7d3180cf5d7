"""Learner: what of the kernel's state becomes a route of the host (calico-bgp §7.1)."""

from __future__ import annotations

import pytest

from bgpd.family import format_prefix, parse_address, parse_prefix
from bgpd.fib import messages as nl
from bgpd.fib.learn import Learner, compile_patterns
from bgpd.policy.terms import SourceKind
from bgpd.routes import Hop, LocalRoute
from bgpd.settings import LearnSettings

UP = nl.IFF_UP | nl.IFF_LOWER_UP
LINKS = (nl.Link(1, "lo", UP), nl.Link(2, "eth0", UP), nl.Link(3, "cali12ab", UP), nl.Link(4, "docker0", 0))


def learner(settings: LearnSettings | None = None, own: int = 12) -> Learner:
    """A learner that knows the links."""
    found = Learner(settings or LearnSettings(), own)
    found.dump_links(LINKS)
    found.take()
    return found


def address(text: str, ifindex: int, scope: int = 0) -> nl.Address:
    """An address such as "10.0.0.5/24" on an interface."""
    family, key = parse_prefix(text)
    return nl.Address(2 if family.afi == 1 else 10, ifindex, parse_address(text.partition("/")[0]), key, scope)


def shape(protocol: int, *hops: tuple[str, int], metric: int = 0, kind: int = 1, table: int = 254) -> nl.RouteShape:
    """A route's shape; a gateway "" is on the link."""
    packed = tuple((parse_address(gateway) if gateway else b"", index, False) for gateway, index in hops)
    return nl.RouteShape(table, protocol, kind, metric, packed)


def event(subject: Learner, prefix: str, item: nl.RouteShape, new: bool = True, flags: int = 0x600) -> None:
    """A route message."""
    family, key = parse_prefix(prefix)
    subject.on_route_event(new, flags, 2 if family.afi == 1 else 10, key, item)


def told(subject: Learner) -> dict[tuple[SourceKind, str], LocalRoute | None]:
    """What `take` gives, by kind and prefix."""
    return {(change.kind, format_prefix(change.family, change.key)): change.route for change in subject.take()}


@pytest.mark.parametrize(
    ("text", "ifindex", "scope", "expected"),
    (
        ("10.0.0.5/24", 2, 0, "10.0.0.0/24"),
        ("192.0.2.1/32", 1, 0, "192.0.2.1/32"),
        ("fd00::5/64", 2, 0, "fd00::/64"),
        ("169.254.7.1/30", 2, 0, "169.254.7.0/30"),
        ("10.0.0.5/24", 3, 0, None),  # cali*
        ("10.0.0.5/24", 4, 0, None),  # down
        ("127.0.0.1/8", 1, 254, None),
        ("::1/128", 1, 254, None),
        ("fe80::1/64", 2, 253, None),
    ),
)
def test_direct_routes(text: str, ifindex: int, scope: int, expected: str | None) -> None:
    subject = learner()
    subject.on_address(True, address(text, ifindex, scope))
    found = told(subject)
    assert [name for _kind, name in found] == ([expected] if expected else [])
    for route in found.values():
        assert route is not None
        assert (route.kind, route.hops, route.protocol) == (SourceKind.DIRECT, (Hop(b"", ifindex),), 0)
        assert route.label == f"address of {route.interface}"
    assert subject.addresses == {parse_address(text.partition("/")[0])}


def test_direct_route_follows_link_and_addresses() -> None:
    subject = learner()
    first, second = address("10.0.0.5/24", 2), address("10.0.0.6/24", 2)
    subject.on_address(True, first)
    subject.on_address(True, second)
    assert len(told(subject)) == 1
    subject.on_address(False, first)
    assert told(subject) == {}
    subject.on_link(nl.Link(2, "eth0", 0))
    assert told(subject) == {(SourceKind.DIRECT, "10.0.0.0/24"): None}
    subject.on_link(nl.Link(2, "uplink", UP))
    found = told(subject)[SourceKind.DIRECT, "10.0.0.0/24"]
    assert found is not None and found.interface == "uplink"
    subject.on_link_gone(2)
    assert told(subject) == {(SourceKind.DIRECT, "10.0.0.0/24"): None}
    assert subject.addresses == frozenset()


@pytest.mark.parametrize("protocol", (0, 1, 2, 12, 99))
def test_routes_of_the_kernel_ours_and_bird_are_not_learned(protocol: int) -> None:
    subject = learner(own=99)
    event(subject, "10.1.0.0/24", shape(protocol, ("10.0.0.9", 2)))
    assert told(subject) == {}


@pytest.mark.parametrize(
    ("protocol", "hops", "label"),
    (
        (80, (("", 3),), "kernel route, protocol 80 (Felix workload)"),
        (3, (("", 3),), "kernel route, protocol 3 (Felix workload)"),
        (80, (("10.0.0.9", 2),), "kernel route, protocol 80 (Felix)"),
        (3, (("10.0.0.9", 2),), "kernel route, protocol 3 (boot)"),
        (4, (("10.0.0.9", 2), ("10.0.0.8", 2)), "kernel route, protocol 4 (static)"),
        (77, (), "kernel route, protocol 77"),
    ),
)
def test_labels_tell_felix_from_others(protocol: int, hops: tuple[tuple[str, int], ...], label: str) -> None:
    subject = learner()
    event(subject, "10.1.0.5/32", shape(protocol, *hops, metric=1024))
    route = told(subject)[SourceKind.KERNEL, "10.1.0.5/32"]
    assert route is not None
    assert (route.label, route.protocol, route.metric) == (label, protocol, 1024)
    assert route.interface == ({2: "eth0", 3: "cali12ab"}[hops[0][1]] if len(hops) == 1 else "")
    assert len(route.hops) == len(hops)


def test_kinds_of_routes() -> None:
    subject = learner()
    for number, kind in enumerate((nl.RTN_BLACKHOLE, nl.RTN_UNREACHABLE, nl.RTN_PROHIBIT, 9, 2)):
        event(subject, f"10.1.{number}.0/24", shape(80, kind=kind))
    event(subject, "0.0.0.0/0", shape(16, ("10.0.0.1", 2)))
    event(subject, "::/0", shape(9, ("fe80::1", 2), metric=1024))
    event(subject, "10.9.0.0/24", shape(4, ("10.0.0.1", 2), table=100))
    found = told(subject)
    assert {name for _kind, name in found} == {"10.1.0.0/24", "10.1.1.0/24", "10.1.2.0/24", "0.0.0.0/0", "::/0"}
    assert {name: route.reachable for (_kind, name), route in found.items() if route} == {
        "10.1.0.0/24": False,
        "10.1.1.0/24": False,
        "10.1.2.0/24": False,
        "0.0.0.0/0": True,
        "::/0": True,
    }


@pytest.mark.parametrize(
    "prefix",
    (
        "127.0.0.0/8",
        "169.254.0.0/16",
        "169.254.1.1/32",
        "224.0.0.0/4",
        "239.1.2.3/32",
        "fe80::/64",
        "ff00::/8",
        "::1/128",
    ),
)
def test_destinations_that_are_never_learned(prefix: str) -> None:
    subject = learner()
    event(subject, prefix, shape(4, ("", 2)))
    assert told(subject) == {}


def test_routes_for_some_packets_only_are_left_out() -> None:
    subject = learner()
    item = shape(4, ("", 2))
    item.special = True
    event(subject, "10.1.0.0/24", item)
    assert told(subject) == {}


def test_lowest_metric_wins_and_the_next_follows() -> None:
    subject = learner()
    low, high = shape(80, ("", 3), metric=512), shape(80, ("", 3), metric=1024)
    event(subject, "10.1.0.5/32", high)
    event(subject, "10.1.0.5/32", low)
    route = told(subject)[SourceKind.KERNEL, "10.1.0.5/32"]
    assert route is not None and route.metric == 512
    event(subject, "10.1.0.5/32", low, new=False)
    route = told(subject)[SourceKind.KERNEL, "10.1.0.5/32"]
    assert route is not None and route.metric == 1024
    event(subject, "10.1.0.5/32", high, new=False)
    assert told(subject) == {(SourceKind.KERNEL, "10.1.0.5/32"): None}


def test_replaced_routes() -> None:
    subject = learner()
    event(subject, "10.1.0.0/24", shape(4, ("10.0.0.1", 2), metric=5))
    event(subject, "10.1.0.0/24", shape(80, ("10.0.0.2", 2), metric=5), flags=nl.F_REPLACE)
    route = told(subject)[SourceKind.KERNEL, "10.1.0.0/24"]
    assert route is not None and route.protocol == 80
    # Replaced by one that is not learned: gone.
    event(subject, "10.1.0.0/24", shape(12, ("10.0.0.2", 2), metric=5), flags=nl.F_REPLACE)
    assert told(subject) == {(SourceKind.KERNEL, "10.1.0.0/24"): None}


def test_a_link_that_goes_takes_its_routes_along() -> None:
    subject = learner()
    event(subject, "10.1.0.5/32", shape(80, ("", 3), metric=1024))
    event(subject, "10.2.0.0/24", shape(4, ("10.0.0.1", 2), ("", 3)))
    event(subject, "10.3.0.0/24", shape(80, kind=nl.RTN_BLACKHOLE))
    assert len(told(subject)) == 3
    subject.on_link_gone(3)
    assert told(subject) == {(SourceKind.KERNEL, "10.1.0.5/32"): None}


def dump(subject: Learner, routes: dict[str, nl.RouteShape], ifindex: int = 0, complete: bool = True) -> None:
    """A whole dump."""
    subject.begin_dump(ifindex)
    for prefix, item in routes.items():
        family, key = parse_prefix(prefix)
        subject.dump_route(2 if family.afi == 1 else 10, key, item)
    subject.end_dump(complete)


def test_dump_and_difference() -> None:
    subject = learner()
    kept, gone, new = shape(80, ("", 3)), shape(80, ("", 3)), shape(4, ("10.0.0.1", 2))
    dump(subject, {"10.1.0.1/32": kept, "10.1.0.2/32": gone})
    assert len(told(subject)) == 2
    dump(subject, {"10.1.0.1/32": kept, "10.1.0.3/32": new})
    found = told(subject)
    assert set(found) == {(SourceKind.KERNEL, "10.1.0.2/32"), (SourceKind.KERNEL, "10.1.0.3/32")}
    assert found[SourceKind.KERNEL, "10.1.0.2/32"] is None
    dump(subject, {"10.1.0.1/32": kept}, complete=False)
    assert told(subject) == {}
    dump(subject, {}, ifindex=3)
    assert told(subject) == {(SourceKind.KERNEL, "10.1.0.1/32"): None}


def test_what_an_event_told_during_a_dump_is_newer() -> None:
    subject = learner()
    _family, key = parse_prefix("10.1.0.1/32")
    item = shape(80, ("", 3))
    event(subject, "10.1.0.2/32", item)
    subject.begin_dump()
    subject.dump_route(2, key, item)
    event(subject, "10.1.0.1/32", item)
    event(subject, "10.1.0.1/32", item, new=False)
    event(subject, "10.1.0.3/32", item)
    subject.end_dump(True)
    assert set(told(subject)) == {(SourceKind.KERNEL, "10.1.0.3/32")}


def test_reconfigure() -> None:
    subject = learner()
    subject.on_address(True, address("10.0.0.5/24", 2))
    event(subject, "10.1.0.5/32", shape(80, ("", 3)))
    assert len(told(subject)) == 2
    subject.reconfigure(LearnSettings(ignored_interfaces=("eth*",)), 12)
    assert told(subject) == {(SourceKind.DIRECT, "10.0.0.0/24"): None}
    subject.reconfigure(LearnSettings(kernel=False), 12)
    found = told(subject)
    assert found[SourceKind.KERNEL, "10.1.0.5/32"] is None and found[SourceKind.DIRECT, "10.0.0.0/24"]
    subject.reconfigure(LearnSettings(direct=False), 12)
    found = told(subject)
    assert found[SourceKind.KERNEL, "10.1.0.5/32"] and found[SourceKind.DIRECT, "10.0.0.0/24"] is None
    assert len(subject.routes()) == 1


def test_what_other_settings_would_change() -> None:
    subject = learner()
    subject.on_address(True, address("10.0.0.5/24", 2))
    told(subject)
    without = LearnSettings(ignored_interfaces=("eth*",))
    (change,) = subject.under(without)
    assert (change.kind, format_prefix(change.family, change.key), change.route) == (
        SourceKind.DIRECT,
        "10.0.0.0/24",
        None,
    )
    assert not subject.under(LearnSettings()) and not told(subject)
    subject.reconfigure(without, 12)
    told(subject)
    (change,) = subject.under(LearnSettings())
    assert change.route is not None and change.route.interface == "eth0"


def test_hops_by_nexthop_object_alone() -> None:
    """net.ipv4.nexthop_compat_mode = 0: the kernel names the object and nothing else."""
    subject = learner()
    hop = (parse_address("10.0.0.9"), 2, False)
    subject.dump_nexthops((nl.NexthopObject(7, 2, 4, hop, ()), nl.NexthopObject(8, 0, 4, None, (7,))))
    for ident in (7, 8):
        item = nl.RouteShape(254, 4, 1, 0, (), ident)
        event(subject, f"10.{ident}.0.0/16", item)
        route = told(subject)[SourceKind.KERNEL, f"10.{ident}.0.0/16"]
        assert route is not None and route.hops == (Hop(*hop),) and route.interface == "eth0"


@pytest.mark.parametrize(
    ("patterns", "name", "match"),
    (
        (("cali*", "kube-ipvs*"), "cali1", True),
        (("cali*", "kube-ipvs*"), "kube-ipvs0", True),
        (("cali*",), "xcali1", False),
        (("eth1",), "eth11", False),
        (("eth1",), "eth1", True),
        (("e.h*",), "eth0", False),
        (("*",), "anything", True),
        (("a*b*c",), "axxbyyc", True),
        ((), "eth0", False),
    ),
)
def test_patterns(patterns: tuple[str, ...], name: str, match: bool) -> None:
    assert bool(compile_patterns(patterns).fullmatch(name)) is match


def why_not(subject: Learner, prefix: str, item: nl.RouteShape | None = None) -> str:
    """Why a prefix is no local route."""
    family, key = parse_prefix(prefix)
    return subject.why_not(2 if family.afi == 1 else 10, key, item)


def test_why_the_host_has_no_local_route() -> None:
    subject = learner()
    subject.on_address(True, address("10.3.0.1/24", 3))
    subject.on_address(True, address("10.4.0.1/24", 4))
    subject.on_address(True, address("fe80::1/64", 2, scope=253))
    assert why_not(subject, "10.3.0.0/24") == "cali12ab has an address in it, and is among the ignored interfaces"
    assert why_not(subject, "10.4.0.0/24") == "docker0 has an address in it, and is down"
    assert why_not(subject, "fe80::/64") == "eth0 has an address in it, of link or host scope"
    assert why_not(subject, "10.9.0.0/24") == ""
    special = nl.RouteShape(254, 80, 1, 0, (), special=True)
    for prefix, item, words in (
        ("10.5.0.0/16", shape(12, ("", 2)), "protocol 12 (BIRD), table 254), but routes of BIRD's protocol"),
        ("10.5.0.0/16", shape(2, ("", 2)), "the kernel made it itself"),
        ("10.5.0.0/16", shape(4, ("", 2), table=100), "table 100), but routes are learned from table 254 alone"),
        ("10.5.0.0/16", shape(4, kind=2), "neither unicast nor blackhole"),
        ("10.5.0.0/16", special, "for some packets only"),
        ("224.5.0.0/16", shape(4, ("", 2)), "multicast destinations are not learned"),
        ("fd00:5::/48", shape(12, ("", 2)), "routes of BIRD's protocol"),
    ):
        assert words in why_not(subject, prefix, item), prefix
    assert why_not(subject, "10.5.0.0/16", shape(80, ("", 2))) == ""
    assert "its protocol is our own" in why_not(learner(own=13), "10.5.0.0/16", shape(13, ("", 2)))
    off = learner(LearnSettings(kernel=False, direct=False))
    off.on_address(True, address("10.3.0.1/24", 2))
    assert why_not(off, "10.5.0.0/16", shape(80, ("", 2))).endswith("but kernel routes are not learned")
    assert why_not(off, "10.3.0.0/24") == "addresses of interfaces are not learned"
