"""The message vectors: the project's own always, the wider set where it lies beside the repository."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import pytest

from tests.vectors import __main__ as runner
from tests.vectors.case import Case, read_cases
from tests.vectors.codec import observe
from tests.vectors.disputes import RULES, SINGLES
from tests.vectors.judge import judge
from tests.vectors.outcome import ACCEPT, RESET, WITHDRAW, Outcome

OWN = Path(__file__).parent / "own.jsonl"
ROOT = Path(__file__).parents[2]
SHARED = ROOT.parent / "shared" / "vectors"


@pytest.mark.parametrize("case", list(read_cases(OWN)), ids=str)
def test_own_case(case: Case) -> None:
    wrong, _ = judge(case, observe(case))
    assert not wrong


def test_only_own_cases_are_in_the_repository() -> None:
    origins = {json.loads(line)["origin"] for line in OWN.read_text(encoding="utf-8").splitlines()}
    assert origins and all(origin.startswith("own") for origin in origins)


def test_shared_cases() -> None:
    file = SHARED / "bgp" / "messages.jsonl"
    if not file.exists():
        warnings.warn("left out: 999 message cases of other projects (../shared/vectors is not there)", stacklevel=1)
        return
    failures = [f"{case}: {wrong}" for case in read_cases(file) if (wrong := judge(case, observe(case))[0])]
    assert failures == []


def test_the_page_on_conformance_names_every_exception() -> None:
    page = (ROOT / "docs" / "conformance.md").read_text(encoding="utf-8")
    for rule in RULES:
        assert f"| {rule.name} |" in page and f"| {rule.clause} |" in page
    for case_id, single in SINGLES.items():
        line = next(line for line in page.splitlines() if case_id in line)
        assert f"| {single.outcome} |" in line and f"| {single.clause} |" in line


def test_runner_counts_and_exits(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = OWN.read_text(encoding="utf-8").splitlines()[:3]
    wrong = json.loads(lines[0])
    wrong["expect"] = {"action": "session-reset", "code": 1, "subcode": 1}
    (tmp_path / "messages.jsonl").write_text("\n".join((*lines, json.dumps(wrong))), encoding="utf-8")
    assert runner.main([str(tmp_path)]) == 1
    output = capsys.readouterr().out.splitlines()
    assert output[-1] == "3 passed, 1 failed"
    assert any(line.startswith(f"FAILED {wrong['id']} {wrong['name']}:") for line in output)


def test_runner_passes_a_file(capsys: pytest.CaptureFixture[str]) -> None:
    assert runner.main([str(OWN)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "528 passed, 0 failed"


def test_runner_refuses_what_it_does_not_know(tmp_path: Path) -> None:
    assert runner.main([str(tmp_path)]) == 2
    assert runner.main([]) == 2


def test_runner_knows_calico_cases(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "deep" / "cases").mkdir(parents=True)
    node = {"apiVersion": "projectcalico.org/v3", "kind": "Node", "metadata": {"name": "n"}}
    step = {
        "resources": [{**node, "spec": {"bgp": {"ipv4Address": "10.0.0.1/24"}}}],
        "deletes": [],
        "expected": {"ipv4": {"peer_count": 0}},
    }
    for name, count in (("good", 0), ("bad", 1)):
        step["expected"] = {"ipv4": {"peer_count": count}}
        case = {"name": name, "node": "n", "env": {}, "steps": [step]}
        (tmp_path / "deep" / "cases" / f"{name}.json").write_text(json.dumps(case), encoding="utf-8")
    step["expected"] = {}
    case = {"name": "empty", "node": "n", "env": {}, "steps": [step]}
    (tmp_path / "deep" / "cases" / "empty.json").write_text(json.dumps(case), encoding="utf-8")
    (tmp_path / "deep" / "cases" / "torn.json").write_text("{", encoding="utf-8")
    assert runner.main([str(tmp_path)]) == 1
    printed = capsys.readouterr().out
    assert "FAILED bad: 1 of 1 facts" in printed and "FAILED torn: JSONDecodeError" in printed
    assert "FAILED empty: it states no fact" in printed and printed.endswith("1 passed, 3 failed\n")
    assert runner.main([str(tmp_path / "deep" / "cases" / "good.json")]) == 0


# The judge itself: an outcome that should fail must fail, or a pass means nothing.

PREFIX = "110010110000000001110001"
"""203.0.113.0/24 in bits."""


def _own(name: str) -> Case:
    return next(case for case in read_cases(OWN) if case.name == name)


@pytest.mark.parametrize(
    ("name", "outcome"),
    [
        ("attr-4-length-2-ebgp", Outcome(ACCEPT, announced={(1, 1): [PREFIX]})),
        ("attr-4-length-2-ebgp", Outcome(RESET, 3, 5)),
        ("attr-4-length-2-ebgp", Outcome(WITHDRAW)),
        ("attr-4-length-2-ebgp", Outcome(WITHDRAW, announced={(1, 1): [PREFIX]}, withdrawn={(1, 1): [PREFIX]})),
        ("duplicate-mp-reach", Outcome(WITHDRAW)),
        ("duplicate-mp-reach", Outcome(RESET, 3, 5)),
        ("type-4-length-20", Outcome(RESET, 1, 2, b"\x00\x13")),
        ("as4-path-merge", Outcome(ACCEPT, announced={(1, 1): [PREFIX]}, path=((2, (65001, 23456, 64512)),))),
        ("as-path-255-hops", Outcome(ACCEPT)),
        ("duplicate-attribute-4", Outcome(WITHDRAW, withdrawn={(1, 1): [PREFIX]})),
        ("unknown-transitive-213-length-3", Outcome(ACCEPT, announced={(1, 1): [PREFIX]})),
        ("mp-reach-prefix-cut", Outcome(ACCEPT, announced={(2, 1): ["0"]})),
        ("nlri-multicast", Outcome(ACCEPT, announced={(1, 1): ["1110"]})),
        ("notification-0-0", Outcome(RESET, 5, 1)),
        ("refresh-subtype-9", Outcome(ACCEPT)),
        ("next-hop-255.255.255.255", Outcome(ACCEPT, announced={(1, 1): [PREFIX]})),
        ("cluster-list-has-our-id", Outcome(ACCEPT, announced={(1, 1): [PREFIX]})),
        ("open-hold-0", Outcome(ACCEPT, fault="something went wrong")),
    ],
)
def test_judge_fails_wrong_outcomes(name: str, outcome: Outcome) -> None:
    assert judge(_own(name), outcome)[0]
