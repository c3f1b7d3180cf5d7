"""The two control sockets, bird.ctl and bird6.ctl: one for each family, as Calico's two BIRDs have them.

A connection has one command at a time, and the next is read when its answer is written. A reader that takes nothing is
given up; a connection that is idle may stay, until its place is needed by another. Tables are written in slices of
work, a few at once.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import AsyncIterator

from bgpd.api.bird.facts import bird_version
from bgpd.api.bird.grammar import TOO_LONG, BirdError, Command, parse
from bgpd.api.bird.protocols import show_protocols
from bgpd.api.bird.replies import GREETING, Replies
from bgpd.api.bird.routes import show_route
from bgpd.api.bird.status import show_memory, show_status
from bgpd.api.counts import Counts
from bgpd.api.endpoints import NONE, ServeError, control_socket
from bgpd.api.limits import Pace
from bgpd.api.schema import BIRD_DIRECTORY
from bgpd.api.state import DaemonState
from bgpd.family import IPV4_UNICAST, IPV6_UNICAST, Family

__all__ = ["NAMES", "BirdSockets", "ServeError", "start_sockets"]

NAMES = {IPV4_UNICAST: "bird.ctl", IPV6_UNICAST: "bird6.ctl"}
LONGEST = 4096
"""Octets of a command line, as in BIRD."""
MAX_CONNECTIONS = 32
"""At once, on each socket."""
WALKS = 4
"""Tables written at once, on each socket."""
WRITE_TIME = 30.0
"""Seconds that a reader may take nothing of an answer."""
_MODE = 0o660
"""BIRD's: for its user and group."""
_BUFFER = 65536

_log = logging.getLogger("bgpd.api")


class BirdSockets:
    """Both sockets of one daemon."""

    def __init__(self, state: DaemonState) -> None:
        self.state = state
        self.longest_slice = 0.0
        """Seconds of the longest piece of work without a turn of the loop."""
        self._open: list[_Socket] = []

    async def start(self, directory: str) -> None:
        """Listen in a directory. Raises ServeError."""
        counts = Counts()
        try:
            for family, name in NAMES.items():
                path = os.path.join(directory, name)
                sock = control_socket(path, "--bird-sockets", _MODE)
                self._open.append(_Socket(self, family, path, sock, counts))
            for one in self._open:
                await one.start()
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Stop listening, end what is open, remove the sockets."""
        opened, self._open = self._open, []
        for one in opened:
            await one.close()


async def start_sockets(sockets: BirdSockets, wanted: str | None, default: bool) -> None:
    """Listen as the command line says: None is Calico's directory, if it is there and this daemon has the `default`
    places. A BIRD that still has them is told of and left alone, unless they were asked for. Raises ServeError."""
    if wanted == NONE or (wanted is None and not (default and os.access(BIRD_DIRECTORY, os.W_OK))):
        return
    try:
        await sockets.start(wanted or BIRD_DIRECTORY)
    except ServeError as error:
        if wanted is not None:
            raise
        _log.warning("no control sockets in BIRD's form: %s", error)


class _Client:
    """One connection."""

    def __init__(self, writer: asyncio.StreamWriter, began: float) -> None:
        self.writer = writer
        self.used = began
        """When its last answer was finished."""
        self.busy = False
        self.restricted = False


class _Socket:
    """One family's socket."""

    def __init__(self, owner: BirdSockets, family: Family, path: str, sock: socket.socket, counts: Counts) -> None:
        self._owner = owner
        self._state = owner.state
        self._family = family
        self._path = path
        self._sock = sock
        self._counts = counts
        self._walks = asyncio.Semaphore(WALKS)
        self._clients: dict[_Client, asyncio.Task[None]] = {}
        self._server: asyncio.AbstractServer | None = None

    async def start(self) -> None:
        self._server = await asyncio.start_unix_server(self._serve, sock=self._sock, limit=LONGEST)

    async def close(self) -> None:
        if self._server is None:
            self._sock.close()
        else:
            self._server.close()
        for client, task in list(self._clients.items()):
            client.writer.transport.abort()
            task.cancel()
        try:
            os.unlink(self._path)
        except OSError:
            pass  # somebody cleaned up before us

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._clients) >= MAX_CONNECTIONS and not self._make_room():
            writer.transport.abort()
            return
        client = _Client(writer, self._state.clock())
        task = asyncio.current_task()
        assert task is not None
        self._clients[client] = task
        writer.transport.set_write_buffer_limits(_BUFFER)
        try:
            greeting = Replies()
            greeting.end(GREETING, f"BIRD {bird_version(self._state)} ready.")
            await self._write(client, greeting.take())
            while await self._turn(reader, client):
                client.used = self._state.clock()
            await self._finish(writer)
        except (OSError, TimeoutError, asyncio.CancelledError):
            pass  # the reader is gone or has stopped reading, or the daemon ends
        finally:
            del self._clients[client]
            writer.transport.abort()

    async def _finish(self, writer: asyncio.StreamWriter) -> None:
        """What is written still has its time to go out."""
        writer.close()
        async with asyncio.timeout(WRITE_TIME):
            await writer.wait_closed()

    def _make_room(self) -> bool:
        """Give up the connection that has been idle for longest; False where all are at work."""
        idle = [client for client in self._clients if not client.busy and not client.writer.is_closing()]
        if not idle:
            return False
        min(idle, key=lambda client: client.used).writer.transport.abort()
        return True

    async def _turn(self, reader: asyncio.StreamReader, client: _Client) -> bool:
        """One command and its answer; False at the end."""
        try:
            line = await reader.readuntil()
        except asyncio.IncompleteReadError:
            return False
        except asyncio.LimitOverrunError:
            replies = Replies()
            replies.end(TOO_LONG, "Command too long")
            await self._write(client, replies.take())
            return False
        client.busy = True
        try:
            async for chunk in self._answer(line.decode(errors="replace").strip("\r\n"), client):
                await self._write(client, chunk)
        finally:
            client.busy = False
        return True

    async def _write(self, client: _Client, data: bytes) -> None:
        client.writer.write(data)
        async with asyncio.timeout(WRITE_TIME):
            await client.writer.drain()

    async def _answer(self, line: str, client: _Client) -> AsyncIterator[bytes]:
        replies, pace = Replies(), Pace()
        try:
            command = parse(line)
            if command.verb == "route":
                async with self._walks:
                    async for chunk in show_route(self._state, self._family, command, pace, replies):
                        yield chunk
                        pace.resume()
            else:
                await self._short(command, pace, replies)
        except BirdError as error:
            replies.end(error.code, error.text)
        except Exception:
            _log.exception("internal error while answering %.80r on %s", line, self._path)
            replies.end(TOO_LONG, "internal error, the log has the details")
        self._owner.longest_slice = max(self._owner.longest_slice, pace.longest)
        if rest := replies.take():
            yield rest

    async def _short(self, command: Command, pace: Pace, replies: Replies) -> None:
        match command.verb:
            case "status":
                show_status(self._state, replies)
            case "memory":
                show_memory(replies)
            case "protocols":
                await show_protocols(self._state, self._family, command, self._counts, pace, replies)
                replies.end()
            case "restrict":
                replies.end(16, "Access restricted")
            case _:
                replies.end()
