"""What a CalicoNodeStatus reports (calico-bgp.md 10.4): facts about the speaker -> the object's `status`. Pure.

One family's trouble costs nothing of the other's, a session of any kind has its place, and an answer in the middle of
recovery is complete (quirk 12).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from attrs import field, frozen

from bgpd.family import FAMILIES, Family
from config.resources import CalicoNodeStatus, StatusClass
from config.snapshot import Snapshot

__all__ = ["ROUTES_LIMIT", "AgentFacts", "FamilyFacts", "RouteFacts", "SessionFacts", "same", "status_of", "wanted"]

ROUTES_LIMIT = 3000
"""Routes of a family in one object: about half a megabyte, which etcd and Kubernetes take."""
_TYPES = {"Mesh": "NodeMesh", "Global": "GlobalPeer", "Node": "NodePeer"}
_STATES = {"Passive": "Active", "Down": "Idle"}
"""BIRD's names for states that Calico's list has not."""
_SOURCES = {"kernel": "Kernel", "static": "Static", "direct": "Direct"}


@frozen
class AgentFacts:
    """The daemon; times as BIRD writes them."""

    version: str
    router_id: str
    boot: str
    reconfigured: str


@frozen
class SessionFacts:
    """One session."""

    name: str
    address: str
    up: bool
    state: str
    since: str


@frozen
class RouteFacts:
    """One way of one path."""

    prefix: str
    primary: bool
    gateway: str
    """"" = none."""
    interface: str
    """Or "blackhole", "unreachable"."""
    source: str
    """kernel, static, direct or bgp."""
    session: str = ""
    """bgp: the session's name."""
    peer: str = ""
    """bgp: the peer's address."""


@frozen
class FamilyFacts:
    """One family. `agent` None: the speaker has not started."""

    agent: AgentFacts | None = None
    sessions: tuple[SessionFacts, ...] = ()
    routes: tuple[RouteFacts, ...] = field(default=())


Facts = Mapping[Family, FamilyFacts]


def wanted(snapshot: Snapshot, node: str) -> dict[str, CalicoNodeStatus]:
    """The objects that this node reports to, by name."""
    found = snapshot.of(CalicoNodeStatus)
    return {name: item for name, item in sorted(found.items()) if item.node == node and item.period > 0}


def status_of(classes: frozenset[StatusClass], facts: Facts, now: str) -> dict[str, Any]:
    """The `status` of an object. `now`: RFC 3339."""
    status: dict[str, Any] = {"lastUpdated": now}
    if StatusClass.AGENT in classes:
        status["agent"] = {f"birdV{_version(family)}": _agent(facts[family].agent) for family in FAMILIES}
    if StatusClass.BGP in classes:
        status["bgp"] = _bgp(facts)
    if StatusClass.ROUTES in classes:
        status["routes"] = {
            f"routesV{_version(family)}": [_route(item) for item in _first(facts[family].routes)] for family in FAMILIES
        }
    return status


def same(old: object, new: Mapping[str, Any]) -> bool:
    """Whether two states say the same, whenever they were written."""
    if not isinstance(old, Mapping):
        return False
    return {k: v for k, v in old.items() if k != "lastUpdated"} == {k: v for k, v in new.items() if k != "lastUpdated"}


def _version(family: Family) -> int:
    return 4 if family.afi == 1 else 6


def _agent(agent: AgentFacts | None) -> dict[str, str]:
    if agent is None:
        return {"state": "NotReady"}
    return {
        "state": "Ready",
        "version": agent.version,
        "routerID": agent.router_id,
        "lastBootTime": agent.boot,
        "lastReconfigurationTime": agent.reconfigured,
    }


def _bgp(facts: Facts) -> dict[str, Any]:
    shown: dict[str, Any] = {}
    for family in FAMILIES:
        sessions, version = facts[family].sessions, _version(family)
        up = sum(session.up for session in sessions)
        shown[f"numberEstablishedV{version}"] = up
        shown[f"numberNotEstablishedV{version}"] = len(sessions) - up
        shown[f"peersV{version}"] = [_session(session) for session in sessions]
    return shown


def _session(session: SessionFacts) -> dict[str, str]:
    return {
        "peerIP": session.address,
        # A local workload's session is one of this node's own; the list of types has no name for it.
        "type": _TYPES.get(session.name.partition("_")[0], "NodePeer"),
        "state": _STATES.get(session.state, session.state),
        "since": session.since,
    }


def _first(routes: Iterable[RouteFacts]) -> list[RouteFacts]:
    """As many as an object may hold; what is in use comes first."""
    ordered = sorted(routes, key=lambda route: not route.primary)
    return ordered[:ROUTES_LIMIT]


def _route(route: RouteFacts) -> dict[str, Any]:
    source = _SOURCES.get(route.source)
    if source is None:
        learned = {"sourceType": "NodeMesh" if route.session.startswith("Mesh_") else "BGPPeer", "peerIP": route.peer}
    else:
        learned = {"sourceType": source}
    return {
        "type": "FIB" if route.primary else "RIB",
        "destination": route.prefix,
        "gateway": route.gateway or "N/A",
        "interface": route.interface,
        "learnedFrom": learned,
    }
