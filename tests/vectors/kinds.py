"""The registry of vector kinds: how to find them below a path, and how to run them. A new kind is a new row."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from attrs import Factory, define, frozen

from tests.vectors.calico import run_case
from tests.vectors.case import read_cases
from tests.vectors.codec import observe
from tests.vectors.judge import judge

_SHOWN = 20
"""Wrong facts that are shown of a case."""


@define
class Result:
    """What came of one file or folder. A line of `failures` names a case and says what is wrong."""

    passed: int = 0
    failures: list[str] = Factory(list)
    notes: list[str] = Factory(list)


@frozen
class Kind:
    """`find` gives the files or folders of this kind at or below a path; `run` runs one of them."""

    name: str
    find: Callable[[Path], Iterator[Path]]
    run: Callable[[Path], Result]


def _message_files(path: Path) -> Iterator[Path]:
    if path.is_file():
        yield from (path,) if path.suffix == ".jsonl" else ()
    else:
        yield from sorted(path.rglob("*.jsonl"))


def _run_messages(path: Path) -> Result:
    """Every case at the codec, in one process."""
    result = Result()
    excused: dict[str, list[str]] = {}
    for case in read_cases(path):
        wrong, clause = judge(case, observe(case))
        if wrong:
            result.failures.append(f"FAILED {case}: {case.action} wanted: {wrong}")
            continue
        result.passed += 1
        if clause:
            excused.setdefault(clause, []).append(str(case))
    for clause, cases in excused.items():
        result.notes.append(f"other outcome, as right by {clause}: {', '.join(cases)}")
    return result


def _calico_folders(path: Path) -> Iterator[Path]:
    """A folder with `cases/*.json` and `inputs/`."""
    for folder in (path, *(found.parent for found in path.glob("*/cases"))) if path.is_dir() else ():
        if (folder / "inputs").is_dir() and any((folder / "cases").glob("*.json")):
            yield folder


def _run_calico(path: Path) -> Result:
    """One result a case: every fact that it states must hold."""
    result = Result()
    for file in sorted((path / "cases").glob("*.json")):
        case = run_case(file)
        result.notes += [f"{case.name}: {note}" for note in case.notes]
        if not case.wrong:
            result.passed += 1
            result.notes.append(f"passed {case.name}: {case.checks} facts")
            continue
        shown = "\n    ".join(case.wrong[:_SHOWN])
        more = f"\n    and {len(case.wrong) - _SHOWN} more" if len(case.wrong) > _SHOWN else ""
        result.failures.append(f"FAILED {case.name}: {len(case.wrong)} of {case.checks} facts\n    {shown}{more}")
    return result


KINDS = (
    Kind("BGP messages (*.jsonl)", _message_files, _run_messages),
    Kind("Calico cases (cases/*.json)", _calico_folders, _run_calico),
)
