"""Kinds as people name them and tables show them: calicoctl's aliases and columns (calico-bgp.md 10.1). Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from attrs import field, frozen

from config.values import asn as asn_of

__all__ = ["KINDS", "NAMESPACED_KINDS", "Kind", "asn_text", "columns", "custom_columns", "find_kind"]

Value = Mapping[str, Any]
"""An object in projectcalico.org/v3 form, as plain JSON."""


@frozen
class Columns:
    """Headlines, and what each shows of an object."""

    heads: tuple[str, ...]
    cells: Callable[[Value, str], tuple[object, ...]]
    """(object, the cluster's AS number as text) -> one cell a headline."""


@frozen
class Kind:
    """One kind: `name` as objects spell it, `aliases` in lower case."""

    name: str
    aliases: tuple[str, ...]
    normal: Columns
    wide: Columns = field()

    @wide.default
    def _as_normal(self) -> Columns:
        return self.normal


def _at(value: Value, path: str, default: object = "") -> Any:
    """A field of an object, or `default` where it or something around it is missing."""
    found: Any = value
    for name in path.split("."):
        found = found.get(name) if isinstance(found, Mapping) else None
    return default if found is None or found == "" else found


def _yes(value: object) -> str:
    return "true" if value is True or value == "true" else "false"


def _count(value: Value, path: str) -> int:
    found = _at(value, path, ())
    return len(found) if isinstance(found, Sequence) else 0


def _name(value: Value) -> str:
    space, name = _at(value, "metadata.namespace"), _at(value, "metadata.name")
    return f"{space}/{name}" if space else str(name)


def asn_text(value: Value, path: str, default: str) -> str:
    """An AS number as calicoctl shows it: "1.10" is 65546; what is none, as it is."""
    found = _at(value, path, default)
    try:
        return str(asn_of(found))
    except (TypeError, ValueError, AttributeError):
        return str(found)


def _configuration(value: Value, asn: str) -> tuple[object, ...]:
    mesh, number = _at(value, "spec.nodeToNodeMeshEnabled", None), asn_text(value, "spec.asNumber", "-")
    return _name(value), _at(value, "spec.logSeverityScreen"), "-" if mesh is None else _yes(mesh), number


def _peer(value: Value, asn: str) -> tuple[object, ...]:
    node = _at(value, "spec.node") or _at(value, "spec.nodeSelector") or "(global)"
    return _name(value), _at(value, "spec.peerIP"), node, asn_text(value, "spec.asNumber", "0")


def _filter(value: Value, asn: str) -> tuple[object, ...]:
    return _name(value), *(_count(value, f"spec.{name}") for name in ("exportV4", "importV4", "exportV6", "importV6"))


def _pool(value: Value, asn: str) -> tuple[object, ...]:
    return _name(value), _at(value, "spec.cidr"), _at(value, "spec.nodeSelector", "all()")


def _pool_wide(value: Value, asn: str) -> tuple[object, ...]:
    modes = (_at(value, "spec.ipipMode", "Never"), _at(value, "spec.vxlanMode", "Never"))
    flags = (_yes(_at(value, "spec.disabled")), _yes(_at(value, "spec.disableBGPExport")))
    nat, selector = _yes(_at(value, "spec.natOutgoing")), _at(value, "spec.nodeSelector", "all()")
    mode = _at(value, "spec.assignmentMode", "Automatic")
    return _name(value), _at(value, "spec.cidr"), nat, *modes, *flags, selector, mode


def _node_wide(value: Value, asn: str) -> tuple[object, ...]:
    addresses = (_at(value, "spec.bgp.ipv4Address"), _at(value, "spec.bgp.ipv6Address"))
    return _name(value), asn_text(value, "spec.bgp.asNumber", f"({asn})"), *addresses


def _status_wide(value: Value, asn: str) -> tuple[object, ...]:
    classes = _at(value, "spec.classes", ())
    return _name(value), _at(value, "spec.node"), ",".join(map(str, classes)) if isinstance(classes, list) else ""


def _block(value: Value, asn: str) -> tuple[object, ...]:
    state = _at(value, "spec.state", "confirmed")
    return _name(value), _at(value, "spec.cidr"), _at(value, "spec.node"), state


def _plain_name(value: Value, asn: str) -> tuple[object, ...]:
    return (_name(value),)


_ONLY_NAME = Columns(("NAME",), _plain_name)
_POOL_WIDE = (
    *("NAME", "CIDR", "NAT", "IPIPMODE", "VXLANMODE", "DISABLED", "DISABLEBGPEXPORT", "SELECTOR", "ASSIGNMENTMODE"),
)
_FILTER = ("NAME", "NUMEXPORTV4", "NUMIMPORTV4", "NUMEXPORTV6", "NUMIMPORTV6")

KINDS: tuple[Kind, ...] = (
    Kind(
        "BGPConfiguration",
        ("bgpconfiguration", "bgpconfigurations", "bgpconfig", "bgpconfigs"),
        Columns(("NAME", "LOGSEVERITY", "MESHENABLED", "ASNUMBER"), _configuration),
    ),
    Kind(
        "BGPPeer",
        ("bgppeer", "bgppeers", "bgpp", "bgpps", "bp", "bps"),
        Columns(("NAME", "PEERIP", "NODE", "ASN"), _peer),
    ),
    Kind("BGPFilter", ("bgpfilter", "bgpfilters", "bgpf", "bgpfs", "bf", "bfs"), Columns(_FILTER, _filter)),
    Kind(
        "IPPool",
        ("ippool", "ippools", "ipp", "ipps", "pool", "pools"),
        Columns(("NAME", "CIDR", "SELECTOR"), _pool),
        Columns(_POOL_WIDE, _pool_wide),
    ),
    Kind(
        "Node",
        ("node", "nodes", "no", "nos"),
        _ONLY_NAME,
        Columns(("NAME", "ASN", "IPV4", "IPV6"), _node_wide),
    ),
    Kind(
        "CalicoNodeStatus",
        ("caliconodestatus", "caliconodestatuses", "nodestatus", "nodestatuses"),
        Columns(("NAME", "NODE"), lambda value, asn: _status_wide(value, asn)[:2]),
        Columns(("NAME", "NODE", "CLASSES"), _status_wide),
    ),
    Kind(
        "BlockAffinity",
        ("blockaffinity", "blockaffinities", "affinity", "affinities"),
        Columns(("NAME", "CIDR", "NODE", "STATE"), _block),
    ),
    Kind("Secret", ("secret", "secrets"), _ONLY_NAME),
    Kind("Service", ("service", "services", "svc"), _ONLY_NAME),
    Kind("EndpointSlice", ("endpointslice", "endpointslices"), _ONLY_NAME),
)
"""In the order in which an export writes them and a deletion of many undoes them last to first."""

NAMESPACED_KINDS = frozenset({"Secret", "Service", "EndpointSlice"})


def find_kind(text: str) -> Kind | None:
    """A kind by its name or an alias, in any case."""
    wanted = text.lower()
    return next((kind for kind in KINDS if wanted in kind.aliases), None)


def columns(kind: Kind, values: Sequence[Value], *, wide: bool, asn: str) -> tuple[tuple[str, ...], list[Any]]:
    """(headlines, rows) of objects of one kind. `asn`: the cluster's AS number, for nodes without one of their own."""
    shown = kind.wide if wide else kind.normal
    return shown.heads, [shown.cells(value, asn) for value in values]


def custom_columns(
    kind: Kind, values: Sequence[Value], names: Sequence[str], *, asn: str
) -> tuple[tuple[str, ...], list[Any]]:
    """(headlines, rows) of chosen columns, by their headlines in any case. Raises KeyError for an unknown one."""
    by_name = {head: (shown, at) for shown in (kind.normal, kind.wide) for at, head in enumerate(shown.heads)}
    chosen = [by_name[name.strip().upper()] for name in names]
    rows = [tuple(shown.cells(value, asn)[at] for shown, at in chosen) for value in values]
    return tuple(name.strip().upper() for name in names), rows
