"""The reflector's scenarios: ours beside five other daemons, every route that a client gets checked by bgpload.

Ours runs in three ways: from flags alone (measured against the best of the five), from a file datastore, and with a
BGPFilter on every client (both measured against the flags). ADD-PATH variants end in "+ap" and are measured against
ours without.
"""

from __future__ import annotations

import sys
import time
from functools import partial
from typing import Any

from tests.bench import reflector_ours, reflector_peers
from tests.bench.cases import Bench
from tests.bench.load import run_load
from tests.bench.reflector_ours import FILE, FILTER, FLAGS
from tests.bench.reflector_peers import ASN, Wanted
from tests.bench.report import PEERS
from tests.bench.scenarios import SCENARIOS, Scenario

VARIANTS = {FLAGS: "", FILE: ", datastore", FILTER: ", BGPFilter"}
_VARIANT_LIMITS = {FILE: 1.3, FILTER: 1.6}
_FAULTS = ("bad_nlri", "bad_attributes", "bad_next_hop", "no_originator", "bad_path_id")
SLOW = 15.0
"""A daemon that needs more seconds for one run of a case has one run of it: it is not the best, and time is short."""


def case_reflector(bench: Bench, name: str) -> None:
    """One scenario, all daemons in turns."""
    scenario = SCENARIOS[name]
    slow: set[str] = set()
    for who in bench.turns(*(VARIANTS if scenario.variants else (FLAGS,)), *scenario.peers):
        if who not in slow:
            bench.attempt(name, who, partial(_turn, bench, name, scenario, who, slow))


def _turn(bench: Bench, name: str, scenario: Scenario, who: str, slow: set[str]) -> None:
    began = time.monotonic()
    print(f"    {name}, {who}", file=sys.stderr, flush=True)
    try:
        found = _load(bench, scenario, who)
    except Exception:
        slow.add(who)
        raise
    finally:
        if who in PEERS and time.monotonic() - began > SLOW:
            slow.add(who)
            bench.report.remark(f"{name}: one run of {PEERS[who]}, which is slow here")
    for figure in scenario.figures:
        value = figure.of(found)
        if who in PEERS:
            bench.report.add(name, figure.what, figure.unit, who, value, **scenario.targets(figure))
        elif who == FLAGS:
            bench.report.add(name, figure.what, figure.unit, "ours", value, **scenario.targets(figure))
        else:
            limit = _VARIANT_LIMITS[who] if figure.costs else None
            case = name + VARIANTS[who]
            bench.report.add(case, figure.what, figure.unit, "ours", value, ratio_limit=limit, against=name)


def _load(bench: Bench, scenario: Scenario, who: str) -> dict[str, Any]:
    """Start the daemon and play the scenario; bgpload's result. Raises RuntimeError where the daemon is wrong."""
    lab = bench.lab
    wanted = Wanted(scenario.known, scenario.ipv6, scenario.add_path, scenario.graceful)
    lab.one_neighbour(scenario.known)
    if who in PEERS:
        running = reflector_peers.start(lab, who, wanted)
    else:
        running = reflector_ours.start(lab, who, wanted, scenario.many_prefixes)
    result = run_load(lab, running, ASN, scenario.arguments)
    faults = {fault: result[fault] for fault in _FAULTS if result[fault]}
    if faults:
        raise RuntimeError(f"wrong routes: {faults}")
    return result
