"""Calico's environment variables: the table tells the truth, about the code and in the docs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from bgpd.options import own_name
from config import environment
from config.environment import TABLE, Fate, ignored, log_severity, node_name
from config.resources import LogSeverity

ROOT = Path(__file__).resolve().parents[2]


def sources() -> str:
    """All of the program but the table itself."""
    files = [path for package in ("bgpd", "config", "reflector") for path in (ROOT / package).rglob("*.py")]
    return "\n".join(path.read_text() for path in files if path != Path(environment.__file__))


def test_what_is_said_to_be_read_is_in_the_code() -> None:
    code = sources() + (ROOT / "config/environment.py").read_text().partition("def ignored")[2]
    for row in TABLE:
        name = row.name.removeprefix("CALICO_") if row.name.startswith("CALICO_ETCD_") else row.name
        # config.etcd_client puts the names together.
        quoted = f'"{name.removeprefix("ETCD_")}"' if name.startswith("ETCD_") else f'"{name}"'
        if row.fate is Fate.READ:
            assert quoted in code or f'"{name}"' in code, f"{row.name} is not read anywhere"


def test_no_variable_is_there_twice() -> None:
    names = [row.name for row in TABLE]
    assert len(names) == len(set(names))


def test_the_docs_have_every_row() -> None:
    text = (ROOT / "docs/calico-node.md").read_text()
    shown = set(re.findall(r"^\| `([A-Z0-9_*]+)` \| (\w+) \| (.*) \|$", text, re.M))
    assert shown == {(row.name, row.fate.value, row.text) for row in TABLE}


def test_typha_is_named_once() -> None:
    env = {"FELIX_TYPHAADDR": "10.0.0.1:5473", "CONFD_TYPHACN": "typha", "CONFD_TYPHACAFILE": "", "IP": "autodetect"}
    (reason,) = ignored(env)
    assert reason.startswith("Typha is not spoken")
    assert ignored(env)[reason] == ["FELIX_TYPHAADDR", "CONFD_TYPHACN"]


def test_the_nodes_name_has_an_order() -> None:
    everything = {"NODENAME": "Named", "HOSTNAME": "Host-A"}
    assert node_name(everything, "filed\n", "Real") == "Named"
    assert node_name({"HOSTNAME": "Host-A"}, "filed\n", "Real") == "filed"
    assert node_name({"HOSTNAME": "Host-A"}, "", "Real") == "host-a"
    assert node_name({}, "", "Real.Example") == "real.example"


def test_the_nodename_file_may_be_elsewhere(tmp_path: Path) -> None:
    path = tmp_path / "nodename"
    env = {"CALICO_NODENAME_FILE": str(path), "HOSTNAME": "host"}
    assert own_name(env) == "host"
    path.write_text("node-7\n")
    assert own_name(env) == "node-7"
    path.write_bytes(b"\xff\xfe")
    assert own_name(env) == "host"


@pytest.mark.parametrize(
    ("text", "severity"), [("debug", LogSeverity.DEBUG), ("Warning", LogSeverity.WARNING), ("", None), ("loud", None)]
)
def test_log_level(text: str, severity: LogSeverity | None) -> None:
    assert log_severity({"BGP_LOGSEVERITYSCREEN": text}) is severity
