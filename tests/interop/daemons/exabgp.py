"""ExaBGP as a peer. It keeps no table: the table is folded from the messages that it passes to its API process."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any, ClassVar

from tests.interop.daemons.base import Daemon, find_program, output_of
from tests.interop.model import Announcement, PeerConfig, Route, SessionSpec, family_name, route
from tests.interop.namespace import Process, wait_until

_API = Path(__file__).with_name("exabgp_api.py")


def _find() -> str | None:
    beside = Path(sys.executable).with_name("exabgp")
    return str(beside) if beside.exists() else find_program("exabgp")


class ExaBgp(Daemon):
    """ExaBGP 4 or 5: everything it announces goes through its API."""

    name = "exabgp"
    package = "exabgp"
    programs = ("exabgp",)
    blind: ClassVar[tuple[str, ...]] = ()

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._offset = 0
        self._up: dict[str, bool] = {}
        self._tables: dict[str, dict[tuple[str, str], Route]] = {}

    @classmethod
    def missing(cls) -> str | None:
        return None if _find() else "exabgp"

    @classmethod
    def version(cls) -> str:
        text = output_of(_find() or "exabgp", "version")
        words = [line.split()[-1] for line in text.splitlines() if "exabgp" in line.lower()]
        return "ExaBGP " + (words[0] if words else "?")

    def _session(self, spec: SessionSpec) -> list[str]:
        lines = [
            f"neighbor {spec.remote} {{",
            f"  router-id {self.config.router_id}; local-address {spec.local};",
            f"  local-as {self.config.asn}; peer-as {spec.remote_as}; hold-time {spec.hold_time};",
        ]
        if spec.password:
            lines.append(f"  md5-password '{spec.password}';")
        if spec.ttl_security:
            lines.append("  outgoing-ttl 255; incoming-ttl 255;")
        if spec.passive:
            lines.append("  passive true; listen 179;")
        lines.append("  family { " + " ".join(f"{family} unicast;" for family in spec.families) + " }")
        graceful = f"graceful-restart {spec.graceful};" if spec.graceful is not None else ""
        add_path = "add-path send/receive;" if spec.add_path else ""
        lines.append(f"  capability {{ route-refresh enable; asn4 enable; {graceful} {add_path} }}")
        if spec.add_path:
            lines.append("  add-path { " + " ".join(f"{family} unicast;" for family in spec.families) + " }")
        lines.append(
            "  api { processes [ api ]; neighbor-changes; receive { parsed; update; notification; refresh; } }"
        )
        return [*lines, "}"]

    def render(self) -> str:
        """The configuration file."""
        command = f"{sys.executable} {_API} {self.directory / 'commands'} {self.directory / 'messages'}"
        lines = [f"process api {{ run {command}; encoder json; }}"]
        for spec in self.config.sessions:
            lines += self._session(spec)
        return "\n".join(lines) + "\n"

    def start(self) -> None:
        file = self.directory / "exabgp.conf"
        file.write_text(self.render())
        fifo, messages = self.directory / "commands", self.directory / "messages"
        if not fifo.exists():
            os.mkfifo(fifo)
        messages.write_text("")
        self._offset, self._up, self._tables = 0, {}, {}
        env = {
            "exabgp.daemon.user": "root",
            "exabgp.api.cli": "false",
            "exabgp.api.ack": "false",
            "exabgp.log.destination": "stdout",
            "exabgp.tcp.attempts": "0",
            "exabgp.tcp.delay": "0",
        }
        passive = [spec.local for spec in self.config.sessions if spec.passive]
        if passive:
            env |= {"exabgp.tcp.bind": " ".join(passive), "exabgp.tcp.port": "179"}
        argv = [_find() or "exabgp", str(file)]
        self.processes = [Process(self.namespace, argv, self.directory / "exabgp.log", env)]
        self.send(*(self._announce(item) for item in self.config.announcements))

    def send(self, *lines: str) -> None:
        """Commands for its API."""
        with (self.directory / "commands").open("w") as out:
            out.writelines(line + "\n" for line in lines)

    def _announce(self, item: Announcement) -> str:
        words = [f"announce route {item.prefix} next-hop {item.next_hop or self._own(item.prefix)}"]
        if item.med is not None:
            words.append(f"med {item.med}")
        if item.local_pref is not None:
            words.append(f"local-preference {item.local_pref}")
        if item.prepend:
            # A given path replaces the one that ExaBGP would make, so our own AS is part of it.
            own = [] if self._internal() else [self.config.asn]
            words.append("as-path [ " + " ".join(map(str, [*own, *item.prepend])) + " ]")
        if item.communities:
            words.append("community [ " + " ".join(item.communities) + " ]")
        if item.large_communities:
            words.append("large-community [ " + " ".join(item.large_communities) + " ]")
        return " ".join(words)

    def _internal(self) -> bool:
        return self.config.sessions[0].remote_as == self.config.asn

    def _own(self, prefix: str) -> str:
        family = family_name(prefix)
        return next((s.local for s in self.config.sessions if family_name(s.local) == family), "self")

    def reconfigure(self, config: PeerConfig) -> None:
        """Announcements only: a changed session needs a restart of ExaBGP."""
        old, self.config = self.config, config
        kept = {item.prefix for item in config.announcements}
        lines = [
            f"withdraw route {item.prefix} next-hop {item.next_hop or self._own(item.prefix)}"
            for item in old.announcements
            if item.prefix not in kept
        ]
        self.send(*lines, *(self._announce(item) for item in config.announcements if item not in old.announcements))

    def _read(self) -> None:
        """Fold the messages that came since the last call into tables."""
        with (self.directory / "messages").open("rb") as source:
            source.seek(self._offset)
            data = source.read()
        end = data.rfind(b"\n") + 1
        self._offset += end
        for line in data[:end].splitlines():
            message = json.loads(line)
            neighbor = message.get("neighbor", {})
            remote = neighbor.get("address", {}).get("peer", "")
            if message.get("type") == "state":
                self._up[remote] = neighbor.get("state") == "up"
                if not self._up[remote]:
                    self._tables.pop(remote, None)
            elif message.get("type") == "update":
                self._fold(self._tables.setdefault(remote, {}), neighbor["message"].get("update", {}))

    def _fold(self, table: dict[tuple[str, str], Route], update: dict[str, Any]) -> None:
        for entries in update.get("withdraw", {}).values():
            for entry in entries:
                table.pop(_key(entry), None)
        attributes = update.get("attribute", {})
        for by_hop in update.get("announce", {}).values():
            for hop, entries in by_hop.items():
                for entry in entries if isinstance(entries, list) else ():
                    key = _key(entry)
                    table[key] = _route(key[0], hop, attributes)

    def established(self, remote: str) -> bool:
        self._read()
        return self._up.get(remote, False)

    def routes(self, remote: str) -> list[Route]:
        self._read()
        return list(self._tables.get(remote, {}).values())

    def refresh(self, remote: str) -> None:
        for family in self.config.session(remote).families:
            self.send(f"neighbor {remote} announce route-refresh {family} unicast")

    def shutdown(self, remote: str, text: str = "") -> None:
        self.send(f"neighbor {remote} teardown 2")

    def wait_quiet(self) -> None:
        """Wait until it has started its API process."""
        wait_until(lambda: (self.directory / "messages").exists(), 10, "ExaBGP runs its API process")


def _key(entry: Any) -> tuple[str, str]:
    if isinstance(entry, str):
        return entry, ""
    return entry["nlri"], entry.get("path-information", "")


def _path(value: Any) -> str:
    if isinstance(value, list):
        return " ".join(str(v) if not isinstance(v, list) else "{" + " ".join(map(str, v)) + "}" for v in value)
    words = []
    for segment in value.values():
        text = " ".join(map(str, segment["value"]))
        words.append("{" + text + "}" if segment["element"] == "as-set" else text)
    return " ".join(words)


def _route(prefix: str, hop: str, attributes: dict[str, Any]) -> Route:
    return route(
        prefix,
        hop,
        _path(attributes.get("as-path", [])),
        attributes.get("origin", "igp"),
        attributes.get("local-preference"),
        attributes.get("med"),
        [f"{high}:{low}" for high, low in attributes.get("community", ())],
        [":".join(map(str, parts)) for parts in attributes.get("large-community", ())],
    )
