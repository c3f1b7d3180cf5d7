"""`bgpctl get`, `apply`, `create`, `replace`, `delete` and `export` on a folder; etcd's are in tests/interop."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

import click
import pytest
import yaml
from click.testing import CliRunner, Result

from config.ctl import commands
from config.kinds import KINDS, find_kind
from config.resources import KINDS as READ

EXAMPLE = Path(__file__).parent.parent / "data" / "config" / "worked-example"
PEER = (
    "apiVersion: projectcalico.org/v3\nkind: BGPPeer\nmetadata: {{name: {}}}\n"
    "spec: {{peerIP: 10.0.0.7, asNumber: {}}}\n"
)
SECRET = "apiVersion: v1\nkind: Secret\nmetadata: {name: s, namespace: kube-system}\nstringData: {k: hunter2}\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    found = tmp_path / "resources"
    found.mkdir()
    for path in EXAMPLE.iterdir():
        (found / path.name).write_text(path.read_text())
    return found


def bgpctl(folder: Path, *arguments: str, stdin: str = "") -> Result:
    group = click.Group(commands={command.name or "": command for command in commands})
    return CliRunner().invoke(group, [*arguments, "--datastore", f"file:{folder}"], input=stdin)


def lines(folder: Path, *arguments: str) -> list[list[str]]:
    found = bgpctl(folder, *arguments)
    assert found.exit_code == 0, found.output
    return [line.split() for line in found.stdout.splitlines()]


def test_every_kind_that_is_read_has_columns_and_every_alias_one_kind() -> None:
    assert sorted(kind.name for kind in KINDS) == sorted(READ)
    aliases = [alias for kind in KINDS for alias in kind.aliases]
    assert len(aliases) == len(set(aliases))
    for text, name in (
        ("BGPP", "BGPPeer"),
        ("bfs", "BGPFilter"),
        ("pool", "IPPool"),
        ("NodeStatus", "CalicoNodeStatus"),
    ):
        found = find_kind(text)
        assert found is not None and found.name == name


def test_columns_are_calicoctls(folder: Path) -> None:
    assert lines(folder, "get", "bgppeers") == [
        ["NAME", "PEERIP", "NODE", "ASN"],
        ["tor", "10.0.0.1", "(global)", "65001"],
    ]
    assert lines(folder, "get", "nodes") == [["NAME"], ["a"], ["b"]]
    assert lines(folder, "get", "nodes", "-o", "wide")[1] == ["a", "(64512)", "10.0.0.10/24"]
    assert lines(folder, "get", "ippool", "-o", "wide") == [
        ["NAME", "CIDR", "NAT", "IPIPMODE", "VXLANMODE", "DISABLED", "DISABLEBGPEXPORT", "SELECTOR", "ASSIGNMENTMODE"],
        ["pods", "10.244.0.0/16", "false", "Never", "Never", "false", "false", "all()", "Automatic"],
    ]
    assert lines(folder, "get", "bgpconfig") == [
        ["NAME", "LOGSEVERITY", "MESHENABLED", "ASNUMBER"],
        ["default", "-", "64512"],
    ]
    assert lines(folder, "get", "bgpfilters") == [["NAME", "NUMEXPORTV4", "NUMIMPORTV4", "NUMEXPORTV6", "NUMIMPORTV6"]]
    assert lines(folder, "get", "bgppeer", "-o", "custom-columns=asn,name")[1] == ["65001", "tor"]
    assert lines(folder, "get", "nodes", "-o", "name") == [["node/a"], ["node/b"]]


def test_yaml_and_json_of_one_and_of_several(folder: Path) -> None:
    one = json.loads(bgpctl(folder, "get", "node", "a", "-o", "json").stdout)
    assert one["kind"] == "Node" and one["metadata"]["name"] == "a"
    several = yaml.safe_load(bgpctl(folder, "get", "node", "-o", "yaml").stdout)
    assert several["kind"] == "NodeList" and [item["metadata"]["name"] for item in several["items"]] == ["a", "b"]
    again = bgpctl(folder, "apply", "-f", "-", stdin=bgpctl(folder, "get", "node", "-o", "yaml").stdout)
    assert again.exit_code == 0 and again.stdout == "Successfully applied 2 'Node' resource(s)\n"


def test_labels_are_written_as_text(folder: Path) -> None:
    """calicoctl reads `yes` as true and writes "true", for labels hold nothing but text."""
    labels = "{reflector: yes, rack: 7, on: 'off'}"
    node = f"kind: Node\napiVersion: projectcalico.org/v3\nmetadata: {{name: c, labels: {labels}}}\n"
    assert bgpctl(folder, "apply", "-f", "-", stdin=node).exit_code == 0
    found = json.loads(bgpctl(folder, "get", "node", "c", "-o", "json").stdout)
    assert found["metadata"]["labels"] == {"reflector": "true", "rack": "7", "on": "off"}


def test_what_is_not_there_is_told(folder: Path) -> None:
    found = bgpctl(folder, "get", "node", "a", "nobody")
    assert found.exit_code == 1 and "resource does not exist: Node(nobody)" in found.stderr and "a" in found.stdout
    assert bgpctl(folder, "get", "nonsense").exit_code == 2
    assert bgpctl(folder, "get").exit_code == 2
    assert bgpctl(folder, "get", "node", "-o", "xml").exit_code == 2
    assert bgpctl(folder, "get", "node", "-o", "custom-columns=zzz").exit_code == 2
    assert bgpctl(folder, "delete", "node").exit_code == 2


def test_apply_create_replace_delete_in_calicoctls_words(folder: Path) -> None:
    peers = "---\n".join(PEER.format(name, 65001) for name in ("p1", "p2"))
    assert bgpctl(folder, "replace", "-f", "-", stdin=peers).exit_code == 1
    assert bgpctl(folder, "create", "-f", "-", stdin=peers).stdout == "Successfully created 2 'BGPPeer' resource(s)\n"
    again = bgpctl(folder, "create", "-f", "-", stdin=peers)
    assert (
        again.exit_code == 1
        and "Failed to create any 'BGPPeer' resources: resource already exists: BGPPeer(p1)" in (again.stderr)
    )
    skipped = bgpctl(folder, "create", "--skip-exists", "-f", "-", stdin=peers)
    assert skipped.exit_code == 0 and "2 passed over: there already" in skipped.stderr
    partial = bgpctl(folder, "replace", "-f", "-", stdin=f"{peers}---\n{PEER.format('p3', 1)}")
    assert partial.exit_code == 1
    assert partial.stdout == "Partial success: replaced the first 2 out of 3 'BGPPeer' resources:\n"
    assert "Hit error: resource does not exist: BGPPeer(p3)" in partial.stderr
    assert bgpctl(folder, "delete", "bgpp", "p1", "p2").stdout == "Successfully deleted 2 'BGPPeer' resource(s)\n"
    assert bgpctl(folder, "delete", "bgpp", "p1").exit_code == 1
    assert bgpctl(folder, "delete", "bgpp", "p1", "--skip-not-exists").exit_code == 0
    assert [row[0] for row in lines(folder, "get", "bgppeers")] == ["NAME", "tor"]


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (PEER.format("bad", "abc"), "BGPPeer/bad: spec.asNumber: is no AS number"),
        ("apiVersion: projectcalico.org/v3\nkind: FelixConfiguration\nmetadata: {name: x}\n", "is not read by BGP"),
        ("a: [", "not readable as YAML"),
        ("", "hold no objects"),
        (PEER.format("good", 2), "is in standard input too"),
    ],
)
def test_nothing_is_written_where_one_object_is_wrong(folder: Path, bad: str, words: str) -> None:
    good = "" if not bad else PEER.format("good", 65001) + "---\n"
    found = bgpctl(folder, "apply", "-f", "-", stdin=good + bad)
    assert found.exit_code == 1 and words in found.stderr and "nothing was done" in found.stderr
    assert [row[0] for row in lines(folder, "get", "bgppeers")] == ["NAME", "tor"]


def test_lists_folders_and_several_files(folder: Path, tmp_path: Path) -> None:
    given = tmp_path / "given"
    given.mkdir()
    items = [yaml.safe_load(PEER.format(name, 65001)) for name in ("l1", "l2")]
    (given / "list.json").write_text(json.dumps({"kind": "List", "apiVersion": "v1", "items": items}))
    (given / "one.yaml").write_text(PEER.format("l3", 65001))
    assert bgpctl(folder, "apply", "-f", str(given)).stdout == "Successfully applied 3 'BGPPeer' resource(s)\n"
    found = bgpctl(folder, "get", "-f", str(given / "list.json"), "-o", "name")
    assert found.stdout.split() == ["bgppeer/l1", "bgppeer/l2"]
    assert bgpctl(folder, "delete", "-f", str(given)).exit_code == 0


def test_yaml_that_begins_with_a_brace_is_yaml(folder: Path, tmp_path: Path) -> None:
    peer = (
        "{apiVersion: projectcalico.org/v3, kind: BGPPeer, metadata: {name: %s}, spec: {peerIP: 10.0.0.9, asNumber: 1}}"
    )
    (tmp_path / "flow.yaml").write_text(f"{peer % 'p1'}\n---\n{peer % 'p2'}\n")
    assert bgpctl(folder, "apply", "-f", str(tmp_path / "flow.yaml")).stdout.startswith("Successfully applied 2 ")
    assert bgpctl(folder, "apply", "-f", "-", stdin=peer % "p3").exit_code == 0
    as_json = json.dumps(yaml.safe_load(peer % "p4"), indent="\t")
    assert bgpctl(folder, "apply", "-f", "-", stdin=as_json).exit_code == 0
    assert {row[0] for row in lines(folder, "get", "bgppeers")} >= {"p1", "p2", "p3", "p4"}


def test_export_gives_the_same_node_and_hides_secrets(folder: Path, tmp_path: Path) -> None:
    (folder / "secret.yaml").write_text(SECRET)
    out = tmp_path / "out"
    found = bgpctl(folder, "export", str(out))
    assert found.exit_code == 0 and not (out / "secret.yaml").exists()
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in out.iterdir())
    assert bgpctl(folder, "export", str(out)).exit_code == 1
    assert bgpctl(folder, "export", "--force", "--secrets", str(out)).exit_code == 0
    assert "hunter2" in (out / "secret.yaml").read_text()

    def view(of: Path) -> Any:
        return bgpctl(of, "resolve", "--node", "a", "-o", "json").stdout

    assert view(out) == view(folder)
    empty = tmp_path / "empty"
    empty.mkdir()
    assert bgpctl(empty, "export", str(tmp_path / "none")).exit_code == 1


def test_secrets_are_shown_only_when_asked_for(folder: Path) -> None:
    (folder / "secret.yaml").write_text(SECRET)
    assert "hunter2" not in bgpctl(folder, "get", "secret", "-o", "yaml").stdout
    assert "hunter2" in bgpctl(folder, "get", "secrets", "kube-system/s", "-o", "yaml", "--secrets").stdout


FILTERED = PEER.format("f", 65001).replace("65001}", "65001, filters: [x]}")
POOL = "apiVersion: projectcalico.org/v3\nkind: IPPool\nmetadata: {{name: pods}}\nspec: {{cidr: {}}}\n"


@pytest.mark.parametrize("verb", ["apply", "create"])
def test_a_peer_whose_filter_is_not_there_is_not_written(folder: Path, verb: str) -> None:
    found = bgpctl(folder, verb, "-f", "-", stdin=FILTERED)
    assert found.exit_code == 1 and "BGPPeer(f): spec.filters names x" in found.stderr
    assert lines(folder, "get", "bgppeers", "-o", "name") == [["bgppeer/tor"]]
    filter = "---\napiVersion: projectcalico.org/v3\nkind: BGPFilter\nmetadata: {name: x}\nspec: {}\n"
    assert bgpctl(folder, verb, "-f", "-", stdin=FILTERED + filter).exit_code == 0
    # Now it is there.
    assert bgpctl(folder, "apply", "-f", "-", stdin=FILTERED).exit_code == 0


@pytest.mark.parametrize("verb", ["apply", "replace"])
def test_addresses_of_a_pool_cannot_change(folder: Path, verb: str) -> None:
    for spec, field in (("10.245.0.0/16", "cidr"), ("10.244.0.0/16, blockSize: 28", "blockSize")):
        found = bgpctl(folder, verb, "-f", "-", stdin=POOL.format(spec))
        assert found.exit_code == 1 and f"IPPool(pods): spec.{field} cannot be changed" in found.stderr
    assert bgpctl(folder, verb, "-f", "-", stdin=POOL.format("10.244.0.0/16, blockSize: 26")).exit_code == 0
    assert bgpctl(folder, "create", "-f", "-", "--skip-exists", stdin=POOL.format("10.245.0.0/16")).exit_code == 0
