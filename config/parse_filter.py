"""BGPFilter: conditions and operations of its rules, validated."""

from __future__ import annotations

import re

from config import resources as r
from config import values
from config.fields import Fields
from config.values import Prefix

__all__ = ["INTERFACE", "INTERFACE_FORM", "bgp_filter"]

INTERFACE = re.compile(r"[A-Za-z0-9_.*-]{1,15}")
INTERFACE_FORM = "1-15 of letters, digits, '_', '.', '-' and '*'"
_PRIORITIES = (1, 2147483646)


def bgp_filter(name: str, top: Fields) -> r.BGPFilter:
    """The resource; faults go to the fields' sink."""
    spec = top.mapping("spec")
    return r.BGPFilter(
        name,
        export_v4=_rules(spec, "exportV4", 4),
        import_v4=_rules(spec, "importV4", 4),
        export_v6=_rules(spec, "exportV6", 6),
        import_v6=_rules(spec, "importV6", 6),
    )


def _rules(spec: Fields, field: str, version: int) -> tuple[r.FilterRule, ...]:
    rules = (_rule(entry, version) for entry in spec.mappings(field))
    return tuple(rule for rule in rules if rule is not None)


def _pattern(text: str) -> str:
    if not INTERFACE.fullmatch(text):
        raise ValueError("no interface name or pattern")
    return text


def _rule(rule: Fields, version: int) -> r.FilterRule | None:
    action = rule.choice("action", r.FilterAction)
    if action is None and not rule.has("action"):
        rule.wrong("action", "is missing", "Accept, Reject")
    cidr = rule.parsed("cidr", values.prefix, values.PREFIX_FORM, 64)
    operator = rule.choice("matchOperator", r.MatchOperator)
    if cidr is not None and cidr.family.afi != (1 if version == 4 else 2):
        rule.wrong("cidr", f"is not of the list's family, IPv{version}", f"an IPv{version} prefix")
    if rule.has("cidr") != rule.has("matchOperator"):
        missing = "matchOperator" if rule.has("cidr") else "cidr"
        rule.wrong(missing, "is missing: cidr and matchOperator stand together", "both or neither")
    found = r.FilterRule(
        action or r.FilterAction.REJECT,
        cidr=cidr,
        operator=operator,
        length=_length(rule, cidr, version),
        source=rule.choice("source", r.RuleSource),
        interface=rule.parsed("interface", _pattern, INTERFACE_FORM, 15) or "",
        peer_type=rule.choice("peerType", r.PeerType),
        community=_community(rule),
        as_path_prefix=_asns(rule, "asPathPrefix", 100_000),
        priority=rule.integer("priority", *_PRIORITIES),
        operations=_operations(rule, action),
    )
    return None if action is None else found


def _length(rule: Fields, cidr: Prefix | None, version: int) -> tuple[int, int] | None:
    if rule.value.get("prefixLength") is None:
        return None
    bits = 32 if version == 4 else 128
    length = rule.mapping("prefixLength")
    low, high = length.integer("min", 0, bits), length.integer("max", 0, bits)
    if not rule.has("cidr"):
        rule.wrong("prefixLength", "needs cidr", "cidr and matchOperator beside it")
    if cidr is None:
        return None
    return (cidr.length if low is None else max(low, cidr.length), bits if high is None else high)


def _community(rule: Fields) -> values.Community | None:
    if rule.value.get("communities") is None:
        return None
    communities = rule.mapping("communities")
    found = communities.parsed_list("values", values.community, values.COMMUNITY_FORM)
    if len(found) != 1:
        communities.wrong("values", "must be exactly one community", values.COMMUNITY_FORM)
        return None
    return found[0]


def _asns(fields: Fields, field: str, limit: int) -> tuple[int, ...]:
    found: list[int] = []
    for path, item in fields.items(field, limit):
        try:
            if isinstance(item, bool) or not isinstance(item, (int, str)):
                raise ValueError("neither number nor text")
            found.append(values.asn(item))
        except ValueError as error:
            fields.sink.note(path, f"is no AS number: {error}", value=item, allowed=values.ASN_FORM)
    return tuple(found)


def _prepended(inner: Fields) -> tuple[int, ...]:
    found = _asns(inner, "prefix", 10)
    if 0 in found:
        # Every peer would take the routes for withdrawn.
        inner.wrong("prefix", "has AS 0, which must not be in a path (RFC 7607)", values.ASN_FORM)
    return found


def _operations(rule: Fields, action: r.FilterAction | None) -> tuple[r.Operation, ...]:
    if not rule.has("operations"):
        return ()
    if action is r.FilterAction.REJECT:
        rule.wrong("operations", "cannot stand beside the action Reject", "leave them out, or Accept")
    return tuple(_operation(entry) for entry in rule.mappings("operations", 10))


def _operation(entry: Fields) -> r.Operation:
    names = ("addCommunity", "prependASPath", "setPriority")
    present = [name for name in names if entry.value.get(name) is not None]
    if len(present) != 1:
        entry.sink.note(entry.path, f"sets {len(present)} operations", allowed=f"exactly one of {', '.join(names)}")
        return r.Operation()
    inner = entry.mapping(present[0])
    operation = r.Operation(
        add_community=inner.parsed("value", values.community, values.COMMUNITY_FORM)
        if present[0] == "addCommunity"
        else None,
        prepend_as_path=_prepended(inner) if present[0] == "prependASPath" else (),
        set_priority=inner.integer("value", *_PRIORITIES) if present[0] == "setPriority" else None,
    )
    if operation == r.Operation() and not entry.sink.refused:
        entry.sink.note(inner.path, "is empty", allowed="a value")
    return operation
