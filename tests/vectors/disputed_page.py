"""The page `disputed.md` beside a file of message cases: which outcomes are right as well, by case id.

Its table has the cases' ids in the first column and the outcomes, in backquotes, in the third: `accept`, `established`,
`withdraw`, or `reset C/S` with a regular expression for the codes. A row without backquotes there allows `accept`.
"""

from __future__ import annotations

import re
from pathlib import Path

from tests.vectors.outcome import ACCEPT, IGNORE, RESET, WITHDRAW, Outcome

NAME = "disputed.md"

_WORDS = {ACCEPT: ("accept", "established"), IGNORE: ("accept",), WITHDRAW: ("withdraw",)}


def read_page(cases: Path) -> dict[str, frozenset[str]]:
    """The page beside a file of cases; empty where there is none."""
    page = cases.with_name(NAME)
    return read_disputed(page.read_text(encoding="utf-8")) if page.exists() else {}


def read_disputed(text: str) -> dict[str, frozenset[str]]:
    """Case id -> outcomes that are right as well, from the table's rows."""
    found: dict[str, frozenset[str]] = {}
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split(" | ")]
        if len(cells) >= 4 and (ids := re.findall(r"\b[0-9a-f]{12}\b", cells[0])):
            # A table's cell has its "|" escaped.
            outcomes = frozenset(re.findall(r"`([^`]+)`", cells[2].replace(r"\|", "|"))) or frozenset({"accept"})
            found |= dict.fromkeys(ids, outcomes)
    return found


def allows(outcomes: frozenset[str], outcome: Outcome) -> bool:
    """Whether this outcome is one of those."""
    if outcome.fault:
        return False
    if outcome.result == RESET:
        said = f"{outcome.code}/{outcome.subcode}"
        patterns = (text.removeprefix("reset ") for text in outcomes if text.startswith("reset "))
        return any(re.fullmatch(pattern, said) for pattern in patterns)
    return any(word in outcomes for word in _WORDS.get(outcome.result, ()))
