"""Sessions with every daemon, one per family as Calico has them: tables route by route, changes, refresh, farewell."""

from __future__ import annotations

import pytest
from attrs import evolve

from tests.interop.common import (
    BOTH_SESSIONS,
    STATICS,
    our_peer,
    our_settings,
    ours_as_seen,
    peer_config,
    session,
    theirs,
)
from tests.interop.conftest import OURS4, OURS6, PEER4, PEER6, Pair
from tests.interop.model import IPV4, Announcement, SessionSpec, family_name
from tests.interop.namespace import wait_until
from tests.interop.ours import Speaker
from tests.interop.peers import ALL, TRAITS, Bird, Daemon, ExaBgp, Frr, expected, need

REMOTE = {IPV4: (OURS4, PEER4), "ipv6": (OURS6, PEER6)}


def check_both(kind: type[Daemon], ours: Speaker, daemon: Daemon, statics: tuple[str, ...] = STATICS) -> None:
    """Both tables of both sessions are exactly what the other side announces."""
    for family in BOTH_SESSIONS:
        our_address, peer_address = REMOTE[family]
        spec = daemon.config.session(our_address)
        wanted = [
            expected(kind, daemon.config, spec, item)
            for item in daemon.config.announcements
            if family_name(item.prefix) == family
        ]
        ours.wait_received(peer_address, wanted)
        daemon.wait_table(our_address, ours_as_seen(kind, statics, family))


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.name)
def test_tables_route_by_route(pair: Pair, kind: type[Daemon]) -> None:
    need(kind)
    daemon = pair.daemon(kind, peer_config(*map(session, BOTH_SESSIONS), announcements=theirs(kind)))
    ours = pair.speaker(our_settings(*map(our_peer, BOTH_SESSIONS)))
    daemon.start()
    ours.start()
    ours.wait_established(PEER4, PEER6)
    daemon.wait_established(OURS4, OURS6)
    check_both(kind, ours, daemon)

    # Changes and withdrawals of theirs.
    more = (Announcement("10.2.9.0/24", med=1), Announcement("fd02:9::/64"), Announcement("10.2.1.0/25", med=3))
    daemon.reconfigure(daemon.config.announce(*more).withdraw("10.2.2.4/32", "fd02::/64"))
    check_both(kind, ours, daemon)

    # Changes and withdrawals of ours.
    statics = ("10.1.0.0/24", "10.1.77.0/24", "fd01:77::/64")
    ours.reconfigure(our_settings(*map(our_peer, BOTH_SESSIONS), statics=statics))
    check_both(kind, ours, daemon, statics)

    # Route refresh asked by them: the same table again, no session lost.
    before = {address: peer["messages_in"]["refresh"] for address, peer in ours.peers().items()}
    for address in (OURS4, OURS6):
        daemon.refresh(address)

    def asked() -> bool:
        now = {address: peer["messages_in"]["refresh"] for address, peer in ours.peers().items()}
        return all(now[address] > before[address] for address in (PEER4, PEER6))

    if TRAITS[kind].asks_refresh:
        wait_until(asked, 10, "route refresh requests arrive")
    check_both(kind, ours, daemon, statics)
    assert [peer["flaps"] for peer in ours.peers().values()] == [0, 0], ours.output()


@pytest.mark.parametrize("kind", [Bird, Frr, ExaBgp], ids=lambda kind: kind.name)
def test_both_families_on_one_session(pair: Pair, kind: type[Daemon]) -> None:
    need(kind)
    spec = evolve(session(IPV4), families=BOTH_SESSIONS)
    # IPv6 next hops are named where the transport is IPv4, on our side and on ExaBGP's.
    items = tuple(
        evolve(item, next_hop=PEER6) if kind is ExaBgp and family_name(item.prefix) == "ipv6" else item
        for item in theirs(kind)
    )
    daemon = pair.daemon(kind, peer_config(spec, announcements=items))
    ours = pair.speaker(our_settings(our_peer(IPV4, families=["ipv4", "ipv6"], own_addresses={"ipv6": OURS6})))
    daemon.start()
    ours.start()
    ours.wait_established(PEER4)
    wanted = [expected(kind, daemon.config, spec, evolve(i, next_hop=_hop(i))) for i in items]
    ours.wait_received(PEER4, wanted)
    seen = [route for family in BOTH_SESSIONS for route in ours_as_seen(kind, STATICS, family)]
    daemon.wait_table(OURS4, seen)


def _hop(item: Announcement) -> str:
    return PEER4 if family_name(item.prefix) == IPV4 else PEER6


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.name)
def test_shutdown_text(pair: Pair, kind: type[Daemon]) -> None:
    need(kind)
    daemon = pair.daemon(kind, peer_config(session(IPV4)))
    ours = pair.speaker(our_settings(our_peer(IPV4)))
    daemon.start()
    ours.start()
    ours.wait_established(PEER4)
    daemon.wait_established(OURS4)
    daemon.shutdown(OURS4, "maintenance until 04:00" if TRAITS[kind].shutdown_text else "")

    def error() -> str:
        return ours.peers()[PEER4]["last_error"] or ""

    wait_until(lambda: "6/2" in error(), 10, "their Cease is told")  # some are back at once
    if TRAITS[kind].shutdown_text:
        assert "maintenance until 04:00" in error(), error()


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.name)
def test_ten_thousand_routes_each_way(pair: Pair, kind: type[Daemon]) -> None:
    need(kind)
    count = 10_000
    items = tuple(Announcement(f"10.{32 + (n >> 8)}.{n & 255}.0/24") for n in range(count))
    statics = tuple(f"10.{96 + (n >> 8)}.{n & 255}.0/24" for n in range(count))
    spec: SessionSpec = session(IPV4)
    daemon = pair.daemon(kind, peer_config(spec, announcements=items))
    ours = pair.speaker(our_settings(our_peer(IPV4), statics=statics))
    daemon.start()
    ours.start()
    ours.wait_established(PEER4)
    ours.wait_received(PEER4, [expected(kind, daemon.config, spec, item) for item in items], seconds=90)
    daemon.wait_table(OURS4, ours_as_seen(kind, statics, IPV4), seconds=90)
