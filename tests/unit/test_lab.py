"""The lab's own arithmetic, and the rule that CI lets nothing skip."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.lab import watch
from tests.lab.configs import NodePlan, TorPeer, TorPlan, bird_node, bird_tor, frr_tor
from tests.lab.probes import Account, Loss, runs_of_missing

ROOT = Path(__file__).resolve().parents[2]


@given(st.lists(st.booleans(), max_size=200))
def test_missing_numbers_are_counted_in_runs(arrived: list[bool]) -> None:
    seen = bytearray(64)
    for number, there in enumerate(arrived):
        if there:
            seen[number >> 3] |= 1 << (number & 7)
    runs = list(runs_of_missing(bytes(seen), len(arrived)))
    assert sum(runs) == arrived.count(False)
    text = "".join("x" if there else "." for there in arrived)
    assert runs == [len(run) for run in text.split("x") if run]


def test_numbers_beyond_the_bitmap_are_missing() -> None:
    assert list(runs_of_missing(b"\xff", 20)) == [12]


def test_account_adds_up() -> None:
    good = Loss("a to b", 1000, 0, (), 0, 0.001, 0)
    bad = Loss("b to a", 1000, 7, (0.002, 0.005), 0, 0.001, 0)
    account = Account((good, bad))
    assert (account.sent, account.lost, account.longest_outage) == (2000, 7, 0.005)
    assert str(account) == "2000 packets sent, 7 lost, longest outage 0.005 s"
    assert str(good) == "a to b: 1000 sent, 0 lost"


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (
            "[2026-01-02T03:04:05.000006] [ROUTE]Deleted 6 fd00::/122 dev lo proto 12 metric 1024 pref medium",
            (True, "route", "fd00::/122"),
        ),
        (
            "[2026-01-02T03:04:05.000006] [ROUTE]10.244.2.0/26 nhid 7 via 172.20.0.12 dev eth0 proto 12 metric 1024 ",
            (False, "route", "10.244.2.0/26"),
        ),
        ("[2026-01-02T03:04:05.000006] [NEXTHOP]id 7 via 172.20.0.12 dev eth0 proto 12 ", (False, "nexthop", "id")),
    ],
)
def test_monitor_lines_are_read(line: str, expected: tuple[bool, str, str]) -> None:
    change = watch._change(line)
    assert change is not None
    assert (change.deleted, change.what, change.prefix) == expected


def test_other_lines_are_passed_over() -> None:
    assert watch._change("Dump was interrupted and may be inconsistent.") is None
    assert watch._change("[2026-01-02T03:04:05.000006] [LINK]2: eth0") is None


def test_configurations_name_every_peer() -> None:
    peers = (TorPeer("node-a", "172.20.0.11", "fd00:172:20::11"), TorPeer("node-b", "172.20.0.12", "fd00:172:20::12"))
    tor = TorPlan(65001, 64512, "172.20.0.1", "fd00:172:20::1", "198.51.100.0/24", "2001:db8:100::/64", peers)
    node = NodePlan(
        "node-c", 64512, "172.20.0.13", "fd00:172:20::13", ("10.244.3.0/26",), ("10.244.0.0/16",), peers, 65001,
        "172.20.0.1", "fd00:172:20::1",
    )  # fmt: skip
    for text in (bird_tor(tor), frr_tor(tor), bird_node(node)):
        assert all(address in text for peer in peers for address in (peer.ipv4, peer.ipv6))


def test_a_skip_fails_in_ci(tmp_path: Path) -> None:
    case = tmp_path / "test_case.py"
    case.write_text("import pytest\n\n\ndef test_it():\n    pytest.skip('no such program')\n")
    for ci, status, words in (("true", 1, "skipped, which CI does not accept: no such program"), ("", 0, "1 skipped")):
        result = subprocess.run(
            [sys.executable, "-m", "pytest", "-p", "tests.conftest", "-p", "no:cacheprovider", str(case)],
            cwd=ROOT,
            env={**os.environ, "CI": ci},
            capture_output=True,
            text=True,
        )
        assert result.returncode == status, result.stdout
        assert words in result.stdout
