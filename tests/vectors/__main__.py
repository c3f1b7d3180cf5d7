"""python -m tests.vectors PATH...: runs conformance vectors, names each failure, last line "N passed, M failed"."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from tests.vectors.kinds import KINDS, Result


def main(arguments: list[str]) -> int:
    """Exit status: 0 all passed, 1 some failed, 2 a path is missing or nothing in it is known."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print("usage: python -m tests.vectors PATH...   (a folder or a file of vectors)", file=sys.stderr)
        return 2
    passed = failed = 0
    known = True
    for argument in arguments:
        found = False
        for result in _run(Path(argument)):
            found = True
            passed += result.passed
            failed += len(result.failures)
            for line in (*result.notes, *result.failures):
                print(line)
        if not found:
            print(f"{argument}: no vectors of a known kind ({', '.join(kind.name for kind in KINDS)})", file=sys.stderr)
            known = False
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0 if known else 2


def _run(path: Path) -> Iterator[Result]:
    return (kind.run(found) for kind in KINDS for found in kind.find(path))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
