"""BIRD 1.6, which is Calico's: two programs on a node, one a family, configured as confd does it.

Debian has it in the package bird, which cannot be installed beside bird2: `.ci/run` unpacks it into PROGRAMS.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterable
from pathlib import Path

from tests.lab.configs import MAXIMUM, NodePlan
from tests.lab.netns import Namespace
from tests.lab.speakers import Speaker

PROGRAMS = Path(os.environ.get("BIRD1_ROOT", "/opt/bird1")) / "usr/sbin"
NAMES = {"4": ("bird", "bird.ctl"), "6": ("bird6", "bird6.ctl")}


def available() -> bool:
    """Whether this machine has it."""
    return (PROGRAMS / "bird6").exists()


def configuration(plan: NodePlan, version: str) -> str:
    """One family's file. The names of protocols are Calico's."""
    blocks = [block for block in plan.blocks if (":" in block) == (version == "6")]
    pools = [pool for pool in plan.pools if (":" in pool) == (version == "6")]
    own = plan.ipv4 if version == "4" else plan.ipv6
    peers = [("Mesh", peer.ipv4 if version == "4" else peer.ipv6, plan.asn) for peer in plan.mesh]
    peers.append(("Node", plan.tor4 if version == "4" else plan.tor6, plan.tor_asn))
    return "\n".join(
        [
            f"router id {plan.ipv4};",
            "protocol static {",
            *(f"  route {block} blackhole;" for block in blocks),
            "}",
            "filter to_peers {",
            f"  if source = RTS_BGP then krt_metric = {MAXIMUM} - bgp_local_pref;",
            f"  else {{ if !defined(krt_metric) then krt_metric = 1024; bgp_local_pref = {MAXIMUM} - krt_metric; }}",
            *(f"  if net = {block} then accept;\n  if net ~ {block} then reject;" for block in blocks),
            *(f"  if net ~ {pool} then accept;" for pool in pools),
            "  reject;\n}",
            "filter to_kernel {",
            f"  if source = RTS_BGP then krt_metric = {MAXIMUM} - bgp_local_pref;",
            "  if source = RTS_DEVICE then reject;\n  accept;\n}",
            "protocol kernel { learn; persist; scan time 2; metric 0; merge paths on; graceful restart;",
            "  import all; export filter to_kernel; }",
            "protocol device { scan time 2; }",
            'protocol direct { interface -"cali*", -"kube-ipvs*", "*"; }',
            f"template bgp any {{ local as {plan.asn}; source address {own}; multihop; gateway recursive;",
            "  add paths on; graceful restart; connect delay time 1; connect retry time 1; error wait time 1, 4;",
            "  import all; export filter to_peers; }",
            *_sessions(peers),
        ]
    )


def _sessions(peers: Iterable[tuple[str, str, int]]) -> Iterable[str]:
    for kind, address, asn in peers:
        name = f"{kind}_{address.replace('.', '_').replace(':', '_')}"
        yield f"protocol bgp {name} from any {{ neighbor {address} as {asn}; }}\n"


class Bird1(Speaker):
    """Both programs of a node."""

    title = "BIRD 1.6"

    def __init__(self, name: str, namespace: Namespace, folder: Path, plan: NodePlan) -> None:
        super().__init__(name, namespace, folder)
        self.bird_sockets = folder / f"{name}-bird1"
        self.bird_sockets.mkdir(exist_ok=True)
        for version, (program, control_socket) in NAMES.items():
            path = self.bird_sockets / f"{program}.conf"
            path.write_text(configuration(plan, version))
            options = ["-f", "-R", "-c", str(path), "-s", str(self.bird_sockets / control_socket)]
            self._program([str(PROGRAMS / program), *options], f"-{program}")

    def kill(self) -> None:
        for program in self.programs:
            program.signal(signal.SIGKILL)

    def control(self, command: str, name: str = "bird.ctl") -> str:
        """Output of BIRD's own client; "" while it does not answer."""
        arguments = [str(PROGRAMS / "birdc"), "-s", str(self.bird_sockets / name), *command.split()]
        done = subprocess.run(arguments, capture_output=True, text=True, timeout=10)
        return done.stdout if done.returncode == 0 else ""

    def answers(self) -> bool:
        return all(self.control("show status", name) for _, name in NAMES.values())

    def peers(self) -> str:
        rows = (row for _, name in NAMES.values() for row in self.control("show protocols", name).splitlines()[2:])
        return "\n".join(row for row in rows if " BGP " in row)

    def sessions(self) -> dict[str, bool]:
        return {row.split()[0]: "Established" in row for row in self.peers().splitlines()}

    @property
    def settled(self) -> bool:
        recovering = any("Graceful restart recovery" in self.control("show status", n) for _, n in NAMES.values())
        return not recovering and super().settled
