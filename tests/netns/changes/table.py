"""docs/changes.md: the table as a page, and the page as a table."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from tests.netns.changes.rows import Row
from tests.netns.changes.rows_bgp import global_rows, node_configuration_rows, peer_rows
from tests.netns.changes.rows_other import (
    block_rows,
    filter_rows,
    node_rows,
    pool_rows,
    service_rows,
    status_rows,
)
from tests.netns.changes.runner import Result

PAGE = Path(__file__).resolve().parents[3] / "docs" / "changes.md"
HEAD = ("field", "change", "reset expected", "reset seen", "seconds", "seen by")
_PREFACE = """# What a change does

Written by `python -m tests.netns.change_table`: a speaker runs between BIRD (a node of the mesh, iBGP) and FRR (a
top-of-rack router, eBGP), in both families, so there are four sessions. Each field of each resource that BGP reads is
changed once, in the folder of `--datastore file:`.

- *reset expected* is what `config.diff` says beforehand (and `bgpctl plan` prints): which of the four sessions end.
- *reset seen* is what BIRD and FRR saw.
- *seconds* is the time from writing the file to the effect at the neighbour, in the kernel or in the daemon's table. It
  holds up to 0.1 s of asking FRR. Where a session ends, it is the time until it stands again; FRR and BIRD here dial
  once a second. "next OPEN": the value is a part of the OPEN message, and running sessions keep the old one. "-":
  nothing in BGP hangs on it.

A BGPPeer that gains `node` or `nodeSelector`, or a peer that moves from the mesh to a BGPPeer, is another session by
name (`Global_…`, `Node_…`, `Mesh_…`: tools and probes read the names), so the old one ends with Cease/3, as in BIRD.
"""


def rows() -> list[Row]:
    """All rows, in the page's order."""
    return [
        *global_rows(),
        *node_configuration_rows(),
        *peer_rows(),
        *filter_rows(),
        *pool_rows(),
        *node_rows(),
        *block_rows(),
        *service_rows(),
        *status_rows(),
    ]


def _sessions(names: frozenset[str]) -> str:
    if not names:
        return "no"
    return "all" if len(names) == 4 else ", ".join(sorted(names))


def page(results: Iterable[Result], versions: str) -> str:
    """The page's text."""
    lines = [_PREFACE, versions, "", "| " + " | ".join(HEAD) + " |", "|" + "---|" * len(HEAD)]
    for result in results:
        row = result.row
        if row.next_session is not None:
            seconds = "next OPEN"
        else:
            seconds = "-" if result.seconds is None else f"{result.seconds:.2f}"
        cells = (row.name, row.what, _sessions(result.expected), _sessions(result.seen), seconds, row.effect or "-")
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def read(text: str) -> Iterator[tuple[str, ...]]:
    """The cells of the page's rows."""
    for line in text.splitlines():
        cells = tuple(cell.strip() for cell in line.strip("|").split(" | "))
        if line.startswith("| ") and len(cells) == len(HEAD) and cells[0] != HEAD[0]:
            yield cells
