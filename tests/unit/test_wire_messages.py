"""Header, OPEN, NOTIFICATION and ROUTE-REFRESH, rule by rule."""

from __future__ import annotations

import pytest

from bgpd.errors import BGPError
from bgpd.family import IPV4_UNICAST, IPV6_UNICAST, Family
from bgpd.wire.capabilities import (
    AddPathCapability,
    Capability,
    FourOctetAs,
    GracefulRestartCapability,
    MultiProtocol,
    RouteRefreshCapability,
    UnknownCapability,
    build_capability,
    parse_capabilities,
    parse_capability,
)
from bgpd.wire.framing import KEEPALIVE, MARKER, Framer, build_message
from bgpd.wire.notification import (
    Notification,
    build_shutdown_data,
    parse_notification,
    shutdown_text,
    wrap_hard_reset,
)
from bgpd.wire.open import Open, build_open, parse_open
from bgpd.wire.refresh import BEGIN, END, RouteRefresh, build_refresh, parse_refresh


def header(length: int, kind: int, marker: bytes = MARKER) -> bytes:
    return marker + length.to_bytes(2, "big") + bytes((kind,))


class TestFramer:
    def test_keepalive(self) -> None:
        assert KEEPALIVE == b"\xff" * 16 + b"\x00\x13\x04"
        assert Framer().feed(KEEPALIVE * 2) == [(4, b""), (4, b"")]

    @pytest.mark.parametrize("octets", [1, 2, 7, 18, 19, 20])
    def test_pieces(self, octets: int) -> None:
        stream = build_message(2, b"\0\0\0\0") + KEEPALIVE
        framer, found = Framer(), []
        for start in range(0, len(stream), octets):
            found += framer.feed(bytearray(stream[start : start + octets]))
        assert found == [(2, b"\0\0\0\0"), (4, b"")]

    def test_buffer_may_be_reused(self) -> None:
        buffer = bytearray(build_message(2, b"\0\0\0\0"))
        ((_, body),) = Framer().feed(memoryview(buffer))
        buffer[:] = b"\x55" * len(buffer)
        assert body == b"\0\0\0\0"

    @pytest.mark.parametrize(
        ("octets", "code", "data"),
        [
            (header(19, 4, bytes(16)), (1, 1), b""),
            (header(19, 9, b"\xff" * 15 + b"\xfe"), (1, 1), b""),
            (header(18, 2), (1, 2), b"\0\x12"),
            (header(0, 2), (1, 2), b"\0\0"),
            (header(4097, 2), (1, 2), b"\x10\x01"),
            (header(28, 1), (1, 2), b"\0\x1c"),
            (header(22, 2), (1, 2), b"\0\x16"),
            (header(20, 4), (1, 2), b"\0\x14"),
            (header(19, 5), (1, 2), b"\0\x13"),
            (header(19, 0), (1, 3), b"\0"),
            (header(30, 6), (1, 3), b"\x06"),
            (header(19, 255), (1, 3), b"\xff"),
        ],
    )
    def test_header_errors(self, octets: bytes, code: tuple[int, int], data: bytes) -> None:
        """RFC 4271 §6.1; said as soon as the header is there."""
        framer = Framer()
        assert framer.feed(KEEPALIVE + octets) == [(4, b"")]
        assert framer.error is not None
        assert ((framer.error.code, framer.error.subcode), framer.error.data) == (code, data)
        assert framer.feed(KEEPALIVE) == []

    def test_a_notification_of_wrong_length_is_still_one(self) -> None:
        """RFC 4271 §6.4: it is not answered, but it ends the session."""
        framer = Framer()
        assert framer.feed(header(20, 3) + b"\x06") == [(3, b"\x06")]
        assert framer.error is not None
        assert framer.feed(KEEPALIVE) == []

    def test_extended_messages(self) -> None:
        """RFC 8654 §4: UPDATE and NOTIFICATION grow; OPEN and KEEPALIVE never."""
        framer = Framer(65535)
        body = bytes(4) + bytes(5000)
        assert framer.feed(build_message(2, body)) == [(2, body)]
        assert framer.feed(header(4097, 1)) == [] and framer.error is not None
        assert (framer.error.code, framer.error.subcode) == (1, 2)


def open_body(parameters: bytes, asn: int = 65001) -> bytes:
    return b"\x04" + asn.to_bytes(2, "big") + b"\0\xb4\x0a\0\0\x02" + parameters


CAPABILITIES = bytes((1, 4, 0, 1, 0, 1, 65, 4, 0, 0, 0xFD, 0xE9))
PARSED: tuple[Capability, ...] = (MultiProtocol(IPV4_UNICAST), FourOctetAs(65001))


class TestOpen:
    def test_both_forms(self) -> None:
        """RFC 9072 §2: the long form is read whatever the one-octet length beside it says."""
        short = bytes((14, 2, 12)) + CAPABILITIES
        for length in (255, 14, 1):
            long = bytes((length, 255, 0, 15, 2, 0, 12)) + CAPABILITIES
            assert parse_open(open_body(long)) == parse_open(open_body(short))
        assert parse_open(open_body(short)).capabilities == PARSED

    def test_long_form_is_sent_only_when_needed(self) -> None:
        message = Open(65001, 180, b"\x0a\0\0\x02", PARSED)
        assert build_open(message)[19:] == open_body(
            bytes((12 + 4, 2, 6)) + CAPABILITIES[:6] + b"\x02\x06" + CAPABILITIES[6:]
        )
        big = Open(65001, 180, b"\x0a\0\0\x02", (*PARSED, UnknownCapability(239, bytes(250))))
        assert build_open(big)[28:30] == b"\xff\xff" and parse_open(build_open(big)[19:]) == big

    @pytest.mark.parametrize(
        ("body", "subcode", "data"),
        [
            (b"\x03" + open_body(b"\0")[1:], 1, b"\0\x04"),
            (open_body(b"\0", asn=0), 2, b""),
            (b"\x04\xfd\xe9\0\x01\x0a\0\0\x02\0", 6, b""),
            (b"\x04\xfd\xe9\0\x02\x0a\0\0\x02\0", 6, b""),
            (b"\x04\xfd\xe9\0\xb4\0\0\0\0\0", 3, b""),
            (open_body(b"\x02\x01\x00"), 4, b""),
            (open_body(b"\x08\x02\x06\x41\x04\0\0\0\0"), 2, b""),
            (open_body(b"\x03\x02\x06\x01"), 0, b""),
            (open_body(b"\x02\x02\x01"), 0, b""),
            (open_body(b"\x01\x02"), 0, b""),
            (open_body(b"\0\x02"), 0, b""),
            (open_body(b"\xff\xff"), 0, b""),
            (open_body(b"\xff\xff\x00\x05\x02\x00\x01"), 0, b""),
            (open_body(b"\x04\x02\x02\x01\x04"), 0, b""),
        ],
    )
    def test_errors(self, body: bytes, subcode: int, data: bytes) -> None:
        with pytest.raises(BGPError) as caught:
            parse_open(body)
        assert (caught.value.code, caught.value.subcode, caught.value.data) == (2, subcode, data)

    def test_hold_time_zero_and_odd_identifiers_are_fine(self) -> None:
        """RFC 4271 §4.2, RFC 6286 §2.1."""
        message = parse_open(b"\x04\xfd\xe9\0\0\xe0\0\0\x01\0")
        assert (message.hold_time, message.router_id, message.four_octet_asn) == (0, b"\xe0\0\0\x01", 65001)


class TestCapabilities:
    @pytest.mark.parametrize(
        ("code", "value"),
        [
            (1, b"\0\1\0"),
            (3, b""),
            (5, bytes(5)),
            (9, b""),
            (64, b""),
            (64, bytes(5)),
            (65, b"\0\1"),
            (69, bytes(3)),
            (71, bytes(6)),
            (73, b"\xc8AB"),
            (73, b""),
        ],
    )
    def test_wrong_length(self, code: int, value: bytes) -> None:
        with pytest.raises(BGPError) as caught:
            parse_capability(code, value)
        assert (caught.value.code, caught.value.subcode) == (2, 0)

    def test_unknown_ones_and_modes_are_no_error(self) -> None:
        """RFC 5492 §3, RFC 7911 §4."""
        assert parse_capability(239, b"\1\2") == UnknownCapability(239, b"\1\2")
        assert parse_capability(69, bytes((0, 1, 1, 3, 0, 2, 1, 4))) == AddPathCapability(((IPV4_UNICAST, 3),))
        assert parse_capability(9, b"\x07") == UnknownCapability(9, b"\x07")

    def test_octets_in_route_refresh_are_dropped(self) -> None:
        assert parse_capabilities(b"\x02\x02\0\0\x02\0") == [RouteRefreshCapability()] * 2

    def test_graceful_restart(self) -> None:
        """Flags R and N, twelve bits of time, F a family (RFC 4724 §3, RFC 8538 §2)."""
        capability = GracefulRestartCapability(True, True, 120, ((IPV4_UNICAST, True), (IPV6_UNICAST, False)))
        octets = bytes((64, 10, 0xC0, 120, 0, 1, 1, 0x80, 0, 2, 1, 0))
        assert build_capability(capability) == octets and parse_capabilities(octets) == [capability]


class TestNotification:
    def test_text_of_shutdown(self) -> None:
        notification = parse_notification(b"\x06\x02" + build_shutdown_data("maintenance"))
        assert notification.shutdown_text == "maintenance"
        assert str(notification) == '6/2 cease: administrative shutdown "maintenance"'

    @pytest.mark.parametrize(
        ("data", "text"),
        [
            (b"", None),
            (b"\0", None),
            (b"\0abc", None),
            (b"\x40short", "short"),
            (b"\x02hello", "he"),
            (b"\x06\x1b[2J\n\r", "\\x1b[2J\\n\\r"),
            (b"\x04\xff\xfe\xc0\x80", "\\xff\\xfe\\xc0\\x80"),
            ("\u202eabc".encode(), None),
        ],
    )
    def test_hostile_text(self, data: bytes, text: str | None) -> None:
        """RFC 9003 §6. The length octet is a claim."""
        said = shutdown_text(data)
        assert said is None or said.isprintable()
        if text is not None or len(data) < 5:
            assert said == text

    def test_long_text_is_cut_between_characters(self) -> None:
        data = build_shutdown_data("ä" * 200)
        assert data[0] == 254 and len(data) == 255 and shutdown_text(data) == "ä" * 127
        assert build_shutdown_data("") == b""

    def test_nested_hard_resets_are_told_once(self) -> None:
        notification = Notification(6, 9, b"\x06\x09" * 2000)
        assert str(notification) == "6/9 cease: hard reset, 6/9 cease: hard reset"
        assert str(wrap_hard_reset(Notification(6, 2, b"\x02ok"))).endswith('administrative shutdown "ok"')

    def test_short_ones_and_long_ones(self) -> None:
        """RFC 4271 §6.4: never an error."""
        assert parse_notification(b"\x06") == Notification(6, 0)
        assert parse_notification(b"") == Notification(0, 0)
        assert len(Notification(3, 1, bytes(9000)).build()) == 4096


class TestRouteRefresh:
    def test_forms(self) -> None:
        assert build_refresh(RouteRefresh(IPV6_UNICAST, BEGIN))[19:] == b"\0\2\1\1"
        assert parse_refresh(b"\0\1\2\1") == RouteRefresh(IPV4_UNICAST, END)
        assert parse_refresh(b"\0\x19\0\x46") == RouteRefresh(Family(25, 70))

    def test_filters_in_it_are_ignored(self) -> None:
        """RFC 5291: never negotiated."""
        assert parse_refresh(b"\0\1\0\1\x01\x40\0") == RouteRefresh(IPV4_UNICAST)

    def test_unknown_subtype_is_ignored(self) -> None:
        """RFC 7313 §5; without enhanced refresh the octet is reserved (RFC 2918 §3)."""
        assert parse_refresh(b"\0\1\x09\1") is None
        assert parse_refresh(b"\0\1\x09\1", enhanced=False) == RouteRefresh(IPV4_UNICAST)

    @pytest.mark.parametrize("body", [b"\0", b"\0\1", b"\0\1\0", b"\0\1\1\1x", b"\0\1\2\1xyz"])
    def test_wrong_length(self, body: bytes) -> None:
        """RFC 7313 §5, with the whole message; the framer leaves it to this check."""
        assert Framer().feed(build_message(5, body)) == [(5, body)]
        with pytest.raises(BGPError) as caught:
            parse_refresh(body)
        assert (caught.value.code, caught.value.subcode, caught.value.data) == (7, 1, build_message(5, body))

    @pytest.mark.parametrize("body", [b"\0", b"\0\1\0"])
    def test_wrong_length_without_enhanced_refresh(self, body: bytes) -> None:
        with pytest.raises(BGPError) as caught:
            parse_refresh(body, enhanced=False)
        length = bytes((0, 19 + len(body)))
        assert (caught.value.code, caught.value.subcode, caught.value.data) == (1, 2, length)
