"""One peer's session: what the speaker calls and asks (RFC 4271 §8). What the table's actions do is in `actions`."""

from __future__ import annotations

import logging
import math

from attrs import evolve

from bgpd.effects import Send
from bgpd.errors import BGPError, Cease, ErrorCode, describe
from bgpd.family import Family
from bgpd.session import cause as causes
from bgpd.session import texts
from bgpd.session.actions import FSM_SUBCODES, Actions
from bgpd.session.cause import QUIET, Cause, Loss
from bgpd.session.collision import local_wins
from bgpd.session.events import Close, SessionEvent, StaleExpired
from bgpd.session.fsm import Event, State
from bgpd.session.machine import Machine
from bgpd.session.negotiate import Negotiated, keepalive_time, negotiate
from bgpd.session.retry import ERROR_MEMORY
from bgpd.settings import PeerSettings
from bgpd.wire.framing import MessageType
from bgpd.wire.notification import Notification, build_shutdown_data, parse_notification, shutdown_text, wrap_hard_reset
from bgpd.wire.open import parse_open
from bgpd.wire.refresh import RouteRefresh, parse_refresh

COLLISION_WAIT = 1.0
"""Seconds that the answer to an OPEN waits for the OPEN of another connection to the same peer."""
DIAL_WAIT = 0.3
"""Seconds that it waits for a dial in flight to become such a connection, or to fail."""
YOUNG = 1.0
"""Seconds in Established after which a second connection means a restarted peer and not the tail of a collision."""
PROBE_TIME = 1.0
"""Seconds between KEEPALIVEs that ask whether the present connection is alive (RFC 4271 §4.4 allows one a second)."""

_UPDATE = int(MessageType.UPDATE)
_KEEPALIVE = int(MessageType.KEEPALIVE)
_ESTABLISHED = State.ESTABLISHED
"""What every message asks for. A member of an Enum class costs three times as much as a global."""
_MESSAGE_EVENTS = {
    MessageType.OPEN: Event.BGP_OPEN,
    MessageType.UPDATE: Event.UPDATE_MSG,
    MessageType.KEEPALIVE: Event.KEEPALIVE_MSG,
    MessageType.ROUTE_REFRESH: Event.ROUTE_REFRESH_MSG,
}
_FINAL_STOPS = frozenset({Cease.ADMINISTRATIVE_SHUTDOWN, Cease.PEER_DECONFIGURED, Cease.HARD_RESET})
_STOP_TEXTS = frozenset({Cease.ADMINISTRATIVE_SHUTDOWN, Cease.ADMINISTRATIVE_RESET})


def _expected(message: RouteRefresh, agreed: Negotiated) -> bool:
    """Whether a ROUTE-REFRESH is one that we have agreed to (RFC 2918 §4, RFC 7313 §4)."""
    agreed_on = agreed.enhanced_refresh if message.subtype else agreed.route_refresh
    return agreed_on and message.family in agreed.families


class Session(Actions):
    """The protocol with one peer. Inputs are methods, outputs come from `take`; `now` never goes backwards."""

    # What others may look at

    @property
    def conn(self) -> int | None:
        """Connection of the Established session."""
        machine = self._established()
        return None if machine is None else machine.conn

    @property
    def negotiated(self) -> Negotiated | None:
        """What the Established session agreed on."""
        machine = self._established()
        return None if machine is None else machine.negotiated

    @property
    def local_address(self) -> str:
        """Our address in the present connection; "" without one."""
        machine = self._established() or self._main
        return machine.local_address

    @property
    def stale_families(self) -> frozenset[Family]:
        """Families of which stale routes are kept."""
        return self._helper.stale

    @property
    def idle_until(self) -> float | None:
        """End of the idle hold after an error, if there is one."""
        return self._damping.idle_until if self._main.state is State.IDLE and self._running else None

    @property
    def settled(self) -> bool:
        """Established, and no second connection: what is received can only put the next deadline off."""
        return self._second is None and self._main.state is _ESTABLISHED

    @property
    def running(self) -> bool:
        """Started, and not stopped since."""
        return self._running

    def forgettable(self, now: float) -> bool:
        """Whether nothing would be lost with this session: no connection, no stale routes, no memory of errors."""
        if self._by_conn or self._helper.stale:
            return False
        return not self._damping.errors or now - self._damping.last_error_at >= ERROR_MEMORY

    def take(self) -> list[SessionEvent]:
        """What has happened since the last call, in order."""
        events, self._events = self._events, []
        return events

    # Inputs: operation

    def start(self, now: float) -> None:
        """Let the session come up (again). Errors of earlier are remembered, but no idle hold is waited for."""
        self._running = True
        self.statistics.changed_at = now
        self._retry.failures = 0
        event = Event.MANUAL_START_PASSIVE if self.peer.passive else Event.MANUAL_START
        self._fire(self._main, event, QUIET, now)

    def stop(self, now: float, subcode: int, text: str = "", graceful: bool = False) -> None:
        """End the session on our own wish and stay down until `start`.

        `subcode` is a Cease subcode, `text` a shutdown communication for subcodes 2 and 4 (RFC 9003). `graceful`: close
        the TCP connection without a word, so that the peer treats it as a restart (RFC 4724). Where both sides know
        RFC 8538, subcodes 2 and 3 go as a hard reset, since we shall not come back.
        """
        if not self._running:
            return
        self._running = False
        self._bare = False
        self._dial_is_void = self._dialing
        final = not graceful and subcode in _FINAL_STOPS
        if not self._by_conn and not graceful:
            reason = describe(ErrorCode.CEASE, subcode)
            self._notice(logging.INFO, f"stopped by us ({reason}) while there was no connection")
        for machine in (self._second, self._main):
            if machine is not None:
                self._fire(machine, Event.MANUAL_STOP, self._stop_cause(machine, subcode, text, graceful), now)
        if final and (stale := self._helper.clear()):
            self._events.append(StaleExpired(stale))

    def _stop_cause(self, machine: Machine, subcode: int, text: str, graceful: bool) -> Cause:
        if graceful:
            return Cause("closed by us for a graceful restart", loss=Loss.CONNECTION, level=logging.INFO)
        hard = machine.negotiated is not None and machine.negotiated.notification_restart and subcode in _FINAL_STOPS
        if subcode == Cease.HARD_RESET:
            subcode = Cease.ADMINISTRATIVE_RESET
        data = build_shutdown_data(text) if text and subcode in _STOP_TEXTS else b""
        notification = Notification(ErrorCode.CEASE, subcode, data)
        words = f"we sent NOTIFICATION {describe(ErrorCode.CEASE, subcode)}"
        if hard:
            words += " as a hard reset"
        if said := shutdown_text(data):
            words += f' ("{said}")'
        return Cause(
            words,
            notification=wrap_hard_reset(notification) if hard else notification,
            loss=Loss.FINAL if hard or subcode in _FINAL_STOPS else Loss.NOTIFICATION,
            level=logging.INFO,
        )

    def update_settings(self, peer: PeerSettings) -> None:
        """Settings that cost no reset change in place; any others belong between `stop` and `start`."""
        woken = self.peer.passive and not peer.passive
        self.peer = peer
        if self._main.state is State.ACTIVE:
            if peer.passive:
                self._retry_at = math.inf
            elif woken:
                self._retry_at = -math.inf
        machine = self._established()
        if machine is not None:
            machine.send_hold_time = self._send_hold_time(machine.negotiated)
            self._follow_keepalive_time(machine)

    def _follow_keepalive_time(self, machine: Machine) -> None:
        """A new keepaliveTime holds from now on: one KEEPALIVE goes at once, the next ones in the new time."""
        agreed = machine.negotiated
        if agreed is not None and (time := keepalive_time(self.peer, agreed.hold_time)) != agreed.keepalive_time:
            machine.negotiated = evolve(agreed, keepalive_time=time)
            machine.keepalive_at = -math.inf

    def rekeyed(self) -> None:
        """The connection has another key: an octet in flight finds out whether the peer still has its end of it.

        A peer that has closed its end answers TCP's retransmissions with a reset, as soon as it has the new key too.
        """
        machine = self._established()
        if machine is not None:
            self._probe(machine)

    def fail(self, error: BGPError, now: float) -> None:
        """The speaker found a fault in an UPDATE, or passed a limit (Cease/1, Cease/8): the session ends with it.

        UPDATE bodies that were taken after the faulty one must not be used.
        """
        machine = self._established()
        if machine is not None:
            event = Event.AUTOMATIC_STOP if error.code == ErrorCode.CEASE else Event.UPDATE_MSG_ERR
            self._fire(machine, event, causes.from_error(error), now)

    def end_of_rib(self, family: Family) -> None:
        """The peer's End-of-RIB was received: nothing of this family is stale any more."""
        self._helper.synchronized(family)

    # Inputs: connections

    def connected(self, conn: int, local_address: str, now: float) -> None:
        """The dial asked for by `Connect` succeeded."""
        void = self._answered()
        main = self._main
        # Once another connection's OPEN is answered, this one could only harm it: RFC 4271 §6.8 closes the newcomer.
        busy = main.state >= State.OPEN_CONFIRM or self._second is not None
        if void or busy or main.state is State.IDLE:
            self._events.append(Close(conn))
            self.statistics.collisions += busy
            if void:
                self._dial_again(now)
            return
        self._attach(conn, True, local_address, now)

    def connect_failed(self, reason: str, now: float) -> None:
        """The dial asked for by `Connect` failed."""
        if self._answered():
            self._dial_again(now)
            return
        self.statistics.connect_failures += 1
        self.statistics.trouble = ("Socket", reason)
        if self._main.undecided and self._second is None:
            self._release(self._main, now)
            return
        if self._main.state is State.CONNECT:
            self._retry.failures += 1
            self._notice(logging.INFO, f"cannot connect to {self.peer.address} port {self.peer.port}: {reason}")
            self._fire(self._main, Event.TCP_CONNECTION_FAILS, QUIET, now)

    def accepted(self, conn: int, local_address: str, now: float) -> bool:
        """The peer opened a connection. False: refused, close it at once; one that was told so (Cease/7) is True."""
        established = self._established()
        if established is not None:
            if not self._may_replace(established, now):
                self._turn_away(conn)
                return True
        elif not self._running or self._damping.refuses(now):
            self.statistics.refused += 1
            return False
        if self._main.state is State.IDLE:
            self._fire(self._main, self._automatic_start(), QUIET, now)
        older = self._incoming()
        if older is not None and self._other(older) is not None:
            self._dump(older, "the peer has opened a newer one", now)
            older = None
        self._attach(conn, False, local_address, now)
        if older is not None:
            # A peer dials one connection at a time, so the older one is dead: the newest counts.
            self._dump(older, "the peer has opened a newer one", now)
        return True

    def _turn_away(self, conn: int) -> None:
        """Whatever OPEN would come, the Established connection stays: RFC 4271 §6.8, RFC 4486 §3."""
        self.statistics.refused += 1
        self.statistics.sent[MessageType.NOTIFICATION] += 1
        notification = Notification(ErrorCode.CEASE, Cease.COLLISION_RESOLUTION)
        self._events += [Send(conn, notification.build()), Close(conn)]

    def _may_replace(self, established: Machine, now: float) -> bool:
        """Whether a second connection may take over from an Established one, once its OPEN is there (RFC 4724 §5)."""
        agreed = established.negotiated
        since = self.statistics.established_at
        if agreed is not None and agreed.graceful is not None and since is not None and now - since >= YOUNG:
            return True
        if now - established.probed_at >= PROBE_TIME:
            # If the peer has lost the present connection without telling us, its TCP will reset it at this.
            established.probed_at = now
            self._probe(established)
        return False

    def lost(self, conn: int, reason: str, now: float) -> None:
        """The TCP connection was closed or reset by the peer or the network."""
        machine = self._by_conn.get(conn)
        if machine is not None:
            self._fire(machine, Event.TCP_CONNECTION_FAILS, causes.connection_lost(reason), now)

    def blocked(self, conn: int, now: float) -> None:
        """Octets wait that the peer's TCP does not take: the send hold timer starts (RFC 9687)."""
        machine = self._by_conn.get(conn)
        if machine is not None:
            machine.blocked_at = min(machine.blocked_at, now)

    def progress(self, conn: int, now: float) -> None:
        """Some of the waiting octets went out: the send hold timer starts anew."""
        machine = self._by_conn.get(conn)
        if machine is not None and machine.blocked_at != math.inf:
            machine.blocked_at = now

    def unblocked(self, conn: int, now: float) -> None:
        """Nothing waits any more: the send hold timer stops."""
        machine = self._by_conn.get(conn)
        if machine is not None:
            machine.blocked_at = math.inf

    # Inputs: octets

    def receive(self, conn: int, data: bytes | bytearray | memoryview, now: float) -> None:
        """Octets of a connection, cut anywhere. They are copied before this returns."""
        machine = self._by_conn.get(conn)
        if machine is None:
            self.statistics.ignored_data += 1
        elif machine.received is not None:
            self._handle(machine, data, now)
        else:
            self._receive_first(machine, data, now)

    def _receive_first(self, machine: Machine, data: bytes | bytearray | memoryview, now: float) -> None:
        machine.buffer += data
        first = machine.first_message()
        if first is None:
            return
        rest = bytes(machine.buffer)
        machine.buffer.clear()
        self._handle(machine, first, now)
        if rest and machine.conn is not None:
            self._handle(machine, rest, now)

    def _handle(self, machine: Machine, data: bytes | bytearray | memoryview, now: float) -> None:
        """The hot path. What TABLE says of Established is done here: an UPDATE is one append (DELIVER), a KEEPALIVE
        nothing beyond the hold timer (NONE), and neither leads to another state."""
        messages = machine.framer.feed(data)
        if messages:
            machine.last_received = now
            append = self._events.append
            established = machine.state is _ESTABLISHED
            updates = keepalives = 0
            for kind, body in messages:
                if kind == _UPDATE and established:
                    append(body)
                    updates += 1
                    continue
                if kind == _KEEPALIVE and established:
                    keepalives += 1
                    continue
                self._message(machine, kind, body, now)
                if machine.conn is None:
                    break
                established = machine.state is _ESTABLISHED
            received = self.statistics.received
            received[_UPDATE] += updates
            received[_KEEPALIVE] += keepalives
        error = machine.framer.error
        if error is not None and machine.conn is not None:
            self._fire(machine, Event.BGP_HEADER_ERR, causes.from_error(error), now)

    def _message(self, machine: Machine, kind: int, body: bytes, now: float) -> None:
        self.statistics.received[kind] += 1
        waiting = machine.state is State.OPEN_SENT
        if kind == MessageType.NOTIFICATION:
            self._on_notification(machine, parse_notification(body), now)
        elif kind == MessageType.OPEN and waiting:
            self._on_open(machine, body, now)
        elif kind == MessageType.KEEPALIVE and waiting and machine.undecided:
            machine.confirmed_early = True
        elif kind == MessageType.ROUTE_REFRESH and machine.state is State.ESTABLISHED:
            self._on_refresh(machine, body, now)
        else:
            self._fire(machine, _MESSAGE_EVENTS[MessageType(kind)], Cause("", message=kind, body=body), now)

    def _on_notification(self, machine: Machine, received: Notification, now: float) -> None:
        cause = causes.from_notification(received)
        self.statistics.last_notification_received = cause.text
        version = (received.code, received.subcode) == (ErrorCode.OPEN_MESSAGE, 1)
        self._fire(machine, Event.NOTIF_MSG_VER_ERR if version else Event.NOTIF_MSG, cause, now)

    def _on_refresh(self, machine: Machine, body: bytes, now: float) -> None:
        negotiated = machine.negotiated
        assert negotiated is not None
        try:
            message = parse_refresh(body, negotiated.enhanced_refresh)
        except BGPError as error:
            self._fire(machine, Event.ROUTE_REFRESH_MSG_ERR, causes.from_error(error), now)
            return
        if message is None or not _expected(message, negotiated):
            self.statistics.ignored_refreshes += 1
        else:
            self._fire(machine, Event.ROUTE_REFRESH_MSG, Cause("", refresh=message), now)

    def _on_open(self, machine: Machine, body: bytes, now: float) -> None:
        """The peer's OPEN: check it, then settle a collision before it is answered (RFC 4271 §6.8)."""
        assert machine.sent is not None
        if machine.received is not None:
            # The answer to the first one is put off, which leaves no place for another.
            cause = causes.fsm_error(str(machine.state), FSM_SUBCODES[machine.state], MessageType.OPEN, "another OPEN")
            self._fire(machine, Event.BGP_OPEN_MSG_ERR, cause, now)
            return
        try:
            received = parse_open(body)
            negotiated = negotiate(self.peer, self.local, machine.sent, received)
        except BGPError as error:
            self._fire(machine, Event.BGP_OPEN_MSG_ERR, causes.from_error(error), now)
            return
        machine.received, machine.negotiated = received, negotiated
        other = self._other(machine)
        if other is None and self._dialing and negotiated.graceful is not None:
            # BIRD takes a connection that it accepts when it is Established on another for our restart, and drops what
            # it kept for us (RFC 4724 §4.2). So nothing may be Established while a dial of ours is in flight.
            machine.decide_at = now + DIAL_WAIT
        elif other is None:
            self._fire(machine, Event.BGP_OPEN, QUIET, now)
        elif other.state is State.ESTABLISHED:
            self._fire(other, Event.TCP_CONNECTION_FAILS, causes.replaced(), now)
            self._fire(machine, Event.BGP_OPEN, QUIET, now)
        else:
            self._collide(machine, other, negotiated, now)

    def _collide(self, machine: Machine, other: Machine, agreed: Negotiated, now: float) -> None:
        """Two connections, and the OPEN of `machine` has just come.

        RFC 4271 compares when both OPENs are there; until then the answer is put off for a moment. Answered at once,
        one side could reach Established on it while the other side closes it, and both would be lost (without the
        delay about 1 in 130 simulated simultaneous starts had no session after 3 s), or while the other side has yet
        to accept the other one.
        """
        if other.received is None:
            machine.decide_at = now + COLLISION_WAIT
            return
        wins = machine.outgoing == local_wins(agreed.local_id, agreed.local_asn, agreed.peer_id, agreed.peer_asn)
        loser = other if wins else machine
        self._dump(loser, "it has the lower BGP identifier or AS number on its side", now)
        if wins and not machine.undecided and machine.state is State.OPEN_SENT:
            self._fire(machine, Event.BGP_OPEN, QUIET, now)

    # Inputs: time

    def tick(self, now: float) -> None:
        """Let timers expire. Calling too early does nothing."""
        for machine in list(self._by_conn.values()):
            self._tick_connection(machine, now)
        main = self._main
        if main.state is State.IDLE and (until := self.idle_until) is not None and until <= now:
            self._fire(main, Event.IDLE_HOLD_TIMER_EXPIRES, QUIET, now)
        if self._main.state is State.ACTIVE and self._retry_at <= now:
            self._fire(self._main, Event.CONNECT_RETRY_TIMER_EXPIRES, QUIET, now)
        expired = self._helper.expire(now)
        if expired:
            self._events.append(StaleExpired(expired))
            self._notice(logging.WARNING, texts.stale_expired(expired, self.conn is not None))

    def _tick_connection(self, machine: Machine, now: float) -> None:
        if machine.conn is None or now < machine.deadline():
            return
        if machine.hold_at() <= now:
            waited = "no OPEN was received" if machine.state is State.OPEN_SENT else "no message was received"
            self._fire(machine, Event.HOLD_TIMER_EXPIRES, causes.hold_expired(machine.hold_time, waited), now)
        elif machine.send_hold_at() <= now:
            cause = causes.send_hold_expired(machine.send_hold_time)
            self._fire(machine, Event.SEND_HOLD_TIMER_EXPIRES, cause, now)
        elif machine.decide_at <= now:
            other = self._other(machine)
            if other is None:
                self._release(machine, now)
            else:
                self._dump(other, "the peer did not go on with this one", now)
        elif machine.keepalive_at <= now:
            if machine.state is State.ESTABLISHED:
                # As TABLE says; hundreds of sessions do this every few seconds.
                self._send_keepalive(machine, machine.state, QUIET, now)
            else:
                self._fire(machine, Event.KEEPALIVE_TIMER_EXPIRES, QUIET, now)

    def deadline(self) -> float:
        """When `tick` has something to do next; infinite for never. While messages arrive it only moves later."""
        at = self._helper.deadline()
        for machine in self._by_conn.values():
            due = machine.deadline()
            if due < at:
                at = due
        if self._running:
            if self._main.state is State.ACTIVE:
                at = min(at, self._retry_at)
            elif self._main.state is State.IDLE:
                at = min(at, self._damping.idle_until or math.inf)
        return at
