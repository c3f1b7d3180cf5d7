"""BGPConfiguration and BGPPeer, validated."""

from __future__ import annotations

from ipaddress import IPv6Address

from config import resources as r
from config import values
from config.fields import Fields
from config.parse_filter import INTERFACE, INTERFACE_FORM
from config.values import Community, Prefix

__all__ = ["address_in", "bgp_configuration", "bgp_peer"]

MAX_RESTART_TIME = 4095
"""The Graceful Restart capability has 12 bits for it (RFC 4724 §3)."""
_PRIORITIES = (1, 2147483646)


def address_in(fields: Fields, field: str) -> str:
    """An address in its usual form; "" where there is none, or a wrong one."""
    found = fields.parsed(field, values.host_address, values.ADDRESS_FORM, 64)
    return "" if found is None else str(found)


def _address_of(fields: Fields, field: str, version: int) -> str:
    found = address_in(fields, field)
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


def bgp_configuration(name: str, top: Fields) -> r.BGPConfiguration:
    """The resource; faults go to the fields' sink."""
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


def bgp_peer(name: str, top: Fields) -> r.BGPPeer:
    """The resource; faults go to the fields' sink."""
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
        reachable_by=address_in(spec, "reachableBy"),
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
