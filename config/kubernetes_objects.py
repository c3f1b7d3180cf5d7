"""Kubernetes' objects <-> Calico's resources in projectcalico.org/v3 form (calico-bgp.md 1.4). Pure.

Calico's own kinds are custom resources in crd.projectcalico.org/v1 or projectcalico.org/v3. In v1 the object's metadata
as Calico knows it is JSON in an annotation, and put back from there. A Calico Node is the core/v1 Node: its fields are
annotations, its labels Kubernetes' over Calico's own. Secrets, Services and EndpointSlices are read as they are.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Collection, Mapping
from typing import Any

from attrs import evolve, frozen

from config.parse import NAMESPACED, parse_resource
from config.problems import Problem, ResourceError
from config.snapshot import Key, Put, Refuse, StoreChange

__all__ = [
    *("V1", "V3", "Api", "affinity_name", "api_of", "change", "choose_group", "document", "host_label", "key_of"),
    *("node_annotations", "plain", "stored"),
]

V1, V3 = "crd.projectcalico.org/v1", "projectcalico.org/v3"
METADATA = "projectcalico.org/metadata"
LABELS = "projectcalico.org/labels"
HOST_LABEL = "projectcalico.org/hostname-hash"
NODE_FIELDS: Mapping[str, tuple[str, ...]] = {
    "projectcalico.org/IPv4Address": ("spec", "bgp", "ipv4Address"),
    "projectcalico.org/IPv6Address": ("spec", "bgp", "ipv6Address"),
    "projectcalico.org/ASNumber": ("spec", "bgp", "asNumber"),
    "projectcalico.org/RouteReflectorClusterID": ("spec", "bgp", "routeReflectorClusterID"),
    "projectcalico.org/IPv4IPIPTunnelAddr": ("spec", "bgp", "ipv4IPIPTunnelAddr"),
    "projectcalico.org/IPv4VXLANTunnelAddr": ("spec", "ipv4VXLANTunnelAddr"),
    "projectcalico.org/VXLANTunnelMACAddr": ("spec", "vxlanTunnelMACAddr"),
    "projectcalico.org/IPv6VXLANTunnelAddr": ("spec", "ipv6VXLANTunnelAddr"),
    "projectcalico.org/VXLANTunnelMACAddrV6": ("spec", "vxlanTunnelMACAddrV6"),
    "projectcalico.org/IPv4WireguardInterfaceAddr": ("spec", "wireguard", "interfaceIPv4Address"),
    "projectcalico.org/IPv6WireguardInterfaceAddr": ("spec", "wireguard", "interfaceIPv6Address"),
    "projectcalico.org/WireguardPublicKey": ("status", "wireguardPublicKey"),
    "projectcalico.org/WireguardPublicKeyV6": ("status", "wireguardPublicKeyV6"),
}
"""Annotation of the core/v1 Node -> field of Calico's."""
_PLURALS = {
    "BGPConfiguration": "bgpconfigurations",
    "BGPPeer": "bgppeers",
    "BGPFilter": "bgpfilters",
    "IPPool": "ippools",
    "CalicoNodeStatus": "caliconodestatuses",
    "BlockAffinity": "blockaffinities",
}
"""Calico's own kinds."""
_CORE = {
    "Node": ("/api/v1", "nodes"),
    "Secret": ("/api/v1", "secrets"),
    "Service": ("/api/v1", "services"),
    "EndpointSlice": ("/apis/discovery.k8s.io/v1", "endpointslices"),
}
"""Kinds that Kubernetes has by itself."""


@frozen
class Api:
    """Where the objects of a kind are."""

    kind: str
    prefix: str
    """/api/v1, or /apis/GROUP/VERSION."""
    plural: str
    namespaced: bool

    @property
    def custom(self) -> bool:
        """Whether the kind is Calico's, and so missing where its definition is."""
        return self.kind in _PLURALS

    @property
    def resource(self) -> str:
        """For messages and RBAC rules: "bgppeers.crd.projectcalico.org", "nodes"."""
        return f"{self.plural}.{self.prefix.split('/')[2]}" if self.prefix.startswith("/apis/") else self.plural

    def path(self, name: str = "", space: str = "") -> str:
        """Of all objects, those of a namespace, or one."""
        within = f"/namespaces/{space}" if space else ""
        return f"{self.prefix}{within}/{self.plural}{'/' if name else ''}{name}"


def api_of(kind: str, group: str) -> Api:
    """Of a kind that is read; `group` is Calico's."""
    if kind in _CORE:
        prefix, plural = _CORE[kind]
        return Api(kind, prefix, plural, kind in NAMESPACED)
    return Api(kind, f"/apis/{group}", _PLURALS[kind], False)


def choose_group(served: Collection[str]) -> str:
    """Calico's group of those that the API serves: v3 where it is the only one; else v1, which is behind any v3."""
    return V3 if V3 in served and V1 not in served else V1


def host_label(node: str) -> str:
    """The value of the label by which the block affinities of a host are found."""
    return base64.b32encode(hashlib.sha3_256(node.encode()).digest()).decode().rstrip("=")


def key_of(kind: str, value: Mapping[str, Any]) -> Key | None:
    """What an object is called in the store; None: nothing that can be named."""
    metadata = value.get("metadata")
    name = metadata.get("name") if isinstance(metadata, Mapping) else None
    if not isinstance(name, str) or not name or not isinstance(metadata, Mapping):
        return None
    return (kind, f"{metadata.get('namespace') or ''}/{name}" if kind in NAMESPACED else name)


def document(kind: str, value: Mapping[str, Any]) -> dict[str, Any]:
    """The object as calicoctl shows it. Lists leave kind and apiVersion out of their items."""
    if kind == "Node":
        return _node(value)
    if kind in NAMESPACED:
        return {**value, "kind": kind, "apiVersion": NAMESPACED[kind]}
    return {**value, "kind": kind, "apiVersion": V3, "metadata": _restored(value["metadata"])}


def _restored(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """A custom resource's metadata with what Calico keeps beside: names, revision and new labels are Kubernetes'."""
    annotations = metadata.get("annotations")
    if not isinstance(annotations, Mapping) or METADATA not in annotations:
        return dict(metadata)
    stored = _json_mapping(annotations[METADATA])
    shown = {key: item for key, item in metadata.items() if key != "annotations"}
    for name, live in (("labels", metadata.get("labels")), ("annotations", annotations)):
        merged = {**_mapping(stored.get(name)), **_mapping(live)}
        merged.pop(METADATA, None)
        if merged:
            shown[name] = merged
    if isinstance(stored.get("creationTimestamp"), str):
        shown["creationTimestamp"] = stored["creationTimestamp"]
    return shown


def _mapping(value: object) -> dict[str, Any]:
    return dict(value) if isinstance(value, Mapping) else {}


def _json_mapping(text: object) -> dict[str, Any]:
    """The object in a text; {} where it is none: what Calico keeps there must not cost the resource."""
    try:
        return _mapping(json.loads(text)) if isinstance(text, str) else {}
    except (ValueError, RecursionError):
        return {}


_SHOWN = ("name", "uid", "creationTimestamp", "resourceVersion")
"""Of a core/v1 Node's metadata; its annotations are not Calico's."""


def _node(value: Mapping[str, Any]) -> dict[str, Any]:
    metadata = _mapping(value.get("metadata"))
    annotations = _mapping(metadata.get("annotations"))
    shown: dict[str, Any] = {
        "kind": "Node",
        "apiVersion": V3,
        "metadata": {
            **{name: metadata[name] for name in _SHOWN if name in metadata},
            # Kubernetes' labels stand above Calico's own.
            "labels": {**_json_mapping(annotations.get(LABELS)), **_mapping(metadata.get("labels"))},
        },
        "spec": {},
    }
    for annotation, (*path, last) in NODE_FIELDS.items():
        if annotations.get(annotation) not in (None, ""):
            place = shown
            for name in path:
                place = place.setdefault(name, {})
            place[last] = annotations[annotation]
    spec = _mapping(value.get("spec"))
    cidrs = spec.get("podCIDRs") or ([spec["podCIDR"]] if spec.get("podCIDR") else None)
    if cidrs:
        shown.setdefault("status", {})["podCIDRs"] = cidrs
    return shown


# --- what an object means for the store


def change(kind: str, value: Mapping[str, Any], place: str) -> StoreChange | None:
    """A good or a refused version of an object; None: it has no name. `place` is shown with its problems."""
    key = key_of(kind, value)
    if key is None:
        return None
    try:
        parsed = parse_resource(document(kind, value))
    except ResourceError as error:
        problems = tuple(problem.of(key).at(place) for problem in error.problems)
        return _refused_node(key, value, problems) if kind == "Node" else Refuse(key, problems)
    return Put(parsed.resource, tuple(problem.at(place) for problem in parsed.notices))


def _refused_node(key: Key, value: Mapping[str, Any], problems: tuple[Problem, ...]) -> Refuse:
    """A Node with annotations that mean nothing: it keeps its good version, or does without those fields.

    Without them is what Calico does (calico-bgp.md 1.4); but a slip in an address must not end sessions.
    """
    bad = {name: annotation for annotation, path in NODE_FIELDS.items() if (name := ".".join(path))}
    named = tuple(
        evolve(problem, field=f"metadata.annotations[{bad[problem.field]}]") if problem.field in bad else problem
        for problem in problems
    )
    faulty = {bad[problem.field] for problem in problems if problem.field in bad}
    metadata = _mapping(value.get("metadata"))
    left = {name: text for name, text in _mapping(metadata.get("annotations")).items() if name not in faulty}
    try:
        rest = parse_resource(_node({**value, "metadata": {**metadata, "annotations": left}})).resource
    except ResourceError:
        return Refuse(key, named)
    return Refuse(key, named, instead=rest)


# --- writing

_SERVERS = ("uid", "creationTimestamp", "resourceVersion", "managedFields", "generation", "selfLink")
"""Metadata that the server gives, not the user."""


def stored(value: Mapping[str, Any], old: Mapping[str, Any] | None, group: str) -> dict[str, Any]:
    """What to send for an object of Calico's own kinds; `old` is what the server has."""
    metadata = {name: item for name, item in value["metadata"].items() if name not in _SERVERS}
    former = _mapping(old.get("metadata")) if old is not None else {}
    if old is not None:
        metadata.update({name: former[name] for name in ("uid", "resourceVersion") if name in former})
    if group == V1:
        # As Calico's client: what else it knows of the object is beside it, and nothing here is hidden by it.
        annotations = _mapping(former.get("annotations"))
        if METADATA in annotations:
            metadata["annotations"] = {**_mapping(metadata.get("annotations")), METADATA: annotations[METADATA]}
    new = {**value, "apiVersion": group, "metadata": metadata}
    if value["kind"] == "BlockAffinity":
        deleted = value["spec"].get("deleted") in (True, "true")
        affinity = {**value["spec"], "deleted": deleted if group == V3 else str(deleted).lower()}
        labels = {**_mapping(metadata.get("labels")), HOST_LABEL: host_label(str(affinity.get("node", "")))}
        new = {**new, "spec": affinity, "metadata": {**metadata, "labels": labels}}
    if "status" not in new and old is not None and "status" in old:
        new["status"] = old["status"]
    return new


def plain(value: Mapping[str, Any]) -> dict[str, Any]:
    """An object without what makes two equal ones differ."""
    metadata = _restored(value["metadata"])
    kept = {name: item for name, item in metadata.items() if name not in _SERVERS and item}
    return {**{name: item for name, item in value.items() if name != "apiVersion"}, "metadata": kept}


def node_annotations(value: Mapping[str, Any], old: Mapping[str, Any]) -> dict[str, str | None]:
    """What must change in a core/v1 Node's annotations so that it is this Calico Node; None removes one."""
    annotations = _mapping(_mapping(old.get("metadata")).get("annotations"))
    own = {name: str(text) for name, text in _mapping(_mapping(value.get("metadata")).get("labels")).items()}
    kubernetes = _mapping(_mapping(old.get("metadata")).get("labels"))
    own = {name: text for name, text in own.items() if kubernetes.get(name) != text}
    wanted: dict[str, str | None] = {LABELS: json.dumps(own, sort_keys=True) if own else None}
    for annotation, path in NODE_FIELDS.items():
        found: Any = value
        for name in path:
            found = _mapping(found).get(name)
        wanted[annotation] = None if found in (None, "") else str(found)
    return {name: text for name, text in wanted.items() if annotations.get(name) != text}


def affinity_name(node: str, cidr: str) -> str:
    """The name of a BlockAffinity."""
    return f"{node}-{re.sub('[.:/]', '-', cidr)}"
