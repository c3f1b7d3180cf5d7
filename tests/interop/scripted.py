"""A minimal BGP speaker of the benchmarks' and tests' own: opens a session, writes raw octets, decodes what comes back.

It shares no code with the daemon, so that its decoder is an independent witness.
"""

from __future__ import annotations

import contextlib
import fcntl
import select
import socket
import struct
import termios
import time
from collections.abc import Iterator, Sequence

from attrs import define, frozen

MARKER = b"\xff" * 16
OPEN, UPDATE, NOTIFICATION, KEEPALIVE, REFRESH = range(1, 6)
KEEPALIVE_MESSAGE = MARKER + b"\0\x13\x04"


def message(kind: int, body: bytes = b"") -> bytes:
    """A whole message."""
    return MARKER + struct.pack("!HB", 19 + len(body), kind) + body


def capability(code: int, value: bytes = b"") -> bytes:
    """One capability TLV (RFC 5492 §4)."""
    return bytes((code, len(value))) + value


@frozen
class OpenOptions:
    """What a speaker offers in its OPEN."""

    asn: int
    router_id: str
    hold_time: int = 90
    families: tuple[tuple[int, int], ...] = ((1, 1), (2, 1))
    four_octet: bool = True
    add_path: int = 0
    graceful: int | None = None
    forwarding: bool = True
    restarting: bool = False
    refresh: bool = True
    enhanced_refresh: bool = False
    extended_message: bool = False
    notification_restart: bool = False
    extended_next_hop: bool = False
    """IPv4 NLRI with IPv6 next hops (RFC 8950)."""

    def build(self) -> bytes:
        """The OPEN message."""
        capabilities = [capability(1, struct.pack("!HBB", afi, 0, safi)) for afi, safi in self.families]
        if self.refresh:
            capabilities.append(capability(2))
        if self.extended_next_hop:
            capabilities.append(capability(5, struct.pack("!HHH", 1, 1, 2)))
        if self.extended_message:
            capabilities.append(capability(6))
        if self.graceful is not None:
            flags = (0x8000 if self.restarting else 0) | (0x4000 if self.notification_restart else 0)
            value = struct.pack("!H", flags | self.graceful)
            for afi, safi in self.families:
                value += struct.pack("!HBB", afi, safi, 0x80 if self.forwarding else 0)
            capabilities.append(capability(64, value))
        if self.four_octet:
            capabilities.append(capability(65, struct.pack("!I", self.asn)))
        if self.add_path:
            modes = [struct.pack("!HBB", afi, safi, self.add_path) for afi, safi in self.families]
            capabilities.append(capability(69, b"".join(modes)))
        if self.enhanced_refresh:
            capabilities.append(capability(70))
        parameters = b"".join(bytes((2, len(item))) + item for item in capabilities)
        field = self.asn if self.asn < 65536 else 23456
        head = struct.pack("!BHH4s", 4, field, self.hold_time, socket.inet_aton(self.router_id))
        return message(OPEN, head + bytes((len(parameters),)) + parameters)


class SessionEnded(Exception):
    """The other side closed; `notification` is (code, subcode, data), None for a close without one."""

    def __init__(self, notification: tuple[int, int, bytes] | None) -> None:
        self.notification = notification
        text = (
            "closed"
            if notification is None
            else f"NOTIFICATION {notification[0]}/{notification[1]} {notification[2].hex()}"
        )
        super().__init__(text)


@define(eq=False)
class Speaker:
    """One session over a connected blocking socket."""

    sock: socket.socket
    options: OpenOptions
    buffer: bytes = b""
    peer_open: bytes = b""

    def handshake(self, timeout: float = 10.0) -> None:
        """OPEN and KEEPALIVE both ways. Raises SessionEnded or TimeoutError."""
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock.sendall(self.options.build())
        for kind, body in self.messages(timeout):
            if kind == OPEN:
                self.peer_open = body
                self.sock.sendall(KEEPALIVE_MESSAGE)
            elif kind == KEEPALIVE:
                return

    def send(self, data: bytes) -> None:
        """Write octets as they are."""
        self.sock.sendall(data)

    def messages(self, timeout: float) -> Iterator[tuple[int, bytes]]:
        """Messages as they come. Raises TimeoutError after `timeout` silent seconds, SessionEnded at the end."""
        while True:
            while len(self.buffer) >= 19:
                length = int.from_bytes(self.buffer[16:18], "big")
                if len(self.buffer) < length:
                    break
                one, self.buffer = self.buffer[:length], self.buffer[length:]
                if one[18] == NOTIFICATION:
                    raise SessionEnded((one[19], one[20], one[21:]))
                yield one[18], one[19:]
            self.sock.settimeout(timeout)
            try:
                data = self.sock.recv(1 << 20)
            except TimeoutError:
                raise TimeoutError(f"no message within {timeout:g} s") from None
            except ConnectionError:
                data = b""
            if not data:
                raise SessionEnded(None)
            self.buffer += data

    def blast(self, data: Sequence[bytes], timeout: float = 300.0) -> float:
        """Write everything as fast as TCP takes it; monotonic time at which the last octet was acknowledged.

        What the other side says meanwhile is read and dropped: its buffers must not be what holds it up.
        """
        self.sock.setblocking(False)
        end = time.monotonic() + timeout
        view = memoryview(b"".join(data))
        poller = select.poll()
        poller.register(self.sock, select.POLLIN | select.POLLOUT)
        while view:
            if time.monotonic() > end:
                raise TimeoutError(f"{len(view)} octets not sent within {timeout:g} s")
            for _, event in poller.poll(1000):
                if event & (select.POLLIN | select.POLLHUP | select.POLLERR):
                    self._drop()
                if event & select.POLLOUT:
                    with contextlib.suppress(BlockingIOError):
                        view = view[self.sock.send(view[: 1 << 18]) :]
        while unsent(self.sock):
            if time.monotonic() > end:
                raise TimeoutError("not acknowledged")
            time.sleep(0.0005)
        return time.monotonic()

    def _drop(self) -> None:
        with contextlib.suppress(BlockingIOError):
            if not self.sock.recv(1 << 16):
                raise SessionEnded(None)

    def close(self) -> None:
        """Close the TCP connection without a word."""
        self.sock.close()


def unsent(sock: socket.socket) -> int:
    """Octets that the other side's TCP has not acknowledged."""
    return int.from_bytes(fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, b"\0\0\0\0"), "little")


@frozen
class Update:
    """An UPDATE in pieces: prefixes as (afi, path id or 0, key), attributes as code -> (flags, value)."""

    announced: tuple[tuple[int, int, bytes], ...]
    withdrawn: tuple[tuple[int, int, bytes], ...]
    attributes: dict[int, tuple[int, bytes]]
    end_of_rib: int = 0
    """The AFI whose End-of-RIB this is, or 0."""


def decode_update(body: bytes, add_path: bool = False) -> Update:
    """Decode a well-formed UPDATE (what our daemon sends must be one)."""
    end = 2 + int.from_bytes(body[:2], "big")
    start = end + 2
    nlri_start = start + int.from_bytes(body[end:start], "big")
    withdrawn = [(1, *item) for item in _prefixes(body[2:end], add_path)]
    announced = [(1, *item) for item in _prefixes(body[nlri_start:], add_path)]
    attributes: dict[int, tuple[int, bytes]] = {}
    offset = start
    while offset < nlri_start:
        flags, code = body[offset], body[offset + 1]
        wide = 2 if flags & 0x10 else 1
        length = int.from_bytes(body[offset + 2 : offset + 2 + wide], "big")
        value = body[offset + 2 + wide : offset + 2 + wide + length]
        offset += 2 + wide + length
        if code in attributes:
            raise ValueError(f"attribute {code} twice")
        attributes[code] = (flags, value)
    end_of_rib = 1 if len(body) == 4 else 0
    if 14 in attributes:
        value = attributes[14][1]
        afi, hop_end = int.from_bytes(value[:2], "big"), 4 + value[3]
        announced += [(afi, *item) for item in _prefixes(value[hop_end + 1 :], add_path)]
    if 15 in attributes:
        value = attributes[15][1]
        afi = int.from_bytes(value[:2], "big")
        withdrawn += [(afi, *item) for item in _prefixes(value[3:], add_path)]
        if len(value) == 3 and len(attributes) == 1 and not announced:
            end_of_rib = afi
    return Update(tuple(announced), tuple(withdrawn), attributes, end_of_rib)


def _prefixes(field: bytes, add_path: bool) -> Iterator[tuple[int, bytes]]:
    offset = 0
    while offset < len(field):
        path_id = 0
        if add_path:
            path_id = int.from_bytes(field[offset : offset + 4], "big")
            offset += 4
        end = offset + 1 + (field[offset] + 7) // 8
        yield path_id, field[offset:end]
        offset = end
