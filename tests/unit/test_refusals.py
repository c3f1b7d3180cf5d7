"""What keeps a program from starting is one sentence with the way out, and a status that is not 0."""

from __future__ import annotations

import ctypes
import os
import socket
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from bgpd import __main__ as bgpd_main
from bgpd.ctl.commands import make_cli
from bgpd.shell.alone import AlreadyRunning, claim
from reflector import __main__ as reflector_main

NODE = """
apiVersion: projectcalico.org/v3
kind: Node
metadata: {name: n1}
spec: {bgp: {ipv4Address: 127.0.0.1/8}}
"""
REFLECTOR = ["--asn", "64512", "--router-id", "10.0.0.1", "--cluster-id", "10.0.0.1", "--clients", "127.0.0.0/8"]


class Place:
    """A folder with what a start needs, and a port that is taken."""

    def __init__(self, path: Path) -> None:
        self.path = path
        (path / "ds").mkdir()
        (path / "ds" / "node.yaml").write_text(NODE)
        self.taken = socket.socket()
        self.taken.bind(("127.0.0.1", 0))
        self.taken.listen(1)
        self.port = self.taken.getsockname()[1]

    def bgpd(self, **changes: str) -> list[str]:
        """A command line that would start but for the changes."""
        options = {
            "node": "n1", "datastore": f"file:{self.path / 'ds'}", "listen": "127.0.0.1:0", "health": "none",
            "socket": "none", "bird-sockets": "none", "state-dir": str(self.path), "loop": "asyncio",
        } | {name.replace("_", "-"): value for name, value in changes.items()}  # fmt: skip
        return ["--no-kernel", *(word for name, value in options.items() for word in (f"--{name}", value))]

    def reflector(self, **changes: str) -> list[str]:
        """The same for bgp-reflector."""
        options = {"listen": "127.0.0.1:0", "health": "none", "socket": "none", "loop": "asyncio"}
        options |= {name.replace("_", "-"): value for name, value in changes.items()}
        return [*REFLECTOR, *(word for name, value in options.items() for word in (f"--{name}", value))]


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    made = Place(tmp_path)
    yield made
    made.taken.close()


def said(capfd: pytest.CaptureFixture[str], program: str) -> str:
    """The one sentence."""
    lines = [line for line in capfd.readouterr().err.splitlines() if line.startswith(f"{program}: ")]
    assert len(lines) == 1, lines
    return lines[0]


def _answering(place: Place) -> str:
    path = str(place.path / "taken.sock")
    other = socket.socket(socket.AF_UNIX)
    other.bind(path)
    other.listen(1)
    place.other = other  # type: ignore[attr-defined]
    return path


def _file(place: Place, name: str, text: str = "x") -> str:
    (place.path / name).write_text(text)
    return str(place.path / name)


REFUSED: tuple[tuple[str, Callable[[Place], dict[str, str]], str], ...] = (
    ("port", lambda p: {"listen": f"127.0.0.1:{p.port}"}, "another program listens there; stop it, or give another"),
    ("second daemon", lambda p: {"socket": _answering(p)}, "another daemon answers on"),
    ("no socket", lambda p: {"socket": _file(p, "file")}, "exists and is no socket: remove it, or name another"),
    ("socket too long", lambda p: {"socket": str(p.path / ("x" * 120))}, "too long for a Unix socket"),
    ("health in use", lambda p: {"health": f"127.0.0.1:{p.port}"}, "choose another with --health"),
    ("health", lambda p: {"health": "nonsense"}, "write an address and a port, like 127.0.0.1:9178 or [::1]:9178"),
    ("health not here", lambda p: {"health": "192.0.2.1:9178"}, "Cannot assign requested address; choose another"),
    ("open api", lambda p: {"api": "0.0.0.0:0"}, "give --api-token-file, or listen on 127.0.0.1"),
    ("token file", lambda p: {"api": "0.0.0.0:0", "api_token_file": "/nonexistent"}, "/nonexistent cannot be read"),
    ("empty token", lambda p: {"api": "0.0.0.0:0", "api_token_file": _file(p, "token", "")}, "holds no token"),
)


@pytest.mark.parametrize("case", REFUSED, ids=[case[0] for case in REFUSED])
def test_bgpd(
    place: Place, capfd: pytest.CaptureFixture[str], case: tuple[str, Callable[..., dict[str, str]], str]
) -> None:
    assert bgpd_main.main(place.bgpd(**case[1](place))) == 1
    assert case[2] in said(capfd, "bgpd")


@pytest.mark.parametrize("case", REFUSED[:4], ids=[case[0] for case in REFUSED[:4]])
def test_reflector(
    place: Place, capfd: pytest.CaptureFixture[str], case: tuple[str, Callable[..., dict[str, str]], str]
) -> None:
    assert reflector_main.main(place.reflector(**case[1](place))) == 1
    assert case[2] in said(capfd, "bgp-reflector")


@pytest.mark.parametrize(
    ("url", "words"),
    (
        ("foo:bar", "none that can be read; allowed: file:DIR, etcd://"),
        ("file:/nonexistent", "create it or name another"),
        ("etcd://", "names no host; write etcd://HOST:2379"),
    ),
)
def test_datastore(place: Place, capfd: pytest.CaptureFixture[str], url: str, words: str) -> None:
    assert bgpd_main.main(place.bgpd(datastore=url)) == 1
    assert words in said(capfd, "bgpd")


@pytest.mark.parametrize(
    ("arguments", "words"),
    (
        (["--nonsense"], "unrecognized arguments: --nonsense"),
        (["--listen", "1.2.3.4.5:179"], "does not appear to be an IPv4 or IPv6 address"),
        (["--listen", "10.0.0.1"], "is not ADDR:PORT"),
        (["--loop", "fast"], "invalid choice: 'fast'"),
    ),
)
def test_wrong_flags_are_status_2(
    place: Place, capfd: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    for program, main, usual in (
        ("bgpd", bgpd_main.main, place.bgpd()), ("bgp-reflector", reflector_main.main, place.reflector())
    ):  # fmt: skip
        with pytest.raises(SystemExit) as ended:
            main([*usual, *arguments])
        assert ended.value.code == 2
        assert words in said(capfd, program)


@pytest.mark.parametrize("form", ("table", "json"))
def test_an_output_that_takes_nothing(place: Place, form: str) -> None:
    command = [sys.executable, "-m", "config.bgpctl", "validate", str(place.path / "ds"), "-o", form]
    with open("/dev/full", "w") as full:
        ended = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=30)
    assert ended.stderr == "Error: the output cannot be written: No space left on device\n"
    assert ended.returncode == 1


def test_an_empty_name_is_no_name(place: Place, capfd: pytest.CaptureFixture[str]) -> None:
    # As of `--node "$NODENAME"` without that variable.
    for program, main in (("bgpd", bgpd_main.main), ("bgp-reflector", reflector_main.main)):
        with pytest.raises(SystemExit) as ended:
            main(["--node", "", "--datastore", f"file:{place.path / 'ds'}"])
        assert ended.value.code == 2 and "--node is empty" in said(capfd, program)


def test_an_unknown_datastore_type_is_named(
    place: Place, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATASTORE_TYPE", "foo")
    with pytest.raises(SystemExit):
        bgpd_main.main(["--node", "n1"])
    assert "DATASTORE_TYPE is 'foo': give kubernetes or etcdv3, or --datastore" in said(capfd, "bgpd")


def test_one_daemon_writes_the_kernels_routes() -> None:
    first = claim(99_999, 250)
    assert first is not None
    with pytest.raises(AlreadyRunning, match=rf"another bgpd \(process {os.getpid()}\) writes .* with --no-kernel"):
        claim(99_999, 250)
    other = claim(99_999, 251)
    assert other is not None
    first.close()
    again = claim(99_999, 250)
    assert again is not None
    for sock in (other, again):
        sock.close()


def test_a_stranger_cannot_keep_us_from_starting(monkeypatch: pytest.MonkeyPatch) -> None:
    stranger = claim(99_999, 252)
    assert stranger is not None
    monkeypatch.setattr("bgpd.shell.alone._owner", lambda name: (4711, 65_534))
    assert claim(99_999, 252) is None
    stranger.close()


def _without_privileges(run: Callable[[], int], out: Path) -> int:
    """The status of `run` in a child without any capability, whose standard error goes to a file."""
    pid = os.fork()
    if not pid:
        status = 99
        try:
            os.dup2(os.open(out, os.O_WRONLY | os.O_CREAT, 0o666), 2)
            sys.stderr = open(2, "w", buffering=1, closefd=False)  # noqa: SIM115
            header, none = struct.pack("=Ii", 0x20080522, 0), bytes(24)  # _LINUX_CAPABILITY_VERSION_3
            if ctypes.CDLL(None, use_errno=True).capset(header, none) == 0:
                status = run()
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_missing_privileges(place: Place) -> None:
    low = place.bgpd(listen="127.0.0.1:178")
    kernel = place.bgpd()[1:]
    closed = place.path / "closed"
    closed.mkdir(mode=0)
    cases: tuple[tuple[Callable[[], int], str], ...] = (
        (lambda: bgpd_main.main(low), "ports below 1024 need CAP_NET_BIND_SERVICE; run as root or grant it"),
        (lambda: bgpd_main.main(kernel), "run as root or with CAP_NET_ADMIN, or start with --no-kernel"),
        (
            lambda: bgpd_main.main(place.bgpd(socket=str(closed / "s"))),
            "cannot be made: Permission denied; name another",
        ),
        (lambda: bgpd_main.main(place.bgpd(datastore=f"file:{closed}")), "cannot be read (Permission denied)"),
        (lambda: reflector_main.main(place.reflector(listen="127.0.0.1:178")), "ports below 1024 need CAP_NET_BIND"),
        (
            lambda: reflector_main.main([*place.reflector(), "--password-file", str(closed / "key")]),
            "cannot be read: Permission denied",
        ),
    )
    for number, (run, words) in enumerate(cases):
        out = place.path / f"said{number}"
        assert _without_privileges(run, out) == 1, out.read_text()
        assert words in out.read_text()


def test_bgpctl_without_permission(place: Place) -> None:
    path = _answering(place)
    os.chmod(path, 0)
    out = place.path / "said"

    def run() -> int:
        result = CliRunner().invoke(make_cli(lambda table, protocol: {}), ["--socket", path, "status"])
        os.write(2, result.output.encode())
        return result.exit_code

    assert _without_privileges(run, out) == 1
    assert "run bgpctl as the user that runs bgpd, usually root" in out.read_text()


@pytest.mark.parametrize(
    ("socket_path", "words"),
    (
        ("/nonexistent", "does not exist; see --socket"),
        ("FILE", "is no socket: name bgpd's with --socket"),
        ("http://127.0.0.1:1", "Connection refused; see its option --api"),
        ("http://host", "write http://ADDR:PORT"),
    ),
)
def test_bgpctl_without_a_daemon(place: Place, socket_path: str, words: str) -> None:
    where = _file(place, "file") if socket_path == "FILE" else socket_path
    result = CliRunner().invoke(make_cli(lambda table, protocol: {}), ["--socket", where, "status"])
    assert result.exit_code == 1 and result.output.startswith("Error: ") and words in result.output
    assert len(result.output.splitlines()) == 1
