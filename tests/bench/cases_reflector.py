"""The reflector's scenarios: ours beside five other daemons, every route that a client gets checked by bgpload.

Ours runs in several ways: from flags alone (measured against the best of the five), from a file datastore, with a
BGPFilter on every client, and with ADD-PATH on every session (all three measured against the flags).
"""

from __future__ import annotations

import sys
from functools import partial
from typing import Any

from tests.bench import reflector_ours, reflector_peers
from tests.bench.cases import Bench
from tests.bench.load import run_load
from tests.bench.reflector_peers import ASN, Wanted
from tests.bench.report import PEERS, Report
from tests.bench.scenarios import ADD_PATH, FLAGS, OURS, SCENARIOS, Scenario

_FAULTS = ("bad_nlri", "bad_attributes", "bad_next_hop", "no_originator", "bad_path_id")
FAR = 1.5
"""A peer that took so many times as much as the best one, in every figure of a case, has one run of it."""
FAILED = "runs that failed: a route lost, wrong or late, or a session dropped"


def case_reflector(bench: Bench, name: str) -> None:
    """One scenario, all daemons in turns."""
    scenario = SCENARIOS[name]
    peers = [peer for peer in scenario.peers if peer not in scenario.slow or bench.slow_peers]
    if left_out := [PEERS[peer] for peer in scenario.peers if peer not in peers and peer in bench.daemons]:
        bench.report.remark(f"{name}: without {', '.join(left_out)}, which takes 20 s and more a run (--slow-peers)")
    bench.report.row("reflector, all cases", FAILED, "", limit=0).ours = bench.failed
    done: set[str] = set()
    once: dict[str, None] = {}
    for who in bench.turns(FLAGS, *scenario.variants, *peers, most=bench.runs if bench.all_runs else scenario.runs):
        if who in done and _far(bench.report, name, who):
            once[PEERS[who]] = None
            continue
        bench.attempt(name, who, partial(_turn, bench, name, scenario, who))
        done.add(who)
    if once:
        bench.report.remark(f"{name}: fewer runs of {', '.join(once)}: far from the best in all figures, or failed")


def _far(report: Report, name: str, who: str) -> bool:
    """Whether a peer that had its turn failed, or has no chance to be the best in any figure."""
    if who not in PEERS:
        return False
    rows = [row for row in report.rows if row.case == name and row.best]
    mine = [(row.peer(who), row.peer(row.best or "")) for row in rows]
    return all(value is None or best is None or value >= FAR * best for value, best in mine)


def _turn(bench: Bench, name: str, scenario: Scenario, who: str) -> None:
    print(f"    {name}, {who}", file=sys.stderr, flush=True)
    try:
        found = _load(bench, scenario, who)
    except Exception:
        bench.failed[0] += who in OURS
        raise
    for figure in scenario.figures:
        value, add = figure.of(found), bench.report.add
        if who in PEERS or who == FLAGS:
            add(name, figure.what, figure.unit, who, value,
                ratio_limit=figure.best, limit=figure.limit, against="best")  # fmt: skip
        elif figure.costs:
            add(name + OURS[who], figure.what, figure.unit, "ours", value,
                ratio_limit=scenario.variants[who], against=name)  # fmt: skip
        else:
            add(name + OURS[who], figure.what, figure.unit, "ours", value, limit=figure.limit, against=name)


def _load(bench: Bench, scenario: Scenario, who: str) -> dict[str, Any]:
    """Start the daemon and play the scenario; bgpload's result. Raises RuntimeError where the daemon is wrong."""
    lab = bench.lab
    add_path = scenario.add_path or who == ADD_PATH
    wanted = Wanted(scenario.known, scenario.ipv6, add_path, scenario.graceful)
    lab.one_neighbour(scenario.known)
    if who in PEERS:
        running = reflector_peers.start(lab, who, wanted)
    else:
        running = reflector_ours.start(lab, who, wanted, scenario.many_prefixes)
    result = run_load(lab, running, ASN, scenario.arguments(add_path))
    faults = {fault: result[fault] for fault in _FAULTS if result[fault]}
    if faults:
        raise RuntimeError(f"wrong routes: {faults}")
    return result
