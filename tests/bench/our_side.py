"""Our daemon in the benchmark: the product itself from a file datastore, or the Speaker with given settings."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from tests.bench.lab import DAEMON_ADDRESS, DAEMON_ADDRESS6, Lab, Running, client
from tests.interop.namespace import wait_until

ROOT = Path(__file__).resolve().parents[2]
Resource = dict[str, Any]


def present() -> bool:
    """Whether the daemon's entry point is there."""
    return (ROOT / "bgpd" / "__main__.py").exists()


def environment() -> dict[str, str]:
    """What our processes need in theirs: this checkout."""
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH", ""))))
    return {"PYTHONPATH": path, "PYTHONUNBUFFERED": "1"}


def peer(number: int, asn: int, **more: Any) -> Resource:
    """Settings of one passive IPv4 peer on the load side."""
    return {"name": f"c{number}", "address": client(number), "asn": asn, "passive": True, "families": ["ipv4"],
            "hold_time": 90, **more}  # fmt: skip


def settings(asn: int, peers: Sequence[Resource], **more: Any) -> Resource:
    """Settings of the speaker on 172.30.0.1."""
    return {"asn": asn, "router_id": DAEMON_ADDRESS, "listen": [[DAEMON_ADDRESS, 179]], "peers": list(peers), **more}


def start_speaker(lab: Lab, data: Resource, kernel: bool, profile: Path | None = None) -> Running:
    """The Speaker with these settings; once it has ended, `longest_stall` knows how long its loop stood still."""
    path = lab.directory("ours")
    (path / "settings.json").write_text(json.dumps(data))
    argv = [sys.executable, "-m", "tests.interop.speaker_main", "--settings", str(path / "settings.json")]
    argv += [
        "--stall",
        str(path / "stall.json"),
        "--socket",
        str(path / "api.sock"),
        "--state-dir",
        str(path / "state"),
    ]
    argv += [] if kernel else ["--no-kernel"]
    if profile is not None:
        argv += ["--profile", str(profile)]
    return lab.ready(Running("ours", [lab.spawn(argv, path / "log", environment())]))


def longest_stall(lab: Lab, begin: float, end: float) -> float:
    """Seconds: the longest time for which the ended Speaker's loop stood still, of stalls begun in the interval."""
    data = json.loads((lab.scratch / "ours" / "stall.json").read_text())
    return max((length for start, length in data["stalls"] if begin - 0.1 <= start <= end), default=0.0)


def make(kind: str, name: str, spec: Resource) -> Resource:
    """One Calico resource."""
    return {"apiVersion": "projectcalico.org/v3", "kind": kind, "metadata": {"name": name}, "spec": spec}


def node_objects(asn: int, clients: int, pools: Sequence[str] = ()) -> list[Resource]:
    """Calico resources of the node "bench" with one explicit peer per load client, mesh off."""
    objects = [
        make("Node", "bench", {"bgp": {"ipv4Address": f"{DAEMON_ADDRESS}/16", "ipv6Address": f"{DAEMON_ADDRESS6}/64"}}),
        make("BGPConfiguration", "default", {"asNumber": asn, "nodeToNodeMeshEnabled": False, "bindMode": "NodeIP"}),
    ]
    for number in range(clients):
        spec = {"node": "bench", "peerIP": client(number), "asNumber": asn}
        objects.append(make("BGPPeer", f"client-{number:03}", spec))
    for number, cidr in enumerate(pools):
        objects.append(make("IPPool", f"pool-{number}", {"cidr": cidr, "ipipMode": "Never", "vxlanMode": "Never"}))
    return objects


def write_datastore(folder: Path, objects: Sequence[Resource]) -> None:
    """One YAML file an object."""
    folder.mkdir(parents=True, exist_ok=True)
    for item in objects:
        file = folder / f"{item['kind'].lower()}-{item['metadata']['name']}.yaml"
        file.write_text(yaml.safe_dump(item, sort_keys=False))


def start_node(lab: Lab, objects: Sequence[Resource], wait: bool = True) -> Running:
    """The product: `bgpd --node bench --datastore file:...`, with health, metrics and api on."""
    path = lab.directory("ours")
    write_datastore(path / "datastore", objects)
    argv = [sys.executable, "-m", "bgpd", "--node", "bench", "--datastore", f"file:{path / 'datastore'}",
            "--socket", str(path / "api.sock"), "--state-dir", str(path / "state")]  # fmt: skip
    running = Running("ours", [lab.spawn(argv, path / "log", environment())])
    return lab.ready(running) if wait else running


def stop_and_settle(running: Running) -> None:
    """Stop, and wait until its files are written."""
    running.processes[-1].popen.send_signal(signal.SIGTERM)
    wait_until(lambda: not running.processes[-1].alive(), 20, "our daemon ends", 0.02)
