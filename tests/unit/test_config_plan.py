"""`bgpctl plan`: what it says, offline and of a running daemon, and its exit status."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from bgpd.api.schema import Plan
from config.bgpctl import offline_tables
from config.ctl_plan import make_plan
from config.plan import key_of, propose
from tests.unit.api_support import checked

EXAMPLE = f"file:{Path(__file__).parent.parent / 'data' / 'config' / 'worked-example'}"
HEAD = "apiVersion: projectcalico.org/v3\nkind: {}\nmetadata: {{name: {}}}\nspec: {}\n"
BLOCK = HEAD.format("BlockAffinity", "new", "{node: a, cidr: 10.244.9.0/26, state: confirmed}")
FILTER = HEAD.format("BGPFilter", "f", "{exportV4: [{action: Reject, cidr: 10.244.1.0/24, matchOperator: In}]}")


def peer(more: str = "") -> str:
    return HEAD.format("BGPPeer", "tor", f"{{peerIP: 10.0.0.1, asNumber: 65001{more}}}")


def bgpctl(*arguments: str, stdin: str = "", obj: object = None, datastore: str = EXAMPLE) -> Result:
    where = ["--datastore", datastore] if datastore else []
    group = click.Group(commands={"plan": make_plan(offline_tables)})
    return CliRunner().invoke(group, ["plan", *arguments, *where], input=stdin, obj=obj)


def plans(text: str, *arguments: str) -> dict[str, Any]:
    found = bgpctl("-f", "-", "-o", "json", *arguments, stdin=text)
    answer = json.loads(found.stdout)
    for plan in answer:
        checked(plan, Plan)
    return {plan["node"]: plan for plan in answer}


@pytest.mark.parametrize(
    ("text", "arguments", "status"),
    [
        (peer(), (), 0),
        (peer(", asNumbers: 1"), (), 0),
        (BLOCK, (), 3),
        (FILTER + "---\n" + peer(", filters: [f]"), (), 3),
        (peer(", ttlSecurity: 1"), (), 4),
        ("", ("--delete", "node/b"), 4),
        ("", ("--delete", "bgpp/none"), 1),
        ("", ("--delete", "none/none"), 2),
        (peer(", nextHopMode: Sideways"), (), 1),
        (HEAD.format("FelixConfiguration", "x", "{}"), (), 1),
        ("a: [", (), 1),
        ("", ("--to", EXAMPLE), 0),
        ("", ("--to", "file:/no/such/folder"), 1),
        (BLOCK, ("--node", "nobody"), 1),
    ],
)
def test_exit_status_tells_what_would_happen(text: str, arguments: tuple[str, ...], status: int) -> None:
    files = ("-f", "-") if text else ()
    found = bgpctl(*files, *arguments, stdin=text)
    assert found.exit_code == status, found.output


def test_nothing_proposed_or_a_node_without_a_datastore_is_wrong_usage() -> None:
    assert bgpctl().exit_code == 2
    assert bgpctl("-f", "-", "--node", "a", stdin=BLOCK, datastore="").exit_code == 2


def test_a_new_block_is_announced_to_every_peer_and_resets_none() -> None:
    plan = plans(BLOCK)["a"]
    assert plan["objects"] == [{"object": "BlockAffinity/new", "action": "created"}]
    assert plan["routes"] == [{"prefix": "10.244.9.0/26", "action": "added", "label": "own block 10.244.9.0/26"}]
    assert {session["action"] for session in plan["sessions"]} == {"changed"}
    told = {peer: table["announced"]["prefixes"] for table in plan["tables"] for peer in table["peers"]}
    assert told == {"Global_10_0_0_1": ["10.244.9.0/26"], "Mesh_10_0_0_9": ["10.244.9.0/26"]}
    assert plan["kernel"][0]["added"]["prefixes"] == ["10.244.9.0/26"]
    assert plans(BLOCK)["b"]["tables"] == [] and plans(BLOCK)["b"]["sessions"] == []


def test_what_resets_a_session_is_named() -> None:
    plan = plans(peer(", ttlSecurity: 1"), "--node", "a")["a"]
    (session,) = plan["sessions"]
    assert session["peer"] == "Global_10_0_0_1" and session["action"] == "reset"
    assert [(item["field"], item["cost"]) for item in session["settings"]] == [("ttl_security_hops", "reset")]


def test_a_changed_as_number_resets_every_session() -> None:
    default = HEAD.format("BGPConfiguration", "default", "{asNumber: 64599}")
    plan = plans(default)["a"]
    assert [(row["peer"], row["action"]) for row in plan["sessions"]] == [
        ("Global_10_0_0_1", "reset"),
        ("Mesh_10_0_0_9", "reset"),
    ]


def test_a_filter_withdraws_and_a_missing_one_is_noticed() -> None:
    plan = plans(FILTER + "---\n" + peer(", filters: [f]"), "--node", "a")["a"]
    told = {peer: table["withdrawn"]["prefixes"] for table in plan["tables"] for peer in table["peers"]}
    assert told == {"Global_10_0_0_1": ["10.244.1.0/26"]}
    missing = plans(peer(", filters: [nof]"), "--node", "a")["a"]
    assert [problem["field"] for problem in missing["problems"]] == ["spec.filters"]
    assert missing["tables"][0]["withdrawn"]["count"] == 1


def test_a_refused_object_keeps_its_last_good_version() -> None:
    plan = plans(peer(", nextHopMode: Sideways"), "--node", "a")["a"]
    assert plan["sessions"] == [] and plan["objects"][0]["action"] == "refused"
    assert plan["problems"][0]["field"] == "spec.nextHopMode"


def test_a_node_that_comes_and_one_that_goes() -> None:
    node = HEAD.format("Node", "c", "{bgp: {ipv4Address: 10.0.0.11/24}}")
    found = plans(node)
    assert [row["action"] for row in found["c"]["sessions"]] == ["added"] * 3
    assert [row["peer"] for row in found["a"]["sessions"] if row["action"] == "added"] == ["Mesh_10_0_0_11"]
    gone = json.loads(bgpctl("--delete", "node/b", "-o", "json").stdout)
    assert [plan["can_tell"] for plan in gone] == [True, False]


def test_passwords_are_hidden() -> None:
    secret = "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\nstringData: {k: hunter2}\n---\n"
    text = secret + peer(", password: {secretKeyRef: {name: s, key: k}}")
    for form in ("json", "table"):
        found = bgpctl("-f", "-", "-o", form, stdin=text)
        assert found.exit_code == 4 and "hunter2" not in found.output and "password" in found.output


def test_table_tells_alike_nodes_once() -> None:
    text = bgpctl("-f", "-", stdin=peer(", keepaliveTime: 7s")).stdout
    assert "configured BGPPeer/tor" in text and "Nodes a, b" in text and "keepalive_time: None -> 7" in text
    assert "Nothing changes on a, b." in bgpctl("--to", EXAMPLE).stdout


def test_a_running_daemon_is_asked_with_what_was_given() -> None:
    asked: list[Any] = []

    class Daemon:
        def plan(self, proposal: dict[str, Any], limit: int) -> Any:
            asked.append((proposal, limit))
            return plans(BLOCK)["a"]

    found = bgpctl("-f", "-", "--delete", "bgpp/tor", stdin=BLOCK, obj=Daemon(), datastore="")
    assert found.exit_code == 3 and "own block 10.244.9.0/26" in found.stdout
    ((proposal, limit),) = asked
    assert limit == 20 and proposal["delete"] == ["BGPPeer/tor"] and not proposal["whole"]
    assert proposal["objects"][0]["kind"] == "BlockAffinity"


def test_proposals_that_name_nothing() -> None:
    for bad in ("bgppeer", "bgppeer/", "what/x"):
        with pytest.raises(ValueError, match="KIND/NAME"):
            key_of(bad)
    for value in (1, None, {}, {"kind": "BGPPeer"}, {"kind": "X", "apiVersion": "v1"}):
        with pytest.raises(ValueError):
            propose([value])


def test_a_kernel_chain_is_shown_by_the_terms_that_differ() -> None:
    pool = HEAD.format("IPPool", "another", "{cidr: 10.99.0.0/16, vxlanMode: Always}")
    text = bgpctl("-f", "-", "--node", "a", stdin=pool).stdout
    assert "kernel chain ipv4" in text and "+ IPPool another: VXLAN, Felix programs it" in text
    assert "fib.chains" not in text
