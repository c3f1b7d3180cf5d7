"""Kernel routes by raw rtnetlink: add and remove as Felix does, fast and with the time of each write."""

from __future__ import annotations

import socket
import struct
import time

from tests.interop.namespace import Namespace

_NEWROUTE, _DELROUTE = 24, 25
_REQUEST, _ACK, _CREATE, _EXCL = 1, 4, 0x400, 0x200
_DST, _OIF, _GATEWAY, _PRIORITY = 1, 4, 5, 6


class RouteWriter:
    """A rtnetlink socket inside a namespace."""

    def __init__(self, namespace: Namespace) -> None:
        def connect() -> socket.socket:
            sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)
            sock.bind((0, 0))
            return sock

        self.sock = namespace.enter(connect)
        self._sequence = 0

    def write(self, prefix: str, interface: int, protocol: int, metric: int, add: bool = True) -> float:
        """Add or remove a device route; the monotonic time just before the request. Raises OSError."""
        address, _, length = prefix.partition("/")
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        packed = socket.inet_pton(family, address)
        body = struct.pack("=BBBBBBBBI", family, int(length), 0, 0, 254, protocol, 253, 1, 0)
        for code, value in (
            (_DST, packed),
            (_OIF, struct.pack("=I", interface)),
            (_PRIORITY, struct.pack("=I", metric)),
        ):
            body += struct.pack("=HH", 4 + len(value), code) + value
        self._sequence += 1
        flags = _REQUEST | _ACK | (_CREATE | _EXCL if add else 0)
        kind = _NEWROUTE if add else _DELROUTE
        header = struct.pack("=IHHII", 16 + len(body), kind, flags, self._sequence, 0)
        began = time.monotonic()
        self.sock.send(header + body)
        answer = self.sock.recv(4096)
        error = struct.unpack_from("=i", answer, 16)[0]
        if error:
            raise OSError(-error, prefix)
        return began

    def close(self) -> None:
        """Close the socket."""
        self.sock.close()
