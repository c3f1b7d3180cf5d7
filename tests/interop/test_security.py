"""TCP-MD5 (RFC 2385) and GTSM (RFC 5082) with every daemon that has them."""

from __future__ import annotations

import time

import pytest
from attrs import evolve

from tests.interop.common import BOTH_SESSIONS, our_peer, our_settings, peer_config, session
from tests.interop.conftest import OURS4, OURS6, PEER4, PEER6, Pair
from tests.interop.model import IPV4, IPV6
from tests.interop.namespace import wait_until
from tests.interop.peers import ALL, TRAITS, Daemon, OpenBgpd, need


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.name)
def test_md5_right_wrong_and_changed_live(pair: Pair, kind: type[Daemon]) -> None:
    need(kind)
    config = peer_config(session(IPV4, password="first"), session(IPV6, password="other"))
    daemon = pair.daemon(kind, config)
    ours = pair.speaker(our_settings(our_peer(IPV4, password="wrong"), our_peer(IPV6, password="other")))
    daemon.start()
    ours.start()
    ours.wait_established(PEER6)
    time.sleep(2.0)  # several dials of both sides: none may get through with the wrong key
    assert not ours.established(PEER4)

    # The right key brings it up, and the other session does not notice.
    ours.change_peer("peer-ipv4", password="first")
    ours.wait_established(PEER4, seconds=40)
    assert ours.peers()[PEER6]["flaps"] == 0

    # A key changed on our side alone ends the session; changed on theirs too, it comes back. The other stays up.
    ours.change_peer("peer-ipv4", password="second")
    wait_until(lambda: not ours.established(PEER4), 10, "the session with the changed key ends")
    if TRAITS[kind].changes_sessions:
        daemon.reconfigure(evolve(config, sessions=(session(IPV4, password="second"), config.sessions[1])))
        ours.wait_established(PEER4, seconds=60)
    peers = ours.peers()
    assert peers[PEER6]["flaps"] == 0
    assert peers[PEER6]["state"] == "Established"


# OpenBGPD on Linux takes unsigned connections from a neighbour that it has a key for.
@pytest.mark.parametrize("kind", [kind for kind in ALL if kind is not OpenBgpd], ids=lambda kind: kind.name)
def test_md5_key_on_their_side_only(pair: Pair, kind: type[Daemon]) -> None:
    need(kind)
    daemon = pair.daemon(kind, peer_config(session(IPV4, password="secret"), session(IPV6)))
    ours = pair.speaker(our_settings(*map(our_peer, BOTH_SESSIONS)))
    daemon.start()
    ours.start()
    ours.wait_established(PEER6)
    time.sleep(1.5)
    assert not ours.established(PEER4)
    assert "secret" not in ours.output()


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.name)
def test_gtsm(pair: Pair, kind: type[Daemon]) -> None:
    need(kind)
    daemon = pair.daemon(kind, peer_config(*(session(family, ttl_security=True) for family in BOTH_SESSIONS)))
    ours = pair.speaker(our_settings(*(our_peer(family, ttl_security_hops=1) for family in BOTH_SESSIONS)))
    daemon.start()
    ours.start()
    ours.wait_established(PEER4, PEER6)
    daemon.wait_established(OURS4, OURS6)


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.name)
def test_gtsm_on_our_side_only_refuses_ordinary_packets(pair: Pair, kind: type[Daemon]) -> None:
    need(kind)
    daemon = pair.daemon(kind, peer_config(session(IPV4), session(IPV6)))
    # eBGP daemons send TTL 1 or 64 by default: below 255, so nothing of theirs may reach us.
    ours = pair.speaker(our_settings(our_peer(IPV4, ttl_security_hops=1), our_peer(IPV6)))
    daemon.start()
    ours.start()
    ours.wait_established(PEER6, seconds=40)
    time.sleep(1.5)
    peer = ours.peers()[PEER4]
    assert peer["state"] != "Established"
    assert sum(peer["messages_in"].values()) == 0
