"""Thousands of plain BGP clients around real reflector Speakers, in memory and with a fake clock.

A client is no Speaker: it says OPEN, announces its blocks, and keeps what each of its reflectors told it as one bit a
block. What a reflector writes to many clients is parsed once.
"""

from __future__ import annotations

from ipaddress import IPv4Address
from typing import TypeAlias

from tests.scenario.cluster import STEP, Cluster, Host

ASN = 64512
BLOCK_BITS = 6
"""Addresses of a block: /26, Calico's default."""
BLOCKS_BASE = int(IPv4Address("10.0.0.0"))
NODES_BASE = int(IPv4Address("172.16.0.1"))
MARKER = b"\xff" * 16
KEEPALIVE = MARKER + b"\0\x13\4"
END_OF_RIB = MARKER + b"\0\x17\2\0\0\0\0"
HOLD_TIME = 90
MEMO = 256
"""Pieces of output whose parse is remembered."""
MEMO_MESSAGES = 2_000_000
"""Messages, the same."""
_ZERO, _ONE = b"01"
Blocks: TypeAlias = tuple[tuple[int, ...], tuple[int, ...]]
"""Withdrawn and announced, by number."""


def message(kind: int, body: bytes) -> bytes:
    """One BGP message."""
    return MARKER + (19 + len(body)).to_bytes(2) + bytes([kind]) + body


class Wrong(AssertionError):
    """A client was told something that no reflector may say."""


class Node:
    """A client with its blocks (numbers). `tables`: what each reflector told it, by the connection's number."""

    __slots__ = ("address", "blocks", "lost_routes", "number", "reflectors", "tables")

    def __init__(self, number: int, blocks: int, reflectors: tuple[str, ...]) -> None:
        self.number = number
        self.address = str(IPv4Address(NODES_BASE + number))
        self.blocks = range(number * blocks, (number + 1) * blocks)
        self.reflectors = reflectors
        self.tables: dict[int, int] = {}
        self.lost_routes = 0
        """Blocks that went from its last table that had them, while their node was there."""

    @property
    def own(self) -> int:
        """Its blocks as bits."""
        return sum(1 << block for block in self.blocks)

    @property
    def union(self) -> int:
        """All that it can reach."""
        found = 0
        for table in self.tables.values():
            found |= table
        return found

    def open(self) -> bytes:
        """OPEN: IPv4 unicast, four-octet AS."""
        capabilities = bytes((1, 4, 0, 1, 0, 1, 65, 4)) + ASN.to_bytes(4)
        options = bytes((2, len(capabilities))) + capabilities
        head = b"\4" + ASN.to_bytes(2) + HOLD_TIME.to_bytes(2) + IPv4Address(self.address).packed
        return message(1, head + bytes([len(options)]) + options)

    def table(self) -> bytes:
        """Its UPDATE, and End-of-RIB."""
        hop = IPv4Address(self.address).packed
        attributes = bytes((0x40, 1, 1, 0, 0x40, 2, 0, 0x40, 3, 4, *hop, 0x40, 5, 4, 0, 0, 0, 100))
        nlri = b"".join(bytes([32 - BLOCK_BITS]) + IPv4Address(BLOCKS_BASE + (n << BLOCK_BITS)).packed
                        for n in self.blocks)  # fmt: skip
        return message(2, bytes(2) + len(attributes).to_bytes(2) + attributes + nlri) + END_OF_RIB

    def take(self, conn: int, announced: int, withdrawn: int) -> None:
        """Change the table of one connection."""
        table = self.tables[conn]
        gone = table & withdrawn
        self.tables[conn] = (table & ~withdrawn) | announced
        if gone:
            self.lost_routes += (gone & ~self.union).bit_count()


class Fabric(Cluster):
    """Reflectors (hosts of the Cluster) and nodes."""

    def __init__(self, blocks: int) -> None:
        super().__init__()
        self.blocks = blocks
        """Of each node."""
        self.nodes: dict[str, Node] = {}
        self.announcing = False
        """Nodes announce their blocks when they are connected."""
        self.delivered = 0
        """Routes that nodes were told."""
        self.longest_cluster_list = 0
        self._memo: dict[bytes, tuple[int, int, int]] = {}
        self._messages: dict[bytes, Blocks] = {}
        self._fields: dict[bytes, tuple[int, ...]] = {}
        """Blocks by the octets of their NLRI, so that all messages about them share one tuple."""
        self._keepalive_at = self.now + HOLD_TIME / 3

    def dial(self, node: Node, reflector: str) -> bool:
        """Connect a node; whether it was taken."""
        host = self.hosts[reflector]
        self._ids += 2
        here, there = self._ids, self._ids + 1
        if not host.alive or not host.speaker.on_accepted(there, node.address, reflector, self.now):
            return False
        self.pipes[node.address, here] = (reflector, there)
        self.pipes[reflector, there] = (node.address, here)
        node.tables[here] = 0
        self._queue.append((reflector, there, node.open()))
        return True

    def announce(self) -> None:
        """From now on nodes announce their blocks, those that are connected at once."""
        self.announcing = True
        for (address, _), (reflector, there) in self.pipes.items():
            if address in self.nodes:
                self._queue.append((reflector, there, self.nodes[address].table()))

    def hang_up(self, node: Node, conn: int) -> None:
        """A node closes its connection; it does not offer graceful restart, so its blocks go."""
        reflector, there = self.pipes.pop((node.address, conn))
        del self.pipes[reflector, there], node.tables[conn]
        host = self.hosts[reflector]
        host.speaker.on_lost(there, "connection closed by peer", self.now)
        self._settle(host)

    def kill(self, address: str, silent: bool = False) -> None:
        """A reflector's process dies; its nodes forget what it told them (no graceful restart: the hard case)."""
        for (host, conn), (other, there) in list(self.pipes.items()):
            if host == address and other in self.nodes:
                del self.nodes[other].tables[there]
                del self.pipes[host, conn], self.pipes[other, there]
        super().kill(address, silent)

    def run_for(self, seconds: float) -> None:
        """Let time pass; nodes keep their sessions alive."""
        end = self.now + seconds
        while self.now < end:
            if self.now >= self._keepalive_at:
                self._keepalive_at = self.now + HOLD_TIME / 3
                for (address, _), (reflector, there) in self.pipes.items():
                    if address in self.nodes:
                        self._queue.append((reflector, there, KEEPALIVE))
            self.run(STEP)

    def _deliver(self) -> None:
        """All that waits for a host is one turn of its loop."""
        while self._queue:
            turn: dict[str, list[tuple[int, bytes]]] = {}
            for address, conn, data in self._queue:
                turn.setdefault(address, []).append((conn, data))
            self._queue.clear()
            for address, inputs in turn.items():
                host = self.hosts[address]
                for conn, data in inputs:
                    if host.alive and (address, conn) in self.pipes:
                        host.speaker.on_data(conn, data, self.now)
                if host.alive:
                    self._settle(host)

    def _send(self, host: Host, conn: int, data: bytes) -> None:
        end = self.pipes.get((host.address, conn))
        node = self.nodes.get(end[0]) if end is not None else None
        if node is None or end is None:
            super()._send(host, conn, data)
            return
        if data[18] == 1:
            self._queue.append((host.address, conn, KEEPALIVE + node.table() if self.announcing else KEEPALIVE))
            data = data[int.from_bytes(data[16:18]) :]
        if data:
            announced, withdrawn, routes = self._parsed(bytes(data))
            self.delivered += routes
            node.take(end[1], announced, withdrawn)

    def _parsed(self, data: bytes) -> tuple[int, int, int]:
        found = self._memo.get(data)
        if found is None:
            if len(self._memo) >= MEMO:
                self._memo.clear()
            found = self._memo[data] = self._parse(data)
        return found

    def _parse(self, data: bytes) -> tuple[int, int, int]:
        """Blocks announced and withdrawn in the end, and how many routes these were. Raises Wrong."""
        # No attribute and no NLRI here holds sixteen octets of ones.
        pieces = data.split(MARKER)[1:]
        found = list(map(self._messages.get, pieces))
        updates = [self._update(piece) if one is None else one for piece, one in zip(pieces, found, strict=True)]
        come = [number for update in updates for number in update[1]]
        size = len(self.nodes) * self.blocks
        announced, withdrawn = bytearray(b"0" * size), bytearray(b"0" * size)
        if any(update[0] for update in updates):
            for gone, new in updates:
                for numbers, into, out in ((gone, withdrawn, announced), (new, announced, withdrawn)):
                    for number in numbers:
                        into[~number], out[~number] = _ONE, _ZERO
        else:
            for number in come:
                announced[~number] = _ONE
        return int(announced, 2), int(withdrawn, 2), len(come)

    def _update(self, piece: bytes) -> Blocks:
        """The blocks that one message, told without its marker, withdraws, and that it announces. Raises Wrong."""
        if len(piece) != int.from_bytes(piece[:2]) - len(MARKER) or piece[2:3] not in (b"\2", b"\4"):
            raise Wrong(f"message {piece[:60].hex()}")
        gone: tuple[int, ...] = ()
        come: tuple[int, ...] = ()
        if piece[2] == 2:
            body = piece[3:]
            middle = 2 + int.from_bytes(body[:2])
            start = middle + 2 + int.from_bytes(body[middle : middle + 2])
            gone, come = self._numbers(body[2:middle]), self._numbers(body[start:])
            if come:
                self._check(body[middle + 2 : start], come)
        if len(self._messages) >= MEMO_MESSAGES:
            self._messages.clear()
        found = self._messages[piece] = (gone, come)
        return found

    def _numbers(self, field: bytes) -> tuple[int, ...]:
        known = self._fields.get(field)
        if known is not None:
            return known
        size = 1 + 4
        numbers = tuple(
            (int.from_bytes(field[i + 1 : i + size]) - BLOCKS_BASE) >> BLOCK_BITS for i in range(0, len(field), size)
        )
        if any(not 0 <= number < len(self.nodes) * self.blocks for number in numbers):
            raise Wrong(f"NLRI {field[:60].hex()}")
        self._fields[field] = numbers
        return numbers

    def _check(self, attributes: bytes, come: tuple[int, ...]) -> None:
        """RFC 4456: the originator is the block's node, the next hop is untouched, no cluster is there twice."""
        found, at = {}, 0
        while at < len(attributes):
            wide = attributes[at] >> 4 & 1
            length = int.from_bytes(attributes[at + 2 : at + 3 + wide])
            at += 3 + wide
            found[attributes[at - 2 - wide]] = attributes[at : at + length]
            at += length
        for number in come:
            owner = IPv4Address(NODES_BASE + number // self.blocks).packed
            if found.get(9) != owner or found.get(3) != owner:
                raise Wrong(f"block {number}: ORIGINATOR_ID {found.get(9)!r}, next hop {found.get(3)!r}")
        clusters = [found[10][i : i + 4] for i in range(0, len(found[10]), 4)]
        if not clusters or len(clusters) != len(set(clusters)):
            raise Wrong(f"CLUSTER_LIST {found[10].hex()}")
        self.longest_cluster_list = max(self.longest_cluster_list, len(clusters))
