"""One configured peer as the Speaker holds it: settings, session, source, and the way in and out of the tables."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator

from attrs import fields

from bgpd.family import Family, parse_address
from bgpd.limits import Limits
from bgpd.policy.terms import SourceKind
from bgpd.rib.importer import Importer, ImportRules, Shared
from bgpd.rib.path import Source
from bgpd.rib.update_group import Member, UpdateGroup
from bgpd.session.local import LocalState
from bgpd.session.session import Session
from bgpd.settings import Cost, FamilySettings, PeerSettings, SpeakerSettings, cost_of
from bgpd.wire.update import Action, ParsedUpdate, UpdateParser


def local_asn(settings: SpeakerSettings, peer: PeerSettings) -> int:
    """The AS that we use towards a peer."""
    return settings.asn if peer.local_asn is None else peer.local_asn


def kind_of(settings: SpeakerSettings, peer: PeerSettings) -> SourceKind:
    """eBGP, iBGP, or iBGP client."""
    if peer.asn != local_asn(settings, peer):
        return SourceKind.EBGP
    return SourceKind.IBGP_CLIENT if peer.reflector_client else SourceKind.IBGP


def cluster_id(settings: SpeakerSettings, peer: PeerSettings) -> bytes:
    """The cluster id in force for a peer: its own, else the speaker's, else the router id (RFC 4456 §7)."""
    return parse_address(peer.cluster_id or settings.cluster_id or settings.router_id)


def import_rules(speaker: SpeakerSettings, peer: PeerSettings) -> ImportRules:
    """What decides, beside the chains, about what a peer sends."""
    clusters: set[bytes] = set()
    if not peer.allow_own_cluster:
        clusters.add(cluster_id(speaker, peer))
        if speaker.cluster_id:
            clusters.add(parse_address(speaker.cluster_id))
    return ImportRules(
        local_asn(speaker, peer),
        peer.asn,
        kind_of(speaker, peer) is SourceKind.EBGP,
        parse_address(speaker.router_id),
        frozenset(clusters),
        peer.allow_local_as,
        peer.enforce_first_as,
    )


MALFORMED_KEPT = 256
_NOTE_TIME = 0.2
"""Seconds between log lines about one peer's attribute errors; all are counted."""


class Peer:
    """State of one peer; outlives its sessions."""

    def __init__(
        self,
        settings: PeerSettings,
        speaker: SpeakerSettings,
        local: LocalState,
        jitter: Callable[[], float],
        shared: Shared,
    ) -> None:
        self.settings = settings
        self.session = Session(settings, local, jitter)
        self.source = Source(settings.name, kind_of(speaker, settings), parse_address(settings.address), settings.asn)
        self._shared = shared
        self.importer = Importer(self.source, shared)
        self.parser: UpdateParser | None = None
        self.members: dict[Family, tuple[UpdateGroup, Member]] = {}
        self.end_of_rib: set[Family] = set()
        """Families whose End-of-RIB came in this session."""
        self.refreshing: dict[Family, float] = {}
        """Families between BoRR and EoRR, with the time at which we stop waiting (RFC 7313 §4)."""
        self.limits = Limits(settings)
        self.findings: dict[str, int] = {}
        """Attribute errors by "name: action"; counted over all sessions."""
        self.malformed: dict[tuple[Family, bytes], tuple[float, str]] = {}
        """Prefixes withdrawn by UPDATEs with attribute errors (RFC 7606 §2): when, and what was wrong; the latest ones.
        """
        self._noted_at = float("-inf")
        self._unnoted = 0
        """UPDATEs with attribute errors since `_noted_at`, when one was logged."""
        self.dynamic = False
        self._updates_sent = 0
        self.scheduled = float("inf")
        """The earliest time at which the Speaker's timer looks at this peer."""
        self.configure(settings, speaker)

    def note_findings(self, update: ParsedUpdate, now: float) -> tuple[str, str] | None:
        """Count every attribute error. What to log of them, as fast as a person could read (RFC 7606 §8): what was
        found, and how much was not told before."""
        findings = update.findings
        fatal = "; ".join(f"{f.name}: {f.reason} ({f.rfc})" for f in findings if f.action is Action.WITHDRAW)
        if fatal:
            self.remember_malformed(update, fatal, now)
        for finding in findings:
            name = f"{finding.name}: {finding.answer}"
            self.findings[name] = self.findings.get(name, 0) + 1
        if now - self._noted_at < _NOTE_TIME:
            self._unnoted += 1
            return None
        more = f"; {self._unnoted} more such UPDATEs since the last line" if self._unnoted else ""
        self._noted_at, self._unnoted = now, 0
        return "; ".join(f"{f.name}: {f.answer} ({f.reason}; {f.rfc})" for f in findings), more

    def remember_malformed(self, update: ParsedUpdate, why: str, now: float) -> None:
        """Keep what the UPDATE withdrew, for whoever asks where these prefixes are."""
        for family, entries in update.unreach:
            adj = self.importer.adj.get(family)
            skip = 4 if adj is not None and adj.add_path and not update.path_id else 0
            for entry in entries[:MALFORMED_KEPT]:
                place = (family, entry[skip:])
                self.malformed.pop(place, None)
                self.malformed[place] = (now, why)
        while len(self.malformed) > MALFORMED_KEPT:
            del self.malformed[next(iter(self.malformed))]

    @property
    def updates_sent(self) -> int:
        """UPDATE messages handed to the peer's transport, over all sessions."""
        return self._updates_sent + sum(member.sent for _, member in self.members.values())

    def leave_groups(self) -> list[tuple[UpdateGroup, Member]]:
        """Leave all update groups; returns where the peer was."""
        places = list(self.members.values())
        self._updates_sent = self.updates_sent
        self.members.clear()
        for group, member in places:
            group.remove(member)
        return places

    def configure(self, settings: PeerSettings, speaker: SpeakerSettings) -> None:
        """Put settings into force for what comes in."""
        self.settings = settings
        self.source.become(kind_of(speaker, settings))
        rules = import_rules(speaker, settings)
        self.limits.use(settings)
        chains = {f.family: self._shared.import_chain(speaker.import_terms(f)) for f in settings.families}
        self.importer.configure(rules, chains)


def peer_cost(old: PeerSettings, new: PeerSettings) -> Cost:
    """What going from one peer's settings to another's costs."""
    before = {f.family: f for f in old.families}
    after = {f.family: f for f in new.families}
    if before.keys() != after.keys():
        return Cost.RESET
    costs = [Cost.NOTHING, *_costs(old, new, ("families", "name", "address"))]
    for family, one in before.items():
        costs += _costs(one, after[family], ())
    return max(costs)


def _costs(
    old: PeerSettings | FamilySettings, new: PeerSettings | FamilySettings, but: Container[str]
) -> Iterator[Cost]:
    if old is new:
        return
    for name in (attribute.name for attribute in fields(type(old))):
        before, after = getattr(old, name), getattr(new, name)
        if name not in but and before is not after and before != after:
            yield cost_of(type(old), name, before, after)
