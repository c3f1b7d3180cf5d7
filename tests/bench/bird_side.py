"""BIRD and FRR as the benchmark's yardsticks."""

from __future__ import annotations

from tests.bench.lab import DAEMON_ADDRESS, Lab, Running, client
from tests.bench.programs import FRR_BGPD, directory, required, root
from tests.interop.namespace import wait_until


def bird_config(
    asn: int, clients: int, kernel: bool = False, learn: bool = False, reflect: bool = False, extra: str = ""
) -> str:
    """BIRD's configuration for passive iBGP sessions with so many load clients."""
    lines = [
        "log stderr { warning, error, fatal, bug };",
        f"router id {DAEMON_ADDRESS};",
        "protocol device {}",
        'protocol direct { ipv4; ipv6; interface "vd"; }',
    ]
    if kernel or learn:
        # import all only means something with `learn`
        export = "export where source = RTS_BGP" if kernel else "export none"
        lines += [
            f"protocol kernel k4 {{ {'learn;' if learn else ''} ipv4 {{ import all; {export}; }}; }}",
            f"protocol kernel k6 {{ {'learn;' if learn else ''} ipv6 {{ import all; {export}; }}; }}",
        ]
    sends = (
        "export where source = RTS_BGP" if reflect else "export where source = RTS_INHERIT" if learn else "export none"
    )
    roles = f"rr client; rr cluster id {DAEMON_ADDRESS};" if reflect else ""
    lines.append(
        f"template bgp cl {{ local {DAEMON_ADDRESS} as {asn}; passive; {roles} ipv4 {{ import all; {sends}; }}; }}"
    )
    lines += [f"protocol bgp c{i} from cl {{ neighbor {client(i)} as {asn}; }}" for i in range(clients)]
    return "\n".join([*lines, extra]) + "\n"


def start_bird(lab: Lab, config: str, wait: bool = True) -> Running:
    """BIRD 2 in the daemon's namespace."""
    binary = required("bird")
    path, seen = directory(lab, "bird")
    (path / "bird.conf").write_text(config)
    argv = [*root(), binary, "-f", "-c", f"{seen}/bird.conf", "-s", f"{seen}/bird.ctl"]
    running = Running("bird", [lab.spawn(argv, path / "log")])
    return lab.ready(running) if wait else running


def frr_config(asn: int, clients: int) -> str:
    """FRR's configuration for passive iBGP sessions; coalescing off, for it delays the first UPDATEs by a second."""
    lines = ["frr defaults datacenter", f"router bgp {asn}", f" bgp router-id {DAEMON_ADDRESS}", " coalesce-time 0"]
    lines += [" no bgp default ipv4-unicast", " neighbor C peer-group", f" neighbor C remote-as {asn}"]
    lines += [" neighbor C passive", *(f" neighbor {client(i)} peer-group C" for i in range(clients))]
    return "\n".join([*lines, " address-family ipv4 unicast", "  neighbor C activate", " exit-address-family"]) + "\n"


def start_frr(lab: Lab, config: str, kernel: bool) -> Running:
    """zebra and bgpd in the daemon's namespace."""
    zebra, bgpd = required("zebra"), required(FRR_BGPD)
    path, seen = directory(lab, "frr")
    (path / "bgpd.conf").write_text(config)
    common = ["-z", f"{seen}/zserv.api", "--vty_socket", seen, "-u", "frr", "-g", "frr"]
    first = lab.spawn([*root(), zebra, "-f", "/dev/null", "-i", f"{seen}/z.pid", *common], path / "zebra.log")
    wait_until((path / "zserv.api").exists, 10, "zebra is up")
    second = [*root(), bgpd, *([] if kernel else ["-n"]), "-f", f"{seen}/bgpd.conf", "-i", f"{seen}/b.pid", *common]
    return lab.ready(Running("frr", [first, lab.spawn(second, path / "bgpd.log")]))
