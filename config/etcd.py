"""Calico's datastore in etcd v3: list at one revision, then watch from there.

Each beginning of keys has a watch of its own on one stream, and a revision of its own to go on from: while a watch
catches up, the header of a response is ahead of its events, so only the events themselves say how far it is (a header
alone counts in a progress notification, which etcd sends for a watch that has caught up).
"""

from __future__ import annotations

import asyncio
import builtins
import contextlib
import zlib
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Mapping
from typing import Any

import grpc.aio

from config import etcd_keys
from config import etcd_pb2 as pb
from config.etcd_client import EtcdClient, is_compacted, is_stale_token, options
from config.etcd_edit import EtcdEditor
from config.snapshot import StoreChange
from config.source import Batch, DatastoreError, Expired, Listing, Unavailable

__all__ = ["EtcdEditor", "EtcdSource"]

PAGE = 1000
SILENCE = 10.0
"""Seconds without a word after which the watch is asked whether it lives, and as many until it must have answered."""


class EtcdSource:
    """Reads what BGP needs: resources of all nodes, block affinities of one node or all."""

    def __init__(self, url: str, *, node: str = "", env: Mapping[str, str], silence: float = SILENCE) -> None:
        """Raises DatastoreError for a URL or variables that cannot be used."""
        self._client = EtcdClient(options(url, env))
        self.url = self._client.options.url
        self._prefixes = tuple(prefix.encode() for prefix in etcd_keys.prefixes(node))
        self._silence = silence
        self._cluster = 0
        self._fresh = False
        """Whether all that is known comes from the listing a moment ago."""
        self._prefix_of: dict[int, bytes] = {}
        self._known: dict[bytes, tuple[int, int, StoreChange | None]] = {}
        """Key -> modification revision, checksum and meaning of the newest value seen; None: deleted, or not read."""

    async def close(self) -> None:
        """Let go of the connection."""
        await self._client.close()

    # --- listing

    async def list(self, *, partial: bool = False) -> Listing:
        """Everything at one revision, never less. Raises Unavailable, Expired or DatastoreError."""
        revision = 0
        known: dict[bytes, tuple[int, int, StoreChange | None]] = {}
        changes: list[StoreChange] = []
        for prefix in self._prefixes:
            async for response in self._pages(prefix, revision):
                revision = revision or response.header.revision
                self._cluster = response.header.cluster_id
                for kv in response.kvs:
                    known[kv.key] = entry = self._read(kv)
                    if entry[2] is not None:
                        changes.append(entry[2])
                # Sessions have their timers: a large cluster is read in pieces.
                await asyncio.sleep(0)
        self._known, self._fresh = known, True
        return Listing(dict.fromkeys(self._prefixes, revision + 1), tuple(changes))

    async def _pages(self, prefix: bytes, revision: int) -> AsyncIterator[Any]:
        start, end = prefix, prefix_end(prefix)
        while True:
            request = pb.RangeRequest(key=start, range_end=end, limit=PAGE, revision=revision)
            response = await self._client.call(request)
            yield response
            if not response.more or not response.kvs:
                return
            revision = revision or response.header.revision
            start = response.kvs[-1].key + b"\0"

    def _read(self, kv: Any) -> tuple[int, int, StoreChange | None]:
        """What a value means; one that has been read before is not read again."""
        checksum = zlib.crc32(kv.value)
        before = self._known.get(kv.key)
        if before is not None and before[:2] == (kv.mod_revision, checksum):
            return before
        return (kv.mod_revision, checksum, _change(kv.key, kv.value))

    # --- watching

    async def watch(self, revision: object) -> AsyncGenerator[Batch, None]:
        """What happens after a listing or a batch. Raises Expired, Unavailable or DatastoreError."""
        assert isinstance(revision, dict)
        starts: dict[bytes, int] = dict(revision)
        if not self._fresh:
            await self._check_history()
        self._fresh = False
        try:
            async for response in self._responses(starts):
                if response.created or response.watch_id < 0:
                    # Opened, or the answer to our question: a sign of life and nothing else.
                    yield Batch(dict(starts), ())
                    continue
                prefix = self._prefix_of[response.watch_id]
                if response.events:
                    changes = tuple(self._changes(response.events))
                    starts[prefix] = response.events[-1].kv.mod_revision + 1
                else:
                    changes = ()
                    starts[prefix] = max(starts[prefix], response.header.revision + 1)
                yield Batch(dict(starts), changes)
        except grpc.aio.AioRpcError as error:
            failure = self._client.explain(error)
            if is_stale_token(error.details()):
                self._client.forget_token()
            await self._client.go_on()
            raise failure from None
        except asyncio.InvalidStateError:
            # Writing to a stream that ended a moment ago; a new one will say why.
            await self._client.go_on()
            raise Unavailable(f"etcd at {self._client.endpoint} has ended the watch") from None
        except Unavailable:
            await self._client.go_on()
            raise

    async def _check_history(self) -> None:
        """Raises Expired where what we know last has never happened there: after a restore from a backup, revisions may
        have gone past ours before we are back, so that no revision shows it.
        """
        there = [(entry[0], key) for key, entry in self._known.items() if entry[1] or entry[2] is not None]
        if not there:
            return
        revision, key = max(there)
        try:
            response = await self._client.call(pb.RangeRequest(key=key, revision=revision))
        except Expired as error:
            if not is_compacted(str(error)):
                raise
            # Too long ago for that question: only what is there now is left to look at.
            response = await self._client.call(pb.RangeRequest(key=key))
            if not response.kvs or response.kvs[0].mod_revision > revision:
                return
        found = [(kv.mod_revision, zlib.crc32(kv.value)) for kv in response.kvs]
        if found != [(revision, self._known[key][1])]:
            raise Expired(f"etcd has another history: revision {revision} is not what it was")

    async def _responses(self, starts: Mapping[bytes, int]) -> AsyncIterator[Any]:
        """The stream's responses, checked. Raises AioRpcError, Expired, Unavailable or DatastoreError."""
        call = await self._client.watch()
        reading: asyncio.Task[Any] | None = None
        self._prefix_of = {}
        try:
            for prefix in self._prefixes:
                create = pb.WatchCreateRequest(
                    key=prefix, range_end=prefix_end(prefix), start_revision=starts[prefix], progress_notify=True
                )
                await call.write(pb.WatchRequest(create_request=create))
            while True:
                reading = asyncio.ensure_future(call.read())
                if not (await asyncio.wait({reading}, timeout=self._silence))[0]:
                    await call.write(pb.WatchRequest(progress_request=pb.WatchProgressRequest()))
                    if not (await asyncio.wait({reading}, timeout=self._silence))[0]:
                        text = f"the watch gives no sign of life for {2 * self._silence:g} s"
                        raise Unavailable(f"etcd at {self._client.endpoint}: {text}")
                response = reading.result()
                if response is grpc.aio.EOF:
                    raise Unavailable(f"etcd at {self._client.endpoint} has ended the watch")
                self._check(response, starts)
                yield response
        finally:
            call.cancel()
            if reading is not None:
                reading.cancel()
                with contextlib.suppress(asyncio.CancelledError, grpc.aio.AioRpcError):
                    await reading

    def _check(self, response: Any, starts: Mapping[bytes, int]) -> None:
        """Act on what ends a watch, which can come in the very message that says that it was created."""
        if response.canceled:
            reason = response.cancel_reason or "no reason given"
            if response.compact_revision:
                raise Expired(f"compacted up to {response.compact_revision}")
            if is_stale_token(reason):
                self._client.forget_token()
            elif "permission denied" in reason:
                raise DatastoreError(
                    f"etcd at {self._client.endpoint}: the user may not watch Calico's keys ({reason})"
                )
            raise Unavailable(f"etcd at {self._client.endpoint} has cancelled the watch ({reason})")
        if not response.created:
            return
        prefix = self._prefixes[len(self._prefix_of)]
        self._prefix_of[response.watch_id] = prefix
        if response.header.cluster_id != self._cluster:
            raise Expired("this is another etcd cluster than before")
        if response.header.revision < starts[prefix] - 1:
            # Restored from a backup: what we know may never have happened.
            raise Expired(f"the revision has gone back to {response.header.revision}")

    def _changes(self, events: Iterable[Any]) -> builtins.list[StoreChange]:
        found: list[StoreChange] = []
        for event in events:
            kv = event.kv
            before = self._known.get(kv.key)
            if before is not None and kv.mod_revision <= before[0]:
                continue
            if event.type == pb.Event.DELETE:
                change = _change(kv.key, None)
                self._known[kv.key] = (kv.mod_revision, 0, None)
            else:
                entry = self._known[kv.key] = self._read(kv)
                change = entry[2]
            if change is not None:
                found.append(change)
        return found


def _change(key: bytes, value: bytes | None) -> StoreChange | None:
    return etcd_keys.change(key.decode("utf-8", "backslashreplace"), value)


def prefix_end(prefix: bytes) -> bytes:
    """The first key after all that begin so. Prefixes end with "/", so the last octet can be raised."""
    return prefix[:-1] + bytes((prefix[-1] + 1,))
