"""A real etcd on loopback with a folder and ports of its own, and the calls of its API that only tests need."""

from __future__ import annotations

import asyncio
import json
import shutil
import signal
import socket
import ssl
import subprocess
import urllib.request
from pathlib import Path
from typing import Any

from tests.interop.daemons.base import require

__all__ = ["EtcdServer", "certificates", "expire", "free_port"]


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class EtcdServer:
    """One member. `start` and `kill` can follow each other as often as one likes; the data stay."""

    def __init__(self, folder: Path, *extra: str, tls: Path | None = None) -> None:
        """`tls`: a folder made by `certificates`; clients must then show a certificate."""
        program = shutil.which("etcd")
        require(program is not None, "the program etcd is not installed (Debian: etcd-server)")
        self._program = program or ""
        self.folder = folder
        self.port = free_port()
        self._peer_port = free_port()
        self._extra = list(extra)
        self._name = "one"
        self._everyone = ""
        self._scheme = "http"
        self._tls = tls
        if tls is not None:
            self._scheme = "https"
            self._extra += ["--cert-file", f"{tls}/server.pem", "--key-file", f"{tls}/server.key"]
            self._extra += ["--trusted-ca-file", f"{tls}/ca.pem", "--client-cert-auth"]
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """For the datastore's option."""
        return f"{'etcd' if self._scheme == 'http' else 'etcds'}://127.0.0.1:{self.port}"

    @classmethod
    def cluster(cls, folder: Path, size: int) -> list[EtcdServer]:
        """Members of one cluster, none started; it serves once most of them are."""
        members = []
        for number in range(size):
            (folder / f"m{number}").mkdir()
            members.append(cls(folder / f"m{number}"))
            members[-1]._name = f"m{number}"
        everyone = ",".join(f"{member._name}={member._peer_url}" for member in members)
        for member in members:
            member._everyone = everyone
        return members

    @property
    def _peer_url(self) -> str:
        return f"http://127.0.0.1:{self._peer_port}"

    def launch(self) -> None:
        """Start it and do not wait."""
        client, peer = f"{self._scheme}://127.0.0.1:{self.port}", self._peer_url
        arguments = [self._program, "--name", self._name, "--data-dir", str(self.folder / "data")]
        arguments += ["--listen-client-urls", client, "--advertise-client-urls", client]
        arguments += ["--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer]
        everyone = self._everyone or f"{self._name}={peer}"
        arguments += ["--initial-cluster", everyone, "--log-level", "error", *self._extra]
        with open(self.folder / "log", "ab") as log:
            self._process = subprocess.Popen(arguments, stdout=log, stderr=log, stdin=subprocess.DEVNULL)

    async def start(self) -> None:
        """Start it and wait until it serves."""
        self.launch()
        await self.wait()

    async def wait(self) -> None:
        """Until it serves."""
        async with asyncio.timeout(60):
            while not await asyncio.to_thread(self.serves):
                assert self._process is not None
                assert self._process.poll() is None, (self.folder / "log").read_text()[-2000:]
                await asyncio.sleep(0.02)

    def serves(self) -> bool:
        """Whether it answers."""
        context = None
        if self._tls is not None:
            context = ssl.create_default_context(cafile=f"{self._tls}/ca.pem")
            context.verify_flags &= ~ssl.VERIFY_X509_STRICT
            context.load_cert_chain(f"{self._tls}/client.pem", f"{self._tls}/client.key")
        try:
            url = f"{self._scheme}://127.0.0.1:{self.port}/health"
            with urllib.request.urlopen(url, timeout=5, context=context) as response:
                return bool(json.load(response)["health"] == "true")
        except OSError:
            return False

    def kill(self) -> None:
        """SIGKILL, as a crash."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def freeze(self) -> None:
        """SIGSTOP: it holds its connections and says nothing."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def wipe(self) -> None:
        """Remove its data; only while it does not run."""
        assert self._process is None
        shutil.rmtree(self.folder / "data")

    async def gateway(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """`post` in a thread."""
        return await asyncio.to_thread(self.post, path, body)

    def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """A call of etcd's JSON gateway, which is not the way that the program under test takes."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/v3/{path}", json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=10) as response:
            answer: dict[str, Any] = json.load(response)
            return answer


def certificates(folder: Path) -> None:
    """Make an authority (ca), a server's certificate for 127.0.0.1, a client's, and another authority (other)."""

    def run(*arguments: str) -> None:
        _openssl(folder, *arguments)

    curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    for name in ("ca", "other"):
        run(
            "req",
            "-x509",
            *curve,
            "-days",
            "2",
            "-subj",
            f"/CN={name}",
            "-keyout",
            f"{name}.key",
            "-out",
            f"{name}.pem",
        )
    (folder / "server.ext").write_text("subjectAltName=IP:127.0.0.1\n")
    (folder / "client.ext").write_text("extendedKeyUsage=clientAuth\n")
    for name in ("server", "client"):
        run("req", *curve, "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.csr")
        signing = ("-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2", "-extfile", f"{name}.ext")
        run("x509", "-req", "-in", f"{name}.csr", *signing, "-out", f"{name}.pem")


def put_between(folder: Path) -> None:
    """Sign the server's certificate of `certificates` anew, by an authority `middle` that is signed by `ca`."""
    (folder / "middle.ext").write_text("basicConstraints=critical,CA:TRUE\n")
    subject = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-subj", "/CN=middle")
    _openssl(folder, "req", *subject, "-keyout", "middle.key", "-out", "middle.csr")
    for name, above in (("middle", "ca"), ("server", "middle")):
        signing = ("-CA", f"{above}.pem", "-CAkey", f"{above}.key", "-CAcreateserial", "-extfile", f"{name}.ext")
        _openssl(folder, "x509", "-req", "-in", f"{name}.csr", *signing, "-days", "2", "-out", f"{name}.pem")


def expire(folder: Path, name: str) -> None:
    """Sign the certificate `name` of `certificates` anew, for a time that is over."""
    (folder / "index.txt").touch()
    (folder / "ca.cnf").write_text(
        f"[ca]\ndefault_ca = this\n[this]\ndatabase = {folder}/index.txt\nnew_certs_dir = {folder}\n"
        "rand_serial = yes\ndefault_md = sha256\npolicy = any\nunique_subject = no\n[any]\ncommonName = supplied\n"
    )
    dates = ("-startdate", "20200101000000Z", "-enddate", "20210101000000Z")
    files = (
        "-in",
        f"{name}.csr",
        "-out",
        f"{name}.pem",
        "-extfile",
        f"{name}.ext",
        "-cert",
        "ca.pem",
        "-keyfile",
        "ca.key",
    )
    _openssl(folder, "ca", "-batch", "-notext", "-config", "ca.cnf", *dates, *files)


def _openssl(folder: Path, *arguments: str) -> None:
    require(shutil.which("openssl") is not None, "the program openssl is not installed (Debian: openssl)")
    subprocess.run(["openssl", *arguments], check=True, cwd=folder, capture_output=True)
