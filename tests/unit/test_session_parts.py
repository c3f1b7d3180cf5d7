"""The small parts: collision rule, back-off, damping, helper, sentences."""

from __future__ import annotations

import math

import pytest

from bgpd.family import IPV4_UNICAST, IPV6_UNICAST
from bgpd.session import texts
from bgpd.session.collision import local_wins
from bgpd.session.restart import STALE_TIME, Helper
from bgpd.session.retry import Damping, Retry
from bgpd.timers import Timers

V4, V6 = IPV4_UNICAST, IPV6_UNICAST
BOTH = frozenset((V4, V6))


def test_timers_give_the_names_of_one_moment_after_the_other() -> None:
    timers = Timers()
    assert timers.first() == math.inf and timers.take(1e9) is None
    for due, name in ((3.0, "c"), (1.0, "a"), (3.0, "d"), (2.0, "b")):
        timers.add(due, name)
    assert timers.first() == 1.0 and timers.take(0.5) is None
    assert timers.take(2.5) == "a" and timers.take(2.5) == "b" and timers.take(2.5) is None
    timers.add(3.0, "a")
    assert [timers.take(3.0) for _ in range(2)] == ["c", "d"] and timers.first() == 3.0, "one at a time"
    assert timers.take(3.0) == "a" and timers.first() == math.inf
    timers.add(3.0, "c")
    assert timers.take(3.0) == "c" and timers.take(3.0) is None


class TestCollisionRule:
    """RFC 4271 §6.8, RFC 6286 §2.3."""

    def test_identifiers_compare_unsigned(self) -> None:
        assert local_wins(bytes.fromhex("80000001"), 1, bytes.fromhex("7fffffff"), 2)
        assert not local_wins(bytes.fromhex("00000002"), 1, bytes.fromhex("01000001"), 1)

    def test_equal_identifiers_leave_it_to_the_as_number(self) -> None:
        same = bytes.fromhex("0a000001")
        assert local_wins(same, 4_200_000_000, same, 65000)
        assert not local_wins(same, 65000, same, 4_200_000_000)

    def test_exactly_one_side_wins(self) -> None:
        sides = [(bytes((a, 0, 0, b)), asn) for a in (0, 127, 128, 255) for b in (1, 2) for asn in (1, 2)]
        for one in sides:
            for two in sides:
                if one != two:
                    assert local_wins(*one, *two) != local_wins(*two, *one)


class TestRetry:
    def test_doubles_up_to_the_retry_time(self) -> None:
        retry, delays = Retry(), []
        for retry.failures in range(9):
            delays.append(retry.delay(0.1, 5.0))
        assert delays == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0, 5.0])

    @pytest.mark.parametrize(("delay", "retry_time"), [(0.0, 0.0), (0.0, 5.0), (3.0, 0.0)])
    def test_never_a_busy_loop(self, delay: float, retry_time: float) -> None:
        retry = Retry()
        for retry.failures in range(1, 2000, 100):
            assert retry.delay(delay, retry_time) >= 0.1


class TestDamping:
    def test_doubles_up_to_thirty_seconds(self) -> None:
        damping, holds = Damping(), []
        for number in range(5):
            damping.error(5.0, 1.0, 100.0 * number)
            assert damping.idle_until is not None
            holds.append(damping.idle_until - 100.0 * number)
        assert holds == [5.0, 10.0, 20.0, 30.0, 30.0]

    def test_forgotten_after_300_seconds_without_error(self) -> None:
        damping = Damping()
        damping.error(5.0, 1.0, 0.0)
        damping.error(5.0, 1.0, 10.0)
        damping.error(5.0, 1.0, 310.0)
        assert damping.idle_until == 315.0

    def test_jitter(self) -> None:
        damping = Damping()
        damping.error(5.0, 0.75, 0.0)
        assert damping.idle_until == 3.75

    def test_only_the_second_error_refuses_incoming_connections(self) -> None:
        damping = Damping()
        assert not damping.refuses(0.0)
        damping.error(5.0, 1.0, 0.0)
        assert not damping.refuses(1.0)
        damping.error(5.0, 1.0, 2.0)
        assert damping.refuses(11.9)
        assert not damping.refuses(12.0)


class TestHelper:
    """RFC 4724 §4.2, and the deviation for further losses."""

    def test_expires_at_the_restart_time(self) -> None:
        helper = Helper()
        assert helper.lose(BOTH, 120.0, True, 10.0) == frozenset()
        assert (helper.stale, helper.deadline()) == (BOTH, 130.0)
        assert helper.expire(129.9) == frozenset()
        assert helper.expire(130.0) == BOTH
        assert (helper.stale, helper.deadline()) == (frozenset(), math.inf)

    def test_reopening_without_the_f_bit_drops(self) -> None:
        helper = Helper()
        helper.lose(BOTH, 120.0, True, 0.0)
        assert helper.reopen({V4}, 120.0, 5.0) == {V6}
        assert helper.stale == {V4}

    def test_reopening_stops_the_restart_timer_and_bounds_the_wait_for_end_of_rib(self) -> None:
        helper = Helper()
        helper.lose(BOTH, 120.0, True, 0.0)
        helper.reopen(BOTH, 120.0, 119.0)
        assert helper.deadline() == 119.0 + STALE_TIME
        helper.synchronized(V4)
        assert helper.expire(119.0 + STALE_TIME) == {V6}

    def test_second_loss_counts_from_the_first(self) -> None:
        helper = Helper()
        helper.lose(BOTH, 120.0, True, 0.0)
        helper.reopen(BOTH, 120.0, 1.0)
        helper.synchronized(V4)
        assert helper.lose(BOTH, 120.0, True, 2.0) == frozenset()
        assert helper.expire(120.0) == {V6}
        assert helper.expire(122.0) == {V4}

    def test_second_loss_by_the_letter_drops_what_was_stale(self) -> None:
        helper = Helper()
        helper.lose(BOTH, 120.0, False, 0.0)
        helper.reopen(BOTH, 120.0, 1.0)
        helper.synchronized(V4)
        assert helper.lose(BOTH, 120.0, False, 2.0) == {V6}
        assert helper.stale == BOTH, "what came in the second session is stale now"
        assert helper.deadline() == 122.0

    def test_overdue_stale_routes_go_at_the_next_loss(self) -> None:
        """The session was up longer than the restart time without End-of-RIB: they have had their time."""
        helper = Helper()
        helper.lose(BOTH, 120.0, True, 0.0)
        helper.reopen(BOTH, 120.0, 1.0)
        assert helper.lose(BOTH, 120.0, True, 200.0) == BOTH
        assert helper.deadline() == 320.0

    def test_a_final_loss_keeps_nothing(self) -> None:
        helper = Helper()
        helper.lose(BOTH, 120.0, True, 0.0)
        helper.reopen(BOTH, 120.0, 1.0)
        assert helper.lose(frozenset(), 120.0, True, 2.0) == frozenset()
        assert helper.stale == frozenset()


class TestTexts:
    @pytest.mark.parametrize(
        ("seconds", "text"),
        [(0.4, "0 s"), (59, "59 s"), (60, "1 min 0 s"), (3599.7, "1 h 0 min"), (90061, "1 d 1 h"), (185, "3 min 5 s")],
    )
    def test_duration(self, seconds: float, text: str) -> None:
        assert texts.duration(seconds) == text

    def test_families(self) -> None:
        assert texts.names(BOTH) == "ipv4 and ipv6"
        assert texts.names(()) == "no family"
