"""New settings on a running Speaker: what differs is made true, at the least cost (`settings.Cost`).

A part of the Speaker in a file of its own; nothing else calls it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from bgpd.effects import ListenersChanged, Program, Rekey
from bgpd.errors import Cease
from bgpd.family import parse_address
from bgpd.peer import Peer, peer_cost
from bgpd.rib.forwarding import Forwarding
from bgpd.rib.update_group import UpdateGroup
from bgpd.sequences import parted
from bgpd.settings import IMPORT_RULES, ChainRef, Cost, PeerSettings, SpeakerSettings, Terms

if TYPE_CHECKING:
    from bgpd.speaker import Speaker

__all__ = ["reconfigure"]

_LONGEST_TEXT = 60
"""Characters of a shutdown communication: at most 4 octets each, 255 octets in all (RFC 9003 §2)."""


def reconfigure(speaker: Speaker, settings: SpeakerSettings, now: float) -> None:
    """Make `settings` true, at the least cost (`settings.Cost`)."""
    old, speaker.settings = speaker.settings, settings
    if (old.asn, old.router_id, old.cluster_id) != (settings.asn, settings.router_id, settings.cluster_id):
        speaker.local.asn, speaker.local.router_id = settings.asn, parse_address(settings.router_id)
        for peer in list(speaker.peers.values()):
            _reset(speaker, peer, peer.settings, now)
    speaker.local.forwarding_kept = settings.forwarding_kept
    speaker.dynamic.use(settings)
    change = _Change(speaker, old, settings, now)
    change.dynamic_peers()
    change.configured_peers()
    change.chains()
    if old.static_routes is not settings.static_routes:
        speaker._touched(speaker.local_routes.set_static(settings.static_routes))
    if old.fib != settings.fib:
        speaker.forwarding = Forwarding(settings.fib, speaker.forwarding.devices)
        _reprogram(speaker)
    speaker._effects.append(ListenersChanged())


class _Change:
    """The way from one SpeakerSettings to another, for the peers."""

    def __init__(self, speaker: Speaker, old: SpeakerSettings, new: SpeakerSettings, now: float) -> None:
        self._speaker = speaker
        self._old = old
        self._new = new
        self._now = now
        self._done: set[Peer] = set()
        """Peers that follow the new chains already."""

    def dynamic_peers(self) -> None:
        """Out of every range now, or a configured peer's address from now on: gone; else by its template's new form."""
        speaker = self._speaker
        configured = {peer.address for peer in self._new.peers} if speaker.dynamic.peers else ()
        for peer in list(speaker.dynamic.peers.values()):
            new = speaker.dynamic.settings_for(peer.settings.address)
            if new is None or new.address in configured:
                speaker._remove_peer(peer, self._now)
            elif new != peer.settings:
                self._change_peer(peer, new)

    def configured_peers(self) -> None:
        """Peers that go, come or change, but for the chains that they name."""
        speaker, now = self._speaker, self._now
        gone, come = parted(self._old.peers, self._new.peers)
        staying = {peer.name for peer in come}
        for settings in gone:
            if settings.name not in staying and (peer := speaker.peers.get(settings.name)) is not None:
                speaker._remove_peer(peer, now)
        for new in come:
            known = speaker.peers.get(new.name)
            if known is None:
                peer = speaker._add_peer(new)
                self._done.add(peer)
                if speaker.started:
                    speaker._start_peer(peer, now)
            elif known.settings != new:
                self._change_peer(known, new)

    def chains(self) -> None:
        """Chains that many peers name, when all that differs is in them: with a block it is those of all at once."""
        speaker, old, new = self._speaker, self._old, self._new
        imports = _others(old.import_chains, new.import_chains)
        for peer in self._importing(imports) if imports else ():
            peer.configure(peer.settings, new)
            for entry in peer.settings.families:
                if _named(entry.import_chain, imports):
                    speaker._work(peer, peer.importer.reimport(entry.family))
        exports = _others(old.export_chains, new.export_chains)
        if not exports:
            return
        moves: dict[object, UpdateGroup] = {}
        established = dict.fromkeys(
            member.owner for group in speaker.places.groups.values() for member in group.members
        )
        for owner in established:
            assert isinstance(owner, Peer)
            if owner in self._done:
                continue
            if any(_named(entry.export_chain, exports) for entry in owner.settings.families):
                speaker.places.move(owner, new, moves)

    def _importing(self, names: set[str]) -> list[Peer]:
        """The peers that name one of these import chains, and do not follow it yet. Thousands share their families."""
        known: dict[int, bool] = {}
        found: list[Peer] = []
        for peer in self._speaker.peers.values():
            families = peer.settings.families
            concerned = known.get(id(families))
            if concerned is None:
                concerned = known[id(families)] = any(_named(entry.import_chain, names) for entry in families)
            if concerned and peer not in self._done:
                found.append(peer)
        return found

    def _change_peer(self, peer: Peer, new: PeerSettings) -> None:
        speaker, old, now = self._speaker, peer.settings, self._now
        self._done.add(peer)
        if old.address != new.address or peer_cost(old, new) >= Cost.RESET:
            _reset(speaker, peer, new, now)
            return
        peer.configure(new, self._new)
        peer.session.update_settings(new)
        if old.password != new.password and new.password:
            _rekey(speaker, peer, new.password)
        imports = {entry.family: self._old.import_terms(entry) for entry in old.families}
        rules_changed = any(getattr(old, name) != getattr(new, name) for name in IMPORT_RULES)
        for entry in new.families:
            if rules_changed or imports.get(entry.family) != self._new.import_terms(entry):
                speaker._work(peer, peer.importer.reimport(entry.family))
        if peer.members:
            speaker.places.move(peer, self._new)
        speaker._check_limits(peer, now)
        speaker._drain(peer, now)


def _named(chain: ChainRef, names: set[str]) -> bool:
    return isinstance(chain, str) and chain in names


def _others(old: Mapping[str, Terms], new: Mapping[str, Terms]) -> set[str]:
    """The names whose terms are others."""
    return {name for name in old.keys() | new.keys() if old.get(name) != new.get(name)}


def _reprogram(speaker: Speaker) -> None:
    for family, rib in speaker.ribs.items():
        if speaker.settings.fib.enabled:
            speaker._effects.append(Program(family, speaker.forwarding.wanted(rib, rib.table)))
        else:
            speaker._effects.append(Program(family, dict.fromkeys(rib.table)))


def _rekey(speaker: Speaker, peer: Peer, password: str) -> None:
    """Another key on the running connections: both sides may change theirs within the hold time, without a reset."""
    for conn in speaker.directory.connections(peer):
        speaker._effects.append(Rekey(conn, peer.settings.address, password))
    peer.session.rekeyed()


def _reset(speaker: Speaker, peer: Peer, new: PeerSettings, now: float) -> None:
    """End a session for other settings, and begin anew, unless it is to be held down from now on."""
    held = bool(new.disabled)
    text = new.disabled[:_LONGEST_TEXT] if held else ""
    peer.session.stop(now, Cease.ADMINISTRATIVE_SHUTDOWN if held else Cease.OTHER_CONFIGURATION_CHANGE, text)
    speaker._drain(peer, now)
    speaker._forget(peer)
    if peer.dynamic:
        # It has to come back, and is made anew then.
        return
    fresh = speaker._add_peer(new)
    if held:
        speaker.restart.removed(new.name)
        speaker._check_restart(now)
    if speaker.started:
        speaker._start_peer(fresh, now)
