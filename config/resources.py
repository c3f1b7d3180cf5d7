"""Calico's resources as far as BGP reads them: frozen, validated, compared by value.

`config.parse` and its sisters make them. Field names are the API's in snake case; what the API leaves unset is None, an
empty tuple or the API's default. Fields that BGP ignores (natOutgoing, allowedUses, ...) are not kept.
"""

from __future__ import annotations

from collections.abc import Mapping

from attrs import field, frozen

from bgpd.family import Family
from config.choices import (
    AffinityState,
    BindMode,
    Encapsulation,
    FilterAction,
    LogSeverity,
    MatchOperator,
    NextHop,
    PeerType,
    ProgramClusterRoutes,
    ReversePeering,
    RuleSource,
    ServiceType,
    SourceAddress,
    StatusClass,
    Switch,
    TrafficPolicy,
)
from config.selector import Selector
from config.values import Community, PeerAddress, Prefix

__all__ = [
    "KINDS",
    "AffinityState",
    "BGPConfiguration",
    "BGPFilter",
    "BGPPeer",
    "BindMode",
    "BlockAffinity",
    "CalicoNodeStatus",
    "Encapsulation",
    "EndpointSlice",
    "FilterAction",
    "FilterRule",
    "IPPool",
    "LogSeverity",
    "MatchOperator",
    "NextHop",
    "Node",
    "Operation",
    "PeerType",
    "PrefixAdvertisement",
    "ProgramClusterRoutes",
    "Resource",
    "ReversePeering",
    "RuleSource",
    "Secret",
    "SecretRef",
    "Service",
    "ServiceType",
    "SourceAddress",
    "StatusClass",
    "Switch",
    "TrafficPolicy",
    "Workload",
]


@frozen
class SecretRef:
    """A key of a Secret in the speaker's namespace."""

    name: str
    key: str


@frozen
class Node:
    """A node. Addresses are canonical text without prefix length, "" = none; the networks keep the length."""

    name: str
    labels: Mapping[str, str] = field(factory=dict)
    asn: int | None = None
    ipv4_address: str = ""
    ipv6_address: str = ""
    ipv4_network: Prefix | None = None
    cluster_id: str = ""
    """routeReflectorClusterID, a dotted quad."""
    ipv4_wireguard: str = ""
    ipv6_wireguard: str = ""
    pod_cidrs: tuple[Prefix, ...] = ()
    """status.podCIDRs: with USE_POD_CIDR they are the node's blocks."""

    def address(self, family: Family) -> str:
        """The BGP address of a family, or ""."""
        return self.ipv4_address if family.afi == 1 else self.ipv6_address

    def wireguard(self, family: Family) -> str:
        """The WireGuard interface's address of a family, or ""."""
        return self.ipv4_wireguard if family.afi == 1 else self.ipv6_wireguard


@frozen
class PrefixAdvertisement:
    """Communities for routes inside a prefix; names are resolved."""

    prefix: Prefix
    communities: tuple[Community, ...]


@frozen
class BGPConfiguration:
    """The object `default`, or `node.<name>`, of which only three fields count."""

    name: str
    log_severity: LogSeverity | None = None
    mesh: bool = True
    asn: int | None = None
    listen_port: int | None = None
    bind_mode: BindMode = BindMode.NONE
    service_cluster_ips: tuple[Prefix, ...] = ()
    service_external_ips: tuple[Prefix, ...] = ()
    service_load_balancer_ips: tuple[Prefix, ...] = ()
    aggregate_load_balancer: bool = True
    prefix_advertisements: tuple[PrefixAdvertisement, ...] | None = None
    """None: the field is absent (on `node.*`: the default object's list counts)."""
    mesh_password: SecretRef | None = None
    mesh_restart_time: int | None = None
    ignored_interfaces: tuple[str, ...] = ()
    local_workload_ipv4: str = ""
    """localWorkloadPeeringIPV4: the address that local pods dial; Felix sets it up, BGP does nothing with it."""
    local_workload_ipv6: str = ""
    program_cluster_routes: ProgramClusterRoutes = ProgramClusterRoutes.NO_ENCAP_ONLY
    ipv4_priority: int = 1024
    ipv6_priority: int = 1024

    def priority(self, family: Family) -> int:
        """The normal route priority of a family."""
        return self.ipv4_priority if family.afi == 1 else self.ipv6_priority


@frozen
class BGPPeer:
    """A peering: our side is `node`, `node_selector` or every node; theirs `peer_ip`, `peer_selector` or pods."""

    name: str
    node: str = ""
    node_selector: Selector | None = None
    peer_ip: PeerAddress | None = None
    peer_selector: Selector | None = None
    local_workload_selector: Selector | None = None
    asn: int | None = None
    local_asn: int | None = None
    keep_original_next_hop: bool = False
    next_hop_mode: NextHop | None = None
    password: SecretRef | None = None
    source_address: SourceAddress = SourceAddress.USE_NODE_IP
    restart_time: int | None = None
    keepalive_time: int | None = None
    allowed_local_asns: int = 0
    ttl_security: int = 0
    reachable_by: str = ""
    filters: tuple[str, ...] = ()
    reverse_peering: ReversePeering = ReversePeering.AUTO

    @property
    def is_global(self) -> bool:
        """Whether every node has this peering."""
        return not self.node and self.node_selector is None


@frozen
class Operation:
    """One change that an accepting BGPFilter rule makes; exactly one field is set."""

    add_community: Community | None = None
    prepend_as_path: tuple[int, ...] = ()
    set_priority: int | None = None


@frozen
class FilterRule:
    """One rule of a BGPFilter; all conditions that are set must hold."""

    action: FilterAction
    cidr: Prefix | None = None
    operator: MatchOperator | None = None
    length: tuple[int, int] | None = None
    """prefixLength as (minimum, maximum)."""
    source: RuleSource | None = None
    interface: str = ""
    peer_type: PeerType | None = None
    community: Community | None = None
    as_path_prefix: tuple[int, ...] = ()
    priority: int | None = None
    operations: tuple[Operation, ...] = ()


@frozen
class BGPFilter:
    """Four ordered lists of rules."""

    name: str
    export_v4: tuple[FilterRule, ...] = ()
    import_v4: tuple[FilterRule, ...] = ()
    export_v6: tuple[FilterRule, ...] = ()
    import_v6: tuple[FilterRule, ...] = ()

    def rules(self, family: Family, *, export: bool) -> tuple[FilterRule, ...]:
        """The list for a direction and family."""
        if family.afi == 1:
            return self.export_v4 if export else self.import_v4
        return self.export_v6 if export else self.import_v6


@frozen
class IPPool:
    """A pool of pod addresses."""

    name: str
    cidr: Prefix
    ipip: Encapsulation = Encapsulation.NEVER
    vxlan: Encapsulation = Encapsulation.NEVER
    export: bool = True
    """False: disableBGPExport."""


@frozen
class BlockAffinity:
    """A block of addresses that belongs to a host."""

    name: str
    node: str
    cidr: Prefix
    state: AffinityState = AffinityState.CONFIRMED
    deleted: bool = False
    host: bool = True
    """False: the owner is virtual (a load balancer controller), no node."""


@frozen
class Secret:
    """A Kubernetes Secret. `name` is "namespace/name", with an empty namespace where the object gives none."""

    name: str
    data: Mapping[str, bytes] = field(factory=dict, repr=False)


@frozen
class Service:
    """A Kubernetes Service that can have addresses to announce. `name` is "namespace/name"."""

    name: str
    type: ServiceType = ServiceType.CLUSTER_IP
    cluster_ips: tuple[Prefix, ...] = ()
    """spec.clusterIPs (or clusterIP) as host prefixes; empty for headless Services."""
    external_ips: tuple[Prefix, ...] = ()
    load_balancer_ip: Prefix | None = None
    """spec.loadBalancerIP: what was asked for."""
    ingress_ips: tuple[Prefix, ...] = ()
    """status.loadBalancer.ingress[].ip: what was given."""
    policy: TrafficPolicy | None = None
    """externalTrafficPolicy."""
    families: frozenset[Family] = frozenset()
    """ipFamilies, else those of the cluster IPs."""


@frozen
class EndpointSlice:
    """Where the ready endpoints of a Service are; nothing else of a slice is kept. `name` is "namespace/name"."""

    name: str
    service: str
    """"namespace/name" of the Service."""
    family: Family | None
    """None: host names, which give no addresses."""
    nodes: frozenset[str] = frozenset()
    """Nodes with a ready endpoint; "" stands for endpoints without a node."""


@frozen
class CalicoNodeStatus:
    """A wish for status reports about a node."""

    name: str
    node: str
    classes: frozenset[StatusClass] = frozenset()
    period: int = 0
    """Seconds between updates; 0 = none."""


@frozen
class Workload:
    """A pod on this node, as Felix reports it in a file of its endpoint-status folder; in no datastore."""

    name: str
    """The file's name."""
    peer: str = ""
    """bgpPeerName: the BGPPeer whose localWorkloadSelector it matches; "" = none."""
    addresses: tuple[str, ...] = ()
    """At most one a family: the first of ipv4Nets and of ipv6Nets."""
    interface: str = ""


Resource = (
    Node
    | BGPConfiguration
    | BGPPeer
    | BGPFilter
    | IPPool
    | BlockAffinity
    | Secret
    | Service
    | EndpointSlice
    | CalicoNodeStatus
)

KINDS: tuple[str, ...] = (
    *("Node", "BGPConfiguration", "BGPPeer", "BGPFilter", "IPPool", "BlockAffinity", "Secret"),
    *("Service", "EndpointSlice", "CalicoNodeStatus"),
)
"""Kinds that are read; each is the name of its class."""
