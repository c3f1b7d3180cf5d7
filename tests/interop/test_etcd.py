"""The etcd datastore against a real etcd: reading, writing, outages, compaction, users, TLS."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import re
import shutil
import sys
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from config import resources as r
from config.datastore import Datastore, DatastoreError, open_datastore, open_editor
from config.etcd import EtcdEditor, EtcdSource
from config.etcd_keys import RESOURCES, place_of, stored
from config.follower import Follower
from config.snapshot import Put, Snapshot
from config.source import Batch, Expired, Unavailable
from tests.interop.common import PEER_AS, peer_config, session
from tests.interop.conftest import OURS4, PEER4, Pair
from tests.interop.etcd_calls import Raw
from tests.interop.etcd_server import EtcdServer, certificates, expire
from tests.interop.model import IPV4
from tests.interop.namespace import Namespace, wait_until
from tests.interop.ours import Ours
from tests.interop.peers import Bird, need
from tests.kube.server import KubeServer
from tests.kube.support import peer, secret

pytestmark = pytest.mark.interop
GROUP = "projectcalico.org/v3"


def node(name: str) -> dict[str, Any]:
    return {
        "kind": "Node",
        "apiVersion": GROUP,
        "metadata": {"name": name},
        "spec": {"bgp": {"ipv4Address": "10.0.0.1"}},
    }


def pool(name: str, cidr: str = "10.244.0.0/16") -> dict[str, Any]:
    return {"kind": "IPPool", "apiVersion": GROUP, "metadata": {"name": name}, "spec": {"cidr": cidr}}


def block(owner: str, cidr: str) -> dict[str, Any]:
    spec = {"node": owner, "cidr": cidr, "state": "confirmed"}
    return {"kind": "BlockAffinity", "apiVersion": GROUP, "metadata": {"name": "any"}, "spec": spec}


def cidrs(snapshot: Snapshot) -> dict[str, str]:
    return {name: str(found.cidr) for name, found in snapshot.of(r.IPPool).items()}


class Followed:
    """A running datastore whose state can be waited for."""

    def __init__(self, store: Datastore) -> None:
        self.store = store
        self.snapshots: list[Snapshot] = []
        self._news = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def _on_snapshot(self, snapshot: Snapshot) -> None:
        self.snapshots.append(snapshot)
        self._news.set()

    async def __aenter__(self) -> Followed:
        self._task = asyncio.create_task(self.store.run(self._on_snapshot))
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._task is not None
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def until(self, holds: Callable[[Snapshot], bool], seconds: float = 30) -> Snapshot:
        """The first snapshot of which it holds. The limit only ends a hanging test."""
        assert self._task is not None
        async with asyncio.timeout(seconds):
            while not self.snapshots or not holds(self.snapshots[-1]):
                self._news.clear()
                waiting = asyncio.ensure_future(self._news.wait())
                await asyncio.wait({waiting, self._task}, return_when=asyncio.FIRST_COMPLETED)
                if self._task.done():
                    waiting.cancel()
                    await self._task
        return self.snapshots[-1]

    async def disconnected(self) -> str:
        """Why, once it is noticed."""
        async with asyncio.timeout(30):
            while self.store.status().connected:
                await asyncio.sleep(0.02)
        return self.store.status().text


def followed(etcd: EtcdServer, state: Path | None = None, env: dict[str, str] | None = None) -> Followed:
    return Followed(open_datastore(etcd.url, node="a", state_dir=str(state) if state else None, env=env or {}))


@pytest.fixture
async def etcd(tmp_path: Path) -> AsyncIterator[EtcdServer]:
    (tmp_path / "etcd").mkdir()
    server = EtcdServer(tmp_path / "etcd")
    try:
        await server.start()
        yield server
    finally:
        server.kill()


@pytest.fixture
async def editor(etcd: EtcdServer) -> AsyncIterator[EtcdEditor]:
    made = EtcdEditor(etcd.url, env={})
    yield made
    await made.close()


async def test_objects_are_written_listed_and_watched(etcd: EtcdServer, editor: EtcdEditor) -> None:
    assert await editor.apply(node("a")) == "created"
    for owner in ("a", "b"):
        assert await editor.apply(block(owner, "10.244.3.0/26")) == "created"
    async with followed(etcd) as store:
        first = await store.until(lambda snapshot: True)
        # The own node's blocks only.
        assert set(first.of(r.Node)) == {"a"} and set(first.of(r.BlockAffinity)) == {"a-10-244-3-0-26"}
        assert await editor.apply(pool("p")) == "created"
        assert await editor.apply(block("a", "fd00::/122")) == "created"
        await store.until(lambda snapshot: len(snapshot.of(r.BlockAffinity)) == 2 and "p" in snapshot.of(r.IPPool))
        assert await editor.apply(pool("p", "10.0.0.0/8")) == "configured"
        await store.until(lambda snapshot: cidrs(snapshot) == {"p": "10.0.0.0/8"})
        assert await editor.apply(pool("p", "10.0.0.0/8")) == "unchanged"
        assert await editor.delete("IPPool", "p") and not await editor.delete("IPPool", "p")
        assert await editor.delete("BlockAffinity", "a-fd00---122")
        last = await store.until(lambda snapshot: not cidrs(snapshot) and len(snapshot.of(r.BlockAffinity)) == 1)
        assert not last.problems


async def test_what_is_written_is_what_calico_writes(etcd: EtcdServer, editor: EtcdEditor) -> None:
    """Seen through etcd's JSON gateway, which is not the way that it was written."""
    await editor.apply({**pool("p"), "metadata": {"name": "p", "labels": {"a": "b"}, "resourceVersion": ""}})
    async with Raw(etcd.url) as raw:
        (stored,) = (await raw.get(f"{RESOURCES}ippools/p")).values()
    value = json.loads(stored)
    metadata = value.pop("metadata")
    assert value == {"kind": "IPPool", "apiVersion": GROUP, "spec": {"cidr": "10.244.0.0/16"}}
    assert set(metadata) == {"name", "labels", "uid", "creationTimestamp"}
    (shown,) = await editor.get("IPPool")
    assert shown["metadata"]["resourceVersion"].isdecimal()
    uid = metadata["uid"]
    await editor.apply(pool("p", "10.0.0.0/8"))
    (shown,) = await editor.get("IPPool", "p")
    assert shown["metadata"]["uid"] == uid and "labels" not in shown["metadata"]


async def test_two_writers_do_not_undo_each_other(etcd: EtcdServer, editor: EtcdEditor) -> None:
    await editor.apply(pool("p"))
    (read,) = await editor.get("IPPool", "p")
    await editor.apply(pool("p", "10.1.0.0/16"))
    with pytest.raises(DatastoreError, match="was changed by somebody else"):
        await editor.apply({**read, "spec": {"cidr": "10.2.0.0/16"}})
    with pytest.raises(DatastoreError, match="was changed by somebody else"):
        await editor.apply({**pool("new"), "metadata": {"name": "new", "resourceVersion": "5"}})
    async with asyncio.TaskGroup() as group:
        for number in range(5):
            group.create_task(editor.apply(pool("p", f"10.{number}.0.0/16")))
    assert len(await editor.get("IPPool")) == 1


async def test_more_than_a_page(etcd: EtcdServer, editor: EtcdEditor) -> None:
    async with Raw(etcd.url) as raw:
        for number in range(2500):
            await raw.put(f"{RESOURCES}ippools/p{number}", json.dumps(pool(f"p{number}")))
        assert len(await editor.get("IPPool")) == 2500
        async with followed(etcd) as store:
            assert len((await store.until(lambda snapshot: True)).of(r.IPPool)) == 2500


async def test_garbage_costs_its_objects_alone(etcd: EtcdServer, editor: EtcdEditor) -> None:
    await editor.apply(node("a"))
    await editor.apply(pool("p", "10.1.0.0/16"))
    async with Raw(etcd.url) as raw, followed(etcd) as store:
        await store.until(lambda snapshot: True)
        await raw.put(f"{RESOURCES}ippools/p", "{")
        await raw.put(f"{RESOURCES}ippools/q", json.dumps({**pool("q"), "spec": {"cidr": "x" * (1 << 20)}}))
        await raw.put(f"{RESOURCES}nodes/b", "7")
        await raw.put(f"{RESOURCES}ippools/r", json.dumps(pool("r")))
        last = await store.until(lambda snapshot: "r" in cidrs(snapshot))
        assert cidrs(last) == {"p": "10.1.0.0/16", "r": "10.244.0.0/16"} and set(last.of(r.Node)) == {"a"}
        assert set(last.problems) == {("IPPool", "p"), ("IPPool", "q"), ("Node", "b")}
        assert f"{RESOURCES}ippools/p" in str(last.problems["IPPool", "p"][0])
        await raw.put(f"{RESOURCES}ippools/p", json.dumps(pool("p", "10.3.0.0/16")))
        last = await store.until(lambda snapshot: cidrs(snapshot)["p"] == "10.3.0.0/16")
        assert ("IPPool", "p") not in last.problems


# --- outages


async def test_changes_around_a_restart_are_seen(etcd: EtcdServer, editor: EtcdEditor) -> None:
    await editor.apply(node("a"))
    async with followed(etcd) as store:
        first = await store.until(lambda snapshot: True)
        etcd.kill()
        assert str(etcd.port) in await store.disconnected()
        assert store.store.snapshot is first
        await etcd.start()
        await editor.apply(pool("p"))
        await store.until(lambda snapshot: "p" in cidrs(snapshot))
        assert store.store.status().connected


async def test_compaction_during_an_outage(etcd: EtcdServer, editor: EtcdEditor) -> None:
    await editor.apply(node("a"))
    await editor.apply(pool("old"))
    async with followed(etcd) as store:
        await store.until(lambda snapshot: True)
        etcd.kill()
        await store.disconnected()
        # Away long enough for its next attempt to come late; what happens meanwhile is compacted.
        await etcd.start()
        async with Raw(etcd.url) as raw:
            for number in range(20):
                await raw.put(f"{RESOURCES}ippools/new", json.dumps(pool("new", f"10.{number}.0.0/16")))
            revision = await raw.delete(f"{RESOURCES}ippools/old")
            await raw.compact(revision)
        await store.until(lambda snapshot: cidrs(snapshot) == {"new": "10.19.0.0/16"})


async def watched(source: EtcdSource, revision: object) -> None:
    """Watch until that ends."""
    async with asyncio.timeout(20):
        async for _ in source.watch(revision):
            pass


async def begun(source: EtcdSource, revision: object) -> None:
    """Watch until that has begun; etcd may be on its way up."""
    async with asyncio.timeout(20), contextlib.aclosing(source.watch(revision)) as batches:
        await anext(batches)


async def test_revisions_that_cannot_be_gone_on_from(etcd: EtcdServer, editor: EtcdEditor) -> None:
    """Compacted ones; those of another cluster, which may have less to tell than we know."""
    for number in range(10):
        await editor.apply(pool("p", f"10.{number}.0.0/16"))
    source = EtcdSource(etcd.url, node="a", env={})
    listing = await source.list()
    async with Raw(etcd.url) as raw:
        await raw.put("/elsewhere", "")
        await raw.compact(await raw.put("/elsewhere", ""))
    with pytest.raises(Expired, match="compacted up to"):
        await watched(source, listing.revision)
    listing = await source.list()
    etcd.kill()
    etcd.wipe()
    await etcd.start()
    with pytest.raises(Expired, match=r"gone back|another etcd cluster"):
        async with asyncio.timeout(20):
            while True:
                with contextlib.suppress(Unavailable):
                    await watched(source, listing.revision)
    assert not (await source.list()).changes
    await source.close()


@pytest.mark.parametrize("compacted", [False, True])
async def test_a_restore_whose_revisions_have_gone_past_ours(
    compacted: bool, etcd: EtcdServer, editor: EtcdEditor, tmp_path: Path
) -> None:
    """Neither the revision nor the cluster's id shows it: what is known has never happened there."""
    await editor.apply(node("a"))
    await editor.apply(pool("p", "10.1.0.0/16"))
    etcd.kill()
    shutil.copytree(etcd.folder / "data", tmp_path / "backup")
    await etcd.start()
    source = EtcdSource(etcd.url, node="a", env={})
    await editor.apply(pool("lost", "10.2.0.0/16"))
    await editor.apply(pool("p", "10.3.0.0/16"))
    revision = (await source.list()).revision
    await begun(source, revision)
    # As long as nothing is restored, it goes on where it was.
    etcd.kill()
    await etcd.start()
    with contextlib.suppress(Unavailable):
        await begun(source, revision)
    await begun(source, revision)
    etcd.kill()
    shutil.rmtree(etcd.folder / "data")
    shutil.copytree(tmp_path / "backup", etcd.folder / "data")
    await etcd.start()
    async with Raw(etcd.url) as raw:
        for number in range(5):
            last = await raw.put(f"/elsewhere/{number}", "")
        if compacted:
            await raw.compact(last)
    with pytest.raises(Expired, match="another history"):
        async with asyncio.timeout(20):
            while True:
                with contextlib.suppress(Unavailable):
                    await begun(source, revision)
    assert {change.key[1] for change in (await source.list()).changes} == {"a", "p"}
    await source.close()


async def test_the_end_of_a_replay_is_where_it_goes_on(etcd: EtcdServer, editor: EtcdEditor) -> None:
    """While a watch catches up, headers are ahead of the events: leave it after each batch, and nothing is lost."""
    source = EtcdSource(etcd.url, node="a", env={})
    revision = (await source.list()).revision
    async with Raw(etcd.url) as raw:
        for number in range(3000):
            await raw.put(f"{RESOURCES}ippools/p{number}", json.dumps(pool(f"p{number}")))
    seen: list[str] = []
    async with asyncio.timeout(60):
        while len(seen) < 3000:
            watch = source.watch(revision)
            batch = await anext(watch)
            while not batch.changes:
                batch = await anext(watch)
            revision = batch.revision
            seen += [change.key[1] for change in batch.changes]
            await watch.aclose()
    assert seen == [f"p{number}" for number in range(3000)]
    await source.close()


async def test_a_silent_watch_is_asked_whether_it_lives(etcd: EtcdServer) -> None:
    """And one that does not answer, as behind a firewall that drops everything, is left."""
    source = EtcdSource(etcd.url, node="a", env={}, silence=0.3)
    listing = await source.list()
    watch = source.watch(listing.revision)
    async with asyncio.timeout(20):
        for _ in range(20):
            assert not (await anext(watch)).changes
    etcd.freeze()
    with pytest.raises(Unavailable, match=r"no sign of life for 0\.6 s"):
        async with asyncio.timeout(20):
            await anext(watch)
    await source.close()


async def test_a_progress_notification_carries_a_watch_over_a_compaction(tmp_path: Path) -> None:
    """Nothing of ours happens, all else does: without it, every quiet watch would have to list again."""
    etcd = EtcdServer(tmp_path, "--experimental-watch-progress-notify-interval", "300ms")
    source = EtcdSource(etcd.url, node="a", env={})
    try:
        await etcd.start()
        editor = EtcdEditor(etcd.url, env={})
        await editor.apply(node("a"))
        revision: Any = (await source.list()).revision
        async with Raw(etcd.url) as raw, asyncio.timeout(30):
            for _ in range(50):
                last = await raw.put("/elsewhere", "")
            watch = source.watch(revision)
            while min(revision.values()) <= last:
                revision = (await anext(watch)).revision
            await watch.aclose()
            await raw.compact(last)
            await editor.apply(pool("p"))
            async for batch in source.watch(revision):
                if batch.changes:
                    break
        assert [change.key for change in batch.changes] == [("IPPool", "p")]
        await editor.close()
    finally:
        await source.close()
        etcd.kill()


async def test_a_wiped_etcd_is_held_back(etcd: EtcdServer, editor: EtcdEditor, tmp_path: Path) -> None:
    await editor.apply(node("a"))
    await editor.apply(pool("p"))
    async with followed(etcd, tmp_path / "state") as store:
        await store.until(lambda snapshot: True)
        etcd.kill()
        etcd.wipe()
        await etcd.start()
        last = await store.until(lambda snapshot: not snapshot.complete)
        assert set(last.of(r.Node)) == {"a"} and set(cidrs(last)) == {"p"}
        assert "accept-empty" in last.source_problems[0].allowed
        await editor.apply(node("a"))
        await editor.apply(pool("p", "10.9.0.0/16"))
        last = await store.until(lambda snapshot: snapshot.complete)
        assert cidrs(last) == {"p": "10.9.0.0/16"}


async def test_a_wipe_of_all_keys_is_held_back_until_confirmed(
    etcd: EtcdServer, editor: EtcdEditor, tmp_path: Path
) -> None:
    await editor.apply(node("a"))
    await editor.apply(pool("p"))
    async with followed(etcd, tmp_path / "state") as store, Raw(etcd.url) as raw:
        await store.until(lambda snapshot: True)
        await raw.delete("/calico/", "/calico0")
        last = await store.until(lambda snapshot: not snapshot.complete)
        assert set(cidrs(last)) == {"p"}
        (tmp_path / "state").mkdir(exist_ok=True)
        (tmp_path / "state" / "accept-empty").touch()
        await store.until(lambda snapshot: snapshot.complete and not len(snapshot))


async def test_a_start_without_etcd_goes_on_with_the_copy(etcd: EtcdServer, editor: EtcdEditor, tmp_path: Path) -> None:
    await editor.apply(node("a"))
    await editor.apply(pool("p"))
    async with followed(etcd, tmp_path / "state") as store:
        first = await store.until(lambda snapshot: True)
    etcd.kill()
    async with followed(etcd, tmp_path / "state") as store:
        last = await store.until(lambda snapshot: True)
        assert last.objects == first.objects and not last.complete
        assert "refused" in last.source_problems[0].text and 0 < store.store.status().age < 60
        await etcd.start()
        last = await store.until(lambda snapshot: snapshot.complete)
        assert last.objects == first.objects and not last.source_problems


RESTARTS = int(os.environ.get("ETCD_RESTARTS", "4"))
"""50 is the project's figure; it takes two minutes."""


class Recording(EtcdSource):
    """It remembers what its watches brought: (name, CIDR or None) of each change."""

    def __init__(self, url: str) -> None:
        super().__init__(url, node="a", env={})
        self.brought: list[tuple[str, str | None]] = []
        self.watches = 0

    async def watch(self, revision: object) -> AsyncGenerator[Batch, None]:
        self.watches += 1
        async with contextlib.aclosing(super().watch(revision)) as batches:
            async for batch in batches:
                for change in batch.changes:
                    found = change.resource if isinstance(change, Put) else None
                    self.brought.append((change.key[1], str(found.cidr) if isinstance(found, r.IPPool) else None))
                yield batch


async def test_no_event_is_lost_over_restarts(
    etcd: EtcdServer, figure: Callable[[str, object], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kill etcd again and again while objects are written, changed and removed; compare with what etcd says.

    The state must be etcd's, and what the watches brought must be its history, event by event: none lost, none twice.
    """
    # A new listing would hide what a watch had lost.
    monkeypatch.setattr("config.follower.ATTEMPTS", 1 << 30)
    async with Raw(etcd.url) as raw:
        await raw.put(f"{RESOURCES}nodes/a", json.dumps(node("a")))

    written = 0

    async def write(raw: Raw) -> None:
        """200 changes, whatever it takes."""
        nonlocal written
        for _ in range(200):
            name, octets = f"p{written % 37}", (written // 250 % 250, written % 250)
            key, text = f"{RESOURCES}ippools/{name}", json.dumps(pool(name, f"10.{octets[0]}.{octets[1]}.0/24"))
            call = partial(raw.delete, key) if written % 5 == 4 else partial(raw.put, key, text)
            await raw.insist(call)
            written += 1

    source = Recording(etcd.url)
    async with Followed(Follower(source, node="a")) as store, Raw(etcd.url) as raw:
        await store.until(lambda snapshot: True)
        for _ in range(RESTARTS):
            start, writing = written, asyncio.create_task(write(raw))
            while written < start + 100:
                await asyncio.sleep(0.001)
            etcd.kill()
            await etcd.start()
            await writing
        begin, end = f"{RESOURCES}ippools/", f"{RESOURCES}ippools0"
        async with Raw(etcd.url) as raw:
            last = await raw.put(f"{begin}last", json.dumps(pool("last")))
            stored, history = await raw.get(begin, end), await raw.history(begin, end, last)
        await store.until(lambda snapshot: cidrs(snapshot) == dict(map(meant, stored.items())))
        assert source.brought == list(map(meant, history))
        figure("restarts, changes, events, watches", (RESTARTS, written, len(history), source.watches))


def meant(item: tuple[str, str | None]) -> tuple[str, str | None]:
    """Name and CIDR of a stored pool."""
    return item[0].rpartition("/")[2], None if item[1] is None else json.loads(item[1])["spec"]["cidr"]


# --- who may


async def with_users(etcd: EtcdServer, **more: tuple[str, ...]) -> None:
    """Users root (all), calico (below /calico/) and nobody, and authentication on.

    `more`: name of a user and a role, with (READ or READWRITE, beginning of keys, ...).
    """
    call = etcd.gateway
    roles = {"calico": ("READWRITE", "/calico/"), **more}
    for role, (right, *beginnings) in roles.items():
        await call("auth/role/add", {"name": role})
        for key in beginnings:
            ends = (key.encode(), key[:-1].encode() + b"0")
            start, end = (base64.b64encode(text).decode() for text in ends)
            permission = {"permType": right, "key": start, "range_end": end}
            await call("auth/role/grant", {"name": role, "perm": permission})
    for user, role in (("root", "root"), ("nobody", ""), *((name, name) for name in roles)):
        await call("auth/user/add", {"name": user, "password": "hunter2"})
        if role:
            await call("auth/user/grant", {"user": user, "role": role})
    await call("auth/enable", {})


USER = {"ETCD_USERNAME": "calico", "ETCD_PASSWORD": "hunter2"}


async def test_a_token_that_expires_is_renewed(tmp_path: Path) -> None:
    etcd = EtcdServer(tmp_path, "--auth-token-ttl", "1")
    try:
        await etcd.start()
        await with_users(etcd)
        editor = open_editor(etcd.url, env=USER)
        await editor.apply(node("a"))
        async with followed(etcd, env=USER) as store:
            await store.until(lambda snapshot: True)
            # Longer than the token lives. The restart forgets it too, and cuts the watch.
            await asyncio.sleep(2.5)
            assert await editor.apply(pool("p")) == "created"
            await store.until(lambda snapshot: "p" in cidrs(snapshot))
            etcd.kill()
            await etcd.start()
            assert await editor.apply(pool("q")) == "created"
            await store.until(lambda snapshot: "q" in cidrs(snapshot))
        await editor.close()
    finally:
        etcd.kill()


async def test_a_watch_with_an_expired_token_does_not_hang(tmp_path: Path) -> None:
    """etcd says `created` and `canceled` in one message and leaves the stream open."""
    etcd = EtcdServer(tmp_path, "--auth-token-ttl", "1")
    try:
        await etcd.start()
        await with_users(etcd)
        source = EtcdSource(etcd.url, node="a", env=USER)
        listing = await source.list()
        await asyncio.sleep(2.5)
        with pytest.raises(Unavailable, match="invalid auth token"):
            await watched(source, listing.revision)
        # The next attempt has a new token, and goes on where the watch was.
        async with asyncio.timeout(10):
            await anext(source.watch(listing.revision))
        await source.close()
    finally:
        etcd.kill()


@pytest.mark.parametrize(
    ("env", "words"),
    [
        ({}, r"etcd asks for a user .*user name is empty.*ETCD_USERNAME"),
        ({**USER, "ETCD_PASSWORD": "wrong"}, "the user calico is not let in .*invalid user ID or password"),
        ({**USER, "ETCD_USERNAME": "nobody"}, "the user nobody may not do this .*permission denied"),
    ],
)
async def test_who_is_not_let_in_is_told(env: dict[str, str], words: str, etcd: EtcdServer) -> None:
    await with_users(etcd)
    store = open_datastore(etcd.url, node="a", state_dir=None, env=env)
    with pytest.raises(DatastoreError, match=words) as raised:
        async with asyncio.timeout(20):
            await store.run(lambda snapshot: None)
    assert "hunter2" not in str(raised.value)


async def test_the_rights_that_the_docs_name_are_enough(etcd: EtcdServer, editor: EtcdEditor) -> None:
    """docs/datastores.md: reading resources, and the blocks of this node. Writing is refused, in words."""
    for value in (node("a"), block("a", "10.244.3.0/26")):
        await editor.apply(value)
    await with_users(etcd, reader=("READ", RESOURCES, "/calico/ipam/v2/host/a/"))
    env = {"ETCD_USERNAME": "reader", "ETCD_PASSWORD": "hunter2"}
    async with followed(etcd, env=env) as store:
        await store.until(lambda snapshot: "a" in snapshot.of(r.Node) and bool(snapshot.of(r.BlockAffinity)))
        writer = open_editor(etcd.url, env=USER)
        await writer.apply(pool("p"))
        await store.until(lambda snapshot: "p" in cidrs(snapshot))
        await writer.close()
    refused = open_editor(etcd.url, env=env)
    with pytest.raises(DatastoreError, match=r"the user reader may not do this .*permission denied.*grant it a role"):
        await refused.apply(pool("q"))
    await refused.close()


async def test_a_user_where_etcd_asks_for_none(etcd: EtcdServer, editor: EtcdEditor) -> None:
    await editor.apply(node("a"))
    async with followed(etcd, env=USER) as store:
        await store.until(lambda snapshot: "a" in snapshot.of(r.Node))


# --- TLS


@pytest.fixture
async def secure(tmp_path: Path) -> AsyncIterator[tuple[EtcdServer, Path]]:
    certificates(tmp_path)
    (tmp_path / "etcd").mkdir()
    server = EtcdServer(tmp_path / "etcd", tls=tmp_path)
    try:
        await server.start()
        yield server, tmp_path
    finally:
        server.kill()


def tls(folder: Path, ca: str = "ca") -> dict[str, str]:
    return {
        "ETCD_CA_CERT_FILE": f"{folder}/{ca}.pem",
        "ETCD_CERT_FILE": f"{folder}/client.pem",
        "ETCD_KEY_FILE": f"{folder}/client.key",
    }


async def test_tls_with_a_client_certificate(secure: tuple[EtcdServer, Path]) -> None:
    etcd, folder = secure
    editor = open_editor(etcd.url, env=tls(folder))
    await editor.apply(node("a"))
    async with followed(etcd, env=tls(folder)) as store:
        await store.until(lambda snapshot: "a" in snapshot.of(r.Node))
        etcd.kill()
        await store.disconnected()
        await etcd.start()
        await editor.apply(pool("p"))
        await store.until(lambda snapshot: "p" in cidrs(snapshot))
    await editor.close()


@pytest.mark.parametrize(
    "case",
    ["other authority", "no certificate", "no TLS", "no such file", "no pair", "garbage", "no authority", "expired"],
)
async def test_tls_that_fails_is_told(case: str, secure: tuple[EtcdServer, Path]) -> None:
    etcd, folder = secure
    url, env = etcd.url, tls(folder)
    if case == "other authority":
        env, words = tls(folder, "other"), "no TLS connection .*CERTIFICATE_VERIFY_FAILED.*ETCD_CA_CERT_FILE"
    elif case == "no certificate":
        env, words = {"ETCD_CA_CERT_FILE": env["ETCD_CA_CERT_FILE"]}, "no TLS connection .*ETCD_CERT_FILE names none"
    elif case == "no TLS":
        url, env, words = url.replace("etcds", "etcd"), {}, "if etcd wants TLS, write etcds://"
    elif case == "no pair":
        env["ETCD_KEY_FILE"] = f"{folder}/server.key"
        words = "client.pem of ETCD_CERT_FILE and .*server.key of ETCD_KEY_FILE cannot be used together: key values"
    elif case == "garbage":
        (folder / "client.pem").write_text("garbage")
        words = "client.pem of ETCD_CERT_FILE and .* cannot be used together: "
    elif case == "no authority":
        (folder / "ca.pem").write_text("garbage")
        words = "ca.pem of ETCD_CA_CERT_FILE cannot be used: "
    elif case == "expired":
        expire(folder, "client")
        words = "no TLS connection .*client.pem of ETCD_CERT_FILE has expired on 2021-01-01T00:00:00.00:00: renew it"
    else:
        env, words = tls(folder, "absent"), "absent.pem of ETCD_CA_CERT_FILE cannot be read: No such file"
    store = open_datastore(url, node="a", state_dir=None, env=env)
    running = asyncio.create_task(store.run(lambda snapshot: None))
    try:
        async with asyncio.timeout(20):
            while not running.done() and store.status().text == "not read yet":
                await asyncio.sleep(0.02)
        failure = str(running.exception()) if running.done() else store.status().text
        assert re.search(words, failure), failure
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def test_nothing_but_our_own_sentence_is_written(secure: tuple[EtcdServer, Path]) -> None:
    etcd, folder = secure
    for env in (tls(folder, "other"), {"ETCD_CA_CERT_FILE": f"{folder}/ca.pem"}):
        command = (sys.executable, "-m", "config.bgpctl", "get", "nodes", "--datastore", etcd.url)
        process = await asyncio.create_subprocess_exec(
            *command, stderr=asyncio.subprocess.PIPE, env={**os.environ, **env}
        )
        _, said = await asyncio.wait_for(process.communicate(), 30)
        assert process.returncode == 1
        assert re.fullmatch(r"Error: etcd at .*no TLS connection .*\n", said.decode()), said.decode()


# --- several members' addresses


async def test_the_next_endpoint_takes_over(etcd: EtcdServer, editor: EtcdEditor) -> None:
    """One address is dead, as when a member is down."""
    await editor.apply(node("a"))
    dead = EtcdServer(etcd.folder)
    url = f"etcd://127.0.0.1:{dead.port},127.0.0.1:{etcd.port}"
    async with Followed(open_datastore(url, node="a", state_dir=None, env={})) as store:
        await store.until(lambda snapshot: "a" in snapshot.of(r.Node))
        etcd.kill()
        await store.disconnected()
        await etcd.start()
        await editor.apply(pool("p"))
        await store.until(lambda snapshot: "p" in cidrs(snapshot))


async def test_every_endpoint_of_a_cluster_serves_in_turn(tmp_path: Path) -> None:
    """Three members; each is killed once, the one in use too, and nothing is missed."""
    members = EtcdServer.cluster(tmp_path, 3)
    try:
        for member in members:
            member.launch()
        await asyncio.gather(*(member.wait() for member in members))
        url = "etcd://" + ",".join(f"127.0.0.1:{member.port}" for member in members)
        editor = EtcdEditor(url, env={})
        await editor.apply(node("a"))
        async with Followed(open_datastore(url, node="a", state_dir=None, env={})) as store:
            await store.until(lambda snapshot: "a" in snapshot.of(r.Node))
            for number, member in enumerate(members):
                member.kill()
                await Raw.insist(partial(apply_whatever_happens, editor, pool(f"p{number}")))
                await store.until(lambda snapshot: f"p{number}" in cidrs(snapshot))  # noqa: B023
                member.launch()
                await member.wait()
        await editor.close()
    finally:
        for member in members:
            member.kill()


async def apply_whatever_happens(editor: EtcdEditor, value: dict[str, Any]) -> None:
    """While a leader is elected, writes fail."""
    while True:
        try:
            await editor.apply(value)
            return
        except DatastoreError:
            await asyncio.sleep(0.1)


async def test_passwords_and_services_come_from_kubernetes(etcd: EtcdServer, editor: EtcdEditor) -> None:
    """Calico's etcd mode in a cluster. A peer that names another Secret is never told without it."""
    await editor.apply(node("a"))
    await editor.apply(pool("p"))
    tor = {**pool("tor"), "kind": "BGPPeer"}

    def named(name: str) -> dict[str, Any]:
        return {**tor, "spec": {**peer("tor", secret_name=name)["spec"]}}

    await editor.apply(named("one"))
    async with KubeServer() as server:
        for name in ("one", "two", "unnamed"):
            server.store.put(secret(name, name))
        env = {"K8S_API_ENDPOINT": server.url}
        async with Followed(open_datastore(etcd.url, node="a", state_dir=None, env=env)) as store:
            first = await store.until(lambda snapshot: True)
            assert set(first.of(r.Secret)) == {"kube-system/one"} and "p" in cidrs(first)
            await editor.apply(named("two"))
            await store.until(lambda snapshot: snapshot.of(r.BGPPeer)["tor"] != first.of(r.BGPPeer)["tor"])
            await store.until(lambda snapshot: set(snapshot.of(r.Secret)) == {"kube-system/two"})
            for snapshot in store.snapshots:
                reference = snapshot.of(r.BGPPeer)["tor"].password
                assert reference is not None and f"kube-system/{reference.name}" in snapshot.of(r.Secret)
            # One that is not there does not hold up anything for long.
            await editor.apply(named("three"))
            await store.until(lambda snapshot: not snapshot.of(r.Secret))
            # Each is followed by itself.
            await server.stop()
            await store.disconnected()
            await editor.apply(pool("q"))
            await store.until(lambda snapshot: "q" in cidrs(snapshot))


# --- the daemon

OUTAGE = float(os.environ.get("ETCD_OUTAGE", "2"))
"""Seconds; 60 is the project's figure."""


class EtcdNode(Ours):
    """The product: `bgpd --node a --datastore etcd://...`."""

    def __init__(self, namespace: Namespace, directory: Path, url: str) -> None:
        super().__init__(namespace, directory)
        self._url = url

    def arguments(self) -> list[str]:
        return ["-m", "bgpd", "--node", "a", "--datastore", self._url]

    def datastore(self) -> Any:
        return self.get("/status")["datastore"]


def test_the_daemon_over_outages_a_wipe_and_a_start_without_etcd(pair: Pair) -> None:
    """BIRD keeps its session and every route, until what is missing comes or is confirmed."""
    need(Bird)
    (pair.directory / "etcd").mkdir()
    etcd = EtcdServer(pair.directory / "etcd")

    def start() -> None:
        pair.ours.enter(etcd.launch)
        wait_until(lambda: pair.ours.enter(etcd.serves), 30, "etcd serves")

    def put(*values: dict[str, Any]) -> None:
        for value in values:
            key, _, _ = place_of(value)
            text = base64.b64encode(stored(value)).decode()
            body = {"key": base64.b64encode(key.encode()).decode(), "value": text}
            pair.ours.enter(lambda: etcd.post("kv/put", body))  # noqa: B023

    tor = {"peerIP": PEER4, "asNumber": PEER_AS}
    everything = (
        {**node("a"), "spec": {"bgp": {"ipv4Address": f"{OURS4}/24", "asNumber": 65001}}},
        {
            **pool("x"),
            "kind": "BGPConfiguration",
            "metadata": {"name": "default"},
            "spec": {"nodeToNodeMeshEnabled": False},
        },
        {**pool("tor"), "kind": "BGPPeer", "spec": tor},
        pool("pods"),
        block("a", "10.244.1.0/26"),
    )
    bird = pair.daemon(Bird, peer_config(session(IPV4)))
    ours = EtcdNode(pair.ours, pair.directory / "ours", etcd.url)
    pair.speakers.append(ours)
    try:
        # Neither etcd nor a copy: it waits, and says what for.
        bird.start()
        ours.start(ready=False)
        wait_until(lambda: "refused" in ours.datastore()["text"], 30, "the first attempt")
        assert not ours.get("/status")["ready"]["ok"] and "not connected: etcd at 127.0.0.1" in ours.status()
        start()
        put(*everything)
        ours.wait_started()
        ours.wait_established(PEER4)
        bird.wait_routes(OURS4, 1)

        etcd.kill()
        wait_until(lambda: not ours.datastore()["connected"], 30, "the outage is noticed")
        end = time.monotonic() + OUTAGE
        while time.monotonic() < end:
            assert bird.established(OURS4) and len(bird.routes(OURS4)) == 1
            time.sleep(0.5)
        assert ours.datastore()["age_seconds"] >= OUTAGE and ours.peers()[PEER4]["flaps"] == 0
        assert "not connected" in ours.status() and "in force is what it held" in ours.status()

        # A restart without etcd: the last good copy, marked with its age.
        ours.stop()
        ours.start()
        ours.wait_established(PEER4)
        bird.wait_routes(OURS4, 1)
        store = ours.datastore()
        assert not store["connected"] and store["age_seconds"] >= OUTAGE
        assert "the last good copy, true until" in ours.status() and "in force is what it held" in ours.status()
        start()
        put(block("a", "10.244.2.0/26"))
        bird.wait_routes(OURS4, 2)
        assert ours.datastore()["connected"] and not ours.datastore()["problems"]

        # Wiped: refused until it is confirmed.
        etcd.kill()
        etcd.wipe()
        start()
        wait_until(lambda: any("no object" in p["text"] for p in ours.datastore()["problems"]), 30, "held back")
        assert bird.established(OURS4) and len(bird.routes(OURS4)) == 2
        put(*everything[:-1])
        (ours.directory / "state" / "accept-empty").touch()
        bird.wait_routes(OURS4, 0)
        assert ours.peers()[PEER4]["flaps"] == 0 and not ours.datastore()["problems"]
    finally:
        etcd.kill()
