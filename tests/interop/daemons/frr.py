"""FRR (zebra and bgpd) as a peer. All of its sockets and files live in the test's directory."""

from __future__ import annotations

import json
import shutil
from typing import Any

from tests.interop.daemons.base import Daemon, output_of
from tests.interop.model import BOTH, Announcement, PeerConfig, Route, SessionSpec, family_name, route
from tests.interop.namespace import Process, run, wait_until


class Frr(Daemon):
    """FRR: `network` statements, each with a route-map where it has attributes."""

    name = "frr"
    package = "frr"
    programs = ("zebra", "/usr/lib/frr/bgpd", "vtysh")

    @classmethod
    def version(cls) -> str:
        return output_of("/usr/lib/frr/bgpd", "--version").splitlines()[0].replace("bgpd version", "FRR")

    def _neighbor(self, spec: SessionSpec) -> list[str]:
        peer = f" neighbor {spec.remote}"
        lines = [
            f"{peer} remote-as {spec.remote_as}",
            f"{peer} update-source {spec.local}",
            f"{peer} timers {max(1, spec.hold_time // 3)} {spec.hold_time}",
            f"{peer} timers connect 1",
            f"{peer} advertisement-interval 0",
        ]
        if spec.password:
            lines.append(f"{peer} password {spec.password}")
        if spec.ttl_security:
            lines.append(f"{peer} ttl-security hops 1")
        elif spec.remote_as != self.config.asn:
            lines.append(f"{peer} disable-connected-check")
        if spec.passive:
            lines.append(f"{peer} passive")
        lines.append(f"{peer} graceful-restart{'-helper' if spec.graceful is None else ''}")
        return lines

    def _family(self, family: str) -> list[str]:
        lines = [f" address-family {family} unicast"]
        for index, item in enumerate(self.config.announcements):
            if family_name(item.prefix) == family:
                lines.append(f"  network {item.prefix}" + (f" route-map A{index}" if _decorated(item) else ""))
        for spec in self.config.sessions:
            if family not in spec.families:
                continue
            lines.append(f"  neighbor {spec.remote} activate")
            if spec.max_prefixes:
                lines.append(f"  neighbor {spec.remote} maximum-prefix {spec.max_prefixes}")
            if spec.add_path:
                lines.append(f"  neighbor {spec.remote} addpath-tx-all-paths")
            if spec.reflector_client:
                lines.append(f"  neighbor {spec.remote} route-reflector-client")
        return [*lines, " exit-address-family"]

    def _route_map(self, index: int, item: Announcement) -> list[str]:
        lines = [f"route-map A{index} permit 10"]
        if item.med is not None:
            lines.append(f" set metric {item.med}")
        if item.local_pref is not None:
            lines.append(f" set local-preference {item.local_pref}")
        if item.communities:
            lines.append(" set community " + " ".join(item.communities))
        if item.large_communities:
            lines.append(" set large-community " + " ".join(item.large_communities))
        if item.prepend:
            lines.append(" set as-path prepend " + " ".join(map(str, item.prepend)))
        if item.next_hop:
            version = "ip" if "." in item.next_hop else "ipv6"
            lines.append(f" set {version} next-hop {'' if version == 'ip' else 'global '}{item.next_hop}")
        return [*lines, "exit"]

    def render(self) -> str:
        """bgpd's configuration."""
        lines = ["frr defaults datacenter", "log stdout", f"router bgp {self.config.asn}"]
        lines += [
            f" bgp router-id {self.config.router_id}",
            " no bgp default ipv4-unicast",
            " no bgp ebgp-requires-policy",
            " no bgp network import-check",
            " coalesce-time 0",
        ]
        times = [spec.graceful for spec in self.config.sessions if spec.graceful is not None]
        if times:
            lines += [f" bgp graceful-restart restart-time {max(times)}", " bgp graceful-restart preserve-fw-state"]
        for spec in self.config.sessions:
            lines += self._neighbor(spec)
        for family in BOTH:
            lines += self._family(family)
        lines.append("exit")
        for index, item in enumerate(self.config.announcements):
            lines += self._route_map(index, item) if _decorated(item) else []
        return "\n".join(lines) + "\n"

    def start(self) -> None:
        for path in self.directory.iterdir():
            if path.suffix in (".vty", ".pid", ".api"):
                path.unlink()
        shutil.chown(self.directory, "frr", "frr")
        file = self.directory / "bgpd.conf"
        file.write_text(self.render())
        shutil.chown(file, "frr", "frr")
        common = [
            "--vty_socket",
            str(self.directory),
            "-z",
            str(self.directory / "zserv.api"),
            "-u",
            "frr",
            "-g",
            "frr",
        ]
        zebra = [self.program("zebra"), "-f", "/dev/null", "-i", str(self.directory / "z.pid"), *common]
        bgpd = ["/usr/lib/frr/bgpd", "-n", "-f", str(file), "-i", str(self.directory / "b.pid"), *common]
        self.processes = [Process(self.namespace, zebra, self.directory / "zebra.log")]
        wait_until((self.directory / "zserv.api").exists, 10, "zebra answers")
        self.processes.append(Process(self.namespace, bgpd, self.directory / "bgpd.log"))
        wait_until(lambda: "local AS" in self.ask("show bgp summary", check=False) or self._quiet(), 10, "bgpd answers")

    def _quiet(self) -> bool:
        return "BGP" in self.ask("show bgp ipv4 unicast summary", check=False)

    def ask(self, *commands: str, check: bool = True) -> str:
        """Commands for vtysh."""
        argv = [self.program("vtysh"), "--vty_socket", str(self.directory), "-d", "bgpd"]
        for command in commands:
            argv += ["-c", command]
        return run(*argv, check=check)

    def _json(self, command: str) -> Any:
        text = self.ask(command + " json", check=False)
        start = text.find("{")
        return json.loads(text[start:]) if start >= 0 else {}

    def _table(self, family: str) -> Any:
        # The order of the two words depends on the release.
        command = f"show bgp {family} unicast"
        text = self.ask(f"{command} json detail", check=False)
        if "% " in text[:40]:
            text = self.ask(f"{command} detail json", check=False)
        return json.loads(text) if text.strip() else {}

    def reconfigure(self, config: PeerConfig) -> None:
        old, self.config = self.config, config
        lines = []
        for family in BOTH:
            lines += [f"router bgp {config.asn}", f"address-family {family} unicast"]
            lines += [f"no network {i.prefix}" for i in old.announcements if family_name(i.prefix) == family]
            lines += ["exit-address-family", "exit"]
        lines += [f"no route-map A{index}" for index, item in enumerate(old.announcements) if _decorated(item)]
        for spec in old.sessions:
            if spec.password and not config.session(spec.remote).password:
                lines += [f"router bgp {config.asn}", f"no neighbor {spec.remote} password", "exit"]
        for index, item in enumerate(config.announcements):
            lines += self._route_map(index, item) if _decorated(item) else []
        lines.append(f"router bgp {config.asn}")
        for spec in config.sessions:
            if spec not in old.sessions:
                lines += [line for line in self._neighbor(spec) if "graceful-restart" not in line]
        for family in BOTH:
            lines += self._family(family)
        file = self.directory / "change.conf"
        file.write_text("\n".join([*lines, "exit"]) + "\n")
        run(self.program("vtysh"), "--vty_socket", str(self.directory), "-d", "bgpd", "-f", str(file))

    def established(self, remote: str) -> bool:
        data = self._json(f"show bgp neighbors {remote}")
        return bool(data.get(remote, {}).get("bgpState") == "Established")

    def routes(self, remote: str) -> list[Route]:
        found: list[Route] = []
        for family in self.config.session(remote).families:
            table = self._table(family)
            for prefix, entry in table.get("routes", {}).items():
                for path in entry if isinstance(entry, list) else entry.get("paths", ()):
                    if path.get("peer", {}).get("peerId") == remote:
                        found.append(_route(prefix, path))
        return found

    def refresh(self, remote: str) -> None:
        for family in self.config.session(remote).families:
            self.ask(f"clear bgp {family} unicast {remote} in")

    def shutdown(self, remote: str, text: str = "") -> None:
        command = f"neighbor {remote} shutdown" + (f" message {text}" if text else "")
        self.ask("configure terminal", f"router bgp {self.config.asn}", command)


def _decorated(item: Announcement) -> bool:
    """Whether it has attributes, which take a route-map."""
    return item != Announcement(item.prefix)


def _route(prefix: str, path: dict[str, Any]) -> Route:
    hops = path.get("nexthops", [{}])
    hop = next((h for h in hops if h.get("scope") != "link-local"), hops[0])
    return route(
        prefix,
        hop.get("ip", ""),
        path.get("aspath", {}).get("string", "").replace("Local", ""),
        path.get("origin", "igp"),
        path.get("locPrf", path.get("locpref")),
        path.get("metric", path.get("med")),
        path.get("community", {}).get("list", ()),
        path.get("largeCommunity", {}).get("list", ()),
    )
