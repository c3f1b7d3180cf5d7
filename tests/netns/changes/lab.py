"""The lab of the change table: one speaker of ours between BIRD (mesh, iBGP) and FRR (eBGP), and both as witnesses."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from attrs import frozen

from tests.lab import datastore as resources
from tests.lab.cluster import NODE_ASN, TOR_ASN, Lab
from tests.lab.datastore import Datastore, Resource
from tests.lab.netns import LabError
from tests.lab.speakers import Bird, Frr, OurSpeaker
from tests.lab.watch import KernelRoute, routes, wait_until

Edit = tuple[str, str, Any]
"""("Kind/name", "spec.field", value): value None removes the field; with an empty path the object is put or removed."""

BLOCK_A, BLOCK_A6 = "10.244.1.0/26", "fd00:10:244:1::/122"
BLOCK_B, BLOCK_B6 = "10.244.2.0/26", "fd00:10:244:2::/122"
BORROWED, BORROWED6 = "10.244.200.5/32", "fd00:10:244:200::5/128"
"""A pod's address outside node-a's blocks: announced as it is."""
OUTSIDE, OUTSIDE6 = "198.51.100.0/24", "2001:db8:100::/64"
LOOPED = "198.51.101.0/24"
"""FRR announces it with our AS number in the path."""
NODE_ADDRESSES = ("172.20.0.11", "fd00:172:20::11")
SECOND_ADDRESSES = ("172.20.0.21", "fd00:172:20::21")
"""Node-a's other addresses, for the change of its Node resource."""


@frozen
class BirdPlan:
    """What of BIRD's configuration rows change."""

    asn: int = NODE_ASN
    peer_asn: int = NODE_ASN
    peer4: str = NODE_ADDRESSES[0]
    peer6: str = NODE_ADDRESSES[1]
    password: str = ""
    port: int = 179

    def text(self) -> str:
        """BIRD as the mesh node node-b."""
        parts = [
            "router id 172.20.0.12;\ntimeformat protocol iso long us;\nprotocol device { scan time 60; }",
            f"protocol static s4 {{ ipv4; route {BLOCK_B} blackhole; }}",
            f"protocol static s6 {{ ipv6; route {BLOCK_B6} blackhole; }}",
            "template bgp mesh { connect delay time 1; connect retry time 1; error wait time 1, 2; graceful restart on;"
            f" local as {self.asn}; multihop;" + (f' password "{self.password}";' if self.password else "") + " }",
        ]
        for version, own, peer in (("4", "172.20.0.12", self.peer4), ("6", "fd00:172:20::12", self.peer6)):
            parts.append(
                f"protocol bgp node_a_{version} from mesh {{ source address {own}; neighbor {peer} as {self.peer_asn}"
                f" port {self.port}; ipv{version} {{ add paths on; import all; export filter {{ bgp_local_pref ="
                " 2147482623; accept; }; }; }"
            )
        return "\n".join(parts) + "\n"


_FRR = f"""router bgp {TOR_ASN}
 bgp router-id 172.20.0.1
 no bgp ebgp-requires-policy
 no bgp default ipv4-unicast
 no bgp network import-check
 neighbor node peer-group
 neighbor node remote-as {NODE_ASN}
 neighbor node timers connect 1
 neighbor node advertisement-interval 0
 neighbor 172.20.0.11 peer-group node
 neighbor fd00:172:20::11 peer-group node
 address-family ipv4 unicast
  network {OUTSIDE}
  network {LOOPED} route-map looped
  neighbor node activate
 exit-address-family
 address-family ipv6 unicast
  network {OUTSIDE6}
  neighbor node activate
 exit-address-family
route-map looped permit 10
 set as-path prepend {NODE_ASN}
"""


class ChangeLab:
    """The lab with the base resources in place. A context manager."""

    def __init__(self) -> None:
        self.lab = Lab(nodes=2, tor="frr")
        self._since: dict[str, float] = {}

    def __enter__(self) -> ChangeLab:
        lab = self.lab
        lab.__enter__()
        try:
            self._build()
            self.wait_base()
        except BaseException:
            lab.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.lab.close()

    def _build(self) -> None:
        lab = self.lab
        node, other = lab.nodes
        assert lab.tor is not None
        self.node, self.tor = node, lab.tor
        self.speaker = OurSpeaker(node.name, node.namespace, lab.folder, lab.datastore.url)
        node.speaker = self.speaker
        other.speaker = self.bird = Bird(other.name, other.namespace, lab.folder, BirdPlan().text(), recover=False)
        lab.root.chmod(0o755)
        lab.folder.chmod(0o755)
        lab.tor.speaker = self.frr = Frr("frr", lab.tor.namespace, lab.folder, _FRR)
        node.namespace.up("eth0", (f"{SECOND_ADDRESSES[0]}/32", f"{SECOND_ADDRESSES[1]}/128"))
        node.namespace.run(["ip", "link", "add", "dummy0", "type", "veth", "peer", "name", "dummy0-peer"])
        node.namespace.up("dummy0", ("10.55.0.1/24",))
        lab.add_pod(node, "pod-borrowed", BORROWED[:-3], BORROWED6[:-4])
        self.base = {name(document): document for document in base_resources()}
        self.datastore = Datastore(lab.datastore.folder)
        for path in lab.datastore.folder.iterdir():
            path.unlink()
        self.datastore.put(*(document for document in self.base.values()))
        lab.start()

    def wait_base(self) -> None:
        """Until all four sessions stand and the base's routes are everywhere."""
        wait_until("the four sessions are Established", lambda: all(self.sessions().values()), 30, 0.05)
        wait_until("node-b's block at node-a", lambda: self.kernel(BLOCK_B) and self.kernel(BLOCK_B6), 10, 0.02)
        wait_until("node-a's block at FRR", lambda: self.at_frr(BLOCK_A) and self.at_frr(BLOCK_A6), 10, 0.02)
        wait_until("node-a's block at BIRD", lambda: self.at_bird(BLOCK_A) and self.at_bird(BLOCK_A6), 10, 0.02)
        wait_until("FRR's network in node-a's kernel", lambda: self.kernel(OUTSIDE) and self.kernel(OUTSIDE6), 10, 0.02)

    # Resources

    def edited(self, edits: Sequence[Edit], documents: Mapping[str, Resource]) -> dict[str, Resource]:
        """The documents with edits applied."""
        result = {key: copy.deepcopy(document) for key, document in documents.items()}
        for key, path, value in edits:
            if not path:
                result.pop(key, None)
                if value is not None:
                    result[key] = value
                continue
            place: Any = result[key]
            *parents, last = path.split("|") if "|" in path else path.split(".")
            for parent in parents:
                place = place.setdefault(parent, {})
            place.pop(last, None)
            if value is not None:
                place[last] = value
        return result

    def write(self, old: Mapping[str, Resource], new: Mapping[str, Resource]) -> None:
        """Make the folder hold `new`, where it holds `old`."""
        for key in old.keys() - new.keys():
            self.datastore.delete(*key.split("/", 1))
        self.datastore.put(*(document for key, document in new.items() if old.get(key) != document))

    # Witnesses

    def sessions(self) -> dict[str, str]:
        """The neighbours' word: {"BIRD 4": mark}; the mark is another one after a reset, "" while not Established."""
        found = {}
        for row in self.bird.control("show protocols").splitlines():
            words = row.split()
            if len(words) > 5 and words[0].startswith("node_a_"):
                found[f"BIRD IPv{words[0][-1]}"] = self._mark(words[0], words[5]) if "Established" in row else ""
        for address in NODE_ADDRESSES:
            peer = self.frr_neighbor(address)
            mark = str(peer.get("connectionsEstablished")) if peer.get("bgpState") == "Established" else ""
            found[f"FRR IPv{6 if ':' in address else 4}"] = mark
        return found

    def _mark(self, protocol: str, clock: str) -> str:
        """BIRD's "since", which it works out anew each time, a few microseconds to this or that side."""
        hours, minutes, seconds = clock.split(":")
        now = 3600 * int(hours) + 60 * int(minutes) + float(seconds)
        if abs(now - self._since.get(protocol, now + 1)) > 0.01:
            self._since[protocol] = now
        return str(self._since[protocol])

    def frr_neighbor(self, address: str) -> dict[str, Any]:
        """FRR's view of a neighbour."""
        text = self.frr.control(f"show bgp neighbors {address} json")
        try:
            found = json.loads(text).get(address, {})
        except json.JSONDecodeError:
            return {}
        return found if isinstance(found, dict) else {}

    def at_frr(self, prefix: str) -> dict[str, Any]:
        """FRR's path for a prefix: {} where it has none."""
        version = 6 if ":" in prefix else 4
        text = self.frr.control(f"show bgp ipv{version} unicast {prefix} json")
        try:
            paths = json.loads(text).get("paths") or [{}]
        except json.JSONDecodeError:
            return {}
        return dict(paths[0])

    def at_bird(self, prefix: str) -> str:
        """BIRD's route for a prefix with all attributes; "" where node-a gave it none."""
        text = self.bird.control(f"show route {prefix} all protocol node_a_{6 if ':' in prefix else 4}")
        return text if prefix in text else ""

    def kernel(self, prefix: str) -> KernelRoute | None:
        """Our route for a prefix in node-a's kernel."""
        short = re.sub(r"/(32|128)$", "", prefix)
        return next((route for route in routes(self.node.namespace) if route.prefix == short), None)

    def peer(self, peer: str) -> dict[str, Any]:
        """The daemon's own word on a peer."""
        return self.speaker.api(f"/v1/peer?name={peer}") or {}

    def local_route(self, prefix: str) -> bool:
        """Whether the daemon has the prefix in its table."""
        return prefix in (self.speaker.text("/v1/routes") or "")

    def connects(self, address: str, port: int) -> bool:
        """Whether node-b can open a TCP connection to node-a there."""
        try:
            self.lab.nodes[1].namespace.run(["bash", "-c", f"exec 3<>/dev/tcp/{address}/{port}"], 2)
        except LabError:
            return False
        return True

    # Neighbours

    def frr_configure(self, lines: Sequence[str]) -> None:
        """Change FRR's running configuration."""
        if lines:
            arguments = ["vtysh", "--vty_socket", str(self.frr.own), "-d", "bgpd", "-c", "configure terminal"]
            for line in (f"router bgp {TOR_ASN}", *lines):
                arguments += ["-c", line]
            self.tor.namespace.run(arguments)

    def bird_configure(self, plan: BirdPlan) -> None:
        """Change BIRD's running configuration."""
        (self.lab.folder / "node-b.bird.conf").write_text(plan.text())
        self.bird.control("configure")


def name(document: Resource) -> str:
    """ "Kind/name" of a document."""
    return f"{document['kind']}/{document['metadata']['name']}"


def kubernetes(kind: str, name: str, **body: Any) -> Resource:
    """A namespaced object of Kubernetes' own."""
    version = "discovery.k8s.io/v1" if kind == "EndpointSlice" else "v1"
    metadata = {"name": name, "namespace": "kube-system", **body.pop("metadata", {})}
    return {"apiVersion": version, "kind": kind, "metadata": metadata, **body}


def base_resources() -> list[Resource]:
    """What stands before and after each row."""
    ports = [{"port": 80}]
    return [
        resources.bgp_configuration(NODE_ASN),
        resources.resource("BGPConfiguration", "node.node-a", {}),
        resources.pool("pool-ipv4", "10.244.0.0/16"),
        resources.pool("pool-ipv6", "fd00:10:244::/48"),
        resources.node("node-a", f"{NODE_ADDRESSES[0]}/24", f"{NODE_ADDRESSES[1]}/64"),
        resources.node("node-b", "172.20.0.12/24", "fd00:172:20::12/64"),
        resources.block("node-a", BLOCK_A),
        resources.block("node-a", BLOCK_A6),
        resources.block("node-b", BLOCK_B),
        resources.peer("tor4", "172.20.0.1", TOR_ASN, filters=["probe"]),
        resources.peer("tor6", "fd00:172:20::1", TOR_ASN, filters=["probe"]),
        resources.resource("BGPFilter", "probe", {}),
        kubernetes("Secret", "bgp", stringData={"one": "first-key", "two": "second-key"}),
        kubernetes(
            "Service",
            "web",
            spec={
                "type": "ClusterIP",
                "clusterIP": "10.96.0.20",
                "clusterIPs": ["10.96.0.20"],
                "ipFamilies": ["IPv4"],
                "externalTrafficPolicy": "Local",
                "ports": ports,
            },
        ),
        kubernetes(
            "EndpointSlice",
            "web-1",
            metadata={"labels": {"kubernetes.io/service-name": "web"}},
            addressType="IPv4",
            endpoints=[{"addresses": ["10.244.1.5"], "nodeName": "node-a", "conditions": {"ready": True}}],
        ),
        resources.resource("CalicoNodeStatus", "status", {"node": "node-a", "classes": ["BGP"]}),
    ]
