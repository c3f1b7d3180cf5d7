"""The kernel's side of the speaker: carries FibTable's operations out; FibTable and Learner hear what the kernel tells.

Writes are plain calls: the kernel works through a batch before `send` returns, so a change is in the kernel when
`program` returns, unless there is more than a slice's worth of it; the rest follows in slices from the loop. The
monitor is drained before each slice that replaces or deletes anything, so that what others did is known by then.

Kernels drop routes without a word when a link goes down or an address goes away. Such an event has the routes of that
interface dumped and compared a moment later. Lost events have everything dumped.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import time
from collections.abc import Callable, Mapping
from math import inf

from bgpd.family import IPV4_UNICAST, IPV6_UNICAST, Family, format_prefix
from bgpd.fib import messages as nl
from bgpd.fib.learn import Learner
from bgpd.fib.netlink import BATCH, MONITOR_BUFFER, KernelError, Monitor, Netlink, NetlinkLost
from bgpd.fib.table import FibTable
from bgpd.routes import FibRoute, LocalChange
from bgpd.settings import FibSettings, LearnSettings
from bgpd.shell.logs import RateLimit

__all__ = ["Kernel", "KernelError", "clean"]

_log = logging.getLogger("bgpd.kernel")

_SLICE = 0.02
"""Seconds of writing or reading in one go; other work of the loop waits so long."""
_SETTLE = 0.02
"""Seconds from an event of a link or address to a look at its routes: the event comes before the deed is done."""
_SETTLE_AGAIN = 0.3
_FAMILIES = {nl.AF_INET: IPV4_UNICAST, nl.AF_INET6: IPV6_UNICAST}


class Kernel:
    """One network namespace's routes. `start` before anything else.

    `on_local` hears of the host's own routes, `on_addresses` (optional) of the set of all its addresses, packed, and
    `on_devices` (optional) of the interfaces that are up (name -> index), each time that these change; at the start all
    are called before `start` returns, `on_local` last.
    """

    def __init__(
        self,
        settings: FibSettings,
        learn: LearnSettings,
        on_local: Callable[[list[LocalChange]], None],
        on_addresses: Callable[[frozenset[bytes]], None] | None = None,
        on_devices: Callable[[Mapping[str, int]], None] | None = None,
        monitor_buffer: int = MONITOR_BUFFER,
    ) -> None:
        self.settings = settings
        self.fib = FibTable(settings)
        self.learner = Learner(learn, settings.protocol)
        self.lost_events = 0
        """How often the kernel dropped events for want of room."""
        self.dumps = 0
        """Full dumps since the start."""
        self.last_dump_time = 0.0
        """Seconds that the last full dump took."""
        self._on_local = on_local
        self._on_addresses = on_addresses
        self._on_devices = on_devices
        self._monitor_buffer = monitor_buffer
        self._addresses: frozenset[bytes] | None = None
        self._devices: dict[str, int] | None = None
        self._parser = nl.RouteParser()
        self._checks: dict[int, float] = {}
        """Interface (0 = everything) -> when its routes are to be dumped and compared."""
        self._last_full = -inf
        self._paused = True
        """Nothing is written until a dump has shown what is there."""
        self._leftovers: list[FibSettings] = []
        self._defect_limit = RateLimit(5, 0.2)
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = inf
        self._continuing = False
        self._delivering = False
        self._closed = False

    # ------------------------------------------------------------ lifecycle

    async def start(self) -> None:
        """First dump: what is there is adopted and told. Raises KernelError."""
        self._loop = asyncio.get_running_loop()
        self._netlink = Netlink()
        if self.settings.enabled and not self._netlink.may_write():
            self._netlink.close()
            raise KernelError(
                "no permission to change kernel routes: run as root or with CAP_NET_ADMIN, or start with --no-kernel"
            )
        self._monitor = Monitor(self._netlink.port, self._on_message, self._on_lost, self._monitor_buffer)
        self._wake = asyncio.Event()
        await self._dump(0)
        self._paused = False
        self._listen()
        self._checker = self._loop.create_task(self._check())
        self._want_check(0, self.settings.resync_time)
        self._deliver()
        self._flush()

    def close(self) -> None:
        """Stop. All routes stay."""
        if self._closed or not hasattr(self, "_checker"):
            return
        self._closed = True
        self._loop.remove_reader(self._monitor.fileno())
        self._checker.cancel()
        if self._timer:
            self._timer.cancel()
        self._monitor.close()
        self._netlink.close()

    def program(self, family: Family, routes: Mapping[bytes, FibRoute | None]) -> None:
        """Have these routes in the kernel (None: no longer)."""
        if not self.settings.enabled:
            return
        harmless = self.fib.want(family, routes, time.monotonic())
        if not self._paused and not self._continuing:
            if not harmless:
                self._drain()
            self._flush()

    def release(self) -> None:
        """The restart phase is over: routes that nobody wants may go."""
        if count := self.fib.release(time.monotonic()):
            _log.warning("the restart phase is over: %d kernel routes that nothing asks for any more go", count)
        self._flush()

    def reconfigure(self, settings: FibSettings, learn: LearnSettings) -> None:
        """New settings. Under another table or protocol all routes are written there before the old ones go."""
        old, self.settings = self.settings, settings
        moved = (old.table, old.protocol, old.nexthop_id_base) != (
            settings.table,
            settings.protocol,
            settings.nexthop_id_base,
        )
        relearn = learn.table != self.learner.settings.table or old.protocol != settings.protocol
        self.learner.reconfigure(learn, settings.protocol)
        if moved:
            table = FibTable(settings)
            table.objects = settings.nexthop_objects
            table.take_over(self.fib)
            self.fib = table
            if old.enabled:
                self._leftovers.append(old)
        else:
            self.fib.objects = settings.nexthop_objects
        if moved or (settings.enabled and not old.enabled):
            self._paused = True
        if moved or relearn or settings.enabled != old.enabled:
            self._want_check(0, 0.0)
        self._deliver_soon()

    def interface_name(self, ifindex: int) -> str:
        """Name of an interface; its number where it is unknown."""
        return self.learner.interface_name(ifindex)

    def local_under(self, learn: LearnSettings) -> list[LocalChange]:
        """What other settings would change in the routes that addresses of interfaces give."""
        return self.learner.under(learn)

    def why_not_local(self, family: Family, key: bytes) -> str:
        """Why the host has no local route to exactly this prefix, where something of it is there; else ""."""
        afi = nl.AF_INET if family == IPV4_UNICAST else nl.AF_INET6
        try:
            found = self._netlink.route_at(afi, key, self._parser)
        except (NetlinkLost, OSError):
            found = None
        return self.learner.why_not(afi, key, found)

    # --------------------------------------------------------------- writing

    def _flush(self) -> None:
        """Write what is to be written, for a slice of time."""
        fib = self.fib
        if self._closed or self._paused or not self.settings.enabled:
            return
        end = time.monotonic() + _SLICE
        while True:
            now = time.monotonic()
            if now > end:
                self._continue_soon()
                break
            ops = fib.take(BATCH, now)
            if not ops:
                break
            try:
                errors = self._netlink.submit(ops)
            except (NetlinkLost, OSError) as error:
                _log.warning("answers of the kernel were lost (%s): all routes are read again", error)
                fib.on_lost(ops, now)
                self._paused = True
                break
            fib.on_results(ops, errors, now)
            if not fib.busy():
                break
        if fib.suspect:
            fib.suspect = False
            self._want_full()
        if fib.news:
            self._tell_refused()
        self._arm()

    def _continue_soon(self) -> None:
        if not self._continuing:
            self._continuing = True
            self._loop.call_soon(self._continue)

    def _continue(self) -> None:
        self._continuing = False
        if not self._closed:
            self._drain()
            self._flush()

    def _arm(self) -> None:
        """One timer for what the table wants to do later."""
        at = inf if self._paused or self._continuing else self.fib.deadline()
        if at == self._timer_at and self._timer:
            return
        if self._timer:
            self._timer.cancel()
            self._timer = None
        self._timer_at = at
        if at < inf:
            self._timer = self._loop.call_later(max(0.0, at - time.monotonic()), self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        if not self._closed:
            self._drain()
            self._flush()

    def _tell_refused(self) -> None:
        afi, key, failure = self.fib.news[0]
        count = len(self.fib.news)
        self.fib.news.clear()
        prefix = format_prefix(_FAMILIES[afi], key)
        cause = failure.text or errno.errorcode.get(failure.errno, str(failure.errno))
        more = f" (and {count - 1} more)" if count > 1 else ""
        _log.warning("the kernel refused %s%s: %s; it is asked again", prefix, more, cause)

    # --------------------------------------------------------------- hearing

    def _listen(self) -> None:
        """Have the loop call when there is something to hear. Anew after events were lost: the kernel reports that as
        an error of the socket, and uvloop looks no more at a socket that had one."""
        if not self._closed:
            self._loop.remove_reader(self._monitor.fileno())
            self._loop.add_reader(self._monitor.fileno(), self._readable)

    def _readable(self) -> None:
        self._monitor.read()
        self._deliver()
        if not self._continuing:
            self._flush()

    def _drain(self) -> None:
        """Hear what has happened so far; what the core should know is told from the loop, not from within its call."""
        for _ in range(16):
            if not self._monitor.read():
                break
        self._deliver_soon()

    def _deliver_soon(self) -> None:
        if not self._delivering and self.learner.changed:
            self._delivering = True
            self._loop.call_soon(self._deliver)

    def _deliver(self) -> None:
        self._delivering = False
        if self._closed:
            return
        addresses = self.learner.addresses
        if addresses is not self._addresses:
            self._addresses = addresses
            if self._on_addresses:
                self._on_addresses(addresses)
        devices = self.learner.devices
        if devices is not self._devices:
            self._devices = devices
            if self._on_devices:
                self._on_devices(devices)
        changes = self.learner.take()
        if changes:
            self._on_local(changes)

    def _on_lost(self) -> None:
        self.lost_events += 1
        self.fib.on_events_lost()
        _log.warning("the kernel dropped events (receive buffer %d octets): reading all again", self._monitor.buffer)
        self._loop.call_soon(self._listen)
        self._want_full()

    def _on_message(self, kind: int, flags: int, data: bytes, start: int, end: int) -> None:
        now = time.monotonic()
        try:
            if kind in (nl.NEWROUTE, nl.DELROUTE):
                parsed = self._parser.parse(data, start, end)
                if parsed:
                    self._on_route(kind == nl.NEWROUTE, flags, *parsed, now)
            elif kind in (nl.NEWNEXTHOP, nl.DELNEXTHOP):
                item = nl.parse_nexthop(data, start, end)
                if item:
                    self.learner.on_nexthop(kind == nl.NEWNEXTHOP, item)
                    self.fib.on_nexthop_event(kind == nl.NEWNEXTHOP, item, now)
                    self._look_again()
            elif kind in (nl.NEWADDR, nl.DELADDR):
                address = nl.parse_address(data, start, end)
                if address:
                    self._on_address(kind == nl.NEWADDR, address, now)
            elif kind in (nl.NEWLINK, nl.DELLINK):
                link = nl.parse_link(data, start, end)
                if link:
                    self._on_link(kind == nl.NEWLINK, link, now)
        except Exception:  # a defect, but what comes behind it is to be heard
            if self._defect_limit.allow(now):
                _log.exception("a message of the kernel failed: reading all again%s", self._defect_limit.reset())
            self._want_full()

    def _on_route(self, new: bool, flags: int, afi: int, key: bytes, shape: nl.RouteShape, now: float) -> None:
        if self.settings.enabled:
            self.fib.on_route_event(new, flags, afi, key, shape, now)
            if new and shape.hops and (shape.protocol == 2 or (not shape.hops[0][0] and self.fib.refusing)):
                # A subnet, or what stands for one: gateways in it can be reached now.
                self.fib.on_interface_ready(shape.hops[0][1], now)
        self.learner.on_route_event(new, flags, afi, key, shape)

    def _on_address(self, new: bool, address: nl.Address, now: float) -> None:
        self.learner.on_address(new, address)
        if new:
            self.fib.on_interface_ready(address.ifindex, now)
        else:
            self._want_check(address.ifindex, _SETTLE)

    def _on_link(self, new: bool, link: nl.Link, now: float) -> None:
        if not new:
            self.learner.on_link_gone(link.ifindex)
            self._want_check(link.ifindex, 0.0)
            return
        old = self.learner.on_link(link)
        if old is None or link.up > old.up or link.running > old.running:
            self.fib.on_interface_ready(link.ifindex, now)
        if old is not None and (link.up < old.up or link.running < old.running):
            self._want_check(link.ifindex, _SETTLE)
            self._loop.call_later(_SETTLE_AGAIN, self._want_check, link.ifindex, 0.0)

    # ----------------------------------------------------------------- dumps

    def _want_check(self, ifindex: int, delay: float) -> None:
        at = time.monotonic() + delay
        if at < self._checks.get(ifindex, inf):
            self._checks[ifindex] = at
            self._wake.set()

    def _look_again(self) -> None:
        """A full dump, where what happened to nexthop objects of others leaves their routes in doubt."""
        if self.learner.suspect:
            self.learner.suspect = False
            self._want_full()

    def _want_full(self) -> None:
        """A full dump soon, but never dump after dump."""
        pause = max(0.1, 3 * self.last_dump_time)
        self._want_check(0, max(_SETTLE, self._last_full + pause - time.monotonic()))

    async def _check(self) -> None:
        """The task that dumps and compares, one thing at a time."""
        while True:
            self._wake.clear()
            ifindex, at = min(self._checks.items(), key=lambda item: item[1])
            delay = at - time.monotonic()
            if delay > 0:
                try:
                    await asyncio.wait_for(self._wake.wait(), delay)
                except TimeoutError:
                    pass
                continue
            self._checks.pop(ifindex)
            await self._check_one(ifindex)

    async def _check_one(self, ifindex: int) -> None:
        try:
            self._drain()
            if not await self._dump(ifindex):
                self._want_check(ifindex, max(0.2, 3 * self.last_dump_time))
            if not ifindex:
                self._paused = False
            self._deliver()
            self._flush()
            self._sweep()
        except (NetlinkLost, OSError) as error:
            _log.warning("reading the kernel's routes failed (%s): trying again in a second", error)
            self._want_check(ifindex, 1.0)
        except Exception:  # a defect, but the net under all events must not be gone for good
            _log.exception("comparing the kernel's routes failed")
            self._want_check(ifindex, 10.0)
        finally:
            if not ifindex:
                self._want_check(0, self.settings.resync_time)

    async def _dump(self, ifindex: int) -> bool:
        """Dump and compare everything, or the routes of one interface. Whether the dump was undisturbed."""
        started = time.monotonic()
        objects = self._netlink.nexthops()
        if objects is None:
            self.fib.objects = False
        if not ifindex:
            self.learner.dump_links(self._netlink.links())
            self.learner.dump_addresses(self._netlink.addresses())
        fib, enabled = self.fib, self.settings.enabled
        if enabled:
            fib.dump_nexthops(objects or (), started)
        self.learner.dump_nexthops(objects or ())
        if ifindex:
            self._look_again()
        self.learner.suspect = False  # a full dump looks at all routes anyway
        complete = await self._dump_routes(ifindex)
        if not ifindex:
            self.dumps += 1
            self._last_full = time.monotonic()
            self.last_dump_time = self._last_full - started
        return complete

    async def _dump_routes(self, ifindex: int) -> bool:
        fib, enabled, learner, parse = self.fib, self.settings.enabled, self.learner, self._parser.parse
        tables = {learner.settings.table} | ({fib.table} if enabled else set())
        interrupted: list[bool] = []
        fib.begin_dump(ifindex)
        learner.begin_dump(ifindex)
        complete = False
        try:
            pause = time.monotonic() + _SLICE / 4
            for afi in (nl.AF_INET, nl.AF_INET6):
                for table in tables:
                    for data, places in self._netlink.routes(afi, table, 0, ifindex, interrupted):
                        for start, end in places:
                            parsed = parse(data, start, end)
                            if parsed:
                                if enabled:
                                    fib.dump_route(*parsed)
                                learner.dump_route(*parsed)
                        if time.monotonic() > pause:
                            await asyncio.sleep(0)
                            pause = time.monotonic() + _SLICE / 4
            complete = not interrupted and self.fib is fib
        finally:
            if not self._closed:
                self._drain()
                fib.end_dump(complete and enabled, time.monotonic())
                learner.end_dump(complete)
        return complete

    def _sweep(self) -> None:
        """After a change of table or protocol: once all is written under the new one, the old routes go."""
        if self._leftovers and not self._paused and not any(side.pending for side in self.fib.sides.values()):
            for settings in self._leftovers:
                if (settings.table, settings.protocol) != (self.fib.table, self.fib.protocol):
                    _clean(self._netlink, settings)
            self._leftovers.clear()


def clean(settings: FibSettings) -> dict[str, int]:
    """Remove all routes and nexthop objects of ours; how many went, by "ipv4", "ipv6", "nexthops", and "failed".

    Ours are the routes of the table under our protocol, and the objects of our id range and protocol. Raises
    KernelError.
    """
    netlink = Netlink()
    try:
        if not netlink.may_write():
            raise KernelError("no permission to change kernel routes: run as root or with CAP_NET_ADMIN")
        return _clean(netlink, settings)
    finally:
        netlink.close()


def _clean(netlink: Netlink, settings: FibSettings) -> dict[str, int]:
    counts = {"ipv4": 0, "ipv6": 0, "nexthops": 0, "failed": 0}
    table, parser = FibTable(settings), nl.RouteParser()
    objects = netlink.nexthops() or []
    table.dump_nexthops(objects, 0.0)
    table.begin_dump()
    for afi in (nl.AF_INET, nl.AF_INET6):
        for data, places in netlink.routes(afi, settings.table, settings.protocol):
            for start, end in places:
                parsed = parser.parse(data, start, end)
                if parsed:
                    table.dump_route(*parsed)
    table.end_dump(True, 0.0)
    table.release(0.0)
    while ops := table.take(BATCH, 0.0):
        errors = netlink.submit(ops)
        table.on_results(ops, errors, 0.0)
        for index, (_verb, _key, target) in enumerate(ops):
            counts["failed" if index in errors else "ipv4" if target.afi == nl.AF_INET else "ipv6"] += 1
    for item in sorted((item for item in objects if table.nexthops.ours(item)), key=lambda item: -len(item.group)):
        error, _text = netlink.request(nl.DELNEXTHOP, 0, bytes(8) + nl.number(nl.NHA_ID, item.id))
        counts["failed" if error and error != errno.ENOENT else "nexthops"] += 1
    return counts
