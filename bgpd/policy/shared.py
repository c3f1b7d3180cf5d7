"""Decision trees shared by all routes that a chain cannot tell apart.

A reflector's clients each have attributes of their own, if only for the next hop, and a chain hardly ever looks at
that: what it does look at (kind of source, interface, LOCAL_PREF, communities) is the same for thousands of attribute
sets. Working a tree out for each of them costs 10 to 30 microseconds; finding the one that is there costs two.
"""

from __future__ import annotations

from bgpd.policy import terms as t
from bgpd.policy.chain import Chain, Leaf, Node, Subject
from bgpd.policy.terms import SourceKind
from bgpd.wire import usual
from bgpd.wire.attributes import PathAttributes

_LIMIT = 2048

_LOCAL_PREF, _COMMUNITIES, _LARGE = 1, 2, 3
"""Groups of `usual.LOOKED_AT`."""
_LOCAL_PREF_ALONE = (_LOCAL_PREF,)
_GROUPS: dict[type, int] = {
    t.MatchPrefix: 0,
    t.MatchSource: 0,
    t.MatchInterface: 0,
    t.MatchMetric: 0,
    t.SetPreference: 0,
    t.MatchLocalPref: _LOCAL_PREF,
    t.SetLocalPref: _LOCAL_PREF,
    t.LocalPrefFromMetric: _LOCAL_PREF,
    t.MetricFromLocalPref: _LOCAL_PREF,
    t.MatchCommunity: _COMMUNITIES,
    t.AddCommunity: _COMMUNITIES,
    t.MatchLargeCommunity: _LARGE,
    t.AddLargeCommunity: _LARGE,
}
"""Which attribute a condition or an action looks at; 0 = none. What is not here looks at others."""


class SharedTrees:
    """The trees of one chain. Their leaves tell what becomes of a route and whether it is changed (`plain`); the
    subject that is in them is another route's."""

    __slots__ = ("_chain", "_groups", "_trees", "usable")

    def __init__(self, chain: Chain) -> None:
        self._chain = chain
        looks = [_GROUPS.get(type(part), -1) for term in chain.terms for part in (*term.conditions, *term.actions)]
        self.usable = -1 not in looks
        """False: the chain looks at more than is told apart here."""
        self._groups = tuple(sorted(set(looks) - {0}))
        self._trees: dict[tuple[object, ...], Node] = {}

    def node(
        self, attrs: PathAttributes, kind: SourceKind, interface: str, metric: int, preference: int
    ) -> Node | None:
        """The tree for a route; None: it has to have one of its own (`Chain.settle`)."""
        if not self.usable:
            return None
        looked_at: object = None
        if self._groups == _LOCAL_PREF_ALONE:
            looked_at = attrs.local_pref
        elif self._groups:
            match = usual.LOOKED_AT(attrs.block)
            if match is None:
                return None
            looked_at = match.group(*self._groups)
        place = (looked_at, kind.value, interface, metric, preference)
        node = self._trees.get(place)
        if node is None:
            if len(self._trees) >= _LIMIT:
                self._trees.clear()
            subject = Subject(attrs, kind, interface, metric, preference)
            node = self._trees[place] = self._chain.settle(subject)
        return node


def plain(leaf: Leaf) -> bool:
    """Whether a route that ends in this leaf of a shared tree keeps its attributes as they are."""
    made = leaf.made
    if made is None:
        made = leaf.made = leaf.subject.unchanged()
    return made is True
