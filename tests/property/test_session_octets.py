"""Whatever octets come, in whatever pieces and state: no exception leaves the session, and at most one NOTIFICATION."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from bgpd.session.events import Close, Notice
from bgpd.session.fsm import State
from bgpd.wire.framing import KEEPALIVE, build_message
from bgpd.wire.open import build_open
from tests.scenario.pair import Script

CONNECTED = st.sampled_from((State.OPEN_SENT, State.OPEN_CONFIRM, State.ESTABLISHED))
VALID_OPEN = build_open(Script().peer_open())
MESSAGES = st.one_of(
    st.binary(max_size=80),
    st.builds(build_message, st.integers(0, 8), st.binary(max_size=40)),
    st.just(KEEPALIVE),
    st.just(VALID_OPEN),
)


def play(script: Script, conn: int, octets: bytes, cuts: list[int]) -> None:
    marks = sorted({0, *(cut % (len(octets) + 1) for cut in cuts), len(octets)})
    for start, stop in pairwise(marks):
        script.say(conn, octets[start:stop])


def promises(script: Script, conn: int) -> None:
    closed = [event.conn for event in script.events(Close)]
    codes = script.codes()
    assert len(closed) <= 1 and len(codes) <= 1
    if codes:
        assert closed == [conn]
        code, subcode = codes[0]
        assert code in (1, 2, 5, 7) and subcode <= 7
    for notice in script.events(Notice):
        assert notice.text.isprintable()


@settings(max_examples=300, deadline=None)
@given(CONNECTED, st.lists(MESSAGES, max_size=6), st.lists(st.integers(0, 500), max_size=8))
def test_any_octets(state: State, messages: list[bytes], cuts: list[int]) -> None:
    script = Script()
    conn = script.reach(state)
    assert conn is not None
    play(script, conn, b"".join(messages), cuts)
    promises(script, conn)


@settings(max_examples=300, deadline=None)
@given(
    st.integers(0, len(VALID_OPEN) * 8 - 1),
    st.integers(0, len(VALID_OPEN)),
    st.lists(st.integers(0, 99), max_size=3),
)
def test_a_flipped_bit_in_open(bit: int, length: int, cuts: list[int]) -> None:
    octets = bytearray(VALID_OPEN)
    octets[bit // 8] ^= 0x80 >> bit % 8
    script = Script()
    conn = script.dial()
    play(script, conn, bytes(octets[:length]) + KEEPALIVE, cuts)
    promises(script, conn)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200), CONNECTED)
def test_any_notification_ends_it_in_silence(body: bytes, state: State) -> None:
    script = Script()
    conn = script.reach(state)
    assert conn is not None
    script.say(conn, build_message(3, body.ljust(2, b"\0")))
    assert script.codes() == []
    assert [event.conn for event in script.events(Close)] == [conn]
    promises(script, conn)
