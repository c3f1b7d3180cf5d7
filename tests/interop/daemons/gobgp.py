"""GoBGP as a peer."""

from __future__ import annotations

import json
import re
import struct
from ipaddress import ip_network
from pathlib import Path
from typing import Any

from tests.interop.daemons.base import Daemon, output_of
from tests.interop.model import IPV6, Announcement, PeerConfig, Route, SessionSpec, family_name, route
from tests.interop.namespace import Process, wait_until

_ORIGINS = ("igp", "egp", "incomplete")


class GoBgp(Daemon):
    """GoBGP: routes are injected through its command, large tables as an MRT file."""

    name = "gobgp"
    package = "gobgpd"
    programs = ("gobgpd", "gobgp")
    port = 50051

    @classmethod
    def version(cls) -> str:
        return output_of(cls.program("gobgpd"), "--version").replace("gobgpd version", "GoBGP")

    def _neighbor(self, spec: SessionSpec) -> list[str]:
        lines = [
            "[[neighbors]]",
            "[neighbors.config]",
            f'neighbor-address = "{spec.remote}"',
            f"peer-as = {spec.remote_as}",
        ]
        if spec.password:
            lines.append(f'auth-password = "{spec.password}"')
        lines += [
            "[neighbors.transport.config]",
            f'local-address = "{spec.local}"',
            f"passive-mode = {str(spec.passive).lower()}",
            "[neighbors.timers.config]",
            f"hold-time = {spec.hold_time}",
            f"keepalive-interval = {max(1, spec.hold_time // 3)}",
            "connect-retry = 5",
            "idle-hold-time-after-reset = 1",
        ]
        if spec.ttl_security:
            lines += ["[neighbors.ttl-security.config]", "enabled = true", "ttl-min = 255"]
        if spec.reflector_client:
            lines += [
                "[neighbors.route-reflector.config]",
                "route-reflector-client = true",
                f'route-reflector-cluster-id = "{self.config.router_id}"',
            ]
        if spec.graceful is not None:
            lines += ["[neighbors.graceful-restart.config]", "enabled = true", f"restart-time = {spec.graceful}"]
        for family in spec.families:
            lines += self._family(spec, family)
        return lines

    def _family(self, spec: SessionSpec, family: str) -> list[str]:
        lines = ["[[neighbors.afi-safis]]", "[neighbors.afi-safis.config]", f'afi-safi-name = "{family}-unicast"']
        if spec.graceful is not None:
            lines += ["[neighbors.afi-safis.mp-graceful-restart.config]", "enabled = true"]
        if spec.add_path:
            lines += ["[neighbors.afi-safis.add-paths.config]", "receive = true", "send-max = 8"]
        if spec.max_prefixes:
            lines += ["[neighbors.afi-safis.prefix-limit.config]", f"max-prefixes = {spec.max_prefixes}"]
        return lines

    def render(self) -> str:
        """The configuration file."""
        addresses = ", ".join(f'"{address}"' for address in sorted({spec.local for spec in self.config.sessions}))
        lines = [
            "[global.config]",
            f"as = {self.config.asn}",
            f'router-id = "{self.config.router_id}"',
            "port = 179",
            f"local-address-list = [{addresses}]",
        ]
        for spec in self.config.sessions:
            lines += self._neighbor(spec)
        return "\n".join(lines) + "\n"

    def start(self, restarting: bool = False) -> None:
        """`restarting`: come up as a restarting speaker (-r)."""
        file = self.directory / "gobgpd.toml"
        file.write_text(self.render())
        argv = [self.program("gobgpd"), "-t", "toml", "-f", str(file), "-l", "info", "--api-hosts",
                f"127.0.0.1:{self.port}", "--pprof-disable"]  # fmt: skip
        self.processes = [Process(self.namespace, argv + ["-r"] * restarting, self.directory / "gobgpd.log")]
        wait_until(lambda: "AS:" in self.ask("global", check=False), 10, "gobgpd answers")
        self._inject(self.config.announcements)

    def ask(self, *words: str, check: bool = True) -> str:
        """One gobgp command."""
        return self.namespace.run(self.program("gobgp"), "-p", str(self.port), *words, check=check)

    def _inject(self, items: tuple[Announcement, ...]) -> None:
        if len(items) > 100 and not any(item.communities or item.prepend or item.med for item in items):
            file = self.directory / "table.mrt"
            write_mrt(file, items, self.config)
            # The command may end before the daemon has taken the last of a stream: what is missing is added once more.
            self.ask("mrt", "inject", "global", str(file))
            while (taken := self._count()) < len(items):
                write_mrt(file, items[max(0, taken - 100) :], self.config)
                self.ask("mrt", "inject", "global", str(file))
                if self._count() == taken:
                    break
            items = items[taken:] if taken < len(items) else ()
        for item in items:
            self.ask("global", "rib", "add", "-a", family_name(item.prefix), *self._words(item))

    def _count(self) -> int:
        """Prefixes in its IPv4 table."""
        match = re.search(r"Destination: (\d+)", self.ask("global", "rib", "summary"))
        return int(match[1]) if match else 0

    def _words(self, item: Announcement) -> list[str]:
        # The unspecified address becomes the session's own; one session a family, as the transport must be of it.
        hop = item.next_hop or ("::" if family_name(item.prefix) == IPV6 else "0.0.0.0")
        words = [item.prefix, "nexthop", hop, "origin", "igp"]
        if item.med is not None:
            words += ["med", str(item.med)]
        if item.local_pref is not None:
            words += ["local-pref", str(item.local_pref)]
        if item.communities:
            words += ["community", ",".join(item.communities)]
        if item.large_communities:
            words += ["large-community", ",".join(item.large_communities)]
        if item.prepend:
            words += ["aspath", " ".join(map(str, item.prepend))]
        return words

    def reconfigure(self, config: PeerConfig) -> None:
        old, self.config = self.config, config
        if old.sessions != config.sessions:
            (self.directory / "gobgpd.toml").write_text(self.render())
            self.processes[0].popen.send_signal(1)
        gone = [item for item in old.announcements if item not in config.announcements]
        kept = {item.prefix for item in config.announcements}
        for item in gone:
            if item.prefix not in kept:
                self.ask("global", "rib", "del", "-a", family_name(item.prefix), item.prefix)
        self._inject(tuple(item for item in config.announcements if item not in old.announcements))

    def _neighbors(self) -> list[dict[str, Any]]:
        text = self.ask("-j", "neighbor", check=False)
        data: list[dict[str, Any]] = json.loads(text) if text.startswith("[") else []
        return data

    def established(self, remote: str) -> bool:
        for item in self._neighbors():
            state = item.get("state", {})
            if state.get("neighbor_address", state.get("neighborAddress")) == remote:
                return state.get("session_state", state.get("sessionState")) in (6, "ESTABLISHED")
        return False

    def routes(self, remote: str) -> list[Route]:
        found: list[Route] = []
        for family in self.config.session(remote).families:
            text = self.ask("-j", "neighbor", remote, "adj-in", "-a", family, check=False)
            start = min((i for i in (text.find("{"), text.find("[")) if i >= 0), default=-1)
            table = json.loads(text[start:]) if start >= 0 else {}
            paths = [path for group in table.values() for path in group] if isinstance(table, dict) else table
            for path in paths:
                found += [_route(one) for one in (path if isinstance(path, list) else [path])]
        return found

    def refresh(self, remote: str) -> None:
        self.ask("neighbor", remote, "softresetin")

    def shutdown(self, remote: str, text: str = "") -> None:
        self.ask("neighbor", remote, "shutdown", *(["--reason", text] if text else []))


def _route(path: dict[str, Any]) -> Route:
    hop, as_path, origin, large = "", "", "igp", []
    local_pref: int | None = None
    med: int | None = None
    communities: list[str] = []
    for attribute in path["attrs"]:
        kind = attribute["type"]
        if kind in (3, 14):
            hop = attribute["nexthop"]
        elif kind == 1:
            origin = _ORIGINS[attribute["value"]]
        elif kind == 2:
            as_path = " ".join(_segment(segment) for segment in attribute["as_paths"])
        elif kind == 4:
            med = attribute["metric"]
        elif kind == 5:
            local_pref = attribute["value"]
        elif kind == 8:
            communities = [f"{value >> 16}:{value & 0xFFFF}" for value in attribute["communities"]]
        elif kind == 32:
            large = [f"{v['ASN']}:{v['LocalData1']}:{v['LocalData2']}" for v in attribute["value"]]
    prefix = path["nlri"]["prefix"]
    return route(prefix, hop, as_path, origin, local_pref, med, communities, large)


def _segment(segment: dict[str, Any]) -> str:
    text = " ".join(map(str, segment["asns"]))
    return "{" + text + "}" if segment["segment_type"] == 1 else text


def write_mrt(file: Path, items: tuple[Announcement, ...], config: PeerConfig) -> None:
    """A TABLE_DUMP_V2 file (RFC 6396 §4.3) with one path a prefix: origin IGP, empty AS_PATH, the given next hop."""

    def record(subtype: int, body: bytes) -> bytes:
        return struct.pack("!IHHI", 0, 13, subtype, len(body)) + body

    octets = [struct.pack("!4sHH", bytes(4), 0, 1) + struct.pack("!B4s4sI", 2, bytes(4), bytes(4), config.asn)]
    records = [record(1, octets[0])]
    own = next(spec.local for spec in config.sessions)
    for number, item in enumerate(items):
        network = ip_network(item.prefix)
        key = bytes([network.prefixlen]) + network.network_address.packed[: (network.prefixlen + 7) // 8]
        hop = ip_network(item.next_hop or (own if network.version == 4 else "::")).network_address.packed
        attributes = b"\x40\x01\x01\x00\x40\x02\x00"
        if network.version == 4:
            attributes += b"\x40\x03\x04" + hop
        else:
            attributes += b"\x80\x0e" + bytes([len(hop) + 1, len(hop)]) + hop
        entry = struct.pack("!HIH", 0, 0, len(attributes)) + attributes
        records.append(record(2 if network.version == 4 else 4, struct.pack("!I", number) + key + b"\0\1" + entry))
    file.write_bytes(b"".join(records))
