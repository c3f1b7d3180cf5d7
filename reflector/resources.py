"""Calico's resources -> SpeakerSettings of a standalone reflector.

The reflector is a node to Calico's rules: its clients are the nodes whose BGPPeers name it, or that its own BGPPeers
select (reverse peering included). Where it has a Node resource of its name, that says everything. A pod has none, as
Node resources are Kubernetes' nodes there: it is then put into the picture here, with the addresses and the cluster id
of the command line, and each BGPPeer whose `peerIP` is such an address makes clients of the nodes that it applies to.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping

from attrs import evolve

from config import resources as r
from config.compile import Compiled, compile
from config.memory import Memory
from config.snapshot import Put, Snapshot
from reflector.flags import limited, twins, without_kernel

__all__ = ["IdentityError", "compile_reflector"]


class IdentityError(Exception):
    """Who the reflector is, is not said, or said in two ways; one sentence with the way out."""


def compile_reflector(
    snapshot: Snapshot, options: argparse.Namespace, env: Mapping[str, str], memory: Memory | None = None
) -> Compiled:
    """The settings of a standalone reflector. Raises IdentityError. `memory`: as for `compile`."""
    memory = memory or Memory()
    if options.router_id:
        env = {**env, "CALICO_ROUTER_ID": options.router_id}
    compiled = compile(_with_node(snapshot, options, memory), options.node, env, memory)
    settings = compiled.settings
    if settings is None:
        return _with_flags_that_would_do(compiled, snapshot, options)
    if options.asn and options.asn != settings.asn:
        text = f"--asn is {options.asn}, but by the resources Node/{options.node} has {settings.asn}"
        raise IdentityError(f"{text}; leave the flag out, or make them equal")
    known = {peer.address for peer in settings.peers}
    extra = tuple(peer for peer in twins(options, settings.asn, None) if peer.address not in known)
    extra = memory.shared("twins", extra)
    settings = evolve(settings, peers=(*settings.peers, *extra))
    return evolve(compiled, settings=limited(without_kernel(settings), options, memory))


def _with_flags_that_would_do(compiled: Compiled, snapshot: Snapshot, options: argparse.Namespace) -> Compiled:
    """A pod has no Node resource, and needs none: the problem names the flags that stand for it, too."""
    if options.node in snapshot.of(r.Node):
        return compiled
    missing = [
        flag for flag, given in (("--cluster-id", options.cluster_id), ("--address", options.address)) if not given
    ]
    if not missing:
        return compiled
    way = f"or, for a reflector without one, {' and '.join(missing)} on its command line"
    problems = tuple(
        evolve(problem, allowed=f"{problem.allowed}; {way}") if problem.object == f"Node/{options.node}" else problem
        for problem in compiled.problems
    )
    return evolve(compiled, problems=problems)


def _with_node(snapshot: Snapshot, options: argparse.Namespace, memory: Memory) -> Snapshot:
    """The snapshot with the reflector as a node, which is the same object as before where it is equal."""
    node = snapshot.of(r.Node).get(options.node)
    if node is not None:
        if not node.cluster_id:
            if not options.cluster_id:
                text = "has no routeReflectorClusterID; set spec.bgp.routeReflectorClusterID, or give --cluster-id"
                raise IdentityError(f"Node/{node.name} {text}")
            return snapshot.put(memory.shared("reflector", evolve(node, cluster_id=options.cluster_id)))
        if options.cluster_id and options.cluster_id != node.cluster_id:
            ids = f"--cluster-id is {options.cluster_id}, but Node/{node.name} has {node.cluster_id}"
            raise IdentityError(f"{ids}; leave the flag out, or make them equal")
        return snapshot
    listen = [(address, port) for address, port in options.listen or () if address not in ("0.0.0.0", "::")]
    addresses = options.address or tuple(dict.fromkeys(address for address, _ in listen))
    if not options.cluster_id or not addresses:
        # Without them there has to be a Node resource, and perhaps one is about to come.
        return snapshot
    own = r.Node(
        name=options.node,
        asn=options.asn,
        ipv4_address=next((address for address in addresses if ":" not in address), ""),
        ipv6_address=next((address for address in addresses if ":" in address), ""),
        cluster_id=options.cluster_id,
    )
    changes: list[Put] = [Put(memory.shared("reflector", own))]
    config = f"node.{options.node}"
    ports = {port for _, port in options.listen or ()}
    if config not in snapshot.of(r.BGPConfiguration) and len(ports) == 1:
        # A BGPPeer that names a port means the node that listens there.
        own_config = r.BGPConfiguration(config, listen_port=ports.pop())
        changes.append(Put(memory.shared("reflector's configuration", own_config)))
    return snapshot.apply(changes)
