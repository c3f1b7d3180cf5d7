"""Plain values -> resources, validated by Calico's rules.

`parse_resource` raises `ResourceError` and nothing else, whatever it is given. Unknown fields are tolerated: the API
has many that BGP does not read, and grows. `identify` tells unknown kinds, for the caller to pass over with a notice.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from ipaddress import IPv4Address, IPv6Address, ip_interface
from sys import intern

from attrs import frozen

from config import resources as r
from config import values
from config.fields import Fields, Sink
from config.parse_filter import INTERFACE, INTERFACE_FORM, bgp_filter
from config.parse_kubernetes import endpoint_slice, secret, service
from config.problems import Problem, ResourceError, show
from config.resources import Resource
from config.values import Community, Prefix

__all__ = ["Identity", "Parsed", "identify", "parse_resource", "unfold"]

GROUPS = ("projectcalico.org/v3", "crd.projectcalico.org/v1")
NAMESPACED = {"Secret": "v1", "Service": "v1", "EndpointSlice": "discovery.k8s.io/v1"}
"""Kubernetes' own kinds and their apiVersion; their objects are named "namespace/name" here."""
_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,251}[A-Za-z0-9])?")
_NAME_FORM = "letters, digits, '.', '-', '_', at most 253 characters, a letter or digit at both ends"
MAX_RESTART_TIME = 4095
"""The Graceful Restart capability has 12 bits for it (RFC 4724 §3)."""
_PRIORITIES = (1, 2147483646)


@frozen
class Identity:
    """What an object says it is. `known`: BGP reads the kind."""

    kind: str
    name: str
    group: str
    known: bool

    def __str__(self) -> str:
        return f"{self.kind}/{self.name}"


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
        return Identity(kind, "", group, known=False)
    name = metadata.get("name") if isinstance(metadata, Mapping) else None
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        problem = Problem(object=kind, field="metadata.name", text="is no name", value=show(name), allowed=_NAME_FORM)
        raise ResourceError([problem])
    if kind in NAMESPACED and isinstance(metadata, Mapping):
        space = metadata.get("namespace", "")
        name = f"{space if isinstance(space, str) and _NAME.fullmatch(space) else ''}/{name}"
    return Identity(kind, name, group, known=True)


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


def parse_resource(document: object) -> Parsed:
    """Validate one object of a known kind. Raises ResourceError with every fault found."""
    identity = identify(document)
    if not identity.known:
        text = f"the kind {identity.kind} of {identity.group} is not read by BGP"
        raise ResourceError([Problem(object=identity.kind, text=text, allowed=", ".join(r.KINDS))])
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
            labels[intern(key)] = intern(str(value).lower() if isinstance(value, bool) else str(value))
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
        ipv4_wireguard=_address(wireguard, "interfaceIPv4Address"),
        ipv6_wireguard=_address(wireguard, "interfaceIPv6Address"),
        pod_cidrs=top.mapping("status").parsed_list("podCIDRs", values.prefix, values.PREFIX_FORM),
    )


def _address(fields: Fields, field: str) -> str:
    found = fields.parsed(field, values.host_address, values.ADDRESS_FORM, 64)
    return "" if found is None else str(found)


def _address_of(fields: Fields, field: str, version: int) -> str:
    found = _address(fields, field)
    if found and (":" in found) != (version == 6):
        fields.wrong(field, f"is no IPv{version} address", f"an IPv{version} address")
    return found


def _severity(spec: Fields) -> r.LogSeverity | None:
    value = spec.value.get("logSeverityScreen")
    if isinstance(value, str):
        for member in r.LogSeverity:
            if member.value.lower() == value.lower():
                return member
    return spec.choice("logSeverityScreen", r.LogSeverity)


def _community_names(spec: Fields) -> dict[str, Community]:
    names: dict[str, Community] = {}
    for entry in spec.mappings("communities", 500):
        name = entry.text("name")
        value = entry.parsed("value", values.community, values.COMMUNITY_FORM, 40)
        if not name or value is None:
            if not entry.sink.refused:
                entry.sink.note(entry.path, "needs a name and a value", allowed=values.COMMUNITY_FORM)
        elif name in names:
            entry.wrong("name", "is there twice", "each name once")
        else:
            names[name] = value
    return names


def _advertisements(spec: Fields) -> tuple[r.PrefixAdvertisement, ...] | None:
    names = _community_names(spec)
    if spec.value.get("prefixAdvertisements") is None:
        if names:
            spec.wrong("communities", "is without effect, as there are no prefixAdvertisements", refused=False)
        return None

    def community(text: str) -> Community:
        if text in names:
            return names[text]
        try:
            return values.community(text)
        except ValueError as error:
            raise ValueError(f"neither a name in spec.communities nor a community ({error})") from None

    found: list[r.PrefixAdvertisement] = []
    for entry in spec.mappings("prefixAdvertisements", 500):
        cidr = entry.parsed("cidr", values.prefix, values.PREFIX_FORM, 64)
        allowed = f"a name in spec.communities, or {values.COMMUNITY_FORM}"
        communities = entry.parsed_list("communities", community, allowed, 50)
        if cidr is None:
            entry.sink.note(entry.name("cidr"), "is missing or wrong", allowed=values.PREFIX_FORM)
        else:
            found.append(r.PrefixAdvertisement(cidr, communities))
    return tuple(found)


def _prefixes(spec: Fields, field: str) -> tuple[Prefix, ...]:
    found = (entry.parsed("cidr", values.prefix, values.PREFIX_FORM, 64) for entry in spec.mappings(field))
    return tuple(prefix for prefix in found if prefix is not None)


def _secret_ref(spec: Fields, field: str) -> r.SecretRef | None:
    ref = spec.mapping(field).mapping("secretKeyRef")
    if not spec.has(field):
        return None
    name, key = ref.text("name"), ref.text("key")
    if not name or not key:
        spec.wrong(field, "names no secret", "secretKeyRef with name and key")
        return None
    return r.SecretRef(name, key)


def _restart_time(spec: Fields, field: str) -> int | None:
    value = spec.duration(field)
    if value is None:
        return None
    if values.seconds(value) > MAX_RESTART_TIME:
        spec.wrong(field, "is longer than the capability can say", f"0s-{MAX_RESTART_TIME}s (RFC 4724 §3)")
    return values.seconds(value)


def _pattern(text: str) -> str:
    if not INTERFACE.fullmatch(text) or text == "*":
        raise ValueError("no interface name or pattern")
    return text


_NODE_FIELDS = {"listenPort", "logSeverityScreen", "prefixAdvertisements", "communities"}


def _bgp_configuration(name: str, top: Fields) -> r.BGPConfiguration:
    spec = top.mapping("spec")
    if name.startswith("node."):
        for field in sorted(str(key) for key in spec.value if key not in _NODE_FIELDS and spec.has(str(key))):
            # CRD defaults put these two on every object.
            if field not in ("serviceLoadBalancerAggregation", "bindMode"):
                spec.wrong(field, "is without effect on a node's object; set it on `default`", refused=False)
    elif name != "default":
        top.sink.note(
            "metadata.name", "only these names mean anything", value=name, allowed="default, node.<name>", refused=False
        )
    mesh = spec.boolean("nodeToNodeMeshEnabled")
    for field in ("nodeMeshPassword", "nodeMeshMaxRestartTime"):
        if mesh is False and spec.has(field):
            spec.wrong(field, "is without effect while nodeToNodeMeshEnabled is false", refused=False)
    return r.BGPConfiguration(
        name,
        log_severity=_severity(spec),
        mesh=mesh is not False,
        asn=spec.asn("asNumber"),
        # 0 is how Go writes an unset port.
        listen_port=spec.integer("listenPort", 0, 65535) or None,
        bind_mode=spec.choice("bindMode", r.BindMode) or r.BindMode.NONE,
        service_cluster_ips=_prefixes(spec, "serviceClusterIPs"),
        service_external_ips=_prefixes(spec, "serviceExternalIPs"),
        service_load_balancer_ips=_prefixes(spec, "serviceLoadBalancerIPs"),
        aggregate_load_balancer=spec.choice("serviceLoadBalancerAggregation", r.Switch) is not r.Switch.DISABLED,
        prefix_advertisements=_advertisements(spec),
        mesh_password=_secret_ref(spec, "nodeMeshPassword"),
        mesh_restart_time=_restart_time(spec, "nodeMeshMaxRestartTime"),
        ignored_interfaces=spec.parsed_list("ignoredInterfaces", _pattern, f"{INTERFACE_FORM}, not a bare *"),
        local_workload_ipv4=_address_of(spec, "localWorkloadPeeringIPV4", 4),
        local_workload_ipv6=_address_of(spec, "localWorkloadPeeringIPV6", 6),
        program_cluster_routes=spec.choice("programClusterRoutes", r.ProgramClusterRoutes)
        or r.ProgramClusterRoutes.NO_ENCAP_ONLY,
        ipv4_priority=spec.integer("ipv4NormalRoutePriority", *_PRIORITIES) or 1024,
        ipv6_priority=spec.integer("ipv6NormalRoutePriority", *_PRIORITIES) or 1024,
    )


def _peer_ip(text: str) -> values.PeerAddress:
    peer = values.peer_address(text)
    address = values.host_address(peer.address)
    if address.is_unspecified:
        raise ValueError("not an address that a peer can have")
    if isinstance(address, IPv6Address) and address.is_link_local:
        raise ValueError("a link-local address says nothing without an interface; use the peer's global address")
    return peer


def _bgp_peer(name: str, top: Fields) -> r.BGPPeer:
    spec = top.mapping("spec")
    keepalive = spec.duration("keepaliveTime")
    if keepalive is not None and keepalive > 65535:
        spec.wrong("keepaliveTime", "is too long", "0s-65535s")
        keepalive = None
    peer = r.BGPPeer(
        name,
        node=spec.text("node"),
        node_selector=spec.selector("nodeSelector"),
        peer_ip=spec.parsed("peerIP", _peer_ip, values.PEER_FORM, 64),
        peer_selector=spec.selector("peerSelector"),
        local_workload_selector=spec.selector("localWorkloadSelector"),
        asn=spec.asn("asNumber", zero_is_unset=True),
        local_asn=spec.asn("localASNumber"),
        keep_original_next_hop=spec.boolean("keepOriginalNextHop") is True,
        next_hop_mode=spec.choice("nextHopMode", r.NextHop),
        password=_secret_ref(spec, "password"),
        source_address=spec.choice("sourceAddress", r.SourceAddress) or r.SourceAddress.USE_NODE_IP,
        restart_time=_restart_time(spec, "maxRestartTime"),
        keepalive_time=None if keepalive is None else values.seconds(keepalive) or None,
        allowed_local_asns=spec.integer("numAllowedLocalASNumbers", 0, 2**31 - 1) or 0,
        ttl_security=spec.integer("ttlSecurity", 0, 255) or 0,
        reachable_by=_address(spec, "reachableBy"),
        filters=spec.parsed_list("filters", str, "names of BGPFilters"),
        reverse_peering=spec.choice("reversePeering", r.ReversePeering) or r.ReversePeering.AUTO,
    )
    _check_peer(peer, spec)
    return peer


def _check_peer(peer: r.BGPPeer, spec: Fields) -> None:
    """The rules between fields (API validation of BGPPeer)."""
    has = spec.has
    if has("node") and has("nodeSelector"):
        spec.wrong("node", "cannot stand beside nodeSelector", "one of the two")
    if has("peerIP") and has("peerSelector"):
        spec.wrong("peerIP", "cannot stand beside peerSelector", "one of the two")
    if has("localWorkloadSelector") and (has("peerIP") or has("peerSelector")):
        spec.wrong("localWorkloadSelector", "cannot stand beside peerIP or peerSelector", "one of the three")
    if not (has("peerIP") or has("peerSelector") or has("localWorkloadSelector")):
        spec.sink.note("spec", "names no peer", allowed="peerIP, peerSelector or localWorkloadSelector")
    if has("peerSelector") and peer.asn is not None:
        spec.wrong("asNumber", "cannot stand beside peerSelector: the peers' own numbers count", "leave it out")
    # A peerIP without a number may still mean a Calico node: the cluster decides (calico-bgp.md 6.3).
    zero = spec.value.get("asNumber") is not None and peer.asn is None
    if not spec.sink.refused and ((has("peerIP") and zero) or (has("localWorkloadSelector") and peer.asn is None)):
        allowed = f"{values.ASN_FORM}; it is required with localWorkloadSelector and with routers outside the cluster"
        spec.wrong("asNumber", "is missing or AS 0", allowed)
    if has("reachableBy") and not has("peerIP"):
        spec.wrong("reachableBy", "needs peerIP", "leave it out, or set peerIP")
    elif peer.reachable_by and peer.peer_ip and (":" in peer.reachable_by) != (":" in peer.peer_ip.address):
        spec.wrong("reachableBy", "is of another family than peerIP", "an address of peerIP's family")
    if peer.keep_original_next_hop and has("nextHopMode"):
        spec.wrong("keepOriginalNextHop", "cannot stand beside nextHopMode", "nextHopMode alone")


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
    if "LoadBalancer" in uses and (ipip is not never or vxlan is not never or disabled):
        spec.wrong("allowedUses", "a LoadBalancer pool has neither encapsulation nor disableBGPExport", "Never, false")
    return r.IPPool(name, cidr, ipip, vxlan, export=not disabled)


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
    "BGPConfiguration": _bgp_configuration,
    "BGPPeer": _bgp_peer,
    "BGPFilter": bgp_filter,
    "IPPool": _ip_pool,
    "BlockAffinity": _block_affinity,
    "Secret": secret,
    "Service": service,
    "EndpointSlice": endpoint_slice,
    "CalicoNodeStatus": _node_status,
}
