"""The status of a CalicoNodeStatus in Kubernetes: as a part of the object, and as a subresource."""

from __future__ import annotations

from typing import Any

import pytest

from config.datastore import DatastoreError
from config.kubernetes_edit import KubernetesEditor
from tests.kube.server import KubeServer
from tests.kube.support import custom

SPEC: dict[str, Any] = {"node": "a", "classes": ["BGP"], "updatePeriodSeconds": 10}


@pytest.mark.parametrize("apart", [False, True], ids=["part", "subresource"])
async def test_status_is_written_and_the_rest_kept(apart: bool) -> None:
    async with KubeServer() as server:
        server.status_apart = apart
        server.store.put(custom("CalicoNodeStatus", "mine", **SPEC))
        editor = KubernetesEditor("kubernetes:", env={"K8S_API_ENDPOINT": server.url})
        (read,) = await editor.get("CalicoNodeStatus", "mine")
        assert await editor.update_status({**read, "status": {"lastUpdated": "now"}}) == "configured"
        (again,) = await editor.get("CalicoNodeStatus", "mine")
        assert (again["status"], again["spec"]) == ({"lastUpdated": "now"}, SPEC)
        assert sum("/status" in request for request in server.requests) == apart
        with pytest.raises(DatastoreError, match="changed by somebody else"):
            await editor.update_status({**read, "status": {"lastUpdated": "then"}})
        server.store.remove("CalicoNodeStatus", "mine")
        with pytest.raises(DatastoreError, match="is gone"):
            await editor.update_status({**again, "status": {}})
        await editor.close()
