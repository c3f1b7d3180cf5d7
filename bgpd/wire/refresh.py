"""ROUTE-REFRESH messages (RFC 2918, RFC 7313)."""

from __future__ import annotations

from struct import Struct

from attrs import frozen

from bgpd.errors import BGPError, ErrorCode
from bgpd.family import Family
from bgpd.wire.framing import HEADER_LENGTH, MessageType, build_message

NORMAL = 0
BEGIN = 1
"""BoRR, RFC 7313 §3.2."""
END = 2
"""EoRR."""

_LAYOUT = Struct(">HBB")


@frozen
class RouteRefresh:
    """A request for routes, or a mark around their repetition. `subtype`: NORMAL, BEGIN or END."""

    family: Family
    subtype: int = NORMAL


def parse_refresh(body: bytes, enhanced: bool = True) -> RouteRefresh | None:
    """None: nothing to do (a subtype that RFC 7313 §5 has us ignore).

    A normal request may carry outbound route filters (RFC 5291), which were never negotiated: only they are ignored.
    `enhanced` says that both sides sent that capability; without it the subtype octet is reserved and ignored (RFC 2918
    §3). Raises BGPError 7/1 with the whole message (RFC 7313 §5), or 1/2 where enhanced refresh is not in use.
    """
    size = len(body)
    if size < _LAYOUT.size or (enhanced and size > _LAYOUT.size and body[2] in (BEGIN, END)):
        message = build_message(MessageType.ROUTE_REFRESH, body)
        reason = f"ROUTE-REFRESH of {size} octets"
        if enhanced:
            raise BGPError(ErrorCode.ROUTE_REFRESH, 1, message, reason)
        raise BGPError(ErrorCode.MESSAGE_HEADER, 2, (HEADER_LENGTH + size).to_bytes(2, "big"), reason)
    afi, subtype, safi = _LAYOUT.unpack_from(body)
    if not enhanced:
        subtype = NORMAL
    if subtype not in (NORMAL, BEGIN, END):
        return None
    return RouteRefresh(Family(afi, safi), subtype)


def build_refresh(refresh: RouteRefresh) -> bytes:
    """The whole message."""
    afi, safi = refresh.family
    return build_message(MessageType.ROUTE_REFRESH, _LAYOUT.pack(afi, refresh.subtype, safi))
