"""The report as text: node rows beside BIRD's, reflector rows beside the best of five."""

from __future__ import annotations

from collections.abc import Sequence

from tests.bench.report import PEERS, Report, Row, number
from tests.bench.scenarios import SCENARIOS

_WORDS = {"case", "what", "unit", "best is", "to reach", ""}
"""Columns that hold words; all others hold numbers."""


def table(report: Report) -> str:
    """All tables that have rows, then the remarks."""
    report.link()
    node = [row for row in report.rows if row.against == "bird"]
    reflector = [row for row in report.rows if row.against == "best"]
    variants = [row for row in report.rows if row.against not in ("bird", "best")]
    parts = []
    if node:
        parts.append(_lines(("case", "what", "unit", "ours", "BIRD", "ratio", "FRR", "to reach", ""), map(_node, node)))
    if reflector:
        head = ("case", "what", "unit", "ours", "best", "best is", "ratio", "to reach", "", *PEERS.values())
        parts.append(_lines(head, map(_reflector, reflector)))
    if variants:
        head = ("case", "what", "unit", "ours", "flags", "ratio", "to reach", "", *PEERS.values())
        parts.append(_lines(head, map(_variant, variants)))
    cases = dict.fromkeys(row.case for row in report.rows)
    if words := [f"{case}: {SCENARIOS[case].words}" for case in cases if case in SCENARIOS]:
        parts.append("\n".join(words))
    if report.remarks:
        parts.append("\n".join(f"* {remark}" for remark in report.remarks))
    return "\n\n".join(parts)


def _ratio(row: Row) -> str:
    return f"{row.ratio:.2f}" if row.ratio is not None else "-"


def _node(row: Row) -> Sequence[str]:
    return (row.case, row.what, row.unit, number(row.value), number(row.peer("bird")), _ratio(row),
            number(row.peer("frr")), row.target, row.verdict)  # fmt: skip


def _reflector(row: Row) -> Sequence[str]:
    best = PEERS[row.best] if row.best else "-"
    return (row.case, row.what, row.unit, number(row.value), number(row.reference), best, _ratio(row), row.target,
            row.verdict, *(number(row.peer(name)) for name in PEERS))  # fmt: skip


def _variant(row: Row) -> Sequence[str]:
    return (row.case, row.what, row.unit, number(row.value), number(row.reference), _ratio(row), row.target,
            row.verdict, *(number(row.peer(name)) for name in PEERS))  # fmt: skip


def _lines(head: Sequence[str], rows: map[Sequence[str]]) -> str:
    lines = [head, *rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]

    def cells(line: Sequence[str]) -> str:
        pairs = zip(line, widths, head, strict=True)
        return "  ".join(text.ljust(width) if name in _WORDS else text.rjust(width) for text, width, name in pairs)

    text = [cells(line).rstrip() for line in lines]
    return "\n".join([text[0], "  ".join("-" * width for width in widths), *text[1:]])
