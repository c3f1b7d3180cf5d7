"""Source -> Datastore: the policy that every datastore with a network between needs.

List, then watch from that revision; after an outage go on where the watch was; list again where the revision is gone,
when watches keep failing at one revision, and now and then all the same. What a listing does not name any more is
removed. Changes are gathered for a moment (`debounce`) so that a rollout is one new snapshot, not a thousand.

Traffic must not stop because a datastore does:
- while it cannot be reached, everything stays as it was;
- a start without it goes on with the last good copy on disk (`config.copy`), marked stale with its age;
- an object that is refused keeps its last good version, also over a new listing, also that of the copy;
- a datastore that lost everything, or this node's own Node, is held back (`config.wiped`).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from attrs import evolve, frozen

from config.coalesce import coalesce, complete
from config.copy import CopyFile
from config.keeper import Keeper, Objects
from config.problems import Problem
from config.snapshot import Put, Snapshot, StoreChange
from config.source import Batch, DatastoreError, Expired, Source, Status, Unavailable
from config.wiped import Hold, kept

__all__ = ["CONFIRMATION", "Follower", "Timing"]

CONFIRMATION = "accept-empty"
"""The name of the file in the state directory that confirms a wiped datastore. It is removed when it has served."""

log = logging.getLogger(__name__)
T = TypeVar("T")


@frozen
class Timing:
    """Seconds."""

    debounce: float = 0.05
    """Changes are gathered until there was none for so long ..."""
    debounce_limit: float = 0.25
    """... and at most for so long."""
    first_wait: float = 3.0
    """A start with a copy waits so long for the datastore."""
    retry: tuple[float, float] = (0.2, 5.0)
    """The first and the longest pause between attempts; each is twice the one before, times chance."""
    resync: float = 1800.0
    """Between listings of a datastore that is watched without a fault."""
    save: float = 5.0
    """Between writes of the copy."""
    touch: float = 60.0
    """Between notes in the copy that it is still true."""
    look: float = 1.0
    """Between looks for the confirmation while a datastore is held back."""


ATTEMPTS = 5
"""Failures of a watch at one revision before everything is listed again (as Calico's syncer does)."""


class Follower:
    """Follows a source for a node."""

    def __init__(
        self,
        source: Source,
        *,
        node: str = "",
        copy: CopyFile | None = None,
        confirmation: str | None = None,
        timing: Timing | None = None,
        jitter: Callable[[], float] = lambda: random.uniform(0.5, 1.0),
        wall: Callable[[], float] = time.time,
    ) -> None:
        """`confirmation`: path of the file that lets a wiped datastore through. `wall`: seconds since 1970.

        Time otherwise is the event loop's.
        """
        self.snapshot = Snapshot()
        """What counts. It differs from the datastore while that is out of reach or held back."""
        self._source = source
        self._node = node
        self._copy = copy
        self._confirmation = Path(confirmation) if confirmation else None
        self._timing = timing or Timing()
        self._jitter = jitter
        self._wall = wall
        self._seen = Snapshot()
        self._pending: list[StoreChange] = []
        self._wake = asyncio.Event()
        self._hold: Hold | None = None
        self._listed = False
        self._trouble = "not read yet"
        self._alive_at: float | None = None
        """Wall clock of the last sign of life, or what the copy says."""
        self._copied_at: float | None = None
        """Until when the copy was true, while it is what is in force."""
        self._keeper = Keeper(copy, self._to_keep, save=self._timing.save, touch=self._timing.touch)

    def status(self) -> Status:
        """How it is at this moment."""
        if self._hold is not None:
            return Status(not self._trouble, self._hold.text, max(0.0, self._wall() - self._hold.since))
        if not self._trouble:
            return Status(True)
        return Status(False, self._trouble, max(0.0, self._wall() - self._alive_at) if self._alive_at else 0.0)

    async def run(self, on_snapshot: Callable[[Snapshot], None]) -> None:
        """Call `on_snapshot` with the first snapshot and after every change, until cancelled.

        Raises DatastoreError where the datastore cannot be used at the start and there is no copy to go on with.
        """
        self._load_copy()
        follow = asyncio.create_task(self._follow())
        keeper = asyncio.create_task(self._keeper.run())
        try:
            await self._publish(on_snapshot, follow)
        finally:
            follow.cancel()
            await self._keeper.end(keeper)
            await asyncio.gather(follow, return_exceptions=True)
            await self._source.close()

    # --- what goes out

    async def _publish(self, on_snapshot: Callable[[Snapshot], None], follow: asyncio.Task[None]) -> None:
        if len(self.snapshot) and not await self._woken(follow, self._timing.first_wait):
            self._serve_copy()
            on_snapshot(self.snapshot)
        first = True
        while True:
            look = self._timing.look if self._hold is not None else None
            await self._woken(follow, look)
            await self._gather_changes()
            if self._flush() or first:
                on_snapshot(self.snapshot)
            first = False

    async def _woken(self, follow: asyncio.Task[None], timeout: float | None) -> bool:
        """Whether there is something new within this time. Raises what ended the following."""
        waiting = asyncio.create_task(self._wake.wait())
        try:
            await asyncio.wait({waiting, follow}, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        finally:
            waiting.cancel()
        if follow.done():
            follow.result()
            raise AssertionError("following has ended without a reason")
        return self._wake.is_set()

    async def _gather_changes(self) -> None:
        """Until nothing more comes for a moment."""
        loop = asyncio.get_running_loop()
        end = loop.time() + self._timing.debounce_limit
        while self._wake.is_set() and (left := end - loop.time()) > 0:
            self._wake.clear()
            await asyncio.sleep(min(self._timing.debounce, left))
        self._wake.clear()

    def _flush(self) -> bool:
        """Take what has come into the snapshot; whether that changes it."""
        pending, self._pending = self._pending, []
        before = self.snapshot
        if changes := coalesce(self._seen, pending):
            self._seen = self._seen.apply(changes)
        if not self._listed:
            return False
        self._weigh(bool(changes))
        return self.snapshot.is_news_after(before)

    def _weigh(self, changed: bool) -> None:
        """Let what is seen count, or hold it back."""
        held = self._hold
        now = asyncio.get_running_loop().time()
        wall = self._copied_at or self._wall()
        hold = Hold.weigh(held, self.snapshot, self._seen, self._node, now=now, wall=wall, changed=changed)
        if hold is not None and self._confirmed():
            log.warning("the datastore %s counts again, as %s confirms", self._source.url, self._confirmation)
            hold = None
        self._hold = hold
        if hold is None:
            self._copied_at = None
            if held is not None:
                log.info("%s: what the datastore holds counts again", self._source.url)
                self._seen = self._seen.apply(kept(self.snapshot, self._seen))
            self.snapshot = evolve(self._seen, source_problems=(), complete=True)
            return
        if held is None:
            log.error("%s: %s", self._source.url, hold.text)
        allowed = "the objects again"
        if self._confirmation is not None:
            allowed += f", or a file {self._confirmation} to confirm that they are gone"
        problem = Problem(object="", file=self._source.url, text=hold.text, allowed=allowed)
        self.snapshot = evolve(self.snapshot, source_problems=(problem,), complete=False)

    def _confirmed(self) -> bool:
        """Whether somebody has confirmed that the datastore is to be empty; that holds once."""
        if self._confirmation is None:
            return False
        try:
            self._confirmation.unlink()
        except OSError:
            return False
        return True

    # --- what comes in

    async def _follow(self) -> None:
        revision: object = None
        failures = at_revision = 0
        while True:
            try:
                if revision is None:
                    listing = await self._source.list(partial=bool(len(self.snapshot)))
                    held = self._seen.apply(self._pending)
                    self._take(complete(held, listing.changes, listing.unknown), listing.trouble)
                    revision, self._listed = listing.revision, True
                    at_revision = 0
                async for batch in _until(self._source.watch(revision), self._timing.resync):
                    revision = batch.revision
                    failures = at_revision = 0
                    self._take(batch.changes, batch.trouble)
                # The time for a new listing has come; what the watch brought until now is in it.
                revision = None
                continue
            except Expired as error:
                revision, reason = None, f"the revision to go on from is gone ({error})"
                log.info("%s: %s; everything is listed again", self._source.url, reason)
            except (Unavailable, DatastoreError) as error:
                if isinstance(error, DatastoreError) and not self._listed and not len(self.snapshot):
                    raise
                reason = str(error)
                self._lost(reason)
                at_revision += 1
            except Exception as error:
                # A defect in a source must not end the following: what is in force stays, and it is tried again.
                log.exception("internal error in the watch of %s", self._source.url)
                self._lost(f"internal error: {error!r}")
                revision = None
            if at_revision >= ATTEMPTS:
                revision = None
            await asyncio.sleep(self._pause(failures))
            failures += 1

    def _pause(self, failures: int) -> float:
        shortest, longest = self._timing.retry
        return min(longest, shortest * (1 << min(failures, 16))) * self._jitter()

    def _take(self, changes: list[StoreChange] | tuple[StoreChange, ...], trouble: str = "") -> None:
        """Note a sign of life, with what it brought, and what is wrong with a part of the datastore."""
        if trouble:
            self._lost(trouble)
        else:
            self._alive_at = self._wall()
        if self._trouble and not trouble:
            (log.info if self._listed else log.debug)("%s: connected again", self._source.url)
            self._trouble = ""
        if changes or not self._listed:
            self._pending += changes
            self._wake.set()

    def _lost(self, reason: str) -> None:
        if reason != self._trouble:
            known = self._listed or len(self.snapshot)
            meanwhile = "everything stays as it is" if known else "nothing is in force until it can, and no copy serves"
            log.warning("%s cannot be followed: %s; %s", self._source.url, reason, meanwhile)
        self._trouble = reason

    # --- the copy

    def _load_copy(self) -> None:
        copy = self._copy.load() if self._copy is not None else None
        if copy is None:
            return
        self._seen = self._seen.apply(map(Put, copy.objects))
        self.snapshot = self._seen
        self._keeper.holds(self.snapshot.objects)
        self._alive_at = self._copied_at = copy.saved

    def _serve_copy(self) -> None:
        assert self._alive_at is not None
        since = datetime.fromtimestamp(self._alive_at, UTC).isoformat(timespec="seconds")
        text = f"cannot be reached ({self._trouble}); the last good copy, true until {since}, serves"
        log.warning("%s: %s", self._source.url, text)
        problem = Problem(object="", file=self._source.url, text=text, allowed="a datastore that can be reached")
        self.snapshot = evolve(self.snapshot, source_problems=(problem,), complete=False)

    def _to_keep(self) -> tuple[Objects, float] | None:
        """What is in force, if it has been seen in the datastore, and until when that was true.

        While the datastore is held back, it is what was seen last.
        """
        if not self._listed or not (self.snapshot.complete or self._hold is not None):
            return None
        alive = self._hold.since if self._hold is not None else self._alive_at or self._wall()
        return self.snapshot.objects, alive


async def _until(batches: AsyncIterator[Batch], seconds: float) -> AsyncIterator[Batch]:
    """Batches, for so long; then the end. Nothing is lost: the caller lists next."""
    end = asyncio.get_running_loop().time() + seconds
    with contextlib.suppress(TimeoutError):
        while True:
            async with asyncio.timeout_at(end):
                batch = await anext(batches, None)
            if batch is None:
                raise Unavailable("the watch has ended")
            yield batch
