"""The API's answers over real speakers joined in memory: their shape, and that they tell the truth."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bgpd.api.limits import Pace
from bgpd.api.lookup import Refused, RouteQuery, find_family, find_peer, find_prefix
from bgpd.api.schema import KernelTable, Peer, PeerDetail, Route, RoutesEnd, Status
from bgpd.api.server import route_query
from bgpd.api.state import DaemonState
from bgpd.api.tables import routes
from bgpd.api.views import Views, last_error
from bgpd.ctl.tables import show_status
from bgpd.rib.adj_rib_in import key_of
from bgpd.settings import SpeakerSettings
from bgpd.speaker import Speaker

from .api_support import CLIENT, TOR, World, checked

Rows = list[dict[str, Any]]


@pytest.fixture(scope="module")
def world() -> World:
    return World({"10.60.0.0/16": (101, "Network is unreachable")})


async def _routes(state: DaemonState, **query: Any) -> tuple[Rows, dict[str, Any]]:
    text = b"".join([chunk async for chunk in routes(state, RouteQuery(**query), Pace())])
    lines = [json.loads(line) for line in text.splitlines()]
    return lines[:-1], lines[-1]


def _prefixes(rows: Rows) -> list[str]:
    return [row["prefix"] for row in rows]


async def test_every_answer_has_the_shape_of_the_schema(world: World) -> None:
    views = Views(world.state)
    checked(await views.status(Pace()), Status)
    for peer in await views.peers(Pace()):
        checked(peer, Peer)
        checked(await views.peer(peer["name"], Pace()), PeerDetail)
    checked(await views.kernel(Pace()), KernelTable)
    for query in ({}, {"received": "tor"}, {"advertised": "tor"}):
        rows, end = await _routes(world.state, **query)
        assert rows
        for row in rows:
            checked(row, Route)
        checked(end, RoutesEnd)


async def test_what_ended_a_session_is_told_with_what_keeps_it_down_now(world: World) -> None:
    absent = world.host.speaker.peers["absent"]
    counters = absent.session.statistics
    before = counters.last_error, counters.trouble
    try:
        counters.last_error, counters.trouble = "we sent NOTIFICATION 2/2", ("Socket", "no route to host")
        assert last_error(absent) == "we sent NOTIFICATION 2/2; now: no route to host"
        counters.last_error = "the TCP connection was lost (no route to host)"
        assert last_error(absent) == counters.last_error
        counters.last_error, counters.trouble = "we sent NOTIFICATION 2/2", ("BGP Error", "bad peer AS")
        assert last_error(absent) == counters.last_error
    finally:
        counters.last_error, counters.trouble = before


async def test_status_before_the_first_snapshot_has_the_same_shape() -> None:
    state = DaemonState("node-a", "1")
    views = Views(state)
    status = await views.status(Pace())
    checked(status, Status)
    assert status["asn"] is None and not status["ready"]["ok"]
    for ask in (views.peers(Pace()), views.peer("x", Pace())):
        with pytest.raises(Refused) as caught:
            await ask
        assert caught.value.code == "not-started"


def _shown(status: Status) -> str:
    written = io.StringIO()
    with contextlib.redirect_stdout(written):
        show_status(status)
    return " ".join(written.getvalue().split())


async def test_status_tells_of_a_restart_until_the_kernel_waits_no_longer(world: World) -> None:
    phase, views = world.host.speaker.restart, Views(world.state)
    for active, holds, words in (
        (True, True, "in progress, waits for further peers"),
        (False, True, "kernel routes of before stay, waits for what peers still send"),
        (False, False, ""),
    ):
        phase.active, phase.holds_kernel = active, holds
        status = await views.status(Pace())
        assert (status["restart"]["active"], status["restart"]["holds_kernel"]) == (active, holds)
        assert words in _shown(status) and ("Restart" in _shown(status)) == holds


async def test_status_counts_sessions_routes_kernel_and_problems(world: World) -> None:
    status = await Views(world.state).status(Pace())
    assert status["peers"] == {"configured": 3, "dynamic": 0, "established": 2}
    rows, _ = await _routes(world.state)
    for counts in status["families"]:
        mine = [row for row in rows if row["family"] == counts["family"]]
        assert counts["paths"] == len(mine)
        assert counts["prefixes"] == len(set(_prefixes(mine)))
        assert counts["best"] == sum(row["best"] for row in mine)
        assert counts["local"] == sum(row["source"]["peer"] is None for row in mine)
    limits = status["limits"]
    assert limits is not None and limits["connection_rate"] == 10
    assert {**limits["refused"]} == {"dynamic-peers": 0}
    (row,) = limits["peers"]
    assert row["peers"] == 3 and row["prefixes"] == {"ipv4": 1000, "ipv6": 0} and not row["ranges"]
    assert status["kernel"] is not None
    assert status["kernel"]["states"]["ipv4"]["refused"] == 1
    assert status["datastore"]["problems"][0]["object"] == "BGPPeer/tor-rack1"


@pytest.mark.parametrize("name", ["tor", "Mesh_10_0_0_2"])
async def test_a_peers_counts_are_those_of_its_tables(world: World, name: str) -> None:
    peer = next(p for p in await Views(world.state).peers(Pace()) if p["name"] == name)
    received, _ = await _routes(world.state, received=name)
    advertised, _ = await _routes(world.state, advertised=name)
    for family, counts in peer["prefixes"].items():
        rows = [row for row in received if row["family"] == family]
        assert counts["received"] == len(rows)
        rejected = [row for row in rows if row["rule"] == "BGPFilter no-default, rule 1"]
        assert counts["accepted"] == len(rows) - len(rejected)
        assert counts["advertised"] == sum(row["family"] == family for row in advertised)
        assert counts["stale"] == 0 and counts["queued"] == 0 and counts["end_of_rib"]


async def test_advertised_is_what_the_peer_holds(world: World) -> None:
    rows, _ = await _routes(world.state, advertised="tor")
    tor = world.cluster.hosts[TOR].speaker
    for family, rib in tor.ribs.items():
        held = {}
        for key, path in tor.peers["node"].importer.adj[family].routes.items():
            held[path.path_id, key_of(key)] = path.received
        shown = {(row["path_id"], find_prefix(row["prefix"])[1]): row for row in rows if row["family"] == str(family)}
        assert held.keys() == shown.keys(), rib
        for place, row in shown.items():
            assert row["attributes"]["as_path"] == "64512"
            assert [f"{v >> 16}:{v & 0xFFFF}" for v in held[place].communities] == row["attributes"]["communities"]


async def test_received_shows_attributes_as_they_came_and_what_was_refused(world: World) -> None:
    rows, _ = await _routes(world.state, received="tor", prefix=find_prefix("10.50.1.0/24"))
    assert [row["attributes"]["local_pref"] for row in rows] == [None]
    rows, _ = await _routes(world.state, prefix=find_prefix("10.50.1.0/24"))
    assert [row["attributes"]["local_pref"] for row in rows] == [300]
    rows, _ = await _routes(world.state, received="Mesh_10_0_0_2", prefix=find_prefix("0.0.0.0/0"))
    assert not rows[0]["eligible"] and rows[0]["rule"] == "BGPFilter no-default, rule 1"


async def test_routes_come_in_the_order_of_addresses(world: World) -> None:
    rows, end = await _routes(world.state, family=find_prefix("10.0.0.0/8")[0])
    keys = [find_prefix(text)[1] for text in _prefixes(rows)]
    assert keys == sorted(keys, key=lambda key: (key[1:], key[0]))
    assert end == {"end": True, "routes": len(rows), "truncated": False}


@pytest.mark.parametrize(
    ("match", "prefix", "expected"),
    [
        ("exact", "10.244.1.0/26", ["10.244.1.0/26"]),
        ("exact", "10.244.0.0/16", []),
        ("longer", "10.244.0.0/16", ["10.244.1.0/26", "10.244.1.5/32", "10.244.2.0/26", "10.244.7.0/26"]),
        ("longer", "10.244.1.0/26", ["10.244.1.0/26", "10.244.1.5/32"]),
        ("covering", "10.244.1.5/32", ["10.244.1.0/26", "10.244.1.5/32"]),
        ("longer", "::/0", ["fd00::/64", "fd00::/64", "fd00::/64", "fd00:99::/48"]),
        ("covering", "fd00:99::1/128", ["fd00:99::/48"]),
    ],
)
async def test_prefixes_are_matched_exactly_inside_or_around(
    world: World, match: str, prefix: str, expected: list[str]
) -> None:
    rows, _ = await _routes(world.state, prefix=find_prefix(prefix), match=match)
    assert _prefixes(rows) == expected


async def test_limit_cuts_and_says_so(world: World) -> None:
    everything, _ = await _routes(world.state)
    rows, end = await _routes(world.state, limit=3)
    assert rows == everything[:3] and end["truncated"]
    _, end = await _routes(world.state, limit=len(everything))
    assert not end["truncated"]


async def test_kernel_state_is_told_of_best_paths(world: World) -> None:
    rows, _ = await _routes(world.state)
    states = {row["prefix"]: row["kernel"] for row in rows if row["best"]}
    assert states["10.60.0.0/16"] == "refused"
    assert states["10.244.2.0/26"] == "installed"
    assert states["10.99.0.0/16"] == "unwanted"
    assert all(row["kernel"] is None for row in rows if not row["best"])
    table = await Views(world.state).kernel(Pace())
    assert [(t["prefix"], t["state"], t["errno"]) for t in table["troubles"]] == [("10.60.0.0/16", "refused", 101)]
    assert table["troubles"][0]["hops"] == ["via 10.0.0.2 dev eth0"]


async def test_peers_are_found_by_name_and_address_and_missed_with_a_sentence(world: World) -> None:
    views = Views(world.state)
    assert (await views.peer(CLIENT, Pace()))["peer"]["name"] == "Mesh_10_0_0_2"
    for name in ("nobody", "10.9.9.9"):
        with pytest.raises(Refused, match=f"there is no peer {name}") as caught:
            await views.peer(name, Pace())
        assert caught.value.code == "unknown-peer"
    with pytest.raises(Refused, match="exclude each other"):
        routes(world.state, RouteQuery(received="tor", advertised="tor"), Pace())


async def test_a_password_is_never_shown(world: World) -> None:
    detail = await Views(world.state).peer("tor", Pace())
    assert detail["password"] is False
    assert "secret" not in json.dumps(detail)


async def test_a_large_table_is_walked_in_slices_and_sorted() -> None:
    world = World()
    table = world.host.speaker.ribs[find_prefix("10.0.0.0/8")[0]].table
    entry = table[find_prefix("10.50.1.0/24")[1]]
    table.update(dict.fromkeys((bytes((24, 11, i >> 8, i & 255)) for i in range(20000)), entry))
    ticks = iter(range(10**9))
    pace = Pace(slice_time=10, clock=lambda: float(next(ticks)))
    turns = 0

    async def neighbour() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(neighbour())
    chunks = [len(chunk) async for chunk in routes(world.state, RouteQuery(), pace)]
    task.cancel()
    assert turns > 50, "others have their turn while a table is written"
    assert max(chunks) < 100_000, "an answer is never held as a whole"
    rows, _ = await _routes(world.state, prefix=find_prefix("11.0.0.0/8"), match="longer")
    assert len(rows) == 20000
    assert _prefixes(rows)[:3] == ["11.0.0.0/24", "11.0.1.0/24", "11.0.2.0/24"]


async def test_routes_that_go_during_a_walk_are_left_out() -> None:
    world = World()
    family, key = find_prefix("10.50.1.0/24")
    table = world.host.speaker.ribs[family].table
    entry = table[key]
    table.update(dict.fromkeys((bytes((24, 11, i >> 8, i & 255)) for i in range(4000)), entry))
    rows = 0
    async for chunk in routes(world.state, RouteQuery(), Pace()):
        for gone in [k for k in table if k[1] == 11]:
            del table[gone]
        rows += chunk.count(b'"prefix":"11.')
    assert 0 < rows < 4000


async def test_counts_are_kept_for_a_while_and_then_made_again(world: World) -> None:
    views, speaker = Views(world.state), world.host.speaker
    first = await views.walk(speaker, Pace(), 5.0)
    assert await views.walk(speaker, Pace(), 5.0) is first
    world.cluster.now += 100
    try:
        assert await views.walk(speaker, Pace(), 5.0) is not first
    finally:
        world.cluster.now -= 100


WORDS = st.one_of(st.text(max_size=40), st.from_regex(r"[0-9a-f.:/%]{1,30}", fullmatch=True))


@given(WORDS, WORDS)
def test_whatever_is_asked_is_answered_or_refused_in_one_line(text: str, other: str) -> None:
    questions = {"prefix": text, "match": other, "family": other, "limit": text, "received": text}
    speaker = _SPEAKER
    for ask in (
        lambda: find_prefix(text),
        lambda: find_family(text),
        lambda: find_peer(speaker, text),
        lambda: route_query(questions),
        lambda: route_query({"limit": text}),
    ):
        try:
            ask()
        except Refused as error:
            assert error.text.isprintable() and len(error.text) < 500


_SPEAKER = Speaker(SpeakerSettings(64512, "10.0.0.1"), 0.0, lambda: 1.0)
