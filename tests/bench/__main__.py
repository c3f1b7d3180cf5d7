"""`python -m tests.bench`: one table, ours beside the peers', measured in the same run by turns.

Needs root (network namespaces). Figures of different days or machines do not compare; ratios of one run do.
"""

from __future__ import annotations

import argparse
import copy
import os
import platform
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from tests.bench import our_side
from tests.bench.cases import Bench, case_full_table, case_sink
from tests.bench.cases_config import SIZES, STORES, case_config
from tests.bench.cases_kernel import case_felix, case_kernel, case_one_change
from tests.bench.cases_reflector import case_reflector
from tests.bench.cases_rest import case_idle, case_start
from tests.bench.cases_stalled import case_stalled
from tests.bench.chart import draw
from tests.bench.lab import LOAD_CORE, Lab, alone, core_count, load_average
from tests.bench.layout import markdown, table
from tests.bench.load import build
from tests.bench.programs import DAEMONS, MISSING, versions
from tests.bench.report import Report
from tests.bench.scenarios import OURS, SCENARIOS

CASES: dict[str, Callable[[Bench], None]] = {
    "full": case_full_table,
    "sink": case_sink,
    "kernel": case_kernel,
    "change": case_one_change,
    "felix": case_felix,
    "idle": case_idle,
    "start": case_start,
    "stalled": case_stalled,
    **{
        f"config-{store}-{SIZES[size][0]}": partial(case_config, store=store, size=size)
        for store in STORES
        for size in SIZES
    },
    **{name: partial(case_reflector, name=name) for name in SCENARIOS},
}
GROUPS = {
    "node": [name for name in CASES if name not in ("stalled", *SCENARIOS) and not name.startswith("config-")],
    "reflector": ["stalled", *SCENARIOS],
    "config": [name for name in CASES if name.startswith("config-")],
}


def main() -> int:
    """Run the cases asked for; 0 unless our daemon missed a figure (--strict) or nothing could be run."""
    options = _options()
    if options.render:
        return _render(options)
    if os.geteuid() != 0:
        print("make bench needs root: it makes network namespaces and pins daemons to cores.", file=sys.stderr)
        return 2
    if core_count() < 2:
        print("make bench needs two cores: one for the daemon, one for the load.", file=sys.stderr)
        return 2
    with alone():
        os.sched_setaffinity(0, {int(LOAD_CORE)})
        return _run(options)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    add = parser.add_argument
    groups = ", ".join(f"{name} ({' '.join(cases)})" for name, cases in GROUPS.items())
    add("--only", default="node,reflector", help=f"cases and groups, comma-separated (%(default)s); groups: {groups}")
    add(
        "--runs",
        type=int,
        help="runs per daemon and case (default: 3 to 9 in a minute, 2 of long cases, 1 of the longest)",
    )
    add("--json", type=Path, metavar="FILE", help="write every run's figures there")
    add("--append", action="store_true", help="add to what is in the file of --json (a run in pieces)")
    add("--chart", type=Path, metavar="FILE", help="draw the reflector's rows as PNG")
    add("--markdown", type=Path, metavar="FILE", help="write the table as a page of documentation")
    add("--render", type=Path, nargs="+", metavar="FILE", help="run nothing: table and chart of such files")
    add("--daemons", default=",".join((*OURS, *DAEMONS, "bird-main")), help="which to run (default: %(default)s)")
    add("--slow-peers", action="store_true", help="run peers that need 20 s and more for a case as well (GoBGP)")
    add("--profile", type=Path, metavar="DIR", help="run ours under cProfile (its times are then no figures)")
    add("--strict", action="store_true", help="exit 1 when a figure is missed")
    options = parser.parse_args()
    options.all_runs, options.runs = options.runs is not None, options.runs or 3
    options.cases = list(dict.fromkeys(case for name in options.only.split(",") for case in GROUPS.get(name, [name])))
    if unknown := [name for name in options.cases if name not in CASES]:
        parser.error(f"unknown case {unknown[0]}; there are {', '.join(CASES)}")
    return options


def _run(options: argparse.Namespace) -> int:
    report = Report()
    found = {"ours": "this checkout" if our_side.present() else MISSING, **versions()}
    for name, version in found.items():
        print(f"{name}: {version}", flush=True)
        if version == MISSING:
            report.remark(f"{name} is not installed: its columns are empty")
    if build() is None:
        report.remark("no C compiler: the cases that need bgpload (sink, kernel, change, idle, the reflector's) fail")
    there = {name for name, version in found.items() if version != MISSING}
    names = tuple(n for n in options.daemons.split(",") if n.partition("-")[0] in there)
    if options.profile:
        options.profile = options.profile.resolve()
        options.profile.mkdir(parents=True, exist_ok=True)
    facts = {"versions": found, "runs": options.runs, "python": _python(), "began": time.time(),
             "machine": f"{os.cpu_count()} cores, {platform.machine()}, Linux {platform.release()}"}  # fmt: skip
    earlier = Report()
    if options.append and options.json and options.json.exists():
        earlier.read(options.json)
    lab = Lab()
    try:
        bench = Bench(lab, report, options.runs, names, options.slow_peers, options.all_runs,
                      profile_folder=options.profile)  # fmt: skip
        for name in options.cases:
            print(f"... {name}, {time.time() - facts['began']:.0f} s", file=sys.stderr, flush=True)
            CASES[name](bench)
            if options.json:
                _joined(earlier, report).write(options.json, facts)
    except KeyboardInterrupt:
        report.remark("interrupted: cases are missing, and the last one may have too few runs")
    finally:
        lab.stop_all()
        lab.close()
    report = _joined(earlier, report)
    if options.json:
        report.write(options.json, facts)
    minutes = (time.time() - facts["began"]) / 60
    runs = f"{options.runs} runs" + ("" if options.all_runs else " as a rule")
    print(
        f"{facts['machine']}, Python {facts['python']}; {runs}; {minutes:.1f} minutes; "
        f"load average {load_average():.2f}\n"
    )
    return _show(report, options, facts)


def _python() -> str:
    """Version and place: builds of one version differ by an eighth and more."""
    return f"{platform.python_version()} ({os.path.realpath(sys.executable)})"


def _joined(earlier: Report, report: Report) -> Report:
    """What earlier runs and this one gave."""
    found = Report()
    for part in (earlier, report):
        found.include(copy.deepcopy(part))
    return found


def _render(options: argparse.Namespace) -> int:
    report, facts = Report(), {}
    for path in options.render:
        facts = report.read(path)
        print(f"{path}: {facts['machine']}, Python {facts['python']}")
        print("\n".join(f"  {name}: {version}" for name, version in facts["versions"].items()))
    print()
    return _show(report, options, facts)


def _show(report: Report, options: argparse.Namespace, facts: dict[str, Any]) -> int:
    print(table(report))
    if options.markdown:
        options.markdown.write_text(markdown(report, facts))
    if options.chart:
        print("\n" + (draw(report, options.chart) or f"chart: {options.chart}"))
    missed = [row for row in report.rows if row.verdict == "MISSED"]
    return 1 if options.strict and missed else 0


if __name__ == "__main__":
    sys.exit(main())
