"""Our daemon as the other side of an interop test: started, asked over its API socket, its tables as Route lists."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import yaml

from tests.interop.model import Route, difference, route
from tests.interop.namespace import Namespace, Process, wait_until

ROOT = Path(__file__).resolve().parents[2]
Json = dict[str, Any]


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=30)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(30)
        self.sock.connect(str(self._path))


class Ours:
    """One daemon in a namespace. Subclasses say where its configuration comes from."""

    def __init__(self, namespace: Namespace, directory: Path, kernel: bool = True) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.namespace = namespace
        self.directory = directory
        self.kernel = kernel
        self.socket = directory / "api.sock"
        self.log = directory / "ours.log"
        self.process: Process | None = None

    def arguments(self) -> list[str]:
        """The command line after `python`."""
        raise NotImplementedError

    def start(self, ready: bool = True) -> None:
        """Start and wait for its line `ready`; or only until it can be asked."""
        seen = self.log.read_bytes().count(b"ready ") if self.log.exists() else 0
        argv = [sys.executable, *self.arguments(), "--socket", str(self.socket), "--health", "none",
                "--state-dir", str(self.directory / "state"), *([] if self.kernel else ["--no-kernel"])]  # fmt: skip
        path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH", ""))))
        self.process = Process(self.namespace, argv, self.log, {"PYTHONPATH": path, "PYTHONUNBUFFERED": "1"})

        def is_ready() -> bool:
            assert self.process is not None
            if not self.process.alive():
                raise RuntimeError(f"our daemon ended: {self.process.output()}")
            return self.log.read_bytes().count(b"ready ") > seen if ready else self._answers()

        wait_until(is_ready, 20, "our daemon is ready")

    def _answers(self) -> bool:
        try:
            return bool(self.get("/status"))
        except OSError:
            return False

    def stop(self) -> None:
        """SIGTERM: TCP connections close without a word, as for a restart."""
        if self.process is not None:
            self.process.stop(signal.SIGTERM)
            self.process = None

    def kill(self) -> None:
        """SIGKILL."""
        if self.process is not None:
            self.process.stop(signal.SIGKILL)
            self.process = None

    def output(self) -> str:
        """The end of its log."""
        return self.log.read_text(errors="replace")[-6000:]

    def logged(self, text: str) -> bool:
        """Whether a line of its log contains this."""
        return text in self.log.read_text(errors="replace")

    # What it says.

    def get(self, path: str) -> Any:
        """One answer of the API. Raises RuntimeError for a refused request."""
        connection = _UnixConnection(self.socket)
        try:
            connection.request("GET", "/v1" + path)
            answer = connection.getresponse()
            body = answer.read()
            if answer.status != 200:
                raise RuntimeError(f"GET {path}: {answer.status} {body[:300]!r}")
            lines = [json.loads(line) for line in body.splitlines()] if path.startswith("/routes") else json.loads(body)
        finally:
            connection.close()
        return lines

    def bgpctl(self, *words: str) -> str:
        """What the real bgpctl prints."""
        argv = [sys.executable, "-m", "config.bgpctl", "--socket", str(self.socket), *words]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "250"}
        done = subprocess.run(argv, capture_output=True, text=True, timeout=30, check=True, env=environment, cwd=ROOT)
        return done.stdout

    def status(self) -> str:
        """What `bgpctl status` prints, in one line."""
        return " ".join(self.bgpctl("status").split())

    def peers(self) -> dict[str, Json]:
        """Peers by address."""
        return {item["address"]: item for item in self.get("/peers")}

    def established(self, address: str) -> bool:
        """Whether the session with this peer is up."""
        peer = self.peers().get(address)
        return peer is not None and peer["state"] == "Established"

    def wait_started(self) -> None:
        """After `start(ready=False)`: until it has its settings."""
        wait_until(lambda: self.get("/status")["asn"] is not None, 30, "our daemon has its settings")

    def wait_established(self, *addresses: str, seconds: float = 30.0) -> None:
        """Wait until these sessions are up."""
        for address in addresses:
            try:
                wait_until(lambda: self.established(address), seconds, f"ours: session with {address}", 0.1)  # noqa: B023
            except TimeoutError as error:
                raise TimeoutError(f"{error}\n{self.output()}") from None

    def paths(self, query: str = "") -> list[Json]:
        """Paths as the API tells them; the end line must be there."""
        lines: list[Json] = self.get("/routes" + (f"?{query}" if query else ""))
        if not lines or not lines[-1].get("end"):
            raise RuntimeError("the answer broke off")
        return lines[:-1]

    def received(self, address: str) -> list[Route]:
        """Adj-RIB-In of a peer, without what has our own AS in its path: some daemons send us our routes back."""
        paths = self.paths(f"received={quote(address)}")
        return [_route(item) for item in paths if item["eligible"]]

    def advertised(self, address: str) -> list[Route]:
        """Adj-RIB-Out of a peer."""
        return [_route(item) for item in self.paths(f"advertised={quote(address)}")]

    def wait_received(
        self, address: str, expected: Iterable[Route], seconds: float = 30.0, blind: Iterable[str] = ()
    ) -> None:
        """Wait until exactly these paths have come from a peer. Raises AssertionError with the differences."""
        names = tuple(blind)
        wanted = [item.without(*names) for item in expected]
        last = ["never read"]

        def equal() -> bool:
            last[0] = difference([item.without(*names) for item in self.received(address)], wanted)
            return not last[0]

        try:
            wait_until(equal, seconds, f"ours: table from {address}", 0.1)
        except TimeoutError as error:
            raise AssertionError(f"{error}\n{last[0]}\n{self.output()[-1500:]}") from None


def _route(item: Json) -> Route:
    attributes = item["attributes"]
    return route(
        item["prefix"],
        # Global and link-local next hop (RFC 2545 §3): the first counts.
        attributes["next_hop"].split()[0].strip("-") if attributes["next_hop"] else "",
        attributes["as_path"],
        attributes["origin"],
        attributes["local_pref"],
        attributes["med"],
        attributes["communities"],
        attributes["large_communities"],
    )


class Speaker(Ours):
    """The Speaker with settings given as JSON (tests/interop/settings_json.py)."""

    def __init__(self, namespace: Namespace, directory: Path, settings: Json, kernel: bool = False) -> None:
        super().__init__(namespace, directory, kernel)
        self.settings = settings

    def _write(self) -> None:
        file = self.directory / "settings.json"
        aside = file.with_suffix(".new")
        aside.write_text(json.dumps(self.settings))
        os.replace(aside, file)

    def arguments(self) -> list[str]:
        self._write()
        return ["-m", "tests.interop.speaker_main", "--settings", str(self.directory / "settings.json")]

    def reconfigure(self, settings: Json) -> None:
        """Other settings, live."""
        self.settings = settings
        self._write()
        assert self.process is not None
        self.process.popen.send_signal(signal.SIGHUP)

    def change_peer(self, name: str, **more: Any) -> None:
        """Other settings of one peer, live."""
        peers = [{**peer, **more} if peer["name"] == name else peer for peer in self.settings["peers"]]
        self.reconfigure({**self.settings, "peers": peers})


class Reflector(Ours):
    """The product: `bgp-reflector` with flags."""

    def __init__(self, namespace: Namespace, directory: Path, flags: Iterable[str]) -> None:
        super().__init__(namespace, directory)
        self.flags = [*flags]

    def arguments(self) -> list[str]:
        return ["-m", "reflector", *self.flags]


class Node(Ours):
    """The product: `bgpd --node NAME --datastore file:DIR` with Calico resources."""

    def __init__(
        self, namespace: Namespace, directory: Path, name: str, resources: Iterable[Mapping[str, Any]]
    ) -> None:
        super().__init__(namespace, directory)
        self.name = name
        self.datastore = directory / "datastore"
        self.datastore.mkdir(exist_ok=True)
        self.put(*resources)

    def arguments(self) -> list[str]:
        return ["-m", "bgpd", "--node", self.name, "--datastore", f"file:{self.datastore}"]

    def _file(self, kind: str, name: str) -> Path:
        return self.datastore / f"{kind.lower()}-{name}.yaml"

    def put(self, *resources: Mapping[str, Any]) -> None:
        """Create or replace objects."""
        for item in resources:
            file = self._file(item["kind"], item["metadata"]["name"])
            aside = file.with_name(f".{file.name}.new")
            aside.write_text(yaml.safe_dump(dict(item), sort_keys=False))
            os.replace(aside, file)

    def delete(self, kind: str, name: str) -> None:
        """Remove an object."""
        self._file(kind, name).unlink()


def resource(kind: str, name: str, **spec: Any) -> Json:
    """A projectcalico.org/v3 object."""
    return {"apiVersion": "projectcalico.org/v3", "kind": kind, "metadata": {"name": name}, "spec": spec}
