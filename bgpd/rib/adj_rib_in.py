"""Adj-RIB-In (RFC 4271 §3.2): what one source said about one family, accepted or not."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from bgpd.family import Family
from bgpd.rib.path import Path, Source


class AdjRibIn:
    """One source's routes of one family.

    `routes` maps NLRI keys to paths; where ADD-PATH is received, a key is preceded by the four octets of the path id.
    """

    __slots__ = ("add_path", "family", "routes", "source")

    def __init__(self, source: Source, family: Family, add_path: bool = False) -> None:
        self.source = source
        self.family = family
        self.add_path = add_path
        self.routes: dict[bytes, Path] = {}

    def __len__(self) -> int:
        return len(self.routes)

    def lookup(self, key: bytes) -> list[Path]:
        """All paths that this source has for an NLRI key, lowest path id first."""
        if not self.add_path:
            path = self.routes.get(key)
            return [] if path is None else [path]
        return sorted((p for k, p in self.routes.items() if k[4:] == key), key=lambda p: p.path_id)

    def stale(self) -> int:
        """How many routes are of an older epoch."""
        epoch = self.source.epochs.get(self.family, 0)
        return sum(path.epoch != epoch for path in self.routes.values())

    def by_path(
        self, entries: Sequence[bytes] | None = None, before: int | None = None
    ) -> Iterator[tuple[Path, list[bytes]]]:
        """Group entries (all, or the given ones that exist) by their path; entries keep their path id octets.

        `before`: only paths of an epoch older than this one.
        """
        groups: dict[Path, list[bytes]] = {}
        pairs = self.routes.items() if entries is None else zip(entries, map(self.routes.get, entries), strict=True)
        for entry, path in pairs:
            if path is not None:
                try:
                    groups[path].append(entry)
                except KeyError:
                    groups[path] = [entry]
        for path, keys in groups.items():
            if before is None or path.epoch < before:
                yield path, keys

    def keys_of(self, entries: list[bytes]) -> list[bytes]:
        """NLRI keys of Adj-RIB-In entries."""
        return [entry[4:] for entry in entries] if self.add_path else entries
