"""The file datastore: a folder of Calico YAML, watched and applied live.

inotify says where to look; a look costs one stat per file that may have changed. Changes are gathered for a moment
(`debounce`) so that a rollout of many files is one new snapshot. A full walk every minute is the net under lost events
and file systems without inotify.

What is held back (traffic must not stop because a folder is empty):
- a file that cannot be read, or has documents that cannot, keeps the objects of its last good version;
- a file with nothing in it keeps them too: a file that is being rewritten is empty for a moment;
- a folder that is gone, cannot be read, or holds no object any more, keeps everything and says so, until objects come
  back or the emptiness is confirmed by a file named `.empty` in the folder.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import Callable, Iterable

from attrs import evolve

from config import inotify
from config.folder import SUFFIXES, Folder
from config.inotify import Event, Inotify
from config.problems import Problem
from config.snapshot import Snapshot, StoreChange
from config.source import DatastoreError, Status
from config.wiped import kept

__all__ = ["CONFIRMATION", "DatastoreError", "FileDatastore"]

CONFIRMATION = ".empty"
"""The name of the file that confirms an emptied folder."""

log = logging.getLogger(__name__)


class FileDatastore:
    """A folder of resource files. `load` looks once; `run` looks, then follows changes."""

    def __init__(self, directory: str, *, debounce: float = 0.05, rescan: float = 60.0) -> None:
        """`debounce`: seconds that changes are gathered. `rescan`: seconds between full walks."""
        self.directory = os.path.abspath(directory)
        self.snapshot = Snapshot()
        """What counts. It differs from the folder while the folder is held back."""
        self._seen = Snapshot()
        self._debounce = debounce
        self._rescan = rescan
        self._folder = Folder(self.directory)
        self._inotify: Inotify | None = None
        self._dirty: set[str] = set()
        self._writing: set[str] = set()
        self._walk_due = False
        self._wake = asyncio.Event()
        self._read = False
        self._held_at = 0.0

    def status(self) -> Status:
        """How it is at this moment."""
        if not self._read:
            return Status(False, "not read yet")
        if self.snapshot.complete:
            return Status(True)
        return Status(False, self.snapshot.source_problems[0].text, max(0.0, time.time() - self._held_at))

    def load(self) -> Snapshot:
        """Read the whole folder. Raises DatastoreError where it cannot be read."""
        try:
            os.listdir(self.directory)
        except OSError as error:
            words = f"the folder {self.directory} cannot be read ({error.strerror}); create it or name another folder"
            raise DatastoreError(words) from None
        self._look(set(), walk=True, writing=frozenset(), settle=False)
        return self.snapshot

    async def run(self, on_snapshot: Callable[[Snapshot], None]) -> None:
        """Call `on_snapshot` with the first snapshot and after every change, until cancelled.

        Raises DatastoreError where the folder cannot be read at the start; later that is a problem in the snapshot.
        Files are read in a thread, so that a large folder does not hold up the loop.
        """
        loop = asyncio.get_running_loop()
        watcher = self._open_inotify()
        if watcher is not None:
            loop.add_reader(watcher.fileno(), self._on_events)
        try:
            self._watch_directories({self.directory})
            on_snapshot(await asyncio.to_thread(self.load))
            while True:
                before = self.snapshot
                await self._wait()
                paths, self._dirty = self._dirty, set()
                walk, self._walk_due = self._walk_due, False
                self._again(await asyncio.to_thread(self._look, paths, walk=walk, writing=frozenset(self._writing)))
                if self.snapshot != before:
                    on_snapshot(self.snapshot)
        finally:
            if watcher is not None:
                loop.remove_reader(watcher.fileno())
                watcher.close()
                self._inotify = None

    async def _wait(self) -> None:
        """Until there is something to look at, and a moment longer; or until the next full walk."""
        try:
            await asyncio.wait_for(self._wake.wait(), self._rescan)
            await asyncio.sleep(self._debounce)
        except TimeoutError:
            # Whatever has been open for writing as long as that is read as it is.
            self._writing.clear()
            self._walk_due = True
        self._wake.clear()

    def _again(self, paths: set[str]) -> None:
        if paths:
            self._dirty |= paths
            self._wake.set()

    def _open_inotify(self) -> Inotify | None:
        try:
            self._inotify = Inotify()
        except OSError as error:
            log.warning("changes in %s are seen every %g s only: %s", self.directory, self._rescan, error)
        return self._inotify

    # --- events

    def _on_events(self) -> None:
        assert self._inotify is not None
        for event in self._inotify.read():
            self._on_event(event)

    def _on_event(self, event: Event) -> None:
        """Note what to look at; a file that is being written is left alone until it is closed."""
        outside = event.directory == os.path.dirname(self.directory) != self.directory
        if event.mask & inotify.IGNORED or (outside and event.name != os.path.basename(self.directory)):
            return
        path = os.path.join(event.directory, event.name)
        is_file = event.name.endswith(SUFFIXES) and not event.name.startswith(".") and not outside
        if not is_file or event.mask & (inotify.ISDIR | inotify.OVERFLOW):
            # Folders, the symbolic links of a ConfigMap volume (..data), the confirmation, lost events.
            if event.mask & (inotify.MODIFY | inotify.CLOSE_WRITE):
                return
            self._walk_due = True
        elif event.mask & inotify.MODIFY:
            self._writing.add(path)
            return
        else:
            self._dirty.add(path)
            if event.mask & inotify.COMPLETED:
                self._writing.discard(path)
        self._wake.set()

    def _watch_directories(self, directories: Iterable[str]) -> None:
        if self._inotify is None:
            return
        # The parent tells of the folder's own coming and going.
        parent = os.path.dirname(self.directory)
        wanted = {parent, *directories}
        for directory in sorted(wanted):
            with contextlib.suppress(OSError):
                self._inotify.watch(directory, names_only=directory == parent != self.directory)
        self._inotify.forget_others(wanted)

    # --- looking

    def _look(self, paths: set[str], *, walk: bool, writing: frozenset[str], settle: bool = True) -> set[str]:
        """Bring the snapshot up to date with these files, or all; return those that should be looked at again soon.

        `settle`: of files that a walk finds changed, those changed this very moment are left for the next look.
        """
        soon: set[str] = set()
        if walk:
            found = self._folder.walk()
            if found is None:
                self._hold(f"the folder {self.directory} is gone or cannot be read", "the folder, with its files")
                return soon
            # Watches first, files after: what changes in between is seen twice rather than never.
            self._watch_directories(self._folder.directories)
            changed = self._folder.changed(found)
            if settle:
                soon = {path for path in changed - paths if self._folder.knows(path) and self._is_fresh(path)}
            paths = paths | changed
        self._apply(self._folder.reread(paths - writing - soon))
        return soon

    def _is_fresh(self, path: str) -> bool:
        """Whether a file changed this very moment, so that its writer may not be done."""
        try:
            return 0 <= time.time() - os.stat(path).st_mtime < self._debounce
        except OSError:
            return False

    def _apply(self, changes: list[StoreChange]) -> None:
        self._seen = self._seen.apply(changes)
        if not len(self._folder) and len(self.snapshot) and not self._confirmed():
            text = f"the folder {self.directory} holds no object any more; the earlier ones stay in force"
            self._hold(text, f"the files again, or an empty file named {CONFIRMATION} beside them to confirm")
            return
        if not self.snapshot.complete:
            self._seen = self._seen.apply(kept(self.snapshot, self._seen))
        self.snapshot = evolve(self._seen, source_problems=self._folder.problems(), complete=True)
        self._read = True

    def _confirmed(self) -> bool:
        return os.path.lexists(os.path.join(self.directory, CONFIRMATION))

    def _hold(self, text: str, allowed: str) -> None:
        problem = Problem(object="", file=self.directory, text=text, allowed=allowed)
        if self.snapshot.complete:
            self._held_at = time.time()
        self.snapshot = evolve(self.snapshot, source_problems=(problem,), complete=False)
