"""Where this project knowingly does not do what Calico's golden files say (docs/quirks.md): what to compare instead.

Two fixes change verdicts of BGPFilters. A case that rests on them would fail at each of its probes and hide all else,
so it is compared with the resources put as Calico takes them, and a note names the object.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from attrs import evolve

from config import resources as r
from config.snapshot import Snapshot

__all__ = ["as_calico"]

_EXACT = (r.MatchOperator.EQUAL, r.MatchOperator.NOT_EQUAL)


def as_calico(snapshot: Snapshot) -> tuple[Snapshot, list[str]]:
    """The snapshot with what quirks 15 and 22 mean written out; notes. The very same one where there is nothing."""
    notes: list[str] = []
    for name, filter in snapshot.of(r.BGPFilter).items():
        lists: dict[str, Any] = {field: tuple(_rules(getattr(filter, field))) for field in _LISTS}
        if (changed := evolve(filter, **lists)) != filter:
            snapshot = snapshot.put(changed)
            notes.append(
                f"BGPFilter {name} has prefixLength with Equal or NotEqual: compared as Calico has it (quirk 15)"
            )
    known = snapshot.of(r.BGPFilter)
    for name, peer in snapshot.of(r.BGPPeer).items():
        there = tuple(entry for entry in peer.filters if entry in known)
        if there != peer.filters:
            snapshot = snapshot.put(evolve(peer, filters=there))
            notes.append(f"BGPPeer {name} names a BGPFilter that is not there: compared without its name (quirk 22)")
    return snapshot, notes


_LISTS = ("export_v4", "import_v4", "export_v6", "import_v6")


def _rules(rules: tuple[r.FilterRule, ...]) -> Iterator[r.FilterRule]:
    """To Calico a range of lengths never equals a prefix, so Equal never holds, and NotEqual always does."""
    for rule in rules:
        if rule.length is None or rule.operator not in _EXACT:
            yield rule
        elif rule.operator is r.MatchOperator.NOT_EQUAL:
            yield evolve(rule, cidr=None, operator=None, length=None)
