"""Two datastores as one: Calico's resources from etcd, Secrets, Services and EndpointSlices from Kubernetes.

That is Calico's etcd mode inside a Kubernetes cluster (calico-bgp.md 1.2). Their kinds do not overlap. Each is followed
by itself, so that an outage of one holds up nothing of the other.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from attrs import evolve

from config import resources as r
from config.problems import Problem
from config.snapshot import Snapshot
from config.source import Datastore, Status

__all__ = ["Joined", "secret_names"]

FIRST_WAIT = 30.0
"""Seconds that a first snapshot of the first datastore waits for one of the second."""
SECRET_WAIT = 1.0
"""Seconds that peers wait for Secrets that were not named before: without them their sessions would be ended."""


class Joined:
    """The first datastore decides about the start; the second only adds."""

    def __init__(
        self,
        first: Datastore,
        second: Datastore,
        *,
        first_wait: float = FIRST_WAIT,
        on_first: Callable[[Snapshot], None] = lambda snapshot: None,
    ) -> None:
        """`on_first` sees each snapshot of the first before it is joined: it says what is wanted of the second."""
        self.snapshot = Snapshot()
        self._on_first = on_first
        self._first = first
        self._second = second
        self._first_wait = first_wait
        self._seen: list[Snapshot | None] = [None, None]
        self._absent: set[str] = set()
        """Secrets that were waited for in vain."""

    def status(self) -> Status:
        """How they are: the worse of both."""
        both = (self._first.status(), self._second.status())
        text = "; ".join(status.text for status in both if status.text)
        return Status(all(status.connected for status in both), text, max(status.age for status in both))

    async def run(self, on_snapshot: Callable[[Snapshot], None]) -> None:
        """See config.source.Datastore. Raises what either raises."""
        waiting = True
        patience: asyncio.TimerHandle | None = None

        def publish() -> None:
            if self._seen[0] is not None and (not waiting or self._seen[1] is not None):
                self.snapshot = merged(*self._seen)
                on_snapshot(self.snapshot)

        def give_up() -> None:
            nonlocal patience
            patience = None
            self._absent |= self._lacking()
            publish()

        def take(which: int, snapshot: Snapshot) -> None:
            nonlocal patience
            if which == 0:
                self._on_first(snapshot)
            self._seen[which] = snapshot
            if self._lacking():
                patience = patience or asyncio.get_running_loop().call_later(SECRET_WAIT, give_up)
                return
            if patience is not None:
                patience.cancel()
                patience = None
            publish()

        async def end_waiting() -> None:
            nonlocal waiting
            await asyncio.sleep(self._first_wait)
            waiting = False
            if self._seen[0] is not None and self._seen[1] is None:
                take(0, self._seen[0])

        runs = (self._first.run(lambda found: take(0, found)), self._second.run(lambda found: take(1, found)))
        tasks = [*map(asyncio.ensure_future, runs), asyncio.ensure_future(end_waiting())]
        try:
            await asyncio.gather(*tasks)
        finally:
            if patience is not None:
                patience.cancel()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _lacking(self) -> set[str]:
        """Secrets that the first names and the second may yet bring."""
        first, second = self._seen
        if first is None or second is None:
            return set()
        names = secret_names(first)
        self._absent &= names
        return names - self._absent - {name.rpartition("/")[2] for name in second.of(r.Secret)}


def merged(first: Snapshot | None, second: Snapshot | None) -> Snapshot:
    """Both in one; maps of kinds stay the very same. Where there is no second yet, that is a problem to show."""
    assert first is not None
    if second is None:
        text = "Services, EndpointSlices and Secrets of Kubernetes are not read yet; what needs them waits"
        problem = Problem(object="", text=text, allowed="a Kubernetes API that can be reached")
        return evolve(first, source_problems=(*first.source_problems, problem), complete=False)
    mine = {kind: held for kind, held in first.objects.items() if held or kind not in second.objects}
    return Snapshot(
        {**mine, **{kind: held for kind, held in second.objects.items() if kind not in mine}},
        {**first.problems, **second.problems},
        first.source_problems + second.source_problems,
        first.complete and second.complete,
    )


def secret_names(snapshot: Snapshot) -> set[str]:
    """The Secrets that the resources name, in the speaker's namespace."""
    references = [peer.password for peer in snapshot.of(r.BGPPeer).values()]
    references += [found.mesh_password for found in snapshot.of(r.BGPConfiguration).values()]
    return {reference.name for reference in references if reference is not None}
