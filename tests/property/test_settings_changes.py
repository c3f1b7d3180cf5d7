"""Changed settings of a running speaker: what is followed step by step ends where a fresh start would."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st

from bgpd.family import IPV4_UNICAST, parse_prefix
from bgpd.policy.terms import ACCEPT_ALL, AddCommunity, MatchPrefix, PrefixRange, Term, Verdict
from bgpd.sequences import parted
from bgpd.settings import FamilySettings, PeerSettings, SpeakerSettings, StaticKind, StaticRoute
from bgpd.shell.listener import PeerIndex
from tests.scenario.cluster import Cluster

A, B, C = "10.0.0.1", "10.0.0.2", "10.0.0.3"


def _first(number: int) -> MatchPrefix:
    return MatchPrefix((PrefixRange(IPV4_UNICAST, parse_prefix(f"10.244.{number}.0/26")[1], 26, 32),))


MENU = (
    ACCEPT_ALL,
    (),
    (Term("one", Verdict.ACCEPT, (_first(1),)),),
    (Term("not two", Verdict.REJECT, (_first(2),)), *ACCEPT_ALL),
    (Term("tag", Verdict.ACCEPT, (), (AddCommunity(7),)),),
)
chains = st.dictionaries(st.sampled_from(["x", "y"]), st.sampled_from(MENU))
references = st.sampled_from(["x", "y", *MENU[:3]])
families = st.builds(
    lambda imports, exports: (FamilySettings(IPV4_UNICAST, import_chain=imports, export_chain=exports),),
    references, references,
)  # fmt: skip


def _peer(address: str, of: tuple[FamilySettings, ...] | None, loops: int) -> PeerSettings | None:
    return None if of is None else PeerSettings(f"p{address[-1]}", address, 64512, families=of, allow_local_as=loops)


sides = st.tuples(st.none() | families, st.none() | families, st.integers(0, 1))
steps = st.lists(st.tuples(chains, chains, st.none() | sides), min_size=1, max_size=5)


def _settings(address: str, peers: list[PeerSettings | None], **changes: Any) -> SpeakerSettings:
    number = int(address[-1])
    routes = tuple(
        StaticRoute(IPV4_UNICAST, parse_prefix(f"10.244.{n}.0/26")[1], StaticKind.BLACKHOLE, "block")
        for n in (number, number + 10)
    )
    kept = tuple(peer for peer in peers if peer is not None)
    return evolve(SpeakerSettings(64512, address, peers=kept, static_routes=routes), **changes)


def _world(start: SpeakerSettings) -> Cluster:
    cluster = Cluster()
    plain = (FamilySettings(IPV4_UNICAST),)
    cluster.add(A, start)
    for address in (B, C):
        cluster.add(address, _settings(address, [_peer(A, plain, 0)]))
    for address in (A, B, C):
        cluster.link(address, "10.0.0.0/24")
        cluster.start(address)
    cluster.run(2)
    return cluster


def _picture(cluster: Cluster) -> object:
    told = {}
    for address, host in cluster.hosts.items():
        for family, rib in host.speaker.ribs.items():
            for key, entry in rib.table.items():
                paths = entry if isinstance(entry, tuple) else (entry,)
                best, *others = [(path.source.name, path.attrs.block) for path in paths]
                told[address, family, key] = best, sorted(others)
    flaps = {(a, p.settings.name): p.session.statistics.flaps
             for a, host in cluster.hosts.items() for p in host.speaker.peers.values()}  # fmt: skip
    return told, flaps


@given(steps)
@settings(max_examples=40, deadline=None)
def test_chains_by_name_are_followed_as_those_in_place(sequence: list[Any]) -> None:
    """Whatever changes together with them: the same routes everywhere, and no session more is lost."""
    wanted = []
    by_name = (FamilySettings(IPV4_UNICAST, import_chain="x", export_chain="y"),)
    of_b, of_c, loops = by_name, by_name, 0
    for imports, exports, others in sequence:
        of_b, of_c, loops = others or (of_b, of_c, loops)
        peers = [_peer(B, of_b, loops), _peer(C, of_c, 0)]
        wanted.append(_settings(A, peers, import_chains=imports, export_chains=exports))
    named, plain = _world(wanted[0]), _world(wanted[0].inlined())
    assert _picture(named) == _picture(plain)
    for now in wanted[1:]:
        named.reconfigure(A, now)
        plain.reconfigure(A, now.inlined())
        for cluster in (named, plain):
            cluster.run(1)
        assert _picture(named) == _picture(plain)


# --- what did not change is passed over

POOL = [
    PeerSettings(f"peer{n}", address, 64512, port=179 + n % 2, password=key, ttl_security_hops=hops, disabled=held)
    for n, (address, key, hops, held) in enumerate(
        (address, key, hops, held)
        for address in (A, B, "fd00::1", "fd00:0::2")
        for key in (None, "k")
        for hops in (None, 3)
        for held in ("", "clash")
    )
]
some = st.lists(st.sampled_from(POOL), unique_by=lambda peer: peer.name, max_size=12)


@given(some, some, st.integers(0, 12), st.integers(0, 12))
def test_parted_finds_what_went_and_what_came(one: list[PeerSettings], two: list[PeerSettings], a: int, b: int) -> None:
    more = [peer for peer in two[:b] if peer not in one]
    for old, new in ((one, two), (one, [*one[:a], *more, *one[a:]]), ([*more, *one], one[a:])):
        gone, come = parted(tuple(old), tuple(new))
        assert sorted(map(id, gone)) == sorted({id(peer) for peer in old} - {id(peer) for peer in new})
        assert sorted(map(id, come)) == sorted({id(peer) for peer in new} - {id(peer) for peer in old})


@given(st.lists(some, min_size=1, max_size=5))
def test_an_index_of_peers_that_follows_is_a_fresh_one(sequence: list[list[PeerSettings]]) -> None:
    template = PeerSettings("range", "0.0.0.0", 64512, password="r", ttl_security_hops=1)
    wanted = [SpeakerSettings(1, A, peers=tuple(one), dynamic=(("10.9.0.0/16", template),)) for one in sequence]
    index = PeerIndex(wanted[0])
    for before, now in pairwise(wanted):
        index.replace(*parted(before.peers, now.peers))
        fresh = PeerIndex(now)
        assert index.held == fresh.held
        for version in (4, 6):
            assert index.keys(version) == fresh.keys(version) and index.min_ttl(version) == fresh.min_ttl(version)
        for address in (A, B, "fd00::1", "fd00::2", "10.9.1.1"):
            assert index.find(address) is fresh.find(address)
