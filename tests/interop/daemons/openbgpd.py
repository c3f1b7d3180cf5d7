"""OpenBGPD as a peer. Its programs are called bgpd and bgpctl, as ours are: they are found by their own paths."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

from tests.interop.daemons.base import Daemon, output_of
from tests.interop.model import BOTH, Announcement, PeerConfig, Route, SessionSpec, route
from tests.interop.namespace import Process, wait_until

DAEMON = "/usr/sbin/bgpd"
CONTROL = "/usr/sbin/bgpctl"


class OpenBgpd(Daemon):
    """OpenBGPD: `network` statements for what it announces; a change is a new file and a reload."""

    name = "openbgpd"
    package = "openbgpd"
    programs = (DAEMON, CONTROL)

    @classmethod
    def missing(cls) -> str | None:
        return next((name for name in cls.programs if not os.access(name, os.X_OK)), None)

    @classmethod
    def version(cls) -> str:
        text = output_of("dpkg-query", "-W", "-f", "${Version}", "openbgpd") if os.access("/usr/bin/dpkg", 1) else ""
        return f"OpenBGPD {text}".strip()

    def _network(self, item: Announcement) -> str:
        words = [f"nexthop {item.next_hop}"] if item.next_hop else []
        if item.med is not None:
            words.append(f"med {item.med}")
        if item.local_pref is not None:
            words.append(f"localpref {item.local_pref}")
        words += [f"community {c}" for c in item.communities]
        words += [f"large-community {c}" for c in item.large_communities]
        return f"network {item.prefix}" + (" set { " + " ".join(words) + " }" if words else "")

    def _session(self, spec: SessionSpec) -> list[str]:
        lines = [
            f"neighbor {spec.remote} {{",
            f"  remote-as {spec.remote_as}",
            f"  local-address {spec.local}",
            f"  holdtime {spec.hold_time}",
        ]
        if spec.passive:
            lines.append("  passive")
        if spec.password:
            lines.append(f'  tcp md5sig password "{spec.password}"')
        if spec.ttl_security:
            lines.append("  ttl-security yes")
        if spec.max_prefixes:
            lines.append(f"  max-prefix {spec.max_prefixes} restart 1")
        if spec.reflector_client:
            lines.append(f"  route-reflector {self.config.router_id}")
        lines += [f"  announce {f.replace('ip', 'IP')} {'unicast' if f in spec.families else 'none'}" for f in BOTH]
        lines.append(f"  announce restart {'yes' if spec.graceful is not None else 'no'}")
        if spec.add_path:
            lines += ["  announce add-path recv yes", "  announce add-path send all"]
        return [*lines, "}"]

    def render(self) -> str:
        """The configuration file."""
        lines = [
            f"AS {self.config.asn}",
            f"router-id {self.config.router_id}",
            "fib-update no",
            f'socket "{self.directory / "bgpd.sock"}"',
            "nexthop qualify via default",
            "connect-retry 1",
        ]
        lines += sorted({f"listen on {spec.local}" for spec in self.config.sessions})
        lines += [self._network(item) for item in self.config.announcements]
        for spec in self.config.sessions:
            lines += self._session(spec)
        lines += ["allow from any", "allow to any"]
        for item in self.config.announcements:
            if item.prepend:
                # It prepends only its own or the neighbour's AS: the origin AS cannot be chosen.
                raise ValueError(f"OpenBGPD cannot prepend foreign AS numbers to {item.prefix}")
        return "\n".join(lines) + "\n"

    def _write(self) -> Path:
        file = self.directory / "bgpd.conf"
        file.write_text(self.render())
        file.chmod(0o600)
        return file

    def start(self) -> None:
        Path("/run/openbgpd").mkdir(exist_ok=True)  # its processes lock themselves in there
        (self.directory / "bgpd.sock").unlink(missing_ok=True)
        argv = [DAEMON, "-d", "-f", str(self._write())]
        self.processes = [Process(self.namespace, argv, self.directory / "openbgpd.log")]
        wait_until(lambda: "Neighbor" in self.ask("show", check=False), 10, "OpenBGPD answers")

    def ask(self, *words: str, check: bool = True) -> str:
        """One bgpctl command."""
        argv = [CONTROL, "-s", str(self.directory / "bgpd.sock"), *words]
        return self.namespace.run(*argv, check=check)

    def _json(self, *words: str) -> Any:
        text = self.ask("-j", *words, check=False)
        return json.loads(text) if text.startswith("{") else {}

    def reconfigure(self, config: PeerConfig) -> None:
        self.config = config
        self._write()
        self.ask("reload")

    def established(self, remote: str) -> bool:
        neighbors = self._json("show", "neighbor", remote).get("neighbors", [])
        return any(item.get("state") == "Established" for item in neighbors)

    def routes(self, remote: str) -> list[Route]:
        table = self._json("show", "rib", "in", "detail", "neighbor", remote)
        return [_route(entry) for entry in table.get("rib", [])]

    def refresh(self, remote: str) -> None:
        self.ask("neighbor", remote, "refresh")

    def shutdown(self, remote: str, text: str = "") -> None:
        self.ask("neighbor", remote, "down", *([text] if text else []))

    def kill(self) -> None:
        subprocess.run(["kill", "-9", *map(str, self.namespace.pids())], check=False)
        super().kill()


def _route(entry: dict[str, Any]) -> Route:
    def values(name: str) -> list[str]:
        value = entry.get(name, [])
        return value.split() if isinstance(value, str) else list(value)

    return route(
        entry["prefix"],
        entry.get("exit_nexthop", ""),
        entry.get("aspath", ""),
        entry.get("origin", "IGP"),
        entry.get("localpref"),
        entry.get("metric"),
        values("communities"),
        values("large_communities"),
    )
