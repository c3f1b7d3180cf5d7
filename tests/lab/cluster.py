"""Nodes, a switch, a top-of-rack router and pods, each in a network namespace with its own kernel tables.

    tor  172.20.0.1   AS 65001, reaches 198.51.100.0/24 ─┐
    node-a 172.20.0.11 ── cali… ── pods 10.244.1.…       ├─ switch (a bridge)
    node-b 172.20.0.12 ── cali… ── pods 10.244.2.…       ┘
    …                                                      and the same in IPv6

The lab plays Felix and the CNI plugin: `add_pod` makes the pod's namespace, the `cali*` veth, the /32 and /128 routes.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

from attrs import define, field

from tests.lab import configs, watch
from tests.lab import datastore as resources
from tests.lab.bird1 import Bird1
from tests.lab.configs import NodePlan, TorPeer, TorPlan
from tests.lab.datastore import Datastore
from tests.lab.netns import PREFIX, LabError, Namespace, sweep
from tests.lab.probes import Endpoint
from tests.lab.speakers import Bird, Frr, OurSpeaker, Speaker

NODE_ASN, TOR_ASN = 64512, 65001
REFLECTOR = 0
"""In the place of an AS number: a machine of the nodes' AS that is no node."""
CLUSTER_ID = "244.0.0.1"
POOLS = ("10.244.0.0/16", "fd00:10:244::/48")
TOR_PREFIXES = ("198.51.100.0/24", "2001:db8:100::/64")
FELIX_METRIC = 1024
_HOST_MAC = "ee:ee:ee:ee:ee:ee"
_HOST_LINK_LOCAL = "fe80::ecee:eeff:feee:eeee"
_GATEWAY = "169.254.1.1"
_SCOPE_LINK = 253
_serial = itertools.count(1)

_ROUTER = {
    "ipv4/ip_forward": 1,
    "ipv4/conf/all/rp_filter": 0,
    "ipv4/conf/default/rp_filter": 0,
    "ipv4/conf/all/send_redirects": 0,
    "ipv4/conf/default/send_redirects": 0,
    "ipv4/conf/all/accept_redirects": 0,
    "ipv4/conf/default/accept_redirects": 0,
    "ipv6/conf/all/forwarding": 1,
    "ipv6/conf/all/accept_redirects": 0,
    "ipv6/conf/default/accept_redirects": 0,
    "ipv6/conf/default/accept_dad": 0,
    "ipv6/conf/default/accept_ra": 0,
}


@define(eq=False)
class Pod:
    """A pod: its namespace behind a `cali*` interface of its node."""

    name: str
    node: Machine
    namespace: Namespace
    interface: str
    ipv4: str
    ipv6: str
    added_at: float = 0.0
    """When its routes went into the node's kernel, on the real-time clock."""

    @property
    def endpoint(self) -> Endpoint:
        """For Probes."""
        return Endpoint(self.name, self.namespace, self.ipv4, self.ipv6)


@define(eq=False)
class Machine:
    """A node or the top-of-rack router."""

    name: str
    namespace: Namespace
    ipv4: str
    ipv6: str
    asn: int
    blocks: list[str] = field(factory=list)
    pods: dict[str, Pod] = field(factory=dict)
    speaker: Speaker | None = None

    @property
    def bgp(self) -> Speaker:
        """Its speaker. Raises LabError while it has none."""
        if self.speaker is None:
            raise LabError(f"{self.name} runs no BGP speaker")
        return self.speaker


class Lab:
    """Build with `build()`, or use as a context manager, which also takes everything down again.

    `tor`: "bird", "frr", "ours", or "" for none. `speaker`: "ours", or "bird" for BIRD configured as Calico does.
    `reflectors`: "" for the full mesh, else two reflectors in its place: "flags" and "datastore" are standalone ones
    (rr-1 and rr-2, which forward nothing), "nodes" the first two nodes.
    """

    def __init__(self, nodes: int = 3, tor: str = "bird", speaker: str = "ours", reflectors: str = "") -> None:
        temporary = Path(tempfile.gettempdir())
        sweep(temporary)
        self.id = f"{PREFIX}-{os.getpid()}-{next(_serial)}"
        self.root = temporary / f"{PREFIX}-{os.getpid()}"
        self.folder = self.root / self.id.rsplit("-", 1)[1]
        self.folder.mkdir(parents=True)
        self.datastore = Datastore(self.folder / "datastore")
        self.count = nodes
        self.tor_kind = tor
        self.speaker_kind = speaker
        self.reflectors_kind = reflectors
        self.reflectors: list[Machine] = []
        self.namespaces: list[Namespace] = []
        self.nodes: list[Machine] = []
        self.tor: Machine | None = None
        self.switch: Namespace | None = None

    def __enter__(self) -> Self:
        try:
            self.build()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def build(self) -> None:
        """Namespaces, links and resources; no speaker runs yet."""
        self.switch = self._namespace("switch")
        self.switch.ipr.link("add", ifname="br0", kind="bridge", br_mcast_snooping=0, br_forward_delay=0)
        self.switch.up("br0")
        if self.tor_kind:
            self.tor = self._machine("tor", 1, TOR_ASN)
            self.tor.namespace.up("lo", ("198.51.100.1/32", "2001:db8:100::1/128"))
        for number in range(1, self.count + 1):
            self.nodes.append(self._machine(f"node-{chr(96 + number)}", 10 + number, NODE_ASN))
        if self.reflectors_kind in ("flags", "datastore"):
            self.reflectors = [self._machine(f"rr-{n}", 200 + n, REFLECTOR) for n in (1, 2)]
        self._write_resources()
        for node in self.nodes:
            node.speaker = self.speaker_for(node, self.speaker_kind)
        for reflector in self.reflectors:
            reflector.speaker = self._reflector_speaker(reflector)
        if self.tor:
            self.tor.speaker = self._tor_speaker(self.tor)

    def _namespace(self, who: str) -> Namespace:
        namespace = Namespace(f"{self.id}-{who}")
        self.namespaces.append(namespace)
        return namespace

    def _machine(self, name: str, host: int, asn: int) -> Machine:
        assert self.switch is not None
        namespace = self._namespace(name)
        namespace.sysctl(_ROUTER)
        port = f"p{host}"
        namespace.ipr.link("add", ifname="eth0", kind="veth", peer={"ifname": port, "net_ns_fd": self.switch.name})
        self.switch.ipr.link("set", index=self.switch.index(port), master=self.switch.index("br0"), state="up")
        machine = Machine(name, namespace, f"172.20.0.{host}", f"fd00:172:20::{host}", asn or NODE_ASN)
        namespace.up("eth0", (f"{machine.ipv4}/24", f"{machine.ipv6}/64"))
        if asn == NODE_ASN:
            # Proxy ARP answers for the pods' gateway only where a route leads to it. A default route would do that on a
            # real node, but here it would carry the packets whose learned route is missing, and hide their loss.
            namespace.ipr.route("add", dst=f"{_GATEWAY}/32", oif=namespace.index("eth0"), scope=_SCOPE_LINK)
            machine.blocks = [f"10.244.{host - 10}.0/26", f"fd00:10:244:{host - 10}::/122"]
        return machine

    def _write_resources(self) -> None:
        put = self.datastore.put
        put(resources.bgp_configuration(NODE_ASN, mesh=not self.reflectors_kind))
        for number, cidr in enumerate(POOLS):
            put(resources.pool(f"pool-ipv{4 if number == 0 else 6}", cidr))
        for node in self.nodes:
            reflects = self.reflectors_kind == "nodes" and node in self.nodes[:2]
            more: dict[str, Any] = {"routeReflectorClusterID": CLUSTER_ID} if reflects else {}
            labels = {"rack": "one", **({"reflector": "yes"} if reflects else {})}
            put(resources.node(node.name, f"{node.ipv4}/24", f"{node.ipv6}/64", labels=labels, **more))
            put(*(resources.block(node.name, cidr) for cidr in node.blocks))
        if self.reflectors_kind == "nodes":
            put(resources.selected_peer("reflectors", "has(reflector)"))
        for reflector in self.reflectors:
            put(resources.peer(f"{reflector.name}-ipv4", reflector.ipv4, NODE_ASN))
            put(resources.peer(f"{reflector.name}-ipv6", reflector.ipv6, NODE_ASN))
        if self.tor:
            # Standalone reflectors are in no rack, and no peers of the router.
            for family, address in (("ipv4", self.tor.ipv4), ("ipv6", self.tor.ipv6)):
                put(resources.peer(f"tor-{family}", address, TOR_ASN, nodeSelector="has(rack)"))

    def speaker_for(self, node: Machine, kind: str) -> Speaker:
        """A speaker for a node, not started: "ours", or "bird" (BIRD 2) or "bird1" for BIRD as Calico configures it."""
        if kind == "ours":
            return OurSpeaker(node.name, node.namespace, self.folder, self.datastore.url)
        plan = NodePlan(
            name=node.name,
            asn=NODE_ASN,
            ipv4=node.ipv4,
            ipv6=node.ipv6,
            blocks=tuple(node.blocks),
            pools=POOLS,
            mesh=tuple(TorPeer(n.name, n.ipv4, n.ipv6) for n in self.nodes if n is not node),
            tor_asn=TOR_ASN,
            tor4=self.tor.ipv4 if self.tor else "172.20.0.1",
            tor6=self.tor.ipv6 if self.tor else "fd00:172:20::1",
        )
        if kind == "bird1":
            return Bird1(node.name, node.namespace, self.folder, plan)
        return Bird(node.name, node.namespace, self.folder, configs.bird_node(plan), recover=True)

    def _reflector_speaker(self, reflector: Machine) -> Speaker:
        """A standalone reflector of the cluster; the other one is its twin, and no client."""
        others = [address for one in self.reflectors if one is not reflector for address in (one.ipv4, one.ipv6)]
        arguments = [
            *("--listen", f"{reflector.ipv4}:179", "--listen", f"[{reflector.ipv6}]:179", "--peers", ",".join(others)),
            *("--asn", str(NODE_ASN), "--router-id", reflector.ipv4, "--cluster-id", CLUSTER_ID, "--cease-on-exit"),
        ]
        if self.reflectors_kind == "flags":
            arguments += ["--clients", "172.20.0.0/24,fd00:172:20::/64"]
        else:
            arguments += ["--datastore", self.datastore.url, "--node", reflector.name]
        return OurSpeaker(reflector.name, reflector.namespace, self.folder, "", arguments, module="reflector")

    def _tor_speaker(self, tor: Machine) -> Speaker:
        peers = tuple(TorPeer(n.name, n.ipv4, n.ipv6) for n in self.nodes)
        plan = TorPlan(TOR_ASN, NODE_ASN, tor.ipv4, tor.ipv6, *TOR_PREFIXES, peers=peers)
        if self.tor_kind == "frr":
            self.root.chmod(0o755)
            self.folder.chmod(0o755)
            return Frr(tor.name, tor.namespace, self.folder, configs.frr_tor(plan))
        if self.tor_kind == "bird":
            return Bird(tor.name, tor.namespace, self.folder, configs.bird_tor(plan), recover=False)
        store = Datastore(self.folder / "datastore-tor")
        store.put(resources.bgp_configuration(TOR_ASN, mesh=False))
        store.put(resources.node("tor", f"{tor.ipv4}/24", f"{tor.ipv6}/64"))
        for number, cidr in enumerate(TOR_PREFIXES):
            store.put(resources.pool(f"outside-{number}", cidr), resources.block("tor", cidr))
        for peer in peers:
            store.put(resources.peer(f"{peer.name}-ipv4", peer.ipv4, NODE_ASN))
            store.put(resources.peer(f"{peer.name}-ipv6", peer.ipv6, NODE_ASN))
        return OurSpeaker(tor.name, tor.namespace, self.folder, store.url)

    @property
    def machines(self) -> list[Machine]:
        """The nodes, the top-of-rack router and standalone reflectors, as far as there are such."""
        return [*self.nodes, *([self.tor] if self.tor else []), *self.reflectors]

    @property
    def routers(self) -> list[Machine]:
        """The machines that forward packets."""
        return [machine for machine in self.machines if machine not in self.reflectors]

    def node(self, letter: str) -> Machine:
        """A node by the letter of its name."""
        return next(node for node in self.nodes if node.name.endswith(f"-{letter}"))

    @property
    def outside(self) -> Endpoint:
        """The host behind the top-of-rack router."""
        if self.tor is None:
            raise LabError("this lab has no top-of-rack router")
        return Endpoint("tor", self.tor.namespace, "198.51.100.1", "2001:db8:100::1")

    def start(self) -> None:
        """Start all speakers and wait until each answers."""
        for machine in self.machines:
            machine.bgp.launch()
        for machine in self.machines:
            machine.bgp.start()

    def add_pod(self, node: Machine, name: str, ipv4: str = "", ipv6: str = "") -> Pod:
        """A pod with the next addresses of the node's blocks, or with these (borrowed) ones; then Felix's routes."""
        number = len(node.pods) + 2
        ipv4 = ipv4 or f"{node.blocks[0].split('/')[0][:-1]}{number}"
        ipv6 = ipv6 or f"{node.blocks[1].split('/')[0]}{number:x}"
        interface = f"cali{name.replace('-', '')}"[:15]
        namespace = self._namespace(name)
        namespace.sysctl({"ipv6/conf/default/accept_dad": 0})
        node.namespace.ipr.link(
            "add",
            ifname=interface,
            kind="veth",
            address=_HOST_MAC,
            peer={"ifname": "eth0", "net_ns_fd": namespace.name},
        )
        node.namespace.sysctl({f"ipv4/conf/{interface}/proxy_arp": 1, f"ipv4/neigh/{interface}/proxy_delay": 0})
        host = node.namespace.up(interface)
        inside = namespace.up("eth0", (f"{ipv4}/32", f"{ipv6}/128"))
        ipr = namespace.ipr
        ipr.route("add", dst=f"{_GATEWAY}/32", oif=inside, scope=_SCOPE_LINK)
        ipr.route("add", dst="default", gateway=_GATEWAY, oif=inside)
        ipr.route("add", dst="default", gateway=_HOST_LINK_LOCAL, oif=inside, family=10)
        pod = Pod(name, node, namespace, interface, ipv4, ipv6)
        pod.added_at = time.time()
        self._felix(pod, "replace", host)
        node.pods[name] = pod
        return pod

    def remove_pod(self, pod: Pod) -> float:
        """Take a pod away, routes first as Felix does; the real-time clock at that moment."""
        at = time.time()
        host = pod.node.namespace.index(pod.interface)
        self._felix(pod, "del", host)
        pod.node.namespace.ipr.link("del", index=host)
        del pod.node.pods[pod.name]
        self.namespaces.remove(pod.namespace)
        pod.namespace.remove()
        return at

    def _felix(self, pod: Pod, verb: str, interface: int) -> None:
        """Write or delete ("del") the pod's two routes. Felix replaces what is there, learned routes included."""
        for dst, scope in ((f"{pod.ipv4}/32", _SCOPE_LINK), (f"{pod.ipv6}/128", 0)):
            pod.node.namespace.ipr.route(
                verb, dst=dst, scope=scope, oif=interface, proto=watch.PROTOCOL_FELIX, priority=FELIX_METRIC
            )

    def expected(self, machine: Machine) -> set[str]:
        """The prefixes that a speaker must have put into the kernel: others' blocks, own blackholes, the outside."""
        prefixes = {block for node in self.nodes for block in node.blocks}
        if self.tor and (machine is not self.tor or self.tor_kind == "ours"):
            prefixes.update(TOR_PREFIXES)
        return prefixes

    def missing(self) -> Iterator[str]:
        """What is not in a kernel yet: "node-a lacks 10.244.2.0/26"."""
        for machine in self.routers:
            have = watch.prefixes(machine.namespace, machine.bgp.protocol)
            for prefix in sorted(self.expected(machine) - have):
                yield f"{machine.name} lacks {prefix}"

    def wait_converged(self, timeout: float = 30.0) -> float:
        """Until every kernel has every route; the seconds it took. Raises LabError naming what is missing."""
        began = time.monotonic()
        while missing := list(self.missing()):
            dead = [m.name for m in self.machines if not m.bgp.main.pid]
            if dead or time.monotonic() - began > timeout:
                words = "; ".join(missing[:6]) + (f" and {len(missing) - 6} more" if len(missing) > 6 else "")
                reason = f"the speaker of {', '.join(dead)} ended" if dead else f"not in {timeout:.0f} s"
                raise LabError(f"{reason}: {words}")
            time.sleep(0.05)
        return time.monotonic() - began

    def wait_settled(self, timeout: float = 30.0) -> float:
        """Until every session everywhere is Established and no restart is under way; the seconds it took."""
        return watch.wait_until(
            "every session Established: " + ", ".join(m.name for m in self.machines if not m.bgp.settled),
            lambda: all(machine.bgp.settled for machine in self.machines),
            timeout,
        )

    def keep(self) -> None:
        """Call before `start`: everything stays up after this process, until `take_down`."""
        for machine in self.machines:
            machine.bgp.set_keep(True)
        (self.root / "keep").write_text("")

    def note_kept(self) -> None:
        """Write down what `take_down` has to end."""
        pids = [program.pid for machine in self.machines for program in machine.bgp.programs]
        names = [namespace.name for namespace in self.namespaces]
        (self.root / "lab.json").write_text(json.dumps({"pids": pids, "namespaces": names}))
        for namespace in self.namespaces:
            namespace.close()

    def close(self) -> None:
        """Kill what runs, remove what was made. Never raises for what is gone already."""
        for machine in self.machines:
            if machine.speaker is not None:
                for program in machine.speaker.programs:
                    program.signal(9)
        for namespace in self.namespaces:
            namespace.remove()
        self.namespaces.clear()
        if os.environ.get("LAB_LOGS"):
            return
        shutil.rmtree(self.folder, ignore_errors=True)
        try:
            self.root.rmdir()
        except OSError:
            pass
