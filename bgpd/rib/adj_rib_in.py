"""Adj-RIB-In (RFC 4271 §3.2): what one source said about one family, accepted or not."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from bgpd.family import Family
from bgpd.rib.path import Path, Source

_OTHER = b"\xff"
"""Before path id and key. No prefix has this length, so it is no key that begins so."""


class AdjRibIn:
    """One source's routes of one family.

    `routes` maps entries to paths. As a rule a source has one path id for all it says, and 0 without ADD-PATH: an entry
    of this `usual` one is the NLRI key, the very object that Loc-RIB has. Entries of others are longer, as `entries`
    makes them.
    """

    __slots__ = ("add_path", "family", "routes", "source", "usual")

    def __init__(self, source: Source, family: Family, add_path: bool = False) -> None:
        self.source = source
        self.family = family
        self.add_path = add_path
        """The source's prefixes have path ids in this session."""
        self.routes: dict[bytes, Path] = {}
        self.usual = 0
        """Path id of the first route; it changes only when there are none."""

    def __len__(self) -> int:
        return len(self.routes)

    @property
    def by_id(self) -> bool:
        """Whether there may be path ids other than 0: now, or from a session in which there were."""
        return self.add_path or self.usual != 0

    def path_ids(self) -> dict[bytes, list[int]]:
        """The path ids of each NLRI key."""
        found: dict[bytes, list[int]] = {}
        for entry, path in self.routes.items():
            found.setdefault(key_of(entry), []).append(path.path_id)
        return found

    def lookup(self, key: bytes) -> list[Path]:
        """All paths that this source has for an NLRI key, lowest path id first."""
        path = self.routes.get(key)
        found = [] if path is None else [path]
        if not self.by_id:
            return found
        others = (other for entry, other in self.routes.items() if entry[:1] == _OTHER and entry[5:] == key)
        return sorted((*found, *others), key=lambda path: path.path_id)

    def get(self, path_id: int, key: bytes) -> Path | None:
        """What the source says of an NLRI key under this path id."""
        return self.routes.get(key if path_id == self.usual else _other(path_id) + key)

    def path_id_of(self, entry: bytes) -> int:
        """Of an entry."""
        return int.from_bytes(entry[1:5], "big") if entry[:1] == _OTHER else self.usual

    def entries(self, path_id: int, keys: list[bytes]) -> list[bytes]:
        """What NLRI keys of a path id are called in `routes`."""
        if not self.routes:
            self.usual = path_id
        if path_id == self.usual:
            return keys
        other = _other(path_id)
        return [other + key for key in keys]

    def stale(self) -> int:
        """How many routes are of an older epoch."""
        epoch = self.source.epochs.get(self.family, 0)
        return sum(path.epoch != epoch for path in self.routes.values())

    def by_path(
        self, entries: Sequence[bytes] | None = None, before: int | None = None
    ) -> Iterator[tuple[Path, list[bytes]]]:
        """NLRI keys by their path, of all entries or of the given ones that exist.

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
        for path, found in groups.items():
            if before is None or path.epoch < before:
                yield path, found if path.path_id == self.usual else [entry[5:] for entry in found]


def key_of(entry: bytes) -> bytes:
    """The NLRI key of an entry."""
    return entry[5:] if entry[:1] == _OTHER else entry


def _other(path_id: int) -> bytes:
    return _OTHER + path_id.to_bytes(4, "big")
