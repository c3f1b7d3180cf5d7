"""Our reflector in the benchmark: from flags alone, from Calico's resources, and with a BGPFilter on every client.

Default settings throughout: health, metrics and the api are on.
"""

from __future__ import annotations

import sys
from typing import Any

from tests.bench.lab import DAEMON_ADDRESS, Lab, Running, client
from tests.bench.our_side import Resource, environment, make, write_datastore
from tests.bench.reflector_peers import ASN, Wanted
from tests.bench.scenarios import FILE, FILTER

NODE = "reflector"
MAX_PREFIXES = 1_000_000
"""The limit per client for scenarios with more than the default's 100,000 prefixes from one."""


def start(lab: Lab, name: str, wanted: Wanted, many_prefixes: bool = False) -> Running:
    """The reflector in one of its ways, listening. ADD-PATH needs nothing: it is offered to every client."""
    path = lab.directory("ours")
    argv = [sys.executable, "-m", "reflector", "--listen", f"{DAEMON_ADDRESS}:179"]
    if name not in (FILE, FILTER):
        argv += ["--asn", str(ASN), "--router-id", DAEMON_ADDRESS, "--cluster-id", DAEMON_ADDRESS]
        argv += ["--clients", "172.30.0.0/16"]
    else:
        write_datastore(path / "datastore", objects(wanted, name == FILTER))
        argv += ["--datastore", f"file:{path / 'datastore'}", "--node", NODE, "--state-dir", str(path / "state")]
    argv += ["--max-prefixes", str(MAX_PREFIXES)] if many_prefixes else []
    argv += ["--socket", str(path / "api.sock"), "--log-level", "error"]
    return lab.ready(lab.keep(Running(name, [lab.spawn(argv, path / "log", environment())])))


def objects(wanted: Wanted, filtered: bool) -> list[Resource]:
    """A cluster's resources: client nodes, pools, and 100 blocks of the reflector's node.

    The pools cover what bgpload announces, for Calico's export policy passes nothing else on.

    Its own blocks are what makes Calico's export policy long. All is IPv4: with Calico's resources each family has
    sessions of its own, over its own addresses, and bgpload speaks IPv4.
    """
    nodes = [_node(NODE, DAEMON_ADDRESS, {"reflector": "true"}, routeReflectorClusterID=DAEMON_ADDRESS)]
    nodes += [_node(f"client-{i:04}", client(i), {}) for i in range(wanted.clients)]
    peering: dict[str, Any] = {"nodeSelector": "!has(reflector)", "peerSelector": "has(reflector)"}
    found = [*nodes, make("BGPConfiguration", "default", {"asNumber": ASN, "nodeToNodeMeshEnabled": False})]
    for number, cidr in enumerate(("10.0.0.0/8", "16.0.0.0/4", "32.0.0.0/4")):
        found.append(make("IPPool", f"pool-{number}", {"cidr": cidr, "ipipMode": "Never", "vxlanMode": "Never"}))
    for number in range(100):
        spec = {"node": NODE, "cidr": f"10.255.{number}.0/26", "state": "confirmed"}
        found.append(make("BlockAffinity", f"{NODE}-{number}", spec))
    if filtered:
        peering["filters"] = ["every-client"]
        found.append(make("BGPFilter", "every-client", _filter()))
    return [*found, make("BGPPeer", "clients", peering)]


def _node(name: str, ipv4: str, labels: dict[str, str], **bgp: str) -> Resource:
    found = make("Node", name, {"bgp": {"ipv4Address": f"{ipv4}/16", **bgp}})
    found["metadata"]["labels"] = labels
    return found


def _filter() -> Resource:
    """Rules that look at prefixes and at communities, both ways; they let everything pass that is announced here."""

    def rules(inside: str, outside: str) -> list[Resource]:
        return [
            {"action": "Reject", "matchOperator": "In", "cidr": outside},
            {"action": "Reject", "communities": {"values": ["64999:666"]}},
            {"action": "Reject", "matchOperator": "In", "cidr": inside, "communities": {"values": ["64999:667"]}},
            {"action": "Accept", "matchOperator": "In", "cidr": inside},
        ]

    ipv4 = rules("0.0.0.0/1", "10.254.0.0/16")
    return {"importV4": ipv4, "exportV4": ipv4}
