"""Why a connection ends: what is said to the peer, what becomes of its routes, what the log says.

One table (`_CEASE_IS_NO_ERROR`) and one rule decide about damping: an error NOTIFICATION, sent or received, costs an
idle hold; a lost connection and an administrative Cease do not.
"""

from __future__ import annotations

import logging
from enum import Enum

from bgpd.errors import BGPError, Cease, ErrorCode, brief, describe
from bgpd.wire.notification import Notification, shutdown_text, unwrap_hard_reset
from bgpd.wire.refresh import RouteRefresh

_CEASE_IS_NO_ERROR = frozenset(
    {
        Cease.ADMINISTRATIVE_SHUTDOWN,
        Cease.PEER_DECONFIGURED,
        Cease.ADMINISTRATIVE_RESET,
        # A mesh that is just being configured: the peer does not know us yet. The dial's own back-off is enough.
        Cease.CONNECTION_REJECTED,
        Cease.OTHER_CONFIGURATION_CHANGE,
        Cease.COLLISION_RESOLUTION,
        10,  # BFD down (RFC 9384)
    }
)
_WITH_TEXT = (Cease.ADMINISTRATIVE_SHUTDOWN, Cease.ADMINISTRATIVE_RESET)


class Loss(Enum):
    """What kind of end it is: decides whether the peer's routes stay (RFC 4724 §4.2, RFC 8538 §4)."""

    CONNECTION = "the TCP connection went away: a restart, if graceful restart is agreed"
    NOTIFICATION = "a NOTIFICATION or a timer: a restart only if both sides set the N bit"
    FINAL = "a hard reset, or an end after which the peer's routes are not wanted"


class Cause:
    """One reason. `text` completes the sentence "session lost: ..." and names what was received and what it means."""

    __slots__ = (
        "body",
        "brief",
        "closes",
        "damped",
        "level",
        "loss",
        "message",
        "notification",
        "refresh",
        "text",
        "unsupported",
    )

    def __init__(
        self,
        text: str,
        *,
        notification: Notification | None = None,
        loss: Loss = Loss.NOTIFICATION,
        damped: bool = False,
        level: int = logging.WARNING,
        message: int = 0,
        body: bytes = b"",
        refresh: RouteRefresh | None = None,
        closes: bool = True,
        unsupported: bool = False,
        brief: tuple[str, str] | None = None,
    ) -> None:
        self.text = text
        self.notification = notification
        """What to send, if anything."""
        self.loss = loss
        self.damped = damped
        self.level = level
        self.message = message
        """Type of the received message behind it, 0 for none."""
        self.body = body
        self.refresh = refresh
        self.closes = closes
        """False: the connection is gone already."""
        self.unsupported = unsupported
        """The peer refused our optional parameters (2/4)."""
        self.brief = brief or _brief(notification)
        """For `Statistics.trouble`."""


def _brief(sent: Notification | None) -> tuple[str, str]:
    """What we complained about; closing in favour of another connection is no trouble."""
    if sent is None or (sent.code, sent.subcode) == (ErrorCode.CEASE, Cease.COLLISION_RESOLUTION):
        return "", ""
    said = unwrap_hard_reset(sent) or sent
    return "BGP Error", brief(said.code, said.subcode)


QUIET = Cause("")
"""For events that end nothing and need no explanation."""


def is_error(code: int, subcode: int) -> bool:
    """Whether a NOTIFICATION with these codes is an error that counts for damping."""
    return code != ErrorCode.CEASE or subcode not in _CEASE_IS_NO_ERROR


def notification_of(error: BGPError) -> Notification:
    return Notification(error.code, error.subcode, error.data)


def from_error(error: BGPError) -> Cause:
    """We found a fault, or a limit was passed."""
    # With Cease we mean it: the peer's routes are over a limit, keeping them would defeat the purpose.
    loss = Loss.FINAL if error.code == ErrorCode.CEASE else Loss.NOTIFICATION
    return Cause(
        f"we sent NOTIFICATION {error}",
        notification=notification_of(error),
        loss=loss,
        damped=is_error(error.code, error.subcode),
    )


def from_notification(received: Notification) -> Cause:
    """The peer said why."""
    inner = unwrap_hard_reset(received)
    said = inner if inner is not None else received
    text = f"the peer sent NOTIFICATION {describe(said.code, said.subcode)}"
    if said is not received:
        text += " as a hard reset"
    words = shutdown_text(said.data) if said.code == ErrorCode.CEASE and said.subcode in _WITH_TEXT else None
    if words:
        text += f' ("{words}")'
    error = is_error(said.code, said.subcode)
    hard = (received.code, received.subcode) == (ErrorCode.CEASE, Cease.HARD_RESET)
    return Cause(
        text,
        loss=Loss.FINAL if hard else Loss.NOTIFICATION,
        damped=error,
        level=_level(said, error),
        unsupported=(said.code, said.subcode) == (ErrorCode.OPEN_MESSAGE, 4),
        brief=("Received", brief(said.code, said.subcode)),
    )


def _level(said: Notification, error: bool) -> int:
    if (said.code, said.subcode) == (ErrorCode.CEASE, Cease.COLLISION_RESOLUTION):
        return logging.DEBUG  # Part of every simultaneous start.
    return logging.WARNING if error else logging.INFO


def connection_lost(reason: str) -> Cause:
    text = f"the TCP connection was lost ({reason})"
    return Cause(text, loss=Loss.CONNECTION, closes=False, brief=("Socket", reason))


def replaced() -> Cause:
    """RFC 4724 §5: a peer that can restart gracefully has opened a new connection, so the old one is dead."""
    return Cause("the peer came with a new connection and a new OPEN, so it has restarted", loss=Loss.CONNECTION)


def collision(reason: str) -> Cause:
    return Cause(
        f"connection closed in favour of another one to the same peer ({reason})",
        notification=Notification(ErrorCode.CEASE, Cease.COLLISION_RESOLUTION, b""),
        level=logging.DEBUG,
    )


def hold_expired(hold_time: float, waiting_for: str) -> Cause:
    return Cause(
        f"{waiting_for} for {hold_time:g} s, so we sent NOTIFICATION {describe(4, 0)}",
        notification=Notification(ErrorCode.HOLD_TIMER_EXPIRED, 0, b""),
        damped=True,
    )


def send_hold_expired(time: float) -> Cause:
    return Cause(
        f"the peer's TCP took not one octet for {time:g} s, so we sent NOTIFICATION {describe(8, 0)}",
        notification=Notification(ErrorCode.SEND_HOLD_TIMER_EXPIRED, 0, b""),
        damped=True,
    )


def fsm_error(state: str, subcode: int, message: int, what: str) -> Cause:
    """RFC 6608: the subcode names the state, the data the type of the message."""
    sent = describe(ErrorCode.FSM, subcode)
    return Cause(
        f"received {what} in {state}, where the state machine has no place for it; we sent NOTIFICATION {sent}",
        notification=Notification(ErrorCode.FSM, subcode, bytes((message,)) if message else b""),
        damped=True,
    )
