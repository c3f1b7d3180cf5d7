"""One table: a row an attribute, with its flags, its check and the RFC 7606 answer to a malformed one.

The parser takes every answer from here and has no opinion of its own. Three attributes are not judged alone and are
handled by the parser: NEXT_HOP's address, MP_REACH_NLRI and MP_UNREACH_NLRI hold what cannot be withdrawn without them.
An attribute without a row is unknown: optional transitive ones travel on, optional non-transitive ones end here, and a
well-known one ends the session (RFC 4271 §6.3).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from enum import IntEnum
from types import MappingProxyType
from typing import NamedTuple, TypeAlias

from bgpd.wire import aspath

OPTIONAL = 0x80
TRANSITIVE = 0x40
PARTIAL = 0x20
EXTENDED_LENGTH = 0x10


class Code:
    """Attribute type codes."""

    ORIGIN = 1
    AS_PATH = 2
    NEXT_HOP = 3
    MULTI_EXIT_DISC = 4
    LOCAL_PREF = 5
    ATOMIC_AGGREGATE = 6
    AGGREGATOR = 7
    COMMUNITIES = 8
    ORIGINATOR_ID = 9
    CLUSTER_LIST = 10
    MP_REACH_NLRI = 14
    MP_UNREACH_NLRI = 15
    EXTENDED_COMMUNITIES = 16
    AS4_PATH = 17
    AS4_AGGREGATOR = 18
    PMSI_TUNNEL = 22
    TUNNEL_ENCAPSULATION = 23
    IPV6_EXTENDED_COMMUNITIES = 25
    AIGP = 26
    LINK_STATE = 29
    LARGE_COMMUNITIES = 32
    OTC = 35
    PREFIX_SID = 40


class Action(IntEnum):
    """Answers to a fault, mildest first (RFC 7606 §2)."""

    IGNORE = 0
    """The prefix, or the family's part, is not used; nothing is wrong with the session or with other routes."""
    DISCARD = 1
    """Attribute discard."""
    WITHDRAW = 2
    """Treat-as-withdraw."""
    RESET = 3
    """Session reset."""


class Session(NamedTuple):
    """What of a session the checks depend on."""

    external: bool
    asn4: bool
    allow_as_sets: bool


Check: TypeAlias = Callable[[bytes, Session], str]
"""The attribute's value to why it is malformed, or "" if it is not."""


class Rule(NamedTuple):
    """One attribute. `flags`: the Optional and Transitive bits it must have."""

    code: int
    name: str
    flags: int
    check: Check
    malformed: tuple[Action, Action]
    """The answer to a malformed one, from an external and from an internal peer."""
    rfc: str
    used: tuple[bool, bool] = (True, True)
    """Whether a well-formed one counts, from an external and from an internal peer; if not it is discarded."""
    flags_action: Action = Action.WITHDRAW
    """The answer to wrong Optional or Transitive bits (RFC 7606 §3 c)."""


def _exactly(*sizes: int) -> Check:
    return lambda value, session: "" if len(value) in sizes else f"length {len(value)}"


def _multiple(size: int) -> Check:
    return lambda value, session: "" if value and len(value) % size == 0 else f"length {len(value)}"


def _anything(value: bytes, session: Session) -> str:
    return ""


def _origin(value: bytes, session: Session) -> str:
    if len(value) != 1:
        return f"length {len(value)}"
    return "" if value[0] <= 2 else f"value {value[0]}"


def _as_path(value: bytes, session: Session) -> str:
    return aspath.malformed(value, 4 if session.asn4 else 2, session.allow_as_sets)


def _aggregator(value: bytes, session: Session) -> str:
    width = 4 if session.asn4 else 2
    if len(value) != width + 4:
        return f"length {len(value)}"
    return "" if any(value[:width]) else "AS 0 (RFC 7607)"


def _as4_path(value: bytes, session: Session) -> str:
    if session.asn4:
        return "sent by a four-octet speaker (RFC 6793 §4.1)"
    try:
        aspath.as4_path(value)
    except ValueError as error:
        return str(error)
    return ""


def _as4_aggregator(value: bytes, session: Session) -> str:
    if session.asn4:
        return "sent by a four-octet speaker (RFC 6793 §4.1)"
    if len(value) != 8:
        return f"length {len(value)}"
    return "" if any(value[:4]) else "AS 0 (RFC 7607)"


def _pmsi_tunnel(value: bytes, session: Session) -> str:
    return "" if len(value) >= 5 else f"length {len(value)}"


def _tunnels(value: bytes, session: Session) -> str:
    """Tunnel TLVs: two octets of type, two of length (RFC 9012 §2)."""
    return "" if value and _tlvs_fit(value, 2) else "tunnel TLVs do not fill the attribute"


def _prefix_sid(value: bytes, session: Session) -> str:
    """TLVs of one octet type, two of length; Label-Index is 7 octets, SRGB 2 + 6n (RFC 8669 §3)."""
    start = 0
    while start < len(value):
        size = int.from_bytes(value[start + 1 : start + 3], "big")
        end = start + 3 + size
        if end > len(value):
            return "TLVs do not fill the attribute"
        if value[start] == 1 and size != 7:
            return f"Label-Index TLV of length {size}"
        if value[start] == 3 and (size < 8 or size % 6 != 2):
            return f"Originator SRGB TLV of length {size}"
        start = end
    return ""


def _tlvs_fit(value: bytes, type_octets: int) -> bool:
    start = 0
    header = type_octets + 2
    while start < len(value):
        start += header + int.from_bytes(value[start + type_octets : start + header], "big")
    return start == len(value)


def _index(rules: Iterable[Rule]) -> MappingProxyType[int, Rule]:
    table: dict[int, Rule] = {}
    for rule in rules:
        if rule.code in table or rule.flags & ~(OPTIONAL | TRANSITIVE):
            raise ValueError(f"attribute table: bad row {rule.name}")
        table[rule.code] = rule
    return MappingProxyType(table)


_WELL_KNOWN = TRANSITIVE
_PASSED_ON = OPTIONAL | TRANSITIVE
_LOCAL = OPTIONAL
_DISCARD = (Action.DISCARD, Action.DISCARD)
_WITHDRAW = (Action.WITHDRAW, Action.WITHDRAW)
_RESET = (Action.RESET, Action.RESET)
_INTERNAL_ONLY = (Action.DISCARD, Action.WITHDRAW)

RULES = _index(
    (
        Rule(1, "ORIGIN", _WELL_KNOWN, _origin, _WITHDRAW, "RFC 7606 §7.1"),
        Rule(2, "AS_PATH", _WELL_KNOWN, _as_path, _WITHDRAW, "RFC 7606 §7.2"),
        Rule(3, "NEXT_HOP", _WELL_KNOWN, _exactly(4), _WITHDRAW, "RFC 7606 §7.3"),
        Rule(4, "MULTI_EXIT_DISC", _LOCAL, _exactly(4), _WITHDRAW, "RFC 7606 §7.4"),
        Rule(5, "LOCAL_PREF", _WELL_KNOWN, _exactly(4), _INTERNAL_ONLY, "RFC 7606 §7.5", (False, True)),
        Rule(6, "ATOMIC_AGGREGATE", _WELL_KNOWN, _exactly(0), _DISCARD, "RFC 7606 §7.6"),
        Rule(7, "AGGREGATOR", _PASSED_ON, _aggregator, _DISCARD, "RFC 7606 §7.7"),
        Rule(8, "COMMUNITIES", _PASSED_ON, _multiple(4), _WITHDRAW, "RFC 7606 §7.8"),
        Rule(9, "ORIGINATOR_ID", _LOCAL, _exactly(4), _INTERNAL_ONLY, "RFC 7606 §7.9", (False, True)),
        Rule(10, "CLUSTER_LIST", _LOCAL, _multiple(4), _INTERNAL_ONLY, "RFC 7606 §7.10", (False, True)),
        Rule(14, "MP_REACH_NLRI", _LOCAL, _anything, _RESET, "RFC 7606 §7.11"),
        Rule(15, "MP_UNREACH_NLRI", _LOCAL, _anything, _RESET, "RFC 7606 §7.12"),
        Rule(16, "EXTENDED_COMMUNITIES", _PASSED_ON, _multiple(8), _WITHDRAW, "RFC 7606 §7.14"),
        Rule(17, "AS4_PATH", _PASSED_ON, _as4_path, _DISCARD, "RFC 6793 §6"),
        Rule(18, "AS4_AGGREGATOR", _PASSED_ON, _as4_aggregator, _DISCARD, "RFC 6793 §6"),
        Rule(22, "PMSI_TUNNEL", _PASSED_ON, _pmsi_tunnel, _WITHDRAW, "RFC 6514 §5"),
        Rule(23, "TUNNEL_ENCAPSULATION", _PASSED_ON, _tunnels, _WITHDRAW, "RFC 9012 §13"),
        Rule(25, "IPV6_EXTENDED_COMMUNITIES", _PASSED_ON, _multiple(20), _WITHDRAW, "RFC 7606 §7.15"),
        # AIGP and BGP-LS count only between speakers that were told to exchange them, which we never are.
        Rule(26, "AIGP", _LOCAL, _anything, _DISCARD, "RFC 7311 §3.3", (False, False), Action.DISCARD),
        Rule(29, "LINK_STATE", _LOCAL, _anything, _DISCARD, "RFC 9552 §8.2.2", (False, False), Action.DISCARD),
        Rule(32, "LARGE_COMMUNITIES", _PASSED_ON, _multiple(12), _WITHDRAW, "RFC 8092 §6"),
        Rule(35, "OTC", _PASSED_ON, _exactly(4), _WITHDRAW, "RFC 9234 §5"),
        Rule(40, "PREFIX_SID", _PASSED_ON, _prefix_sid, _DISCARD, "RFC 8669 §6", flags_action=Action.DISCARD),
    )
)

UNINTERPRETED = frozenset((22, 23, 40))
"""Only their structure is checked: passed on as unknown ones are, with Partial set (RFC 4271 §5)."""


def name_of(code: int) -> str:
    """An attribute's name for people."""
    rule = RULES.get(code)
    return rule.name if rule else f"attribute {code}"
