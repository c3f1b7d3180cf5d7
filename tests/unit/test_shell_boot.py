"""The record behind the F bit, and the daemon's command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from bgpd.options import endpoint
from bgpd.shell.boot import current_boot, record_boot, recorded_boot


def test_boot_record(tmp_path: Path) -> None:
    directory = str(tmp_path / "new" / "state")
    assert recorded_boot(directory, "node-a") is None
    boot = current_boot()
    assert boot.startswith("boot ")
    assert record_boot(directory, "node-a", boot)
    assert recorded_boot(directory, "node-a") == boot
    assert recorded_boot(directory, "node-b") is None
    assert record_boot(directory, "node-a", "boot other")
    assert recorded_boot(directory, "node-a") == "boot other"
    assert [path.name for path in Path(directory).iterdir()] == ["node-a.boot"]


def test_names_stay_in_the_directory(tmp_path: Path) -> None:
    directory = tmp_path / "state"
    assert record_boot(str(directory), "../../evil", "x")
    assert [path.name for path in directory.iterdir()] == [".._.._evil.boot"]


def test_a_directory_that_cannot_be_written(tmp_path: Path) -> None:
    blocker = tmp_path / "file"
    blocker.write_text("")
    assert not record_boot(str(blocker), "node-a", "x")


def test_unreadable_record(tmp_path: Path) -> None:
    (tmp_path / "node-a.boot").write_bytes(b"\xff\xfe")
    assert recorded_boot(str(tmp_path), "node-a") is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("127.0.0.1:1790", ("127.0.0.1", 1790)),
        ("[::]:179", ("::", 179)),
        ("[FD00:0::1]:179", ("fd00::1", 179)),
        (":1790", ("0.0.0.0", 1790)),
    ],
)
def test_endpoint(text: str, expected: tuple[str, int]) -> None:
    assert endpoint(text) == expected


@pytest.mark.parametrize("text", ["127.0.0.1", "127.0.0.1:", "127.0.0.1:65536", "host:179", "1.2.3.4:-1", "::1:2:x"])
def test_bad_endpoint(text: str) -> None:
    with pytest.raises(ValueError):
        endpoint(text)
