"""Reflectors and their clients in memory: settings, and what a client was told."""

from __future__ import annotations

from typing import Any

from attrs import evolve

from bgpd.family import FAMILIES, IPV4_UNICAST, IPV6_UNICAST, parse_prefix
from bgpd.rib.path import Path
from bgpd.session.fsm import State
from bgpd.settings import (
    AddPath,
    FamilySettings,
    FibSettings,
    LearnSettings,
    PeerSettings,
    SpeakerSettings,
    StaticKind,
    StaticRoute,
)

from .cluster import Cluster, Host

ASN = 64512
CLIENTS = "10.0.0.0/24"


def families(add_path: AddPath = AddPath.BOTH, **changes: Any) -> tuple[FamilySettings, ...]:
    """Both families on one session."""
    return tuple(FamilySettings(family, add_path=add_path, **changes) for family in FAMILIES)


def reflector(
    address: str, cluster_id: str = "1.1.1.1", twins: tuple[str, ...] = (), template: dict[str, Any] | None = None,
    **changes: Any,
) -> SpeakerSettings:  # fmt: skip
    """A reflector that takes everyone of CLIENTS as client, and `twins` as non-clients."""
    common: dict[str, Any] = {"families": families(), **(template or {})}
    client = PeerSettings(
        "client", "0.0.0.0", ASN, passive=True, reflector_client=True, cluster_id=cluster_id, **common
    )
    peers = tuple(PeerSettings(f"twin_{twin}", twin, ASN, families=families()) for twin in twins)
    settings = SpeakerSettings(
        ASN,
        address,
        cluster_id=cluster_id,
        peers=peers,
        dynamic=((CLIENTS, client),),
        learn=LearnSettings(kernel=False, direct=False),
        fib=FibSettings(enabled=False),
        resolve_next_hops=False,
    )
    return evolve(settings, **changes)


def node(address: str, reflectors: tuple[str, ...], prefixes: tuple[str, ...] = (), **changes: Any) -> SpeakerSettings:
    """A client: static routes of its own, peered with reflectors only. Its IPv6 next hop is fd00::N."""
    own6 = f"fd00::{address.rpartition('.')[2]}"
    common: dict[str, Any] = {"families": families(), "own_addresses": ((IPV6_UNICAST, own6),), **changes}
    peers = tuple(PeerSettings(f"rr_{rr}", rr, ASN, **common) for rr in reflectors)
    statics = tuple(StaticRoute(*parse_prefix(prefix), StaticKind.BLACKHOLE, "own block") for prefix in prefixes)
    return SpeakerSettings(ASN, address, peers=peers, static_routes=statics, resolve_next_hops=False)


def cluster_of(hosts: dict[str, SpeakerSettings]) -> Cluster:
    """All of them, started."""
    cluster = Cluster()
    for address, settings in hosts.items():
        cluster.add(address, settings)
    for address in hosts:
        cluster.start(address)
    return cluster


def up(host: Host) -> int:
    """Established sessions."""
    return sum(peer.session.state is State.ESTABLISHED for peer in host.speaker.peers.values())


def learned(host: Host, prefix: str) -> list[Path]:
    """The BGP paths that a host has for a prefix, best first."""
    family, key = parse_prefix(prefix)
    entry = host.speaker.ribs[family].table.get(key)
    paths = entry if isinstance(entry, tuple) else () if entry is None else (entry,)
    return [path for path in paths if path.source.is_bgp]


def prefixes(host: Host) -> set[str]:
    """Prefixes for which a host has a BGP path that it may use."""
    return {prefix for prefix in host.routes() if any(not path.rejected for path in learned(host, prefix))}


def hop(address: str) -> bytes:
    """Packed next hop of a client's IPv4 routes."""
    return bytes(map(int, address.split(".")))


IPV4 = IPV4_UNICAST
