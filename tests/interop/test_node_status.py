"""CalicoNodeStatus in each datastore, filled by a real daemon: in a real etcd, in Kubernetes with the rights of
containers/rbac.yaml, and beside a folder of files."""

from __future__ import annotations

import asyncio
import os
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from config.datastore import open_editor
from config.source import Editor
from tests.interop.etcd_server import EtcdServer, free_port
from tests.interop.ours import ROOT
from tests.kube.rbac import Rbac
from tests.kube.server import KubeServer
from tests.kube.support import node

pytestmark = pytest.mark.interop
GROUP = "projectcalico.org/v3"
Json = dict[str, Any]


def thing(kind: str, name: str, spec: Json) -> Json:
    return {"apiVersion": GROUP, "kind": kind, "metadata": {"name": name}, "spec": spec}


NODES = {"node-a": "127.0.0.1/8", "node-b": "127.0.0.2/8"}
OBJECTS = (
    thing("BGPConfiguration", "default", {"asNumber": 64512, "nodeToNodeMeshEnabled": True}),
    thing("CalicoNodeStatus", "mine", {"node": "node-a", "classes": ["BGP"], "updatePeriodSeconds": 3600}),
    thing("CalicoNodeStatus", "other", {"node": "node-b", "classes": ["BGP"], "updatePeriodSeconds": 1}),
)


class Place(ABC):
    """A datastore with the objects in it."""

    url: str
    env: dict[str, str]

    @abstractmethod
    async def start(self, folder: Path) -> None:
        """Fill it."""

    @abstractmethod
    async def change(self, value: Json) -> None:
        """Write one object."""

    @abstractmethod
    async def read(self, name: str) -> Json:
        """A CalicoNodeStatus, with its status if it has one."""

    @abstractmethod
    async def stop(self) -> None:
        """End it."""


class Served(Place):
    """A datastore with an editor of ours."""

    editor: Editor

    async def change(self, value: Json) -> None:
        await self.editor.apply(value)

    async def read(self, name: str) -> Json:
        (found,) = await self.editor.get("CalicoNodeStatus", name)
        return found


class Etcd(Served):
    async def start(self, folder: Path) -> None:
        self.server = EtcdServer(folder)
        await self.server.start()
        self.url, self.env = self.server.url, {}
        self.editor = open_editor(self.url, env={})
        for name, address in NODES.items():
            await self.change(thing("Node", name, {"bgp": {"ipv4Address": address}}))
        for value in OBJECTS:
            await self.change(value)

    async def stop(self) -> None:
        await self.editor.close()
        self.server.kill()


class Kubernetes(Served):
    """A server that grants what the manifest grants, and nothing else."""

    async def start(self, folder: Path) -> None:
        self.server = KubeServer()
        await self.server.__aenter__()
        self.url, self.env = "kubernetes:", {"K8S_API_ENDPOINT": self.server.url}
        self.editor = open_editor(self.url, env=self.env)
        for name, address in NODES.items():
            self.server.store.put(node(name, address))
        for value in OBJECTS:
            await self.change(value)
        rights = Rbac(ROOT / "containers" / "rbac.yaml")
        self.server.denied = lambda *asked: rights.denies("calico-bgpd", *asked)

    async def stop(self) -> None:
        await self.editor.close()
        await self.server.__aexit__(None, None, None)


class Files(Place):
    """The user's files are left alone: the status is beside the daemon's state."""

    async def start(self, folder: Path) -> None:
        self.folder, self.state = folder / "resources", folder / "state"
        self.folder.mkdir()
        self.url, self.env = f"file:{self.folder}", {}
        nodes = [thing("Node", name, {"bgp": {"ipv4Address": address}}) for name, address in NODES.items()]
        for value in (*OBJECTS, *nodes):
            await self.change(value)

    async def change(self, value: Json) -> None:
        path = self.folder / f"{value['kind']}-{value['metadata']['name']}.yaml"
        aside = path.with_suffix(".new")
        aside.write_text(yaml.safe_dump(value))
        aside.rename(path)

    async def read(self, name: str) -> Json:
        given: Json = yaml.safe_load((self.folder / f"CalicoNodeStatus-{name}.yaml").read_text())
        assert "status" not in given
        found = self.state / f"CalicoNodeStatus-{name}.json"
        return given | {"status": yaml.safe_load(found.read_text())["status"]} if found.exists() else given

    async def stop(self) -> None:
        pass


@pytest.mark.parametrize("kind", [Etcd, Kubernetes, Files])
async def test_status_is_filled_and_follows_its_spec(kind: type[Place], tmp_path: Path) -> None:
    place = kind()
    await place.start(tmp_path)
    command = [sys.executable, "-m", "bgpd", "--node", "node-a", "--datastore", place.url, "--no-kernel"]
    command += ["--listen", f"127.0.0.1:{free_port()}", "--health", "none", "--socket", str(tmp_path / "sock")]
    command += ["--state-dir", str(tmp_path / "state"), "--bird-sockets", str(tmp_path)]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("ETCD_", "KUBE", "K8S"))}
    log = (tmp_path / "log").open("w")
    daemon = await asyncio.create_subprocess_exec(*command, env=environment | place.env, stdout=log, stderr=log)

    async def status(holds: Callable[[Json], bool]) -> Json:
        try:
            async with asyncio.timeout(30):
                while True:
                    found = await place.read("mine")
                    if holds(found.get("status") or {}):
                        return found
                    await asyncio.sleep(0.05)
        except TimeoutError:
            pytest.fail((tmp_path / "log").read_text())

    try:
        found = await status(lambda s: "bgp" in s)
        assert found["status"]["bgp"]["numberNotEstablishedV4"] == 1
        (peer,) = found["status"]["bgp"]["peersV4"]
        assert (peer["peerIP"], peer["type"]) == ("127.0.0.2", "NodeMesh")
        assert found["spec"] == OBJECTS[1]["spec"]
        spec = {**OBJECTS[1]["spec"], "classes": ["Agent"]}
        await place.change({**found, "spec": spec} if isinstance(place, Served) else {**OBJECTS[1], "spec": spec})
        found = await status(lambda s: "agent" in s)
        assert found["status"]["agent"]["birdV4"]["routerID"] == "127.0.0.1"
        assert "bgp" not in found["status"]
        assert "status" not in await place.read("other")
        assert sorted(path.name for path in tmp_path.glob("*.ctl")) == ["bird.ctl", "bird6.ctl"]
    finally:
        daemon.terminate()
        await daemon.wait()
        log.close()
        await place.stop()
