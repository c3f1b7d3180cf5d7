"""`python -m tests.bench`: one table, ours beside the peers', measured in the same run by turns.

Needs root (network namespaces). Figures of different days or machines do not compare; ratios of one run do.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tests.bench import bird_side, our_side
from tests.bench.cases import Bench, case_full_table, case_sink
from tests.bench.cases_kernel import case_felix, case_kernel, case_one_change
from tests.bench.cases_rest import case_idle, case_start
from tests.bench.lab import LOAD_CORE, Lab, core_count, load_average
from tests.bench.load import build
from tests.bench.report import Report

CASES: dict[str, Callable[[Bench], None]] = {
    "full": case_full_table,
    "sink": case_sink,
    "kernel": case_kernel,
    "change": case_one_change,
    "felix": case_felix,
    "idle": case_idle,
    "start": case_start,
}


def main() -> int:
    """Run the cases asked for; 0 unless our daemon missed a figure (--strict) or nothing could be run."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--only", default=",".join(CASES), help="cases, comma-separated (default: %(default)s)")
    parser.add_argument("--runs", type=int, default=3, help="runs per daemon and case (default: %(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every run's figures there")
    parser.add_argument("--daemons", default="ours,bird,bird-main,frr", help="which to run (default: %(default)s)")
    parser.add_argument(
        "--profile", type=Path, metavar="DIR", help="run ours under cProfile (its times are then no figures)"
    )
    parser.add_argument("--strict", action="store_true", help="exit 1 when a figure is missed")
    options = parser.parse_args()
    wanted = options.only.split(",")
    if unknown := [name for name in wanted if name not in CASES]:
        parser.error(f"unknown case {unknown[0]}; there are {', '.join(CASES)}")
    if os.geteuid() != 0:
        print("make bench needs root: it makes network namespaces and pins daemons to cores.", file=sys.stderr)
        return 2
    if core_count() < 2:
        print("make bench needs two cores: one for the daemon, one for the load.", file=sys.stderr)
        return 2
    with (Path(tempfile.gettempdir()) / "cbi-bench.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("Another make bench is running: two would spoil each other's figures.", file=sys.stderr)
            return 2
        os.sched_setaffinity(0, {int(LOAD_CORE)})
        return _run(wanted, options)


def _run(wanted: list[str], options: argparse.Namespace) -> int:
    report = Report()
    versions = {"ours": "this checkout" if our_side.present() else "missing", **bird_side.versions()}
    for name, version in versions.items():
        print(f"{name}: {version}")
        if version == "missing":
            report.remark(f"{name} is not installed: its columns are empty")
    if build() is None:
        report.remark("no C compiler: the cases that need bgpload (sink, kernel, change, idle) fail")
    there = {name for name, version in versions.items() if version != "missing"}
    names = tuple(n for n in options.daemons.split(",") if n.partition("-")[0] in there)
    if options.profile:
        options.profile.mkdir(parents=True, exist_ok=True)
    lab = Lab()
    began = time.time()
    try:
        bench = Bench(lab, report, options.runs, names, options.profile.resolve() if options.profile else None)
        for name in wanted:
            print(f"... {name}", file=sys.stderr, flush=True)
            CASES[name](bench)
    finally:
        lab.stop_all()
        lab.close()
    print(
        f"{os.cpu_count()} cores, {platform.machine()}, Linux {platform.release()}, Python {platform.python_version()}"
    )
    print(f"{options.runs} runs; load average at the end {load_average():.2f}\n")
    print(report.table())
    if options.json:
        facts = {"versions": versions, "runs": options.runs, "python": platform.python_version(), "began": began}
        report.write(options.json, facts)
    missed = [row for row in report.rows if row.verdict == "MISSED"]
    return 1 if options.strict and missed else 0


if __name__ == "__main__":
    sys.exit(main())
