"""What only several resources together show: references to objects that are not there, pools that overlap. Pure.

All of it is notices: another file, or the datastore, may hold what is missing here. What comes of it at run time is in
the words: a missing filter or password fails closed.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations

from config import resources as r
from config.problems import Problem
from config.snapshot import Snapshot

__all__ = ["crosscheck"]


def crosscheck(snapshot: Snapshot) -> list[Problem]:
    """Notices, by kind and name of the object that each is about; without file and line."""
    found = [*_configurations(snapshot), *_peers(snapshot), *_pools(snapshot), *_affinities(snapshot)]
    return sorted(found, key=lambda problem: (problem.object, problem.field, problem.value))


def _notice(object: str, field: str, value: str, text: str, allowed: str) -> Problem:
    return Problem(object=object, field=field, value=value, text=text, allowed=allowed, refused=False)


def _configurations(snapshot: Snapshot) -> Iterator[Problem]:
    nodes = snapshot.nodes()
    for name, config in snapshot.of(r.BGPConfiguration).items():
        owner = f"BGPConfiguration/{name}"
        if config.mesh_password is not None:
            yield from _secret(snapshot, owner, "spec.nodeMeshPassword", config.mesh_password)
        if nodes and name.startswith("node.") and name.removeprefix("node.") not in nodes:
            text = "is of a node that is not among the resources"
            yield _notice(owner, "metadata.name", name, text, "node.NAME of a Node")


def _peers(snapshot: Snapshot) -> Iterator[Problem]:
    nodes, filters = snapshot.nodes(), snapshot.of(r.BGPFilter)
    for name, peer in snapshot.of(r.BGPPeer).items():
        owner = f"BGPPeer/{name}"
        for entry in peer.filters:
            if entry not in filters:
                text = "names a BGPFilter that is not among the resources; from there on its routes would be rejected"
                yield _notice(owner, "spec.filters", entry, text, "an existing BGPFilter, or leave it out")
        if peer.password is not None:
            yield from _secret(snapshot, owner, "spec.password", peer.password)
        if not nodes:
            continue
        if peer.node and peer.node not in nodes:
            text = "is no Node among the resources, so it gives no session"
            yield _notice(owner, "spec.node", peer.node, text, "the name of a Node")
        for field, selector in (("nodeSelector", peer.node_selector), ("peerSelector", peer.peer_selector)):
            if selector is not None and not any(selector.matches(node.labels) for node in nodes.values()):
                text = "selects no Node among the resources, so it gives no session"
                yield _notice(owner, f"spec.{field}", selector.text, text, "a selector that fits a Node's labels")


def _secret(snapshot: Snapshot, owner: str, field: str, reference: r.SecretRef) -> Iterator[Problem]:
    secrets = [secret for name, secret in snapshot.of(r.Secret).items() if name.rpartition("/")[2] == reference.name]
    if not secrets:
        text = "names a Secret that is not among the resources; without it the sessions are left out"
        yield _notice(owner, f"{field}.secretKeyRef.name", reference.name, text, "an existing Secret")
    elif not any(secret.data.get(reference.key) for secret in secrets):
        text = f"Secret {reference.name} has no such key; without it the sessions are left out"
        yield _notice(owner, f"{field}.secretKeyRef.key", reference.key, text, "a key of the Secret")


def _pools(snapshot: Snapshot) -> Iterator[Problem]:
    pools = sorted(snapshot.of(r.IPPool).items())
    for (first, one), (second, two) in combinations(pools, 2):
        if one.cidr.covers(two.cidr) or two.cidr.covers(one.cidr):
            text = f"overlaps with IPPool {first} ({one.cidr})"
            yield _notice(f"IPPool/{second}", "spec.cidr", str(two.cidr), text, "pools that do not overlap")


def _affinities(snapshot: Snapshot) -> Iterator[Problem]:
    nodes = snapshot.nodes()
    for name, affinity in snapshot.of(r.BlockAffinity).items():
        if nodes and affinity.node not in nodes:
            text = "is no Node among the resources"
            yield _notice(f"BlockAffinity/{name}", "spec.node", affinity.node, text, "the name of a Node")
