"""Plans as people read them. What is the same on many nodes is told once."""

from __future__ import annotations

import shutil
import sys
import textwrap
from collections.abc import Iterable, Iterator
from typing import Any

import click

__all__ = ["plan_lines"]

Plan = dict[str, Any]
_MARKS = {"added": ("+", "green"), "removed": ("-", "red"), "reset": ("!", "red"), "changed": ("~", "yellow")}
_LONGEST = 160
_TERMS = 4
_NAMES = 5


def plan_lines(plans: list[Plan]) -> Iterator[str]:
    """Lines for a terminal; colours only where standard output is one (click takes them out elsewhere)."""
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else 120
    shared = [problem for problem in plans[0]["problems"] if all(problem in plan["problems"] for plan in plans)]
    yield from _objects(plans[0])
    for problem in shared:
        yield from _problem(problem, max(width, 60), 0)
    if plans[0]["objects"] or shared:
        yield ""
    bodies: dict[tuple[str, ...], list[str]] = {}
    for plan in plans:
        bodies.setdefault(tuple(_body(plan, shared, max(width, 60))), []).append(plan["node"])
    for body, nodes in bodies.items():
        if not body:
            continue
        yield click.style(f"Node {nodes[0]}" if len(nodes) == 1 else f"Nodes {_some(nodes)}", bold=True)
        yield from body
        yield ""
    quiet = bodies.get((), [])
    if quiet:
        yield f"Nothing changes on {_some(quiet) if len(plans) > 1 else f'node {quiet[0]}'}."
    for note in dict.fromkeys(note for plan in plans for note in plan["notes"]):
        yield from textwrap.wrap(f"Note: {note}.", max(width, 60), subsequent_indent="  ")


def _some(names: list[str]) -> str:
    more = f" and {len(names) - _NAMES} more" if len(names) > _NAMES else ""
    return ", ".join(names[:_NAMES]) + more


def _objects(plan: Plan) -> Iterator[str]:
    colours = {"created": "green", "configured": "yellow", "deleted": "red", "refused": "red", "missing": "red"}
    shown = [item for item in plan["objects"] if item["action"] != "unchanged"]
    for item in shown[:200]:
        words = {"missing": "not there, cannot be deleted"}.get(item["action"], item["action"])
        yield f"{click.style(words, fg=colours[item['action']])} {item['object']}"
    if len(shown) > 200:
        yield f"and {len(shown) - 200} more objects"
    same = len(plan["objects"]) - len(shown)
    if same:
        yield f"{same} object{'s' if same > 1 else ''} unchanged"


def _problem(problem: Plan, width: int, indent: int) -> list[str]:
    name = "refused" if problem["refused"] else "notice"
    text = ": ".join(part for part in (problem["object"], problem["field"], problem["text"]) if part)
    value = f" (value {problem['value']})" if problem["value"] else ""
    allowed = f"; allowed: {problem['allowed']}" if problem["allowed"] else ""
    colour = "red" if problem["refused"] else "yellow"
    return _wrap(f"{click.style(name, fg=colour)}: {text}{value}{allowed}", width, indent)


def _body(plan: Plan, shared: list[Plan], width: int) -> Iterator[str]:
    for problem in plan["problems"]:
        if problem not in shared:
            yield from _problem(problem, width, 1)
    for problem in plan["mended"]:
        yield from _wrap(f"no longer: {problem['object']}: {problem['text']}", width, 1)
    if not plan["can_tell"]:
        text = "the node's settings could not be told with these resources: what is in force would stay"
        yield from _wrap(click.style(text, fg="red"), width, 1)
    yield from _sessions(plan["sessions"], width)
    yield from _routes(plan["routes"])
    if plan["settings"]:
        yield "  speaker"
        for setting in plan["settings"]:
            yield from _setting(setting, width, 2)
    yield from _tables(plan["tables"], width)
    for kernel in plan["kernel"]:
        yield f"  kernel, {kernel['family']}"
        for part in ("added", "removed", "changed"):
            yield from _prefixes(part, kernel[part], width)


def _sessions(sessions: list[Plan], width: int) -> Iterator[str]:
    if not sessions:
        return
    counts = {action: sum(row["action"] == action for row in sessions) for action in _MARKS}
    yield "  sessions: " + ", ".join(f"{number} {action}" for action, number in counts.items() if number)
    names = max(len(row["peer"]) for row in sessions)
    for alike in _alike(sessions):
        first = alike[0]
        mark, colour = _MARKS[first["action"]]
        more = f", and {len(alike) - 1} more" if len(alike) > 1 else ""
        label = f"  ({first['label']})" if first["label"] else ""
        yield (
            f"    {click.style(mark, fg=colour)} {first['peer']:<{names}}  {first['address']} AS {first['asn']}  "
            f"{click.style(first['action'], fg=colour)}{more}{label}"
        )
        for setting in first["settings"]:
            yield from _setting(setting, width, 4)


def _alike(sessions: list[Plan]) -> Iterable[list[Plan]]:
    """Many sessions that change in the same way are one line."""
    groups: dict[object, list[Plan]] = {}
    for row in sessions:
        of = tuple(tuple(setting.items()) for setting in row["settings"])
        groups.setdefault((row["action"], of, row["label"] if len(sessions) > 20 else row["peer"]), []).append(row)
    return groups.values()


def _setting(setting: Plan, width: int, indent: int) -> Iterator[str]:
    cost = click.style(" [ends the session]", fg="red") if setting["cost"] in ("reset", "restart") else ""
    field = "kernel chain" if setting["field"] == "fib.chains" else setting["field"]
    name = " ".join(part for part in (field, setting["family"]) if part)
    if not setting["field"]:
        yield from _wrap(f"{name} {'comes' if setting['new'] else 'goes'}{cost}", width, indent)
    elif setting["field"] in ("import_chain", "export_chain", "fib.chains"):
        yield from _wrap(f"{name}{cost}", width, indent)
        for mark, colour, text in (("-", "red", setting["old"]), ("+", "green", setting["new"])):
            terms = [] if text == "(nothing)" else text.split("; ")
            for term in terms[:_TERMS]:
                yield from _wrap(f"{click.style(mark, fg=colour)} {_short(term)}", width, indent + 1)
            if len(terms) > _TERMS:
                yield from _wrap(f"{mark} and {len(terms) - _TERMS} more", width, indent + 1)
    else:
        yield from _wrap(f"{name}: {_short(setting['old'])} -> {_short(setting['new'])}{cost}", width, indent)


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST else text[:_LONGEST] + "…"


def _routes(routes: list[Plan]) -> Iterator[str]:
    if not routes:
        return
    yield "  routes of configuration"
    names = max(len(row["prefix"]) for row in routes)
    for row in routes:
        mark, colour = _MARKS[row["action"]]
        yield f"    {click.style(mark, fg=colour)} {row['prefix']:<{names}}  {row['label']}"


def _tables(tables: list[Plan], width: int) -> Iterator[str]:
    for table in tables:
        up = "" if table["established"] else ", if the session were up"
        yield f"  told to {_some(table['peers'])}, {table['family']}{up}"
        for part in ("announced", "withdrawn", "changed"):
            yield from _prefixes(part, table[part], width)


def _prefixes(part: str, found: Plan, width: int) -> Iterator[str]:
    if not found["count"]:
        return
    colour = {"announced": "green", "added": "green", "changed": "yellow"}.get(part, "red")
    more = found["count"] - len(found["prefixes"])
    rest = f", and {more:,} more" if more and found["prefixes"] else ""
    named = f": {', '.join(found['prefixes'])}{rest}" if found["prefixes"] else ""
    yield from _wrap(f"{click.style(part, fg=colour)} {found['count']:,}{named}", width, 2)


def _wrap(text: str, width: int, indent: int) -> list[str]:
    return textwrap.wrap(
        text, width, initial_indent="  " * indent, subsequent_indent="  " * (indent + 1),
        break_long_words=False, break_on_hyphens=False,
    )  # fmt: skip
