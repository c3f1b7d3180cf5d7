"""Calico's environment variables (calico-bgp.md 11.1), one row a variable: what becomes of it here. Pure.

`docs/calico-node.md` shows this table, and a test holds the two together.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum

from attrs import frozen

from config.resources import LogSeverity

__all__ = ["NODENAME_FILE", "TABLE", "Fate", "Variable", "ignored", "log_severity", "node_name", "nodename_file"]

NODENAME_FILE = "/var/lib/calico/nodename"


class Fate(Enum):
    """What becomes of a variable."""

    READ = "read"
    ACCEPTED = "accepted"
    """Means something for confd or BIRD that has no counterpart here; said once in the log."""
    ELSEWHERE = "elsewhere"
    """Another part of calico-node reads it."""


@frozen
class Variable:
    """One row. A name may end in `*`."""

    name: str
    fate: Fate
    text: str


def _typha(suffix: str, text: str = "") -> list[Variable]:
    said = text or "Typha is not spoken: the datastore is watched directly"
    return [Variable(f"{prefix}TYPHA{suffix}", Fate.ACCEPTED, said) for prefix in ("CONFD_", "FELIX_", "CALICO_")]


def _both(name: str, text: str) -> list[Variable]:
    """etcd's, also with Calico's prefix."""
    return [Variable(name, Fate.READ, text), Variable(f"CALICO_{name}", Fate.READ, text)]


def _elsewhere(names: str, text: str) -> list[Variable]:
    return [Variable(name, Fate.ELSEWHERE, text) for name in names.split()]


_POOL = "the default IP pools, made by `calico component node startup`"
_START = "`calico component node startup`, which writes the Node; its change is followed through the datastore"

TABLE: tuple[Variable, ...] = (
    Variable("NODENAME", Fate.READ, "name of the Node resource; `--node` stands above it"),
    Variable("CALICO_NODENAME_FILE", Fate.READ, f"the file with the node's name, instead of {NODENAME_FILE}"),
    Variable("HOSTNAME", Fate.READ, "the node's name where neither NODENAME nor the file gives one"),
    Variable("CALICO_ROUTER_ID", Fate.READ, "BGP identifier: a dotted quad, or `hash`"),
    Variable("CALICO_ADVERTISE_CLUSTER_IPS", Fate.READ, "one cluster-IP range, instead of serviceClusterIPs"),
    Variable("CALICO_K8S_NODE_REF", Fate.READ, "the node's name in Kubernetes, for the place of endpoints"),
    Variable("NAMESPACE", Fate.READ, "namespace of password Secrets, default kube-system"),
    Variable("BGP_LOGSEVERITYSCREEN", Fate.READ, "log level, above logSeverityScreen; `--log-level` stands above it"),
    Variable("CALICO_ENDPOINT_STATUS_PATH_PREFIX", Fate.READ, "where Felix's folder endpoint-status is"),
    *_both("DATASTORE_TYPE", "`etcdv3` or `kubernetes`; `--datastore` stands above it"),
    *_both("ETCD_ENDPOINTS", "etcd's addresses"),
    Variable("ETCD_DISCOVERY_SRV", Fate.ACCEPTED, "SRV records are not looked up: set ETCD_ENDPOINTS"),
    Variable("CALICO_ETCD_DISCOVERY_SRV", Fate.ACCEPTED, "SRV records are not looked up: set ETCD_ENDPOINTS"),
    *_both("ETCD_USERNAME", "user"),
    *_both("ETCD_PASSWORD", "password"),
    *_both("ETCD_KEY_FILE", "key of the client certificate"),
    *_both("ETCD_CERT_FILE", "client certificate"),
    *_both("ETCD_CA_CERT_FILE", "etcd's authority"),
    Variable("KUBECONFIG", Fate.READ, "Kubernetes: a kubeconfig file"),
    Variable("K8S_API_ENDPOINT", Fate.READ, "Kubernetes: address of the API"),
    Variable("KUBERNETES_SERVICE_HOST", Fate.READ, "Kubernetes: the API inside a cluster"),
    Variable("K8S_KEY_FILE", Fate.READ, "Kubernetes: key of the client certificate"),
    Variable("K8S_CERT_FILE", Fate.READ, "Kubernetes: client certificate"),
    Variable("K8S_CA_FILE", Fate.READ, "Kubernetes: the API's authority"),
    Variable("K8S_INSECURE_SKIP_TLS_VERIFY", Fate.READ, "Kubernetes: believe any certificate"),
    Variable("K8S_CURRENT_CONTEXT", Fate.READ, "Kubernetes: context of the kubeconfig"),
    Variable("KUBERNETES_SERVICE_PORT", Fate.READ, "Kubernetes: the API inside a cluster"),
    Variable("K8S_API_TOKEN", Fate.READ, "Kubernetes: a token"),
    Variable("USE_POD_CIDR", Fate.READ, "Kubernetes: a node's podCIDRs are its blocks"),
    Variable("CALICO_API_GROUP", Fate.READ, "Kubernetes: API group of Calico's resources"),
    *_typha("ADDR"),
    *_typha("K8SSERVICENAME"),
    *_typha("K8SNAMESPACE"),
    *_typha("CAFILE"),
    *_typha("CERTFILE"),
    *_typha("KEYFILE"),
    *_typha("CN"),
    *_typha("URISAN"),
    Variable("FELIX_HEALTHHOST", Fate.READ, "`bgpctl health --felix-*`: where Felix answers, default localhost"),
    Variable("FELIX_HEALTHPORT", Fate.READ, "`bgpctl health --felix-*`: its port, default 9099"),
    *_elsewhere("FELIX_HEALTHENABLED FELIX_IPV6SUPPORT", "Felix"),
    *_elsewhere("IP IP6 IP_AUTODETECTION_METHOD IP6_AUTODETECTION_METHOD DISABLE_NODE_IP_CHECK AS", _START),
    *_elsewhere("AUTODETECT_POLL_INTERVAL", "`calico component node monitor-addresses`; an address change is followed"),
    *_elsewhere("WAIT_FOR_DATASTORE NO_DEFAULT_POOLS CLUSTER_TYPE CALICO_STARTUP_LOGLEVEL", _START),
    *_elsewhere("CALICO_IPV4POOL_* CALICO_IPV6POOL_*", _POOL),
    *_elsewhere("CALICO_NETWORKING_BACKEND CALICO_NETWORKING", "calico-node's start: which services run"),
    *_elsewhere("CALICO_DISABLE_FELIX CALICO_MANAGE_CNI", "calico-node's start: which services run"),
    *_elsewhere("CALICO_DISABLE_FILE_LOGGING", "the log services below containers/runit"),
    *_elsewhere("CALICO_SHUTDOWN_TIMESTAMP_FILE", "`calico component node shutdown`"),
)


def ignored(env: Mapping[str, str]) -> dict[str, list[str]]:
    """The variables that are set and have no effect here, by the reason, for a line of the log each."""
    found: dict[str, list[str]] = {}
    for row in TABLE:
        if row.fate is Fate.ACCEPTED and env.get(row.name):
            found.setdefault(row.text, []).append(row.name)
    return found


def nodename_file(env: Mapping[str, str]) -> str:
    """Where calico-node keeps the node's name."""
    return env.get("CALICO_NODENAME_FILE") or NODENAME_FILE


def node_name(env: Mapping[str, str], recorded: str, host: str) -> str:
    """NODENAME, else what the nodename file says, else HOSTNAME, else the host's name in lower case."""
    return (
        env.get("NODENAME", "").strip()
        or recorded.strip()
        or env.get("HOSTNAME", "").strip().lower()
        or host.strip().lower()
    )


def log_severity(env: Mapping[str, str]) -> LogSeverity | None:
    """BGP_LOGSEVERITYSCREEN; None where it is not set or no level."""
    wanted = env.get("BGP_LOGSEVERITYSCREEN", "").strip().lower()
    return next((severity for severity in LogSeverity if severity.value.lower() == wanted), None)
