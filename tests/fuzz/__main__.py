"""python -m tests.fuzz PATH...: cuts every message of the vectors at every octet, flips every bit, and reports."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from tests.fuzz.mutate import Report, run
from tests.vectors.case import read_cases


def main(arguments: list[str]) -> int:
    """Exit status: 0 nothing stray and nothing slow, 1 otherwise, 2 no vectors."""
    files = [found for path in map(Path, arguments) for found in _files(path)]
    if not files:
        print("usage: python -m tests.fuzz PATH...   (messages.jsonl, or a folder that holds one)", file=sys.stderr)
        return 2
    report = Report()
    start = time.monotonic()
    for file in files:
        for case in read_cases(file):
            run(case.octets, case.context, str(case), report)
    for line in (*report.strays, *report.slow):
        print(line)
    print(
        f"{report.inputs} inputs in {time.monotonic() - start:.0f} s: {len(report.strays)} stray exceptions, "
        f"{len(report.slow)} over 10 ms, slowest {report.slowest * 1000:.1f} ms"
    )
    return 0 if report.good else 1


def _files(path: Path) -> list[Path]:
    return [path] if path.is_file() else sorted(path.rglob("*.jsonl"))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
