"""Regions say of a key, and of a list of keys, what the decision tree says of each."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from bgpd.family import IPV4_UNICAST, IPV6_UNICAST, Family
from bgpd.policy import terms as t
from bgpd.policy.chain import Chain, Leaf, Subject
from bgpd.policy.prefixes import truncate
from bgpd.policy.regions import Regions
from bgpd.policy.terms import PrefixRange, SourceKind, Term, Verdict
from bgpd.wire.attributes import AttributeTable

FAMILIES = st.sampled_from([IPV4_UNICAST, IPV6_UNICAST])


def key_of(family: Family, length: int, octets: bytes) -> bytes:
    return truncate(bytes((family.bits,)) + octets.ljust(family.octets, b"\0"), length)


@st.composite
def keys(draw: st.DrawFn, family: Family, length: int | None = None) -> bytes:
    if length is None:
        length = draw(st.integers(0, family.bits))
    begins = st.sampled_from([b"", b"\x0a", b"\x0a\xf4", b"\x0a\xff", b"\xff\xff\xff\xff"])
    return key_of(family, length, (draw(begins) + draw(st.binary(max_size=family.octets)))[: family.octets])


@st.composite
def chains(draw: st.DrawFn, family: Family) -> Chain:
    """Prefix conditions of all kinds; some terms only change the route."""
    lengths = st.integers(0, family.bits)
    ranges = st.lists(st.builds(PrefixRange, st.just(family), keys(family), lengths, lengths), min_size=1, max_size=3)
    condition = st.builds(t.MatchPrefix, ranges.map(tuple), st.booleans())
    some = st.lists(condition, max_size=2).map(tuple)
    actions: st.SearchStrategy[tuple[t.Action, ...]]
    actions = st.sampled_from([(), (), (t.SetLocalPref(7),), (t.AddCommunity(9),)])
    count = draw(st.integers(0, 8))
    return Chain(
        tuple(Term(f"term {n}", draw(st.sampled_from(Verdict)), draw(some), draw(actions)) for n in range(count))
    )


def told(leaf: Leaf) -> tuple[object, ...]:
    subject = leaf.subject
    return leaf.accepted, leaf.label, subject.local_pref, subject.communities, subject.passed


@given(st.data(), FAMILIES, st.booleans(), st.integers(1, 90))
def test_regions_against_one_key_at_a_time(data: st.DataObject, family: Family, alike: bool, most: int) -> None:
    chain = data.draw(chains(family))
    subject = Subject(AttributeTable().intern(family, b"\x40\x01\x01\0\x40\x02\0", b""), SourceKind.IBGP)
    regions = Regions(chain, chain.settle(subject))
    named = [entry.key for term in chain.terms for c in term.conditions for entry in c.ranges]  # type: ignore[union-attr]
    for _ in range(3):  # what was found before must not change what is found next
        length = data.draw(st.integers(0, family.bits)) if alike else None
        some = data.draw(st.lists(keys(family, length), min_size=1, max_size=most))
        if named and alike and length is not None:
            some += [key_of(family, length, key[1:]) for key in data.draw(st.lists(st.sampled_from(named), max_size=3))]
        # Many of them, near each other, as a client announces its blocks.
        some = (some * (90 // len(some)) if data.draw(st.booleans()) else some)[:most]
        want = {key: told(chain.decide(subject, key)) for key in some}
        assert all(told(regions.leaf(key)) == want[key] for key in some)
        poured = [(leaf, key) for leaf, part in regions.pour(some) for key in part]
        assert sorted(key for _, key in poured) == sorted(some)
        assert all(told(leaf) == want[key] for leaf, key in poured)
        one = regions.together(some)
        assert (one is not None) == (len(set(want.values())) == 1)
        assert one is None or told(one) == want[some[0]]
        assert regions.together(some, b"".join(b"\0\0\1\x20" + key for key in some), 4) is one


def test_long_runs_are_settled_by_their_ends() -> None:
    """Blocks of one client in a pool, with hundreds of own blocks elsewhere; and a run that leaves the pool."""
    own = [PrefixRange(IPV4_UNICAST, bytes((26, 10, 255, n >> 2, (n & 3) << 6)), 26, 32) for n in range(300)]
    pool = t.MatchPrefix((PrefixRange(IPV4_UNICAST, b"\x10\x0a\xf4", 16, 32),))
    chain = Chain((*(Term(f"own {n}", Verdict.REJECT, (t.MatchPrefix((entry,)),)) for n, entry in enumerate(own)),
                   Term("pool", Verdict.ACCEPT, (pool,)), Term("rest", Verdict.REJECT)))  # fmt: skip
    subject = Subject(AttributeTable().intern(IPV4_UNICAST, b"", b""), SourceKind.IBGP)
    regions = Regions(chain, chain.settle(subject))
    blocks = [bytes((26, 10, 244 + (n >> 10), n >> 2 & 255, (n & 3) << 6)) for n in range(2000)]
    inside = regions.together(blocks[:1024])
    assert inside is not None and inside.label == "pool"
    assert regions.together(blocks) is None
    assert {leaf.label: len(part) for leaf, part in regions.pour(blocks)} == {"pool": 1024, "rest": 976}
    mixed = [bytes((24, 10, 244, n)) for n in range(8)] + blocks[:8]
    assert regions.together(mixed) is inside
