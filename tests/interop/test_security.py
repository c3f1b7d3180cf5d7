"""TCP-MD5 (RFC 2385) and GTSM (RFC 5082) with every daemon that has them."""

from __future__ import annotations

import time
from functools import partial

import pytest
from attrs import evolve

from tests.interop.common import BOTH_SESSIONS, OUR_AS, PEER_AS, our_peer, our_settings, peer_config, session
from tests.interop.conftest import OURS4, OURS6, PEER4, PEER6, Pair
from tests.interop.model import IPV4, IPV6
from tests.interop.namespace import wait_until
from tests.interop.ours import Speaker
from tests.interop.peers import ALL, TRAITS, Bird, Daemon, Frr, OpenBgpd, need


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.name)
def test_md5_right_wrong_and_changed_live(pair: Pair, kind: type[Daemon]) -> None:
    need(kind)
    config = peer_config(session(IPV4, password="first"), session(IPV6, password="other"))
    daemon = pair.daemon(kind, config)
    short = our_peer(IPV4, password="wrong", hold_time=6)
    ours = pair.speaker(our_settings(short, our_peer(IPV6, password="other")))
    daemon.start()
    ours.start()
    ours.wait_established(PEER6)
    time.sleep(2.0)  # several dials of both sides: none may get through with the wrong key
    assert not ours.established(PEER4)

    # The right key brings it up, and the other session does not notice.
    ours.change_peer("peer-ipv4", password="first")
    ours.wait_established(PEER4, seconds=40)
    assert ours.peers()[PEER6]["flaps"] == 0

    # A key changed on our side alone is on the connection at once: nothing of theirs gets through, and the hold timer
    # ends the session. With the same key on both sides it comes back. The other stays up.
    ours.change_peer("peer-ipv4", password="second")
    wait_until(lambda: not ours.established(PEER4), 40, "the hold timer ends the session with two keys")
    if TRAITS[kind].changes_sessions:
        daemon.reconfigure(evolve(config, sessions=(session(IPV4, password="second"), config.sessions[1])))
    else:
        ours.change_peer("peer-ipv4", password="first")
    ours.wait_established(PEER4, seconds=60)
    peers = ours.peers()
    assert peers[PEER6]["flaps"] == 0
    assert peers[PEER6]["state"] == "Established"


@pytest.mark.parametrize("kind", [Bird, Frr], ids=lambda kind: kind.name)
def test_md5_peer_that_resets_for_a_key_is_back_before_the_hold_time(pair: Pair, kind: type[Daemon]) -> None:
    """Its Cease bears the old key, which we take no more; its kernel's RST to what we repeat bears the new one."""
    need(kind)
    config = peer_config(session(IPV4, password="first"), session(IPV6))
    daemon = pair.daemon(kind, config)
    ours = pair.speaker(our_settings(our_peer(IPV4, password="first", hold_time=3600), our_peer(IPV6)))
    daemon.start()
    ours.start()
    ours.wait_established(PEER4, PEER6)
    before = ours.peers()[PEER4]["flaps"]
    ours.change_peer("peer-ipv4", password="second")
    daemon.reconfigure(evolve(config, sessions=(session(IPV4, password="second"), config.sessions[1])))
    wait_until(lambda: ours.peers()[PEER4]["flaps"] > before, 60, "the session ends with the peer's")
    ours.wait_established(PEER4, seconds=60)
    assert ours.peers()[PEER6]["flaps"] == 0


def test_md5_changed_on_both_sides_keeps_the_session(pair: Pair) -> None:
    """Two of ours, the second change well within the hold time: neither session nor route is lost."""
    ours = pair.speaker(our_settings(our_peer(IPV4, password="first", keepalive_time=1)))
    back = {**our_peer(IPV4, OUR_AS, password="first", keepalive_time=1), "address": OURS4}
    theirs = Speaker(pair.peer, pair.directory / "theirs", our_settings(back, asn=PEER_AS, router_id=PEER4))
    pair.speakers.append(theirs)
    for speaker in (ours, theirs):
        speaker.start()
    ours.wait_established(PEER4)
    theirs.wait_established(OURS4)

    def heard() -> list[int]:
        return [ours.peers()[PEER4]["messages_in"]["keepalive"], theirs.peers()[OURS4]["messages_in"]["keepalive"]]

    def more(than: list[int]) -> bool:
        return all(now > then + 1 for now, then in zip(heard(), than, strict=True))

    for first, second, key in ((ours, theirs, "second"), (theirs, ours, "third")):
        first.change_peer("peer-ipv4", password=key)
        time.sleep(1.5)
        silent = heard()
        time.sleep(1.5)
        assert heard() == silent, "with two keys nothing gets through"
        second.change_peer("peer-ipv4", password=key)
        wait_until(partial(more, silent), 40, "both hear again")
    assert [ours.peers()[PEER4]["flaps"], theirs.peers()[OURS4]["flaps"]] == [0, 0]


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
