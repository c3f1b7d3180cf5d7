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
    for place, path in enumerate(answer["paths"], 1):
        yield 0, ""
        yield from _path(place, path)
    if not answer["paths"]:
        return
    yield 0, ""
    yield 0, "Kernel"
    yield from _kernel(answer["kernel"])
    yield 0, ""
    yield 0, f"Announced to {_tally(answer['peers'])}"
    yield from _peers(answer["peers"])


def _path(place: int, path: ExplainPath) -> Iterator[tuple[int, str]]:
    route = path["route"]
    source = route["source"]
    where = f" at {source['address']}" if source["address"] else f": {source['label']}" if source["label"] else ""
    number = f", path id {route['path_id']}" if route["path_id"] is not None else ""
    stale = ", stale: the session was lost, and the route has not been repeated" if route["stale"] else ""
    outcome = _outcome(path)
    yield 0, f"Path {place} from {origin_of(source)} ({source['kind']}{where}{number}){stale}: {outcome}"
    before = path["received_attributes"]
    if before is not None:
        yield 1, f"received: {attributes(before)}"
    yield 1, f"{'in force' if before is not None else 'attributes'}: {attributes(route['attributes'])}"
    yield 1, f"import: {path['verdict']} ({path['rule']})" if source["peer"] else "import: not needed, a local route"
    if path["verdict"] == "rejected":
        return
    yield 1, f"next hop: {'resolved' if path['resolved'] else 'not resolved'}, {path['next_hop']}"
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


def _kernel(route: KernelRoute | None) -> Iterator[tuple[int, str]]:
    if route is None:
        yield 1, "this daemon has no kernel role"
        return
    if route["state"] in ("unwanted", "absent"):
        yield 1, f"no route of ours: {route['text']}"
        return
    what = route["kind"] if not route["hops"] else ", ".join(route["hops"])
    yield 1, f"{route['state']}: {what}, metric {route['metric']}"
    if route["text"]:
        errno = f" (errno {route['errno']})" if route["errno"] else ""
        again = f"; tried again in {duration(route['retry_in'])}" if route["retry_in"] is not None else ""
        yield 1, f"{route['text']}{errno}{again}"


def _tally(peers: list[ExplainPeer]) -> str:
    told = sum(peer["announced"] for peer in peers)
    return f"{told} of {count(len(peers), 'peer')}"


def _peers(peers: list[ExplainPeer]) -> Iterator[tuple[int, str]]:
    if len(peers) <= _PEERS:
        for peer in peers:
            yield from _peer(peer["peer"], peer)
        return
    groups: dict[str, list[ExplainPeer]] = {}
    for peer in peers:
        sent = attributes(peer["attributes"]) if peer["attributes"] else ""
        groups.setdefault(f"{peer['text']}{sent}", []).append(peer)
    for alike in groups.values():
        names = alike[0]["peer"] if len(alike) == 1 else f"{alike[0]['peer']} and {len(alike) - 1} more"
        yield from _peer(names, alike[0])


def _peer(names: str, peer: ExplainPeer) -> Iterator[tuple[int, str]]:
    rule = f" (by {peer['rule']})" if peer["announced"] and peer["rule"] else ""
    yield 1, f"{names}: {peer['text']}{rule}"
    if peer["attributes"] is not None:
        yield 2, attributes(peer["attributes"])
