"""Whose kernel route is it: links, addresses and foreign routes -> the host's own routes for the Loc-RIB. Pure.

* DIRECT: one route for each address of an interface that is up, by its subnet, unless the interface matches an ignored
  pattern. Addresses of link or host scope give none.
* KERNEL: every unicast, blackhole, unreachable or prohibit route of the table, but those that the kernel made itself
  (protocols unspec, redirect, kernel), our own, and BIRD's, whose place we take. Of several routes to one prefix the
  one with the lowest metric counts. Routes for some packets only (TOS, source, input interface) and link-local,
  loopback and multicast destinations are left out.

Nothing is told twice: `take` gives what differs from what was given before.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from copy import copy

from bgpd.family import IPV4_UNICAST, IPV6_UNICAST
from bgpd.fib import messages as nl
from bgpd.fib.objects import NexthopObjects, RouteName
from bgpd.policy.terms import SourceKind
from bgpd.routes import Hop, LocalChange, LocalRoute
from bgpd.settings import LearnSettings

FELIX = 80
BOOT = 3
BIRD = 12
_DROPS = {nl.RTN_BLACKHOLE: ", blackhole", nl.RTN_UNREACHABLE: ", unreachable", nl.RTN_PROHIBIT: ", prohibit"}
_KERNELS = "the kernel made it itself, and the addresses of interfaces stand for such routes"
_NEVER = {0: _KERNELS, 1: _KERNELS, 2: _KERNELS, BIRD: "routes of BIRD's protocol are not learned: we take its place"}
_SPECIAL = "it is for some packets only (TOS, source or input interface)"
_TYPE = "it is neither unicast nor blackhole, unreachable or prohibit"
_TYPES = frozenset({nl.RTN_UNICAST, nl.RTN_BLACKHOLE, nl.RTN_UNREACHABLE, nl.RTN_PROHIBIT})
_FAMILIES = {nl.AF_INET: IPV4_UNICAST, nl.AF_INET6: IPV6_UNICAST}
_PROTOCOLS = {
    0: "unspecified",
    1: "redirect",
    2: "kernel",
    3: "boot",
    4: "static",
    8: "gated",
    9: "router advertisement",
    11: "zebra",
    12: "BIRD",
    16: "DHCP",
    18: "keepalived",
    42: "babel",
    80: "Felix",
    186: "BGP",
    188: "OSPF",
    196: "static of FRR",
}

_Name = tuple[SourceKind, int, bytes]


def protocol_name(protocol: int) -> str:
    """rtm_protocol for people: "80 (Felix)"."""
    name = _PROTOCOLS.get(protocol)
    return f"{protocol} ({name})" if name else str(protocol)


def compile_patterns(patterns: Iterable[str]) -> re.Pattern[str]:
    """Shell patterns, of which only `*` is special, as one expression for a whole interface name."""
    return re.compile("|".join(".*".join(map(re.escape, pattern.split("*"))) for pattern in patterns) or r"(?!)")


def _ordinary(afi: int, key: bytes) -> bool:
    """Whether a prefix is neither link-local nor loopback nor multicast (nor of class E)."""
    length, first = key[0], key[1] if len(key) > 1 else 0
    if afi == nl.AF_INET:
        if length >= 8 and first in (0, 127):
            return False
        return not (length >= 4 and first >= 224) and not (length >= 16 and key[1:3] == b"\xa9\xfe")
    if length >= 10 and first == 0xFE and key[2] & 0xC0 == 0x80:
        return False
    return not (length >= 8 and first == 0xFF) and not (length == 128 and key[1:16] == bytes(15))


class Learner:
    """The host's own routes."""

    def __init__(self, settings: LearnSettings, own_protocol: int) -> None:
        self.links: dict[int, nl.Link] = {}
        self._addresses: dict[nl.Address, None] = {}
        self._networks: dict[tuple[int, bytes], dict[nl.Address, None]] = {}
        self._routes: dict[int, dict[bytes, list[nl.RouteShape]]] = {nl.AF_INET: {}, nl.AF_INET6: {}}
        self._objects = NexthopObjects()
        self._address_set: frozenset[bytes] | None = None
        self._devices: dict[str, int] | None = None
        self._told: dict[_Name, LocalRoute] = {}
        self._dirty: dict[_Name, None] = {}
        self._seen: dict[int, dict[bytes, list[nl.RouteShape]]] = {}
        self._dumping = -1
        self._touched: set[tuple[int, bytes]] = set()
        self.suspect = False
        """A nexthop object that routes lead to changed: a full dump is wanted. The caller clears it."""
        self.reconfigure(settings, own_protocol)

    def reconfigure(self, settings: LearnSettings, own_protocol: int) -> None:
        """New settings; `take` gives the differences. Another table or own protocol also needs a dump."""
        self.settings = settings
        self._excluded = {own_protocol: "its protocol is our own"} | _NEVER
        self._elsewhere = f"routes are learned from table {settings.table} alone"
        self._ignored = compile_patterns(settings.ignored_interfaces)
        for afi, routes in self._routes.items():
            for key in routes:
                self._dirty[SourceKind.KERNEL, afi, key] = None
        self._touch_addresses(self._addresses)

    @property
    def addresses(self) -> frozenset[bytes]:
        """All addresses of this host, packed; the same object until one comes or goes."""
        if self._address_set is None:
            self._address_set = frozenset(address.local for address in self._addresses)
        return self._address_set

    @property
    def devices(self) -> dict[str, int]:
        """The interfaces that are up: name -> index; the same object until one comes, goes or is renamed."""
        if self._devices is None:
            self._devices = {link.name: link.ifindex for link in self.links.values() if link.up}
        return self._devices

    @property
    def changed(self) -> bool:
        """Whether `take`, `addresses` or `devices` may have something new."""
        return bool(self._dirty) or self._address_set is None or self._devices is None

    def interface_name(self, ifindex: int) -> str:
        """Name of an interface; its number where it is unknown."""
        link = self.links.get(ifindex)
        return link.name if link else str(ifindex)

    # -------------------------------------------------------------- inputs

    def on_link(self, link: nl.Link) -> nl.Link | None:
        """A link is new or changed; returns what it was before."""
        old = self.links.get(link.ifindex)
        self.links[link.ifindex] = link
        if old is None or old.up != link.up or old.name != link.name:
            self._devices = None
            self._touch_addresses(address for address in self._addresses if address.ifindex == link.ifindex)
        if old is not None and old.name != link.name:
            for afi, key, shapes in self._using(link.ifindex):
                if shapes:
                    self._dirty[SourceKind.KERNEL, afi, key] = None
        return old

    def on_link_gone(self, ifindex: int) -> None:
        """A link was removed; with it, often without a word, went its addresses and routes."""
        self.links.pop(ifindex, None)
        self._devices = None
        for address in [address for address in self._addresses if address.ifindex == ifindex]:
            self.on_address(False, address)
        for afi, key, shapes in list(self._using(ifindex)):
            kept = [shape for shape in shapes if any(hop[1] != ifindex for hop in shape.hops) or not shape.hops]
            self._set(afi, key, kept)

    def _using(self, ifindex: int) -> Iterable[tuple[int, bytes, list[nl.RouteShape]]]:
        for afi, routes in self._routes.items():
            for key, shapes in routes.items():
                if any(shape.uses(ifindex) for shape in shapes):
                    yield afi, key, shapes

    def on_address(self, new: bool, address: nl.Address) -> None:
        """An address came or went."""
        name = (address.family, address.network)
        self._address_set = None
        if new:
            self._addresses[address] = None
            self._networks.setdefault(name, {})[address] = None
        elif address in self._addresses:
            del self._addresses[address]
            del self._networks[name][address]
            if not self._networks[name]:
                del self._networks[name]
        self._touch_addresses((address,))

    def _touch_addresses(self, addresses: Iterable[nl.Address]) -> None:
        for address in addresses:
            self._dirty[SourceKind.DIRECT, address.family, address.network] = None

    def on_nexthop(self, new: bool, item: nl.NexthopObject) -> None:
        """A nexthop object of anyone came, changed or went."""
        self._objects_changed(self._objects.put(new, item))

    def _objects_changed(self, routes: list[RouteName]) -> None:
        """Objects that these routes lead to are gone, and the routes with them, or lead elsewhere. The kernel need not
        tell of the routes: a dump does."""
        if not routes:
            return
        self.suspect = True
        for afi, key in routes:
            shapes = self._routes[afi][key]
            self._set(afi, key, [item for item in shapes if not item.nexthop_id or item.nexthop_id in self._objects])

    def _refusal(self, shape: nl.RouteShape) -> str:
        """Why no route of this shape is learned, or ""."""
        if shape.protocol in self._excluded:
            return self._excluded[shape.protocol]
        if shape.table != self.settings.table:
            return self._elsewhere
        if shape.special:
            return _SPECIAL
        return "" if shape.type in _TYPES else _TYPE

    def why_not(self, afi: int, key: bytes, found: nl.RouteShape | None) -> str:
        """Why the host has no local route to exactly this prefix: a sentence about the kernel's route to it (`found`)
        or about the address of an interface that it is the subnet of; "" if there is neither."""
        if (afi, key) in self._networks and not self.settings.direct:
            return "addresses of interfaces are not learned"
        for address in self._networks.get((afi, key), ()):
            name, link = self.interface_name(address.ifindex), self.links.get(address.ifindex)
            if self._ignored.fullmatch(name):
                return f"{name} has an address in it, and is among the ignored interfaces"
            if link is None or not link.up:
                return f"{name} has an address in it, and is down"
            if address.scope >= nl.SCOPE_LINK:
                return f"{name} has an address in it, of link or host scope"
        if found is None:
            return ""
        reason = self._refusal(found)
        if not reason and not _ordinary(afi, key):
            reason = "link-local, loopback and multicast destinations are not learned"
        if not reason and not self.settings.kernel:
            reason = "kernel routes are not learned"
        where = f"protocol {protocol_name(found.protocol)}, table {found.table}"
        return f"the kernel has it ({where}), but {reason}" if reason else ""

    def on_route_event(self, new: bool, flags: int, afi: int, key: bytes, shape: nl.RouteShape) -> None:
        """A route message."""
        routes = self._routes[afi].get(key, [])
        if self._refusal(shape):
            # The kernel tells of a replacement only by what is there now, which may be ours or its own.
            if new and flags & nl.F_REPLACE and routes and shape.table == self.settings.table and not shape.special:
                self._set(afi, key, [item for item in routes if item.metric != shape.metric])
            return
        if not new:
            rivals = [item for item in routes if item.metric == shape.metric]
            gone = next((item for item in rivals if item.same_route(shape)), rivals[0] if rivals else None)
            self._set(afi, key, [item for item in routes if item is not gone])
        elif flags & nl.F_APPEND:
            self._set(afi, key, [*routes, shape])
        elif flags & nl.F_REPLACE:
            self._set(afi, key, [shape, *(item for item in routes if item.metric != shape.metric)])
        else:
            others = [item for item in routes if item.metric != shape.metric or not item.same_route(shape)]
            self._set(afi, key, [shape, *others])

    def _set(self, afi: int, key: bytes, shapes: list[nl.RouteShape]) -> None:
        routes = self._routes[afi]
        self._objects.lead((afi, key), routes.get(key, ()), shapes)
        if shapes:
            routes[key] = shapes
        else:
            routes.pop(key, None)
        self._dirty[SourceKind.KERNEL, afi, key] = None
        if self._dumping >= 0:
            self._touched.add((afi, key))

    # --------------------------------------------------------------- dumps

    def dump_links(self, links: Iterable[nl.Link]) -> None:
        """All links."""
        found = {link.ifindex: link for link in links}
        for ifindex in self.links.keys() - found.keys():
            self.on_link_gone(ifindex)
        for link in found.values():
            self.on_link(link)

    def dump_addresses(self, addresses: Iterable[nl.Address]) -> None:
        """All addresses."""
        found = dict.fromkeys(addresses)
        for address in [address for address in self._addresses if address not in found]:
            self.on_address(False, address)
        for address in found:
            if address not in self._addresses:
                self.on_address(True, address)

    def dump_nexthops(self, items: Iterable[nl.NexthopObject]) -> None:
        """All nexthop objects."""
        self._objects_changed(self._objects.replace(items))

    def begin_dump(self, ifindex: int = 0) -> None:
        """A dump begins: of the whole table, or of the routes that leave by one interface."""
        self._dumping = ifindex
        self._touched.clear()
        self._seen = {nl.AF_INET: {}, nl.AF_INET6: {}}

    def dump_route(self, afi: int, key: bytes, shape: nl.RouteShape) -> None:
        """One route of the dump."""
        if not self._refusal(shape):
            self._seen[afi].setdefault(key, []).append(shape)

    def end_dump(self, complete: bool) -> None:
        """The dump is over. An incomplete one takes nothing away."""
        ifindex, self._dumping = self._dumping, -1
        for afi, routes in self._routes.items():
            seen = self._seen[afi]
            if complete:
                for key in [key for key in routes if key not in seen]:
                    self._compare(afi, key, [], ifindex)
            for key, shapes in seen.items():
                self._compare(afi, key, shapes if complete else [*shapes, *self._other(afi, key, shapes)], ifindex)
        self._seen = {}

    def _other(self, afi: int, key: bytes, shapes: list[nl.RouteShape]) -> list[nl.RouteShape]:
        metrics = {shape.metric for shape in shapes}
        return [shape for shape in self._routes[afi].get(key, ()) if shape.metric not in metrics]

    def _compare(self, afi: int, key: bytes, found: list[nl.RouteShape], ifindex: int) -> None:
        if (afi, key) in self._touched:
            return
        have = self._routes[afi].get(key, [])
        if ifindex:
            # A group that lost a member no longer leads by the interface; what became of objects is known already.
            objects = {(item.metric, item.nexthop_id) for item in found}
            found = found + [
                item
                for item in have
                if ((item.metric, item.nexthop_id) not in objects if item.nexthop_id else not item.uses(ifindex))
            ]
        if found != have:
            self._set(afi, key, found)

    # ------------------------------------------------------------- outputs

    def take(self) -> list[LocalChange]:
        """What changed since the last call."""
        changes: list[LocalChange] = []
        for name in self._dirty:
            kind, afi, key = name
            route = self._direct(afi, key) if kind is SourceKind.DIRECT else self._kernel(afi, key)
            if route == self._told.get(name):
                continue
            if route is None:
                del self._told[name]
            else:
                self._told[name] = route
            changes.append(LocalChange(kind, _FAMILIES[afi], key, route))
        self._dirty.clear()
        return changes

    def under(self, settings: LearnSettings) -> list[LocalChange]:
        """What other settings would change in the routes that addresses of interfaces give; nothing is changed."""
        other = copy(self)
        other.settings, other._ignored = settings, compile_patterns(settings.ignored_interfaces)
        changes: list[LocalChange] = []
        for afi, key in self._networks:
            route = other._direct(afi, key)
            if route != self._told.get((SourceKind.DIRECT, afi, key)):
                changes.append(LocalChange(SourceKind.DIRECT, _FAMILIES[afi], key, route))
        return changes

    def routes(self) -> list[LocalRoute]:
        """All that has been told and holds."""
        return list(self._told.values())

    def _direct(self, afi: int, key: bytes) -> LocalRoute | None:
        if not self.settings.direct:
            return None
        indexes = sorted(
            address.ifindex for address in self._networks.get((afi, key), ()) if address.scope < nl.SCOPE_LINK
        )
        for ifindex in indexes:
            link = self.links.get(ifindex)
            if link is None or not link.up or self._ignored.fullmatch(link.name):
                continue
            label = f"address of {link.name}"
            hops = (Hop(b"", ifindex),)
            return LocalRoute(_FAMILIES[afi], key, SourceKind.DIRECT, hops, 0, link.name, 0, label)
        return None

    def _kernel(self, afi: int, key: bytes) -> LocalRoute | None:
        routes = self._routes[afi].get(key)
        if not self.settings.kernel or not routes or not _ordinary(afi, key):
            return None
        shape = min(routes, key=lambda item: item.metric)
        hops = tuple(Hop(*hop) for hop in shape.hops or self._objects.hops(shape.nexthop_id))
        interface = self.interface_name(hops[0].interface) if len(hops) == 1 else ""
        return LocalRoute(
            _FAMILIES[afi],
            key,
            SourceKind.KERNEL,
            hops,
            shape.metric,
            interface,
            shape.protocol,
            _label(shape, interface),
            reachable=shape.type == nl.RTN_UNICAST,
        )


def _label(shape: nl.RouteShape, interface: str) -> str:
    if shape.protocol == FELIX and shape.type == nl.RTN_UNICAST and interface.startswith("cali"):
        return "kernel route, protocol 80 (Felix workload)"
    if shape.protocol == BOOT and interface.startswith("cali"):
        return "kernel route, protocol 3 (Felix workload)"
    drops = _DROPS.get(shape.type, "")
    return f"kernel route, protocol {protocol_name(shape.protocol)}{drops}"
