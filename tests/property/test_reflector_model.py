"""The whole reflector (Speaker, sessions, update groups) against a naive model: a table per peer, no groups.

Random announcements, withdrawals, joins, losses with and without graceful restart, refreshes and slow readers. In the
end every peer's table, read from the octets it was sent, must be what the rules of RFC 4456 and RFC 4271 §9.1 give.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from hypothesis import given, settings
from hypothesis import strategies as st

from bgpd.effects import Close, Ready, Send, Spread
from bgpd.rib import slices, update_group
from bgpd.settings import FamilySettings, FibSettings, LearnSettings, PeerSettings, SpeakerSettings
from bgpd.speaker import Speaker
from tests.property.plain_client import (
    ASN,
    KEEPALIVE,
    PlainClient,
    Told,
    announcement,
    end_of_rib,
    refresh,
    withdrawal,
)
from tests.scenario.reflector_support import families

OWN, CLUSTER = bytes((9, 9, 9, 9)), bytes((1, 1, 1, 1))
UNITS = {
    4: [bytes((24, 10, 1, n)) for n in range(5)] + [bytes((32, 10, 2, 0, 1))],
    6: [bytes((64, 0xFD, 0, 0, n, 0, 0, 0, 0)) for n in range(5)] + [bytes((128, 0xFD)) + bytes(15)],
}
PEERS = [  # address, ADD-PATH, client, graceful restart
    ("10.0.0.1", False, True, False),
    ("10.0.0.2", False, True, True),
    ("10.0.0.3", True, True, True),
    ("10.0.0.4", True, True, False),
    ("10.7.0.1", False, False, False),
    ("10.7.0.2", True, False, True),
]
Key = tuple[int, bytes, int]
"""(version, prefix, path id)."""


class World:
    """A reflector, its peers, and beside it what each peer has said."""

    def __init__(self) -> None:
        self.now = 100.0
        offered = tuple(FamilySettings(f.family) for f in families())
        template = PeerSettings("c", "0.0.0.0", ASN, passive=True, reflector_client=True, families=offered)
        plain = tuple(
            PeerSettings(f"n_{address}", address, ASN, passive=True, families=offered)
            for address, _, client, _ in PEERS
            if not client
        )
        self.speaker = Speaker(
            SpeakerSettings(
                ASN,
                "9.9.9.9",
                cluster_id="1.1.1.1",
                peers=plain,
                dynamic=(("10.0.0.0/24", template),),
                learn=LearnSettings(kernel=False, direct=False),
                fib=FibSettings(enabled=False),
                resolve_next_hops=False,
            ),
            self.now,
            lambda: 1.0,
        )
        self.speaker.start(self.now)
        self.peers = [PlainClient(a, bytes((7, 7, 7, n)), p, c, g) for n, (a, p, c, g) in enumerate(PEERS)]
        self.said: list[dict[Key, Told]] = [{} for _ in PEERS]
        self.conns = 0
        self.batched = False
        """Several operations in one turn of the loop."""

    # Operations

    def join(self, who: int) -> None:
        peer = self.peers[who]
        if peer.conn is not None:
            return
        self.conns += 1
        peer.table.clear()
        peer.ended.clear()
        peer.stalled = peer.waiting = False
        assert self.speaker.on_accepted(self.conns, peer.address, "10.9.0.1", self.now)
        peer.conn = self.conns
        self.speaker.on_data(self.conns, peer.open() + KEEPALIVE, self.now)
        self.settle()
        # What it said before the loss is repeated, and what it does not repeat is gone with End-of-RIB.
        for (version, unit, path_id), told in self.said[who].items():
            self.send(who, announcement(version, told, [self.unit(who, unit, path_id)]))
        for version in (4, 6):
            self.send(who, end_of_rib(version))

    def lose(self, who: int, forget: bool) -> None:
        peer = self.peers[who]
        if peer.conn is not None:
            conn, peer.conn = peer.conn, None
            self.speaker.on_lost(conn, "reset by peer", self.now)
        if forget:
            self.said[who] = {}
        self.settle()

    def announce(self, who: int, version: int, numbers: list[int], ids: list[int], told: Told) -> None:
        peer = self.peers[who]
        if peer.conn is None:
            return
        units = self.units(who, version, numbers, ids)
        own_hop = told.hop == b""
        hop = peer.hop(version) if own_hop else self.peers[told.hop[0]].hop(version)
        told = Told(hop, told.local_pref, told.med, told.originator, told.clusters)
        self.said[who].update({(version, unit, path_id): told for unit, path_id in units})
        self.send(who, announcement(version, told, [self.unit(who, unit, path_id) for unit, path_id in units]))
        self.turn()

    def withdraw(self, who: int, version: int, numbers: list[int], ids: list[int]) -> None:
        if self.peers[who].conn is None:
            return
        units = self.units(who, version, numbers, ids)
        for unit, path_id in units:
            self.said[who].pop((version, unit, path_id), None)
        self.send(who, withdrawal(version, [self.unit(who, unit, path_id) for unit, path_id in units]))
        self.turn()

    def stall(self, who: int, stalled: bool) -> None:
        peer = self.peers[who]
        if peer.conn is None or peer.stalled == stalled:
            return
        peer.stalled = stalled
        if stalled:
            self.speaker.on_blocked(peer.conn, self.now)
        else:
            self.speaker.on_unblocked(peer.conn, self.now)
            self.take(peer)
        self.settle()

    def ask(self, who: int, version: int) -> None:
        if self.peers[who].conn is not None:
            self.send(who, refresh(version))

    def units(self, who: int, version: int, numbers: list[int], ids: list[int]) -> list[tuple[bytes, int]]:
        """Prefixes, each with one of the path ids in turn."""
        if not self.peers[who].add_path:
            ids = [0]
        return [(UNITS[version][n], ids[i % len(ids)]) for i, n in enumerate(numbers)]

    def unit(self, who: int, prefix: bytes, path_id: int) -> bytes:
        return (path_id.to_bytes(4, "big") if self.peers[who].add_path else b"") + prefix

    def send(self, who: int, data: bytes) -> None:
        conn = self.peers[who].conn
        assert conn is not None
        self.speaker.on_data(conn, data, self.now)

    # The reflector's side

    def batch(self, batched: bool) -> None:
        self.batched = batched

    def turn(self) -> None:
        """The end of a turn, unless more comes in it."""
        if not self.batched:
            self.settle()

    def settle(self) -> None:
        """Let the reflector do all it has to, and its peers read what they will."""
        for _ in range(500):
            self.speaker.flush(self.now)
            effects = self.speaker.take_effects()
            if not effects and self.speaker.deadline() > self.now:
                return
            for effect in effects:
                peer = next((p for p in self.peers if p.conn == getattr(effect, "conn", None)), None)
                if isinstance(effect, Send) and peer is not None:
                    peer.receive(effect.data)
                elif isinstance(effect, Spread):
                    for told in (p for p in self.peers if p.conn in effect.conns):
                        assert not told.stalled, "nothing is handed to a blocked peer"
                        told.receive(effect.data)
                elif isinstance(effect, Ready):
                    for ready in (p for p in self.peers if p.conn in effect.conns):
                        self.take(ready)
                elif isinstance(effect, Close) and peer is not None:
                    raise AssertionError(f"the reflector closed the session with {peer.address}")
        raise AssertionError("the reflector never comes to rest")

    def take(self, peer: PlainClient) -> None:
        while not peer.stalled and peer.conn is not None and (data := self.speaker.pull(peer.conn)) is not None:
            peer.receive(data)

    # The model

    def expected(self, who: int) -> dict[tuple[int, bytes], list[Told]]:
        """(version, prefix) -> what the peer must know, in no order."""
        target = self.peers[who]
        found: dict[tuple[int, bytes], list[Told]] = {}
        places = {(version, unit) for said in self.said for version, unit, _ in said}
        for version, unit in places:
            paths = list(self.paths(version, unit))
            chosen = paths if target.add_path else sorted(paths, key=rank)[:1]
            told = [reflect(self.peers[s], t) for s, _, t in chosen if self.may(s, who) and t.hop != target.hop(4)]
            if told:
                found[version, unit] = sorted(told, key=repr)
        return found

    def paths(self, version: int, unit: bytes) -> Iterator[tuple[int, int, Told]]:
        """Usable paths of a prefix: (source, path id, what it said)."""
        for source, said in enumerate(self.said):
            for (v, u, path_id), told in said.items():
                if (v, u) == (version, unit) and told.originator != OWN and CLUSTER not in told.clusters:
                    yield source, path_id, told

    def may(self, source: int, target: int) -> bool:
        return source != target and (self.peers[source].client or self.peers[target].client)

    def check(self) -> None:
        for who, peer in enumerate(self.peers):
            if peer.conn is None:
                continue
            got: dict[tuple[int, bytes], list[Told]] = {}
            for (version, _, unit), told in peer.table.items():
                got.setdefault((version, unit), []).append(told)
            got = {place: sorted(told, key=repr) for place, told in got.items()}
            assert got == self.expected(who), f"{peer.address}, a {'client' if peer.client else 'non-client'}"


def rank(path: tuple[int, int, Told]) -> tuple[int, int, bytes, int, bytes, int]:
    """RFC 4271 §9.1.2.2 and RFC 4456 §9 where AS_PATH is empty and ORIGIN is IGP."""
    source, path_id, told = path
    identifier = told.originator or bytes((7, 7, 7, source))
    address = bytes(map(int, PEERS[source][0].split(".")))
    return -told.local_pref, told.med or 0, identifier, len(told.clusters), address, path_id


def reflect(source: PlainClient, told: Told) -> Told:
    """What reflection makes of a path (RFC 4456 §8)."""
    return Told(told.hop, told.local_pref, told.med, told.originator or source.router_id, (CLUSTER, *told.clusters))


WHO, VERSION = st.integers(0, len(PEERS) - 1), st.sampled_from([4, 6])
NUMBERS = st.lists(st.integers(0, 5), min_size=1, max_size=6, unique=True)
IDS = st.lists(st.sampled_from([1, 1, 1, 2, 0, 0x180A0101, 0xFF180A01]), min_size=1, max_size=2)
"""Mostly one; some look like the beginning of a prefix."""
TOLD = st.builds(
    Told,
    st.sampled_from([b"", b"", b"", bytes((0,)), bytes((2,))]),
    st.sampled_from([100, 100, 200]),
    st.sampled_from([None, 0, 5]),
    st.sampled_from([b"", b"", bytes((7, 7, 7, 9)), OWN]),
    st.sampled_from([(), (), (bytes((2, 2, 2, 2)),), (bytes((2, 2, 2, 2)), CLUSTER)]),
)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("announce"), WHO, VERSION, NUMBERS, IDS, TOLD),
        st.tuples(st.just("announce"), WHO, VERSION, NUMBERS, IDS, TOLD),
        st.tuples(st.just("withdraw"), WHO, VERSION, NUMBERS, IDS),
        st.tuples(st.just("join"), WHO),
        st.tuples(st.just("lose"), WHO, st.booleans()),
        st.tuples(st.just("stall"), WHO, st.booleans()),
        st.tuples(st.just("ask"), WHO, VERSION),
        st.tuples(st.just("batch"), st.booleans()),
        st.tuples(st.just("settle")),
    ),
    max_size=50,
)


@contextmanager
def small_limits(log: int, size: int) -> Iterator[None]:
    """A log of few octets and work in small slices: slow readers fall back, jobs take several turns."""
    before = update_group.LOG_LIMIT, update_group._FIRST_SLICE, slices.SLICE, slices.REVIEWED
    update_group.LOG_LIMIT, update_group._FIRST_SLICE, slices.SLICE, slices.REVIEWED = log, size, size, size
    try:
        yield
    finally:
        update_group.LOG_LIMIT, update_group._FIRST_SLICE, slices.SLICE, slices.REVIEWED = before


@settings(max_examples=300, deadline=None)
@given(steps=STEPS, log=st.sampled_from([100, 400, 8 << 20]), size=st.sampled_from([2, 512]), first=st.booleans())
def test_every_peers_table_is_the_models(steps: list[tuple], log: int, size: int, first: bool) -> None:  # type: ignore[type-arg]
    with small_limits(log, size):
        world = World()
        for who in range(len(PEERS)) if first else ():
            world.join(who)
        world.settle()
        for name, *rest in steps:
            getattr(world, name)(*rest)
        for who in range(len(PEERS)):
            world.stall(who, False)
        # Who is away with graceful restart comes back, so that nothing is stale when the tables are compared.
        for who, peer in enumerate(world.peers):
            if peer.conn is None and peer.graceful:
                world.join(who)
            elif peer.conn is None:
                world.said[who] = {}
        world.now += 30
        for peer in world.peers:
            if peer.conn is not None:
                world.speaker.on_data(peer.conn, KEEPALIVE, world.now)
        world.speaker.on_tick(world.now)
        world.settle()
        world.check()
        assert all(peer.ended == {4, 6} for peer in world.peers if peer.conn is not None), "End-of-RIB of both families"


def test_a_slow_reader_falls_back_to_keys_and_is_right_in_the_end() -> None:
    """What it holds is withdrawn, changed and kept while its unread log is given up; one of each must come out."""
    told = Told(b"", 100, None, b"", ())
    with small_limits(100, 2):
        world = World()
        for who in range(4):
            world.join(who)
        for version in (4, 6):
            world.announce(0, version, [0, 1, 2, 3], [1], told)
        world.check()
        for who in (1, 2):
            world.stall(who, True)
        for version in (4, 6):
            world.withdraw(0, version, [0, 1], [1])
            for local_pref in range(101, 110):
                world.announce(0, version, [2], [1], Told(b"", local_pref, None, b"", ()))
            world.announce(3, version, [4], [1], told)
        held = [len(world.peers[who].table) for who in (1, 2)]
        assert held == [8, 8], "a stalled peer reads nothing"
        for who in (1, 2):
            world.stall(who, False)
        world.check()
