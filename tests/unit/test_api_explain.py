"""explain: each prefix's way is told to its end, and the first thing that stopped it is named."""

from __future__ import annotations

import pytest
from attrs import evolve

from bgpd.api.explain import explain
from bgpd.api.limits import Pace
from bgpd.api.lookup import Refused
from bgpd.api.schema import Explain
from bgpd.ctl.story import story

from .api_support import World, checked


@pytest.fixture(scope="module")
def world() -> World:
    return World({"10.60.0.0/16": (101, "Network is unreachable")})


async def _explain(world: World, prefix: str, peer: str = "") -> Explain:
    answer = await explain(world.state, prefix, peer, Pace())
    checked(answer, Explain)
    return answer


async def test_a_losing_path_carries_the_step_that_the_decision_itself_named(world: World) -> None:
    answer = await _explain(world, "10.60.0.0/16")
    best, other = answer["paths"]
    assert best["rank"] == 1 and best["route"]["best"] and best["lost_step"] is None
    assert other["rank"] == 2 and other["lost_step"] == "AS_PATH length"
    assert other["lost_text"] == "1, the best has 0"


async def test_a_refused_kernel_route_is_told_with_errno_and_time(world: World) -> None:
    answer = await _explain(world, "10.60.0.0/16")
    assert answer["kernel"] is not None
    assert (answer["kernel"]["state"], answer["kernel"]["errno"]) == ("refused", 101)
    assert answer["kernel"]["retry_in"] is not None
    assert answer["stopped"] == "It is not in the kernel: Network is unreachable."


async def test_a_rejected_path_names_the_rule(world: World) -> None:
    answer = await _explain(world, "0.0.0.0/0")
    assert answer["present"]
    assert [path["verdict"] for path in answer["paths"]] == ["rejected"]
    assert answer["stopped"] == "Import refused every path: BGPFilter no-default, rule 1."


async def test_an_unresolved_next_hop_is_told(world: World) -> None:
    answer = await _explain(world, "10.70.0.0/16")
    path = answer["paths"][0]
    assert not path["resolved"] and path["rank"] is None
    assert path["next_hop"] == "192.0.2.77: no local route covers it"
    assert answer["stopped"].startswith("No path has a usable next hop: 192.0.2.77")


async def test_attributes_before_and_after_import(world: World) -> None:
    path = (await _explain(world, "10.50.1.0/24"))["paths"][0]
    assert path["received_attributes"] is not None
    assert path["received_attributes"]["local_pref"] is None
    assert path["route"]["attributes"]["local_pref"] == 300


async def test_each_peer_is_told_or_withheld_with_the_rule(world: World) -> None:
    told = {peer["peer"]: peer for peer in (await _explain(world, "10.244.1.0/26"))["peers"]}
    assert told["tor"]["announced"] and told["tor"]["rule"] == "BGPFilter tag, rule 2"
    assert told["tor"]["attributes"] is not None
    assert told["tor"]["attributes"]["communities"] == ["64512:100"]
    assert told["absent"]["text"].startswith("no session (state")
    hidden = await _explain(world, "10.244.7.0/26", "tor")
    assert [peer["text"] for peer in hidden["peers"]] == ["withheld: BGPFilter hide, rule 1"]
    assert hidden["stopped"] == "It is not announced to tor: BGPFilter hide, rule 1."


async def test_a_path_is_not_sent_back_to_where_it_came_from(world: World) -> None:
    answer = await _explain(world, "10.244.2.0/26", "10.0.0.2")
    assert answer["peers"][0]["text"] == "withheld: the path comes from this peer"
    answer = await _explain(world, "10.50.1.0/24", "tor")
    assert not answer["peers"][0]["announced"]


async def test_what_is_not_there_is_told_with_what_covers_it(world: World) -> None:
    answer = await _explain(world, "10.244.1.6/32")
    assert not answer["present"] and answer["covering"] == "10.244.1.0/26"
    assert answer["stopped"] == (
        "No peer has announced it (2 of 3 sessions are established), and it is no local route; 10.244.1.0/26 covers it."
    )
    assert (await _explain(world, "11.0.0.0/8"))["covering"] is None


async def test_a_route_that_reached_everything_has_no_stop(world: World) -> None:
    answer = await _explain(world, "10.244.1.0/26")
    assert answer["stopped"] == ""


async def test_a_route_of_another_node_is_told_nobody_and_nothing_is_wrong(world: World) -> None:
    external = await _explain(world, "10.50.1.0/24")
    assert not any(peer["announced"] for peer in external["peers"])
    assert external["stopped"].startswith("It is announced to no peer")
    other = World()
    answer = await explain(other.state, "10.60.0.0/16", "", Pace())
    assert answer["paths"][0]["route"]["source"]["kind"] == "ibgp" and answer["stopped"] == ""


@pytest.mark.parametrize("text", ["", "10.0.0.0/33", "x", "10.0.0.0/8/8", "10.0.0.0/8\n", "fd00::/129", "\0"])
async def test_a_malformed_prefix_is_refused(world: World, text: str) -> None:
    with pytest.raises(Refused, match="is not a prefix") as caught:
        await explain(world.state, text, "", Pace())
    assert caught.value.code == "bad-request"


async def test_the_story_tells_it_all_in_lines_that_fit(world: World) -> None:
    for prefix in ("10.60.0.0/16", "0.0.0.0/0", "10.70.0.0/16", "10.50.1.0/24", "10.244.1.0/26", "11.0.0.0/8"):
        for width in (60, 80, 120):
            lines = list(story(await _explain(world, prefix), width))
            assert lines[0].startswith(prefix)
            assert all(len(line) <= width for line in lines if "  " in line), lines
    text = "\n".join(story(await _explain(world, "10.60.0.0/16"), 120))
    for words in ("loses at the step “AS_PATH length”", "refused: via 10.0.0.2 dev eth0", "(errno 101)"):
        assert words in text


async def test_many_peers_of_one_answer_are_counted(world: World) -> None:
    answer = await _explain(world, "10.244.1.0/26")
    answer["peers"] = [{**answer["peers"][0], "peer": f"p{i}"} for i in range(500)]
    lines = list(story(answer))
    assert any("p0 and 499 more" in line for line in lines)
    assert len(lines) < 30


async def test_what_would_let_it_through_is_asked_of_who_knows(world: World) -> None:
    asked: list[str] = []

    def advice(reason: str) -> str:
        asked.append(reason)
        return f"advice on {reason}"

    world.state.advice = advice
    try:
        hidden = await _explain(world, "10.244.7.0/26", "tor")
        assert hidden["peers"][0]["hint"] == "advice on BGPFilter hide, rule 1" == hidden["hint"]
        rejected = await _explain(world, "0.0.0.0/0")
        assert rejected["paths"][0]["hint"] == "advice on BGPFilter no-default, rule 1" == rejected["hint"]
        unresolved = await _explain(world, "10.70.0.0/16")
        assert unresolved["paths"][0]["hint"].startswith("advice on 192.0.2.77: no local route covers it")
        refused = await _explain(world, "10.60.0.0/16")
        assert refused["kernel_hint"] == "advice on the kernel refuses it: Network is unreachable" == refused["hint"]
        missing = await _explain(world, "11.0.0.0/8")
        assert missing["hint"] == "advice on no route of this host"
        kernel, world.state.kernel = world.state.kernel, None
        try:
            # A reflector has no Felix beside it.
            assert (await _explain(world, "11.0.0.0/8"))["hint"] == "advice on no route of a peer"
        finally:
            world.state.kernel = kernel
        told = await _explain(world, "10.244.1.0/26", "tor")
        assert (told["hint"], told["peers"][0]["hint"], told["kernel_hint"]) == ("", "", "")
        lines = "\n".join(story(hidden))
        assert "-> would let it through: advice on BGPFilter hide, rule 1" in lines
    finally:
        world.state.advice = lambda reason: ""


async def test_who_might_have_announced_what_is_not_there(world: World) -> None:
    answer = await _explain(world, "11.0.0.0/8")
    silent = {peer["peer"]: peer["text"] for peer in answer["silent"]}
    assert silent["absent"].startswith("no session (state")
    assert silent["tor"].startswith("has sent 3 other ipv4 routes, and its End-of-RIB")
    assert (await _explain(world, "10.60.0.0/16"))["silent"] == []
    assert any("absent: no session" in line for line in story(answer))


async def test_a_learned_path_tells_how_long_its_session_is_up(world: World) -> None:
    answer = await _explain(world, "10.60.0.0/16")
    assert all(path["session_uptime"] is not None for path in answer["paths"])
    assert (await _explain(world, "10.244.1.0/26"))["paths"][0]["session_uptime"] is None


async def test_a_held_peer_and_our_own_restart_are_told(world: World) -> None:
    peer = world.host.speaker.peers["absent"]
    before = peer.settings
    peer.settings = evolve(before, disabled="its password is missing")
    try:
        told = {one["peer"]: one["text"] for one in (await _explain(world, "10.244.1.0/26"))["peers"]}
        assert told["absent"] == "held down: its password is missing"
    finally:
        peer.settings = before
