"""The sentences of a session for people who read logs. Each names what happened, why, and what it means for routes."""

from __future__ import annotations

from collections.abc import Iterable

from bgpd.family import Family, format_address
from bgpd.session.negotiate import Negotiated


def names(families: Iterable[Family]) -> str:
    """As in: ipv4 and ipv6."""
    return " and ".join(str(family) for family in sorted(families)) or "no family"


def duration(seconds: float) -> str:
    """As in: 42 s, 3 min 5 s, 2 h 0 min, 4 d 1 h."""
    total = round(seconds)
    for size, unit, lower, lower_unit in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if total >= size:
            return f"{total // size} {unit} {total % size // lower} {lower_unit}"
    return f"{total} s"


def established(negotiated: Negotiated, retained: frozenset[Family], dropped: frozenset[Family]) -> str:
    """What was agreed."""
    hold = f"hold time {negotiated.hold_time} s" if negotiated.hold_time else "no hold time"
    kind = "iBGP" if negotiated.internal else "eBGP"
    text = (
        f"session established: {kind}, AS {negotiated.peer_asn}, identifier {format_address(negotiated.peer_id)}, "
        f"{names(negotiated.families)}, {hold}"
    )
    if retained:
        text += f"; stale routes of {names(retained)} wait for its End-of-RIB"
    if dropped:
        text += f"; stale routes of {names(dropped)} go, because the peer does not say that it kept forwarding"
    return text


def lost(cause: str, up: float, families: frozenset[Family], retained: frozenset[Family], time: float) -> str:
    """How long it lasted, why it ended, and what becomes of the routes."""
    text = f"session lost after {duration(up)}: {cause}"
    if not retained:
        return f"{text}; its routes go"
    text += f"; its routes of {names(retained)} stay for up to {duration(time)} (graceful restart)"
    gone = families - retained
    return f"{text}, those of {names(gone)} go" if gone else text


def stale_expired(families: frozenset[Family], established: bool) -> str:
    reason = "sent no End-of-RIB" if established else "has not come back"
    return f"the peer {reason} in time: its stale routes of {names(families)} go"
