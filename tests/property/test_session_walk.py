"""Random walks: whatever happens in whatever order, the session keeps its promises."""

from __future__ import annotations

import math
import random

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from bgpd.effects import Send
from bgpd.errors import BGPError
from bgpd.family import IPV4_UNICAST, IPV6_UNICAST
from bgpd.session.events import Close, Connect, Down, Established, StaleExpired, StateChange
from bgpd.session.fsm import State
from bgpd.wire.framing import KEEPALIVE, build_message
from bgpd.wire.notification import Notification
from bgpd.wire.open import build_open
from bgpd.wire.refresh import RouteRefresh, build_refresh
from tests.scenario.pair import END_OF_RIB, Script, peer_settings

BOTH = frozenset((IPV4_UNICAST, IPV6_UNICAST))


class Walk(RuleBasedStateMachine):
    """A session, and a model that knows only its events."""

    def __init__(self) -> None:
        super().__init__()
        rng = random.Random(1)
        self.script = Script(peer_settings("tor", 65001, hold_time=90), jitter=lambda: rng.uniform(0.75, 1.0))
        self.next_conn = 1000
        self.open: set[int] = set()
        self.dialing = False
        self.state = State.IDLE
        self.up = False
        self.stale: frozenset[object] = frozenset()
        self.running = False
        self.messages = {
            "keepalive": KEEPALIVE,
            "update": END_OF_RIB,
            "refresh": build_refresh(RouteRefresh(IPV4_UNICAST)),
            "bad refresh": build_message(5, b"\0"),
            "open": build_open(self.script.peer_open()),
            "open without capabilities": build_open(self.script.peer_open(capabilities=())),
            "bad open": build_open(self.script.peer_open(router_id=bytes(4))),
            "cease": Notification(6, 4, b"").build(),
            "collision": Notification(6, 7, b"").build(),
            "refusal": Notification(2, 4, b"").build(),
            "error": Notification(3, 1, b"").build(),
            "garbage": bytes(30),
        }

    def check(self) -> None:
        for event in self.script.drain():
            if isinstance(event, Connect):
                assert not self.dialing, "one dial at a time"
                assert self.running
                self.dialing = True
            elif isinstance(event, Send):
                assert event.conn in self.open, "nothing is sent on a connection that is closed"
            elif isinstance(event, Close):
                assert event.conn in self.open
                self.open.remove(event.conn)
            elif isinstance(event, StateChange):
                assert event.old is self.state is not event.new
                self.state = event.new
            elif isinstance(event, Established):
                assert not self.up
                self.up = True
                assert not event.retained & event.dropped
                assert event.retained | event.dropped == self.stale
                self.stale = event.retained
            elif isinstance(event, Down):
                assert self.up
                self.up = False
                self.stale = event.retained
            elif isinstance(event, StaleExpired):
                assert event.families <= self.stale
                self.stale -= event.families
            elif isinstance(event, bytes):
                assert self.up, "UPDATEs are delivered only in Established"
        self.script.log.clear()

    @rule()
    def start(self) -> None:
        self.script.session.start(self.script.now)
        self.running = True
        self.check()

    @rule(subcode=st.sampled_from((2, 3, 4, 6, 9)), graceful=st.booleans())
    def stop(self, subcode: int, graceful: bool) -> None:
        self.script.session.stop(self.script.now, subcode, "text", graceful)
        self.running = False
        self.check()
        assert not self.open

    @precondition(lambda self: self.dialing)
    @rule(succeeds=st.booleans())
    def answer(self, succeeds: bool) -> None:
        self.dialing = False
        if succeeds:
            self.next_conn += 1
            self.open.add(self.next_conn)
            self.script.session.connected(self.next_conn, "", self.script.now)
        else:
            self.script.session.connect_failed("refused", self.script.now)
        self.check()

    @rule()
    def accept(self) -> None:
        self.next_conn += 1
        self.open.add(self.next_conn)
        if not self.script.session.accepted(self.next_conn, "", self.script.now):
            self.open.remove(self.next_conn)
        self.check()

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def lose(self, data: st.DataObject) -> None:
        conn = data.draw(st.sampled_from(sorted(self.open)))
        self.open.remove(conn)
        self.script.session.lost(conn, "reset", self.script.now)
        self.check()

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def receive(self, data: st.DataObject) -> None:
        conn = data.draw(st.sampled_from(sorted(self.open)))
        names = data.draw(st.lists(st.sampled_from(sorted(self.messages)), min_size=1, max_size=4))
        self.script.say(conn, *(self.messages[name] for name in names))
        self.check()

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def come_up(self, data: st.DataObject) -> None:
        conn = data.draw(st.sampled_from(sorted(self.open)))
        self.script.say(conn, self.messages["open"])
        self.script.say(conn, self.messages["keepalive"])
        self.check()

    @precondition(lambda self: self.open)
    @rule(data=st.data(), what=st.sampled_from(("blocked", "progress", "unblocked")))
    def write_state(self, data: st.DataObject, what: str) -> None:
        conn = data.draw(st.sampled_from(sorted(self.open)))
        getattr(self.script.session, what)(conn, self.script.now)
        self.check()

    @rule(octets=st.binary(max_size=60))
    def unknown_connection(self, octets: bytes) -> None:
        self.script.say(1, octets)
        self.check()

    @rule(code=st.sampled_from((3, 6)))
    def fail(self, code: int) -> None:
        self.script.session.fail(BGPError(code, 1), self.script.now)
        self.check()

    @precondition(lambda self: self.stale)
    @rule(family=st.sampled_from(sorted(BOTH)))
    def end_of_rib(self, family: object) -> None:
        if self.up:
            self.script.session.end_of_rib(family)  # type: ignore[arg-type]
            self.stale -= {family}
        self.check()

    @rule(seconds=st.sampled_from((0.0, 0.05, 0.2, 1.0, 5.0, 31.0, 95.0, 130.0, 500.0)))
    def wait(self, seconds: float) -> None:
        session, until = self.script.session, self.script.now + seconds
        for _ in range(2000):
            at = session.deadline()
            if at > until:
                break
            self.script.now = max(self.script.now, at)
            session.tick(self.script.now)
            self.check()
        else:
            raise AssertionError("busy loop")
        self.script.now = until

    @invariant()
    def promises(self) -> None:
        session = self.script.session
        assert session.state is self.state
        assert (session.conn is not None) == self.up == (self.state is State.ESTABLISHED)
        assert (session.negotiated is not None) == self.up
        assert session.stale_families == self.stale
        assert session.running is self.running
        assert len(self.open) <= 2, "at most two connections"
        assert self.open == set(session._by_conn)
        if not self.running:
            assert self.state is State.IDLE
        elif self.state is State.IDLE:
            assert session.idle_until is not None
        if self.running:
            # A session that is not up has something to wait for: an answer, an octet or a timer.
            assert self.up or self.dialing or session.deadline() < math.inf
        if self.state in (State.OPEN_SENT, State.OPEN_CONFIRM):
            assert self.open


TestWalk = Walk.TestCase
TestWalk.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
