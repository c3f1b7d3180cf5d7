"""Whole speakers, joined in memory: announcements, restart and helper, reconfiguration, reflection, limits."""

from __future__ import annotations

from typing import Any

import pytest
from attrs import evolve

from bgpd.effects import Connect, Rekey, Send
from bgpd.family import IPV4_UNICAST, IPV6_UNICAST, parse_address, parse_prefix
from bgpd.policy.terms import MatchPrefix, PrefixRange, SourceKind, Term, Verdict
from bgpd.rib.review import Review
from bgpd.rib.slices import SLICE
from bgpd.routes import FibRoute, Hop, LocalChange, LocalRoute, RouteKind
from bgpd.session.fsm import State
from bgpd.session.session import DIAL_WAIT
from bgpd.settings import (
    AddPath,
    FamilySettings,
    FibSettings,
    NextHopMode,
    PeerSettings,
    SpeakerSettings,
    StaticKind,
    StaticRoute,
)
from bgpd.speaker import Speaker
from bgpd.wire.build import build_end_of_rib
from bgpd.wire.capabilities import FourOctetAs, GracefulRestartCapability, MultiProtocol
from bgpd.wire.framing import KEEPALIVE, MessageType
from bgpd.wire.open import Open, build_open

from .cluster import Cluster, Host

A, B, C = "10.0.0.1", "10.0.0.2", "10.0.0.3"
EXPORT = (
    Term(
        "pool",
        Verdict.ACCEPT,
        (
            MatchPrefix(
                (
                    PrefixRange(IPV4_UNICAST, parse_prefix("10.244.0.0/16")[1], 16, 32),
                    PrefixRange(IPV6_UNICAST, parse_prefix("fd00:244::/32")[1], 32, 128),
                )
            ),
        ),
    ),
)
BOTH = (FamilySettings(IPV4_UNICAST, export_chain=EXPORT), FamilySettings(IPV6_UNICAST, export_chain=EXPORT))


def block(number: int) -> StaticRoute:
    family, key = parse_prefix(f"10.244.{number}.0/26")
    return StaticRoute(family, key, StaticKind.BLACKHOLE, "own block")


def peer(address: str, **changes: Any) -> PeerSettings:
    settings = PeerSettings(
        f"p{address[-1]}", address, 64512, families=BOTH, own_addresses=((IPV6_UNICAST, "fd00::1"),)
    )
    return evolve(settings, **changes)


def node(address: str, others: list[str], **changes: Any) -> SpeakerSettings:
    number = int(address[-1])
    settings = SpeakerSettings(
        64512, address, peers=tuple(peer(other) for other in others), static_routes=(block(number),)
    )
    return evolve(settings, **changes)


def mesh(addresses: list[str], **changes: Any) -> Cluster:
    cluster = Cluster()
    for address in addresses:
        cluster.add(address, node(address, [other for other in addresses if other != address], **changes))
        cluster.link(address, "10.0.0.0/24")
        cluster.link(address, "fd00::/64")
    for address in addresses:
        cluster.start(address)
    return cluster


def up(host: Host) -> int:
    return sum(p.session.state is State.ESTABLISHED for p in host.speaker.peers.values())


def test_blocks_and_pod_routes_reach_the_other_kernels() -> None:
    cluster = mesh([A, B, C])
    cluster.local(A, "10.244.2.77/32")
    cluster.local(A, "fd00:244::1/128")
    assert cluster.run(5, lambda: all(up(h) == 2 for h in cluster.hosts.values()))
    cluster.run(1)
    b = cluster.hosts[B]
    kernel = {key: route for (_, key), route in b.kernel.items()}
    route = kernel[parse_prefix("10.244.1.0/26")[1]]
    assert route.kind is RouteKind.UNICAST and route.hops[0].gateway == bytes((10, 0, 0, 1))
    assert kernel[parse_prefix("10.244.2.0/26")[1]].kind is RouteKind.BLACKHOLE
    assert parse_prefix("10.244.2.77/32")[1] in kernel
    assert b.routes()["fd00:244::1/128"] == ["p1"]
    cluster.local(A, "10.244.2.77/32", present=False)
    cluster.run(0.2)
    assert "10.244.2.77/32" not in b.routes()
    assert (IPV4_UNICAST, parse_prefix("10.244.2.77/32")[1]) not in b.kernel


def test_kill_and_restart_twice_changes_no_kernel_route() -> None:
    cluster = mesh([A, B, C])
    cluster.run(20)
    before = {address: dict(host.kernel) for address, host in cluster.hosts.items()}
    assert all(host.released for host in cluster.hosts.values())
    writes = {address: host.writes for address, host in cluster.hosts.items()}
    for _ in range(2):
        cluster.kill(B)
        cluster.run(1)
        cluster.add(B, cluster.hosts[B].settings)
        cluster.link(B, "10.0.0.0/24")
        cluster.link(B, "fd00::/64")
        cluster.start(B)
        cluster.run(1)
        assert {a: h.kernel for a, h in cluster.hosts.items()} == before
    cluster.run(30)
    assert {a: h.kernel for a, h in cluster.hosts.items()} == before
    assert cluster.hosts[B].released
    assert all(up(h) == 2 for h in cluster.hosts.values())
    assert {a: h.writes for a, h in cluster.hosts.items() if a != B} == {a: w for a, w in writes.items() if a != B}
    assert cluster.hosts[B].writes == 0


def test_what_is_not_repeated_after_a_restart_goes_with_end_of_rib() -> None:
    cluster = mesh([A, B])
    cluster.run(20)
    cluster.kill(B)
    cluster.run(1)
    cluster.add(B, evolve(cluster.hosts[B].settings, static_routes=(block(9),)))
    cluster.link(B, "10.0.0.0/24")
    cluster.start(B)
    cluster.run(20)
    assert sorted(cluster.hosts[A].routes()) == ["10.0.0.0/24", "10.244.1.0/26", "10.244.9.0/26", "fd00::/64"]


def test_path_ids_that_come_or_go_over_a_restart_cost_no_route() -> None:
    cluster = mesh([A, B])
    cluster.run(20)
    host = cluster.hosts[A]
    before, writes = dict(host.kernel), host.writes
    settings = cluster.hosts[B].settings
    plain = evolve(
        settings,
        peers=tuple(evolve(p, families=tuple(evolve(f, add_path=AddPath.OFF) for f in BOTH)) for p in settings.peers),
    )
    for changed in (plain, settings):
        adj = host.speaker.peers["p2"].importer.adj[IPV4_UNICAST]
        cluster.kill(B)
        cluster.run(1)
        cluster.add(B, changed)
        cluster.link(B, "10.0.0.0/24")
        cluster.link(B, "fd00::/64")
        for _ in range(200):
            if not cluster.hosts[B].speaker.started:
                cluster.start(B)
            cluster.run(0.1)
            assert host.kernel == before
        (path,) = adj.lookup(parse_prefix("10.244.2.0/26")[1])
        assert (path.path_id != 0) is adj.add_path is (changed is settings)
        assert not adj.stale()
    assert host.writes == writes


def test_a_restart_says_who_did_not_come_back() -> None:
    cluster = mesh([A, B, C])
    cluster.run(20)
    for address in (A, B):
        cluster.kill(address)
    cluster.run(1)
    cluster.add(A, cluster.hosts[A].settings)
    cluster.link(A, "10.0.0.0/24")
    cluster.start(A)
    cluster.run(30)
    said = [line for line in cluster.hosts[A].log if "restart phase" in line]
    assert said == ["the restart phase ends without p2"]
    assert not any("restart phase" in line for line in cluster.hosts[C].log)


def test_a_peer_that_never_returns_loses_its_routes_at_the_restart_time() -> None:
    cluster = mesh([A, B])
    cluster.run(20)
    cluster.kill(B)
    cluster.run(110)
    assert "10.244.2.0/26" in cluster.hosts[A].routes()
    cluster.run(15)
    assert "10.244.2.0/26" not in cluster.hosts[A].routes()
    assert (IPV4_UNICAST, parse_prefix("10.244.2.0/26")[1]) not in cluster.hosts[A].kernel


def test_reconfigure_blocks_filters_and_peers_without_a_reset() -> None:
    cluster = mesh([A, B, C])
    cluster.run(20)
    settings = cluster.hosts[A].settings
    cluster.reconfigure(A, evolve(settings, static_routes=(block(1), block(8))))
    cluster.run(0.2)
    assert "10.244.8.0/26" in cluster.hosts[B].routes()
    closed = tuple(FamilySettings(f.family, export_chain=()) for f in BOTH)
    peers = (evolve(settings.peers[0], families=closed), settings.peers[1])
    cluster.reconfigure(A, evolve(settings, static_routes=(block(1), block(8)), peers=peers))
    cluster.run(0.2)
    assert "10.244.8.0/26" not in cluster.hosts[B].routes()
    assert "10.244.8.0/26" in cluster.hosts[C].routes()
    cluster.reconfigure(A, evolve(settings, static_routes=(block(1), block(8))))
    cluster.run(0.2)
    assert cluster.hosts[B].routes()["10.244.8.0/26"] == ["p1"]
    refuse = tuple(evolve(f, import_chain=(Term("nothing", Verdict.REJECT),)) for f in BOTH)
    cluster.reconfigure(A, evolve(settings, peers=(evolve(settings.peers[0], families=refuse), settings.peers[1])))
    cluster.run(0.2)
    assert "10.244.2.0/26" not in cluster.hosts[A].routes()
    cluster.reconfigure(A, settings)
    cluster.run(0.2)
    assert "10.244.2.0/26" in cluster.hosts[A].routes()
    assert all(up(h) == 2 for h in cluster.hosts.values())
    assert all(p.session.statistics.flaps == 0 for h in cluster.hosts.values() for p in h.speaker.peers.values())
    cluster.reconfigure(A, evolve(settings, peers=settings.peers[1:]))
    cluster.run(1)
    assert "10.244.1.0/26" not in cluster.hosts[B].routes()
    assert up(cluster.hosts[A]) == 1
    cluster.reconfigure(A, settings)
    cluster.run(20)
    assert up(cluster.hosts[A]) == 2


def test_a_reflector_joins_clients_and_keeps_next_hops() -> None:
    cluster = Cluster()
    clients = tuple(peer(a, reflector_client=True) for a in (A, B))
    cluster.add(
        C,
        SpeakerSettings(
            64512, C, cluster_id="1.1.1.1", peers=clients, resolve_next_hops=False, fib=FibSettings(enabled=False)
        ),
    )
    for address in (A, B):
        cluster.add(address, node(address, [C]))
        cluster.link(address, "10.0.0.0/24")
    for address in (C, A, B):
        cluster.start(address)
    cluster.run(10)
    path = cluster.hosts[B].speaker.ribs[IPV4_UNICAST].table[parse_prefix("10.244.1.0/26")[1]]
    assert not isinstance(path, tuple)
    assert path.attrs.next_hop == bytes((10, 0, 0, 1))
    assert path.attrs.originator_id == bytes((10, 0, 0, 1))
    assert path.attrs.cluster_list == (bytes((1, 1, 1, 1)),)
    assert "10.244.2.0/26" in cluster.hosts[A].routes()
    assert cluster.hosts[A].routes()["10.244.1.0/26"] == ["static"]


def test_external_peers_get_own_next_hop_and_a_path() -> None:
    cluster = Cluster()
    cluster.add(A, node(A, [B]))
    tor = peer(A, asn=64512)
    cluster.add(B, SpeakerSettings(65001, B, peers=(tor,)))
    cluster.hosts[A].settings = evolve(cluster.hosts[A].settings, peers=(peer(B, asn=65001), peer(C)))
    cluster.add(A, cluster.hosts[A].settings)
    cluster.add(C, node(C, [A]))
    for address in (A, B, C):
        cluster.link(address, "10.0.0.0/24")
        cluster.start(address)
    cluster.run(10)
    table = cluster.hosts[B].speaker.ribs[IPV4_UNICAST].table
    for prefix in ("10.244.1.0/26", "10.244.3.0/26"):
        path = table[parse_prefix(prefix)[1]]
        assert not isinstance(path, tuple)
        assert path.attrs.as_path == ((2, (64512,)),)
        assert path.attrs.next_hop == bytes((10, 0, 0, 1))
        assert path.attrs.local_pref is None


def test_max_prefixes_ends_the_session_with_cease_1() -> None:
    limited = tuple(evolve(f, max_prefixes=2) for f in BOTH)
    cluster = Cluster()
    cluster.add(A, SpeakerSettings(64512, A, peers=(peer(B, families=limited),)))
    cluster.add(B, node(B, [A], static_routes=(block(1), block(2))))
    for address in (A, B):
        cluster.link(address, "10.0.0.0/24")
        cluster.start(address)
    cluster.run(5)
    assert up(cluster.hosts[A]) == 1
    assert any("2 ipv4 prefixes of 2 allowed" in line for line in cluster.hosts[A].log)
    cluster.reconfigure(B, evolve(cluster.hosts[B].settings, static_routes=(block(1), block(2), block(3))))
    cluster.run(0.5)
    assert up(cluster.hosts[A]) == 0
    assert any("maximum number of prefixes" in line for line in cluster.hosts[B].log)


def test_a_lost_next_hop_makes_paths_ineligible_until_it_is_back() -> None:
    cluster = mesh([A, B])
    cluster.run(5)
    host = cluster.hosts[A]
    place = (IPV4_UNICAST, parse_prefix("10.244.2.0/26")[1])
    cluster.run(10)
    assert place in host.kernel
    family, key = parse_prefix("10.0.0.0/24")
    from bgpd.policy.terms import SourceKind
    from bgpd.routes import LocalChange

    host.speaker.on_local([LocalChange(SourceKind.DIRECT, family, key, None)], cluster.now)
    cluster.run(1)
    cluster._settle(host)
    assert place not in host.kernel
    assert "10.244.2.0/26" in host.routes()
    cluster.link(A, "10.0.0.0/24")
    assert place in host.kernel


def test_a_defect_ends_its_session_with_cease_8_and_is_damped() -> None:
    cluster = mesh([A, B])
    cluster.run(5)
    host = cluster.hosts[A]
    conn = host.speaker.peers["p2"].session.conn
    assert conn is not None
    host.speaker.on_fault(conn, cluster.now)
    cluster._settle(host)
    cluster.run(0.5)
    assert up(host) == 0
    assert any("out of resources" in line for line in cluster.hosts[B].log)
    assert cluster.run(20, lambda: up(host) == 1)


@pytest.mark.parametrize("where", ["changes", "review"])
def test_a_defect_in_an_update_group_costs_its_members_alone(monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    cluster = mesh([A, B, C])
    host = cluster.hosts[A]
    changed = peer(C, next_hop_mode=NextHopMode.SELF)
    cluster.reconfigure(A, evolve(host.settings, peers=(peer(B), changed)))
    assert cluster.run(20, lambda: up(host) == 2)
    cluster.run(1)

    def broken(*arguments: object) -> None:
        raise ZeroDivisionError("a defect")

    with monkeypatch.context() as patch:
        if where == "review":
            patch.setattr(Review, "_look_at", broken)
            other = evolve(peer(B), families=(FamilySettings(IPV4_UNICAST), FamilySettings(IPV6_UNICAST)))
            host.speaker.reconfigure(evolve(host.settings, peers=(other, changed)), cluster.now)
        else:
            group, _ = host.speaker.peers["p2"].members[IPV4_UNICAST]
            patch.setattr(group, "apply", broken)
        family, key = parse_prefix("10.244.9.9/32")
        route = LocalRoute(family, key, SourceKind.KERNEL, (Hop(b"", 5),), 1024, "cali1", 80, "kernel route")
        host.speaker.on_local([LocalChange(SourceKind.KERNEL, family, key, route)], cluster.now)
        with pytest.raises(ZeroDivisionError):
            host.speaker.flush(cluster.now)
        cluster._settle(host)
    cluster.run(0.2)
    assert "10.244.9.9/32" in cluster.hosts[C].routes()
    assert host.speaker.peers["p3"].session.statistics.flaps == 0
    assert any("out of resources" in line for line in cluster.hosts[B].log)
    assert cluster.run(30, lambda: up(host) == 2 and "10.244.9.9/32" in cluster.hosts[B].routes())


def test_a_large_table_is_dropped_in_slices_and_what_comes_meanwhile_stays() -> None:
    count = 3 * SLICE
    routes = tuple(
        StaticRoute(IPV4_UNICAST, bytes((32, 10, 244)) + number.to_bytes(2, "big"), StaticKind.BLACKHOLE, "own")
        for number in range(count)
    )
    quick = peer(A, graceful_restart=False)
    cluster = Cluster()
    cluster.add(A, SpeakerSettings(64512, A, peers=(peer(B, graceful_restart=False),)))
    cluster.add(B, SpeakerSettings(64512, B, peers=(quick,), static_routes=routes))
    for address in (A, B):
        cluster.link(address, "10.0.0.0/24")
        cluster.start(address)
    host = cluster.hosts[A]
    assert cluster.run(20, lambda: len(host.speaker.ribs[IPV4_UNICAST]) == count + 1)
    speaker = host.speaker
    conn = speaker.peers["p2"].session.conn
    assert conn is not None
    cluster.kill(B)
    sizes = []
    for _ in range(10):
        sizes.append(len(speaker.ribs[IPV4_UNICAST]))
        speaker.flush(cluster.now)
    assert sizes[-1] == 1 and sizes == sorted(sizes, reverse=True)
    cluster.add(B, cluster.hosts[B].settings)
    cluster.link(B, "10.0.0.0/24")
    cluster.start(B)
    assert cluster.run(20, lambda: len(speaker.ribs[IPV4_UNICAST]) == count + 1)


def test_an_open_is_answered_when_our_dial_hangs() -> None:
    """A firewall lets the peer's SYN through and drops ours: the Speaker wakes up in time to answer."""
    peer = PeerSettings("b", "10.0.0.2", 64512)
    speaker = Speaker(
        SpeakerSettings(64512, "10.0.0.1", peers=(peer,), fib=FibSettings(enabled=False)), 0.0, lambda: 1.0
    )
    speaker.start(0.0)
    speaker.on_tick(now := speaker.deadline())
    assert any(isinstance(effect, Connect) for effect in speaker.take_effects())
    speaker.on_accepted(1, "10.0.0.2", "10.0.0.1", now)
    graceful = GracefulRestartCapability(False, True, 120, ())
    capabilities = (FourOctetAs(64512), MultiProtocol(IPV4_UNICAST), graceful)
    speaker.on_data(1, build_open(Open(64512, 90, bytes((10, 0, 0, 2)), capabilities)) + KEEPALIVE, now)
    assert speaker.peers["b"].session.conn is None
    assert speaker.deadline() <= now + DIAL_WAIT
    speaker.on_tick(speaker.deadline())
    assert speaker.peers["b"].session.conn == 1


def test_a_session_that_comes_up_and_ends_in_one_read() -> None:
    cluster = mesh([A, B])
    cluster.run(3)
    host, speaker = cluster.hosts[A], cluster.hosts[A].speaker
    conn = speaker.peers["p2"].session.conn
    assert conn is not None
    cluster.kill(B, silent=True)
    speaker.on_lost(conn, "gone", cluster.now)
    assert speaker.on_accepted(9001, B, A, cluster.now)
    cluster.pipes[A, 9001] = (B, 9001)
    cluster._settle(host)
    other = Open(64512, 90, bytes((10, 0, 0, 2)), (FourOctetAs(64512), MultiProtocol(IPV4_UNICAST)))
    speaker.on_data(9001, build_open(other), cluster.now)
    speaker.on_data(9001, KEEPALIVE + b"\0" * 19, cluster.now)
    cluster._settle(host)
    assert up(host) == 0
    assert any("1/1" in line for line in host.log), host.log


def test_a_keepalive_asks_for_nothing() -> None:
    """With hundreds of idle sessions its cost is all there is."""
    cluster = mesh([A, B])
    cluster.run(3)
    speaker = cluster.hosts[A].speaker
    conn = speaker.peers["p2"].session.conn
    assert conn is not None
    due = speaker.deadline()
    assert not speaker.on_data(conn, KEEPALIVE, cluster.now)
    assert not speaker.on_data(conn, KEEPALIVE[:7], cluster.now)
    assert not speaker.on_data(conn, KEEPALIVE[7:], cluster.now)
    assert speaker.deadline() == due and not speaker.take_effects()
    assert speaker.on_data(conn, build_end_of_rib(IPV4_UNICAST), cluster.now)
    assert not speaker.on_data(999, KEEPALIVE, cluster.now), "a connection that is nobody's"


def test_a_defect_in_one_timer_costs_no_other_session_its_keepalives(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sessions share their moments, and so must not share a defect."""
    settings = node(A, [B, C])
    speaker = Speaker(evolve(settings, fib=FibSettings(enabled=False)), 0.0, lambda: 1.0)
    speaker.start(0.0)
    for conn, (address, name) in enumerate(((B, "p2"), (C, "p3")), 1):
        assert speaker.on_accepted(conn, address, A, 1.0)
        capabilities = (FourOctetAs(64512), MultiProtocol(IPV4_UNICAST))
        router_id = bytes((10, 0, 0, conn + 1))
        speaker.on_data(conn, build_open(Open(64512, 90, router_id, capabilities)) + KEEPALIVE, 1.0)
        assert speaker.peers[name].session.state is State.ESTABLISHED
    while speaker.deadline() < 20.0:
        speaker.on_tick(speaker.deadline())  # what was due before the sessions were up
    speaker.take_effects()

    def broken(now: float) -> None:
        raise RuntimeError("a defect")

    for name, other in (("p2", 2), ("p3", 1)):
        with monkeypatch.context() as patch:
            patch.setattr(speaker.peers[name].session, "tick", broken)
            now = speaker.deadline()
            with pytest.raises(RuntimeError):
                speaker.on_tick(now)
            with pytest.raises(RuntimeError):
                speaker.on_tick(now)
            sent = [effect.conn for effect in speaker.take_effects() if isinstance(effect, Send)]
            assert sent == [other] and speaker.deadline() <= now
        speaker.on_tick(now)
        assert [effect.conn for effect in speaker.take_effects() if isinstance(effect, Send)] == [3 - other]
        assert now < speaker.deadline() <= now + 31


def test_updates_sent_are_counted_over_all_sessions() -> None:
    cluster = mesh([A, B])
    cluster.run(5)
    sender = cluster.hosts[A].speaker.peers["p2"]
    told = cluster.hosts[B].speaker.peers["p1"].session.statistics.received[MessageType.UPDATE]
    assert sender.updates_sent == told > 0
    cluster.kill(B)
    assert sender.updates_sent == told


def test_two_peers_change_places() -> None:
    cluster = mesh([A, B, C])
    cluster.run(5)
    host = cluster.hosts[A]
    two, three = host.settings.peers
    swapped = (evolve(two, address=three.address), evolve(three, address=two.address))
    cluster.reconfigure(A, evolve(host.settings, peers=swapped))
    assert [host.speaker.directory.at(address).settings.name for address in (B, C)] == ["p3", "p2"]  # type: ignore[union-attr]
    assert cluster.run(30, lambda: up(host) == 2)


def test_a_session_is_held_down_and_let_go() -> None:
    cluster = mesh([A, B])
    cluster.run(5)
    host = cluster.hosts[A]
    open_settings = host.settings
    held = evolve(open_settings, peers=(peer(B, disabled="Secret s is not there"),))
    cluster.reconfigure(A, held)
    assert up(host) == 0 and not host.speaker.knows(B) and host.speaker.directory.at(B) is None
    assert not cluster.run(30, lambda: up(host) == 1)
    assert host.speaker.peers["p2"].session.state is State.IDLE
    assert host.speaker.on_accepted(7001, B, A, cluster.now) is False
    # The peer knows that this is no restart (Cease/2, RFC 8538 makes it a hard reset), and why.
    assert "10.244.1.0/26" not in cluster.hosts[B].routes()
    assert any("Secret s is not there" in line for line in cluster.hosts[B].log)
    cluster.reconfigure(A, evolve(open_settings, peers=(peer(B, disabled="another reason"),)))
    assert host.speaker.peers["p2"].settings.disabled == "another reason"
    cluster.reconfigure(A, open_settings)
    assert cluster.run(30, lambda: up(host) == 1)


def test_a_restart_does_not_wait_for_a_session_that_is_held_down() -> None:
    cluster = Cluster()
    for address, others in ((A, [B, C]), (B, [A])):
        cluster.add(address, node(address, others))
    settings = cluster.hosts[A].settings
    cluster.add(A, evolve(settings, peers=(settings.peers[0], evolve(settings.peers[1], disabled="no password"))))
    for address in (A, B):
        cluster.link(address, "10.0.0.0/24")
        cluster.start(address)
    assert cluster.run(5, lambda: cluster.hosts[A].released)
    assert up(cluster.hosts[A]) == 1


def test_a_dynamic_range_is_no_way_around_a_session_that_is_held_down() -> None:
    template = evolve(peer(B, passive=True), name="any", address="0.0.0.0")
    settings = SpeakerSettings(64512, A, peers=(peer(B, disabled="no password"),), dynamic=(("10.0.0.0/24", template),))
    cluster = Cluster()
    speaker = cluster.add(A, settings).speaker
    cluster.start(A)
    assert not speaker.knows(B) and speaker.knows(C)
    assert not speaker.on_accepted(1, B, A, cluster.now) and speaker.on_accepted(2, C, A, cluster.now)


def test_two_ports_of_one_address_are_two_peers() -> None:
    cluster = mesh([A, B])
    host = cluster.hosts[A]
    cluster.reconfigure(A, evolve(host.settings, peers=(peer(B), peer(B, name="q2", port=1790, passive=True))))
    assert cluster.run(20, lambda: up(host) == 1)
    first, second = (host.speaker.peers[name] for name in ("p2", "q2"))
    assert first.session.state is State.ESTABLISHED
    # A further connection from the address is for the one that has no session yet.
    assert host.speaker.directory.at(B) is second
    assert host.speaker.on_accepted(7002, B, A, cluster.now)
    assert second.session.state is State.OPEN_SENT and first.session.state is State.ESTABLISHED
    cluster.reconfigure(A, evolve(host.settings, peers=(peer(B, name="q2", port=1790, passive=True),)))
    assert "p2" not in host.speaker.peers and host.speaker.knows(B)


def test_another_password_needs_no_reset() -> None:
    cluster = mesh([A, B])
    host = cluster.hosts[A]
    cluster.reconfigure(A, evolve(host.settings, peers=(peer(B, password="one"),)))
    cluster.run(20)
    conn = host.speaker.peers["p2"].session.conn
    assert conn is not None
    host.speaker.reconfigure(evolve(host.settings, peers=(peer(B, password="two"),)), cluster.now)
    effects = host.speaker.take_effects()
    (rekey,) = (effect for effect in effects if isinstance(effect, Rekey))
    assert (rekey.conn, rekey.address, rekey.password) == (conn, B, "two") and "two" not in repr(rekey)
    # A KEEPALIVE under the new key finds out about a peer that has closed its end.
    (sent,) = (effect for effect in effects if isinstance(effect, Send))
    assert effects.index(rekey) < effects.index(sent) and sent.data == KEEPALIVE
    assert host.speaker.peers["p2"].session.conn == conn


@pytest.mark.parametrize("gateway", ["10.0.1.9", "10.0.1.1"])
def test_the_host_route_of_a_peer_goes_with_the_subnet_of_its_gateway(gateway: str) -> None:
    """Also where the gateway is the peer itself: such a route must not resolve through itself."""
    family, key = parse_prefix("10.0.1.9/32")
    static = StaticRoute(family, key, StaticKind.GATEWAY, "reachableBy", parse_address(gateway))
    cluster = Cluster()
    host = cluster.add(A, node(A, [], static_routes=(static,)))
    cluster.link(A, "10.0.1.0/24")
    cluster.start(A)
    cluster.run(1)
    hop = Hop(parse_address(gateway), 2, False)
    assert host.kernel[family, key] == FibRoute(RouteKind.UNICAST, (hop,), 0)
    assert host.speaker.shared.next_hops.get(parse_address("10.0.1.9")).hops == (hop,)
    cluster.link(A, "10.0.1.0/24", present=False)
    cluster.run(1)
    assert (family, key) not in host.kernel
    assert not host.speaker.shared.next_hops.get(parse_address("10.0.1.9")).reachable
    cluster.link(A, "10.0.1.0/24")
    cluster.run(1)
    assert host.kernel[family, key] == FibRoute(RouteKind.UNICAST, (hop,), 0)
