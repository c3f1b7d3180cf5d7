"""Compile against Calico's own test corpus, as `python -m tests.vectors` does it (about 50,000 verdicts).

The corpus lies outside the repository, in ../shared/vectors/calico; without it these tests say so.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bgpd.policy.chain import Chain, Leaf
from bgpd.policy.shared import SharedTrees
from config import resources as r
from tests.unit.config_support import snapshot
from tests.vectors.calico import run_case
from tests.vectors.calico_quirks import as_calico

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


def test_verdicts_are_those_of_the_daemons_own_policy(monkeypatch: pytest.MonkeyPatch) -> None:
    path = CASES / "mesh__ipip-always.json"
    if not path.exists():
        pytest.skip("../shared/vectors/calico/cases is not there: the comparison itself was not tried")
    monkeypatch.setattr(Chain, "decide", lambda chain, subject, key: Leaf(False, "nothing passes", subject))
    with pytest.raises(ValueError, match="the chain ends in nothing passes, the tree in"):
        run_case(path)
    monkeypatch.setattr(SharedTrees, "tree", lambda *_: None)
    assert run_case(path).wrong


FILTER = "kind: BGPFilter\nmetadata: {name: f}\nspec: {exportV4: [%s]}\n---\n"
RULE = "{cidr: 10.0.0.0/8, matchOperator: %s, prefixLength: {min: 24}, action: Reject}"
NAMES = "kind: BGPPeer\nmetadata: {name: p}\nspec: {peerIP: 192.0.2.1, asNumber: 65001, filters: [%s]}\n---\n"


def test_what_rests_on_a_fixed_quirk_is_compared_as_calico_has_it() -> None:
    rules = ", ".join(RULE % operator for operator in ("Equal", "In", "NotEqual"))
    judged, notes = as_calico(snapshot(FILTER % rules + NAMES % "gone, f"))
    within, always = judged.of(r.BGPFilter)["f"].export_v4
    assert within.operator is r.MatchOperator.IN and within.length == (24, 32)
    assert (always.cidr, always.operator, always.length) == (None, None, None)
    assert judged.of(r.BGPPeer)["p"].filters == ("f",)
    assert [note.partition(" ")[0] for note in notes] == ["BGPFilter", "BGPPeer"]


def test_where_no_quirk_is_in_question_nothing_is_changed() -> None:
    plain = snapshot(FILTER % (RULE % "NotIn") + NAMES % "f")
    assert as_calico(plain) == (plain, [])
