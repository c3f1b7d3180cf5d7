"""What a Session asks of the world and tells the speaker.

The list that `Session.take` returns holds these, in order, and between them the bodies of received UPDATEs as plain
`bytes`: one append per message is all that the hot path can afford. What it sends itself (OPEN, KEEPALIVE,
NOTIFICATION) is an effect already, which may go between UPDATEs at a message boundary.
"""

from __future__ import annotations

from typing import TypeAlias

from attrs import frozen

from bgpd.effects import Send
from bgpd.family import Family
from bgpd.session.fsm import Event, State
from bgpd.session.negotiate import Negotiated
from bgpd.wire.refresh import RouteRefresh


@frozen
class Connect:
    """Open a TCP connection to the peer; answered by `connected` or `connect_failed`. Never two at a time."""


@frozen
class Close:
    """Close the connection, after what was transmitted on it. Nothing that comes on it later means anything."""

    conn: int


@frozen
class Established:
    """The session is up on `Session.conn`."""

    negotiated: Negotiated
    retained: frozenset[Family]
    """Families with stale routes, which the peer is about to repeat (until End-of-RIB)."""
    dropped: frozenset[Family]
    """Families whose stale routes must go now: the peer did not keep forwarding (RFC 4724 §4.2)."""


@frozen
class Refresh:
    """The peer asks for its routes again, or brackets an answer to our own request (RFC 2918, 7313)."""

    message: RouteRefresh


@frozen
class Down:
    """The Established session is lost. UPDATE bodies of it that were taken before are still good."""

    cause: str
    retained: frozenset[Family]
    """Families whose routes stay, marked stale (RFC 4724, 8538); routes of all others go now."""


@frozen
class StaleExpired:
    """Stale routes of these families must go now; routes announced in the present session stay."""

    families: frozenset[Family]


@frozen
class StateChange:
    """The session's state changed."""

    old: State
    new: State
    event: Event


@frozen
class Notice:
    """One sentence for the log. `level` is one of the logging module's."""

    level: int
    text: str


SessionEvent: TypeAlias = (
    bytes | Send | Connect | Close | Established | Refresh | Down | StaleExpired | StateChange | Notice
)
