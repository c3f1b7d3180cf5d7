"""The process that sends and counts packets; started inside a namespace by `probes`, standard library only.

Each flow is one UDP socket: it sends numbered packets to its counterpart at a steady rate and notes the numbers that
come the other way, so loss is known for each direction by itself. Commands come on standard input, one a line:
`send` (begin), `stop` (stop sending, and say `stopped`), `first` (forget the first arrival), `report` (print one line
of JSON).
End of input ends the process.
"""

from __future__ import annotations

import base64
import json
import os
import select
import socket
import struct
import sys
import time
from typing import Any

_PACKET = struct.Struct("!Qd")
_RECEIVE_BUFFER = 8 << 20
_SO_RCVBUFFORCE = 33
_BURST = 256
_ALL = 1 << 20
"""More packets than a socket's buffer holds."""


class Flow:
    """One socket: numbered packets out, noted numbers in."""

    def __init__(self, name: str, local: str, remote: str, port: int) -> None:
        self.name = name
        family = socket.AF_INET6 if ":" in local else socket.AF_INET
        self.socket = socket.socket(family, socket.SOCK_DGRAM)
        try:
            self.socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _RECEIVE_BUFFER)
        except OSError:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER)
        self.socket.bind((local, port))
        self.socket.setblocking(False)
        self.remote = (remote, port)
        self.sent = 0
        self.send_errors = 0
        self.seen = bytearray()
        self.received = 0
        self.duplicates = 0
        self.first: float | None = None
        self.last = 0.0
        self.slowest = 0.0

    def send(self) -> None:
        """Send the next packet. A refused one counts as sent: the number is missing at the other end."""
        try:
            self.socket.sendto(_PACKET.pack(self.sent, time.monotonic()), self.remote)
        except OSError:
            self.send_errors += 1
        self.sent += 1

    def drain(self, limit: int = _BURST) -> None:
        """Note what has arrived: all, or the first `limit` packets."""
        for _ in range(limit):
            try:
                data = self.socket.recv(64)
            except BlockingIOError:
                return
            except OSError:
                continue
            number, sent_at = _PACKET.unpack(data)
            now = time.monotonic()
            octet, bit = number >> 3, 1 << (number & 7)
            if octet >= len(self.seen):
                self.seen.extend(bytes(octet + 4096 - len(self.seen)))
            if self.seen[octet] & bit:
                self.duplicates += 1
                continue
            self.seen[octet] |= bit
            self.received += 1
            self.last = now
            self.slowest = max(self.slowest, now - sent_at)
            if self.first is None:
                self.first = now

    def report(self) -> dict[str, Any]:
        """All counters; `seen` is the bitmap of numbers that arrived."""
        return {
            "sent": self.sent,
            "send_errors": self.send_errors,
            "received": self.received,
            "duplicates": self.duplicates,
            "first": self.first,
            "last": self.last,
            "slowest": self.slowest,
            "overflows": _overflows(self.socket),
            "seen": base64.b64encode(bytes(self.seen)).decode(),
        }


def _overflows(sock: socket.socket) -> int:
    """Packets that this socket's own buffer had no room for: the kernel's count in /proc/net/udp."""
    inode = str(os.fstat(sock.fileno()).st_ino)
    path = "/proc/self/net/udp6" if sock.family == socket.AF_INET6 else "/proc/self/net/udp"
    with open(path) as table:
        for line in table:
            columns = line.split()
            if len(columns) > 12 and columns[9] == inode:
                return int(columns[12])
    return 0


class Prober:
    """The loop: send when due, note what came, obey standard input."""

    def __init__(self, flows: list[Flow], rate: float) -> None:
        self.flows = flows
        self.rate = rate
        self.sending = False
        self.began = 0.0
        self.rounds = 0

    def run(self) -> None:
        """Until standard input ends."""
        by_descriptor = {flow.socket.fileno(): flow for flow in self.flows}
        watched = [0, *by_descriptor]
        while True:
            ready, _, _ = select.select(watched, [], [], self._send_due())
            for descriptor in ready:
                if descriptor:
                    by_descriptor[descriptor].drain()
                elif not self._commands():
                    return

    def _commands(self) -> bool:
        """Obey what standard input has, read past Python's buffer, which select cannot see; False at its end."""
        data = os.read(0, 4096)
        for word in data.decode().split():
            self._command(word)
        return bool(data)

    def _send_due(self) -> float | None:
        if not self.sending:
            return None
        due = int((time.monotonic() - self.began) * self.rate) + 1
        late = due - self.rounds - _BURST
        if late > 0:
            # A machine that is too busy for the rate gets fewer packets, not bursts that its sockets cannot hold.
            self.began += late / self.rate
            due -= late
        for _ in range(due - self.rounds):
            for flow in self.flows:
                flow.send()
            self.rounds += 1
        return max(0.0, self.began + self.rounds / self.rate - time.monotonic())

    def _command(self, word: str) -> None:
        if word == "send":
            self.sending, self.began, self.rounds = True, time.monotonic(), 0
        elif word == "stop":
            self.sending = False
            print("stopped", flush=True)
        elif word == "first":
            for flow in self.flows:
                flow.first = None
        elif word == "report":
            for flow in self.flows:
                flow.drain(_ALL)
            print(json.dumps({flow.name: flow.report() for flow in self.flows}), flush=True)


def main() -> None:
    """Arguments: one JSON object {"rate": N, "flows": [[name, local, remote, port], ...]}."""
    wanted = json.loads(sys.argv[1])
    prober = Prober([Flow(*flow) for flow in wanted["flows"]], wanted["rate"])
    print("ready", flush=True)
    prober.run()


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        pass
