"""The status of a CalicoNodeStatus in Kubernetes: as a part of the object, and as a subresource."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from aiohttp import web

from config.datastore import DatastoreError
from config.kubernetes_edit import KubernetesEditor
from tests.kube.server import KubeServer
from tests.kube.store import Kind
from tests.kube.support import custom, granted_to

SPEC: dict[str, Any] = {"node": "a", "classes": ["BGP"], "updatePeriodSeconds": 10}


class Subresource(KubeServer):
    """Updates of the object leave `status` alone, those of `/status` change nothing else."""

    asked: int = 0

    def __init__(self) -> None:
        super().__init__()
        self.used: set[tuple[str, str, str]] = set()

    async def _one(self, request: web.Request, kind: Kind, space: str, name: str) -> web.Response:
        below = "/status" if request.path.endswith("/status") else ""
        self.used.add((kind.group, kind.plural + below, "update" if request.method == "PUT" else "get"))
        if request.method != "PUT":
            return await super()._one(request, kind, space, name)
        old, new = self.store.get(kind, (space, name)), await request.json()
        value = copy.deepcopy(new)
        if request.path.endswith("/status"):
            self.asked += 1
            value = {**copy.deepcopy(old), "metadata": new["metadata"], "status": new["status"]}
        else:
            value.pop("status", None)
            value |= {"status": old["status"]} if "status" in old else {}
        return web.json_response(self.store.update(kind, (space, name), value))


@pytest.mark.parametrize("make", [KubeServer, Subresource])
async def test_status_is_written_and_the_rest_kept(make: type[KubeServer]) -> None:
    async with make() as server:
        server.store.put(custom("CalicoNodeStatus", "mine", **SPEC))
        editor = KubernetesEditor("kubernetes:", env={"K8S_API_ENDPOINT": server.url})
        (read,) = await editor.get("CalicoNodeStatus", "mine")
        assert await editor.update_status({**read, "status": {"lastUpdated": "now"}}) == "configured"
        (again,) = await editor.get("CalicoNodeStatus", "mine")
        assert (again["status"], again["spec"]) == ({"lastUpdated": "now"}, SPEC)
        if isinstance(server, Subresource):
            assert server.asked == 1
            # The manifest lets the node's account do that, and the reflector's not.
            assert server.used <= granted_to("calico-bgpd")
            assert not server.used & granted_to("calico-bgp-reflector")
        with pytest.raises(DatastoreError, match="changed by somebody else"):
            await editor.update_status({**read, "status": {"lastUpdated": "then"}})
        server.store.remove("CalicoNodeStatus", "mine")
        with pytest.raises(DatastoreError, match="is gone"):
            await editor.update_status({**again, "status": {}})
        await editor.close()
