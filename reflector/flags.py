"""Command line -> SpeakerSettings: who connects from a range is a client, and a twin reflector is a non-client."""

from __future__ import annotations

import argparse

from attrs import evolve

from bgpd.settings import AddPath, FamilySettings, FibSettings, LearnSettings, PeerSettings, SpeakerSettings
from config.memory import Memory
from reflector.options import FAMILIES

__all__ = ["flag_settings", "limited", "twins", "without_kernel"]

PORT = 179


def flag_settings(options: argparse.Namespace, password: str | None) -> SpeakerSettings:
    """The settings that flags alone give."""
    template = PeerSettings(
        name="client",
        address="0.0.0.0",  # each client's own takes its place
        asn=options.asn,
        passive=True,
        password=password,
        families=_families(options),
        hold_time=options.hold_time,
        restart_time=options.restart_time,
        reflector_client=True,
        cluster_id=options.cluster_id,
        label="--clients",
    )
    settings = SpeakerSettings(
        asn=options.asn,
        router_id=options.router_id,
        listen=tuple(options.listen or (("0.0.0.0", PORT), ("::", PORT))),
        cluster_id=options.cluster_id,
        peers=twins(options, options.asn, password),
        dynamic=tuple((cidr, template) for cidr in options.clients),
    )
    return limited(without_kernel(settings), options)


def twins(options: argparse.Namespace, asn: int, password: str | None) -> tuple[PeerSettings, ...]:
    """The peers of --peers: non-clients, found where they listen as we do, seen to come from where we listen."""
    own = {":" in address: (address, port) for address, port in reversed(options.listen or ())}
    found = []
    for address, port in options.peers:
        source, usual = own.get(":" in address, ("", PORT))
        found.append(
            PeerSettings(
                name=f"peer_{address.replace('.', '_').replace(':', '_')}",
                address=address,
                asn=asn,
                port=port or usual or PORT,
                source_address=source if source not in ("", "0.0.0.0", "::") else None,
                password=password,
                families=_families(options),
                hold_time=options.hold_time,
                restart_time=options.restart_time,
                label="--peers",
            )
        )
    return tuple(found)


def _families(options: argparse.Namespace) -> tuple[FamilySettings, ...]:
    return tuple(FamilySettings(FAMILIES[name], add_path=AddPath.BOTH) for name in options.families)


def without_kernel(settings: SpeakerSettings) -> SpeakerSettings:
    """A speaker that forwards nothing: no routes of its own, none into the kernel, and every next hop counts.

    It always says that forwarding was kept: that of its clients does not depend on it (design: F=1 without a kernel).
    """
    return evolve(
        settings,
        static_routes=(),
        learn=LearnSettings(kernel=False, direct=False),
        fib=FibSettings(enabled=False),
        resolve_next_hops=False,
        forwarding_kept=True,
    )


def limited(settings: SpeakerSettings, options: argparse.Namespace, memory: Memory | None = None) -> SpeakerSettings:
    """The settings with the command line's limits on every peer.

    With `memory`, peers that are the same objects as before are so with their limits too, and families that many share.
    """
    memory = memory or Memory()
    limits = (options.max_prefixes, options.max_attribute_sets, options.max_octets)
    known, shared = memory.table(("limited peers", limits)), memory.table(("limited families", limits))
    if len(known) > 2 * len(settings.peers) + 64:
        known.clear()

    def limit_families(families: tuple[FamilySettings, ...]) -> tuple[FamilySettings, ...]:
        made: tuple[FamilySettings, ...] | None = shared.get(families)
        if made is None:
            made = shared[families] = tuple(evolve(family, max_prefixes=options.max_prefixes) for family in families)
        return made

    def limit(peer: PeerSettings) -> PeerSettings:
        held = known.get(peer.name)
        if held is None or held[0] is not peer:
            sets, octets, families = options.max_attribute_sets, options.max_octets, limit_families(peer.families)
            made = evolve(peer, families=families, max_attribute_sets=sets, max_octets=octets)
            held = known[peer.name] = (peer, made)
        found: PeerSettings = held[1]
        return found

    return evolve(
        settings,
        peers=tuple(limit(peer) for peer in settings.peers),
        dynamic=tuple((cidr, limit(template)) for cidr, template in settings.dynamic),
        max_dynamic=options.max_sessions,
        connection_rate=options.connection_rate,
    )
