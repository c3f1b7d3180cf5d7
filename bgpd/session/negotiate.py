"""Our OPEN, and what two OPENs agree on (RFC 4271 §4.2 and §6.2, RFC 5492)."""

from __future__ import annotations

from collections.abc import Iterable

from attrs import frozen

from bgpd.errors import BGPError, ErrorCode
from bgpd.family import IPV4_UNICAST, Family, format_address
from bgpd.session.local import LocalState
from bgpd.settings import AddPath, FamilySettings, PeerSettings
from bgpd.wire.capabilities import (
    AddPathCapability,
    Capability,
    EnhancedRouteRefresh,
    ExtendedMessageCapability,
    ExtendedNextHopCapability,
    FourOctetAs,
    GracefulRestartCapability,
    MultiProtocol,
    RouteRefreshCapability,
    build_capability,
)
from bgpd.wire.open import Open

AS_TRANS = 23456
STANDARD_LENGTH = 4096
EXTENDED_LENGTH = 65535
_IPV6_AFI = 2

_BAD_AS = 2
_BAD_IDENTIFIER = 3
_BAD_HOLD_TIME = 6
_UNSUPPORTED_CAPABILITY = 7


@frozen
class Negotiated:
    """What both sides said in their OPENs, reduced to what holds. Compared by value, never changed."""

    peer_asn: int
    peer_id: bytes
    local_asn: int
    local_id: bytes
    internal: bool
    hold_time: int
    """Seconds; 0 = no hold timer and no keepalives."""
    keepalive_time: float
    """Seconds between our KEEPALIVEs, before jitter; 0 = none."""
    asn4: bool
    families: frozenset[Family]
    add_path_receive: frozenset[Family]
    add_path_send: frozenset[Family]
    route_refresh: bool
    enhanced_refresh: bool
    extended_message: bool
    max_send_length: int
    """Octets of the longest message that the peer takes, header included."""
    extended_next_hop: frozenset[Family]
    """Families whose NLRI may have IPv6 next hops although they are not IPv6 (RFC 8950)."""
    graceful: GracefulRestartCapability | None
    """The peer's, if both sides sent one."""
    notification_restart: bool
    """Both sides set the N bit: a NOTIFICATION is a restart unless it is a hard reset (RFC 8538)."""

    @property
    def restart_families(self) -> frozenset[Family]:
        """Negotiated families whose routes are kept when the session is lost (RFC 4724 §4.2)."""
        if self.graceful is None or self.graceful.time == 0:
            return frozenset()
        return self.families.intersection(family for family, _ in self.graceful.families)

    @property
    def forwarding_families(self) -> frozenset[Family]:
        """Negotiated families of which the peer says that it kept forwarding (the F bit)."""
        if self.graceful is None:
            return frozenset()
        return self.families.intersection(family for family, kept in self.graceful.families if kept)


def local_asn(peer: PeerSettings, local: LocalState) -> int:
    """The AS number that we have in sessions with this peer."""
    return local.asn if peer.local_asn is None else peer.local_asn


def our_open(peer: PeerSettings, local: LocalState, bare: bool = False) -> Open:
    """The OPEN that we send. `bare`: no capabilities, for a peer that refuses optional parameters (RFC 5492 §3)."""
    asn = local_asn(peer, local)
    return Open(
        asn=asn if asn <= 0xFFFF else AS_TRANS,  # RFC 6793 §4.1
        hold_time=peer.hold_time,
        router_id=local.router_id,
        capabilities=() if bare else _capabilities(peer, local),
    )


def _capabilities(peer: PeerSettings, local: LocalState) -> tuple[Capability, ...]:
    """In the order of Calico's BIRD, then what BIRD does not send.

    Long-lived graceful restart (71) is not offered: its helper would have to rank stale routes last, and nothing here
    does.
    """
    families = [settings.family for settings in peer.families]
    found: list[Capability] = [MultiProtocol(family) for family in families]
    if peer.route_refresh:
        found.append(RouteRefreshCapability())
    if peer.graceful_restart:
        found.append(_graceful_restart(peer, local, families))
    found.append(FourOctetAs(local_asn(peer, local)))
    modes = tuple((item.family, int(item.add_path)) for item in peer.families if item.add_path is not AddPath.OFF)
    if modes:
        found.append(AddPathCapability(modes))
    if peer.route_refresh:
        found.append(EnhancedRouteRefresh())
    if peer.extended_messages:
        found.append(ExtendedMessageCapability())
    next_hops = tuple((item.family, _IPV6_AFI) for item in peer.families if _extends_next_hop(item))
    if next_hops:
        found.append(ExtendedNextHopCapability(next_hops))
    return tuple(found)


def _extends_next_hop(settings: FamilySettings) -> bool:
    """IPv6 NLRI have IPv6 next hops anyway: only IPv4 has something to extend."""
    return settings.extended_next_hop and settings.family.afi == 1


def _graceful_restart(peer: PeerSettings, local: LocalState, families: list[Family]) -> GracefulRestartCapability:
    return GracefulRestartCapability(
        restarting=local.restarting,
        notification=peer.notification_restart,
        time=min(max(peer.restart_time, 0), 4095),
        families=tuple((family, local.forwarding_kept) for family in families),
    )


def negotiate(peer: PeerSettings, local: LocalState, sent: Open, received: Open) -> Negotiated:
    """What holds after both OPENs. Raises BGPError 2/2, 2/3, 2/6 or 2/7 (RFC 4271 §6.2, RFC 6286, RFC 7607)."""
    asn = local_asn(peer, local)
    _check_asn(peer, received)
    _check_identifier(internal=peer.asn == asn, ours=sent.router_id, theirs=received.router_id)
    if received.hold_time in (1, 2):
        reason = f"hold time of {received.hold_time} s; 0 or at least 3 is allowed"
        raise BGPError(ErrorCode.OPEN_MESSAGE, _BAD_HOLD_TIME, reason=reason)
    hold_time = min(sent.hold_time, received.hold_time)
    families = _common_families(sent, received)
    receive, send = _add_path(sent, received, families)
    graceful = _last(received, GracefulRestartCapability) if _has(sent, GracefulRestartCapability) else None
    ours = _last(sent, GracefulRestartCapability)
    extended = _has(sent, ExtendedMessageCapability) and _has(received, ExtendedMessageCapability)
    refresh = _has(sent, RouteRefreshCapability) and _has(received, RouteRefreshCapability)
    return Negotiated(
        peer_asn=peer.asn,
        peer_id=received.router_id,
        local_asn=asn,
        local_id=sent.router_id,
        internal=peer.asn == asn,
        hold_time=hold_time,
        keepalive_time=keepalive_time(peer, hold_time),
        asn4=_has(sent, FourOctetAs) and _has(received, FourOctetAs),
        families=families,
        add_path_receive=receive,
        add_path_send=send,
        route_refresh=refresh,
        enhanced_refresh=_has(sent, EnhancedRouteRefresh) and _has(received, EnhancedRouteRefresh),
        extended_message=extended,
        max_send_length=EXTENDED_LENGTH if extended else STANDARD_LENGTH,
        extended_next_hop=_extended_next_hop(sent) & _extended_next_hop(received) & families,
        graceful=graceful,
        notification_restart=bool(ours and graceful and ours.notification and graceful.notification),
    )


def _check_asn(peer: PeerSettings, received: Open) -> None:
    """RFC 4271 §6.2, RFC 6793 §4.1, RFC 7607 §2."""
    field, actual = received.asn, received.four_octet_asn
    reason = ""
    if actual == 0:
        reason = "AS number 0"
    elif actual == AS_TRANS:
        reason = "AS number 23456 (AS_TRANS), which stands for a number that does not fit and is nobody's own"
    elif field not in (actual, AS_TRANS):
        reason = f"the AS field says {field}, the four-octet AS capability {actual}"
    elif actual != peer.asn:
        reason = f"the peer says AS {actual}, configured is {peer.asn}"
    if reason:
        raise BGPError(ErrorCode.OPEN_MESSAGE, _BAD_AS, reason=reason)


def _check_identifier(*, internal: bool, ours: bytes, theirs: bytes) -> None:
    """RFC 6286 §2.1 and §2.2: any identifier but 0; an external peer may have ours."""
    if theirs == bytes(4):
        raise BGPError(ErrorCode.OPEN_MESSAGE, _BAD_IDENTIFIER, reason="BGP identifier 0.0.0.0")
    if internal and theirs == ours:
        raise BGPError(
            ErrorCode.OPEN_MESSAGE,
            _BAD_IDENTIFIER,
            reason=f"the peer is in our AS and has our own BGP identifier {format_address(ours)}",
        )


def keepalive_time(peer: PeerSettings, hold_time: int) -> float:
    """A third of the hold time; a setting may only make it shorter (RFC 4271 §4.4)."""
    third = hold_time / 3
    return min(third, float(peer.keepalive_time)) if peer.keepalive_time else third


def _families(message: Open) -> frozenset[Family]:
    """Without any multiprotocol capability a speaker means IPv4 unicast: what BGP-4 could carry before RFC 4760."""
    families = frozenset(item.family for item in message.capabilities if isinstance(item, MultiProtocol))
    return families or frozenset((IPV4_UNICAST,))


def _common_families(sent: Open, received: Open) -> frozenset[Family]:
    ours, theirs = _families(sent), _families(received)
    common = ours & theirs
    if common:
        return common
    # RFC 5492 §5: the data names the capabilities that we miss.
    raise BGPError(
        ErrorCode.OPEN_MESSAGE,
        _UNSUPPORTED_CAPABILITY,
        b"".join(build_capability(MultiProtocol(family)) for family in sorted(ours)),
        f"no address family in common: we have {_names(ours)}, the peer has {_names(theirs)}",
    )


def _add_path(sent: Open, received: Open, families: frozenset[Family]) -> tuple[frozenset[Family], frozenset[Family]]:
    """Families whose NLRI carry path identifiers when we receive, and when we send (RFC 7911 §4)."""
    ours, theirs = _add_path_modes(sent), _add_path_modes(received)
    receive = frozenset(f for f in families if ours.get(f, 0) & AddPath.RECEIVE and theirs.get(f, 0) & AddPath.SEND)
    send = frozenset(f for f in families if ours.get(f, 0) & AddPath.SEND and theirs.get(f, 0) & AddPath.RECEIVE)
    return receive, send


def _add_path_modes(message: Open) -> dict[Family, int]:
    """Tuples with an unknown mode are ignored (RFC 7911 §4)."""
    return {
        family: mode
        for capability in message.capabilities
        if isinstance(capability, AddPathCapability)
        for family, mode in capability.modes
        if AddPath.RECEIVE <= mode <= AddPath.BOTH
    }


def _extended_next_hop(message: Open) -> frozenset[Family]:
    return frozenset(
        family
        for capability in message.capabilities
        if isinstance(capability, ExtendedNextHopCapability)
        for family, next_hop_afi in capability.families
        if next_hop_afi == _IPV6_AFI
    )


def _has(message: Open, kind: type[Capability]) -> bool:
    return any(isinstance(capability, kind) for capability in message.capabilities)


def _last(message: Open, kind: type[GracefulRestartCapability]) -> GracefulRestartCapability | None:
    """Of several, the last counts (RFC 4724 §3)."""
    return next((item for item in reversed(message.capabilities) if isinstance(item, kind)), None)


def _names(families: Iterable[Family]) -> str:
    return " and ".join(str(family) for family in sorted(families)) or "none"
