"""explain: the paths of one prefix, from reception to their place in the decision."""

from __future__ import annotations

from bgpd.api import render
from bgpd.api.schema import ExplainPath, KernelRoute
from bgpd.api.state import DaemonState
from bgpd.api.tables import route
from bgpd.family import Family
from bgpd.peer import Peer
from bgpd.rib.decision import best, multipath, paths, select
from bgpd.rib.path import Entry, Path
from bgpd.speaker import Speaker

_RANKED = 16
"""With more paths than this only the best one is numbered: each place costs a decision."""
_INELIGIBLE = "ineligible"


def explain_paths(
    state: DaemonState,
    speaker: Speaker,
    family: Family,
    key: bytes,
    entry: Entry | None,
    rejected: list[Path],
    programmed: KernelRoute | None,
) -> list[ExplainPath]:
    candidates, chosen = paths(entry), best(entry)
    shared = multipath(candidates, chosen) if chosen is not None else []
    losses: list[tuple[Path, str]] = []
    if candidates:
        select(candidates, losses)
    reasons = {id(path): text for path, text in losses}
    ranks = _ranks(candidates)
    result = []
    for path in sorted(candidates, key=lambda p: ranks.get(id(p), len(candidates) + 1)):
        installed = programmed["state"] if programmed is not None and path is chosen else None
        line = route(speaker, family, path, path is chosen, len(shared) > 1 and path in shared, installed, key=key)
        one = _path(path, line, ranks.get(id(path)), reasons.get(id(path)))
        one["passed"] = _passed(speaker, family, path, key)
        result.append(one)
    for path in rejected:
        result.append(_path(path, route(speaker, family, path, False, False, None, key=key), None, None))
    for one in result:
        one["session_uptime"] = _heard(state, speaker, one)
    return result


def _passed(speaker: Speaker, family: Family, path: Path, key: bytes) -> list[str]:
    peer = speaker.peers.get(path.source.name) if path.source.is_bgp else None
    # A stale route of a family that is no longer offered has no import chain.
    if peer is None or path.rejected or not any(entry.family == family for entry in peer.settings.families):
        return []
    return list(peer.importer.passed(family, path, key))


def _heard(state: DaemonState, speaker: Speaker, path: ExplainPath) -> float | None:
    peer = speaker.peers.get(path["route"]["source"]["peer"] or "")
    if peer is None or path["route"]["stale"]:
        return None
    since = peer.session.statistics.established_at
    return None if since is None else max(state.clock() - since, 0.0)


def _ranks(candidates: tuple[Path, ...]) -> dict[int, int]:
    """Places in the decision: the best, then the best of what is left, and so on."""
    left, ranks = list(candidates), dict[int, int]()
    while left:
        chosen = select(left)
        if chosen is None:
            break
        ranks[id(chosen)] = len(ranks) + 1
        left = [path for path in left if path is not chosen]
        if len(candidates) > _RANKED:
            break
    return ranks


def _path(path: Path, line: object, rank: int | None, reason: str | None) -> ExplainPath:
    step, _, comparison = (reason or "").partition(": ")
    took_part = reason is not None and step != _INELIGIBLE
    return {
        "route": line,  # type: ignore[typeddict-item]
        "verdict": "rejected" if path.rejected else "accepted",
        "rule": path.rejected or path.label,
        "passed": [],
        "received_attributes": None if path.received is path.attrs else render.attributes(path.received),
        "next_hop": _resolution(path),
        "resolved": path.next_hop.reachable,
        "rank": rank,
        "lost_step": step if took_part else None,
        "lost_text": comparison if took_part else None,
        "session_uptime": None,
        "hint": "",
    }


def _resolution(path: Path) -> str:
    hop = path.next_hop
    if not path.source.is_bgp and not hop.address:
        return "none needed: the route is the host's own"
    address = render.next_hop(hop.address)
    out = f", out of {hop.interface}" if hop.interface else ""
    return f"{address}: {hop.reason}{out}"


def rejected_paths(peer: Peer, family: Family, key: bytes) -> list[Path]:
    """Paths of this prefix that import refused: they are in Adj-RIB-In alone."""
    adj = peer.importer.adj.get(family)
    if adj is None:
        return []
    if not adj.by_id:
        found = [adj.get(0, key)]
    elif len(peer.source.send_ids) <= len(adj.routes):
        # Every path id that the peer ever used, which are few: a walk over its routes would be long.
        found = [adj.get(number, key) for number in sorted(peer.source.send_ids)]
    else:
        found = list(adj.lookup(key))
    return [path for path in found if path is not None and path.rejected]
