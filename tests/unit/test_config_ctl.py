"""`bgpctl validate` and `bgpctl resolve`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
from click.testing import CliRunner, Result

from bgpd.options import version
from config.bgpctl import command_line
from config.copy import CopyFile
from config.ctl import commands, table
from config.files import FileDatastore

DATA = Path(__file__).parent.parent / "data" / "config"
EXAMPLE, BAD = str(DATA / "worked-example"), str(DATA / "bad")


def bgpctl(*arguments: str, env: dict[str, str] | None = None, stdin: str = "") -> Result:
    group = click.Group(commands={command.name or "": command for command in commands})
    return CliRunner().invoke(group, arguments, env=env, input=stdin)


def resolved(*arguments: str, env: dict[str, str] | None = None) -> Any:
    return json.loads(bgpctl("resolve", "--datastore", *arguments, "-o", "json", env=env).stdout)


def test_version_comes_without_a_daemon_and_before_anything_else() -> None:
    result = CliRunner().invoke(command_line(), ["--version", "nonsense"])
    assert result.exit_code == 0 and result.stdout == f"bgpctl {version()}\n"


def test_validate_names_file_line_object_field_value_and_allowed() -> None:
    found = bgpctl("validate", BAD)
    assert found.exit_code == 1
    assert "peers.yaml:16: BGPPeer/bad-as: spec.asNumber: is no AS number" in found.stdout
    assert "(value 'abc'); allowed: an AS number 1-4294967295" in found.stdout
    assert "peers.yaml:25: BGPPeer/bad-mode: spec.nextHopMode" in found.stdout
    assert "allowed: Auto, Self, Keep" in found.stdout
    assert "peers.yaml:29: not readable as YAML" in found.stdout
    assert "2 objects good, 2 refused" in found.stdout


def test_validate_good_files() -> None:
    found = bgpctl("validate", EXAMPLE, f"{EXAMPLE}/nodes.yaml")
    assert found.exit_code == 0 and found.stdout == "7 objects good, 0 refused, 0 notices\n"


def test_validate_of_a_folder_without_files_says_so(tmp_path: Path) -> None:
    (tmp_path / "peers.txt").write_text(Path(EXAMPLE, "nodes.yaml").read_text())
    found = bgpctl("validate", str(tmp_path))
    assert found.exit_code == 0 and "0 objects good, 0 refused, 1 notice" in found.stdout
    assert (
        f"notice: {tmp_path}: holds no resource file; allowed: files that end in .yaml, .yml or .json" in found.stdout
    )


def test_validate_finds_objects_in_two_files(tmp_path: Path) -> None:
    copy = tmp_path / "copy.yaml"
    copy.write_text(Path(EXAMPLE, "nodes.yaml").read_text())
    found = bgpctl("validate", EXAMPLE, str(copy))
    assert found.exit_code == 1 and "Node/a: metadata.name" in found.stdout


def test_validate_as_json_and_missing_file() -> None:
    found = bgpctl("validate", "-o", "json", f"{EXAMPLE}/none.yaml")
    assert found.exit_code == 1
    (problem,) = json.loads(found.stdout)["problems"]
    assert problem["text"] == "cannot be read: No such file or directory"


def test_resolve_table() -> None:
    found = bgpctl("resolve", "--datastore", f"file:{EXAMPLE}", "--node", "a")
    assert found.exit_code == 0
    assert "AS 64512  router id 10.0.0.10" in found.stdout
    assert "Mesh_10_0_0_9" in found.stdout and "Global_10_0_0_1" in found.stdout
    assert "10.244.1.0/26  blackhole" in found.stdout
    assert "own block 10.244.1.0/26: covers this address" in found.stdout


def test_resolve_json() -> None:
    shown = resolved(f"file:{EXAMPLE}", "--node", "b", env={"CALICO_ROUTER_ID": "1.2.3.4"})
    assert shown["problems"] == [] and shown["settings"]["router_id"] == "1.2.3.4"
    assert [peer["name"] for peer in shown["settings"]["peers"]] == ["Global_10_0_0_1", "Mesh_10_0_0_10"]
    assert shown["settings"]["static_routes"] == [
        {"prefix": "10.244.2.0/26", "kind": "blackhole", "gateway": None, "label": "own block 10.244.2.0/26"}
    ]


def test_resolve_hides_passwords(tmp_path: Path) -> None:
    tmp_path.joinpath("x.yaml").write_text(
        "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\nstringData: {k: hunter2}\n---\n"
        "apiVersion: projectcalico.org/v3\nkind: BGPPeer\nmetadata: {name: x}\n"
        "spec: {peerIP: 192.0.2.1, asNumber: 65001, password: {secretKeyRef: {name: s, key: k}}}\n---\n"
        "apiVersion: projectcalico.org/v3\nkind: Node\nmetadata: {name: a}\nspec: {bgp: {ipv4Address: 10.0.0.1}}\n"
    )
    shown = resolved(f"file:{tmp_path}", "--node", "a")
    assert shown["settings"]["peers"][0]["password"] == "(hidden)"
    assert "hunter2" not in json.dumps(shown)
    assert "hunter2" not in bgpctl("resolve", "--datastore", f"file:{tmp_path}", "--node", "a").output


def test_resolve_says_what_is_missing() -> None:
    found = bgpctl("resolve", "--datastore", f"file:{EXAMPLE}", "--node", "nobody")
    assert found.exit_code == 1 and "nodes known: a, b" in found.stderr
    found = bgpctl("resolve", "--datastore", "file:/no/such/folder", "--node", "a")
    assert found.exit_code == 1 and "create it or name another folder" in found.stderr
    found = bgpctl("resolve", "--datastore", "ftp://x", "--node", "a")
    assert found.exit_code == 1 and "is none that can be read; allowed: file:DIR" in found.stderr
    assert bgpctl("resolve", "--node", "a", env={"DATASTORE_TYPE": ""}).exit_code == 2
    assert bgpctl("resolve", "--datastore", f"file:{EXAMPLE}", env={"NODENAME": ""}).exit_code == 2


def test_resolve_from_the_last_good_copy(tmp_path: Path) -> None:
    kept = FileDatastore(EXAMPLE).load()
    CopyFile(str(tmp_path), "a", "etcd").write(kept.objects, 1_700_000_000.0)
    found = bgpctl("resolve", "--last-good-copy", str(tmp_path), "--node", "a", "-o", "json")
    assert found.exit_code == 0 and "true at " in found.stderr
    assert json.loads(found.stdout)["settings"] == resolved(f"file:{EXAMPLE}", "--node", "a")["settings"]
    assert bgpctl("resolve", "--last-good-copy", str(tmp_path), "--node", "b").exit_code == 1


def test_validate_sees_what_only_several_objects_show() -> None:
    text = (
        "apiVersion: projectcalico.org/v3\nkind: BGPPeer\nmetadata: {name: x}\n"
        "spec: {peerIP: 192.0.2.1, asNumber: 65001, node: nobody, filters: [none],\n"
        "  password: {secretKeyRef: {name: s, key: k}}}\n---\n"
        "apiVersion: projectcalico.org/v3\nkind: IPPool\nmetadata: {name: p1}\nspec: {cidr: 10.0.0.0/8}\n---\n"
        "apiVersion: projectcalico.org/v3\nkind: IPPool\nmetadata: {name: p2}\nspec: {cidr: 10.1.0.0/16}\n---\n"
        "apiVersion: projectcalico.org/v3\nkind: Node\nmetadata: {name: a}\nspec: {bgp: {ipv4Address: 10.0.0.1}}\n"
    )
    found = bgpctl("validate", "-", stdin=text)
    assert found.exit_code == 0 and "4 objects good, 0 refused, 4 notices" in found.stdout
    for words in (
        "standard input:4: BGPPeer/x: spec.filters: names a BGPFilter that is not among the resources",
        "standard input:4: BGPPeer/x: spec.node: is no Node among the resources",
        "standard input:5: BGPPeer/x: spec.password.secretKeyRef.name: names a Secret that is not among",
        "IPPool/p2: spec.cidr: overlaps with IPPool p1 (10.0.0.0/8)",
    ):
        assert words in found.stdout, found.stdout


def test_table_aligns() -> None:
    assert table(("A", "B"), [("long", 1)]) == ["A     B", "long  1"]
