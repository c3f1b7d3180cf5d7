"""Each message, timer and TCP event in each state, through the session's own inputs (RFC 4271 §8.2.2)."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import pytest

from bgpd.effects import Send
from bgpd.errors import BGPError
from bgpd.family import IPV4_UNICAST, IPV6_UNICAST, Family
from bgpd.session.events import Close, Connect, Down, Established, Notice, Refresh, StateChange
from bgpd.session.fsm import TABLE, Event, State
from bgpd.settings import FamilySettings
from bgpd.wire.framing import KEEPALIVE, MessageType, build_message
from bgpd.wire.notification import Notification
from bgpd.wire.open import build_open
from bgpd.wire.refresh import RouteRefresh, build_refresh
from tests.scenario.pair import END_OF_RIB, Script, peer_settings

NO_CONNECTION = (State.IDLE, State.CONNECT, State.ACTIVE)
CONNECTED = (State.OPEN_SENT, State.OPEN_CONFIRM, State.ESTABLISHED)
BOTH = frozenset((IPV4_UNICAST, IPV6_UNICAST))


def script_in(state: State) -> tuple[Script, int]:
    script = Script()
    conn = script.reach(state)
    assert script.is_in(state)
    script.clear()
    return script, conn or 0


# (message, the NOTIFICATION that answers it or None) per state
MESSAGES: dict[str, tuple[Callable[[Script], bytes], dict[State, tuple[int, int] | None]]] = {
    "OPEN": (
        lambda script: build_open(script.peer_open()),
        {State.OPEN_SENT: None, State.OPEN_CONFIRM: (5, 2), State.ESTABLISHED: (5, 3)},
    ),
    "OPEN with another AS": (
        lambda script: build_open(script.peer_open(asn=64999, capabilities=())),
        {State.OPEN_SENT: (2, 2), State.OPEN_CONFIRM: (5, 2), State.ESTABLISHED: (5, 3)},
    ),
    "UPDATE": (
        lambda script: END_OF_RIB,
        {State.OPEN_SENT: (5, 1), State.OPEN_CONFIRM: (5, 2), State.ESTABLISHED: None},
    ),
    "KEEPALIVE": (
        lambda script: KEEPALIVE,
        {State.OPEN_SENT: (5, 1), State.OPEN_CONFIRM: None, State.ESTABLISHED: None},
    ),
    "ROUTE-REFRESH": (
        lambda script: build_refresh(RouteRefresh(IPV4_UNICAST)),
        {State.OPEN_SENT: (5, 1), State.OPEN_CONFIRM: (5, 2), State.ESTABLISHED: None},
    ),
    "ROUTE-REFRESH of wrong length": (
        lambda script: build_message(5, bytes((0, 1, 1, 1, 0))),
        {State.OPEN_SENT: (5, 1), State.OPEN_CONFIRM: (5, 2), State.ESTABLISHED: (7, 1)},
    ),
    "unknown type": (
        lambda script: build_message(9, bytes(10)),
        {State.OPEN_SENT: (1, 3), State.OPEN_CONFIRM: (1, 3), State.ESTABLISHED: (1, 3)},
    ),
    "bad marker": (
        lambda script: bytes(19),
        {State.OPEN_SENT: (1, 1), State.OPEN_CONFIRM: (1, 1), State.ESTABLISHED: (1, 1)},
    ),
    "bad length": (
        lambda script: b"\xff" * 16 + b"\0\x05\2",
        {State.OPEN_SENT: (1, 2), State.OPEN_CONFIRM: (1, 2), State.ESTABLISHED: (1, 2)},
    ),
}


@pytest.mark.parametrize("state", CONNECTED)
@pytest.mark.parametrize("name", list(MESSAGES))
def test_message_in_state(state: State, name: str) -> None:
    script, conn = script_in(state)
    build, answers = MESSAGES[name]
    script.say(conn, build(script))
    answer = answers[state]
    if answer is None:
        assert script.codes() == []
        assert script.session.state >= state
        return
    assert script.codes() == [answer]
    assert script.events(Close) == [Close(conn)]
    assert script.is_in(State.IDLE)
    assert script.session.idle_until == script.now + 5.0
    assert bool(script.events(Down)) == (state is State.ESTABLISHED)
    assert len(script.notices()) == 1, "one sentence"


@pytest.mark.parametrize("before", [b"", KEEPALIVE])
def test_another_open_while_the_answer_to_the_first_is_put_off(before: bytes) -> None:
    """RFC 6608: no second OPEN settles a collision; the other connection goes on."""
    script = Script()
    ours, theirs = script.dial(), script.accept()
    assert theirs is not None
    message = build_open(script.peer_open())
    script.say(theirs, message)
    script.clear()
    script.say(theirs, before + message)
    assert script.codes() == [(5, 1)]
    assert script.events(Close) == [Close(theirs)]
    script.say(ours, message, KEEPALIVE)
    assert script.is_in(State.ESTABLISHED) and script.session.conn == ours


@pytest.mark.parametrize("state", CONNECTED)
@pytest.mark.parametrize(
    ("notification", "damped"),
    [
        (Notification(6, 2, b""), False),
        (Notification(6, 3, b""), False),
        (Notification(6, 4, b""), False),
        (Notification(6, 6, b""), False),
        (Notification(6, 7, b""), False),
        (Notification(6, 9, bytes((6, 2))), False),
        (Notification(6, 9, bytes((3, 1))), True),
        (Notification(6, 1, b""), True),
        (Notification(6, 8, b""), True),
        (Notification(2, 1, b"\0\4"), True),
        (Notification(3, 1, b""), True),
        (Notification(4, 0, b""), True),
        (Notification(0, 0, b""), True),
        (Notification(255, 255, b"\xff" * 50), True),
    ],
)
def test_notification_in_state(state: State, notification: Notification, damped: bool) -> None:
    """RFC 4271 §6.4: close, no answer. Only errors make the session wait."""
    script, conn = script_in(state)
    script.say(conn, notification.build())
    assert script.sent_types() == []
    assert script.events(Close) == [Close(conn)]
    if damped:
        assert script.is_in(State.IDLE)
        assert script.session.idle_until == script.now + 5.0
    else:
        assert script.is_in(State.ACTIVE)
        assert script.session.deadline() <= script.now + 0.2


@pytest.mark.parametrize("state", list(State))
def test_tcp_loss(state: State) -> None:
    script, conn = script_in(state)
    script.session.lost(conn, "reset", script.now)
    if state in NO_CONNECTION:
        assert script.is_in(state)
        assert script.log == [] and script.drain() == []
        return
    assert script.is_in(State.ACTIVE)
    assert script.events(Close) == [], "the connection is gone already"
    assert script.sent_types() == []
    assert script.session.idle_until is None, "never an idle hold after a lost connection"


@pytest.mark.parametrize("state", list(State))
def test_stop(state: State) -> None:
    script, conn = script_in(state)
    script.session.stop(script.now, 2, "maintenance")
    assert script.is_in(State.IDLE)
    assert script.session.deadline() == math.inf
    assert not script.session.running
    if state in CONNECTED:
        assert script.events(Close) == [Close(conn)]
        # Established and OpenConfirm know that the peer takes hard resets (RFC 8538).
        assert script.codes() == [(6, 2) if state is State.OPEN_SENT else (6, 9)]
        assert b"maintenance" in script.notifications()[0].data
    else:
        assert script.codes() == []
    script.pass_time(1000.0)
    assert script.is_in(State.IDLE)
    assert script.events(Connect) == []


@pytest.mark.parametrize("state", list(State))
def test_start_again_changes_nothing_once_started(state: State) -> None:
    script, _ = script_in(state)
    script.session.start(script.now)
    assert script.session.state is (State.ACTIVE if state is State.IDLE else state)
    assert [type(event) for event in script.drain()] == ([StateChange] if state is State.IDLE else [])


@pytest.mark.parametrize("state", list(State))
def test_incoming_connection(state: State) -> None:
    script, _ = script_in(state)
    accepted = script.accept()
    if state is State.IDLE:
        assert accepted is None
        assert script.session.statistics.refused == 1
        assert script.is_in(state)
    elif state is State.ESTABLISHED:  # for less than a second
        assert script.codes() == [(6, 7)] and script.events(Close) == [Close(accepted or 0)]
        assert script.session.statistics.refused == 1
        assert script.is_in(state)
    else:
        assert accepted is not None
        assert script.sent_types() == [MessageType.OPEN]
        assert script.session.state is max(state, State.OPEN_SENT)


@pytest.mark.parametrize("state", list(State))
def test_a_connection_that_nobody_asked_for_is_closed(state: State) -> None:
    script, _ = script_in(state)
    if state is State.CONNECT:
        return
    script.session.connected(99, "192.0.2.9", script.now)
    assert script.drain() == [Close(99)]
    assert script.is_in(state)


@pytest.mark.parametrize("state", list(State))
def test_dial_fails(state: State) -> None:
    script, _ = script_in(state)
    script.session.connect_failed("refused", script.now)
    assert script.session.state is (State.ACTIVE if state is State.CONNECT else state)
    if state is State.CONNECT:
        assert script.notices() == ["peer tor (192.0.2.1): cannot connect to 192.0.2.1 port 179: refused"]


@pytest.mark.parametrize("state", CONNECTED)
def test_hold_timer(state: State) -> None:
    """4/0; in OpenSent after the large hold time."""
    script, conn = script_in(state)
    script.pass_time(239.9)
    assert script.is_in(state)
    script.pass_time(0.1)
    assert script.codes() == [(4, 0)]
    assert script.events(Close) == [Close(conn)]
    assert script.is_in(State.IDLE)


@pytest.mark.parametrize("state", CONNECTED)
def test_send_hold_timer(state: State) -> None:
    """RFC 9687: not one octet taken for 8 minutes; keepalives of the peer do not help it."""
    script, conn = script_in(state)
    script.session.blocked(conn, script.now)
    if state is State.ESTABLISHED:
        for _ in range(4):
            script.pass_time(119.9)
            script.say(conn, KEEPALIVE)
        assert script.is_in(State.ESTABLISHED)
        script.pass_time(0.4)
        assert script.codes() == [(8, 0)]
        assert script.is_in(State.IDLE)
        assert "took not one octet for 480 s" in script.notices()[0]
    else:
        script.pass_time(300.0)
        assert script.codes() == [(4, 0)], "the hold timer is sooner"


def test_send_hold_timer_starts_anew_with_progress_and_stops_when_nothing_waits() -> None:
    script = Script(peer_settings("tor", 65001, send_hold_time=10.0))
    conn = script.establish(hold_time=90)
    script.session.blocked(conn, script.now)
    script.pass_time(9.0)
    script.session.blocked(conn, script.now)
    script.session.progress(conn, script.now)
    script.pass_time(9.0)
    assert script.is_in(State.ESTABLISHED)
    script.session.unblocked(conn, script.now)
    script.session.progress(conn, script.now)
    script.pass_time(30.0)
    assert script.is_in(State.ESTABLISHED)
    script.session.blocked(conn, script.now)
    script.pass_time(9.0)
    script.session.blocked(conn, script.now)  # said twice, counted from the first time
    script.pass_time(1.0)
    assert script.codes() == [(8, 0)]


@pytest.mark.parametrize(("setting", "hold"), [(0.0, 90), (None, 0), (10.0, 0)])
def test_send_hold_timer_off(setting: float | None, hold: int) -> None:
    script = Script(peer_settings("tor", 65001, send_hold_time=setting, hold_time=hold))
    conn = script.establish()
    script.session.blocked(conn, script.now)
    for _ in range(100):
        script.pass_time(60.0)
        script.say(conn, KEEPALIVE)
    assert script.is_in(State.ESTABLISHED)


def test_send_hold_timer_of_a_long_hold_time() -> None:
    script = Script(peer_settings("tor", 65001, hold_time=600))
    conn = script.establish()
    script.session.blocked(conn, script.now)
    for _ in range(1100):
        script.pass_time(1.0)
        script.say(conn, KEEPALIVE)
    assert script.is_in(State.ESTABLISHED)
    script.pass_time(100.0)
    assert script.codes() == [(8, 0)]


@pytest.mark.parametrize("message", [KEEPALIVE, END_OF_RIB, build_refresh(RouteRefresh(IPV4_UNICAST))])
def test_any_message_keeps_the_session_alive(message: bytes) -> None:
    script, conn = script_in(State.ESTABLISHED)
    for _ in range(10):
        script.pass_time(239.0)
        script.say(conn, message)
    assert script.is_in(State.ESTABLISHED)


def test_half_a_message_does_not() -> None:
    script, conn = script_in(State.ESTABLISHED)
    for octet in KEEPALIVE[:10]:
        script.pass_time(30.0)
        script.say(conn, bytes((octet,)))
    assert script.codes() == [(4, 0)]


def test_keepalives_at_a_third_of_the_hold_time_with_jitter() -> None:
    """Two fifths of the jitter count: with the strongest one the time is 2.7 s."""
    script = Script(peer_settings("tor", 65001, hold_time=9), jitter=lambda: 0.75)
    conn = script.establish()
    script.clear()
    for _ in range(10):
        script.pass_time(1.0)
        script.say(conn, KEEPALIVE)
    assert script.sent_types() == [MessageType.KEEPALIVE] * 3


def _keepalive_moments(hold_time: int, jitter: float, began: float) -> list[float]:
    """When the session was up, and its first five keepalives after that; each was answered."""
    script = Script(peer_settings("tor", 65001, hold_time=hold_time), jitter=lambda: jitter)
    script.pass_time(began)
    conn = script.establish()
    moments = [script.now]
    for _ in range(5):
        script.clear()
        moments.append(script.session.deadline())
        script.pass_time(moments[-1] - script.now)
        assert script.sent_types() == [MessageType.KEEPALIVE]
        script.say(conn, KEEPALIVE)
    return moments


@pytest.mark.parametrize("jitter", [0.75, 0.8, 0.93, 1.0])
@pytest.mark.parametrize("began", [0.0, 0.7, 123456.789])
def test_keepalives_of_many_sessions_share_their_moments(jitter: float, began: float) -> None:
    """RFC 4271 §10: three quarters of the time to all of it, whatever is shared."""
    moments = _keepalive_moments(90, jitter, began)
    assert all(22.5 <= due - last <= 30.0 and due % (30 / 16) == 0 for last, due in pairwise(moments))


@pytest.mark.parametrize("jitter", [0.75, 1.0])
@pytest.mark.parametrize("began", [0.0, 0.7, 123456.789])
def test_keepalives_are_a_second_apart(jitter: float, began: float) -> None:
    """RFC 4271 §4.4: never more often, and the shortest hold time asks for just that."""
    moments = _keepalive_moments(3, jitter, began)
    assert [due - last for last, due in pairwise(moments)] == pytest.approx([1.0] * 5)


def test_hold_time_zero_means_no_timers() -> None:
    script = Script(peer_settings("tor", 65001, hold_time=0))
    script.establish()
    script.clear()
    script.pass_time(100_000.0)
    assert script.is_in(State.ESTABLISHED)
    assert script.sent_types() == []
    assert script.session.deadline() == math.inf


def test_receiving_moves_the_deadline_only_later() -> None:
    script, conn = script_in(State.ESTABLISHED)
    before = script.session.deadline()
    script.now += 50.0
    script.say(conn, END_OF_RIB)
    assert script.session.deadline() >= before


class TestOpening:
    def test_events_in_order(self) -> None:
        script = Script()
        conn = script.establish()
        kinds = [type(event) for event in script.drain()]
        assert kinds == [
            *(StateChange, StateChange, Connect),
            *(StateChange, Send),
            *(StateChange, Send),
            *(StateChange, Established, Notice),
        ]
        changes = script.events(StateChange)
        assert [change.new for change in changes] == [
            State.ACTIVE,
            State.CONNECT,
            State.OPEN_SENT,
            State.OPEN_CONFIRM,
            State.ESTABLISHED,
        ]
        for change in changes:
            assert TABLE[change.old, change.event].state is change.new
        assert script.session.conn == conn
        assert script.session.negotiated is not None
        assert script.session.local_address == "192.0.2.9"
        assert script.session.statistics.established_at == script.now

    def test_the_sentence(self) -> None:
        script = Script()
        script.establish(hold_time=90)
        assert script.notices() == [
            "peer tor (192.0.2.1): session established: eBGP, AS 65001, identifier 10.0.0.2, ipv4 and ipv6, "
            "hold time 90 s"
        ]

    def test_everything_in_one_segment(self) -> None:
        """Messages behind the OPEN obey what it agreed on: here an UPDATE beyond 4,096 octets (RFC 8654)."""
        script = Script()
        conn = script.dial()
        long = build_message(MessageType.UPDATE, bytes(5000))
        script.say(conn, build_open(script.peer_open()), KEEPALIVE, long, END_OF_RIB)
        assert script.is_in(State.ESTABLISHED)
        assert script.events(bytes) == [bytes(5000), bytes(4)]

    def test_a_long_message_that_was_not_agreed(self) -> None:
        script = Script(peer_settings("tor", 65001, extended_messages=False))
        conn = script.establish()
        script.say(conn, build_message(MessageType.UPDATE, bytes(5000)))
        assert script.codes() == [(1, 2)]
        assert script.notifications()[0].data == (5019).to_bytes(2)

    @pytest.mark.parametrize("size", [1, 2, 7, 19, 20, 1000])
    def test_any_cut_gives_the_same(self, size: int) -> None:
        script = Script()
        conn = script.dial()
        stream = build_open(script.peer_open()) + KEEPALIVE + END_OF_RIB * 3 + build_message(2, b"\0\0\0\0abcd")
        for at in range(0, len(stream), size):
            script.say(conn, stream[at : at + size])
        assert script.is_in(State.ESTABLISHED)
        assert script.events(bytes) == [bytes(4)] * 3 + [b"\0\0\0\0abcd"]
        assert script.session.statistics.received[1:] == [1, 4, 0, 1, 0]

    def test_first_octets_that_are_no_bgp_at_all(self) -> None:
        """Answered as soon as a header is there, however long the message claims to be."""
        script = Script()
        conn = script.dial()
        script.say(conn, b"GET / HTTP/1.1\r\n")
        assert script.is_in(State.OPEN_SENT)
        script.say(conn, b"Host: tor\r\n\r\n")
        assert script.codes() == [(1, 1)]

    def test_a_bad_marker_is_answered_without_waiting_for_the_rest(self) -> None:
        script = Script()
        conn = script.dial()
        script.say(conn, b"\xff" * 15 + b"\xfe\x01\x00\x01")
        assert script.codes() == [(1, 1)]

    def test_open_longer_than_4096(self) -> None:
        script = Script()
        conn = script.dial()
        script.say(conn, b"\xff" * 16 + (5000).to_bytes(2) + b"\1")
        assert script.codes() == [(1, 2)]

    def test_passive_peer_is_never_dialled(self) -> None:
        script = Script(peer_settings("tor", 65001, passive=True))
        script.session.start(0.0)
        script.pass_time(1000.0)
        assert script.events(Connect) == []
        conn = script.accept()
        assert conn is not None
        script.say(conn, build_open(script.peer_open()), KEEPALIVE)
        assert script.is_in(State.ESTABLISHED)
        script.session.lost(conn, "reset", script.now)
        script.pass_time(1000.0)
        assert script.events(Connect) == []

    def test_a_passive_peer_that_becomes_active_is_dialled(self) -> None:
        script = Script(peer_settings("tor", 65001, passive=True))
        script.session.start(0.0)
        script.session.update_settings(peer_settings("tor", 65001))
        script.pass_time(0.0)
        assert len(script.events(Connect)) == 1

    def test_an_active_peer_that_becomes_passive_is_not_dialled_any_more(self) -> None:
        script = Script(peer_settings("tor", 65001))
        script.session.start(0.0)
        script.session.update_settings(peer_settings("tor", 65001, passive=True))
        script.pass_time(1000.0)
        assert script.events(Connect) == []
        assert script.accept() is not None

    def test_a_new_keepalive_time_holds_without_a_new_session(self) -> None:
        script, _ = script_in(State.ESTABLISHED)
        script.session.update_settings(peer_settings("tor", 65001, keepalive_time=2))
        script.pass_time(0.0)
        assert [event.data for event in script.events(Send)] == [KEEPALIVE]
        script.clear()
        script.pass_time(10.0)
        assert len(script.events(Send)) >= 5
        assert script.is_in(State.ESTABLISHED)


class TestUpdates:
    def test_bodies_are_plain_bytes_in_order(self) -> None:
        script, conn = script_in(State.ESTABLISHED)
        refresh = RouteRefresh(IPV6_UNICAST)
        one, two = build_message(2, b"\0\0\0\0a"), build_message(2, b"\0\0\0\0b")
        script.say(conn, one, KEEPALIVE, build_refresh(refresh), two)
        assert script.drain() == [b"\0\0\0\0a", Refresh(refresh), b"\0\0\0\0b"]

    def test_what_came_before_the_end_is_still_delivered(self) -> None:
        script, conn = script_in(State.ESTABLISHED)
        script.say(conn, END_OF_RIB, Notification(6, 2, b"").build(), END_OF_RIB)
        events = script.drain()
        assert events[0] == bytes(4)
        assert sum(isinstance(event, bytes) for event in events) == 1, "nothing after a NOTIFICATION counts"

    def test_octets_after_the_end_are_counted_and_dropped(self) -> None:
        script, conn = script_in(State.ESTABLISHED)
        script.session.stop(script.now, 4)
        script.drain()
        script.say(conn, END_OF_RIB)
        assert script.drain() == []
        assert script.session.statistics.ignored_data == 1

    def test_fault_found_by_the_speaker(self) -> None:
        script, conn = script_in(State.ESTABLISHED)
        script.session.fail(BGPError(3, 1, b"\x01\x02", "attribute 5 twice"), script.now)
        assert script.codes() == [(3, 1)]
        assert script.notifications()[0].data == b"\x01\x02"
        assert script.events(Close) == [Close(conn)]
        assert "3/1 UPDATE message error: malformed attribute list (attribute 5 twice)" in script.notices()[0]
        assert script.session.idle_until is not None

    @pytest.mark.parametrize("subcode", [1, 8])
    def test_a_limit_passed_keeps_no_routes(self, subcode: int) -> None:
        """Even with the N bit: keeping the routes of a peer that sent too many would defeat the limit."""
        script, _ = script_in(State.ESTABLISHED)
        script.session.fail(BGPError(6, subcode, reason="1001 prefixes of 1000"), script.now)
        assert script.codes() == [(6, subcode)]
        assert [down.retained for down in script.events(Down)] == [frozenset()]
        assert script.session.idle_until is not None
        assert script.events(StateChange)[-1].event is Event.AUTOMATIC_STOP

    def test_fail_without_a_session_does_nothing(self) -> None:
        script, _ = script_in(State.OPEN_SENT)
        script.session.fail(BGPError(3, 1), script.now)
        assert script.drain() == []


class TestRefresh:
    @pytest.mark.parametrize("subtype", [0, 1, 2])
    def test_delivered(self, subtype: int) -> None:
        script, conn = script_in(State.ESTABLISHED)
        script.say(conn, build_refresh(RouteRefresh(IPV4_UNICAST, subtype)))
        assert script.events(Refresh) == [Refresh(RouteRefresh(IPV4_UNICAST, subtype))]

    @pytest.mark.parametrize(
        "message",
        [
            build_refresh(RouteRefresh(Family(1, 128))),
            build_refresh(RouteRefresh(IPV4_UNICAST, 3)),
            build_refresh(RouteRefresh(IPV4_UNICAST, 255)),
        ],
    )
    def test_ignored_and_counted(self, message: bytes) -> None:
        script, conn = script_in(State.ESTABLISHED)
        script.say(conn, message)
        assert script.drain() == []
        assert script.session.statistics.ignored_refreshes == 1
        assert script.is_in(State.ESTABLISHED)

    def test_not_offered_by_us(self) -> None:
        script = Script(peer_settings("tor", 65001, route_refresh=False))
        conn = script.establish()
        script.say(conn, build_refresh(RouteRefresh(IPV4_UNICAST)), build_refresh(RouteRefresh(IPV4_UNICAST, 1)))
        assert script.events(Refresh) == []
        assert script.session.statistics.ignored_refreshes == 2


class TestCapabilitiesRefused:
    """RFC 5492 §3: a peer that answers 2/4 gets one try without capabilities."""

    def test_one_try_and_no_idle_hold(self) -> None:
        script = Script()
        conn = script.dial()
        script.say(conn, Notification(2, 4, b"").build())
        assert script.session.idle_until is None
        script.clear()
        script.pass_time(10.0)
        conn = script.connect()
        bare = script.events(Send)[0].data
        ours = script.peer_open(asn=65000, router_id=script.local.router_id, capabilities=())
        assert bare == build_open(ours)
        script.say(conn, build_open(script.peer_open(capabilities=())), KEEPALIVE)
        assert script.is_in(State.ESTABLISHED)
        assert script.established_events()[0].negotiated.families == {IPV4_UNICAST}

    def test_the_next_try_has_them_again(self) -> None:
        script = Script()
        for capabilities in (True, False, True):
            script.clear()
            script.session.start(script.now)
            script.pass_time(40.0)
            conn = script.connect()
            data = script.events(Send)[0].data
            assert (len(data) > 29) is capabilities
            script.say(conn, Notification(2, 4, b"").build())
        assert script.is_in(State.ACTIVE)

    def test_useless_without_ipv4(self) -> None:
        script = Script(peer_settings("tor", 65001, families=(FamilySettings(IPV6_UNICAST),)))
        conn = script.dial()
        script.say(conn, Notification(2, 4, b"").build())
        assert script.session.idle_until is not None


class TestRetry:
    def test_failed_dials_back_off(self) -> None:
        script = Script(jitter=lambda: 0.75)
        script.session.start(0.0)
        times = []
        for _ in range(9):
            script.pass_time(script.session.deadline() - script.now)
            times.append(script.now)
            script.session.connect_failed("refused", script.now)
        gaps = [later - earlier for earlier, later in zip([0.0, *times], times, strict=False)]
        assert gaps == pytest.approx([0.75 * delay for delay in (0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5, 5, 5)])
        assert len(script.events(Connect)) == 9
        assert len(script.notices()) == 1, "the same reason again and again is said once"
        assert script.session.statistics.connect_failures == 9

    def test_reasons_that_take_turns_are_said_once_each_until_the_session_was_up(self) -> None:
        script = Script()
        script.session.start(0.0)
        for number in range(8):
            script.pass_time(script.session.deadline() - script.now)
            script.session.connect_failed("refused" if number % 2 else "no route", script.now)
        assert [("no route" in text, "refused" in text) for text in script.notices()] == [(True, False), (False, True)]
        conn = script.establish()
        said = len(script.notices())
        script.session.lost(conn, "reset", script.now)
        for _ in range(2):
            script.pass_time(script.session.deadline() - script.now)
            script.session.connect_failed("refused", script.now)
        assert [text.endswith("refused") for text in script.notices()[said:]] == [False, True]

    def test_idle_hold_doubles_and_then_also_refuses(self) -> None:
        script = Script()
        holds = []
        for number in range(5):
            script.session.start(script.now)
            conn = script.dial() if script.session.state is not State.CONNECT else script.connect()
            script.say(conn, KEEPALIVE)
            until = script.session.idle_until
            assert until is not None
            holds.append(until - script.now)
            if number:
                assert script.accept() is None
            script.pass_time(until - script.now)
            assert script.session.idle_until is None
            script.pass_time(10.0)
        assert holds == [5.0, 10.0, 20.0, 30.0, 30.0]

    def test_one_error_does_not_close_the_door(self) -> None:
        script = Script()
        script.say(script.dial(), KEEPALIVE)
        assert script.session.idle_until is not None
        conn = script.accept()
        assert conn is not None
        script.say(conn, build_open(script.peer_open()), KEEPALIVE)
        assert script.is_in(State.ESTABLISHED)

    def test_a_peer_that_opens_and_closes_is_not_dialled_in_a_busy_loop(self) -> None:
        script = Script()
        script.session.start(0.0)
        for _ in range(60):
            script.pass_time(script.session.deadline() - script.now)
            conn = script.connect()
            script.say(conn, build_open(script.peer_open()), KEEPALIVE)
            script.session.lost(conn, "closed", script.now)
        assert script.now > 200.0

    def test_a_session_that_lasted_is_dialled_again_at_once(self) -> None:
        script = Script()
        conn = script.establish()
        script.pass_time(10.0)
        script.session.lost(conn, "reset", script.now)
        assert script.session.deadline() == pytest.approx(script.now + 0.1)

    def test_answer_to_a_dial_from_before_a_stop(self) -> None:
        """The connection was made with settings that are not ours any more."""
        script, _ = script_in(State.CONNECT)
        script.session.stop(script.now, 6)
        script.session.start(script.now)
        script.pass_time(10.0)
        assert script.is_in(State.CONNECT)
        assert script.events(Connect) == [], "one dial at a time"
        script.session.connected(7, "192.0.2.9", script.now)
        assert script.events(Close) == [Close(7)]
        assert len(script.events(Connect)) == 1
        script.session.connected(8, "192.0.2.9", script.now)
        assert script.is_in(State.OPEN_SENT)


class TestWords:
    def test_shutdown_text_reaches_the_log_escaped(self) -> None:
        script, conn = script_in(State.ESTABLISHED)
        text = "back at 5\x1b[31m\n"
        script.say(conn, Notification(6, 2, bytes((len(text),)) + text.encode()).build())
        (sentence,) = script.notices()
        assert "6/2 cease: administrative shutdown" in sentence
        assert "back at 5" in sentence
        assert sentence.isprintable()

    @pytest.mark.parametrize("data", [b"\xff", b"\x05abc", b"\x02\xff\xfe", b""])
    def test_hostile_shutdown_text(self, data: bytes) -> None:
        script, conn = script_in(State.ESTABLISHED)
        script.say(conn, Notification(6, 4, data).build())
        (sentence,) = script.notices()
        assert sentence.isprintable()
        assert script.is_in(State.ACTIVE)

    def test_loss_says_what_becomes_of_the_routes(self) -> None:
        script = Script()
        conn = script.establish()
        script.pass_time(60.0)
        script.session.lost(conn, "connection reset by peer", script.now)
        assert script.notices()[-1] == (
            "peer tor (192.0.2.1): session lost after 1 min 0 s: the TCP connection was lost "
            "(connection reset by peer); its routes of ipv4 and ipv6 stay for up to 2 min 0 s (graceful restart)"
        )

    def test_fsm_error_names_message_and_state(self) -> None:
        script, conn = script_in(State.OPEN_CONFIRM)
        script.say(conn, END_OF_RIB)
        assert script.notifications()[0].data == b"\x02", "RFC 6608: the type of the message"
        assert "received UPDATE in OpenConfirm" in script.notices()[0]

    def test_statistics(self) -> None:
        script = Script()
        conn = script.establish()
        script.say(conn, END_OF_RIB, KEEPALIVE)
        statistics = script.session.statistics
        assert statistics.received[1:] == [1, 1, 0, 2, 0]
        assert statistics.sent[1:] == [1, 0, 0, 1, 0]
        assert (statistics.established_count, statistics.flaps, statistics.connect_attempts) == (1, 0, 1)
        script.session.lost(conn, "reset", script.now)
        assert statistics.flaps == 1
        assert statistics.established_at is None
        assert statistics.last_error == "the TCP connection was lost (reset)"

    def test_what_an_error_said_outlives_the_hanging_up_that_follows(self) -> None:
        script = Script()
        conn = script.dial()
        script.say(conn, Notification(2, 2, b"").build())
        statistics = script.session.statistics
        said = statistics.last_error
        assert "bad peer AS" in said
        for _ in range(2):
            script.pass_time(30.0)
            conn = script.connect()
            script.session.lost(conn, "the peer closed the connection", script.now)
            assert statistics.last_error == said
            assert statistics.trouble == ("Socket", "the peer closed the connection")
        conn = script.establish()
        script.session.lost(conn, "reset", script.now)
        assert statistics.last_error == "the TCP connection was lost (reset)"
