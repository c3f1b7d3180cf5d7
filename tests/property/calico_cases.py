"""Random Calico clusters: few names and addresses, so that objects meet, and every field that BGP reads.

A table's row is a field, the chance that it is set, and its values. Nodes, configuration and pools are here, the
peerings in `calico_peerings`. What the API would refuse is not made, but for `spoilt`.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from random import Random
from types import MappingProxyType
from typing import Any

from tests.property.calico_cluster import NODE, Cluster, Spec
from tests.property.calico_peerings import FILTERS, SELECTORS, bgp_filter, bgp_peer, unset
from tests.property.calico_services import EXCLUDE

__all__ = ["cluster", "later", "probes", "spoilt"]

Table = Sequence[tuple[str, float, Sequence[Any]]]
NODES = (NODE, "b", "c.example", "node.d", "e-5")


def fields(r: Random, table: Table) -> dict[str, Any]:
    """A value for each row of the table that is taken."""
    return {name: r.choice(values) for name, chance, values in table if r.random() < chance}


def _cidrs(*cidrs: str) -> list[dict[str, str]]:
    return [{"cidr": cidr} for cidr in cidrs]


_CONFIGURATION: Table = (
    ("asNumber", 0.4, (64512, 64513, "64532", "1.10")),
    ("nodeToNodeMeshEnabled", 0.5, (True, False, False)),
    ("listenPort", 0.3, (0, 179, 1790, 150)),
    ("bindMode", 0.3, ("None", "NodeIP")),
    ("serviceClusterIPs", 0.5, (
        _cidrs("10.96.0.0/12"), _cidrs("10.96.0.0/12", "fd00:96::/112"), [{"cidr": "10.96.0.5/32"}, {}],
    )),
    ("serviceExternalIPs", 0.5, (
        _cidrs("203.0.113.0/24", "198.18.0.1/32", "fd00:f::9/128"), _cidrs("203.0.113.9/32"),
        _cidrs("fd00:e::/64", "fd00:f::9/128"),
    )),
    ("serviceLoadBalancerIPs", 0.5, (
        _cidrs("198.51.100.0/24", "198.18.0.2/32"), _cidrs("198.51.100.7/32", "fd00:b::7/128"), _cidrs("fd00:b::/64"),
    )),
    ("serviceLoadBalancerAggregation", 0.4, ("Enabled", "Disabled", "Disabled")),
    ("programClusterRoutes", 0.6, ("Enabled", "Disabled", "EnabledIPIPOnly", "EnabledNoEncapOnly")),
    ("ipv4NormalRoutePriority", 0.3, (512, 1, 2000)),
    ("ipv6NormalRoutePriority", 0.3, (512, 2147483646)),
    ("ignoredInterfaces", 0.3, (["eth1", "docker*"],)),
    ("logSeverityScreen", 0.4, ("Debug", "info", "Warning", "TRACE")),
    ("nodeMeshMaxRestartTime", 0.3, ("10s", "1m", "1500ms", "0s")),
    ("nodeMeshPassword", 0.3, ({"secretKeyRef": {"name": "sec", "key": "k"}},
                               {"secretKeyRef": {"name": "sec", "key": "gone"}})),
)  # fmt: skip
_OF_A_NODE: Table = (
    ("listenPort", 0.6, (177, 1790, 0)),
    ("logSeverityScreen", 0.4, ("Debug", "Error", "Info")),
    # Without effect on a node's object (2.3).
    ("bindMode", 0.2, ("NodeIP",)),
    ("serviceLoadBalancerAggregation", 0.2, ("Disabled",)),
    ("programClusterRoutes", 0.2, ("Disabled",)),
)
_ADVERTISED = (
    [{"cidr": "10.244.0.0/16", "communities": ["named", "64512:7:9"]}],
    [
        {"cidr": "10.244.1.0/24", "communities": ["1:2"]},
        {"cidr": "10.0.0.0/8", "communities": ["named", "1:2"]},
        {"cidr": "fd00::/16", "communities": ["1:2", "1:2:4294967295"]},
    ],
    [{"cidr": "fd00:10:244::/64", "communities": ["named"]}],
)
_NODE: Table = (
    ("asNumber", 0.3, (64513, "1.10", "64512", 65001)),
    ("routeReflectorClusterID", 0.35, ("244.0.0.1", "244.0.0.2")),
)
_POOL: Table = (
    ("cidr", 1, (
        "10.244.0.0/16", "10.244.1.0/24", "10.0.0.0/8", "10.245.0.0/16", "8.0.0.0/6", "2.0.0.0/8",
        "fd00:10:244::/64", "fd00:10::/32", "fd00:10:245::/64",
    )),
    ("disableBGPExport", 0.3, (True, False)),
    # BGP passes over these (1.3).
    ("disabled", 0.2, (True,)),
    ("nodeSelector", 0.2, ("rack == 'one'",)),
    ("natOutgoing", 0.2, (True,)),
)  # fmt: skip
_ENCAPSULATION = ("Always", "CrossSubnet", "Never")
_BLOCKS = (
    "10.244.1.0/26", "10.244.1.64/26", "10.244.2.0/26", "10.244.3.7/32", "10.245.0.0/24",
    "fd00:10:244::/122", "fd00:10:244::77/128", "fd00:10:245::/122",
)  # fmt: skip
_BLOCK: Table = (
    ("node", 1, (NODE, NODE, "b")),
    ("state", 0.9, ("confirmed", "pending", "", "pendingDeletion")),
    ("deleted", 0.1, ("true", "false", True)),
    ("type", 0.2, ("host", "virtual")),
)
_SERVICE: Table = (
    ("type", 1, ("ClusterIP", "NodePort", "LoadBalancer", "LoadBalancer", "ExternalName")),
    ("externalTrafficPolicy", 0.7, ("Local", "Cluster")),
    ("externalIPs", 0.6, (
        ["203.0.113.9", "192.0.2.99"], ["203.0.113.10", "fd00:e::9"], ["198.18.0.1"], ["fd00:f::9"], ["192.0.2.99"],
    )),
    ("loadBalancerIP", 0.5, ("198.18.0.2", "198.51.100.7")),
    ("ipFamilies", 0.3, (["IPv4"], ["IPv6"], ["IPv4", "IPv6"])),
)  # fmt: skip
_ENDPOINT: Table = (
    ("nodeName", 0.9, (NODE, "b", "host-a")),
    ("conditions", 0.4, ({"ready": False}, {"ready": True}, {})),
)
_ENVIRONMENT: Table = (
    ("CALICO_ROUTER_ID", 0.3, ("hash", "9.9.9.9", "", "nonsense")),
    ("CALICO_ADVERTISE_CLUSTER_IPS", 0.1, ("10.112.0.0/16", "fd00:97::/112")),
    ("CALICO_K8S_NODE_REF", 0.4, ("host-a",)),
    ("NAMESPACE", 0.2, ("calico-system",)),
    ("USE_POD_CIDR", 0.1, ("true",)),
)


_UNSET_NODE = {"asNumber": None, "ipv4Address": "", "ipv6Address": "", "routeReflectorClusterID": ""}
_UNSET_CONFIGURATION: Spec = {
    "asNumber": None, "nodeToNodeMeshEnabled": None, "listenPort": None, "bindMode": "", "serviceClusterIPs": None,
    "serviceExternalIPs": [], "serviceLoadBalancerIPs": None, "serviceLoadBalancerAggregation": "",
    "programClusterRoutes": "", "ipv4NormalRoutePriority": None, "ignoredInterfaces": [], "logSeverityScreen": "",
    "nodeMeshMaxRestartTime": None, "nodeMeshPassword": None, "prefixAdvertisements": None, "communities": None,
}  # fmt: skip


def _object(kind: str, name: str, spec: object, group: str = "projectcalico.org/v3", **metadata: object) -> Spec:
    return {"apiVersion": group, "kind": kind, "metadata": {"name": name, **metadata}, "spec": spec}


def cluster(r: Random) -> Cluster:
    """A cluster; node `a` is always there and has an address."""
    documents = [
        *_nodes(r), *_configurations(r), *_pools(r), *_blocks(r), *_secrets(r),
        *(document for number in range(r.randint(0, 4)) for document in _service(r, number)),
        *(_object("BGPFilter", name, bgp_filter(r)) for name in FILTERS if r.random() < 0.7),
        *(_object("BGPPeer", f"p{number}", bgp_peer(r)) for number in r.sample(range(8), r.randint(0, 6))),
    ]  # fmt: skip
    r.shuffle(documents)
    return Cluster(tuple(documents), _files(r, documents), fields(r, _ENVIRONMENT))


def _nodes(r: Random) -> Iterator[Spec]:
    for number, name in enumerate(NODES):
        if name != NODE and r.random() < 0.15:
            continue
        bgp = fields(r, _NODE)
        # Now and then two have one address.
        last = 9 + (number if r.random() < 0.85 else r.choice((0, 1, 2)))
        if r.random() < 0.85:
            bgp["ipv4Address"] = f"10.0.{r.choice((0, 0, 1))}.{last}{r.choice(('', '/24', '/16'))}"
        if r.random() < 0.7 or "ipv4Address" not in bgp:
            bgp["ipv6Address"] = r.choice(("fd00:1::{:x}/64", "FD00:0001:0::{:x}/64", "fd00:1::{:x}")).format(last)
        wireguard = {"interfaceIPv4Address": f"10.9.0.{number}", "interfaceIPv6Address": f"fd09::{number + 1}"}
        spec = {"bgp": unset(r, bgp, _UNSET_NODE)}
        if r.random() < 0.4:
            spec["wireguard"] = {field: text for field, text in wireguard.items() if r.random() < 0.7}
        if name != NODE and r.random() < 0.06:
            spec = {}
        labels = fields(r, (("rack", 0.8, ("one", "two")), ("rr", 0.3, ("true", "false")), (EXCLUDE, 0.1, ("true",))))
        status = {"podCIDRs": r.sample(_BLOCKS, r.randint(0, 2))}
        yield {**_object("Node", name, spec, labels=labels), "status": status}


def _configurations(r: Random) -> Iterator[Spec]:
    for name, chance, table in (("default", 0.85, _CONFIGURATION), *((f"node.{n}", 0.3, _OF_A_NODE) for n in NODES)):
        if r.random() < chance:
            spec = fields(r, table)
            if spec.get("nodeToNodeMeshEnabled") is False:
                spec.pop("nodeMeshPassword", None)
                spec.pop("nodeMeshMaxRestartTime", None)
            if r.random() < 0.4:
                spec["prefixAdvertisements"] = r.choice(_ADVERTISED)
                spec["communities"] = [{"name": "named", "value": r.choice(("64512:100", "65535:0", "7:7:7"))}]
            yield _object("BGPConfiguration", name, unset(r, spec, _UNSET_CONFIGURATION if name == "default" else {}))


def _pools(r: Random) -> Iterator[Spec]:
    for number in range(r.randint(0, 5)):
        spec = fields(r, _POOL)
        if ":" not in spec["cidr"] and r.random() < 0.5:
            spec["ipipMode"] = r.choice(_ENCAPSULATION)
        elif r.random() < 0.3:
            spec["vxlanMode"] = r.choice(_ENCAPSULATION)
        yield _object("IPPool", f"pool{number}", spec)


def _blocks(r: Random) -> Iterator[Spec]:
    for number, cidr in enumerate(_BLOCKS):
        if r.random() < 0.5:
            yield _object("BlockAffinity", f"block{number}", {"cidr": cidr, **fields(r, _BLOCK)})


def _secrets(r: Random) -> Iterator[Spec]:
    for space in ("kube-system", "calico-system"):
        if r.random() < 0.6:
            word = r.choice(("one", "two", "three"))
            data: dict[str, Any] = {"stringData": {"k": word, "empty": ""}}
            if r.random() < 0.5:
                data = {"data": {"k": b64encode(word.encode()).decode()}}
            meta = {"name": "sec", "namespace": space}
            yield {"apiVersion": "v1", "kind": "Secret", "metadata": meta, "spec": None, **data}


def _service(r: Random, number: int) -> Iterator[Spec]:
    """A Service, most with slices, some of them of the namesake in another namespace."""
    name, spec = f"s{number}", fields(r, _SERVICE)
    both = [f"10.96.0.{20 + number}", f"fd00:96::{20 + number:x}"]
    r.shuffle(both)
    spec["clusterIP"] = r.choice((both[0], both[0], both[0], "None", ""))
    if spec["clusterIP"] == both[0] and r.random() < 0.5:
        spec["clusterIPs"] = both[: r.randint(1, 2)]
    service = dict(_object("Service", name, spec, "v1", namespace="default"))
    if r.random() < 0.4:
        given = {"ip": r.choice(("198.51.100.7", "198.51.100.8", "198.18.0.2", "fd00:b::7"))}
        service["status"] = {"loadBalancer": {"ingress": [given, {"hostname": "x.example"}]}}
    yield service
    for place in range(r.randint(0, 2)):
        yield {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {
                "name": f"{name}-{place}",
                "namespace": r.choice(("default", "default", "default", "other")),
                "labels": {"kubernetes.io/service-name": name},
            },
            "addressType": r.choice(("IPv4", "IPv4", "IPv6", "IPv6", "FQDN")),
            "endpoints": [{"addresses": ["10.244.1.1"], **fields(r, _ENDPOINT)} for _ in range(r.randint(0, 2))],
        }


def _files(r: Random, documents: Sequence[Spec]) -> dict[str, Any]:
    """Felix's reports of pods (6.7), most for a BGPPeer that asks for pods."""
    found: dict[str, Any] = {}
    peers = [document for document in documents if document["kind"] == "BGPPeer"]
    asking = [peer["metadata"]["name"] for peer in peers if peer["spec"].get("localWorkloadSelector")]
    for number in range(r.randint(0, 3)):
        status: dict[str, Any] = {
            "ifaceName": f"cali{number}",
            "ipv4Nets": [f"10.244.1.{number + 70}/32", "10.244.1.99/32"] if r.random() < 0.8 else [],
            "ipv6Nets": [f"fd00:10:244::{number + 70:x}/128"] if r.random() < 0.6 else [],
        }
        if r.random() < 0.9:
            status["bgpPeerName"] = r.choice((*asking, *asking, f"p{r.randrange(8)}"))
        found[f"endpoint-status/pod{number}"] = status
    return found


# --- live steps


def _key(document: Spec) -> tuple[str, str, str]:
    meta = document["metadata"]
    return document["kind"], meta.get("namespace", ""), meta["name"]


def later(r: Random, before: Cluster) -> Cluster:
    """The cluster some changes later: objects have come, have changed, and are gone.

    Half of the time they are of one kind: what hangs on that kind alone must follow.
    """
    old = {_key(document): document for document in before.documents}
    new = {_key(document): document for document in cluster(r).documents}
    keys = sorted(old.keys() | new.keys())
    kind, share = (r.choice(keys)[0], 0.6) if r.random() < 0.5 else ("", 0.3)
    for key in keys:
        if kind not in ("", key[0]) or r.random() >= share or (key not in new and key == ("Node", "", NODE)):
            continue
        if key in new:
            old[key] = new[key]
        else:
            del old[key]
    files = before.files if r.random() < 0.7 else _files(r, list(old.values()))
    return Cluster(tuple(old.values()), files, before.env)


_SPOILT: Mapping[str, Spec] = MappingProxyType(
    {
        "Node": {"bgp": {"ipv4Address": "10.0.0.300/24"}},
        "BGPConfiguration": {"listenPort": 70000, "asNumber": 7},
        "BGPPeer": {"peerIP": "10.0.0.12", "asNumber": 65001, "peerSelector": SELECTORS[0]},
        "BGPFilter": {"exportV4": [{"action": "Maybe"}]},
        "IPPool": {"cidr": "10.0.0.0/40"},
        "BlockAffinity": {"cidr": "10.244.1.0/26", "node": NODE, "state": "lost"},
    }
)


def spoilt(r: Random, current: Cluster) -> list[Spec]:
    """Objects that must be refused: new versions, whose last good one stays, and some that never were right."""
    found = [document for document in current.documents if document["kind"] in _SPOILT]
    some = r.sample(found, min(len(found), r.choice((0, 0, 1, 2))))
    meta = ({**document["metadata"], **r.choice(({}, {}, {"name": "never"}))} for document in some)
    return [{**d, "metadata": m, "spec": _SPOILT[d["kind"]]} for d, m in zip(some, meta, strict=True)]


# --- routes

_PREFIXES: Mapping[str, Sequence[str]] = MappingProxyType(
    {
        "ipv4": (
            "10.244.1.0/26", "10.244.1.5/32", "10.244.1.64/26", "10.244.1.70/32", "10.244.2.0/26", "10.244.2.9/32",
            "10.244.3.7/32", "10.244.0.0/16", "10.244.0.0/15", "10.245.0.0/24", "10.245.0.128/25", "10.0.0.0/8",
            "10.1.2.0/24", "2.3.0.0/16", "0.0.0.0/0", "192.0.2.0/24", "192.0.2.7/32", "10.96.0.0/12", "10.96.0.20/32",
            "10.96.0.5/32", "203.0.113.0/24", "203.0.113.9/32", "203.0.113.10/32", "198.51.100.0/24", "198.51.100.7/32",
            "198.51.100.8/32", "198.18.0.1/32", "198.18.0.2/32", "10.112.3.0/24", "192.0.2.99/32",
        ),
        "ipv6": (
            "fd00:10:244::/122", "fd00:10:244::5/128", "fd00:10:244::77/128", "fd00:10:244::/64",
            "fd00:10:244:1::/64", "fd00:10:244::40/122", "fd00:10:245::/122", "fd00:10:245::3/128", "fd00:10::/32",
            "fd00::/16", "::/0", "fd00:96::/112", "fd00:96::14/128", "fd00:96::15/128", "fd00:97::5/128",
            "fd00:e::/64", "fd00:e::9/128", "fd00:f::9/128", "fd00:b::7/128", "fd00:b::/64", "2001:db8::/32",
        ),
    }
)  # fmt: skip
_M = 2**31 - 1
_LEARNED: Table = (
    ("local_pref", 1, (
        100, _M - 1024, _M - 1023, _M - 1025, _M - 512, _M - 511, _M - 513, _M, _M - 1, _M - 2, 0, 1, _M + 1, 2**32 - 1,
        _M - 100,
    )),
    ("interface", 0.7, ("eth0", "tunl0", "vxlan.calico")),
    ("as_path", 0.6, ([65001], [65001, 64999], [65001, 65002], [64512, 65001], [65546], [64513])),
    ("communities", 0.3, (["64512:100"], ["5:5"], ["65535:0"])),
    ("large_communities", 0.3, (["1:2:3"], ["64512:7:9"])),
)  # fmt: skip
_KERNEL: Table = (
    ("interface", 1, ("cali123", "eth0", "tunl0", "vxlan.calico", "wireguard.cali", "bpfin.cali", "x.calico")),
    ("kernel_metric", 0.9, (0, 512, 511, 1024, 1023, 1025, 2000, 1)),
)
_NEXT_HOPS = {"ipv4": ("10.0.0.10", "10.0.1.11", "192.0.2.1"), "ipv6": ("fd00:1::a", "fd00:1::b", "2001:db8::1")}


def probes(r: Random, family: str, count: int) -> list[dict[str, Any]]:
    """Routes of every source, to ask the policies about."""
    return [_probe(r, family, r.choice(_PREFIXES[family])) for _ in range(count)]


def _probe(r: Random, family: str, prefix: str) -> dict[str, Any]:
    source = r.choice(("bgp", "bgp", "kernel", "static", "direct"))
    route = {"net": prefix, "source": source}
    if source == "bgp":
        return {**route, "next_hop": r.choice(_NEXT_HOPS[family]), **fields(r, _LEARNED)}
    if source == "kernel":
        return {**route, **fields(r, _KERNEL)}
    return {**route, "interface": r.choice(("eth0", "lo", "tunl0"))} if source == "direct" else route
