"""What the etcd source makes of a watch's responses, also of those that a healthy etcd never sends."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable
from typing import Any

import grpc.aio
import pytest

from config import etcd_pb2 as pb
from config import resources as r
from config.etcd import EtcdSource
from config.etcd_keys import RESOURCES, prefixes
from config.snapshot import Put, Remove, StoreChange
from config.source import Batch, DatastoreError, Expired, Unavailable

CLUSTER = 7
STORE = f"{RESOURCES}ippools/"
PREFIXES = prefixes("a")
POOLS = PREFIXES.index(STORE)
"""The number of the watch on pools."""


def value(name: str, second: int) -> bytes:
    return json.dumps(
        {
            "apiVersion": "projectcalico.org/v3",
            "kind": "IPPool",
            "metadata": {"name": name},
            "spec": {"cidr": f"10.{second}.0.0/16"},
        }
    ).encode()


def kv(name: str, revision: int, second: int) -> Any:
    return pb.KeyValue(key=f"{STORE}{name}".encode(), value=value(name, second), mod_revision=revision)


def put(name: str, revision: int, second: int) -> Any:
    return pb.Event(type=pb.Event.PUT, kv=kv(name, revision, second))


def gone(name: str, revision: int) -> Any:
    return pb.Event(type=pb.Event.DELETE, kv=pb.KeyValue(key=f"{STORE}{name}".encode(), mod_revision=revision))


def header(revision: int, cluster: int = CLUSTER) -> Any:
    return pb.ResponseHeader(revision=revision, cluster_id=cluster)


def created(watch: int, revision: int, **more: Any) -> Any:
    return pb.WatchResponse(header=header(revision), watch_id=watch, created=True, **more)


def events(revision: int, *found: Any) -> Any:
    return pb.WatchResponse(header=header(revision), watch_id=POOLS, events=found)


class Call:
    """A stream that gives these responses, and then nothing."""

    def __init__(self, responses: Iterable[Any]) -> None:
        self.responses = list(responses)
        self.asked: list[Any] = []

    async def write(self, request: Any) -> None:
        self.asked.append(request)

    async def read(self) -> Any:
        if self.responses:
            return self.responses.pop(0)
        return grpc.aio.EOF

    def cancel(self) -> None:
        pass


async def watched(*responses: Any, known: Iterable[Any] = ()) -> tuple[list[Batch], Exception, Call]:
    """The batches, what ended them, and the stream: of a watch after a listing at revision 10 with `known`."""
    source = EtcdSource("etcd://127.0.0.1:1", node="a", env={})

    async def listing(request: Any) -> Any:
        return pb.RangeResponse(header=header(10), kvs=known if request.key == STORE.encode() else ())

    call = Call(responses)

    async def stream() -> Call:
        return call

    source._client.call = listing  # type: ignore[method-assign]
    source._client.watch = stream  # type: ignore[method-assign]
    revision = (await source.list()).revision
    batches: list[Batch] = []
    try:
        async for batch in source.watch(revision):
            batches.append(batch)
    except (Expired, Unavailable, DatastoreError) as error:
        return batches, error, call
    finally:
        await source.close()
    raise AssertionError("a watch never ends quietly")


def said(changes: Iterable[StoreChange]) -> list[tuple[str, str | None]]:
    found = [(change.key[1], change.resource if isinstance(change, Put) else None) for change in changes]
    return [(name, str(made.cidr) if isinstance(made, r.IPPool) else None) for name, made in found]


def all_created(revision: int) -> list[Any]:
    return [created(number, revision) for number in range(len(PREFIXES))]


def starts(batch: Batch) -> dict[str, int]:
    """Where to go on, of the watches that are not at the beginning."""
    assert isinstance(batch.revision, dict)
    return {prefix.decode(): start for prefix, start in batch.revision.items() if start != 11}


def test_events_twice_and_in_the_wrong_order() -> None:
    """Of one key the newest counts, whatever comes after it; what a listing knew is no news."""
    batches, _, _ = asyncio.run(
        watched(
            *all_created(10),
            events(13, put("p", 12, 2), put("p", 11, 1), put("p", 12, 2), put("old", 9, 9)),
            events(15, gone("p", 15), put("p", 14, 4), gone("p", 13)),
            events(16, gone("p", 15), put("q", 16, 6)),
            known=[kv("old", 9, 9)],
        )
    )
    found = [said(batch.changes) for batch in batches if batch.changes]
    assert found == [[("p", "10.2.0.0/16")], [("p", None)], [("q", "10.6.0.0/16")]]
    assert isinstance(batches[-2].changes[0], Remove)


def test_a_header_that_is_ahead_of_its_events_does_not_move_the_place_to_go_on_from() -> None:
    """While a watch catches up its headers carry the store's revision, and so does `created`."""
    batches, _, call = asyncio.run(watched(*all_created(900), events(900, put("p", 12, 1))))
    asked = [request.create_request for request in call.asked]
    assert {create.start_revision for create in asked} == {11} and all(create.progress_notify for create in asked)
    assert starts(batches[-1]) == {STORE: 13}


def test_a_progress_notification_moves_its_own_watch_alone() -> None:
    progress = pb.WatchResponse(header=header(500), watch_id=POOLS)
    batches, _, _ = asyncio.run(watched(*all_created(10), progress))
    assert starts(batches[-1]) == {STORE: 501} and not batches[-1].changes


def test_the_answer_to_a_question_moves_nothing() -> None:
    """watch_id -1: etcd may say it while a watch still catches up."""
    batches, _, _ = asyncio.run(watched(*all_created(10), pb.WatchResponse(header=header(500), watch_id=-1)))
    assert len(batches) > len(PREFIXES) and not starts(batches[-1])


def cancelled(**more: Any) -> Any:
    return pb.WatchResponse(header=header(0), canceled=True, **more)


@pytest.mark.parametrize(
    ("response", "kind", "words"),
    [
        (created(0, 10, canceled=True, cancel_reason="invalid auth token"), Unavailable, "invalid auth token"),
        (created(0, 10, canceled=True, cancel_reason="permission denied"), DatastoreError, "may not watch"),
        (created(0, 0, canceled=True, compact_revision=400), Expired, "compacted up to 400"),
        (cancelled(compact_revision=400), Expired, "compacted up to 400"),
        (cancelled(), Unavailable, "cancelled the watch (no reason given)"),
        (created(0, 9), Expired, "the revision has gone back to 9"),
        (pb.WatchResponse(header=header(99, 8), created=True), Expired, "another etcd cluster"),
    ],
)
def test_what_ends_a_watch(response: Any, kind: type[Exception], words: str) -> None:
    """Also in the message that says that it was created."""
    batches, error, _ = asyncio.run(watched(response, events(11, put("p", 11, 1))))
    assert isinstance(error, kind) and words in str(error)
    assert not any(batch.changes for batch in batches)
