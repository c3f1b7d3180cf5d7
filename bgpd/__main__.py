"""The daemon `bgpd`: composition root, the only file that sees configuration, core, kernel, sockets and API together.

Order of a start (design §4): health and api, which say what is waited for; settings from a complete snapshot; listening
addresses reserved, so that a second daemon ends before it touches anything; first kernel dump; local paths into the
Speaker; only then connect and accept.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import random
import signal
import socket
import sys
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Any

from attrs import evolve

from bgpd.api.schema import Datastore
from bgpd.api.schema import Problem as ProblemShown
from bgpd.api.state import DaemonState
from bgpd.options import parse_arguments, version
from bgpd.program import StartError, run
from bgpd.reporting import make_reporter
from bgpd.routes import LocalChange
from bgpd.settings import SpeakerSettings
from bgpd.shell.boot import current_boot, record_boot, recorded_boot
from bgpd.shell.collector import Collector
from bgpd.shell.listener import Listener, ListenError
from bgpd.shell.logs import LogWriter
from bgpd.shell.notify import notify, watchdog_interval
from bgpd.shell.runner import Runner
from bgpd.speaker import Speaker
from config.advice import advice
from config.compile import Compiled, compile
from config.datastore import Datastore as ResourceStore
from config.datastore import DatastoreError, open_datastore
from config.environment import ignored, log_severity, nodename_file
from config.memory import Memory
from config.origin import origin
from config.problems import Problem
from config.reporter import Reporter
from config.resources import LogSeverity
from config.snapshot import Snapshot
from config.workloads import WorkloadFolder, status_folder

if TYPE_CHECKING:
    from bgpd.shell.kernel import Kernel

_log = logging.getLogger("bgpd")
_LEVEL = {
    LogSeverity.TRACE: "debug",
    LogSeverity.DEBUG: "debug",
    LogSeverity.WARNING: "warning",
    LogSeverity.ERROR: "error",
    LogSeverity.FATAL: "error",
}


_ANSWERS = {
    signal.SIGHUP: "the datastore is watched, nothing to do",
    signal.SIGUSR1: "bgpctl and birdcl show what BIRD would write here",
    signal.SIGUSR2: "has no meaning here",
}
"""Signals that would end the process if nobody took them, which no node's traffic should hang on."""
STOP_WAIT = 3.0
"""Seconds that a stop waits for what runs in the background."""


def main(arguments: list[str] | None = None) -> int:
    """Run the daemon; the exit status."""
    return run("bgpd", Daemon, parse_arguments(arguments))


class Daemon:
    """One node speaker, from start to stop.

    The standalone reflector differs in where settings come from: `open_datastore` and `compile_snapshot`.
    """

    def __init__(self, options: argparse.Namespace, writer: LogWriter) -> None:
        self._options = options
        self._writer = writer
        self._stop = asyncio.Event()
        self._changed = asyncio.Event()
        self._datastore = self.open_datastore()
        self._memory = Memory()
        self._workloads: WorkloadFolder | None = None
        self._snapshot: Snapshot | None = None
        self._compiled: Compiled | None = None
        self._settings: SpeakerSettings | None = None
        self._forwarding_kept = True
        self._runner: Runner | None = None
        self._kernel: Kernel | None = None
        self._mark: socket.socket | None = None
        """Says that we write the kernel's routes; the end of the process takes it away."""
        self._early: list[LocalChange] = []
        self._addresses: frozenset[bytes] = frozenset()
        self._devices: Mapping[str, int] = {}
        self._applied_at: str | None = None
        self._told: frozenset[str] = frozenset()
        self._state = DaemonState(options.node, version())
        self._state.kernel_wanted = not options.no_kernel
        self._state.datastore = self._datastore_view
        self._state.propose = self.propose
        self._state.nodename_file = nodename_file(os.environ)
        self._state.advice = advice
        self._state.origin = lambda family, key: origin(self._datastore.snapshot, options.node, family, key)
        self._collector = Collector()
        self._reporter: Reporter | None = None
        self._background: list[asyncio.Task[Any]] = []

    def open_datastore(self) -> ResourceStore:
        """Where the resources are. Raises StartError."""
        return _datastore(self._options)

    def compile_snapshot(self, snapshot: Snapshot, memory: Memory | None = None) -> Compiled:
        """What resources mean for this speaker. Raises StartError for what can only be wrong at the start."""
        if self._workloads is None:
            self._workloads = WorkloadFolder(status_folder(os.environ), self._on_workloads)
            self._background.append(asyncio.create_task(self._workloads.run()))
        workloads = self._workloads
        compiled = compile(snapshot, self._options.node, os.environ, memory, workloads.workloads)
        return evolve(compiled, problems=(*compiled.problems, *workloads.problems)) if workloads.problems else compiled

    def _on_workloads(self) -> None:
        """Felix's view of the pods has changed."""
        if self._snapshot is not None:
            self._on_snapshot(self._snapshot)

    async def run(self) -> None:
        """Start, run until a signal comes, stop. Raises StartError."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        for number, answer in _ANSWERS.items():
            loop.add_signal_handler(number, _log.info, "%s: %s", number.name, answer)
        closers: list[Callable[[], Any]] = []
        for reason, names in ignored(os.environ).items():
            _log.info("without effect here: %s (%s)", ", ".join(names), reason)
        try:
            # Before all else: while the datastore is waited for, they say so.
            closers.append(await self._start_api())
            if (compiled := await self._first_settings()) is None:
                return
            listener = Listener(loop)
            closers.append(listener.close)
            try:
                listener.bind(compiled)
            except ListenError as error:
                raise StartError(str(error)) from None
            closers.append(await self._start_bird_sockets())
            await self._start_kernel(compiled)
            await self._start_speaker(listener)
            await self._stop.wait()
            await self._shut_down()
        finally:
            for task in self._background:
                task.cancel()
            for close in reversed(closers):
                if asyncio.iscoroutine(result := close()):
                    await result
            if self._kernel is not None:
                self._kernel.close()
            if self._background:
                # The datastore brings its copy up to date before it goes.
                await asyncio.wait(self._background, timeout=STOP_WAIT)

    # Start.

    async def _first_settings(self) -> SpeakerSettings | None:
        """Wait for resources that say what this node is; None: stopped before."""
        watch = asyncio.create_task(self._datastore.run(self._on_snapshot))
        watch.add_done_callback(self._watch_ended)
        self._background.append(watch)
        stopped = asyncio.create_task(self._stop.wait())
        self._background.append(stopped)
        waiting = False
        while self._settings is None:
            changed = asyncio.create_task(self._changed.wait())
            await asyncio.wait({changed, stopped, watch}, return_when=asyncio.FIRST_COMPLETED)
            changed.cancel()
            if self._stop.is_set():
                return None
            if watch.done():
                raise StartError(str(watch.exception() or "the datastore has ended"))
            self._changed.clear()
            if self._settings is None and not waiting:
                waiting = True
                _log.warning("waiting: the datastore does not say enough about node %s yet", self._options.node)
                notify(f"STATUS=waiting for the resources of node {self._options.node}")
        return self._settings

    async def _start_kernel(self, settings: SpeakerSettings) -> None:
        """First dump. The F bit is the truth afterwards: same boot, or our routes are still there."""
        if self._options.no_kernel:
            # A speaker that forwards nothing cannot have lost any forwarding state (design §4).
            return
        from bgpd.shell.alone import AlreadyRunning, claim
        from bgpd.shell.kernel import Kernel, KernelError

        try:
            self._mark = claim(settings.fib.table, settings.fib.protocol) if settings.fib.enabled else None
        except AlreadyRunning as error:
            raise StartError(str(error)) from None
        self._kernel = Kernel(settings.fib, settings.learn, self._on_local, self._on_addresses, self._on_devices)
        try:
            await self._kernel.start()
        except KernelError as error:
            raise StartError(str(error)) from None
        self._state.kernel = self._kernel
        boot, recorded = current_boot(), recorded_boot(self._options.state_dir, self._options.node)
        own = self._kernel.fib.counters.adopted
        self._forwarding_kept = own > 0 or (bool(boot) and boot == recorded)
        if boot and not record_boot(self._options.state_dir, self._options.node, boot):
            _log.info(
                "%s cannot be written: after a restart, only own kernel routes will show that forwarding was kept",
                self._options.state_dir,
            )
        _log.info(
            "kernel read: %d own routes found, forwarding was%s kept", own, "" if self._forwarding_kept else " not"
        )

    async def _start_speaker(self, listener: Listener) -> None:
        assert self._compiled is not None and self._settings is not None
        settings = self._settings = evolve(self._settings, forwarding_kept=self._forwarding_kept)
        speaker = Speaker(settings, monotonic(), partial(random.uniform, 0.75, 1.0))
        runner = self._runner = Runner(speaker, self._kernel, listener)
        runner.use(settings)
        runner.on_local_addresses(self._addresses)
        runner.on_devices(self._devices)
        runner.on_local(self._early)
        self._early = []
        try:
            runner.start()
        except ListenError as error:
            raise StartError(str(error)) from None
        self._state.speaker = speaker
        self._state.alive_at = runner.alive_at
        self._state.loop_stall = lambda: runner.longest_turn
        self._state.refused = listener.refused
        self._state.defects = lambda: runner.defects
        self._collector.start()
        self._announce(settings, listener)
        self._report()
        if (interval := watchdog_interval()) is not None:
            self._background.append(asyncio.create_task(_watchdog(interval)))

    def _report(self) -> None:
        """CalicoNodeStatus is the node speaker's: a standalone reflector is no node of Calico's."""
        if not getattr(self._options, "no_node_status", True):
            reporter = make_reporter(self._state, self._options.datastore, self._options.state_dir)
            reporter.on_snapshot(self._datastore.snapshot)
            self._reporter = reporter
            self._background.append(asyncio.create_task(reporter.run()))

    def _announce(self, settings: SpeakerSettings, listener: Listener) -> None:
        where = ",".join(listener.addresses) or "-"
        text = f"node={self._options.node} as={settings.asn} router-id={settings.router_id} listen={where}"
        try:
            print(f"ready {text} peers={len(settings.peers)}", flush=True)
        except OSError:
            pass  # nobody reads our standard output
        notify("READY=1", f"STATUS={len(settings.peers)} peers configured")
        _log.info("ready: %s, %d peers", text, len(settings.peers))

    async def _start_api(self) -> Callable[[], Any]:
        """Serve health, metrics and api; what closes them."""
        from bgpd.api.server import ApiServer, ServeError

        options = self._options
        server = ApiServer(self._state)
        try:
            await server.start(options.socket, options.health, options.api, options.api_token_file)
        except ServeError as error:
            raise StartError(str(error)) from None
        return server.close

    async def _start_bird_sockets(self) -> Callable[[], Any]:
        """Serve what Calico's tools ask BIRD; what closes it."""
        from bgpd.api.bird.server import BirdSockets, ServeError, start_sockets

        wanted = getattr(self._options, "bird_sockets", "none")
        sockets = BirdSockets(self._state)
        try:
            await start_sockets(sockets, wanted, default=self._options.socket is None)
        except ServeError as error:
            raise StartError(str(error)) from None
        return sockets.close

    # Changes.

    def _on_snapshot(self, snapshot: Snapshot) -> None:
        """Resources have changed."""
        self._snapshot = snapshot
        if self._reporter is not None:
            self._reporter.on_snapshot(snapshot)
        try:
            compiled = self._compiled = self.compile_snapshot(snapshot, self._memory)
        except StartError as error:
            if self._settings is None or self._compiled is None:
                raise
            # No start, at the start; later a bad object as any other: refused and shown, and the last good one stays.
            found = Problem(object=f"Node/{self._options.node}", field="spec.bgp", text=str(error))
            others = (problem for problem in self._compiled.problems if problem != found)
            self._compiled = evolve(self._compiled, problems=(*others, found))
            self._tell_problems(self._compiled)
            return
        except Exception:
            # A defect, and no reason to drop what is in force.
            _log.exception("internal error while compiling the resources; the last good settings stay")
            return
        self._tell_problems(compiled)
        if self._options.log_level is None:
            severity = log_severity(os.environ) or compiled.log_severity
            self._writer.set_level(_LEVEL.get(severity, "info"))
        if compiled.settings is not None:
            self._apply(self._override(compiled.settings))
            self._applied_at = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        self._changed.set()

    def propose(self, body: bytes) -> tuple[dict[str, Any], SpeakerSettings | None]:
        """What proposed resources would mean; see bgpd.api.plan. For a thread: it looks at immutable values alone."""
        from config.plan import node_plan, propose

        before, settings, snapshot = self._compiled, self._settings, self._datastore.snapshot
        if before is None or settings is None:
            raise ValueError("the daemon has no configuration yet: it waits for its datastore")
        try:
            value = json.loads(body)
            objects, delete = value.get("objects", []), value.get("delete", [])
            if not (isinstance(objects, list) and isinstance(delete, list)):
                raise TypeError
        except (ValueError, TypeError, AttributeError, RecursionError):
            raise ValueError('a proposal is JSON: {"objects": [...], "delete": [...], "whole": false}') from None
        proposal = propose(objects, delete, whole=value.get("whole") is True)
        try:
            after = self.compile_snapshot(proposal.apply(snapshot))
        except StartError as error:
            raise ValueError(str(error)) from None
        new = self._override(after.settings) if after.settings is not None else None
        plan = node_plan(self._options.node, before, after, settings, new)
        return plan | {"running": True, "objects": proposal.objects(snapshot)}, new

    def _override(self, settings: SpeakerSettings) -> SpeakerSettings:
        """What the command line says stands above the resources."""
        options = self._options
        if options.listen:
            settings = evolve(settings, listen=tuple(dict.fromkeys(options.listen)))
        if options.no_kernel:
            settings = evolve(settings, fib=evolve(settings.fib, enabled=False), resolve_next_hops=False)
        if settings.forwarding_kept is not self._forwarding_kept:
            settings = evolve(settings, forwarding_kept=self._forwarding_kept)
        return settings

    def _apply(self, settings: SpeakerSettings) -> None:
        if settings == self._settings:
            return
        self._settings = settings
        if self._runner is None:
            return
        self._runner.reconfigure(settings)
        _log.info("configuration applied: %d peers", len(settings.peers))

    def _tell_problems(self, compiled: Compiled) -> None:
        """One line per problem, when it comes and when it goes."""
        current = {str(problem): problem for problem in compiled.problems}
        for text, problem in current.items():
            if text not in self._told:
                _log.warning("%s: %s", "refused" if problem.refused else "notice", text)
        for text in self._told - current.keys():
            _log.info("mended: %s", text)
        self._told = frozenset(current)

    def _on_local(self, changes: Iterable[LocalChange]) -> None:
        if self._runner is None:
            self._early += changes
        else:
            self._runner.on_local(changes)

    def _on_addresses(self, addresses: frozenset[bytes]) -> None:
        self._addresses = addresses
        if self._runner is not None:
            self._runner.on_local_addresses(addresses)

    def _on_devices(self, devices: Mapping[str, int]) -> None:
        self._devices = devices
        if self._runner is not None:
            self._runner.on_devices(devices)

    def _watch_ended(self, task: asyncio.Task[Any]) -> None:
        """The sessions go on with the last good settings."""
        if not task.cancelled() and (error := task.exception()) is not None and self._runner is not None:
            _log.error("the datastore is watched no longer", exc_info=error)

    def _datastore_view(self) -> Datastore:
        compiled, status = self._compiled, self._datastore.status()
        return {
            "url": self._options.datastore,
            "connected": status.connected,
            "text": status.text,
            "age_seconds": status.age,
            "applied_at": self._applied_at,
            "problems": [_shown(problem) for problem in compiled.problems] if compiled is not None else [],
        }

    # Stop.

    async def _shut_down(self) -> None:
        """Without --cease-on-exit TCP ends without a NOTIFICATION and kernel routes stay: a restart loses no packet."""
        assert self._runner is not None
        notify("STOPPING=1")
        keepers = "peers keep" if self._options.no_kernel else "peers and kernel keep"
        how = "peers are told" if self._options.cease_on_exit else f"{keepers} the routes for a restart"
        _log.info("stopping: %s", how)
        await self._runner.stop(self._options.cease_on_exit)


def _shown(problem: Problem) -> ProblemShown:
    return {
        "object": problem.object,
        "file": f"{problem.file}:{problem.line}" if problem.line else problem.file,
        "field": problem.field,
        "value": problem.value,
        "allowed": problem.allowed,
        "text": problem.text,
    }


def _datastore(options: argparse.Namespace) -> ResourceStore:
    url = options.datastore
    try:
        return open_datastore(url, node=options.node, state_dir=options.state_dir, env=os.environ)
    except DatastoreError as error:
        raise StartError(f"--datastore {url}: {error}") from None


async def _watchdog(interval: float) -> None:
    while True:
        notify("WATCHDOG=1")
        await asyncio.sleep(interval)


if __name__ == "__main__":
    sys.exit(main())
