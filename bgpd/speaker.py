"""The pure core: routes inputs to the parts and collects effects.

It knows no socket, clock or file. Every input has the time as an argument; what the world is to do comes out of
`take_effects`. Inputs may come many at a time: `flush`, once after them, turns what they changed in the tables into
UPDATEs and kernel routes.
"""

from __future__ import annotations

import logging
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import chain

from bgpd.backlog import Backlog
from bgpd.directory import Directory
from bgpd.dynamic import DynamicPeers
from bgpd.effects import Close, Connect, Effect, Log, Program, ReleaseKernel, Send
from bgpd.errors import BGPError, Cease, ErrorCode
from bgpd.family import FAMILIES, Family, parse_address
from bgpd.peer import Peer
from bgpd.places import Places
from bgpd.reconfigure import reconfigure
from bgpd.restart import RestartPhase
from bgpd.rib.forwarding import Forwarding, same_way
from bgpd.rib.importer import Shared
from bgpd.rib.loc_rib import Change
from bgpd.rib.local import LocalRoutes
from bgpd.rib.nexthop import NextHop
from bgpd.rib.slices import Job
from bgpd.routes import LocalChange
from bgpd.session import events as ev
from bgpd.session.local import LocalState
from bgpd.settings import PeerSettings, SpeakerSettings
from bgpd.timers import Timers
from bgpd.wire.notification import Notification
from bgpd.wire.refresh import BEGIN, END, RouteRefresh
from bgpd.wire.update import Memo, UpdateContext, UpdateParser

_REFRESH_TIME = 360.0
"""Seconds to wait for EoRR after BoRR before what was not repeated goes (RFC 7313 §4)."""
_NAMED = 10
"""Of a list of peers, as many are in one line of the log."""
_MANY = 4096
"""Routes dropped by one job after which the table of attributes is swept."""


class Speaker:
    """One BGP speaker: all its peers and tables."""

    def __init__(self, settings: SpeakerSettings, now: float, jitter: Callable[[], float]) -> None:
        self.settings = settings
        self.jitter = jitter
        self.started = False
        self.started_at = now
        self.shared = Shared(FAMILIES, settings.resolve_next_hops)
        self.ribs = self.shared.ribs
        self.local_routes = LocalRoutes(self.shared)
        self.forwarding = Forwarding(settings.fib)
        self.directory = Directory()
        self.peers = self.directory.by_name
        self.restart = RestartPhase()
        self._release_due = False
        self.local = LocalState(settings.asn, parse_address(settings.router_id), True, settings.forwarding_kept)
        self.dynamic = DynamicPeers(settings)
        self._conns = self.directory.by_conn
        self._memos: defaultdict[tuple[bool, bool], Memo] = defaultdict(Memo)
        """What UPDATEs are read with, by whether the peer is external, and has four-octet AS numbers."""
        self._timers = Timers()
        self._backlog = Backlog()
        self._effects: list[Effect] = []
        self._untold: list[tuple[Family, dict[Change, list[bytes]], set[bytes]]] = []
        """Changes of the tables that the kernel has, and the update groups have not."""
        self.places = Places(self.ribs, self._backlog, self._effects)
        for peer in settings.peers:
            self._add_peer(peer)
        self._touched(self.local_routes.set_static(settings.static_routes))

    # Inputs: life

    def start(self, now: float) -> None:
        """Local routes are in: connect and accept from now on."""
        self.started = True
        known = (*self.settings.peers, *(template for _, template in self.settings.dynamic))
        graceful = [peer.restart_time for peer in known if peer.graceful_restart and not peer.disabled]
        enabled = {name for name, peer in self.peers.items() if not peer.settings.disabled}
        self.restart.begin(now, enabled, min(graceful, default=120) / 2, others=bool(self.dynamic))
        self.places.hold_end_of_rib(self.restart.active)
        for peer in list(self.peers.values()):
            self._start_peer(peer, now)
        if not self.restart.active:
            self._restart_over()
            self._release_due = True

    def shutdown(self, now: float, send_cease: bool) -> None:
        """End all sessions: with Cease/2, or (graceful) by closing TCP without a word, so that peers keep our
        routes."""
        for peer in list(self.peers.values()):
            peer.session.stop(now, Cease.ADMINISTRATIVE_SHUTDOWN, graceful=not send_cease)
            self._drain(peer, now)

    # Inputs: connections

    def knows(self, remote_address: str) -> bool:
        """Whether a connection from this address is welcome: a configured peer's, or in a dynamic range."""
        configured = self.directory.configured_at(remote_address)
        if configured:
            return any(not peer.settings.disabled for peer in configured)
        return self.dynamic.template(remote_address) is not None

    def on_connected(self, name: str, conn: int, local_address: str, now: float) -> None:
        """A `Connect` succeeded."""
        peer = self.peers.get(name)
        if peer is None:
            self._effects.append(Close(conn))
            return
        self._conns[conn] = peer
        peer.session.connected(conn, local_address, now)
        self._drain(peer, now)

    def on_connect_failed(self, name: str, reason: str, now: float) -> None:
        """A `Connect` failed."""
        peer = self.peers.get(name)
        if peer is not None:
            peer.session.connect_failed(reason, now)
            self._drain(peer, now)

    def on_accepted(self, conn: int, remote_address: str, local_address: str, now: float) -> bool:
        """Someone connected to us. False: refuse, close without a word."""
        if not self.started:
            return False
        peer = self.directory.at(remote_address)
        if peer is None:
            if self.directory.configured_at(remote_address):
                return False
            peer = self._add_dynamic(remote_address, now)
        if peer is None:
            return self._reject(conn, remote_address)
        accepted = peer.session.accepted(conn, local_address, now)
        if accepted:
            self._conns[conn] = peer
        self._drain(peer, now)
        return accepted

    def on_data(self, conn: int, data: bytes | bytearray | memoryview, now: float) -> bool:
        """Octets came in. False: they changed nothing but the hold timer, so that nothing is to be flushed or set."""
        peer = self._conns.get(conn)
        if peer is None:
            return False
        peer.session.receive(conn, data, now)
        return self._drain(peer, now, sooner=not peer.session.settled)

    def on_fault(self, conn: int, now: float) -> None:
        """Serving this connection met a defect of ours: its session ends with Cease/8, and is damped as any error."""
        peer = self._conns.get(conn)
        if peer is not None:
            error = BGPError(ErrorCode.CEASE, Cease.OUT_OF_RESOURCES, reason="internal error; the log has a traceback")
            self._fail(peer, error, now)
            self._drain(peer, now)

    def on_lost(self, conn: int, reason: str, now: float) -> None:
        """A connection ended from outside."""
        peer = self._conns.pop(conn, None)
        if peer is not None:
            peer.session.lost(conn, reason, now)
            self._drain(peer, now)

    def on_blocked(self, conn: int, now: float) -> None:
        """The peer's TCP takes no more octets for now."""
        peer = self._conns.get(conn)
        if peer is not None:
            peer.session.blocked(conn, now)
            self._schedule(peer)
        self.places.set_blocked(conn, True)

    def on_progress(self, conn: int, now: float) -> None:
        """A blocked peer's TCP took some octets."""
        peer = self._conns.get(conn)
        if peer is not None:
            peer.session.progress(conn, now)

    def on_unblocked(self, conn: int, now: float) -> None:
        """A blocked peer's TCP takes octets again."""
        peer = self._conns.get(conn)
        if peer is not None:
            peer.session.unblocked(conn, now)
        self.places.set_blocked(conn, False)

    # Inputs: the host

    def on_local(self, changes: Iterable[LocalChange], now: float) -> None:
        """The host's own routes changed."""
        self._touched(self.local_routes.apply(changes))

    def on_local_addresses(self, addresses: frozenset[bytes]) -> None:
        """The host's own addresses, packed: no usable next hops."""
        self._touched(self.shared.next_hops.set_own(addresses))

    def on_devices(self, devices: Mapping[str, int]) -> None:
        """The host's interfaces that are up, by name: tunnels are used where their device is among them."""
        for family in self.forwarding.use_devices(devices):
            if self.settings.fib.enabled:
                rib = self.ribs[family]
                self._effects.append(Program(family, self.forwarding.wanted(rib, rib.table)))

    # Time

    def deadline(self) -> float:
        """When `on_tick` is due; math.inf if nothing is."""
        if self._backlog:
            return -math.inf
        restart = self.restart.deadline()
        first = self._timers.first()
        return first if restart is None else min(first, restart)

    def on_tick(self, now: float) -> None:
        """Time has passed."""
        while (name := self._timers.take(now)) is not None:
            if (peer := self.peers.get(name)) is not None:
                self._tick(peer, now)
        self._check_restart(now)

    def _tick(self, peer: Peer, now: float) -> None:
        peer.scheduled = math.inf
        try:
            peer.session.tick(now)
            if peer.refreshing:
                self._check_refreshes(peer, now)
            self._drain(peer, now)
        except Exception:
            # A defect may cost this turn, but not all that the session is due from now on.
            self._schedule(peer)
            raise

    def _schedule(self, peer: Peer) -> None:
        """Keep an entry among the timers that is not later than the peer's next deadline."""
        due = peer.session.deadline()
        if peer.refreshing:
            due = min(due, *peer.refreshing.values())
        if due < peer.scheduled:
            peer.scheduled = due
            self._timers.add(due, peer.settings.name)

    # Outputs

    def take_effects(self) -> list[Effect]:
        """What the world is to do, in order."""
        effects = self._effects.copy()
        self._effects.clear()
        return effects

    def pull(self, conn: int) -> bytes | None:
        """The next UPDATE octets of an established connection (`Places.pull`)."""
        return self.places.pull(conn)

    def _work(self, peer: Peer, job: Job, level: int = 0, text: str = "") -> None:
        """Do work that comes in slices, one a flush. Logs `text` with what it returns at the end, if not 0."""
        self._backlog.add(self._counted(peer, job, level, text))

    def _counted(self, peer: Peer, job: Job, level: int, text: str) -> Iterator[int]:
        total = yield from job
        if total and text:
            self._log(level, peer, text.format(total))
        if total >= _MANY:
            # What a lost peer alone used: the table of attributes would keep it until it has doubled.
            yield from self.shared.attributes.sweeping()

    def flush(self, now: float) -> None:
        """Turn what changed in the tables since the last call into kernel routes and UPDATEs. Raises what a defect in
        an update group gives, when all the others are told."""
        self._tell_changes()
        if self._backlog:
            # Behind what has changed so far: a review learns only by that of keys that are no longer in the table.
            self._backlog.work()
            self._tell_changes()
        if self._release_due:
            # Last: what the same turn's UPDATEs bring must be wanted before what is not may go.
            self._release_due = False
            self._effects.append(ReleaseKernel())
        if self.places.failures:
            self._begin_anew(now)

    def _begin_anew(self, now: float) -> None:
        """End the sessions of update groups that met a defect, and no others. Raises what the first one met."""
        failures = self.places.failures.copy()
        self.places.failures.clear()
        for group, _ in failures:
            for member in list(group.members):
                self.on_fault(member.conn, now)
        raise failures[0][1]

    def program(self) -> None:
        """The first half of `flush`, for a shell that wants packets to find their new ways before peers hear of them:
        kernel routes for what changed in the tables."""
        for family, rib in self.ribs.items():
            if not rib.changes:
                continue
            changes, repeated = rib.take_changes()
            self._untold.append((family, changes, repeated))
            if self.settings.fib.enabled:
                concerned = (keys for change, keys in changes.items() if not same_way(*change))
                if routes := self.forwarding.wanted(rib, chain.from_iterable(concerned)):
                    self._effects.append(Program(family, routes))

    def _tell_changes(self) -> None:
        """Give what changed in the tables to kernel and update groups."""
        self.program()
        while self._untold:
            self.places.tell(*self._untold.pop(0))

    # Sessions

    def _drain(self, peer: Peer, now: float, sooner: bool = True) -> bool:
        """Act on what a session has to say. `sooner`: its next deadline may have come nearer. False: neither was so."""
        session, busy = peer.session, sooner
        while events := session.take():
            busy = True
            for event in events:
                if type(event) is bytes:
                    if peer.parser is not None:
                        self._on_update(peer, event, now)
                else:
                    sooner = True
                    self._on_event(peer, event, now)
        if sooner:
            self._schedule(peer)
        if self.dynamic.dormant and peer.settings.name in self.dynamic.dormant and session.forgettable(now):
            self._remove_peer(peer, now)
        return busy

    def _on_event(self, peer: Peer, event: ev.SessionEvent, now: float) -> None:
        match event:
            case Send():
                self._effects.append(event)
            case ev.Connect():
                self._effects.append(Connect(peer.settings))
            case ev.Close(conn=conn):
                self._conns.pop(conn, None)
                self._effects.append(Close(conn))
            case ev.Established():
                self._on_established(peer, event, now)
            case ev.Down():
                self._on_down(peer, event, now)
            case ev.Refresh(message=refresh):
                self._on_refresh(peer, refresh, now)
            case ev.StaleExpired(families=families):
                for family in families:
                    what = f"restart time is over: {{}} stale {family} routes are gone"
                    self._work(peer, peer.importer.sweep(family), logging.WARNING, what)
            case ev.StateChange():
                self._log(logging.DEBUG, peer, f"{event.old.name} -> {event.new.name} on {event.event.name}")
                if peer.dynamic:
                    self.dynamic.note(peer, event.new)
            case ev.Notice(level=level, text=text):
                self._effects.append(Log(level, text, {"peer": peer.settings.name}))

    def _on_established(self, peer: Peer, event: ev.Established, now: float) -> None:
        negotiated = event.negotiated
        peer.source.identify(negotiated.peer_id)
        peer.end_of_rib.clear()
        peer.refreshing.clear()
        peer.limits.use(peer.settings, empty=not any(peer.importer.adj.values()))
        for family in event.dropped:
            self._work(peer, peer.importer.drop(family))
        context = UpdateContext(
            not negotiated.internal,
            negotiated.asn4,
            negotiated.families,
            negotiated.add_path_receive,
            negotiated.extended_next_hop,
            self.shared.attributes,
        )
        peer.parser = UpdateParser(context, self._memos[context.external, context.asn4])
        for family in negotiated.families:
            peer.importer.open(family, family in negotiated.add_path_receive)
        graceful = negotiated.graceful
        # A peer that restarts as well waits for our End-of-RIB: neither may wait for the other's (RFC 4724 §4.1).
        families = negotiated.families if graceful is not None else frozenset()
        self.restart.established(peer.settings.name, families, graceful is not None and graceful.restarting, now)
        self._check_restart(now)
        self.places.join(peer, self.settings)

    def _on_down(self, peer: Peer, event: ev.Down, now: float) -> None:
        peer.parser = None
        for memo in self._memos.values():
            memo.clear()
        self.places.leave(peer)
        peer.refreshing.clear()
        for family in list(peer.importer.adj):
            if family in event.retained:
                peer.importer.begin_epoch(family)
            else:
                self._work(peer, peer.importer.drop(family))
        self.restart.lost(peer.settings.name, now)
        self._check_restart(now)

    # Routes in

    def _on_update(self, peer: Peer, body: bytes, now: float) -> None:
        assert peer.parser is not None
        try:
            update = peer.parser.parse(body)
        except BGPError as error:
            self._log(logging.ERROR, peer, f"UPDATE refused: {error}; message {body.hex()}")
            self._fail(peer, error, now)
            return
        if update.findings and (what := peer.note_findings(update, now)):
            self._log(logging.WARNING, peer, f"{what[0]}; message {body.hex()}{what[1]}")
        peer.importer.apply(update)
        if update.end_of_rib is not None:
            self._on_end_of_rib(peer, update.end_of_rib, now)
        elif update.reach and peer.limits.limited and peer.limits.due(update, len(body), peer.importer):
            self._check_limits(peer, now)

    def _fail(self, peer: Peer, error: BGPError, now: float) -> None:
        """End a session for its peer's fault; UPDATEs that came behind it are not looked at any more."""
        peer.parser = None
        peer.session.fail(error, now)

    def _on_end_of_rib(self, peer: Peer, family: Family, now: float) -> None:
        peer.end_of_rib.add(family)
        what = f"End-of-RIB {family}: {{}} stale routes were not repeated and are gone"
        self._work(peer, peer.importer.sweep(family), logging.INFO, what)
        peer.session.end_of_rib(family)
        self.restart.end_of_rib(peer.settings.name, family)
        self._check_restart(now)
        if peer.limits.limited:
            # What was stale, and did not count against the limits, is repeated or gone now.
            peer.limits.recount()
            self._check_limits(peer, now)

    def _check_limits(self, peer: Peer, now: float) -> None:
        error, warning = peer.limits.check(peer.importer)
        if warning:
            self._log(logging.WARNING, peer, warning)
        if error is not None:
            self._fail(peer, error, now)

    def _on_refresh(self, peer: Peer, refresh: RouteRefresh, now: float) -> None:
        family, agreed = refresh.family, peer.session.negotiated
        if refresh.subtype == BEGIN and agreed is not None and agreed.graceful and family not in peer.end_of_rib:
            # RFC 7313 §4: what came before it would be stale, and End-of-RIB would delete it.
            self._log(logging.WARNING, peer, f"BoRR for {family} before its End-of-RIB: ignored")
        elif refresh.subtype == BEGIN:
            peer.importer.begin_epoch(family)
            peer.refreshing[family] = now + _REFRESH_TIME
            self._schedule(peer)
        elif refresh.subtype == END:
            if peer.refreshing.pop(family, None) is not None:
                self._work(peer, peer.importer.sweep(family))
        else:
            self.places.refresh(peer, family)

    def _check_refreshes(self, peer: Peer, now: float) -> None:
        for family, due in list(peer.refreshing.items()):
            if due <= now:
                del peer.refreshing[family]
                what = f"no EoRR for {family}: {{}} routes that were not repeated are gone"
                self._work(peer, peer.importer.sweep(family), logging.WARNING, what)

    # Next hops

    def _touched(self, hops: Iterable[NextHop]) -> None:
        """These next hops may resolve differently now: decide again where they do."""
        table = self.shared.next_hops
        for _ in range(4):
            changed = [(hop, new) for hop in hops if (new := table.look_up(hop.address)).answer() != hop.answer()]
            if not changed:
                return
            groups = [(rib, rib.best_groups(hop for hop, _ in changed)) for rib in self.ribs.values()]
            for hop, new in changed:
                table.refresh(hop, new)
            for rib, touched in groups:
                rib.reselect(touched)
            self.places.next_hops_changed()
            hops = self.local_routes.refresh_gateways()

    # Restart

    def _check_restart(self, now: float) -> None:
        if self.restart.over(now):
            self._restart_over()
        if self.restart.releases(now):
            self._release_due = True
            if missing := self.restart.missing():
                more = f" and {len(missing) - _NAMED} more" if len(missing) > _NAMED else ""
                text = f"the restart phase ends without {', '.join(missing[:_NAMED])}{more}"
                self._effects.append(Log(logging.WARNING, text))

    def _restart_over(self) -> None:
        self.local.restarting = False
        self.places.hold_end_of_rib(False)

    # Settings

    def reconfigure(self, settings: SpeakerSettings, now: float) -> None:
        """Make `settings` true, at the least cost (`settings.Cost`)."""
        reconfigure(self, settings, now)

    def _add_peer(self, settings: PeerSettings) -> Peer:
        peer = Peer(settings, self.settings, self.local, self.jitter, self.shared)
        self.directory.add(peer)
        return peer

    def _start_peer(self, peer: Peer, now: float) -> None:
        if not peer.settings.disabled:
            peer.session.start(now)
            self._drain(peer, now)

    def _remove_peer(self, peer: Peer, now: float) -> None:
        self.dynamic.discard(peer)
        peer.session.stop(now, Cease.PEER_DECONFIGURED)
        self._drain(peer, now)
        self._forget(peer)
        self.restart.removed(peer.settings.name)
        self._check_restart(now)
        self._log(logging.INFO, peer, "peer removed")

    def _forget(self, peer: Peer) -> None:
        self.places.leave(peer)
        for family in list(peer.importer.adj):
            self._work(peer, peer.importer.drop(family))
        self.dynamic.discard(peer)
        self._effects += [Close(conn) for conn in self.directory.remove(peer)]

    # Dynamic peers

    def _add_dynamic(self, remote_address: str, now: float) -> Peer | None:
        settings = self.dynamic.settings_for(remote_address)
        if settings is None:
            return None
        if self.dynamic.full():
            # A peer that is away and has nothing here but the memory of its errors makes room.
            dormant = (peer for peer in self.dynamic.dormant.values() if not peer.session.stale_families)
            if (absent := next(dormant, None)) is None:
                return None
            self._remove_peer(absent, now)
        peer = self._add_peer(settings)
        self.dynamic.add(peer)
        peer.session.start(now)
        return peer

    def _reject(self, conn: int, remote_address: str) -> bool:
        """An address that may connect, but there are as many dynamic peers as there may be (RFC 4486 §4)."""
        if self.dynamic.template(remote_address) is None:
            return False
        self.dynamic.refused += 1
        text = f"{remote_address} refused: {self.dynamic.limit} dynamic peers already, which is the limit"
        refusal = Notification(ErrorCode.CEASE, Cease.CONNECTION_REJECTED).build()
        self._effects += [Log(logging.WARNING, text), Send(conn, refusal), Close(conn)]
        return True

    def _log(self, level: int, peer: Peer, text: str) -> None:
        name = peer.settings.name
        self._effects.append(Log(level, f"peer {name} ({peer.settings.address}): {text}", {"peer": name}))
