"""Two sessions against each other: coming up, and collisions (RFC 4271 §6.8, RFC 6286 §2.3)."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest

from bgpd.effects import Send
from bgpd.family import IPV4_UNICAST, IPV6_UNICAST
from bgpd.session.events import Close, Down, Established
from bgpd.session.fsm import State
from bgpd.session.local import LocalState
from bgpd.settings import PeerSettings
from bgpd.wire.framing import KEEPALIVE
from bgpd.wire.notification import Notification
from tests.scenario.pair import Pair, packed_id, peer_settings

BOTH = frozenset((IPV4_UNICAST, IPV6_UNICAST))
ORDERS = {
    "a has the higher identifier": ((65000, 2), (65001, 1)),
    "b has the higher identifier": ((65000, 1), (65001, 2)),
    "identifiers compare unsigned": ((65000, 0x80000000), (65001, 0x7FFFFFFF)),
    "equal identifiers, b has the larger AS": ((65000, 7), (65001, 7)),
    "equal identifiers, a has the larger AS": ((4_200_000_000, 7), (65001, 7)),
    "internal": ((65000, 1), (65000, 2)),
}


def make_pair(
    order: str = "internal",
    delay: Callable[[], float] = lambda: 0.001,
    jitter: Callable[[], float] = lambda: 1.0,
    **changes: Any,
) -> Pair:
    (asn_a, id_a), (asn_b, id_b) = ORDERS[order]
    settings: tuple[PeerSettings, PeerSettings] = (
        peer_settings("b", asn_b, **changes),
        peer_settings("a", asn_a, **changes),
    )
    return Pair(settings, (LocalState(asn_a, packed_id(id_a)), LocalState(asn_b, packed_id(id_b))), delay, jitter)


def test_one_side_dials() -> None:
    pair = make_pair()
    pair.b.listening = False
    pair.a.session.start(0.0)
    pair.run(1.0)
    pair.b.listening = True
    pair.b.session.update_settings(peer_settings("a", 65000, passive=True))
    pair.b.session.start(pair.now)
    pair.run(10.0)
    assert pair.one_session()


@pytest.mark.parametrize("order", list(ORDERS))
def test_both_dial_at_the_same_instant(order: str) -> None:
    """The connection of the side that wins stays, the other one gets Cease/7, and nobody was Established on it."""
    pair = make_pair(order)
    pair.start()
    pair.run(3.0)
    assert pair.one_session()
    assert pair.open_connections() == 1
    assert [len(end.events(Established)) for end in pair.ends] == [1, 1]
    assert [end.events(Down) for end in pair.ends] == [[], []]
    (_, id_a), (_, id_b) = ORDERS[order]
    if id_a != id_b:
        winner = pair.a if id_a > id_b else pair.b
    else:
        winner = pair.a if ORDERS[order][0][0] > ORDERS[order][1][0] else pair.b
    assert winner.session.local_address == f"of {winner.name}"
    assert winner.session._main.outgoing


@pytest.mark.parametrize("graceful", [True, False])
@pytest.mark.parametrize("order", list(ORDERS))
def test_thousand_rounds(order: str, graceful: bool) -> None:
    """Random network delays and jitters; always exactly one session after three seconds."""
    rounds = 1000 // (len(ORDERS) * 2) + 1
    for seed in range(rounds):
        rng = random.Random(f"{order} {graceful} {seed}")
        slowest = rng.choice((0.001, 0.01, 0.05, 0.2))
        pair = make_pair(
            order,
            delay=lambda rng=rng, slowest=slowest: rng.uniform(0.0, slowest),  # type: ignore[misc]
            jitter=lambda rng=rng: rng.uniform(0.75, 1.0),  # type: ignore[misc]
            graceful_restart=graceful,
        )
        if seed % 2:
            pair.start()
        else:
            for end in pair.ends:
                end.session.start(0.0)
                end.session._retry_at = 0.0  # the very same instant, whatever the jitter
        pair.run(3.0)
        assert pair.one_session(), (order, graceful, seed)
        assert pair.open_connections() == 1
        # Nothing that was Established is lost again.
        assert [end.events(Down) for end in pair.ends] == [[], []], (order, graceful, seed)


def test_rounds_with_restarts() -> None:
    """Random kills while the sessions come up: always one session in the end, and no connection is left over."""
    for seed in range(100):
        rng = random.Random(seed)
        pair = make_pair(
            rng.choice(list(ORDERS)),
            delay=lambda rng=rng: rng.uniform(0.0, 0.02),  # type: ignore[misc]
            jitter=lambda rng=rng: rng.uniform(0.75, 1.0),  # type: ignore[misc]
            graceful_restart=bool(seed % 2),
        )
        pair.start()
        for _ in range(rng.randrange(1, 5)):
            pair.run(rng.choice((0.01, 0.1, 0.15, 0.3, 2.0)) * rng.random())
            end = rng.choice(pair.ends)
            pair.kill(end)
            pair.run(rng.random() * 0.1)
            pair.restart(end)
        pair.run(20.0)
        assert pair.one_session(), seed
        assert pair.open_connections() == 1, seed


def test_a_stuck_second_connection_does_not_keep_the_session_from_coming_up() -> None:
    """The answer is put off for the connection that would win; if that one is dead, it waits a second and not more."""
    delays = iter((0.01, 0.01, 0.01))
    pair = make_pair("a has the higher identifier", delay=lambda: next(delays, 0.05))
    pair.start()
    pair.run_until(lambda: pair.a.session._second is not None)
    mine = pair.a.session._second
    assert mine is not None and mine.outgoing
    pair._pipes[mine.conn or 0].dead = True  # before any OPEN has arrived on it
    pair.run(0.9)
    assert not pair.both_established()
    pair.run(0.6)
    assert pair.one_session()
    assert pair.a.session.local_address == "of a" and not pair.a.session._main.outgoing


def test_established_is_not_dropped_for_a_new_connection_without_graceful_restart() -> None:
    pair = make_pair(graceful_restart=False)
    pair.start()
    pair.run(5.0)
    established = pair.a.session.conn
    assert pair.a.session.accepted(999, "of a", pair.now)
    probe, told, closed = pair.a.session.take()
    assert isinstance(probe, Send) and (probe.conn, probe.data) == (established, KEEPALIVE)
    assert isinstance(told, Send) and (told.conn, told.data[18:21]) == (999, bytes((3, 6, 7)))
    assert isinstance(closed, Close) and closed.conn == 999
    assert pair.a.session.conn == established
    assert pair.a.session.statistics.refused == 1


def test_a_vanished_peer_comes_back_without_graceful_restart() -> None:
    """The refused dial makes us ask over the old connection: a peer that lost it would reset it. Else: hold timer."""
    pair = make_pair(graceful_restart=False, hold_time=9)
    pair.start()
    pair.run(5.0)
    pair.vanish()
    pair.kill(pair.b)
    pair.restart(pair.b)
    pair.run(30.0)
    assert pair.one_session()


@pytest.mark.parametrize("subcode", [2, 3, 4, 6])
def test_stop_and_start_again(subcode: int) -> None:
    """No idle hold after a Cease of administration: both are back as fast as they can dial."""
    pair = make_pair()
    pair.start()
    pair.run(10.0)
    pair.a.session.stop(pair.now, subcode, "maintenance")
    pair.drain(pair.a)
    pair.run(1.0)
    assert pair.a.session.state is State.IDLE
    assert pair.b.session.state < State.OPEN_SENT
    assert pair.b.session.idle_until is None
    pair.a.session.start(pair.now)
    pair.run(8.0)
    assert pair.one_session()


def test_one_sentence_for_each_change() -> None:
    pair = make_pair()
    pair.start()
    pair.run(10.0)
    pair.a.session.stop(pair.now, 2, "rack is moved")
    pair.drain(pair.a)
    pair.run(0.01)
    assert len(pair.a.notices) == 2
    assert len(pair.b.notices) == 2
    assert pair.b.notices[1].startswith(
        "peer a (192.0.2.1): session lost after 10 s: the peer sent NOTIFICATION 6/2 cease: administrative shutdown "
        'as a hard reset ("rack is moved"); its routes go'
    )


def test_garbage_ends_one_session_and_it_comes_back() -> None:
    pair = make_pair()
    pair.start()
    pair.run(10.0)
    conn = pair.a.session.conn
    assert conn is not None
    pair.send(pair.a, conn, Notification(0, 0, b"").build())
    pair.run(20.0)
    assert pair.one_session()
    assert pair.b.session.statistics.flaps == 1
