"""A case's routes through the daemon's own policy: the compiled chain, and the trees that alike routes share.

The plain interpreter of `tests.unit.config_support` says what terms mean; this is what runs.
"""

from __future__ import annotations

from attrs import evolve

from bgpd.family import parse_prefix
from bgpd.policy.chain import Chain, Subject
from bgpd.policy.shared import SharedTrees
from bgpd.policy.terms import Term
from bgpd.wire import aspath
from bgpd.wire import attributes as wire
from bgpd.wire.rules import Code
from tests.unit.config_support import Outcome, Route

__all__ = ["Decider"]


class Decider:
    """One chain."""

    def __init__(self, terms: tuple[Term, ...]) -> None:
        self._chain = Chain(terms, "end of chain")
        self._trees = SharedTrees(self._chain)
        self._table = wire.AttributeTable()

    def decide(self, route: Route) -> Outcome:
        """What becomes of a route. Raises ValueError where the shared trees say another thing than the chain."""
        family, key = parse_prefix(route.prefix)
        attrs = self._table.intern(family, _block(route), route.next_hop)
        leaf = self._chain.decide(Subject(attrs, route.kind, route.interface, route.metric, route.preference), key)
        tree = self._trees.tree(attrs, route.kind, route.interface, route.metric, route.preference)
        if tree is not None:
            shared = tree.leaf(key)
            if (shared.accepted, shared.label) != (leaf.accepted, leaf.label):
                raise ValueError(f"{route}: the chain ends in {leaf.label}, the tree in {shared.label}")
        after = leaf.subject
        path = [asn for _, asns in aspath.decode(after.as_path_value()) for asn in asns]
        return Outcome(
            leaf.accepted,
            leaf.label,
            evolve(
                route,
                local_pref=after.local_pref,
                preference=after.preference,
                tunnel=after.tunnel,
                as_path=tuple(path),
                communities=(*after.community_set(), *after.large_set()),
            ),
        )


def _block(route: Route) -> bytes:
    changes: dict[int, bytes | None] = {}
    if route.as_path:
        changes[Code.AS_PATH] = wire.encode_as_path(((aspath.AS_SEQUENCE, route.as_path),))
    if route.local_pref is not None:
        changes[Code.LOCAL_PREF] = route.local_pref.to_bytes(4, "big")
    if standard := [value for value in route.communities if isinstance(value, int)]:
        changes[Code.COMMUNITIES] = wire.encode_communities(standard)
    if large := [value for value in route.communities if isinstance(value, tuple)]:
        changes[Code.LARGE_COMMUNITIES] = wire.encode_large_communities(large)
    return wire.rebuild(wire.local_block(), changes)
