"""What every foreign daemon can do for a test."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Iterable
from pathlib import Path
from typing import ClassVar

import pytest

from tests.interop.model import PeerConfig, Route, difference
from tests.interop.namespace import Namespace, Process, wait_until

PEERS_ROOT = os.environ.get("PEERS_ROOT", "")
_DIRECTORIES = ("/usr/local/sbin", "/usr/sbin", "/usr/local/bin", "/usr/bin", "/sbin", "/bin", "/usr/lib/frr")


def find_program(*names: str) -> str | None:
    """The first of these programs that is installed, on PATH or where daemons live."""
    path = os.pathsep.join((os.environ.get("PATH", ""), *_DIRECTORIES))
    return next((found for name in names if (found := shutil.which(name, path=path))), None)


def output_of(*argv: str) -> str:
    """What a program prints on either stream, stripped."""
    done = subprocess.run(argv, capture_output=True, text=True, timeout=10, check=False)
    return (done.stdout + done.stderr).strip()


def require(condition: bool, sentence: str) -> None:
    """Skip the test with this sentence where the condition fails; in CI (CI=true) that is a failure."""
    if condition:
        return
    if os.environ.get("CI") == "true":
        pytest.fail(sentence)
    pytest.skip(sentence)


class Daemon(ABC):
    """A foreign BGP daemon in a network namespace, driven by a PeerConfig."""

    name: ClassVar[str]
    package: ClassVar[str]
    programs: ClassVar[tuple[str, ...]]
    """Programs that must be there."""
    blind: ClassVar[tuple[str, ...]] = ()
    """Fields of Route that its tables do not show."""

    def __init__(self, namespace: Namespace, directory: Path, config: PeerConfig) -> None:
        self.namespace = namespace
        self.directory = directory
        self.config = config
        self.processes: list[Process] = []
        self.transit = False
        """Pass on what is learned from one neighbour to the others."""
        directory.mkdir(parents=True, exist_ok=True)
        directory.chmod(0o755)

    @classmethod
    def missing(cls) -> str | None:
        """The first of its programs that is not installed."""
        return next((name for name in cls.programs if find_program(name) is None), None)

    @classmethod
    def program(cls, name: str) -> str:
        """Where a program is. Raises FileNotFoundError."""
        found = find_program(name)
        if found is None:
            raise FileNotFoundError(name)
        return found

    @classmethod
    @abstractmethod
    def version(cls) -> str:
        """The version that it prints."""

    @abstractmethod
    def start(self) -> None:
        """Write the configuration, start, and wait until it answers."""

    @abstractmethod
    def reconfigure(self, config: PeerConfig) -> None:
        """Apply another configuration without a restart."""

    @abstractmethod
    def established(self, remote: str) -> bool:
        """Whether the session with this neighbour is in Established."""

    @abstractmethod
    def routes(self, remote: str) -> list[Route]:
        """Every path received from this neighbour, of all families."""

    def refresh(self, remote: str) -> None:
        """Ask the neighbour for its routes again (RFC 2918)."""
        raise NotImplementedError(f"{self.name} cannot ask for a refresh")

    def shutdown(self, remote: str, text: str = "") -> None:
        """End the session administratively, with a text where the daemon can send one."""
        raise NotImplementedError(f"{self.name} cannot shut down one session")

    def wait_established(self, *remotes: str, seconds: float = 30.0) -> None:
        """Wait until the sessions with these neighbours are up."""
        for remote in remotes:
            wait_until(lambda: self.established(remote), seconds, f"{self.name}: session with {remote}", 0.1)  # noqa: B023

    def wait_routes(self, remote: str, count: int, seconds: float = 30.0) -> list[Route]:
        """Wait until the neighbour's table has this many paths; the table."""
        found: list[Route] = []

        def complete() -> bool:
            found[:] = self.routes(remote)
            return len(found) == count

        try:
            wait_until(complete, seconds, f"{self.name}: {count} paths from {remote}", 0.1)
        except TimeoutError as error:
            raise TimeoutError(f"{error}; it has {len(found)}") from None
        return found

    def wait_table(self, remote: str, expected: Iterable[Route], seconds: float = 30.0) -> None:
        """Wait until the neighbour's paths are exactly these. Raises AssertionError with the differences."""
        wanted = [item.without(*self.blind) for item in expected]
        last = ["never read"]

        def equal() -> bool:
            last[0] = difference(wanted, [item.without(*self.blind) for item in self.routes(remote)])
            return not last[0]

        try:
            wait_until(equal, seconds, f"{self.name}: table from {remote}", 0.1)
        except TimeoutError as error:
            raise AssertionError(f"{error}\n{last[0]}") from None

    def stop(self) -> None:
        """Stop as its own service manager would."""
        for process in reversed(self.processes):
            process.stop(signal.SIGTERM)
        self.processes.clear()

    def kill(self) -> None:
        """SIGKILL: no farewell on any session."""
        for process in reversed(self.processes):
            process.stop(signal.SIGKILL)
        self.processes.clear()

    def output(self) -> str:
        """The end of its log, for failed assertions."""
        return "\n".join(process.output() for process in self.processes)
