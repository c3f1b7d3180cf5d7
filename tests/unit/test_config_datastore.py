"""Following a datastore: outages, gone revisions, wiped stores, refused objects, floods. In virtual time."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config import resources as r
from config.coalesce import coalesce
from config.copy import CopyFile
from config.datastore import DatastoreError, default_url, open_datastore, open_editor
from config.files import FileDatastore
from config.files_edit import FileEditor
from config.follower import ATTEMPTS, Timing
from config.joined import Joined
from config.problems import Problem
from config.snapshot import Put, Refuse, Remove, Snapshot, StoreChange
from config.source import Batch, Listing, Status, Unavailable
from tests.unit.datastore_support import DOWN, Followed, MemorySource, Store, names, node, pool, refusal, run


def test_first_snapshot_and_changes() -> None:
    async def main() -> None:
        store = Store(node("a"))
        async with Followed(MemorySource(store)) as followed:
            assert names(followed.last()) == {"Node/a"}
            assert followed.follower.status() == Status(True)
            store.put(pool("p"))
            await asyncio.sleep(0.06)
            assert names(followed.last()) == {"Node/a", "IPPool/p"}
            store.write(Remove(("IPPool", "p")))
            await asyncio.sleep(0.06)
            assert names(followed.last()) == {"Node/a"}
            assert len(followed.snapshots) == 3 and store.lists == 1
        assert store.closed

    run(main())


def test_a_thousand_changes_in_a_second_are_few_snapshots() -> None:
    async def main() -> None:
        store = Store(node("a"))
        async with Followed(MemorySource(store)) as followed:
            for number in range(1000):
                store.put(pool(f"p{number % 10}", f"10.{number % 250}.{number // 250}.0/24"))
                await asyncio.sleep(0.001)
            await asyncio.sleep(0.3)
            assert 1 < len(followed.snapshots) <= 7
            assert followed.last().of(r.IPPool) == {
                change.resource.name: change.resource
                for change in store.current.values()
                if isinstance(change, Put) and isinstance(change.resource, r.IPPool)
            }

    run(main())


def test_an_hour_of_outage_changes_nothing_and_then_everything_is_right() -> None:
    async def main() -> None:
        store = Store(node("a"), pool("p"), pool("q"))
        async with Followed(MemorySource(store)) as followed:
            before = followed.last()
            store.fail(DOWN)
            attempts = store.attempts
            await asyncio.sleep(3600)
            assert followed.snapshots == [before] and followed.follower.snapshot is before
            status = followed.follower.status()
            assert not status.connected and status.text == "connection refused"
            assert 3595 < status.age < 3605
            # At most every five seconds, once the pauses have grown.
            assert 700 < store.attempts - attempts < 735
            store.write(Remove(("IPPool", "q")))
            store.put(pool("n"))
            store.compact()
            store.fail(None)
            await asyncio.sleep(6)
            assert names(followed.last()) == {"Node/a", "IPPool/p", "IPPool/n"}
            assert followed.follower.status() == Status(True)
            # What did not change is the very same object: whoever compares need not look inside.
            assert followed.last().of(r.Node)["a"] is before.of(r.Node)["a"]

    run(main())


def test_a_short_outage_goes_on_where_the_watch_was() -> None:
    async def main() -> None:
        store = Store(node("a"))
        async with Followed(MemorySource(store)) as followed:
            store.fail(DOWN)
            await asyncio.sleep(0.5)
            store.put(pool("p"))
            store.fail(None)
            await asyncio.sleep(2)
            assert names(followed.last()) == {"Node/a", "IPPool/p"} and store.lists == 1

    run(main())


def test_a_revision_that_always_fails_is_given_up() -> None:
    class Stuck(MemorySource):
        async def watch(self, revision: object):  # type: ignore[no-untyped-def]
            if revision == 1:
                self.store.attempts += 1
                raise Unavailable("internal error at this revision")
            async for batch in super().watch(revision):
                yield batch

    async def main() -> None:
        store = Store(node("a"))
        async with Followed(Stuck(store)) as followed:
            await asyncio.sleep(30)
            assert store.lists >= 2 and store.attempts >= ATTEMPTS
            store.put(pool("p"))
            await asyncio.sleep(30)
            assert "IPPool/p" in names(followed.last())

    run(main())


def test_a_gone_revision_lists_again_and_removes_what_is_gone() -> None:
    async def main() -> None:
        store = Store(node("a"), pool("p"))
        async with Followed(MemorySource(store)) as followed:
            store.fail(DOWN)
            await asyncio.sleep(0.1)
            store.write(Remove(("IPPool", "p")))
            store.compact()
            store.fail(None)
            await asyncio.sleep(2)
            assert names(followed.last()) == {"Node/a"} and store.lists == 2

    run(main())


def test_everything_is_listed_again_now_and_then() -> None:
    async def main() -> None:
        store = Store(node("a"))
        async with Followed(MemorySource(store), timing=Timing(resync=100)) as followed:
            store.current[("IPPool", "lost")] = Put(pool("lost"))  # its event never came
            await asyncio.sleep(99)
            assert names(followed.last()) == {"Node/a"}
            await asyncio.sleep(2)
            assert names(followed.last()) == {"Node/a", "IPPool/lost"}

    run(main())


def test_a_defect_in_a_source_does_not_end_the_following(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        store = Store(node("a"))
        async with Followed(MemorySource(store)) as followed:
            store.fail(KeyError("oops"))
            await asyncio.sleep(1)
            assert "internal error" in followed.follower.status().text
            store.put(pool("p"))
            store.fail(None)
            await asyncio.sleep(10)
            assert names(followed.last()) == {"Node/a", "IPPool/p"}

    run(main())
    assert "internal error in the watch of memory:" in caplog.text


# --- refused objects


def test_a_refused_object_keeps_its_last_good_version() -> None:
    async def main() -> None:
        store = Store(node("a"), pool("p", "10.1.0.0/16"))
        key = ("IPPool", "p")
        async with Followed(MemorySource(store)) as followed:
            store.put(pool("p", "10.2.0.0/16"))
            store.write(refusal(key))
            await asyncio.sleep(1)
            assert str(followed.last().of(r.IPPool)["p"].cidr) == "10.2.0.0/16"
            assert [problem.text for problem in followed.last().problems[key]] == ["is wrong"]
            store.fail(DOWN)
            await asyncio.sleep(1)
            store.put(pool("other"))
            store.compact()
            store.fail(None)
            await asyncio.sleep(10)
            assert store.lists == 2
            assert str(followed.last().of(r.IPPool)["p"].cidr) == "10.2.0.0/16"
            store.write(Remove(key))
            await asyncio.sleep(1)
            assert key not in followed.last().problems and names(followed.last()) == {"Node/a", "IPPool/other"}

    run(main())


def test_a_refused_object_keeps_the_version_of_the_copy(tmp_path: Path) -> None:
    async def main() -> None:
        store = Store(node("a"), pool("p", "10.1.0.0/16"))
        async with Followed(MemorySource(store), copy=CopyFile(str(tmp_path), "a", "memory")):
            store.write(refusal(("IPPool", "p")))
            await asyncio.sleep(20)
        async with Followed(MemorySource(store), copy=CopyFile(str(tmp_path), "a", "memory")) as followed:
            assert len(followed.snapshots) == 1
            assert str(followed.last().of(r.IPPool)["p"].cidr) == "10.1.0.0/16"
            assert ("IPPool", "p") in followed.last().problems

    run(main())


# --- starts


def test_a_start_without_datastore_goes_on_with_the_copy(tmp_path: Path) -> None:
    async def main() -> None:
        store = Store(node("a"), pool("p"))
        async with Followed(MemorySource(store), copy=CopyFile(str(tmp_path), "a", "memory")):
            store.put(pool("late"))
            await asyncio.sleep(0.1)
        store.fail(DOWN)
        loop = asyncio.get_running_loop()
        begun = loop.time()
        copy = CopyFile(str(tmp_path), "a", "memory")
        async with Followed(MemorySource(store), copy=copy, wall=lambda: 1_003_600 + loop.time()) as followed:
            await asyncio.sleep(5)
            assert names(followed.last()) == {"Node/a", "IPPool/p", "IPPool/late"}
            assert not followed.last().complete
            text = followed.last().source_problems[0].text
            assert "connection refused" in text and "1970-01-12" in text
            assert 3600 < followed.follower.status().age < 3610
            assert loop.time() - begun < 10
            store.write(Remove(("IPPool", "p")))
            store.fail(None)
            await asyncio.sleep(6)
            assert followed.last().complete and not followed.last().source_problems
            assert names(followed.last()) == {"Node/a", "IPPool/late"}

    run(main())


def test_a_start_that_reaches_its_datastore_does_not_show_the_copy(tmp_path: Path) -> None:
    async def main() -> None:
        store = Store(node("a"), pool("p"))
        async with Followed(MemorySource(store), copy=CopyFile(str(tmp_path), "a", "memory")):
            pass
        store.write(Remove(("IPPool", "p")))
        async with Followed(MemorySource(store), copy=CopyFile(str(tmp_path), "a", "memory")) as followed:
            await asyncio.sleep(10)
            assert [names(snapshot) for snapshot in followed.snapshots] == [{"Node/a"}]

    run(main())


def test_a_start_without_datastore_and_copy_waits(tmp_path: Path) -> None:
    async def main() -> None:
        store = Store(node("a"))
        store.fail(DOWN)
        async with Followed(MemorySource(store), copy=CopyFile(str(tmp_path), "a", "memory")) as followed:
            await asyncio.sleep(600)
            assert not followed.snapshots and not followed.follower.status().connected
            store.fail(None)
            await asyncio.sleep(6)
            assert names(followed.last()) == {"Node/a"}

    run(main())


def test_wrong_credentials_end_a_start_without_copy_only(tmp_path: Path) -> None:
    async def main() -> None:
        store = Store(node("a"))
        store.fail(DatastoreError("the password is wrong"))
        followed = Followed(MemorySource(store), copy=CopyFile(str(tmp_path), "a", "memory"))
        with pytest.raises(DatastoreError, match="the password is wrong"):
            await followed.follower.run(followed.snapshots.append)
        store.fail(None)
        async with Followed(MemorySource(store), copy=CopyFile(str(tmp_path), "a", "memory")) as followed:
            store.fail(DatastoreError("the password is wrong"))
            await asyncio.sleep(60)
            assert followed.follower.status().text == "the password is wrong"
            assert names(followed.follower.snapshot) == {"Node/a"}
        async with Followed(MemorySource(store), copy=CopyFile(str(tmp_path), "a", "memory")) as followed:
            await asyncio.sleep(60)
            assert names(followed.last()) == {"Node/a"}

    run(main())


# --- wiped


def wiped(store: Store, how: str) -> None:
    if how == "watch":
        store.wipe()
        return
    store.fail(DOWN)
    store.wipe()
    store.compact()


@pytest.mark.parametrize("how", ["watch", "list"])
def test_a_wiped_datastore_is_held_back_until_confirmed(how: str, tmp_path: Path) -> None:
    async def main() -> None:
        confirmation = tmp_path / "accept-empty"
        store = Store(node("a"), node("b"), pool("p"))
        source = MemorySource(store)
        async with Followed(source, confirmation=str(confirmation)) as followed:
            wiped(store, how)
            await asyncio.sleep(1)
            store.fail(None)
            await asyncio.sleep(3600)
            assert names(followed.last()) == {"Node/a", "Node/b", "IPPool/p"}
            assert not followed.last().complete and len(followed.snapshots) == 2
            problem = followed.last().source_problems[0]
            assert "holds no object" in problem.text and str(confirmation) in problem.allowed
            assert "holds no object" in followed.follower.status().text
            confirmation.touch()
            await asyncio.sleep(2)
            assert followed.last().complete and not len(followed.last())
            assert not confirmation.exists()

    run(main())


def test_a_wiped_datastore_is_held_back_by_a_start_from_the_copy(tmp_path: Path) -> None:
    async def main() -> None:
        store = Store(node("a"), pool("p"))
        async with Followed(MemorySource(store), copy=CopyFile(str(tmp_path), "a", "memory")):
            pass
        store.wipe()
        for _ in range(2):
            async with Followed(MemorySource(store), copy=CopyFile(str(tmp_path), "a", "memory")) as followed:
                await asyncio.sleep(100)
                assert names(followed.last()) == {"Node/a", "IPPool/p"} and not followed.last().complete

    run(main())


def test_a_stop_while_held_back_keeps_what_is_in_force(tmp_path: Path) -> None:
    """Also when nobody waits for the end: the second cancellation comes while connections are being closed."""

    class Slow(MemorySource):
        async def close(self) -> None:
            await asyncio.sleep(60)

    async def main() -> None:
        store = Store(node("a"), pool("p"))
        followed = Followed(Slow(store), copy=CopyFile(str(tmp_path), "a", "memory"))
        await followed.__aenter__()
        assert followed.task is not None
        store.wipe()
        await asyncio.sleep(2)
        assert not followed.last().complete
        for _ in range(2):
            followed.task.cancel()
            await asyncio.sleep(0)
        await asyncio.gather(followed.task, return_exceptions=True)
        async with Followed(MemorySource(store), copy=CopyFile(str(tmp_path), "a", "memory")) as again:
            assert names(again.last()) == {"Node/a", "IPPool/p"}

    run(main())


def test_the_loss_of_all_but_nodes_is_held_back() -> None:
    """Calico's definitions are deleted in Kubernetes: the Nodes remain, for they are Kubernetes' own."""

    async def main() -> None:
        peer = r.BGPPeer("tor")
        store = Store(node("a"), pool("p"), peer)
        async with Followed(MemorySource(store)) as followed:
            store.write(Remove(("BGPPeer", "tor")))
            await asyncio.sleep(1)
            # One kind may go ...
            assert names(followed.last()) == {"Node/a", "IPPool/p"} and followed.last().complete
            store.put(peer)
            await asyncio.sleep(1)
            store.write(Remove(("BGPPeer", "tor")))
            store.write(Remove(("IPPool", "p")))
            await asyncio.sleep(1)
            # ... but not the last two at once.
            assert names(followed.last()) == {"Node/a", "IPPool/p", "BGPPeer/tor"} and not followed.last().complete
            assert "nothing of Calico's" in followed.follower.status().text

    run(main())


# --- parts of a datastore


def test_kinds_that_cannot_be_listed_stay_as_they_are(tmp_path: Path) -> None:
    class Partial(MemorySource):
        async def list(self, *, partial: bool = False) -> Listing:
            found = await super().list()
            changes = tuple(change for change in found.changes if change.key[0] != "IPPool")
            return Listing(found.revision, changes, frozenset({"IPPool"}), "pools may not be read")

    async def main() -> None:
        store = Store(node("a"), pool("p"), r.BGPPeer("tor"))
        async with Followed(MemorySource(store), copy=CopyFile(str(tmp_path), "a", "memory")):
            pass
        store.write(Remove(("BGPPeer", "tor")))
        async with Followed(Partial(store), copy=CopyFile(str(tmp_path), "a", "memory")) as followed:
            assert names(followed.last()) == {"Node/a", "IPPool/p"}
            assert followed.follower.status().text == "pools may not be read"

    run(main())


def test_what_is_wrong_with_a_part_is_told_while_the_rest_is_followed() -> None:
    class Troubled(MemorySource):
        trouble = "pools may not be watched"

        async def watch(self, revision: object) -> AsyncIterator[Batch]:
            async for batch in super().watch(revision):
                yield Batch(batch.revision, batch.changes, self.trouble)

    async def main() -> None:
        store = Store(node("a"))
        source = Troubled(store)
        async with Followed(source) as followed:
            store.put(pool("p"))
            await asyncio.sleep(1)
            assert names(followed.last()) == {"Node/a", "IPPool/p"}
            assert followed.follower.status().text == "pools may not be watched"
            source.trouble = ""
            store.put(pool("q"))
            await asyncio.sleep(1)
            assert followed.follower.status() == Status(True)

    run(main())


def test_a_version_without_the_wrong_fields_counts_where_there_was_none(tmp_path: Path) -> None:
    async def main() -> None:
        key = ("Node", "b")
        bad = Refuse(key, refusal(key).problems, instead=node("b", asn=1))
        store = Store(node("a"))
        store.write(bad)
        async with Followed(MemorySource(store)) as followed:
            assert followed.last().of(r.Node)["b"].asn == 1 and followed.last().problems[key]
            store.put(node("b", asn=2))
            store.write(bad)
            await asyncio.sleep(1)
            assert followed.last().of(r.Node)["b"].asn == 2 and followed.last().problems[key]

    run(main())


def test_the_loss_of_the_own_node_alone_is_held_back_too() -> None:
    async def main() -> None:
        store = Store(node("a"), node("b"), pool("p"))
        async with Followed(MemorySource(store)) as followed:
            store.write(Remove(("Node", "b")))
            await asyncio.sleep(1)
            assert names(followed.last()) == {"Node/a", "IPPool/p"}
            store.write(Remove(("Node", "a")))
            store.write(Remove(("IPPool", "p")))
            await asyncio.sleep(60)
            assert names(followed.last()) == {"Node/a", "IPPool/p"} and not followed.last().complete

    run(main())


def test_a_restore_object_by_object_is_waited_for() -> None:
    async def main() -> None:
        objects: list[r.Resource] = [node("a"), *(pool(f"p{number}") for number in range(9))]
        store = Store(*objects)
        async with Followed(MemorySource(store)) as followed:
            everything = names(followed.last())
            store.wipe()
            await asyncio.sleep(5)
            for item in objects:
                assert names(followed.last()) == everything
                store.put(item)
                await asyncio.sleep(3)
            assert followed.last().complete and names(followed.last()) == everything
            # Most of it is back and nothing more comes: the rest is meant to be gone.
            store.wipe()
            await asyncio.sleep(1)
            for item in objects[:7]:
                store.put(item)
            await asyncio.sleep(5)
            assert not followed.last().complete and names(followed.last()) == everything
            await asyncio.sleep(10)
            assert followed.last().complete and len(followed.last()) == 7

    run(main())


def test_an_object_that_comes_back_refused_keeps_the_version_from_before() -> None:
    async def main() -> None:
        store = Store(node("a"), pool("p"))
        async with Followed(MemorySource(store)) as followed:
            store.wipe()
            await asyncio.sleep(1)
            store.put(node("a"))
            store.write(refusal(("IPPool", "p")))
            await asyncio.sleep(1)
            assert followed.last().complete and names(followed.last()) == {"Node/a", "IPPool/p"}
            assert ("IPPool", "p") in followed.last().problems

    run(main())


# --- models


@pytest.mark.parametrize("seed", range(20))
def test_random_faults_end_in_the_datastores_state(seed: int) -> None:
    """Writes, refusals, outages, compactions and batches that come twice, in any order of these."""
    chance = random.Random(seed)

    async def main() -> None:
        store = Store(node("a"))
        source = MemorySource(store, lambda changes: [*changes, *changes] if chance.random() < 0.3 else changes)
        async with Followed(source) as followed:
            for _ in range(300):
                match chance.choice(["put", "put", "put", "remove", "refuse", "down", "up", "up", "compact"]):
                    case "put":
                        store.put(pool(f"p{chance.randrange(6)}", f"10.{chance.randrange(200)}.0.0/16"))
                    case "remove":
                        store.write(Remove(("IPPool", f"p{chance.randrange(6)}")))
                    case "refuse":
                        store.write(refusal(("IPPool", f"p{chance.randrange(6)}"), f"is wrong {chance.random()}"))
                    case "down":
                        store.fail(DOWN)
                    case "up":
                        store.fail(None)
                    case "compact":
                        store.compact()
                await asyncio.sleep(chance.choice([0, 0, 0.01, 0.2, 3]))
            store.fail(None)
            await asyncio.sleep(20)
            last = followed.last()
            good = {change.key: change.resource for change in store.current.values() if isinstance(change, Put)}
            refused = {key for key, change in store.current.items() if not isinstance(change, Put)}
            held = {(kind, name): item for kind, items in last.objects.items() for name, item in items.items()}
            assert {key: item for key, item in held.items() if key not in refused} == good
            assert set(last.problems) == refused

    run(main())


KEYS = st.sampled_from(["p", "q"])
CHANGES = st.lists(
    st.one_of(
        st.builds(
            lambda name, octet, noted: Put(
                pool(name, f"10.{octet}.0.0/16"), (Problem(object=name, text="noted", refused=False),) * noted
            ),
            KEYS,
            st.integers(0, 2),
            st.booleans(),
        ),
        st.builds(lambda name, text: refusal(("IPPool", name), text), KEYS, st.sampled_from(["bad", "worse"])),
        st.builds(lambda name: Remove(("IPPool", name)), KEYS),
    ),
    max_size=12,
)


@given(CHANGES, CHANGES)
def test_coalescing_changes_nothing_about_the_result(first: list[StoreChange], second: list[StoreChange]) -> None:
    before = Snapshot().apply(first)
    few = coalesce(before, second)
    fewer, all_of_them = before.apply(few), before.apply(second)
    assert {kind: held for kind, held in fewer.objects.items() if held} == {
        kind: held for kind, held in all_of_them.objects.items() if held
    }
    assert fewer.problems == all_of_them.problems
    assert len(few) <= 2 * len({change.key for change in second})
    assert not coalesce(before.apply(few), few[-1:])


# --- URLs


def test_urls() -> None:
    assert isinstance(open_datastore("file:/x", node="a", state_dir=None, env={}), FileDatastore)
    assert isinstance(open_editor("file:/x", env={}), FileEditor)
    for url in ("x", "file:", "http://a", ""):
        with pytest.raises(DatastoreError, match="allowed: file:DIR"):
            open_datastore(url, node="a", state_dir=None, env={})


@pytest.mark.parametrize(
    ("env", "url"),
    [
        ({}, None),
        ({"DATASTORE_TYPE": "etcdv3"}, "etcd:"),
        ({"CALICO_DATASTORE_TYPE": "kubernetes"}, "kubernetes:"),
        ({"ETCD_ENDPOINTS": "http://h:2379"}, "etcd:"),
        ({"ETCD_ENDPOINTS": "http://h:2379", "DATASTORE_TYPE": "kubernetes"}, "kubernetes:"),
        ({"KUBERNETES_SERVICE_HOST": "10.96.0.1"}, "kubernetes:"),
    ],
)
def test_default_datastore(env: dict[str, str], url: str | None) -> None:
    assert default_url(env) == url


# --- two datastores as one


def secret(name: str) -> r.Secret:
    return r.Secret(f"kube-system/{name}", {"mesh": b"x"})


def test_two_datastores_as_one() -> None:
    async def main() -> None:
        stores = Store(node("a")), Store(secret("s"))
        first, second = (Followed(MemorySource(store)).follower for store in stores)
        joined = Joined(first, second)
        stores[1].fail(DOWN)
        snapshots: list[Snapshot] = []
        running = asyncio.create_task(joined.run(snapshots.append))
        await asyncio.sleep(20)
        assert not snapshots and not joined.status().connected
        stores[1].fail(None)
        await asyncio.sleep(10)
        assert names(snapshots[-1]) == {"Node/a", "Secret/kube-system/s"} and snapshots[-1].complete
        stores[1].fail(DOWN)
        stores[0].put(pool("p"))
        await asyncio.sleep(1)
        assert names(snapshots[-1]) == {"Node/a", "IPPool/p", "Secret/kube-system/s"}
        assert joined.status().text == "connection refused"
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        assert all(store.closed for store in stores)

    run(main())


def test_the_second_of_two_datastores_is_not_waited_for_forever() -> None:
    async def main() -> None:
        stores = Store(node("a")), Store(secret("s"))
        first, second = (Followed(MemorySource(store)).follower for store in stores)
        stores[1].fail(DOWN)
        snapshots: list[Snapshot] = []
        running = asyncio.create_task(Joined(first, second).run(snapshots.append))
        await asyncio.sleep(31)
        assert names(snapshots[-1]) == {"Node/a"}
        assert "not read yet" in snapshots[-1].source_problems[0].text
        stores[1].fail(None)
        await asyncio.sleep(10)
        assert names(snapshots[-1]) == {"Node/a", "Secret/kube-system/s"}
        assert [snapshot.complete for snapshot in snapshots] == [False, True]
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    run(main())
