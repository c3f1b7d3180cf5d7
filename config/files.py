"""The file datastore: a folder of Calico YAML, watched and applied live.

inotify says where to look; a look costs one stat per file that may have changed. Changes are gathered for a moment
(`debounce`) so that a rollout of many files is one new snapshot. A full walk every minute is the net under lost events
and file systems without inotify.

What is held back (traffic must not stop because a folder is empty):
- a file that cannot be read, or has documents that cannot, keeps the objects of its last good version;
- a file with nothing in it keeps them too: a file that is being rewritten is empty for a moment;
- a folder that is gone or cannot be read keeps everything and says so; a start without it goes on with the last good
  copy (`config.copy`);
- a folder that holds no object any more, or not this node's Node, keeps everything (`config.wiped`), until the objects
  come back or the loss is confirmed by a file named `.empty` in the folder.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime

from attrs import evolve

from config import inotify
from config.copy import CopyFile
from config.folder import SUFFIXES, Folder
from config.inotify import Event, Inotify
from config.keeper import Keeper, Objects
from config.problems import Problem
from config.snapshot import Put, Snapshot, StoreChange
from config.source import DatastoreError, Status
from config.wiped import Hold, kept

__all__ = ["CONFIRMATION", "DatastoreError", "FileDatastore"]

CONFIRMATION = ".empty"
"""The name of the file that confirms an emptied folder."""
LOOK = 1.0
"""Seconds between full walks while the folder is not what is in force: nothing tells that it is mounted again."""

log = logging.getLogger(__name__)


class FileDatastore:
    """A folder of resource files. `load` looks once; `run` looks, then follows changes."""

    def __init__(
        self,
        directory: str,
        *,
        node: str = "",
        copy: CopyFile | None = None,
        debounce: float = 0.05,
        rescan: float = 60.0,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        """`node`: a folder that lost its Node is held back. `debounce`: seconds that changes are gathered.

        `rescan`: seconds between full walks. `wall`: seconds since 1970.
        """
        self.directory = os.path.abspath(directory)
        self.snapshot = Snapshot()
        """What counts. It differs from the folder while the folder is held back."""
        self._node = node
        self._seen = Snapshot()
        self._copy = copy
        self._keeper = Keeper(copy, self._to_keep)
        self._debounce = debounce
        self._rescan = rescan
        self._clock = clock
        self._wall = wall
        self._folder = Folder(self.directory)
        self._inotify: Inotify | None = None
        self._dirty: set[str] = set()
        self._writing: set[str] = set()
        self._walk_due = False
        self._wake = asyncio.Event()
        self._read = False
        self._trouble = "not read yet"
        """Why the folder cannot be read."""
        self._hold: Hold | None = None
        self._true_at: float | None = None
        """Until when what is in force was what the folder holds, seconds since 1970; None: it is."""

    def status(self) -> Status:
        """How it is at this moment."""
        age = max(0.0, self._wall() - self._true_at) if self._true_at is not None else 0.0
        return Status(not self._trouble, self._trouble or (self._hold.text if self._hold is not None else ""), age)

    def load(self) -> Snapshot:
        """Read the whole folder. Raises DatastoreError where it cannot be read and nothing else is known."""
        self._look(set(), walk=True, writing=frozenset(), settle=False)
        if not self._read and not len(self.snapshot):
            raise DatastoreError(f"{self._trouble}; create it or name another folder")
        return self.snapshot

    async def run(self, on_snapshot: Callable[[Snapshot], None]) -> None:
        """Call `on_snapshot` with the first snapshot and after every change, until cancelled.

        Raises DatastoreError where the folder cannot be read at the start and there is no copy to go on with; later
        that is a problem in the snapshot.
        Files are read in a thread, so that a large folder does not hold up the loop.
        """
        loop = asyncio.get_running_loop()
        watcher = self._open_inotify()
        if watcher is not None:
            loop.add_reader(watcher.fileno(), self._on_events)
        self._load_copy()
        keeper = asyncio.create_task(self._keeper.run())
        try:
            self._watch_directories({self.directory})
            on_snapshot(await asyncio.to_thread(self.load))
            while True:
                before = self.snapshot
                await self._wait()
                paths, self._dirty = self._dirty, set()
                walk, self._walk_due = self._walk_due, False
                self._again(await asyncio.to_thread(self._look, paths, walk=walk, writing=frozenset(self._writing)))
                if self.snapshot.is_news_after(before):
                    on_snapshot(self.snapshot)
        finally:
            if watcher is not None:
                loop.remove_reader(watcher.fileno())
                watcher.close()
                self._inotify = None
            await self._keeper.end(keeper)

    async def _wait(self) -> None:
        """Until there is something to look at, and a moment longer; or until the next full walk."""
        try:
            await asyncio.wait_for(self._wake.wait(), self._rescan if self.snapshot.complete else LOOK)
            await asyncio.sleep(self._debounce)
        except TimeoutError:
            if self.snapshot.complete:
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
            if event.mask & (inotify.MODIFY | inotify.CLOSE_WRITE) or self._is_aside(event, path):
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

    def _is_aside(self, event: Event, path: str) -> bool:
        """Whether it is about a file that is none of ours, as editors and writers put one beside the real one."""
        if event.mask & (inotify.ISDIR | inotify.OVERFLOW) or event.name in ("", CONFIRMATION):
            return False
        if event.name.startswith("..") or event.directory == os.path.dirname(self.directory) != self.directory:
            return False
        if path in self._folder.directories:
            return False
        # A symbolic link to a folder shows no other sign of being one.
        return bool(event.mask & (inotify.DELETE | inotify.MOVED_FROM)) or not os.path.isdir(path)

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
                self._lost()
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
        self._read, self._trouble = True, ""
        held, now = self._hold, self._clock()
        wall = self._true_at if self._true_at is not None else self._wall()
        hold = Hold.weigh(held, self.snapshot, self._seen, self._node, now=now, wall=wall, changed=bool(changes))
        self._hold = hold = None if hold is not None and self._confirmed() else hold
        if hold is not None:
            self._true_at = hold.since
            self._keep(hold.text, f"the objects again, or an empty file named {CONFIRMATION} in the folder to confirm")
            return
        if not self.snapshot.complete:
            self._seen = self._seen.apply(kept(self.snapshot, self._seen))
        self._true_at = None
        self.snapshot = evolve(self._seen, source_problems=self._folder.problems(), complete=True)

    def _confirmed(self) -> bool:
        return os.path.lexists(os.path.join(self.directory, CONFIRMATION))

    def _lost(self) -> None:
        """The folder is gone or cannot be read."""
        text = f"the folder {self.directory} is gone or cannot be read{_reason(self.directory)}"
        self._trouble = text
        if self._true_at is None:
            self._true_at = self._wall()
        if not self._read:
            since = datetime.fromtimestamp(self._true_at, UTC).isoformat(timespec="seconds")
            text += f"; the last good copy, true until {since}, serves"
        self._keep(text, "the folder, with its files")

    def _keep(self, text: str, allowed: str) -> None:
        problem = Problem(object="", file=self.directory, text=text, allowed=allowed)
        problems = (problem, *self._folder.problems())
        self.snapshot = evolve(self.snapshot, source_problems=problems, complete=False)

    # --- the copy

    def _load_copy(self) -> None:
        copy = self._copy.load() if self._copy is not None else None
        if copy is None:
            return
        # Not complete: the folder's objects, once they are read, take its place; refused ones keep their version.
        self.snapshot = evolve(Snapshot().apply(map(Put, copy.objects)), complete=False)
        self._keeper.holds(self.snapshot.objects)
        self._true_at = copy.saved

    def _to_keep(self) -> tuple[Objects, float] | None:
        if not self._read:
            return None
        return self.snapshot.objects, self._true_at if self._true_at is not None else self._wall()


def _reason(directory: str) -> str:
    try:
        os.listdir(directory)
    except OSError as error:
        return f" ({error.strerror})"
    return ""
