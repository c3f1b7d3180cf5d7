"""Readiness and liveness, with reasons."""

from __future__ import annotations

from typing import Any

from attrs import evolve

from bgpd.api.health import ALIVE_TIME, liveness, readiness
from bgpd.api.schema import Health
from bgpd.api.state import DaemonState, no_datastore
from bgpd.settings import PeerSettings, SpeakerSettings
from bgpd.speaker import Speaker

from .api_support import FakeKernel, World, checked

PEER = PeerSettings("p", "10.0.0.9", 64512)


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def _state(clock: Clock, **changes: Any) -> tuple[DaemonState, SpeakerSettings]:
    state = DaemonState("node-a", "1", clock=clock)
    settings = evolve(SpeakerSettings(64512, "10.0.0.1", peers=(PEER,)), **changes)
    return state, settings


def _failed(health: Health) -> list[str]:
    checked(health, Health)
    assert health["ok"] == all(check["ok"] for check in health["checks"])
    return [check["name"] for check in health["checks"] if not check["ok"]]


def test_each_step_of_a_start_takes_one_reason_away() -> None:
    clock = Clock()
    state, settings = _state(clock)
    assert _failed(readiness(state)) == ["configuration", "kernel", "sessions"]
    speaker = state.speaker = Speaker(settings, clock.now, lambda: 1.0)
    assert _failed(readiness(state)) == ["kernel", "sessions"]
    state.kernel = FakeKernel(settings)
    assert _failed(readiness(state)) == ["sessions"]
    speaker.start(clock.now)
    assert _failed(readiness(state)) == ["sessions"], "the restart phase is on, and no session is up"
    while speaker.restart.active:
        clock.now += 1
        speaker.on_tick(clock.now)
    assert _failed(readiness(state)) == []


def test_no_kernel_role_and_no_peers_are_ready_at_once() -> None:
    clock = Clock()
    state, settings = _state(clock, peers=())
    state.kernel_wanted = False
    state.speaker = Speaker(settings, clock.now, lambda: 1.0)
    state.speaker.start(clock.now)
    assert readiness(state)["ok"]


def test_dynamic_peers_are_counted_with_the_others() -> None:
    clock = Clock()
    state, settings = _state(clock, dynamic=(("10.9.0.0/16", evolve(PEER, name="client")),))
    state.kernel_wanted = False
    speaker = state.speaker = Speaker(settings, clock.now, lambda: 1.0)
    speaker.start(clock.now)
    assert readiness(state)["checks"][2] == {"name": "sessions", "ok": True, "text": "0 of 1 sessions are established"}
    speaker.peers["client"] = speaker.peers["p"]
    assert readiness(state)["checks"][2]["text"] == "0 of 2 sessions are established"
    speaker.peers.clear()
    assert readiness(state)["checks"][2]["text"] == "no dynamic peer is connected"


def test_one_session_is_enough() -> None:
    world = World()
    assert world.host.speaker.restart.active
    assert readiness(world.state)["ok"]


def test_the_reason_of_a_silent_datastore_is_told() -> None:
    state, _ = _state(Clock())
    state.datastore = lambda: {**no_datastore("file:/etc/calico"), "connected": False, "text": "permission denied"}
    text = readiness(state)["checks"][0]["text"]
    assert text == "no snapshot from file:/etc/calico: permission denied"


def test_live_while_the_runner_turns() -> None:
    clock = Clock()
    state, _ = _state(clock)
    state.alive_at = lambda: 1000.0
    clock.now = 1000.0 + ALIVE_TIME
    assert liveness(state)["ok"]
    clock.now += 1
    assert _failed(liveness(state)) == ["loop"]
    assert "31 s" in liveness(state)["checks"][0]["text"]
