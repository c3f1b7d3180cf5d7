"""What other settings would change in the tables: the answer to "what if", worked out beside a speaker that goes on.

For each peer, old and new export chain are run over the Loc-RIB as it is and as it would be (static routes come and go,
import chains are run over Adj-RIB-In again, paths of removed peers are gone), by the functions that export for real;
the same for the kernel. What cannot be known is left out and assumed to stay: what new peers will send, and that a
session that is reset comes back with the same routes and capabilities.

    preview = Preview(speaker, settings)     # cheap: which peers are in which group now and then
    preview.compile()                        # touches nothing of the speaker: may run in a thread
    for _ in preview.steps(): ...            # slices of about a millisecond; between them the speaker may go on
    preview.results()                        # touches nothing of the speaker
    for _ in preview.release(): ...          # what it holds goes in slices, too: a table's worth at once is a stall
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from attrs import define, field

from bgpd.comparison import Difference, Pair, differences, judge, pair_up, seats_of, told_of
from bgpd.dynamic import DynamicPeers
from bgpd.family import Family
from bgpd.peer import Peer, import_rules
from bgpd.policy.chain import Chain
from bgpd.policy.terms import SourceKind
from bgpd.rib.decision import order, paths
from bgpd.rib.export import Exporter, GroupKey
from bgpd.rib.forwarding import Forwarding
from bgpd.rib.importer import Importer
from bgpd.rib.loc_rib import LocRib
from bgpd.rib.path import Entry, Path
from bgpd.routes import FibRoute, LocalChange
from bgpd.settings import IMPORT_RULES, PeerSettings, SpeakerSettings
from bgpd.speaker import Speaker

__all__ = ["Difference", "KernelDifference", "Preview"]

SLICE = 256
"""Prefixes between two yields, where they share their paths; about a millisecond."""
_GROUPS = 16
"""Paths between two yields, where nearly each prefix has its own: up to a tenth of a millisecond each."""
_FEW = 10_000


@define
class KernelDifference:
    """Routes of ours that would come to, go from or change in the kernel."""

    family: Family
    added: list[bytes] = field(factory=list)
    removed: list[bytes] = field(factory=list)
    changed: list[bytes] = field(factory=list)

    def __bool__(self) -> bool:
        return bool(self.added or self.removed or self.changed)


class Preview:
    """One comparison of a speaker as it is with the same under other settings."""

    def __init__(self, speaker: Speaker, settings: SpeakerSettings, local: Iterable[LocalChange] = ()) -> None:
        """`local`: what the settings change in the host's own routes. Next hops that resolve through these are taken
        to stay as they are.
        """
        self._speaker = speaker
        self._local = tuple(local)
        self._settings = settings
        self._after = {family: _Overlay() for family in speaker.ribs}
        """Loc-RIB entries that would be others."""
        self._kernel = {family: KernelDifference(family) for family in speaker.ribs}
        self._wanted = _wanted(speaker, settings)
        self._importers: list[tuple[Peer, Importer]] = []
        self._forwarding = speaker.forwarding
        self._pairs = pair_up(seats_of(speaker, settings, self._wanted))

    def compile(self) -> None:
        """Make the chains. Reads settings alone."""
        speaker, settings = self._speaker, self._settings
        if speaker.settings.fib != settings.fib:
            self._forwarding = Forwarding(settings.fib)
        exporters: dict[int, tuple[GroupKey, Exporter]] = {}

        def exporter(key: GroupKey | None) -> Exporter | None:
            if key is None:
                return None
            known = exporters.get(id(key))
            if known is None:
                known = exporters[id(key)] = (key, Exporter(key))
            return known[1]

        for pair in self._pairs:
            seat = pair.seats[0]
            pair.same = seat.old is not None and seat.old == seat.new
            pair.old = exporter(seat.old)
            pair.new = pair.old if pair.same else exporter(seat.new)
        for peer, new in self._wanted:
            if new is not None and peer is not None and _imports_change(speaker.settings, settings, peer, new):
                self._importers.append((peer, _importer(speaker, settings, peer, new)))

    def steps(self) -> Iterator[None]:
        """Do the work."""
        yield from self._statics()
        yield from self._host()
        for peer, new in self._wanted:
            if new is None and peer is not None:
                yield from self._without(peer)
        for peer, importer in self._importers:
            yield from self._reimport(peer, importer)
        for family in self._speaker.ribs:
            yield from self._walk(family)

    def results(self) -> tuple[list[Difference], list[KernelDifference]]:
        """What differs, peers of one answer together; prefixes in no order."""
        found = [difference for pair in self._pairs for difference in differences(pair)]
        merged: dict[object, Difference] = {}
        for one in found:
            lists = (one.announced, one.withdrawn, one.changed)
            # Long lists are not compared: sorting them would hold up the other threads, too.
            alike = tuple(tuple(sorted(keys)) for keys in lists) if sum(map(len, lists)) < _FEW else id(one)
            known = merged.setdefault((one.family, one.established, alike), one)
            if known is not one:
                known.peers += one.peers
        return list(merged.values()), [kernel for kernel in self._kernel.values() if kernel]

    def release(self) -> Iterator[None]:
        """Let go of all that was worked out."""
        for after in self._after.values():
            for shard in after.shards:
                shard.clear()
                yield

    # The Loc-RIB as it would be

    def _now(self, family: Family, key: bytes) -> Entry | None:
        after = self._after[family]
        return after.get(key) if key in after else self._speaker.ribs[family].table.get(key)

    def _put(self, family: Family, key: bytes, source: object, path_id: int, path: Path | None) -> None:
        """Put a path in place of the one of this source and id, or take that away."""
        rest = [p for p in paths(self._now(family, key)) if p.source is not source or p.path_id != path_id]
        self._after[family].put(key, order([*rest, path] if path is not None else rest))

    def _statics(self) -> Iterator[None]:
        local = self._speaker.local_routes
        source, wanted = local.sources[SourceKind.STATIC], frozenset(self._settings.static_routes)
        for number, route in enumerate(local.static - wanted):
            self._put(route.family, route.key, source, 0, None)
            if not number % SLICE:
                yield
        for number, route in enumerate(wanted - local.static):
            self._put(route.family, route.key, source, 0, local.static_path(route))
            if not number % SLICE:
                yield

    def _host(self) -> Iterator[None]:
        local = self._speaker.local_routes
        for number, change in enumerate(self._local):
            path = local.path(change.route) if change.route is not None else None
            self._put(change.family, change.key, local.sources[change.kind], 0, path)
            if not number % SLICE:
                yield

    def _without(self, peer: Peer) -> Iterator[None]:
        for family, adj in list(peer.importer.adj.items()):
            for part in _slices(list(adj.routes)):
                for number, (path, keys) in enumerate(adj.by_path(part)):
                    for key in () if path.rejected else keys:
                        self._put(family, key, path.source, path.path_id, None)
                    if not number % _GROUPS:
                        yield
                yield

    def _reimport(self, peer: Peer, importer: Importer) -> Iterator[None]:
        for family, adj in list(peer.importer.adj.items()):
            if family not in {entry.family for entry in peer.settings.families}:
                continue
            for part in _slices(list(adj.routes)):
                for number, (old, found) in enumerate(adj.by_path(part)):
                    if not number % _GROUPS:
                        yield
                    for path, keys in importer.preview(old, family, found):
                        if path.same(old):
                            continue
                        for key in keys:
                            new = None if path.rejected else path
                            self._put(family, key, path.source, path.path_id, new)
                yield

    # Who would be told what

    def _walk(self, family: Family) -> Iterator[None]:
        table, after = self._speaker.ribs[family].table, self._after[family]
        pairs = [pair for pair in self._pairs if pair.seats[0].family == family]
        everywhere = [pair for pair in pairs if not pair.same]
        all_kernel = self._forwarding is not self._speaker.forwarding
        yield
        for shard in after.shards:
            for part in _slices(list(shard)):
                yield from self._look(family, pairs, part, everything=True)
        if not everywhere and not all_kernel:
            return
        for part in _slices(list(table)):
            rest = [key for key in part if key not in after]
            yield from self._look(family, everywhere, rest, everything=all_kernel)

    def _look(self, family: Family, pairs: list[Pair], keys: list[bytes], *, everything: bool) -> Iterator[None]:
        for pair in pairs:
            yield from self._compare(pair, family, keys)
            for exporter in (pair.old, pair.new):
                if exporter is not None:
                    # What it keeps of these paths is of use to their neighbours alone; thousands at once take long.
                    exporter.forget()
            yield
        if everything:
            self._compare_kernel(family, keys)
            yield

    def _compare(self, pair: Pair, family: Family, keys: Sequence[bytes]) -> Iterator[None]:
        table, after = self._speaker.ribs[family].table, self._after[family]
        groups: dict[tuple[Entry | None, Entry | None], list[bytes]] = {}
        for key in keys:
            entry = table.get(key)
            groups.setdefault((entry, after.get(key) if key in after else entry), []).append(key)
        for number, ((before, then), group) in enumerate(groups.items()):
            if before is then and pair.same:
                continue
            if not number % _GROUPS:
                yield
            for old, part in told_of(pair.old, before, group):
                for new, some in told_of(pair.new, then, part):
                    judge(pair, old, new, some)

    def _compare_kernel(self, family: Family, keys: Sequence[bytes]) -> None:
        speaker, difference = self._speaker, self._kernel[family]
        was = _programmed(speaker.settings, speaker.forwarding, speaker.ribs[family], keys)
        rib = LocRib(family)
        rib.table = {key: entry for key in keys if (entry := self._now(family, key)) is not None}
        will = _programmed(self._settings, self._forwarding, rib, keys)
        for key in keys:
            old, new = was.get(key), will.get(key)
            if old != new:
                (difference.added if old is None else difference.removed if new is None else difference.changed).append(
                    key
                )


class _Overlay:
    """Loc-RIB entries that would be others. In many dicts, since a large one stops the loop while it grows; neighbours
    are in one, since they often have the same path."""

    def __init__(self) -> None:
        self.shards: tuple[dict[bytes, Entry | None], ...] = tuple({} for _ in range(64))

    def __contains__(self, key: bytes) -> bool:
        return key in self.shards[key[-2:][0] & 63]

    def get(self, key: bytes) -> Entry | None:
        """The entry there would be."""
        return self.shards[key[-2:][0] & 63].get(key)

    def put(self, key: bytes, entry: Entry | None) -> None:
        """Note an entry."""
        self.shards[key[-2:][0] & 63][key] = entry


def _wanted(speaker: Speaker, settings: SpeakerSettings) -> list[tuple[Peer | None, PeerSettings | None]]:
    """(peer as it is, its settings then); None: not there, or gone."""
    wanted = {peer.name: peer for peer in settings.peers}
    dynamic = DynamicPeers(settings)
    taken = {peer.address for peer in settings.peers}
    found: list[tuple[Peer | None, PeerSettings | None]] = []
    for name, peer in speaker.peers.items():
        if peer.dynamic:
            address = peer.settings.address
            found.append((peer, None if address in taken else dynamic.settings_for(address)))
        else:
            found.append((peer, wanted.pop(name, None)))
    return [*found, *((None, peer) for peer in wanted.values())]


def _imports_change(old: SpeakerSettings, new: SpeakerSettings, peer: Peer, then: PeerSettings) -> bool:
    before = {entry.family: old.import_terms(entry) for entry in peer.settings.families}
    after = {entry.family: new.import_terms(entry) for entry in then.families}
    if any(before.get(family, chain) != chain for family, chain in after.items()):
        return True
    names = ("asn", "cluster_id", "local_asn", "reflector_client", *IMPORT_RULES)
    if any(getattr(peer.settings, name) != getattr(then, name) for name in names):
        return True
    return (old.asn, old.router_id, old.cluster_id) != (new.asn, new.router_id, new.cluster_id)


def _importer(speaker: Speaker, settings: SpeakerSettings, peer: Peer, then: PeerSettings) -> Importer:
    importer = Importer(peer.source, speaker.shared)
    text = "no import term accepts it"
    chains = {entry.family: Chain(settings.import_terms(entry), text) for entry in then.families}
    for entry in peer.settings.families:
        if entry.family not in chains:
            chains[entry.family] = Chain(())
    importer.configure(import_rules(settings, then), chains)
    return importer


def _programmed(
    settings: SpeakerSettings, forwarding: Forwarding, rib: LocRib, keys: Sequence[bytes]
) -> dict[bytes, FibRoute | None]:
    return forwarding.wanted(rib, keys) if settings.fib.enabled and keys else {}


def _slices(keys: list[bytes]) -> Iterator[list[bytes]]:
    for start in range(0, len(keys), SLICE):
        yield keys[start : start + SLICE]
