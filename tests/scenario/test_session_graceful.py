"""Graceful restart at session level, both roles (RFC 4724, RFC 8538)."""

from __future__ import annotations

from typing import Any

import pytest
from attrs import evolve

from bgpd.errors import BGPError
from bgpd.family import IPV4_UNICAST, IPV6_UNICAST, Family
from bgpd.session.events import Close, Down, Established, StaleExpired
from bgpd.session.fsm import State
from bgpd.session.local import LocalState
from bgpd.session.session import DIAL_WAIT
from bgpd.wire.capabilities import FourOctetAs, GracefulRestartCapability, MultiProtocol
from bgpd.wire.framing import KEEPALIVE, MessageType
from bgpd.wire.notification import Notification
from bgpd.wire.open import Open, build_open
from tests.scenario.pair import Pair, Script, packed_id, peer_settings

V4, V6 = IPV4_UNICAST, IPV6_UNICAST
BOTH = frozenset((V4, V6))
NONE: frozenset[Family] = frozenset()


def make_pair(**changes: Any) -> Pair:
    settings = (peer_settings("b", 65000, **changes), peer_settings("a", 65000, **changes))
    return Pair(settings, (LocalState(65000, packed_id(1)), LocalState(65000, packed_id(2))))


def up(pair: Pair, seconds: float = 10.0) -> Pair:
    pair.start()
    pair.run(seconds)
    assert pair.one_session()
    return pair


def restart(pair: Pair, seconds: float = 1.0) -> None:
    """b is killed and comes back; it says that it restarts, and that it kept forwarding."""
    pair.kill(pair.b)
    pair.run(seconds)
    pair.b.local.restarting = True
    pair.restart(pair.b)


class TestHelper:
    def test_kill_and_restart(self) -> None:
        pair = up(make_pair())
        restart(pair)
        pair.run(20.0)
        assert pair.one_session()
        assert [down.retained for down in pair.a.events(Down)] == [BOTH]
        again = pair.a.events(Established)[1]
        assert (again.retained, again.dropped) == (BOTH, NONE)
        assert again.negotiated.graceful is not None and again.negotiated.graceful.restarting
        assert pair.a.session.stale_families == BOTH
        pair.a.session.end_of_rib(V4)
        assert pair.a.session.stale_families == {V6}
        pair.a.session.end_of_rib(V6)
        pair.run(1000.0)
        assert pair.a.events(StaleExpired) == []

    def test_twice_in_a_row(self) -> None:
        """The outage of projectcalico/felix issue 1592: nothing may go at the second loss."""
        pair = up(make_pair())
        restart(pair)
        pair.run_until(pair.one_session)
        restart(pair)
        pair.run_until(pair.one_session)
        assert [down.retained for down in pair.a.events(Down)] == [BOTH, BOTH]
        assert [event.dropped for event in pair.a.events(Established)] == [NONE] * 3
        assert pair.a.events(StaleExpired) == []
        assert pair.a.session.stale_families == BOTH

    def test_twice_by_the_letter_of_the_rfc(self) -> None:
        pair = up(make_pair(helper_second_loss_keeps=False))
        restart(pair)
        pair.run_until(pair.one_session)
        restart(pair)
        pair.run_until(pair.one_session)
        assert pair.a.events(StaleExpired) == [StaleExpired(BOTH)]
        order = [type(event) for event in (event for _, event in pair.a.log) if isinstance(event, StaleExpired | Down)]
        assert order == [Down, StaleExpired, Down]

    def test_restart_time_counts_from_the_first_loss(self) -> None:
        pair = up(make_pair(restart_time=30))
        first = pair.now
        restart(pair)
        pair.run_until(pair.one_session)
        pair.run(10.0)
        pair.kill(pair.b)
        pair.run(60.0)
        times = [at for at, event in pair.a.log if isinstance(event, StaleExpired)]
        assert times == [pytest.approx(first + 30, abs=0.1)]

    def test_a_peer_that_stays_away(self) -> None:
        pair = up(make_pair(restart_time=30))
        pair.kill(pair.b)
        pair.run(29.0)
        assert pair.a.events(StaleExpired) == []
        pair.run(2.0)
        assert pair.a.events(StaleExpired) == [StaleExpired(BOTH)]
        assert "has not come back in time" in pair.a.notices[-1]

    def test_no_end_of_rib(self) -> None:
        pair = up(make_pair())
        restart(pair)
        pair.run(400.0)
        assert pair.a.events(StaleExpired) == [StaleExpired(BOTH)]
        assert "sent no End-of-RIB in time" in pair.a.notices[-1]

    def test_reboot_drops_at_once(self) -> None:
        """F=0: forwarding was not kept."""
        pair = up(make_pair())
        pair.b.local.forwarding_kept = False
        restart(pair)
        pair.run(20.0)
        again = pair.a.events(Established)[1]
        assert (again.retained, again.dropped) == (NONE, BOTH)

    def test_without_graceful_restart_nothing_stays(self) -> None:
        pair = up(make_pair(graceful_restart=False))
        restart(pair)
        pair.run(20.0)
        assert pair.one_session()
        assert [down.retained for down in pair.a.events(Down)] == [NONE]

    def test_a_silent_peer_takes_over_by_its_new_connection(self) -> None:
        """RFC 4724 §5: we have not noticed that the old connection is dead; the new OPEN says so."""
        pair = up(make_pair())
        pair.vanish()
        restart(pair, 0.0)
        started = pair.now
        pair.run_until(pair.one_session, limit=2.0)
        assert pair.now - started < 0.5
        assert [down.retained for down in pair.a.events(Down)] == [BOTH]
        assert "has restarted" in pair.a.events(Down)[0].cause
        assert pair.open_connections() <= 2, "the old one stays open only on the side that is gone"


class TestFamilies:
    """What a single peer says, family by family."""

    def open_with(self, script: Script, restart: GracefulRestartCapability | None, *families: Family) -> Open:
        capabilities = [MultiProtocol(family) for family in families]
        extra = [FourOctetAs(65001), *([restart] if restart else [])]
        return script.peer_open(capabilities=(*capabilities, *extra))

    def reopen(self, script: Script, message: Open) -> Established:
        conn = script.accept()
        assert conn is not None
        script.say(conn, build_open(message), KEEPALIVE)
        return script.established_events()[-1]

    def test_each_family_by_itself(self) -> None:
        script = Script()
        first = GracefulRestartCapability(False, False, 60, ((V4, False), (V6, False)))
        conn = script.establish(capabilities=self.open_with(script, first, V4, V6).capabilities)
        script.session.lost(conn, "reset", script.now)
        assert script.events(Down)[-1].retained == BOTH, "the F bit says nothing about the next restart"
        second = GracefulRestartCapability(True, False, 60, ((V4, True), (V6, False)))
        again = self.reopen(script, self.open_with(script, second, V4, V6))
        assert again.retained == {V4} and again.dropped == {V6}

    def test_only_families_that_the_peer_listed(self) -> None:
        script = Script()
        listed = GracefulRestartCapability(False, False, 60, ((V6, True),))
        conn = script.establish(capabilities=self.open_with(script, listed, V4, V6).capabilities)
        script.session.lost(conn, "reset", script.now)
        assert script.events(Down)[-1].retained == {V6}
        assert "those of ipv4 go" in script.notices()[-1]

    def test_reopened_without_the_family(self) -> None:
        script = Script()
        listed = GracefulRestartCapability(False, False, 60, ((V4, True), (V6, True)))
        conn = script.establish(capabilities=self.open_with(script, listed, V4, V6).capabilities)
        script.session.lost(conn, "reset", script.now)
        again = self.reopen(script, self.open_with(script, listed, V4))
        assert again.retained == {V4} and again.dropped == {V6}

    def test_reopened_without_the_capability(self) -> None:
        script = Script()
        listed = GracefulRestartCapability(False, False, 60, ((V4, True), (V6, True)))
        conn = script.establish(capabilities=self.open_with(script, listed, V4, V6).capabilities)
        script.session.lost(conn, "reset", script.now)
        again = self.reopen(script, self.open_with(script, None, V4, V6))
        assert (again.retained, again.dropped) == (NONE, BOTH)


N_BIT = [True, False]


class TestNotifications:
    """RFC 8538: with the N bit on both sides a NOTIFICATION or the hold timer is a restart; a hard reset is not."""

    def script(self, ours: bool, their: bool) -> tuple[Script, int]:
        script = Script(peer_settings("tor", 65001, notification_restart=ours))
        restart = GracefulRestartCapability(False, their, 120, ((V4, True), (V6, True)))
        capabilities = tuple(
            restart if isinstance(item, GracefulRestartCapability) else item for item in script.peer_open().capabilities
        )
        return script, script.establish(capabilities=capabilities)

    @pytest.mark.parametrize("ours", N_BIT)
    @pytest.mark.parametrize("their", N_BIT)
    @pytest.mark.parametrize("subcode", range(1, 11))
    def test_each_cease_received(self, ours: bool, their: bool, subcode: int) -> None:
        script, conn = self.script(ours, their)
        data = bytes((6, 4)) if subcode == 9 else b""
        script.say(conn, Notification(6, subcode, data).build())
        kept = ours and their and subcode != 9
        assert script.events(Down)[-1].retained == (BOTH if kept else NONE)

    @pytest.mark.parametrize("ours", N_BIT)
    @pytest.mark.parametrize("their", N_BIT)
    def test_hold_timer(self, ours: bool, their: bool) -> None:
        script, _ = self.script(ours, their)
        script.pass_time(300.0)
        assert script.codes() == [(4, 0)]
        assert script.events(Down)[-1].retained == (BOTH if ours and their else NONE)

    @pytest.mark.parametrize("ours", N_BIT)
    @pytest.mark.parametrize("their", N_BIT)
    def test_error_sent(self, ours: bool, their: bool) -> None:
        script, _ = self.script(ours, their)
        script.session.fail(BGPError(3, 1), script.now)
        assert script.events(Down)[-1].retained == (BOTH if ours and their else NONE)

    @pytest.mark.parametrize(("subcode", "hard"), [(2, True), (3, True), (4, False), (6, False), (9, True)])
    def test_stop(self, subcode: int, hard: bool) -> None:
        script, _ = self.script(True, True)
        script.session.stop(script.now, subcode)
        (sent,) = script.notifications()
        inner = {9: 4}.get(subcode, subcode)
        assert (sent.code, sent.subcode) == (6, 9 if hard else subcode)
        assert sent.data == (bytes((6, inner)) if hard else b"")
        assert script.events(Down)[-1].retained == (NONE if hard else BOTH)

    @pytest.mark.parametrize("subcode", [2, 3, 4, 6])
    def test_stop_without_the_n_bit(self, subcode: int) -> None:
        script, _ = self.script(True, False)
        script.session.stop(script.now, subcode)
        assert script.codes() == [(6, subcode)]
        assert script.events(Down)[-1].retained == NONE

    def test_graceful_stop_says_nothing(self) -> None:
        """As Calico's node does on an upgrade: the peer sees a lost connection and keeps our routes."""
        script, conn = self.script(True, True)
        script.session.stop(script.now, 2, graceful=True)
        assert script.codes() == []
        assert script.events(Close) == [Close(conn)]

    def test_peer_that_restarts_gracefully_on_stop(self) -> None:
        pair = up(make_pair())
        pair.b.session.stop(pair.now, 2, graceful=True)
        pair.drain(pair.b)
        pair.run(1.0)
        assert [down.retained for down in pair.a.events(Down)] == [BOTH]


class TestTakeOver:
    """A second connection while Established (RFC 4724 §5)."""

    def test_only_its_open_takes_over(self) -> None:
        script = Script()
        conn = script.establish()
        script.pass_time(5.0)
        second = script.accept()
        assert second is not None
        assert script.session.conn == conn
        script.session.lost(second, "closed", script.now)
        assert script.session.conn == conn and script.events(Down) == []
        third = script.accept()
        assert third is not None
        script.say(third, build_open(script.peer_open()))
        assert [down.retained for down in script.events(Down)] == [BOTH]
        assert Close(conn) in script.events(Close)
        assert script.codes() == [], "the old connection is treated as lost"
        script.say(third, KEEPALIVE)
        assert script.session.conn == third

    def test_a_bad_open_does_not(self) -> None:
        script = Script()
        conn = script.establish()
        script.pass_time(5.0)
        second = script.accept()
        assert second is not None
        script.say(second, build_open(evolve(script.peer_open(), hold_time=1)))
        assert script.codes() == [(2, 6)]
        assert script.session.conn == conn and script.events(Down) == []

    def test_the_newest_of_several(self) -> None:
        script = Script()
        conn = script.establish()
        script.pass_time(5.0)
        second, third = script.accept(), script.accept()
        assert second is not None and third is not None
        assert script.codes() == [(6, 7)]
        assert Close(second) in script.events(Close)
        script.say(third, build_open(script.peer_open()), KEEPALIVE)
        assert script.session.conn == third
        assert Close(conn) in script.events(Close)

    def test_two_incoming_before_established(self) -> None:
        script = Script(peer_settings("tor", 65001, passive=True))
        script.session.start(0.0)
        first, second = script.accept(), script.accept()
        assert first is not None and second is not None
        assert script.events(Close) == [Close(first)]
        script.say(second, build_open(script.peer_open()), KEEPALIVE)
        assert script.session.conn == second

    def test_never_in_the_first_second(self) -> None:
        """A dial that was under way while the session came up is a collision, not a restart."""
        script = Script()
        script.establish()
        script.pass_time(0.5)
        assert script.accept() is not None and script.codes() == [(6, 7)]
        assert script.session.state is State.ESTABLISHED


class TestDialInFlight:
    """The peer has dialled us while our dial to it is under way, and is Established on its own as soon as we answer.

    If it then accepts ours, BIRD takes that for our restart: a second one, so it drops the routes that it kept.
    """

    def overlap(self) -> tuple[Script, int]:
        script = Script()
        script.session.start(0.0)
        script.pass_time(10.0)
        assert script.is_in(State.CONNECT)
        theirs = script.accept()
        assert theirs is not None
        script.clear()
        script.say(theirs, build_open(script.peer_open()), KEEPALIVE)
        assert script.sent_types() == [], "not answered while the dial is in flight"
        return script, theirs

    def test_answered_when_the_dial_fails(self) -> None:
        script, theirs = self.overlap()
        script.session.connect_failed("Connection refused", script.now)
        assert script.is_in(State.ESTABLISHED)
        assert script.session.conn == theirs

    def test_answered_when_the_dial_hangs(self) -> None:
        script, theirs = self.overlap()
        script.pass_time(DIAL_WAIT)
        assert script.is_in(State.ESTABLISHED)
        assert script.session.conn == theirs
        script.clear()
        ours = script.connect()
        assert script.events(Close) == [Close(ours)]

    def test_both_open_messages_decide(self) -> None:
        """Ours wins by the identifiers or loses; before the OPEN on it nobody is Established on the other."""
        for peer_id, stays in ((0x0A000002, "theirs"), (0x0A000000, "ours")):
            script = Script(peer_id=peer_id)
            script.session.start(0.0)
            script.pass_time(10.0)
            theirs = script.accept()
            assert theirs is not None
            script.say(theirs, build_open(script.peer_open()), KEEPALIVE)
            ours = script.connect()
            script.clear()
            assert MessageType.KEEPALIVE not in script.sent_types()
            script.say(ours, build_open(script.peer_open()), KEEPALIVE)
            assert script.is_in(State.ESTABLISHED)
            assert script.session.conn == (theirs if stays == "theirs" else ours)
            assert script.codes() == [(6, 7)]

    def test_a_dial_that_is_closed_again(self) -> None:
        script, theirs = self.overlap()
        ours = script.connect()
        script.session.lost(ours, "the peer closed the connection", script.now)
        assert script.is_in(State.ESTABLISHED)
        assert script.session.conn == theirs

    def test_without_graceful_restart_nothing_waits(self) -> None:
        script = Script(peer_settings("tor", 65001, graceful_restart=False))
        script.session.start(0.0)
        script.pass_time(10.0)
        theirs = script.accept()
        assert theirs is not None
        script.say(theirs, build_open(script.peer_open()), KEEPALIVE)
        assert script.is_in(State.ESTABLISHED)
