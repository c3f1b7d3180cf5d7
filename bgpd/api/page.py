"""The status page: one HTML document without scripts, for a look at a node without any tool."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

from bgpd.api.schema import Peer, Problem, Status

_PROBLEMS = 20
_STYLE = """
:root { color-scheme: light dark; --line: #8884; --good: #1a7f37; --bad: #c62828; --soft: #6b7280; }
@media (prefers-color-scheme: dark) { :root { --good: #4ac26b; --bad: #ff7b72; --soft: #9aa4b2; } }
body { font: 14px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 72rem; padding: 0 1rem; }
h1 { font-size: 1.3rem; margin: 0 0 .2rem; } h2 { font-size: 1rem; margin: 1.8rem 0 .4rem; }
p { margin: .2rem 0; } .soft { color: var(--soft); } .good { color: var(--good); } .bad { color: var(--bad); }
.scroll { overflow-x: auto; } table { border-collapse: collapse; width: 100%; }
table.s { width: auto; }
th, td { text-align: left; padding: .3rem 1.4rem .3rem 0; border-bottom: 1px solid var(--line); vertical-align: top; }
th { font-weight: 600; color: var(--soft); white-space: nowrap; } td.n, th.n { text-align: right; }
tr.e td { border-bottom: 0; } ul { margin: .2rem 0; padding-left: 1.2rem; }
td.n, td.w { white-space: nowrap; font-variant-numeric: tabular-nums; }
"""


def page(status: Status, peers: list[Peer], limit: int = 500) -> str:
    """The document; at most `limit` peers, the ones without a session first."""
    order = sorted(peers, key=lambda p: (p["uptime"] is not None, p["name"]))
    shown = order[:limit]
    more = f"<p class=soft>and {len(order) - limit} more</p>" if len(order) > limit else ""
    title = f"bgpd on {escape(status['node'])}"
    return (
        "<!doctype html><html lang=en><head><meta charset=utf-8>"
        '<meta name=viewport content="width=device-width, initial-scale=1"><meta http-equiv=refresh content=10>'
        f"<title>{title}</title><style>{_STYLE}</style></head><body>"
        f"<h1>{title}</h1>{_head(status)}{_ready(status)}"
        f"{_problems(status)}<h2>Routes</h2>{_families(status)}{_kernel(status)}"
        f"<h2>Peers</h2>{_peers(shown) if peers else '<p class=soft>none configured</p>'}{more}"
        "</body></html>\n"
    )


def _head(status: Status) -> str:
    who = f"AS {status['asn']}, router id {status['router_id']}" if status["asn"] is not None else "not configured yet"
    up = status["peers"]["established"]
    total = status["peers"]["configured"] + status["peers"]["dynamic"]
    return (
        f"<p>{escape(who)} · {up} of {total} sessions established · up {duration(status['uptime'])}"
        f" · version {escape(status['version'])}</p>"
    )


def _ready(status: Status) -> str:
    ready = status["ready"]
    checks = "; ".join(escape(check["text"]) for check in ready["checks"] if check["ok"] == ready["ok"])
    word = "<b class=good>ready</b>" if ready["ok"] else "<b class=bad>not ready</b>"
    waiting = ""
    if status["restart"]["active"] and status["restart"]["waiting_for"]:
        waiting = f"<p>Restart phase: waiting for {escape(', '.join(status['restart']['waiting_for'][:10]))}</p>"
    return f"<p>{word} <span class=soft>{checks}</span></p>{waiting}"


def _peers(peers: list[Peer]) -> str:
    names = ("Peer", "Address", "AS", "State", "Since", "Received", "Used", "Sent")
    head = _row("th", names, 5, 8)
    return f"<div class=scroll><table>{head}{''.join(map(_peer, peers))}</table></div>"


def _peer(peer: Peer) -> str:
    up = peer["uptime"] is not None
    state = f"<span class={'good' if up else 'bad'}>{escape(peer['state'])}</span>"
    counts = [
        "<br>".join(f"{family}: {values[name]:,}" for family, values in peer["prefixes"].items())
        for name in ("received", "accepted", "advertised")
    ]
    error = "" if up else peer["last_error"] or ""
    label = f"<br><span class=soft>{escape(peer['label'])}</span>" if peer["label"] else ""
    cells = (
        escape(peer["name"]) + label,
        escape(peer["address"]),
        str(peer["asn"]),
        state,
        duration(peer["uptime"]) if peer["uptime"] is not None else "",
        *counts,
    )
    row = _row("td", cells, 5, 8)
    if not error:
        return row
    return f"{row.replace('<tr>', '<tr class=e>', 1)}<tr><td class=bad colspan={len(cells)}>{escape(error)}</td></tr>"


def _families(status: Status) -> str:
    names = ("prefixes", "paths", "best", "local")
    head = _row("th", ("Family", "Prefixes", "Paths", "With an eligible path", "Local paths"), 1, 5)
    rows = "".join(
        _row("td", (f["family"], *(f"{f[name]:,}" for name in names)), 1, 5)  # type: ignore[literal-required]
        for f in status["families"]
    )
    return f"<div class=scroll><table class=s>{head}{rows}</table></div>"


def _kernel(status: Status) -> str:
    kernel = status["kernel"]
    if kernel is None:
        return ""
    names = ("wanted", "installed", "pending", "refused", "foreign", "held")
    head = _row("th", ("Family", *(name.capitalize() for name in names)), 1, 7)
    rows = "".join(
        _row("td", (family, *(_number(name, states.get(name, 0)) for name in names)), 1, 7)
        for family, states in kernel["states"].items()
    )
    where = f"table {kernel['table']}, protocol {kernel['protocol']}"
    title = f"<h2>Kernel <span class=soft>({where})</span></h2>"
    return f"{title}<div class=scroll><table class=s>{head}{rows}</table></div>"


def _number(name: str, number: int) -> str:
    return f"<b class=bad>{number:,}</b>" if number and name in ("refused", "foreign") else f"{number:,}"


def _problems(status: Status) -> str:
    store = status["datastore"]
    word = "held back" if store["connected"] else "not connected"
    state = f" <b class=bad>{word}: {escape(store['text'])}</b>" if store["text"] else ""
    problems = store["problems"]
    items = "".join(f"<li>{_problem(problem)}</li>" for problem in problems[:_PROBLEMS])
    more = f"<p class=soft>and {len(problems) - _PROBLEMS} more</p>" if len(problems) > _PROBLEMS else ""
    listed = f"<ul>{items}</ul>{more}" if items else "<p class=soft>no problems</p>"
    age = (
        f"<p class=bad>in force is what it held {duration(store['age_seconds'])} ago</p>"
        if store["age_seconds"]
        else ""
    )
    return f"<h2>Datastore <span class=soft>({escape(store['url'])})</span>{state}</h2>{age}{listed}"


def _problem(problem: Problem) -> str:
    value = f" (value {problem['value']})" if problem["value"] else ""
    allowed = f"; allowed: {problem['allowed']}" if problem["allowed"] else ""
    place = f" <span class=soft>{escape(problem['file'])}</span>" if problem["object"] and problem["file"] else ""
    what = escape(f"{problem['field']}: {problem['text']}{value}{allowed}")
    return f"<b>{escape(problem['object'] or problem['file'])}</b> {what}{place}"


def _row(tag: str, cells: Iterable[str], first: int, end: int) -> str:
    """A table row; cells first..end-1 hold numbers."""
    made = "".join(f"<{tag}{' class=n' if first <= i < end else ''}>{cell}</{tag}>" for i, cell in enumerate(cells))
    return f"<tr>{made}</tr>"


def duration(seconds: float) -> str:
    """ "42 s", "3 min 10 s", "5 h 2 min", "12 d 4 h"."""
    whole = int(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{whole // 86400} d {whole % 86400 // 3600} h"
