"""Graceful restart (RFC 4724): the peer as helper when we are killed, we as helper when the peer is."""

from __future__ import annotations

import time

import pytest

from tests.interop.common import BOTH_SESSIONS, STATICS, our_peer, our_settings, ours_as_seen, peer_config, session
from tests.interop.conftest import OURS4, OURS6, PEER4, PEER6, Pair
from tests.interop.model import IPV4, IPV6, Announcement, family_name
from tests.interop.namespace import wait_until
from tests.interop.peers import ALL, TRAITS, Bird, Daemon, Frr, GoBgp, expected, need

HELPERS = [kind for kind in ALL if TRAITS[kind].keeps_table]
RESTARTERS = [Bird, Frr, GoBgp]
"""OpenBGPD is a helper only (its OPEN says restart time 0). ExaBGP, started again on a busy machine, has been seen to
send End-of-RIB and then nothing for a minute."""


@pytest.mark.parametrize("kind", HELPERS, ids=lambda kind: kind.name)
def test_peer_keeps_our_routes_while_we_restart(pair: Pair, kind: type[Daemon]) -> None:
    need(kind)
    daemon = pair.daemon(kind, peer_config(*(session(family, graceful=60) for family in BOTH_SESSIONS)))
    ours = pair.speaker(our_settings(*map(our_peer, BOTH_SESSIONS)))
    daemon.start()
    ours.start()
    ours.wait_established(PEER4, PEER6)
    for family, address in ((IPV4, OURS4), (IPV6, OURS6)):
        daemon.wait_table(address, ours_as_seen(kind, STATICS, family))
    ours.kill()
    end = time.monotonic() + 2.0
    while time.monotonic() < end:
        for family, address in ((IPV4, OURS4), (IPV6, OURS6)):
            assert len(daemon.routes(address)) == len(ours_as_seen(kind, STATICS, family)), "the helper dropped routes"
        time.sleep(0.1)
    # One route less after the restart: what we do not repeat goes with our End-of-RIB.
    ours.settings = our_settings(*map(our_peer, BOTH_SESSIONS), statics=STATICS[1:])
    ours.start()
    ours.wait_established(PEER4, PEER6)
    for family, address in ((IPV4, OURS4), (IPV6, OURS6)):
        daemon.wait_table(address, ours_as_seen(kind, STATICS[1:], family))


@pytest.mark.parametrize("kind", RESTARTERS, ids=lambda kind: kind.name)
def test_we_keep_their_routes_while_they_restart(pair: Pair, kind: type[Daemon]) -> None:
    need(kind)
    items = (Announcement("10.2.0.0/24"), Announcement("10.2.1.0/24"), Announcement("fd02::/64"))
    specs = {family: session(family, graceful=60) for family in BOTH_SESSIONS}
    daemon = pair.daemon(kind, peer_config(*specs.values(), announcements=items))
    ours = pair.speaker(our_settings(*map(our_peer, BOTH_SESSIONS)))
    daemon.start()
    ours.start()
    ours.wait_established(PEER4, PEER6)

    def wanted(family: str) -> list[object]:
        return [
            expected(kind, daemon.config, specs[family], item)
            for item in daemon.config.announcements
            if family_name(item.prefix) == family
        ]

    for family, address in ((IPV4, PEER4), (IPV6, PEER6)):
        ours.wait_received(address, wanted(family))  # type: ignore[arg-type]
    daemon.kill()
    wait_until(lambda: not (ours.established(PEER4) or ours.established(PEER6)), 10, "both losses are seen")
    stale = [item for item in ours.paths() if item["source"]["address"] in (PEER4, PEER6)]
    assert len(stale) == 3, ours.output()
    assert all(item["stale"] for item in stale)
    # It comes back without one of them: stale until its End-of-RIB, then gone.
    daemon.config = daemon.config.withdraw("10.2.1.0/24")
    if isinstance(daemon, Bird):
        daemon.start(recover=True)
    elif isinstance(daemon, GoBgp):
        daemon.start(restarting=True)
    else:
        daemon.start()
    ours.wait_established(PEER4, PEER6, seconds=60)
    for family, address in ((IPV4, PEER4), (IPV6, PEER6)):
        ours.wait_received(address, wanted(family), seconds=60)  # type: ignore[arg-type]
    wait_until(lambda: not any(item["stale"] for item in ours.paths()), 30, "nothing is stale any more")


@pytest.mark.parametrize("kind", [Bird, Frr], ids=lambda kind: kind.name)
def test_stale_routes_go_when_the_restart_time_is_over(pair: Pair, kind: type[Daemon]) -> None:
    need(kind)
    spec = session(IPV4, graceful=4)
    daemon = pair.daemon(kind, peer_config(spec, announcements=(Announcement("10.2.0.0/24"),)))
    ours = pair.speaker(our_settings(our_peer(IPV4)))
    daemon.start()
    ours.start()
    ours.wait_established(PEER4)
    wait_until(lambda: len(ours.received(PEER4)) == 1, 15, "the route is here")
    daemon.kill()
    wait_until(lambda: not ours.established(PEER4), 10, "the loss is seen")
    assert len(ours.received(PEER4)) == 1
    took = wait_until(lambda: not ours.received(PEER4), 10, "the stale route goes")
    assert took > 1.0


@pytest.mark.parametrize("kind", [Bird, Frr], ids=lambda kind: kind.name)
def test_a_planned_end_of_theirs_withdraws_at_once(pair: Pair, kind: type[Daemon]) -> None:
    need(kind)
    daemon = pair.daemon(kind, peer_config(session(IPV4), announcements=(Announcement("10.2.0.0/24"),)))
    ours = pair.speaker(our_settings(our_peer(IPV4)))
    daemon.start()
    ours.start()
    ours.wait_established(PEER4)
    wait_until(lambda: len(ours.received(PEER4)) == 1, 15, "the route is here")
    daemon.shutdown(OURS4)
    wait_until(lambda: not ours.received(PEER4), 10, "the route goes")
