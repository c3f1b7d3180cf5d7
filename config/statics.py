"""Routes of configuration's own: blackholes for own blocks and service ranges, host routes of reachableBy."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain

from bgpd.family import FAMILIES, family_of, parse_address, parse_prefix
from bgpd.settings import StaticKind, StaticRoute
from config.candidates import Candidate
from config.cluster import Cluster
from config.memory import Memory

__all__ = ["static_routes"]


def static_routes(cluster: Cluster, sessions: tuple[Candidate, ...]) -> tuple[StaticRoute, ...]:
    """All static routes of the node, one per prefix, by family and prefix. `sessions`: those reached by a gateway."""
    of_family = [(cluster.blocks(f), cluster.services(f), cluster.service_addresses(f)) for f in FAMILIES]
    inputs = (sessions, cluster.own, *chain.from_iterable(of_family))
    return cluster.memory.made("static routes", inputs, lambda: _static_routes(cluster, sessions))


def _static_routes(cluster: Cluster, sessions: tuple[Candidate, ...]) -> tuple[StaticRoute, ...]:
    unique: dict[tuple[object, bytes], StaticRoute] = {}
    for route in [*_blocks(cluster), *_services(cluster), *_gateways(sessions)]:
        unique.setdefault((route.family, route.key), route)
    return tuple(sorted(unique.values(), key=lambda route: (route.family, route.key)))


def _blocks(cluster: Cluster) -> Iterator[StaticRoute]:
    for family in FAMILIES:
        known = cluster.memory.table(("block routes", family))
        blocks = cluster.blocks(family)
        for block in blocks:
            # Felix's own route stands for a block of one address (calico-bgp.md 7.2).
            if block.cidr.length < family.bits:
                if block not in known:
                    label = f"own block {block.cidr}"
                    known[block] = StaticRoute(family, block.cidr.key, StaticKind.BLACKHOLE, label)
                yield known[block]
        Memory.trim(known, blocks)


def _services(cluster: Cluster) -> Iterator[StaticRoute]:
    if cluster.excluded_from_services:
        return
    for family in FAMILIES:
        for prefix in cluster.services(family):
            yield StaticRoute(family, prefix.key, StaticKind.BLACKHOLE, f"service range {prefix}")
        for address in cluster.service_addresses(family):
            yield StaticRoute(family, address.prefix.key, StaticKind.BLACKHOLE, address.label)


def _gateways(sessions: Iterable[Candidate]) -> Iterator[StaticRoute]:
    for session in sorted(sessions, key=lambda session: session.name):
        peer = session.origin
        if not peer.reachable_by or family_of(peer.reachable_by) != session.family:
            continue
        family, key = parse_prefix(session.address)
        label = f"BGPPeer {peer.name}: reachableBy"
        yield StaticRoute(family, key, StaticKind.GATEWAY, label, parse_address(peer.reachable_by))
