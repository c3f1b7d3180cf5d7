"""Counters of one session. What the session drops, refuses or ignores is counted here; nothing is lost silently."""

from __future__ import annotations


class Statistics:
    """Plain counters, read by views and metrics. They last as long as the Session and survive its restarts."""

    __slots__ = (
        "changed_at",
        "collisions",
        "connect_attempts",
        "connect_failures",
        "established_at",
        "established_count",
        "flaps",
        "ignored_data",
        "ignored_refreshes",
        "last_error",
        "last_error_at",
        "last_notification_received",
        "last_notification_sent",
        "received",
        "refused",
        "sent",
        "transitions",
        "trouble",
    )

    def __init__(self) -> None:
        self.received: list[int] = [0] * 6
        """Messages by type (index 1 OPEN to 5 ROUTE-REFRESH)."""
        self.sent: list[int] = [0] * 6
        """As `received`. The session counts what it sends itself; whoever writes UPDATEs and refreshes adds them."""
        self.transitions = 0
        """Changes of the session's state."""
        self.established_count = 0
        self.flaps = 0
        """Losses of an Established session, whatever the cause."""
        self.established_at: float | None = None
        """`now` of the last entry into Established; None while the session is down."""
        self.last_error = ""
        """Why the last connection ended, in words; stays after the session is back."""
        self.last_error_at: float | None = None
        self.changed_at: float | None = None
        """`now` of the last time that the session was started, came up or went down."""
        self.trouble = ("", "")
        """What keeps the session down in two parts, as ("Socket", "connection refused"); empty while it is up."""
        self.last_notification_sent = ""
        self.last_notification_received = ""
        self.connect_attempts = 0
        self.connect_failures = 0
        self.refused = 0
        """Incoming connections refused: session stopped, damped, or Established already."""
        self.collisions = 0
        """Connections closed because another one to the same peer stayed (RFC 4271 §6.8)."""
        self.ignored_refreshes = 0
        """ROUTE-REFRESH messages of a family that is not negotiated, of an unknown subtype, or not offered."""
        self.ignored_data = 0
        """Times that octets came on a connection that was closed already."""
