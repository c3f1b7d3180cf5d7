"""Reflectors joined in memory with their clients: RFC 4456, dynamic neighbours, restart, ADD-PATH, limits."""

from __future__ import annotations

from sys import getsizeof

import pytest
from attrs import evolve

from bgpd.family import IPV4_UNICAST, parse_prefix
from bgpd.policy.terms import SourceKind
from bgpd.rib import reflection
from bgpd.settings import AddPath, PeerSettings, SpeakerSettings

from .reflector_support import ASN, cluster_of, families, hop, learned, node, prefixes, reflector, up

RR1, RR2 = "10.9.0.1", "10.9.0.2"
A, B, C = "10.0.0.1", "10.0.0.2", "10.0.0.3"


def block(address: str) -> tuple[str, str]:
    number = address.rpartition(".")[2]
    return f"10.244.{number}.0/26", f"fd00:244:{number}::/64"


def client(address: str, *reflectors: str) -> SpeakerSettings:
    return node(address, reflectors, block(address))


# RFC 4456


@pytest.mark.parametrize(
    ("source", "target", "passes", "reflected"),
    [
        (SourceKind.IBGP_CLIENT, SourceKind.IBGP_CLIENT, True, True),
        (SourceKind.IBGP_CLIENT, SourceKind.IBGP, True, True),
        (SourceKind.IBGP_CLIENT, SourceKind.EBGP, True, False),
        (SourceKind.IBGP, SourceKind.IBGP_CLIENT, True, True),
        (SourceKind.IBGP, SourceKind.IBGP, False, False),
        (SourceKind.IBGP, SourceKind.EBGP, True, False),
        (SourceKind.EBGP, SourceKind.IBGP_CLIENT, True, False),
        (SourceKind.EBGP, SourceKind.IBGP, True, False),
        (SourceKind.EBGP, SourceKind.EBGP, True, False),
    ],
)
def test_the_whole_table_of_rfc_4456_section_6(
    source: SourceKind, target: SourceKind, passes: bool, reflected: bool
) -> None:
    assert (reflection.unheard(target) is not source) == passes
    assert ((source, target) in reflection.REFLECTED) == reflected


def test_clients_of_a_range_get_each_others_routes_with_their_next_hops() -> None:
    cluster = cluster_of({RR1: reflector(RR1), **{a: client(a, RR1) for a in (A, B, C)}})
    cluster.run(5)
    for address in (A, B, C):
        others = {prefix for other in (A, B, C) if other != address for prefix in block(other)}
        assert prefixes(cluster.hosts[address]) == others
    path = learned(cluster.hosts[B], block(A)[0])[0]
    assert path.attrs.next_hop == hop(A) and path.attrs.originator_id == hop(A)
    assert path.attrs.cluster_list == (bytes((1, 1, 1, 1)),)
    assert path.attrs.local_pref == 100
    six = learned(cluster.hosts[B], block(A)[1])[0]
    assert six.attrs.next_hop[-1] == 1 and six.attrs.originator_id == hop(A)


def test_nothing_comes_back_to_its_source_and_an_own_originator_id_is_refused() -> None:
    # Two clusters in a row: A - RR1 - RR2 - B, and A is a client of both, so RR2 could send A its own route.
    hosts = {RR1: reflector(RR1, twins=(RR2,)), RR2: reflector(RR2, "2.2.2.2", twins=(RR1,))}
    cluster = cluster_of({**hosts, A: client(A, RR1), B: client(B, RR2)})
    cluster.run(5)
    path = learned(cluster.hosts[B], block(A)[0])[0]
    assert path.attrs.cluster_list == (bytes((2, 2, 2, 2)), bytes((1, 1, 1, 1)))
    assert path.attrs.originator_id == hop(A)
    assert learned(cluster.hosts[A], block(A)[0]) == []
    assert prefixes(cluster.hosts[A]) == set(block(B))


def test_two_reflectors_of_one_cluster_refuse_each_others_reflected_routes() -> None:
    hosts = {RR1: reflector(RR1, twins=(RR2,)), RR2: reflector(RR2, twins=(RR1,))}
    cluster = cluster_of({**hosts, **{a: client(a, RR1, RR2) for a in (A, B)}})
    cluster.run(5)
    rr1 = cluster.hosts[RR1]
    looped = [path for path in learned(rr1, block(A)[0]) if path.source.name == f"twin_{RR2}"]
    assert looped == [] or all("CLUSTER_LIST" in path.rejected for path in looped)
    adj = rr1.speaker.peers[f"twin_{RR2}"].importer.adj[IPV4_UNICAST]
    assert {path.rejected for path in adj.routes.values()} == {
        "our cluster id 1.1.1.1 is in CLUSTER_LIST (RFC 4456 §8)"
    }
    assert len(learned(cluster.hosts[B], block(A)[0])) == 2


def test_two_reflectors_of_one_cluster_stand_in_for_each_other_where_they_may() -> None:
    """As with Calico's resources: each client has lost a session, to another reflector each."""
    hosts = {RR1: reflector(RR1, twins=(RR2,)), RR2: reflector(RR2, twins=(RR1,))}
    cluster = cluster_of({**hosts, A: client(A, RR1), B: client(B, RR2)})
    cluster.run(5)
    assert prefixes(cluster.hosts[A]) == prefixes(cluster.hosts[B]) == set()
    for address in (RR1, RR2):
        before = cluster.hosts[address].settings
        twins = tuple(evolve(peer, allow_own_cluster=True) for peer in before.peers)
        cluster.reconfigure(address, evolve(before, peers=twins))
    cluster.run(5)
    assert prefixes(cluster.hosts[A]) == set(block(B)) and prefixes(cluster.hosts[B]) == set(block(A))
    assert learned(cluster.hosts[B], block(A)[0])[0].attrs.cluster_list == (bytes((1, 1, 1, 1)),) * 2
    assert up(cluster.hosts[A]) == up(cluster.hosts[B]) == 1
    cluster.kill(A)
    cluster.run(400)
    assert prefixes(cluster.hosts[B]) == set()


def test_clients_of_either_reflector_reach_each_other_across_clusters_and_lose_nothing_with_one_reflector() -> None:
    hosts = {RR1: reflector(RR1, twins=(RR2,)), RR2: reflector(RR2, "2.2.2.2", twins=(RR1,))}
    cluster = cluster_of({**hosts, **{a: client(a, RR1, RR2) for a in (A, B, C)}})
    cluster.run(5)
    want = {address: prefixes(cluster.hosts[address]) for address in (A, B, C)}
    assert all(len(found) == 4 for found in want.values())
    cluster.kill(RR1)
    for _ in range(40):
        cluster.run(5)
        assert {address: prefixes(cluster.hosts[address]) for address in (A, B, C)} == want
    assert all(up(cluster.hosts[address]) == 1 for address in (A, B, C))


def test_a_client_beside_non_clients_and_an_external_peer() -> None:
    external = PeerSettings("ext", "10.8.0.1", 65001, families=families(AddPath.OFF))
    plain = tuple(PeerSettings(f"plain{n}", f"10.7.0.{n}", ASN, families=families()) for n in (1, 2))
    settings = reflector(RR1, peers=(external, *plain))
    outside = SpeakerSettings(
        65001, "10.8.0.1", peers=(PeerSettings("rr", RR1, ASN, families=families()),), resolve_next_hops=False
    )
    hosts = {RR1: settings, A: client(A, RR1), "10.8.0.1": outside}
    hosts |= {f"10.7.0.{n}": node(f"10.7.0.{n}", (RR1,), (f"10.240.{n}.0/24",)) for n in (1, 2)}
    cluster = cluster_of(hosts)
    cluster.run(5)
    assert prefixes(cluster.hosts[A]) == {"10.240.1.0/24", "10.240.2.0/24"}
    assert prefixes(cluster.hosts["10.7.0.1"]) == set(block(A))
    assert prefixes(cluster.hosts["10.8.0.1"]) == {block(A)[0], block(A)[1], "10.240.1.0/24", "10.240.2.0/24"}
    told = learned(cluster.hosts["10.8.0.1"], block(A)[0])[0].attrs
    assert told.originator_id is None and told.cluster_list == () and told.as_path == ((2, (ASN,)),)


def test_add_path_keeps_every_clients_path_and_a_late_joiner_gets_all() -> None:
    shared = "10.250.0.1/32"
    hosts = {RR1: reflector(RR1), A: node(A, (RR1,), (shared,)), B: node(B, (RR1,), (shared,))}
    cluster = cluster_of(hosts)
    cluster.run(3)
    cluster.add(C, client(C, RR1))
    cluster.start(C)
    cluster.run(3)
    assert {path.attrs.next_hop for path in learned(cluster.hosts[C], shared)} == {hop(A), hop(B)}
    cluster.kill(A)
    cluster.run(200)
    assert {path.attrs.next_hop for path in learned(cluster.hosts[C], shared)} == {hop(B)}


def test_without_add_path_clients_get_the_best_path_alone() -> None:
    shared = "10.250.0.1/32"
    one = {"families": families(AddPath.OFF)}
    hosts = {RR1: reflector(RR1, template=one), A: node(A, (RR1,), (shared,)), B: node(B, (RR1,), (shared,))}
    cluster = cluster_of({**hosts, C: client(C, RR1)})
    cluster.run(3)
    # All else equal, the lower ORIGINATOR_ID wins (RFC 4271 §9.1.2.2 f, RFC 4456 §9).
    assert [path.attrs.next_hop for path in learned(cluster.hosts[C], shared)] == [hop(A)]
    # The best path's own client is told nothing: what it has itself is not withdrawn, and nothing else is better.
    assert learned(cluster.hosts[A], shared) == []
    assert [path.attrs.next_hop for path in learned(cluster.hosts[B], shared)] == [hop(A)]


# Restart


def test_a_reflector_that_restarts_costs_no_client_a_route() -> None:
    cluster = cluster_of({RR1: reflector(RR1), **{a: client(a, RR1) for a in (A, B, C)}})
    cluster.run(20)
    want = {address: prefixes(cluster.hosts[address]) for address in (A, B, C)}
    for _ in range(2):
        cluster.kill(RR1)
        cluster.run(1)
        cluster.add(RR1, cluster.hosts[RR1].settings)
        cluster.start(RR1)
        for _ in range(100):
            cluster.run(0.3)
            assert {address: prefixes(cluster.hosts[address]) for address in (A, B, C)} == want
    assert all(up(cluster.hosts[address]) == 1 for address in (A, B, C))
    sessions = [peer.session for address in (A, B, C) for peer in cluster.hosts[address].speaker.peers.values()]
    assert not any(session.stale_families for session in sessions)


def test_a_route_that_went_while_the_reflector_was_away_goes_after_its_end_of_rib() -> None:
    cluster = cluster_of({RR1: reflector(RR1), A: client(A, RR1), B: client(B, RR1)})
    cluster.run(20)
    cluster.kill(RR1)
    cluster.reconfigure(A, evolve(cluster.hosts[A].settings, static_routes=()))
    cluster.run(1)
    cluster.add(RR1, cluster.hosts[RR1].settings)
    cluster.start(RR1)
    cluster.run(3)
    assert prefixes(cluster.hosts[B]) == set(block(A))
    cluster.run(20)
    assert prefixes(cluster.hosts[B]) == set()


def test_a_client_that_comes_back_with_another_identifier_is_told_anew() -> None:
    """The identifier decides between equal paths, and is ORIGINATOR_ID at the others: kept routes that are repeated
    under another one are news, and what the others hold is what a later withdrawal takes from them."""
    shared = "10.250.0.1/32"
    one = {"families": families(AddPath.OFF)}
    hosts = {
        RR1: reflector(RR1, template=one),
        A: node(A, (RR1,), (shared, "10.250.1.1/32")),
        B: node(B, (RR1,), (shared,)),
    }
    cluster = cluster_of({**hosts, C: client(C, RR1)})
    cluster.run(20)
    assert [path.attrs.next_hop for path in learned(cluster.hosts[C], shared)] == [hop(A)]
    cluster.kill(A)
    cluster.run(1)
    renamed = evolve(hosts[A], router_id="10.0.0.99")
    cluster.add(A, renamed)
    cluster.start(A)
    cluster.run(20)
    assert [path.attrs.originator_id for path in learned(cluster.hosts[C], "10.250.1.1/32")] == [hop("10.0.0.99")]
    assert [path.attrs.next_hop for path in learned(cluster.hosts[C], shared)] == [hop(B)]
    cluster.reconfigure(B, evolve(hosts[B], static_routes=()))
    cluster.run(1)
    assert [path.attrs.next_hop for path in learned(cluster.hosts[C], shared)] == [hop(A)]
    cluster.reconfigure(A, evolve(renamed, static_routes=()))
    cluster.run(1)
    assert learned(cluster.hosts[C], shared) == []


# Dynamic neighbours


def test_a_client_that_is_gone_for_good_is_forgotten() -> None:
    cluster = cluster_of({RR1: reflector(RR1), A: client(A, RR1), B: client(B, RR1)})
    cluster.run(5)
    rr = cluster.hosts[RR1].speaker
    assert len(rr.peers) == len(rr.dynamic.peers) == 2
    cluster.kill(A)
    cluster.run(60)
    assert len(rr.peers) == 2, "its routes are kept for the restart time"
    assert prefixes(cluster.hosts[B]) == set(block(A))
    cluster.run(70)
    assert [peer.settings.address for peer in rr.peers.values()] == [B] and not rr.dynamic.dormant
    assert prefixes(cluster.hosts[B]) == set()


def test_beyond_the_limit_a_client_gets_cease_5_and_the_others_do_not_notice() -> None:
    cluster = cluster_of({RR1: reflector(RR1, max_dynamic=2), A: client(A, RR1), B: client(B, RR1)})
    cluster.run(3)
    cluster.add(C, client(C, RR1))
    cluster.start(C)
    cluster.run(10)
    rr = cluster.hosts[RR1].speaker
    assert up(cluster.hosts[C]) == 0 and rr.dynamic.refused > 0
    assert any("6/5" in line for line in cluster.hosts[C].log), cluster.hosts[C].log
    assert prefixes(cluster.hosts[B]) == set(block(A))
    assert all(peer.session.statistics.flaps == 0 for peer in rr.peers.values())
    cluster.kill(A)
    cluster.run(300)
    assert up(cluster.hosts[C]) == 1, "there is room again"


def test_an_address_of_no_range_is_not_welcome() -> None:
    cluster = cluster_of({RR1: reflector(RR1), "10.1.0.1": client("10.1.0.1", RR1)})
    cluster.run(3)
    assert not cluster.hosts[RR1].speaker.knows("10.1.0.1") and not cluster.hosts[RR1].speaker.peers


def test_changed_ranges_and_limits_reach_clients_that_are_there() -> None:
    cluster = cluster_of({RR1: reflector(RR1), A: client(A, RR1), B: client(B, RR1)})
    cluster.run(3)
    rr = cluster.hosts[RR1]
    small = tuple((cidr, evolve(peer, max_attribute_sets=7)) for cidr, peer in rr.settings.dynamic)
    cluster.reconfigure(RR1, evolve(rr.settings, dynamic=small))
    assert up(rr) == 2 and {p.settings.max_attribute_sets for p in rr.speaker.peers.values()} == {7}
    cluster.reconfigure(RR1, evolve(rr.settings, dynamic=((f"{A}/32", small[0][1]),)))
    cluster.run(1)
    assert [peer.settings.address for peer in rr.speaker.peers.values()] == [A] and up(rr) == 1
    assert any("6/3" in line for line in cluster.hosts[B].log), cluster.hosts[B].log
    cluster.reconfigure(RR1, evolve(rr.settings, cluster_id="3.3.3.3"))
    cluster.run(10)
    assert up(rr) == 1, "a new cluster id resets the session, and the client comes back"


# Limits


def test_one_prefix_beyond_the_limit_ends_that_session_alone() -> None:
    limited = {"families": families(max_prefixes=3)}
    more = tuple(f"10.244.9.{n}/32" for n in range(4))
    hosts = {RR1: reflector(RR1, template=limited), A: node(A, (RR1,), more[:3]), B: client(B, RR1)}
    cluster = cluster_of(hosts)
    cluster.run(5)
    assert up(cluster.hosts[RR1]) == 2 and prefixes(cluster.hosts[B]) == set(more[:3])
    cluster.reconfigure(A, node(A, (RR1,), more))
    cluster.run(0.2)
    assert any("6/1" in line for line in cluster.hosts[A].log), cluster.hosts[A].log
    assert up(cluster.hosts[B]) == 1


def test_a_client_that_is_kept_out_costs_no_room_for_the_routes_it_had() -> None:
    """It is remembered for its error, for minutes: with thousands of such, an emptied table is not to keep its size."""
    limited = {"families": families(max_prefixes=1000)}
    more = tuple(f"10.240.{n // 256}.{n % 256}/32" for n in range(1001))
    cluster = cluster_of({RR1: reflector(RR1, template=limited), A: node(A, (RR1,), more)})
    cluster.run(3)
    speaker = cluster.hosts[RR1].speaker
    (peer,) = speaker.dynamic.dormant.values()
    assert getsizeof(peer.importer.adj[IPV4_UNICAST].routes) == getsizeof(speaker.ribs[IPV4_UNICAST].table) < 500


def test_stale_routes_do_not_count() -> None:
    """A client back with other routes than before: old and new together are more than the limit, and that is fine."""
    limited = {"families": families(max_prefixes=3)}
    first, second = (tuple(f"10.244.{n}.{i}/32" for i in range(3)) for n in (8, 9))
    cluster = cluster_of(
        {RR1: reflector(RR1, template=limited), A: node(A, (RR1,), first), B: client(B, RR1)}
    )  # fmt: skip
    cluster.run(20)
    cluster.kill(A)
    cluster.run(1)
    cluster.add(A, node(A, (RR1,), second))
    cluster.start(A)
    cluster.run(30)
    assert up(cluster.hosts[RR1]) == 2
    assert prefixes(cluster.hosts[B]) == set(second)
    assert not any("6/1" in line for line in cluster.hosts[A].log)


def test_too_many_attribute_sets_or_octets_end_with_cease_8() -> None:
    for limit in ({"max_attribute_sets": 4}, {"max_octets": 200}):
        cluster = cluster_of({RR1: reflector(RR1, template=limit), A: client(A, RR1)})
        cluster.run(3)
        assert up(cluster.hosts[RR1]) == 1
        rr = cluster.hosts[RR1]
        # The client's ten next hops (RFC 4271 §5.1.3: a gateway of its own) are ten attribute sets.
        for number in range(10):
            cluster.local(A, f"10.245.{number}.0/24", gateway=bytes((10, 6, 0, number + 1)))
        cluster.run(0.2)
        assert up(rr) == 0, limit
        assert any("6/8" in line for line in cluster.hosts[A].log), cluster.hosts[A].log


def test_replacing_one_route_for_ever_is_within_the_limits() -> None:
    limit = {"max_attribute_sets": 8, "max_octets": 2000}
    cluster = cluster_of({RR1: reflector(RR1, template=limit), A: client(A, RR1), B: client(B, RR1)})
    cluster.run(3)
    for number in range(200):
        cluster.local(A, "10.245.0.0/24", gateway=bytes((10, 6, 0, number + 1)))
    cluster.run(1)
    assert up(cluster.hosts[RR1]) == 2
    assert [p.attrs.next_hop for p in learned(cluster.hosts[B], "10.245.0.0/24")] == [bytes((10, 6, 0, 200))]


def test_unknown_attributes_go_through_octet_for_octet() -> None:
    from bgpd.wire.framing import MessageType, build_message

    cluster = cluster_of({RR1: reflector(RR1, template={"families": families(AddPath.OFF)}), A: client(A, RR1)})
    cluster.add(B, node(B, (RR1,)))
    cluster.start(B)
    cluster.run(3)
    rr = cluster.hosts[RR1].speaker
    conn = rr.peers["client_10_0_0_1"].session.conn
    assert conn is not None
    unknown = bytes((0xD0, 99)) + (300).to_bytes(2, "big") + bytes(range(250)) + bytes(50)
    attrs = bytes.fromhex("400101004002004003040a00000140050400000064") + unknown
    _, key = parse_prefix("10.246.0.0/24")
    body = b"\0\0" + len(attrs).to_bytes(2, "big") + attrs + key
    rr.on_data(conn, build_message(MessageType.UPDATE, body), cluster.now)
    cluster._settle(cluster.hosts[RR1])
    cluster.run(0.2)
    block = learned(cluster.hosts[B], "10.246.0.0/24")[0].attrs.block
    assert bytes((0xF0,)) + unknown[1:] in block, "the Partial bit is set, nothing else is changed"
