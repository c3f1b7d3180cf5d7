"""BIRD 2 as a peer."""

from __future__ import annotations

import re
from collections.abc import Iterator

from tests.interop.daemons.base import Daemon, output_of
from tests.interop.model import IPV4, IPV6, Announcement, PeerConfig, Route, SessionSpec, family_name, route
from tests.interop.namespace import Process, run, wait_until

_PATH_LINE = re.compile(r"^(?P<prefix>[0-9a-f.:]+/\d+)?\s+(?P<kind>unicast|blackhole|unreachable|prohibited)\b.*\[")
# An attribute that was set before the export filter is dropped towards another AS.
_EXPORT = "if source != RTS_STATIC && source != %s then reject; if defined(bgp_med) then bgp_med = bgp_med; accept;"
_DOTTED = re.compile(r"\((\d+),\s*(\d+)(?:,\s*(\d+))?\)")


def protocol_name(remote: str) -> str:
    """The name of the BIRD protocol that talks to this neighbour."""
    return "p_" + remote.replace(".", "_").replace(":", "_")


def parse_routes(text: str) -> Iterator[Route]:
    """The paths in the output of `show route all`."""
    prefix = ""
    attributes: dict[str, str] | None = None
    for line in text.splitlines():
        match = _PATH_LINE.match(line)
        if match:
            if attributes is not None:
                yield _build(prefix, attributes)
            prefix = match["prefix"] or prefix
            attributes = {}
        elif attributes is not None and ": " in line and line.startswith("\t"):
            name, _, value = line.strip().partition(": ")
            attributes[name] = value
    if attributes is not None:
        yield _build(prefix, attributes)


def _build(prefix: str, attributes: dict[str, str]) -> Route:
    def number(name: str) -> int | None:
        return int(attributes[name]) if name in attributes else None

    def tuples(name: str) -> list[str]:
        return [":".join(part for part in found if part) for found in _DOTTED.findall(attributes.get(name, ""))]

    return route(
        prefix,
        attributes.get("BGP.next_hop", "").split(" ")[0],
        attributes.get("BGP.as_path", ""),
        attributes.get("BGP.origin", "igp"),
        number("BGP.local_pref"),
        number("BGP.med"),
        tuples("BGP.community"),
        tuples("BGP.large_community"),
    )


class Bird(Daemon):
    """BIRD 2: one protocol per session, static routes for what it announces."""

    name = "bird"
    package = "bird2"
    programs = ("bird", "birdc")

    @classmethod
    def version(cls) -> str:
        return output_of(cls.program("bird"), "--version")

    def _static(self, item: Announcement) -> str:
        target = f"via {item.next_hop}" if item.next_hop else "blackhole"
        words = [f"bgp_path.prepend({asn});" for asn in reversed(item.prepend)]
        words += [f"bgp_community.add(({c.replace(':', ',')}));" for c in item.communities]
        words += [f"bgp_large_community.add(({c.replace(':', ',')}));" for c in item.large_communities]
        if item.med is not None:
            words.append(f"bgp_med = {item.med};")
        if item.local_pref is not None:
            words.append(f"bgp_local_pref = {item.local_pref};")
        return f"route {item.prefix} {target}" + (f" {{ {' '.join(words)} }};" if words else ";")

    def _session(self, spec: SessionSpec) -> str:
        internal = spec.remote_as == self.config.asn
        lines = [
            f"protocol bgp {protocol_name(spec.remote)} {{",
            f" local {spec.local} as {self.config.asn};",
            f" neighbor {spec.remote} as {spec.remote_as};",
            f" hold time {spec.hold_time}; connect retry time 1; error wait time 1, 4; connect delay time 1;",
            " direct;",
        ]
        if internal and spec.reflector_client:
            lines.append(f" rr client; rr cluster id {self.config.router_id};")
        if spec.password:
            lines.append(f' password "{spec.password}";')
        lines.append(f" ttl security {'on' if spec.ttl_security else 'off'};")
        if spec.graceful is None:
            lines.append(" graceful restart aware;")
        else:
            lines.append(f" graceful restart on; graceful restart time {spec.graceful};")
        if spec.passive:
            lines.append(" passive;")
        export = _EXPORT % ("RTS_BGP" if self.transit else "RTS_STATIC")
        for family in spec.families:
            lines.append(f" {family} {{ import all; export filter {{ {export} }};")
            if spec.add_path:
                lines.append("  add paths on;")
            if spec.max_prefixes:
                lines.append(f"  receive limit {spec.max_prefixes} action restart;")
            lines.append(" };")
        return "\n".join([*lines, "}"])

    def render(self) -> str:
        """The configuration file."""
        lines = [
            "log stderr all;",
            f"router id {self.config.router_id};",
            "protocol device {}",
            "protocol direct { ipv4; ipv6; }",
        ]
        for family in (IPV4, IPV6):
            statics = [self._static(a) for a in self.config.announcements if family_name(a.prefix) == family]
            lines.append("\n".join([f"protocol static s_{family} {{ {family};", *statics, "}"]))
        lines += [self._session(spec) for spec in self.config.sessions]
        return "\n".join(lines) + "\n"

    def start(self, recover: bool = False) -> None:
        """`recover`: start as a restarting speaker (-R)."""
        file, control = self.directory / "bird.conf", self.directory / "bird.ctl"
        file.write_text(self.render())
        control.unlink(missing_ok=True)
        argv = [self.program("bird"), "-f", "-c", str(file), "-s", str(control)]
        self.processes = [Process(self.namespace, argv + ["-R"] * recover, self.directory / "bird.log")]
        wait_until(lambda: self.ask("show status", check=False).count("up and running") > 0, 10, "bird answers")

    def ask(self, command: str, check: bool = True) -> str:
        """One command on the control socket."""
        return run(self.program("birdc"), "-r" if command.startswith("show") else "-v", "-s",
                   str(self.directory / "bird.ctl"), *command.split(), check=check)  # fmt: skip

    def reconfigure(self, config: PeerConfig) -> None:
        self.config = config
        (self.directory / "bird.conf").write_text(self.render())
        answer = self.ask("configure")
        if "Reconfigur" not in answer and "0003" not in answer and "0004" not in answer:
            raise RuntimeError(answer)

    def established(self, remote: str) -> bool:
        text = self.ask(f"show protocols {protocol_name(remote)}", check=False)
        return "Established" in text

    def routes(self, remote: str) -> list[Route]:
        name = protocol_name(remote)
        return list(parse_routes(self.ask(f"show route all protocol {name}", check=False)))

    def refresh(self, remote: str) -> None:
        self.ask(f"reload in {protocol_name(remote)}")

    def shutdown(self, remote: str, text: str = "") -> None:
        command = ["disable", protocol_name(remote)] + ([f'"{text}"'] if text else [])
        run(self.program("birdc"), "-s", str(self.directory / "bird.ctl"), *command)
