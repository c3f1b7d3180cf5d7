"""The cluster's nodes with what the defaults give them, in order and by address; a change costs its own."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping
from operator import attrgetter

from attrs import evolve, frozen

from config import resources as r
from config.snapshot import changed_since

__all__ = ["Host", "Hosts"]


@frozen
class Host:
    """A node with what the defaults give it. The same object as long as nothing of it changes."""

    node: r.Node
    asn: int
    """Its own, else the cluster's."""
    port: int | None
    """The listenPort that configuration gives it; None = none given, so 179."""
    name: str
    """The node's name."""


Make = Callable[[r.Node], Host]
_name = attrgetter("name")


@frozen(eq=False)
class Hosts:
    """All nodes at one moment. `after` gives them at a later one."""

    nodes: Mapping[str, r.Node]
    names: tuple[str, ...]
    """In order."""
    named: tuple[Host, ...]
    """By name, in the same order."""
    by_address: Mapping[str, tuple[Host, ...]]
    """Those of one address by name."""
    shared: int
    """How many addresses are those of several nodes."""

    @classmethod
    def of(cls, nodes: Mapping[str, r.Node], make: Make, known: Iterable[Host] = ()) -> Hosts:
        """From nothing; those that are equal to `known` ones are these."""
        names = tuple(sorted(nodes))
        held = {host.name: host for host in known}
        named = tuple(_kept(held, make(nodes[name])) for name in names)
        by_address: dict[str, tuple[Host, ...]] = {}
        for host in named:
            for address in _addresses(host):
                by_address[address] = (*by_address.get(address, ()), host)
        return cls(nodes, names, named, by_address, sum(len(there) > 1 for there in by_address.values()))

    def after(self, nodes: Mapping[str, r.Node], make: Make) -> Hosts:
        """With other nodes; `make` must be what it was before."""
        changed = changed_since(nodes, self.nodes)
        if changed is None:
            return Hosts.of(nodes, make, self.named)
        names, named = list(self.names), list(self.named)
        gone: list[Host] = []
        come: list[Host] = []
        for name in changed:
            place = bisect_left(names, name)
            known = named[place] if place < len(names) and names[place] == name else None
            host = make(nodes[name]) if name in nodes else None
            if host == known:
                continue
            if known is not None:
                gone.append(known)
                del names[place], named[place]
            if host is not None:
                come.append(host)
                names.insert(place, name)
                named.insert(place, host)
        if not gone and not come:
            return evolve(self, nodes=nodes)
        by_address, shared = self._moved(gone, come)
        return Hosts(nodes, tuple(names), tuple(named), by_address, shared)

    def _moved(self, gone: Iterable[Host], come: Iterable[Host]) -> tuple[dict[str, tuple[Host, ...]], int]:
        by_address, shared = dict(self.by_address), self.shared

        def put(address: str, there: tuple[Host, ...]) -> None:
            nonlocal shared
            shared += (len(there) > 1) - (len(by_address.pop(address, ())) > 1)
            if there:
                by_address[address] = there

        for host in gone:
            for address in _addresses(host):
                put(address, tuple(other for other in by_address[address] if other is not host))
        for host in come:
            for address in _addresses(host):
                put(address, tuple(sorted((*by_address.get(address, ()), host), key=_name)))
        return by_address, shared


def _kept(held: Mapping[str, Host], made: Host) -> Host:
    old = held.get(made.name)
    return old if old is not None and old == made else made


def _addresses(host: Host) -> set[str]:
    return {address for address in (host.node.ipv4_address, host.node.ipv6_address) if address}
