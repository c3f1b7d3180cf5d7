"""ADD-PATH (RFC 7911) with every daemon: all paths of a prefix, in both directions."""

from __future__ import annotations

import pytest
from attrs import evolve

from tests.interop.common import OUR_AS, PEER_AS, our_peer, our_settings, peer_config, session
from tests.interop.conftest import EXTRA4, OURS4, PEER4, Pair
from tests.interop.model import IPV4, SessionSpec
from tests.interop.namespace import wait_until
from tests.interop.peers import ALL, Daemon, ExaBgp, need
from tests.interop.scripted import OpenOptions
from tests.interop.speakers import announce, dial

PREFIX = "10.5.0.0/24"


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.name)
def test_all_our_paths_reach_them(pair: Pair, kind: type[Daemon]) -> None:
    need(kind)
    feeders = [
        {"name": f"feeder-{n}", "address": EXTRA4[n], "asn": 65011 + n, "passive": True, "families": ["ipv4"]}
        for n in (0, 1)
    ]
    ours = pair.speaker(our_settings(our_peer(IPV4), *feeders, statics=()))
    daemon = pair.daemon(kind, peer_config(session(IPV4, add_path=True)))
    daemon.start()
    ours.start()
    ours.wait_established(PEER4)
    speakers = []
    for number in (0, 1):
        options = OpenOptions(65011 + number, EXTRA4[number], families=((1, 1),))
        speaker = dial(pair.peer, EXTRA4[number], OURS4, options)
        speaker.send(announce([PREFIX], EXTRA4[number], (65011 + number, 65100)))
        speakers.append(speaker)

    def paths() -> list[str]:
        return sorted(item.as_path for item in daemon.routes(OURS4) if item.prefix == PREFIX)

    both = [f"{OUR_AS} 65011 65100", f"{OUR_AS} 65012 65100"]
    wait_until(lambda: paths() == both, 20, "both paths at the peer")
    speakers[0].close()
    wait_until(lambda: paths() == both[1:], 20, "the path of the lost feeder goes")
    speakers[1].close()


@pytest.mark.parametrize("kind", [kind for kind in ALL if kind is not ExaBgp], ids=lambda kind: kind.name)
def test_all_their_paths_reach_us(pair: Pair, kind: type[Daemon]) -> None:
    need(kind)
    feeders = [
        evolve(SessionSpec(PEER4, EXTRA4[n], 65011 + n, families=("ipv4",)), passive=True, local=PEER4) for n in (2, 3)
    ]
    ours = pair.speaker(our_settings(our_peer(IPV4), statics=()))
    config = peer_config(session(IPV4, add_path=True), *feeders)
    daemon = pair.daemon(kind, config)
    daemon.transit = True
    daemon.start()
    ours.start()
    ours.wait_established(PEER4)
    speakers = []
    for number in (2, 3):
        options = OpenOptions(65011 + number, EXTRA4[number], families=((1, 1),))
        speaker = dial(pair.ours, EXTRA4[number], PEER4, options)
        speaker.send(announce([PREFIX], EXTRA4[number], (65011 + number, 65100)))
        speakers.append(speaker)

    def paths() -> list[str]:
        return sorted(item.as_path for item in ours.received(PEER4) if item.prefix == PREFIX)

    both = [f"{PEER_AS} 65013 65100", f"{PEER_AS} 65014 65100"]
    wait_until(lambda: paths() == both, 30, "both paths here")
    speakers[0].close()
    wait_until(lambda: paths() == both[1:], 20, "the path of the lost feeder goes")
    speakers[1].close()


def test_several_paths_of_exabgp_reach_us(pair: Pair) -> None:
    need(ExaBgp)
    ours = pair.speaker(our_settings(our_peer(IPV4), statics=()))
    daemon = pair.daemon(ExaBgp, peer_config(session(IPV4, add_path=True)))
    assert isinstance(daemon, ExaBgp)
    daemon.start()
    ours.start()
    ours.wait_established(PEER4)
    for number in (1, 2):
        daemon.send(f"announce route {PREFIX} next-hop {PEER4} path-information 0.0.0.{number} med {number}")
    wait_until(lambda: sorted(item.med or 0 for item in ours.received(PEER4)) == [1, 2], 15, "both paths here")
    daemon.send(f"withdraw route {PREFIX} next-hop {PEER4} path-information 0.0.0.1")
    wait_until(lambda: [item.med for item in ours.received(PEER4)] == [2], 15, "the withdrawn path goes")
