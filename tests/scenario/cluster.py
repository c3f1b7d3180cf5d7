"""Several Speakers joined in memory, with a fake clock and a fake kernel: whole scenarios without a socket or a
sleep."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from math import inf

from bgpd.effects import Close, Connect, Log, Program, Ready, ReleaseKernel, Send, Spread
from bgpd.family import Family, format_prefix, parse_prefix
from bgpd.policy.terms import SourceKind
from bgpd.routes import FibRoute, Hop, LocalChange, LocalRoute
from bgpd.settings import SpeakerSettings
from bgpd.speaker import Speaker

STEP = 0.05
"""Seconds of fake time a round."""


@dataclass
class Host:
    """One node: its speaker, its kernel table, and what it logged."""

    address: str
    settings: SpeakerSettings
    speaker: Speaker
    kernel: dict[tuple[Family, bytes], FibRoute] = field(default_factory=dict)
    wanted: dict[tuple[Family, bytes], FibRoute | None] = field(default_factory=dict)
    released: bool = False
    alive: bool = True
    log: list[str] = field(default_factory=list)
    writes: int = 0

    def routes(self) -> dict[str, list[str]]:
        """Loc-RIB as text: prefix -> names of the sources, best first."""
        result: dict[str, list[str]] = {}
        for family, rib in self.speaker.ribs.items():
            for key, entry in rib.table.items():
                paths = entry if isinstance(entry, tuple) else (entry,)
                result[format_prefix(family, key)] = [path.source.name for path in paths]
        return result


class Cluster:
    """Hosts by address. `run` lets time pass; `broken` says which pairs of addresses cannot talk."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.hosts: dict[str, Host] = {}
        self.pipes: dict[tuple[str, int], tuple[str, int]] = {}
        self.broken: Callable[[str, str], bool] = lambda a, b: False
        self._ids = 0
        self._queue: deque[tuple[str, int, bytes]] = deque()

    def add(self, address: str, settings: SpeakerSettings) -> Host:
        """A new host, or a new process on the host that was there (its kernel table stays)."""
        speaker = Speaker(settings, self.now, lambda: 1.0)
        old = self.hosts.get(address)
        host = Host(address, settings, speaker)
        if old is not None:
            host.kernel = old.kernel
        self.hosts[address] = host
        return host

    def start(self, address: str) -> None:
        """The host's local routes are in: its speaker begins."""
        host = self.hosts[address]
        host.speaker.start(self.now)
        self._settle(host)

    def local(self, address: str, prefix: str, present: bool = True, gateway: bytes = b"", metric: int = 1024) -> None:
        """A kernel route of the host appears or goes."""
        family, key = parse_prefix(prefix)
        route = None
        if present:
            label = "kernel route, protocol 80 (Felix)"
            hops = (Hop(gateway, 5),)
            route = LocalRoute(family, key, SourceKind.KERNEL, hops, metric, "cali1", 80, label)
        host = self.hosts[address]
        host.speaker.on_local([LocalChange(SourceKind.KERNEL, family, key, route)], self.now)
        self._settle(host)

    def link(self, address: str, prefix: str, present: bool = True) -> None:
        """The host has an address in this subnet, or no longer."""
        family, key = parse_prefix(prefix)
        route = None
        if present:
            route = LocalRoute(family, key, SourceKind.DIRECT, (Hop(b"", 2),), 0, "eth0", 0, "address of eth0")
        host = self.hosts[address]
        host.speaker.on_local([LocalChange(SourceKind.DIRECT, family, key, route)], self.now)
        self._settle(host)

    def reconfigure(self, address: str, settings: SpeakerSettings) -> None:
        """New settings for a running speaker."""
        host = self.hosts[address]
        host.settings = settings
        host.speaker.reconfigure(settings, self.now)
        self._settle(host)

    def kill(self, address: str, silent: bool = False) -> None:
        """The process dies. `silent`: its peers hear nothing, as when the cable is cut."""
        self.hosts[address].alive = False
        for (host, conn), (other, there) in list(self.pipes.items()):
            if host == address:
                del self.pipes[host, conn]
                self.pipes.pop((other, there), None)
                if not silent and self.hosts[other].alive:
                    self.hosts[other].speaker.on_lost(there, "connection reset by peer", self.now)
                    self._settle(self.hosts[other])

    def run(self, seconds: float, until: Callable[[], bool] | None = None) -> bool:
        """Let time pass; stops early, and says True, when `until` holds."""
        end = self.now + seconds
        while self.now < end:
            if until is not None and until():
                return True
            self._deliver()
            self.now += STEP
            for host in list(self.hosts.values()):
                if host.alive and host.speaker.deadline() <= self.now:
                    host.speaker.on_tick(self.now)
                    self._settle(host)
        self._deliver()
        return until() if until is not None else True

    def _deliver(self) -> None:
        while self._queue:
            address, conn, data = self._queue.popleft()
            host = self.hosts[address]
            if host.alive and (address, conn) in self.pipes:
                due = host.speaker.deadline()
                if host.speaker.on_data(conn, data, self.now):
                    self._settle(host)
                else:
                    # As the shell does: no flush, and no look at the deadline.
                    assert host.speaker.deadline() >= due and not host.speaker.take_effects()

    def _settle(self, host: Host) -> None:
        """Carry out what a speaker wants, until it wants nothing more."""
        for _ in range(1000):
            host.speaker.flush(self.now)
            effects = host.speaker.take_effects()
            if not effects:
                # No session's timer is overlooked, whatever short way its octets took.
                due = min((peer.session.deadline() for peer in host.speaker.peers.values()), default=inf)
                assert host.speaker.deadline() <= due
                return
            for effect in effects:
                self._carry_out(host, effect)
        raise AssertionError("a speaker never comes to rest")

    def _carry_out(self, host: Host, effect: object) -> None:
        match effect:
            case Connect(peer=peer):
                self._connect(host, peer.name, peer.address)
            case Send(conn=conn, data=data):
                self._send(host, conn, data)
            case Spread(conns=conns, data=data):
                for conn in conns:
                    self._send(host, conn, data)
            case Ready(conns=conns):
                for conn in conns:
                    while (octets := host.speaker.pull(conn)) is not None:
                        self._send(host, conn, octets)
            case Close(conn=conn):
                self._close(host, conn)
            case Program(family=family, routes=routes):
                self._program(host, family, routes)
            case ReleaseKernel():
                host.released = True
                for place in [p for p in host.kernel if host.wanted.get(p) is None]:
                    del host.kernel[place]
                    host.writes += 1
            case Log(text=text):
                host.log.append(text)

    def _program(self, host: Host, family: Family, routes: dict[bytes, FibRoute | None]) -> None:
        for key, route in routes.items():
            place = (family, key)
            host.wanted[place] = route
            if route is None:
                if host.released and host.kernel.pop(place, None) is not None:
                    host.writes += 1
            elif host.kernel.get(place) != route:
                host.kernel[place] = route
                host.writes += 1

    def _connect(self, host: Host, name: str, address: str) -> None:
        other = self.hosts.get(address)
        if other is None or not other.alive or self.broken(host.address, address):
            host.speaker.on_connect_failed(name, "connection refused", self.now)
            return
        self._ids += 2
        here, there = self._ids, self._ids + 1
        if not other.speaker.on_accepted(there, host.address, address, self.now):
            host.speaker.on_connect_failed(name, "connection closed at once", self.now)
            return
        self.pipes[host.address, here] = (address, there)
        self.pipes[address, there] = (host.address, here)
        host.speaker.on_connected(name, here, host.address, self.now)
        self._settle(other)

    def _send(self, host: Host, conn: int, data: bytes) -> None:
        end = self.pipes.get((host.address, conn))
        if end is not None and not self.broken(host.address, end[0]):
            self._queue.append((*end, data))

    def _close(self, host: Host, conn: int) -> None:
        end = self.pipes.pop((host.address, conn), None)
        if end is None:
            return
        self._deliver_to(end)
        if self.pipes.pop(end, None) is not None and self.hosts[end[0]].alive:
            self.hosts[end[0]].speaker.on_lost(end[1], "connection closed by peer", self.now)
            self._settle(self.hosts[end[0]])

    def _deliver_to(self, end: tuple[str, int]) -> None:
        """What was sent before a close still arrives."""
        rest = [item for item in self._queue if (item[0], item[1]) == end]
        for item in rest:
            self._queue.remove(item)
            self.hosts[end[0]].speaker.on_data(end[1], item[2], self.now)
