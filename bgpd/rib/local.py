"""Local routes in the Loc-RIB: from the kernel, from interface addresses, and from configuration."""

from __future__ import annotations

from collections.abc import Iterable

from bgpd.family import FAMILIES
from bgpd.policy.terms import SourceKind
from bgpd.rib.importer import Shared
from bgpd.rib.nexthop import NextHop, always
from bgpd.rib.path import LocalPath, Path, Source
from bgpd.routes import FibRoute, Hop, LocalChange, LocalRoute, RouteKind
from bgpd.settings import StaticKind, StaticRoute
from bgpd.wire.attributes import PathAttributes, local_block

_KINDS = {StaticKind.BLACKHOLE: RouteKind.BLACKHOLE, StaticKind.UNREACHABLE: RouteKind.UNREACHABLE}


class LocalRoutes:
    """The three local sources and their routes."""

    def __init__(self, shared: Shared) -> None:
        self.shared = shared
        self.sources = {
            kind: Source(kind.value, kind) for kind in (SourceKind.STATIC, SourceKind.KERNEL, SourceKind.DIRECT)
        }
        self.static: frozenset[StaticRoute] = frozenset()
        self._here = always()
        self._block = local_block()

    def apply(self, changes: Iterable[LocalChange]) -> list[NextHop]:
        """Put changes of the host's routes into the Loc-RIB. Returns next hops whose answer may change."""
        hops: dict[int, NextHop] = {}
        for change in changes:
            self._apply(change)
            for hop in self.shared.next_hops.set_route(change.family, change.key, change.kind, change.route):
                hops[id(hop)] = hop
        return list(hops.values())

    def _apply(self, change: LocalChange) -> None:
        source = self.sources[change.kind]
        rib = self.shared.ribs[change.family]
        if change.route is None:
            rib.drop([change.key], source, 0)
        else:
            rib.put([change.key], self.path(change.route))

    def path(self, route: LocalRoute) -> Path:
        """The path of a route of the host, not put into any table."""
        source = self.sources[route.kind]
        gateway = route.hops[0].gateway if len(route.hops) == 1 else b""
        attrs = self._attrs(route, gateway)
        metric = route.metric if route.kind is SourceKind.KERNEL else -1
        return self._make(source, attrs, route.label, metric, route.interface)

    def _attrs(self, route: LocalRoute | StaticRoute, gateway: bytes) -> PathAttributes:
        return self.shared.attributes.intern(route.family, self._block, gateway)

    def _make(
        self,
        source: Source,
        attrs: PathAttributes,
        label: str,
        metric: int,
        interface: str,
        next_hop: NextHop | None = None,
        fixed: FibRoute | None = None,
    ) -> Path:
        send_id = self.shared.send_id(source, 0)
        return LocalPath(source, attrs, next_hop or self._here, send_id, label, metric, interface, fixed)

    def set_static(self, routes: Iterable[StaticRoute]) -> list[NextHop]:
        """Make these the static routes. Returns next hops whose answer may change (routes with a gateway resolve
        others)."""
        wanted = frozenset(routes)
        hops: dict[int, NextHop] = {}
        for route in sorted(self.static - wanted, key=lambda r: r.key):
            if not any(r.key == route.key and r.family == route.family for r in wanted):
                self.shared.ribs[route.family].drop([route.key], self.sources[SourceKind.STATIC], 0)
                self._resolve_through(route, hops, gone=True)
        for route in sorted(wanted - self.static, key=lambda r: r.key):
            self.shared.ribs[route.family].put([route.key], self.static_path(route))
            self._resolve_through(route, hops)
        self.static = wanted
        return list(hops.values())

    def static_path(self, route: StaticRoute) -> Path:
        """The path of a static route, not put into any table."""
        source = self.sources[SourceKind.STATIC]
        if route.kind is StaticKind.GATEWAY:
            hop = self.shared.next_hops.get(route.gateway)
            return self._make(source, self._attrs(route, route.gateway), route.label, -1, "", hop)
        fixed = FibRoute(_KINDS[route.kind], (), 0)
        return self._make(source, self._attrs(route, b""), route.label, -1, "", fixed=fixed)

    def _resolve_through(self, route: StaticRoute, hops: dict[int, NextHop], gone: bool = False) -> None:
        """A static route with a gateway resolves next hops; its own gateway resolves through the others. So the host
        route of a peer by the peer itself says nothing new, and would keep itself alive."""
        if route.gateway == route.key[1:]:
            return
        local: LocalRoute | None = None
        if not gone:
            through = self.shared.next_hops.get(route.gateway) if route.gateway else None
            ways = through.hops if through and through.reachable else (Hop(b"", 0),)
            reachable = bool(through and through.reachable)
            interface = through.interface if through else ""
            local = LocalRoute(
                route.family, route.key, SourceKind.STATIC, ways, 0, interface, 0, route.label, reachable
            )
        for hop in self.shared.next_hops.set_route(route.family, route.key, SourceKind.STATIC, local):
            hops[id(hop)] = hop

    def refresh_gateways(self) -> list[NextHop]:
        """The gateways of static routes may resolve differently now: bring what resolves through them in line."""
        hops: dict[int, NextHop] = {}
        for route in self.static:
            if route.kind is StaticKind.GATEWAY:
                self._resolve_through(route, hops)
        return list(hops.values())

    def count(self) -> dict[str, int]:
        """How many routes each local source has, over both families."""
        counts = {kind.value: 0 for kind in self.sources}
        for family in FAMILIES:
            for entry in self.shared.ribs[family].table.values():
                for path in entry if isinstance(entry, tuple) else (entry,):
                    if not path.source.is_bgp:
                        counts[path.source.name] += 1
        return counts
