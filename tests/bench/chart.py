"""The reflector's rows as a chart, where matplotlib is there (`make bench` installs it, the extra `bench`)."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from tests.bench.report import PEERS, Report, Row

COLOURS = {"ours": "#111111", "bird": "#1b6ca8", "bird3": "#7fb2d9", "frr": "#c0392b", "gobgp": "#2e8b57",
           "openbgpd": "#d4a017"}  # fmt: skip


def draw(report: Report, path: Path) -> str | None:
    """Write the PNG; a sentence why not where it could not be."""
    try:
        import matplotlib
    except ImportError:
        return "no chart: matplotlib is not installed (pip install '.[bench]')"
    matplotlib.use("agg")
    from matplotlib import pyplot

    rows = [row for row in report.rows if row.against == "best" and row.ours and row.reference and row.ratio_limit]
    if not rows:
        return "no chart: no reflector case was measured beside another daemon"
    figure, axes = pyplot.subplots(figsize=(10, 1.6 + 0.36 * len(rows)), dpi=140)
    named: set[str] = set()
    for place, row in enumerate(rows):
        _draw_row(axes, place, row, named)
    axes.axvline(1.0, color="#888888", linewidth=0.8)
    axes.set_xscale("log")
    axes.set_yticks(range(len(rows)), [f"{row.case}: {row.what}" for row in rows])
    axes.invert_yaxis()
    axes.grid(axis="x", which="major", color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.set_xlabel("times the best of the five other daemons (logarithmic); | marks what is to be reached")
    axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0), fontsize=8, frameon=False)
    axes.set_title("Route reflector: time and CPU beside other daemons (less is better)", fontsize=10)
    figure.tight_layout()
    figure.savefig(path)
    pyplot.close(figure)
    return None


def _draw_row(axes: Any, place: int, row: Row, named: set[str]) -> None:
    """A mark for each daemon, with a line from its least to its most; `named`: daemons that the legend has."""
    reference = row.reference
    assert reference
    labels = {"ours": "calico-bgpd", **PEERS}
    for who, values in (("ours", row.ours), *row.peers.items()):
        if who not in labels or not values:
            continue
        middle = row.value if who == "ours" else row.peer(who)
        if not middle or not math.isfinite(middle):
            continue
        label = None if who in named else labels[who]
        named.add(who)
        marker, size, top = ("D", 48, 3) if who == "ours" else ("o", 30, 2)
        axes.scatter([middle / reference], [place], marker=marker, s=size, color=COLOURS[who], label=label, zorder=top)
        axes.plot([min(values) / reference, max(values) / reference], [place, place], color=COLOURS[who], linewidth=1)
    axes.scatter([row.ratio_limit], [place], marker="|", s=160, color="#111111", linewidths=1.6)
