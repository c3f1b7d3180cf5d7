"""Dialling peers: source address, port, TCP-MD5 key, TTL rule, and a time limit of our own."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections.abc import Callable

from bgpd.settings import PeerSettings
from bgpd.shell import sockopt
from bgpd.shell.transport import Connection

__all__ = ["Connector", "user_timeout"]

SHORTEST, LONGEST = 3.0, 15.0
"""Bounds, in seconds, of the time limit of a dial: long enough for a lost SYN, short enough that the kernel's growing
intervals between SYNs do not decide how fast a peer that comes back is found."""


Target = tuple[str, int] | tuple[str, int, int, int]


def user_timeout(peer: PeerSettings) -> float:
    """Seconds for TCP_USER_TIMEOUT: later than the send hold timer, which logs and says why (RFC 9687); 0 = off."""
    hold = peer.send_hold_time
    if hold is None:
        hold = max(480.0, 2.0 * peer.hold_time)
    return hold + 60 if hold else 0.0


class Connector:
    """At most one dial per peer name is under way; a newer one for the name replaces it."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        make: Callable[[PeerSettings], Connection],
        failed: Callable[[str, str], None],
        time_limit: float | None = None,
    ) -> None:
        """`make` gives the connection of a successful dial; `failed(peer name, reason)` ends every other one.

        `time_limit`: seconds; None = the peer's connect retry time, within bounds.
        """
        self._loop = loop
        self._make = make
        self._failed = failed
        self._time_limit = time_limit
        self._dials: dict[str, asyncio.Task[None]] = {}

    def __len__(self) -> int:
        return len(self._dials)

    def dial(self, peer: PeerSettings) -> None:
        """Begin; never answers before the current turn of the loop is over."""
        self.cancel(peer.name)
        task = self._dials[peer.name] = self._loop.create_task(self._dial(peer))
        task.add_done_callback(lambda done: self._forget(peer.name, done))

    def cancel(self, name: str) -> None:
        """Stop a dial without an answer."""
        if (task := self._dials.pop(name, None)) is not None:
            task.cancel()

    def close(self) -> None:
        """Stop all."""
        for name in list(self._dials):
            self.cancel(name)

    def _forget(self, name: str, task: asyncio.Task[None]) -> None:
        if self._dials.get(name) is task:
            del self._dials[name]
        if not task.cancelled() and (error := task.exception()) is not None:
            self._failed(name, f"internal error: {error!r}")

    async def _dial(self, peer: PeerSettings) -> None:
        limit = self._time_limit or min(max(peer.connect_retry_time, SHORTEST), LONGEST)
        try:
            sock, target = _prepare(peer)
        except (OSError, ValueError) as error:
            self._failed(peer.name, str(error) if isinstance(error, ValueError) else sockopt.reason(error))
            return
        try:
            async with asyncio.timeout(limit):
                await self._connect(sock, target)
            await self._loop.create_connection(lambda: self._make(peer), sock=sock)
        except TimeoutError as error:
            sock.close()
            # The kernel's own ETIMEDOUT and our limit are the same class.
            self._failed(peer.name, _silence(peer, limit) if error.errno is None else sockopt.reason(error))
        except OSError as error:
            sock.close()
            self._failed(peer.name, sockopt.reason(error))
        except BaseException:
            sock.close()
            raise

    async def _connect(self, sock: socket.socket, target: Target) -> None:
        """Both loops' own sock_connect would look the address up first, and lose a link-local one's interface."""
        try:
            sock.connect(target)
        except BlockingIOError:
            pass
        else:
            return
        ready: asyncio.Future[None] = self._loop.create_future()
        self._loop.add_writer(sock, _resolve, ready)
        try:
            await ready
        finally:
            self._loop.remove_writer(sock)
        if error := sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            raise OSError(error, os.strerror(error))


def _resolve(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)


def _silence(peer: PeerSettings, limit: float) -> str:
    causes = ["the peer is down or filtered"]
    if peer.password:
        causes.append("has another TCP-MD5 key")
    if peer.ttl_security_hops is not None:
        causes.append(f"is more than {peer.ttl_security_hops} hops away")
    return f"no answer within {limit:g} s ({', or '.join(causes)})"


def _prepare(peer: PeerSettings) -> tuple[socket.socket, Target]:
    """The socket, ready for connect, and where to. Raises OSError, or ValueError for a bad address."""
    target = sockopt.socket_address(peer.address, peer.port)
    family = socket.AF_INET if len(target) == 2 else socket.AF_INET6
    sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        if peer.password:
            sockopt.set_md5(sock, peer.address, peer.password)
        sockopt.session_options(sock, peer.ttl_security_hops, peer.ttl, user_timeout(peer))
        if peer.source_address:
            _bind(sock, peer.source_address)
    except BaseException:
        sock.close()
        raise
    return sock, target


def _bind(sock: socket.socket, address: str) -> None:
    # The port is chosen at connect, where it need be unique only together with the destination.
    sock.setsockopt(socket.IPPROTO_IP, sockopt.IP_BIND_ADDRESS_NO_PORT, 1)
    try:
        sock.bind(sockopt.socket_address(address, 0))
    except OSError as error:
        if error.errno == errno.EADDRNOTAVAIL:
            text = f"the source address {address} is not on this host"
            raise sockopt.SocketOptionError(errno.EADDRNOTAVAIL, text) from None
        raise
