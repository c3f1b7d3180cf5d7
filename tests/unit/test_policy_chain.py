"""Chains of terms: conditions, actions, order, and that pouring many prefixes equals deciding one by one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bgpd.family import IPV4_UNICAST, IPV6_UNICAST, Family, parse_prefix
from bgpd.policy import terms as t
from bgpd.policy.chain import Chain, Subject, pour
from bgpd.policy.prefixes import PrefixSet, compile_prefixes, truncate
from bgpd.policy.terms import PrefixRange, SourceKind, Term, Verdict
from bgpd.wire.attributes import AttributeTable, encode_as_path, encode_communities, local_block, rebuild

TABLE = AttributeTable()


def subject(kind: SourceKind = SourceKind.IBGP, *, interface: str = "", metric: int = -1, **values: bytes) -> Subject:
    codes = {"as_path": 2, "local_pref": 5, "communities": 8, "large": 32}
    block = rebuild(local_block(), {codes[name]: value for name, value in values.items()})
    return Subject(TABLE.intern(IPV4_UNICAST, block, b"\x0a\0\0\1"), kind, interface, metric)


def between(text: str, low: int | None = None, high: int | None = None) -> PrefixRange:
    family, key = parse_prefix(text)
    return PrefixRange(family, key, key[0] if low is None else low, family.bits if high is None else high)


def holds(condition: t.Condition, what: Subject, prefix: str = "10.0.0.0/24") -> bool:
    chain = Chain((Term("it", Verdict.ACCEPT, (condition,)),))
    return chain.decide(what, parse_prefix(prefix)[1]).accepted


def test_conditions() -> None:
    path = encode_as_path(((2, (1, 2, 3)),))
    large = b"".join(n.to_bytes(4, "big") for n in (1, 2, 3))
    what = subject(
        interface="cali12",
        metric=512,
        as_path=path,
        communities=encode_communities((5, 7)),
        large=large,
        local_pref=(200).to_bytes(4, "big"),
    )
    yes: list[t.Condition] = [
        t.MatchSource(frozenset((SourceKind.IBGP,))),
        t.MatchInterface("cali*"),
        t.MatchInterface("*12"),
        t.MatchInterface("c*1*"),
        t.MatchCommunity(7),
        t.MatchLargeCommunity((1, 2, 3)),
        t.MatchAsPathPrefix((1, 2)),
        t.MatchAsPathPrefix((1, 2, 3)),
        t.MatchLocalPref(200, 200),
        t.MatchMetric(0, 512),
        t.MatchNextHop(frozenset((b"\x0a\0\0\1",))),
        t.MatchPrefix((between("10.0.0.0/8"),)),
        t.MatchPrefix((between("11.0.0.0/8"),), invert=True),
    ]
    no: list[t.Condition] = [
        t.MatchSource(t.BGP_KINDS - {SourceKind.IBGP}),
        t.MatchInterface("cali"),
        t.MatchInterface("cal.12"),
        t.MatchCommunity(6),
        t.MatchLargeCommunity((1, 2, 4)),
        t.MatchAsPathPrefix((2,)),
        t.MatchAsPathPrefix((1, 2, 3, 4)),
        t.MatchLocalPref(100, 199),
        t.MatchMetric(513, 600),
        t.MatchNextHop(frozenset()),
        t.MatchPrefix((between("10.0.0.0/8", 25),)),
        t.MatchPrefix((between("10.0.0.0/8"),), invert=True),
    ]
    assert all(holds(c, what) for c in yes), [c for c in yes if not holds(c, what)]
    assert not any(holds(c, what) for c in no), [c for c in no if holds(c, what)]
    assert not holds(t.MatchInterface("*"), subject())
    assert holds(t.MatchLocalPref(100, 100), subject())


def test_an_ipv6_next_hop_is_known_by_its_global_address() -> None:
    own, link_local = bytes.fromhex("fd00" + "00" * 13 + "09"), bytes.fromhex("fe80" + "00" * 13 + "09")
    chain = Chain((Term("it", Verdict.ACCEPT, (t.MatchNextHop(frozenset((own,))),)),))
    for hop, there in ((own, True), (own + link_local, True), (link_local, False)):
        attrs = TABLE.intern(IPV6_UNICAST, local_block(), hop)
        assert chain.decide(Subject(attrs, SourceKind.IBGP), parse_prefix("fd00:10::/64")[1]).accepted is there


def test_actions_apply_in_order_and_later_terms_see_them() -> None:
    chain = Chain(
        (
            Term("tag", Verdict.NEXT, (), (t.AddCommunity(9), t.AddLargeCommunity((1, 1, 1)), t.PrependAsPath((7, 8)))),
            Term("raise", Verdict.NEXT, (t.MatchCommunity(9),), (t.SetLocalPref(300), t.SetPreference(200))),
            Term("end", Verdict.ACCEPT, (t.MatchAsPathPrefix((7, 8)), t.MatchLocalPref(300, 300))),
        )
    )
    what = subject(as_path=encode_as_path(((2, (1,)),)), communities=encode_communities((10,)))
    leaf = chain.decide(what, b"\0")
    assert leaf.accepted and leaf.label == "end"
    after = leaf.subject
    assert after.community_set() == (9, 10) and after.large_set() == ((1, 1, 1),)
    assert after.as_path_value() == encode_as_path(((2, (7, 8, 1)),))
    assert (after.local_pref, after.preference) == (300, 200)
    assert (what.local_pref, what.preference, what.community_set()) == (None, 100, (10,))


def test_metric_and_local_pref_are_two_forms_of_one_priority() -> None:
    base = 2147483647
    to = Chain((Term("to", Verdict.ACCEPT, (), (t.LocalPrefFromMetric(base, 1024),)),))
    assert to.decide(subject(metric=512), b"\0").subject.local_pref == base - 512
    assert to.decide(subject(metric=0), b"\0").subject.local_pref == base
    assert to.decide(subject(), b"\0").subject.local_pref == base - 1024
    back = Chain((Term("back", Verdict.ACCEPT, (), (t.MetricFromLocalPref(base),)),))
    assert back.decide(subject(), b"\0").subject.metric == base - 100


def test_the_end_rejects_and_reject_changes_nothing() -> None:
    leaf = Chain((), "nothing accepts").decide(subject(), b"\0")
    assert not leaf.accepted and leaf.label == "nothing accepts"
    assert not Chain((Term("no", Verdict.REJECT), Term("yes", Verdict.ACCEPT))).decide(subject(), b"\0").accepted


def keys(family: Family) -> st.SearchStrategy[bytes]:
    def canonical(parts: tuple[int, bytes]) -> bytes:
        length, octets = parts
        return truncate(bytes((family.bits,)) + octets, length)

    octets = st.binary(min_size=family.octets, max_size=family.octets) | st.sampled_from(
        [bytes((10,)) + bytes(family.octets - 1), bytes((10, 244)) + bytes(family.octets - 2)]
    )
    return st.tuples(st.integers(0, family.bits), octets).map(canonical)


@pytest.mark.parametrize("family", [IPV4_UNICAST, IPV6_UNICAST], ids=str)
@pytest.mark.parametrize("count", [1, 3, 40])
@given(data=st.data())
def test_prefix_matchers_against_arithmetic(family: Family, count: int, data: st.DataObject) -> None:
    bounds = st.integers(0, family.bits)
    ranges = data.draw(
        st.lists(st.builds(PrefixRange, st.just(family), keys(family), bounds, bounds), min_size=count, max_size=count)
    )
    key = data.draw(keys(family) | st.sampled_from(ranges).map(lambda r: r.key))
    match = compile_prefixes((t.MatchPrefix(tuple(ranges)),))

    def inside(entry: PrefixRange) -> bool:
        if key[0] < entry.key[0] or not entry.minimum <= key[0] <= entry.maximum:
            return False
        shift = family.bits - entry.key[0]
        number, net = (int.from_bytes(k[1:].ljust(family.octets, b"\0"), "big") for k in (key, entry.key))
        return number >> shift == net >> shift

    assert bool(match(key)) == any(map(inside, ranges))


@pytest.mark.parametrize("family", [IPV4_UNICAST, IPV6_UNICAST], ids=str)
@given(data=st.data())
def test_what_is_said_of_a_run_of_keys_holds_for_each(family: Family, data: st.DataObject) -> None:
    bounds, length = st.integers(0, family.bits), data.draw(st.integers(0, family.bits))
    ranges = st.lists(st.builds(PrefixRange, st.just(family), keys(family), bounds, bounds), min_size=1, max_size=4)
    conditions = data.draw(st.lists(st.builds(t.MatchPrefix, ranges.map(tuple), st.booleans()), min_size=1, max_size=2))
    near = keys(family) | st.sampled_from([entry.key for c in conditions for entry in c.ranges])
    some = sorted(truncate(bytes((family.bits,)) + k[1:].ljust(family.octets, b"\0"), length) for k in
                  data.draw(st.lists(near, min_size=1, max_size=8)))  # fmt: skip
    answer = PrefixSet(conditions).alike(some[0], some[-1])
    each = {bool(PrefixSet(conditions).match(key)) for key in some}
    assert answer is None or each == {answer}
    if len(some) == 1:
        assert answer is not None


def test_a_run_inside_or_outside_of_everything_is_settled_by_its_ends() -> None:
    known = PrefixSet([t.MatchPrefix((between("10.0.0.0/8"), between("12.0.0.0/8")))])
    run = {name: parse_prefix(name)[1] for name in ("9.0.0.0/26", "10.0.0.0/26", "10.255.255.192/26", "11.0.0.0/26",
                                                    "12.1.0.0/26")}  # fmt: skip
    assert known.alike(run["10.0.0.0/26"], run["10.255.255.192/26"]) is True
    assert known.alike(run["11.0.0.0/26"], run["11.0.0.0/26"]) is False
    assert known.alike(run["9.0.0.0/26"], run["9.0.0.0/26"]) is False
    assert known.alike(run["9.0.0.0/26"], run["10.0.0.0/26"]) is None
    assert known.alike(run["10.0.0.0/26"], run["12.1.0.0/26"]) is None
    apart = PrefixSet([t.MatchPrefix((between("10.0.0.0/8"),), invert=True)])
    assert apart.alike(run["10.0.0.0/26"], run["10.255.255.192/26"]) is False
    assert apart.alike(run["11.0.0.0/26"], run["12.1.0.0/26"]) is True


verdicts = st.sampled_from(list(Verdict))
conditions = st.one_of(
    st.builds(
        t.MatchPrefix,
        st.tuples(
            st.builds(PrefixRange, st.just(IPV4_UNICAST), keys(IPV4_UNICAST), st.integers(0, 32), st.integers(0, 32))
        ),
        st.booleans(),
    ),
    st.builds(t.MatchCommunity, st.integers(0, 2)),
    st.builds(t.MatchLocalPref, st.integers(0, 200), st.integers(0, 200)),
)
actions = st.one_of(st.builds(t.AddCommunity, st.integers(0, 2)), st.builds(t.SetLocalPref, st.integers(0, 200)))
chains = st.lists(
    st.builds(
        Term,
        st.text("abc", min_size=1, max_size=3),
        verdicts,
        st.lists(conditions, max_size=2).map(tuple),
        st.lists(actions, max_size=2).map(tuple),
    ),
    max_size=6,
).map(tuple)


@given(chains, st.lists(keys(IPV4_UNICAST), min_size=1, max_size=12))
def test_pouring_equals_deciding_one_by_one(terms: tuple[Term, ...], many: list[bytes]) -> None:
    what, chain = subject(), Chain(terms)
    seen: list[bytes] = []
    for leaf, part in pour(chain.settle(what), many):
        for key in part:
            seen.append(key)
            alone = _plainly(terms, key)
            assert (leaf.accepted, leaf.label, leaf.subject.community_set(), leaf.subject.local_pref) == alone
    assert sorted(seen) == sorted(many)


@given(chains, st.integers(8, 32), st.lists(keys(IPV4_UNICAST), min_size=4, max_size=12))
def test_pouring_keys_of_one_length(terms: tuple[Term, ...], length: int, many: list[bytes]) -> None:
    run = sorted({truncate(b"\x20" + key[1:].ljust(4, b"\0"), length) for key in many})
    what, chain = subject(), Chain(terms)
    for leaf, part in pour(chain.settle(what), run):
        for key in part:
            alone = _plainly(terms, key)
            assert (leaf.accepted, leaf.label, leaf.subject.community_set(), leaf.subject.local_pref) == alone


def _plainly(terms: tuple[Term, ...], key: bytes) -> tuple[bool, str, tuple[int, ...], int | None]:
    """A chain's meaning, written down without any compiling."""
    communities: set[int] = set()
    local_pref: int | None = None
    for term in terms:
        for condition in term.conditions:
            if isinstance(condition, t.MatchPrefix):
                entry = condition.ranges[0]
                fits = entry.minimum <= key[0] <= entry.maximum and key[0] >= entry.key[0]
                fits = fits and truncate(key, entry.key[0]) == entry.key
                if fits == condition.invert:
                    break
            elif isinstance(condition, t.MatchCommunity):
                if condition.value not in communities:
                    break
            elif isinstance(condition, t.MatchLocalPref):
                if not condition.minimum <= (100 if local_pref is None else local_pref) <= condition.maximum:
                    break
        else:
            if term.verdict is Verdict.REJECT:
                return False, term.label, tuple(sorted(communities)), local_pref
            for action in term.actions:
                if isinstance(action, t.AddCommunity):
                    communities.add(action.value)
                elif isinstance(action, t.SetLocalPref):
                    local_pref = action.value
            if term.verdict is Verdict.ACCEPT:
                return True, term.label, tuple(sorted(communities)), local_pref
    return False, "no term accepts it", tuple(sorted(communities)), local_pref


def test_terms_that_change_a_route_and_do_not_decide_are_noted() -> None:
    chain = Chain(
        (
            Term("nothing done", Verdict.NEXT),
            Term("up", Verdict.NEXT, (), (t.SetLocalPref(300),)),
            Term("elsewhere", Verdict.NEXT, (t.MatchCommunity(7),), (t.SetLocalPref(400),)),
            Term("take", Verdict.ACCEPT, (), (t.AddCommunity(9),)),
        )
    )
    attrs = AttributeTable().intern(IPV4_UNICAST, local_block(), b"\x0a\0\0\x01")
    before = Subject(attrs, SourceKind.IBGP)
    leaf = chain.decide(before, b"\x08\x0a")
    assert (leaf.label, leaf.subject.passed, leaf.subject.local_pref) == ("take", ("up",), 300)
    assert before.passed == ()
