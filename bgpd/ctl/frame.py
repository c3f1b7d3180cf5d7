"""Tables without frames, for terminals and pipes."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

_PIPE_WIDTH = 200
"""Columns where the output is no terminal: lines that a filter reads are not to be wrapped."""


class _Plain(Console):
    """For pipes and files: no blanks at the ends of lines."""

    def print(self, *objects: Any, **options: Any) -> None:
        with self.capture() as captured:
            super().print(*objects, **options)
        sys.stdout.write("".join(f"{line.rstrip()}\n" for line in captured.get().splitlines()))


def console() -> Console:
    """The terminal; plain and wide where there is none."""
    tty = sys.stdout.isatty()
    return (Console if tty else _Plain)(
        file=sys.stdout,
        width=None if tty else _PIPE_WIDTH,
        no_color=None if tty else True,
        highlight=False,
        emoji=False,
        markup=False,
    )


def columns(*names: str, right: Sequence[str] = (), fold: Sequence[str] = ()) -> Table:
    """No frame: columns under a headline. Only `fold` columns may be wrapped."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for name in names:
        table.add_column(name, justify="right" if name in right else "left", no_wrap=name not in fold, overflow="fold")
    return table


def fitting(
    out: Console, names: Sequence[str], rows: Sequence[Sequence[str | Text]], drop: Sequence[str]
) -> tuple[list[int], list[str]]:
    """(columns that are shown, names of those that are not): on a terminal, as many of `drop`, in order, go as have to
    for a row to fit a line. A pipe gets them all: what reads it counts columns."""
    widths = [max(len(name), *(len(row[i]) for row in rows)) for i, name in enumerate(names)]
    kept, dropped = list(range(len(names))), list[str]()
    for name in drop if out.is_terminal else ():
        if sum(widths[i] for i in kept) + 2 * (len(kept) - 1) <= out.width:
            break
        if name in names:
            kept.remove(names.index(name))
            dropped.append(name)
    return kept, dropped


def tell_dropped(out: Console, dropped: Sequence[str]) -> None:
    """Name the columns that are not shown."""
    if dropped:
        out.print(Text(f"no room for {', '.join(dropped)}: widen the terminal, or use -o json", "dim"))
