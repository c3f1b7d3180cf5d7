"""Configurations that several interop tests share."""

from __future__ import annotations

from typing import Any

from tests.interop.conftest import OURS4, OURS6, PEER4, PEER6
from tests.interop.model import IPV4, IPV6, Announcement, PeerConfig, Route, SessionSpec, family_name, route
from tests.interop.peers import TRAITS, Daemon

OUR_AS, PEER_AS = 65001, 65002
Json = dict[str, Any]

STATICS = ("10.1.0.0/24", "10.1.1.0/25", "10.1.2.4/32", "fd01::/64", "fd01:1::1/128")
"""What our side announces: blackhole routes of its own."""


def theirs(kind: type[Daemon]) -> tuple[Announcement, ...]:
    """What the foreign daemon announces: every attribute that it can set."""
    foreign = (65200, 4200000001) if TRAITS[kind].foreign_prepend else ()
    return (
        Announcement("10.2.0.0/24", med=7, communities=("65002:1", "65002:2"), prepend=foreign),
        Announcement("10.2.1.0/25", large_communities=("4200000002:1:4294967295",)),
        Announcement("10.2.2.4/32"),
        Announcement("fd02::/64", med=9, communities=("65002:3",)),
        Announcement("fd02:1::1/128"),
    )


def session(family: str, **more: Any) -> SessionSpec:
    """The peer's side of the session of one family, as Calico has it: IPv6 routes over IPv6."""
    local, remote = (PEER4, OURS4) if family == IPV4 else (PEER6, OURS6)
    return SessionSpec(local, remote, OUR_AS, families=(family,), **more)


def peer_config(*sessions: SessionSpec, announcements: tuple[Announcement, ...] = (), asn: int = PEER_AS) -> PeerConfig:
    """The foreign daemon's configuration."""
    return PeerConfig(asn, PEER4, sessions, announcements)


def our_peer(family: str, asn: int = PEER_AS, **more: Any) -> Json:
    """Our side of the session of one family. Timers are short: tests do not wait for a user's patience."""
    address = PEER4 if family == IPV4 else PEER6
    return {"name": f"peer-{family}", "address": address, "asn": asn, "families": [family], "hold_time": 90,
            "connect_retry_time": 1.0, "connect_delay_time": 0.1, "idle_hold_time": 1.0, **more}  # fmt: skip


def our_settings(*peers: Json, statics: tuple[str, ...] = STATICS, **more: Any) -> Json:
    """Our speaker's settings."""
    routes = [{"prefix": prefix} for prefix in statics]
    return {"asn": OUR_AS, "router_id": OURS4, "peers": list(peers), "static_routes": routes, **more}


def ours_as_seen(kind: type[Daemon], prefixes: tuple[str, ...], family: str, asn: int = OUR_AS) -> list[Route]:
    """Our blackhole routes as an eBGP peer of this kind shows them."""
    traits = TRAITS[kind]
    hop = OURS4 if family == IPV4 else OURS6
    return [
        route(prefix, hop, str(asn), local_pref=traits.shows_local_pref, med=traits.shows_med)
        for prefix in prefixes
        if family_name(prefix) == family
    ]


BOTH_SESSIONS = (IPV4, IPV6)
