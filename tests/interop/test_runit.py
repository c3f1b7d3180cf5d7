"""The services bird, bird6 and confd under a real runit: what calicoctl and the probes look for, at start, death and
stop."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from tests.interop.etcd_server import free_port

pytestmark = pytest.mark.interop
ROOT = Path(__file__).resolve().parents[2]
SERVICES = ("bird", "bird6", "confd")


def sv(folder: Path, *arguments: str) -> str:
    """Output of `sv`."""
    command = ["sv", *arguments[:-1], str(folder / arguments[-1])]
    return subprocess.run(command, capture_output=True, text=True, timeout=30).stdout


def processes() -> dict[int, str]:
    """First word of each command line, as calicoctl reads it."""
    found = {}
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found[int(path.parent.name)] = path.read_bytes().split(b"\0")[0].decode(errors="replace")
        except OSError:
            pass
    return found


class Services:
    """A runsvdir over copies of the three services."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.enabled = folder / "enabled"
        shutil.copytree(ROOT / "containers/runit", self.enabled)
        self._virtual_environment(folder / "venv")
        resources = folder / "resources"
        resources.mkdir()
        documents = [
            {"kind": "BGPConfiguration", "metadata": {"name": "default"}, "spec": {"asNumber": 64512}},
            {"kind": "Node", "metadata": {"name": "node-a"}, "spec": {"bgp": {"ipv4Address": "127.0.0.1/8"}}},
        ]
        text = yaml.safe_dump_all([{"apiVersion": "projectcalico.org/v3", **document} for document in documents])
        (resources / "all.yaml").write_text(text)
        self.port = free_port()
        options = f"--datastore file:{resources} --no-kernel --listen 127.0.0.1:{self.port} --health none"
        options += f" --socket {folder}/sock --state-dir {folder}/state --bird-sockets {folder}"
        self.environment = {
            **os.environ,
            "BGPD_BIN": str(folder / "venv/bin"),
            "BGPD_OPTIONS": options,
            "NODENAME": "node-a",
            "CALICO_LOG_DIR": str(folder / "log"),
            "PYTHONPATH": str(ROOT),
        }
        self.process = subprocess.Popen(
            ["runsvdir", "-P", str(self.enabled)], env=self.environment, stdout=subprocess.DEVNULL
        )

    def _virtual_environment(self, folder: Path) -> None:
        """As the image has it: the link `bird` beside python, in the virtual environment that has the packages."""
        (folder / "bin").mkdir(parents=True)
        home = Path(sys.prefix)
        shutil.copy(home / "pyvenv.cfg", folder)
        (folder / "lib").symlink_to(home / "lib")
        for name in ("bird", "python"):
            (folder / "bin" / name).symlink_to(os.path.realpath(sys.executable))

    def pid(self, service: str) -> int:
        """Of the service's process; 0 while there is none."""
        try:
            return int((self.enabled / service / "supervise/pid").read_text() or 0)
        except (OSError, ValueError):
            return 0

    def running(self) -> dict[str, int]:
        """Services whose process has its own name by now."""
        names = processes()
        return {name: self.pid(name) for name in SERVICES if names.get(self.pid(name)) == name}

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(60):
            while not holds():
                await asyncio.sleep(0.05)

    def birdcl(self, name: str = "birdcl", socket: str = "bird.ctl") -> subprocess.CompletedProcess[str]:
        """What the liveness probe runs."""
        command = [str(ROOT / "containers/bin" / name), "-s", str(self.folder / socket), "show", "status"]
        return subprocess.run(command, capture_output=True, text=True, env=self.environment)

    def close(self) -> None:
        # On SIGHUP runsvdir ends its services, too.
        self.process.send_signal(signal.SIGHUP)
        self.process.wait(30)


@pytest.fixture
def services(tmp_path: Path) -> Iterator[Services]:
    if not shutil.which("runsvdir"):
        pytest.skip("runit is not installed (package runit)")
    made = Services(tmp_path)
    yield made
    made.close()


async def test_names_status_death_and_stop(services: Services, tmp_path: Path) -> None:
    await services.until(lambda: len(services.running()) == 3 and services.birdcl().returncode == 0)
    first = services.running()
    for name in SERVICES:
        assert sv(services.enabled, "status", name).startswith("run: ")
    for client, socket in (("birdcl", "bird.ctl"), ("birdcl", "bird6.ctl"), ("birdcl6", "bird6.ctl")):
        answer = services.birdcl(client, socket)
        assert answer.returncode == 0
        assert answer.stdout.startswith("BIRD ")
        assert answer.stdout.endswith("Daemon is up and running\n")

    os.kill(first["bird"], signal.SIGKILL)
    # The placeholders end with the daemon that they stand for, and all three come back.
    await services.until(lambda: len(services.running()) == 3 and not services.running().items() & first.items())
    await services.until(lambda: services.birdcl().returncode == 0)
    assert services.running().keys() == set(SERVICES)

    sv(services.enabled, "down", "bird")
    await services.until(lambda: sv(services.enabled, "status", "bird").startswith("down: "))
    await services.until(lambda: not services.running())
    assert services.birdcl().returncode == 1
    log = (tmp_path / "log/bird/current").read_text()
    assert "ready: node=node-a" in log
    assert "bgpd ended (status -1, signal 9); its routes stay" in log
