"""The lab's Calico resources, as the folder of YAML files that `--datastore file:DIR` reads: one object a file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import yaml

Resource = dict[str, Any]


class Datastore:
    """The folder. Files appear and change at one stroke (written aside, then renamed)."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    @property
    def url(self) -> str:
        """For `--datastore`."""
        return f"file:{self.folder}"

    def path(self, kind: str, name: str) -> Path:
        """The file of an object."""
        return self.folder / f"{kind.lower()}-{name}.yaml"

    def put(self, *resources: Resource) -> None:
        """Create or replace objects."""
        for resource in resources:
            text = yaml.safe_dump(resource, sort_keys=False)
            self.put_text(resource["kind"], resource["metadata"]["name"], text)

    def put_text(self, kind: str, name: str, text: str) -> None:
        """Write an object's file as it is, good or bad."""
        path = self.path(kind, name)
        aside = path.with_name(f".{path.name}.new")
        aside.write_text(text)
        os.replace(aside, path)

    def delete(self, kind: str, name: str) -> None:
        """Remove an object."""
        self.path(kind, name).unlink()


def resource(kind: str, name: str, spec: Resource, **metadata: Any) -> Resource:
    """A projectcalico.org/v3 object."""
    return {
        "apiVersion": "projectcalico.org/v3",
        "kind": kind,
        "metadata": {"name": name, **metadata},
        "spec": spec,
    }


def bgp_configuration(asn: int, mesh: bool = True, **more: Any) -> Resource:
    """The global BGPConfiguration."""
    spec = {"asNumber": asn, "nodeToNodeMeshEnabled": mesh, "logSeverityScreen": "Info", **more}
    return resource("BGPConfiguration", "default", spec)


def node(
    name: str, ipv4: str, ipv6: str, asn: int | None = None, labels: dict[str, str] | None = None, **more: Any
) -> Resource:
    """A Node; addresses as address/length."""
    bgp: Resource = {"ipv4Address": ipv4, "ipv6Address": ipv6, **more}
    if asn is not None:
        bgp["asNumber"] = asn
    return resource("Node", name, {"bgp": bgp}, labels=labels or {})


def pool(name: str, cidr: str) -> Resource:
    """An IPPool without encapsulation."""
    block_size = 122 if ":" in cidr else 26
    spec = {
        "cidr": cidr,
        "blockSize": block_size,
        "ipipMode": "Never",
        "vxlanMode": "Never",
        "natOutgoing": False,
        "nodeSelector": "all()",
    }
    return resource("IPPool", name, spec)


def block(node_name: str, cidr: str, state: str = "confirmed") -> Resource:
    """A node's BlockAffinity."""
    name = f"{node_name}-{cidr}"
    for mark in ".:/":
        name = name.replace(mark, "-")
    return resource("BlockAffinity", name, {"node": node_name, "cidr": cidr, "state": state, "deleted": False})


def selected_peer(name: str, selector: str, **more: Any) -> Resource:
    """A BGPPeer of all nodes with those that a selector picks."""
    return resource("BGPPeer", name, {"peerSelector": selector, **more})


def peer(name: str, address: str, asn: int, **more: Any) -> Resource:
    """A BGPPeer by address."""
    return resource("BGPPeer", name, {"peerIP": address, "asNumber": asn, **more})
