"""The five other daemons as route reflectors: configurations for passive iBGP clients, and how each is started.

What all have in common: AS 64512, cluster id and router id 172.30.0.1, no kernel routes, no policy but "all". FRR is
tuned: by default it delays a new update group's first UPDATEs by 1 s and 50 ms a peer.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from attrs import frozen

from tests.bench.lab import DAEMON_ADDRESS, Lab, Running, client
from tests.bench.programs import BIRD3, FRR_BGPD, OPENBGPD, directory, required, root
from tests.interop.namespace import wait_until

ASN = 64512
WARM_UP = 1.0
"""Seconds that a daemon gets after it listens: some are busy with themselves for a moment."""


@frozen
class Wanted:
    """What a scenario asks of a reflector."""

    clients: int
    ipv6: bool = False
    add_path: bool = False
    graceful: bool = False


def _families(wanted: Wanted) -> Sequence[str]:
    return ("ipv4", "ipv6") if wanted.ipv6 else ("ipv4",)


def bird_config(wanted: Wanted) -> str:
    """BIRD 2 and 3. Graceful restart as a helper is its default, and as a restarting speaker `on`."""
    paths = " add paths on;" if wanted.add_path else ""
    channels = " ".join(
        f"{family} {{ import all; export where source = RTS_BGP;{paths} }};" for family in _families(wanted)
    )
    restart = " graceful restart on;" if wanted.graceful else ""
    lines = [
        "log stderr { warning, error, fatal, bug };",
        f"router id {DAEMON_ADDRESS};",
        "protocol device {}",
        'protocol direct { ipv4; ipv6; interface "vd"; }',
        f"template bgp cl {{ local {DAEMON_ADDRESS} as {ASN}; passive; rr client; rr cluster id {DAEMON_ADDRESS};"
        f"{restart} {channels} }}",
        *(f"protocol bgp c{i} from cl {{ neighbor {client(i)} as {ASN}; }}" for i in range(wanted.clients)),
    ]
    return "\n".join(lines) + "\n"


def frr_config(wanted: Wanted) -> str:
    """FRR, tuned: no wait for more peers before an update group's first UPDATEs."""
    lines = ["frr defaults datacenter", f"router bgp {ASN}", f" bgp router-id {DAEMON_ADDRESS}"]
    lines += [f" bgp cluster-id {DAEMON_ADDRESS}", " coalesce-time 0", " no bgp default ipv4-unicast"]
    lines += [" no bgp network import-check", *([" bgp graceful-restart"] if wanted.graceful else [])]
    lines += [" neighbor C peer-group", f" neighbor C remote-as {ASN}", " neighbor C passive"]
    lines += [f" neighbor {client(i)} peer-group C" for i in range(wanted.clients)]
    for family in _families(wanted):
        lines += [f" address-family {family} unicast", "  neighbor C activate", "  neighbor C route-reflector-client"]
        lines += ["  neighbor C addpath-tx-all-paths"] * wanted.add_path
        lines += [" exit-address-family"]
    return "\n".join(lines) + "\n"


def gobgp_config(wanted: Wanted) -> str:
    """GoBGP. It sends at most so many paths of a prefix as it is told: 64."""
    lines = ["[global.config]", f"as = {ASN}", f'router-id = "{DAEMON_ADDRESS}"', "port = 179"]
    lines += [f'local-address-list = ["{DAEMON_ADDRESS}"]']
    for number in range(wanted.clients):
        lines += ["[[neighbors]]", "[neighbors.config]", f'neighbor-address = "{client(number)}"', f"peer-as = {ASN}"]
        lines += ["[neighbors.transport.config]", "passive-mode = true"]
        lines += ["[neighbors.route-reflector.config]", "route-reflector-client = true"]
        lines += [f'route-reflector-cluster-id = "{DAEMON_ADDRESS}"']
        if wanted.graceful:
            lines += ["[neighbors.graceful-restart.config]", "enabled = true", "restart-time = 120"]
        for family in _families(wanted):
            lines += ["[[neighbors.afi-safis]]", "[neighbors.afi-safis.config]", f'afi-safi-name = "{family}-unicast"']
            if wanted.graceful:
                lines += ["[neighbors.afi-safis.mp-graceful-restart.config]", "enabled = true"]
            if wanted.add_path:
                lines += ["[neighbors.afi-safis.add-paths.config]", "receive = true", "send-max = 64"]
    return "\n".join(lines) + "\n"


def openbgpd_config(wanted: Wanted) -> str:
    """OpenBGPD. Graceful restart as a helper is its default."""
    lines = [f"AS {ASN}", f"router-id {DAEMON_ADDRESS}", "fib-update no", f"listen on {DAEMON_ADDRESS}"]
    lines += ["nexthop qualify via default", 'group "c" {', f"  remote-as {ASN}", "  passive"]
    lines += [f"  announce {family.replace('ip', 'IP')} unicast" for family in _families(wanted)]
    lines += ["  announce add-path recv yes", "  announce add-path send all"] if wanted.add_path else []
    lines += [f"  route-reflector {DAEMON_ADDRESS}", *(f"  neighbor {client(i)}" for i in range(wanted.clients))]
    return "\n".join([*lines, "}", "allow from any", "allow to any"]) + "\n"


def _start_bird(binary: str) -> Callable[[Lab, Wanted], Running]:
    def start(lab: Lab, wanted: Wanted) -> Running:
        found = required(binary)
        path, seen = directory(lab, "bird")
        (path / "bird.conf").write_text(bird_config(wanted))
        argv = [*root(), found, "-f", "-c", f"{seen}/bird.conf", "-s", f"{seen}/bird.ctl"]
        return Running("bird", [lab.spawn(argv, path / "log")])

    return start


def _start_frr(lab: Lab, wanted: Wanted) -> Running:
    zebra, bgpd = required("zebra"), required(FRR_BGPD)
    path, seen = directory(lab, "frr")
    (path / "bgpd.conf").write_text(frr_config(wanted))
    common = ["-z", f"{seen}/zserv.api", "--vty_socket", seen, "-u", "frr", "-g", "frr"]
    first = lab.spawn([*root(), zebra, "-f", "/dev/null", "-i", f"{seen}/z.pid", *common], path / "zebra.log")
    wait_until((path / "zserv.api").exists, 10, "zebra is up")
    second = [*root(), bgpd, "-n", "-f", f"{seen}/bgpd.conf", "-i", f"{seen}/b.pid", *common]
    return Running("frr", [first, lab.spawn(second, path / "bgpd.log")])


def _start_gobgp(lab: Lab, wanted: Wanted) -> Running:
    binary = required("gobgpd")
    path, seen = directory(lab, "gobgp")
    (path / "gobgpd.toml").write_text(gobgp_config(wanted))
    argv = [*root(), binary, "-t", "toml", "-f", f"{seen}/gobgpd.toml", "-l", "error", "--disable-stdlog",
            "--api-hosts", "127.0.0.1:50051", "--pprof-disable"]  # fmt: skip
    return Running("gobgp", [lab.spawn(argv, path / "log")])


def _start_openbgpd(lab: Lab, wanted: Wanted) -> Running:
    binary = required(OPENBGPD)
    path, seen = directory(lab, "openbgpd")
    file = path / "bgpd.conf"
    file.write_text(openbgpd_config(wanted))
    file.chmod(0o600)
    return Running("openbgpd", [lab.spawn([*root(), binary, "-d", "-f", f"{seen}/bgpd.conf"], path / "log")])


_START: dict[str, Callable[[Lab, Wanted], Running]] = {
    "bird": _start_bird("bird"),
    "bird3": _start_bird(BIRD3),
    "frr": _start_frr,
    "gobgp": _start_gobgp,
    "openbgpd": _start_openbgpd,
}


def start(lab: Lab, name: str, wanted: Wanted) -> Running:
    """The daemon, listening and warmed up. Raises FileNotFoundError, RuntimeError, TimeoutError."""
    running = lab.ready(lab.keep(_START[name](lab, wanted)))
    time.sleep(WARM_UP)
    running.find()
    return running
