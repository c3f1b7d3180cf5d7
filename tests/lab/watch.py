"""Kernel routes as iproute2 shows them, and a record of every change: a witness that shares no code with the daemon."""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Callable, Iterable
from datetime import datetime
from pathlib import Path
from typing import Any

from attrs import frozen

from tests.lab.netns import LabError, Namespace

PROTOCOL_BIRD = 12
PROTOCOL_FELIX = 80


@frozen
class KernelRoute:
    """One route of the main table, comparable by value. `hops`: (gateway, interface), sorted."""

    prefix: str
    kind: str
    protocol: str
    metric: int
    hops: tuple[tuple[str, str], ...]


def routes(namespace: Namespace, protocol: int | None = PROTOCOL_BIRD) -> frozenset[KernelRoute]:
    """The main table's routes of both families, of one protocol number or (None) of all."""
    found: set[KernelRoute] = set()
    for option in ("-4", "-6"):
        command = ["ip", option, "-n", namespace.name, "-N", "-j", "route", "show", "table", "main"]
        if protocol is not None:
            command += ["proto", str(protocol)]
        text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        found.update(_route(entry, protocol) for entry in json.loads(text or "[]"))
    return frozenset(found)


def _route(entry: dict[str, Any], protocol: int | None) -> KernelRoute:
    parts = entry.get("nexthops") or [entry]
    hops = sorted((part.get("gateway", ""), part.get("dev", "")) for part in parts)
    kind = str(entry.get("type", "unicast"))
    return KernelRoute(
        prefix=str(entry["dst"]),
        kind={"1": "unicast", "6": "blackhole", "7": "unreachable"}.get(kind, kind),
        # iproute2 leaves out what it was asked to filter by.
        protocol=str(entry.get("protocol", protocol)),
        metric=int(entry.get("metric", 0)),
        hops=tuple(hops) if kind in ("1", "unicast") else (),
    )


def prefixes(namespace: Namespace, protocol: int | None = PROTOCOL_BIRD) -> frozenset[str]:
    """The prefixes of `routes`, as iproute2 writes them (no "/32", no "/128")."""
    return frozenset(route.prefix for route in routes(namespace, protocol))


@frozen
class Change:
    """One line of `ip monitor`. `at` is in seconds of the real-time clock."""

    at: float
    deleted: bool
    what: str
    """"route" or "nexthop"."""
    prefix: str
    line: str


_STAMP = re.compile(r"^\[(?P<at>[^\]]+)\] (?:\[(?P<what>[A-Z0-9]+)\])?(?P<rest>.*)$")
_TYPES = {"unicast", "blackhole", "unreachable", "prohibit", "local", "broadcast", "multicast", "anycast"}
_NUMBER_TYPES = {"1", "6", "7", "8"}


class RouteMonitor:
    """`ip monitor route nexthop` in one namespace, from its start to `close()`."""

    def __init__(self, namespace: Namespace, folder: Path) -> None:
        self._path = folder / f"monitor-{namespace.name}-{time.monotonic_ns()}.log"
        command = ["setpriv", "--pdeathsig", "KILL", "ip", "-n", namespace.name, "-N", "-o", "-ts"]
        with self._path.open("wb") as log:
            self._popen = subprocess.Popen(
                [*command, "monitor", "label", "route", "nexthop"], stdout=log, stdin=subprocess.DEVNULL
            )
        _wait_netlink_socket(self._popen.pid)

    def changes(self, protocol: int | None = PROTOCOL_BIRD) -> list[Change]:
        """All changes so far in the main table, of one protocol number or of all."""
        found = []
        for line in self._path.read_text().splitlines():
            change = _change(line)
            if change is None or " table " in line:
                continue
            if protocol is None or f" proto {protocol} " in line + " ":
                found.append(change)
        return found

    def close(self) -> None:
        """Stop recording."""
        self._popen.terminate()
        self._popen.wait()

    def __enter__(self) -> RouteMonitor:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _change(line: str) -> Change | None:
    match = _STAMP.match(line)
    if not match or match["what"] not in ("ROUTE", "NEXTHOP"):
        return None
    words = match["rest"].split()
    deleted = bool(words) and words[0] == "Deleted"
    words = words[1:] if deleted else words
    if words and (words[0] in _TYPES or (words[0] in _NUMBER_TYPES and len(words) > 1)):
        words = words[1:]
    return Change(
        at=datetime.fromisoformat(match["at"]).timestamp(),
        deleted=deleted,
        what=match["what"].lower(),
        prefix=words[0] if words else "",
        line=line,
    )


def _wait_netlink_socket(pid: int) -> None:
    """Until the monitor listens: a change before that would go unseen."""
    until = time.monotonic() + 5
    while time.monotonic() < until:
        try:
            links = [str(link.readlink()) for link in Path(f"/proc/{pid}/fd").iterdir()]
            comm = Path(f"/proc/{pid}/comm").read_text().strip()
        except OSError:
            links, comm = [], ""
        if comm == "ip" and any(link.startswith("socket:") for link in links):
            time.sleep(0.02)
            return
        time.sleep(0.005)
    raise LabError("ip monitor did not start")


def wait_until(what: str, condition: Callable[[], object], timeout: float = 20.0, pause: float = 0.05) -> float:
    """Wait until `condition` is true; the seconds it took. Raises LabError with `what` after `timeout`."""
    began = time.monotonic()
    while not condition():
        if time.monotonic() - began > timeout:
            raise LabError(f"not in {timeout:.0f} s: {what}")
        time.sleep(pause)
    return time.monotonic() - began


def rewritten(changes: Iterable[Change], unchanged: frozenset[KernelRoute]) -> list[Change]:
    """The changes that touched routes which are the same before and after: routes rewritten for nothing."""
    names = {route.prefix for route in unchanged}
    return [change for change in changes if change.what == "route" and change.prefix in names]
