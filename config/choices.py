"""The words that fields of Calico's resources may have."""

from __future__ import annotations

from enum import Enum


class BindMode(Enum):
    """BGPConfiguration.bindMode."""

    NONE = "None"
    NODE_IP = "NodeIP"


class LogSeverity(Enum):
    """BGPConfiguration.logSeverityScreen."""

    TRACE = "Trace"
    DEBUG = "Debug"
    INFO = "Info"
    WARNING = "Warning"
    ERROR = "Error"
    FATAL = "Fatal"


class ProgramClusterRoutes(Enum):
    """BGPConfiguration.programClusterRoutes: the pools whose routes the BGP side writes to the kernel."""

    ENABLED = "Enabled"
    DISABLED = "Disabled"
    IPIP_ONLY = "EnabledIPIPOnly"
    NO_ENCAP_ONLY = "EnabledNoEncapOnly"


class Switch(Enum):
    """Enabled or Disabled."""

    ENABLED = "Enabled"
    DISABLED = "Disabled"


class NextHop(Enum):
    """BGPPeer.nextHopMode."""

    AUTO = "Auto"
    SELF = "Self"
    KEEP = "Keep"


class SourceAddress(Enum):
    """BGPPeer.sourceAddress."""

    USE_NODE_IP = "UseNodeIP"
    NONE = "None"


class ReversePeering(Enum):
    """BGPPeer.reversePeering."""

    AUTO = "Auto"
    MANUAL = "Manual"


class Encapsulation(Enum):
    """IPPool.ipipMode and vxlanMode."""

    NEVER = "Never"
    ALWAYS = "Always"
    CROSS_SUBNET = "CrossSubnet"


class AffinityState(Enum):
    """BlockAffinity.state; a missing one means confirmed."""

    PENDING = "pending"
    CONFIRMED = "confirmed"
    PENDING_DELETION = "pendingDeletion"


class FilterAction(Enum):
    """What a BGPFilter rule decides."""

    ACCEPT = "Accept"
    REJECT = "Reject"


class MatchOperator(Enum):
    """How a BGPFilter rule compares the route with its CIDR."""

    EQUAL = "Equal"
    NOT_EQUAL = "NotEqual"
    IN = "In"
    NOT_IN = "NotIn"


class PeerType(Enum):
    """The kind of session that a BGPFilter rule is for."""

    EBGP = "eBGP"
    IBGP = "iBGP"


class RuleSource(Enum):
    """The source that a BGPFilter rule asks for."""

    REMOTE_PEERS = "RemotePeers"


class ServiceType(Enum):
    """Service.spec.type; the first three can be announced."""

    CLUSTER_IP = "ClusterIP"
    NODE_PORT = "NodePort"
    LOAD_BALANCER = "LoadBalancer"
    EXTERNAL_NAME = "ExternalName"


class TrafficPolicy(Enum):
    """Service.spec.externalTrafficPolicy; a missing one is neither (calico-bgp.md 7.6)."""

    CLUSTER = "Cluster"
    LOCAL = "Local"


class StatusClass(Enum):
    """What a CalicoNodeStatus asks the node to report."""

    AGENT = "Agent"
    BGP = "BGP"
    ROUTES = "Routes"
