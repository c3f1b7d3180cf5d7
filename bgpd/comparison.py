"""What peers are told before and after a change of settings: who goes from which update group to which, and how what
the two tell of the same prefixes differs. For `bgpd.preview`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from attrs import define, field, fields, frozen

from bgpd.family import Family, family_of, parse_address
from bgpd.outbound import group_key, own_cluster_id
from bgpd.peer import Peer, cluster_id, kind_of, local_asn
from bgpd.policy.chain import pour
from bgpd.policy.terms import SourceKind
from bgpd.rib.decision import offered
from bgpd.rib.export import Exporter, GroupKey
from bgpd.rib.path import Entry, Path
from bgpd.settings import AddPath, FamilySettings, PeerSettings, SpeakerSettings
from bgpd.speaker import Speaker

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


@frozen
class Seat:
    """One peer in one family: how updates to it are made, before and after. None: not at all."""

    name: str
    family: Family
    established: bool
    old: GroupKey | None
    new: GroupKey | None
    source: object
    address: bytes


@define
class Pair:
    """Peers that go from one group to another, together."""

    seats: list[Seat]
    same: bool = False
    old: Exporter | None = None
    new: Exporter | None = None
    by_source: dict[object, Seat] = field(factory=dict)
    by_address: dict[bytes, Seat] = field(factory=dict)
    fates: dict[str, list[bytes]] = field(factory=dict)
    special: dict[str, list[tuple[bytes, str, str]]] = field(factory=dict)
    """Peer -> (key, what the others see of it, what this peer does), where the two differ."""


def seats_of(
    speaker: Speaker, settings: SpeakerSettings, wanted: Iterable[tuple[Peer | None, PeerSettings | None]]
) -> Iterator[Seat]:
    """Each peer's families; `wanted` is (peer as it is, its settings then), None = not there, or gone."""
    for peer, new in wanted:
        of = peer.settings if peer is not None else new
        assert of is not None
        source, address = (peer.source if peer is not None else object()), parse_address(of.address)
        if peer is not None and peer.members:
            for family, (group, _) in peer.members.items():
                after = None
                if new is not None and any(entry.family == family for entry in new.families):
                    after = group_key(settings, peer, family, new)
                yield Seat(of.name, family, True, group.key, after, source, address)
            continue
        before = {entry.family: entry for entry in peer.settings.families} if peer is not None else {}
        then = {entry.family: entry for entry in new.families} if new is not None else {}
        for family in dict.fromkeys([*before, *then]):
            old = _supposed(speaker.settings, peer.settings, before[family]) if peer and family in before else None
            seat = _supposed(settings, new, then[family]) if new is not None and family in then else None
            yield Seat(of.name, family, False, old, seat, source, address)


def _supposed(settings: SpeakerSettings, peer: PeerSettings, entry: FamilySettings) -> GroupKey:
    """The group of a session that is not there, if it were and the peer took all that we offer."""
    kind, family = kind_of(settings, peer), entry.family
    given = dict(peer.own_addresses).get(family) or peer.source_address
    own = parse_address(given) if given and family_of(given) == family else _ANY[family.octets]
    return GroupKey(
        family,
        kind,
        local_asn(settings, peer),
        settings.export_terms(entry),
        peer.next_hop_mode,
        own,
        cluster_id(settings, peer) if kind is SourceKind.IBGP_CLIENT else own_cluster_id(settings),
        True,
        entry.add_path in (AddPath.SEND, AddPath.BOTH),
        _MESSAGE,
        entry.extended_next_hop,
    )


def pair_up(seats: Iterable[Seat]) -> list[Pair]:
    """Peers of the same way together. Chains are told apart by identity: they are long, and shared where equal."""
    known: dict[object, Pair] = {}
    keys: dict[object, GroupKey] = {}

    def one(key: GroupKey | None) -> GroupKey | None:
        if key is None:
            return None
        values = ((entry.name, getattr(key, entry.name)) for entry in fields(GroupKey))
        parts = tuple(id(value) if name == "chain" else value for name, value in values)
        return keys.setdefault(parts, key)

    for seat in seats:
        old, new = one(seat.old), one(seat.new)
        shared = Seat(seat.name, seat.family, seat.established, old, new, seat.source, seat.address)
        pair = known.setdefault((id(old), id(new), seat.family, seat.established), Pair([]))
        pair.seats.append(shared)
        pair.by_source[shared.source] = shared
        pair.by_address[shared.address] = shared
    return list(known.values())


def told_of(
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


def _fate(old: Told, new: Told, without: Seat | None = None) -> str:
    """ "announced", "withdrawn", "changed" or "": for a peer that is told everything, or for the one given."""
    before = {told[:3] for told in old if without is None or not _excludes(told, without)}
    after = {told[:3] for told in new if without is None or not _excludes(told, without)}
    if before == after:
        return ""
    return "changed" if before and after else "announced" if after else "withdrawn"


def _excludes(told: tuple[bytes, bytes, bytes, Path], seat: Seat) -> bool:
    """A peer is not told what it said itself, nor what has it as next hop (RFC 4271 §5.1.3)."""
    return told[3].source is seat.source or told[2] == seat.address


def judge(pair: Pair, old: Told, new: Told, keys: Sequence[bytes]) -> None:
    """Note for a pair what becomes of prefixes of which the two groups tell `old` and `new`."""
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


def differences(pair: Pair) -> Iterator[Difference]:
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
