"""What peers may cost, as it is set, and who was turned away for it: the `limits` of GET /v1/status."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from bgpd.api.schema import Limits, PeerLimits
from bgpd.api.state import DaemonState
from bgpd.settings import PeerSettings, SpeakerSettings

__all__ = ["limits"]


def limits(state: DaemonState) -> Limits | None:
    """The limits in force; None before there is a speaker."""
    speaker = state.speaker
    if speaker is None:
        return None
    settings = speaker.settings
    return {
        "dynamic_peers": settings.max_dynamic,
        "connection_rate": settings.connection_rate,
        "refused": {**state.refused(), "dynamic-peers": speaker.dynamic.refused},
        "peers": _peers(settings),
    }


def _peers(settings: SpeakerSettings) -> list[PeerLimits]:
    """Peers of the same limits make one row."""
    of: Counter[tuple[tuple[tuple[str, int], ...], int, int]] = Counter()
    ranges: dict[tuple[tuple[tuple[str, int], ...], int, int], list[str]] = {}
    for cidr, peer in _all(settings):
        prefixes = tuple((str(family.family), family.max_prefixes) for family in peer.families)
        key = prefixes, peer.max_attribute_sets, peer.max_octets
        of[key] += not cidr
        ranges.setdefault(key, []).extend([cidr] if cidr else [])
    return [
        {
            "peers": count,
            "ranges": ranges[key],
            "prefixes": dict(key[0]),
            "attribute_sets": key[1],
            "octets": key[2],
        }
        for key, count in of.items()
    ]


def _all(settings: SpeakerSettings) -> Iterator[tuple[str, PeerSettings]]:
    yield from settings.dynamic
    for peer in settings.peers:
        yield "", peer
