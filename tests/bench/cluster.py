"""A large cluster as Calico resources, seen from the node "bench" on the lab's daemon side.

Nodes sit on the load side's addresses, so all of the mesh is passive here: whoever is not played stays away quietly.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from config.etcd_keys import place_of, prefix_of, stored
from tests.bench.lab import DAEMON_ADDRESS, DAEMON_ADDRESS6, client

ASN = 64512
NODE = "bench"
Resource = dict[str, Any]


def make(kind: str, name: str, spec: Resource, **more: Any) -> Resource:
    """One Calico resource; `more` goes into its metadata."""
    return {"apiVersion": "projectcalico.org/v3", "kind": kind, "metadata": {"name": name, **more}, "spec": spec}


def node(number: int, address: str = "") -> Resource:
    """Number 0 is the measured node."""
    if number == 0:
        bgp = {"ipv4Address": f"{DAEMON_ADDRESS}/16", "ipv6Address": f"{DAEMON_ADDRESS6}/64"}
    else:
        bgp = {
            "ipv4Address": f"{address or client(number - 1)}/16",
            "ipv6Address": f"fd00:bbbb::{number + 0x1000:x}/64",
        }
    return make("Node", name(number), {"bgp": bgp}, labels={"rack": f"rack-{number % 40}"})


def name(number: int) -> str:
    """Of a node."""
    return f"node-{number:05}" if number else NODE


def block(number: int, owner: str) -> Resource:
    """A block; the first 131,072 are of the pool."""
    cidr = f"10.{128 + (number >> 10)}.{number >> 2 & 255}.{(number & 3) << 6}/26"
    spec = {"node": owner, "cidr": cidr, "state": "confirmed"}
    return make("BlockAffinity", f"{owner}-{cidr.translate(str.maketrans('./', '--'))}", spec)


def bgp_filter(number: int, word: int = 0) -> Resource:
    """A filter of six rules a direction; `word` makes another of it."""
    rules: list[Resource] = [
        {"action": "Reject", "cidr": f"10.{n}.{word}.0/24", "matchOperator": "In"} for n in range(5)
    ]
    tag = {"addCommunity": {"value": f"{ASN}:{number}"}}
    last = {"action": "Accept", "source": "RemotePeers", "operations": [tag]}
    return make("BGPFilter", f"filter-{number}", {"exportV4": [*rules, last], "importV4": rules})


def service(number: int, nodes: int) -> tuple[Resource, Resource]:
    """A Service with policy Local and its EndpointSlice with three endpoints."""
    address, title = f"172.20.{number >> 8}.{number & 255}", f"service-{number}"
    spec = {"type": "LoadBalancer", "clusterIP": address, "clusterIPs": [address], "ipFamilies": ["IPv4"]}
    found = make("Service", title, {**spec, "externalTrafficPolicy": "Local"}, namespace="default")
    labels = {"kubernetes.io/service-name": title}
    ends = [
        {"addresses": [f"10.128.{n}.9"], "conditions": {"ready": True}, "nodeName": name((number * 7 + n) % nodes)}
        for n in range(3)
    ]
    metadata = {"name": f"{title}-x", "namespace": "default", "labels": labels}
    ready = {"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": metadata}
    return {**found, "apiVersion": "v1"}, {**ready, "addressType": "IPv4", "endpoints": ends}


def resources(nodes: int, blocks: int, filters: int = 50, services: int = 500) -> Iterator[Resource]:
    """All of a cluster with the mesh on."""
    ranges = {"serviceClusterIPs": [{"cidr": "172.20.0.0/16"}], "serviceExternalIPs": [{"cidr": "172.21.0.0/24"}]}
    yield make("BGPConfiguration", "default", {"asNumber": ASN, "bindMode": "NodeIP", **ranges})
    yield make("IPPool", "pods", {"cidr": "10.128.0.0/9"})
    yield from map(node, range(nodes))
    for number in range(blocks):
        yield block(number, name(number % nodes))
    for number in range(filters):
        yield bgp_filter(number)
        side = {"nodeSelector": f"rack == 'rack-{number % 40}'", "filters": [f"filter-{number}"]}
        address = {"peerIP": f"192.0.2.{number + 1}", "asNumber": 65000 + number}
        yield make("BGPPeer", f"tor-{number}", {**side, **address})
    for number in range(services):
        yield from service(number, nodes)


def write_folder(folder: Path, items: list[Resource]) -> None:
    """A YAML file for each kind, as `bgpctl export` writes them."""
    folder.mkdir(parents=True, exist_ok=True)
    by_kind: dict[str, list[Resource]] = {}
    for item in items:
        by_kind.setdefault(item["kind"], []).append(item)
    for kind, found in by_kind.items():
        write_file(folder / f"{kind.lower()}.yaml", found)


def write_file(path: Path, items: list[Resource]) -> None:
    """Documents into a file, in one step."""
    dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
    temporary = path.with_name(f".{path.name}")
    temporary.write_text(yaml.dump_all(items, Dumper=dumper, sort_keys=False))
    temporary.rename(path)


def in_etcd(items: list[Resource]) -> Iterator[tuple[str, str]]:
    """Keys and values of what is in etcd: all but Services and EndpointSlices."""
    for item in items:
        if prefix_of(item["kind"]):
            yield place_of(item)[0], stored(item).decode()


def as_json(item: Resource) -> str:
    """One object, as text."""
    return json.dumps(item)
