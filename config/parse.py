"""Plain values -> resources, validated by Calico's rules.

`parse_resource` raises `ResourceError` and nothing else, whatever it is given. Unknown fields are tolerated: the API
has many that BGP does not read, and grows. `identify` tells unknown kinds, for the caller to pass over with a notice.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from ipaddress import IPv4Address, ip_interface
from sys import intern
from typing import Any

from attrs import frozen

from config import resources as r
from config import values
from config.fields import Fields, Sink
from config.parse_bgp import address_in, bgp_configuration, bgp_peer
from config.parse_filter import bgp_filter
from config.parse_kubernetes import endpoint_slice, secret, service
from config.problems import Problem, ResourceError, show
from config.resources import Resource
from config.values import Prefix

__all__ = ["Identity", "Parsed", "identify", "identify_known", "parse_resource", "unfold"]

GROUPS = ("projectcalico.org/v3", "crd.projectcalico.org/v1")
_DOMAINS = {group.partition("/")[0] for group in GROUPS}
NAMESPACED = {"Secret": "v1", "Service": "v1", "EndpointSlice": "discovery.k8s.io/v1"}
"""Kubernetes' own kinds and their apiVersion; their objects are named "namespace/name" here."""
_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,251}[A-Za-z0-9])?")
_NAME_FORM = "letters, digits, '.', '-', '_', at most 253 characters, a letter or digit at both ends"


@frozen
class Identity:
    """What an object says it is. `known`: BGP reads the kind."""

    kind: str
    name: str
    group: str
    known: bool

    def __str__(self) -> str:
        return f"{self.kind}/{self.name}"

    @property
    def not_read(self) -> str:
        """What there is to say of an object whose kind is not known; else ""."""
        return "" if self.known else f"the kind {self.kind} of {self.group} is not read by BGP"


@frozen
class Parsed:
    """A good object, and notices about what in it is without effect."""

    resource: Resource
    notices: tuple[Problem, ...] = ()


def identify(document: object) -> Identity:
    """Kind and name of an object. Raises ResourceError where it has none."""
    if not isinstance(document, Mapping):
        raise ResourceError(
            [Problem(object="", text="is no object", value=show(document), allowed="a mapping with a kind")]
        )
    kind, group, metadata = document.get("kind"), document.get("apiVersion"), document.get("metadata")
    if not isinstance(kind, str) or not kind or len(kind) > 253 or not kind.isprintable():
        raise ResourceError(
            [Problem(object="", field="kind", text="is no kind", value=show(kind), allowed=", ".join(r.KINDS))]
        )
    if not isinstance(group, str):
        allowed = ", ".join(GROUPS)
        raise ResourceError(
            [Problem(object=kind, field="apiVersion", text="is missing", value=show(group), allowed=allowed)]
        )
    known = _PARSERS.get(kind) is not None and (group == NAMESPACED[kind] if kind in NAMESPACED else group in GROUPS)
    if not known:
        if (slip := _slip(kind, group, document)) is not None:
            raise ResourceError([slip])
        return Identity(kind, "", group, known=False)
    name = metadata.get("name") if isinstance(metadata, Mapping) else None
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        problem = Problem(object=kind, field="metadata.name", text="is no name", value=show(name), allowed=_NAME_FORM)
        raise ResourceError([problem])
    if kind in NAMESPACED and isinstance(metadata, Mapping):
        space = metadata.get("namespace", "")
        name = f"{space if isinstance(space, str) and _NAME.fullmatch(space) else ''}/{name}"
    return Identity(kind, name, group, known=True)


def _slip(kind: str, group: str, document: Mapping[Any, Any]) -> Problem | None:
    """What is wrong with an object that is meant for us, and of another kind by a slip alone.

    Passed over as a stranger's, it would take its earlier version with it.
    """
    if kind == "List" or (kind.endswith("List") and kind[:-4] in _PARSERS):
        text, value = "is no list", show(document.get("items"))
        return Problem(object=kind, field="items", text=text, value=value, allowed="a list of objects, [] for none")
    meant = next((name for name in _PARSERS if name.lower() == kind.lower() and name not in NAMESPACED), None)
    if meant is None or group.partition("/")[0] not in _DOMAINS:
        return None
    if meant != kind:
        return Problem(object=kind, field="kind", text="is not written so", value=show(kind), allowed=meant)
    text, allowed = "is no version that there is", ", ".join(GROUPS)
    return Problem(object=kind, field="apiVersion", text=text, value=show(group), allowed=allowed)


def unfold(document: object) -> list[tuple[object, str]]:
    """The objects of a List kind with the paths of each; any other value is itself, at the path ""."""
    if isinstance(document, Mapping):
        kind, items = document.get("kind"), document.get("items")
        if isinstance(kind, str) and kind.endswith("List") and isinstance(items, list):
            # Lists as calicoctl prints them leave kind and apiVersion out of their items.
            inherited = {} if kind == "List" else {"kind": kind[:-4], "apiVersion": document.get("apiVersion")}
            return [
                ({**inherited, **item} if isinstance(item, Mapping) else item, f"items[{index}]")
                for index, item in enumerate(items)
            ]
    return [(document, "")]


def identify_known(document: object) -> Identity:
    """Kind and name of an object whose kind BGP reads. Raises ResourceError for any other."""
    identity = identify(document)
    if not identity.known:
        raise ResourceError([Problem(object=identity.kind, text=identity.not_read, allowed=", ".join(r.KINDS))])
    return identity


def parse_resource(document: object) -> Parsed:
    """Validate one object of a known kind. Raises ResourceError with every fault found."""
    identity = identify_known(document)
    assert isinstance(document, Mapping)
    sink = Sink(str(identity))
    top = Fields(document, "", sink)
    resource = _PARSERS[identity.kind](identity.name, top)
    if resource is None or sink.refused:
        raise ResourceError(sink.problems)
    return Parsed(resource, tuple(sink.problems))


def _labels(top: Fields) -> dict[str, str]:
    labels: dict[str, str] = {}
    metadata = top.mapping("metadata")
    for key, value in metadata.mapping("labels").value.items():
        if isinstance(value, (dict, list)) or not isinstance(key, str):
            metadata.wrong("labels", f"the label {show(key)} is no text", "text")
        elif value is not None:
            # Labels repeat from node to node: one copy of each serves all.
            labels[intern(key)] = intern(values.label_text(value))
    return labels


def _interface(text: str) -> tuple[str, Prefix]:
    if "%" in text:
        raise ValueError("addresses with a zone are not supported")
    try:
        interface = ip_interface(text)
    except ValueError:
        raise ValueError("no address") from None
    if interface.ip.is_unspecified:
        raise ValueError("not an address of a host")
    return str(interface.ip), values.prefix(str(interface.network))


def _node_address(bgp: Fields, field: str, version: int) -> tuple[str, Prefix | None]:
    found = bgp.parsed(field, _interface, f"an IPv{version} address, with or without prefix length", 64)
    if found is None:
        return "", None
    if found[1].family.afi != (1 if version == 4 else 2):
        bgp.wrong(field, f"is no IPv{version} address", f"an IPv{version} address, with or without prefix length")
    return found


def _quad(text: str) -> str:
    try:
        address = IPv4Address(text)
    except ValueError:
        raise ValueError("no dotted quad") from None
    if int(address) == 0:
        raise ValueError("0.0.0.0 is no cluster")
    return str(address)


def _node(name: str, top: Fields) -> r.Node:
    spec = top.mapping("spec")
    bgp = spec.mapping("bgp")
    wireguard = spec.mapping("wireguard")
    ipv4, network = _node_address(bgp, "ipv4Address", 4)
    ipv6, _ = _node_address(bgp, "ipv6Address", 6)
    return r.Node(
        name,
        labels=_labels(top),
        asn=bgp.asn("asNumber"),
        ipv4_address=ipv4,
        ipv6_address=ipv6,
        ipv4_network=network,
        cluster_id=bgp.parsed("routeReflectorClusterID", _quad, "a dotted quad such as 244.0.0.1", 64) or "",
        ipv4_wireguard=address_in(wireguard, "interfaceIPv4Address"),
        ipv6_wireguard=address_in(wireguard, "interfaceIPv6Address"),
        pod_cidrs=top.mapping("status").parsed_list("podCIDRs", values.prefix, values.PREFIX_FORM),
    )


def _strict_prefix(text: str) -> Prefix:
    return values.prefix(text, strict=True)


def _ip_pool(name: str, top: Fields) -> r.IPPool | None:
    spec = top.mapping("spec")
    cidr = spec.parsed("cidr", _strict_prefix, f"{values.PREFIX_FORM}, without host bits", 64)
    ipip = spec.choice("ipipMode", r.Encapsulation) or r.Encapsulation.NEVER
    vxlan = spec.choice("vxlanMode", r.Encapsulation) or r.Encapsulation.NEVER
    disabled = spec.boolean("disableBGPExport") is True
    never = r.Encapsulation.NEVER
    selector = spec.selector("nodeSelector")
    if selector is not None and selector.uses_global():
        spec.wrong("nodeSelector", "cannot use global()", "a selector over node labels")
    if cidr is None:
        if not spec.has("cidr"):
            spec.wrong("cidr", "is missing", values.PREFIX_FORM)
        return None
    if ipip is not never and vxlan is not never:
        spec.wrong("ipipMode", "cannot stand beside vxlanMode", "Never for one of the two")
    if ipip is not never and cidr.family.afi != 1:
        spec.wrong("ipipMode", "is not possible in an IPv6 pool", "Never")
    uses = [item for _, item in spec.items("allowedUses")]
    _pool_notices(spec, cidr, uses)
    if "LoadBalancer" in uses and (ipip is not never or vxlan is not never or disabled):
        spec.wrong("allowedUses", "a LoadBalancer pool has neither encapsulation nor disableBGPExport", "Never, false")
    return r.IPPool(name, cidr, ipip, vxlan, export=not disabled)


_USES = ("Workload", "Tunnel", "LoadBalancer")
_BLOCK_SIZES = {1: (20, 32), 2: (116, 128)}
"""By address family number."""


def _pool_notices(spec: Fields, cidr: Prefix, uses: list[object]) -> None:
    """Values that Calico's API refuses in fields that say nothing to BGP: no reason to stop announcing the pool."""
    low, high = _BLOCK_SIZES[cidr.family.afi]
    size = spec.value.get("blockSize")
    if size is not None and (not isinstance(size, int) or not (max(low, cidr.length) <= size <= high)):
        allowed = f"{max(low, cidr.length)}-{high}"
        spec.wrong("blockSize", "is no size for blocks of this pool", allowed, refused=False)
    if any(use not in _USES for use in uses):
        spec.wrong("allowedUses", "has other words than Calico's API", ", ".join(_USES), refused=False)
    if spec.value.get("assignmentMode") not in (None, "", "Automatic", "Manual"):
        spec.wrong("assignmentMode", "is none of the known values", "Automatic, Manual", refused=False)
    selector = spec.value.get("nodeSelector")
    if "LoadBalancer" in uses and selector not in (None, "", "all()"):
        spec.wrong("nodeSelector", "of a LoadBalancer pool must be all()", "all()", refused=False)


def _block_affinity(name: str, top: Fields) -> r.BlockAffinity | None:
    spec = top.mapping("spec")
    cidr = spec.parsed("cidr", values.prefix, values.PREFIX_FORM, 64)
    node = spec.text("node")
    if cidr is None and not spec.has("cidr"):
        spec.wrong("cidr", "is missing", values.PREFIX_FORM)
    if not node and not spec.has("node"):
        spec.wrong("node", "is missing", "a node's name")
    state = spec.choice("state", r.AffinityState) or r.AffinityState.CONFIRMED
    deleted = spec.boolean("deleted") is True
    host = spec.text("type") in ("", "host")
    return None if cidr is None else r.BlockAffinity(name, node, cidr, state, deleted, host)


def _node_status(name: str, top: Fields) -> r.CalicoNodeStatus:
    spec = top.mapping("spec")
    classes: set[r.StatusClass] = set()
    for path, item in spec.items("classes"):
        found = next((member for member in r.StatusClass if member.value == item), None)
        if found is None:
            allowed = ", ".join(member.value for member in r.StatusClass)
            spec.sink.note(path, "is none of the known values", value=item, allowed=allowed)
        else:
            classes.add(found)
    node = spec.text("node")
    if not node and not spec.has("node"):
        spec.wrong("node", "is missing", "a node's name")
    return r.CalicoNodeStatus(name, node, frozenset(classes), spec.integer("updatePeriodSeconds", 0, 86400) or 0)


_PARSERS: Mapping[str, Callable[[str, Fields], Resource | None]] = {
    "Node": _node,
    "BGPConfiguration": bgp_configuration,
    "BGPPeer": bgp_peer,
    "BGPFilter": bgp_filter,
    "IPPool": _ip_pool,
    "BlockAffinity": _block_affinity,
    "Secret": secret,
    "Service": service,
    "EndpointSlice": endpoint_slice,
    "CalicoNodeStatus": _node_status,
}
