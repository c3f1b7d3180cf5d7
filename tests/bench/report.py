"""Rows of the benchmark's table: ours beside the peer's, with the ratio and the figure to reach."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from attrs import asdict, define, field

from tests.bench.measure import median

_NUMBERS = range(3, 7)
"""Columns of the table that hold numbers."""


@define
class Row:
    """One line. Values are medians over runs; `samples` keeps every run's."""

    case: str
    what: str
    unit: str
    ours: list[float] = field(factory=list)
    peers: dict[str, list[float]] = field(factory=dict)
    ratio_limit: float | None = None
    """Ours may be at most so many times BIRD's."""
    limit: float | None = None
    """Ours may be at most this, in the row's unit."""
    goal: float | None = None
    note: str = ""

    @property
    def value(self) -> float | None:
        """Our median."""
        return median(self.ours) if self.ours else None

    def peer(self, name: str) -> float | None:
        """A peer's median."""
        values = self.peers.get(name)
        return median(values) if values else None

    @property
    def ratio(self) -> float | None:
        """Ours to BIRD's."""
        ours, bird = self.value, self.peer("bird")
        return ours / bird if ours is not None and bird else None

    @property
    def verdict(self) -> str:
        """ "ok", "MISSED", or "" where there is nothing to reach or nothing measured."""
        if self.value is None:
            return ""
        checks = []
        if self.ratio_limit is not None and self.ratio is not None:
            checks.append(self.ratio <= self.ratio_limit)
        if self.limit is not None:
            checks.append(self.value <= self.limit)
        return "" if not checks else "ok" if all(checks) else "MISSED"

    @property
    def target(self) -> str:
        """What is to be reached, in words."""
        parts = []
        if self.ratio_limit is not None:
            parts.append(f"<= {self.ratio_limit:g} x BIRD")
        if self.goal is not None:
            parts.append(f"goal {self.goal:g} x")
        if self.limit is not None:
            parts.append(f"<= {number(self.limit)} {self.unit}")
        return ", ".join(parts)


def number(value: float | None) -> str:
    """Three significant digits."""
    if value is None:
        return "-"
    if value != value:
        return "-"
    if abs(value) >= 100 or value == int(value):
        return f"{value:,.0f}"
    return f"{value:.3g}"


def _cell(column: int, text: str, width: int) -> str:
    return text.rjust(width) if column in _NUMBERS else text.ljust(width)


class Report:
    """All rows, in the order in which they were asked for."""

    def __init__(self) -> None:
        self.rows: list[Row] = []
        self.remarks: list[str] = []

    def row(self, case: str, what: str, unit: str, **more: Any) -> Row:
        """The row of this name, made when it is new."""
        for row in self.rows:
            if row.case == case and row.what == what:
                return row
        row = Row(case, what, unit, **more)
        self.rows.append(row)
        return row

    def add(self, case: str, what: str, unit: str, who: str, value: float, **more: Any) -> None:
        """Add one run's value: `who` is "ours" or a peer's name."""
        row = self.row(case, what, unit, **more)
        (row.ours if who == "ours" else row.peers.setdefault(who, [])).append(value)

    def remark(self, text: str) -> None:
        """A sentence below the table; equal ones once."""
        if text not in self.remarks:
            self.remarks.append(text)

    def table(self) -> str:
        """The table as text."""
        head = ("case", "what", "unit", "ours", "BIRD", "ratio", "FRR", "to reach", "")
        lines: list[Sequence[str]] = [head]
        for row in self.rows:
            ratio = f"{row.ratio:.2f}" if row.ratio is not None else "-"
            lines.append((row.case, row.what, row.unit, number(row.value), number(row.peer("bird")), ratio,
                          number(row.peer("frr")), row.target, row.verdict))  # fmt: skip
        widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
        text = ["  ".join(map(_cell, range(len(head)), line, widths)).rstrip() for line in lines]
        text.insert(1, "  ".join("-" * w for w in widths))
        return "\n".join(text + ([""] + [f"* {remark}" for remark in self.remarks] if self.remarks else []))

    def write(self, path: Path, facts: dict[str, Any]) -> None:
        """Everything as JSON."""
        rows = [{**asdict(row), "median": row.value, "ratio": row.ratio, "verdict": row.verdict} for row in self.rows]
        path.write_text(json.dumps({**facts, "rows": rows, "remarks": self.remarks}, indent=1) + "\n")
