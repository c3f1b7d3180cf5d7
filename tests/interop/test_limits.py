"""Prefix limits (RFC 4486) on either side."""

from __future__ import annotations

import pytest

from tests.interop.common import our_peer, our_settings, peer_config, session
from tests.interop.conftest import PEER4, Pair
from tests.interop.model import IPV4, Announcement
from tests.interop.namespace import wait_until
from tests.interop.peers import ALL, TRAITS, Daemon, need

LIMITED = [kind for kind in ALL if TRAITS[kind].limits_prefixes]


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.name)
def test_our_limit(pair: Pair, kind: type[Daemon]) -> None:
    need(kind)
    items = tuple(Announcement(f"10.2.{n}.0/24") for n in range(3))
    daemon = pair.daemon(kind, peer_config(session(IPV4), announcements=items))
    family = {"family": "ipv4", "max_prefixes": 3}
    # FRR sends our own routes back to us, and they would count.
    ours = pair.speaker(our_settings(our_peer(IPV4, families=[family]), statics=()))
    daemon.start()
    ours.start()
    ours.wait_established(PEER4)
    wait_until(lambda: len(ours.received(PEER4)) == 3, 15, "as many as the limit allows")
    daemon.reconfigure(daemon.config.announce(Announcement("10.2.9.0/24")))
    wait_until(lambda: ours.logged("6/1"), 15, "one more ends the session with 6/1")


@pytest.mark.parametrize("kind", LIMITED, ids=lambda kind: kind.name)
def test_their_limit(pair: Pair, kind: type[Daemon]) -> None:
    need(kind)
    daemon = pair.daemon(kind, peer_config(session(IPV4, max_prefixes=2)))
    ours = pair.speaker(our_settings(our_peer(IPV4), statics=tuple(f"10.1.{n}.0/24" for n in range(6))))
    daemon.start()
    ours.start()
    wait_until(lambda: ours.logged("the peer sent NOTIFICATION 6/1"), 20, "their 6/1 is told")
    # Fewer routes: it comes back by itself.
    ours.reconfigure(our_settings(our_peer(IPV4), statics=("10.1.0.0/24",)))
    if kind.name in ("bird", "openbgpd"):
        ours.wait_established(PEER4, seconds=60)
