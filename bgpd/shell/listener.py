"""Listening sockets: who may connect, with which TCP-MD5 key and TTL, and what happens when descriptors run out."""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
from collections import Counter
from collections.abc import Callable, Iterable
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from operator import attrgetter
from time import monotonic

from bgpd.sequences import parted
from bgpd.settings import PeerSettings, SpeakerSettings
from bgpd.shell import sockopt
from bgpd.shell.connector import user_timeout
from bgpd.shell.logs import RateLimit
from bgpd.shell.pace import ConnectionPace

__all__ = ["BACKLOG", "ListenError", "Listener", "PeerIndex"]

BACKLOG = 4096
"""The kernel bounds it by net.core.somaxconn. asyncio's 100 loses a storm of 500 clients."""
ACCEPT_BATCH = 128
"""Connections accepted in one turn of the loop, so that a flood leaves room for the sessions."""
PAUSE_TIME = 0.25
"""Seconds without accepting after descriptors or memory ran out."""
RETRY_TIME = 5.0
"""Seconds between attempts to open a listener that could not be opened at run time."""

_REFUSAL = b"\xff" * 16 + bytes((0, 21, 3, 6, 5))
"""NOTIFICATION Cease/5, connection rejected: written before there is a session that could."""

_log = logging.getLogger("bgpd.listener")


class ListenError(Exception):
    """A listening socket could not be opened; one sentence with the way out."""


class PeerIndex:
    """Peers by the address that a connection comes from: configured ones first, then the longest dynamic CIDR."""

    def __init__(self, settings: SpeakerSettings) -> None:
        self._at: dict[str, tuple[PeerSettings, ...]] = {}
        """By canonical address, in order of names."""
        self._peers: dict[str, PeerSettings] = {}
        # Those at one address agree in key and TTL rule, or all but one are held down.
        self.held: dict[str, PeerSettings] = {}
        """Peers that are held down, where no other has their address."""
        self._keys: dict[str, str] = {}
        self._hops: Counter[tuple[int, int | None]] = Counter()
        """How many peers and ranges there are of each IP version and TTL rule."""
        networks: list[tuple[IPv4Network | IPv6Network, PeerSettings]]
        networks = [(ip_network(cidr, strict=False), template) for cidr, template in settings.dynamic]
        self._dynamic = sorted(networks, key=lambda entry: -entry[0].prefixlen)
        for network, template in reversed(self._dynamic):
            self._note(str(network), None, template)
        self.replace((), settings.peers)

    def replace(self, gone: Iterable[PeerSettings], come: Iterable[PeerSettings]) -> None:
        """Follow changed peers; the work is theirs alone."""
        at, concerned = self._at, set[str]()
        for peer in gone:
            name = sockopt.canonical(peer.address)
            concerned.add(name)
            at[name] = tuple(other for other in at.get(name, ()) if other is not peer)
        for peer in come:
            name = sockopt.canonical(peer.address)
            concerned.add(name)
            there = at.get(name)
            at[name] = (peer,) if not there else tuple(sorted((*there, peer), key=attrgetter("name")))
        for name in concerned:
            self._choose(name)

    def _choose(self, name: str) -> None:
        """Which of the peers at an address says how it is treated."""
        there = self._at[name]
        if not there:
            del self._at[name]
        running = next((peer for peer in there if not peer.disabled), None)
        self._note(name, self._peers.pop(name, None), running)
        self.held.pop(name, None)
        if running is not None:
            self._peers[name] = running
        elif there:
            self.held[name] = there[0]

    def _note(self, name: str, old: PeerSettings | None, new: PeerSettings | None) -> None:
        version = 6 if ":" in name else 4
        if old is not None:
            self._hops[version, old.ttl_security_hops] -= 1
            self._keys.pop(name, None)
        if new is not None:
            self._hops[version, new.ttl_security_hops] += 1
            if new.password:
                self._keys[name] = new.password

    def find(self, remote: str) -> PeerSettings | None:
        """The peer, or the template of its dynamic range; a link-local address also without its zone."""
        plain = remote.partition("%")[0]
        peer = self._peers.get(remote) or self._peers.get(plain)
        if peer is not None or not self._dynamic or plain in self.held:
            return peer
        address = ip_address(plain)
        return next((template for network, template in self._dynamic if address in network), None)

    def keys(self, version: int) -> dict[str, str]:
        """TCP-MD5 keys by address or CIDR."""
        wanted = version == 6
        return {name: key for name, key in self._keys.items() if (":" in name) is wanted}

    def min_ttl(self, version: int) -> tuple[int, bool]:
        """The TTL below which no peer may be, 0 if some may have any; and whether some use GTSM at all."""
        hops = [hop for (of, hop), number in self._hops.items() if of == version and number]
        limits = [256 - hop for hop in hops if hop is not None]
        return (min(limits) if limits and len(limits) == len(hops) else 0), bool(limits)


class _Socket:
    """One listening socket and the keys that are set on it."""

    __slots__ = ("_scope", "address", "keys", "listening", "port", "sock", "version")

    def __init__(self, address: str, port: int) -> None:
        self.address = address
        self.port = port
        self.version = 6 if ":" in address else 4
        self.keys: dict[str, str] = {}
        self.listening = False
        self.sock = socket.socket(
            socket.AF_INET6 if self.version == 6 else socket.AF_INET,
            socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC,
        )
        try:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if self.version == 6:
                self.sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sockopt.set_traffic_class(self.sock)
            # A GTSM peer drops a SYN-ACK with a smaller one; the others do not mind. Each accepted socket gets its
            # peer's own TTL.
            sockopt.set_ttl(self.sock, 255)
            target = sockopt.socket_address(address, port)
            self._scope = target[3] if len(target) == 4 else 0
            self.sock.bind(target)
        except BaseException:
            self.sock.close()
            raise

    @property
    def zoned(self) -> bool:
        """Whether it is bound to an interface: to its number, for its name is given away again."""
        return self._scope != 0

    def stranded(self) -> bool:
        """Whether the interface that it is bound to is gone, or another one has its name."""
        try:
            target = sockopt.socket_address(self.address, self.port)
        except sockopt.SocketOptionError:
            return True
        return self.zoned and target[-1] != self._scope

    def apply(self, index: PeerIndex) -> None:
        """Set the keys and the TTL rule that are new, remove what is gone; failures are logged, one line each."""
        wanted = index.keys(self.version)
        for name in [name for name in self.keys if name not in wanted]:
            self._key(name, None)
        for name, key in wanted.items() - self.keys.items():
            self._key(name, key)
        least, secured = index.min_ttl(self.version)
        try:
            sockopt.set_min_ttl(self.sock, least)
            sockopt.save_syn(self.sock, secured)
        except OSError as error:
            _log.error("listener %s: %s", self, sockopt.reason(error))

    def _key(self, name: str, key: str | None) -> None:
        try:
            sockopt.set_md5(self.sock, name, key)
        except sockopt.SocketOptionError as error:
            _log.error("listener %s: %s", self, error)
            return
        if key is None:
            del self.keys[name]
        else:
            self.keys[name] = key

    def __str__(self) -> str:
        return f"[{self.address}]:{self.port}" if self.version == 6 else f"{self.address}:{self.port}"


class Listener:
    """All listening sockets of a speaker. `bind` and `listen` at start, `apply` whenever the settings change."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._knows: Callable[[str], bool]
        self._accepted: Callable[[socket.socket, str], None]
        self._sockets: dict[tuple[str, int], _Socket] = {}
        self.settings = SpeakerSettings(asn=0, router_id="0.0.0.0", listen=())
        """Those in force here."""
        self._index = PeerIndex(self.settings)
        self._running = False
        self._complained: set[tuple[str, int]] = set()
        self._retry: asyncio.TimerHandle | None = None
        self._unknown_limit = RateLimit(5, 0.2)
        self._fault_limit = RateLimit(1, 0.1)
        self.refused_unknown = 0
        """Connections from addresses that are no peer's."""
        self.refused_pace = 0
        """Connections refused because their address made too many in a second."""
        self._pace = ConnectionPace(self.settings.connection_rate)
        self.refused_ttl = 0
        """Connections whose SYN had come too far for GTSM."""
        self.pauses = 0
        """How often accepting stopped for want of descriptors or memory."""

    @property
    def addresses(self) -> list[str]:
        """What is listened on, "ADDR:PORT"; with the port that the kernel chose where 0 was asked for."""
        found = []
        for entry in self._sockets.values():
            port = entry.sock.getsockname()[1]
            found.append(f"[{entry.address}]:{port}" if entry.version == 6 else f"{entry.address}:{port}")
        return found

    def bind(self, settings: SpeakerSettings) -> None:
        """Reserve the addresses and set the keys; nothing is accepted yet. Raises ListenError.

        An address or interface that is not on the host yet (IPv6 needs a second after a link comes up) is tried again
        later, and so is a family that the host lacks.
        """
        self._use(settings)
        for address, port in self.settings.listen:
            try:
                self._open(address, port)
            except OSError as error:
                if error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT, errno.ENODEV):
                    raise ListenError(_sentence(address, port, error)) from None
                self._complain(address, port, error)
        self._look_again()

    def listen(self, knows: Callable[[str], bool], accepted: Callable[[socket.socket, str], None]) -> None:
        """Let peers connect. Raises ListenError.

        `knows(remote)`: may this address connect; `accepted(socket, remote)`: it has.
        """
        self._knows, self._accepted = knows, accepted
        self._running = True
        for entry in self._sockets.values():
            try:
                self._start(entry)
            except OSError as error:
                raise ListenError(_sentence(entry.address, entry.port, error)) from None

    def apply(self, settings: SpeakerSettings) -> None:
        """Follow changed settings: listeners come and go, keys change; no existing connection notices."""
        old = self.settings
        if _beside_peers(old) == _beside_peers(settings):
            self.settings = settings
            gone, come = parted(old.peers, settings.peers)
            if not gone and not come:
                return
            self._index.replace(gone, come)
        else:
            self._use(settings)
        for where in [where for where in self._sockets if where not in self.settings.listen]:
            self._shut(self._sockets.pop(where))
        for entry in self._sockets.values():
            entry.apply(self._index)
        self._look()

    def close(self) -> None:
        """Close every listening socket."""
        self._running = False
        if self._retry is not None:
            self._retry.cancel()
        for entry in self._sockets.values():
            self._shut(entry)
        self._sockets.clear()

    def peer(self, remote: str) -> PeerSettings | None:
        """The settings by which a connection from `remote` is treated."""
        return self._index.find(remote)

    def _open(self, address: str, port: int) -> _Socket:
        entry = _Socket(address, port)
        entry.apply(self._index)
        self._sockets[address, port] = entry
        if (address, port) in self._complained:
            self._complained.remove((address, port))
            _log.info("listening on %s", entry)
        return entry

    def _start(self, entry: _Socket) -> None:
        entry.sock.listen(BACKLOG)
        entry.listening = True
        self._loop.add_reader(entry.sock, self._readable, entry)

    def _shut(self, entry: _Socket) -> None:
        if entry.listening:
            # What is in the backlog is connected from the peer's view: take it rather than reset it.
            self._readable(entry)
            self._loop.remove_reader(entry.sock)
            entry.listening = False
        entry.sock.close()

    def _look(self) -> None:
        """Open what is wanted and missing, and anew what has lost its interface."""
        if self._retry is not None:
            # A change comes before its time; left alone it would go on beside the one that this look begins.
            self._retry.cancel()
            self._retry = None
        for where in [where for where, entry in self._sockets.items() if entry.stranded()]:
            self._shut(self._sockets.pop(where))
        for address, port in self.settings.listen:
            if (address, port) in self._sockets:
                continue
            try:
                entry = self._open(address, port)
                if self._running:
                    self._start(entry)
            except OSError as error:
                if (failed := self._sockets.pop((address, port), None)) is not None:
                    failed.sock.close()
                self._complain(address, port, error)
        self._look_again()

    def _complain(self, address: str, port: int, error: OSError) -> None:
        if (address, port) not in self._complained:
            self._complained.add((address, port))
            _log.warning("%s; trying again every %g s", _sentence(address, port, error), RETRY_TIME)

    def _look_again(self) -> None:
        """Begin the wait for what is missing, and for interfaces that may go: nobody tells us of either."""
        missing = any(where not in self._sockets for where in self.settings.listen)
        if missing or any(entry.zoned for entry in self._sockets.values()):
            self._retry = self._loop.call_later(RETRY_TIME, self._look)

    def _readable(self, entry: _Socket) -> None:
        for _ in range(ACCEPT_BATCH):
            try:
                sock, name = entry.sock.accept()
            except (BlockingIOError, InterruptedError):
                return
            except ConnectionAbortedError:
                continue
            except OSError as error:
                self._pause(entry, error)
                return
            try:
                self._admit(sock, sockopt.text_address(name))
            except OSError as error:
                # Typically ENOTCONN or ECONNRESET: the peer is gone already.
                _log.debug("listener %s: %s", entry, sockopt.reason(error))
                sock.close()

    def refused(self) -> dict[str, int]:
        """Connections refused since the start, by reason (see bgpd.api.schema.Limits)."""
        return {"unknown-address": self.refused_unknown, "connection-rate": self.refused_pace, "ttl": self.refused_ttl}

    def _admit(self, sock: socket.socket, remote: str) -> None:
        if not self._knows(remote):
            self.refused_unknown += 1
            sock.close()
            if self._unknown_limit.allow(monotonic()):
                held = self._index.held.get(remote.partition("%")[0])
                why = "no such peer" if held is None else f"peer {held.name} is held down: {held.disabled}"
                _log.warning("connection from %s refused: %s%s", remote, why, self._unknown_limit.reset())
            return
        sock.setblocking(False)
        if not self._pace.allow(remote, monotonic()):
            self._refuse_pace(sock, remote)
            return
        peer = self._index.find(remote)
        if peer is not None:
            hops = peer.ttl_security_hops
            sockopt.session_options(sock, hops, peer.ttl, user_timeout(peer))
            # The minimum holds from here on; what opened the connection came before it.
            ttl = sockopt.saved_syn_ttl(sock) if hops is not None else None
            if hops is not None and ttl is not None and ttl < 256 - hops:
                self._refuse_ttl(sock, remote, ttl, 256 - hops)
                return
        self._accepted(sock, remote)

    def _refuse_pace(self, sock: socket.socket, remote: str) -> None:
        """Too many connections from a peer's address: Cease/5 (RFC 4486 §4), if it goes out at once, and the end."""
        self.refused_pace += 1
        try:
            sock.send(_REFUSAL)
        finally:
            sock.close()
        if self._unknown_limit.allow(monotonic()):
            rate, suffix = self._pace.rate, self._unknown_limit.reset()
            _log.warning("connection from %s refused: more than %d in a second%s", remote, rate, suffix)

    def _use(self, settings: SpeakerSettings) -> None:
        self.settings, self._index = settings, PeerIndex(settings)
        if self._pace.rate != settings.connection_rate:
            self._pace = ConnectionPace(settings.connection_rate)

    def _refuse_ttl(self, sock: socket.socket, remote: str, ttl: int, least: int) -> None:
        self.refused_ttl += 1
        sock.close()
        if self._unknown_limit.allow(monotonic()):
            suffix = self._unknown_limit.reset()
            _log.warning("connection from %s refused: its TTL is %d, not %d or more%s", remote, ttl, least, suffix)

    def _pause(self, entry: _Socket, error: OSError) -> None:
        """Descriptors or memory ran out: leave the rest in the backlog, instead of being woken for it forever."""
        self.pauses += 1
        if self._fault_limit.allow(monotonic()):
            hint = "; raise the limit of open files" if error.errno in (errno.EMFILE, errno.ENFILE) else ""
            _log.error("listener %s pauses: %s%s%s", entry, sockopt.reason(error), hint, self._fault_limit.reset())
        self._loop.remove_reader(entry.sock)
        self._loop.call_later(PAUSE_TIME, self._resume, entry)

    def _resume(self, entry: _Socket) -> None:
        if entry.listening and self._sockets.get((entry.address, entry.port)) is entry:
            self._loop.add_reader(entry.sock, self._readable, entry)


def _beside_peers(settings: SpeakerSettings) -> tuple[object, ...]:
    """All of the settings that the listener looks at, but for the peers."""
    return (settings.listen, settings.dynamic, settings.connection_rate)


def _sentence(address: str, port: int, error: OSError) -> str:
    where = f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
    way_out = {
        errno.EADDRINUSE: "another program listens there; stop it, or give another --listen ADDR:PORT",
        errno.EACCES: "ports below 1024 need CAP_NET_BIND_SERVICE; run as root or grant it, or give another port",
        errno.EADDRNOTAVAIL: "the address is not on this host",
        errno.EAFNOSUPPORT: "this host has no such address family",
    }.get(error.errno or 0, sockopt.reason(error))
    return f"cannot listen on {where}: {way_out}"
