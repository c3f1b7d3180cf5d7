"""Felix's endpoint-status folder: the pods of this node that a BGPPeer selects (calico-bgp.md 6.7).

Felix writes one JSON file for each local workload endpoint. The folder is followed by inotify and looked through every
30 s besides; it may appear late. A file that cannot be read keeps its last good version, and is told.
"""

from __future__ import annotations

import asyncio
import logging
import os
import stat
from collections.abc import Callable, Mapping

from config.documents import DocumentError, load_json
from config.inotify import Inotify
from config.parse_kubernetes import workload
from config.problems import Problem, ResourceError
from config.resources import Workload

__all__ = ["WorkloadFolder", "status_folder"]

RESCAN = 30.0
DEBOUNCE = 0.05
LARGEST = 1 << 20
"""Octets of a file; Felix's have some hundred."""

_log = logging.getLogger("bgpd.workloads")
_Signature = tuple[int, int, int]


def status_folder(env: Mapping[str, str]) -> str:
    """Where Felix reports (CALICO_ENDPOINT_STATUS_PATH_PREFIX, or its default)."""
    return os.path.join(env.get("CALICO_ENDPOINT_STATUS_PATH_PREFIX", "") or "/var/run/calico", "endpoint-status")


class WorkloadFolder:
    """Which workloads the folder names now. `changed` is called after each change, once `run` is under way."""

    def __init__(self, directory: str, changed: Callable[[], None]) -> None:
        self.directory = directory
        self.workloads: tuple[Workload, ...] = ()
        self.problems: tuple[Problem, ...] = ()
        self._changed = changed
        self._seen: dict[str, _Signature] = {}
        self._good: dict[str, Workload] = {}
        self._bad: dict[str, tuple[Problem, ...]] = {}
        self._wake = asyncio.Event()
        self.scan()

    async def run(self) -> None:
        """Follow the folder until cancelled."""
        loop = asyncio.get_running_loop()
        try:
            watcher = Inotify()
        except OSError as error:
            _log.warning("changes in %s are seen every %g s only: %s", self.directory, RESCAN, error)
            while True:
                await asyncio.sleep(RESCAN)
                self._look()
        loop.add_reader(watcher.fileno(), self._on_events, watcher)
        try:
            while True:
                self._watch(watcher)
                # What came before there was a watch is seen by this.
                self._look()
                try:
                    await asyncio.wait_for(self._wake.wait(), RESCAN)
                    await asyncio.sleep(DEBOUNCE)
                except TimeoutError:
                    pass
                self._wake.clear()
        finally:
            loop.remove_reader(watcher.fileno())
            watcher.close()

    def _on_events(self, watcher: Inotify) -> None:
        for _ in watcher.read():
            self._wake.set()

    def _watch(self, watcher: Inotify) -> None:
        """The folder, or while it is not there, what it will appear in."""
        for directory, names_only in ((self.directory, False), (os.path.dirname(self.directory), True)):
            try:
                watcher.watch(directory, names_only=names_only)
            except OSError:
                continue
            watcher.forget_others({directory})
            return

    def _look(self) -> None:
        if self.scan():
            self._changed()

    def scan(self) -> bool:
        """Look through the folder; whether anything is another than before."""
        found: dict[str, _Signature] = {}
        try:
            with os.scandir(self.directory) as entries:
                for entry in entries:
                    try:
                        status = entry.stat()
                    except FileNotFoundError:
                        continue  # removed since it was listed
                    if stat.S_ISREG(status.st_mode) and not entry.name.startswith("."):
                        found[entry.name] = (status.st_mtime_ns, status.st_size, status.st_ino)
        except FileNotFoundError:
            pass
        except OSError as error:
            _log.warning("%s cannot be read (%s); the workloads that are known stay", self.directory, error.strerror)
            return False
        for name in self._seen.keys() - found.keys():
            self._good.pop(name, None)
            self._bad.pop(name, None)
        for name, signature in found.items():
            if self._seen.get(name) != signature:
                self._read(name, signature[1])
        self._seen = found
        before = self.workloads, self.problems
        self.workloads = tuple(self._good[name] for name in sorted(self._good))
        self.problems = tuple(problem for name in sorted(self._bad) for problem in self._bad[name])
        return before != (self.workloads, self.problems)

    def _read(self, name: str, size: int) -> None:
        path = os.path.join(self.directory, name)
        try:
            if size > LARGEST:
                raise ValueError(f"is larger than {LARGEST >> 20} MiB")
            with open(path, "rb") as file:
                value = load_json(file.read(LARGEST).decode())
            self._good[name] = workload(name, value)
            self._bad.pop(name, None)
        except ResourceError as error:
            self._bad[name] = tuple(problem.at(path) for problem in error.problems)
        except (DocumentError, OSError, ValueError) as error:
            text = f"cannot be read: {error}; the last good version stays"
            self._bad[name] = (Problem(object=f"Workload/{name}", text=text, file=path, allowed="Felix's JSON"),)
