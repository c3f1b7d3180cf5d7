"""One TCP connection of a peer: octets in to the runner, octets out with back-pressure.

All connections of a runner receive into one shared buffer (design §5): what it holds is copied out before the next
connection is read, and 500 peers cost one buffer instead of 500.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from typing import Protocol, cast

from bgpd.settings import PeerSettings
from bgpd.shell.sockopt import set_md5, text_address, unacknowledged

__all__ = ["CLOSE_TIME", "Connection", "Owner"]

CLOSE_TIME = 1.0
"""Seconds that a closed connection has for sending what was written before (a NOTIFICATION), then it is aborted."""
FIRST_WINDOW = 10 * 1448
"""Octets that TCP sends before the first acknowledgement: ten segments (RFC 6928 §2) of an Ethernet frame each."""
_PASSING = frozenset((errno.EAGAIN, errno.ENOBUFS, errno.ENOMEM))


class Owner(Protocol):
    """What a connection needs of the runner."""

    loop: asyncio.AbstractEventLoop
    buffer: memoryview

    def opened(self, connection: Connection) -> None:
        """The transport is ready for reading and writing."""

    def received(self, connection: Connection, count: int) -> None:
        """`count` octets of the shared buffer came from this connection; they must be copied before returning."""

    def lost(self, connection: Connection, reason: str) -> None:
        """The connection ended, and not because we closed it."""

    def ended(self, connection: Connection) -> None:
        """The socket is closed, whoever closed it."""

    def blocked(self, connection: Connection) -> None:
        """The peer's TCP takes no more: octets wait in this process."""

    def unblocked(self, connection: Connection) -> None:
        """Nothing waits any more."""


class Connection(asyncio.BufferedProtocol):
    """A dialled (`peer` set) or accepted (`peer` None) connection. `id` is what the Speaker calls it by."""

    __slots__ = (
        "_closer",
        "_descriptor",
        "_error",
        "_owner",
        "closing",
        "id",
        "local",
        "paused",
        "peer",
        "remote",
        "transport",
        "written",
    )

    def __init__(self, owner: Owner, identity: int, remote: str, peer: PeerSettings | None = None) -> None:
        self._owner = owner
        self._closer: asyncio.TimerHandle | None = None
        self._descriptor = -1
        self._error: OSError | None = None
        self.id = identity
        self.peer = peer
        self.remote = remote
        self.local = ""
        self.paused = False
        self.closing = False
        self.written = 0
        self.transport: asyncio.Transport

    # Called by the loop.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Learn the local address, and have the loop say at once when octets wait in this process."""
        self.transport = cast(asyncio.Transport, transport)
        # No slack: `paused` then means exactly that the kernel takes no more, which the send hold timer (RFC 9687)
        # needs to know, and at most one pulled chunk waits in the transport.
        self.transport.set_write_buffer_limits(high=0)
        sock: socket.socket = transport.get_extra_info("socket")
        self._descriptor = sock.fileno()
        try:
            self.local = text_address(sock.getsockname())
        except OSError:
            self.transport.abort()
        self._owner.opened(self)

    def get_buffer(self, sizehint: int) -> memoryview:
        """The shared buffer."""
        return self._owner.buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Octets came; after `close` nobody wants them."""
        if not self.closing:
            self._owner.received(self, nbytes)

    def eof_received(self) -> bool:
        """The peer closed its side. BGP has no half-open connections, and unsent octets must not keep this one."""
        if not self.closing:
            self._lost(_describe(self._error))
            self.transport.abort()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """The socket is gone."""
        if self._closer is not None:
            self._closer.cancel()
        if not self.closing:
            self._lost(_describe(self._error or exc))
        self._owner.ended(self)

    def set_key(self, address: str, password: str) -> None:
        """Another TCP-MD5 key for what is sent and received from now on. Raises OSError."""
        family = socket.AF_INET6 if ":" in self.local else socket.AF_INET
        # The loops' own socket objects do not take options; this is a second descriptor for the same socket.
        with socket.fromfd(self._descriptor, family, socket.SOCK_STREAM) as sock:
            set_md5(sock, address, password)

    def pause_writing(self) -> None:
        """The kernel's send buffer is full."""
        self.paused = True
        if not self.closing:
            self._owner.blocked(self)

    def resume_writing(self) -> None:
        """All that was written is with the kernel."""
        self.paused = False
        if not self.closing:
            self._owner.unblocked(self)

    # Called by the runner.

    def write(self, data: bytes) -> None:
        """Write whole messages."""
        self.written += len(data)
        if len(data) > FIRST_WINDOW:
            data = data[self._write_ahead(data) :]
        self.transport.write(data)

    def acknowledged(self) -> int:
        """How many of the octets written have reached the peer's TCP, which is what the send hold timer counts."""
        waiting = self.transport.get_write_buffer_size()
        try:
            waiting += unacknowledged(self._descriptor)
        except OSError:
            pass
        return self.written - waiting

    def close(self) -> None:
        """Send what was written, then close, within CLOSE_TIME; nothing is reported from here on.

        Our side is shut down first, and the peer's octets are read and dropped until it closes too: closing a socket
        with unread octets sends a RST, which can overtake our NOTIFICATION in the peer's TCP.
        """
        if self.closing:
            return
        self.closing = True
        self._closer = self._owner.loop.call_later(CLOSE_TIME, self.transport.abort)
        try:
            self.transport.write_eof()
        except (OSError, RuntimeError):
            self.transport.abort()

    def abort(self) -> None:
        """Close now, drop what waits; nothing is reported from here on."""
        self.closing = True
        self.transport.abort()

    def _write_ahead(self, data: bytes) -> int:
        """Write all but the end of much data in pieces, and return how much of it the kernel has taken.

        On a fresh connection, what is more than the window has room for costs the kernel up to twice as much as the
        same in pieces that fit: a peer on this machine has acknowledged one piece by the time the next is written. The
        transport gets the rest, meets what stopped us by itself and waits for it.
        """
        transport, taken = self.transport, 0
        # A closing transport may have closed the descriptor, whose number may be another connection's by now.
        if transport.is_closing() or transport.get_write_buffer_size():
            return 0
        octets = memoryview(data)
        try:
            while len(data) - taken > FIRST_WINDOW:
                count = os.write(self._descriptor, octets[taken : taken + FIRST_WINDOW])
                taken += count
                if count < FIRST_WINDOW:
                    break
        except OSError as error:
            # The kernel tells once what ended a connection; what only holds it up passes.
            if error.errno not in _PASSING:
                self._error = error
        return taken

    def _lost(self, reason: str) -> None:
        self.closing = True
        self._owner.lost(self, reason)


def _describe(error: Exception | None) -> str:
    if error is None:
        return "the peer closed the connection"
    code = error.errno if isinstance(error, OSError) else None
    known = {
        errno.ECONNRESET: "the peer reset the connection",
        errno.EPIPE: "the peer closed the connection",
        errno.ETIMEDOUT: "the peer's TCP stopped answering",
    }
    return known.get(code or 0, f"the connection failed: {error.strerror if isinstance(error, OSError) else error}")
