"""`make count`: instructions of the reflector's hot path, counted by valgrind, against the committed baseline.

Counts do not depend on the machine's speed or load. They do depend on how Python was built, so what is compared is a
ratio: instructions of a piece of work to those of plain Python operations of the same sort in the same interpreter
(`count_load.yardstick`). `--renew` writes the baseline anew.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.bench.count_load import FIXED, PIECES

BASELINE = Path(__file__).with_name("count_baseline.json")
TOLERANCE = 0.10
"""A piece may take so much more than in the baseline; with another Python version three times that."""
ROOT = Path(__file__).resolve().parents[2]
_TOTAL = re.compile(r"Collected : (\d+)")


def count(piece: str) -> int:
    """Instructions of one process that does this piece. Raises RuntimeError when it fails."""
    with tempfile.TemporaryDirectory(prefix="cbi-count-") as folder:
        argv = ["setarch", "-R", "valgrind", "--tool=callgrind", f"--callgrind-out-file={folder}/out",
                sys.executable, "-B", "-m", "tests.bench.count_load", piece]  # fmt: skip
        env = {"PATH": os.environ.get("PATH", ""), "PYTHONHASHSEED": "0", "PYTHONPATH": str(ROOT)}
        done = subprocess.run(argv, capture_output=True, text=True, env=env, check=False, timeout=600)
    found = _TOTAL.search(done.stderr)
    if done.returncode or found is None:
        raise RuntimeError(f"{piece}: {done.stderr[-600:]}")
    return int(found[1])


def ratios(jobs: int) -> dict[str, float]:
    """Each piece's instructions, in units of the yardstick's. Raises RuntimeError."""
    names = [*FIXED, *PIECES]
    count_load = [sys.executable, "-m", "tests.bench.count_load", "nothing"]
    subprocess.run(count_load, check=True, cwd=ROOT)  # compiles what is not yet compiled
    with ThreadPoolExecutor(jobs) as pool:
        found = dict(zip(names, pool.map(count, names), strict=True))
    unit = found["yardstick"] - found["nothing"]
    return {name: (found[name] - found["nothing"]) / unit for name in PIECES}


def version() -> str:
    """Of this interpreter, as far as its code differs: "3.11"."""
    return ".".join(platform.python_version_tuple()[:2])


def main() -> int:
    """0: nothing takes more than the baseline and the tolerance; 1: something does; 2: could not be counted."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.count", description=__doc__)
    parser.add_argument("--renew", action="store_true", help="write the baseline of this Python version")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes at a time (%(default)s)")
    options = parser.parse_args()
    if missing := [name for name in ("valgrind", "setarch") if shutil.which(name) is None]:
        print(f"make count needs {missing[0]}: apt-get install valgrind util-linux", file=sys.stderr)
        return 2
    found = ratios(options.jobs)
    baselines: dict[str, dict[str, float]] = json.loads(BASELINE.read_text()) if BASELINE.exists() else {}
    if options.renew:
        baselines[version()] = {name: round(value, 3) for name, value in found.items()}
        BASELINE.write_text(json.dumps(baselines, indent=1, sort_keys=True) + "\n")
    return judge(found, baselines)


def judge(found: dict[str, float], baselines: dict[str, dict[str, float]]) -> int:
    """Print each piece beside its baseline; the exit status."""
    if not baselines:
        print("no baseline: make one with --renew", file=sys.stderr)
        return 2
    own = baselines.get(version())
    baseline = own if own is not None else baselines[max(baselines, key=lambda name: tuple(map(int, name.split("."))))]
    tolerance = TOLERANCE if own is not None else 3 * TOLERANCE
    if own is None:
        print(f"no baseline for Python {version()}: compared with another version's, at {tolerance:.0%}")
    worse = []
    print(f"{'piece':16} {'now':>8} {'baseline':>9} {'change':>8}   (in units of plain Python operations)")
    for name, value in found.items():
        expected = baseline.get(name)
        change = value / expected - 1 if expected else 0.0
        print(f"{name:16} {value:8.3f} {expected or float('nan'):9.3f} {change:+8.1%}")
        if expected is None or change > tolerance:
            worse.append(name)
        elif change < -tolerance:
            print("  less than the baseline: renew it, so that the gain is kept (make count ARGS=--renew)")
    if worse:
        print(f"more instructions than the baseline and {tolerance:.0%} allow, or no baseline: {', '.join(worse)}")
    return 1 if worse else 0


if __name__ == "__main__":
    sys.exit(main())
