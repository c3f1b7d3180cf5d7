"""POST /v1/plan: the tables' part of a plan, and who may ask for one."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve

from bgpd.api import server
from bgpd.api.limits import Pace
from bgpd.api.plan import plan
from bgpd.api.schema import Plan
from bgpd.family import parse_prefix
from bgpd.policy.terms import SourceKind
from bgpd.routes import LocalChange
from bgpd.settings import LearnSettings, SpeakerSettings

from .api_support import NODE, World, checked, static
from .test_api_server import ANY, asking, raw, serving

PATH = "/v1/plan"
EMPTY = {
    "node": "a", "running": True, "can_tell": True, "objects": [], "problems": [], "mended": [], "sessions": [],
    "routes": [], "settings": [], "tables": [], "kernel": [], "notes": [],
}  # fmt: skip


def proposing(world: World, settings: SpeakerSettings | None) -> None:
    def propose(body: bytes) -> tuple[dict[str, Any], SpeakerSettings | None]:
        if not isinstance(json.loads(body), dict):
            raise ValueError("a proposal is JSON")
        return {**EMPTY, "notes": []}, settings

    world.state.propose = propose


async def test_tables_are_worked_out_and_nothing_changes() -> None:
    world = World()
    routes = (*world.settings.static_routes, static("10.244.8.0/26"))
    proposing(world, evolve(world.settings, static_routes=routes))
    before = {family: dict(rib.table) for family, rib in world.host.speaker.ribs.items()}
    answer = await plan(world.state, b"{}", 100, Pace())
    checked(answer, Plan)
    told = {peer: table["announced"]["prefixes"] for table in answer["tables"] for peer in table["peers"]}
    assert told == {peer: ["10.244.8.0/26"] for peer in ("absent", "Mesh_10_0_0_2", "tor")}
    assert answer["kernel"][0]["added"] == {"count": 1, "prefixes": ["10.244.8.0/26"]}
    assert before == {family: dict(rib.table) for family, rib in world.host.speaker.ribs.items()}
    assert world.host.speaker.settings == world.settings


async def test_interfaces_that_are_ignored_take_their_routes_along(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    prefix = "10.244.200.0/24"
    family, key = parse_prefix(prefix)
    world.cluster.link(NODE, prefix)
    world.cluster.run(1)
    proposing(world, evolve(world.settings, learn=LearnSettings(ignored_interfaces=("eth*",))))
    gone = [LocalChange(SourceKind.DIRECT, family, key, None)]
    monkeypatch.setattr(world.state.kernel, "local_under", lambda learn: gone)
    answer = await plan(world.state, b"{}", 100, Pace())
    told = {peer: table["withdrawn"]["prefixes"] for table in answer["tables"] for peer in table["peers"]}
    assert told["tor"] == [prefix]
    assert answer["notes"] == [f"next hops that resolve through {prefix} are taken to stay as they are"]


async def test_the_socket_answers_and_the_limits_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    proposing(world, None)
    path = tmp_path / "sock"
    monkeypatch.setattr(server, "MAX_PROPOSAL", 1000)
    async with serving(world.state, path), asking(path) as session:
        url = f"http://localhost{PATH}"

        async def ask(**given: Any) -> tuple[int, str]:
            async with session.post(url, **given) as response:
                return response.status, (await response.json()).get("error", {}).get("code", "")

        assert await ask(json={}) == (200, "")
        assert await ask(json=[]) == (400, "bad-request")
        assert await ask(data=b"{}") == (400, "bad-request"), "a browser may send other types unasked"
        assert await ask(json={"objects": ["x" * 2000]}) == (413, "too-large")
        async with session.get(url) as response:
            assert response.status == 405
        async with session.post(f"{url}?limit=x", json={}) as response:
            assert response.status == 400
        world.state.propose = None
        assert await ask(json={}) == (400, "bad-request")


async def test_an_endless_body_is_cut_and_the_next_may_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    proposing(world, None)
    monkeypatch.setattr(server, "MAX_PROPOSAL", 1000)
    head = b"POST /v1/plan HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    async with serving(world.state, api=ANY) as made:
        where = made.addresses["api"]
        chunk = b"3e8\r\n" + b"x" * 1000 + b"\r\n"
        answer = await raw(where, head + b"Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n" + chunk * 2)
        assert b" 413 " in answer.split(b"\r\n")[0]
        answer = await raw(where, head + b"Content-Length: 2\r\nConnection: close\r\n\r\n{}")
        assert b" 200 " in answer.split(b"\r\n")[0]
        assert not made._planning


async def test_health_listeners_have_no_plan_and_a_token_is_asked_for(tmp_path: Path) -> None:
    world = World()
    proposing(world, None)
    token = tmp_path / "token"
    token.write_text("s" * 40)
    async with serving(world.state, health=ANY, api=ANY, token=token) as made, asking() as session:
        async with session.post(f"http://{made.addresses['health']}{PATH}", json={}) as response:
            assert response.status == 404
        async with session.post(f"http://{made.addresses['api']}{PATH}", json={}) as response:
            assert response.status == 401
        headers = {"Authorization": f"Bearer {'s' * 40}"}
        async with session.post(f"http://{made.addresses['api']}{PATH}", json={}, headers=headers) as response:
            assert response.status == 200


async def test_one_plan_at_a_time(tmp_path: Path) -> None:
    world = World()
    proposing(world, None)
    path = tmp_path / "sock"
    async with serving(world.state, path) as made, asking(path) as session:
        made._planning = True
        async with session.post(f"http://localhost{PATH}", json={}) as response:
            assert response.status == 429
        made._planning = False
        await asyncio.sleep(0)
