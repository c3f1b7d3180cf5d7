"""The vocabulary of policy: what configuration writes and `chain` compiles.

A chain is a sequence of terms. A route meets them in order: where all of a term's conditions hold, its actions change
the route, and its verdict accepts it, rejects it, or passes it on to the next term. The end of a chain rejects.
Labels are opaque text for people ("BGPFilter no-default, rule 2"): printed by explain, never parsed.
"""

from __future__ import annotations

from enum import Enum

from attrs import frozen

from bgpd.family import Family


class Verdict(Enum):
    """What a term does with a route that meets its conditions."""

    ACCEPT = "accept"
    REJECT = "reject"
    NEXT = "next"


class SourceKind(Enum):
    """Where a path comes from (RFC 4456 §6 needs client and non-client apart)."""

    # Enum's own is a Python call, and kinds are keys on the hot path.
    __hash__ = object.__hash__

    EBGP = "ebgp"
    IBGP = "ibgp"
    IBGP_CLIENT = "ibgp-client"
    STATIC = "static"
    KERNEL = "kernel"
    DIRECT = "direct"


BGP_KINDS = frozenset({SourceKind.EBGP, SourceKind.IBGP, SourceKind.IBGP_CLIENT})


@frozen(cache_hash=True)
class PrefixRange:
    """Prefixes inside `key` whose length is at least `minimum` and at most `maximum` bits."""

    family: Family
    key: bytes
    minimum: int
    maximum: int


@frozen
class MatchPrefix:
    """The route's prefix is in one of the ranges (or, inverted, in none)."""

    ranges: tuple[PrefixRange, ...]
    invert: bool = False


@frozen
class MatchSource:
    """The route comes from one of these kinds of source."""

    kinds: frozenset[SourceKind]


@frozen
class MatchInterface:
    """The route's outgoing interface matches a shell pattern (`*` only). Routes without one never match."""

    pattern: str


@frozen
class MatchCommunity:
    """The route carries this standard community (32-bit value, RFC 1997)."""

    value: int


@frozen
class MatchLargeCommunity:
    """The route carries this large community (three 32-bit values, RFC 8092)."""

    value: tuple[int, int, int]


@frozen
class MatchAsPathPrefix:
    """The AS_PATH begins with exactly these AS numbers, whatever follows."""

    asns: tuple[int, ...]


@frozen
class MatchLocalPref:
    """LOCAL_PREF (100 where none came) lies in minimum..maximum, both included."""

    minimum: int
    maximum: int


@frozen
class MatchMetric:
    """The route's metric (kernel priority; -1 = it has none) lies in minimum..maximum, both included."""

    minimum: int
    maximum: int


@frozen
class MatchNextHop:
    """The route's BGP next hop is one of these packed addresses; of an IPv6 pair the global one counts."""

    addresses: frozenset[bytes]


@frozen
class MatchNextHopInside:
    """The route has a BGP next hop, and it lies inside this prefix (an NLRI key of the family)."""

    family: Family
    key: bytes


Condition = (
    MatchPrefix
    | MatchSource
    | MatchInterface
    | MatchCommunity
    | MatchLargeCommunity
    | MatchAsPathPrefix
    | MatchLocalPref
    | MatchMetric
    | MatchNextHop
    | MatchNextHopInside
)


@frozen
class AddCommunity:
    """Add a standard community; one that is present already changes nothing."""

    value: int


@frozen
class AddLargeCommunity:
    """Add a large community; one that is present already changes nothing."""

    value: tuple[int, int, int]


@frozen
class PrependAsPath:
    """Put these AS numbers, in this order, before the AS_PATH."""

    asns: tuple[int, ...]


@frozen
class SetLocalPref:
    """Set LOCAL_PREF."""

    value: int


@frozen
class SetPreference:
    """Set the preference: step 0 of the decision process, before LOCAL_PREF."""

    value: int


@frozen
class LocalPrefFromMetric:
    """LOCAL_PREF := base - metric; `default` stands for the metric of a route that has none.

    Calico's live migration: kernel metric and LOCAL_PREF are two forms of one priority.
    """

    base: int
    default: int


@frozen
class MetricFromLocalPref:
    """metric := base - LOCAL_PREF (100 where none came), not below 1."""

    base: int


@frozen
class SetTunnel:
    """In a kernel chain: send packets to the BGP next hop itself through this device (Calico's IPIP: "tunl0")."""

    device: str


Action = (
    AddCommunity
    | AddLargeCommunity
    | PrependAsPath
    | SetLocalPref
    | SetPreference
    | LocalPrefFromMetric
    | MetricFromLocalPref
    | SetTunnel
)


@frozen(cache_hash=True)
class Term:
    """One rule: conditions (all must hold; none = always), actions, verdict, and the label that explain prints."""

    label: str
    verdict: Verdict
    conditions: tuple[Condition, ...] = ()
    actions: tuple[Action, ...] = ()


ACCEPT_ALL = (Term("accept all", Verdict.ACCEPT),)
REJECT_ALL: tuple[Term, ...] = ()
