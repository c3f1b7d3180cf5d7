"""Route netlink sockets: requests in batches, dumps, and the monitor. The only place of the daemon that speaks netlink.

The kernel works through a request buffer before `send` returns, so requests are plain calls: write a batch, read what
failed. Only the monitor waits for anything; its owner registers `fileno()` with the event loop and calls `read`.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Callable, Iterator, Sequence
from ctypes import addressof, create_string_buffer
from sys import byteorder

from bgpd.fib import bulk
from bgpd.fib import messages as nl
from bgpd.fib.operations import Additions, Op

_SOL_NETLINK = 270
_ADD_MEMBERSHIP, _CAP_ACK, _EXT_ACK, _GET_STRICT_CHK = 1, 10, 11, 12
_SO_ATTACH_FILTER, _SO_RCVBUFFORCE = 26, 33
_GROUPS = (1, 5, 7, 9, 11, 32)
"""RTNLGRP_LINK, IPV4_IFADDR, IPV4_ROUTE, IPV6_IFADDR, IPV6_ROUTE, NEXTHOP."""
_READ_SIZE = 262144
_NOTHING = {errno.ENOENT, errno.ENODEV, errno.ESRCH}
_UNSUPPORTED = {errno.EOPNOTSUPP, errno.EPFNOSUPPORT, errno.EAFNOSUPPORT}

MONITOR_BUFFER = 8 << 20
REQUEST_BUFFER = 1 << 20
Chunk = tuple[bytes, list[tuple[int, int]]]
BATCH = 256
"""Requests to a buffer. With an error to each, the answers must fit a receive buffer that could not be enlarged."""


class KernelError(Exception):
    """The kernel side cannot work at all; the text is one sentence with the way out."""


class NetlinkLost(Exception):
    """Answers were dropped for want of room: what was written is unknown until a dump tells."""


def _open() -> socket.socket:
    try:
        sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)
    except OSError as error:
        text = f"cannot open a netlink socket ({error.strerror}); start with --no-kernel to do without"
        raise KernelError(text) from error
    for option in (_CAP_ACK, _EXT_ACK, _GET_STRICT_CHK):
        try:
            sock.setsockopt(_SOL_NETLINK, option, 1)
        except OSError:
            pass  # kernels before 4.20 filter dumps less, and tell errors without a sentence
    sock.setblocking(False)
    return sock


def _enlarge(sock: socket.socket, size: int) -> int:
    """Ask for a receive buffer; without the privilege to exceed the limit, for as much of it as is allowed."""
    try:
        sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, size)
    except OSError:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, size)
    return sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)


def _check_end(data: bytes, start: int, end: int) -> None:
    failed = -struct.unpack_from("=i", data, start + 16)[0] if end - start >= 20 else 0
    if failed > 0 and failed not in _NOTHING:
        raise OSError(failed, os.strerror(failed))


class Netlink:
    """A socket for requests and one for dumps. Raises KernelError where netlink is not to be had."""

    def __init__(self) -> None:
        self._requests = _open()
        _enlarge(self._requests, REQUEST_BUFFER)
        self._requests.bind((0, 0))
        self._dumps = _open()
        _enlarge(self._dumps, REQUEST_BUFFER)
        self._dumps.bind((0, 0))
        self.port: int = self._requests.getsockname()[0]
        """Netlink port of the request socket: what events of our own writes carry."""
        self._sequence = 1
        self._buffer = bytearray(_READ_SIZE)
        self._view = memoryview(self._buffer)

    def close(self) -> None:
        """Close both sockets."""
        self._requests.close()
        self._dumps.close()

    def submit(self, ops: Sequence[Op]) -> dict[int, tuple[int, str]]:
        """Carry out a batch (at most BATCH). Returns index -> (errno, the kernel's sentence) of those that failed.

        Raises NetlinkLost when the answers are incomplete.
        """
        first = self._sequence
        last = first + len(ops) - 1
        self._sequence = last + 1 if last < 0x7FFFFFFF else 1
        self._requests.send(bulk.encode(ops, first) if type(ops) is Additions else nl.encode(ops, first))
        return self._answers(first, last)

    def request(self, message: int, flags: int, body: bytes) -> tuple[int, str]:
        """One request of any kind; (errno, text), errno 0 for success. Raises NetlinkLost."""
        sequence = self._sequence
        self._sequence += 1
        header = nl.HEADER.pack(16 + len(body), message, nl.F_REQUEST | nl.F_ACK | flags, sequence, 0)
        self._requests.send(header + body)
        return self._answers(sequence, sequence).get(0, (0, ""))

    def _answers(self, first: int, last: int) -> dict[int, tuple[int, str]]:
        errors: dict[int, tuple[int, str]] = {}
        while True:
            try:
                data = self._requests.recv(65536)
            except OSError as error:  # ENOBUFS: some were dropped. EAGAIN: the last one, at least, was.
                self._drain()
                raise NetlinkLost(error.strerror) from error
            for kind, flags, sequence, start, end in nl.split(data):
                if kind != nl.NLMSG_ERROR or not first <= sequence <= last:
                    continue
                failed, text = nl.parse_error(data, flags, start, end)
                if failed:
                    errors[sequence - first] = failed, text or os.strerror(failed)
                if sequence == last:
                    return errors

    def _drain(self) -> None:
        while True:
            try:
                self._requests.recv(65536)
            except BlockingIOError:
                return
            except OSError:
                continue

    def dump(self, message: int, body: bytes, interrupted: list[bool] | None = None) -> Iterator[Chunk]:
        """A dump, datagram by datagram: the data, and where its messages begin and end.

        A dump that a change interrupted, so that it may lack something, adds an item to `interrupted`. Raises OSError
        (EOPNOTSUPP where the kernel lacks the object kind); a table or interface that does not exist is an empty dump.
        """
        sequence = self._sequence
        self._sequence += 1
        self._drop_leftover()
        self._dumps.send(nl.dump_request(message, body, sequence))
        done = False
        while not done:
            try:
                count = self._dumps.recv_into(self._buffer)
            except BlockingIOError as error:
                raise NetlinkLost("a dump ended early") from error
            data = bytes(self._view[:count])
            places: list[tuple[int, int]] = []
            seen = 0
            for kind, flags, answered, start, end in nl.split(data):
                seen |= flags
                if answered != sequence:
                    continue
                if kind in (nl.NLMSG_DONE, nl.NLMSG_ERROR):
                    _check_end(data, start, end)
                    done = True
                    break
                places.append((start, end))
            if seen & nl.F_DUMP_INTR and interrupted is not None:
                interrupted.append(True)
            yield data, places

    def _drop_leftover(self) -> None:
        """A dump that its reader gave up half-way leaves datagrams behind."""
        while True:
            try:
                self._dumps.recv_into(self._buffer)
            except BlockingIOError:
                return
            except OSError:
                continue

    # -------------------------------------------------------- what is there

    def links(self) -> list[nl.Link]:
        """All interfaces."""
        chunks = self.dump(nl.GETLINK, nl.link_filter())
        found = (nl.parse_link(data, start, end) for data, places in chunks for start, end in places)
        return [link for link in found if link]

    def addresses(self) -> list[nl.Address]:
        """All addresses of both families."""
        chunks = self.dump(nl.GETADDR, bytes(8))
        found = (nl.parse_address(data, start, end) for data, places in chunks for start, end in places)
        return [address for address in found if address]

    def nexthops(self) -> list[nl.NexthopObject] | None:
        """All nexthop objects; None where the kernel has no such thing (before 5.3)."""
        try:
            chunks = self.dump(nl.GETNEXTHOP, bytes(8))
            found = [nl.parse_nexthop(data, start, end) for data, places in chunks for start, end in places]
        except OSError as error:
            if error.errno in _UNSUPPORTED or error.errno == errno.EINVAL:
                return None
            raise
        return [item for item in found if item]

    def routes(
        self, afi: int, table: int, protocol: int = 0, index: int = 0, interrupted: list[bool] | None = None
    ) -> Iterator[Chunk]:
        """A dump of one table. The filters are wishes: kernels before 4.20 ignore them."""
        return self.dump(nl.GETROUTE, nl.route_filter(afi, table, protocol, index), interrupted)

    def route_at(self, afi: int, key: bytes, parser: nl.RouteParser) -> nl.RouteShape | None:
        """The route to exactly this prefix, as far as its first address meets no longer one; None: no such route.

        Policy routing and every table count, as for a packet. Raises OSError, NetlinkLost.
        """
        sequence = self._sequence
        self._sequence += 1
        body = nl.route_query(afi, key)
        self._requests.send(nl.HEADER.pack(16 + len(body), nl.GETROUTE, nl.F_REQUEST, sequence, 0) + body)
        while True:
            try:
                data = self._requests.recv(65536)
            except OSError as error:
                self._drain()
                raise NetlinkLost(error.strerror) from error
            for kind, _flags, answered, start, end in nl.split(data):
                if answered != sequence:
                    continue
                found = parser.parse(data, start, end) if kind == nl.NEWROUTE else None
                return found[2] if found is not None and found[1] == key else None

    def may_write(self) -> bool:
        """Whether we may change routes: a deletion without an object is refused as invalid, or as not permitted."""
        return self.request(nl.DELROUTE, 0, bytes((nl.AF_INET, 255)) + bytes(10))[0] != errno.EPERM


class Monitor:
    """Hears of changes to links, addresses, routes and nexthop objects; changes by `ignored_port` are left out.

    `on_message(type, flags, data, start, end)` is called for each message, `lost()` when the kernel had to drop some.
    """

    def __init__(
        self,
        ignored_port: int,
        on_message: Callable[[int, int, bytes, int, int], None],
        lost: Callable[[], None],
        buffer: int = MONITOR_BUFFER,
    ) -> None:
        self._socket = _open()
        self.buffer = _enlarge(self._socket, buffer)
        self._ignored = ignored_port
        self._on_message = on_message
        self._lost = lost
        self._buffer = bytearray(65536)
        self._view = memoryview(self._buffer)
        self._filter(ignored_port)
        self._socket.bind((0, 0))
        for group in _GROUPS:
            try:
                self._socket.setsockopt(_SOL_NETLINK, _ADD_MEMBERSHIP, group)
            except OSError:
                pass  # no nexthop group before 5.3

    def fileno(self) -> int:
        """For the event loop."""
        return self._socket.fileno()

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def _filter(self, port: int) -> None:
        """Our own writes would come back, one wake-up each: drop them in the kernel (classic BPF on nlmsg_pid)."""
        value = int.from_bytes(struct.pack("=I", port), "big")
        program = b"".join(
            struct.pack("=HBBI", *instruction)
            for instruction in (
                (0x20, 0, 0, 12),  # load the word at 12
                (0x15, 0, 1, value),  # ours: go on, else skip one
                (0x06, 0, 0, 0),  # drop
                (0x06, 0, 0, 0xFFFFFFFF),  # take all of it
            )
        )
        code = create_string_buffer(program, len(program))
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("@HP", 4, addressof(code)))
        except OSError:
            pass  # `read` leaves them out, too

    def read(self, limit: int = 512) -> bool:
        """Read what has come, at most `limit` datagrams. Returns whether there may be more."""
        receive, view, ignored, on_message = self._socket.recv_into, self._view, self._ignored, self._on_message
        for _ in range(limit):
            try:
                count = receive(self._buffer)
            except BlockingIOError:
                return False
            except OSError as error:
                if error.errno == errno.ENOBUFS:
                    self._lost()
                    continue
                raise
            if view[12:16] == ignored.to_bytes(4, byteorder):
                continue
            data = bytes(view[:count])
            for kind, flags, _sequence, start, end in nl.split(data):
                on_message(kind, flags, data, start, end)
        return True
