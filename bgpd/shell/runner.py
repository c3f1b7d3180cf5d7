"""One loop, one timer: inputs of the world go to the Speaker, its effects go to the world.

What is read in one turn of the loop is flushed at its end, so that a burst from many peers costs one selection and one
encoding (design §5, rule 7). Nothing here awaits on that way: received octets, accepted connections and kernel events
call the Speaker directly, and `_turn` runs once after them.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import socket
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Mapping
from math import inf
from time import monotonic
from typing import Any, Protocol

from bgpd.effects import (
    Close,
    Connect,
    Effect,
    ListenersChanged,
    Log,
    Program,
    Ready,
    Rekey,
    ReleaseKernel,
    Send,
    Spread,
)
from bgpd.family import Family
from bgpd.routes import FibRoute, LocalChange
from bgpd.sequences import parted
from bgpd.settings import FibSettings, LearnSettings, PeerSettings, SpeakerSettings
from bgpd.shell import sockopt
from bgpd.shell.connector import Connector
from bgpd.shell.listener import Listener
from bgpd.shell.logs import RateLimit, log_event
from bgpd.shell.transport import CLOSE_TIME, Connection

__all__ = ["Core", "ForwardingPlane", "Runner"]

BUFFER_SIZE = 64 * 1024
"""Octets read from one connection in one turn, at most: some 600 UPDATEs of a full table, 0.05 s with their flush. Four
times as much makes a load no cheaper, and stops the loop four times as long."""
READ_LIMIT = 128 * 1024
"""Octets read from one connection in one turn, about: uvloop would read up to 32 buffers before it looks elsewhere,
which is half a second of a full table."""
PULL_LIMIT = 256 * 1024
"""Octets pulled for one connection in one turn, at most: a long table must not stall the loop on a fast peer."""
WRITE_SIZE = 48 * 1024
"""Octets pulled for one connection that are written without waiting for more."""
PULL_TIME = 0.01
"""Seconds of pulling and writing in one turn, about: many peers that want a long table must not stall it either."""
GATHER_TIME = 0.005
"""Seconds for which a turn waits while octets keep coming, at most. Its end is reached as soon as a look at all sockets
finds none that has any, so that a single change does not wait; but a burst of 100 peers costs one flush, and one write
for each peer, instead of four."""
FEW_OCTETS = 4096
"""What is no more than this and comes after a quiet moment is a change. Where there is a kernel to program, packets
wait for it: it does not wait for others."""
READ_TIME = 0.03
"""Seconds of one turn after which what is read waits for the next one: 500 peers may all have a full buffer."""
PROGRESS_TIME = 2.0
"""Seconds between looks at what blocked peers have acknowledged."""
FAULT_PAUSE = 1.0
"""Seconds without timers after a defect in one."""
STALL_TIME = 0.5
"""A timer so many seconds late tells that the process stood still: stopped, frozen with its host, or without a CPU."""
SHORTEST_TIMER = 0.001
"""uvloop counts in milliseconds; less would be no wait at all, and the timer would fire early again and again."""

_log = logging.getLogger("bgpd")


class Core(Protocol):
    """The Speaker, as far as the runner sees it."""

    def start(self, now: float) -> None: ...
    def reconfigure(self, settings: SpeakerSettings, now: float) -> object: ...
    def shutdown(self, now: float, send_cease: bool) -> None: ...
    def knows(self, remote_address: str) -> bool: ...
    def on_connected(self, peer_name: str, conn: int, local_address: str, now: float) -> None: ...
    def on_connect_failed(self, peer_name: str, reason: str, now: float) -> None: ...
    def on_accepted(self, conn: int, remote_address: str, local_address: str, now: float) -> bool: ...
    def on_data(self, conn: int, data: memoryview, now: float) -> bool: ...
    def on_lost(self, conn: int, reason: str, now: float) -> None: ...
    def on_fault(self, conn: int, now: float) -> None: ...
    def on_blocked(self, conn: int, now: float) -> None: ...
    def on_progress(self, conn: int, now: float) -> None: ...
    def on_unblocked(self, conn: int, now: float) -> None: ...
    def on_tick(self, now: float) -> None: ...
    def on_local(self, changes: Iterable[LocalChange], now: float) -> None: ...
    def on_local_addresses(self, addresses: frozenset[bytes]) -> None: ...
    def on_devices(self, devices: Mapping[str, int]) -> None: ...
    def program(self) -> None: ...
    def flush(self, now: float) -> None: ...
    def deadline(self) -> float: ...
    def take_effects(self) -> list[Effect]: ...
    def pull(self, conn: int) -> bytes | None: ...


class ForwardingPlane(Protocol):
    """The kernel, as far as the runner sees it."""

    def program(self, family: Family, routes: dict[bytes, FibRoute | None]) -> None: ...
    def release(self) -> None: ...
    def reconfigure(self, settings: FibSettings, learn: LearnSettings) -> None: ...


class Runner:
    """Composes a Speaker with sockets, timers, a kernel (or none) and the log. Made inside a running loop."""

    def __init__(
        self,
        speaker: Core,
        kernel: ForwardingPlane | None = None,
        listener: Listener | None = None,
        *,
        dial_time: float | None = None,
        progress_time: float = PROGRESS_TIME,
    ) -> None:
        """`listener`: one whose addresses are bound already; `bind` is not called then.

        `dial_time`: seconds that a dial may take; None = the peer's connect retry time, within bounds.

        `progress_time`: seconds between looks at what blocked peers have acknowledged.
        """
        self.loop = asyncio.get_running_loop()
        self.buffer = memoryview(bytearray(BUFFER_SIZE))
        self.connections: dict[int, Connection] = {}
        self.defects = 0
        """Exceptions of the core that were caught here; each is in the log with its traceback."""
        self.longest_turn = 0.0
        """Seconds of the longest flush so far, writing included."""
        self.listener = listener if listener is not None else Listener(self.loop)
        self.connector = Connector(self.loop, self._dialled, self._dial_failed, dial_time)
        self._speaker = speaker
        self._kernel = kernel
        self._progress_time = progress_time
        self._ids = itertools.count(1)
        self._open: set[Connection] = set()  # with those that are being closed
        self._blocked: dict[Connection, int] = {}  # octets acknowledged at the last look
        self._unfinished: dict[Connection, None] = {}  # pulled up to the limit of one turn
        self._pull_until = 0.0
        self._taken: dict[Connection, int] = {}  # octets read in this turn
        self._late: deque[tuple[Connection, bytes]] = deque()  # read when the turn had lasted too long already
        self._resting: list[Connection] = []  # not read any more in this turn
        self._tasks: set[asyncio.Task[object]] = set()
        self._defect_limit = RateLimit(20, 0.2)
        self._due, self._due_at = False, 0.0
        self._ended_at = -inf
        self._fresh = False  # octets came since the last look at all sockets
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = inf
        self._stood_still = False
        """A timer that is late waits until the sockets have been looked at."""
        self._not_before = -inf  # after a defect in a timer, which else would be due again at once
        self._progress_timer: asyncio.TimerHandle | None = None
        self._release_due = False
        self._stopped = False
        self._handlers: dict[type[Any], Callable[[Any], None]] = {
            Send: self._send,
            Spread: self._spread,
            Ready: self._ready,
            Close: self._close,
            Rekey: self._rekey,
            Connect: self._connect,
            Program: self._program,
            ReleaseKernel: self._release,
            ListenersChanged: self._listeners_changed,
        }
        self._settings: SpeakerSettings | None = None

    # Life.

    def bind(self, settings: SpeakerSettings) -> None:
        """Reserve the listening addresses. Raises ListenError. Nothing is accepted before `start`."""
        self._settings = settings
        self.listener.bind(settings)

    def use(self, settings: SpeakerSettings) -> None:
        """The Speaker's settings, where the listener was bound elsewhere."""
        self._settings = settings
        self.listener.apply(settings)

    def start(self) -> None:
        """Connect and accept. The local paths are in the Speaker by now. Raises ListenError."""
        self.listener.listen(self._speaker.knows, self._accepted)
        self._speaker.start(monotonic())
        self._schedule()

    def reconfigure(self, settings: SpeakerSettings) -> None:
        """New settings: keys and listeners first, so that a new peer's first SYN finds its key."""
        before, self._settings = self._settings, settings
        try:
            if self._kernel is not None:
                self._kernel.reconfigure(settings.fib, settings.learn)
            self.listener.apply(settings)
            gone, come = parted(before.peers if before is not None else (), settings.peers)
            for name in {peer.name for peer in gone} - {peer.name for peer in come}:
                self.connector.cancel(name)
            self._speaker.reconfigure(settings, monotonic())
        except Exception:
            self._defect("changed settings")
        self._schedule()

    def on_local(self, changes: Iterable[LocalChange]) -> None:
        """The host's own routes changed."""
        try:
            self._speaker.on_local(changes, monotonic())
        except Exception:
            self._defect("local routes")
        self._schedule()

    def on_local_addresses(self, addresses: frozenset[bytes]) -> None:
        """The host's own addresses changed."""
        try:
            self._speaker.on_local_addresses(addresses)
        except Exception:
            self._defect("the host's addresses")
        self._schedule()

    def on_devices(self, devices: Mapping[str, int]) -> None:
        """The host's interfaces that are up, by name, changed."""
        try:
            self._speaker.on_devices(devices)
        except Exception:
            self._defect("the host's interfaces")
        self._schedule()

    def alive_at(self) -> float:
        """Now, unless the end of a turn or a timer is overdue; then the (monotonic) time at which it was due."""
        due = min(self._due_at if self._due else inf, self._timer_at)
        return min(due, monotonic())

    async def stop(self, send_cease: bool) -> None:
        """End every session, with a NOTIFICATION or (so that graceful restart keeps the routes) without, and return
        when the last connection is closed or has had its time."""
        self._kernel = None  # lost sessions take their routes along, but those in the kernel outlive us
        self.listener.close()
        self.connector.close()
        self._speaker.shutdown(monotonic(), send_cease)
        self._end_turn()
        self._stopped = True
        if self._timer is not None:
            self._timer.cancel()
        for connection in list(self.connections.values()):
            connection.close()
        self.connections.clear()
        until = monotonic() + CLOSE_TIME + 0.2
        while self._open and monotonic() < until:
            await asyncio.sleep(0.005)
        for connection in self._open:
            connection.abort()
        for task in self._tasks:
            task.cancel()

    # Inputs.

    def received(self, connection: Connection, count: int) -> None:
        """Octets of a peer are in the shared buffer."""
        now = monotonic()
        if self._due and now - self._due_at > READ_TIME:
            self._late.append((connection, bytes(self.buffer[:count])))
            connection.transport.pause_reading()
            return
        changed = self._serve(connection, self.buffer[:count], now)
        if not (changed or self._due or count > FEW_OCTETS):
            return  # a KEEPALIVE, as a rule: nothing is to be told
        self._fresh = True
        taken = self._taken[connection] = self._taken.get(connection, 0) + count
        if taken >= READ_LIMIT and not connection.transport.is_closing():
            connection.transport.pause_reading()
            self._resting.append(connection)
        if self._due:
            return
        if count <= FEW_OCTETS and self._kernel is not None and now - self._ended_at > GATHER_TIME:
            self._end_turn()
        else:
            self._schedule()

    def _serve(self, connection: Connection, data: memoryview, now: float) -> bool:
        """Whether there is anything to do at the end of the turn."""
        try:
            return self._speaker.on_data(connection.id, data, now)
        except Exception:
            self._fault(connection, "received data")
            return True

    def _serve_late(self) -> None:
        """What came too late for the last turn, in order and with the same bound; then its connection is read again."""
        until = monotonic() + READ_TIME
        while self._late and (now := monotonic()) < until:
            connection, data = self._late.popleft()
            self._serve(connection, memoryview(data), now)
            if not connection.transport.is_closing():
                connection.transport.resume_reading()
        if self._late:
            self._schedule()

    def opened(self, connection: Connection) -> None:
        """A dial succeeded, or an accepted connection is ready."""
        self._open.add(connection)
        if self._stopped:
            connection.abort()
            return
        now = monotonic()
        self.connections[connection.id] = connection
        try:
            if connection.peer is not None:
                self._speaker.on_connected(connection.peer.name, connection.id, connection.local, now)
            elif not self._speaker.on_accepted(connection.id, connection.remote, connection.local, now):
                self._drop(connection)
                connection.close()
        except Exception:
            self._fault(connection, "a new connection")
        self._schedule()

    def lost(self, connection: Connection, reason: str) -> None:
        """A connection ended without our doing."""
        if self.connections.get(connection.id) is not connection:
            return
        self._drop(connection)
        try:
            self._speaker.on_lost(connection.id, reason, monotonic())
        except Exception:
            self._defect(f"the loss of the connection with {connection.remote}")
        self._schedule()

    def ended(self, connection: Connection) -> None:
        """The socket is closed."""
        self._open.discard(connection)
        self._blocked.pop(connection, None)

    def blocked(self, connection: Connection) -> None:
        """A peer's TCP takes no more."""
        self._blocked[connection] = connection.acknowledged()
        self._speaker.on_blocked(connection.id, monotonic())
        if self._progress_timer is None:
            self._progress_timer = self.loop.call_later(self._progress_time, self._look_for_progress)

    def unblocked(self, connection: Connection) -> None:
        """It has taken everything: go on from where the peer is in its group's log."""
        self._blocked.pop(connection, None)
        self._speaker.on_unblocked(connection.id, monotonic())
        self._unfinished[connection] = None
        self._schedule()

    def _accepted(self, sock: socket.socket, remote: str) -> None:
        connection = Connection(self, next(self._ids), remote)
        self._task(self.loop.connect_accepted_socket(lambda: connection, sock), f"accepting {remote}")

    def _dialled(self, peer: PeerSettings) -> Connection:
        return Connection(self, next(self._ids), peer.address, peer)

    def _dial_failed(self, name: str, reason: str) -> None:
        if self._stopped:
            return
        try:
            self._speaker.on_connect_failed(name, reason, monotonic())
        except Exception:
            self._defect(f"the failed dial of {name}")
        self._schedule()

    def _look_for_progress(self) -> None:
        self._progress_timer = None
        now = monotonic()
        for connection, before in list(self._blocked.items()):
            acknowledged = connection.acknowledged()
            if acknowledged > before:
                self._blocked[connection] = acknowledged
                self._speaker.on_progress(connection.id, now)
        if self._blocked and not self._stopped:
            self._progress_timer = self.loop.call_later(self._progress_time, self._look_for_progress)
        self._schedule()

    # The end of a turn.

    def _schedule(self) -> None:
        if not self._due:
            self._due, self._due_at = True, monotonic()
            self.loop.call_soon(self._turn)

    def _turn(self) -> None:
        if self._fresh and monotonic() - self._due_at < GATHER_TIME:
            self._fresh = False
            self.loop.call_soon(self._turn)
        else:
            self._end_turn()

    def _end_turn(self) -> None:
        self._due = self._fresh = False
        if self._stopped:
            return
        began = monotonic()
        if self._late:
            self._serve_late()
        self._pull_until = monotonic() + PULL_TIME
        if self._unfinished:
            unfinished, self._unfinished = self._unfinished, {}
            for connection in unfinished:
                self._pull(connection)
        if self._kernel is not None:
            # Packets first; what peers are told can wait for that.
            try:
                self._speaker.program()
            except Exception:
                self._defect("kernel routes at the end of a turn")
            self._drain()
        try:
            self._speaker.flush(began)
        except Exception:
            self._defect("the flush at the end of a turn")
        self._drain()
        self._taken.clear()
        if self._resting:
            resting, self._resting = self._resting, []
            for connection in resting:
                if not connection.transport.is_closing():
                    connection.transport.resume_reading()
        self._arm()
        self._ended_at = monotonic()
        spent = self._ended_at - began
        if spent > self.longest_turn:
            self.longest_turn = spent

    def _drain(self) -> None:
        handlers = self._handlers
        self._pull_until = monotonic() + PULL_TIME
        # Effects can cause further ones: a write may block the peer, a pull may end a dump.
        told: list[Log] = []
        while effects := self._speaker.take_effects():
            for effect in effects:
                if type(effect) is Log:
                    told.append(effect)
                    continue
                try:
                    handlers[type(effect)](effect)
                except Exception:
                    self._defect(repr(effect))
        if self._release_due:
            self._release_due = False
            if self._kernel is not None:
                try:
                    self._kernel.release()
                except Exception:
                    self._defect("the end of the restart phase")
        # Behind what peers and kernel wait for: a line costs as much as telling several of them.
        for line in told:
            log_event(_log, line.level, line.text, line.fields)

    def _arm(self) -> None:
        """One timer, set again only for an earlier deadline: hold timers move later with every message."""
        deadline = max(self._speaker.deadline(), self._not_before)
        if deadline >= self._timer_at:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = deadline
        self._timer = self.loop.call_later(max(deadline - monotonic(), SHORTEST_TIMER), self._tick)

    def _tick(self) -> None:
        now = monotonic()
        if now - self._timer_at > STALL_TIME and (not self._stood_still or self._late):
            # The hold timer is about a peer's silence, not ours: what came meanwhile is read first, as BIRD does.
            self._stood_still = True
            self._timer = self.loop.call_later(SHORTEST_TIMER, self._tick)
            return
        self._timer, self._timer_at, self._stood_still = None, inf, False
        try:
            if self._speaker.deadline() <= now:
                self._schedule()  # also where a defect is met: what came of the timers before it is not to wait
                self._speaker.on_tick(now)
        except Exception:
            self._defect("a timer")
            self._not_before = now + FAULT_PAUSE
        if not self._due:
            self._arm()

    # Effects.

    def _send(self, effect: Send) -> None:
        if (connection := self.connections.get(effect.conn)) is not None:
            connection.write(effect.data)

    def _spread(self, effect: Spread) -> None:
        connections, data = self.connections, effect.data
        for identity in effect.conns:
            if (connection := connections.get(identity)) is not None:
                try:
                    connection.write(data)
                except Exception:
                    # The others' places in the log have moved on already: they must get it.
                    self._fault(connection, "the updates to send")

    def _ready(self, effect: Ready) -> None:
        connections = self.connections
        for identity in effect.conns:
            connection = connections.get(identity)
            if connection is not None and not connection.paused:
                self._pull(connection)

    def _pull(self, connection: Connection) -> None:
        pull, identity, left = self._speaker.pull, connection.id, PULL_LIMIT
        # What the families have to say goes out together: a system call costs more than most of what is said.
        pieces: list[bytes] = []
        size = 0
        try:
            while not connection.paused and not connection.closing:
                if left <= 0 or monotonic() > self._pull_until:
                    self._unfinished[connection] = None
                    self._schedule()
                    break
                data = pull(identity)
                if data is None:
                    break
                pieces.append(data)
                size += len(data)
                left -= len(data)
                if size >= WRITE_SIZE:
                    connection.write(b"".join(pieces))
                    pieces, size = [], 0
            if size:
                connection.write(b"".join(pieces))
        except Exception:
            self._fault(connection, "the updates to send")

    def _close(self, effect: Close) -> None:
        if (connection := self.connections.get(effect.conn)) is not None:
            self._drop(connection)
            connection.close()

    def _rekey(self, effect: Rekey) -> None:
        if (connection := self.connections.get(effect.conn)) is not None:
            try:
                connection.set_key(effect.address, effect.password)
            except OSError as error:
                self.lost(connection, f"closed, as its TCP-MD5 key could not be changed: {sockopt.reason(error)}")
                connection.abort()

    def _connect(self, effect: Connect) -> None:
        self.connector.dial(effect.peer)

    def _program(self, effect: Program) -> None:
        if self._kernel is not None:
            self._kernel.program(effect.family, effect.routes)

    def _release(self, effect: ReleaseKernel) -> None:
        # The End-of-RIB that ends the restart phase is read before the routes of the same turn are flushed: what they
        # ask for must be with the kernel before it removes what nobody has asked for.
        self._release_due = True

    def _listeners_changed(self, effect: ListenersChanged) -> None:
        # As a rule `reconfigure` has told the listener already, before the Speaker.
        if self._settings is not None and self.listener.settings is not self._settings:
            self.listener.apply(self._settings)

    # Faults.

    def _drop(self, connection: Connection) -> None:
        self.connections.pop(connection.id, None)
        self._blocked.pop(connection, None)
        self._unfinished.pop(connection, None)

    def _fault(self, connection: Connection, what: str) -> None:
        """A defect met while serving one connection costs that session, and nothing else."""
        self._defect(f"{what} of {connection.remote}; its session is closed")
        try:
            self._speaker.on_fault(connection.id, monotonic())
            self._drain()
        except Exception:
            self._defect(f"the end of the session with {connection.remote}")
        if connection.id in self.connections:
            # The core did not get as far as closing it.
            self._drop(connection)
            connection.abort()
        self._schedule()

    def _defect(self, what: str) -> None:
        self.defects += 1
        # A defect that every retry meets again must not fill the disk.
        if self._defect_limit.allow(monotonic()):
            _log.exception("internal error while handling %s%s", what, self._defect_limit.reset())

    def _task(self, work: Coroutine[Any, Any, object], what: str) -> None:
        task = self.loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(lambda done: self._finished(done, what))

    def _finished(self, task: asyncio.Task[object], what: str) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.warning("%s failed: %s", what, error)
