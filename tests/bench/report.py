"""Rows of the benchmark's table: ours beside the peers', with the ratio and the figure to reach."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from attrs import asdict, define, field, fields

from tests.bench.measure import median

PEERS = {"bird": "BIRD 2", "bird3": "BIRD 3", "frr": "FRR", "gobgp": "GoBGP", "openbgpd": "OpenBGPD"}
"""Of these is the best, where a row is measured against it."""


@define
class Row:
    """One line. Values are medians over runs; `ours` and `peers` keep every run's."""

    case: str
    what: str
    unit: str
    ours: list[float] = field(factory=list)
    peers: dict[str, list[float]] = field(factory=dict)
    ratio_limit: float | None = None
    """Ours may be at most so many times what it is measured against."""
    limit: float | None = None
    """Ours may be at most this, in the row's unit."""
    goal: float | None = None
    against: str = "bird"
    """ "bird"; "best": the peer with the lowest median; or a case: ours there, in a row of the same name."""
    base: Row | None = None
    """The row that `against` names."""
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
    def best(self) -> str | None:
        """The peer with the lowest median."""
        there = [name for name in PEERS if self.peers.get(name)]
        return min(there, key=lambda name: median(self.peers[name])) if there else None

    @property
    def reference(self) -> float | None:
        """What ours is measured against."""
        if self.against not in ("bird", "best"):
            return self.base.value if self.base else None
        name = self.best if self.against == "best" else self.against
        return self.peer(name) if name else None

    @property
    def ratio(self) -> float | None:
        """Ours to the reference; None where one is missing or the reference is 0."""
        ours, reference = self.value, self.reference
        return ours / reference if ours is not None and reference else None

    @property
    def verdict(self) -> str:
        """ "met", "MISSED", or "" where there is nothing to reach or nothing measured."""
        if self.value is None:
            return ""
        checks = []
        if self.ratio_limit is not None and self.ratio is not None:
            checks.append(self.ratio <= self.ratio_limit)
        if self.limit is not None:
            checks.append(self.value <= self.limit)
        return "" if not checks else "met" if all(checks) else "MISSED"

    @property
    def other(self) -> str:
        """What ours is measured against, in words: a peer, or a case of ours."""
        name = self.best if self.against == "best" else self.against
        return PEERS.get(name, name) if name else "best"

    @property
    def target(self) -> str:
        """What is to be reached, in words."""
        parts = []
        if self.ratio_limit is not None:
            parts.append(f"<= {self.ratio_limit:g} x")
        if self.goal is not None:
            parts.append(f"goal {self.goal:g} x")
        if self.limit is not None:
            parts.append(f"<= {number(self.limit)} {self.unit}".rstrip())
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

    def link(self) -> None:
        """Find the rows that others are measured against; they may have come later."""
        found = {(row.case, row.what): row for row in self.rows}
        for row in self.rows:
            row.base = found.get((row.against, row.what))

    def add(self, case: str, what: str, unit: str, who: str, value: float, **more: Any) -> None:
        """Add one run's value: `who` is "ours" or a peer's name."""
        row = self.row(case, what, unit, **more)
        (row.ours if who == "ours" else row.peers.setdefault(who, [])).append(value)

    def remark(self, text: str) -> None:
        """A sentence below the table; equal ones once."""
        if text not in self.remarks:
            self.remarks.append(text)

    def write(self, path: Path, facts: dict[str, Any]) -> None:
        """Everything as JSON: each row with every run's values, and minimum, median and maximum of each daemon."""
        self.link()
        rows = [
            {**_plain(row), "spread": _spread(row), "ratio": row.ratio, "verdict": row.verdict} for row in self.rows
        ]
        path.write_text(json.dumps({**facts, "rows": rows, "remarks": self.remarks}, indent=1) + "\n")

    def read(self, path: Path) -> dict[str, Any]:
        """Add the runs that `write` wrote; its facts. Raises OSError, ValueError."""
        data: dict[str, Any] = json.loads(path.read_text())
        names = {item.name for item in fields(Row)}
        other = Report()
        other.rows = [Row(**{name: item[name] for name in names & item.keys()}) for item in data.pop("rows")]
        other.remarks = data.pop("remarks")
        self.include(other)
        return data

    def include(self, other: Report) -> None:
        """Add another report's runs and remarks."""
        for item in other.rows:
            known = next((row for row in self.rows if (row.case, row.what) == (item.case, item.what)), None)
            if known is None:
                self.rows.append(item)
                continue
            known.ours += item.ours
            for who, values in item.peers.items():
                known.peers.setdefault(who, []).extend(values)
        for text in other.remarks:
            self.remark(text)


def _plain(row: Row) -> dict[str, Any]:
    return asdict(row, filter=lambda attribute, _: attribute.name != "base")


def _spread(row: Row) -> dict[str, list[float]]:
    return {
        who: [min(values), median(values), max(values)]
        for who, values in {"ours": row.ours, **row.peers}.items()
        if values
    }
