"""bgpctl's verbs on all three datastores: the same objects, the same columns, the same words, the same settings."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import pytest
import yaml
from attrs import frozen
from click.testing import CliRunner, Result

from bgpd.settings import SpeakerSettings
from config.compile import compile
from config.ctl import commands
from config.ctl_common import load_snapshot
from config.resources import KINDS
from tests.interop.etcd_server import EtcdServer, free_port
from tests.interop.namespace import wait_until
from tests.interop.ours import ROOT, Json, resource
from tests.interop.test_kubernetes import kubeconfig
from tests.kube.support import secret

pytestmark = pytest.mark.interop

REFERENCE = {"secretKeyRef": {"name": "bgp", "key": "password"}}
OBJECTS: tuple[Json, ...] = (
    resource(
        "BGPConfiguration", "default", asNumber=64600, logSeverityScreen="Info", nodeToNodeMeshEnabled=True,
        serviceClusterIPs=[{"cidr": "10.96.0.0/12"}], communities=[{"name": "pods", "value": "5663:12"}],
        prefixAdvertisements=[{"cidr": "10.244.0.0/16", "communities": ["pods"]}], nodeMeshMaxRestartTime="200s",
    ),
    resource("BGPConfiguration", "node.a", logSeverityScreen="Debug", listenPort=1790),
    resource("BGPPeer", "rr", nodeSelector="all()", peerSelector="has(rr)", keepaliveTime="10s"),
    resource("BGPPeer", "tor", node="a", peerIP="10.0.0.1", asNumber="1.10", filters=["tag"], password=REFERENCE),
    resource("BGPPeer", "wan", peerIP="fd00::1", asNumber=65002, ttlSecurity=1),
    resource(
        "BGPFilter", "tag", exportV4=[
            {"cidr": "10.244.0.0/16", "matchOperator": "In", "action": "Accept",
             "operations": [{"addCommunity": {"value": "5663:12"}}]},
            {"action": "Reject"},
        ],
        importV6=[{"action": "Accept"}],
    ),
    resource("IPPool", "pods", cidr="10.244.0.0/16", ipipMode="CrossSubnet", natOutgoing=True, nodeSelector="all()"),
    resource("IPPool", "six", cidr="fd00:10:244::/48", disableBGPExport=True, assignmentMode="Manual"),
    {**resource("Node", "a", bgp={"ipv4Address": "10.0.0.10/24", "ipv6Address": "fd00::10/64", "asNumber": 64601}),
     "metadata": {"name": "a", "labels": {"rack": "one"}}},
    {**resource("Node", "b", bgp={"ipv4Address": "10.0.0.9/24", "routeReflectorClusterID": "244.0.0.1"}),
     "metadata": {"name": "b", "labels": {"rr": "yes"}}},
    resource("BlockAffinity", "a-10-244-1-0-26", node="a", cidr="10.244.1.0/26", state="confirmed", deleted=False),
    resource("BlockAffinity", "b-fd00-10-244---122", node="b", cidr="fd00:10:244::/122", state="pending"),
    resource("CalicoNodeStatus", "mine", node="a", classes=["Agent", "BGP"], updatePeriodSeconds=10),
)  # fmt: skip
CORE: tuple[Json, ...] = (
    secret("bgp", "1e3"),
    {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web", "namespace": "shop"},
     "spec": {"clusterIP": "10.96.0.7", "clusterIPs": ["10.96.0.7"], "externalTrafficPolicy": "Local",
              "internalTrafficPolicy": "Local", "type": "LoadBalancer"}},
    {"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
     "metadata": {"name": "web-1", "namespace": "shop", "labels": {"kubernetes.io/service-name": "web"}},
     "endpoints": [{"addresses": ["10.244.1.1"], "nodeName": "a", "conditions": {"ready": True}}]},
)  # fmt: skip
"""What etcd has no place for."""


@frozen
class Place:
    """A datastore."""

    kind: str
    url: str

    def __call__(self, *words: str, stdin: str = "") -> Result:
        group = click.Group(commands={command.name or "": command for command in commands})
        return CliRunner().invoke(group, [*words, "--datastore", self.url], input=stdin)

    def apply(self, *values: Json) -> Result:
        return self("apply", "-f", "-", stdin=yaml.safe_dump_all(values))

    def rows(self, *words: str) -> list[list[str]]:
        found = self(*words)
        assert found.exit_code == 0, found.output
        return [line.split() for line in found.stdout.splitlines()]

    def settings(self, node: str) -> SpeakerSettings:
        """What it means for a node."""
        compiled = compile(load_snapshot(self.url, node), node, {})
        assert compiled.settings is not None and not [p for p in compiled.problems if p.refused], compiled.problems
        return compiled.settings


@pytest.fixture(params=["file", "etcd", "kubernetes"])
def empty(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    """A datastore without anything of Calico's."""
    for name in [name for name in os.environ if name.startswith(("K8S_", "KUBE", "ETCD_", "CALICO_", "DATASTORE_"))]:
        monkeypatch.delenv(name)
    making: dict[str, Callable[[Path], Iterator[Place]]] = {"file": a_folder, "etcd": an_etcd, "kubernetes": an_api}
    yield from making[request.param](tmp_path)


def a_folder(folder: Path) -> Iterator[Place]:
    made = folder / "resources"
    made.mkdir()
    (made / "core.yaml").write_text(yaml.safe_dump_all(CORE))
    yield Place("file", f"file:{made}")


def an_etcd(folder: Path) -> Iterator[Place]:
    server = EtcdServer(folder)
    try:
        asyncio.run(server.start())
        yield Place("etcd", server.url)
    finally:
        server.kill()


def an_api(folder: Path) -> Iterator[Place]:
    """With Nodes that know nothing of Calico yet."""
    port = free_port()
    argv = [sys.executable, "-m", "tests.kube", str(port), str(folder / "store.json")]
    with open(folder / "api.log", "wb") as log:
        process = subprocess.Popen(argv, stdout=log, stderr=log, cwd=ROOT)
    try:
        wait_until(lambda: "ready " in (folder / "api.log").read_text(), 30, "the API server is ready")
        nodes = [{"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}} for name in ("a", "b")]
        paths = {"Node": "api/v1/nodes", "Secret": "api/v1/namespaces/kube-system/secrets",
                 "Service": "api/v1/namespaces/shop/services",
                 "EndpointSlice": "apis/discovery.k8s.io/v1/namespaces/shop/endpointslices"}  # fmt: skip
        for value in (*nodes, *CORE):
            url, headers = f"http://127.0.0.1:{port}/{paths[value['kind']]}", {"Content-Type": "application/json"}
            with urllib.request.urlopen(urllib.request.Request(url, json.dumps(value).encode(), headers), timeout=10):
                pass
        yield Place("kubernetes", f"kubernetes:{kubeconfig(folder, f'http://127.0.0.1:{port}')}")
    finally:
        process.terminate()
        process.wait(20)


@pytest.fixture
def filled(empty: Place) -> Place:
    found = empty.apply(*OBJECTS)
    assert found.stdout == f"Successfully applied {len(OBJECTS)} resource(s)\n", found.output
    return empty


NORMAL = {
    "bgpconfig": ["NAME LOGSEVERITY MESHENABLED ASNUMBER", "default Info true 64600", "node.a Debug - -"],
    "bgpp": ["NAME PEERIP NODE ASN", "rr all() 0", "tor 10.0.0.1 a 65546", "wan fd00::1 (global) 65002"],
    "bf": ["NAME NUMEXPORTV4 NUMIMPORTV4 NUMEXPORTV6 NUMIMPORTV6", "tag 2 0 0 1"],
    "pool": ["NAME CIDR SELECTOR", "pods 10.244.0.0/16 all()", "six fd00:10:244::/48 all()"],
    "nodes": ["NAME", "a", "b"],
    "nodestatus": ["NAME NODE", "mine a"],
}
WIDE = NORMAL | {
    "pool": [
        "NAME CIDR NAT IPIPMODE VXLANMODE DISABLED DISABLEBGPEXPORT SELECTOR ASSIGNMENTMODE",
        "pods 10.244.0.0/16 true CrossSubnet Never false false all() Automatic",
        "six fd00:10:244::/48 false Never Never false true all() Manual",
    ],
    "nodes": ["NAME ASN IPV4 IPV6", "a 64601 10.0.0.10/24 fd00::10/64", "b (64600) 10.0.0.9/24"],
    "nodestatus": ["NAME NODE CLASSES", "mine a Agent,BGP"],
}
"""calicoctl's columns (calico-bgp.md 10.1)."""


def test_columns_are_the_same_everywhere(filled: Place) -> None:
    for alias in NORMAL:
        assert filled.rows("get", alias) == [line.split() for line in NORMAL[alias]], alias
        assert filled.rows("get", alias, "-o", "wide") == [line.split() for line in WIDE[alias]], alias


def test_verbs_have_the_same_words_everywhere(filled: Place) -> None:
    peers = yaml.safe_dump_all([resource("BGPPeer", name, peerIP="10.0.0.7", asNumber=1) for name in ("p1", "p2")])
    refused = filled("replace", "-f", "-", stdin=peers)
    assert refused.exit_code == 1 and "resource does not exist: BGPPeer(p1)" in refused.stderr
    assert filled("create", "-f", "-", stdin=peers).stdout == "Successfully created 2 'BGPPeer' resource(s)\n"
    again = filled("create", "-f", "-", stdin=peers)
    assert again.exit_code == 1 and "resource already exists: BGPPeer(p1)" in again.stderr
    assert filled("create", "--skip-exists", "-f", "-", stdin=peers).exit_code == 0
    changed = peers.replace("10.0.0.7", "10.0.0.8")
    assert filled("replace", "-f", "-", stdin=changed).stdout == "Successfully replaced 2 'BGPPeer' resource(s)\n"
    assert json.loads(filled("get", "bgpp", "p1", "-o", "json").stdout)["spec"]["peerIP"] == "10.0.0.8"
    some = filled("delete", "bgpp", "p1", "p3", "p2")
    assert some.exit_code == 1 and some.stdout == "Partial success: deleted the first 1 out of 3 'BGPPeer' resources:\n"
    assert filled("delete", "-f", "-", "-s", stdin=peers).exit_code == 0
    assert [row[0] for row in filled.rows("get", "bgpp")] == ["NAME", "rr", "tor", "wan"]
    bad = filled.apply(resource("IPPool", "bad", cidr="10.1.2.3/16"), resource("IPPool", "good", cidr="10.9.0.0/16"))
    assert bad.exit_code == 1 and "IPPool/bad" in bad.stderr and len(filled.rows("get", "pool")) == 3
    # What `get` shows can be applied again, and changes nothing.
    shown = filled("get", "node", "-o", "yaml").stdout
    assert filled("apply", "-f", "-", stdin=shown).stdout == "Successfully applied 2 'Node' resource(s)\n"
    assert filled("get", "node", "-o", "yaml").stdout == shown
    for kind in ("BGPConfiguration", "BGPFilter", "IPPool", "BlockAffinity", "CalicoNodeStatus", "Node"):
        names = [value["metadata"]["name"] for value in OBJECTS if value["kind"] == kind]
        gone = filled("delete", kind, *names)
        if kind == "Node" and filled.kind == "kubernetes":
            assert gone.exit_code == 1 and "delete it with kubectl" in gone.stderr
        else:
            assert gone.exit_code == 0 and filled("get", kind, "-o", "name").stdout == "", gone.output


def test_files_are_found_again_by_what_they_say(filled: Place) -> None:
    # etcd keeps a block under its node and CIDR, whatever the file calls it.
    named = yaml.safe_dump_all(
        [
            resource("BlockAffinity", "first-of-b", node="b", cidr="10.244.2.0/26", state="confirmed"),
            resource("BGPPeer", "p1", peerIP="10.0.0.7", asNumber=1),
        ]
    )
    assert filled("create", "-f", "-", stdin=named).stdout == "Successfully created 2 resource(s)\n"
    assert filled("create", "-f", "-", stdin=named).stderr.count("resource already exists: BlockAffinity(") == 1
    again = filled("create", "--skip-exists", "-f", "-", stdin=named)
    assert again.exit_code == 0 and again.stdout == "Successfully created 0 resource(s)\n", again.output
    assert filled("replace", "-f", "-", stdin=named).exit_code == 0
    assert len(filled("get", "-f", "-", "-o", "name", stdin=named).stdout.split()) == 2
    assert filled("delete", "-f", "-", stdin=named).stdout == "Successfully deleted 2 resource(s)\n"
    gone = filled("delete", "-f", "-", "-s", stdin=named)
    assert gone.exit_code == 0 and gone.stdout == "Successfully deleted 0 resource(s)\n"


def test_what_has_no_place_there_is_told_before_anything_is_written(filled: Place) -> None:
    peer = resource("BGPPeer", "p1", peerIP="10.0.0.7", asNumber=1)
    found = filled.apply(peer, CORE[1])
    if filled.kind == "file":
        assert found.exit_code == 0
        return
    assert found.exit_code == 1 and "Failed to apply any resources: Service/shop/web: a Service is " in found.stderr
    assert filled("get", "bgpp", "p1").exit_code == 1


def test_what_is_written_over_what_another_has_changed(filled: Place) -> None:
    read = json.loads(filled("get", "bgpp", "wan", "-o", "json").stdout)
    assert filled.apply(resource("BGPPeer", "wan", peerIP="fd00::1", asNumber=65003)).exit_code == 0
    read["spec"]["asNumber"] = 65004
    found = filled("apply", "-f", "-", stdin=json.dumps(read))
    if filled.kind == "file":
        # A folder has no versions.
        assert found.exit_code == 0
    else:
        assert found.exit_code == 1 and "was changed by somebody else" in found.stderr
        # What `create` says about an object that somebody else makes at the same moment.
        for name, code in (("wan", 1), ("new", 0)):
            value = resource("BGPPeer", name, peerIP="fd00::2", asNumber=65005)
            value["metadata"]["resourceVersion"] = "0"
            assert filled.apply(value).exit_code == code


def test_an_export_means_the_same_for_every_node(filled: Place, tmp_path: Path) -> None:
    """Every kind goes into a folder, which compiles to the very same settings."""
    folder = tmp_path / "exported"
    done = filled("export", "--secrets", str(folder))
    assert done.exit_code == 0, done.output
    exported = Place("file", f"file:{folder}")
    for name in ("a", "b"):
        assert exported.settings(name) == filled.settings(name)
    kinds = {value["kind"] for path in folder.iterdir() for value in yaml.safe_load_all(path.read_text())}
    core = {value["kind"] for value in CORE}
    assert kinds == set(KINDS) - (core if filled.kind == "etcd" else set())
    for alias in WIDE:
        assert exported.rows("get", alias, "-o", "wide") == filled.rows("get", alias, "-o", "wide")


def test_the_three_mean_the_same(filled: Place) -> None:
    """As a snapshot: what was applied is what is read, whatever the datastore."""
    found = load_snapshot(filled.url, "")
    assert not list(found.all_problems())
    wanted: dict[str, set[Any]] = {}
    for value in OBJECTS:
        wanted.setdefault(value["kind"], set()).add(value["metadata"]["name"])
    assert {kind: set(objects) for kind, objects in found.objects.items() if kind in wanted} == wanted
