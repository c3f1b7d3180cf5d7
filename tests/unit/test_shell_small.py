"""Socket option packing, addresses, log formats and their bounded queue, rate limit, sd_notify."""

from __future__ import annotations

import io
import json
import logging
import os
import socket
import struct
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from bgpd.settings import PeerSettings
from bgpd.shell import sockopt
from bgpd.shell.connector import user_timeout
from bgpd.shell.logs import HumanFormatter, JsonFormatter, LogWriter, RateLimit, log_event
from bgpd.shell.notify import notify, watchdog_interval


def test_md5_option_layout() -> None:
    """struct tcp_md5sig of include/uapi/linux/tcp.h: 128 octets of address, flags, prefix, length, interface, key."""
    option, value = sockopt.md5_option("192.0.2.1", b"key")
    assert option == 14
    assert len(value) == 128 + 8 + 80
    assert value[:8] == struct.pack("=HH", socket.AF_INET, 0) + bytes((192, 0, 2, 1))
    assert value[128:136] == struct.pack("=BBHi", 0, 0, 3, 0)
    assert value[136:] == b"key".ljust(80, b"\0")
    option, value = sockopt.md5_option("2001:db8::/32", b"key")
    assert option == 32
    assert value[:24] == struct.pack("=HHI", socket.AF_INET6, 0, 0) + bytes.fromhex("20010db8").ljust(16, b"\0")
    assert value[128:136] == struct.pack("=BBHi", 1, 32, 3, 0)


def test_addresses() -> None:
    assert sockopt.canonical("::ffff:192.0.2.1") == "192.0.2.1"
    assert sockopt.canonical("FD00:0:0::1") == "fd00::1"
    assert sockopt.text_address(("192.0.2.1", 179)) == "192.0.2.1"
    assert sockopt.text_address(("::ffff:192.0.2.1", 179, 0, 0)) == "192.0.2.1"
    assert sockopt.text_address(("fe80::1", 179, 0, socket.if_nametoindex("lo"))) == "fe80::1%lo"
    assert sockopt.socket_address("fe80::1%lo", 179) == ("fe80::1", 179, 0, socket.if_nametoindex("lo"))
    assert sockopt.socket_address("192.0.2.1", 179) == ("192.0.2.1", 179)


def test_errors_are_sentences_without_keys() -> None:
    with socket.socket() as sock:
        with pytest.raises(sockopt.SocketOptionError) as caught:
            sockopt.set_md5(sock, "192.0.2.1", "k" * 81)
        assert str(caught.value) == "the TCP-MD5 key for 192.0.2.1 has 81 octets, at most 80 are allowed"
        with pytest.raises(sockopt.SocketOptionError, match="cannot set the TTL to 999: invalid argument"):
            sockopt.set_ttl(sock, 999)
        sockopt.set_md5(sock, "192.0.2.1", None)
    assert sockopt.reason(OSError(111, "Connection refused")) == "connection refused"


def test_user_timeout_is_later_than_the_send_hold_timer() -> None:
    assert user_timeout(PeerSettings("a", "192.0.2.1", 1)) == 540
    assert user_timeout(PeerSettings("a", "192.0.2.1", 1, hold_time=600)) == 1260
    assert user_timeout(PeerSettings("a", "192.0.2.1", 1, send_hold_time=20)) == 80
    assert user_timeout(PeerSettings("a", "192.0.2.1", 1, send_hold_time=0)) == 0


@pytest.fixture
def root() -> Iterator[logging.Logger]:
    logger = logging.getLogger()
    handlers, level, raising = logger.handlers[:], logger.level, logging.raiseExceptions
    yield logger
    logger.handlers[:] = handlers
    logger.setLevel(level)
    logging.raiseExceptions = raising


def record(text: str, *args: object, **extra: object) -> logging.LogRecord:
    made = logging.LogRecord("bgpd", logging.INFO, "", 0, text, args, None)
    made.created = 1767225600.25
    made.__dict__.update(extra)
    return made


def test_formats() -> None:
    line = record("peer %s says %s", "tor", "bye\n2026 ERROR forged\x1b[2J", fields={"peer": "tor", "n": 1})
    human = HumanFormatter().format(line)
    assert human == r"2026-01-01T00:00:00.250Z INFO peer tor says bye\x0a2026 ERROR forged\x1b[2J (n=1)"
    value = json.loads(JsonFormatter().format(line))
    assert value["message"].endswith("forged\x1b[2J")
    assert (value["time"], value["level"], value["peer"], value["n"]) == ("2026-01-01T00:00:00.250Z", "info", "tor", 1)


def test_log_writer(root: logging.Logger) -> None:
    stream = io.StringIO()
    writer = LogWriter("info", "json", stream)
    writer.start()
    log = logging.getLogger("bgpd.test")
    log_event(log, logging.INFO, "100 % literal", {"peer": "a"})
    log.debug("hidden")
    try:
        raise ZeroDivisionError
    except ZeroDivisionError:
        log.exception("with traceback")
    log.info("%d", "not a number")
    writer.stop()
    lines = stream.getvalue().splitlines()
    assert json.loads(lines[0])["message"] == "100 % literal"
    assert "ZeroDivisionError" in json.loads(lines[1])["traceback"]
    assert "could not be formatted" in lines[2]
    assert len(lines) == 3


class Stuck(io.StringIO):
    """A stream whose reader has stopped."""

    def __init__(self) -> None:
        super().__init__()
        self.free = threading.Event()
        self.reached = threading.Event()

    def write(self, text: str) -> int:
        self.reached.set()
        self.free.wait(20)
        return super().write(text)


def test_a_stuck_log_drops_lines_and_counts_them(root: logging.Logger) -> None:
    stream = Stuck()
    writer = LogWriter("info", "human", stream)
    writer.start()
    log = logging.getLogger("bgpd.test")
    log.info("first")
    assert stream.reached.wait(10)
    for number in range(10_000):
        log.info("line %d", number)
    assert writer.dropped >= 10_000 - 8192
    dropped = writer.dropped
    stream.free.set()
    writer.stop(patience=10)
    assert f"{dropped} log lines were dropped" in stream.getvalue()
    assert "line 5 " in stream.getvalue().replace("\n", " ")


def test_rate_limit() -> None:
    limit = RateLimit(2, 0.5)
    assert [limit.allow(100.0) for _ in range(5)] == [True, True, False, False, False]
    assert limit.suppressed == 3
    assert limit.allow(102.0)
    assert limit.reset() == " (and 3 more since the last line)"
    assert limit.reset() == ""
    assert not limit.allow(102.0)


def test_notify(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = str(tmp_path / "notify")
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    assert not notify("READY=1")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(path)
        monkeypatch.setenv("NOTIFY_SOCKET", path)
        assert notify("READY=1", "STATUS=5 peers")
        assert sock.recv(100) == b"READY=1\nSTATUS=5 peers"
    assert not notify("STOPPING=1")


def test_watchdog_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WATCHDOG_USEC", raising=False)
    assert watchdog_interval() is None
    monkeypatch.setenv("WATCHDOG_USEC", "3000000")
    monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()))
    assert watchdog_interval() == 1.5
    monkeypatch.setenv("WATCHDOG_PID", "1")
    assert watchdog_interval() is None
