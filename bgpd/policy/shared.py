"""Decision trees shared by all routes that a chain cannot tell apart.

A reflector's clients each have attributes of their own, if only for the next hop, and a chain hardly ever looks at
that: what it does look at (kind of source, interface, LOCAL_PREF, whether a community that it names is there) is the
same for thousands of attribute sets. Working a tree out for each of them costs 10 to 30 microseconds; finding the one
that is there costs one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from bgpd.family import Family
from bgpd.policy import terms as t
from bgpd.policy.chain import Chain, Leaf, Subject, as_path_octets, begins_with, condition_test
from bgpd.policy.regions import Regions
from bgpd.policy.terms import SourceKind, Term, Verdict
from bgpd.wire import attributes as wire
from bgpd.wire.attributes import PathAttributes

_LIMIT = 1024
_FEW = 16
"""Up to so many octet strings are looked for in a block one by one; beyond, communities are decoded."""

_PREF = (t.MatchLocalPref, t.SetLocalPref, t.LocalPrefFromMetric, t.MetricFromLocalPref)
_COMMUNITIES = (t.MatchCommunity, t.AddCommunity, t.MatchLargeCommunity, t.AddLargeCommunity)
_HOPS = (t.MatchNextHop, t.MatchNextHopInside)
_UNTOLD = (t.SetTunnel,)
"""A route of its own is to be asked for what these do."""

_Known = tuple[object, ...]
_Mark = tuple[bytes, Callable[[PathAttributes], bool]]
"""Octets that a block has where something may be in it, and whether it is."""


class SharedTrees:
    """The trees of one chain. Their leaves tell what becomes of a route and whether it is changed (`plain`); the
    subject that is in them is another route's."""

    __slots__ = ("_chain", "_hop_tests", "_hops", "_marks", "_pref", "_trees", "_values", "usable")

    def __init__(self, chain: Chain) -> None:
        self._chain = chain
        parts = [part for term in chain.terms for part in (*term.conditions, *term.actions)]
        self.usable = not any(isinstance(part, _UNTOLD) for part in parts) and not _prepended(chain.terms)
        """False: the chain looks at more than is told apart here."""
        self._pref = any(isinstance(part, _PREF) for part in parts)
        values = {part.value for part in parts if isinstance(part, _COMMUNITIES)}
        self._marks = (*map(_of_path, {part for part in parts if isinstance(part, t.MatchAsPathPrefix)}),
                       *(map(_of_community, values) if len(values) <= _FEW else ()))  # fmt: skip
        self._values = frozenset(values) if len(values) > _FEW else None
        """Communities that the chain names, where they are so many that a route's own are looked up among them."""
        self._hop_tests = [condition_test(part) for part in dict.fromkeys(parts) if isinstance(part, _HOPS)]
        self._hops: dict[bytes, _Known] = {}
        self._trees: dict[_Known, Regions] = {}

    def prepare(self, family: Family) -> None:
        """Have the chain look at its prefixes before the first route comes. Most routes of a family will have a length
        that the chain names; all trees share what is found for it."""
        nobody = wire.AttributeTable().intern(family, b"", b"")
        tree = Regions(self._chain, self._chain.settle(Subject(nobody, SourceKind.IBGP_CLIENT)))
        for length in self._chain.lengths():
            if length <= family.bits:
                tree.leaf(bytes((length,)) + bytes((length + 7) // 8))

    def tree(
        self, attrs: PathAttributes, kind: SourceKind, interface: str, metric: int, preference: int
    ) -> Regions | None:
        """The tree for a route; None: it has to have one of its own (`Chain.settle`)."""
        if not self.usable:
            return None
        block = attrs.block
        found: _Known = ()
        for octets, there in self._marks:
            # Almost always this settles it: the octets are nowhere in the block.
            if block.find(octets) >= 0 and there(attrs):
                found = (*found, there)
        if self._values is not None:
            found = (*found, self._values.intersection((*attrs.communities, *attrs.large_communities)))
        if self._hop_tests:
            found = (*found, *self._of_hop(attrs))
        pref = attrs.local_pref if self._pref else None
        place = (found, pref, kind._value_, interface, metric, preference)  # an enum is hashed in Python
        tree = self._trees.get(place)
        if tree is None:
            if len(self._trees) >= _LIMIT:
                self._trees.clear()
            subject = Subject(attrs, kind, interface, metric, preference)
            tree = self._trees[place] = Regions(self._chain, self._chain.settle(subject))
        return tree

    def _of_hop(self, attrs: PathAttributes) -> _Known:
        """What the chain can tell of the next hop."""
        known = self._hops.get(attrs.next_hop)
        if known is None:
            if len(self._hops) >= _LIMIT:
                self._hops.clear()
            subject = Subject(attrs, SourceKind.IBGP)
            known = self._hops[attrs.next_hop] = tuple(test(subject) for test in self._hop_tests)
        return known


def plain(leaf: Leaf) -> bool:
    """Whether a route that ends in this leaf of a shared tree keeps its attributes as they are."""
    made = leaf.made
    if made is None:
        made = leaf.made = leaf.subject.unchanged()
    return made is True


def _prepended(terms: Iterable[Term]) -> bool:
    """Whether a term looks at an AS_PATH that one before it may have changed."""
    changed = False
    for term in terms:
        if changed and any(isinstance(c, t.MatchAsPathPrefix) for c in term.conditions):
            return True
        changed = changed or (
            term.verdict is Verdict.NEXT and any(isinstance(a, t.PrependAsPath) for a in term.actions)
        )
    return False


def _of_community(value: int | tuple[int, int, int]) -> _Mark:
    if isinstance(value, int):
        return value.to_bytes(4, "big"), lambda attrs: value in attrs.communities
    return wire.encode_large_communities((value,)), lambda attrs: value in attrs.large_communities


def _of_path(condition: t.MatchAsPathPrefix) -> _Mark:
    # Its numbers may come in several segments: only the first one is known to be in one piece.
    first = b"".join(asn.to_bytes(4, "big") for asn in condition.asns[:1])
    wanted = as_path_octets(condition)
    return first, lambda attrs: begins_with(attrs.as_path_value, wanted)
