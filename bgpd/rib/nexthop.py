"""Next-hop resolution (RFC 4271 §9.1.2.1).

A BGP next hop resolves through the host's own routes only (kernel, direct, static), never through a route learned by
BGP, so a default route from a ToR cannot swallow the way to the other nodes. An unresolved path is ineligible.
"""

from __future__ import annotations

from weakref import ref

from bgpd.family import IPV4_UNICAST, IPV6_UNICAST, Family, format_address
from bgpd.policy.prefixes import truncate
from bgpd.policy.terms import SourceKind
from bgpd.routes import Hop, LocalRoute

_SMALLEST_SWEEP = 1024
_ZERO = bytes(4)
_Level = dict[bytes, dict[SourceKind, LocalRoute]]


class NextHop:
    """What one next-hop address resolves to now. One object an address; replaced in place when the answer changes."""

    __slots__ = ("__weakref__", "address", "cost", "hops", "interface", "reachable", "reason")

    def __init__(self, address: bytes) -> None:
        self.address = address
        self.reachable = False
        self.hops: tuple[Hop, ...] = ()
        self.cost = 1
        self.interface = ""
        self.reason = "not looked up yet"

    def answer(self) -> tuple[bool, tuple[Hop, ...], int, str]:
        """All that a consumer acts on, for comparison."""
        return self.reachable, self.hops, self.cost, self.interface

    def __repr__(self) -> str:
        return f"NextHop({format_address(self.address)}, {self.reason})"


def always(address: bytes = b"", reason: str = "local") -> NextHop:
    """A next hop that needs no look-up: local routes, and speakers without a kernel."""
    hop = NextHop(address)
    hop.reachable, hop.cost, hop.reason = True, 0, reason
    return hop


class NextHopTable:
    """Resolves next hops against the host's routes, and tells which answers a change of those routes alters."""

    def __init__(self, resolve: bool = True) -> None:
        self.resolve = resolve
        self._hops: dict[bytes, ref[NextHop]] = {}
        self._sweep_at = _SMALLEST_SWEEP
        self._routes: dict[Family, dict[int, _Level]] = {
            IPV4_UNICAST: {},
            IPV6_UNICAST: {},
        }
        self._levels: dict[Family, list[tuple[bytes, int, int, _Level]]] = {IPV4_UNICAST: [], IPV6_UNICAST: []}
        """The same, longest prefixes first, without lengths that no route has: length octet, whole octets, and the mask
        of the one behind them, or 0."""
        self._own: frozenset[bytes] = frozenset()

    def get(self, address: bytes) -> NextHop:
        """The NextHop of an address (4, 16 or 32 octets: global and link-local). It lives as long as a path has it."""
        entry = self._hops.get(address)
        if entry is not None:
            found = entry()
            if found is not None:
                return found
        elif len(self._hops) >= self._sweep_at:
            self._hops = {hop.address: ref(hop) for hop in self._alive()}
            self._sweep_at = max(_SMALLEST_SWEEP, 2 * len(self._hops))
        hop = NextHop(address)
        self._hops[address] = ref(hop)
        self._look_up(hop)
        return hop

    def _alive(self) -> list[NextHop]:
        return [hop for entry in self._hops.values() if (hop := entry()) is not None]

    def __len__(self) -> int:
        return len(self._alive())

    def local(self, family: Family, key: bytes, kind: SourceKind) -> LocalRoute | None:
        """The host's own route of this kind, as it was given."""
        return self._routes[family].get(key[0], {}).get(key, {}).get(kind)

    def set_own(self, addresses: frozenset[bytes]) -> list[NextHop]:
        """The host's own addresses, which are no usable next hops. Returns next hops whose answer may change."""
        changed = self._own ^ addresses
        self._own = addresses
        return [hop for hop in self._alive() if hop.address[:16] in changed]

    def set_route(self, family: Family, key: bytes, kind: SourceKind, route: LocalRoute | None) -> list[NextHop]:
        """Apply one change of the host's routes. Returns next hops whose answer may change; `refresh` them."""
        level = self._routes[family].setdefault(key[0], {})
        before = len(level)
        routes = level.setdefault(key, {})
        if route is None:
            routes.pop(kind, None)
        else:
            routes[kind] = route
        if not routes:
            del level[key]
        if not before or not level:
            used = sorted((length for length, level in self._routes[family].items() if level), reverse=True)
            self._levels[family] = [
                (bytes((length,)), length >> 3, 0xFF00 >> (length & 7) & 0xFF, self._routes[family][length])
                for length in used
            ]
        return self._covered(family, key)

    def _covered(self, family: Family, key: bytes) -> list[NextHop]:
        if not self.resolve:
            return []
        length, octets = key[0], family.octets
        if length == family.bits:
            entry = self._hops.get(key[1:])
            found = entry() if entry is not None else None
            return [found] if found is not None else []
        return [
            hop
            for hop in self._alive()
            if len(hop.address) >= octets
            and (octets == 4) == (len(hop.address) == 4)
            and truncate(bytes((family.bits,)) + hop.address[:16], length) == key
        ]

    def look_up(self, address: bytes) -> NextHop:
        """What the address would resolve to now, without changing anything: compare with `get(address).answer()`."""
        hop = NextHop(address)
        self._look_up(hop)
        return hop

    def refresh(self, hop: NextHop, new: NextHop) -> None:
        """Put a new answer into force."""
        hop.reachable, hop.hops, hop.cost = new.reachable, new.hops, new.cost
        hop.interface, hop.reason = new.interface, new.reason

    def _look_up(self, hop: NextHop) -> None:
        address = hop.address
        if not self.resolve:
            hop.reachable, hop.cost, hop.reason = True, 0, "taken as it is, since this speaker has no kernel role"
            return
        if len(address) == 4 and 0 < address[0] < 224 and address[0] != 127:
            family = IPV4_UNICAST  # as most are: nothing else is to be asked about it
        else:
            if reason := unusable(address):
                hop.reason = reason
                return
            family = IPV4_UNICAST if len(address) == 4 else IPV6_UNICAST
            address = address[:16]
        if address in self._own:
            hop.reason = "next hop is an address of this host"
            return
        route = self._longest(family, address)
        if route is None:
            hop.reason = "no local route covers it"
        elif not route.reachable or not route.hops:
            hop.reason = f"covered by an unreachable or blackhole route ({route.label})"
        else:
            self._take(hop, route, address)

    def _take(self, hop: NextHop, route: LocalRoute, address: bytes) -> None:
        hop.reachable = True
        if len(route.hops) == 1:
            (way,) = route.hops
            hop.cost = 1 if way.gateway else 0
            hop.hops = route.hops if way.gateway else (Hop(address, way.interface, way.onlink),)
        else:
            hop.cost = 0 if any(not h.gateway for h in route.hops) else 1
            hop.hops = tuple(h if h.gateway else Hop(address, h.interface, h.onlink) for h in route.hops)
        hop.interface = route.interface
        hop.reason = f"via {route.label}"

    def _longest(self, family: Family, address: bytes) -> LocalRoute | None:
        for length, whole, mask, level in self._levels[family]:
            # As `truncate`, which is a third of a look-up's cost.
            key = length + address[:whole]
            routes = level.get(key + bytes((address[whole] & mask,)) if mask else key)
            if routes:
                if len(routes) == 1:
                    (route,) = routes.values()
                    return route
                # Direct before static before kernel: the order of preference.
                for kind in (SourceKind.DIRECT, SourceKind.STATIC, SourceKind.KERNEL):
                    if kind in routes:
                        return routes[kind]
        return None


def unusable(address: bytes) -> str:
    """Why an address can never be a next hop (RFC 4271 §5.1.3, §6.3), or ""."""
    if len(address) == 4:
        if address == _ZERO:
            return "next hop 0.0.0.0"
        if address[0] == 127:
            return "next hop is a loopback address"
        if address[0] >= 224:
            return "next hop is a multicast or reserved address"
        return ""
    if len(address) < 16:
        return "no next hop"
    if not any(address[:15]) and address[15] <= 1:
        return "next hop is :: or ::1"
    return "next hop is a multicast address" if address[0] == 0xFF else ""
