"""Where established peers stand: the update groups, who is in which, and what they have to say."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence

from bgpd.backlog import Backlog
from bgpd.effects import Effect, Log, Ready, Spread
from bgpd.family import Family
from bgpd.outbound import group_key
from bgpd.peer import Peer
from bgpd.rib.loc_rib import Change, LocRib
from bgpd.rib.path import Path
from bgpd.rib.review import Review
from bgpd.rib.update_group import Member, UpdateGroup
from bgpd.settings import SpeakerSettings
from bgpd.wire.refresh import BEGIN, END, RouteRefresh, build_refresh


class Places:
    """The update groups of all families, and each peer's place in them.

    Effects are appended to the list given, long work to the backlog.
    """

    def __init__(self, ribs: Mapping[Family, LocRib], backlog: Backlog, effects: list[Effect]) -> None:
        self.groups: dict[object, UpdateGroup] = {}
        self._ribs = ribs
        self._backlog = backlog
        self._effects = effects
        self.failures: list[tuple[UpdateGroup, Exception]] = []
        """Groups that met a defect: nobody knows what their members have. The Speaker empties it."""
        self._hold_eor = False
        self._outlets: dict[int, tuple[tuple[UpdateGroup, Member], ...]] = {}
        """Places by connection: all that `pull` needs."""

    def join(self, peer: Peer, settings: SpeakerSettings) -> None:
        """A session is up: give the peer a place for each family it has."""
        session = peer.session
        if session.negotiated is None:
            # The octets that brought the session up hold what ends it, too: `Down` is the next event.
            return
        for family in sorted(session.negotiated.families):
            group = self._group_for(peer, family, settings)
            member = Member(peer, peer.source, peer.source.address, session.conn)
            group.add(member)
            self._put(peer, family, group, member)

    def leave(self, peer: Peer) -> None:
        """A session is over: the peer's places are gone, and groups that nobody is in any more."""
        for group, member in peer.leave_groups():
            self._outlets.pop(member.conn, None)
            self._drop_empty(group)

    def move(self, peer: Peer, settings: SpeakerSettings, moves: dict[object, UpdateGroup] | None = None) -> None:
        """The peer's export settings changed: move it to the groups it now belongs to, sending differences only.

        `moves`: where others went that changed nothing but their families' settings, by old group and new settings.
        """
        for family, (old, member) in list(peer.members.items()):
            move = (old, id(peer.settings.families))
            new = moves.get(move) if moves is not None else None
            if new is None:
                new = self._group_for(peer, family, settings, old)
                if moves is not None:
                    moves[move] = new
            if new is old:
                continue
            review = new.adopt(member, old)
            if review is not None:
                self._backlog.add(self._reviewed(new, review))
            self._drop_empty(old)
            self._put(peer, family, new, member)

    def refresh(self, peer: Peer, family: Family) -> None:
        """The peer wants to hear all of a family again (RFC 2918, 7313)."""
        if family not in peer.members:
            return
        group, member = peer.members[family]
        negotiated = peer.session.negotiated
        # RFC 7313 §4: a peer that waits for our End-of-RIB gets no BoRR before it.
        early = negotiated is not None and negotiated.graceful is not None and member.eor
        enhanced = negotiated is not None and negotiated.enhanced_refresh and not early
        begin = build_refresh(RouteRefresh(family, BEGIN)) if enhanced else b""
        end = build_refresh(RouteRefresh(family, END)) if enhanced else b""
        group.refresh(member, begin, end)
        self._announce(group)

    def tell(self, family: Family, changes: dict[Change, list[bytes]], repeated: set[bytes]) -> None:
        """Give what changed in a table (`LocRib.take_changes`) to the family's groups. Each is told, whatever happens
        to one before it: there is no second time."""
        for group in self.groups.values():
            if group.key.family == family:
                try:
                    group.apply(changes, repeated)
                    self._announce(group)
                except Exception as error:
                    self.failures.append((group, error))

    def pull(self, conn: int) -> bytes | None:
        """The next UPDATE octets of an established connection: whole messages, about 64 KiB. None: nothing now; b"":
        nothing yet, ask again."""
        for group, member in self._outlets.get(conn, ()):
            data = group.pull(member)
            if data is not None:
                return data
        return None

    def set_blocked(self, conn: int, blocked: bool) -> None:
        """Whether a connection's TCP takes no more octets for now."""
        for _, member in self._outlets.get(conn, ()):
            member.blocked = blocked

    def hold_end_of_rib(self, hold: bool) -> None:
        """Whether End-of-RIB waits, as it does while we restart (RFC 4724 §4.1)."""
        self._hold_eor = hold
        for group in self.groups.values():
            group.hold_eor = hold
            self._announce(group)

    def next_hops_changed(self) -> None:
        """Next hops resolve differently (`UpdateGroup.next_hops_changed`)."""
        for group in self.groups.values():
            group.next_hops_changed()

    def _group_for(
        self, peer: Peer, family: Family, settings: SpeakerSettings, like: UpdateGroup | None = None
    ) -> UpdateGroup:
        key = group_key(settings, peer, family)
        group = self.groups.get(key)
        if group is None:
            group = self.groups[key] = UpdateGroup(key, self._ribs[family], self._too_long, like)
            group.hold_eor = self._hold_eor
            if like is None:
                group.exporter.prepare()
        return group

    def _put(self, peer: Peer, family: Family, group: UpdateGroup, member: Member) -> None:
        peer.members[family] = (group, member)
        conn = peer.session.conn
        if conn is not None:
            self._outlets[conn] = tuple(peer.members.values())
        self._announce(group)

    def _drop_empty(self, group: UpdateGroup) -> None:
        if not group.members:
            del self.groups[group.key]

    def _reviewed(self, group: UpdateGroup, review: Review) -> Iterator[int]:
        try:
            for count in review.run():
                self._announce(group)
                yield count
        except Exception as error:
            self.failures.append((group, error))

    def _announce(self, group: UpdateGroup) -> None:
        if spread := group.spread():
            self._effects.append(Spread(*spread))
        if ready := group.ready():
            self._effects.append(Ready(*ready))

    def _too_long(self, path: Path, units: Sequence[bytes]) -> None:
        text = f"attributes of {len(units)} prefixes from {path.source.name} leave no room in a message: not passed on"
        self._effects.append(Log(logging.WARNING, f"{text} (RFC 4271 §9.2)"))
