"""The file datastore without its folder: emptied, gone, unreadable; running, and at a start. In virtual time."""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from config import resources as r
from config.copy import CopyFile
from config.files import CONFIRMATION, DatastoreError, FileDatastore
from config.snapshot import Snapshot
from config.source import Status
from tests.unit.datastore_support import run

HOUR = 3600.0
BEGUN = 1_767_225_600.0
NODE = "apiVersion: projectcalico.org/v3\nkind: Node\nmetadata: {name: a}\nspec: {bgp: {ipv4Address: 10.0.0.1}}\n---\n"


def pool(name: str, cidr: str = "10.0.0.0/8") -> str:
    return f"apiVersion: projectcalico.org/v3\nkind: IPPool\nmetadata: {{name: {name}}}\nspec: {{cidr: {cidr}}}\n---\n"


def pools(snapshot: Snapshot) -> set[str]:
    return set(snapshot.of(r.IPPool))


class Running:
    """A FileDatastore with a copy, followed in virtual time; `started` is the wall clock at the loop's 0."""

    def __init__(self, folder: Path, state: Path, started: float = BEGUN) -> None:
        loop = asyncio.get_running_loop()
        copy = CopyFile(str(state), "a", "file", str(folder))
        self.store = FileDatastore(
            str(folder), node="a", copy=copy, clock=loop.time, wall=lambda: started + loop.time()
        )  # fmt: skip
        self.snapshots: list[Snapshot] = []

    async def __aenter__(self) -> Running:
        self._task = asyncio.create_task(self.store.run(self.snapshots.append))
        await asyncio.sleep(1)
        if self._task.done():
            self._task.result()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "resources"
    made.mkdir()
    (made / "node.yaml").write_text(NODE)
    (made / "pools.yaml").write_text(pool("p") + pool("q"))
    return made


@pytest.fixture
def away(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """`with away(how)`: the folder is not to be had."""
    aside = folder.with_name("aside")

    @contextmanager
    def gone(how: str) -> Iterator[None]:
        if how == "unreadable":
            scandir, listdir = os.scandir, os.listdir

            def refuse(plain: Any) -> Any:
                def call(path: Any = ".") -> Any:
                    if str(path) == str(folder):
                        raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))
                    return plain(path)

                return call

            monkeypatch.setattr(os, "scandir", refuse(scandir))
            monkeypatch.setattr(os, "listdir", refuse(listdir))
            yield
            monkeypatch.setattr(os, "scandir", scandir)
            monkeypatch.setattr(os, "listdir", listdir)
            return
        os.rename(folder, aside)
        if how == "emptied":
            folder.mkdir()
        yield
        shutil.rmtree(folder, ignore_errors=True)
        os.rename(aside, folder)

    return gone


WORDS = {
    "emptied": "holds no object any more",
    "gone": "gone or cannot be read (No such file or directory)",
    "unreadable": "gone or cannot be read (Input/output error)",
}


@pytest.mark.parametrize("how", WORDS)
def test_an_hour_without_the_folder_changes_nothing(how: str, folder: Path, away: Any, tmp_path: Path) -> None:
    async def main() -> None:
        async with Running(folder, tmp_path / "state") as running:
            store, before = running.store, running.snapshots[-1]
            assert pools(before) == {"p", "q"} and store.status() == Status(True)
            with away(how):
                # Events of a folder that cannot be read may not come: the next walk sees it.
                await asyncio.sleep(HOUR + 61)
                assert all(found.objects == before.objects for found in running.snapshots)
                assert not running.snapshots[-1].complete
                status = store.status()
                assert WORDS[how] in status.text and HOUR <= status.age <= HOUR + 70
                assert status.connected == (how == "emptied")
            await asyncio.sleep(5)
            assert running.snapshots[-1] == before and store.status() == Status(True)

    run(main())


@pytest.mark.parametrize("how", WORDS)
def test_a_start_without_the_folder_serves_the_copy(how: str, folder: Path, away: Any, tmp_path: Path) -> None:
    """Stopped, an hour later started; stopped and started once more; then the folder is back."""
    state = tmp_path / "state"

    async def first() -> None:
        async with Running(folder, state):
            pass

    async def later(after: float) -> None:
        async with Running(folder, state, BEGUN + after) as running:
            (found,) = running.snapshots
            assert pools(found) == {"p", "q"} and set(found.of(r.Node)) == {"a"} and not found.complete
            status = running.store.status()
            assert WORDS[how] in status.text and after - 5 <= status.age <= after + 5
            assert (
                how == "emptied" or "the last good copy, true until 2026-01-01T00:00:0" in found.source_problems[0].text
            )

    async def back() -> None:
        async with Running(folder, state, BEGUN + 3 * HOUR) as running:
            assert [found.complete for found in running.snapshots] == [True] and running.store.status() == Status(True)

    run(first())
    with away(how):
        run(later(HOUR))
        run(later(2 * HOUR))
    run(back())


def test_a_start_without_folder_and_copy_is_one_sentence(folder: Path, tmp_path: Path) -> None:
    shutil.rmtree(folder)

    async def main() -> None:
        async with Running(folder, tmp_path / "state"):
            pass

    with pytest.raises(
        DatastoreError, match=r"resources is gone or .* \(No such file or directory\); create it or name"
    ):
        run(main())


def test_a_copy_of_another_folder_does_not_count(folder: Path, tmp_path: Path) -> None:
    async def main(place: Path) -> Snapshot:
        async with Running(place, tmp_path / "state") as running:
            return running.snapshots[-1]

    run(main(folder))
    other = tmp_path / "other"
    other.mkdir()
    found = run(main(other))
    assert not len(found) and found.complete


def test_an_emptied_folder_is_confirmed_over_a_restart(folder: Path, tmp_path: Path) -> None:
    async def first() -> None:
        async with Running(folder, tmp_path / "state"):
            pass

    async def second() -> None:
        async with Running(folder, tmp_path / "state") as running:
            assert pools(running.snapshots[-1]) == {"p", "q"}
            (folder / CONFIRMATION).touch()
            await asyncio.sleep(2)
            assert not len(running.snapshots[-1]) and running.snapshots[-1].complete

    run(first())
    for path in folder.iterdir():
        path.unlink()
    run(second())


def test_the_loss_of_the_own_node_is_held_back(folder: Path, tmp_path: Path) -> None:
    async def main() -> None:
        async with Running(folder, tmp_path / "state") as running:
            (folder / "node.yaml").unlink()
            (folder / "pools.yaml").write_text(pool("p"))
            await asyncio.sleep(30)
            held = running.snapshots[-1]
            assert pools(held) == {"p", "q"} and set(held.of(r.Node)) == {"a"}
            assert "holds no Node a any more" in running.store.status().text and running.store.status().connected
            (folder / "node.yaml").write_text(NODE)
            await asyncio.sleep(5)
            assert pools(running.snapshots[-1]) == {"p", "q"}
            # Node and most others are back, and nothing more comes.
            await asyncio.sleep(10)
            assert pools(running.snapshots[-1]) == {"p"} and running.store.status() == Status(True)

    run(main())


def test_an_object_that_is_refused_at_a_start_keeps_the_version_of_the_copy(folder: Path, tmp_path: Path) -> None:
    async def main() -> Snapshot:
        async with Running(folder, tmp_path / "state") as running:
            return running.snapshots[-1]

    before = run(main())
    (folder / "pools.yaml").write_text(pool("p", "nonsense") + pool("q", "11.0.0.0/8"))
    after = run(main())
    assert after.complete and after.of(r.IPPool)["p"] == before.of(r.IPPool)["p"]
    assert str(after.of(r.IPPool)["q"].cidr) == "11.0.0.0/8" and set(after.problems) == {("IPPool", "p")}
