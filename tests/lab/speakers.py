"""The programs that speak BGP in the lab, all started, killed and asked alike."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from attrs import define

from tests.lab.netns import LabError, Namespace, open_log

ROOT = Path(__file__).resolve().parents[2]
FRR_FOLDER = Path("/usr/lib/frr")


@define
class Program:
    """One process in a namespace, with a log file."""

    namespace: Namespace
    arguments: Sequence[str]
    log: Path
    folder: Path = ROOT
    """Where it runs, which is where Python finds our packages."""
    keep: bool = False
    popen: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it. Its output goes on in the log."""
        with open_log(self.log) as log:
            self.popen = self.namespace.popen(self.arguments, keep=self.keep, stdout=log, stderr=log, cwd=self.folder)

    @property
    def pid(self) -> int:
        """Process id; 0 while it does not run."""
        return self.popen.pid if self.popen and self.popen.poll() is None else 0

    def signal(self, number: int, timeout: float = 10.0) -> None:
        """Send a signal and wait for the end."""
        if self.popen is None:
            return
        if self.popen.poll() is None:
            self.popen.send_signal(number)
        try:
            self.popen.wait(timeout)
        except subprocess.TimeoutExpired:
            self.popen.kill()
            self.popen.wait()

    def last_words(self, lines: int = 12) -> str:
        """The end of the log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:]) if self.log.exists() else ""


class Speaker(ABC):
    """A BGP speaker on one machine of the lab; one or more programs."""

    title: str
    protocol: int = 12
    """Protocol number of the routes it puts into the kernel."""

    def __init__(self, name: str, namespace: Namespace, folder: Path) -> None:
        self.name = name
        self.namespace = namespace
        self.folder = folder
        self.programs: list[Program] = []

    def _program(self, arguments: Sequence[str], label: str = "") -> Program:
        log = self.folder / f"{self.name}{label}.log"
        program = Program(self.namespace, arguments, log)
        self.programs.append(program)
        return program

    @property
    def main(self) -> Program:
        """The program that speaks BGP."""
        return self.programs[-1]

    def start(self, timeout: float = 60.0) -> None:
        """Start and wait until it answers. Raises LabError with the end of its log."""
        for program in self.programs:
            if not program.pid:
                program.start()
        until = time.monotonic() + timeout
        while not self.answers():
            ended = next((p for p in self.programs if not p.pid), None)
            if ended or time.monotonic() > until:
                program = ended or self.main
                what = "ended at once" if ended else f"does not answer in {timeout:.0f} s"
                raise LabError(f"{self.title} on {self.name} {what}:\n{program.last_words()}")
            time.sleep(0.02)

    def launch(self) -> None:
        """Start without waiting."""
        for program in self.programs:
            if not program.pid:
                program.start()

    def kill(self) -> None:
        """kill -9 the program that speaks BGP."""
        self.main.signal(signal.SIGKILL)

    def stop(self) -> None:
        """End all of it with SIGTERM."""
        for program in reversed(self.programs):
            program.signal(signal.SIGTERM)

    @abstractmethod
    def answers(self) -> bool:
        """Whether it is up."""

    @abstractmethod
    def peers(self) -> str:
        """Its peers, as its own command shows them."""

    @abstractmethod
    def sessions(self) -> dict[str, bool]:
        """Its sessions: {name: Established}. Empty while it does not answer."""

    @property
    def settled(self) -> bool:
        """Every session is Established, and a restart of its own is over."""
        sessions = self.sessions()
        return bool(sessions) and all(sessions.values())

    def set_keep(self, keep: bool) -> None:
        """Whether it outlives this process. Before start."""
        for program in self.programs:
            program.keep = keep


def _run(arguments: Sequence[str]) -> tuple[int, str]:
    try:
        result = subprocess.run(arguments, capture_output=True, text=True, timeout=10, cwd=ROOT)
    except subprocess.TimeoutExpired:
        return 1, f"{arguments[0]} did not answer"
    return result.returncode, result.stdout + result.stderr


class OurSpeaker(Speaker):
    """This project's daemon: a node with a datastore, or the module `reflector` with arguments alone."""

    title = "calico-bgpd"

    def __init__(
        self,
        name: str,
        namespace: Namespace,
        folder: Path,
        datastore: str,
        arguments: Sequence[str] = (),
        module: str = "bgpd",
    ) -> None:
        super().__init__(name, namespace, folder)
        self.socket = folder / f"{name}.sock"
        self.bird_sockets = folder / f"{name}-bird"
        """Folder of a node's control sockets in BIRD's form."""
        source = ["--node", name, "--datastore", datastore] if datastore else []
        if module == "bgpd":
            source += ["--bird-sockets", str(self.bird_sockets)]
        self._program(
            [
                *(sys.executable, "-m", module, *source),
                *("--socket", str(self.socket), "--health", "127.0.0.1:9178", "--state-dir", str(folder), *arguments),
            ]
        )

    def api(self, path: str) -> Any:
        """GET from the daemon's api socket, decoded; None while it does not answer."""
        text = self.text(path)
        return None if text is None else json.loads(text)

    def text(self, path: str) -> str | None:
        """GET from the daemon's api socket, as it comes; None while it does not answer."""
        connection = http.client.HTTPConnection("localhost", timeout=5)
        try:
            # Connected here: http.client knows no Unix sockets.
            connection.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            connection.sock.settimeout(5)
            connection.sock.connect(str(self.socket))
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.read().decode() if answer.status == 200 else None
        except (OSError, http.client.HTTPException):
            return None
        finally:
            connection.close()

    def answers(self) -> bool:
        return bool(self.main.pid) and self.api("/v1/status") is not None

    def sessions(self) -> dict[str, bool]:
        return {row["name"]: row["state"] == "Established" for row in self.api("/v1/peers") or []}

    @property
    def settled(self) -> bool:
        status = self.api("/v1/status")
        return bool(status) and not status["restart"]["active"] and super().settled

    @property
    def bgpctl(self) -> list[str]:
        """The command `bgpctl` for this daemon."""
        return [sys.executable, "-m", "config.bgpctl", "--socket", str(self.socket)]

    def control(self, *arguments: str) -> str:
        """Output of `bgpctl` for this daemon. Raises LabError."""
        code, text = _run([*self.bgpctl, *arguments])
        if code:
            raise LabError(f"bgpctl {' '.join(arguments)} on {self.name}: {text.strip()}")
        return text

    def peers(self) -> str:
        return self.control("peers")

    def routes(self) -> str:
        """Its routes, as its own command shows them."""
        return self.control("routes")


class Bird(Speaker):
    """BIRD 2 with a given configuration. `recover` is BIRD's -R: take part in graceful restart recovery."""

    title = "BIRD"

    def __init__(self, name: str, namespace: Namespace, folder: Path, configuration: str, recover: bool) -> None:
        super().__init__(name, namespace, folder)
        self.control_socket = folder / f"{name}.ctl"
        path = folder / f"{name}.bird.conf"
        path.write_text(configuration)
        options = ["-R"] if recover else []
        self._program(["bird", "-f", *options, "-c", str(path), "-s", str(self.control_socket)])

    def answers(self) -> bool:
        return self.control_socket.exists() and not _run(["birdc", "-s", str(self.control_socket), "show", "status"])[0]

    def control(self, command: str) -> str:
        """Output of `birdc`."""
        return _run(["birdc", "-s", str(self.control_socket), *command.split()])[1]

    def peers(self) -> str:
        rows = self.control("show protocols").splitlines()[1:]
        return "\n".join(row for row in rows if " BGP " in row or row.startswith("Name"))

    def sessions(self) -> dict[str, bool]:
        rows = [row.split() for row in self.peers().splitlines()[1:]]
        return {row[0]: "Established" in row for row in rows}

    @property
    def settled(self) -> bool:
        return "Graceful restart recovery" not in self.control("show status") and super().settled


class Frr(Speaker):
    """FRR: zebra and bgpd, as the user that its packages made."""

    title = "FRR"
    protocol = 186

    def __init__(self, name: str, namespace: Namespace, folder: Path, configuration: str) -> None:
        super().__init__(name, namespace, folder)
        self.own = folder / f"{name}-frr"
        self.own.mkdir()
        for daemon, text in (("zebra", "log stdout\n"), ("bgpd", configuration)):
            (self.own / f"{daemon}.conf").write_text(text)
        for path in (self.own, *self.own.iterdir()):
            shutil.chown(path, "frr", "frr")
        for daemon in ("zebra", "bgpd"):
            common = ["-f", f"{self.own}/{daemon}.conf", "-i", f"{self.own}/{daemon}.pid", "-z", f"{self.own}/zserv"]
            self._program(
                [str(FRR_FOLDER / daemon), *common, "--vty_socket", str(self.own), "--log", "stdout", "-u", "frr"],
                f"-{daemon}",
            )

    def answers(self) -> bool:
        return (self.own / "bgpd.vty").exists() and "router identifier" in self.control("show bgp summary")

    def control(self, command: str) -> str:
        """Output of `vtysh`."""
        return _run(["vtysh", "--vty_socket", str(self.own), "-d", "bgpd", "-c", command])[1]

    def peers(self) -> str:
        return self.control("show bgp summary")

    def sessions(self) -> dict[str, bool]:
        families = json.loads(self.control("show bgp summary json") or "{}")
        rows = [row for family in families.values() for row in family.get("peers", {}).items()]
        return {name: peer["state"] == "Established" for name, peer in rows}


def available() -> dict[str, str]:
    """Which top-of-rack routers this machine can run: {kind: title}, the preferred first."""
    found = {}
    if shutil.which("bird"):
        found["bird"] = "BIRD"
    # FRR drops to its own user, which a user namespace with one mapped id does not have.
    if (FRR_FOLDER / "bgpd").exists() and _many_users():
        found["frr"] = "FRR"
    found["ours"] = "calico-bgpd"
    return found


def _many_users() -> bool:
    ranges = Path("/proc/self/uid_map").read_text().split()
    return os.geteuid() == 0 and int(ranges[2]) > 65536
