"""A reflector with two honest clients, of which one announces and the other listens, and hostile ones beside them.

Whatever a hostile client does, the honest ones must notice nothing: routes go on from one to the other, and both
sessions stay.
"""

from __future__ import annotations

import contextlib
import itertools
import socket
import struct
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from attrs import evolve

from tests.interop.common import OUR_AS
from tests.interop.conftest import EXTRA4, OURS4, OURS6, Pair, joined
from tests.interop.scripted import OpenOptions, SessionEnded, Speaker
from tests.interop.speakers import Listener, announce, attribute, dial, key, update

IDENTITY = ("--asn", str(OUR_AS), "--router-id", OURS4, "--cluster-id", "1.1.1.1")
LISTEN = ("--listen", f"{OURS4}:179", "--listen", f"[{OURS6}]:179")
HONEST = OpenOptions(OUR_AS, "0.0.0.0", hold_time=0)
"""Without hold time: an honest client that is not read for a while is no dead one."""
_NUMBERS = range(20, 240)


class Hostile:
    """The reflector, its honest clients, and addresses for hostile ones."""

    def __init__(self, pair: Pair, *flags: str) -> None:
        self.pair = pair
        pair.peer.address("eth0", [f"10.99.0.{n}/24" for n in _NUMBERS] + [f"fd99::{n}/64" for n in _NUMBERS])
        self._numbers = iter(_NUMBERS)
        self._prefixes = itertools.count()
        self.ours = pair.reflector(*LISTEN, *IDENTITY, "--clients", "10.99.0.0/24,fd99::/64", *flags)
        self.ours.start()
        self.announcer = dial(pair.peer, EXTRA4[0], OURS4, evolve(HONEST, router_id=EXTRA4[0]))
        self.listener = Listener(dial(pair.peer, EXTRA4[1], OURS4, evolve(HONEST, router_id=EXTRA4[1])))
        # It reads what is reflected, or it would be a stalled client.
        threading.Thread(target=_drain, args=(self.announcer.sock,), daemon=True).start()

    def address(self, version: int = 4) -> str:
        """A source address that no other has used: a peer that broke the protocol is kept out for a while."""
        number = next(self._numbers)
        return f"10.99.0.{number}" if version == 4 else f"fd99::{number}"

    def connected(self, source: str, window: int = 0) -> socket.socket:
        """A TCP connection from this address; `window`: with so small a receive buffer."""
        family, target = (socket.AF_INET6, OURS6) if ":" in source else (socket.AF_INET, OURS4)
        sock = self.pair.peer.socket(family)
        sock.settimeout(10)
        if window:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, window)
        sock.bind((source, 0))
        sock.connect((target, 179))
        return sock

    def client(self, source: str = "", window: int = 0, **options: Any) -> Speaker:
        """An Established session of another client."""
        source = source or self.address()
        identifier = "10.98.0." + source.rpartition(":")[2] if ":" in source else source
        offered = evolve(HONEST, router_id=identifier, **options)
        speaker = Speaker(self.connected(source, window), offered)
        speaker.handshake()
        return speaker

    def routes_flow(self, seconds: float = 20.0) -> float:
        """One more route of each family goes from the honest announcer to the listener; the seconds it took."""
        began, number = time.monotonic(), next(self._prefixes)
        of4, of6 = f"10.{200 + number // 65536}.{number // 256 % 256}.{number % 256}/32", f"fd20::{number:x}/128"
        more = attribute(0x40, 5, b"\0\0\0\x64")
        self.announcer.send(announce([of4], "10.99.0.250", (), more=more))
        self.announcer.send(announce([of6], "fd99::250", (), more=more))
        wanted = {(1, 0, key(of4)), (2, 0, key(of6))}
        self.listener.read_until(lambda: self.listener.table.keys() >= wanted, seconds, f"{of4} and {of6}")
        return time.monotonic() - began

    def gone(self, prefixes: Iterable[str], seconds: float = 30.0) -> None:
        """Until the listener has none of these any more."""
        unwanted = {(2 if ":" in prefix else 1, 0, key(prefix)) for prefix in prefixes}
        self.listener.read_until(lambda: not unwanted & self.listener.table.keys(), seconds, "the routes are withdrawn")

    def peer(self, address: str) -> dict[str, Any]:
        """What the reflector tells of the client at an address."""
        return self.ours.peers()[address]

    def check(self) -> None:
        """Nothing has happened to the honest clients."""
        self.routes_flow()
        peers = self.ours.peers()
        for address in EXTRA4[:2]:
            assert (peers[address]["state"], peers[address]["flaps"]) == ("Established", 0), self.ours.output()

    def resident(self) -> float:
        """The daemon's resident memory in MB."""
        assert self.ours.process is not None
        for pid in self.pair.ours.pids():
            status = Path(f"/proc/{pid}/status").read_text()
            if "python" in status.splitlines()[0]:
                return int(status.partition("VmRSS:")[2].split()[0]) / 1024
        raise RuntimeError("the daemon does not run")


@contextlib.contextmanager
def hostile_world(folder: Path, *flags: str) -> Iterator[Hostile]:
    """A reflector with these flags."""
    with joined(folder) as pair:
        yield Hostile(pair, *flags)


def ending(speaker: Speaker, seconds: float = 30.0) -> tuple[int, int, bytes] | None:
    """How the reflector ends a session: the NOTIFICATION's code, subcode and data; None for a close without one."""
    end = time.monotonic() + seconds
    try:
        for _ in speaker.messages(timeout=seconds):
            if time.monotonic() > end:
                break
    except SessionEnded as ended:
        return ended.notification
    raise TimeoutError(f"the session still stands after {seconds:g} s")


def pour(speaker: Speaker, octets: bytes) -> threading.Thread:
    """Send as fast as TCP takes it, in a thread that ends with the session."""

    def send() -> None:
        with contextlib.suppress(OSError):
            view = memoryview(octets)
            while view:
                view = view[speaker.sock.send(view[: 1 << 16]) :]

    thread = threading.Thread(target=send, daemon=True)
    thread.start()
    return thread


def _drain(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while True:
            try:
                if not sock.recv(1 << 16):
                    return
            except TimeoutError:
                continue


def unique(numbers: Iterable[int], octets: int = 0) -> bytes:
    """UPDATEs of one /32 each, no two with the same attributes; `octets` more in each by unknown communities."""
    mandatory = (
        attribute(0x40, 1, b"\0") + attribute(0x40, 2, b"") + attribute(0x40, 3, socket.inet_aton("10.99.0.251"))
    )
    mandatory += attribute(0x40, 5, b"\0\0\0\x64")
    padding = b"".join(struct.pack("!I", 0xFDE90000 | n & 0xFFFF) for n in range(octets // 4))
    messages = []
    for number in numbers:
        communities = struct.pack("!I", number) + padding
        messages.append(
            update(mandatory + attribute(0xC0, 8, communities), b"\x20" + struct.pack("!I", 0x0B000000 + number))
        )
    return b"".join(messages)


def many(count: int, first: int = 0) -> bytes:
    """UPDATEs with `count` /32 prefixes that share their attributes."""
    mandatory = (
        attribute(0x40, 1, b"\0") + attribute(0x40, 2, b"") + attribute(0x40, 3, socket.inet_aton("10.99.0.251"))
    )
    mandatory += attribute(0x40, 5, b"\0\0\0\x64")
    keys = [b"\x20" + struct.pack("!I", 0x0C000000 + n) for n in range(first, first + count)]
    return b"".join(update(mandatory, b"".join(part)) for part in (keys[at : at + 800] for at in range(0, count, 800)))
