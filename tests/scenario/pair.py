"""Sessions without a network: `Pair` joins two of them by pipes in memory, `Script` plays the peer of one by hand.

Time is a number that moves from deadline to deadline. A Pair does what a shell would do with a session's events: it
dials, delivers octets in order, and reports closed connections. `Pair.run` fails on a busy loop.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from attrs import evolve

from bgpd.effects import Send
from bgpd.family import IPV4_UNICAST, IPV6_UNICAST
from bgpd.session.events import Close, Connect, Established, Notice, SessionEvent
from bgpd.session.fsm import State
from bgpd.session.local import LocalState
from bgpd.session.negotiate import our_open
from bgpd.session.session import Session
from bgpd.settings import FamilySettings, PeerSettings
from bgpd.wire.framing import KEEPALIVE, Framer, MessageType, build_message
from bgpd.wire.notification import Notification, parse_notification
from bgpd.wire.open import Open, build_open

T = TypeVar("T")

BOTH_FAMILIES = (FamilySettings(IPV4_UNICAST), FamilySettings(IPV6_UNICAST))
END_OF_RIB = build_message(MessageType.UPDATE, bytes(4))
"""IPv4's: an UPDATE with nothing in it (RFC 4724 §2)."""


def peer_settings(name: str, asn: int, **changes: Any) -> PeerSettings:
    """Settings of a peer with an address that nobody looks at."""
    return evolve(PeerSettings(name=name, address="192.0.2.1", asn=asn, families=BOTH_FAMILIES), **changes)


def packed_id(number: int) -> bytes:
    """A BGP identifier from a number."""
    return number.to_bytes(4)


class End:
    """One side of a Pair: its session, and everything that the session has said, with times."""

    def __init__(self, name: str, settings: PeerSettings, local: LocalState, jitter: Callable[[], float]) -> None:
        self.name = name
        self.local = local
        self.jitter = jitter
        self.session = Session(settings, local, jitter)
        self.log: list[tuple[float, SessionEvent]] = []
        self.listening = True

    def events(self, kind: type[T]) -> list[T]:
        """All events of one type so far."""
        return [event for _, event in self.log if isinstance(event, kind)]

    @property
    def notices(self) -> list[str]:
        """Sentences of the log at level INFO and above."""
        return [notice.text for notice in self.events(Notice) if notice.level >= 20]


class _Pipe:
    """One TCP connection: the id that each end knows it by, and what is still open."""

    def __init__(self, ends: tuple[End, End], conns: tuple[int, int]) -> None:
        self.conn = {id(ends[0]): conns[0], id(ends[1]): conns[1]}
        self.open = {id(ends[0]): False, id(ends[1]): False}
        self.arrives = {id(ends[0]): 0.0, id(ends[1]): 0.0}
        self.dead = False
        """The network swallows everything: neither octets nor a close arrive."""


class Pair:
    """Two sessions that are each other's peer."""

    def __init__(
        self,
        settings: tuple[PeerSettings, PeerSettings],
        locals_: tuple[LocalState, LocalState],
        delay: Callable[[], float] = lambda: 0.001,
        jitter: Callable[[], float] = lambda: 1.0,
    ) -> None:
        self.now = 0.0
        self.delay = delay
        self.a = End("a", settings[0], locals_[0], jitter)
        self.b = End("b", settings[1], locals_[1], jitter)
        self._pipes: dict[int, _Pipe] = {}
        self._ids = itertools.count(1)
        self._order = itertools.count()
        self._todo: list[tuple[float, int, Callable[[], None]]] = []

    @property
    def ends(self) -> tuple[End, End]:
        return self.a, self.b

    def other(self, end: End) -> End:
        return self.b if end is self.a else self.a

    def start(self) -> None:
        """Start both sessions now."""
        for end in self.ends:
            end.session.start(self.now)
            self.drain(end)

    def run(self, seconds: float) -> None:
        """Let this much time pass. Fails if a session asks for ticks that do nothing."""
        until = self.now + seconds
        still = 0
        while (at := self._next()) <= until:
            still = still + 1 if at <= self.now else 0
            assert still < 1000, f"busy loop at {self.now}: {[end.session.deadline() for end in self.ends]}"
            self.now = max(self.now, at)
            self._step()
        self.now = until

    def run_until(self, condition: Callable[[], bool], limit: float = 60.0) -> None:
        """Let time pass until the condition holds."""
        until = self.now + limit
        while not condition():
            at = self._next()
            assert at <= until, f"nothing came of it within {limit} s"
            self.now = max(self.now, at)
            self._step()

    def both_established(self) -> bool:
        return all(end.session.state is State.ESTABLISHED for end in self.ends)

    def one_session(self) -> bool:
        """Both ends are Established, and on the same connection."""
        if not self.both_established():
            return False
        pipe = self._pipes.get(self.a.session.conn or 0)
        return pipe is not None and pipe.conn[id(self.b)] == self.b.session.conn

    def open_connections(self) -> int:
        """TCP connections that at least one end holds open."""
        return len({id(pipe) for pipe in self._pipes.values() if any(pipe.open.values())})

    def _next(self) -> float:
        at = min(end.session.deadline() for end in self.ends)
        return min(at, self._todo[0][0]) if self._todo else at

    def _step(self) -> None:
        while self._todo and self._todo[0][0] <= self.now:
            heapq.heappop(self._todo)[2]()
        for end in self.ends:
            if end.session.deadline() <= self.now:
                end.session.tick(self.now)
            self.drain(end)

    def _at(self, time: float, action: Callable[[], None]) -> None:
        heapq.heappush(self._todo, (time, next(self._order), action))

    # What a shell does with the events

    def drain(self, end: End) -> None:
        """Carry out what the session wants."""
        for event in end.session.take():
            end.log.append((self.now, event))
            if isinstance(event, Connect):
                self._dial(end)
            elif isinstance(event, Send):
                self.send(end, event.conn, event.data)
            elif isinstance(event, Close):
                self._close(end, event.conn)

    def send(self, end: End, conn: int, data: bytes) -> None:
        """Write octets as this end, as its speaker would do with UPDATEs."""
        pipe, peer = self._pipes[conn], self.other(end)
        if pipe.open[id(end)]:
            self._deliver(pipe, peer, lambda: peer.session.receive(pipe.conn[id(peer)], data, self.now))

    def _deliver(self, pipe: _Pipe, to: End, action: Callable[[], None]) -> None:
        """In order, after the network's delay, and only if the receiver still has the connection."""
        session = to.session

        def arrive() -> None:
            if pipe.open[id(to)] and not pipe.dead and to.session is session:
                action()
                self.drain(to)

        at = max(pipe.arrives[id(to)], self.now + self.delay())
        pipe.arrives[id(to)] = at
        self._at(at, arrive)

    def _dial(self, end: End) -> None:
        session = end.session
        pipe = _Pipe((end, self.other(end)), (next(self._ids), next(self._ids)))
        self._at(self.now + self.delay(), lambda: self._arrive(pipe, end, session))

    def _arrive(self, pipe: _Pipe, end: End, session: Session) -> None:
        """The SYN is there. The dialling side learns of it one way later, before any octets."""
        peer = self.other(end)
        for conn in pipe.conn.values():
            self._pipes[conn] = pipe
        back = self.now + self.delay()
        pipe.arrives[id(end)] = back
        if not peer.listening:
            self._at(back, lambda: self._answer(end, session, pipe, "connection refused"))
            return
        pipe.open[id(end)] = pipe.open[id(peer)] = True
        self._at(back, lambda: self._answer(end, session, pipe, ""))
        if not peer.session.accepted(pipe.conn[id(peer)], f"of {peer.name}", self.now):
            self._close(peer, pipe.conn[id(peer)])
        self.drain(peer)

    def _answer(self, end: End, session: Session, pipe: _Pipe, reason: str) -> None:
        if end.session is session and not pipe.dead:
            if reason:
                session.connect_failed(reason, self.now)
            else:
                session.connected(pipe.conn[id(end)], f"of {end.name}", self.now)
            self.drain(end)

    def _close(self, end: End, conn: int) -> None:
        pipe, peer = self._pipes[conn], self.other(end)
        if pipe.open[id(end)]:
            pipe.open[id(end)] = False
            self._deliver(pipe, peer, lambda: self._lost(pipe, peer))

    def _lost(self, pipe: _Pipe, end: End) -> None:
        pipe.open[id(end)] = False
        end.session.lost(pipe.conn[id(end)], "closed by the peer", self.now)

    # Faults

    def kill(self, end: End) -> None:
        """The process of this end dies: its connections close without a word. `restart` brings it back."""
        end.listening = False
        for conn, pipe in list(self._pipes.items()):
            if pipe.conn[id(end)] == conn and pipe.open[id(end)]:
                self._close(end, conn)
        end.session = Session(end.session.peer, end.local, end.jitter)

    def restart(self, end: End) -> None:
        """A killed end starts again."""
        end.listening = True
        end.session.start(self.now)
        self.drain(end)

    def vanish(self) -> None:
        """Every present connection goes silent in both directions, and nobody is told."""
        for pipe in self._pipes.values():
            pipe.dead = True


class Script:
    """One session, and a peer that the test plays message by message."""

    def __init__(
        self,
        settings: PeerSettings | None = None,
        local: LocalState | None = None,
        peer_id: int = 0x0A000002,
        jitter: Callable[[], float] = lambda: 1.0,
    ) -> None:
        self.settings = settings or peer_settings("tor", 65001)
        self.local = local or LocalState(65000, packed_id(0x0A000001))
        self.session = Session(self.settings, self.local, jitter)
        self.peer_local = LocalState(self.settings.asn, packed_id(peer_id))
        self.now = 0.0
        self.log: list[SessionEvent] = []
        self._ids = itertools.count(1)

    def events(self, kind: type[T]) -> list[T]:
        self.drain()
        return [event for event in self.log if isinstance(event, kind)]

    def drain(self) -> Sequence[SessionEvent]:
        """New events since the last call; all of them stay in `log`."""
        events = self.session.take()
        self.log += events
        return events

    def clear(self) -> None:
        """Forget all events so far."""
        self.drain()
        self.log.clear()

    def is_in(self, state: State) -> bool:
        """Asked anew each time, which a type checker believes of a call but not of an attribute."""
        return self.session.state is state

    def pass_time(self, seconds: float) -> None:
        """Tick at every deadline on the way."""
        until = self.now + seconds
        for _ in range(100_000):
            at = self.session.deadline()
            if at > until:
                break
            self.now = max(self.now, at)
            self.session.tick(self.now)
        else:
            raise AssertionError("busy loop")
        self.now = until

    def peer_open(self, **changes: Any) -> Open:
        """The OPEN of a peer that is configured as our mirror."""
        mirror = evolve(self.settings, asn=self.local.asn, local_asn=None)
        return evolve(our_open(mirror, self.peer_local), **changes)

    def say(self, conn: int, *messages: bytes) -> None:
        """The peer sends these in one segment."""
        self.session.receive(conn, b"".join(messages), self.now)

    def dial(self) -> int:
        """Start, wait for Connect, and let it succeed: OpenSent."""
        self.session.start(self.now)
        self.pass_time(10.0)
        assert self.session.state is State.CONNECT
        return self.connect()

    def connect(self) -> int:
        conn = next(self._ids)
        self.session.connected(conn, "192.0.2.9", self.now)
        return conn

    def accept(self) -> int | None:
        """The peer dials; None if it is refused."""
        conn = next(self._ids)
        return conn if self.session.accepted(conn, "192.0.2.9", self.now) else None

    def establish(self, **changes: Any) -> int:
        """All the way up; `changes` are made to the peer's OPEN."""
        conn = self.dial()
        self.say(conn, build_open(self.peer_open(**changes)))
        assert self.is_in(State.OPEN_CONFIRM)
        self.say(conn, KEEPALIVE)
        assert self.is_in(State.ESTABLISHED)
        return conn

    def reach(self, state: State) -> int | None:
        """Bring a fresh session into a state. Returns its connection, if it has one there."""
        if state is State.IDLE:
            return None
        if state in (State.ACTIVE, State.CONNECT):
            self.session.start(self.now)
            self.pass_time(10.0 if state is State.CONNECT else 0.0)
            return None
        if state is State.ESTABLISHED:
            return self.establish()
        conn = self.dial()
        if state is State.OPEN_CONFIRM:
            self.say(conn, build_open(self.peer_open()))
        return conn

    def notifications(self) -> list[Notification]:
        """What the session has sent."""
        return [parse_notification(body) for kind, body in self._sent() if kind == MessageType.NOTIFICATION]

    def codes(self) -> list[tuple[int, int]]:
        return [(int(item.code), int(item.subcode)) for item in self.notifications()]

    def sent_types(self) -> list[int]:
        return [kind for kind, _ in self._sent()]

    def _sent(self) -> list[tuple[int, bytes]]:
        return [(int(kind), body) for event in self.events(Send) for kind, body in Framer().feed(event.data)]

    def notices(self) -> list[str]:
        return [notice.text for notice in self.events(Notice) if notice.level >= 20]

    def established_events(self) -> list[Established]:
        return self.events(Established)
