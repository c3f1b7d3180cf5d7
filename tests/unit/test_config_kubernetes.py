"""The Kubernetes datastore against the tests' API server: lists, watches, what breaks them, who may what."""

from __future__ import annotations

import asyncio
import json
import os
import random
import re
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve

from config import resources as r
from config.copy import CopyFile
from config.datastore import DatastoreError, open_datastore
from config.follower import Follower, Timing
from config.snapshot import Put, Snapshot
from config.source import Batch, Unavailable
from tests.kube.server import KubeServer
from tests.kube.store import CORE, V3, Failure, Kind, Store
from tests.kube.support import (
    FAST,
    Followed,
    block,
    cidrs,
    custom,
    followed,
    node,
    peer,
    pool,
    secret,
    source,
)


def addresses(snapshot: Snapshot) -> dict[str, str]:
    """Of the Nodes."""
    return {name: found.ipv4_address for name, found in snapshot.of(r.Node).items()}


@pytest.fixture
async def server() -> AsyncIterator[KubeServer]:
    async with KubeServer() as made:
        made.store.put(node("a"))
        yield made


async def test_objects_are_listed_and_watched(server: KubeServer) -> None:
    store = server.store
    store.put(pool("p"))
    store.put(block("a", "10.244.3.0/26"))
    store.put(block("b", "10.244.4.0/26"))
    async with followed(server) as watched:
        first = await watched.until()
        assert set(first.of(r.Node)) == {"a"} and cidrs(first) == {"p": "10.244.0.0/16"}
        assert set(first.of(r.BlockAffinity)) == {"a-10-244-3-0-26"}
        store.put(pool("p", "10.0.0.0/8"))
        store.put(node("b", "10.0.0.2/24"))
        store.put(block("a", "fd00::/122"))
        last = await watched.until(lambda found: len(found.of(r.BlockAffinity)) == 2)
        assert cidrs(last) == {"p": "10.0.0.0/8"} and set(last.of(r.Node)) == {"a", "b"}
        store.remove("IPPool", "p")
        store.remove("Node", "b")
        last = await watched.until(lambda found: not cidrs(found) and len(found.of(r.Node)) == 1)
        assert not last.problems and watched.store.status().connected
    assert not any(request.startswith("POST") for request in server.requests)


async def test_blocks_are_found_by_label_and_without(server: KubeServer) -> None:
    """Of the own node only; a soft delete counts as one; labels that come later change nothing."""
    store = server.store
    store.put(block("a", "10.1.0.0/26", labelled=False))
    store.put(block("b", "10.2.0.0/26", labelled=False))
    store.put(block("a", "10.3.0.0/26", deleted="true"))
    async with followed(server) as watched:
        first = await watched.until()
        assert {name: found.deleted for name, found in first.of(r.BlockAffinity).items()} == {
            "a-10-1-0-0-26": False,
            "a-10-3-0-0-26": True,
        }
        store.put(block("a", "10.1.0.0/26"))
        store.put(pool("p"))
        last = await watched.until(lambda found: "p" in cidrs(found))
        await asyncio.sleep(0.1)
        assert all("a-10-1-0-0-26" in found.of(r.BlockAffinity) for found in watched.snapshots)
        assert last.of(r.BlockAffinity)["a-10-1-0-0-26"] is first.of(r.BlockAffinity)["a-10-1-0-0-26"]
        store.remove("BlockAffinity", "a-10-1-0-0-26")
        await watched.until(lambda found: len(found.of(r.BlockAffinity)) == 1)


async def test_pod_cidrs_stand_for_blocks(server: KubeServer) -> None:
    value = node("a")
    value["spec"] = {"podCIDR": "10.9.0.0/24", "podCIDRs": ["10.9.0.0/24", "fd00:9::/64"]}
    server.store.put(value)
    async with followed(server, USE_POD_CIDR="true") as watched:
        first = await watched.until()
        assert list(map(str, first.of(r.Node)["a"].pod_cidrs)) == ["10.9.0.0/24", "fd00:9::/64"]
    assert not any("blockaffinities" in request for request in server.requests)


# --- API groups


async def test_v3_is_used_where_it_is_alone() -> None:
    async with KubeServer(Store([*CORE, *V3])) as server:
        server.store.put(node("a"))
        server.store.put(custom("IPPool", "p", "projectcalico.org/v3", cidr="10.1.0.0/16"))
        async with followed(server) as watched:
            assert set(cidrs(await watched.until())) == {"p"}


async def test_v1_is_used_beside_v3_unless_the_variable_says_so(server: KubeServer) -> None:
    server.store.kinds += V3
    server.store.put(pool("one"))
    server.store.put(custom("IPPool", "three", "projectcalico.org/v3", cidr="10.1.0.0/16"))
    async with followed(server) as watched:
        assert set(cidrs(await watched.until())) == {"one"}
    async with followed(server, CALICO_API_GROUP="projectcalico.org/v3") as watched:
        assert set(cidrs(await watched.until())) == {"three"}


async def test_a_missing_definition_is_in_sync_and_tried_again() -> None:
    async with KubeServer(Store([*CORE, *(kind for kind in Store().kinds if kind.plural == "ippools")])) as server:
        server.store.put(node("a"))
        async with followed(server) as watched:
            await watched.until()
            assert watched.store.status().connected
            server.store.kinds.append(Kind("crd.projectcalico.org", "v1", "bgppeers", "BGPPeer"))
            server.store.put(peer("tor"))
            await watched.until(lambda found: "tor" in found.of(r.BGPPeer))


async def test_a_definition_that_is_taken_away_takes_nothing_with_it(server: KubeServer) -> None:
    server.store.put(peer("tor"))
    async with followed(server) as watched:
        await watched.until()
        server.store.undefine("bgppeers")
        server.cut()
        await watched.status(lambda text: "bgppeers.crd.projectcalico.org does not exist any more" in text)
        server.store.put(pool("p"))
        last = await watched.until(lambda found: "p" in cidrs(found))
        assert "tor" in last.of(r.BGPPeer)


# --- secrets


async def test_only_named_secrets_are_read_each_by_its_name(server: KubeServer) -> None:
    """Rights to the one name suffice, and the password is there as soon as its peer."""
    store = server.store
    store.put(secret("bgp", "one"))
    store.put(secret("other", "two"))
    store.put(secret("bgp", "three", "default"))
    server.denied = lambda verb, kind, space, name: (
        kind.plural == "secrets" and (space != "kube-system" or name not in ("bgp", "new"))
    )
    store.put(peer("tor", secret_name="bgp"))
    async with followed(server) as watched:
        first = await watched.until()
        assert {name: found.data["password"] for name, found in first.of(r.Secret).items()} == {
            "kube-system/bgp": b"one"
        }
        store.put(secret("bgp", "changed"))
        await watched.until(lambda found: found.of(r.Secret)["kube-system/bgp"].data["password"] == b"changed")
        store.put(secret("new", "four"))
        store.put(peer("tor", secret_name="new"))
        last = await watched.until(lambda found: found.of(r.BGPPeer)["tor"] != first.of(r.BGPPeer)["tor"])
        assert set(last.of(r.Secret)) == {"kube-system/new"}
        store.put(peer("tor"))
        await watched.until(lambda found: not found.of(r.Secret))
        assert watched.store.status().connected


async def test_secrets_beside_another_datastore(server: KubeServer) -> None:
    """Calico's etcd mode: the peers are elsewhere, and the names come from there."""
    server.store.put(secret("bgp", "one"))
    found = source(server, kinds=("Secret", "Service", "EndpointSlice"))
    watched = Followed(Follower(found, node="a"))
    async with watched:
        assert not (await watched.until()).of(r.Secret)
        found.want_secrets({"bgp"})
        await watched.until(lambda snapshot: "kube-system/bgp" in snapshot.of(r.Secret))


# --- outages, gone revisions, broken connections


async def test_an_outage_keeps_all_and_goes_on_where_it_was(server: KubeServer) -> None:
    store = server.store
    store.put(pool("p"))
    async with followed(server) as watched:
        first = await watched.until()
        await server.stop()
        text = await watched.status(bool)
        assert "broken off" in text or "refused" in text
        assert watched.store.snapshot is first
        store.put(pool("q"))
        store.remove("IPPool", "p")
        await server.start()
        server.requests.clear()
        last = await watched.until(lambda found: set(cidrs(found)) == {"q"})
        assert last.of(r.Node)["a"] is first.of(r.Node)["a"]
        await watched.status(lambda text: not text)
    assert not any("limit=" in request for request in server.requests)


@pytest.mark.parametrize("as_event", [True, False])
async def test_a_revision_that_is_gone_lists_that_kind_again(server: KubeServer, as_event: bool) -> None:
    server.faults.gone_as_event = as_event
    store = server.store
    store.put(pool("p"))
    store.put(pool("q"))
    async with followed(server) as watched:
        await watched.until()
        await server.stop()
        store.remove("IPPool", "p")
        store.put(pool("r"))
        store.compact()
        await server.start()
        last = await watched.until(lambda found: set(cidrs(found)) == {"q", "r"})
        assert set(last.of(r.Node)) == {"a"}


async def test_bookmarks_alone_carry_a_watch_over_a_compaction(server: KubeServer) -> None:
    """Nothing of the kind happens, all else does: its revision moves on with the bookmarks."""
    server.faults.bookmarks = 0.05
    store = server.store
    store.put(pool("p"))
    async with followed(server) as watched:
        await watched.until()
        for number in range(20):
            store.put(node("busy", f"10.0.1.{number}/24"))
        await watched.until(lambda found: addresses(found).get("busy") == "10.0.1.19")
        await asyncio.sleep(0.15)
        store.compact()
        server.requests.clear()
        server.cut()
        store.put(pool("q"))
        await watched.until(lambda found: "q" in cidrs(found))
    assert not any("ippools?limit" in request for request in server.requests)


async def test_a_bookmark_that_is_behind_us_means_another_history(server: KubeServer) -> None:
    """A cluster's store was restored from a backup: what is known may never have happened."""
    server.faults.bookmarks = 0.05
    server.store.put(pool("p"))
    async with followed(server) as watched:
        await watched.until()
        server.store.revision = 1
        server.store.history.clear()
        del server.store.of(server.store.find("IPPool"))[("", "p")]
        server.store.put(pool("other"))
        server.cut()
        await watched.until(lambda found: set(cidrs(found)) == {"other"})


async def test_connections_that_break_in_the_middle_of_a_line_lose_nothing(server: KubeServer) -> None:
    store = server.store
    async with followed(server) as watched:
        await watched.until()
        for number in range(30):
            server.faults.broken_watches = number % 3
            store.put(pool(f"p{number}", f"10.{number}.0.0/16"))
            await asyncio.sleep(0.01)
        await watched.until(lambda found: len(cidrs(found)) == 30)


async def test_events_in_pieces_and_of_a_mebibyte(server: KubeServer) -> None:
    server.faults.pieces = 7000
    huge = pool("huge")
    huge["metadata"]["annotations"] = {"note": "x" * (1 << 20)}
    async with followed(server) as watched:
        await watched.until()
        server.store.put(huge)
        server.store.put(pool("p"))
        last = await watched.until(lambda found: "p" in cidrs(found))
        assert "huge" in cidrs(last)


async def test_a_slow_server(server: KubeServer) -> None:
    """Every answer takes its time, and comes in small pieces; nothing is missed, and nothing is called a fault."""
    for number in range(5):
        server.store.put(pool(f"p{number}", f"10.{number}.0.0/16"))
    server.faults.slow, server.faults.pieces = 0.4, 50
    async with followed(server) as watched:
        assert len(cidrs(await watched.until())) == 5
        server.store.put(pool("late"))
        server.store.remove("IPPool", "p0")
        last = await watched.until(lambda found: "late" in cidrs(found) and "p0" not in cidrs(found))
        assert last.complete and not watched.store.status().text


async def test_events_twice_and_in_the_wrong_order(server: KubeServer) -> None:
    """The newest version of an object counts, whatever a watch says after it."""
    chance = random.Random(4)

    def bend(events: list[tuple[int, str, Any]]) -> list[tuple[int, str, Any]]:
        bent = [*events, *events]
        chance.shuffle(bent)
        return bent

    server.faults.bend = bend
    store = server.store
    async with followed(server) as watched:
        await watched.until()
        for number in range(300):
            name = f"p{chance.randrange(9)}"
            if chance.random() < 0.3 and ("", name) in store.of(store.find("IPPool")):
                store.remove("IPPool", name)
            else:
                store.put(pool(name, f"10.{number % 250}.0.0/16"))
            if number % 10 == 0:
                await asyncio.sleep(0.002)
        right = {name[1]: value["spec"]["cidr"] for name, value in store.of(store.find("IPPool")).items()}
        await watched.until(lambda found: cidrs(found) == right)


async def test_pages_and_a_continue_token_that_grows_too_old(
    server: KubeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("config.kubernetes_feed.PAGE", 10)
    for number in range(35):
        server.store.put(pool(f"p{number}", f"10.{number}.0.0/16"))
    async with followed(server) as watched:
        assert len(cidrs(await watched.until())) == 35
    pages = [request for request in server.requests if "ippools" in request and "limit=10" in request]
    assert len(pages) == 4
    before = server.store.list

    def compacting(*arguments: Any) -> Any:
        server.store.compact()
        server.store.revision += 1
        return before(*arguments)

    monkeypatch.setattr(Store, "list", lambda self, *arguments: compacting(*arguments))
    async with followed(server) as watched:
        assert len(cidrs(await watched.until())) == 35


async def test_a_server_that_says_nothing_is_asked_whether_it_lives(server: KubeServer) -> None:
    found = source(server, evolve(FAST, quiet=0.1))
    found._client._timeout = 0.3
    watched = Followed(Follower(found, node="a"))
    async with watched:
        await watched.until()
        await asyncio.sleep(0.5)
        assert watched.store.status().connected
        assert any(request == "GET /version" for request in server.requests)
        server.faults.frozen = True
        await watched.status(lambda text: "does not answer in time" in text)
        server.thaw()
        server.store.put(pool("p"))
        await watched.until(lambda snapshot: "p" in cidrs(snapshot))


async def test_a_watch_that_is_silent_for_too_long_is_made_anew(server: KubeServer) -> None:
    async with followed(server, evolve(FAST, silence=1.2)) as watched:
        await watched.until()
        server.requests.clear()
        await asyncio.sleep(2.0)
        assert sum("bgppeers" in request and "watch=true" in request for request in server.requests) == 1
        assert watched.store.status().connected
        server.store.put(pool("p"))
        await watched.until(lambda found: "p" in cidrs(found))


async def test_the_servers_own_end_of_a_watch_is_no_fault(server: KubeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("config.kubernetes_feed.LASTING", (1, 1))
    async with followed(server) as watched:
        await watched.until()
        for number in range(12):
            server.store.put(pool(f"p{number}"))
            await asyncio.sleep(0.2)
        await watched.until(lambda found: len(cidrs(found)) == 12)
        assert watched.store.status().connected


async def test_a_server_that_is_too_busy(server: KubeServer) -> None:
    server.store.put(pool("p"))
    async with followed(server) as watched:
        await watched.until()
        server.faults.refusal = Failure(
            429, "TooManyRequests", "too many requests, please try again", retryAfterSeconds=1
        )
        server.cut()
        await watched.status(lambda text: "429 too many requests" in text)
        server.faults.refusal = None
        server.store.put(pool("q"))
        await watched.until(lambda found: "q" in cidrs(found))


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (200, r"the answer to /api\S+ is text/html, no JSON; check the address, and what is between"),
        (302, r": 302 Found, to https://login\.example/; check the address, and what is between"),
        (503, r": 503 Service Unavailable; check the address, and what is between"),
    ],
)
async def test_a_page_in_the_place_of_the_api_is_no_connection(status: int, words: str, server: KubeServer) -> None:
    async with followed(server) as watched:
        await watched.until()
        server.faults.page = status
        server.cut()
        text = await watched.status(lambda text: re.search(words, text) is not None)
        assert "<" not in text and not watched.store.status().connected
        server.faults.page = 0
        server.store.put(pool("p"))
        await watched.until(lambda found: "p" in cidrs(found))
        await watched.status(lambda text: not text)


async def test_where_no_stream_comes_through_everything_is_listed(server: KubeServer) -> None:
    async with followed(server) as watched:
        await watched.until()
        server.faults.short = True
        server.cut()
        for name in ("p", "q"):
            server.store.put(pool(name))
            await watched.until(lambda found: name in cidrs(found))  # noqa: B023


RESTARTS = int(os.environ.get("KUBE_RESTARTS", "4"))
"""50 is what was tried by hand; it takes a minute and a half."""


async def test_no_event_is_lost_over_restarts(server: KubeServer, figure: Callable[[str, object], None]) -> None:
    """Connections break, histories are compacted, the server goes and comes, while objects change all the time."""
    chance = random.Random(7)
    store = server.store
    pools = store.find("IPPool")
    written = 0
    async with followed(server) as watched:
        await watched.until()
        for _ in range(RESTARTS):
            for number in range(200):
                name = f"p{chance.randrange(37)}"
                if chance.random() < 0.2 and ("", name) in store.of(pools):
                    store.remove("IPPool", name)
                else:
                    store.put(pool(name, f"10.{written // 250 % 250}.{written % 250}.0/24"))
                written += 1
                if number in (60, 120):
                    chance.choice((server.cut, store.compact, lambda: setattr(server.faults, "broken_watches", 3)))()
                if number == 150:
                    await server.stop()
                    chance.choice((store.compact, store.tell))()
                await asyncio.sleep(0.001)
            await server.start()
        right = {name[1]: value["spec"]["cidr"] for name, value in store.of(pools).items()}
        await watched.until(lambda found: cidrs(found) == right)
        figure("restarts, changes, snapshots", (RESTARTS, written, len(watched.snapshots)))


async def test_an_hour_of_outage(server: KubeServer) -> None:
    """The follower's own patience is tested in virtual time; here: what the source tells it, again and again."""
    found = source(server)
    listing = await found.list()
    await server.stop()
    for _ in range(20):
        with pytest.raises(Unavailable):
            async for _batch in found.watch(listing.revision):
                pass
    server.store.put(pool("p"))
    await server.start()
    async with asyncio.timeout(10):
        async for batch in found.watch(listing.revision):
            if batch.changes:
                break
    assert isinstance(batch, Batch)
    (change,) = batch.changes
    assert isinstance(change, Put) and change.key == ("IPPool", "p")
    await found.close()


# --- wiped


async def test_a_wiped_cluster_is_held_back(server: KubeServer) -> None:
    server.store.put(pool("p"))
    async with followed(server) as watched:
        await watched.until()
        server.store.wipe()
        last = await watched.until(lambda found: not found.complete)
        assert set(last.of(r.Node)) == {"a"} and set(cidrs(last)) == {"p"}
        server.store.put(node("a"))
        server.store.put(pool("p", "10.9.0.0/16"))
        last = await watched.until(lambda found: found.complete)
        assert cidrs(last) == {"p": "10.9.0.0/16"}


async def test_lost_definitions_are_held_back(server: KubeServer) -> None:
    """`kubectl delete -f crds.yaml`: the Nodes are still there, as they are Kubernetes' own."""
    server.store.put(pool("p"))
    server.store.put(block("a", "10.244.3.0/26"))
    async with followed(server) as watched:
        await watched.until()
        server.store.wipe(keep=lambda kind: kind.plural == "nodes")
        last = await watched.until(lambda found: not found.complete)
        assert set(cidrs(last)) == {"p"} and len(last.of(r.BlockAffinity)) == 1


async def test_a_start_without_the_api_serves_the_copy(server: KubeServer, tmp_path: Path) -> None:
    server.store.put(pool("p"))
    server.store.put(secret("bgp", "one"))
    server.store.put(peer("tor", secret_name="bgp"))

    def kept() -> Followed:
        copy = CopyFile(str(tmp_path), "a", "kubernetes")
        return Followed(Follower(source(server), node="a", copy=copy, timing=Timing(first_wait=0.2)))

    async with kept() as watched:
        first = await watched.until()
    await server.stop()
    async with kept() as watched:
        last = await watched.until()
        assert last.objects == first.objects and not last.complete
        assert "refused" in last.source_problems[0].text and watched.store.status().age > 0
        # Back, but without the right to read services and secrets any more: what the copy has of them stays.
        server.denied = lambda verb, kind, space, name: kind.plural in ("secrets", "services")
        await server.start()
        last = await watched.until(lambda found: found.complete)
        assert last.objects == first.objects
        await watched.status(lambda text: "grant the verb list on secrets" in text)


# --- garbage


async def test_garbage_costs_its_objects_alone(server: KubeServer) -> None:
    store = server.store
    store.put(pool("p", "10.1.0.0/16"))
    async with followed(server) as watched:
        await watched.until()
        store.put(custom("IPPool", "p", cidr="10.1.0.0/99"))
        store.put(custom("IPPool", "q", cidr=["no", "text"]))
        store.put({**custom("BGPPeer", "x"), "spec": "nonsense"})
        store.put(pool("r"))
        last = await watched.until(lambda found: "r" in cidrs(found))
        assert cidrs(last) == {"p": "10.1.0.0/16", "r": "10.244.0.0/16"}
        assert set(last.problems) == {("IPPool", "p"), ("IPPool", "q"), ("BGPPeer", "x")}
        assert "/apis/crd.projectcalico.org/v1/ippools/p" in str(last.problems["IPPool", "p"][0])
        store.put(pool("p", "10.3.0.0/16"))
        last = await watched.until(lambda found: cidrs(found)["p"] == "10.3.0.0/16")
        assert ("IPPool", "p") not in last.problems


async def test_a_node_with_a_wrong_annotation(server: KubeServer) -> None:
    """It keeps its good version; one that never had any does without the field, as Calico has it."""
    store = server.store
    store.put(node("b", "10.0.0.2/24"))
    store.put(node("new", "10.0.0.3/24", IPv6Address="banana"))
    async with followed(server) as watched:
        first = await watched.until()
        assert first.of(r.Node)["new"].ipv4_address == "10.0.0.3" and not first.of(r.Node)["new"].ipv6_address
        (problem,) = first.problems["Node", "new"]
        assert problem.field == "metadata.annotations[projectcalico.org/IPv6Address]" and "banana" in problem.value
        store.put(node("b", "10.0.0.2/240"))
        last = await watched.until(lambda found: ("Node", "b") in found.problems)
        assert last.of(r.Node)["b"].ipv4_address == "10.0.0.2"
        store.put(node("b", "10.0.0.22/24"))
        last = await watched.until(lambda found: addresses(found)["b"] == "10.0.0.22")
        assert ("Node", "b") not in last.problems


async def test_a_line_that_is_no_json_is_made_good_by_a_new_listing(server: KubeServer) -> None:
    async with followed(server) as watched:
        await watched.until()
        server.faults.garbage = 2
        server.store.put(pool("p"))
        server.store.put(peer("tor"))
        await watched.until(lambda found: "p" in cidrs(found) and "tor" in found.of(r.BGPPeer))


# --- who may what


async def first_failure(url: str, **env: str) -> str:
    """Why a start without a copy ends."""
    store = open_datastore("kubernetes:", node="a", state_dir=None, env={"K8S_API_ENDPOINT": url, **env})
    with pytest.raises(DatastoreError) as raised:
        async with asyncio.timeout(20):
            await store.run(lambda snapshot: None)
    return str(raised.value)


async def test_who_may_not_is_told_what_to_grant(server: KubeServer) -> None:
    server.denied = lambda verb, kind, space, name: kind.plural == "bgppeers"
    text = await first_failure(server.url)
    assert 'cannot list resource "bgppeers" in API group "crd.projectcalico.org"' in text
    assert text.endswith("grant the verb list on bgppeers.crd.projectcalico.org")


async def test_a_right_that_is_taken_away_holds_up_nothing_else(server: KubeServer) -> None:
    server.store.put(peer("tor"))
    async with followed(server) as watched:
        await watched.until()
        server.denied = lambda verb, kind, space, name: kind.plural == "bgppeers"
        server.cut()
        await watched.status(lambda text: "grant the verb watch on bgppeers.crd.projectcalico.org" in text)
        server.store.put(pool("p"))
        last = await watched.until(lambda found: "p" in cidrs(found))
        assert "tor" in last.of(r.BGPPeer) and not watched.store.status().connected
        server.denied = lambda verb, kind, space, name: False
        await watched.status(lambda text: not text)


async def test_optional_kinds_that_may_not_be_read(server: KubeServer) -> None:
    """Services that are not announced need no rights; the start goes on and says what is missing."""
    server.denied = lambda verb, kind, space, name: kind.plural in ("services", "endpointslices")
    async with followed(server) as watched:
        await watched.until()
        text = await watched.status(bool)
        assert "grant the verb list on services" in text and "endpointslices.discovery.k8s.io" in text


async def test_a_token_that_is_rotated(server: KubeServer, tmp_path: Path) -> None:
    """By file, as kubelet does: read again when the old one is not taken any more."""
    token = tmp_path / "token"
    token.write_text("old\n")
    kubeconfig = tmp_path / "config"
    cluster = {"name": "c", "cluster": {"server": server.url}}
    user = {"name": "u", "user": {"tokenFile": "token"}}
    context = {"name": "x", "context": {"cluster": "c", "user": "u"}}
    document = {"clusters": [cluster], "users": [user], "contexts": [context], "current-context": "x"}
    kubeconfig.write_text(json.dumps(document))
    server.tokens = {"old"}
    async with followed(server, KUBECONFIG=str(kubeconfig), K8S_API_ENDPOINT="") as watched:
        await watched.until()
        token.write_text("new\n")
        server.tokens = {"new"}
        server.cut()
        server.store.put(pool("p"))
        await watched.until(lambda found: "p" in cidrs(found))
        server.tokens = {"never"}
        server.cut()
        text = await watched.status(lambda text: "not accepted" in text)
        assert "kubeconfig" in text and "new" not in text.replace("renew", "")


async def test_credentials_that_are_not_accepted(server: KubeServer) -> None:
    server.tokens = {"right"}
    text = await first_failure(server.url, K8S_API_TOKEN="hunter2")
    assert "the credentials of K8S_API_ENDPOINT are not accepted (Unauthorized)" in text and "hunter2" not in text


async def test_an_address_where_there_is_something_else(server: KubeServer) -> None:
    server.store.kinds.clear()
    found = source(server)
    with pytest.raises(Unavailable, match=r"has no nodes .*; check its address"):
        await found.list()
    await found.close()
