"""The registry of vector kinds: how to find them below a path, and how to run them. A new kind is a new row."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from attrs import Factory, define, frozen

from tests.vectors import disputed_page
from tests.vectors.calico import run_case
from tests.vectors.case import read_case, read_lines
from tests.vectors.codec import observe
from tests.vectors.disputed_page import allows, read_page
from tests.vectors.judge import judge, left_out

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
    disputed = read_page(path)
    for number, line in enumerate(read_lines(path), 1):
        try:
            case = read_case(line)
        except ValueError as error:
            result.failures.append(f"FAILED {path.name}, case {number}: {error}")
            continue
        outcome = observe(case)
        wrong, clause = judge(case, outcome)
        if wrong and allows(disputed.get(case.id, frozenset()), outcome):
            wrong, clause = "", disputed_page.NAME
        if wrong:
            result.failures.append(f"FAILED {case}: {case.action} wanted: {wrong}")
            continue
        result.passed += 1
        if missing := left_out(case):
            result.notes.append(f"{case}: {missing}")
        if clause:
            excused.setdefault(clause, []).append(str(case))
    for clause, cases in excused.items():
        result.notes.append(f"other outcome, as right by {clause}: {', '.join(cases)}")
    return result


def _calico_cases(path: Path) -> Iterator[Path]:
    """One case, a folder of them, or whatever has folders named `cases` in it."""
    if path.is_file():
        yield from (path,) if path.suffix == ".json" else ()
        return
    for folder in (path,) if path.name == "cases" else sorted(path.rglob("cases")):
        yield from sorted(folder.glob("*.json"))


def _run_calico(path: Path) -> Result:
    """Every fact that the case states must hold."""
    try:
        case = run_case(path)
    except Exception as error:
        # What cannot be read costs this case, and none of the others.
        return Result(failures=[f"FAILED {path.stem}: {type(error).__name__}: {error}"])
    result = Result(notes=[f"{case.name}: {note}" for note in case.notes])
    if not case.wrong and not case.checks:
        result.failures.append(f"FAILED {case.name}: it states no fact that is known here")
        return result
    if not case.wrong:
        result.passed = 1
        result.notes.append(f"passed {case.name}: {case.checks} facts")
        return result
    shown = "\n    ".join(case.wrong[:_SHOWN])
    more = f"\n    and {len(case.wrong) - _SHOWN} more" if len(case.wrong) > _SHOWN else ""
    result.failures.append(f"FAILED {case.name}: {len(case.wrong)} of {case.checks} facts\n    {shown}{more}")
    return result


KINDS = (
    Kind("BGP messages (*.jsonl)", _message_files, _run_messages),
    Kind("Calico cases (cases/*.json)", _calico_cases, _run_calico),
)
