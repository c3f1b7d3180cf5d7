"""Fixed pieces of node work for counting instructions, as in `count_load`: a table received, and routes on their way to
the kernel as far as the octets that netlink would get."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from bgpd.effects import Program
from bgpd.family import IPV4_UNICAST, parse_prefix
from bgpd.fib import bulk
from bgpd.fib.netlink import BATCH
from bgpd.fib.table import FibTable
from bgpd.policy.terms import SourceKind
from bgpd.routes import Hop, LocalChange, LocalRoute
from bgpd.settings import SpeakerSettings
from bgpd.speaker import Speaker
from config.compile import compile as compile_settings
from config.parse import parse_resource
from config.snapshot import Snapshot
from tests.bench import our_side
from tests.bench.messages import ASN, message, open_message

NEXT_HOPS, BLOCKS_EACH = 200, 4


def _settings() -> SpeakerSettings:
    """A node with two iBGP peers, from Calico resources as a user would write them."""
    snapshot = Snapshot()
    for item in our_side.node_objects(ASN, 2, ("10.244.0.0/16",)):
        resource = parse_resource(item).resource
        assert resource is not None
        snapshot = snapshot.put(resource)
    settings = compile_settings(snapshot, "bench", {}).settings
    assert settings is not None
    return settings


class Node:
    """A node's Speaker, two reflectors made of octets, and a kernel that takes everything."""

    def __init__(self) -> None:
        settings = _settings()
        self.speaker = Speaker(settings, 0.0, lambda: 1.0)
        self.fib = FibTable(settings.fib)
        self.fib.release(0.0)
        self.octets = 0
        family, key = parse_prefix("172.30.0.0/16")
        link = LocalRoute(family, key, SourceKind.DIRECT, (Hop(b"", 3, False),), 0, "eth0", 0, "address of eth0")
        self.speaker.on_local([LocalChange(SourceKind.DIRECT, family, key, link)], 0.0)
        self.speaker.start(0.0)
        for number in (1, 2):
            assert self.speaker.on_accepted(number, f"172.30.1.{number}", "172.30.0.1", 0.0)
            self.speaker.on_data(number, open_message(number), 0.0)
            self.speaker.on_data(number, message(4, b""), 0.0)
        self.rest()

    def rest(self) -> None:
        """The end of a turn: what is to be programmed is."""
        self.speaker.program()
        self._carry_out()
        self.speaker.flush(1.0)
        self._carry_out()

    def _carry_out(self) -> None:
        for effect in self.speaker.take_effects():
            if not isinstance(effect, Program):
                continue
            self.fib.want(effect.family, effect.routes, 1.0)
            while ops := self.fib.take(BATCH, 1.0):
                self.octets += len(bulk.encode(ops, 1))
                self.fib.on_results(ops, {}, 1.0)


def _update(next_hop: int, first: int, count: int) -> bytes:
    """Blocks behind a node, as a reflector tells of them."""
    gateway = (0xAC1E1100 + next_hop).to_bytes(4)
    attributes = bytes((0x40, 1, 1, 0, 0x40, 2, 0, 0x40, 3, 4)) + gateway + bytes((0x40, 5, 4, 0, 0, 0, 100))
    attributes += bytes((0x80, 9, 4)) + gateway + bytes((0x80, 10, 4, 1, 1, 1, 1))
    field = b"".join(b"\x1a" + (0x0A000000 + (first + i << 6)).to_bytes(4) for i in range(count))
    return message(2, bytes(2) + len(attributes).to_bytes(2) + attributes + field)


def _internet(sets: int) -> bytes:
    """UPDATEs as a full table has them: eight prefixes each, AS paths of one to six, some with MED and communities."""
    messages = []
    for number in range(sets):
        path = b"".join((1000 + (number * 7919 + i * 104729) % 60000).to_bytes(4) for i in range(1 + number % 6))
        attributes = bytes((0x40, 1, 1, 0, 0x40, 2, 2 + len(path), 2, len(path) // 4)) + path
        attributes += bytes((0x40, 3, 4, 172, 30, 1, 1))
        attributes += b"\x80\x04\x04" + number.to_bytes(4) if number % 3 == 0 else b""
        attributes += b"\x40\x05\x04\x00\x00\x00\x64"
        attributes += b"\xc0\x08\x08" + number.to_bytes(4) + b"\x12\x34\x56\x78" if number % 4 else b""
        field = b"".join(b"\x18" + (0x100000 + number * 8 + i).to_bytes(3) for i in range(8))
        messages.append(message(2, bytes(2) + len(attributes).to_bytes(2) + attributes + field))
    return b"".join(messages)


def received_table() -> Iterator[None]:
    """A peer sends 1,500 attribute sets with eight prefixes each, 64 KiB a turn."""
    node, stream = Node(), memoryview(_internet(1500))
    yield
    for start in range(0, len(stream), 65536):
        node.speaker.on_data(1, stream[start : start + 65536], 1.0)
        node.speaker.flush(1.0)
    assert len(node.speaker.ribs[IPV4_UNICAST]) == 1500 * 8 + 1


def kernel_routes() -> Iterator[None]:
    """Two reflectors tell of the same blocks behind many next hops; the kernel gets a route for each."""
    node = Node()
    stream = b"".join(_update(i, i * BLOCKS_EACH, BLOCKS_EACH) for i in range(NEXT_HOPS))
    yield
    for number in (1, 2):
        node.speaker.on_data(number, stream, 1.0)
        node.rest()
    assert node.fib.installed(IPV4_UNICAST) == NEXT_HOPS * BLOCKS_EACH


def kernel_changes() -> Iterator[None]:
    """A table as before; then single new blocks, a turn of the loop each."""
    node = Node()
    node.speaker.on_data(1, b"".join(_update(i, i * BLOCKS_EACH, BLOCKS_EACH) for i in range(NEXT_HOPS)), 1.0)
    node.rest()
    yield
    for number in range(100):
        node.speaker.on_data(1, _update(number, 100_000 + number, 1), 1.0)
        node.rest()
    assert node.fib.installed(IPV4_UNICAST) == NEXT_HOPS * BLOCKS_EACH + 100


PIECES: dict[str, Callable[[], Iterator[None]]] = {
    "received table": received_table, "kernel routes": kernel_routes, "kernel changes": kernel_changes,
}  # fmt: skip
