"""`show protocols [all] [NAME | "PATTERN"]`, laid out as BIRD 1.6 does."""

from __future__ import annotations

from collections.abc import Iterator
from fnmatch import fnmatchcase

from bgpd.api.bird.facts import Protocol, protocols, short_time
from bgpd.api.bird.grammar import NO_SUCH_PROTOCOL, NOT_A_PROTOCOL, BirdError, Command
from bgpd.api.bird.replies import Replies
from bgpd.api.counts import Counts, slices
from bgpd.api.limits import Pace
from bgpd.api.state import DaemonState
from bgpd.family import Family, format_address
from bgpd.peer import Peer, local_asn
from bgpd.policy.terms import ACCEPT_ALL, SourceKind, Term
from bgpd.rib.adj_rib_in import key_of
from bgpd.rib.decision import best
from bgpd.session.fsm import State
from bgpd.session.negotiate import Negotiated
from bgpd.settings import FamilySettings

HEADER = 2002
ROW = 1002
DETAIL = 1006
TABLE = "master"
_PREFERENCE = {"Static": 200, "Kernel": 10, "Direct": 240, "Device": 0}


def chosen(state: DaemonState, family: Family, command: Command) -> list[Protocol]:
    """The rows that a command asks for. Raises BirdError."""
    rows = protocols(state, family)
    if not command.name:
        return rows
    if command.pattern:
        found = [row for row in rows if fnmatchcase(row.name, command.name)]
        if not found:
            raise BirdError(NO_SUCH_PROTOCOL, "No protocols match")
        return found
    found = [row for row in rows if row.name == command.name]
    if not found:
        raise BirdError(NOT_A_PROTOCOL, f"{command.name[:80]} is not a protocol")
    return found


async def show_protocols(
    state: DaemonState, family: Family, command: Command, counts: Counts, pace: Pace, replies: Replies
) -> None:
    """The whole answer but its last line."""
    rows = chosen(state, family, command)
    replies.line(HEADER, _row("name", "proto", "table", "state", "since", "info"))
    for row in rows:
        since = short_time(state, row.since)
        replies.line(ROW, _row(row.name, row.kind, TABLE, row.state, since, info(row)))
        if command.all:
            for text in await _details(state, family, row, counts, pace):
                replies.line(DETAIL, text)
            replies.line(DETAIL, "")
        await pace.rest()


def _row(name: str, kind: str, table: str, state: str, since: str, info: str) -> str:
    return f"{name:<8} {kind:<8} {table:<8} {state:<6} {since:<10}  {info}"


def info(row: Protocol) -> str:
    """The last column: BGP state, then what keeps the session down."""
    if row.kind != "BGP":
        return ""
    return f"{row.bgp_state:<14}{row.trouble}"


async def _details(state: DaemonState, family: Family, row: Protocol, counts: Counts, pace: Pace) -> list[str]:
    speaker = state.speaker
    peer = speaker.peers.get(row.name) if speaker is not None else None
    if speaker is None or peer is None:
        return _built_in(row)
    walk = await counts.get(speaker, state.clock(), pace, 5.0)
    counted = walk.peers.get(row.name, {}).get(str(family))
    entry = next(item for item in peer.settings.families if item.family == family)
    lines = [
        "  Preference:     100",
        f"  Input filter:   {_filter(speaker.settings.import_terms(entry))}",
        f"  Output filter:  {_filter(speaker.settings.export_terms(entry))}",
    ]
    if counted is not None and peer.session.state is State.ESTABLISHED:
        preferred = await _preferred(state, peer, family, pace)
        received, accepted, sent = counted["received"], counted["accepted"], counted["advertised"]
        filtered = f" {received - accepted} filtered," if received > accepted else ""
        lines.append(f"  Routes:         {accepted} imported,{filtered} {sent} exported, {preferred} preferred")
    return [*lines, *_bgp(state, peer, row, entry)]


def _built_in(row: Protocol) -> list[str]:
    if row.kind == "Device":
        return []
    output = "(unnamed)" if row.kind == "Kernel" else "REJECT"
    preference = _PREFERENCE[row.kind]
    return [f"  Preference:     {preference}", "  Input filter:   ACCEPT", f"  Output filter:  {output}"]


def _filter(chain: tuple[Term, ...]) -> str:
    return "ACCEPT" if chain == ACCEPT_ALL else "(unnamed)"


async def _preferred(state: DaemonState, peer: Peer, family: Family, pace: Pace) -> int:
    """How many of a peer's routes are the best of their prefix."""
    adj = peer.importer.adj.get(family)
    if adj is None or state.speaker is None:
        return 0
    table, number = state.speaker.ribs[family].table, 0
    for items in slices(tuple(adj.routes.items())):
        number += sum(best(table.get(key_of(entry))) is path for entry, path in items)
        await pace.rest()
    return number


def _bgp(state: DaemonState, peer: Peer, row: Protocol, entry: FamilySettings) -> Iterator[str]:
    session = peer.session
    yield f"  BGP state:          {row.bgp_state}"
    yield f"    Neighbor address: {peer.settings.address}"
    yield f"    Neighbor AS:      {peer.settings.asn}"
    agreed = session.negotiated
    if agreed is not None and state.speaker is not None:
        yield f"    Neighbor ID:      {format_address(agreed.peer_id)}"
        yield f"    Neighbor caps:    {_capabilities(agreed)}"
        kind = "internal" if peer.settings.asn == local_asn(state.speaker.settings, peer.settings) else "external"
        client = " route-reflector" if peer.source.kind is SourceKind.IBGP_CLIENT else ""
        yield f"    Session:          {kind} multihop{client}{_session_words(agreed, entry)}"
        yield f"    Source address:   {session.local_address}"
        yield f"    Hold timer:       {agreed.hold_time:g}/{agreed.hold_time:g}"
        yield f"    Keepalive timer:  {agreed.keepalive_time:g}/{agreed.keepalive_time:g}"
    elif session.idle_until is not None:
        left = max(session.idle_until - state.clock(), 0.0)
        yield f"    Error wait:       {left:.0f}/{max(left, peer.settings.idle_hold_time):.0f}"
    if row.trouble:
        yield f"    Last error:       {row.trouble}"


def _capabilities(agreed: Negotiated) -> str:
    """In BIRD's words, as far as they matter to the session: what both sides agreed on."""
    words = [
        ("refresh", agreed.route_refresh),
        ("enhanced-refresh", agreed.enhanced_refresh),
        ("restart-able", agreed.graceful is not None and bool(agreed.graceful.families)),
        ("restart-aware", agreed.graceful is not None and not agreed.graceful.families),
        ("AS4", agreed.asn4),
        ("add-path-rx", bool(agreed.add_path_send)),
        ("add-path-tx", bool(agreed.add_path_receive)),
        ("ext-messages", agreed.extended_message),
    ]
    return " ".join(word for word, has in words if has)


def _session_words(agreed: Negotiated, entry: FamilySettings) -> str:
    words = [
        (" AS4", agreed.asn4),
        (" add-path-rx", entry.family in agreed.add_path_receive),
        (" add-path-tx", entry.family in agreed.add_path_send),
    ]
    return "".join(word for word, has in words if has)
