"""AS numbers, durations, prefixes, peer addresses and communities as text."""

from __future__ import annotations

from fractions import Fraction

import pytest

from config import values


@pytest.mark.parametrize(
    ("value", "number"),
    [(64512, 64512), ("64512", 64512), ("1.0", 65536), ("65535.65535", 4294967295), ("1.10", 65546)],
)
def test_asn(value: str | int, number: int) -> None:
    assert values.asn(value) == number


@pytest.mark.parametrize("value", [-1, 4294967296, "", "4294967296", "1.65536", "1.2.3", "abc", "٣", "+1", " 1", "1."])
def test_asn_refused(value: str | int) -> None:
    with pytest.raises(ValueError):
        values.asn(value)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("60s", 60),
        ("1m30s", 90),
        ("1.5s", Fraction(3, 2)),
        (".5s", Fraction(1, 2)),
        ("1h", 3600),
        ("0", 0),
        ("5us", None),
        ("+2m", 120),
        ("100ms", Fraction(1, 10)),
        ("1.s", 1),
    ],
)
def test_duration(text: str, seconds: Fraction | int | None) -> None:
    assert values.duration(text) == (Fraction(5, 10**6) if seconds is None else seconds)


@pytest.mark.parametrize("text", ["", "60", "s", "1d", "-1s", "1s 2s", "1s2", ".s", "٣s", "1e3s"])
def test_duration_refused(text: str) -> None:
    with pytest.raises(ValueError):
        values.duration(text)


@pytest.mark.parametrize(("text", "whole"), [("0.4s", 0), ("0.5s", 1), ("1.5s", 2), ("119.6s", 120)])
def test_rounding_to_the_nearest_second(text: str, whole: int) -> None:
    assert values.seconds(values.duration(text)) == whole


@pytest.mark.parametrize(
    ("text", "address", "port"),
    [
        ("192.0.2.1", "192.0.2.1", None),
        ("192.0.2.1:1790", "192.0.2.1", 1790),
        ("fd00::1", "fd00::1", None),
        ("FD00:0::1", "fd00::1", None),
        ("[fd00::1]", "fd00::1", None),
        ("[fd00::1]:50", "fd00::1", 50),
        ("[::ffff:10.0.0.2]:50", "10.0.0.2", 50),
    ],
)
def test_peer_address(text: str, address: str, port: int | None) -> None:
    assert values.peer_address(text) == values.PeerAddress(address, port)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "host",
        "1.2.3",
        "1.2.3.4:",
        "1.2.3.4:0",
        "1.2.3.4:65536",
        "[fd00::1",
        "[fd00::1]50",
        "[::1]:",
        "fe80::1%eth0",
    ],
)
def test_peer_address_refused(text: str) -> None:
    with pytest.raises(ValueError):
        values.peer_address(text)


def test_prefix() -> None:
    assert str(values.prefix("10.1.2.3/8")) == "10.0.0.0/8"
    assert str(values.prefix("fd00::1/64")) == "fd00::/64"
    assert values.prefix("10.0.0.1").length == 32
    for text in ("10.0.0.1/8", "10.0.0.1"):
        with pytest.raises(ValueError):
            values.prefix(text, strict=True)
    for text in ("10.0.0.0/33", "10.0.0.0/255.0.0.0", "10/8", "x/8", "fe80::%1/64"):
        with pytest.raises(ValueError):
            values.prefix(text)


def test_community() -> None:
    assert values.community("5663:12") == 5663 << 16 | 12
    assert values.community("4294967295:0:7") == (4294967295, 0, 7)
    for text in ("65536:1", "1", "1:2:3:4", "a:b", "1:-2", ""):
        with pytest.raises(ValueError):
            values.community(text)
