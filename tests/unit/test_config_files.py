"""The file datastore: reading a folder, following it, and what is held back."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from config import resources as r
from config.files import CONFIRMATION, DatastoreError, FileDatastore
from config.folder import Folder, read_file
from config.snapshot import Snapshot
from config.wiped import SETTLE


def pool(name: str, cidr: str = "10.0.0.0/8") -> str:
    return f"apiVersion: projectcalico.org/v3\nkind: IPPool\nmetadata:\n  name: {name}\nspec:\n  cidr: {cidr}\n---\n"


def pools(snapshot: Snapshot) -> dict[str, str]:
    return {name: str(found.cidr) for name, found in snapshot.of(r.IPPool).items()}


def problems(snapshot: Snapshot) -> list[tuple[str, int, str]]:
    return [(os.path.basename(p.file), p.line, p.object) for p in snapshot.all_problems() if p.refused]


class Watched:
    """A running FileDatastore whose snapshots can be waited for."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.latest: Snapshot | None = None
        self._news = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self.store = FileDatastore(str(directory), debounce=0.01)

    def _on_snapshot(self, snapshot: Snapshot) -> None:
        self.latest = snapshot
        self._news.set()

    async def __aenter__(self) -> Watched:
        self._task = asyncio.create_task(self.store.run(self._on_snapshot))
        await self.until(lambda snapshot: True)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._task is not None
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def until(self, holds: Callable[[Snapshot], bool]) -> Snapshot:
        """The first snapshot of which it holds. The limit only ends a hanging test."""
        async with asyncio.timeout(30):
            while self.latest is None or not holds(self.latest):
                self._news.clear()
                await self._news.wait()
        return self.latest


def follow(directory: Path, script: Callable[[Watched], object]) -> None:
    """Run a coroutine function with a watched folder."""

    async def main() -> None:
        async with Watched(directory) as watched:
            await script(watched)  # type: ignore[misc]

    asyncio.run(main())


# --- one look


def test_folder_is_read_with_subfolders_and_all_suffixes(tmp_path: Path) -> None:
    (tmp_path / "deep" / "er").mkdir(parents=True)
    (tmp_path / "deep" / "er" / "a.yaml").write_text(pool("a") + pool("b"))
    (tmp_path / "c.yml").write_text(pool("c"))
    (tmp_path / "d.json").write_text(
        '{"apiVersion": "projectcalico.org/v3", "kind": "IPPool",'
        ' "metadata": {"name": "d"}, "spec": {"cidr": "10.0.0.0/8"}}'
    )
    (tmp_path / "README.md").write_text("no resource")
    (tmp_path / ".hidden.yaml").write_text(pool("hidden"))
    os.symlink(tmp_path, tmp_path / "deep" / "loop")
    snapshot = FileDatastore(str(tmp_path)).load()
    assert set(pools(snapshot)) == {"a", "b", "c", "d"} and problems(snapshot) == []


def test_missing_folder_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(DatastoreError, match="cannot be read"):
        FileDatastore(str(tmp_path / "nothing")).load()


def test_bad_documents_cost_no_others(tmp_path: Path) -> None:
    text = pool("a") + pool("bad", "nonsense") + "kind: [\n---\n" + "just text\n---\n" + pool("b")
    (tmp_path / "x.yaml").write_text(text)
    snapshot = FileDatastore(str(tmp_path)).load()
    assert set(pools(snapshot)) == {"a", "b"}
    assert problems(snapshot) == [("x.yaml", 16, ""), ("x.yaml", 17, ""), ("x.yaml", 13, "IPPool/bad")]


@pytest.mark.parametrize("data", [b"\xff\xfe\x00", b"\x00\x01", b"a: \x80", b"- [", b"{", b"---\n---\n"])
def test_rubbish_never_raises(tmp_path: Path, data: bytes) -> None:
    for name in ("x.yaml", "x.json"):
        (tmp_path / name).write_bytes(data)
        read_file(str(tmp_path / name))


def test_fifo_and_missing_files_are_told(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x.yaml")
    assert read_file(str(tmp_path / "x.yaml")).unreadable
    assert read_file(str(tmp_path / "none.yaml")).unreadable


def test_same_object_twice(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(pool("p", "10.0.0.0/8") + pool("p", "11.0.0.0/8"))
    (tmp_path / "b.yaml").write_text(pool("p", "12.0.0.0/8"))
    store = FileDatastore(str(tmp_path))
    assert pools(store.load()) == {"p": "10.0.0.0/8"}
    assert problems(store.snapshot) == [("a.yaml", 11, "IPPool/p")]
    assert any("twice" in problem.text for problem in store.snapshot.problems["IPPool", "p"])
    (tmp_path / "a.yaml").unlink()
    assert pools(store.load()) == {"p": "12.0.0.0/8"}
    assert list(store.snapshot.all_problems()) == []


def test_refused_object_keeps_its_last_good_version(tmp_path: Path) -> None:
    store = FileDatastore(str(tmp_path))
    (tmp_path / "a.yaml").write_text(pool("p") + pool("q"))
    store.load()
    (tmp_path / "a.yaml").write_text(pool("p", "nonsense"))
    assert pools(store.load()) == {"p": "10.0.0.0/8"}
    assert problems(store.snapshot) == [("a.yaml", 6, "IPPool/p")]
    (tmp_path / "a.yaml").write_text(pool("p", "11.0.0.0/8"))
    assert pools(store.load()) == {"p": "11.0.0.0/8"} and problems(store.snapshot) == []


@pytest.mark.parametrize("text", ["", " \n", "{", "a: b: c", pool("q") + "kind: [", "\x00"])
def test_unreadable_file_keeps_its_objects(tmp_path: Path, text: str) -> None:
    store = FileDatastore(str(tmp_path))
    (tmp_path / "a.yaml").write_text(pool("p"))
    (tmp_path / "b.yaml").write_text(pool("r"))
    store.load()
    (tmp_path / "a.yaml").write_text(text)
    assert {"p", "r"} <= set(pools(store.load()))
    assert list(store.snapshot.all_problems())
    # A file of comments alone is readable, and says that there is nothing.
    (tmp_path / "a.yaml").write_text("# nothing\n")
    assert set(pools(store.load())) == {"r"}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (pool("p").replace("IPPool", "ippool"), "kind: is not written so (value 'ippool'); allowed: IPPool"),
        (
            pool("p").replace("org/v3", "org/v4"),
            "apiVersion: is no version that there is (value 'projectcalico.org/v4')",
        ),
        ("apiVersion: v1\nkind: List\nitems:\n", "items: is no list (value null)"),
        ("apiVersion: projectcalico.org/v3\nkind: IPPoolList\n", "items: is no list (value null)"),
    ],
)
def test_a_slip_in_the_kind_takes_no_object_with_it(text: str, words: str, tmp_path: Path) -> None:
    store = FileDatastore(str(tmp_path))
    (tmp_path / "a.yaml").write_text(pool("p"))
    (tmp_path / "b.yaml").write_text(pool("r"))
    store.load()
    (tmp_path / "a.yaml").write_text(text)
    assert set(pools(store.load())) == {"p", "r"}
    (problem,) = store.snapshot.all_problems()
    assert problem.refused and words in str(problem)
    # Kinds of others are passed over, and an empty list says that there is nothing.
    for other in ("apiVersion: example.org/v1\nkind: ippool\nmetadata: {name: p}\n", "kind: List\nitems: []\n"):
        (tmp_path / "a.yaml").write_text(pool("p"))
        store.load()
        (tmp_path / "a.yaml").write_text(other)
        assert set(pools(store.load())) == {"r"}
        assert not any(problem.refused for problem in store.snapshot.all_problems())


def test_emptied_folder_is_held_until_objects_come_back(tmp_path: Path) -> None:
    now = 100.0
    store = FileDatastore(str(tmp_path), clock=lambda: now)
    (tmp_path / "a.yaml").write_text(pool("p") + pool("q"))
    store.load()
    (tmp_path / "a.yaml").unlink()
    held = store.load()
    assert set(pools(held)) == {"p", "q"} and not held.complete
    assert "holds no object" in held.source_problems[0].text
    (tmp_path / "b.yaml").write_text(pool("q", "nonsense") + pool("r"))
    # A copy that writes file by file is not taken for the whole.
    held = store.load()
    assert set(pools(held)) == {"p", "q"} and "1 of 2 objects are not back yet" in held.source_problems[0].text
    now += SETTLE
    # What comes back refused keeps the version from before.
    found = store.load()
    assert set(pools(found)) == {"q", "r"} and found.complete
    assert [name for _, _, name in problems(found)] == ["IPPool/q"]


def test_emptied_folder_can_be_confirmed(tmp_path: Path) -> None:
    store = FileDatastore(str(tmp_path))
    (tmp_path / "a.yaml").write_text(pool("p"))
    store.load()
    (tmp_path / "a.yaml").unlink()
    assert len(store.load()) == 1
    (tmp_path / CONFIRMATION).touch()
    assert len(store.load()) == 0 and store.snapshot.complete


def test_a_large_file_is_read_in_one_pass(tmp_path: Path, figure: Callable[[str, object], None]) -> None:
    """What `bgpctl export` writes: one file a kind. The objects must not be looked through for each of them."""
    spec = {"node": "a", "state": "confirmed"}
    items = [
        {"apiVersion": "projectcalico.org/v3", "kind": "BlockAffinity", "metadata": {"name": f"b{number}"},
         "spec": {**spec, "cidr": f"10.{number >> 8}.{number & 255}.0/26"}}
        for number in range(10_000)
    ]  # fmt: skip
    (tmp_path / "blocks.json").write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": items}))
    began = time.process_time()
    assert len(FileDatastore(str(tmp_path)).load()) == 10_000
    figure("10,000 objects in one file, CPU seconds", round(time.process_time() - began, 2))


# --- followed


def test_changes_are_followed(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(pool("p"))

    async def script(watched: Watched) -> None:
        (tmp_path / "a.yaml").write_text(pool("p", "11.0.0.0/8"))
        await watched.until(lambda s: pools(s) == {"p": "11.0.0.0/8"})
        (tmp_path / "new.tmp").write_text(pool("p", "12.0.0.0/8"))
        os.replace(tmp_path / "new.tmp", tmp_path / "a.yaml")
        await watched.until(lambda s: pools(s) == {"p": "12.0.0.0/8"})
        (tmp_path / "b.yaml").write_text(pool("q"))
        await watched.until(lambda s: set(pools(s)) == {"p", "q"})
        (tmp_path / "a.yaml").unlink()
        await watched.until(lambda s: set(pools(s)) == {"q"})
        (tmp_path / "b.yaml").write_text("{")
        await watched.until(lambda s: bool(problems(s)))
        assert set(pools(watched.store.snapshot)) == {"q"}

    follow(tmp_path, script)


def test_new_and_gone_subfolders_are_followed(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(pool("p"))

    async def script(watched: Watched) -> None:
        (tmp_path / "x" / "y").mkdir(parents=True)
        (tmp_path / "x" / "y" / "b.yaml").write_text(pool("q"))
        await watched.until(lambda s: set(pools(s)) == {"p", "q"})
        (tmp_path / "x" / "y" / "c.yaml").write_text(pool("r"))
        await watched.until(lambda s: set(pools(s)) == {"p", "q", "r"})
        shutil.rmtree(tmp_path / "x")
        await watched.until(lambda s: set(pools(s)) == {"p"})

    follow(tmp_path, script)


def test_kubernetes_volume_is_followed(tmp_path: Path) -> None:
    """A ConfigMap volume: files are links into ..data, itself a link that is replaced by rename."""

    def version(number: int, text: str) -> None:
        folder = tmp_path / f"..2026_{number}"
        folder.mkdir()
        (folder / "a.yaml").write_text(text)
        os.symlink(folder.name, tmp_path / "..data_tmp")
        os.replace(tmp_path / "..data_tmp", tmp_path / "..data")

    version(1, pool("p"))
    os.symlink("..data/a.yaml", tmp_path / "a.yaml")

    async def script(watched: Watched) -> None:
        assert watched.latest is not None and pools(watched.latest) == {"p": "10.0.0.0/8"}
        version(2, pool("p", "11.0.0.0/8") + pool("q"))
        shutil.rmtree(tmp_path / "..2026_1")
        await watched.until(lambda s: pools(s) == {"p": "11.0.0.0/8", "q": "10.0.0.0/8"})

    follow(tmp_path, script)


def test_links_to_folders_are_followed(tmp_path: Path) -> None:
    root, other = tmp_path / "calico", tmp_path / "other"
    for folder, name in ((root, "p"), (other, "q")):
        folder.mkdir()
        (folder / "a.yaml").write_text(pool(name))

    async def script(watched: Watched) -> None:
        os.symlink(other, root / "more")
        await watched.until(lambda s: set(pools(s)) == {"p", "q"})
        (root / "more").unlink()
        await watched.until(lambda s: set(pools(s)) == {"p"})

    follow(root, script)


def test_files_beside_cost_no_look_at_all_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever writes a file and gives it its name then changes that one alone."""
    (tmp_path / "a.yaml").write_text(pool("p"))
    walks: list[str] = []

    async def script(watched: Watched) -> None:
        walk = Folder.walk

        def counted(folder: Folder) -> object:
            walks.append(folder.root)
            return walk(folder)

        monkeypatch.setattr(Folder, "walk", counted)
        for name in ("b.yaml.tmp", ".b.yaml.swp"):
            (tmp_path / name).write_text(pool("q"))
            os.replace(tmp_path / name, tmp_path / "b.yaml")
            await watched.until(lambda s: set(pools(s)) == {"p", "q"})
            (tmp_path / "b.yaml").unlink()
            await watched.until(lambda s: set(pools(s)) == {"p"})

    follow(tmp_path, script)
    assert not walks


def test_vanished_folder_is_held_and_found_again(tmp_path: Path) -> None:
    root = tmp_path / "calico"
    root.mkdir()
    (root / "a.yaml").write_text(pool("p"))

    async def script(watched: Watched) -> None:
        os.rename(root, tmp_path / "away")
        held = await watched.until(lambda s: not s.complete)
        assert set(pools(held)) == {"p"} and "gone" in held.source_problems[0].text
        root.mkdir()
        (root / "b.yaml").write_text(pool("q"))
        await watched.until(lambda s: s.complete and set(pools(s)) == {"q"})
        (root / "b.yaml").write_text(pool("q") + pool("r"))
        await watched.until(lambda s: set(pools(s)) == {"q", "r"})

    follow(root, script)


def test_confirmation_is_followed(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(pool("p"))

    async def script(watched: Watched) -> None:
        (tmp_path / "a.yaml").unlink()
        await watched.until(lambda s: not s.complete)
        (tmp_path / CONFIRMATION).touch()
        await watched.until(lambda s: s.complete and len(s) == 0)

    follow(tmp_path, script)


def test_file_being_written_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(pool("p") + pool("q"))

    async def script(watched: Watched) -> None:
        with open(tmp_path / "a.yaml", "w", encoding="utf-8") as file:
            file.write(pool("p"))
            file.flush()
            # Something else changes while the file is half written.
            (tmp_path / "b.yaml").write_text(pool("r"))
            found = await watched.until(lambda s: "r" in pools(s))
            assert set(pools(found)) == {"p", "q", "r"}
            file.write(pool("s"))
        await watched.until(lambda s: set(pools(s)) == {"p", "r", "s"})

    follow(tmp_path, script)


def test_many_changes_end_in_the_right_state(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(pool("p"))

    async def script(watched: Watched) -> None:
        for number in range(300):
            path = tmp_path / f"f{number % 20}.yaml"
            if number % 7 == 3 and path.exists():
                path.unlink()
            else:
                path.write_text(pool(f"p{number % 20}", f"10.{number % 250}.0.0/16"))
        expected = pools(FileDatastore(str(tmp_path)).load())
        await watched.until(lambda s: pools(s) == expected)

    follow(tmp_path, script)


def test_run_needs_the_folder_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(DatastoreError):
        asyncio.run(FileDatastore(str(tmp_path / "none")).run(lambda snapshot: None))
