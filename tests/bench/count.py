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
from pathlib import Path

from tests.bench.count_load import PIECES

BASELINE = Path(__file__).with_name("count_baseline.json")
TOLERANCE = 0.05
"""A piece may take so much more than in the baseline; with another Python version three times that."""
ROOT = Path(__file__).resolve().parents[2]
_TOTAL = re.compile(r"^summary: (\d+)", re.M)


def parts() -> list[int]:
    """Instructions of each part of the work, in order. Raises RuntimeError when it could not be counted."""
    with tempfile.TemporaryDirectory(prefix="cbi-count-") as folder:
        argv = ["setarch", "-R", "valgrind", "--tool=callgrind", f"--callgrind-out-file={folder}/out",
                "--dump-before=getloadavg", sys.executable, "-B", "-m", "tests.bench.count_load"]  # fmt: skip
        env = {"PATH": os.environ.get("PATH", ""), "PYTHONHASHSEED": "0", "PYTHONPATH": str(ROOT)}
        done = subprocess.run(argv, capture_output=True, text=True, env=env, check=False, timeout=1800)
        if done.returncode:
            raise RuntimeError(done.stderr[-600:])
        # out.1 ends at the first mark, so every second one is work.
        files = [Path(folder, f"out.{2 * number}") for number in range(1, len(PIECES) + 2)]
        found = [_TOTAL.search(file.read_text()) for file in files if file.exists()]
    if len(found) <= len(PIECES) or None in found:
        raise RuntimeError("valgrind saw no calls of getloadavg: it needs the C library's symbols")
    return [int(match[1]) for match in found if match]


def ratios() -> dict[str, float]:
    """Each piece's instructions, in units of the yardstick's. Raises RuntimeError."""
    load = [sys.executable, "-m", "tests.bench.count_load"]
    subprocess.run(load, check=True, cwd=ROOT)  # compiles what is not yet compiled
    unit, *found = parts()
    return {name: value / unit for name, value in zip(PIECES, found, strict=True)}


def version() -> str:
    """Of this interpreter, as far as its code differs: "3.11"."""
    return ".".join(platform.python_version_tuple()[:2])


def main() -> int:
    """0: nothing takes more than the baseline and the tolerance; 1: something does; 2: could not be counted."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.count", description=__doc__)
    parser.add_argument("--renew", action="store_true", help="write the baseline of this Python version")
    options = parser.parse_args()
    if missing := [name for name in ("valgrind", "setarch") if shutil.which(name) is None]:
        print(f"make count needs {missing[0]}: apt-get install valgrind util-linux", file=sys.stderr)
        return 2
    found = ratios()
    baselines: dict[str, dict[str, float]] = json.loads(BASELINE.read_text()) if BASELINE.exists() else {}
    if options.renew:
        baselines[version()] = {name: round(value, 4) for name, value in found.items()}
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
