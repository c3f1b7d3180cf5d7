"""Enhanced route refresh (RFC 7313 §4): a BoRR that no EoRR follows ends after a time, with or without a hold time."""

from __future__ import annotations

import math

import pytest

from bgpd.family import IPV4_UNICAST
from bgpd.settings import FamilySettings, FibSettings, LearnSettings, PeerSettings, SpeakerSettings
from bgpd.speaker import Speaker
from bgpd.wire.framing import KEEPALIVE, MARKER, MessageType, build_message
from bgpd.wire.refresh import BEGIN, END, RouteRefresh, build_refresh

ASN, PEER, OWN = 64512, "10.0.0.1", "10.0.0.2"
FIRST, SECOND = bytes((24, 10, 1, 1)), bytes((24, 10, 1, 2))


def update(*keys: bytes) -> bytes:
    attributes = bytes((0x40, 1, 1, 0, 0x40, 2, 0, 0x40, 3, 4, 10, 0, 0, 1, 0x40, 5, 4, 0, 0, 0, 100))
    return build_message(MessageType.UPDATE, bytes(2) + len(attributes).to_bytes(2) + attributes + b"".join(keys))


def speaker(hold_time: int, more: bytes = b"") -> Speaker:
    """Established with a peer that has sent two routes and then a BoRR; `more` are further capabilities of its."""
    peer = PeerSettings("p", PEER, ASN, passive=True, families=(FamilySettings(IPV4_UNICAST),))
    made = Speaker(
        SpeakerSettings(ASN, OWN, peers=(peer,), learn=LearnSettings(kernel=False, direct=False),
                        fib=FibSettings(enabled=False), resolve_next_hops=False),
        0.0, lambda: 1.0,
    )  # fmt: skip
    made.start(0.0)
    assert made.on_accepted(1, PEER, OWN, 0.0)
    capabilities = bytes((1, 4, 0, 1, 0, 1, 2, 0, 70, 0, 65, 4)) + ASN.to_bytes(4) + more
    options = bytes((2, len(capabilities))) + capabilities
    body = b"\4" + ASN.to_bytes(2) + hold_time.to_bytes(2) + bytes((10, 0, 0, 1, len(options))) + options
    for octets in (build_message(MessageType.OPEN, body), KEEPALIVE, update(FIRST, SECOND)):
        made.on_data(1, octets, 1.0)
    made.flush(1.0)
    made.on_data(1, build_refresh(RouteRefresh(IPV4_UNICAST, BEGIN)), 2.0)
    made.on_data(1, update(SECOND), 3.0)
    made.flush(3.0)
    return made


def pass_time(made: Speaker, until: float) -> None:
    """The peer keeps its session up; every timer gets its turn."""
    now = 3.0
    while now < until:
        now = min(until, now + 20.0)
        made.on_data(1, KEEPALIVE, now)
        while (due := made.deadline()) <= now:
            made.on_tick(now if due == -math.inf else max(due, 3.0))
            made.flush(now)
        made.flush(now)


@pytest.mark.parametrize("hold_time", [90, 0])
def test_what_was_not_repeated_goes_when_no_end_comes(hold_time: int) -> None:
    made = speaker(hold_time)
    pass_time(made, 361.0)
    assert set(made.ribs[IPV4_UNICAST].table) == {FIRST, SECOND}
    pass_time(made, 370.0)
    assert set(made.ribs[IPV4_UNICAST].table) == {SECOND}
    assert made.peers["p"].session.conn == 1


@pytest.mark.parametrize("hold_time", [90, 0])
def test_the_end_comes(hold_time: int) -> None:
    made = speaker(hold_time)
    made.on_data(1, build_refresh(RouteRefresh(IPV4_UNICAST, END)), 4.0)
    made.flush(4.0)
    assert set(made.ribs[IPV4_UNICAST].table) == {SECOND}


GRACEFUL = bytes((64, 6, 0, 120, 0, 1, 1, 0x80))
END_OF_RIB = build_message(MessageType.UPDATE, bytes(4))


def test_a_beginning_before_end_of_rib_is_ignored() -> None:
    """RFC 7313 §4: End-of-RIB would delete what came before it in this very session."""
    made = speaker(90, GRACEFUL)
    made.on_data(1, END_OF_RIB, 4.0)
    made.flush(4.0)
    assert set(made.ribs[IPV4_UNICAST].table) == {FIRST, SECOND}
    for octets in (RouteRefresh(IPV4_UNICAST, BEGIN), None, RouteRefresh(IPV4_UNICAST, END)):
        made.on_data(1, update(SECOND) if octets is None else build_refresh(octets), 5.0)
    made.flush(5.0)
    assert set(made.ribs[IPV4_UNICAST].table) == {SECOND}


def told(made: Speaker) -> list[bytes]:
    """The messages that the peer is handed now."""
    found = b""
    while (data := made.pull(1)) is not None:
        found += data
    return [MARKER + message for message in found.split(MARKER)[1:]]


@pytest.mark.parametrize("graceful", [True, False])
def test_we_begin_no_refresh_before_our_end_of_rib(graceful: bool) -> None:
    """RFC 7313 §4; a peer that waits for no End-of-RIB may have it. Ours waits for the peer's own (RFC 4724 §4.1)."""
    made = speaker(90, GRACEFUL if graceful else b"")
    made.on_data(1, build_refresh(RouteRefresh(IPV4_UNICAST)), 4.0)
    made.flush(4.0)
    begin, end = (build_refresh(RouteRefresh(IPV4_UNICAST, subtype)) for subtype in (BEGIN, END))
    early = told(made)
    made.on_data(1, END_OF_RIB, 5.0)
    pass_time(made, 30.0)
    assert early + told(made) == ([] if graceful else [begin, end]) + [END_OF_RIB]
    made.on_data(1, build_refresh(RouteRefresh(IPV4_UNICAST)), 30.0)
    made.flush(30.0)
    assert told(made) == [begin, end]
