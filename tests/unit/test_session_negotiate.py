"""OPENs: what we offer, and what two of them agree on."""

from __future__ import annotations

from typing import Any

import pytest
from attrs import evolve

from bgpd.errors import BGPError
from bgpd.family import IPV4_UNICAST, IPV6_UNICAST, Family
from bgpd.session.local import LocalState
from bgpd.session.negotiate import AS_TRANS, Negotiated, negotiate, our_open
from bgpd.settings import AddPath, FamilySettings, PeerSettings
from bgpd.wire.capabilities import (
    AddPathCapability,
    EnhancedRouteRefresh,
    ExtendedMessageCapability,
    ExtendedNextHopCapability,
    FourOctetAs,
    GracefulRestartCapability,
    MultiProtocol,
    RouteRefreshCapability,
    UnknownCapability,
)
from bgpd.wire.open import Open
from tests.scenario.pair import packed_id, peer_settings

US = LocalState(65000, packed_id(0x0A000001))
THEM = LocalState(65001, packed_id(0x0A000002))
PEER = peer_settings("tor", 65001)
EXTENDED = (FamilySettings(IPV4_UNICAST, extended_next_hop=True), FamilySettings(IPV6_UNICAST))
BOTH = frozenset((IPV4_UNICAST, IPV6_UNICAST))


def theirs(**changes: Any) -> Open:
    return evolve(our_open(evolve(PEER, asn=65000), THEM), **changes)


def agree(received: Open, peer: PeerSettings = PEER, local: LocalState = US) -> Negotiated:
    return negotiate(peer, local, our_open(peer, local), received)


def refused(received: Open, peer: PeerSettings = PEER, local: LocalState = US) -> tuple[int, int]:
    with pytest.raises(BGPError) as caught:
        agree(received, peer, local)
    assert caught.value.reason
    return int(caught.value.code), int(caught.value.subcode)


class TestOurOpen:
    def test_capabilities_and_their_order(self) -> None:
        peer = evolve(PEER, families=EXTENDED)
        assert our_open(peer, US).capabilities == (
            MultiProtocol(IPV4_UNICAST),
            MultiProtocol(IPV6_UNICAST),
            RouteRefreshCapability(),
            GracefulRestartCapability(False, True, 120, ((IPV4_UNICAST, True), (IPV6_UNICAST, True))),
            FourOctetAs(65000),
            AddPathCapability(((IPV4_UNICAST, 3), (IPV6_UNICAST, 3))),
            EnhancedRouteRefresh(),
            ExtendedMessageCapability(),
            ExtendedNextHopCapability(((IPV4_UNICAST, 2),)),
        )

    def test_what_is_switched_off_is_not_offered(self) -> None:
        off = AddPath.OFF
        peer = evolve(
            PEER,
            families=(FamilySettings(IPV4_UNICAST, add_path=off), FamilySettings(IPV6_UNICAST, add_path=off)),
            route_refresh=False,
            graceful_restart=False,
            extended_messages=False,
        )
        assert our_open(peer, US).capabilities == (
            MultiProtocol(IPV4_UNICAST),
            MultiProtocol(IPV6_UNICAST),
            FourOctetAs(65000),
        )

    @pytest.mark.parametrize("restarting", [False, True])
    @pytest.mark.parametrize("kept", [False, True])
    def test_restart_flags_tell_the_truth(self, restarting: bool, kept: bool) -> None:
        """RFC 4724 §3: R while restarting, F only if forwarding was kept."""
        local = LocalState(65000, US.router_id, restarting, kept)
        found = our_open(evolve(PEER, restart_time=7, notification_restart=False), local).capabilities
        assert GracefulRestartCapability(restarting, False, 7, ((IPV4_UNICAST, kept), (IPV6_UNICAST, kept))) in found

    def test_a_large_as_number_goes_into_the_capability(self) -> None:
        """RFC 6793 §4.1."""
        found = our_open(PEER, LocalState(4_200_000_000, US.router_id))
        assert found.asn == AS_TRANS
        assert FourOctetAs(4_200_000_000) in found.capabilities

    def test_local_as_of_the_peer_wins(self) -> None:
        assert our_open(evolve(PEER, local_asn=65010), US).asn == 65010

    def test_bare(self) -> None:
        assert our_open(PEER, US, bare=True).capabilities == ()


class TestAgreement:
    def test_everything(self) -> None:
        found = agree(theirs())
        assert found.families == found.add_path_receive == found.add_path_send == BOTH
        assert (found.peer_asn, found.local_asn, found.internal, found.asn4) == (65001, 65000, False, True)
        assert (found.peer_id, found.local_id) == (THEM.router_id, US.router_id)
        assert (found.hold_time, found.keepalive_time) == (240, 80.0)
        assert found.route_refresh and found.enhanced_refresh and found.extended_message
        assert found.max_send_length == 65535
        assert found.notification_restart
        assert found.restart_families == found.forwarding_families == BOTH
        assert found.extended_next_hop == frozenset()

    def test_without_any_capability_ipv4_is_meant(self) -> None:
        found = agree(theirs(capabilities=()))
        assert found.families == {IPV4_UNICAST}
        assert not found.asn4 and not found.route_refresh and not found.enhanced_refresh
        assert found.graceful is None and not found.notification_restart
        assert found.max_send_length == 4096
        assert found.add_path_receive == found.add_path_send == frozenset()

    def test_other_capabilities_without_multiprotocol_imply_ipv4(self) -> None:
        capabilities = (FourOctetAs(65001), RouteRefreshCapability(), UnknownCapability(73, b"x"))
        assert agree(theirs(capabilities=capabilities)).families == {IPV4_UNICAST}

    def test_nothing_that_we_did_not_offer(self) -> None:
        peer = evolve(PEER, route_refresh=False, graceful_restart=False, extended_messages=False)
        found = agree(theirs(), peer)
        assert not found.route_refresh and not found.enhanced_refresh and not found.extended_message
        assert found.graceful is None and not found.notification_restart

    def test_bare_open_agrees_on_nothing(self) -> None:
        found = negotiate(PEER, US, our_open(PEER, US, bare=True), theirs())
        assert found.families == {IPV4_UNICAST} and not found.asn4 and found.graceful is None

    def test_no_family_in_common(self) -> None:
        """RFC 5492 §5: 2/7, and the data lists what we miss."""
        received = theirs(capabilities=(MultiProtocol(Family(1, 128)), FourOctetAs(65001)))
        with pytest.raises(BGPError) as caught:
            agree(received)
        assert (caught.value.code, caught.value.subcode) == (2, 7)
        assert caught.value.data == bytes.fromhex("010400010001" + "010400020001")

    @pytest.mark.parametrize(("ours", "their", "hold"), [(240, 90, 90), (9, 240, 9), (0, 90, 0), (90, 0, 0), (9, 3, 3)])
    def test_hold_time_is_the_smaller_and_zero_means_none(self, ours: int, their: int, hold: int) -> None:
        found = agree(theirs(hold_time=their), evolve(PEER, hold_time=ours))
        assert (found.hold_time, found.keepalive_time) == (hold, hold / 3)

    @pytest.mark.parametrize(("setting", "hold", "keepalive"), [(10, 90, 10), (60, 9, 3), (None, 90, 30), (10, 0, 0)])
    def test_keepalive_setting(self, setting: int | None, hold: int, keepalive: float) -> None:
        assert agree(theirs(hold_time=hold), evolve(PEER, keepalive_time=setting)).keepalive_time == keepalive

    @pytest.mark.parametrize("ours", list(AddPath))
    @pytest.mark.parametrize("their", [0, 1, 2, 3, 4, 255])
    def test_add_path_per_direction(self, ours: AddPath, their: int) -> None:
        """RFC 7911 §4; a tuple with an unknown mode is as good as none."""
        peer = evolve(PEER, families=(FamilySettings(IPV4_UNICAST, add_path=ours), FamilySettings(IPV6_UNICAST)))
        capabilities = (
            MultiProtocol(IPV4_UNICAST),
            MultiProtocol(IPV6_UNICAST),
            FourOctetAs(65001),
            AddPathCapability(((IPV4_UNICAST, their), (Family(25, 65), 3))),
        )
        found = agree(theirs(capabilities=capabilities), peer)
        known = their if their <= 3 else 0
        assert found.add_path_receive == ({IPV4_UNICAST} if ours & 1 and known & 2 else set())
        assert found.add_path_send == ({IPV4_UNICAST} if ours & 2 and known & 1 else set())

    def test_extended_next_hop_needs_both(self) -> None:
        peer = evolve(PEER, families=EXTENDED)
        offered = theirs().capabilities
        assert agree(theirs(), peer).extended_next_hop == frozenset()
        with_it = (*offered, ExtendedNextHopCapability(((IPV4_UNICAST, 2), (Family(1, 128), 2))))
        assert agree(theirs(capabilities=with_it), peer).extended_next_hop == {IPV4_UNICAST}
        assert agree(theirs(capabilities=with_it)).extended_next_hop == frozenset()

    def test_the_last_restart_capability_counts(self) -> None:
        """RFC 4724 §3."""
        capabilities = (
            MultiProtocol(IPV4_UNICAST),
            FourOctetAs(65001),
            GracefulRestartCapability(True, True, 10, ((IPV4_UNICAST, True),)),
            GracefulRestartCapability(False, False, 20, ((IPV4_UNICAST, False), (IPV6_UNICAST, True))),
        )
        found = agree(theirs(capabilities=capabilities))
        assert found.graceful is not None and found.graceful.time == 20
        assert not found.notification_restart
        assert found.restart_families == {IPV4_UNICAST}, "IPv6 is not negotiated"
        assert found.forwarding_families == frozenset()

    def test_a_restart_time_of_zero_keeps_nothing(self) -> None:
        capabilities = (FourOctetAs(65001), GracefulRestartCapability(False, True, 0, ((IPV4_UNICAST, True),)))
        assert agree(theirs(capabilities=capabilities)).restart_families == frozenset()


class TestRefusals:
    """RFC 4271 §6.2, RFC 6286, RFC 6793, RFC 7607."""

    def test_wrong_as(self) -> None:
        assert refused(theirs(), evolve(PEER, asn=65002)) == (2, 2)

    @pytest.mark.parametrize(
        ("field", "capability"), [(0, None), (0, 0), (65001, 0), (AS_TRANS, None), (AS_TRANS, AS_TRANS), (65009, 65001)]
    )
    def test_as_numbers_that_cannot_be(self, field: int, capability: int | None) -> None:
        capabilities = () if capability is None else (FourOctetAs(capability),)
        assert refused(theirs(asn=field, capabilities=capabilities), evolve(PEER, asn=capability or field)) == (2, 2)

    def test_as_trans_with_the_capability_is_fine(self) -> None:
        big = 4_200_000_001
        received = theirs(asn=AS_TRANS, capabilities=(FourOctetAs(big),))
        assert agree(received, evolve(PEER, asn=big)).peer_asn == big

    def test_identifier_zero(self) -> None:
        assert refused(theirs(router_id=bytes(4))) == (2, 3)

    def test_own_identifier(self) -> None:
        """RFC 6286 §2.2: only an internal peer must have another one."""
        same = theirs(router_id=US.router_id)
        assert agree(same).peer_id == US.router_id
        internal = evolve(same, asn=65000, capabilities=(FourOctetAs(65000),))
        assert refused(internal, evolve(PEER, asn=65000)) == (2, 3)

    def test_any_other_identifier_is_fine(self) -> None:
        assert agree(theirs(router_id=packed_id(0xE0000001))).peer_id == packed_id(0xE0000001)

    @pytest.mark.parametrize("hold", [1, 2])
    def test_hold_time(self, hold: int) -> None:
        assert refused(theirs(hold_time=hold)) == (2, 6)

    def test_internal_follows_the_local_as_of_the_session(self) -> None:
        received = theirs(asn=65010, capabilities=(FourOctetAs(65010),))
        assert agree(received, evolve(PEER, asn=65010, local_asn=65010)).internal
