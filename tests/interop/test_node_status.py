"""CalicoNodeStatus in a real etcd, filled by a real daemon."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from config.datastore import open_editor
from tests.interop.etcd_server import EtcdServer, free_port

pytestmark = pytest.mark.interop
GROUP = "projectcalico.org/v3"


def thing(kind: str, name: str, spec: dict[str, Any]) -> dict[str, Any]:
    return {"apiVersion": GROUP, "kind": kind, "metadata": {"name": name}, "spec": spec}


OBJECTS = (
    thing("BGPConfiguration", "default", {"asNumber": 64512, "nodeToNodeMeshEnabled": True}),
    thing("Node", "node-a", {"bgp": {"ipv4Address": "127.0.0.1/8"}}),
    thing("Node", "node-b", {"bgp": {"ipv4Address": "127.0.0.2/8"}}),
    thing("CalicoNodeStatus", "mine", {"node": "node-a", "classes": ["BGP"], "updatePeriodSeconds": 3600}),
    thing("CalicoNodeStatus", "other", {"node": "node-b", "classes": ["BGP"], "updatePeriodSeconds": 1}),
)


async def test_status_is_filled_and_follows_its_spec(tmp_path: Path) -> None:
    server = EtcdServer(tmp_path)
    await server.start()
    editor = open_editor(server.url, env={})
    for value in OBJECTS:
        await editor.apply(value)
    command = [sys.executable, "-m", "bgpd", "--node", "node-a", "--datastore", server.url, "--no-kernel"]
    command += ["--listen", f"127.0.0.1:{free_port()}", "--health", "none", "--socket", str(tmp_path / "sock")]
    command += ["--state-dir", str(tmp_path / "state"), "--bird-sockets", str(tmp_path)]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("ETCD_", "KUBE"))}
    daemon = await asyncio.create_subprocess_exec(*command, env=environment, stdout=asyncio.subprocess.DEVNULL)

    async def status(holds: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        async with asyncio.timeout(30):
            while True:
                (found,) = await editor.get("CalicoNodeStatus", "mine")
                if holds(found.get("status") or {}):
                    return found
                await asyncio.sleep(0.05)

    try:
        found = await status(lambda s: "bgp" in s)
        assert found["status"]["bgp"]["numberNotEstablishedV4"] == 1
        (peer,) = found["status"]["bgp"]["peersV4"]
        assert (peer["peerIP"], peer["type"]) == ("127.0.0.2", "NodeMesh")
        assert found["spec"] == OBJECTS[3]["spec"]
        found["spec"]["classes"] = ["Agent"]
        await editor.apply(found)
        found = await status(lambda s: "agent" in s)
        assert found["status"]["agent"]["birdV4"]["routerID"] == "127.0.0.1"
        assert "bgp" not in found["status"]
        (other,) = await editor.get("CalicoNodeStatus", "other")
        assert "status" not in other
        assert sorted(path.name for path in tmp_path.glob("*.ctl")) == ["bird.ctl", "bird6.ctl"]
    finally:
        daemon.terminate()
        await daemon.wait()
        await editor.close()
        server.kill()
