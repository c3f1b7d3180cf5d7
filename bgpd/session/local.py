"""What all sessions of one speaker share, and what changes while it runs."""

from __future__ import annotations

from attrs import define


@define(eq=False)
class LocalState:
    """Our own identity and restart state. One object is shared by every session; OPENs read it when they are sent."""

    asn: int
    router_id: bytes
    """Four octets, network order."""
    restarting: bool = False
    """True from a start until our End-of-RIBs are out: the R bit of our OPENs (RFC 4724 §3)."""
    forwarding_kept: bool = True
    """The truth about the kernel routes of before our start: the F bit of every family (RFC 4724 §3)."""
