"""`bgpctl explain` in words: the way of one prefix through the speaker, and where it ended."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

from bgpd.api.schema import Explain, ExplainPath, ExplainPeer, KernelRoute
from bgpd.ctl.words import attributes, count, duration, origin_of

_PEERS = 100
"""With more peers than this, those of one answer are counted instead of listed."""


def story(answer: Explain, width: int = 100) -> Iterator[str]:
    """The lines; those that begin in the first column are headlines."""
    for indent, text in _lines(answer):
        if not text:
            yield ""
            continue
        yield from textwrap.wrap(
            text,
            max(width, 40),
            initial_indent="  " * indent,
            subsequent_indent="  " * (indent + 1),
            break_long_words=False,
            break_on_hyphens=False,
        )


def _lines(answer: Explain) -> Iterator[tuple[int, str]]:
    number = len(answer["paths"])
    yield 0, f"{answer['prefix']} ({answer['family']}): {count(number, 'path') if number else 'no path'}"
    if answer["stopped"]:
        yield 1, answer["stopped"]
        yield from _hint(1, answer["hint"])
    for place, path in enumerate(answer["paths"], 1):
        yield 0, ""
        yield from _path(place, path)
    if not answer["paths"]:
        if answer["origin"]:
            yield 1, f"By Calico's resources {answer['origin']}."
        if answer["kernel"] is not None and answer["kernel"]["state"] != "absent":
            yield 0, ""
            yield 0, "Kernel"
            yield from _kernel(answer["kernel"], "")
        yield from _silent(answer)
        return
    yield 0, ""
    yield 0, "Kernel"
    yield from _kernel(answer["kernel"], answer["kernel_rule"])
    yield from _hint(1, answer["kernel_hint"])
    yield 0, ""
    able = [peer for peer in answer["peers"] if not _other_family(peer, answer["family"])]
    yield 0, f"Announced to {_tally(able)}"
    yield from _peers(able)
    others = len(answer["peers"]) - len(able)
    if others:
        yield 1, f"{count(others, 'session')} that {'carries' if others == 1 else 'carry'} no {answer['family']}"


def _other_family(peer: ExplainPeer, family: str) -> bool:
    return peer["text"] == f"this session carries no {family}"


def _hint(indent: int, hint: str) -> Iterator[tuple[int, str]]:
    if hint:
        yield indent, f"-> {hint}" if hint.startswith("needs nothing") else f"-> would let it through: {hint}"


def _silent(answer: Explain) -> Iterator[tuple[int, str]]:
    """Who might have announced it; peers of one answer together."""
    groups: dict[tuple[str, str], list[str]] = {}
    for peer in answer["silent"]:
        if peer["text"] == f"this session carries no {answer['family']}":
            continue
        groups.setdefault((peer["text"], peer["hint"]), []).append(peer["peer"])
    if groups:
        yield 0, ""
        yield 0, "Peers that have not announced it"
    for (text, hint), names in groups.items():
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        yield 1, f"{', '.join(names[:3])}{more}: {text}"
        yield from _hint(2, hint)


def _path(place: int, path: ExplainPath) -> Iterator[tuple[int, str]]:
    route = path["route"]
    source = route["source"]
    where = f" at {source['address']}" if source["address"] else f": {source['label']}" if source["label"] else ""
    number = f", path id {route['path_id']}" if route["path_id"] is not None else ""
    stale = ", stale: the session was lost, and the route has not been repeated" if route["stale"] else ""
    outcome = _outcome(path)
    yield 0, f"Path {place} from {origin_of(source)} ({source['kind']}{where}{number}){stale}: {outcome}"
    if path["session_uptime"] is not None:
        yield 1, f"heard in the session that came up {duration(path['session_uptime'])} ago"
    before = path["received_attributes"]
    if before is not None:
        yield 1, f"received: {attributes(before)}"
    yield 1, f"{'in force' if before is not None else 'attributes'}: {attributes(route['attributes'])}"
    rules = "; ".join((*path["passed"], path["rule"]))
    yield 1, f"import: {path['verdict']} ({rules})" if source["peer"] else "import: not needed, a local route"
    if path["verdict"] == "rejected":
        yield from _hint(1, path["hint"])
        return
    yield 1, f"next hop: {'resolved' if path['resolved'] else 'not resolved'}, {path['next_hop']}"
    yield from _hint(1, path["hint"])
    if path["resolved"]:
        yield 1, f"decision: {_decision(path)}"


def _outcome(path: ExplainPath) -> str:
    route = path["route"]
    if path["verdict"] == "rejected":
        return "rejected by import"
    if not path["resolved"]:
        return "not eligible"
    if route["best"]:
        return "best"
    return "shares traffic with the best" if route["multipath"] else "not the best"


def _decision(path: ExplainPath) -> str:
    preference = f"preference {path['route']['preference']}"
    if path["route"]["best"]:
        return f"wins, {preference}"
    if path["lost_step"] is None:
        return preference
    equal = ", as good up to the tie-breaks" if path["route"]["multipath"] else ""
    return f"loses at the step “{path['lost_step']}”: {path['lost_text']}{equal}"


def _kernel(route: KernelRoute | None, rule: str) -> Iterator[tuple[int, str]]:
    if route is None:
        yield 1, "this daemon has no kernel role"
        return
    if route["state"] in ("unwanted", "absent"):
        yield 1, f"no route of ours: {route['text']}"
        return
    what = route["kind"] if not route["hops"] else ", ".join(route["hops"])
    yield 1, f"{route['state']}: {what}, metric {route['metric']}{f' (by {rule})' if rule else ''}"
    if route["text"]:
        errno = f" (errno {route['errno']})" if route["errno"] else ""
        again = f"; tried again in {duration(route['retry_in'])}" if route["retry_in"] is not None else ""
        yield 1, f"{route['text']}{errno}{again}"


def _tally(peers: list[ExplainPeer]) -> str:
    told = sum(peer["announced"] for peer in peers)
    return f"{told} of {count(len(peers), 'peer')}"


def _peers(peers: list[ExplainPeer]) -> Iterator[tuple[int, str]]:
    groups: dict[str, list[ExplainPeer]] = {}
    for peer in peers:
        sent = attributes(peer["attributes"]) if peer["attributes"] else ""
        groups.setdefault(f"{peer['text']}{sent}", []).append(peer)
    for alike in groups.values():
        named = len(alike) if len(peers) <= _PEERS else 1
        names = ", ".join(peer["peer"] for peer in alike[:named])
        yield from _peer(names + (f" and {len(alike) - named} more" if len(alike) > named else ""), alike[0])


def _peer(names: str, peer: ExplainPeer) -> Iterator[tuple[int, str]]:
    rule = f" (by {peer['rule']})" if peer["announced"] and peer["rule"] else ""
    yield 1, f"{names}: {peer['text']}{rule}"
    if peer["passed"]:
        yield 2, f"on the way: {'; '.join(peer['passed'])}"
    if len(peer["path_ids"]) == 1:
        yield 2, f"under path id {peer['path_ids'][0]}"
    elif peer["path_ids"]:
        yield 2, f"under the path ids {', '.join(map(str, peer['path_ids']))}; the first:"
    if peer["attributes"] is not None:
        yield 2, attributes(peer["attributes"])
    if peer["withheld"]:
        yield 2, f"other paths withheld: {'; '.join(peer['withheld'])}"
    yield from _hint(2, peer["hint"])
