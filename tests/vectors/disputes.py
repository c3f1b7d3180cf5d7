"""Where a case wants one thing and another is as right: rules first, then single cases. Nothing else excuses a failure.

docs/conformance.md says the same in sentences; a test compares the two.
"""

from __future__ import annotations

from collections.abc import Callable
from types import MappingProxyType
from typing import NamedTuple

from bgpd.wire.rules import Action
from tests.vectors.case import Case
from tests.vectors.outcome import ACCEPT, RESET, WITHDRAW, Outcome
from tests.vectors.plain import read_update

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
    plain = read_update(case.octets[19:]) if case.kind == "UPDATE" else None
    return {attribute.code for attribute in plain.attributes} if plain else set()


def _not_implemented(case: Case, outcome: Outcome) -> bool:
    """The fault is in an attribute beyond the core, and it was passed on or dropped as an unknown one is."""
    wanted = case.action in ("treat-as-withdraw", "attribute-discard")
    return wanted and outcome.result == ACCEPT and bool(outcome.announced) and bool(_codes(case) - CORE)


def _implemented(case: Case, outcome: Outcome) -> bool:
    """The other way round: passing on is wanted, and we know enough of the attribute to see that it is malformed."""
    codes = {finding.code for finding in outcome.findings if finding.action == Action.WITHDRAW}
    return case.action == "accept" and outcome.result == WITHDRAW and bool(codes) and not codes & (CORE | {0})


RULES = (
    Rule("AS_SET", "RFC 9774 §3", _as_set),
    Rule("confederation segment", "RFC 5065 §5", _confederation),
    Rule("next hop that is no host's address", "RFC 4271 §6.3", _next_hop),
    Rule("BGPsec without its capability", "RFC 8205 §4.2, RFC 7606 §3 d", _bgpsec),
    Rule("attribute beyond the core, passed on", "RFC 4271 §5", _not_implemented),
    Rule("attribute beyond the core, checked", "RFC 7606 §3", _implemented),
)

SINGLES: MappingProxyType[str, Single] = MappingProxyType(
    {
        # An unrecognised well-known attribute, which the origin makes to test its own encoder.
        "98c176d15436": Single("session-reset 3/2", "RFC 4271 §6.3"),
        "e12507c5c032": Single("session-reset 3/2", "RFC 4271 §6.3"),
        # MP_REACH_NLRI twice, among other faults.
        "b3c3cdd2291d": Single("session-reset 3/1", "RFC 7606 §3 g"),
        # NEXT_HOP of length 12 swallows an attribute; the NLRI behind are cut.
        "df2e52560a53": Single("session-reset 3/10", "RFC 7606 §5.3"),
        # A fault, and nothing to withdraw.
        "4f8ae9ccf873": Single("session-reset 3/1", "RFC 7606 §5.2"),
        # A four-octet speaker's AS4_PATH is dropped whatever it holds.
        "3195c6e068b4": Single("accept", "RFC 6793 §4.1, §6"),
        "b30b54e3cf44": Single("accept", "RFC 6793 §4.1, §6"),
        # Only the Partial bit is wrong.
        "c02dd9489297": Single("accept", "RFC 7606 §3 c"),
        "424d6d9918db": Single("accept", "RFC 7606 §3 c"),
        "588ab2e63a49": Single("accept", "RFC 7606 §3 c"),
        "7c97c528a6a1": Single("accept", "RFC 7606 §3 c"),
        # AS field and capability 65 name different AS numbers.
        "2a3de0ae4721": Single("session-reset 2/2", "RFC 6793 §4.1"),
        "378a4dbc308c": Single("session-reset 2/2", "RFC 6793 §4.1"),
        # Five octets of NLRI and no attribute at all; the rest of the vector is no message.
        "11470b4bd44c": Single("treat-as-withdraw", "RFC 7606 §3 d"),
        # Total Attribute Length is beyond the message's own length; the rest of the vector is no message.
        "bb72b7cd0a47": Single("session-reset 3/1", "RFC 7606 §3 a"),
    }
)
