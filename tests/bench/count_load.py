"""Fixed pieces of a reflector's work in one process, for counting instructions: a Speaker, clients made of octets, no
clock, socket or randomness. A node's are in `count_node`.

A piece is a generator: it prepares, yields, and works. `python -m tests.bench.count_load` runs all of them and calls
`mark` before and after each one's work: instructions between two marks are that work's and nothing else's.
"""

from __future__ import annotations

import gc
import os
import re
from collections.abc import Callable, Iterator
from functools import partial

from bgpd.effects import Ready, Send, Spread
from bgpd.family import IPV4_UNICAST
from bgpd.policy.terms import ACCEPT_ALL, MatchCommunity, MatchPrefix, PrefixRange, Term, Verdict
from bgpd.settings import AddPath, FamilySettings, FibSettings, LearnSettings, PeerSettings, SpeakerSettings
from bgpd.speaker import Speaker
from tests.bench import count_node
from tests.bench.messages import ASN, message, open_message

CLIENTS, BLOCKS = 20, 200
ROUTES = CLIENTS * BLOCKS * (CLIENTS - 1)
"""Routes that a flood delivers."""
NLRI = 5
"""Octets of a /26 in an UPDATE."""


def nlri(number: int, first: int, count: int, add_path: bool) -> bytes:
    """Blocks of a client, /26 each."""
    blocks = ((first + i, (0, 0, 0, 1) if add_path else ()) for i in range(count))
    return b"".join(bytes((*path_id, 26, 10, number, block >> 2, (block & 3) << 6)) for block, path_id in blocks)


def announce(number: int, first: int, count: int, add_path: bool, med: int | None = None) -> bytes:
    """An UPDATE of client `number`."""
    attributes = bytes((0x40, 1, 1, 0, 0x40, 2, 0, 0x40, 3, 4, 10, 0, 0, number))
    attributes += b"" if med is None else b"\x80\4\4" + med.to_bytes(4)
    attributes += bytes((0x40, 5, 4, 0, 0, 0, 100))
    return message(2, bytes(2) + len(attributes).to_bytes(2) + attributes + nlri(number, first, count, add_path))


def withdraw(number: int, first: int, count: int, add_path: bool) -> bytes:
    """An UPDATE that takes blocks back."""
    prefixes = nlri(number, first, count, add_path)
    return message(2, len(prefixes).to_bytes(2) + prefixes + bytes(2))


class Reflector:
    """A Speaker and its clients; `octets` counts what it wrote to them."""

    def __init__(
        self,
        add_path: bool = False,
        chain: tuple[Term, ...] = ACCEPT_ALL,
        clients: int = CLIENTS,
        imports: tuple[Term, ...] = ACCEPT_ALL,
    ) -> None:
        self.add_path = add_path
        self.octets = 0
        family = FamilySettings(IPV4_UNICAST, add_path=AddPath.BOTH, import_chain=imports, export_chain=chain)
        template = PeerSettings("client", "0.0.0.0", ASN, passive=True, reflector_client=True, cluster_id="1.1.1.1",
                                families=(family,))  # fmt: skip
        self.speaker = Speaker(
            SpeakerSettings(
                ASN, "10.9.0.1", cluster_id="1.1.1.1", dynamic=(("10.0.0.0/24", template),),
                learn=LearnSettings(kernel=False, direct=False), fib=FibSettings(enabled=False),
                resolve_next_hops=False,
            ), 0.0, lambda: 1.0,
        )  # fmt: skip
        self.speaker.start(0.0)
        for number in range(1, clients + 1):
            self.connect(number)

    def connect(self, number: int, conn: int = 0) -> None:
        """Client `number` comes up; its connection has its number if nothing else is said."""
        conn = conn or number
        assert self.speaker.on_accepted(conn, f"10.0.0.{number}", "10.9.0.1", 1.0)
        self.receive(conn, open_message(number, self.add_path))
        self.receive(conn, message(4, b""))
        self.rest()

    def receive(self, conn: int, octets: bytes) -> None:
        """Octets of a client."""
        self.speaker.on_data(conn, octets, 2.0)

    def rest(self) -> None:
        """What a turn of the loop ends with: flush, then every transport pulls what it is to write."""
        while True:
            self.speaker.flush(2.0)
            effects = self.speaker.take_effects()
            if not effects and self.speaker.deadline() > 2.0:
                return
            for effect in effects:
                if isinstance(effect, Send):
                    self.octets += len(effect.data)
                elif isinstance(effect, Spread):
                    self.octets += len(effect.data) * len(effect.conns)
                elif isinstance(effect, Ready):
                    for conn in effect.conns:
                        while (data := self.speaker.pull(conn)) is not None:
                            self.octets += len(data)
            if self.speaker.deadline() <= 2.0:
                self.speaker.on_tick(2.0)

    def flood(self) -> None:
        """Every client announces all its blocks; one turn of the loop."""
        for number in range(1, CLIENTS + 1):
            self.receive(number, announce(number, 0, BLOCKS, self.add_path))
        self.rest()
        assert self.octets > ROUTES * NLRI, "not everybody got everything"


def _chain() -> tuple[Term, ...]:
    """Prefix conditions as Calico's export policy has them: blocks, pools, and what is outside."""
    blocks = [_inside(bytes((26, 10, 255, i >> 2, (i & 3) << 6)), Verdict.REJECT) for i in range(100)]
    return (*blocks, _inside(b"\x08\x0a", Verdict.ACCEPT), Term("the rest", Verdict.REJECT))


def _filter() -> tuple[Term, ...]:
    """Rules that look at prefixes and at communities; all that is announced here passes."""
    half, tagged = b"\x01\0", MatchCommunity(64999 << 16 | 667)
    return (
        _inside(b"\x10\x0a\xfe", Verdict.REJECT),
        Term("tagged", Verdict.REJECT, (MatchCommunity(64999 << 16 | 666),)),
        Term("tagged and inside", Verdict.REJECT, (*_inside(half, Verdict.REJECT).conditions, tagged)),
        _inside(half, Verdict.ACCEPT),
    )


def _inside(key: bytes, verdict: Verdict) -> Term:
    return Term("inside", verdict, (MatchPrefix((PrefixRange(IPV4_UNICAST, key, key[0], 32),)),))


Work = Iterator[None]


def yardstick() -> Work:
    """Operations as the hot path has them, with no code of ours."""
    split = re.compile(rb"[\x19-\x20]....|[\x11-\x18]...|[\x09-\x10]..|[\x01-\x08].|\0", re.S).findall
    field = nlri(1, 0, 40, False)
    table: dict[bytes, object] = {}
    yield
    for number in range(400):
        keys = split(field)
        mark = object()
        table.update(dict.fromkeys(keys, mark))
        table[b"%d" % number] = mark
        assert all(map(table.get, keys))
        b"".join(keys)
        for key in keys:
            if table[key] is not mark:
                raise AssertionError


def flood() -> Work:
    """Every client announces everything, at once."""
    reflector = Reflector()
    yield
    reflector.flood()


def one_by_one() -> Work:
    """UPDATEs of one prefix, a turn of the loop each: single changes."""
    reflector = Reflector()
    yield
    for number in range(1, CLIENTS + 1):
        for block in range(4):
            reflector.receive(number, announce(number, block, 1, False))
            reflector.rest()


def add_path() -> Work:
    """The flood with ADD-PATH both ways."""
    reflector = Reflector(add_path=True)
    yield
    reflector.flood()


def policy() -> Work:
    """The flood through an export chain of 100 blocks and a pool."""
    reflector = Reflector(chain=_chain())
    yield
    reflector.flood()


def attribute_sets(add_path: bool = False) -> Work:
    """One client announces 400 attribute sets with eight prefixes each."""
    reflector = Reflector(add_path)
    updates = b"".join(announce(1 + i % 100, i % 32 * 8, 8, add_path, med=i) for i in range(400))
    yield
    reflector.receive(1, updates)
    reflector.rest()


def filtered() -> Work:
    """The same through a filter both ways: every set has communities of its own, prefixes are of several lengths."""
    chain = _filter()
    reflector = Reflector(chain=(*chain, *_chain()), imports=(*chain, *ACCEPT_ALL))
    updates = b"".join(_tagged(i) for i in range(400))
    yield
    before = reflector.octets
    reflector.receive(1, updates)
    reflector.rest()
    assert reflector.octets - before > len(updates) * (CLIENTS - 1), "not everybody got everything"


def _tagged(number: int) -> bytes:
    """An UPDATE of client 1 with a community of its own."""
    attributes = bytes((0x40, 1, 1, 0, 0x40, 2, 0, 0x40, 3, 4, 10, 0, 0, 1, 0x40, 5, 4, 0, 0, 0, 100, 0xC0, 8, 4))
    attributes += (2000 << 16 | number).to_bytes(4)
    prefixes = b"".join(bytes((24 - i % 3, 20 + number // 8, number % 8 * 32 + 4 * i, 0))[:4] for i in range(8))
    return message(2, bytes(2) + len(attributes).to_bytes(2) + attributes + prefixes)


def flap(add_path: bool = False) -> Work:
    """Five times a tenth of every client's blocks is withdrawn and announced."""
    reflector = Reflector(add_path)
    reflector.flood()
    yield
    for turn in range(5):
        for change in (withdraw, announce):
            for number in range(1, CLIENTS + 1):
                reflector.receive(number, change(number, turn * 20, 20, add_path))
            reflector.rest()


def join(add_path: bool = False, chain: tuple[Term, ...] = ACCEPT_ALL) -> Work:
    """Ten late joiners."""
    reflector = Reflector(add_path, chain)
    reflector.flood()
    yield
    for number in range(CLIENTS + 1, CLIENTS + 11):
        reflector.connect(number)


def storm() -> Work:
    """Clients connect and announce at once, ten blocks each, a turn of the loop each."""
    reflector = Reflector(clients=0)
    yield
    for number in range(1, 41):
        reflector.connect(number)
        reflector.receive(number, announce(number, 0, 10, False))
        reflector.rest()


def bounce() -> Work:
    """Clients are lost and come back, one after the other."""
    reflector = Reflector()
    reflector.flood()
    yield
    for number in range(1, 9):
        reflector.speaker.on_lost(number, "connection closed by peer", 2.0)
        reflector.rest()
        reflector.connect(number, conn=100 + number)
        reflector.receive(100 + number, announce(number, 0, BLOCKS, False))
        reflector.rest()


def keepalives() -> Work:
    """A hundred keepalives of every client."""
    reflector = Reflector()
    yield
    for _ in range(100):
        for number in range(1, CLIENTS + 1):
            reflector.receive(number, message(4, b""))
        reflector.rest()


PIECES: dict[str, Callable[[], Work]] = {
    "flood": flood, "single changes": one_by_one, "ADD-PATH flood": add_path, "export policy": policy,
    "attribute sets": attribute_sets, "BGPFilter": filtered, "flap": flap, "late joiners": join, "storm": storm,
    "bounce": bounce, "keepalives": keepalives, "ADD-PATH sets": partial(attribute_sets, True),
    "ADD-PATH flap": partial(flap, True), "ADD-PATH joiners": partial(join, True),
    "policy joiners": partial(join, chain=_chain()), **count_node.PIECES,
}  # fmt: skip


def mark() -> None:
    """Callgrind ends a part of its output when the C library's function of this name is called."""
    os.getloadavg()


def main() -> None:
    """The yardstick, then all pieces. The garbage collector sees nothing but what a piece makes while it works."""
    for piece in (yardstick, *PIECES.values()):
        work = piece()
        next(work)
        gc.collect()
        gc.freeze()
        mark()
        next(work, None)
        mark()


if __name__ == "__main__":
    main()
