"""`make demo`: three nodes, a top-of-rack router and pods; speakers are killed under traffic, and no packet is lost.

Exit status: 0 the main job was done without a lost packet; 1 it was not; 2 this machine refuses what a lab needs.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from tests.lab import speakers
from tests.lab.cluster import Lab, Machine, Pod
from tests.lab.netns import (
    PREFIX,
    LabError,
    enter_user_namespace,
    may_make_namespaces,
    remove_namespace,
)
from tests.lab.probes import Probes
from tests.lab.watch import RouteMonitor, rewritten, routes, wait_until

RATE = 1000
_BORROWED = ("10.244.200.5", "fd00:10:244:200::5")


class Story:
    """Prints what happens, with the seconds since the start."""

    def __init__(self) -> None:
        self.began = time.monotonic()

    def step(self, text: str) -> None:
        """A new chapter."""
        print(f"\n[{time.monotonic() - self.began:5.1f} s] {text}", flush=True)

    def tell(self, text: str) -> None:
        """A line, or several, of the chapter."""
        for line in text.rstrip().splitlines():
            print(f"          {line}".rstrip(), flush=True)


class Demo:
    """The acts of the demo, on a lab that is built."""

    def __init__(self, lab: Lab, story: Story) -> None:
        self.lab = lab
        self.story = story
        self.rewritten = 0

    def run(self) -> bool:
        """Everything; whether no packet was lost and no unchanged route rewritten."""
        self.start()
        pods = [self.lab.add_pod(node, f"pod-{node.name[-1]}1") for node in self.lab.nodes]
        self.show(pods)
        flows = [
            (pods[0].endpoint, pods[1].endpoint),
            (pods[1].endpoint, self.lab.outside),
        ]
        with Probes(flows, RATE) as probes:
            self.story.step(f"Traffic: {len(flows)} pairs, IPv4 and IPv6, {RATE:,} packets/s in each direction")
            for one, other in flows:
                ends = [f"{end.name:7} {end.ipv4:13} {end.ipv6:18}" for end in (one, other)]
                self.story.tell("  <->  ".join(ends))
            probes.begin()
            probes.wait_flowing()
            self.kill(self.lab.nodes[1])
            self.kill(self.lab.nodes[0], twice=True)
            self.borrowed_pod(pods[2])
            account = probes.finish()
        self.story.step("Result")
        for loss in account.losses:
            self.story.tell(f"{loss.flow:52} {loss.sent:7,} sent {loss.lost:5,} lost")
        self.story.tell(str(account))
        self.story.tell(f"{self.rewritten} unchanged kernel routes deleted or added again by a restart")
        return account.lost == 0 and self.rewritten == 0

    def start(self) -> None:
        """Speakers up, sessions up, every kernel complete."""
        tor = self.lab.machines[-1].bgp
        self.story.step(f"Starting {self.lab.nodes[0].bgp.title} on {len(self.lab.nodes)} nodes, {tor.title} as router")
        began = time.monotonic()
        self.lab.start()
        self.story.tell(f"all speakers answer after {time.monotonic() - began:.2f} s")
        self.lab.wait_converged()
        self.story.tell(f"every kernel has every route after {time.monotonic() - began:.2f} s")
        self.lab.wait_settled()
        self.story.tell(f"every session Established and settled after {time.monotonic() - began:.2f} s")

    def show(self, pods: list[Pod]) -> None:
        """Peers and routes of one node, as a person would look at them."""
        node = pods[0].node
        self.story.step(f"The view from {node.name}: peers")
        self.story.tell(node.bgp.peers())
        if isinstance(node.bgp, speakers.OurSpeaker):
            self.story.step(f"The view from {node.name}: routes")
            self.story.tell(node.bgp.routes())
        self.story.step(f"The kernel of {node.name}: ip route (80 is Felix, 12 is ours)")
        for option in ("-4", "-6"):
            for protocol in ("80", "12"):
                text = subprocess.run(
                    ["ip", option, "-N", "-n", node.namespace.name, "route", "show", "proto", protocol],
                    capture_output=True,
                    text=True,
                ).stdout
                self.story.tell("\n".join(f"proto {protocol}  {line}" for line in text.splitlines()))

    def kill(self, node: Machine, twice: bool = False) -> None:
        """kill -9 under traffic, and back."""
        times = "twice, one second apart" if twice else "once"
        self.story.step(f"kill -9 of the speaker on {node.name}, {times}")
        before = routes(node.namespace)
        with RouteMonitor(node.namespace, self.lab.folder) as monitor:
            node.bgp.kill()
            time.sleep(1.0)
            self.story.tell(f"dead for 1 s; its kernel still has {len(routes(node.namespace))} of {len(before)} routes")
            began = time.monotonic()
            node.bgp.launch()
            if twice:
                time.sleep(1.0)
                node.bgp.kill()
                began = time.monotonic()
                node.bgp.launch()
            node.bgp.start()
            wait_until(f"{node.name} settled after its restart", lambda: node.bgp.settled, 60)
            took = time.monotonic() - began
            after = routes(node.namespace)
            touched = rewritten(monitor.changes(), before & after)
        self.rewritten += len(touched) + len(before ^ after)
        self.story.tell(f"restarted: sessions back and settled in {took:.2f} s, {len(touched)} kernel routes rewritten")

    def borrowed_pod(self, neighbour: Pod) -> None:
        """A pod outside its node's blocks is a route of its own: announced when it comes, withdrawn when it goes."""
        lab, node = self.lab, neighbour.node
        self.story.step(f"A new pod on {node.name} with a borrowed address, then gone again")
        observers = [m for m in lab.machines if m is not node]
        monitors = {m.name: RouteMonitor(m.namespace, lab.folder) for m in observers}
        try:
            pod = lab.add_pod(node, "pod-new", *_BORROWED)
            self._tell_delay("in the kernel of", monitors, observers, pod.added_at, deleted=False)
            with Probes([(pod.endpoint, lab.outside)], 100) as probes:
                probes.begin()
                probes.wait_flowing()
                account = probes.finish(0.2)
            self.story.tell(f"packets between it and the router: {account}")
            gone_at = lab.remove_pod(pod)
            self._tell_delay("gone from the kernel of", monitors, observers, gone_at, deleted=True)
        finally:
            for monitor in monitors.values():
                monitor.close()

    def _tell_delay(
        self, what: str, monitors: dict[str, RouteMonitor], observers: list[Machine], since: float, deleted: bool
    ) -> None:
        for machine in observers:
            monitor, protocol = monitors[machine.name], machine.bgp.protocol
            times = partial(_change_times, monitor, protocol, deleted)
            wait_until(f"{', '.join(_BORROWED)} {what} {machine.name}", partial(_both, times), 20, 0.02)
            delays = ", ".join(f"{1000 * (times()[prefix] - since):.1f} ms" for prefix in _BORROWED)
            self.story.tell(f"{what} {machine.name:7} after {delays} (IPv4, IPv6)")


def _change_times(monitor: RouteMonitor, protocol: int, deleted: bool) -> dict[str, float]:
    """When the borrowed addresses' routes came or went: {prefix: real-time clock}."""
    return {c.prefix: c.at for c in monitor.changes(protocol) if c.prefix in _BORROWED and c.deleted == deleted}


def _both(times: Callable[[], dict[str, float]]) -> bool:
    return len(times()) == 2


def choose_tor(wanted: str) -> str:
    """The kind of top-of-rack router. Raises LabError if it cannot run here."""
    possible = speakers.available()
    if wanted == "auto":
        return next(iter(possible))
    if wanted not in possible:
        raise LabError(f"--tor {wanted}: not installed, or not possible without root; possible: {', '.join(possible)}")
    return wanted


def explain_kept(lab: Lab, in_user_namespace: bool) -> str:
    """How to look around in a lab that stays."""
    enter = ""
    if in_user_namespace:
        holder = lab.nodes[0].bgp.main.pid
        enter = f"nsenter -t {holder} -U -m -n --preserve-credentials "
    lines = ["The lab stays up. To look around:"]
    if enter:
        lines.append(f"  {enter}bash      # a shell in which the commands below work")
    node = lab.nodes[0]
    lines.append(f"  ip netns exec {node.namespace.name} ip route")
    if isinstance(node.bgp, speakers.OurSpeaker):
        lines.append(f"  {Path(sys.executable).with_name('bgpctl')} --socket {node.bgp.socket} status")
    pod = next(iter(node.pods.values()), None)
    if pod and shutil.which("ping"):
        lines.append(f"  ip netns exec {pod.namespace.name} ping 198.51.100.1")
    lines += [f"  ls {lab.datastore.folder}      # the resources; edit them, they are applied live"]
    lines += [f"  ls {lab.folder}/*.log", "  make demo-down      # take it down"]
    return "\n".join(lines)


def take_down() -> int:
    """End every kept lab of this user; the exit status."""
    count = 0
    for root in Path(tempfile.gettempdir()).glob(f"{PREFIX}-*"):
        note = root / "lab.json"
        if not note.exists() or not os.access(note, os.W_OK):
            continue
        kept = json.loads(note.read_text())
        for pid in kept["pids"]:
            if pid and _is_of_lab(pid, root):
                os.kill(pid, signal.SIGKILL)
        for name in kept["namespaces"]:
            if Path("/run/netns", name).exists():
                remove_namespace(name)
        shutil.rmtree(root, ignore_errors=True)
        count += 1
    print(f"{count} lab(s) taken down")
    return 0


def _is_of_lab(pid: int, root: Path) -> bool:
    """Process ids are used again: only a process whose command line names the lab's folder is the lab's."""
    try:
        return str(root).encode() in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def main() -> int:
    """See the module."""
    parser = argparse.ArgumentParser("make demo")
    parser.add_argument("--tor", default="auto", help="top-of-rack router: auto, bird, frr or ours")
    parser.add_argument("--speaker", default="ours", choices=("ours", "bird"), help="what runs on the nodes")
    parser.add_argument("--keep", action="store_true", default=bool(os.environ.get("KEEP")), help="leave the lab up")
    parser.add_argument("--down", action="store_true", help="take down what --keep left")
    options = parser.parse_args()
    if options.down:
        return take_down()
    try:
        for program in ("ip", "nsenter", "setpriv"):
            if not shutil.which(program):
                package = "iproute2" if program == "ip" else "util-linux"
                raise LabError(f"{program} is not installed: apt-get install {package}")
        in_user_namespace = not may_make_namespaces()
        if in_user_namespace:
            enter_user_namespace()
        tor = choose_tor(options.tor)
    except LabError as error:
        print(f"make demo: {error}", file=sys.stderr)
        return 2
    return perform(options, tor, in_user_namespace)


def perform(options: argparse.Namespace, tor: str, in_user_namespace: bool) -> int:
    """Build, run and take down; the exit status."""
    story = Story()
    how = "in a user namespace, without root" if in_user_namespace else "as root"
    print(f"A cluster in network namespaces, {how}.")
    lab = Lab(tor=tor, speaker=options.speaker)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        lab.build()
        if options.keep:
            lab.keep()
        good = Demo(lab, story).run()
        if options.keep:
            lab.note_kept()
            print("\n" + explain_kept(lab, in_user_namespace))
    except LabError as error:
        good = False
        print(f"\nmake demo: {error}", file=sys.stderr)
    except KeyboardInterrupt:
        good = False
        print("\nmake demo: interrupted, taking the lab down", file=sys.stderr)
    finally:
        if not (lab.root / "lab.json").exists():
            lab.close()
            if (lab.root / "keep").exists():
                shutil.rmtree(lab.root, ignore_errors=True)
    print(f"\n{'No packet was lost.' if good else 'The demo failed.'}")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
