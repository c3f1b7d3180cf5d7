"""Keeps the last good copy (`config.copy`) up to date while a datastore is followed, and at the end."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping

from config.copy import CopyFile, differences
from config.resources import Resource

__all__ = ["Keeper", "Objects"]

log = logging.getLogger(__name__)
Objects = Mapping[str, Mapping[str, Resource]]
"""By kind and name."""


class Keeper:
    """Writes what is in force, every few seconds."""

    def __init__(
        self,
        copy: CopyFile | None,
        state: Callable[[], tuple[Objects, float] | None],
        *,
        save: float = 5.0,
        touch: float = 60.0,
    ) -> None:
        """`copy` None: nothing is kept. `state`: what is in force, and until when that was true (seconds since 1970);
        None while it is not known to be what the datastore holds. `save`: seconds between writes. `touch`: seconds
        between notes that an unchanged copy is still true.
        """
        self._copy = copy
        self._state = state
        self._every = save
        self._touch = touch
        self._saved: Objects = {}
        self._touched = 0.0
        self._writing: asyncio.Future[bool] | None = None

    def holds(self, objects: Objects) -> None:
        """The copy was read, and that is in it."""
        self._saved = objects

    async def run(self) -> None:
        """Until cancelled."""
        while self._copy is not None:
            await asyncio.sleep(self._every)
            state = self._state()
            if state is not None and self._copy.outgrown:
                # The whole is large: not in the loop. A stop waits for it, lest it overwrite what is written last.
                self._writing = asyncio.ensure_future(asyncio.to_thread(self._copy.write, *state))
                if await asyncio.shield(self._writing):
                    self._saved, self._touched = state
            else:
                self._save()

    async def end(self, task: asyncio.Task[None]) -> None:
        """Stop `task`, which is `run`, and bring the copy up to date."""
        task.cancel()
        if self._writing is None or self._writing.done():
            # At once: whoever stops us may not wait for what else has to end.
            self._save()
        (ended,) = await asyncio.gather(task, return_exceptions=True)
        if isinstance(ended, Exception):
            log.error("internal error: the last good copy was not kept", exc_info=ended)
        if self._writing is not None:
            await asyncio.gather(self._writing, return_exceptions=True)
        self._save()

    def _save(self) -> None:
        """A few lines, so it may be done in the loop."""
        state = self._state()
        if self._copy is None or state is None:
            return
        objects, alive = state
        if self._copy.outgrown:
            written = self._copy.write(objects, alive)
        else:
            changes = list(differences(self._saved, objects))
            if not changes and alive - self._touched < self._touch:
                return
            written = self._copy.append(changes, alive)
        if written:
            self._saved, self._touched = state
