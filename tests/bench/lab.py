"""The benchmark's two namespaces and the daemons that run in them.

The daemon under test lives in one namespace (172.30.0.1) on core 0, the load in the other (172.30.1.1 and on) on
core 1.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from attrs import define, field

from tests.bench.measure import cpu_seconds, descendants, memory_kib
from tests.interop.namespace import Namespace, Process, join, wait_until
from tests.interop.scripted import OpenOptions, SessionEnded, Speaker

DAEMON_ADDRESS, DAEMON_ADDRESS6 = "172.30.0.1", "fd00:bbbb::1"
CLIENTS = 5016
DAEMON_CORE, LOAD_CORE = "0", "1"


def client(number: int) -> str:
    """Address of load client 0, 1, ..."""
    return f"172.30.{1 + (number + 1) // 256}.{(number + 1) % 256}"


@define(eq=False)
class Running:
    """A daemon that is up, with the processes to be measured."""

    name: str
    processes: list[Process]
    pids: list[int] = field(factory=list)
    started_at: float = 0.0

    def find(self) -> None:
        """Look the daemon's processes up again."""
        self.pids = [pid for process in self.processes for pid in descendants(process.pid)]

    @property
    def cpu(self) -> float:
        """CPU seconds so far."""
        return cpu_seconds(self.pids)

    @property
    def rss_mib(self) -> float:
        """Resident MiB now."""
        return memory_kib(self.pids) / 1024

    @property
    def peak_mib(self) -> float:
        """Peak resident MiB."""
        return memory_kib(self.pids, "VmHWM") / 1024

    def stop(self) -> None:
        """Stop it as a service manager would."""
        for process in reversed(self.processes):
            process.stop()


class Lab:
    """Two namespaces, a scratch folder, and at most one daemon at a time."""

    def __init__(self) -> None:
        self.scratch = Path(tempfile.mkdtemp(prefix="cbi-bench-"))
        self.scratch.chmod(0o755)
        self.daemon = Namespace("bd")
        self.load = Namespace("bg")
        join(self.daemon, self.load, "vd", "vg")
        self.daemon.address("vd", [f"{DAEMON_ADDRESS}/16", f"{DAEMON_ADDRESS6}/64"])
        self.running: list[Running] = []
        self.load.address("vg", [f"{client(i)}/16" for i in range(CLIENTS)] + ["fd00:bbbb::2/64"])

    def keep(self, running: Running) -> Running:
        """Remember a daemon, so that `stop_all` stops it."""
        self.running.append(running)
        return running

    def stop_all(self) -> None:
        """Stop the remembered daemons and whatever else runs on the daemon's side."""
        while self.running:
            self.running.pop().stop()
        for pid in self.daemon.pids():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def fresh_kernel(self) -> None:
        """Remove every route and nexthop object that a daemon left."""
        for family in ("-4", "-6"):
            for protocol in ("12", "11", "80", "186", "static"):
                self.daemon.run("ip", family, "route", "flush", "proto", protocol, check=False)
        # Routes that use nexthop objects go with their objects.
        self.daemon.run("ip", "nexthop", "flush", check=False)

    def one_neighbour(self, clients: int) -> None:
        """Send all but the first 510 clients' packets to one neighbour where there are many clients.

        The kernel's limit of neighbours (1,024) is of the whole machine and not of a namespace.
        """
        action = "replace" if clients > 1000 else "del"
        for network in ("172.30.3.0/24", "172.30.4.0/22", "172.30.8.0/21", "172.30.16.0/20"):
            self.daemon.run("ip", "route", action, network, "via", client(0), check=False)

    def pod_link(self) -> None:
        """A fresh link "cali0" as pods have, up, without routes."""
        self.daemon.run("ip", "link", "del", "cali0", check=False)
        self.daemon.ip("link", "add", "cali0", "type", "veth", "peer", "name", "pod0")
        for link in ("cali0", "pod0"):
            self.daemon.ip("link", "set", link, "up")

    def directory(self, name: str) -> Path:
        """A fresh folder for a daemon's files."""
        path = self.scratch / name
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir()
        path.chmod(0o777)
        return path

    def spawn(self, argv: list[str], log: Path, env: dict[str, str] | None = None) -> Process:
        """Start a program of the daemon's side, pinned."""
        return Process(self.daemon, ["taskset", "-c", DAEMON_CORE, *argv], log, env)

    def listening(self) -> bool:
        """Whether somebody listens on 172.30.0.1:179."""
        return bool(self.daemon.run("ss", "-Hltn", "sport", "=", ":179").strip())

    def ready(self, running: Running, is_ready: Callable[[], bool] | None = None, seconds: float = 60.0) -> Running:
        """Wait until it listens (or `is_ready`), then look its processes up."""

        def up() -> bool:
            dead = [process for process in running.processes if not process.alive()]
            if dead:
                raise RuntimeError(f"{running.name} ended: {dead[0].output(1500)}")
            return (is_ready or self.listening)()

        wait_until(up, seconds, f"{running.name} is up", 0.02)
        running.find()
        return running

    def speaker(self, options: OpenOptions, source: str, dial_for: float = 20.0) -> Speaker:
        """Dial the daemon from an address of the load side and open a session."""
        result: list[Speaker] = []

        def dial() -> bool:
            sock = self.load.socket()
            sock.settimeout(5)
            speaker = Speaker(sock, options)
            try:
                sock.bind((source, 0))
                sock.connect((DAEMON_ADDRESS, 179))
                speaker.handshake()
            except (OSError, SessionEnded):
                sock.close()
                return False
            result.append(speaker)
            return True

        wait_until(dial, dial_for, f"session from {source}", 0.01)
        return result[0]

    def close(self) -> None:
        """Remove all of it."""
        self.daemon.close()
        self.load.close()
        shutil.rmtree(self.scratch, ignore_errors=True)


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Hold the lock of measurements on this machine. Ends the program where another has it."""
    with (Path(tempfile.gettempdir()) / "cbi-bench.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SystemExit("Another make bench is running: two would spoil each other's figures.") from None
        yield


def load_average() -> float:
    """One-minute load average, printed beside the figures: a busy machine spoils them."""
    return os.getloadavg()[0]


def core_count() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0))


def command_output(argv: list[str]) -> str:
    """Both streams of a command."""
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=20)
    return (done.stdout + done.stderr).strip()
