"""bgpctl's hand in a folder: what is changed, and that nothing else is."""

from __future__ import annotations

import asyncio
import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest

from config.files_edit import FileEditor
from config.folder import read_file
from config.snapshot import Put
from config.source import DatastoreError


def pool(name: str, cidr: str = "10.0.0.0/8", **metadata: Any) -> dict[str, Any]:
    metadata["name"] = name
    return {"apiVersion": "projectcalico.org/v3", "kind": "IPPool", "metadata": metadata, "spec": {"cidr": cidr}}


def apply(folder: Path, value: dict[str, Any]) -> str:
    return asyncio.run(FileEditor(str(folder)).apply(value))


def get(folder: Path, kind: str = "IPPool", name: str | None = None) -> list[dict[str, Any]]:
    return asyncio.run(FileEditor(str(folder)).get(kind, name))


def delete(folder: Path, name: str, kind: str = "IPPool") -> bool:
    return asyncio.run(FileEditor(str(folder)).delete(kind, name))


def test_create_change_delete(tmp_path: Path) -> None:
    assert apply(tmp_path, pool("p", resourceVersion="7", uid="x")) == "created"
    assert get(tmp_path) == [pool("p")] and get(tmp_path, name="q") == []
    assert apply(tmp_path, pool("p")) == "unchanged"
    assert apply(tmp_path, pool("p", "10.0.0.0/9")) == "configured"
    assert get(tmp_path, name="p") == [pool("p", "10.0.0.0/9")]
    assert delete(tmp_path, "p") and not delete(tmp_path, "p")
    assert os.listdir(tmp_path) == []


def test_other_documents_and_comments_stay(tmp_path: Path) -> None:
    form = "apiVersion: projectcalico.org/v3\nkind: IPPool\nmetadata: {{name: {}}}\nspec: {{cidr: 10.0.0.0/8}}\n"
    before, after = "# the first\n" + form.format("a"), "---\n# the last\n" + form.format("c")
    middle = "---\n" + json.dumps(pool("b")) + "\n"
    file = tmp_path / "pools.yaml"
    file.write_text(before + middle + after)
    file.chmod(0o640)
    assert apply(tmp_path, pool("b", "10.0.0.0/12")) == "configured"
    text = file.read_text()
    assert text.startswith(before + "---\n") and text.endswith(after) and "10.0.0.0/12" in text
    assert file.stat().st_mode & 0o777 == 0o640
    assert delete(tmp_path, "b") and file.read_text() == before + after
    assert delete(tmp_path, "a") and file.read_text() == after
    assert delete(tmp_path, "c") and not file.exists()


def test_objects_in_lists(tmp_path: Path) -> None:
    file = tmp_path / "list.json"
    items = [{"metadata": {"name": name}, "spec": {"cidr": "10.0.0.0/8"}} for name in "ab"]
    file.write_text(json.dumps({"kind": "IPPoolList", "apiVersion": "projectcalico.org/v3", "items": items}))
    assert apply(tmp_path, pool("a", "10.0.0.0/9")) == "configured"
    assert [item["spec"]["cidr"] for item in get(tmp_path)] == ["10.0.0.0/9", "10.0.0.0/8"]
    assert delete(tmp_path, "a") and [item["metadata"]["name"] for item in get(tmp_path)] == ["b"]
    assert delete(tmp_path, "b") and not file.exists()


def test_an_object_in_two_files(tmp_path: Path) -> None:
    (tmp_path / "1.yaml").write_text(json.dumps(pool("p", "10.0.0.0/8")))
    (tmp_path / "2.yaml").write_text(json.dumps(pool("p", "10.0.0.0/9")))
    assert get(tmp_path) == [pool("p", "10.0.0.0/8")]
    assert delete(tmp_path, "p") and os.listdir(tmp_path) == []


def test_texts_that_yaml_1_1_takes_for_something_else(tmp_path: Path) -> None:
    value = pool("yes", labels={"a": "5663:12", "b": "on", "c": "1.10", "d": "0x1f", "e": "null", "f": "007"})
    apply(tmp_path, value)
    assert get(tmp_path) == [value]
    (path,) = tmp_path.iterdir()
    (entry,) = read_file(str(path)).entries
    assert isinstance(entry.change, Put)


def test_unreadable_documents_are_left_alone(tmp_path: Path) -> None:
    broken = "---\n{: [\n"
    file = tmp_path / "x.yaml"
    file.write_text(json.dumps(pool("a")) + "\n" + broken)
    assert apply(tmp_path, pool("a", "10.0.0.0/9")) == "configured"
    assert file.read_text().endswith(broken)
    assert delete(tmp_path, "a") and file.read_text() == broken


def test_a_symbolic_link_stays_one(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "p.yaml").write_text(json.dumps(pool("p")))
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "p.yaml").symlink_to("../real/p.yaml")
    assert apply(tmp_path / "folder", pool("p", "10.0.0.0/9")) == "configured"
    assert (tmp_path / "folder" / "p.yaml").is_symlink() and "10.0.0.0/9" in (tmp_path / "real" / "p.yaml").read_text()


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({"kind": "IPPool"}, "apiVersion"),
        ({**pool("p"), "kind": "Deployment"}, "is not read by BGP"),
        (pool("../../etc/x"), "metadata.name"),
        (pool("a/b"), "metadata.name"),
    ],
)
def test_what_cannot_be_written(value: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(DatastoreError, match=words):
        apply(tmp_path, value)
    assert os.listdir(tmp_path) == []


def test_a_file_that_cannot_be_read_is_named_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: str) -> str:
        raise PermissionError(errno.EACCES, "Permission denied", path)

    (tmp_path / "p.yaml").touch()
    monkeypatch.setattr("config.files_edit.read_text", refuse)
    with pytest.raises(DatastoreError) as caught:
        get(tmp_path)
    assert str(caught.value) == (
        f"the file {tmp_path}/p.yaml cannot be read: Permission denied; mend it, or take it away"
    )


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DatastoreError, match="cannot be read"):
        get(tmp_path / "x")
