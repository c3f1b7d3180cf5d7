"""What the actions of the transition table do, and the book-keeping of the two machines."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable

from bgpd.effects import Send
from bgpd.family import IPV4_UNICAST, Family
from bgpd.session import cause as causes
from bgpd.session import texts
from bgpd.session.cause import QUIET, Cause, Loss
from bgpd.session.events import (
    Close,
    Connect,
    Down,
    Established,
    Notice,
    Refresh,
    SessionEvent,
    StaleExpired,
    StateChange,
)
from bgpd.session.fsm import TABLE, Action, Event, State
from bgpd.session.local import LocalState
from bgpd.session.machine import LARGE_HOLD_TIME, Machine
from bgpd.session.negotiate import EXTENDED_LENGTH, Negotiated, our_open
from bgpd.session.restart import Helper
from bgpd.session.retry import Damping, Retry
from bgpd.session.statistics import Statistics
from bgpd.settings import PeerSettings
from bgpd.wire.framing import KEEPALIVE, MessageType
from bgpd.wire.open import build_open

SEND_HOLD_TIME = 480.0
"""RFC 9687: eight minutes, or twice the hold time if that is more."""

SHORTEST_KEEPALIVE_TIME = 1.0
"""RFC 4271 §4.4: KEEPALIVEs are at least a second apart, whatever the jitter."""

FSM_SUBCODES = {State.OPEN_SENT: 1, State.OPEN_CONFIRM: 2, State.ESTABLISHED: 3}  # RFC 6608

_SAID = 16
"""Sentences that are remembered while a session is down."""


class Actions:
    """State of one peer's session, and one method for each `Action`. `Session` adds the inputs.

    `_main` always exists and is without a connection in Idle, Connect and Active. `_second` exists only while there are
    two connections; when one of them ends, the other is `_main`.
    """

    def __init__(self, peer: PeerSettings, local: LocalState, jitter: Callable[[], float]) -> None:
        """`jitter` gives a factor of 0.75 to 1.0 for each timer that is started (RFC 4271 §10)."""
        self.peer = peer
        self.local = local
        self.statistics = Statistics()
        self._jitter = jitter
        self._events: list[SessionEvent] = []
        self._main = Machine()
        self._second: Machine | None = None
        self._by_conn: dict[int, Machine] = {}
        self._retry = Retry()
        self._damping = Damping()
        self._helper = Helper()
        self._running = False
        self._dialing = False
        self._dial_is_void = False
        self._retry_at = math.inf
        self._bare = False
        self._said: set[str] = set()

    @property
    def state(self) -> State:
        """The more advanced of the two machines' states."""
        second = self._second
        return self._main.state if second is None else max(self._main.state, second.state)

    def _fire(self, machine: Machine, event: Event, cause: Cause, now: float) -> None:
        """The one door for state changes."""
        action, state = TABLE[machine.state, event]
        before = machine.state
        if state is not before:
            shown = self.state
            machine.state = state
            visible = self.state
            if visible is not shown:
                self.statistics.transitions += 1
                self._events.append(StateChange(shown, visible, event))
        _ACTIONS[action](self, machine, before, cause, now)

    # The two machines

    def _established(self) -> Machine | None:
        if self._main.state is State.ESTABLISHED:
            return self._main
        second = self._second
        return second if second is not None and second.state is State.ESTABLISHED else None

    def _other(self, machine: Machine) -> Machine | None:
        return self._second if machine is self._main else self._main

    def _incoming(self) -> Machine | None:
        """The connection that the peer opened and that is not Established yet."""
        for machine in (self._main, self._second):
            if machine is not None and machine.conn is not None and not machine.outgoing:
                if machine.state is not State.ESTABLISHED:
                    return machine
        return None

    def _attach(self, conn: int, outgoing: bool, local_address: str, now: float) -> None:
        """A connection is there: the waiting machine takes it, or a second one (RFC 4271 §8.2.1)."""
        machine = self._main
        if machine.conn is not None:
            machine = self._second = Machine(State.ACTIVE)
        machine.attach(conn, outgoing, local_address)
        self._by_conn[conn] = machine
        self._fire(machine, Event.TCP_CR_ACKED if outgoing else Event.TCP_CONNECTION_CONFIRMED, QUIET, now)

    def _detach(self, machine: Machine) -> Machine | None:
        """Forget an ended machine. Returns the one that is left with a connection, if any."""
        if machine.conn is not None:
            del self._by_conn[machine.conn]
            machine.conn = None
        survivor = self._other(machine)
        if survivor is None:
            self._main = Machine(machine.state)
            return None
        self._main, self._second = survivor, None
        return survivor

    def _dump(self, machine: Machine, reason: str, now: float) -> None:
        """Close a connection in favour of the other one."""
        self.statistics.collisions += 1
        self._fire(machine, Event.OPEN_COLLISION_DUMP, causes.collision(reason), now)

    # Actions: no connection yet

    def _nothing(self, machine: Machine, before: State, cause: Cause, now: float) -> None:
        """Action.NONE."""

    def _arm(self, machine: Machine, before: State, cause: Cause, now: float) -> None:
        """Start the ConnectRetryTimer; the first round after a start is the connect delay."""
        self._damping.idle_until = None
        peer = self.peer
        delay = self._retry.delay(peer.connect_delay_time, peer.connect_retry_time)
        self._retry_at = math.inf if peer.passive else now + delay * self._jitter()

    def _dial(self, machine: Machine, before: State, cause: Cause, now: float) -> None:
        self._retry_at = math.inf
        if not self._dialing:  # Otherwise the answer to the dial in flight comes first.
            self._dialing = True
            self.statistics.connect_attempts += 1
            self._events.append(Connect())

    def _answered(self) -> bool:
        """A dial is answered. True: it was not the one that is waited for (the session was stopped meanwhile)."""
        void = self._dial_is_void or not self._dialing
        self._dialing = self._dial_is_void = False
        return void

    def _dial_again(self, now: float) -> None:
        if self._main.state is State.CONNECT:
            self._dial(self._main, State.CONNECT, QUIET, now)

    # Actions: a connection

    def _transmit(self, machine: Machine, kind: MessageType, data: bytes) -> None:
        assert machine.conn is not None
        self.statistics.sent[kind] += 1
        self._events.append(Send(machine.conn, data))

    def _send_open(self, machine: Machine, before: State, cause: Cause, now: float) -> None:
        machine.sent = our_open(self.peer, self.local, self._bare)
        machine.hold_time = LARGE_HOLD_TIME
        machine.last_received = now
        machine.send_hold_time = self._send_hold_time(None)
        self._transmit(machine, MessageType.OPEN, build_open(machine.sent))

    def _confirm(self, machine: Machine, before: State, cause: Cause, now: float) -> None:
        agreed = machine.negotiated
        assert agreed is not None
        machine.decide_at = math.inf
        machine.hold_time = float(agreed.hold_time)
        machine.last_received = now
        machine.send_hold_time = self._send_hold_time(agreed)
        if agreed.extended_message:
            machine.framer.max_length = EXTENDED_LENGTH  # RFC 8654 §4: from the exchange of OPENs on.
        self._send_keepalive(machine, before, cause, now)

    def _send_keepalive(self, machine: Machine, before: State, cause: Cause, now: float) -> None:
        agreed = machine.negotiated
        time = 0.0 if agreed is None else agreed.keepalive_time
        machine.keepalive_at = _together(now, time, self._jitter()) if time else math.inf
        self._transmit(machine, MessageType.KEEPALIVE, KEEPALIVE)

    def _probe(self, machine: Machine) -> None:
        self._transmit(machine, MessageType.KEEPALIVE, KEEPALIVE)

    def _send_hold_time(self, agreed: Negotiated | None) -> float:
        """RFC 9687: 0 turns the timer off, and so does a hold time of 0."""
        setting = self.peer.send_hold_time
        if agreed is None:
            return SEND_HOLD_TIME if setting is None else setting
        if not agreed.hold_time:
            return 0.0
        return max(SEND_HOLD_TIME, 2.0 * agreed.hold_time) if setting is None else setting

    def _establish(self, machine: Machine, before: State, cause: Cause, now: float) -> None:
        other = self._other(machine)
        if other is not None:
            self._dump(other, "the other one is Established", now)
        agreed = machine.negotiated
        assert agreed is not None
        self.statistics.established_at = self.statistics.changed_at = now
        self.statistics.established_count += 1
        self.statistics.trouble = ("", "")
        self._said.clear()
        time = 0.0 if agreed.graceful is None else float(agreed.graceful.time)
        dropped = self._helper.reopen(agreed.forwarding_families, time, now)
        retained = self._helper.stale
        self._events.append(Established(agreed, retained, dropped))
        self._notice(logging.INFO, texts.established(agreed, retained, dropped))

    def _deliver(self, machine: Machine, before: State, cause: Cause, now: float) -> None:
        """`Session._handle` does this itself, without coming here."""
        self._events.append(cause.body)

    def _refresh(self, machine: Machine, before: State, cause: Cause, now: float) -> None:
        assert cause.refresh is not None
        self._events.append(Refresh(cause.refresh))

    # Actions: the end of a connection

    def _fsm_error(self, machine: Machine, before: State, cause: Cause, now: float) -> None:
        subcode = FSM_SUBCODES[before] if cause.message else 0
        what = MessageType(cause.message).name if cause.message else "a timer's end"
        self._end(machine, before, causes.fsm_error(str(before), subcode, cause.message, what), now)

    def _close(self, machine: Machine, before: State, cause: Cause, now: float) -> None:
        assert cause.notification is None, "this end must be silent"
        self._end(machine, before, cause, now)

    def _end(self, machine: Machine, before: State, cause: Cause, now: float) -> None:
        """The connection is over: say so, close, tell what becomes of the routes, and decide how to go on."""
        self._say_goodbye(machine, cause)
        had_connection = machine.conn is not None
        survivor = self._detach(machine)
        if before is State.ESTABLISHED:
            self._lose(machine, cause, now)
        elif had_connection:
            self._retry.failures += 1
            self._notice(cause.level, f"connection in {before} ended: {cause.text}")
        self._remember(cause, now, before)
        damped = cause.damped and not self._drop_capabilities(machine, cause)
        if survivor is None:
            self._go_on(damped, now)
        elif survivor.undecided and self._running:
            self._release(survivor, now)

    def _say_goodbye(self, machine: Machine, cause: Cause) -> None:
        if machine.conn is None:
            return
        if cause.notification is not None:
            self.statistics.last_notification_sent = cause.text
            self._transmit(machine, MessageType.NOTIFICATION, cause.notification.build())
        if cause.closes:
            self._events.append(Close(machine.conn))

    def _remember(self, cause: Cause, now: float, before: State) -> None:
        known = self.statistics
        # A peer that waits after an error hangs up on whoever calls: what the error was says more than that.
        hangs_up = before is not State.ESTABLISHED and cause.brief[0] == "Socket"
        says_less = hangs_up and known.last_error in (known.last_notification_sent, known.last_notification_received)
        if cause.text and cause.level >= logging.INFO and not (says_less and known.last_error):
            known.last_error = cause.text
            known.last_error_at = now
        if cause.brief[0]:
            known.trouble = cause.brief

    def _drop_capabilities(self, machine: Machine, cause: Cause) -> bool:
        """RFC 5492 §3: a peer that refuses optional parameters gets one try without. True: that try is next."""
        if machine.sent is None:
            return False
        families = [item.family for item in self.peer.families]
        self._bare = cause.unsupported and bool(machine.sent.capabilities) and IPV4_UNICAST in families
        if self._bare:
            self._notice(logging.INFO, "the peer refuses optional parameters: trying once without capabilities")
        return self._bare

    def _go_on(self, damped: bool, now: float) -> None:
        """No connection is left: stay down, wait out the idle hold, or try again."""
        self._retry_at = math.inf
        if not self._running:
            return
        if self._main.state is not State.IDLE:
            self._arm(self._main, self._main.state, QUIET, now)
        elif damped:
            self._damping.error(self.peer.idle_hold_time, self._jitter(), now)
        else:
            self._fire(self._main, self._automatic_start(), QUIET, now)

    def _automatic_start(self) -> Event:
        return Event.AUTOMATIC_START_DAMP_PASSIVE if self.peer.passive else Event.AUTOMATIC_START_DAMP

    def _release(self, machine: Machine, now: float) -> None:
        """The connection that would have won is gone: answer the OPEN that waited."""
        machine.decide_at = math.inf
        self._fire(machine, Event.BGP_OPEN, QUIET, now)
        if machine.confirmed_early:
            self._fire(machine, Event.KEEPALIVE_MSG, QUIET, now)

    def _lose(self, machine: Machine, cause: Cause, now: float) -> None:
        """An Established session ended: which families' routes stay (RFC 4724 §4.2, RFC 8538 §4)."""
        agreed = machine.negotiated
        assert agreed is not None
        retained: frozenset[Family] = frozenset()
        if cause.loss is Loss.CONNECTION or (cause.loss is Loss.NOTIFICATION and agreed.notification_restart):
            retained = agreed.restart_families
        time = 0.0 if agreed.graceful is None else float(agreed.graceful.time)
        expired = self._helper.lose(retained, time, self.peer.helper_second_loss_keeps, now)
        if expired:
            self._events.append(StaleExpired(expired))
        self._events.append(Down(cause.text, retained))
        statistics = self.statistics
        lasted = 0.0 if statistics.established_at is None else now - statistics.established_at
        statistics.established_at = None
        statistics.changed_at = now
        statistics.flaps += 1
        # Only a session that lasted makes the next dial a quick one: no busy loop with a peer that opens and closes.
        self._retry.failures = 0 if lasted >= self.peer.connect_retry_time else self._retry.failures + 1
        left = self._helper.deadline() - now
        text = texts.lost(cause.text, lasted, agreed.families, retained, left)
        self._notice(max(cause.level, logging.INFO), text)

    def _notice(self, level: int, text: str) -> None:
        """One sentence. What is said again and again while the session is down is said for people only once: also where
        two reasons take turns, as with a peer that closes some connections and resets others."""
        if text in self._said:
            level = logging.DEBUG
        elif len(self._said) >= _SAID or self.statistics.established_at is not None:
            self._said.clear()
        self._said.add(text)
        name = self.peer.name
        where = name if self.peer.address in name else f"{name} ({self.peer.address})"
        self._events.append(Notice(level, f"peer {where}: {text}"))


_ACTIONS: dict[Action, Callable[[Actions, Machine, State, Cause, float], None]] = {
    Action.NONE: Actions._nothing,
    Action.START: Actions._arm,
    Action.DIAL: Actions._dial,
    Action.RETRY: Actions._arm,
    Action.SEND_OPEN: Actions._send_open,
    Action.CONFIRM: Actions._confirm,
    Action.ESTABLISH: Actions._establish,
    Action.SEND_KEEPALIVE: Actions._send_keepalive,
    Action.DELIVER: Actions._deliver,
    Action.REFRESH: Actions._refresh,
    Action.STOP: Actions._end,
    Action.NOTIFY: Actions._end,
    Action.FSM_ERROR: Actions._fsm_error,
    Action.CLOSE: Actions._close,
}


def _together(now: float, time: float, jitter: float) -> float:
    """When the next KEEPALIVE is due: after `time` seconds with jitter (RFC 4271 §10), at a moment that sessions share.

    Hundreds of sessions then wake the process a few times a second for dozens of them, not for each by itself. The
    moments are a sixteenth of `time` apart; the due one lies 0.9 to 1.0 times `time` away, or up to a sixteenth less.
    Of the RFC's jitter of a quarter ("suggested") two fifths are used: peaks are wanted here, and each KEEPALIVE too
    early costs two hosts.
    """
    step = time / 16
    moments = -(-(now + time * (0.6 + 0.4 * jitter)) // step)
    due = moments * step
    return max(due if due <= now + time else due - step, now + SHORTEST_KEEPALIVE_TIME)
