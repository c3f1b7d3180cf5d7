"""The fate of one prefix: every path from reception to its end, the kernel's entry, and what each peer is told.

Nothing here is recorded while routes pass: each answer is worked out by the functions that decide (decision process,
export chains, kernel chain), for this one prefix, when someone asks.
"""

from __future__ import annotations

from collections.abc import Callable

from bgpd.api import kernel, render
from bgpd.api.explain_paths import explain_paths, rejected_paths
from bgpd.api.explain_peers import BEST_ALONE, MALFORMED, explain_peers, silent
from bgpd.api.limits import Pace
from bgpd.api.lookup import find_peer, find_prefix, speaker_of
from bgpd.api.schema import Explain, ExplainPeer, KernelRoute
from bgpd.api.state import DaemonState
from bgpd.api.tables import ITS_OWN
from bgpd.family import Family
from bgpd.policy.prefixes import truncate
from bgpd.policy.terms import SourceKind
from bgpd.rib.path import Entry
from bgpd.session.fsm import State
from bgpd.speaker import Speaker


async def explain(state: DaemonState, text: str, peer_name: str, pace: Pace) -> Explain:
    """GET /v1/explain. `peer_name` "" = all peers. Refused for an unknown peer or a malformed prefix."""
    speaker = speaker_of(state)
    family, key = find_prefix(text)
    peers = [find_peer(speaker, peer_name)] if peer_name else [p for _, p in sorted(speaker.peers.items())]
    entry = speaker.ribs[family].table.get(key)
    rejected = [path for peer in speaker.peers.values() for path in rejected_paths(peer, family, key)]
    programmed, rule = _kernel(state, speaker, family, key, entry)
    told = await explain_peers(speaker, peers, family, key, entry, pace)
    answer: Explain = {
        "family": str(family),
        "prefix": render.prefix(family, key),
        "present": entry is not None or bool(rejected),
        "covering": _covering(speaker, family, key),
        "origin": "",
        "local": "",
        "paths": explain_paths(state, speaker, family, key, entry, rejected, programmed),
        "kernel": programmed,
        "kernel_rule": rule,
        "kernel_hint": "",
        "peers": told,
        "silent": [],
        "hint": "",
        "stopped": "",
    }
    if not answer["paths"]:
        answer["silent"] = [silent(state, peer, family, key) for peer in peers]
        answer["local"] = state.kernel.why_not_local(family, key) if state.kernel is not None else ""
        answer["origin"] = state.origin(family, key)
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
        answer["kernel_hint"] = advice(_kernel_reason(programmed))


def _kernel_reason(programmed: KernelRoute) -> str:
    """Why it is not in the kernel. The kernel's own words, which are anything, are told as such."""
    text = programmed["text"] or programmed["state"]
    return f"the kernel refuses it: {text}" if programmed["state"] == "refused" and programmed["errno"] else text


def _covering(speaker: Speaker, family: Family, key: bytes) -> str | None:
    """The longest known prefix around this one."""
    table = speaker.ribs[family].table
    for length in range(key[0] - 1, -1, -1):
        outer = truncate(key, length)
        if outer in table:
            return render.prefix(family, outer)
    return None


def _kernel(
    state: DaemonState, speaker: Speaker, family: Family, key: bytes, entry: Entry | None
) -> tuple[KernelRoute | None, str]:
    """(what is wanted and there, the rule of the kernel chain that wants it)."""
    if state.kernel is None:
        return None, ""
    known = kernel.route_of(state, family, key)
    wanted, why = speaker.forwarding.explain(family, entry, key)
    if known is not None:
        return known, why if wanted is not None else ""
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
    }, ""


# Where the way ended


def _stopped(answer: Explain, speaker: Speaker, peer_name: str) -> tuple[str, str]:
    """(where it ended, as a sentence; the rule or reason that ended it)."""
    known, programmed = answer["paths"], answer["kernel"]
    if not known:
        for peer in answer["silent"]:
            if peer["text"].startswith(MALFORMED):
                return f"{peer['peer']} {peer['text']}.", "malformed UPDATE"
        nothing = "no route of this host" if programmed is not None else "no route of a peer"
        return _never_came(answer, speaker), "" if answer["local"] else nothing
    accepted = [path for path in known if path["verdict"] == "accepted"]
    if not accepted:
        return f"Import refused every path: {known[0]['rule']}.", known[0]["rule"]
    if not any(path["resolved"] for path in accepted):
        reason = accepted[0]["next_hop"]
        return f"No path has a usable next hop: {reason}.", reason
    if programmed is not None and programmed["state"] in ("pending", "refused", "foreign"):
        return f"It is not in the kernel: {programmed['text'] or programmed['state']}.", _kernel_reason(programmed)
    if any(peer["announced"] for peer in answer["peers"]) or not answer["peers"]:
        return "", ""
    if not peer_name and known[0]["route"]["source"]["kind"] == SourceKind.IBGP.value:
        # Every other node has it from where we have it: a full mesh tells nothing on.
        return "", ""
    if not peer_name and all(peer["text"] == f"this session carries no {answer['family']}" for peer in answer["peers"]):
        reason = f"none of the sessions carries {answer['family']}"
        return f"It is announced to no peer: {reason}.", reason
    return _untold(answer["peers"], peer_name)


def _untold(peers: list[ExplainPeer], peer_name: str) -> tuple[str, str]:
    """Of peers that could be told, why they are not; where there is none, why not."""
    reached = [peer for peer in peers if peer["rule"]] or peers
    reached = [peer for peer in reached if peer["rule"] != ITS_OWN] or reached
    reasons = list(dict.fromkeys((peer["text"].removeprefix("withheld: "), peer["rule"]) for peer in reached))
    if len(reasons) > 1:
        # One reason, with and without ADD-PATH.
        reasons = list(dict.fromkeys((text.partition(BEST_ALONE)[0], rule) for text, rule in reasons))
    whom = f"not announced to {peers[0]['peer']}" if peer_name else "announced to no peer"
    if len(reasons) > 1:
        return f"It is {whom}, for different reasons.", ""
    text, rule = reasons[0]
    return f"It is {whom}: {text}.", rule or text


def _never_came(answer: Explain, speaker: Speaker) -> str:
    programmed = answer["kernel"]
    if programmed is not None and programmed["state"] == "held":
        return (
            "No peer has announced it since the start, and it is no local route; the kernel has our route of before, "
            "which is kept until the restart phase is over."
        )
    up = sum(peer.session.state is State.ESTABLISHED for peer in speaker.peers.values())
    text = f"No peer has announced it ({up} of {len(speaker.peers)} sessions are established), and it is no local route"
    if answer["local"]:
        text += f": {answer['local']}"
    covering = answer["covering"]
    return f"{text}; {covering} covers it." if covering else f"{text}; nothing known covers it."
