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

from attrs import define, field, fields, frozen

from bgpd.dynamic import DynamicPeers
from bgpd.family import Family, family_of, parse_address
from bgpd.outbound import group_key, own_cluster_id
from bgpd.peer import Peer, cluster_id, import_rules, kind_of, local_asn
from bgpd.policy.chain import Chain, pour
from bgpd.policy.terms import SourceKind
from bgpd.rib.decision import offered, order, paths
from bgpd.rib.export import Exporter, GroupKey
from bgpd.rib.forwarding import Forwarding
from bgpd.rib.importer import Importer
from bgpd.rib.loc_rib import LocRib
from bgpd.rib.path import Entry, Path
from bgpd.routes import FibRoute
from bgpd.settings import AddPath, FamilySettings, PeerSettings, SpeakerSettings
from bgpd.speaker import Speaker

__all__ = ["Difference", "KernelDifference", "Preview"]

SLICE = 256
"""Prefixes between two yields, where they share their paths; about a millisecond."""
_GROUPS = 16
"""Paths between two yields, where nearly each prefix has its own: up to a tenth of a millisecond each."""
_FEW = 10_000
_MESSAGE = 4096
_ANY = {4: b"\x01\x00\x00\x01", 16: b"\x20\x01" + bytes(13) + b"\x01"}
"""Stands for our own address in sessions that there are not; only that there is one counts."""

Told = tuple[tuple[bytes, bytes, bytes, Path], ...]
"""(send id, attribute block, next hop, path) of all that a group is told of one prefix, before exclusions."""


@define
class Difference:
    """What some peers would be told otherwise of one family."""

    family: Family
    peers: list[str]
    established: bool
    """False: the sessions are not there; this is what they would be told if they were."""
    announced: list[bytes] = field(factory=list)
    withdrawn: list[bytes] = field(factory=list)
    changed: list[bytes] = field(factory=list)
    """Announced before and after, with other attributes or paths."""

    def __bool__(self) -> bool:
        return bool(self.announced or self.withdrawn or self.changed)


@define
class KernelDifference:
    """Routes of ours that would come to, go from or change in the kernel."""

    family: Family
    added: list[bytes] = field(factory=list)
    removed: list[bytes] = field(factory=list)
    changed: list[bytes] = field(factory=list)

    def __bool__(self) -> bool:
        return bool(self.added or self.removed or self.changed)


@frozen
class _Seat:
    """One peer in one family: how updates to it are made, before and after. None: not at all."""

    name: str
    family: Family
    established: bool
    old: GroupKey | None
    new: GroupKey | None
    source: object
    address: bytes


@define
class _Pair:
    """Peers that go from one group to another, together."""

    seats: list[_Seat]
    same: bool = False
    old: Exporter | None = None
    new: Exporter | None = None
    by_source: dict[object, _Seat] = field(factory=dict)
    by_address: dict[bytes, _Seat] = field(factory=dict)
    fates: dict[str, list[bytes]] = field(factory=dict)
    special: dict[str, list[tuple[bytes, str, str]]] = field(factory=dict)
    """Peer -> (key, what the others see of it, what this peer does), where the two differ."""


class Preview:
    """One comparison of a speaker as it is with the same under other settings."""

    def __init__(self, speaker: Speaker, settings: SpeakerSettings) -> None:
        self._speaker = speaker
        self._settings = settings
        self._after = {family: _Overlay() for family in speaker.ribs}
        """Loc-RIB entries that would be others."""
        self._kernel = {family: KernelDifference(family) for family in speaker.ribs}
        self._wanted = _wanted(speaker, settings)
        self._importers: list[tuple[Peer, Importer]] = []
        self._forwarding = speaker.forwarding
        self._pairs = _pairs(_seats(speaker, settings, self._wanted))

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
        for peer, new in self._wanted:
            if new is None and peer is not None:
                yield from self._without(peer)
        for peer, importer in self._importers:
            yield from self._reimport(peer, importer)
        for family in self._speaker.ribs:
            yield from self._walk(family)

    def results(self) -> tuple[list[Difference], list[KernelDifference]]:
        """What differs, peers of one answer together; prefixes in no order."""
        found = [difference for pair in self._pairs for difference in _differences(pair)]
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

    def _without(self, peer: Peer) -> Iterator[None]:
        for family, adj in list(peer.importer.adj.items()):
            for part in _slices(list(adj.routes)):
                for number, (path, entries) in enumerate(adj.by_path(part)):
                    for key in () if path.rejected else adj.keys_of(entries):
                        self._put(family, key, path.source, path.path_id, None)
                    if not number % _GROUPS:
                        yield
                yield

    def _reimport(self, peer: Peer, importer: Importer) -> Iterator[None]:
        for family, adj in list(peer.importer.adj.items()):
            if family not in {entry.family for entry in peer.settings.families}:
                continue
            for part in _slices(list(adj.routes)):
                for number, (old, entries) in enumerate(adj.by_path(part)):
                    if not number % _GROUPS:
                        yield
                    for path, keys in importer.preview(old, family, adj.keys_of(entries)):
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

    def _look(self, family: Family, pairs: list[_Pair], keys: list[bytes], *, everything: bool) -> Iterator[None]:
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

    def _compare(self, pair: _Pair, family: Family, keys: Sequence[bytes]) -> Iterator[None]:
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
            for old, part in _told(pair.old, before, group):
                for new, some in _told(pair.new, then, part):
                    _judge(pair, old, new, some)

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


def _seats(
    speaker: Speaker, settings: SpeakerSettings, wanted: Iterable[tuple[Peer | None, PeerSettings | None]]
) -> Iterator[_Seat]:
    for peer, new in wanted:
        of = peer.settings if peer is not None else new
        assert of is not None
        source, address = (peer.source if peer is not None else object()), parse_address(of.address)
        if peer is not None and peer.members:
            for family, (group, _) in peer.members.items():
                after = None
                if new is not None and any(entry.family == family for entry in new.families):
                    after = group_key(settings, peer, family, new)
                yield _Seat(of.name, family, True, group.key, after, source, address)
            continue
        before = {entry.family: entry for entry in peer.settings.families} if peer is not None else {}
        then = {entry.family: entry for entry in new.families} if new is not None else {}
        for family in dict.fromkeys([*before, *then]):
            old = _supposed(speaker.settings, peer.settings, before[family]) if peer and family in before else None
            seat = _supposed(settings, new, then[family]) if new is not None and family in then else None
            yield _Seat(of.name, family, False, old, seat, source, address)


def _supposed(settings: SpeakerSettings, peer: PeerSettings, entry: FamilySettings) -> GroupKey:
    """The group of a session that is not there, if it were and the peer took all that we offer."""
    kind, family = kind_of(settings, peer), entry.family
    given = dict(peer.own_addresses).get(family) or peer.source_address
    own = parse_address(given) if given and family_of(given) == family else _ANY[family.octets]
    return GroupKey(
        family,
        kind,
        local_asn(settings, peer),
        entry.export_chain,
        peer.next_hop_mode,
        own,
        cluster_id(settings, peer) if kind is SourceKind.IBGP_CLIENT else own_cluster_id(settings),
        True,
        entry.add_path in (AddPath.SEND, AddPath.BOTH),
        _MESSAGE,
        entry.extended_next_hop,
    )


def _pairs(seats: Iterable[_Seat]) -> list[_Pair]:
    """Peers of the same way together. Chains are told apart by identity: they are long, and shared where equal."""
    known: dict[object, _Pair] = {}
    keys: dict[object, GroupKey] = {}

    def one(key: GroupKey | None) -> GroupKey | None:
        if key is None:
            return None
        values = ((entry.name, getattr(key, entry.name)) for entry in fields(GroupKey))
        parts = tuple(id(value) if name == "chain" else value for name, value in values)
        return keys.setdefault(parts, key)

    for seat in seats:
        old, new = one(seat.old), one(seat.new)
        shared = _Seat(seat.name, seat.family, seat.established, old, new, seat.source, seat.address)
        pair = known.setdefault((id(old), id(new), seat.family, seat.established), _Pair([]))
        pair.seats.append(shared)
        pair.by_source[shared.source] = shared
        pair.by_address[shared.address] = shared
    return list(known.values())


def _imports_change(old: SpeakerSettings, new: SpeakerSettings, peer: Peer, then: PeerSettings) -> bool:
    before = {entry.family: entry.import_chain for entry in peer.settings.families}
    if any(before.get(entry.family, entry.import_chain) != entry.import_chain for entry in then.families):
        return True
    names = ("asn", "allow_local_as", "enforce_first_as", "cluster_id", "local_asn", "reflector_client")
    if any(getattr(peer.settings, name) != getattr(then, name) for name in names):
        return True
    return (old.asn, old.router_id, old.cluster_id) != (new.asn, new.router_id, new.cluster_id)


def _importer(speaker: Speaker, settings: SpeakerSettings, peer: Peer, then: PeerSettings) -> Importer:
    importer = Importer(peer.source, speaker.shared)
    chains = {entry.family: Chain(entry.import_chain, "no import term accepts it") for entry in then.families}
    for entry in peer.settings.families:
        if entry.family not in chains:
            chains[entry.family] = Chain(())
    importer.configure(import_rules(settings, then), chains)
    return importer


def _told(
    exporter: Exporter | None, entry: Entry | None, keys: Sequence[bytes]
) -> Iterator[tuple[Told, Sequence[bytes]]]:
    """What a group is told of prefixes of one entry; keys that fare alike together."""
    if exporter is None or entry is None:
        yield (), keys
        return
    add_path = exporter.key.add_path
    parts: list[tuple[Told, Sequence[bytes]]] = [((), keys)]
    for path in offered(entry, add_path):
        parts = [(so_far + one, some) for so_far, part in parts for one, some in _one(exporter, path, part, add_path)]
    yield from parts


def _one(
    exporter: Exporter, path: Path, keys: Sequence[bytes], add_path: bool
) -> Iterator[tuple[Told, Sequence[bytes]]]:
    for leaf, part in pour(exporter.node(path), keys):
        if not leaf.accepted:
            yield (), part
            continue
        out = exporter.outgoing(leaf, path)
        yield ((path.send_id if add_path else b"", out.block, out.next_hop, path),), part


def _fate(old: Told, new: Told, without: _Seat | None = None) -> str:
    """ "announced", "withdrawn", "changed" or "": for a peer that is told everything, or for the one given."""
    before = {told[:3] for told in old if without is None or not _excludes(told, without)}
    after = {told[:3] for told in new if without is None or not _excludes(told, without)}
    if before == after:
        return ""
    return "changed" if before and after else "announced" if after else "withdrawn"


def _excludes(told: tuple[bytes, bytes, bytes, Path], seat: _Seat) -> bool:
    """A peer is not told what it said itself, nor what has it as next hop (RFC 4271 §5.1.3)."""
    return told[3].source is seat.source or told[2] == seat.address


def _judge(pair: _Pair, old: Told, new: Told, keys: Sequence[bytes]) -> None:
    if not old and not new:
        return
    fate = _fate(old, new)
    if fate:
        pair.fates.setdefault(fate, []).extend(keys)
    concerned = {}
    for _, _, next_hop, path in (*old, *new):
        for seat in (pair.by_source.get(path.source), pair.by_address.get(next_hop)):
            if seat is not None:
                concerned[seat.name] = seat
    for name, seat in concerned.items():
        own = _fate(old, new, seat)
        if own != fate:
            pair.special.setdefault(name, []).extend((key, fate, own) for key in keys)


def _differences(pair: _Pair) -> Iterator[Difference]:
    """One for all peers to which nothing is special, and one for each of the others."""
    first = pair.seats[0]
    alike = [seat.name for seat in pair.seats if seat.name not in pair.special]
    lists = {fate: pair.fates.get(fate, []) for fate in ("announced", "withdrawn", "changed")}
    common = Difference(first.family, alike, first.established, **lists)
    if alike and common:
        yield common
    for name, exceptions in pair.special.items():
        gone = {key for key, _, _ in exceptions}
        mine = {fate: [key for key in keys if key not in gone] for fate, keys in lists.items()}
        for key, _, fate in exceptions:
            if fate:
                mine[fate].append(key)
        own = Difference(first.family, [name], first.established, **mine)
        if own:
            yield own


def _programmed(
    settings: SpeakerSettings, forwarding: Forwarding, rib: LocRib, keys: Sequence[bytes]
) -> dict[bytes, FibRoute | None]:
    return forwarding.wanted(rib, keys) if settings.fib.enabled and keys else {}


def _slices(keys: list[bytes]) -> Iterator[list[bytes]]:
    for start in range(0, len(keys), SLICE):
        yield keys[start : start + SLICE]
