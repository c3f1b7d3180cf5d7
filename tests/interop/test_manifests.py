"""containers/*.yaml: Kubernetes' own types take them, their command lines are ours, and what they name is there."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from bgpd.options import parse_arguments as node_arguments
from config import resources as r
from config.compile import compile
from reflector.options import parse_arguments as reflector_arguments
from reflector.resources import compile_reflector
from tests.interop.test_kubernetes import kubectl
from tests.unit.config_support import snapshot as snapshot_of

Json = dict[str, Any]
FOLDER = Path(__file__).resolve().parents[2] / "containers"
GROUP = "projectcalico.org/v3"


def documents(name: str) -> list[Json]:
    return list(yaml.safe_load_all((FOLDER / name).read_text()))


def workload(name: str) -> Json:
    """The one object of a file that has pods."""
    (found,) = (item for item in documents(name) if "template" in item.get("spec", {}))
    return found


def pod(value: Json) -> Json:
    found: Json = value["spec"]["template"]["spec"]
    return found


def typed(value: Json) -> Json:
    """As read by kubectl into Kubernetes' own types: unknown fields are gone, wrong types are refused."""
    container = pod(value)["containers"][0]
    change = f"{container['name']}={container['image']}0"
    command = [kubectl(), "set", "image", "--local", "-f", "-", change, "-o", "json"]
    done = subprocess.run(command, input=json.dumps(value), capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    answer: Json = json.loads(done.stdout)
    pod(answer)["containers"][0]["image"] = container["image"]
    return answer


def lost(given: Any, kept: Any, path: str = "") -> Iterator[str]:
    """What is in one document and not in the other."""
    if isinstance(given, dict) and isinstance(kept, dict):
        for key, value in given.items():
            if key in kept:
                yield from lost(value, kept[key], f"{path}.{key}")
            elif value not in ({}, None):
                yield f"{path}.{key}"
    elif isinstance(given, list) and isinstance(kept, list) and len(given) == len(kept):
        for number, pair in enumerate(zip(given, kept, strict=True)):
            yield from lost(*pair, f"{path}[{number}]")
    elif given != kept:
        yield f"{path}: {given!r}, not {kept!r}"


def calico_node() -> Json:
    """What the patch meets: Calico's own DaemonSet, as far as it matters here."""
    container = {
        "name": "calico-node",
        "image": "node:1",
        "env": [
            {
                "name": "CALICO_NETWORKING_BACKEND",
                "valueFrom": {"configMapKeyRef": {"name": "calico-config", "key": "calico_backend"}},
            },
            {"name": "IP", "value": "autodetect"},
        ],
        "livenessProbe": {
            "exec": {"command": ["/bin/calico-node", "-felix-live", "-bird-live"]},
            "periodSeconds": 10,
        },
        "readinessProbe": {"exec": {"command": ["/bin/calico-node", "-felix-ready", "-bird-ready"]}},
        "volumeMounts": [{"name": name, "mountPath": f"/{name.replace('-', '/')}"} for name in VOLUMES],
    }
    volumes = [{"name": name, "hostPath": {"path": f"/{name.replace('-', '/')}"}} for name in VOLUMES]
    labels = {"k8s-app": "calico-node"}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [container], "volumes": volumes}}
    selector = {"matchLabels": labels}
    update = {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1}}
    spec = {"selector": selector, "updateStrategy": update, "template": template}
    return {"apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": {"name": "calico-node"}, "spec": spec}


VOLUMES = ("var-run-calico", "var-lib-calico")


def patched(folder: Path) -> Json:
    (folder / "daemonset.yaml").write_text(yaml.safe_dump(calico_node()))
    files = ["-f", str(folder / "daemonset.yaml"), "--patch-file", str(FOLDER / "calico-node-patch.yaml")]
    command = [kubectl(), "patch", "--local", *files, "-o", "json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    answer: Json = json.loads(done.stdout)
    return answer


def check_pod(value: Json) -> None:
    """What refers to something else in the same object."""
    selector = value["spec"]["selector"]["matchLabels"]
    assert selector.items() <= value["spec"]["template"]["metadata"]["labels"].items()
    volumes = {volume["name"] for volume in pod(value)["volumes"]}
    for container in pod(value)["containers"]:
        assert {mount["name"] for mount in container["volumeMounts"]} <= volumes
        for name in ("livenessProbe", "readinessProbe", "startupProbe"):
            if "httpGet" in container.get(name, {}):
                probe = container[name]["httpGet"]
                text = json.dumps([container.get("args"), container.get("env")])
                assert f"{probe['host']}:{probe['port']}" in text, f"{name} asks where nothing listens"


@pytest.mark.parametrize("name", ["node.yaml", "reflector.yaml"])
def test_workloads(name: str) -> None:
    value = workload(name)
    assert not list(lost(value, typed(value)))
    check_pod(value)
    accounts = [item["metadata"] for item in documents("rbac.yaml") if item["kind"] == "ServiceAccount"]
    account = {"name": pod(value)["serviceAccountName"], "namespace": value["metadata"]["namespace"]}
    assert account in accounts


def test_the_patch_of_calico_node(tmp_path: Path) -> None:
    value = patched(tmp_path)
    assert not list(lost(value, typed(value)))
    check_pod(value)
    by_name = {container["name"]: container for container in pod(value)["containers"]}
    assert by_name.keys() == {"calico-node", "bgpd"}
    theirs = {entry["name"]: entry for entry in by_name["calico-node"]["env"]}
    assert theirs["CALICO_NETWORKING_BACKEND"] == {"name": "CALICO_NETWORKING_BACKEND", "value": "vxlan"}
    assert theirs["IP"]["value"] == "autodetect"
    assert value["spec"]["updateStrategy"] == {"type": "OnDelete"}
    assert "-bird-live" not in by_name["calico-node"]["livenessProbe"]["exec"]["command"]


def test_the_nodes_command_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (own,) = pod(workload("node.yaml"))["containers"]
    assert node_arguments(own["args"]).datastore == "kubernetes:"
    sidecar = next(item for item in pod(patched(tmp_path))["containers"] if item["name"] == "bgpd")
    env = {entry["name"]: entry.get("value", "") for entry in sidecar["env"]}
    monkeypatch.setenv("DATASTORE_TYPE", env["DATASTORE_TYPE"])
    options = node_arguments(env["BGPD_OPTIONS"].split())
    assert (options.datastore, options.health) == ("kubernetes:", "127.0.0.1:9178")


def reflector_command(host: str, addresses: str, folder: Path) -> list[str]:
    """What the container of a host runs, found out by running it with another program of that name."""
    (container,) = pod(workload("reflector.yaml"))["containers"]
    assert container["command"] == ["sh", "-c"]
    (folder / "addresses").mkdir(parents=True)
    (folder / "addresses" / host).write_text(addresses)
    stub = folder / "bgp-reflector"
    stub.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    stub.chmod(0o755)
    (script,) = container["args"]
    script = script.replace("/addresses/", f"{folder}/addresses/")
    env = {"PATH": f"{folder}:{os.environ['PATH']}", "HOST": host}
    done = subprocess.run(["sh", "-c", script], env=env, capture_output=True, text=True, timeout=20, check=True)
    return done.stdout.splitlines()


def cluster(addresses: list[str]) -> list[Json]:
    """Three nodes, two of them hosts of reflectors, and a BGPPeer for each address of these."""

    def thing(kind: str, name: str, **spec: Any) -> Json:
        return {"apiVersion": GROUP, "kind": kind, "metadata": {"name": name}, "spec": spec}

    nodes = [
        thing("Node", f"host-{letter}", bgp={"ipv4Address": f"192.0.2.{n}/24", "ipv6Address": f"2001:db8::{n}/64"})
        for n, letter in enumerate("abc", 1)
    ]
    peers = [
        thing("BGPPeer", f"reflector-{n}", nodeSelector="all()", asNumber=64512,
              peerIP=f"[{address}]:1790" if ":" in address else f"{address}:1790")
        for n, address in enumerate(addresses)
    ]  # fmt: skip
    return [thing("BGPConfiguration", "default", nodeToNodeMeshEnabled=False, asNumber=64512), *nodes, *peers]


def test_reflectors_and_nodes_find_each_other(tmp_path: Path) -> None:
    """The command line of each reflector against the resources that the manifest asks for."""
    given = {"host-a": "192.0.2.201,2001:db8::201", "host-b": "192.0.2.202,2001:db8::202"}
    (addresses,) = (item["data"] for item in documents("reflector.yaml") if item["kind"] == "ConfigMap")
    assert [given[host].partition(",")[0] for host in given] == list(addresses.values())
    snapshot = snapshot_of(
        *map(yaml.safe_dump, cluster([address for text in given.values() for address in text.split(",")]))
    )
    hosts = {a for node in snapshot.of(r.Node).values() for a in (node.ipv4_address, node.ipv6_address)}
    for number, (host, text) in enumerate(given.items()):
        options = reflector_arguments(reflector_command(host, text, tmp_path / host), "1")
        settings = compile_reflector(snapshot, options, {}).settings
        assert settings is not None
        assert settings.cluster_id == settings.router_id == text.split(",")[0]
        clients = {(peer.address, peer.port) for peer in settings.peers if peer.reflector_client}
        twin = list(given.values())[1 - number].split(",")
        assert clients == {(address, 179) for address in hosts} | {(address, 1790) for address in twin}
        assert {peer.source_address for peer in settings.peers} == set(text.split(","))
    for host in ("host-a", "host-c"):
        settings = compile(snapshot, host, {}).settings
        assert settings is not None
        found = {(peer.address, peer.port) for peer in settings.peers}
        assert found == {(address, 1790) for text in given.values() for address in text.split(",")}
