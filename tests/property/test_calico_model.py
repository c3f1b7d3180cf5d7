"""Whole clusters against a naive second reading of Calico's rules (calico-bgp.md), step by step on one compiler.

Every session with all its parameters, every static route, and the verdict of every policy on routes of all kinds. Many
clusters at once: `python -m tests.property.test_calico_model FIRST BEYOND` tries these seeds and names those that fail.
"""

from __future__ import annotations

import sys
from random import Random
from typing import Any

from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from tests.property import calico_cases
from tests.property.calico_cluster import FAMILIES, NODE, Cluster
from tests.property.calico_model import expected
from tests.vectors.calico import CaseResult, run_document

STEPS = 6
PROBES = 8
"""Routes for each family and step."""


def case(seed: int) -> dict[str, Any]:
    """A cluster that changes five times, in the form of Calico's cases."""
    r = Random(seed)
    before, cluster = None, calico_cases.cluster(r)
    refused: frozenset[str] = frozenset()
    steps: list[dict[str, Any]] = []
    for _ in range(STEPS):
        step = _step(r, before, cluster)
        bad = calico_cases.spoilt(r, cluster)
        healed = {_shown(document) for document in (*step["resources"], *step["deletes"])}
        refused = (refused - healed) | {_shown(document) for document in bad}
        steps.append({**step, "resources": [*step["resources"], *bad], "refused": sorted(refused)})
        before, cluster = cluster, calico_cases.later(r, cluster)
    return {"name": f"seed {seed}", "node": NODE, "env": cluster.env, "steps": steps}


def _step(r: Random, before: Cluster | None, after: Cluster) -> dict[str, Any]:
    """What has changed, and what the model makes of it."""
    old = before.documents if before is not None else ()
    there = {_key(document) for document in after.documents}
    routes = {family: calico_cases.probes(r, family, PROBES) for family in FAMILIES}
    return {
        "resources": [document for document in after.documents if document not in old],
        "deletes": [
            {"kind": document["kind"], **document["metadata"]} for document in old if _key(document) not in there
        ],
        "files": after.files,
        "expected": expected(after, routes),
    }


def _key(document: Any) -> tuple[str, str, str]:
    return document["kind"], document["metadata"].get("namespace", ""), document["metadata"]["name"]


def _shown(document: Any) -> str:
    """A document or a reference, as problems name it."""
    return f"{document['kind']}/{document.get('metadata', document)['name']}"


def run(seed: int) -> CaseResult:
    """The facts that were compared."""
    return run_document(case(seed), quirks=True)


# A smaller seed is no smaller cluster: nothing to shrink.
@settings(max_examples=60, deadline=None, derandomize=True, phases=(Phase.generate,))
@given(st.integers(0, 2**32))
def test_the_node_does_what_the_model_says(seed: int) -> None:
    result = run(seed)
    assert result.checks > 100
    assert not result.wrong, f"seed {seed}: " + "\n".join(result.wrong[:5])


def test_a_difference_is_noticed() -> None:
    """In one verdict of one policy, in one parameter of one session, in one route."""
    for seed in range(2):
        for spoil in (_flip_a_verdict, _change_a_port, _drop_a_route):
            changed = case(seed)
            if any(spoil(family) for step in changed["steps"] for family in step["expected"].values()):
                assert run_document(changed, quirks=True).wrong, f"seed {seed}: {spoil.__name__}"


def _flip_a_verdict(family: dict[str, Any]) -> bool:
    for policy in family["probes"]["policies"]:
        for verdict in policy["verdicts"]:
            verdict[1:] = ["accept", {}] if verdict[1] == "reject" else ["reject"]
            return True
    return False


def _change_a_port(family: dict[str, Any]) -> bool:
    for peer in family["peers"][:1]:
        peer["port"] += 1
    return bool(family["peers"])


def _drop_a_route(family: dict[str, Any]) -> bool:
    return bool(family["static_routes"]) and bool(family["static_routes"].pop())


def main(first: int, beyond: int) -> int:
    """Try the seeds; the exit status."""
    failed = checks = 0
    for seed in range(first, beyond):
        result = run(seed)
        checks += result.checks
        if result.wrong:
            failed += 1
            print(f"seed {seed}: {len(result.wrong)} wrong", *(line[:600] for line in result.wrong[:4]), sep="\n    ")
    print(f"{beyond - first - failed} passed, {failed} failed; {checks} facts")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:3])))
