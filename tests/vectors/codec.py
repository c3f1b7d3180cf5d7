"""Plays a case at the codec: framer, parser, and back again through the builders."""

from __future__ import annotations

import json
from itertools import product

from bgpd.errors import BGPError
from bgpd.family import FAMILIES, IPV4_UNICAST, Family
from bgpd.session.local import LocalState
from bgpd.session.negotiate import negotiate, our_open
from bgpd.settings import PeerSettings
from bgpd.wire.attributes import AttributeTable
from bgpd.wire.build import build_end_of_rib, build_reach, build_unreach
from bgpd.wire.framing import Framer, MessageType
from bgpd.wire.notification import parse_notification
from bgpd.wire.open import build_open, parse_open
from bgpd.wire.refresh import build_refresh, parse_refresh
from bgpd.wire.rules import Action
from bgpd.wire.update import ParsedUpdate, UpdateContext, UpdateParser
from tests.vectors.case import Case
from tests.vectors.outcome import ACCEPT, CLOSE, IGNORE, INCOMPLETE, RESET, WITHDRAW, Outcome
from tests.vectors.plain import PlainUpdate, looks_internal, read_nlri, read_update

OUR_ASN, PEER_ASN = 65000, 65001
OUR_ID = bytes((10, 0, 0, 1))
"""The session that the own cases assume; also our address."""

_EXTENDED = 65535


def observe(case: Case) -> Outcome:
    """What our codec makes of a case. Any exception but BGPError is a fault."""
    try:
        return _observe(case)
    except BGPError as error:
        return Outcome(RESET, error.code, error.subcode, error.data, error.reason)
    except Exception as error:
        return Outcome(INCOMPLETE, fault=f"{type(error).__name__} left the codec: {error}")


def _observe(case: Case) -> Outcome:
    framer = Framer(_EXTENDED if case.context.get("extended_message") else 4096)
    messages = framer.feed(case.octets)
    if not messages:
        if framer.error is not None:
            raise framer.error
        return Outcome(INCOMPLETE)
    kind, body = messages[0]
    if kind == MessageType.OPEN:
        return _observe_open(case, body)
    if kind == MessageType.NOTIFICATION:
        return Outcome(CLOSE, reason=str(parse_notification(body)))
    if kind == MessageType.ROUTE_REFRESH:
        return _observe_refresh(case, body)
    if kind == MessageType.UPDATE:
        return _observe_update(case, body)
    return Outcome(ACCEPT)


def _observe_open(case: Case, body: bytes) -> Outcome:
    message = parse_open(body)
    outcome = Outcome(ACCEPT)
    again = build_open(message)
    if parse_open(again[19:]) != message:
        outcome.fault = "OPEN changed on its way through the builder"
    if not (case.is_own or case.origin.startswith("FRRouting")):
        return outcome  # from whom to whom it went, nobody says
    peer = PeerSettings("peer", "10.0.0.2", OUR_ASN if case.peer == "ibgp" else PEER_ASN)
    local = LocalState(OUR_ASN, OUR_ID)
    try:
        negotiate(peer, local, our_open(peer, local), message)
    except BGPError as error:
        # A message without a family that we speak is a good message; whether there is a session then is not its fault.
        if (error.code, error.subcode) != (2, 7):
            raise
    return outcome


def _observe_refresh(case: Case, body: bytes) -> Outcome:
    try:
        message = parse_refresh(body)
    except BGPError:
        if case.is_own:
            raise
        message = parse_refresh(body, enhanced=False)
    if message is None:
        return Outcome(IGNORE, reason="unknown subtype")
    if parse_refresh(build_refresh(message)[19:]) != message:
        return Outcome(ACCEPT, fault="ROUTE-REFRESH changed on its way through the builder")
    return Outcome(ACCEPT if message.family in FAMILIES else IGNORE)


def _observe_update(case: Case, body: bytes) -> Outcome:
    """In the context that the case states; in that which fits, where its origin says nothing of the peer.

    Captures and encoder tests name no peer, and some have two-octet paths or path identifiers unsaid. The stated
    context comes first; another counts only where the message is clean in it, or can be read in it alone.
    """
    readable: list[Outcome] = []
    errors: list[BGPError] = []
    for external, asn4, add_path, next_hop in _contexts(case, body):
        try:
            outcome = play_update(body, external, asn4, add_path, next_hop)
        except BGPError as error:
            errors.append(error)
            continue
        if outcome.result == ACCEPT and not outcome.findings:
            return outcome
        readable.append(outcome)
    if not readable:
        raise errors[0]
    return readable[0]


def _contexts(case: Case, body: bytes) -> list[tuple[bool, bool, bool, bool]]:
    """(external, asn4, path identifiers, IPv6 next hops for IPv4), the stated context first."""
    asn4 = case.context.get("asn4") is not False
    add_path = bool(case.context.get("addpath", False)) or "path-information" in json.dumps(case.expect)
    plain = read_update(body)
    if case.peer is not None:
        return [(case.peer == "ebgp", asn4, add_path, case.action == "accept" and _has_ipv6_next_hop(plain))]
    external = plain is None or not looks_internal(plain)
    return [(external, *rest) for rest in product((asn4, not asn4), (add_path, not add_path), (False, True))]


def _has_ipv6_next_hop(plain: PlainUpdate | None) -> bool:
    """An IPv4 prefix with an IPv6 next hop: to accept that presumes that it was agreed (RFC 8950 §4)."""
    values = [attribute.value for attribute in plain.attributes if attribute.code == 14] if plain else []
    return any(value[:3] == b"\0\1\1" and value[3:4] in (b"\x10", b"\x20") for value in values)


def play_update(body: bytes, external: bool, asn4: bool, add_path: bool, next_hop: bool) -> Outcome:
    """One UPDATE through parser and builders. Raises BGPError."""
    families = frozenset(FAMILIES)
    context = UpdateContext(
        external=external,
        asn4=asn4,
        families=families,
        add_path=families if add_path else frozenset(),
        extended_next_hop=frozenset((IPV4_UNICAST,)) if next_hop else frozenset(),
        table=AttributeTable(),
    )
    parser = UpdateParser(context)
    parsed = parser.parse(body)
    outcome = _outcome(parsed, add_path)
    again = _outcome(parser.parse(body), add_path)
    if again != outcome:
        outcome.fault = "the second reading of the same UPDATE differs from the first"
    elif not next_hop:
        outcome.fault = _round_trip(parsed, context)
    return outcome


def _outcome(parsed: ParsedUpdate, add_path: bool) -> Outcome:
    outcome = Outcome(ACCEPT, findings=list(parsed.findings))
    if any(finding.action == Action.WITHDRAW for finding in parsed.findings):
        outcome.result = WITHDRAW
    elif parsed.findings and not (parsed.reach or parsed.unreach or parsed.end_of_rib):
        outcome.result = IGNORE
    for family, keys in parsed.unreach:
        outcome.withdrawn.setdefault(family, []).extend(_bits(family, parsed, keys, add_path))
    for family, attributes, keys in parsed.reach:
        outcome.announced.setdefault(family, []).extend(_bits(family, parsed, keys, add_path))
        outcome.attributes = attributes.items()
        outcome.next_hops[family] = attributes.next_hop
        outcome.path = attributes.as_path
    outcome.end_of_rib = parsed.end_of_rib
    return outcome


def _bits(family: Family, parsed: ParsedUpdate, keys: list[bytes], add_path: bool) -> list[str]:
    return read_nlri(b"".join(_units(parsed, keys)), family.bits, add_path) or []


def _units(parsed: ParsedUpdate, keys: list[bytes]) -> list[bytes]:
    """Keys as they came, with their path ids."""
    return [parsed.path_id + key for key in keys]


def _round_trip(parsed: ParsedUpdate, context: UpdateContext) -> str:
    """What was read, built and read again, must be the same: the very object, in the case of attributes."""
    wide = UpdateContext(
        context.external, True, context.families, context.add_path, frozenset((IPV4_UNICAST,)), context.table
    )
    reader = UpdateParser(wide)
    for family, attributes, keys in parsed.reach:
        units = _units(parsed, keys)
        read = [
            reader.parse(message[19:])
            for message in build_reach(family, attributes.block, attributes.next_hop, units, _EXTENDED)
        ]
        if any(again.reach[0][:2] != (family, attributes) for again in read):
            return "attributes changed on their way through the builder"
        if [unit for again in read for unit in _units(again, again.reach[0][2])] != units:
            return "NLRI changed on their way through the builder"
    for family, keys in parsed.unreach:
        units = _units(parsed, keys)
        read = [reader.parse(message[19:]) for message in build_unreach(family, units, _EXTENDED)]
        if [unit for again in read for unit in _units(again, again.unreach[0][1])] != units:
            return "withdrawn NLRI changed on their way through the builder"
    if parsed.end_of_rib and reader.parse(build_end_of_rib(parsed.end_of_rib)[19:]).end_of_rib != parsed.end_of_rib:
        return "End-of-RIB changed on its way through the builder"
    return ""
