"""What one peer may cost: prefixes, attribute sets and octets that it has us keep (RFC 4486, Cease/1 and Cease/8).

Counting exactly takes a walk over the peer's Adj-RIB-In, so what is *sent* is counted instead, which is never less than
what is kept; only when that passes a limit is the table looked at, and the count goes on from what was found.
"""

from __future__ import annotations

from collections import Counter

from attrs import frozen

from bgpd.errors import BGPError, Cease, ErrorCode
from bgpd.rib.adj_rib_in import AdjRibIn
from bgpd.rib.importer import Importer
from bgpd.settings import PeerSettings
from bgpd.wire.attributes import PathAttributes
from bgpd.wire.update import ParsedUpdate

WARN_SHARE = 0.75
_ENDLESS = 1 << 60
_SLACK = 64
"""Near a limit the table is looked at again after a 64th of the limit was sent, not with every UPDATE."""


@frozen
class Kept:
    """What a peer has us keep at one moment."""

    sets: int
    """Distinct attribute sets, over all families."""
    octets: int
    """Octets of these sets, each counted once, and of the NLRI."""


class Limits:
    """One peer's limits, and how much of them is left at least."""

    __slots__ = ("_adj_levels", "_octets", "_octets_left", "_prefixes", "_sets", "_sets_left", "limited")

    def __init__(self, settings: PeerSettings) -> None:
        self.use(settings)

    def use(self, settings: PeerSettings, empty: bool = False) -> None:
        """Put limits into force, and begin to count anew: a session is up, or the settings have changed.

        `empty`: the peer has us keep nothing so far, so that nothing need be looked at for a while.
        """
        self._prefixes = {f.family: f.max_prefixes for f in settings.families if f.max_prefixes}
        self._sets, self._octets = settings.max_attribute_sets, settings.max_octets
        self.limited = bool(self._prefixes or self._sets or self._octets)
        self._sets_left = (self._sets if empty else 0) if self._sets else _ENDLESS
        self._octets_left = (self._octets if empty else 0) if self._octets else _ENDLESS
        self._adj_levels = {family: int(limit * WARN_SHARE) for family, limit in self._prefixes.items()}
        """Sizes of Adj-RIB-In beyond which `prefixes` is to look."""

    def recount(self) -> None:
        """What did not count before may count now (stale routes were repeated): look with the next `check`."""
        for family, limit in self._prefixes.items():
            self._adj_levels[family] = min(self._adj_levels[family], limit)

    def due(self, update: ParsedUpdate, size: int, importer: Importer) -> bool:
        """Count an UPDATE of `size` octets that was applied. True: `check` is to be asked."""
        self._sets_left -= len(update.reach)
        self._octets_left -= size
        if self._sets_left < 0 or self._octets_left < 0:
            return True
        levels, adj = self._adj_levels, importer.adj
        for family, _, _ in update.reach:
            level = levels.get(family)
            if level is not None and len(adj[family].routes) > level:
                return True
        return False

    def check(self, importer: Importer) -> tuple[BGPError | None, str]:
        """The error that ends the session, where a limit is passed; or a text to warn with, once a session."""
        if self._sets_left < 0 or self._octets_left < 0:
            error = self._look(importer)
            if error is not None:
                return error, ""
        for family, limit in self._prefixes.items():
            adj = importer.adj.get(family)
            if adj is None or len(adj) <= self._adj_levels[family]:
                continue
            warned = self._adj_levels[family] >= limit
            self._adj_levels[family] = limit
            if len(adj) > limit:
                count = counted(adj, importer)
                if count > limit:
                    data = family.afi.to_bytes(2, "big") + bytes((family.safi,)) + limit.to_bytes(4, "big")
                    reason = f"{count} {family} prefixes, {limit} allowed"
                    return BGPError(ErrorCode.CEASE, Cease.MAXIMUM_PREFIXES, data, reason), ""
                self._adj_levels[family] = len(adj) + min(limit - count, limit // _SLACK)
            if not warned:
                return None, f"{len(adj)} {family} prefixes of {limit} allowed"
        return None, ""

    def _look(self, importer: Importer) -> BGPError | None:
        """Count exactly, and go on from there."""
        kept = measure(importer)
        for what, found, limit in (
            ("attribute sets", kept.sets, self._sets),
            ("octets of routes", kept.octets, self._octets),
        ):
            if limit and found > limit:
                return BGPError(ErrorCode.CEASE, Cease.OUT_OF_RESOURCES, reason=f"{found} {what}, {limit} allowed")
        if self._sets:
            self._sets_left = max(self._sets - kept.sets, self._sets // _SLACK)
        if self._octets:
            self._octets_left = max(self._octets - kept.octets, self._octets // _SLACK)
        return None


def counted(adj: AdjRibIn, importer: Importer) -> int:
    """Routes that count against the limit of prefixes: neither stale ones nor those that a loop check refused.

    Those that import policy refused do count: the limit is there before policy.
    """
    epoch, rules = adj.source.epochs.get(adj.family, 0), importer.rules
    total = 0
    for path, count in Counter(adj.routes.values()).items():
        looped = path.rejected and rules is not None and rules.refuse(path.received)
        total += 0 if path.epoch != epoch or looped else count
    return total


def measure(importer: Importer) -> Kept:
    """What the peer has us keep, stale and refused routes included."""
    sets: set[PathAttributes] = set()
    octets = 0
    for adj in importer.adj.values():
        sets.update(path.received for path in set(adj.routes.values()))
        octets += sum(map(len, adj.routes))
    return Kept(len(sets), octets + sum(len(attrs.block) + len(attrs.next_hop) for attrs in sets))
