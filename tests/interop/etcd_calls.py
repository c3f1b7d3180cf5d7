"""etcd's calls as a test wants them: single keys, deletion of ranges, compaction, and insisting through outages."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import grpc.aio

from config import etcd_pb2 as pb

__all__ = ["Raw"]


class Raw:
    """A connection without TLS or user."""

    def __init__(self, url: str) -> None:
        options = (("grpc.max_reconnect_backoff_ms", 200), ("grpc.initial_reconnect_backoff_ms", 100))
        self._channel = grpc.aio.insecure_channel(url.removeprefix("etcd://"), options)

    async def __aenter__(self) -> Raw:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._channel.close()

    async def _call(self, name: str, request: Any, response: Any) -> Any:
        method: Any = self._channel.unary_unary(
            f"/etcdserverpb.KV/{name}",
            request_serializer=type(request).SerializeToString,
            response_deserializer=response.FromString,
        )
        return await method(request, timeout=5)

    async def put(self, key: str, value: str) -> int:
        """Write; the revision."""
        request = pb.PutRequest(key=key.encode(), value=value.encode())
        return int((await self._call("Put", request, pb.PutResponse)).header.revision)

    async def delete(self, key: str, end: str = "") -> int:
        """Remove a key, or all from `key` up to `end`; the revision."""
        request = pb.DeleteRangeRequest(key=key.encode(), range_end=end.encode())
        return int((await self._call("DeleteRange", request, pb.DeleteRangeResponse)).header.revision)

    async def get(self, key: str, end: str = "") -> dict[str, str]:
        """A key's value, or those of all from `key` up to `end`."""
        request = pb.RangeRequest(key=key.encode(), range_end=end.encode())
        response = await self._call("Range", request, pb.RangeResponse)
        return {kv.key.decode(): kv.value.decode() for kv in response.kvs}

    async def history(self, key: str, end: str, last: int) -> list[tuple[str, str | None]]:
        """(key, value or None) of each write and deletion from `key` up to `end`; `last`: the revision of the last."""
        method: Any = self._channel.stream_stream(
            "/etcdserverpb.Watch/Watch",
            request_serializer=pb.WatchRequest.SerializeToString,
            response_deserializer=pb.WatchResponse.FromString,
        )
        call = method()
        create = pb.WatchCreateRequest(key=key.encode(), range_end=end.encode(), start_revision=1)
        await call.write(pb.WatchRequest(create_request=create))
        found: list[tuple[str, str | None]] = []
        at = 0
        while at < last:
            for event in (await call.read()).events:
                at = event.kv.mod_revision
                gone = event.type == pb.Event.DELETE
                found.append((event.kv.key.decode(), None if gone else event.kv.value.decode()))
        call.cancel()
        return found

    async def compact(self, revision: int) -> None:
        """Forget the history before a revision."""
        await self._call("Compact", pb.CompactionRequest(revision=revision, physical=True), pb.CompactionResponse)

    @staticmethod
    async def insist(call: Callable[[], Awaitable[object]]) -> None:
        """Until it works."""
        while True:
            try:
                await call()
                return
            except grpc.aio.AioRpcError:
                await asyncio.sleep(0.02)
