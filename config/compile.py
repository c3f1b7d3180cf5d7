"""Snapshot -> SpeakerSettings: the whole wanted state of one node, computed from nothing each time.

Pure: the same resources in any order give equal settings. Faults of single objects never stop the rest; they are in
`Compiled.problems`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from attrs import frozen

from bgpd.family import FAMILIES
from bgpd.settings import FibSettings, LearnSettings, SpeakerSettings
from config import resources as r
from config.candidates import filter_problems
from config.chains import MAXIMUM, Chains, kernel_chain
from config.cluster import DEFAULT_PORT, Cluster, router_id, view
from config.memory import Memory
from config.peers import sessions
from config.problems import Problem
from config.snapshot import Snapshot
from config.statics import static_routes

__all__ = ["Compiled", "compile"]

BUILT_IN_IGNORED = ("cali*", "kube-ipvs*")


@frozen
class Compiled:
    """What a node should do, and everything that is wrong with the resources it was told by."""

    node: str
    settings: SpeakerSettings | None
    """None: it cannot be told (no usable Node or BGPConfiguration). Keep what is running."""
    problems: tuple[Problem, ...]
    """The snapshot's and the compile's, in a fixed order."""
    log_severity: r.LogSeverity = r.LogSeverity.INFO


def compile(
    snapshot: Snapshot,
    node: str,
    env: Mapping[str, str],
    memory: Memory | None = None,
    workloads: Iterable[r.Workload] = (),
) -> Compiled:
    """The settings of `node`. `env` is the environment with Calico's variables (CALICO_ROUTER_ID, NAMESPACE, ...).

    `memory`: that of the former compiles for the same node and environment; it changes the speed alone.
    `workloads`: the pods on the node, as Felix's endpoint-status folder has them.
    """
    found: list[Problem] = []
    cluster = view(snapshot, node, env, found, memory or Memory(), workloads)
    settings = None if cluster is None else _settings(cluster, found)
    severity = r.LogSeverity.INFO
    if cluster is not None:
        own = cluster.own_config.log_severity if cluster.own_config else None
        severity = own or cluster.config.log_severity or severity
    ordered = dict.fromkeys([*snapshot.all_problems(), *sorted(found, key=_order)])
    return Compiled(node, settings, tuple(ordered), severity)


def _order(problem: Problem) -> tuple[str, str, str, str]:
    return (problem.object, problem.field, problem.value, problem.text)


def _settings(cluster: Cluster, problems: list[Problem]) -> SpeakerSettings:
    _notices(cluster, problems)
    own = cluster.own
    wanted = sessions(cluster)
    problems += wanted.problems
    problems += filter_problems(cluster)
    imports, exports = Chains(cluster).named(wanted.policies)
    return SpeakerSettings(
        asn=own.asn,
        router_id=router_id(cluster, problems),
        listen=_listen(cluster),
        cluster_id=own.node.cluster_id or None,
        peers=wanted.peers,
        import_chains=imports,
        export_chains=exports,
        static_routes=static_routes(cluster, wanted.gateways),
        learn=LearnSettings(ignored_interfaces=(*cluster.config.ignored_interfaces, *BUILT_IN_IGNORED)),
        fib=FibSettings(
            chains=tuple((family, kernel_chain(cluster, family)) for family in FAMILIES), metric_base=MAXIMUM
        ),
    )


def _listen(cluster: Cluster) -> tuple[tuple[str, int], ...]:
    """One listener for each family that the node has an address of."""
    own, port = cluster.own.node, cluster.own.port or DEFAULT_PORT
    only = cluster.config.bind_mode is r.BindMode.NODE_IP
    found: list[tuple[str, int]] = []
    for address, everywhere in ((own.ipv4_address, "0.0.0.0"), (own.ipv6_address, "::")):
        if address:
            found.append((address if only else everywhere, port))
    return tuple(found)


def _notices(cluster: Cluster, problems: list[Problem]) -> None:
    """What keeps the node silent although nothing is wrong with any object."""
    own = cluster.own.node
    if not own.ipv4_address and not own.ipv6_address:
        text = "has no BGP address, so there are no sessions"
        allowed = "spec.bgp.ipv4Address or ipv6Address"
        problems.append(Problem(object=f"Node/{own.name}", field="spec.bgp", text=text, allowed=allowed, refused=False))
