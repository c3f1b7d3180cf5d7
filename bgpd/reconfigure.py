"""New settings on a running Speaker: what differs is made true, at the least cost (`settings.Cost`).

A part of the Speaker in a file of its own; nothing else calls it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import evolve

from bgpd.effects import ListenersChanged, Program, Rekey
from bgpd.errors import Cease
from bgpd.family import Family, parse_address
from bgpd.peer import Peer, peer_cost
from bgpd.rib.forwarding import Forwarding
from bgpd.rib.update_group import UpdateGroup
from bgpd.settings import Cost, FamilySettings, PeerSettings, SpeakerSettings

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
    _dynamic_peers(speaker, settings, now)
    if old.peers is not settings.peers:
        _configured_peers(speaker, settings, now)
    if old.static_routes is not settings.static_routes:
        speaker._touched(speaker.local_routes.set_static(settings.static_routes))
    if old.fib != settings.fib:
        speaker.forwarding = Forwarding(settings.fib, speaker.forwarding.devices)
        _reprogram(speaker)
    speaker._effects.append(ListenersChanged())


def _dynamic_peers(speaker: Speaker, settings: SpeakerSettings, now: float) -> None:
    """Out of every range now, or a configured peer's address from now on: gone; else by its template's new form."""
    configured = {peer.address for peer in settings.peers} if speaker.dynamic.peers else ()
    for peer in list(speaker.dynamic.peers.values()):
        new = speaker.dynamic.settings_for(peer.settings.address)
        if new is None or new.address in configured:
            speaker._remove_peer(peer, now)
        elif new != peer.settings:
            _change_peer(speaker, peer, new, now)


def _configured_peers(speaker: Speaker, settings: SpeakerSettings, now: float) -> None:
    wanted = {peer.name: peer for peer in settings.peers}
    if speaker.peers.keys() - wanted.keys():
        for peer in list(speaker.peers.values()):
            if peer.settings.name not in wanted and not peer.dynamic:
                speaker._remove_peer(peer, now)
    chains = _Chains(speaker)
    for name, new in wanted.items():
        known = speaker.peers.get(name)
        if known is None:
            peer = speaker._add_peer(new)
            if speaker.started:
                speaker._start_peer(peer, now)
        elif known.settings is new or chains.change(known, new):
            continue
        elif known.settings != new:
            _change_peer(speaker, known, new, now)


class _Chains:
    """Peers that change nothing but their chains: with a block or a Service it is all of them at once, so what can be
    found out once for all is."""

    def __init__(self, speaker: Speaker) -> None:
        self._speaker = speaker
        self._old: object = None
        self._new: object = None
        self._imports: frozenset[Family] | None = None
        """Of the last pair of old and new families: peers of one policy stand together."""
        self._moves: dict[object, UpdateGroup] = {}

    def change(self, peer: Peer, new: PeerSettings) -> bool:
        """Do it; False: something else changes as well."""
        old = peer.settings
        if old.apart is not new.apart:
            return False
        if old.families is not self._old or new.families is not self._new:
            self._old, self._new = old.families, new.families
            self._imports = _imports_changed(old.families, new.families)
        imports = self._imports
        if imports is None:
            return False
        if imports:
            peer.configure(new, self._speaker.settings)
        # Nothing that `update_settings` would follow is another.
        peer.settings = peer.session.peer = new
        for family in imports:
            self._speaker._work(peer, peer.importer.reimport(family))
        if peer.members:
            self._speaker.places.move(peer, self._speaker.settings, self._moves)
        return True


def _imports_changed(old: tuple[FamilySettings, ...], new: tuple[FamilySettings, ...]) -> frozenset[Family] | None:
    """The families with another import chain; None: more than chains differs."""
    if len(old) != len(new):
        return None
    changed: set[Family] = set()
    for one, two in zip(old, new, strict=True):
        if evolve(one, import_chain=(), export_chain=()) != evolve(two, import_chain=(), export_chain=()):
            return None
        if one.import_chain != two.import_chain:
            changed.add(one.family)
    return frozenset(changed)


def _reprogram(speaker: Speaker) -> None:
    for family, rib in speaker.ribs.items():
        if speaker.settings.fib.enabled:
            speaker._effects.append(Program(family, speaker.forwarding.wanted(rib, rib.table)))
        else:
            speaker._effects.append(Program(family, dict.fromkeys(rib.table)))


def _change_peer(speaker: Speaker, peer: Peer, new: PeerSettings, now: float) -> None:
    old = peer.settings
    if old.address != new.address or peer_cost(old, new) >= Cost.RESET:
        _reset(speaker, peer, new, now)
        return
    peer.configure(new, speaker.settings)
    peer.session.update_settings(new)
    if old.password != new.password and new.password:
        _rekey(speaker, peer, new.password)
    imports = {f.family: f.import_chain for f in old.families}
    rules_changed = (old.allow_local_as, old.enforce_first_as) != (new.allow_local_as, new.enforce_first_as)
    for family in new.families:
        if rules_changed or imports.get(family.family) != family.import_chain:
            speaker._work(peer, peer.importer.reimport(family.family))
    if peer.members:
        speaker.places.move(peer, speaker.settings)
    speaker._check_limits(peer, now)
    speaker._drain(peer, now)


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
