"""The decision process step by step: who wins, and the reason that the loser is told (RFC 4271 §9.1.2, RFC 4456 §9)."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bgpd.family import IPV4_UNICAST, parse_address
from bgpd.policy.terms import SourceKind
from bgpd.rib import decision
from bgpd.rib.decision import best, gateways, joined, multipath, order, parted, paths, select
from bgpd.rib.nexthop import NextHop, always
from bgpd.rib.path import PREFERENCE, Entry, Path, Source
from bgpd.routes import Hop
from bgpd.wire.attributes import AttributeTable, rebuild

TABLE = AttributeTable()
BASE = bytes.fromhex("40010100 4002 00")


def make(
    kind: SourceKind = SourceKind.IBGP,
    *,
    preference: int | None = None,
    local_pref: int | None = None,
    asns: tuple[int, ...] = (65001,),
    origin: int = 0,
    med: int | None = None,
    cost: int = 0,
    router_id: str = "1.1.1.1",
    originator: str | None = None,
    clusters: int = 0,
    address: str = "10.0.0.1",
    path_id: int = 0,
    reachable: bool = True,
    hops: tuple[Hop, ...] = (),
) -> Path:
    changes: dict[int, bytes | None] = {1: bytes((origin,))}
    if asns:
        changes[2] = bytes((2, len(asns))) + b"".join(a.to_bytes(4, "big") for a in asns)
    if med is not None:
        changes[4] = med.to_bytes(4, "big")
    if local_pref is not None:
        changes[5] = local_pref.to_bytes(4, "big")
    if originator is not None:
        changes[9] = parse_address(originator)
    if clusters:
        changes[10] = bytes(range(4 * clusters))
    attrs = TABLE.intern(IPV4_UNICAST, rebuild(BASE, changes), parse_address("192.0.2.9"))
    source = Source(address, kind, parse_address(address))
    source.router_id = parse_address(router_id)
    hop = always(attrs.next_hop) if reachable else NextHop(attrs.next_hop)
    hop.cost, hop.hops = cost, hops
    return Path(
        source, path_id, 0, attrs, attrs, hop, b"\0\0\0\1", PREFERENCE[kind] if preference is None else preference
    )


STEPS = [
    ("preference", make(SourceKind.STATIC), make()),
    ("preference", make(preference=200), make(preference=100, local_pref=900)),
    ("local before learned", make(SourceKind.STATIC), make(preference=200)),
    ("LOCAL_PREF", make(local_pref=200), make(asns=())),
    ("AS_PATH length", make(asns=(65001,)), make(asns=(65001, 65002))),
    ("ORIGIN", make(origin=0), make(origin=2)),
    ("MULTI_EXIT_DISC", make(med=None), make(med=1)),
    ("eBGP over iBGP", make(SourceKind.EBGP, router_id="9.9.9.9"), make()),
    ("interior cost", make(cost=0, router_id="9.9.9.9"), make(cost=1)),
    ("BGP identifier", make(router_id="1.1.1.1", address="10.0.0.9"), make(router_id="1.1.1.2")),
    ("BGP identifier", make(router_id="9.9.9.9", originator="1.1.1.0"), make(router_id="1.1.1.1")),
    ("CLUSTER_LIST length", make(address="10.0.0.9"), make(clusters=1)),
    ("peer address", make(address="10.0.0.1"), make(address="10.0.0.2")),
    ("path identifier", make(path_id=1), make(path_id=2)),
]


@pytest.mark.parametrize(("step", "winner", "loser"), STEPS, ids=[s[0] for s in STEPS])
def test_each_step_decides_and_says_so(step: str, winner: Path, loser: Path) -> None:
    for candidates in ([winner, loser], [loser, winner]):
        losses: list[tuple[Path, str]] = []
        assert select(candidates, losses) is winner
        assert [path for path, _ in losses] == [loser]
        assert losses[0][1].startswith(step + ":")
        assert paths(order(candidates))[0] is winner


def test_med_is_compared_within_one_neighbour_as_only() -> None:
    far = make(med=50, asns=(65001,), router_id="1.1.1.1")
    near = make(med=10, asns=(65002,), router_id="1.1.1.2")
    assert select([far, near]) is far
    third = make(med=10, asns=(65001,), router_id="1.1.1.3")
    losses: list[tuple[Path, str]] = []
    assert select([far, near, third], losses) is near
    assert {p.source.address[-1]: r.split(":")[0] for p, r in losses} and losses[0][0] is far


def test_an_unresolved_next_hop_is_ineligible_with_its_reason() -> None:
    bad = make(local_pref=900, reachable=False)
    bad.next_hop.reason = "no local route covers it"
    good = make()
    losses: list[tuple[Path, str]] = []
    assert select([bad, good], losses) is good
    assert losses == [(bad, "ineligible: no local route covers it")]
    assert select([bad]) is None
    assert best(order([bad])) is None
    assert best(None) is None


candidate = st.builds(
    make,
    st.sampled_from([SourceKind.EBGP, SourceKind.IBGP, SourceKind.IBGP_CLIENT]),
    local_pref=st.sampled_from([None, 100, 200]),
    asns=st.sampled_from([(), (65001,), (65002,), (65001, 65001)]),
    med=st.sampled_from([None, 1, 2]),
    router_id=st.sampled_from(["1.1.1.1", "1.1.1.2"]),
    address=st.sampled_from(["10.0.0.1", "10.0.0.2", "10.0.0.3"]),
    path_id=st.integers(0, 3),
    reachable=st.booleans(),
)


def place(path: Path) -> tuple[bytes, int]:
    """No two paths of one destination come from the same peer under the same path id."""
    return path.source.address, path.path_id


@given(st.lists(candidate, min_size=1, max_size=4, unique_by=place))
def test_the_order_of_arrival_never_matters(candidates: list[Path]) -> None:
    def identity(path: Path | None) -> object:
        return path and (path.source.kind, path.attrs, path.source.router_id, path.source.address, path.path_id)

    chosen = {identity(select(list(turn))) for turn in itertools.permutations(candidates)}
    assert len(chosen) == 1
    assert identity(best(order(candidates))) in chosen


@given(st.lists(candidate, min_size=2, max_size=6, unique_by=place), st.data())
def test_one_path_more_or_less_gives_what_all_together_give(candidates: list[Path], data: st.DataObject) -> None:
    entry = order(candidates[:-1])
    assert entry is not None
    after = joined(entry, candidates[-1])
    assert after == order([*paths(entry), candidates[-1]])
    assert isinstance(after, tuple)
    gone = data.draw(st.sampled_from(after))
    assert parted(after, gone) == order([path for path in after if path is not gone])


def test_a_prefix_of_thousands_of_paths_costs_each_a_look_at_the_best(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every node announces a range of Services; the next path is not to cost the look at all those before."""
    entry: Entry = make()
    monkeypatch.setattr(decision, "select", None)
    for number in range(1, 100):
        entry = joined(entry, make(address=f"10.0.0.{number + 1}", path_id=number))
    for path in reversed(paths(entry)[2:]):
        assert isinstance(entry, tuple)
        entry = parted(entry, path) or entry
    assert len(paths(entry)) == 2


@given(st.lists(candidate, min_size=1, max_size=5, unique_by=place))
def test_every_loser_is_told_once(candidates: list[Path]) -> None:
    losses: list[tuple[Path, str]] = []
    chosen = select(candidates, losses)
    told = [id(path) for path, _ in losses]
    assert len(told) == len(set(told))
    assert len(told) == len(candidates) - (chosen is not None)


def test_multipath_joins_equals_and_distinct_gateways_only() -> None:
    one, two = Hop(b"\x0a\0\0\1", 2), Hop(b"\x0a\0\0\2", 2)
    first = make(address="10.0.0.1", hops=(one,))
    again = make(address="10.0.0.2", hops=(one,), router_id="2.2.2.2")
    other = make(address="10.0.0.3", hops=(two,), router_id="3.3.3.3")
    costly = make(address="10.0.0.4", hops=(Hop(b"\x0a\0\0\3", 2),), cost=1)
    outside = make(SourceKind.EBGP, address="10.0.0.5", hops=(Hop(b"\x0a\0\0\4", 2),), local_pref=50)
    dead = make(address="10.0.0.6", hops=(Hop(b"\x0a\0\0\5", 2),), reachable=False)
    candidates = [first, again, other, costly, outside, dead]
    assert multipath(candidates, first) == [first, again, other]
    assert gateways(candidates, first, 16) == (one, two)
    assert gateways(candidates, first, 1) == (one,)
    lower = make(address="10.0.0.7", hops=(Hop(b"\x0a\0\0\6", 2),), med=5)
    assert lower not in multipath([*candidates, lower], first)
