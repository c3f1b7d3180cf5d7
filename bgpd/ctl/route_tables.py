"""The table of routes: what `bgpctl routes` prints."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from itertools import chain, islice

from rich.text import Text

from bgpd.api.schema import Route
from bgpd.ctl.frame import columns, console, fitting, tell_dropped
from bgpd.ctl.words import flags, origin_of

_AT_ONCE = 500
"""Routes beyond this many are printed as they come, in columns as wide as the first ones need."""


def show_routes(routes: Iterator[Route]) -> None:
    """A table of routes. A long one is printed while it comes."""
    first = list(islice(routes, _AT_ONCE))
    if not first:
        console().print("no routes")
        return
    rest = next(routes, None)
    if rest is None:
        _short(first)
    else:
        _long(first, chain([rest], routes))


_COLUMNS = ("", "Prefix", "Next hop", "From", "Pref", "LocPrf", "MED", "AS path", "Kernel")


def _cells(route: Route) -> list[str]:
    attrs = route["attributes"]
    hop = attrs["next_hop"].split(" ")[0]
    return [
        flags(route),
        route["prefix"],
        hop,
        origin_of(route["source"]),
        str(route["preference"]),
        "" if attrs["local_pref"] is None else str(attrs["local_pref"]),
        "" if attrs["med"] is None else str(attrs["med"]),
        attrs["as_path"],
        route["kernel"] or "",
    ]


def _short(routes: list[Route]) -> None:
    out, rows = console(), [_cells(route) for route in routes]
    # A column that says nothing takes no room.
    used = [i for i in range(len(_COLUMNS)) if i < 4 or any(row[i] for row in rows)]
    names, rows = [_COLUMNS[i] for i in used], [[row[i] for i in used] for row in rows]
    kept, dropped = fitting(out, names, rows, ("Pref", "LocPrf", "MED", "Next hop"))
    table = columns(*(names[i] for i in kept), right=("Pref", "LocPrf", "MED"), fold=("From", "AS path"))
    for row in rows:
        table.add_row(*(Text(row[i], style="dim" if row[0].startswith("!") else "") for i in kept))
    out.print(table)
    tell_dropped(out, dropped)


def _long(first: list[Route], rest: Iterable[Route]) -> None:
    rows = [_cells(route) for route in first]
    widths = [max(len(name), *(len(row[i]) for row in rows)) for i, name in enumerate(_COLUMNS)]
    write = sys.stdout.write
    for row in chain([list(_COLUMNS)], rows, map(_cells, rest)):
        write("  ".join(map(str.ljust, row, widths)).rstrip() + "\n")
