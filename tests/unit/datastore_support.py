"""For tests of what follows a datastore: an event loop whose time passes at once, and a datastore in memory."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any, TypeVar

from config import resources as r
from config.follower import Follower
from config.problems import Problem
from config.snapshot import Key, Put, Refuse, Remove, Snapshot, StoreChange
from config.source import Batch, Expired, Listing, Unavailable
from config.values import prefix

T = TypeVar("T")


class _Selector(selectors.DefaultSelector):
    """Instead of waiting, it moves the clock."""

    loop: VirtualLoop

    def select(self, timeout: float | None = None) -> Any:
        found = super().select(0 if timeout is not None else 1)
        if not found:
            assert timeout is not None, "nothing will ever happen again"
            self.loop.now += timeout
        return found


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop in which an hour takes no time. Threads run at once, in its own thread."""

    def __init__(self) -> None:
        selector = _Selector()
        selector.loop = self
        self.now = 0.0
        super().__init__(selector)

    def time(self) -> float:
        return self.now

    def run_in_executor(self, executor: Any, func: Callable[..., T], *args: Any) -> asyncio.Future[T]:  # type: ignore[override]
        done: asyncio.Future[T] = self.create_future()
        done.set_result(func(*args))
        return done


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run it in virtual time."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(main)


def node(name: str, **fields: Any) -> r.Node:
    return r.Node(name, ipv4_address="10.0.0.1", **fields)


def pool(name: str, cidr: str = "10.244.0.0/16") -> r.IPPool:
    return r.IPPool(name, prefix(cidr))


def refusal(key: Key, text: str = "is wrong") -> Refuse:
    return Refuse(key, (Problem(object="/".join(key), text=text),))


class Store:
    """Objects, good or refused, at a revision, and the history since the last compaction."""

    def __init__(self, *objects: r.Resource) -> None:
        self.current: dict[Key, StoreChange] = {}
        self.history: list[StoreChange] = []
        self.compacted = 0
        self.failure: Exception | None = None
        """What every call and watch ends with."""
        self.lists = self.attempts = 0
        self.closed = False
        self.news = asyncio.Event()
        for item in objects:
            self.put(item)

    @property
    def revision(self) -> int:
        return self.compacted + len(self.history)

    def write(self, change: StoreChange) -> None:
        if isinstance(change, Remove):
            self.current.pop(change.key, None)
        else:
            self.current[change.key] = change
        self.history.append(change)
        self._tell()

    def _tell(self) -> None:
        news, self.news = self.news, asyncio.Event()
        news.set()

    def put(self, item: r.Resource) -> None:
        self.write(Put(item))

    def compact(self) -> None:
        self.compacted, self.history = self.revision, []

    def wipe(self) -> None:
        for key in list(self.current):
            self.write(Remove(key))

    def fail(self, failure: Exception | None) -> None:
        self.failure = failure
        self._tell()


class MemorySource:
    """A Store as a Source. `bend`: makes of each batch what the network made of it."""

    def __init__(self, store: Store, bend: Callable[[list[StoreChange]], list[StoreChange]] = list) -> None:
        self.url = "memory:"
        self.store = store
        self._bend = bend

    async def list(self, *, partial: bool = False) -> Listing:
        self.store.attempts += 1
        if self.store.failure is not None:
            raise self.store.failure
        self.store.lists += 1
        return Listing(self.store.revision, tuple(self.store.current.values()))

    async def watch(self, revision: object) -> AsyncIterator[Batch]:
        assert isinstance(revision, int)
        store = self.store
        store.attempts += 1
        while True:
            if store.failure is not None:
                raise store.failure
            if revision < store.compacted:
                raise Expired("compacted")
            changes = store.history[revision - store.compacted :]
            if changes:
                revision = store.revision
                yield Batch(revision, tuple(self._bend(changes)))
            else:
                await store.news.wait()

    async def close(self) -> None:
        self.store.closed = True


class Followed:
    """A running Follower, and the snapshots that it gave."""

    def __init__(self, source: MemorySource, **options: Any) -> None:
        options.setdefault("node", "a")
        options.setdefault("jitter", lambda: 1.0)
        options.setdefault("wall", lambda: 1_000_000 + asyncio.get_running_loop().time())
        self.follower = Follower(source, **options)
        self.snapshots: list[Snapshot] = []
        self.task: asyncio.Task[None] | None = None

    def last(self) -> Snapshot:
        return self.snapshots[-1]

    async def __aenter__(self) -> Followed:
        self.task = asyncio.create_task(self.follower.run(self.snapshots.append))
        await asyncio.sleep(1)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self.task is not None
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)


def names(snapshot: Snapshot) -> set[str]:
    return {f"{kind}/{name}" for kind, objects in snapshot.objects.items() for name in objects}


DOWN = Unavailable("connection refused")
__all__ = [
    *("DOWN", "Followed", "MemorySource", "Store", "VirtualLoop"),
    *("names", "node", "pool", "refusal", "run"),
]
