"""Objects with one revision for all, their history since the last compaction, selectors, patches. Knows no network.

As Kubernetes has it: each write raises the revision, which is the written object's resourceVersion; a list is the state
at one revision, also over its pages; a watch replays from a revision on, and an object that a selector no longer lets
through is DELETED for that watch.
"""

from __future__ import annotations

import asyncio
import base64
import copy
import json
import uuid
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from attrs import define, field, frozen

Json = dict[str, Any]
Name = tuple[str, str]
"""Namespace ("" = none) and name."""


@frozen
class Kind:
    """A resource that is served."""

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool = False

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version


def calico(group: str, version: str) -> list[Kind]:
    """Calico's own kinds in a group."""
    kinds = ("BGPConfiguration", "BGPPeer", "BGPFilter", "IPPool")
    plurals = {kind: kind.lower() + "s" for kind in kinds}
    plurals |= {"BlockAffinity": "blockaffinities", "CalicoNodeStatus": "caliconodestatuses"}
    return [Kind(group, version, plural, kind) for kind, plural in plurals.items()]


V1 = calico("crd.projectcalico.org", "v1")
V3 = calico("projectcalico.org", "v3")
CORE = [
    Kind("", "v1", "nodes", "Node"),
    Kind("", "v1", "secrets", "Secret", True),
    Kind("", "v1", "services", "Service", True),
    Kind("", "v1", "namespaces", "Namespace"),
    Kind("discovery.k8s.io", "v1", "endpointslices", "EndpointSlice", True),
]
DEFINITIONS = Kind("apiextensions.k8s.io", "v1", "customresourcedefinitions", "CustomResourceDefinition")


class Failure(Exception):
    """What the API answers with a Status."""

    def __init__(self, code: int, reason: str, message: str, **details: Any) -> None:
        self.code, self.reason, self.message, self.details = code, reason, message, details
        super().__init__(message)

    def status(self) -> Json:
        return {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
            "reason": self.reason,
            "details": self.details,
            "code": self.code,
        }


@frozen
class Written:
    """One entry of the history; `old` None: created, `new` None: deleted."""

    revision: int
    kind: Kind
    name: Name
    old: Json | None
    new: Json | None


@frozen
class Filter:
    """What a list or watch asks for."""

    kind: Kind
    space: str = ""
    labels: str = ""
    fields: str = ""

    def lets(self, name: Name, value: Mapping[str, Any] | None) -> bool:
        if value is None or (self.space and name[0] != self.space):
            return False
        labels = value["metadata"].get("labels") or {}
        return all(_label(term, labels) for term in _terms(self.labels)) and all(
            _field(term, name) for term in _terms(self.fields)
        )


def _terms(selector: str) -> list[str]:
    return [term.strip() for term in selector.split(",") if term.strip()]


def _label(term: str, labels: Mapping[str, str]) -> bool:
    if "!=" in term:
        key, _, value = term.partition("!=")
        return labels.get(key) != value
    if "=" in term:
        key, _, value = term.partition("=")
        return labels.get(key) == value.lstrip("=")
    return term[1:] not in labels if term.startswith("!") else term in labels


def _field(term: str, name: Name) -> bool:
    key, _, value = term.partition("=")
    known = {"metadata.name": name[1], "metadata.namespace": name[0]}
    if key not in known:
        raise Failure(400, "BadRequest", f"field label not supported: {key}")
    return known[key] == value.lstrip("=")


@define(eq=False)
class Store:
    """What etcd and the API server know."""

    kinds: list[Kind] = field(factory=lambda: [*CORE, *V1, DEFINITIONS])
    revision: int = 1000
    compacted: int = 0
    objects: dict[Kind, dict[Name, Json]] = field(factory=dict)
    history: list[Written] = field(factory=list)
    news: asyncio.Event = field(factory=asyncio.Event)
    page_tokens: dict[str, tuple[int, list[Json]]] = field(factory=dict)

    def of(self, kind: Kind) -> dict[Name, Json]:
        return self.objects.setdefault(kind, {})

    def find(self, kind: str, group: str | None = None) -> Kind:
        """The kind of this name, the first that is served."""
        return next(item for item in self.kinds if item.kind == kind and group in (None, item.group))

    # --- writing

    def _write(self, kind: Kind, name: Name, new: Json | None) -> Json:
        self.revision += 1
        if new is not None and "stringData" in new and kind.kind == "Secret":
            plain = {key: base64.b64encode(text.encode()).decode() for key, text in new.pop("stringData").items()}
            new["data"] = {**new.get("data", {}), **plain}
        old = self.of(kind).get(name)
        value = new if new is not None else copy.deepcopy(old)
        assert value is not None
        value["metadata"]["resourceVersion"] = str(self.revision)
        if new is None:
            del self.of(kind)[name]
        else:
            self.of(kind)[name] = new
        # What a deletion shows is the last state, with the revision of the deletion.
        self.history.append(Written(self.revision, kind, name, old if new is not None else value, new))
        self.tell()
        return value

    def tell(self) -> None:
        """Wake who waits for news."""
        news, self.news = self.news, asyncio.Event()
        news.set()

    def create(self, kind: Kind, value: Json, space: str = "") -> Json:
        value = copy.deepcopy(value)
        metadata = value.setdefault("metadata", {})
        if not metadata.get("name"):
            raise Failure(422, "Invalid", f'{kind.kind} "" is invalid: metadata.name: Required value: name is required')
        if kind.namespaced:
            metadata["namespace"] = space or metadata.get("namespace") or "default"
        name = (metadata.get("namespace", "") if kind.namespaced else "", metadata["name"])
        if name in self.of(kind):
            raise Failure(409, "AlreadyExists", f'{kind.plural} "{name[1]}" already exists')
        metadata["uid"] = str(uuid.uuid4())
        metadata["creationTimestamp"] = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        metadata["generation"] = 1
        value |= {"kind": kind.kind, "apiVersion": kind.api_version}
        if kind == DEFINITIONS:
            self._define(value["spec"])
        return self._write(kind, name, value)

    def _define(self, spec: Json) -> None:
        names = spec["names"]
        for version in spec["versions"]:
            namespaced = spec["scope"] == "Namespaced"
            made = Kind(spec["group"], version["name"], names["plural"], names["kind"], namespaced)
            if made not in self.kinds:
                self.kinds.append(made)

    def get(self, kind: Kind, name: Name) -> Json:
        try:
            return self.of(kind)[name]
        except KeyError:
            raise self._absent(kind, name) from None

    @staticmethod
    def _absent(kind: Kind, name: Name) -> Failure:
        plural = f"{kind.plural}.{kind.group}" if kind.group else kind.plural
        text = f'{plural} "{name[1]}" not found'
        return Failure(404, "NotFound", text, name=name[1], group=kind.group, kind=kind.plural)

    def update(self, kind: Kind, name: Name, value: Json) -> Json:
        old = self.get(kind, name)
        value = copy.deepcopy(value)
        metadata = value.setdefault("metadata", {})
        given = metadata.get("resourceVersion")
        if given and given != old["metadata"]["resourceVersion"]:
            text = f'Operation cannot be fulfilled on {kind.plural} "{name[1]}": the object has been modified'
            raise Failure(409, "Conflict", f"{text}; please apply your changes to the latest version and try again")
        if not given and kind.group.endswith("projectcalico.org"):
            text = "metadata.resourceVersion: Invalid value: 0x0: must be specified for an update"
            raise Failure(422, "Invalid", text)
        for key in ("uid", "creationTimestamp", "name", "namespace", "generation"):
            if key in old["metadata"]:
                metadata[key] = old["metadata"][key]
        if {**value, "metadata": {**metadata, "resourceVersion": ""}} == {
            **old,
            "metadata": {**old["metadata"], "resourceVersion": ""},
        }:
            return old
        return self._write(kind, name, value)

    def patch(self, kind: Kind, name: Name, patch: Any, content: str) -> Json:
        old = self.get(kind, name)
        if content == "application/json-patch+json":
            new = json_patch(copy.deepcopy(old), patch)
        else:
            new = merge(copy.deepcopy(old), patch)
        if not (isinstance(patch, dict) and (patch.get("metadata") or {}).get("resourceVersion")):
            new["metadata"]["resourceVersion"] = old["metadata"]["resourceVersion"]
        return self.update(kind, name, new)

    def delete(self, kind: Kind, name: Name) -> Json:
        self.get(kind, name)
        return self._write(kind, name, None)

    def put(self, value: Json) -> Json:
        """Create or replace, for tests."""
        group, _, version = value["apiVersion"].rpartition("/")
        kind = next(k for k in self.kinds if (k.kind, k.group, k.version) == (value["kind"], group, version))
        space = (value["metadata"].get("namespace") or "default") if kind.namespaced else ""
        name = (space, value["metadata"]["name"])
        if name not in self.of(kind):
            return self.create(kind, value)
        revision = self.of(kind)[name]["metadata"]["resourceVersion"]
        return self.update(kind, name, {**value, "metadata": {**value["metadata"], "resourceVersion": revision}})

    def remove(self, kind: str, name: str, space: str = "") -> None:
        """Delete, for tests."""
        self.delete(self.find(kind), (space, name))

    # --- reading

    def list(self, wanted: Filter, limit: int, token: str) -> tuple[list[Json], int, str]:
        """(objects, revision, token of the next page)."""
        if token:
            try:
                revision, items = self.page_tokens.pop(token)
            except KeyError:
                raise Failure(400, "BadRequest", "continue key is not valid") from None
            if revision < self.compacted:
                text = "The provided continue parameter is too old to display a consistent list result."
                raise Failure(410, "Expired", text)
        else:
            found = sorted(self.of(wanted.kind).items(), key=lambda item: item[0])
            revision, items = self.revision, [value for name, value in found if wanted.lets(name, value)]
        if not limit or len(items) <= limit:
            return items, revision, ""
        page, rest = items[:limit], items[limit:]
        following = base64.urlsafe_b64encode(json.dumps([revision, str(uuid.uuid4())]).encode()).decode()
        self.page_tokens[following] = (revision, rest)
        return page, revision, following

    def since(self, revision: int, wanted: Filter) -> Iterator[tuple[int, str, Json]]:
        """(revision, type, object) of what a watch is told."""
        if revision < self.compacted:
            raise Failure(410, "Expired", f"too old resource version: {revision} ({self.compacted})")
        for entry in self._after(revision):
            if entry.kind != wanted.kind:
                continue
            was, is_now = wanted.lets(entry.name, entry.old), wanted.lets(entry.name, entry.new)
            if entry.new is not None and is_now:
                yield entry.revision, "MODIFIED" if was else "ADDED", entry.new
            elif was:
                assert entry.old is not None
                last = copy.deepcopy(entry.old)
                last["metadata"]["resourceVersion"] = str(entry.revision)
                yield entry.revision, "DELETED", last

    def _after(self, revision: int) -> Iterator[Written]:
        index = len(self.history)
        while index and self.history[index - 1].revision > revision:
            index -= 1
        yield from self.history[index:]

    # --- what happens to stores

    def compact(self) -> None:
        """Forget the history."""
        self.compacted, self.history = self.revision, []

    def wipe(self, keep: Callable[[Kind], bool] = lambda kind: False) -> None:
        """Delete everything, object by object."""
        for kind in list(self.objects):
            if not keep(kind):
                for name in list(self.of(kind)):
                    self.delete(kind, name)

    def undefine(self, plural: str) -> None:
        """Take a custom resource's definition away, without a word about its objects."""
        self.kinds = [kind for kind in self.kinds if kind.plural != plural]
        for kind in [kind for kind in self.objects if kind.plural == plural]:
            del self.objects[kind]


def merge(value: Any, patch: Any) -> Any:
    """JSON merge patch (RFC 7386), which a strategic merge patch of maps is too; its directives are left out."""
    if not isinstance(patch, dict):
        return patch
    merged = dict(value) if isinstance(value, dict) else {}
    for key, item in patch.items():
        if key.startswith("$"):
            continue
        if item is None:
            merged.pop(key, None)
        else:
            merged[key] = merge(merged.get(key), item)
    return merged


def json_patch(value: Any, operations: list[Json]) -> Any:
    """JSON patch (RFC 6902): add, replace, remove, test."""
    for operation in operations:
        *path, last = [part.replace("~1", "/").replace("~0", "~") for part in operation["path"].split("/")[1:]]
        place = value
        for part in path:
            place = place[int(part)] if isinstance(place, list) else place[part]
        key: Any = int(last) if isinstance(place, list) and last != "-" else last
        match operation["op"]:
            case "add" if isinstance(place, list):
                place.insert(len(place) if key == "-" else key, operation["value"])
            case "add" | "replace":
                place[key] = operation["value"]
            case "remove":
                del place[key]
            case "test":
                if place[key] != operation["value"]:
                    raise Failure(422, "Invalid", f"the test of {operation['path']} fails")
            case other:
                raise Failure(400, "BadRequest", f"unknown operation {other}")
    return value
