"""The report as one table, a row a figure: ours, what it is measured against, what is to be reached, and every peer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tests.bench.report import PEERS, Report, Row, number
from tests.bench.scenarios import SCENARIOS

HEAD = ("case", "what", "unit", "ours", "other", "which", "ratio", "to reach", "", *PEERS.values())
_WORDS = {"case", "what", "unit", "which", "to reach", ""}
"""Columns that hold words; all others hold numbers."""


def table(report: Report) -> str:
    """The table, which targets are met, what the reflector's cases are, and the remarks."""
    report.link()
    parts = [_lines(report.rows)] if report.rows else []
    parts.append(summary(report))
    cases = dict.fromkeys(row.case for row in report.rows)
    if words := [f"{case}: {SCENARIOS[case].words}" for case in cases if case in SCENARIOS]:
        parts.append("\n".join(words))
    if report.remarks:
        parts.append("\n".join(f"* {remark}" for remark in report.remarks))
    return "\n\n".join(parts)


def markdown(report: Report, facts: dict[str, Any]) -> str:
    """The same as a page of the documentation."""
    report.link()
    versions = "; ".join(f"{name}: {version}" for name, version in facts["versions"].items() if name != "ours")
    rule = ["---" if name in _WORDS else "--:" for name in HEAD]
    lines = [HEAD, rule, *map(_cells, report.rows)]
    words = [f"* {case}: {SCENARIOS[case].words}" for case in dict.fromkeys(row.case for row in report.rows)
             if case in SCENARIOS]  # fmt: skip
    parts = (
        "# Figures of one run",
        'Written by `make bench ARGS="--markdown FILE"`; [benchmarks.md](benchmarks.md) says what the cases are.',
        f"{facts['machine']}, Python {facts['python']}. {versions}.",
        "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines),
        "\n".join(f"* {line.strip()}" for line in summary(report).splitlines()),
        "\n".join([*words, *(f"* {remark}" for remark in report.remarks)]),
    )
    return "\n\n".join(filter(None, parts)) + "\n"


def summary(report: Report) -> str:
    """How many targets are met; which are missed, and which could not be judged."""
    judged = [row for row in report.rows if row.ratio_limit is not None or row.limit is not None]
    missed = [row for row in judged if row.verdict == "MISSED"]
    open_ones = [row for row in judged if not row.verdict]
    lines = [f"{len(judged) - len(missed) - len(open_ones)} of {len(judged)} targets met"]
    lines += [f"  missed: {row.case}, {row.what}: {_ratio(row)}, {row.target}" for row in missed]
    lines += [f"  not judged, as a side is missing: {row.case}, {row.what}" for row in open_ones]
    return "\n".join(lines)


def _ratio(row: Row) -> str:
    """Ours to the other; ours alone where the target is no ratio."""
    return f"{number(row.value)} {row.unit}" if row.ratio is None else f"{row.ratio:.2f} x {row.other}"


def _cells(row: Row) -> Sequence[str]:
    ratio = "-" if row.ratio is None else f"{row.ratio:.2f}"
    other = row.other if row.reference is not None else "-"
    return (row.case, row.what, row.unit, number(row.value), number(row.reference), other, ratio, row.target,
            row.verdict, *(number(row.peer(name)) for name in PEERS))  # fmt: skip


def _lines(rows: Sequence[Row]) -> str:
    lines = [HEAD, *map(_cells, rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(HEAD))]

    def cells(line: Sequence[str]) -> str:
        pairs = zip(line, widths, HEAD, strict=True)
        return "  ".join(text.ljust(width) if name in _WORDS else text.rjust(width) for text, width, name in pairs)

    text = [cells(line).rstrip() for line in lines]
    return "\n".join([text[0], "  ".join("-" * width for width in widths), *text[1:]])
