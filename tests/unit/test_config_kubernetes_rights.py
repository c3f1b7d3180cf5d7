"""containers/rbac.yaml in force on the tests' API server: it is enough for all that a node does, and gives no more."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import yaml

from config import resources as r
from config.copy import CopyFile
from config.datastore import DatastoreError
from config.follower import Follower, Timing
from config.kubernetes_edit import KubernetesEditor
from tests.kube.rbac import Rbac
from tests.kube.server import KubeServer
from tests.kube.store import CORE, V3, Kind, Store
from tests.kube.support import Followed, cidrs, custom, followed, node, peer, pool, secret, source

ROOT = Path(__file__).resolve().parents[2]
RBAC = Rbac(ROOT / "containers" / "rbac.yaml")


@pytest.fixture
async def server() -> AsyncIterator[KubeServer]:
    async with KubeServer() as made:
        made.store.put(node("a"))
        yield made


async def all_that_a_node_does(server: KubeServer) -> None:
    """List, watch, list again, read a password, and fill in a status, also where that is a subresource."""
    server.store.put(peer("tor", secret_name="bgp-secrets"))
    server.store.put(secret("bgp-secrets", "hunter2"))
    server.store.put(custom("CalicoNodeStatus", "mine", node="a", classes=["BGP"], updatePeriodSeconds=10))
    async with followed(server) as watched:
        first = await watched.until()
        assert "kube-system/bgp-secrets" in first.of(r.Secret) and not watched.store.status().text
        server.cut()
        server.store.put(pool("p"))
        await watched.until(lambda found: "p" in cidrs(found))
        await watched.status(lambda text: not text)
    editor = KubernetesEditor("kubernetes:", env={"K8S_API_ENDPOINT": server.url})
    for apart in (False, True):
        server.status_apart = apart
        (found,) = await editor.get("CalicoNodeStatus", "mine")
        await editor.update_status({**found, "status": {"lastUpdated": str(apart)}})
    await editor.close()


async def test_the_manifest_grants_what_is_used_and_nothing_else(server: KubeServer) -> None:
    """containers/rbac.yaml in force against every request of a node; and each right that it gives is used."""
    used: set[tuple[str, str, str]] = set()

    def note(verb: str, kind: Kind, space: str, name: str) -> bool:
        used.add((kind.group, kind.plural, verb))
        return RBAC.denies("calico-bgpd", verb, kind, space, name)

    server.denied = note
    await all_that_a_node_does(server)
    granted: set[tuple[str, str, str]] = set()
    for document in yaml.safe_load_all((ROOT / "containers" / "rbac.yaml").read_text()):
        for rule in document.get("rules", ()):
            granted |= set(itertools.product(rule["apiGroups"], rule["resources"], rule["verbs"]))
            assert ("secrets" in rule["resources"]) == ("resourceNames" in rule)
    assert {entry for entry in granted if entry[0] != "projectcalico.org"} == used


async def test_the_manifest_is_enough_where_calicos_objects_are_v3() -> None:
    async with KubeServer(Store([*CORE, *V3])) as server:
        server.denied = lambda *asked: RBAC.denies("calico-bgpd", *asked)
        server.store.put(custom("IPPool", "p", "projectcalico.org/v3", cidr="10.244.0.0/16"))
        async with followed(server) as watched:
            assert "p" in cidrs(await watched.until()) and not watched.store.status().text


async def test_the_reflectors_account_reads_and_does_not_write(server: KubeServer) -> None:
    server.denied = lambda *asked: RBAC.denies("calico-bgp-reflector", *asked)
    server.store.put(custom("CalicoNodeStatus", "mine", node="a", classes=["BGP"], updatePeriodSeconds=10))
    async with followed(server) as watched:
        await watched.until()
        assert not watched.store.status().text
    editor = KubernetesEditor("kubernetes:", env={"K8S_API_ENDPOINT": server.url})
    with pytest.raises(DatastoreError, match=r"grant the verb get on caliconodestatuses\.crd\.projectcalico\.org"):
        await editor.get("CalicoNodeStatus", "mine")
    await editor.close()


async def test_other_secrets_than_those_that_the_manifest_names(server: KubeServer) -> None:
    """The peer has no session, the rest goes on, and what is to be granted is told."""
    server.denied = lambda *asked: RBAC.denies("calico-bgpd", *asked)
    server.store.put(secret("other", "hunter2"))
    async with followed(server) as watched:
        await watched.until()
        server.store.put(peer("tor", secret_name="other"))
        server.store.put(pool("p"))
        last = await watched.until(lambda found: "p" in cidrs(found) and "tor" in found.of(r.BGPPeer))
        assert not last.of(r.Secret)
        assert "grant the verb list on secrets" in await watched.status(bool)


def no_peers(verb: str, kind: Kind, space: str, name: str) -> bool:
    return kind.plural == "bgppeers"


async def test_one_kind_that_may_not_be_read_holds_up_no_later_listing(server: KubeServer) -> None:
    """A right that is taken away, and then the time for everything to be listed again comes."""
    server.store.put(peer("tor", secret_name="bgp-secrets"))
    server.store.put(secret("bgp-secrets", "hunter2"))
    timing = Timing(resync=0.2)
    async with Followed(Follower(source(server), node="a", timing=timing)) as watched:
        await watched.until()
        server.denied = no_peers
        server.cut()
        for number in range(5):
            server.store.put(pool(f"p{number}", f"10.{number}.0.0/16"))
            last = await watched.until(lambda found: f"p{number}" in cidrs(found))  # noqa: B023
            assert "tor" in last.of(r.BGPPeer) and last.of(r.Secret) and last.complete
            await asyncio.sleep(0.2)
        await watched.status(lambda text: "grant the verb list on bgppeers.crd.projectcalico.org" in text)
        server.store.remove("BGPPeer", "tor")
        server.denied = lambda *asked: False
        last = await watched.until(lambda found: not found.of(r.BGPPeer) and not found.of(r.Secret))
        await watched.status(lambda text: not text)


async def test_one_kind_that_may_not_be_read_at_a_start_with_a_copy(server: KubeServer, tmp_path: Path) -> None:
    """What the copy has of it stays, passwords too, and the rest is followed. Later it is compared."""
    for name in ("tor", "gone"):
        server.store.put(peer(name, secret_name="bgp-secrets"))
    server.store.put(secret("bgp-secrets", "hunter2"))

    def kept() -> Followed:
        return Followed(Follower(source(server), node="a", copy=CopyFile(str(tmp_path), "a", "kubernetes")))

    async with kept() as watched:
        await watched.until()
    server.denied = no_peers
    server.store.put(pool("p"))
    server.store.remove("BGPPeer", "gone")
    async with kept() as watched:
        last = await watched.until(lambda found: "p" in cidrs(found))
        assert set(last.of(r.BGPPeer)) == {"tor", "gone"} and last.of(r.Secret) and last.complete
        assert "grant the verb list on bgppeers.crd.projectcalico.org" in await watched.status(bool)
        server.denied = lambda *asked: False
        last = await watched.until(lambda found: set(found.of(r.BGPPeer)) == {"tor"})
        assert last.of(r.Secret)
        await watched.status(lambda text: not text)
