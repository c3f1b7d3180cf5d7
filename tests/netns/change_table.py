"""`python -m tests.netns.change_table [WORD…]`: change every field once, and write docs/changes.md.

With words, only the rows whose field contains one of them are run, and nothing is written. Needs root, BIRD and FRR.
Exit status 1 where a reset was seen that was not expected, or none that was.
"""

from __future__ import annotations

import subprocess
import sys
import time

from tests.lab.netns import LabError
from tests.lab.speakers import FRR_FOLDER
from tests.netns.changes.lab import ChangeLab
from tests.netns.changes.runner import Result, Runner
from tests.netns.changes.table import PAGE, page, rows


def _versions() -> str:
    def first(*arguments: str) -> str:
        done = subprocess.run(arguments, capture_output=True, text=True, check=False)
        return ((done.stdout + done.stderr).splitlines() or ["?"])[0].strip()

    bird = first("bird", "--version").removeprefix("BIRD version ")
    return f"Neighbours of this run: BIRD {bird}, {first(str(FRR_FOLDER / 'bgpd'), '--version')}."


def main(words: list[str]) -> int:
    """See the module."""
    chosen = [row for row in rows() if not words or any(word in f"{row.name} {row.what}" for word in words)]
    results: list[Result] = []
    failed = 0
    with ChangeLab() as lab:
        runner = Runner(lab)
        for row in chosen:
            began = time.monotonic()
            try:
                result = runner.run(row)
            except LabError as error:
                failed += 1
                print(f"FAILED {error}", flush=True)
                continue
            results.append(result)
            good = result.expected == result.seen
            failed += not good
            took = "-" if result.seconds is None else f"{result.seconds:.2f}"
            print(
                f"{'ok    ' if good else 'DIFFERS'} {row.name} ({row.what}): expected {sorted(result.expected)}, "
                f"seen {sorted(result.seen)}, in effect {took} s, row {time.monotonic() - began:.1f} s",
                flush=True,
            )
    if not words and not failed:
        PAGE.write_text(page(results, _versions()))
        print(f"{PAGE.name} written, {len(results)} rows")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
