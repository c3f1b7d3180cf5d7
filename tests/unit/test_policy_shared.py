"""Shared decision trees decide as a tree of the route's own does, whatever routes they were made for."""

from __future__ import annotations

from typing import get_args

from hypothesis import given
from hypothesis import strategies as st

from bgpd.family import IPV4_UNICAST
from bgpd.policy import terms as t
from bgpd.policy.chain import Chain, Subject
from bgpd.policy.shared import SharedTrees, plain
from bgpd.policy.terms import PrefixRange, SourceKind, Term, Verdict
from bgpd.wire import attributes as wire

HEADS = [
    b"\x40\x01\x01\0" + wire.encode_known(2, path)
    for path in (
        b"",
        b"\x02\x01\0\0\xfd\xe9",
        b"\x02\x02\0\0\xfd\xe9\0\0\xfd\xea",
        b"\x02\x02\0\0\xfd\xe9\0\0\xfd\xeb",
        b"\x02\x01\0\0\xfd\xe9\x02\x01\0\0\xfd\xea",
        b"\x02\x02\0\0\xfd\xea\0\0\xfd\xe9",
    )
]
KEYS = [bytes((24, 10, a, b)) for a in range(2) for b in range(3)]
TAG, OTHER, LARGE = 64512 << 16 | 7, 64512 << 16 | 8, (64512, 1, 2)
KINDS = [SourceKind.IBGP_CLIENT, SourceKind.EBGP, SourceKind.KERNEL]


def inside(*octets: int) -> t.MatchPrefix:
    return t.MatchPrefix((PrefixRange(IPV4_UNICAST, bytes((8 * len(octets), *octets)), 8 * len(octets), 32),))


conditions: st.SearchStrategy[t.Condition] = st.sampled_from(
    [
        inside(10, 0),
        inside(10, 1, 2),
        t.MatchPrefix(inside(10, 0).ranges, invert=True),
        t.MatchSource(frozenset({SourceKind.IBGP_CLIENT})),
        t.MatchInterface("cali*"),
        t.MatchMetric(5, 10),
        t.MatchLocalPref(150, 300),
        t.MatchCommunity(TAG),
        t.MatchLargeCommunity(LARGE),
        t.MatchAsPathPrefix((65001,)),
        t.MatchAsPathPrefix((65001, 65002)),
        t.MatchAsPathPrefix((65001, 65003)),
        t.MatchNextHop(frozenset({bytes(4)})),
        t.MatchNextHopInside(IPV4_UNICAST, b"\x08\x0a"),
    ]
)
actions: st.SearchStrategy[t.Action] = st.sampled_from(
    [
        t.SetPreference(200),
        t.SetLocalPref(200),
        t.AddCommunity(TAG),
        t.AddCommunity(OTHER),
        t.AddLargeCommunity(LARGE),
        t.MetricFromLocalPref(300),
        t.LocalPrefFromMetric(300, 5),
        t.PrependAsPath((65001,)),
    ]
)

MANY = tuple(Term(f"tag {n}", Verdict.REJECT, (t.MatchCommunity(n),)) for n in range(20))
"""So many communities that a route's own are looked up among them."""


@st.composite
def chains(draw: st.DrawFn) -> Chain:
    number = draw(st.integers(1, 6))
    return Chain(
        tuple(
            Term(
                f"term {i}",
                draw(st.sampled_from(Verdict)),
                tuple(draw(st.lists(conditions, max_size=2))),
                tuple(draw(st.lists(actions, max_size=2))),
            )
            for i in range(number)
        )
        + (MANY if draw(st.booleans()) else ())
    )


@st.composite
def attributes(draw: st.DrawFn) -> wire.PathAttributes:
    block = draw(st.sampled_from(HEADS))
    for code, values in (
        (4, [b"\0\0\0\1", b"\0\0\0\2"]),
        (5, [b"\0\0\0\x64", b"\0\0\0\xc8", b"\0\0\1\0"]),
        (8, [TAG.to_bytes(4, "big"), bytes(4) + TAG.to_bytes(4, "big"), bytes(4)]),
        (9, [bytes(4)]),
        (32, [b"".join(part.to_bytes(4, "big") for part in LARGE), bytes(12)]),
    ):
        value = draw(st.one_of(st.none(), st.sampled_from(values)))
        block += b"" if value is None else wire.encode_known(code, value)
    if draw(st.booleans()):
        block += b"\xc0\xf0\x01a"
    return wire.AttributeTable().intern(IPV4_UNICAST, block, draw(st.sampled_from([bytes(4), b"\x0a\0\0\1"])))


routes = st.tuples(
    attributes(), st.sampled_from(KINDS), st.sampled_from(["", "cali1"]), st.sampled_from([0, 7]), st.just(100)
)


def test_who_looks_at_an_as_path_that_was_changed_shares_nothing() -> None:
    prepend, look = t.PrependAsPath((65001,)), t.MatchAsPathPrefix((65001, 65002))
    changed = Term("longer", Verdict.NEXT, (), (prepend,))
    assert not SharedTrees(Chain((changed, Term("look", Verdict.ACCEPT, (look,))))).usable
    assert SharedTrees(Chain((Term("look", Verdict.NEXT, (look,)), changed))).usable
    assert SharedTrees(
        Chain((Term("end", Verdict.ACCEPT, (), (prepend,)), Term("look", Verdict.ACCEPT, (look,))))
    ).usable


def test_attribute_sets_that_differ_in_what_a_chain_does_not_look_at_have_one_tree() -> None:
    terms = (Term("no", Verdict.REJECT, (inside(10, 0), t.MatchCommunity(TAG))), Term("yes", Verdict.ACCEPT))
    trees, table = SharedTrees(Chain(terms)), wire.AttributeTable()
    made = [
        table.intern(IPV4_UNICAST, HEADS[1] + wire.encode_known(8, value), bytes(4))
        for value in (bytes(4), b"\0\1\0\2", b"\0" + TAG.to_bytes(4, "big") + b"\0\0\0", TAG.to_bytes(4, "big"))
    ]
    found = [trees.tree(attrs, SourceKind.IBGP, "", 0, 100) for attrs in made]
    assert found[0] is found[1] is found[2] is not found[3], "octets across two communities are none"


@given(
    chains(),
    st.lists(routes, min_size=1, max_size=8),
    st.lists(st.sampled_from(KEYS), min_size=1, unique=True),
    st.booleans(),
)
def test_shared_trees_decide_as_ones_own(
    chain: Chain,
    seen: list[tuple[wire.PathAttributes, SourceKind, str, int, int]],
    keys: list[bytes],
    prepared: bool,
) -> None:
    trees = SharedTrees(chain)
    if prepared:
        trees.prepare(IPV4_UNICAST)
    for route in seen:
        tree = trees.tree(*route)
        if tree is None:
            continue
        found = {key: leaf for leaf, part in tree.pour(keys) for key in part}
        for key in keys:
            want, leaf = chain.decide(Subject(*route), key), found[key]
            assert (leaf.accepted, leaf.label) == (want.accepted, want.label)
            assert leaf.subject.preference == want.subject.preference
            assert plain(leaf) == want.subject.unchanged()
        one = tree.together(keys)
        assert (one is not None) == (len({id(leaf) for leaf in found.values()}) == 1)
        assert one is None or one is found[keys[0]]


def test_there_is_nothing_that_shared_trees_have_never_heard_of() -> None:
    """A new condition or action has to be told apart in `SharedTrees`, or make it unusable; then it belongs here."""
    known = (
        *(t.MatchPrefix, t.MatchSource, t.MatchInterface, t.MatchCommunity, t.MatchLargeCommunity),
        *(t.MatchAsPathPrefix, t.MatchLocalPref, t.MatchMetric, t.MatchNextHop, t.MatchNextHopInside),
        *(t.AddCommunity, t.AddLargeCommunity, t.PrependAsPath, t.SetLocalPref, t.SetPreference),
        *(t.LocalPrefFromMetric, t.MetricFromLocalPref, t.SetTunnel),
    )
    assert {*get_args(t.Condition), *get_args(t.Action)} == set(known)
