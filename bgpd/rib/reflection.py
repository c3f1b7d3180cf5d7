"""Who may be told what (RFC 4271 §9.2, RFC 4456 §6): a table of source kind x target kind, looked at from both
sides."""

from __future__ import annotations

from bgpd.policy.terms import SourceKind
from bgpd.wire.attributes import PathAttributes

EBGP, IBGP, CLIENT = SourceKind.EBGP, SourceKind.IBGP, SourceKind.IBGP_CLIENT
LOCAL = (SourceKind.STATIC, SourceKind.KERNEL, SourceKind.DIRECT)

_DENIED: dict[tuple[SourceKind, SourceKind], str] = {
    (IBGP, IBGP): "learned from a non-client over iBGP: not passed to another non-client (RFC 4456 §6)",
}
"""(kind of source, kind of target) that must not pass. All other pairs may."""

REFLECTED = frozenset({(CLIENT, CLIENT), (CLIENT, IBGP), (IBGP, CLIENT)})
"""Pairs in which we act as reflector: ORIGINATOR_ID and CLUSTER_LIST are due (RFC 4456 §8)."""

NO_EXPORT = 0xFFFFFF01
NO_ADVERTISE = 0xFFFFFF02
NO_EXPORT_SUBCONFED = 0xFFFFFF03
WELL_KNOWN = b"\xff\xff\xff"
"""The well-known communities begin with these octets: a block without them need not be decoded."""


def unheard(target: SourceKind) -> SourceKind | None:
    """The kind of source of which this kind of peer is told nothing at all, whatever the path."""
    return next((source for source, other in _DENIED if other is target), None)


def withheld(source: SourceKind, target: SourceKind, attrs: PathAttributes) -> str:
    """Why a path of this source must not go to this kind of peer, or "".

    Well-known communities bind routes learned by BGP only (RFC 1997; Calico reference §4.5).
    """
    for (one, other), denied in _DENIED.items():
        # By identity: an enum member's hash is a call in Python.
        if source is one and target is other:
            return denied
    if source not in LOCAL and WELL_KNOWN in attrs.block:
        communities = attrs.communities
        if NO_ADVERTISE in communities:
            return "community NO_ADVERTISE"
        if target is EBGP:
            if NO_EXPORT in communities:
                return "community NO_EXPORT"
            if NO_EXPORT_SUBCONFED in communities:
                return "community NO_EXPORT_SUBCONFED"
    return ""
