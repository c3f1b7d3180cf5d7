"""Attributes that the speaker only passes on, in words: the one module of bgpctl that knows ExaBGP (extra `exabgp`).

The daemon keeps such attributes as octets and never decodes them. Where ExaBGP is installed, its decoders (PMSI tunnel,
prefix SID, extended communities, ...) give text for people; where it is not, or knows no better, the caller shows
octets. Its interfaces change with every release, hence the pinned version and the one place.
"""

from __future__ import annotations

from functools import cache
from typing import Any

__all__ = ["attribute_text"]

_LONGEST = 4096


@cache
def _decoder() -> Any:
    """ExaBGP's attribute registry, or None where the extra is not installed."""
    try:
        # Importing the message is what registers the attributes.
        import exabgp.bgp.message.update  # noqa: F401
        from exabgp.bgp.message.update.attribute.attribute import Attribute
    except ImportError:
        return None
    return Attribute


@cache
def attribute_text(code: int, flags: int, value: str) -> str | None:
    """What ExaBGP makes of an attribute; None where it is not installed or cannot tell.

    `value`: octets as hex digits. Whatever its decoders raise means that they cannot tell: they were written for input
    that is trusted, and this came from a peer.
    """
    decoder = _decoder()
    if decoder is None or len(value) > _LONGEST:
        return None
    try:
        # The Partial bit (RFC 4271 §4.3) is no part of what ExaBGP looks an attribute up by.
        from exabgp.bgp.message.direction import Direction

        shown = decoder.unpack(code, flags & ~0x20, bytes.fromhex(value), Direction.IN, None)
    except Exception:
        return None
    text = "" if shown is None else " ".join(str(shown).strip("[] ").split())
    return text or None
