"""Network namespaces for tests: a throw-away host with a veth pair, and ways to look at and meddle with its routes."""

from __future__ import annotations

import asyncio
import ctypes
import functools
import itertools
import json
import os
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest

_CLONE_NEWNET = 0x40000000
_numbers = itertools.count()


@functools.cache
def _refusal() -> str:
    """Why namespaces cannot be had; "" if they can."""
    if os.geteuid():
        return "network namespaces need root"
    name = f"cbf-try-{os.getpid()}"
    try:
        done = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True)
    except FileNotFoundError:
        return "the command ip (iproute2) is not installed"
    if done.returncode:
        return f"network namespaces cannot be made here: {done.stderr.strip()}"
    subprocess.run(["ip", "netns", "del", name], check=False)
    return ""


def require_namespaces() -> None:
    """Skip the test where namespaces cannot be made; in CI that is a failure."""
    reason = _refusal()
    if not reason:
        return
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


@contextmanager
def _entered(path: str) -> Iterator[None]:
    """This thread is in the namespace; sockets made meanwhile stay in it."""
    libc = ctypes.CDLL(None, use_errno=True)
    with open("/proc/thread-self/ns/net", "rb") as home, open(path, "rb") as there:
        if libc.setns(there.fileno(), _CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "setns")
        try:
            yield
        finally:
            libc.setns(home.fileno(), _CLONE_NEWNET)


def set_sysctl(namespace: str, values: Mapping[str, int]) -> None:
    """Write settings below /proc/sys/net of a named namespace ("ipv4/ip_forward": 1); the program sysctl need not be
    installed."""
    for name, value in values.items():
        script = f"echo {value} > /proc/sys/net/{name}"
        subprocess.run(["ip", "netns", "exec", namespace, "sh", "-c", script], check=True)


class Host:
    """A namespace with the veth pairs `v0` (10.0.0.1/16, fd00::1/64), `v1` and `w0` (10.9.0.1/24, fd09::1/64), `w1`."""

    def __init__(self) -> None:
        self.name = f"cbf-{os.getpid()}-{next(_numbers)}"
        subprocess.run(["ip", "netns", "add", self.name], check=True)
        for link, addresses in (
            ("v", ("10.0.0.1/16", "fd00::1/64")),
            ("w", ("10.9.0.1/24", "fd09::1/64")),
        ):
            self.ip(f"link add {link}0 type veth peer name {link}1")
            self.ip(f"link set {link}1 up")
            self.ip(f"link set {link}0 up")
            for address in addresses:
                self.ip(f"addr add {address} dev {link}0" + (" nodad" if ":" in address else ""))
        self.ip("link set lo up")

    def close(self) -> None:
        """Remove the namespace."""
        subprocess.run(["ip", "netns", "del", self.name], check=False)

    def entered(self) -> Any:
        """Context manager: sockets made in it are in the namespace."""
        return _entered(f"/run/netns/{self.name}")

    def ip(self, command: str, check: bool = True) -> str:
        """Run `ip COMMAND` inside; its output."""
        done = subprocess.run(["ip", "-n", self.name, *command.split()], capture_output=True, text=True, check=False)
        if check and done.returncode:
            raise AssertionError(f"ip {command}: {done.stderr}")
        return done.stdout

    def keep_addresses(self, link: str) -> None:
        """IPv6 addresses of the link outlive its being down, as those of IPv4 do."""
        set_sysctl(self.name, {f"ipv6/conf/{link}/keep_addr_on_down": 1})

    def batch(self, commands: list[str]) -> None:
        """Run many `ip` commands in one process; those that fail are passed over."""
        subprocess.run(
            ["ip", "-n", self.name, "-force", "-batch", "-"],
            input="\n".join(commands) + "\n",
            capture_output=True,
            text=True,
            check=False,
        )

    def routes(self, family: int, selector: str = "proto bird") -> dict[str, dict[str, Any]]:
        """Routes of table main by destination; two under one destination are told apart by "#metric"."""
        text = self.ip(f"-{family} -j -d route show {selector}", check=False)
        found: dict[str, dict[str, Any]] = {}
        for route in json.loads(text if text.rstrip().endswith("]") else "[]"):
            name = route["dst"]
            if name in found:
                name += f"#{route.get('metric', 0)}"
            found[name] = route
        return found

    def nexthops(self) -> dict[int, dict[str, Any]]:
        """Nexthop objects by id."""
        return {item["id"]: item for item in json.loads(self.ip("-j -d nexthop") or "[]")}

    def index(self, link: str) -> int:
        """Index of an interface."""
        return int(json.loads(self.ip(f"-j link show {link}"))[0]["ifindex"])


async def until(condition: Callable[[], bool], seconds: float = 3.0) -> None:
    """Wait for something that events bring about; the limit is for a broken test only."""
    for _ in range(int(seconds / 0.01)):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("did not happen")
