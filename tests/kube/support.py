"""Objects as Kubernetes has them, and a datastore on a test server whose state can be waited for."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from config import resources as r
from config.follower import Follower
from config.kubernetes import KubernetesSource, Pace
from config.kubernetes_objects import HOST_LABEL, host_label
from config.snapshot import Snapshot
from config.source import Datastore
from tests.kube.server import KubeServer
from tests.kube.store import Json

V1, V3 = "crd.projectcalico.org/v1", "projectcalico.org/v3"
FAST = Pace(retry=(0.02, 0.1), refused=0.1, missing=0.1, quiet=20.0)
"""Pauses as short as tests want them."""


def custom(kind: str, name: str, group: str = V1, **spec: Any) -> Json:
    """One of Calico's own objects."""
    return {"apiVersion": group, "kind": kind, "metadata": {"name": name}, "spec": spec}


def node(name: str, address: str = "10.0.0.1/24", labels: Mapping[str, str] | None = None, **annotations: str) -> Json:
    """A core/v1 Node; annotations without "projectcalico.org/"."""
    given = {"IPv4Address": address, **annotations}
    metadata = {
        "name": name,
        "labels": dict(labels or {}),
        "annotations": {f"projectcalico.org/{key}": value for key, value in given.items()},
    }
    return {"apiVersion": "v1", "kind": "Node", "metadata": metadata, "spec": {}, "status": {}}


def pool(name: str, cidr: str = "10.244.0.0/16") -> Json:
    return custom("IPPool", name, cidr=cidr)


def block(owner: str, cidr: str, *, labelled: bool = True, deleted: str = "false") -> Json:
    name = f"{owner}-{cidr.translate(str.maketrans('./:', '---'))}"
    value = custom("BlockAffinity", name, node=owner, cidr=cidr, state="confirmed", deleted=deleted)
    if labelled:
        value["metadata"]["labels"] = {HOST_LABEL: host_label(owner)}
    return value


def secret(name: str, value: str, space: str = "kube-system") -> Json:
    data = {"password": base64.b64encode(value.encode()).decode()}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": space}, "data": data}


def peer(name: str, address: str = "192.0.2.1", secret_name: str = "") -> Json:
    spec: Json = {"peerIP": address, "asNumber": 64600}
    if secret_name:
        spec["password"] = {"secretKeyRef": {"name": secret_name, "key": "password"}}
    return custom("BGPPeer", name, **spec)


def cidrs(snapshot: Snapshot) -> dict[str, str]:
    """The pools."""
    return {name: str(found.cidr) for name, found in snapshot.of(r.IPPool).items()}


class Followed:
    """A running datastore whose state can be waited for."""

    def __init__(self, store: Datastore) -> None:
        self.store = store
        self.snapshots: list[Snapshot] = []
        self._news = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def _on_snapshot(self, snapshot: Snapshot) -> None:
        self.snapshots.append(snapshot)
        self._news.set()

    async def __aenter__(self) -> Followed:
        self._task = asyncio.create_task(self.store.run(self._on_snapshot))
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._task is not None
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def until(self, holds: Callable[[Snapshot], bool] = lambda snapshot: True, seconds: float = 30) -> Snapshot:
        """The first snapshot of which it holds. The limit only ends a hanging test."""
        assert self._task is not None
        async with asyncio.timeout(seconds):
            while not self.snapshots or not holds(self.snapshots[-1]):
                self._news.clear()
                waiting = asyncio.ensure_future(self._news.wait())
                await asyncio.wait({waiting, self._task}, return_when=asyncio.FIRST_COMPLETED)
                if self._task.done():
                    waiting.cancel()
                    await self._task
        return self.snapshots[-1]

    async def status(self, holds: Callable[[str], bool], seconds: float = 30) -> str:
        """The first status text of which it holds; "" while all is well."""
        async with asyncio.timeout(seconds):
            while not holds(self.store.status().text):
                await asyncio.sleep(0.01)
        return self.store.status().text


def source(server: KubeServer, pace: Pace = FAST, *, kinds: Iterable[str] = r.KINDS, **env: str) -> KubernetesSource:
    return KubernetesSource(
        "kubernetes:", node="a", env={"K8S_API_ENDPOINT": server.url, **env}, kinds=kinds, pace=pace
    )


def followed(server: KubeServer, pace: Pace = FAST, **env: str) -> Followed:
    return Followed(Follower(source(server, pace, kinds=r.KINDS, **env), node="a"))
