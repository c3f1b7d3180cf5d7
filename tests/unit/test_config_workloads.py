"""Felix's endpoint-status folder, followed."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from config import workloads
from config.workloads import WorkloadFolder, status_folder


def put(folder: Path, name: str, **fields: Any) -> None:
    value = {"ifaceName": "cali1", "ipv4Nets": ["10.244.1.5/32"], "ipv6Nets": [], "bgpPeerName": "pods", **fields}
    part = folder / f".{name}"
    part.write_text(json.dumps(value))
    part.rename(folder / name)


def names(folder: WorkloadFolder) -> list[tuple[str, str, tuple[str, ...]]]:
    return [(found.name, found.peer, found.addresses) for found in folder.workloads]


def test_where_felix_reports() -> None:
    assert status_folder({}) == "/var/run/calico/endpoint-status"
    assert status_folder({"CALICO_ENDPOINT_STATUS_PATH_PREFIX": "/x"}) == "/x/endpoint-status"


def test_scan(tmp_path: Path) -> None:
    folder = WorkloadFolder(str(tmp_path / "late"), lambda: None)
    assert names(folder) == [] and not folder.scan()
    (tmp_path / "late").mkdir()
    put(tmp_path / "late", "pod", ipv6Nets=["fd00::5/128"])
    put(tmp_path / "late", "other", bgpPeerName=None)
    assert folder.scan() and not folder.scan()
    assert names(folder) == [("other", "", ("10.244.1.5",)), ("pod", "pods", ("10.244.1.5", "fd00::5"))]
    (tmp_path / "late" / "pod").unlink()
    assert folder.scan() and [found.name for found in folder.workloads] == ["other"]


def test_a_file_that_is_gone_when_it_is_looked_at_costs_no_other(tmp_path: Path) -> None:
    for name in ("a", "c", "d"):
        put(tmp_path, name)
    folder = WorkloadFolder(str(tmp_path), lambda: None)
    for name in ("b", "bb", "cc", "e"):
        (tmp_path / name).symlink_to("nowhere")
    assert not folder.scan()
    assert [found.name for found in folder.workloads] == ["a", "c", "d"] and folder.problems == ()


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"ipv4Nets": "10.0.0.1"}', '{"ipv4Nets": ["fd00::1/128"]}', "x" * (1 << 20), "\x00", '"a"']
)
def test_a_bad_file_keeps_its_last_good_version(tmp_path: Path, text: str) -> None:
    put(tmp_path, "pod")
    folder = WorkloadFolder(str(tmp_path), lambda: None)
    (tmp_path / "pod").write_text(text)
    assert folder.scan()
    assert names(folder) == [("pod", "pods", ("10.244.1.5",))]
    assert folder.problems and all(p.object == "Workload/pod" and p.file for p in folder.problems)
    put(tmp_path, "pod", ipv4Nets=["10.244.1.6/32"])
    assert folder.scan() and folder.problems == ()
    assert names(folder) == [("pod", "pods", ("10.244.1.6",))]


async def _until(holds: Any) -> None:
    async with asyncio.timeout(20):
        while not holds():
            await asyncio.sleep(0.02)


async def test_changes_are_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workloads, "RESCAN", 3600.0)
    changes: list[None] = []
    directory = tmp_path / "endpoint-status"
    folder = WorkloadFolder(str(directory), lambda: changes.append(None))
    task = asyncio.create_task(folder.run())
    try:
        await asyncio.sleep(0.1)
        directory.mkdir()
        put(directory, "pod")
        await _until(lambda: len(folder.workloads) == 1)
        put(directory, "pod", ipv4Nets=["10.244.1.6/32"])
        await _until(lambda: folder.workloads[0].addresses == ("10.244.1.6",))
        (directory / "pod").unlink()
        await _until(lambda: not folder.workloads)
        assert len(changes) == 3
    finally:
        task.cancel()
