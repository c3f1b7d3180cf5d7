"""Read-only views: Speaker -> schema. Everything the API says of peers and of the daemon as a whole.

Routes are in `tables`, the fate of one prefix in `explain`.
"""

from __future__ import annotations

import os

from bgpd.api import kernel
from bgpd.api.allowances import limits
from bgpd.api.counts import Counts, Walk, peer_families
from bgpd.api.health import readiness
from bgpd.api.limits import Pace
from bgpd.api.lookup import find_peer, speaker_of
from bgpd.api.render import timestamp
from bgpd.api.schema import (
    SCHEMA_VERSION,
    Chain,
    GracefulRestart,
    KernelTable,
    Negotiated,
    Peer,
    PeerDetail,
    Restart,
    Status,
)
from bgpd.api.state import DaemonState
from bgpd.family import Family, format_address
from bgpd.peer import Peer as SpeakerPeer
from bgpd.peer import local_asn
from bgpd.session.fsm import State
from bgpd.session.negotiate import Negotiated as SessionNegotiated
from bgpd.settings import SpeakerSettings
from bgpd.speaker import Speaker
from bgpd.wire.framing import MessageType

MESSAGES = ("open", "update", "notification", "keepalive", "refresh")
"""Names of the message types 1 to 5 (RFC 4271 §4.1, RFC 2918)."""
_TROUBLES = 1000


class Views:
    """Answers of one daemon."""

    def __init__(self, state: DaemonState) -> None:
        self.state = state
        self.counts = Counts()

    async def walk(self, speaker: Speaker, pace: Pace, max_age: float = 1.0) -> Walk:
        """Counts that need a walk over the tables, not older than `max_age` seconds where that is cheap."""
        return await self.counts.get(speaker, self.state.clock(), pace, max_age)

    async def status(self, pace: Pace, max_age: float = 1.0) -> Status:
        """GET /v1/status: answers before there is a speaker, too."""
        state, speaker = self.state, self.state.speaker
        settings = None if speaker is None else speaker.settings
        walk = Walk() if speaker is None else await self.walk(speaker, pace, max_age)
        return {
            "schema": SCHEMA_VERSION,
            "version": state.version,
            "node": state.node,
            "pid": os.getpid(),
            "asn": settings.asn if settings else None,
            "router_id": settings.router_id if settings else None,
            "cluster_id": settings.cluster_id if settings else None,
            "listen": [endpoint(*pair) for pair in settings.listen] if settings else [],
            "started_at": timestamp(state.started_at),
            "uptime": state.clock() - state.began,
            "ready": readiness(state),
            "restart": restart(state),
            "peers": {
                "configured": len(settings.peers) if settings else 0,
                "dynamic": sum(p.dynamic for p in speaker.peers.values()) if speaker else 0,
                "established": established(speaker),
            },
            "limits": limits(state),
            "families": walk.families,
            "kernel": kernel.summary(state),
            "datastore": state.datastore(),
        }

    async def peers(self, pace: Pace, max_age: float = 1.0) -> list[Peer]:
        """GET /v1/peers, in the order of names."""
        speaker = speaker_of(self.state)
        walk = await self.walk(speaker, pace, max_age)
        rows = []
        for _, peer in sorted(speaker.peers.items()):
            rows.append(self._peer(peer, walk))
            await pace.rest()
        return rows

    async def peer(self, name: str, pace: Pace) -> PeerDetail:
        """GET /v1/peers/NAME"""
        speaker = speaker_of(self.state)
        peer = find_peer(speaker, name)
        walk = await self.walk(speaker, pace)
        settings, session = peer.settings, peer.session
        idle = session.idle_until
        left = None if idle is None else idle - self.state.clock()
        return {
            "peer": self._peer(peer, walk),
            "local_address": session.local_address or None,
            "local_asn": local_asn(speaker.settings, settings),
            "passive": settings.passive,
            "password": settings.password is not None,
            "ttl_security_hops": settings.ttl_security_hops,
            "hold_time": float(settings.hold_time),
            "connect_retry_time": settings.connect_retry_time,
            "graceful_restart": settings.graceful_restart,
            "restart_time": settings.restart_time,
            "next_hop_mode": settings.next_hop_mode.name.lower(),
            "negotiated": negotiated(session.negotiated),
            "idle_for": left if left is not None and 0 < left < float("inf") else None,
            "chains": _chains(speaker.settings, peer),
            "findings": dict(peer.findings),
        }

    async def kernel(self, pace: Pace) -> KernelTable:
        """GET /v1/kernel"""
        shown, more = kernel.troubles(self.state, _TROUBLES)
        await pace.rest()
        return {"summary": kernel.summary(self.state), "troubles": shown, "more": more}

    def _peer(self, peer: SpeakerPeer, walk: Walk) -> Peer:
        settings, session, counters = peer.settings, peer.session, peer.session.statistics
        up = session.state is State.ESTABLISHED
        # The session counts what it sends itself; UPDATEs come from the update groups.
        sent = list(counters.sent)
        sent[MessageType.UPDATE] += peer.updates_sent
        since = counters.established_at
        prefixes = walk.peers.get(settings.name, {})
        return {
            "name": settings.name,
            "address": settings.address,
            "port": settings.port,
            "asn": settings.asn,
            "kind": peer.source.kind.value,
            "label": settings.label,
            "state": str(session.state),
            "disabled": settings.disabled or None,
            "uptime": self.state.clock() - since if up and since is not None else None,
            "flaps": counters.flaps,
            "last_error": last_error(peer),
            "dynamic": peer.dynamic,
            "prefixes": {str(f): prefixes[str(f)] for f in peer_families(peer) if str(f) in prefixes},
            "messages_in": _messages(counters.received),
            "messages_out": _messages(sent),
        }


def last_error(peer: SpeakerPeer) -> str | None:
    """Why the last connection ended, and what has kept the next one from coming; or that none comes about."""
    if peer.settings.disabled:
        return f"held down: {peer.settings.disabled}"
    counters = peer.session.statistics
    number, (kind, reason) = counters.connect_failures, counters.trouble
    up = peer.session.state is State.ESTABLISHED
    if counters.last_error and not up and kind == "Socket" and reason and reason not in counters.last_error:
        return f"{counters.last_error}; now: {reason}"
    if counters.last_error or up or not number:
        return counters.last_error or None
    return f"cannot connect: {f'{reason}, ' if reason else ''}{number} attempt{'' if number == 1 else 's'}"


def established(speaker: Speaker | None) -> int:
    """How many sessions are up."""
    if speaker is None:
        return 0
    return sum(peer.session.state is State.ESTABLISHED for peer in speaker.peers.values())


def endpoint(address: str, port: int) -> str:
    """ "0.0.0.0:179", "[::]:179"."""
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def restart(state: DaemonState) -> Restart:
    """The restart phase; before the speaker has started it counts as begun."""
    if state.speaker is None or not state.speaker.started:
        return {"active": True, "holds_kernel": True, "waiting_for": ["the first start"], "ends_in": None}
    phase = state.speaker.restart
    due = phase.deadline()
    ends_in = None if due is None else max(due - state.clock(), 0.0)
    waiting_for = phase.waiting_for() if phase.holds_kernel else []
    return {
        "active": phase.active,
        "holds_kernel": phase.holds_kernel,
        "waiting_for": waiting_for,
        "ends_in": ends_in,
    }


def negotiated(agreed: SessionNegotiated | None) -> Negotiated | None:
    """What two OPENs agreed on, as JSON."""
    if agreed is None:
        return None
    return {
        "peer_asn": agreed.peer_asn,
        "peer_id": format_address(agreed.peer_id),
        "local_asn": agreed.local_asn,
        "local_id": format_address(agreed.local_id),
        "internal": agreed.internal,
        "hold_time": float(agreed.hold_time),
        "keepalive_time": float(agreed.keepalive_time),
        "four_octet_as": agreed.asn4,
        "families": _names(agreed.families),
        "add_path_receive": _names(agreed.add_path_receive),
        "add_path_send": _names(agreed.add_path_send),
        "route_refresh": agreed.route_refresh,
        "enhanced_refresh": agreed.enhanced_refresh,
        "extended_message": agreed.extended_message,
        "extended_next_hop": _names(agreed.extended_next_hop),
        "graceful_restart": _graceful(agreed),
    }


def _graceful(agreed: SessionNegotiated) -> GracefulRestart | None:
    capability = agreed.graceful
    if capability is None:
        return None
    return {
        "restarting": capability.restarting,
        "notification": capability.notification,
        "restart_time": capability.time,
        "families": {str(family): kept for family, kept in capability.families},
    }


def _names(families: frozenset[Family]) -> list[str]:
    return [str(family) for family in sorted(families)]


def _chains(settings: SpeakerSettings, peer: SpeakerPeer) -> list[Chain]:
    return [
        {
            "family": str(entry.family),
            "imports": [term.label for term in settings.import_terms(entry)],
            "exports": [term.label for term in settings.export_terms(entry)],
        }
        for entry in peer.settings.families
    ]


def _messages(counts: list[int]) -> dict[str, int]:
    return dict(zip(MESSAGES, counts[1:], strict=True))
