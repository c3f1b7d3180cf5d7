"""The careful walk over an attribute block: RFC 7606 as written, for whatever the short road does not take.

Every attribute is visited, whatever came before it: a fault in one must not hide the NLRI behind it. Only an attribute
whose length runs over the block ends the walk (§4), and Total Attribute Length then still finds the NLRI field.
"""

from __future__ import annotations

from attrs import frozen

from bgpd.errors import BGPError, ErrorCode
from bgpd.wire import aspath
from bgpd.wire.attributes import Item, build_block
from bgpd.wire.rules import (
    EXTENDED_LENGTH,
    OPTIONAL,
    PARTIAL,
    RULES,
    TRANSITIVE,
    UNINTERPRETED,
    Action,
    Code,
    Rule,
    Session,
    name_of,
)

_MP = (Code.MP_REACH_NLRI, Code.MP_UNREACH_NLRI)
_APART = (Code.NEXT_HOP, Code.MP_REACH_NLRI, Code.MP_UNREACH_NLRI)


@frozen
class Finding:
    """One thing wrong with an UPDATE that did not end the session, and what was done about it."""

    code: int
    """Attribute type code; 0 where no single attribute is meant."""
    name: str
    action: Action
    reason: str
    rfc: str

    def __str__(self) -> str:
        return f"{self.name}: {self.reason}: {self.answer} ({self.rfc})"

    @property
    def answer(self) -> str:
        """What was done, for people and metrics."""
        return _WORDS[self.action]


_WORDS = {
    Action.IGNORE: "ignored",
    Action.DISCARD: "attribute discarded",
    Action.WITHDRAW: "treated as withdraw",
    Action.RESET: "session reset",
}


class Examined:
    """What a walk found. `items` are in canonical form, NEXT_HOP and the MP attributes apart in `apart`."""

    __slots__ = ("apart", "findings", "items", "repeated", "seen")

    def __init__(self) -> None:
        self.items: list[Item] = []
        self.apart: dict[int, bytes] = {}
        self.seen: set[int] = set()
        self.repeated: set[int] = set()
        self.findings: list[Finding] = []

    @property
    def worst(self) -> Action:
        """The strongest answer that any fault called for (RFC 7606 §3 h)."""
        return max((finding.action for finding in self.findings), default=Action.IGNORE)

    def block(self) -> bytes:
        """The canonical attribute block."""
        return build_block(self.items)


def examine(block: bytes, session: Session) -> Examined:
    """Walk a received block. Raises BGPError for what only a reset answers: 3/1, 3/2."""
    found = Examined()
    start = 0
    size = len(block)
    while start < size:
        header = 4 if block[start] & EXTENDED_LENGTH else 3
        value_at = start + header
        if value_at > size:
            found.findings.append(_block_fault(f"{size - start} octets left, too few for an attribute"))
            break
        flags, code = block[start], block[start + 1]
        end = value_at + int.from_bytes(block[start + 2 : value_at], "big")
        if end > size:
            if code in _MP:
                raise BGPError(ErrorCode.UPDATE_MESSAGE, 1, reason=f"{name_of(code)} runs over the attributes")
            found.findings.append(_block_fault(f"{name_of(code)} runs over the attributes"))
            break
        _take(found, session, flags, code, block[start:end], header)
        start = end
    if not session.asn4:
        _merge_four_octet(found, session)
    return found


def _block_fault(reason: str) -> Finding:
    return Finding(0, "path attributes", Action.WITHDRAW, reason, "RFC 7606 §4")


def _take(found: Examined, session: Session, flags: int, code: int, octets: bytes, header: int) -> None:
    """Judge one attribute and keep what is to be kept."""
    if code in found.seen:
        _repeated(found, code)
        return
    found.seen.add(code)
    rule = RULES.get(code)
    value = octets[header:]
    if rule is None:
        _take_unknown(found, flags, code, octets, value)
    elif (flags ^ rule.flags) & (OPTIONAL | TRANSITIVE):
        reason = f"flags {flags:02x}"
        found.findings.append(Finding(code, rule.name, rule.flags_action, reason, "RFC 7606 §3 c"))
        if code in _APART:
            found.apart[code] = value
    else:
        _take_known(found, session, flags, rule, value)


def _repeated(found: Examined, code: int) -> None:
    """The first one counts; of the MP attributes there must be one (RFC 7606 §3 g)."""
    if code in _MP:
        raise BGPError(ErrorCode.UPDATE_MESSAGE, 1, reason=f"{name_of(code)} twice")
    if code not in found.repeated:
        found.repeated.add(code)
        found.findings.append(Finding(code, name_of(code), Action.DISCARD, "repeated", "RFC 7606 §3 g"))


def _take_unknown(found: Examined, flags: int, code: int, octets: bytes, value: bytes) -> None:
    if not flags & OPTIONAL:
        raise BGPError(
            ErrorCode.UPDATE_MESSAGE, 2, octets, f"well-known attribute {code}, flags {flags:02x}, is unknown"
        )
    if flags & TRANSITIVE:
        # RFC 4271 §5: what we do not understand travels on as it is, marked as not understood somewhere.
        found.items.append((OPTIONAL | TRANSITIVE | PARTIAL, code, value))


def _take_known(found: Examined, session: Session, flags: int, rule: Rule, value: bytes) -> None:
    peer = 0 if session.external else 1
    reason = rule.check(value, session)
    if reason:
        found.findings.append(Finding(rule.code, rule.name, rule.malformed[peer], reason, rule.rfc))
    elif not rule.used[peer]:
        found.findings.append(discarded(rule))
    elif rule.code in _APART:
        found.apart[rule.code] = value
    else:
        if rule.code == Code.LARGE_COMMUNITIES:
            value = _distinct(value, 12)
        found.items.append((_canonical_flags(flags, rule), rule.code, value))


def _distinct(value: bytes, size: int) -> bytes:
    """RFC 8092 §3: large communities that come again are removed without a word, and never sent."""
    return b"".join(dict.fromkeys(value[at : at + size] for at in range(0, len(value), size)))


def discarded(rule: Rule) -> Finding:
    """For a well-formed attribute that does not count here."""
    text = "sent by an external peer" if rule.used[1] else "not in use on this session"
    return Finding(rule.code, rule.name, Action.DISCARD, text, rule.rfc)


def _canonical_flags(flags: int, rule: Rule) -> int:
    """The table's flags; Partial survives where it means something, and is set on what we only pass on."""
    if rule.code in UNINTERPRETED:
        return rule.flags | PARTIAL
    return rule.flags | (flags & PARTIAL if rule.flags == OPTIONAL | TRANSITIVE else 0)


def _merge_four_octet(found: Examined, session: Session) -> None:
    """An old speaker's attributes to four-octet form (RFC 6793 §4.2.3). Malformed ones are not in `items` any more."""
    values = {code: (flags, value) for flags, code, value in found.items}
    path = aspath.widen(values[Code.AS_PATH][1]) if Code.AS_PATH in values else None
    aggregator = values[Code.AGGREGATOR][1] if Code.AGGREGATOR in values else None
    as4_aggregator = values.get(Code.AS4_AGGREGATOR)
    as4_path = values.get(Code.AS4_PATH)
    # Both AGGREGATORs, and the short one without AS_TRANS: someone aggregated anew, and knew nothing of the long ones.
    outdated = aggregator is not None and as4_aggregator is not None and aggregator[:2] != b"\x5b\xa0"
    if path is not None and as4_path is not None and not outdated:
        short = aspath.as4_path(as4_path[1])
        if aspath.length(short) > aspath.length(path):
            text = "longer than AS_PATH"
            found.findings.append(Finding(17, "AS4_PATH", Action.DISCARD, text, "RFC 6793 §4.2.3"))
        path = aspath.merge(path, short)
        _check_merged(found, session, path)
    if aggregator is not None:
        aggregator = as4_aggregator[1] if as4_aggregator and not outdated else b"\0\0" + aggregator
    merged = {Code.AS_PATH: path, Code.AGGREGATOR: aggregator, Code.AS4_PATH: None, Code.AS4_AGGREGATOR: None}
    items: list[Item] = []
    for flags, code, value in found.items:
        wide = merged.get(code, value)
        if wide is not None:
            items.append((flags, code, wide))
    found.items = items


def _check_merged(found: Examined, session: Session, path: bytes) -> None:
    """An AS_SET may have come in by AS4_PATH."""
    reason = aspath.malformed(path, 4, session.allow_as_sets)
    if reason:
        found.findings.append(Finding(17, "AS4_PATH", Action.WITHDRAW, reason, "RFC 7606 §7.2"))
