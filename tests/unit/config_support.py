"""Helpers for the tests of `config`: resources from YAML text, and a plain interpreter of policy terms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from functools import lru_cache
from ipaddress import ip_address, ip_network
from typing import Any

from attrs import evolve, frozen

from bgpd.family import parse_prefix
from bgpd.policy import terms as t
from bgpd.policy.terms import SourceKind, Term, Verdict
from bgpd.settings import FamilySettings, PeerSettings, SpeakerSettings
from config.compile import Compiled, compile
from config.documents import load_yaml, split
from config.parse import parse_resource
from config.snapshot import Put, Snapshot

DEFAULT_LOCAL_PREF = 100


def snapshot(*texts: str) -> Snapshot:
    """A snapshot of YAML documents; `apiVersion` is added where it is missing."""
    changes = []
    for text in texts:
        for document in split(text):
            value = load_yaml(document.text)
            assert isinstance(value, dict)
            value.setdefault("apiVersion", "v1" if value.get("kind") == "Secret" else "projectcalico.org/v3")
            parsed = parse_resource(value)
            changes.append(Put(parsed.resource, parsed.notices))
    return Snapshot().apply(changes)


def compiled(text: str, node: str = "a", env: Mapping[str, str] | None = None) -> Compiled:
    """The compile of YAML documents for a node."""
    return compile(snapshot(text), node, env or {})


def settings(text: str, node: str = "a", env: Mapping[str, str] | None = None) -> SpeakerSettings:
    """The settings of a compile that must succeed."""
    found = compiled(text, node, env).settings
    assert found is not None
    return found


def peers(speaker: SpeakerSettings) -> dict[str, PeerSettings]:
    """Peers by name."""
    return {peer.name: peer for peer in speaker.peers}


def chains(speaker: SpeakerSettings, peer: str) -> tuple[tuple[Term, ...], tuple[Term, ...]]:
    """The import and the export chain of a peer of one family."""
    entry = only_family(peers(speaker)[peer])
    return speaker.import_terms(entry), speaker.export_terms(entry)


def only_family(peer: PeerSettings) -> FamilySettings:
    """The one family of a peer."""
    (family,) = peer.families
    return family


@frozen
class Route:
    """A route as policy sees it. `metric` -1 = none."""

    prefix: str
    kind: SourceKind = SourceKind.KERNEL
    interface: str = ""
    metric: int = -1
    local_pref: int | None = None
    as_path: tuple[int, ...] = ()
    communities: tuple[Any, ...] = ()
    next_hop: bytes = b""
    preference: int = 0
    tunnel: str = ""


@frozen
class Outcome:
    """What a chain decided."""

    accepted: bool
    label: str
    route: Route


def run(chain: Sequence[Term], route: Route) -> Outcome:
    """A chain's decision about one route, by the words of `bgpd.policy.terms` alone."""
    for term in chain:
        if not all(_holds(condition, route) for condition in term.conditions):
            continue
        if term.verdict is not Verdict.REJECT:
            for action in term.actions:
                route = _act(action, route)
        if term.verdict is not Verdict.NEXT:
            return Outcome(term.verdict is Verdict.ACCEPT, term.label, route)
    return Outcome(False, "end of chain", route)


@lru_cache(65536)
def _in_range(prefix: str, entry: t.PrefixRange) -> bool:
    family, key = parse_prefix(prefix)
    if family != entry.family or not entry.minimum <= key[0] <= entry.maximum:
        return False
    outer = ip_network((entry.key[1:].ljust(family.octets, b"\0"), entry.key[0]))
    inner = ip_network(prefix, strict=False)
    return inner.prefixlen >= outer.prefixlen and inner.network_address in outer


def _holds(condition: t.Condition, route: Route) -> bool:
    match condition:
        case t.MatchPrefix(ranges, invert):
            return any(_in_range(route.prefix, entry) for entry in ranges) != invert
        case t.MatchSource(kinds):
            return route.kind in kinds
        case t.MatchInterface(pattern):
            return bool(route.interface) and fnmatchcase(route.interface, pattern)
        case t.MatchCommunity(value) | t.MatchLargeCommunity(value):
            return value in route.communities
        case t.MatchAsPathPrefix(asns):
            return route.as_path[: len(asns)] == asns
        case t.MatchLocalPref(low, high):
            return low <= (DEFAULT_LOCAL_PREF if route.local_pref is None else route.local_pref) <= high
        case t.MatchMetric(low, high):
            return low <= route.metric <= high
        case t.MatchNextHop(addresses):
            return route.next_hop[:16] in addresses
        case t.MatchNextHopInside(family, key):
            outer = ip_network((key[1:].ljust(family.octets, b"\0"), key[0]))
            return bool(route.next_hop) and ip_address(route.next_hop[:16]) in outer


def _act(action: t.Action, route: Route) -> Route:
    match action:
        case t.AddCommunity(value) | t.AddLargeCommunity(value):
            return evolve(route, communities=tuple(dict.fromkeys((*route.communities, value))))
        case t.PrependAsPath(asns):
            return evolve(route, as_path=(*asns, *route.as_path))
        case t.SetLocalPref(value):
            return evolve(route, local_pref=value)
        case t.SetPreference(value):
            return evolve(route, preference=value)
        case t.LocalPrefFromMetric(base, default):
            return evolve(route, local_pref=base - (route.metric if route.metric >= 0 else default))
        case t.MetricFromLocalPref(base):
            value = DEFAULT_LOCAL_PREF if route.local_pref is None else route.local_pref
            return evolve(route, metric=max(base - value, 1))
        case t.SetTunnel(device):
            return evolve(route, tunnel=device)
        case _:
            raise AssertionError(f"no such action here: {action}")
