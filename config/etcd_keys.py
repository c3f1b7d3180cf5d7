"""Calico's keys in etcd v3, and what their values say (calico-bgp.md 1.2). Pure.

    /calico/resources/v3/projectcalico.org/<plural>/<name>           the whole object as JSON
    /calico/ipam/v2/host/<node>/ipv4/block/10.244.3.0-26             {"state": "confirmed", "deleted": false}

Block affinities become objects of the form and name that they have in Kubernetes. Secrets, Services and EndpointSlices
are not in etcd: they are Kubernetes' in both modes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from attrs import frozen

from config import resources as r
from config.documents import DocumentError, load_json
from config.parse import identify, parse_resource
from config.problems import Problem, ResourceError, show
from config.snapshot import Key, Put, Refuse, Remove, StoreChange

__all__ = ["Place", "affinity_name", "change", "document", "place", "place_of", "prefix_of", "prefixes"]

GROUP = "projectcalico.org/v3"
RESOURCES = f"/calico/resources/v3/{GROUP.partition('/')[0]}/"
HOSTS = "/calico/ipam/v2/host/"
_PLURALS = {
    "Node": "nodes",
    "BGPConfiguration": "bgpconfigurations",
    "BGPPeer": "bgppeers",
    "BGPFilter": "bgpfilters",
    "IPPool": "ippools",
    "CalicoNodeStatus": "caliconodestatuses",
}
_KINDS = {plural: kind for kind, plural in _PLURALS.items() if kind in r.KINDS}
_BLOCK = re.compile(r"/calico/ipam/v2/host/([^/]+)/ipv([46])/block/([^/]+)-([0-9]{1,3})")


@frozen
class Place:
    """What a key is about. `node` and `cidr` are of block affinities."""

    kind: str
    name: str
    node: str = ""
    cidr: str = ""

    @property
    def key(self) -> Key:
        """In the store."""
        return (self.kind, self.name)


def prefixes(node: str) -> tuple[str, ...]:
    """The beginnings of all keys that are read; each ends with "/". `node` "": every node's affinities."""
    return (*(f"{RESOURCES}{plural}/" for plural in _KINDS), f"{HOSTS}{node}/" if node else HOSTS)


def prefix_of(kind: str) -> str:
    """Where the objects of a kind are; "" for kinds that are not in etcd."""
    if kind == "BlockAffinity":
        return HOSTS
    plural = _PLURALS.get(kind)
    return f"{RESOURCES}{plural}/" if plural else ""


def place(key: str) -> Place | None:
    """What a key below `prefixes` is about; None: nothing that is read."""
    if key.startswith(RESOURCES):
        plural, _, name = key.removeprefix(RESOURCES).partition("/")
        kind = _KINDS.get(plural)
        return Place(kind, name) if kind and name else None
    match = _BLOCK.fullmatch(key)
    if match is None:
        return None
    node, _, address, length = match.groups()
    cidr = f"{address}/{length}"
    return Place("BlockAffinity", affinity_name(node, cidr), node, cidr)


def place_of(value: Mapping[str, Any]) -> tuple[str, str, str]:
    """(key, kind, name) of an object in projectcalico.org/v3 form. Raises ResourceError."""
    identity = identify(value)
    if not prefix_of(identity.kind) or not identity.known:
        text = f"a {identity.kind} is not kept in etcd"
        raise ResourceError([Problem(object=str(identity), text=text, allowed=", ".join((*_PLURALS, "BlockAffinity")))])
    if identity.kind != "BlockAffinity":
        return f"{prefix_of(identity.kind)}{identity.name}", identity.kind, identity.name
    found = parse_resource(value).resource
    assert isinstance(found, r.BlockAffinity)
    version = 4 if found.cidr.family.afi == 1 else 6
    key = f"{HOSTS}{found.node}/ipv{version}/block/{str(found.cidr).replace('/', '-')}"
    return key, "BlockAffinity", affinity_name(found.node, str(found.cidr))


def affinity_name(node: str, cidr: str) -> str:
    """The name of a BlockAffinity, as Kubernetes mode has it."""
    return f"{node}-{re.sub('[.:/]', '-', cidr)}"


def document(found: Place, value: bytes) -> object:
    """The object in projectcalico.org/v3 form. Raises DocumentError."""
    try:
        text = value.decode()
    except UnicodeDecodeError as error:
        raise DocumentError(f"is not UTF-8 (octet {error.start + 1})") from None
    # Very old affinities have an empty value.
    body = load_json(text) if text or found.kind != "BlockAffinity" else {}
    if not isinstance(body, dict):
        raise DocumentError(f"is no JSON object but {show(body)}")
    if found.kind != "BlockAffinity":
        return {"kind": found.kind, "apiVersion": GROUP, **body}
    spec = {"node": found.node, "cidr": found.cidr, "type": "host", "deleted": body.get("deleted") or False}
    if body.get("state"):
        spec["state"] = body["state"]
    return {"kind": found.kind, "apiVersion": GROUP, "metadata": {"name": found.name}, "spec": spec}


def stored(value: Mapping[str, Any]) -> bytes:
    """The value to write for an object in projectcalico.org/v3 form."""
    if value["kind"] == "BlockAffinity":
        spec = value["spec"]
        value = {"state": spec.get("state") or "confirmed", "deleted": spec.get("deleted") or False}
    return json.dumps(value, separators=(",", ":")).encode()


def change(key: str, value: bytes | None) -> StoreChange | None:
    """What a key's new value (None: it is deleted) means for the store; None: nothing."""
    found = place(key)
    if found is None:
        return None
    if value is None:
        return Remove(found.key)
    try:
        item = document(found, value)
        identity = identify(item)
        if (identity.kind, identity.name) != found.key:
            text = f"says that it is {identity.kind}/{identity.name}, which its key does not"
            raise ResourceError([Problem(object="/".join(found.key), field="metadata.name", text=text, allowed=key)])
        parsed = parse_resource(item)
    except DocumentError as error:
        problem = Problem(object="/".join(found.key), text=str(error), allowed="the object as JSON")
        return Refuse(found.key, (problem.at(key),))
    except ResourceError as error:
        return Refuse(found.key, tuple(problem.of(found.key).at(key) for problem in error.problems))
    return Put(parsed.resource, tuple(problem.at(key) for problem in parsed.notices))
