"""The finite state machine of RFC 4271 §8: states, events, and one table that has every pair of them.

The table is the only place where a state follows from an event. It is checked when this module is loaded: a pair that
is missing or named twice stops the program at once instead of passing in silence one day.

Where it leaves the letter of RFC 4271 §8.2.2:
- Start leads to Active with a short ConnectRetryTimer (a connect delay) instead of dialling at once, so that two
  speakers that start together mostly meet on one connection.
- A failed dial leads to Active, not to Idle: nothing is gained by a round through Idle.
- A NOTIFICATION in OpenSent closes without an answer (§6.4 forbids one; §8.2.2 lists it under "FSM error").
- A message header error in Established is answered with its own code (§6.1), not with an FSM error.
- The events of DelayOpen (12, 20) have rows although the option is not offered: they are FSM errors wherever the RFC
  has no other answer.
"""

from __future__ import annotations

from enum import Enum, IntEnum, unique
from typing import NamedTuple


@unique
class State(IntEnum):
    """States, ordered by progress; the values are those of the BGP MIB (RFC 4273)."""

    IDLE = 1
    CONNECT = 2
    ACTIVE = 3
    OPEN_SENT = 4
    OPEN_CONFIRM = 5
    ESTABLISHED = 6

    def __str__(self) -> str:
        return _STATE_NAMES[self.value]


_STATE_NAMES = {1: "Idle", 2: "Connect", 3: "Active", 4: "OpenSent", 5: "OpenConfirm", 6: "Established"}


@unique
class Event(IntEnum):
    """Events with the numbers of RFC 4271 §8.1; 29 is RFC 9687's, 30 and 31 are ROUTE-REFRESH (RFC 2918, 7313)."""

    MANUAL_START = 1
    MANUAL_STOP = 2
    AUTOMATIC_START = 3
    MANUAL_START_PASSIVE = 4
    AUTOMATIC_START_PASSIVE = 5
    AUTOMATIC_START_DAMP = 6
    AUTOMATIC_START_DAMP_PASSIVE = 7
    AUTOMATIC_STOP = 8
    CONNECT_RETRY_TIMER_EXPIRES = 9
    HOLD_TIMER_EXPIRES = 10
    KEEPALIVE_TIMER_EXPIRES = 11
    DELAY_OPEN_TIMER_EXPIRES = 12
    IDLE_HOLD_TIMER_EXPIRES = 13
    TCP_CONNECTION_VALID = 14
    TCP_CR_INVALID = 15
    TCP_CR_ACKED = 16
    TCP_CONNECTION_CONFIRMED = 17
    TCP_CONNECTION_FAILS = 18
    BGP_OPEN = 19
    BGP_OPEN_WITH_DELAY_OPEN_TIMER = 20
    BGP_HEADER_ERR = 21
    BGP_OPEN_MSG_ERR = 22
    OPEN_COLLISION_DUMP = 23
    NOTIF_MSG_VER_ERR = 24
    NOTIF_MSG = 25
    KEEPALIVE_MSG = 26
    UPDATE_MSG = 27
    UPDATE_MSG_ERR = 28
    SEND_HOLD_TIMER_EXPIRES = 29
    ROUTE_REFRESH_MSG = 30
    ROUTE_REFRESH_MSG_ERR = 31


@unique
class Action(Enum):
    """What a transition does. `Session` has one method for each."""

    NONE = "nothing"
    START = "start the ConnectRetryTimer with the connect delay; a passive peer only listens"
    DIAL = "open a TCP connection"
    RETRY = "start the ConnectRetryTimer"
    SEND_OPEN = "send OPEN, start the hold timer with its large value"
    CONFIRM = "send KEEPALIVE, start the negotiated timers"
    ESTABLISH = "tell the speaker, drop the other connection"
    SEND_KEEPALIVE = "send KEEPALIVE, restart its timer"
    DELIVER = "hand the UPDATE to the speaker"
    REFRESH = "hand the ROUTE-REFRESH to the speaker"
    STOP = "end on our own wish, with a Cease or, for a graceful stop, without a word"
    NOTIFY = "send the cause's NOTIFICATION, close"
    FSM_ERROR = "send 5/0 to 5/3, close"
    CLOSE = "close without a word"

    # There is one object a member; Enum's own hash is a call of Python code.
    __hash__ = object.__hash__


class Transition(NamedTuple):
    """One entry of the table."""

    action: Action
    state: State


_Row = tuple[Action, State, tuple[Event, ...]]
_E = Event
_STARTS = (
    _E.MANUAL_START,
    _E.AUTOMATIC_START,
    _E.MANUAL_START_PASSIVE,
    _E.AUTOMATIC_START_PASSIVE,
    _E.AUTOMATIC_START_DAMP,
    _E.AUTOMATIC_START_DAMP_PASSIVE,
)
_STOPS = (_E.MANUAL_STOP, _E.AUTOMATIC_STOP)
_TCP_INCOMING = (_E.TCP_CONNECTION_VALID, _E.TCP_CR_INVALID)
_TCP_UP = (_E.TCP_CR_ACKED, _E.TCP_CONNECTION_CONFIRMED)
_DELAY_OPEN = (_E.DELAY_OPEN_TIMER_EXPIRES, _E.BGP_OPEN_WITH_DELAY_OPEN_TIMER)
_NOTIFICATIONS = (_E.NOTIF_MSG_VER_ERR, _E.NOTIF_MSG)
_REFRESHES = (_E.ROUTE_REFRESH_MSG, _E.ROUTE_REFRESH_MSG_ERR)
_UPDATES = (_E.UPDATE_MSG, _E.UPDATE_MSG_ERR)

_WITHOUT_CONNECTION = (
    # What only a connection can bring. Without one it is a fault of ours; RFC 4271 answers with Idle.
    _E.HOLD_TIMER_EXPIRES,
    _E.KEEPALIVE_TIMER_EXPIRES,
    *_DELAY_OPEN,
    _E.IDLE_HOLD_TIMER_EXPIRES,
    _E.BGP_OPEN,
    _E.BGP_HEADER_ERR,
    _E.BGP_OPEN_MSG_ERR,
    _E.OPEN_COLLISION_DUMP,
    *_NOTIFICATIONS,
    _E.KEEPALIVE_MSG,
    *_UPDATES,
    _E.SEND_HOLD_TIMER_EXPIRES,
    *_REFRESHES,
)

_ROWS: dict[State, tuple[_Row, ...]] = {
    State.IDLE: (
        (Action.START, State.ACTIVE, (*_STARTS, _E.IDLE_HOLD_TIMER_EXPIRES)),
        (
            Action.NONE,
            State.IDLE,
            (
                *_STOPS,
                _E.CONNECT_RETRY_TIMER_EXPIRES,
                *_TCP_INCOMING,
                *_TCP_UP,
                _E.TCP_CONNECTION_FAILS,
                *(event for event in _WITHOUT_CONNECTION if event is not _E.IDLE_HOLD_TIMER_EXPIRES),
            ),
        ),
    ),
    State.CONNECT: (
        # The dial in flight has a timeout of its own: its answer is event 16 or 18, so event 9 has nothing to do.
        (Action.NONE, State.CONNECT, (*_STARTS, *_TCP_INCOMING, _E.CONNECT_RETRY_TIMER_EXPIRES)),
        (Action.SEND_OPEN, State.OPEN_SENT, _TCP_UP),
        (Action.RETRY, State.ACTIVE, (_E.TCP_CONNECTION_FAILS,)),
        (Action.STOP, State.IDLE, _STOPS),
        (Action.CLOSE, State.IDLE, _WITHOUT_CONNECTION),
    ),
    State.ACTIVE: (
        (Action.NONE, State.ACTIVE, (*_STARTS, *_TCP_INCOMING)),
        (Action.DIAL, State.CONNECT, (_E.CONNECT_RETRY_TIMER_EXPIRES,)),
        (Action.SEND_OPEN, State.OPEN_SENT, _TCP_UP),
        (Action.RETRY, State.ACTIVE, (_E.TCP_CONNECTION_FAILS,)),
        (Action.STOP, State.IDLE, _STOPS),
        (Action.CLOSE, State.IDLE, _WITHOUT_CONNECTION),
    ),
    State.OPEN_SENT: (
        # Another connection (14 to 17) gets a machine of its own: RFC 4271 §8.2.1.
        (Action.NONE, State.OPEN_SENT, (*_STARTS, *_TCP_INCOMING, *_TCP_UP)),
        (Action.CONFIRM, State.OPEN_CONFIRM, (_E.BGP_OPEN,)),
        (Action.CLOSE, State.ACTIVE, (_E.TCP_CONNECTION_FAILS,)),
        (Action.STOP, State.IDLE, _STOPS),
        (Action.CLOSE, State.IDLE, _NOTIFICATIONS),
        (
            Action.NOTIFY,
            State.IDLE,
            (
                _E.HOLD_TIMER_EXPIRES,
                _E.BGP_HEADER_ERR,
                _E.BGP_OPEN_MSG_ERR,
                _E.OPEN_COLLISION_DUMP,
                _E.SEND_HOLD_TIMER_EXPIRES,
            ),
        ),
        (
            Action.FSM_ERROR,
            State.IDLE,
            (
                _E.CONNECT_RETRY_TIMER_EXPIRES,
                _E.KEEPALIVE_TIMER_EXPIRES,
                *_DELAY_OPEN,
                _E.IDLE_HOLD_TIMER_EXPIRES,
                _E.KEEPALIVE_MSG,
                *_UPDATES,
                *_REFRESHES,
            ),
        ),
    ),
    State.OPEN_CONFIRM: (
        (Action.NONE, State.OPEN_CONFIRM, (*_STARTS, *_TCP_INCOMING, *_TCP_UP)),
        (Action.SEND_KEEPALIVE, State.OPEN_CONFIRM, (_E.KEEPALIVE_TIMER_EXPIRES,)),
        (Action.ESTABLISH, State.ESTABLISHED, (_E.KEEPALIVE_MSG,)),
        (Action.STOP, State.IDLE, _STOPS),
        (Action.CLOSE, State.IDLE, (_E.TCP_CONNECTION_FAILS, *_NOTIFICATIONS)),
        (
            Action.NOTIFY,
            State.IDLE,
            (
                _E.HOLD_TIMER_EXPIRES,
                _E.BGP_HEADER_ERR,
                _E.BGP_OPEN_MSG_ERR,
                _E.OPEN_COLLISION_DUMP,
                _E.SEND_HOLD_TIMER_EXPIRES,
            ),
        ),
        (
            Action.FSM_ERROR,
            State.IDLE,
            (
                _E.CONNECT_RETRY_TIMER_EXPIRES,
                *_DELAY_OPEN,
                _E.IDLE_HOLD_TIMER_EXPIRES,
                _E.BGP_OPEN,
                *_UPDATES,
                *_REFRESHES,
            ),
        ),
    ),
    State.ESTABLISHED: (
        (Action.NONE, State.ESTABLISHED, (*_STARTS, *_TCP_INCOMING, *_TCP_UP, _E.KEEPALIVE_MSG)),
        (Action.SEND_KEEPALIVE, State.ESTABLISHED, (_E.KEEPALIVE_TIMER_EXPIRES,)),
        (Action.DELIVER, State.ESTABLISHED, (_E.UPDATE_MSG,)),
        (Action.REFRESH, State.ESTABLISHED, (_E.ROUTE_REFRESH_MSG,)),
        (Action.STOP, State.IDLE, _STOPS),
        (Action.CLOSE, State.IDLE, (_E.TCP_CONNECTION_FAILS, *_NOTIFICATIONS)),
        (
            Action.NOTIFY,
            State.IDLE,
            (
                _E.HOLD_TIMER_EXPIRES,
                _E.BGP_HEADER_ERR,
                _E.OPEN_COLLISION_DUMP,
                _E.UPDATE_MSG_ERR,
                _E.SEND_HOLD_TIMER_EXPIRES,
                _E.ROUTE_REFRESH_MSG_ERR,
            ),
        ),
        (
            Action.FSM_ERROR,
            State.IDLE,
            (
                _E.CONNECT_RETRY_TIMER_EXPIRES,
                *_DELAY_OPEN,
                _E.IDLE_HOLD_TIMER_EXPIRES,
                _E.BGP_OPEN,
                _E.BGP_OPEN_MSG_ERR,
            ),
        ),
    ),
}


def _table() -> dict[tuple[State, Event], Transition]:
    table: dict[tuple[State, Event], Transition] = {}
    for state, rows in _ROWS.items():
        for action, following, events in rows:
            for event in events:
                if (state, event) in table:
                    raise RuntimeError(f"the transition table names {state} with {event.name} twice")
                table[state, event] = Transition(action, following)
    missing = [f"{state} with {event.name}" for state in State for event in Event if (state, event) not in table]
    if missing:
        raise RuntimeError(f"the transition table has no entry for {', '.join(missing)}")
    return table


TABLE = _table()
"""(state, event) -> what happens. Complete by construction."""
