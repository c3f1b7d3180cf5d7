"""Which prefixes two chains may decide differently: outside of them both must decide alike."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from bgpd.family import IPV4_UNICAST, IPV6_UNICAST, parse_prefix
from bgpd.policy.chain import Chain, Subject
from bgpd.policy.narrow import concerned, enumerate_keys
from bgpd.policy.prefixes import compile_prefixes
from bgpd.policy.terms import (
    AddCommunity,
    MatchCommunity,
    MatchPrefix,
    PrefixRange,
    SetLocalPref,
    SourceKind,
    Term,
    Verdict,
)
from bgpd.wire.attributes import AttributeTable


def prefix(text: str, minimum: int | None = None, maximum: int = 32) -> MatchPrefix:
    family, key = parse_prefix(text)
    return MatchPrefix((PrefixRange(family, key, key[0] if minimum is None else minimum, maximum),))


BLOCKS = [Term(f"block {n}", Verdict.ACCEPT, (prefix(f"10.0.{n}.0/24"),)) for n in range(4)]
POOL = Term("pool", Verdict.ACCEPT, (prefix("10.0.0.0/8"),))
TERMS = [
    *BLOCKS,
    POOL,
    Term("tag", Verdict.NEXT, (prefix("10.0.0.0/23"),), (AddCommunity(7),)),
    Term("tagged", Verdict.REJECT, (MatchCommunity(7),)),
    Term("raise", Verdict.NEXT, (prefix("10.0.2.0/23", 25),), (SetLocalPref(300),)),
    Term("not here", Verdict.REJECT, (MatchPrefix(prefix("10.0.0.0/16").ranges, invert=True),)),
]
KEYS = [
    parse_prefix(text)[1]
    for text in (
        "10.0.0.0/24",
        "10.0.1.128/25",
        "10.0.2.0/24",
        "10.0.2.128/26",
        "10.0.3.1/32",
        "10.9.0.0/16",
        "11.0.0.0/8",
    )
]


@given(st.lists(st.sampled_from(TERMS), max_size=6), st.lists(st.sampled_from(TERMS), max_size=6))
def test_outside_the_ranges_both_chains_decide_alike(old: list[Term], new: list[Term]) -> None:
    ranges = concerned(old, new)
    if ranges is None:
        return
    attrs = AttributeTable().intern(IPV4_UNICAST, b"", b"\x0a\0\0\x01")
    inside = compile_prefixes([MatchPrefix(ranges)])
    for key in KEYS:
        if not inside(key):
            one, two = (Chain(tuple(c)).decide(Subject(attrs, SourceKind.IBGP), key) for c in (old, new))
            assert one.accepted == two.accepted
            assert (
                one.subject.communities == two.subject.communities and one.subject.local_pref == two.subject.local_pref
            )


def test_a_block_more_concerns_its_own_prefixes_only() -> None:
    ranges = concerned((*BLOCKS[:2], POOL), (BLOCKS[0], BLOCKS[3], BLOCKS[1], POOL))
    assert ranges is not None and [entry.key for entry in ranges] == [parse_prefix("10.0.3.0/24")[1]]
    found = enumerate_keys(ranges)
    assert found is not None and len(found) == 2**9 - 1
    inside = compile_prefixes([MatchPrefix(ranges)])
    assert all(map(inside, found)) and parse_prefix("10.0.3.77/32")[1] in found


def test_a_label_alone_concerns_nothing() -> None:
    assert concerned((POOL,), (Term("another name", POOL.verdict, POOL.conditions),)) == ()


def test_it_is_not_told_where_terms_change_places_look_elsewhere_or_come_twice() -> None:
    assert concerned((BLOCKS[0], BLOCKS[1]), (BLOCKS[1], BLOCKS[0])) is None
    assert concerned((POOL,), (TERMS[6], POOL)) is None
    assert concerned((POOL,), (TERMS[8], POOL)) is None
    assert concerned((BLOCKS[0], POOL, POOL), (POOL, BLOCKS[1])) is None


def test_what_both_chains_begin_and_end_with_is_not_looked_at() -> None:
    head, tail = (TERMS[6], POOL, POOL), (TERMS[8], POOL)
    assert concerned((*head, *tail), (*head, BLOCKS[0], *tail)) == BLOCKS[0].conditions[0].ranges  # type: ignore[union-attr]


def test_many_prefixes_are_not_looked_up_one_by_one() -> None:
    assert enumerate_keys(prefix("10.0.0.0/8").ranges) is None
    six, key = parse_prefix("fd00::40/122")
    found = enumerate_keys((PrefixRange(six, key, 122, 128),))
    assert six == IPV6_UNICAST and found is not None and len(found) == 127
    assert enumerate_keys(prefix("10.0.0.0/24", 26, 25).ranges) == []
