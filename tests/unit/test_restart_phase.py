"""The restart phase and peers that send no End-of-RIB."""

from __future__ import annotations

from bgpd.family import IPV4_UNICAST
from bgpd.restart import QUIET_TIME, RestartPhase

IPV4 = frozenset({IPV4_UNICAST})


def begun(*peers: str) -> RestartPhase:
    phase = RestartPhase()
    phase.begin(0.0, set(peers), 120.0)
    return phase


def test_the_kernel_waits_for_the_routes_of_a_peer_without_graceful_restart() -> None:
    """Its session is up before its first route is in: what was found at start may be the peer's."""
    phase = begun("router")
    phase.established("router", frozenset(), False, 1.0)
    assert phase.over(1.0), "our End-of-RIB does not wait for it"
    assert not phase.releases(1.0)
    assert phase.deadline() == 1.0 + QUIET_TIME
    assert not phase.releases(0.9 + QUIET_TIME)
    assert phase.releases(1.0 + QUIET_TIME)
    assert phase.missing() == []


def test_end_of_rib_of_others_does_not_cut_that_short() -> None:
    phase = begun("router", "node")
    phase.established("router", frozenset(), False, 1.0)
    phase.established("node", IPV4, False, 1.5)
    phase.end_of_rib("node", IPV4_UNICAST)
    assert phase.over(2.0)
    assert not phase.releases(2.0)
    assert phase.releases(1.5 + QUIET_TIME)


def test_one_that_is_lost_again_is_awaited_and_one_removed_is_not() -> None:
    phase = begun("router")
    phase.established("router", frozenset(), False, 1.0)
    assert phase.over(1.0)
    phase.lost("router", 5.0)
    assert phase.missing() == ["router"]
    assert not phase.releases(1.0 + QUIET_TIME)
    phase.removed("router")
    assert phase.releases(1.0 + QUIET_TIME)
