"""Network namespaces of the interop tests and benchmarks: made, joined by a veth pair, and removed with all in them."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

PREFIX = "cbi-"
_CLONE_NEWNET = 0x40000000

T = TypeVar("T")


def run(*argv: str, check: bool = True, stdin: str | None = None, timeout: float = 60.0) -> str:
    """Run a command and return its standard output. Raises RuntimeError with its words when it fails."""
    done = subprocess.run(argv, input=stdin, capture_output=True, text=True, timeout=timeout, check=False)
    if check and done.returncode:
        raise RuntimeError(f"{' '.join(argv)}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


def wait_until(condition: Callable[[], bool], seconds: float, what: str, interval: float = 0.05) -> float:
    """Wait until `condition` holds; the seconds it took. Raises TimeoutError naming `what`."""
    start = time.monotonic()
    while not condition():
        if time.monotonic() - start > seconds:
            raise TimeoutError(f"{what}: not within {seconds:g} s")
        time.sleep(interval)
    return time.monotonic() - start


class Namespace:
    """One network namespace, its loopback up. `close` kills what runs in it and removes it."""

    def __init__(self, name: str) -> None:
        self.name = PREFIX + name
        self.path = f"/run/netns/{self.name}"
        if os.path.exists(self.path):
            self.close()
        run("ip", "netns", "add", self.name)
        self.ip("link", "set", "lo", "up")

    def ip(self, *argv: str, stdin: str | None = None) -> str:
        """`ip -n NAME ARGV`."""
        return run("ip", "-n", self.name, *argv, stdin=stdin)

    def batch(self, lines: Iterable[str]) -> None:
        """Many `ip` commands in one process."""
        self.ip("-batch", "-", stdin="\n".join(lines) + "\n")

    def address(self, link: str, addresses: Iterable[str]) -> None:
        """Add addresses (with prefix length) to a link; IPv6 without duplicate address detection."""
        self.batch(f"addr add {item} dev {link}" + (" nodad" if ":" in item else "") for item in addresses)

    def exec(self, *argv: str) -> list[str]:
        """The command line that runs ARGV in this namespace and dies with its parent."""
        return ["setpriv", "--pdeathsig", "KILL", "ip", "netns", "exec", self.name, *argv]

    def run(self, *argv: str, check: bool = True, stdin: str | None = None) -> str:
        """Run a command inside and return its standard output."""
        return run("ip", "netns", "exec", self.name, *argv, check=check, stdin=stdin)

    def enter(self, action: Callable[[], T]) -> T:
        """Call `action` in a thread that is inside: sockets that it opens belong to the namespace for good."""
        result: list[T] = []
        failure: list[BaseException] = []

        def inside() -> None:
            try:
                with open(self.path, "rb") as handle:
                    if ctypes.CDLL(None, use_errno=True).setns(handle.fileno(), _CLONE_NEWNET):
                        raise OSError(ctypes.get_errno(), f"setns {self.path}")
                result.append(action())
            except BaseException as error:  # handed to the caller's thread, whatever it is
                failure.append(error)

        thread = threading.Thread(target=inside)
        thread.start()
        thread.join()
        if failure:
            raise failure[0]
        return result[0]

    def socket(self, family: int = socket.AF_INET, kind: int = socket.SOCK_STREAM) -> socket.socket:
        """A socket that lives in the namespace."""
        return self.enter(lambda: socket.socket(family, kind))

    def pids(self) -> list[int]:
        """Processes inside."""
        return [int(word) for word in run("ip", "netns", "pids", self.name, check=False).split()]

    def close(self) -> None:
        """Kill what runs inside and remove the namespace."""
        for pid in self.pids():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        run("ip", "netns", "del", self.name, check=False)


def join(left: Namespace, right: Namespace, left_link: str = "eth0", right_link: str = "eth0") -> None:
    """Connect two namespaces by a veth pair and bring both ends up."""
    run(
        "ip", "link", "add", left_link, "netns", left.name, "type", "veth",
        "peer", "name", right_link, "netns", right.name,
    )  # fmt: skip
    for side, link in ((left, left_link), (right, right_link)):
        side.ip("link", "set", link, "up")


class Process:
    """A program in a namespace with its output in a file."""

    def __init__(self, namespace: Namespace, argv: list[str], log: Path, env: dict[str, str] | None = None) -> None:
        self.log = log
        with log.open("ab") as output:
            self.popen = subprocess.Popen(
                namespace.exec(*argv),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                env={**os.environ, **(env or {})},
            )
        self.pid = self.popen.pid

    def alive(self) -> bool:
        """Whether it still runs."""
        return self.popen.poll() is None

    def stop(self, number: int = signal.SIGTERM, seconds: float = 15.0) -> int:
        """Send a signal and wait; SIGKILL to its group when it does not go. Returns the exit status."""
        if self.popen.poll() is None:
            self.popen.send_signal(number)
        try:
            return self.popen.wait(seconds)
        except subprocess.TimeoutExpired:
            os.killpg(self.pid, signal.SIGKILL)
            return self.popen.wait(5)

    def output(self, octets: int = 4000) -> str:
        """The end of what it has printed."""
        return self.log.read_bytes()[-octets:].decode(errors="replace")
