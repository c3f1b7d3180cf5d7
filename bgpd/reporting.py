"""A part of the composition root: the reporter of CalicoNodeStatus (config) with the speaker's facts (api) and the
datastore."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable

from bgpd.api.bird import facts as bird
from bgpd.api.limits import Pace
from bgpd.api.state import DaemonState
from bgpd.family import FAMILIES, Family, format_address
from config import nodestatus as ns
from config.datastore import open_editor
from config.reporter import Reporter, StatusFolder, StatusStore
from config.resources import StatusClass

_log = logging.getLogger("bgpd.nodestatus")
_DROPS = ("blackhole", "unreachable")


def make_reporter(state: DaemonState, datastore: str, state_dir: str) -> Reporter:
    """The reporter of this node."""
    return Reporter(state.node, _store(datastore, state_dir), Collector(state).collect)


def _store(url: str, state_dir: str) -> Callable[[], StatusStore]:
    if url.startswith("file:"):
        return lambda: StatusFolder(state_dir)
    return lambda: open_editor(url, env=os.environ)


class Collector:
    """Facts about the speaker, as far as they are asked for."""

    def __init__(self, state: DaemonState) -> None:
        self._state = state
        self._told: set[Family] = set()

    async def collect(self, classes: frozenset[StatusClass]) -> dict[Family, ns.FamilyFacts]:
        """Both families."""
        return {family: await self._family(family, classes) for family in FAMILIES}

    async def _family(self, family: Family, classes: frozenset[StatusClass]) -> ns.FamilyFacts:
        state = self._state
        if state.speaker is None:
            return ns.FamilyFacts()
        routes = await self._routes(family) if StatusClass.ROUTES in classes else ()
        sessions = tuple(self._session(row) for row in bird.protocols(state, family) if row.kind == "BGP")
        return ns.FamilyFacts(self._agent(), sessions, routes)

    def _agent(self) -> ns.AgentFacts:
        agent = bird.agent(self._state)
        boot, reconfigured = bird.long_time(agent.boot), bird.long_time(agent.reconfigured)
        return ns.AgentFacts(agent.version, agent.router_id, boot, reconfigured)

    def _session(self, row: bird.Protocol) -> ns.SessionFacts:
        since = bird.short_time(self._state, row.since)
        return ns.SessionFacts(row.name, row.address, row.state == "up", row.bgp_state, since)

    async def _routes(self, family: Family) -> tuple[ns.RouteFacts, ...]:
        """What is in use, then the rest, as far as there is room: a table of any size is not copied."""
        used: list[ns.RouteFacts] = []
        others: list[ns.RouteFacts] = []
        total = 0
        async for routes in bird.routes(self._state, family, Pace()):
            for route in routes:
                total += 1
                kept = used if route.primary else others
                if len(kept) < ns.ROUTES_LIMIT:
                    kept += _ways(route)
        self._tell(family, total)
        return (*used, *others)

    def _tell(self, family: Family, number: int) -> None:
        if number <= ns.ROUTES_LIMIT:
            self._told.discard(family)
        elif family not in self._told:
            self._told.add(family)
            _log.warning(
                "CalicoNodeStatus: of the %s routes the first %d are reported; see `bgpctl routes` for all of them",
                family, ns.ROUTES_LIMIT,
            )  # fmt: skip


def _ways(route: bird.Route) -> list[ns.RouteFacts]:
    """A route of several ways is several of CalicoNodeStatus."""
    way, source = route.way, route.path.source
    peer = format_address(source.address) if source.is_bgp and source.address else ""
    kind, session = ("bgp", source.name) if source.is_bgp else (source.kind.value, "")
    hops = way.hops or ((way.gateway, way.kind if way.kind in _DROPS else way.interface),)
    return [
        ns.RouteFacts(route.prefix, route.primary, "" if gateway == "-" else gateway, interface, kind, session, peer)
        for gateway, interface in hops
    ]
