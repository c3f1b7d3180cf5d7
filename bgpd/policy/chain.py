"""Chains of terms, compiled, and run over many prefixes at once.

A chain meets a *subject* (what is the same for all prefixes of one path: attributes, source, interface, metric) and a
list of NLRI keys. Conditions on the subject are settled once; what is left is a small decision tree whose inner nodes
are prefix matchers and whose leaves are outcomes. Keys are poured through it in bulk, and split only where they differ.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from bgpd.policy import terms as t
from bgpd.policy.prefixes import PrefixSet, compile_prefixes, cuts
from bgpd.policy.terms import SourceKind, Term, Verdict
from bgpd.wire.attributes import PathAttributes, prepend_as_path

DEFAULT_LOCAL_PREF = 100
_LIMIT32 = 0xFFFFFFFF


class Subject:
    """A route as policy sees and changes it, but for its prefix. Copied before a change; `attrs` never changes.

    `local_pref` None = absent; `communities` and `large` None = as in `attrs`; `as_path` None = as in `attrs`.
    """

    __slots__ = (
        "as_path",
        "attrs",
        "communities",
        "interface",
        "kind",
        "large",
        "local_pref",
        "metric",
        "next_hop",
        "passed",
        "preference",
        "tunnel",
    )

    def __init__(
        self,
        attrs: PathAttributes,
        kind: SourceKind,
        interface: str = "",
        metric: int = 0,
        preference: int = 100,
    ) -> None:
        self.attrs = attrs
        self.kind = kind
        self.interface = interface
        self.metric = metric
        self.preference = preference
        self.local_pref: int | None = attrs.local_pref
        self.as_path: bytes | None = None
        self.communities: tuple[int, ...] | None = None
        self.large: tuple[tuple[int, int, int], ...] | None = None
        self.next_hop = attrs.next_hop
        self.tunnel = ""
        self.passed: tuple[str, ...] = ()
        """Labels of terms that changed the route and did not decide."""

    def copy(self) -> Subject:
        """A subject that can be changed without changing this one."""
        new = Subject.__new__(Subject)
        new.attrs = self.attrs
        new.kind = self.kind
        new.interface = self.interface
        new.metric = self.metric
        new.preference = self.preference
        new.local_pref = self.local_pref
        new.as_path = self.as_path
        new.communities = self.communities
        new.large = self.large
        new.next_hop = self.next_hop
        new.tunnel = self.tunnel
        new.passed = self.passed
        return new

    def unchanged(self) -> bool:
        """Whether the attributes are as they came."""
        return (
            self.as_path is None
            and self.communities is None
            and self.large is None
            and self.local_pref == self.attrs.local_pref
        )

    def community_set(self) -> tuple[int, ...]:
        """Standard communities as they stand now."""
        return self.attrs.communities if self.communities is None else self.communities

    def large_set(self) -> tuple[tuple[int, int, int], ...]:
        """Large communities as they stand now."""
        return self.attrs.large_communities if self.large is None else self.large

    def as_path_value(self) -> bytes:
        """AS_PATH as it stands now, in wire form with four-octet numbers."""
        return self.attrs.as_path_value if self.as_path is None else self.as_path


class Leaf:
    """What a chain decided for some of a path's prefixes: accepted or not, by which term, and the changed route.

    `made` is a place for what the caller derives from the subject (outgoing octets, an effective path), made once.
    """

    __slots__ = ("accepted", "label", "made", "subject")

    def __init__(self, accepted: bool, label: str, subject: Subject) -> None:
        self.accepted = accepted
        self.label = label
        self.subject = subject
        self.made: object = None


class Fork:
    """A decision that depends on the prefix; both sides are worked out when first needed."""

    __slots__ = ("_no", "_no_from", "_yes", "_yes_from", "prefixes")

    def __init__(self, prefixes: PrefixSet, yes: Callable[[], Node], no: Callable[[], Node]) -> None:
        self.prefixes = prefixes
        self._yes_from = yes
        self._no_from = no
        self._yes: Node | None = None
        self._no: Node | None = None

    @property
    def yes(self) -> Node:
        """Where keys go that match."""
        if self._yes is None:
            self._yes = self._yes_from()
        return self._yes

    @property
    def no(self) -> Node:
        """Where keys go that do not match."""
        if self._no is None:
            self._no = self._no_from()
        return self._no


Node = Leaf | Fork


_SEVERAL = 4
"""Keys from which on finding the lowest and the highest pays."""
_MANY = 64
"""Keys from which on it pays to look at those of each length apart."""


def _follow(node: Node, low: bytes, high: bytes) -> Node:
    """As far as all keys between these two go the same way."""
    while type(node) is Fork:
        side = node.prefixes.alike(low, high)
        if side is None:
            break
        node = node.yes if side else node.no
    return node


def _by_length(keys: Sequence[bytes]) -> Iterable[list[bytes]]:
    groups: dict[int, list[bytes]] = {}
    for key in keys:
        groups.setdefault(key[0], []).append(key)
    return groups.values()


def ending(node: Node, key: bytes) -> Leaf:
    """The leaf in which one key ends."""
    while type(node) is Fork:
        node = node.yes if node.prefixes.holds(key) else node.no
    assert isinstance(node, Leaf)
    return node


def pour(node: Node, keys: Sequence[bytes]) -> Iterator[tuple[Leaf, Sequence[bytes]]]:
    """Yield (leaf, keys that end there) for all keys; a leaf may come more than once."""
    if type(node) is Fork and len(keys) >= _SEVERAL:
        low, high = min(keys), max(keys)
        if low[0] == high[0]:
            node = _follow(node, low, high)
        elif len(keys) >= _MANY:
            for part in _by_length(keys):
                yield from pour(node, part)
            return
    if len(keys) == 1:
        node = ending(node, keys[0])
    while type(node) is Fork:
        match = node.prefixes.match
        if all(map(match, keys)):
            node = node.yes
        elif not any(map(match, keys)):
            node = node.no
        else:
            yes: list[bytes] = []
            no: list[bytes] = []
            for key in keys:
                (yes if match(key) else no).append(key)
            yield from pour(node.yes, yes)
            node, keys = node.no, no
    assert isinstance(node, Leaf)
    yield node, keys


class _Compiled:
    __slots__ = ("actions", "label", "length", "named", "prefixes", "term", "tests", "verdict")

    def __init__(self, term: Term) -> None:
        self.term = term
        self.named = _named(term)
        self.length = min((entry.key[0] for entry in self.named), default=0)
        """Of the broadest prefix that it names."""
        prefixes = [c for c in term.conditions if isinstance(c, t.MatchPrefix)]
        self.prefixes = PrefixSet(prefixes) if prefixes else None
        self.tests = [condition_test(c) for c in term.conditions if not isinstance(c, t.MatchPrefix)]
        self.actions = [_ACTIONS[type(a)](a) for a in term.actions]
        self.verdict = term.verdict
        self.label = term.label


class _Skip:
    """A step before several terms that all name prefixes: keys inside none of them go on at `target`."""

    __slots__ = ("prefixes", "target")

    def __init__(self, ranges: tuple[t.PrefixRange, ...]) -> None:
        self.prefixes = PrefixSet([t.MatchPrefix(ranges)])
        self.target = 0


_Step = _Compiled | _Skip

_WORTH = 4
"""Terms in a row from which on a look at all their prefixes at once pays."""
_BROADER = 4
"""Bits by which a prefix is so much broader than those before it that other routes are meant: a pool behind blocks."""


_Known = Mapping[int, _Compiled]
"""Terms that are compiled already, by the id of the term."""


def _program(terms: tuple[Term, ...], known: _Known) -> tuple[_Step, ...]:
    """The terms in their order, with a tree of skips over each run of terms that name prefixes."""
    compiled = [known.get(id(term)) or _Compiled(term) for term in terms]
    steps: list[_Step] = []
    start = 0
    while start < len(terms):
        end, broadest = start, 0
        while end < len(terms) and compiled[end].named:
            length = compiled[end].length
            if end > start and length <= broadest - _BROADER:
                break
            broadest = length if end == start else min(broadest, length)
            end += 1
        end = max(end, start + 1)
        _add_tree(steps, compiled[start:end])
        start = end
    return tuple(steps)


def _add_tree(steps: list[_Step], terms: Sequence[_Compiled]) -> None:
    if len(terms) < _WORTH:
        steps += terms
        return
    skip = _Skip(tuple(itertools.chain.from_iterable([term.named for term in terms])))
    steps.append(skip)
    middle = len(terms) // 2
    _add_tree(steps, terms[:middle])
    _add_tree(steps, terms[middle:])
    skip.target = len(steps)


def _named(term: Term) -> tuple[t.PrefixRange, ...]:
    """Prefixes outside of which a term does not hold; () if it names none."""
    for condition in term.conditions:
        if type(condition) is t.MatchPrefix and not condition.invert:
            return condition.ranges
    return ()


class Chain:
    """A compiled chain. Equal term sequences give chains that decide alike; compare `terms`."""

    __slots__ = ("__weakref__", "_bounds", "_cuts", "_steps", "accepts_all", "by_source", "end_label", "terms")

    def __init__(
        self, terms: tuple[Term, ...], end_label: str = "no term accepts it", like: Chain | None = None
    ) -> None:
        """`like`: a chain that has most of its terms in common, which need not be compiled again."""
        self.terms = terms
        self.end_label = end_label
        steps: tuple[_Step, ...] = like._steps if like is not None else ()
        self._steps: tuple[_Step, ...] = _program(
            terms, {id(step.term): step for step in steps if type(step) is _Compiled}
        )
        self._bounds: dict[bytes, set[tuple[int, int]]] = {}
        self._cuts: dict[int, list[bytes]] = {}
        first = terms[0] if terms else None
        self.accepts_all = (
            first is not None and first.verdict is Verdict.ACCEPT and not first.conditions and not first.actions
        )
        """The first term takes every route as it is: nothing need be looked at."""
        looks_at = {type(c) for term in terms for c in term.conditions}
        self.by_source = looks_at <= {t.MatchPrefix, t.MatchSource} and not any(term.actions for term in terms)
        """The outcome hangs on the prefix and the kind of source alone, and changes nothing."""

    def cuts(self, length: int) -> list[bytes]:
        """First keys of the regions of this prefix length, in order: all keys of a region match the same terms'
        prefixes."""
        known = self._cuts.get(length)
        if known is None:
            if not self._bounds:
                self._bounds = _bounds(self.terms)
            known = self._cuts[length] = cuts(self._bounds, length)
        return known

    def lengths(self) -> set[int]:
        """Of the prefixes that are named."""
        if not self._bounds:
            self._bounds = _bounds(self.terms)
        return {key[0] for key in self._bounds}

    def settle(self, subject: Subject) -> Node:
        """The decision tree for one subject; `pour` prefixes through it."""
        return self._settle(0, subject)

    def decide(self, subject: Subject, key: bytes) -> Leaf:
        """The outcome for one prefix."""
        return ending(self.settle(subject), key)

    def _settle(self, index: int, subject: Subject) -> Node:
        steps = self._steps
        while index < len(steps):
            term = steps[index]
            index += 1
            if type(term) is _Skip:
                return self._skip(term, index, subject)
            assert isinstance(term, _Compiled)
            for test in term.tests:
                if not test(subject):
                    break
            else:
                if term.prefixes is not None:
                    return self._fork(term, term.prefixes, index, subject)
                subject = _act(term, subject)
                if term.verdict is not Verdict.NEXT:
                    return Leaf(term.verdict is Verdict.ACCEPT, term.label, subject)
        return Leaf(False, self.end_label, subject)

    def _skip(self, skip: _Skip, index: int, subject: Subject) -> Fork:
        return Fork(skip.prefixes, lambda: self._settle(index, subject), lambda: self._settle(skip.target, subject))

    def _fork(self, term: _Compiled, prefixes: PrefixSet, index: int, subject: Subject) -> Fork:
        def yes() -> Node:
            changed = _act(term, subject)
            if term.verdict is Verdict.NEXT:
                return self._settle(index, changed)
            return Leaf(term.verdict is Verdict.ACCEPT, term.label, changed)

        return Fork(prefixes, yes, lambda: self._settle(index, subject))


def _bounds(terms: Iterable[Term]) -> dict[bytes, set[tuple[int, int]]]:
    """Lowest and highest length of each range that is named, by its prefix."""
    found: dict[bytes, set[tuple[int, int]]] = {}
    for term in terms:
        for condition in term.conditions:
            if isinstance(condition, t.MatchPrefix):
                for entry in condition.ranges:
                    found.setdefault(entry.key, set()).add((entry.minimum, entry.maximum))
    return found


def _act(term: _Compiled, subject: Subject) -> Subject:
    if not term.actions or term.verdict is Verdict.REJECT:
        return subject
    subject = subject.copy()
    for action in term.actions:
        action(subject)
    if term.verdict is Verdict.NEXT:
        subject.passed = (*subject.passed, term.label)
    return subject


Test = Callable[[Subject], bool]
Change = Callable[[Subject], None]


def condition_test(condition: t.Condition) -> Test:
    """Whether a route meets a condition that does not name prefixes."""
    return _TESTS[type(condition)](condition)


def _source(c: t.MatchSource) -> Test:
    return lambda s: s.kind in c.kinds


def _interface(c: t.MatchInterface) -> Test:
    pattern = re.compile(".*".join(map(re.escape, c.pattern.split("*"))))
    return lambda s: bool(s.interface) and pattern.fullmatch(s.interface) is not None


def as_path_octets(c: t.MatchAsPathPrefix) -> bytes:
    """The AS numbers of a condition as they are in an AS_PATH."""
    return b"".join(asn.to_bytes(4, "big") for asn in c.asns)


def begins_with(value: bytes, octets: bytes) -> bool:
    """Whether an AS_PATH value begins with these AS numbers."""
    flat = bytearray()
    # Segments of AS_SEQUENCE only: an AS_SET has no order that a prefix could match.
    while value and value[0] == 2 and len(flat) < len(octets):
        flat += value[2 : 2 + 4 * value[1]]
        value = value[2 + 4 * value[1] :]
    return flat[: len(octets)] == octets


def _as_path_prefix(c: t.MatchAsPathPrefix) -> Test:
    octets = as_path_octets(c)
    return lambda s: begins_with(s.as_path_value(), octets)


def _local_pref(c: t.MatchLocalPref) -> Test:
    def test(subject: Subject) -> bool:
        value = subject.local_pref
        return c.minimum <= (DEFAULT_LOCAL_PREF if value is None else value) <= c.maximum

    return test


def _next_hop_inside(c: t.MatchNextHopInside) -> Test:
    octets = c.family.octets
    matches = compile_prefixes([t.MatchPrefix((t.PrefixRange(c.family, c.key, c.key[0], c.family.bits),))])

    def test(subject: Subject) -> bool:
        hop = subject.next_hop[:16]
        return len(hop) == octets and bool(matches(bytes((c.family.bits,)) + hop))

    return test


_TESTS: dict[type, Callable[..., Test]] = {
    t.MatchSource: _source,
    t.MatchInterface: _interface,
    t.MatchCommunity: lambda c: lambda s: c.value in s.community_set(),
    t.MatchLargeCommunity: lambda c: lambda s: c.value in s.large_set(),
    t.MatchAsPathPrefix: _as_path_prefix,
    t.MatchLocalPref: _local_pref,
    t.MatchMetric: lambda c: lambda s: c.minimum <= s.metric <= c.maximum,
    # An IPv6 next hop may have a link-local address behind it (RFC 2545 §3).
    t.MatchNextHop: lambda c: lambda s: s.next_hop[:16] in c.addresses,
    t.MatchNextHopInside: _next_hop_inside,
}


def _add_community(a: t.AddCommunity) -> Change:
    def change(subject: Subject) -> None:
        now = subject.community_set()
        if a.value not in now:
            subject.communities = tuple(sorted((*now, a.value)))

    return change


def _add_large(a: t.AddLargeCommunity) -> Change:
    def change(subject: Subject) -> None:
        now = subject.large_set()
        if a.value not in now:
            subject.large = tuple(sorted((*now, a.value)))

    return change


def _prepend(a: t.PrependAsPath) -> Change:
    def change(subject: Subject) -> None:
        subject.as_path = prepend_as_path(subject.as_path_value(), a.asns)

    return change


def _set(name: str) -> Callable[..., Change]:
    def make(a: t.SetLocalPref | t.SetPreference) -> Change:
        return lambda s: setattr(s, name, a.value)

    return make


def _set_tunnel(a: t.SetTunnel) -> Change:
    return lambda s: setattr(s, "tunnel", a.device)


def _local_pref_from_metric(a: t.LocalPrefFromMetric) -> Change:
    def change(subject: Subject) -> None:
        metric = subject.metric if subject.metric >= 0 else a.default
        subject.local_pref = min(max(a.base - metric, 0), _LIMIT32)

    return change


def _metric_from_local_pref(a: t.MetricFromLocalPref) -> Change:
    def change(subject: Subject) -> None:
        value = subject.local_pref
        subject.metric = max(a.base - (DEFAULT_LOCAL_PREF if value is None else value), 1)

    return change


_ACTIONS: dict[type, Callable[..., Change]] = {
    t.AddCommunity: _add_community,
    t.AddLargeCommunity: _add_large,
    t.PrependAsPath: _prepend,
    t.SetLocalPref: _set("local_pref"),
    t.SetPreference: _set("preference"),
    t.LocalPrefFromMetric: _local_pref_from_metric,
    t.MetricFromLocalPref: _metric_from_local_pref,
    t.SetTunnel: _set_tunnel,
}
