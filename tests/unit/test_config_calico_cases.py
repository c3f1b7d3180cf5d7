"""Compile against Calico's own test corpus, as `python -m tests.vectors` does it (about 50,000 verdicts).

The corpus lies outside the repository, in ../shared/vectors/calico; without it these tests say so.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.vectors.calico import run_case

CASES = Path(__file__).parents[3] / "shared" / "vectors" / "calico" / "cases"


def _cases() -> list[Path]:
    return sorted(CASES.glob("*.json")) or [CASES / "missing"]


@pytest.mark.parametrize("path", _cases(), ids=lambda path: path.stem)
def test_case(path: Path) -> None:
    if not path.exists():
        pytest.skip("../shared/vectors/calico/cases is not there: Calico's own test cases were not compared")
    found = run_case(path)
    assert found.checks > 100 or "peer_count" in path.read_text()
    assert not found.wrong, "\n".join(found.wrong[:20])


def _first(case: Any) -> Any:
    return case["steps"][0]["expected"]["ipv4"]


def _flip(case: Any, direction: str) -> None:
    policy = next(p for p in _first(case)["probes"]["policies"] if p["direction"] == direction)
    policy["verdicts"][0][1] = {"accept": "reject", "reject": "accept"}[policy["verdicts"][0][1]]


BREAKS: dict[str, Callable[[Any], object]] = {
    "port": lambda case: _first(case)["peers"][0].update(port=1),
    "password": lambda case: _first(case)["peers"][0].update(password="x"),
    "missing peer": lambda case: _first(case)["peers"].pop(),
    "static route": lambda case: _first(case)["static_routes"].pop(),
    "block": lambda case: _first(case)["blocks"].pop(),
    "log level": lambda case: _first(case).update(log_level="none"),
    "router id": lambda case: _first(case).update(router_id="1.2.3.4"),
    "import verdict": lambda case: _flip(case, "import"),
    "export verdict": lambda case: _flip(case, "export"),
    "kernel verdict": lambda case: _flip(case, "kernel"),
}


@pytest.mark.parametrize("name", BREAKS)
def test_a_wrong_expectation_is_seen(name: str, tmp_path: Path) -> None:
    path = CASES / "mesh__ipip-always.json"
    if not path.exists():
        pytest.skip("../shared/vectors/calico/cases is not there: the comparison itself was not tried")
    case = json.loads(path.read_text())
    BREAKS[name](case)
    broken = tmp_path / path.name
    broken.write_text(json.dumps(case))
    assert run_case(broken).wrong
