"""How often an address may connect."""

from __future__ import annotations

from bgpd.shell.pace import ConnectionPace


def test_as_many_at_once_as_in_a_second_and_then_one_by_one() -> None:
    pace = ConnectionPace(10)
    assert [pace.allow("a", 5.0) for _ in range(12)] == [True] * 10 + [False] * 2
    assert pace.allow("b", 5.0), "another address has its own"
    assert not pace.allow("a", 5.05)
    assert pace.allow("a", 5.11) and not pace.allow("a", 5.12)
    assert [pace.allow("a", 9.0) for _ in range(11)] == [True] * 10 + [False]


def test_no_limit() -> None:
    pace = ConnectionPace(0)
    assert all(pace.allow("a", 1.0) for _ in range(1000)) and len(pace) == 0


def test_quiet_addresses_are_forgotten() -> None:
    pace = ConnectionPace(10)
    for number in range(5000):
        pace.allow(str(number), number / 100)
    assert len(pace) <= 1025
