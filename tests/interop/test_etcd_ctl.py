"""bgpctl's verbs against a real etcd: what is written is what calicoctl writes, and conflicts are seen."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from config.ctl import commands
from tests.interop.etcd_server import EtcdServer

pytestmark = pytest.mark.interop
EXAMPLE = Path(__file__).parent.parent / "data" / "config" / "worked-example"


def bgpctl(url: str, *arguments: str, stdin: str = "") -> Result:
    group = click.Group(commands={command.name or "": command for command in commands})
    return CliRunner().invoke(group, [*arguments, "--datastore", url], input=stdin)


def test_verbs_on_etcd(tmp_path: Path) -> None:
    (tmp_path / "etcd").mkdir()
    server = EtcdServer(tmp_path / "etcd")
    try:
        asyncio.run(server.start())
        url = server.url
        applied = bgpctl(url, "apply", "-f", str(EXAMPLE))
        assert applied.stdout == "Successfully applied 7 resource(s)\n", applied.output
        assert bgpctl(url, "get", "bgpp").stdout.split() == ["NAME", "PEERIP", "NODE", "ASN", "tor", "10.0.0.1",
                                                             "(global)", "65001"]  # fmt: skip
        one = json.loads(bgpctl(url, "get", "bgppeer", "tor", "-o", "json").stdout)
        assert one["metadata"]["uid"] and one["metadata"]["resourceVersion"]
        bare = json.loads(bgpctl(url, "get", "bgppeer", "tor", "-o", "json", "--export").stdout)
        assert bare["metadata"] == {"name": "tor"}
        one["spec"]["asNumber"] = 65002
        assert bgpctl(url, "apply", "-f", "-", stdin=json.dumps(one)).exit_code == 0
        stale = bgpctl(url, "apply", "-f", "-", stdin=json.dumps(one))
        assert stale.exit_code == 1 and "was changed by somebody else" in stale.stderr
        shown = json.loads(bgpctl(url, "resolve", "--node", "a", "-o", "json").stdout)
        assert {peer["name"]: peer["asn"] for peer in shown["settings"]["peers"]}["Global_10_0_0_1"] == 65002
        assert bgpctl(url, "export", str(tmp_path / "out")).exit_code == 0
        folder = json.loads(bgpctl(f"file:{tmp_path / 'out'}", "resolve", "--node", "a", "-o", "json").stdout)
        assert folder["settings"] == shown["settings"]
        assert bgpctl(url, "delete", "bgppeer", "tor").exit_code == 0
        assert bgpctl(url, "delete", "bgppeer", "tor").exit_code == 1
    finally:
        server.kill()
    gone = bgpctl(url, "get", "nodes")
    assert gone.exit_code == 1 and "Traceback" not in gone.output
