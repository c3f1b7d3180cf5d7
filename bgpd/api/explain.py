"""The fate of one prefix: every path from reception to its end, the kernel's entry, and what each peer is told.

Nothing here is recorded while routes pass: each answer is worked out by the functions that decide (decision process,
export chains, kernel chain), for this one prefix, when someone asks.
"""

from __future__ import annotations

from collections.abc import Callable

from bgpd.api import kernel, render
from bgpd.api.limits import Pace
from bgpd.api.lookup import find_peer, find_prefix, speaker_of
from bgpd.api.schema import Explain, ExplainPath, ExplainPeer, ExplainSilent, KernelRoute
from bgpd.api.state import DaemonState
from bgpd.api.tables import Outgoing, route
from bgpd.api.views import last_error
from bgpd.family import Family
from bgpd.peer import Peer
from bgpd.policy.prefixes import truncate
from bgpd.policy.terms import SourceKind
from bgpd.rib.decision import best, multipath, paths, select
from bgpd.rib.path import Entry, Path
from bgpd.rib.update_group import UpdateGroup
from bgpd.session.fsm import State
from bgpd.speaker import Speaker

_RANKED = 16
"""With more paths than this only the best one is numbered: each place costs a decision."""
_INELIGIBLE = "ineligible"


async def explain(state: DaemonState, text: str, peer_name: str, pace: Pace) -> Explain:
    """GET /v1/explain. `peer_name` "" = all peers. Refused for an unknown peer or a malformed prefix."""
    speaker = speaker_of(state)
    family, key = find_prefix(text)
    peers = [find_peer(speaker, peer_name)] if peer_name else [p for _, p in sorted(speaker.peers.items())]
    entry = speaker.ribs[family].table.get(key)
    rejected = [path for peer in speaker.peers.values() for path in _rejected(peer, family, key)]
    programmed = _kernel(state, speaker, family, key, entry)
    told = await _peers(speaker, peers, family, key, entry, pace)
    answer: Explain = {
        "family": str(family),
        "prefix": render.prefix(family, key),
        "present": entry is not None or bool(rejected),
        "covering": _covering(speaker, family, key),
        "paths": _paths(state, speaker, family, key, entry, rejected, programmed),
        "kernel": programmed,
        "kernel_hint": "",
        "peers": told,
        "silent": [],
        "hint": "",
        "stopped": "",
    }
    if not answer["paths"]:
        answer["silent"] = [_silent(state, peer, family) for peer in peers]
    _advise(answer, state.advice)
    answer["stopped"], reason = _stopped(answer, speaker, peer_name)
    answer["hint"] = state.advice(reason) if reason else ""
    return answer


def _advise(answer: Explain, advice: Callable[[str], str]) -> None:
    """What would let it through, at each place where it was stopped."""
    for path in answer["paths"]:
        if path["verdict"] == "rejected":
            path["hint"] = advice(path["rule"])
        elif not path["resolved"]:
            path["hint"] = advice(path["next_hop"])
    for peer in answer["peers"]:
        if not peer["announced"]:
            peer["hint"] = advice(peer["rule"] or peer["text"])
    programmed = answer["kernel"]
    if programmed is not None and programmed["state"] != "installed":
        answer["kernel_hint"] = advice(programmed["text"])


def _silent(state: DaemonState, peer: Peer, family: Family) -> ExplainSilent:
    """Why a peer has not announced a prefix, as far as can be told from here."""
    text, adj = _no_session(peer, family), peer.importer.adj.get(family)
    number = len(adj) if adj is not None else 0
    if not text:
        end = "and its End-of-RIB" if family in peer.end_of_rib else "and no End-of-RIB yet"
        text = f"has sent {number} other {family} route{'' if number == 1 else 's'}, {end}"
        hint = ""
    else:
        hint = state.advice(text)
    return {"peer": peer.settings.name, "state": str(peer.session.state), "text": text, "hint": hint}


def _no_session(peer: Peer, family: Family) -> str:
    """Why there is no session that could carry this family, or ""."""
    state = peer.session.state
    if peer.settings.disabled:
        return f"held down: {peer.settings.disabled}"
    if state is not State.ESTABLISHED:
        error = last_error(peer)
        return f"no session (state {state}{f': {error}' if error else ''})"
    return "" if family in peer.members else f"{family} is not negotiated with this peer"


def _rejected(peer: Peer, family: Family, key: bytes) -> list[Path]:
    """Paths of this prefix that import refused: they are in Adj-RIB-In alone."""
    adj = peer.importer.adj.get(family)
    if adj is None:
        return []
    if not adj.add_path:
        found = [adj.routes.get(key)]
    elif len(peer.source.send_ids) <= len(adj.routes):
        # Every path id that the peer ever used, which are few: a walk over its routes would be long.
        found = [adj.routes.get(number.to_bytes(4, "big") + key) for number in sorted(peer.source.send_ids)]
    else:
        found = list(adj.lookup(key))
    return [path for path in found if path is not None and path.rejected]


# Paths and their decision


def _paths(
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
        result.append(_path(path, line, ranks.get(id(path)), reasons.get(id(path))))
    for path in rejected:
        result.append(_path(path, route(speaker, family, path, False, False, None, key=key), None, None))
    for one in result:
        one["session_uptime"] = _heard(state, speaker, one)
    return result


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


def _covering(speaker: Speaker, family: Family, key: bytes) -> str | None:
    """The longest known prefix around this one."""
    table = speaker.ribs[family].table
    for length in range(key[0] - 1, -1, -1):
        outer = truncate(key, length)
        if outer in table:
            return render.prefix(family, outer)
    return None


# Kernel


def _kernel(
    state: DaemonState, speaker: Speaker, family: Family, key: bytes, entry: Entry | None
) -> KernelRoute | None:
    if state.kernel is None:
        return None
    known = kernel.route_of(state, family, key)
    wanted, why = speaker.forwarding.explain(family, entry, key)
    if known is not None:
        return known
    return {
        "family": str(family),
        "prefix": render.prefix(family, key),
        "state": "absent" if entry is None else "unwanted" if wanted is None else "pending",
        "kind": "",
        "hops": [],
        "metric": 0,
        "errno": None,
        "text": why,
        "retry_in": None,
    }


# Peers


async def _peers(
    speaker: Speaker, peers: list[Peer], family: Family, key: bytes, entry: Entry | None, pace: Pace
) -> list[ExplainPeer]:
    copies: dict[int, Outgoing] = {}
    result = []
    for peer in peers:
        result.append(_told(speaker, peer, family, key, entry, copies))
        await pace.rest()
    return result


def _told(
    speaker: Speaker, peer: Peer, family: Family, key: bytes, entry: Entry | None, copies: dict[int, Outgoing]
) -> ExplainPeer:
    answer: ExplainPeer = {
        "peer": peer.settings.name,
        "state": str(peer.session.state),
        "announced": False,
        "text": _no_session(peer, family),
        "rule": "",
        "attributes": None,
        "path_ids": [],
        "hint": "",
    }
    if not answer["text"]:
        group, member = peer.members[family]
        outgoing = copies.setdefault(id(group), Outgoing(group, None))
        _announced(answer, group, outgoing.asked_by(member), key, entry)
        if answer["announced"] and member.waits_for(key, group.key.add_path):
            answer["text"] += "; queued, the peer is behind"
        if answer["announced"] and member.eor and group.hold_eor:
            answer["text"] += "; our End-of-RIB waits for the end of the restart phase"
    return answer


def _announced(answer: ExplainPeer, group: UpdateGroup, outgoing: Outgoing, key: bytes, entry: Entry | None) -> None:
    candidates = paths(entry) if group.key.add_path else tuple(filter(None, [best(entry)]))
    reasons = []
    for path in candidates:
        if not path.next_hop.reachable:
            reasons.append("its next hop does not resolve")
            continue
        attrs, why = outgoing.decide(path, key)
        if attrs is None:
            reasons.append(why)
            continue
        answer["announced"] = True
        answer["attributes"] = answer["attributes"] or render.attributes(attrs)
        answer["rule"] = answer["rule"] or why
        if group.key.add_path:
            answer["path_ids"].append(int.from_bytes(path.send_id, "big"))
    if answer["announced"]:
        many = len(answer["path_ids"])
        answer["text"] = f"announced, {many} paths" if many > 1 else "announced"
    elif not reasons:
        answer["text"] = "withheld: there is no eligible path" if entry is not None else "nothing to announce"
    else:
        distinct = list(dict.fromkeys(reasons))
        answer["rule"] = distinct[0]
        answer["text"] = "withheld: " + "; ".join(distinct)


# Where the way ended


def _stopped(answer: Explain, speaker: Speaker, peer_name: str) -> tuple[str, str]:
    """(where it ended, as a sentence; the rule or reason that ended it)."""
    known = answer["paths"]
    if not known:
        return _never_came(answer, speaker), "no route of this host"
    accepted = [path for path in known if path["verdict"] == "accepted"]
    if not accepted:
        return f"Import refused every path: {known[0]['rule']}.", known[0]["rule"]
    if not any(path["resolved"] for path in accepted):
        reason = accepted[0]["next_hop"]
        return f"No path has a usable next hop: {reason}.", reason
    programmed = answer["kernel"]
    if programmed is not None and programmed["state"] in ("pending", "refused", "foreign"):
        reason = programmed["text"] or programmed["state"]
        return f"It is not in the kernel: {reason}.", reason
    if any(peer["announced"] for peer in answer["peers"]) or not answer["peers"]:
        return "", ""
    if not peer_name and known[0]["route"]["source"]["kind"] == SourceKind.IBGP.value:
        # Every other node has it from where we have it: a full mesh tells nothing on.
        return "", ""
    return _untold(answer["peers"], peer_name)


def _untold(peers: list[ExplainPeer], peer_name: str) -> tuple[str, str]:
    """Of peers that could be told, why they are not; where there is none, why not."""
    reached = [peer for peer in peers if peer["rule"]] or peers
    reasons = list(dict.fromkeys((peer["text"].removeprefix("withheld: "), peer["rule"]) for peer in reached))
    whom = f"not announced to {peers[0]['peer']}" if peer_name else "announced to no peer"
    if len(reasons) > 1:
        return f"It is {whom}, for different reasons.", ""
    text, rule = reasons[0]
    return f"It is {whom}: {text}.", rule or text


def _never_came(answer: Explain, speaker: Speaker) -> str:
    up = sum(peer.session.state is State.ESTABLISHED for peer in speaker.peers.values())
    text = f"No peer has announced it ({up} of {len(speaker.peers)} sessions are established), and it is no local route"
    covering = answer["covering"]
    return f"{text}; {covering} covers it." if covering else f"{text}; nothing known covers it."
