"""bgpctl's hand in Kubernetes: reads and writes Calico's objects where Calico keeps them.

A write names the resourceVersion that was read, so that two writers never undo each other unseen. Nodes are Kubernetes'
own: they can be read and their Calico fields changed (annotations), but neither created nor deleted here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from config.kubernetes_access import access
from config.kubernetes_client import Conflict, KubernetesClient, Missing
from config.kubernetes_objects import (
    V1,
    V3,
    Api,
    api_of,
    choose_group,
    document,
    key_of,
    node_annotations,
    plain,
    stored,
)
from config.parse import NAMESPACED, identify_known
from config.problems import ResourceError
from config.resources import KINDS
from config.source import DatastoreError, Expired, Unavailable

__all__ = ["KubernetesEditor"]

ATTEMPTS = 10
PAGE = 500


class KubernetesEditor:
    """get, apply and delete; see config.source.Editor."""

    def __init__(self, url: str, *, env: Mapping[str, str]) -> None:
        """Raises DatastoreError for a URL or variables that cannot be used."""
        self._client = KubernetesClient(access(url, env))
        self.url = f"kubernetes: ({self._client.access.url})"
        self._space = env.get("NAMESPACE") or "kube-system"
        self._wanted_group = env.get("CALICO_API_GROUP", "")
        self._group = ""
        self._present = False
        """Whether the API has Calico's group at all."""

    async def close(self) -> None:
        """Let go of all connections."""
        await self._client.close()

    async def get(self, kind: str, name: str | None = None) -> list[dict[str, Any]]:
        """The objects of a kind, or the one of this name, sorted by name; Secrets of the speaker's namespace only."""
        api = await self._api(kind)
        if name is not None:
            found = await self._read(api, *_split(api, name))
            return [] if found is None else [document(kind, found)]
        values: list[dict[str, Any]] = []
        params = {"limit": str(PAGE)}
        path = api.path(space=self._space if kind == "Secret" else "")
        while True:
            try:
                answer = await self._call("list", api, path, params)
            except Missing:
                if api.custom and self._present:
                    # An older Calico, which does not know the kind.
                    return []
                raise self._undefined(api) from None
            values += [document(kind, item) for item in answer.get("items") or () if key_of(kind, item) is not None]
            token = (answer.get("metadata") or {}).get("continue")
            if not token:
                return sorted(values, key=lambda value: str((key_of(kind, value) or ("", ""))[1]))
            params = {**params, "continue": token}

    def key_of(self, value: Mapping[str, Any]) -> tuple[str, str]:
        """(kind, name). Raises DatastoreError for kinds that only kubectl writes."""
        try:
            identity = identify_known(value)
        except ResourceError as error:
            raise DatastoreError(str(error)) from None
        if identity.kind in NAMESPACED:
            raise DatastoreError(f"{identity}: a {identity.kind} is Kubernetes' own; write it with kubectl")
        return identity.kind, identity.name

    async def apply(self, value: dict[str, Any]) -> str:
        """Write an object: "created", "configured" or "unchanged". Raises DatastoreError."""
        api, name = await self._place(value)
        given = value["metadata"].get("resourceVersion")
        for _ in range(ATTEMPTS):
            old = await self._read(api, "", name)
            revision = (old or {}).get("metadata", {}).get("resourceVersion") or "0"
            if given and str(given) != str(revision):
                text = f"was changed by somebody else (resourceVersion {given}, now {revision})"
                raise DatastoreError(f"{api.kind}/{name} {text}; read it again, and apply your change to that")
            try:
                return await (self._annotate if api.kind == "Node" else self._write)(api, name, value, old)
            except Conflict:
                continue
            except Missing:
                raise self._undefined(api) from None
        raise DatastoreError(f"{api.kind}/{name} is being changed by others all the time; try again")

    async def _write(self, api: Api, name: str, value: dict[str, Any], old: dict[str, Any] | None) -> str:
        new = stored(value, old, self._group)
        if old is None:
            await self._call("create", api, api.path(), body=new)
            return "created"
        if plain(old) == plain(new):
            return "unchanged"
        await self._call("update", api, api.path(name), body=new)
        return "configured"

    async def _annotate(self, api: Api, name: str, value: dict[str, Any], old: dict[str, Any] | None) -> str:
        """A Node's fields, by a patch of its status, which is what calico-node may write."""
        if old is None:
            text = "a Node cannot be created in the Kubernetes datastore: it is made when the host joins the cluster"
            raise DatastoreError(f"Node/{name}: {text}")
        annotations = node_annotations(value, old)
        if not annotations:
            return "unchanged"
        metadata = {"resourceVersion": old["metadata"].get("resourceVersion"), "annotations": annotations}
        await self._call("patch", api, f"{api.path(name)}/status", body={"metadata": metadata})
        return "configured"

    async def update_status(self, value: dict[str, Any]) -> str:
        """Write an object that was read, for its status. Raises DatastoreError, also where it was changed since.

        Releases of Calico differ in whether `status` is a subresource. Where it is, a plain update leaves it out; the
        answer shows that, and nothing more needs to be allowed where it is not.
        """
        api, name = await self._place(value)
        path, new = api.path(name), stored(value, value, self._group)
        try:
            written = await self._call("update", api, path, body=new)
            if written.get("status") != new["status"]:
                await self._call("update", api, f"{path}/status", body={**written, "status": new["status"]})
        except Conflict:
            raise DatastoreError(f"{api.kind}/{name} was changed by somebody else") from None
        except Missing:
            raise DatastoreError(f"{api.kind}/{name} is gone") from None
        return "configured"

    async def delete(self, kind: str, name: str) -> bool:
        """Remove an object; False where there is none."""
        api = await self._api(kind)
        if kind not in KINDS or not api.custom:
            raise DatastoreError(f"a {kind} is Kubernetes' own; delete it with kubectl")
        try:
            await self._call("delete", api, api.path(name))
        except Missing:
            return False
        return True

    async def _place(self, value: Mapping[str, Any]) -> tuple[Api, str]:
        kind, name = self.key_of(value)
        return await self._api(kind), name

    async def _api(self, kind: str) -> Api:
        if kind not in KINDS:
            raise DatastoreError(f"the kind {kind} is not read by BGP; allowed: {', '.join(KINDS)}")
        if not self._group:
            try:
                groups = (await self._call("get", None, "/apis")).get("groups") or ()
            except Missing:
                groups = ()
            served = {str(item.get("groupVersion")) for found in groups for item in found["versions"]}
            self._group = self._wanted_group if self._wanted_group in (V1, V3) else choose_group(served)
            self._present = self._group in served
        return api_of(kind, self._group)

    async def _read(self, api: Api, space: str, name: str) -> dict[str, Any] | None:
        try:
            return await self._call("get", api, api.path(name, space or (self._space if api.namespaced else "")))
        except Missing:
            return None

    async def _call(
        self, verb: str, api: Api | None, path: str, params: Mapping[str, str] | None = None, body: Any = None
    ) -> dict[str, Any]:
        try:
            return await self._client.call(verb, api, path, params, body)
        except (Unavailable, Expired) as error:
            raise DatastoreError(str(error)) from None

    def _undefined(self, api: Api) -> DatastoreError:
        text = f"{self._client.where} has no {api.resource}: install Calico's CustomResourceDefinitions"
        return DatastoreError(f"{text}, or say with CALICO_API_GROUP where the resources are")


def _split(api: Api, name: str) -> tuple[str, str]:
    """Namespace and name; without one, the speaker's."""
    space, slash, rest = name.partition("/")
    return (space, rest) if api.namespaced and slash else ("", name)
