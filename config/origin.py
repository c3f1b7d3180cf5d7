"""Whose prefix it is by Calico's resources, for `bgpctl explain`: which node should announce it, and why it may not.
Pure."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain

from bgpd.family import Family, format_prefix
from config import resources as r
from config.snapshot import Snapshot
from config.values import Prefix

__all__ = ["origin"]

_STATES = {
    r.AffinityState.PENDING: ", which is pending: not announced before it is confirmed",
    r.AffinityState.PENDING_DELETION: ", which is being given up (pendingDeletion)",
}


def origin(snapshot: Snapshot, node: str, family: Family, key: bytes) -> str:
    """What the resources say of a prefix, in one sentence; "" = nothing. `node` is the one that asks."""
    wanted = Prefix(family, key, key[0])
    return "; ".join(chain(_blocks(snapshot, node, wanted), _services(snapshot, wanted), _pools(snapshot, wanted)))


def _blocks(snapshot: Snapshot, node: str, wanted: Prefix) -> Iterator[str]:
    for block in snapshot.of(r.BlockAffinity).values():
        if not block.cidr.covers(wanted) or block.deleted:
            continue
        whose = "this node" if block.node == node else f"node {block.node}"
        place = "is" if block.cidr == wanted else "lies in"
        state = _STATES.get(block.state, "")
        if not state and place == "lies in":
            state = ", which covers it: an address of it is announced alone while it migrates, or is borrowed"
        owner = "" if block.node == node or block.node in snapshot.nodes() else "; there is no Node of that name"
        yield f"it {place} block {block.cidr} of {whose} (BlockAffinity {block.name}){state}{owner}"


def _services(snapshot: Snapshot, wanted: Prefix) -> Iterator[str]:
    for service in snapshot.of(r.Service).values():
        addresses = (*service.cluster_ips, *service.external_ips, *service.ingress_ips)
        if wanted in addresses:
            policy = f", externalTrafficPolicy {service.policy.value}" if service.policy is not None else ""
            yield f"it is an address of Service {service.name}{policy}"


def _pools(snapshot: Snapshot, wanted: Prefix) -> Iterator[str]:
    pools = [pool for pool in snapshot.of(r.IPPool).values() if pool.cidr.covers(wanted)]
    for pool in sorted(pools, key=lambda pool: pool.name):
        hidden = "" if pool.export else ", which has disableBGPExport"
        yield f"it lies in IPPool {pool.name} ({pool.cidr}){hidden}"
    if not pools and snapshot.of(r.IPPool):
        yield f"no IPPool covers {format_prefix(wanted.family, wanted.key)}"
