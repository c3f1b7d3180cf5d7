"""From Loc-RIB to forwarding entries: which best paths the kernel gets, and in what form (Calico reference §8.2 to
§8.4)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from bgpd.family import Family
from bgpd.policy.chain import DEFAULT_LOCAL_PREF, Chain, Leaf, Node, Subject, ending, pour
from bgpd.policy.terms import SetTunnel, SourceKind, Term
from bgpd.rib.decision import best, gateways, multipath, paths
from bgpd.rib.loc_rib import LocRib
from bgpd.rib.path import Entry, Path
from bgpd.routes import FibRoute, Hop, RouteKind
from bgpd.settings import FibSettings

_NOT_OURS = (SourceKind.KERNEL, SourceKind.DIRECT)
_UNICAST = RouteKind.UNICAST
_MAX_METRIC = 0xFFFFFFFF


class Forwarding:
    """Works out the kernel's wanted entries for changed keys, a group of equal Loc-RIB entries at a time."""

    def __init__(self, settings: FibSettings, devices: Mapping[str, int] | None = None) -> None:
        self.settings = settings
        self.devices = devices or {}
        """Interfaces that are up: name -> index. A tunnel whose device is not among them is not used."""
        self._tunnels = {family: names for family, terms in settings.chains if (names := _devices_named(terms))}
        self._chains = {family: Chain(terms, "no kernel term accepts it") for family, terms in settings.chains}
        self._trees: dict[tuple[Family, str], Node] = {}
        """Decision trees of chains that look at nothing of a path but its kind of source."""

    def wanted(self, rib: LocRib, keys: Iterable[bytes]) -> dict[bytes, FibRoute | None]:
        """The forwarding entry that each key should have; None = none of ours."""
        groups: dict[Entry | None, list[bytes]] = {}
        unique = list(dict.fromkeys(keys))
        if len(unique) == 1:
            # The change of a quiet day: what follows would cost it three times as much.
            key = unique[0]
            return {key: self._wanted_one(rib.family, rib.table.get(key), key)}
        last: Entry | None = None
        group: list[bytes] = groups.setdefault(None, [])
        for key, entry in zip(unique, map(rib.table.get, unique), strict=True):
            # Keys of one UPDATE come one after another.
            if entry is not last:
                last, group = entry, groups.setdefault(entry, [])
            group.append(key)
        result: dict[bytes, FibRoute | None] = {}
        by_source = self._chains[rib.family].by_source
        alike: list[tuple[Path, list[bytes]]] = []
        for entry, group in groups.items():
            chosen = best(entry)
            if entry is None or chosen is None or (kind := chosen.source.kind) in _NOT_OURS:
                result.update(dict.fromkeys(group))
            elif by_source:
                result.update(dict.fromkeys(group, self._route(entry, chosen)))
                if alike and alike[-1][0].source.kind is kind:
                    alike[-1][1].extend(group)
                else:
                    alike.append((chosen, group.copy()))
            else:
                self._pour(rib.family, entry, chosen, group, result)
        for chosen, group in alike:
            # The chain looks at nothing of a path but its kind of source: it is asked once for many.
            for leaf, part in pour(self._node(rib.family, chosen), group):
                if not leaf.accepted:
                    result.update(dict.fromkeys(part))
        return result

    def _wanted_one(self, family: Family, entry: Entry | None, key: bytes) -> FibRoute | None:
        chosen = best(entry)
        if entry is None or chosen is None or chosen.source.kind in _NOT_OURS:
            return None
        leaf = ending(self._node(family, chosen), key)
        if not leaf.accepted:
            return None
        if family not in self._tunnels or not chosen.source.is_bgp:
            return self._route(entry, chosen)
        return self._tunnelled(family, entry, chosen, leaf, (key,))[key]

    def _pour(
        self, family: Family, entry: Entry, chosen: Path, keys: Sequence[bytes], result: dict[bytes, FibRoute | None]
    ) -> None:
        for leaf, part in pour(self._node(family, chosen), keys):
            if leaf.accepted and family in self._tunnels and chosen.source.is_bgp:
                result.update(self._tunnelled(family, entry, chosen, leaf, part))
            else:
                result.update(dict.fromkeys(part, self._route(entry, chosen) if leaf.accepted else None))

    def use_devices(self, devices: Mapping[str, int]) -> list[Family]:
        """The interfaces that are up now; returns the families whose routes may be other ones by that."""
        old, self.devices = self.devices, devices
        return [
            family
            for family, names in self._tunnels.items()
            if any(old.get(name) != devices.get(name) for name in names)
        ]

    def explain(self, family: Family, entry: Entry | None, key: bytes) -> tuple[FibRoute | None, str]:
        """The wanted entry of one key, and why it is so."""
        chosen = best(entry)
        if entry is None:
            return None, "no path"
        if chosen is None:
            return None, "no eligible path"
        if chosen.source.kind in _NOT_OURS:
            return None, f"the best path is the host's own ({chosen.label})"
        leaf = ending(self._node(family, chosen), key)
        if not leaf.accepted:
            return None, leaf.label
        route = self._wanted_one(family, entry, key)
        if family not in self._tunnels or not chosen.source.is_bgp:
            return route, leaf.label
        return route, leaf.label + self._about_tunnel(chosen, leaf.subject.tunnel)

    def _node(self, family: Family, path: Path) -> Node:
        if not self._chains[family].by_source:
            return self._settle(family, path)
        place = (family, path.source.kind._value_)  # an enum is hashed in Python
        tree = self._trees.get(place)
        if tree is None:
            tree = self._trees[place] = self._settle(family, path)
        return tree

    def _settle(self, family: Family, path: Path) -> Node:
        subject = Subject(path.attrs, path.source.kind, path.outgoing_interface, path.metric, path.preference)
        if path.source.is_bgp:
            subject.metric = self._metric(path)
        return self._chains[family].settle(subject)

    def _route(self, entry: Entry, chosen: Path) -> FibRoute | None:
        if chosen.fixed is not None:
            return chosen.fixed
        hops = chosen.next_hop.hops
        if entry is not chosen or len(hops) > 1:
            hops = gateways(paths(entry), chosen, self.settings.multipath)
        if not hops:
            return None
        metric = kernel_metric(self.settings.metric_base, chosen.attrs.local_pref) if chosen.source.is_bgp else 0
        return FibRoute(_UNICAST, hops, metric)

    def _tunnelled(
        self, family: Family, entry: Entry, chosen: Path, leaf: Leaf, keys: Sequence[bytes]
    ) -> dict[bytes, FibRoute | None]:
        """BGP routes under a chain that names tunnels: others have no BGP next hop, and a gateway (reachableBy) need be
        no end of any tunnel. Each path of an ECMP set goes the way that the chain gives *it*: BIRD's multipath routes
        forget the tunnel, and with it the packets."""
        ways: dict[bytes, tuple[Hop, ...]] = dict.fromkeys(keys, self._way(chosen, leaf.subject.tunnel))
        for path in multipath(paths(entry), chosen)[1:]:
            for other, part in pour(self._node(family, path), keys):
                way = self._way(path, other.subject.tunnel)
                for key in part:
                    ways[key] += way
        metric = self._metric(chosen)
        made: dict[tuple[Hop, ...], FibRoute | None] = {}
        for way in set(ways.values()):
            hops = tuple(dict.fromkeys(way))[: self.settings.multipath]
            hops = tuple(sorted(hops, key=lambda hop: (hop.gateway, hop.interface)))
            made[way] = FibRoute(_UNICAST, hops, metric) if hops else None
        return {key: made[way] for key, way in ways.items()}

    def _way(self, path: Path, tunnel: str) -> tuple[Hop, ...]:
        """Through a tunnel packets go to the BGP next hop itself, which need not be a neighbour there (onlink), not to
        the gateway that leads to it. IPIP carries IPv4 to IPv4 addresses only."""
        device, address = self.devices.get(tunnel), path.next_hop.address
        if device is None or len(address) != 4:
            return path.next_hop.hops
        return (Hop(address, device, True),)

    def _about_tunnel(self, path: Path, tunnel: str) -> str:
        if not tunnel:
            return ""
        if tunnel not in self.devices:
            return f"; {tunnel} does not exist or is down: without the tunnel"
        return f"; through {tunnel}" if len(path.next_hop.address) == 4 else "; no IPv4 next hop: without the tunnel"

    def _metric(self, path: Path) -> int:
        return kernel_metric(self.settings.metric_base, path.attrs.local_pref)


def kernel_metric(base: int, local_pref: int | None) -> int:
    """`base` - LOCAL_PREF, in 32 bits: one above `base` wraps to the lowest priority there is, as with BIRD."""
    return (base - (DEFAULT_LOCAL_PREF if local_pref is None else local_pref)) & _MAX_METRIC


def _devices_named(terms: tuple[Term, ...]) -> frozenset[str]:
    return frozenset(action.device for term in terms for action in term.actions if isinstance(action, SetTunnel))


def same_way(old: Path | None, new: Path | None, old_best: Path | None, new_best: Path | None) -> bool:
    """A path came or went beside the best one, with the same next hop: the second reflector's word. Packets do not
    care."""
    if old_best is None or old_best is not new_best or old is new:
        return False
    hop = new_best.next_hop
    if old is not None and (old is new_best or old.next_hop is not hop):
        return False
    return new is None or (new is not new_best and new.next_hop is hop)
