"""The transition table against RFC 4271 §8.2.2, written down a second time and in another form."""

from __future__ import annotations

import pytest

from bgpd.session.fsm import TABLE, Action, Event, State

START = (1, 3, 4, 5, 6, 7)


def expected(state: State, event: Event) -> State:
    """RFC 4271 §8.2.2 with the deviations that the module's docstring names."""
    number = int(event)
    if number in START:
        return State.ACTIVE if state is State.IDLE else state
    if number in (2, 8):
        return State.IDLE
    if state is State.IDLE:
        return State.ACTIVE if number == 13 else State.IDLE
    if number in (14, 15):
        return state
    if state in (State.CONNECT, State.ACTIVE):
        return {9: State.CONNECT, 16: State.OPEN_SENT, 17: State.OPEN_SENT, 18: State.ACTIVE}.get(number, State.IDLE)
    if number in (16, 17):
        return state
    special = {
        (State.OPEN_SENT, 18): State.ACTIVE,
        (State.OPEN_SENT, 19): State.OPEN_CONFIRM,
        (State.OPEN_CONFIRM, 11): State.OPEN_CONFIRM,
        (State.OPEN_CONFIRM, 26): State.ESTABLISHED,
        (State.ESTABLISHED, 11): State.ESTABLISHED,
        (State.ESTABLISHED, 26): State.ESTABLISHED,
        (State.ESTABLISHED, 27): State.ESTABLISHED,
        (State.ESTABLISHED, 30): State.ESTABLISHED,
    }
    return special.get((state, number), State.IDLE)


@pytest.mark.parametrize("state", list(State))
@pytest.mark.parametrize("event", list(Event))
def test_next_state(state: State, event: Event) -> None:
    assert TABLE[state, event].state is expected(state, event)


def test_every_pair_is_there() -> None:
    assert len(TABLE) == len(State) * len(Event) == 6 * 31


def test_event_numbers_are_those_of_the_rfc() -> None:
    assert [int(event) for event in Event] == list(range(1, 32))
    named = {event.name: int(event) for event in Event}
    assert named["TCP_CONNECTION_FAILS"] == 18
    assert named["BGP_OPEN"] == 19
    assert named["OPEN_COLLISION_DUMP"] == 23
    assert named["UPDATE_MSG_ERR"] == 28
    assert named["SEND_HOLD_TIMER_EXPIRES"] == 29, "RFC 9687"


def test_a_notification_is_never_answered() -> None:
    """RFC 4271 §6.4."""
    for event in (Event.NOTIF_MSG, Event.NOTIF_MSG_VER_ERR):
        actions = {TABLE[state, event].action for state in State}
        assert actions <= {Action.CLOSE, Action.NONE}


def test_messages_out_of_place_are_fsm_errors() -> None:
    """RFC 6608: each message in each state that has no place for it."""
    out_of_place = {
        State.OPEN_SENT: (Event.KEEPALIVE_MSG, Event.UPDATE_MSG, Event.ROUTE_REFRESH_MSG),
        State.OPEN_CONFIRM: (Event.BGP_OPEN, Event.UPDATE_MSG, Event.ROUTE_REFRESH_MSG),
        State.ESTABLISHED: (Event.BGP_OPEN,),
    }
    for state, events in out_of_place.items():
        assert {TABLE[state, event].action for event in events} == {Action.FSM_ERROR}


def test_what_ends_a_connection_leads_to_idle_or_active() -> None:
    ends = {Action.STOP, Action.NOTIFY, Action.FSM_ERROR, Action.CLOSE}
    for (state, event), (action, following) in TABLE.items():
        if action in ends:
            lost = state is State.OPEN_SENT and event is Event.TCP_CONNECTION_FAILS
            assert following is (State.ACTIVE if lost else State.IDLE)
        elif action is Action.NONE:
            assert following is state
