"""explain: what each peer is told of one prefix, and who might have announced it and has not."""

from __future__ import annotations

from bgpd.api import render
from bgpd.api.limits import Pace
from bgpd.api.schema import ExplainPeer, ExplainSilent
from bgpd.api.state import DaemonState
from bgpd.api.tables import Outgoing
from bgpd.api.views import last_error
from bgpd.family import Family
from bgpd.peer import Peer
from bgpd.rib.decision import offered, paths
from bgpd.rib.path import Entry
from bgpd.rib.update_group import UpdateGroup
from bgpd.session.fsm import State
from bgpd.speaker import Speaker

MALFORMED = "announced it in a malformed UPDATE, which withdrew it (RFC 7606)"
BEST_ALONE = "; without ADD-PATH "
"""What follows a reason to withhold where there are other paths."""


def silent(state: DaemonState, peer: Peer, family: Family, key: bytes) -> ExplainSilent:
    """Why a peer has not announced a prefix, as far as can be told from here."""
    malformed, adj = peer.malformed.get((family, key)), peer.importer.adj.get(family)
    text, number = _no_session(peer, family), len(adj) if adj is not None else 0
    hint = state.advice(text) if text else ""
    if malformed is not None:
        at, why = malformed
        what = f"{MALFORMED}: {why}"
        text = f"{what}; {max(state.clock() - at, 0.0):.0f} s ago{f'; {text}' if text else ''}"
        hint = hint or state.advice("malformed UPDATE")
    elif not text:
        end = "and its End-of-RIB" if family in peer.end_of_rib else "and no End-of-RIB yet"
        text = f"has sent {number} other {family} route{'' if number == 1 else 's'}, {end}"
    return {"peer": peer.settings.name, "state": str(peer.session.state), "text": text, "hint": hint}


def _no_session(peer: Peer, family: Family) -> str:
    """Why there is no session that could carry this family, or ""."""
    state = peer.session.state
    if not any(entry.family == family for entry in peer.settings.families):
        return f"this session carries no {family}"
    if peer.settings.disabled:
        return f"held down: {peer.settings.disabled}"
    if state is not State.ESTABLISHED:
        error = last_error(peer)
        return f"no session (state {state}{f': {error}' if error else ''})"
    return "" if family in peer.members else f"{family} is not negotiated with this peer"


async def explain_peers(
    speaker: Speaker, peers: list[Peer], family: Family, key: bytes, entry: Entry | None, pace: Pace
) -> list[ExplainPeer]:
    """What each of these peers is told of a prefix."""
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
        "passed": [],
        "attributes": None,
        "path_ids": [],
        "withheld": [],
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
    add_path, known = group.key.add_path, paths(entry)
    reasons = []
    for path in offered(entry, add_path):
        attrs, outcome = outgoing.decision(path, key)
        if attrs is None or isinstance(outcome, str):
            reasons.append(str(outcome))
            continue
        answer["announced"] = True
        if answer["attributes"] is None:
            answer["attributes"], answer["rule"] = render.attributes(attrs), outcome.label
            answer["passed"] = list(outcome.subject.passed)
        if add_path:
            answer["path_ids"].append(int.from_bytes(path.send_id, "big"))
    distinct = list(dict.fromkeys(reasons))
    if answer["announced"]:
        many = len(answer["path_ids"])
        answer["text"] = f"announced, {many} paths" if many > 1 else "announced"
        answer["withheld"] = distinct
    elif not reasons:
        answer["text"] = "withheld: there is no eligible path" if known else "nothing to announce"
    else:
        answer["rule"] = distinct[0]
        answer["text"] = "withheld: " + "; ".join(distinct)
    if not answer["announced"] and reasons and not add_path and len(known) > 1:
        answer["text"] += f"{BEST_ALONE}the best of {len(known)} paths alone counts"
