"""CalicoNodeStatus: what is reported of which facts, when it is written, and what a conflict costs."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve

from bgpd.family import IPV4_UNICAST, IPV6_UNICAST
from bgpd.reporting import Collector, make_reporter
from config import reporter as reporters
from config.nodestatus import (
    ROUTES_LIMIT,
    AgentFacts,
    Facts,
    FamilyFacts,
    RouteFacts,
    SessionFacts,
    same,
    status_of,
    wanted,
)
from config.reporter import Reporter, StatusFolder
from config.resources import CalicoNodeStatus, StatusClass
from config.snapshot import Put, Snapshot
from config.source import DatastoreError

from .api_support import World

EVERYTHING = frozenset(StatusClass)
NOW = "2026-01-01T00:00:00Z"
AGENT = AgentFacts("v1", "10.0.0.1", "2026-01-01 00:00:00", "2026-01-01 00:00:01")


def session(name: str, up: bool = True, state: str = "Established") -> SessionFacts:
    return SessionFacts(name, name.partition("_")[2].replace("_", "."), up, state, "12:00:00")


FACTS: Facts = {
    IPV4_UNICAST: FamilyFacts(
        AGENT,
        (
            session("Mesh_10_0_0_2"),
            session("Global_10_0_0_3", False, "Passive"),
            session("Node_10_0_0_4", False, "Down"),
            session("Local_Workload_10_0_0_5"),
        ),
        (
            RouteFacts("10.1.0.0/26", True, "10.0.0.2", "eth0", "bgp", "Mesh_10_0_0_2", "10.0.0.2"),
            RouteFacts("10.1.0.0/26", False, "10.0.0.4", "eth0", "bgp", "Node_10_0_0_4", "10.0.0.4"),
            RouteFacts("10.2.0.0/26", True, "", "blackhole", "static"),
            RouteFacts("10.2.0.7/32", True, "", "cali1", "kernel"),
            RouteFacts("10.3.0.0/26", True, "10.0.0.5", "cali2", "bgp", "Local_Workload_10_0_0_5", "10.0.0.5"),
        ),
    ),
    IPV6_UNICAST: FamilyFacts(),
}


def test_every_class_as_the_resource_has_it() -> None:
    status = status_of(EVERYTHING, FACTS, NOW)
    assert status["lastUpdated"] == NOW
    assert status["agent"] == {
        "birdV4": {
            "state": "Ready",
            "version": "v1",
            "routerID": "10.0.0.1",
            "lastBootTime": "2026-01-01 00:00:00",
            "lastReconfigurationTime": "2026-01-01 00:00:01",
        },
        "birdV6": {"state": "NotReady"},
    }
    bgp = status["bgp"]
    assert (bgp["numberEstablishedV4"], bgp["numberNotEstablishedV4"]) == (2, 2)
    assert (bgp["numberEstablishedV6"], bgp["numberNotEstablishedV6"], bgp["peersV6"]) == (0, 0, [])
    assert [(peer["peerIP"], peer["type"], peer["state"]) for peer in bgp["peersV4"][:3]] == [
        ("10.0.0.2", "NodeMesh", "Established"),
        ("10.0.0.3", "GlobalPeer", "Active"),
        ("10.0.0.4", "NodePeer", "Idle"),
    ]
    assert status["routes"]["routesV6"] == []


def test_a_local_workload_peer_hides_nothing() -> None:
    """Quirk 12: the class Routes is whole while a route comes from one."""
    routes = status_of(frozenset({StatusClass.ROUTES}), FACTS, NOW)["routes"]["routesV4"]
    assert {
        "type": "FIB",
        "destination": "10.3.0.0/26",
        "gateway": "10.0.0.5",
        "interface": "cali2",
        "learnedFrom": {"sourceType": "BGPPeer", "peerIP": "10.0.0.5"},
    } in routes
    assert {
        "type": "FIB",
        "destination": "10.2.0.0/26",
        "gateway": "N/A",
        "interface": "blackhole",
        "learnedFrom": {"sourceType": "Static"},
    } in routes
    assert [route["type"] for route in routes] == ["FIB"] * 4 + ["RIB"]


def test_classes_that_are_not_asked_for_are_left_out() -> None:
    assert set(status_of(frozenset({StatusClass.BGP}), FACTS, NOW)) == {"lastUpdated", "bgp"}


def test_routes_in_use_come_before_the_limit() -> None:
    spare = tuple(RouteFacts(f"10.9.{n >> 8}.{n & 255}/32", False, "", "x", "kernel") for n in range(ROUTES_LIMIT))
    used = RouteFacts("10.1.0.0/26", True, "", "x", "kernel")
    facts = {IPV4_UNICAST: FamilyFacts(AGENT, (), (*spare, used)), IPV6_UNICAST: FamilyFacts()}
    routes = status_of(frozenset({StatusClass.ROUTES}), facts, NOW)["routes"]["routesV4"]
    assert len(routes) == ROUTES_LIMIT
    assert routes[0]["destination"] == "10.1.0.0/26"


def test_the_time_alone_is_no_change() -> None:
    one, two = status_of(EVERYTHING, FACTS, NOW), status_of(EVERYTHING, FACTS, "2026-01-01T00:01:00Z")
    assert same(one, two)
    assert not same(one, {**two, "bgp": {}})
    assert not same(None, two)


async def test_facts_of_a_running_speaker() -> None:
    world = World()
    status = status_of(EVERYTHING, await Collector(world.state).collect(EVERYTHING), NOW)
    routes = {(r["destination"], r["learnedFrom"].get("peerIP", "")): r for r in status["routes"]["routesV4"]}
    assert routes["10.244.1.0/26", ""]["interface"] == "blackhole"
    assert routes["10.60.0.0/16", "10.0.0.2"] == {
        "type": "FIB",
        "destination": "10.60.0.0/16",
        "gateway": "10.0.0.2",
        "interface": "eth0",
        "learnedFrom": {"sourceType": "NodeMesh", "peerIP": "10.0.0.2"},
    }
    assert routes["10.60.0.0/16", "10.0.0.3"]["type"] == "RIB"
    assert routes["10.70.0.0/16", "10.0.0.2"]["interface"] == "unreachable"
    assert routes["10.99.0.0/16", ""]["learnedFrom"] == {"sourceType": "Kernel"}
    assert status["bgp"]["numberEstablishedV4"] == 2
    assert status["agent"]["birdV6"]["state"] == "Ready"


# When it is written


class Store:
    """One object in memory; `conflicts` writes are refused as somebody else's were first."""

    def __init__(self) -> None:
        self.value: dict[str, Any] | None = {"kind": "CalicoNodeStatus", "metadata": {"name": "mine"}, "spec": {}}
        self.reads = self.writes = self.conflicts = 0
        self.news = asyncio.Event()

    async def get(self, kind: str, name: str | None = None) -> list[dict[str, Any]]:
        self.reads += 1
        self.news.set()
        return [] if self.value is None else [dict(self.value)]

    async def apply(self, value: dict[str, Any]) -> str:
        if self.conflicts:
            self.conflicts -= 1
            raise DatastoreError("was changed by somebody else")
        self.writes += 1
        self.value = value
        self.news.set()
        return "configured"

    async def close(self) -> None: ...

    async def until(self, holds: Any) -> None:
        async with asyncio.timeout(10):
            while not holds():
                self.news.clear()
                await self.news.wait()


MINE = CalicoNodeStatus("mine", "node-a", frozenset({StatusClass.BGP}), 3600)


def snapshot(*objects: CalicoNodeStatus) -> Snapshot:
    return Snapshot().apply(Put(item) for item in objects)


@contextlib.asynccontextmanager
async def reporting(store: Store, facts: Facts = FACTS) -> AsyncIterator[Reporter]:
    async def collect(_: frozenset[StatusClass]) -> Facts:
        return facts

    made = Reporter("node-a", lambda: store, collect)
    task = asyncio.create_task(made.run())
    yield made
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def test_objects_of_other_nodes_and_without_a_period_are_not_ours() -> None:
    others = (evolve(MINE, name="b", node="node-b"), evolve(MINE, name="off", period=0))
    assert set(wanted(snapshot(MINE, *others), "node-a")) == {"mine"}


async def test_a_new_object_and_a_changed_spec_are_due_at_once() -> None:
    store = Store()
    async with reporting(store) as made:
        made.on_snapshot(snapshot(MINE))
        await store.until(lambda: store.writes == 1)
        assert store.value is not None
        assert set(store.value["status"]) == {"lastUpdated", "bgp"}
        made.on_snapshot(snapshot(evolve(MINE, classes=EVERYTHING)))
        await store.until(lambda: store.writes == 2)
        assert "routes" in store.value["status"]
        assert store.value["spec"] == {}


async def test_what_has_not_changed_is_not_written_again() -> None:
    store = Store()
    async with reporting(store) as made:
        made.on_snapshot(snapshot(evolve(MINE, period=1)))
        await store.until(lambda: store.reads >= 2)
        assert store.writes == 1


async def test_a_conflict_reads_again_three_times_at_most(caplog: pytest.LogCaptureFixture) -> None:
    store = Store()
    store.conflicts = 2
    async with reporting(store) as made:
        made.on_snapshot(snapshot(MINE))
        await store.until(lambda: store.writes == 1)
        assert store.reads == reporters.ATTEMPTS
        store.conflicts = 3
        made.on_snapshot(snapshot(evolve(MINE, classes=EVERYTHING)))
        await store.until(lambda: store.reads == 2 * reporters.ATTEMPTS)
        await asyncio.sleep(0)
        assert store.writes == 1
    assert "CalicoNodeStatus/mine: its status cannot be written: was changed by somebody else" in caplog.text


async def test_an_object_that_is_gone_is_left_alone() -> None:
    store = Store()
    store.value = None
    async with reporting(store) as made:
        made.on_snapshot(snapshot(MINE))
        await store.until(lambda: store.reads == 1)
        made.on_snapshot(snapshot())
        await asyncio.sleep(0)
    assert store.writes == 0


async def test_beside_a_folder_of_files_the_status_has_a_file_of_its_own(tmp_path: Path) -> None:
    world = World()
    made = make_reporter(world.state, "file:/nowhere", str(tmp_path))
    made.on_snapshot(snapshot(MINE))
    task = asyncio.create_task(made.run())
    path = tmp_path / "CalicoNodeStatus-mine.json"
    async with asyncio.timeout(10):
        while not path.exists():
            await asyncio.sleep(0.01)
    task.cancel()
    assert json.loads(path.read_text())["status"]["bgp"]["numberEstablishedV4"] == 2


async def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DatastoreError, match=r"cannot be written.*--state-dir"):
        await StatusFolder(str(tmp_path / "file")).apply({"metadata": {"name": "x"}})
