"""A peer that has ADD-PATH before a graceful restart and not after it, or the other way round (RFC 4724, RFC 7911).

The path ids of the stale routes say nothing about what comes then: what the peer says of a prefix stands for all that
is kept of it.
"""

from __future__ import annotations

import pytest

from bgpd.family import IPV4_UNICAST
from bgpd.settings import FamilySettings, FibSettings, LearnSettings, PeerSettings, SpeakerSettings
from bgpd.speaker import Speaker
from bgpd.wire.framing import KEEPALIVE, MessageType, build_message

ASN, PEER, OWN = 64512, "10.0.0.1", "10.0.0.2"
REPEATED, WITHDRAWN, LATE, LEFT = (bytes((24, 10, 1, number)) for number in range(4))
END_OF_RIB = build_message(MessageType.UPDATE, bytes(4))
ATTRIBUTES = bytes((0x40, 1, 1, 0, 0x40, 2, 0, 0x40, 3, 4, 10, 0, 0, 1, 0x40, 5, 4, 0, 0, 0, 100))


def units(add_path: bool, keys: tuple[bytes, ...], path_id: int = 7) -> bytes:
    return b"".join((path_id.to_bytes(4, "big") if add_path else b"") + key for key in keys)


def announce(add_path: bool, *keys: bytes, path_id: int = 7) -> bytes:
    field = units(add_path, keys, path_id)
    return build_message(MessageType.UPDATE, bytes(2) + len(ATTRIBUTES).to_bytes(2) + ATTRIBUTES + field)


def withdraw(add_path: bool, *keys: bytes) -> bytes:
    field = units(add_path, keys)
    return build_message(MessageType.UPDATE, len(field).to_bytes(2) + field + bytes(2))


class Peer:
    """A Speaker, and what its peer says to it."""

    def __init__(self) -> None:
        peer = PeerSettings("p", PEER, ASN, passive=True, families=(FamilySettings(IPV4_UNICAST),))
        self.speaker = Speaker(
            SpeakerSettings(ASN, OWN, peers=(peer,), learn=LearnSettings(kernel=False, direct=False),
                            fib=FibSettings(enabled=False), resolve_next_hops=False),
            0.0, lambda: 1.0,
        )  # fmt: skip
        self.speaker.start(0.0)
        self.conn, self.now = 0, 0.0

    def connect(self, add_path: bool) -> None:
        self.conn += 1
        assert self.speaker.on_accepted(self.conn, PEER, OWN, self.now)
        capabilities = bytes((1, 4, 0, 1, 0, 1, 64, 6, 0, 120, 0, 1, 1, 0x80, 65, 4)) + ASN.to_bytes(4)
        if add_path:
            capabilities += bytes((69, 4, 0, 1, 1, 3))
        options = bytes((2, len(capabilities))) + capabilities
        body = b"\4" + ASN.to_bytes(2) + bytes((0, 90, 10, 0, 0, 1, len(options))) + options
        self.say(build_message(MessageType.OPEN, body), KEEPALIVE)
        assert self.speaker.peers["p"].session.conn == self.conn

    def lose(self) -> None:
        self.now += 5.0
        self.speaker.on_lost(self.conn, "reset", self.now)
        self.speaker.flush(self.now)

    def say(self, *messages: bytes) -> None:
        for message in messages:
            self.now += 0.01
            self.speaker.on_data(self.conn, message, self.now)
            self.speaker.flush(self.now)

    def table(self) -> dict[bytes, int]:
        """Paths by prefix."""
        rib = self.speaker.ribs[IPV4_UNICAST].table
        return {key: len(entry) if isinstance(entry, tuple) else 1 for key, entry in rib.items()}


@pytest.mark.parametrize("before", [True, False])
def test_stale_routes_stay_until_they_are_spoken_of_or_end_of_rib(before: bool) -> None:
    peer = Peer()
    peer.connect(before)
    every = (REPEATED, WITHDRAWN, LATE, LEFT)
    peer.say(announce(before, *every))
    if before:
        peer.say(announce(True, REPEATED, LEFT, path_id=8))
        assert peer.table() == {REPEATED: 2, WITHDRAWN: 1, LATE: 1, LEFT: 2}
    peer.say(END_OF_RIB)
    peer.lose()
    kept = peer.table()
    peer.connect(not before)
    assert peer.table() == kept
    peer.say(announce(not before, REPEATED))
    assert peer.table() == {**kept, REPEATED: 1}
    peer.say(withdraw(not before, WITHDRAWN))
    assert peer.table() == {REPEATED: 1, LATE: 1, LEFT: kept[LEFT]}
    # Lost again before its End-of-RIB, and back in the first form: what was repeated is stale as well.
    peer.lose()
    peer.connect(before)
    assert peer.table() == {REPEATED: 1, LATE: 1, LEFT: kept[LEFT]}
    peer.say(announce(before, REPEATED, LATE))
    assert peer.table() == {REPEATED: 1, LATE: 1, LEFT: kept[LEFT]}
    peer.say(END_OF_RIB)
    assert peer.table() == {REPEATED: 1, LATE: 1}
    adj = peer.speaker.peers["p"].importer.adj[IPV4_UNICAST]
    assert [path.path_id for path in adj.lookup(LATE)] == [7 if before else 0] and not adj.stale()
    peer.say(withdraw(before, REPEATED, LATE))
    assert peer.table() == {} and not adj.routes
