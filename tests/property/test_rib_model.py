"""Loc-RIB and Adj-RIB-Out against a brute-force model: per-peer tables, no groups, every decision by plain sorting.

Random announcements, withdrawals, losses, joins, refreshes, next-hop changes and slow readers; at the end every
client's table, built from the octets it was sent, must equal what the model says it should hold.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bgpd.family import IPV4_UNICAST, IPV6_UNICAST, Family, parse_address, parse_prefix
from bgpd.policy.chain import Chain
from bgpd.policy.terms import (
    ACCEPT_ALL,
    AddCommunity,
    MatchCommunity,
    MatchPrefix,
    PrefixRange,
    SetLocalPref,
    SourceKind,
    Term,
    Verdict,
)
from bgpd.rib import slices, update_group
from bgpd.rib.export import GroupKey
from bgpd.rib.importer import Importer, ImportRules, Shared
from bgpd.rib.path import Source
from bgpd.rib.update_group import Member, UpdateGroup
from bgpd.routes import Hop, LocalRoute
from bgpd.settings import NextHopMode
from bgpd.wire.attributes import AttributeTable, encode_communities
from bgpd.wire.update import ParsedUpdate, UpdateContext, UpdateParser

ASN = 64512
OWN = {IPV4_UNICAST: parse_address("192.0.2.1"), IPV6_UNICAST: parse_address("2001:db8::1")}
PREFIXES = {
    IPV4_UNICAST: [parse_prefix(f"10.{i}.0.0/{16 + i}")[1] for i in range(6)],
    IPV6_UNICAST: [parse_prefix(f"fd00:{i}::/{32 + 8 * i}")[1] for i in range(6)],
}
HOPS = {
    IPV4_UNICAST: [parse_address(f"172.16.0.{i}") for i in range(4)],
    IPV6_UNICAST: [parse_address(f"fd00:ffff::{i:x}") for i in range(4)],
}
KINDS = [SourceKind.IBGP_CLIENT, SourceKind.IBGP_CLIENT, SourceKind.IBGP, SourceKind.IBGP, SourceKind.EBGP]
TAG = 64512 << 16 | 7


def export_chain(family: Family) -> tuple[Term, ...]:
    """Looks at prefixes and communities, and changes some routes."""
    low, high = PREFIXES[family][1], PREFIXES[family][4]
    return (
        Term("no high", Verdict.REJECT, (MatchPrefix((PrefixRange(family, high, high[0], family.bits),)),)),
        Term("no tagged", Verdict.REJECT, (MatchCommunity(TAG),)),
        Term(
            "tag low",
            Verdict.NEXT,
            (MatchPrefix((PrefixRange(family, low, low[0], family.bits),)),),
            (AddCommunity(5),),
        ),
        Term("rest", Verdict.ACCEPT),
    )


@dataclass(frozen=True)
class Said:
    """One announcement, as the model keeps it."""

    local_pref: int
    path_length: int
    med: int
    tagged: bool
    hop: bytes


@dataclass
class Client:
    """One peer: what it says, and what it has been told."""

    name: str
    kind: SourceKind
    source: Source
    importer: Importer
    up: bool = False
    group: UpdateGroup | None = None
    member: Member | None = None
    parser: UpdateParser | None = None
    table: dict[bytes, tuple[bytes, bytes]] = field(default_factory=dict)
    ended: int = 0


class World:
    """The parts under test and the model beside them."""

    def __init__(self, family: Family, add_path: bool, chain: tuple[Term, ...]) -> None:
        self.family, self.add_path = family, add_path
        self.chains = {SourceKind.EBGP: chain, SourceKind.IBGP: chain, SourceKind.IBGP_CLIENT: chain}
        self.shared = Shared((family,), resolve=True)
        self.reachable = dict.fromkeys(HOPS[family], False)
        self.said: dict[tuple[str, int, bytes], Said] = {}
        self.groups: dict[GroupKey, UpdateGroup] = {}
        self.reviews: list[Iterator[int]] = []
        self.clients = [self._client(i, kind) for i, kind in enumerate(KINDS)]
        for i in range(len(HOPS[family]) - 1):
            self.resolve(i, True)
        self.flush()

    def _client(self, index: int, kind: SourceKind) -> Client:
        source = Source(f"peer{index}", kind, bytes((9,) * (self.family.octets - 1)) + bytes((index + 1,)), 65001)
        source.router_id = bytes((1, 1, 1, index + 1))
        importer = Importer(source, self.shared)
        peer_asn = 65001 if kind is SourceKind.EBGP else ASN
        rules = ImportRules(
            ASN, peer_asn, kind is SourceKind.EBGP, bytes((9, 9, 9, 9)), frozenset((bytes((9, 9, 9, 9)),)), 0, True
        )
        importer.configure(rules, {self.family: Chain(ACCEPT_ALL)})
        importer.open(self.family, self.add_path)
        return Client(source.name, kind, source, importer)

    @staticmethod
    def work(job: Iterator[int]) -> None:
        """All slices of a job."""
        for _ in job:
            pass

    # Operations

    def announce(self, who: int, path_id: int, keys: list[int], said: Said) -> None:
        client = self.clients[who]
        path_id = path_id if self.add_path else 0
        asns = [65001 if client.kind is SourceKind.EBGP else 65010] * said.path_length
        block = b"\x40\x01\x01\x00"
        value = (bytes((2, len(asns))) + b"".join(a.to_bytes(4, "big") for a in asns)) if asns else b""
        block += b"\x40\x02" + bytes((len(value),)) + value
        block += b"\x80\x04\x04" + said.med.to_bytes(4, "big")
        if client.kind is not SourceKind.EBGP:
            block += b"\x40\x05\x04" + said.local_pref.to_bytes(4, "big")
        if said.tagged:
            block += b"\xc0\x08\x04" + encode_communities((TAG,))
        attrs = self.shared.attributes.intern(self.family, block, said.hop)
        chosen = [PREFIXES[self.family][i] for i in keys]
        update, units = self._update(path_id, chosen)
        update.reach = [(self.family, attrs, units)]
        client.importer.apply(update)
        for key in chosen:
            self.said[client.name, path_id, key] = said

    def withdraw(self, who: int, path_id: int, keys: list[int]) -> None:
        client = self.clients[who]
        path_id = path_id if self.add_path else 0
        chosen = [PREFIXES[self.family][i] for i in keys]
        update, units = self._update(path_id, chosen)
        update.unreach = [(self.family, units)]
        client.importer.apply(update)
        for key in chosen:
            self.said.pop((client.name, path_id, key), None)

    def _update(self, path_id: int, keys: list[bytes]) -> tuple[ParsedUpdate, list[bytes]]:
        """An UPDATE with the path id of all its prefixes, or before each."""
        prefix = path_id.to_bytes(4, "big") if self.add_path else b""
        if path_id == 1:
            return ParsedUpdate([], [], path_id=prefix), keys
        return ParsedUpdate([], []), [prefix + key for key in keys]

    def lose(self, who: int) -> None:
        client = self.clients[who]
        self.work(client.importer.drop(self.family))
        self.said = {k: v for k, v in self.said.items() if k[0] != client.name}

    def restart(self, who: int, keys: list[int]) -> None:
        """A graceful restart in which only routes of some prefixes are repeated."""
        client = self.clients[who]
        kept = {
            k: v
            for k, v in self.said.items()
            if k[0] == client.name and k[2] in [PREFIXES[self.family][i] for i in keys]
        }
        client.importer.begin_epoch(self.family)
        self.flush()
        for (_, path_id, key), said in kept.items():
            self.announce(who, path_id, [PREFIXES[self.family].index(key)], said)
        self.work(client.importer.sweep(self.family))
        self.said = {k: v for k, v in self.said.items() if k[0] != client.name or k in kept}

    def resolve(self, index: int, up: bool) -> None:
        hop = HOPS[self.family][index]
        self.reachable[hop] = up
        key = bytes((self.family.bits,)) + hop
        route = LocalRoute(self.family, key, SourceKind.KERNEL, (Hop(b"", 7),), 0, "eth0", 4, "test") if up else None
        table = self.shared.next_hops
        hops = table.set_route(self.family, key, SourceKind.KERNEL, route)
        changed = [(h, n) for h in hops if (n := table.look_up(h.address)).answer() != h.answer()]
        rib = self.shared.ribs[self.family]
        groups = rib.best_groups(h for h, _ in changed)
        for h, n in changed:
            table.refresh(h, n)
        rib.reselect(groups)
        for group in self.groups.values():
            group.next_hops_changed()

    def join(self, who: int) -> None:
        client = self.clients[who]
        if client.up:
            self.leave(who)
        key = GroupKey(
            self.family,
            client.kind,
            ASN,
            self.chains[client.kind],
            NextHopMode.AUTO,
            OWN[self.family],
            bytes((9, 9, 9, 9)),
            True,
            self.add_path,
            4096,
            False,
        )
        group = self.groups.setdefault(
            key, UpdateGroup(key, self.shared.ribs[self.family], lambda path, units: pytest.fail("attributes too long"))
        )
        client.group, client.member, client.up = group, Member(client, client.source, client.source.address), True
        client.table, client.ended = {}, 0
        families = frozenset((self.family,))
        client.parser = UpdateParser(
            UpdateContext(
                client.kind is SourceKind.EBGP,
                True,
                families,
                families if self.add_path else frozenset(),
                frozenset(),
                AttributeTable(),
            )
        )
        group.add(client.member)

    def leave(self, who: int) -> None:
        client = self.clients[who]
        if client.up and client.group is not None and client.member is not None:
            client.group.remove(client.member)
            client.up = False
            if not client.group.members:
                self.groups.pop(client.group.key)

    def change_chain(self, kind_index: int, chain: tuple[Term, ...]) -> None:
        kind = KINDS[kind_index]
        self.flush()
        self.chains[kind] = chain
        for client in self.clients:
            if not client.up or client.kind is not kind:
                continue
            old, member = client.group, client.member
            assert old is not None and member is not None
            from attrs import evolve

            key = evolve(old.key, chain=chain)
            if key == old.key:
                continue
            new = self.groups.get(key)
            if new is None:
                new = self.groups[key] = UpdateGroup(key, self.shared.ribs[self.family], old._too_long)
            review = new.adopt(member, old)
            if review is not None:
                self.reviews.append(review.run())
            if not old.members:
                self.groups.pop(old.key)
            client.group = new

    def review(self, slices: int) -> None:
        """Some slices of the work that is due after changes of chains."""
        while self.reviews and slices:
            slices -= 1
            if next(self.reviews[0], None) is None:
                self.reviews.pop(0)

    def refresh(self, who: int) -> None:
        client = self.clients[who]
        if client.up and client.group is not None and client.member is not None:
            client.group.refresh(client.member, b"", b"")

    def flush(self) -> None:
        changes, repeated = self.shared.ribs[self.family].take_changes()
        for group in self.groups.values():
            group.apply(changes, repeated)

    def pull(self, who: int, count: int) -> None:
        client = self.clients[who]
        if not client.up or client.group is None or client.member is None:
            return
        for _ in range(count):
            data = client.group.pull(client.member)
            if data is None:
                return
            self._receive(client, data)

    def settle(self) -> None:
        """A flush after which every client reads all there is: the clients then follow the log."""
        self.flush()
        for index in range(len(self.clients)):
            self.pull(index, 10_000)

    def _receive(self, client: Client, data: bytes) -> None:
        assert client.parser is not None
        while data:
            length = int.from_bytes(data[16:18], "big")
            update = client.parser.parse(data[19:length])
            data = data[length:]
            assert not update.findings
            for _, keys in update.unreach:
                for key in keys:
                    client.table.pop(update.path_id + key, None)
            for _, attrs, keys in update.reach:
                units = (update.path_id + key for key in keys)
                client.table.update(dict.fromkeys(units, (attrs.block, attrs.next_hop)))
            client.ended += update.end_of_rib is not None

    # The model

    def expected(self, client: Client) -> dict[bytes, list[tuple[str, int, Said]]]:
        """What a client should have: per key the (source, path id, said) that are told, best first."""
        result: dict[bytes, list[tuple[str, int, Said]]] = {}
        for key in PREFIXES[self.family]:
            options = [
                (name, path_id, said)
                for (name, path_id, k), said in self.said.items()
                if k == key
                and self.reachable[said.hop]
                and not (self._kind(name) is SourceKind.EBGP and not said.path_length)
            ]
            if not options:
                continue
            if not self.add_path:
                options = [self._best(options)]
            told = [o for o in options if self._told(client, key, *o)]
            if told:
                result[key] = told
        return result

    def _kind(self, name: str) -> SourceKind:
        return next(c.kind for c in self.clients if c.name == name)

    def _local_pref(self, name: str, said: Said) -> int:
        return 100 if self._kind(name) is SourceKind.EBGP else said.local_pref

    def _neighbour(self, name: str, said: Said) -> int:
        if not said.path_length:
            return 0
        return 65001 if self._kind(name) is SourceKind.EBGP else 65010

    def _best(self, options: list[tuple[str, int, Said]]) -> tuple[str, int, Said]:
        most = max(self._local_pref(n, s) for n, _, s in options)
        left = [o for o in options if self._local_pref(o[0], o[2]) == most]
        short = min(s.path_length for _, _, s in left)
        left = [o for o in left if o[2].path_length == short]
        left = [
            o
            for o in left
            if not any(self._neighbour(p[0], p[2]) == self._neighbour(o[0], o[2]) and p[2].med < o[2].med for p in left)
        ]
        return min(left, key=lambda o: (self._kind(o[0]) is not SourceKind.EBGP, o[0], o[1]))

    def _told(self, client: Client, key: bytes, name: str, path_id: int, said: Said) -> bool:
        if name == client.name or (self._kind(name) is SourceKind.IBGP and client.kind is SourceKind.IBGP):
            return False
        if self.chains[client.kind] == ACCEPT_ALL:
            return True
        return key != PREFIXES[self.family][4] and not said.tagged

    def check(self) -> None:
        self.flush()
        self.review(10_000)
        assert not any(group.reviews for group in self.groups.values())
        for index, client in enumerate(self.clients):
            if not client.up:
                continue
            self.pull(index, 10_000)
            assert client.group is not None and client.member is not None
            assert client.group.pull(client.member) is None and not client.group.has_data(client.member)
            assert client.ended == 1, "End-of-RIB once after the initial table"
            got: dict[bytes, list[tuple[bytes, int | None, bool]]] = {}
            for unit, (block, hop) in client.table.items():
                attrs = AttributeTable().intern(self.family, block, hop)
                told = (hop, attrs.local_pref, 5 in attrs.communities)
                got.setdefault(unit[4:] if self.add_path else unit, []).append(told)
            wanted = self.expected(client)
            assert got.keys() == wanted.keys(), client.name
            external = client.kind is SourceKind.EBGP
            for key, options in wanted.items():
                tagged = self.chains[client.kind] != ACCEPT_ALL and key == PREFIXES[self.family][1]
                right = [
                    (
                        OWN[self.family] if external else said.hop,
                        None if external else self._local_pref(name, said),
                        tagged,
                    )
                    for name, _, said in options
                ]
                assert sorted(map(repr, got[key])) == sorted(map(repr, right)), (client.name, key)
        adj = sum(len(c.importer.adj[self.family]) for c in self.clients)
        assert adj == len(self.said)


said = st.builds(
    Said,
    local_pref=st.sampled_from([100, 200]),
    path_length=st.integers(0, 2),
    med=st.integers(0, 1),
    tagged=st.booleans(),
    hop=st.integers(0, 3),
)
who = st.integers(0, len(KINDS) - 1)
keys = st.lists(st.integers(0, 5), min_size=1, max_size=6)
path_id = st.integers(1, 2)
operation = st.one_of(
    st.tuples(st.just("announce"), who, path_id, keys, said),
    st.tuples(st.just("announce"), who, path_id, keys, said),
    st.tuples(st.just("withdraw"), who, path_id, keys),
    st.tuples(st.just("lose"), who),
    st.tuples(st.just("restart"), who, keys),
    st.tuples(st.just("join"), who),
    st.tuples(st.just("leave"), who),
    st.tuples(st.just("refresh"), who),
    st.tuples(st.just("flush")),
    st.tuples(st.just("settle")),
    st.tuples(st.just("settle")),
    st.tuples(st.just("settle")),
    st.tuples(st.just("pull"), who, st.integers(1, 3)),
    st.tuples(st.just("resolve"), st.integers(0, 3), st.booleans()),
    st.tuples(st.just("chain"), who, st.booleans()),
    st.tuples(st.just("review"), st.integers(1, 4)),
)


@pytest.mark.parametrize("log_limit", [8 * 1024 * 1024, 200], ids=["log", "laggards"])
@pytest.mark.parametrize("add_path", [False, True], ids=["best", "add-path"])
@pytest.mark.parametrize("family", [IPV4_UNICAST, IPV6_UNICAST], ids=str)
@settings(max_examples=120, deadline=None)
@given(data=st.data(), operations=st.lists(operation, max_size=40))
def test_every_client_has_what_the_model_says(
    family: Family, add_path: bool, log_limit: int, data: st.DataObject, operations: list[tuple[object, ...]]
) -> None:
    del data
    before, slice_before = update_group.LOG_LIMIT, slices.REVIEWED
    update_group.LOG_LIMIT, slices.REVIEWED = log_limit, 2
    try:
        world = World(family, add_path, ACCEPT_ALL)
        for index in range(0, len(KINDS), 2):
            world.join(index)
        world.settle()
        for name, *args in operations:
            run(world, str(name), args)
        world.check()
    finally:
        update_group.LOG_LIMIT, slices.REVIEWED = before, slice_before


def run(world: World, name: str, args: list[object]) -> None:
    """Carry out one operation."""
    if name == "announce":
        index, path_id, chosen, what = args
        assert isinstance(what, Said)
        fixed = Said(what.local_pref, what.path_length, what.med, what.tagged, HOPS[world.family][int(str(what.hop))])
        world.announce(index, path_id, list(dict.fromkeys(chosen)), fixed)  # type: ignore[arg-type, call-overload]
    elif name == "chain":
        index, plain = args
        world.change_chain(index, ACCEPT_ALL if plain else export_chain(world.family))  # type: ignore[arg-type]
    else:
        getattr(world, name)(*args)


def test_import_chain_changes_and_prefix_splits() -> None:
    """An import chain that splits an UPDATE by prefix, then another: `reimport` gives what a fresh session would."""
    family = IPV4_UNICAST
    world = World(family, False, ACCEPT_ALL)
    low = PREFIXES[family][0]
    split = (
        Term("low", Verdict.ACCEPT, (MatchPrefix((PrefixRange(family, low, low[0], 32),)),), (SetLocalPref(300),)),
        Term("no rest", Verdict.REJECT),
    )
    client = world.clients[0]
    assert client.importer.rules is not None
    client.importer.configure(client.importer.rules, {family: Chain(split)})
    world.announce(0, 0, [0, 1, 2], Said(100, 1, 0, False, HOPS[family][0]))
    table = world.shared.ribs[family].table
    assert list(table) == [low]
    adj = client.importer.adj[family]
    assert len(adj) == 3
    assert [p.rejected for p in adj.lookup(PREFIXES[family][1])] == ["no rest"]
    path = adj.lookup(low)[0]
    assert path.attrs.local_pref == 300 and path.received.local_pref == 100
    client.importer.configure(client.importer.rules, {family: Chain(ACCEPT_ALL)})
    world.work(client.importer.reimport(family))
    assert sorted(table) == sorted(PREFIXES[family][:3])
    assert adj.lookup(low)[0].attrs.local_pref == 100


@pytest.mark.parametrize("add_path", [False, True], ids=["best", "add-path"])
def test_who_joins_does_not_share_a_walk_from_before_a_change_that_the_first_is_not_told_of(add_path: bool) -> None:
    """A peer alone in its group is told nothing of its own paths; the second one has to be."""
    world = World(IPV4_UNICAST, add_path, ACCEPT_ALL)
    world.announce(0, 1, [0], Said(100, 0, 0, False, HOPS[IPV4_UNICAST][0]))
    world.flush()
    world.join(0)
    world.announce(0, 1, [0], Said(100, 0, 0, False, HOPS[IPV4_UNICAST][1]))
    world.flush()
    world.join(1)
    world.check()


def test_a_sweep_leaves_alone_what_a_later_epoch_makes_stale(monkeypatch: pytest.MonkeyPatch) -> None:
    """Dropped, up again and lost again while the first drop is still at work: the second loss keeps its routes."""
    monkeypatch.setattr(slices, "SLICE", 1)
    world = World(IPV4_UNICAST, False, ACCEPT_ALL)
    fact = Said(100, 1, 0, False, HOPS[IPV4_UNICAST][0])
    world.announce(0, 0, [0, 1, 2, 3], fact)
    client = world.clients[0]
    job = client.importer.drop(IPV4_UNICAST)
    next(job)
    world.announce(0, 0, [2, 3], fact)
    client.importer.begin_epoch(IPV4_UNICAST)
    world.work(job)
    assert sorted(client.importer.adj[IPV4_UNICAST].routes) == sorted(PREFIXES[IPV4_UNICAST][2:4])
    world.work(client.importer.sweep(IPV4_UNICAST))
    assert not client.importer.adj[IPV4_UNICAST].routes and not world.shared.ribs[IPV4_UNICAST].table


@pytest.mark.parametrize("add_path", [False, True], ids=["best", "add-path"])
@pytest.mark.parametrize("family", [IPV4_UNICAST, IPV6_UNICAST], ids=str)
def test_a_table_on_its_way_has_no_path_that_came_within_reach_when_it_was_gone(family: Family, add_path: bool) -> None:
    """Out of reach when the walk began and withdrawn before it was told: the log has nothing of it either."""
    world = World(family, add_path, ACCEPT_ALL)
    world.announce(1, 1, [0], Said(100, 1, 0, False, HOPS[family][3]))
    world.flush()
    world.join(0)
    world.withdraw(1, 1, [0])
    world.flush()
    world.resolve(3, True)
    world.check()


def test_the_end_of_a_refresh_comes_behind_all_routes() -> None:
    """Also where next hops change during it."""
    family = IPV4_UNICAST
    world = World(family, False, ACCEPT_ALL)
    world.join(0)
    world.announce(1, 0, [0, 1, 2], Said(100, 1, 0, False, HOPS[family][0]))
    world.settle()
    client = world.clients[0]
    assert client.group is not None and client.member is not None
    client.group.refresh(client.member, b"begin", b"end")
    world.resolve(1, False)
    told: list[bytes] = []
    while (data := client.group.pull(client.member)) is not None:
        told.append(data)
    assert told[0] == b"begin" and told[-1] == b"end"
    assert all(key in b"".join(told[1:-1]) for key in PREFIXES[family][:3])
