"""Fills the `status` of the CalicoNodeStatus objects of one node, each in its own period and at once when it changes.

An object is read before it is written; where what it says is still true, nothing is written. A write that meets
somebody else's reads again; three attempts of ten seconds, then the next period.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import tempfile
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from config.nodestatus import Facts, same, status_of, wanted
from config.resources import CalicoNodeStatus, StatusClass
from config.snapshot import Snapshot
from config.source import DatastoreError

__all__ = ["Reporter", "StatusFolder", "StatusStore"]

KIND = "CalicoNodeStatus"
ATTEMPTS = 3
ATTEMPT_TIME = 10.0

_log = logging.getLogger("bgpd.nodestatus")

Collect = Callable[[frozenset[StatusClass]], Awaitable[Facts]]


class StatusStore(Protocol):
    """What of a config.source.Editor is needed here; `update_status` instead of `apply` where the store has it."""

    async def get(self, kind: str, name: str | None = None) -> list[dict[str, Any]]:
        """The object of this name, if there is one."""

    async def apply(self, value: dict[str, Any]) -> str:
        """Write it, if it is still the one that was read. Raises DatastoreError."""

    async def close(self) -> None:
        """Let go of connections."""


class Reporter:
    """One node's reporter. `collect` gives the facts that these classes need."""

    def __init__(self, node: str, store: Callable[[], StatusStore], collect: Collect) -> None:
        self._node = node
        self._open = store
        self._collect = collect
        self._store: StatusStore | None = None
        self._objects: dict[str, CalicoNodeStatus] = {}
        self._due: dict[str, float] = {}
        self._failed: set[str] = set()
        self._woken = asyncio.Event()
        self.written = 0
        """Objects written so far."""

    def on_snapshot(self, snapshot: Snapshot) -> None:
        """Resources have changed: a new or changed object is due at once."""
        objects = wanted(snapshot, self._node)
        if objects == self._objects:
            return
        for name in self._objects.keys() - objects.keys():
            self._due.pop(name, None)
            self._failed.discard(name)
        for name, item in objects.items():
            if self._objects.get(name) != item:
                self._due[name] = 0.0
        self._objects = objects
        self._woken.set()

    async def run(self) -> None:
        """Until cancelled."""
        clock = asyncio.get_running_loop().time
        try:
            while True:
                for name in [name for name, due in self._due.items() if due <= clock()]:
                    item = self._objects[name]
                    self._due[name] = clock() + item.period
                    await self._report(item)
                await self._wait(clock())
        finally:
            if self._store is not None:
                await self._store.close()

    async def _wait(self, now: float) -> None:
        """Until the next object is due, or another is wanted."""
        left = min(self._due.values()) - now if self._due else None
        self._woken.clear()
        if left is not None and left <= 0:
            return
        try:
            async with asyncio.timeout(left):
                await self._woken.wait()
        except TimeoutError:
            pass

    async def _report(self, item: CalicoNodeStatus) -> None:
        reason = ""
        for _ in range(ATTEMPTS):
            try:
                async with asyncio.timeout(ATTEMPT_TIME):
                    await self._write(item)
            except DatastoreError as error:
                reason = str(error)
            except TimeoutError:
                reason = f"no answer within {ATTEMPT_TIME:g} s"
            else:
                self._mended(item.name)
                return
        if item.name not in self._failed:
            self._failed.add(item.name)
            again = f"next attempt in {item.period} s"
            _log.warning("%s/%s: its status cannot be written: %s; %s", KIND, item.name, reason, again)

    def _mended(self, name: str) -> None:
        if name in self._failed:
            self._failed.discard(name)
            _log.info("%s/%s: its status is written again", KIND, name)

    async def _write(self, item: CalicoNodeStatus) -> None:
        store = self._store
        if store is None:
            store = self._store = self._open()
        found = await store.get(KIND, item.name)
        if not found:
            return  # removed meanwhile: the watch is about to say so
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        status = status_of(item.classes, await self._collect(item.classes), now)
        if same(found[0].get("status"), status):
            return
        write = getattr(store, "update_status", store.apply)
        await write({**found[0], "status": status})
        self.written += 1


class StatusFolder:
    """Where the datastore is a folder of the user's own files: those are left alone, and each status goes into a file
    `CalicoNodeStatus-NAME.json` beside the daemon's other state."""

    def __init__(self, directory: str) -> None:
        self._directory = Path(directory)

    async def get(self, kind: str, name: str | None = None) -> list[dict[str, Any]]:
        """What was written last; an object that was never written is there, without a status."""
        empty = {"apiVersion": "projectcalico.org/v3", "kind": kind, "metadata": {"name": name}}
        try:
            value = json.loads(self._path(str(name)).read_text())
        except (OSError, ValueError):
            return [empty]
        return [value if isinstance(value, dict) else empty]

    async def apply(self, value: dict[str, Any]) -> str:
        """Write it at one stroke. Raises DatastoreError."""
        path = self._path(value["metadata"]["name"])
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            descriptor, aside = tempfile.mkstemp(dir=path.parent, prefix=".status-")
            with os.fdopen(descriptor, "w") as file:
                json.dump(value, file, indent=2)
                file.write("\n")
            os.replace(aside, path)
        except OSError as error:
            raise DatastoreError(f"{path} cannot be written: {error.strerror}; see --state-dir") from None
        return "configured"

    async def close(self) -> None:
        """Nothing is held open."""

    def _path(self, name: str) -> Path:
        return self._directory / f"{KIND}-{name.replace('/', '_')}.json"
