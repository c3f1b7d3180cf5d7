"""Verdicts: does an outcome satisfy a case? One function an action; the same for the codec and for a live session."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from types import MappingProxyType
from typing import TypeAlias

from bgpd.family import IPV4_UNICAST, IPV6_UNICAST
from bgpd.wire.attributes import encode, rebuild
from bgpd.wire.rules import Action, Code
from tests.vectors import decoded, disputes
from tests.vectors.case import Case
from tests.vectors.codec import OUR_ASN, OUR_ID, PEER_ASN
from tests.vectors.outcome import ACCEPT, CLOSE, IGNORE, RESET, WITHDRAW, Outcome
from tests.vectors.plain import Attribute, as_path_text, read_nlri, read_update

Judge: TypeAlias = Callable[[Case, Outcome], str]
"""Case and outcome to what is wrong, or ""."""


def judge(case: Case, outcome: Outcome) -> tuple[str, str]:
    """("", "") passed; ("", clause) passed by an alternative that the clause allows; (what is wrong, "") failed."""
    if outcome.fault:
        return outcome.fault, ""
    if case.action not in _JUDGES:
        return f"no such action; there are {', '.join(_JUDGES)}", ""
    try:
        wrong = _JUDGES[case.action](case, outcome)
        clause = disputes.allowed(case, outcome) if wrong else ""
    except Exception as error:
        # One case with fields of an unknown form must not hide what the others came to.
        return f"cannot be judged: {type(error).__name__}: {error}", ""
    return ("", clause) if clause else (wrong, "")


def left_out(case: Case) -> str:
    """What a case states and nothing here compares, or ""."""
    wanted = case.expect.get("forward")
    return f"not compared: what is sent on ({wanted})" if wanted and _forward_text(wanted) not in _FORWARD else ""


def _forward_text(wanted: str) -> str:
    return wanted.split(",")[0]


def _said(outcome: Outcome) -> str:
    if outcome.result == RESET:
        return f"reset {outcome.code}/{outcome.subcode} ({outcome.reason})"
    return f"{outcome.result} ({'; '.join(map(str, outcome.findings)) or outcome.reason or 'no finding'})"


def _accept(case: Case, outcome: Outcome) -> str:
    if case.kind == "NOTIFICATION":
        return "" if outcome.result == CLOSE else _said(outcome)
    if case.kind == "ROUTE-REFRESH":
        return "" if outcome.result in (ACCEPT, IGNORE) else _said(outcome)
    if case.kind == "UPDATE" and outcome.result == IGNORE:
        return "" if _other_families_only(case) else _said(outcome)
    if outcome.result != ACCEPT:
        return _said(outcome)
    return (
        _same_nlri(case, outcome)
        or decoded.compare(case.expect.get("decoded"), outcome)
        or _same_path(case, outcome)
        or _forwarded(case, outcome)
    )


def _other_families_only(case: Case) -> bool:
    """All NLRI of the message are of families that we do not speak: ignored, and the session is up (RFC 4760 §6)."""
    plain = read_update(case.octets[19:])
    ours = (IPV4_UNICAST, IPV6_UNICAST)
    return plain is not None and all(family not in ours for family, _ in (*plain.reach, *plain.unreach))


def _same_nlri(case: Case, outcome: Outcome) -> str:
    """The codec found the prefixes that a plain reading finds, whatever the session's use of path identifiers."""
    plain = read_update(case.octets[19:]) if case.kind == "UPDATE" else None
    if plain is None:
        return ""
    for family in (IPV4_UNICAST, IPV6_UNICAST):
        got = Counter(outcome.announced.get(family, ()))
        field = b"".join(octets for found, octets in plain.reach if found == family)
        wanted = [read_nlri(field, family.bits, path_ids) for path_ids in (False, True)]
        if all(prefixes is None or Counter(prefixes) != got for prefixes in wanted):
            return f"{family}: other prefixes than a plain reading finds"
    return ""


def _same_path(case: Case, outcome: Outcome) -> str:
    wanted = case.expect.get("as_path")
    if wanted is None:
        return ""
    got = as_path_text(outcome.path)
    return "" if got == wanted else f"AS_PATH {got!r}, {wanted!r} wanted"


def _forwarded(case: Case, outcome: Outcome) -> str:
    """What would be sent on. `unknown` are the attributes that the message has and the table has not."""
    wanted = case.expect.get("forward")
    plain = read_update(case.octets[19:])
    check = _FORWARD.get(_forward_text(wanted or ""))
    return "" if check is None or plain is None else check(plain.attributes, outcome)


def _unknown(attributes: list[Attribute]) -> Attribute:
    return max(attributes, key=lambda attribute: attribute.code)


def _forward_partial(attributes: list[Attribute], outcome: Outcome) -> str:
    attribute = _unknown(attributes)
    kept = [item for item in outcome.attributes if item[1] == attribute.code]
    if kept != [(0xE0, attribute.code, attribute.value)]:
        return f"attribute {attribute.code} is not passed on octet for octet with flags e0"
    extended = encode(*kept[0])[0] & 0x10
    return "" if bool(extended) == (len(attribute.value) > 255) else "Extended Length is set where it is not needed"


def _forward_unchanged(attributes: list[Attribute], outcome: Outcome) -> str:
    attribute = _unknown(attributes)
    if _discarded(outcome, attribute.code):
        return ""  # Not unknown, but malformed.
    values = [value for _, code, value in outcome.attributes if code == attribute.code]
    return "" if values == [attribute.value] else f"attribute {attribute.code} is not passed on unchanged"


def _forward_nothing(attributes: list[Attribute], outcome: Outcome) -> str:
    code = _unknown(attributes).code
    return f"attribute {code} is passed on" if any(item[1] == code for item in outcome.attributes) else ""


def _forward_reflected(attributes: list[Attribute], outcome: Outcome) -> str:
    """As a reflector sends it: our cluster id in front, more than 255 octets."""
    block = b"".join(encode(*item) for item in outcome.attributes)
    value = next((item[2] for item in outcome.attributes if item[1] == Code.CLUSTER_LIST), b"")
    sent = rebuild(block, {Code.CLUSTER_LIST: OUR_ID + value})
    wanted = encode(0x80, Code.CLUSTER_LIST, OUR_ID + value)
    return "" if wanted in sent else "CLUSTER_LIST with our id is not encoded as it should be"


_FORWARD: MappingProxyType[str, Callable[[list[Attribute], Outcome], str]] = MappingProxyType(
    {
        "same octets": _forward_partial,
        "flags e0 kept": _forward_partial,
        "unchanged if unknown": _forward_unchanged,
        "attribute dropped silently": _forward_nothing,
        "our id in front": _forward_reflected,
    }
)


def _treat_as_withdraw(case: Case, outcome: Outcome) -> str:
    """Session up, nothing installed, and an older route is gone: every prefix is among the withdrawn ones."""
    if outcome.result != WITHDRAW:
        return "" if _first_as_differs(case, outcome) else _said(outcome)
    if outcome.announced:
        return "prefixes are announced in spite of the fault"
    plain = read_update(case.octets[19:])
    assert plain is not None
    for family in (IPV4_UNICAST, IPV6_UNICAST):
        fields = [octets for found, octets in plain.reach if found == family]
        wanted = read_nlri(b"".join(fields), family.bits, bool(case.context.get("addpath")))
        if wanted is None or set(wanted) - set(outcome.withdrawn.get(family, ())):
            return f"{family}: prefixes of the message are not withdrawn"
    return ""


def _first_as_differs(case: Case, outcome: Outcome) -> bool:
    """RFC 4271 §6.3's check of the first AS is the import's: the codec's part is to show the path as it is."""
    if not case.is_own or case.peer != "ebgp" or outcome.result != ACCEPT:
        return False
    if not outcome.path:
        plain = read_update(case.octets[19:])
        return plain is not None and any(a.code == Code.AS_PATH and not a.value for a in plain.attributes)
    return outcome.path[0][1][0] != PEER_ASN


def _attribute_discard(case: Case, outcome: Outcome) -> str:
    """Installed, if there was something to install, without something that the message had."""
    plain = read_update(case.octets[19:])
    if plain is None:
        return _said(outcome)
    if not plain.reach:
        discarded = any(_discarded(outcome, attribute.code) for attribute in plain.attributes)
        return "" if discarded and outcome.result in (ACCEPT, IGNORE) else _said(outcome)
    if outcome.result != ACCEPT or not outcome.announced:
        return _said(outcome)
    apart = (Code.MP_REACH_NLRI, Code.MP_UNREACH_NLRI)
    came = Counter(attribute.code for attribute in plain.attributes if attribute.code not in apart)
    kept = Counter(code for _, code, _ in outcome.attributes)
    kept[Code.NEXT_HOP] += 1  # It is kept apart, once.
    if not came - kept:
        return "every attribute was kept"
    return _first_next_hop(plain.attributes, outcome) or _same_path(case, outcome) or _same_nlri(case, outcome)


def _first_next_hop(attributes: list[Attribute], outcome: Outcome) -> str:
    """RFC 7606 §3 g: of several the first counts."""
    hops = [attribute.value for attribute in attributes if attribute.code == Code.NEXT_HOP]
    used = outcome.next_hops.get(IPV4_UNICAST)
    return f"next hop {used.hex()} is not the first one" if len(hops) > 1 and used and used != hops[0] else ""


def _discarded(outcome: Outcome, code: int) -> bool:
    return any(finding.code == code and finding.action == Action.DISCARD for finding in outcome.findings)


def _accept_or_withdraw(case: Case, outcome: Outcome) -> str:
    return _accept(case, outcome) and _treat_as_withdraw(case, outcome)


_CODES = MappingProxyType({"OPEN": 2, "UPDATE": 3, "ROUTE-REFRESH": 7})
"""The code that faults of a message have, where a case does not say."""


def _session_reset(case: Case, outcome: Outcome) -> str:
    if outcome.result != RESET:
        return _said(outcome)
    code = case.expect.get("code", _CODES.get(case.kind, outcome.code))
    allowed = [(code, case.expect.get("subcode")), *map(tuple, case.expect.get("alt", ()))]
    if not any(outcome.code == code and subcode in (None, outcome.subcode) for code, subcode in allowed):
        return _said(outcome)
    data = case.expect.get("data")
    return "" if data is None or outcome.data.hex() == data.lower() else f"data {outcome.data.hex()}, {data} wanted"


def _reset_or_disable(case: Case, outcome: Outcome) -> str:
    """Nothing of a family that cannot be read is used; with it, the session may go (RFC 7606 §2)."""
    if outcome.result == RESET:
        return _session_reset(case, outcome)
    return "" if outcome.result == IGNORE or not (outcome.announced or outcome.withdrawn) else _said(outcome)


def _loop_reject(case: Case, outcome: Outcome) -> str:
    """RFC 4456 §8 and RFC 4271 §9.1.2 are the import's to apply: the codec must show it our own id, or AS number."""
    values = {code: value for _, code, value in outcome.attributes}
    clusters = values.get(Code.CLUSTER_LIST, b"")
    ids = [clusters[i : i + 4] for i in range(0, len(clusters), 4)] + [values.get(Code.ORIGINATOR_ID)]
    looped = OUR_ID in ids or any(OUR_ASN in asns for _, asns in outcome.path)
    return "" if outcome.result == ACCEPT and looped else _said(outcome)


def _ignore_route(case: Case, outcome: Outcome) -> str:
    """Our own address as next hop is for others to see; what is nobody's address is withdrawn here."""
    ours = outcome.result == ACCEPT and outcome.next_hops.get(IPV4_UNICAST) == OUR_ID
    return "" if ours or outcome.result == WITHDRAW else _said(outcome)


def _ignore_prefix(case: Case, outcome: Outcome) -> str:
    """Others beside it may be announced; what is told of must be missing."""
    plain = read_update(case.octets[19:])
    if plain is None:
        return _said(outcome)
    fields = [octets for found, octets in plain.reach if found == IPV4_UNICAST]
    came = read_nlri(b"".join(fields), IPV4_UNICAST.bits, bool(case.context.get("addpath"))) or []
    fewer = len(outcome.announced.get(IPV4_UNICAST, ())) < len(came)
    return "" if outcome.result != RESET and _ignored(outcome) and fewer else _said(outcome)


def _ignore(case: Case, outcome: Outcome) -> str:
    if case.kind == "UPDATE" and outcome.result == ACCEPT and _ignored(outcome) and not outcome.announced:
        return ""  # It withdraws something beside what is ignored.
    return "" if outcome.result == IGNORE and not outcome.announced else _said(outcome)


def _ignored(outcome: Outcome) -> bool:
    return any(finding.action == Action.IGNORE for finding in outcome.findings)


def _close(case: Case, outcome: Outcome) -> str:
    """RFC 4271 §6.4: no answer. One too short to be a NOTIFICATION is a header error."""
    return "" if outcome.result == CLOSE or (outcome.code, outcome.subcode) == (1, 2) else _said(outcome)


def _no_crash(case: Case, outcome: Outcome) -> str:
    return ""


_JUDGES: MappingProxyType[str, Judge] = MappingProxyType(
    {
        "accept": _accept,
        "treat-as-withdraw": _treat_as_withdraw,
        "attribute-discard": _attribute_discard,
        "accept-or-treat-as-withdraw": _accept_or_withdraw,
        "session-reset": _session_reset,
        "session-reset-or-afi-disable": _reset_or_disable,
        "loop-reject": _loop_reject,
        "ignore-route": _ignore_route,
        "ignore-prefix": _ignore_prefix,
        "ignore": _ignore,
        "close": _close,
        "no-crash": _no_crash,
    }
)
