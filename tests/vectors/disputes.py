"""Where a case wants one thing and another is as right: rules first, then single cases. Nothing else excuses a failure.

docs/conformance.md says the same in sentences; a test compares the two.
"""

from __future__ import annotations

from collections.abc import Callable
from types import MappingProxyType
from typing import NamedTuple

from bgpd.wire import rules as known
from bgpd.wire.aspath import AS_TRANS
from bgpd.wire.capabilities import (
    EnhancedRouteRefresh,
    ExtendedMessageCapability,
    RouteRefreshCapability,
    UnknownCapability,
)
from bgpd.wire.open import parse_open
from bgpd.wire.rules import OPTIONAL, PARTIAL, TRANSITIVE, Action
from tests.vectors.case import Case
from tests.vectors.outcome import ACCEPT, RESET, WITHDRAW, Outcome
from tests.vectors.plain import Attribute, read_update

CORE = frozenset((*range(1, 11), 14, 15, 16, 17, 18, 32))
"""Attributes of RFC 4271, 1997, 4360, 4456, 4760, 6793 and 8092."""


class Rule(NamedTuple):
    """`applies` looks at case and outcome, never at names or ids."""

    name: str
    clause: str
    applies: Callable[[Case, Outcome], bool]


class Single(NamedTuple):
    """One case: `outcome` is "accept", "treat-as-withdraw", "ignore" or "session-reset C/S"."""

    outcome: str
    clause: str


def allowed(case: Case, outcome: Outcome) -> str:
    """The clause that allows this outcome although the case wants another; "" where none does."""
    for rule in RULES:
        if rule.applies(case, outcome):
            return f"{rule.clause} (rule: {rule.name})"
    single = SINGLES.get(case.id)
    return single.clause if single and _in_words(outcome) in single.outcome.split(" or ") else ""


def _in_words(outcome: Outcome) -> str:
    return f"{RESET} {outcome.code}/{outcome.subcode}" if outcome.result == RESET else outcome.result


def _withdrawn_for(outcome: Outcome, words: str) -> bool:
    """Treat-as-withdraw, and for no other reason."""
    reasons = [finding for finding in outcome.findings if finding.action == Action.WITHDRAW]
    return outcome.result == WITHDRAW and all(words in finding.reason for finding in reasons)


def _as_set(case: Case, outcome: Outcome) -> bool:
    return case.action == "accept" and _withdrawn_for(outcome, "RFC 9774")


def _confederation(case: Case, outcome: Outcome) -> bool:
    """Where no peer is named: made-up messages that have other faults beside."""
    return case.action == "accept" and case.peer is None and any("RFC 5065" in f.reason for f in outcome.findings)


def _next_hop(case: Case, outcome: Outcome) -> bool:
    """Only where the origin names no peer: an encoder's test, or a capture of one."""
    return case.action == "accept" and case.peer is None and _withdrawn_for(outcome, "no host's address")


def _bgpsec(case: Case, outcome: Outcome) -> bool:
    """BGPsec_PATH instead of AS_PATH, which only a peer may send that we told to."""
    faults = [(f.code, f.reason) for f in outcome.findings if f.action == Action.WITHDRAW]
    return outcome.result == WITHDRAW and 33 in _codes(case) and faults == [(2, "missing")]


def _codes(case: Case) -> set[int]:
    return {attribute.code for attribute in _attributes(case)}


def _not_implemented(case: Case, outcome: Outcome) -> bool:
    """The fault is in an attribute beyond the core, and it was passed on or dropped as an unknown one is."""
    wanted = case.action in ("treat-as-withdraw", "attribute-discard")
    return wanted and outcome.result == ACCEPT and bool(outcome.announced) and bool(_codes(case) - CORE)


def _implemented(case: Case, outcome: Outcome) -> bool:
    """The other way round: passing on is wanted, and we know enough of the attribute to see that it is malformed."""
    codes = {finding.code for finding in outcome.findings if finding.action == Action.WITHDRAW}
    return case.action == "accept" and outcome.result == WITHDRAW and bool(codes) and not codes & (CORE | {0})


def _unrecognised(case: Case, outcome: Outcome) -> bool:
    """The attribute that the reset is about came as well-known, and is none: whether to reset or to withdraw."""
    wanted = case.action in ("accept", "treat-as-withdraw")
    said = (outcome.result, outcome.code, outcome.subcode) == (RESET, 3, 2)
    return wanted and said and any(not a.flags & OPTIONAL and a.code not in known.RULES for a in _attributes(case))


def _multiprotocol_twice(case: Case, outcome: Outcome) -> bool:
    codes = [attribute.code for attribute in _attributes(case)]
    said = (outcome.result, outcome.code, outcome.subcode) == (RESET, 3, 1)
    return case.action == "accept" and said and max(codes.count(14), codes.count(15)) > 1


def _nothing_to_withdraw(case: Case, outcome: Outcome) -> bool:
    plain = read_update(case.octets[19:]) if case.kind == "UPDATE" else None
    said = (outcome.result, outcome.code, outcome.subcode) == (RESET, 3, 1)
    return case.action == "treat-as-withdraw" and said and plain is not None and not plain.reach


def _two_octet_attribute(case: Case, outcome: Outcome) -> bool:
    """AS4_PATH or AS4_AGGREGATOR is the only fault, and the session has four-octet AS numbers."""
    faults = {finding.code for finding in outcome.findings}
    new = case.context.get("asn4") is not False
    return (
        case.action == "treat-as-withdraw" and outcome.result == ACCEPT and new and bool(faults) and faults <= {17, 18}
    )


def _partial(case: Case, outcome: Outcome) -> bool:
    """No fault but the Partial bit of an attribute that is well-known or not transitive."""
    both = OPTIONAL | TRANSITIVE
    marked = any(attribute.flags & PARTIAL and attribute.flags & both != both for attribute in _attributes(case))
    return case.action == "treat-as-withdraw" and outcome.result == ACCEPT and marked and not outcome.findings


def _two_as_numbers(case: Case, outcome: Outcome) -> bool:
    """The test of a parser of capabilities: the AS field of the OPEN around them says something else."""
    said = (outcome.result, outcome.code, outcome.subcode) == (RESET, 2, 2)
    message = parse_open(case.octets[19:]) if said and case.action == "accept" and not case.is_own else None
    return message is not None and message.four_octet_asn != message.asn != AS_TRANS


def _capability_ignored(case: Case, outcome: Outcome) -> bool:
    """The length inside one capability is wrong, which we do not use; its place in the OPEN is right."""
    wanted = case.action == "session-reset" and (case.expect.get("code", 2), case.expect.get("subcode", 0)) == (2, 0)
    if not wanted or case.kind != "OPEN" or outcome.result != ACCEPT:
        return False
    return any(isinstance(item, _UNUSED) for item in parse_open(case.octets[19:]).capabilities)


_UNUSED = (UnknownCapability, RouteRefreshCapability, EnhancedRouteRefresh, ExtendedMessageCapability)
"""Capabilities of other lengths are read as these, too: to have them is all that counts."""


def _attributes(case: Case) -> list[Attribute]:
    plain = read_update(case.octets[19:]) if case.kind == "UPDATE" else None
    return plain.attributes if plain else []


RULES = (
    Rule("AS_SET", "RFC 9774 §3", _as_set),
    Rule("confederation segment", "RFC 5065 §5", _confederation),
    Rule("next hop that is no host's address", "RFC 4271 §6.3", _next_hop),
    Rule("BGPsec without its capability", "RFC 8205 §4.2, RFC 7606 §3 d", _bgpsec),
    Rule("attribute beyond the core, passed on", "RFC 4271 §5", _not_implemented),
    Rule("attribute beyond the core, checked", "RFC 7606 §3", _implemented),
    Rule("unrecognised well-known attribute", "RFC 4271 §6.3", _unrecognised),
    Rule("multiprotocol attribute twice", "RFC 7606 §3 g", _multiprotocol_twice),
    Rule("nothing to withdraw", "RFC 7606 §5.2", _nothing_to_withdraw),
    Rule("AS4_PATH or AS4_AGGREGATOR of a four-octet speaker", "RFC 6793 §4.1, §6", _two_octet_attribute),
    Rule("Partial bit alone", "RFC 7606 §3 c", _partial),
    Rule("two AS numbers in one OPEN", "RFC 6793 §4.1", _two_as_numbers),
    Rule("capability ignored", "RFC 5492 §3", _capability_ignored),
)

SINGLES: MappingProxyType[str, Single] = MappingProxyType(
    {
        # NEXT_HOP of length 12 swallows an attribute; the NLRI behind are cut.
        "df2e52560a53": Single("session-reset 3/10", "RFC 7606 §5.3"),
        # Five octets of NLRI and no attribute at all; the rest of the vector is no message.
        "11470b4bd44c": Single("treat-as-withdraw", "RFC 7606 §3 d"),
        # Total Attribute Length is beyond the message's own length; the rest of the vector is no message.
        "bb72b7cd0a47": Single("session-reset 3/1", "RFC 7606 §3 a"),
    }
)
