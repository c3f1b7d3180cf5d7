"""The small texts inside resources: AS numbers, durations, prefixes, peer addresses, communities.

Each function takes text or an integer and returns a value, or raises ValueError with a phrase that says what is wrong.
The `*_FORM` constants say what is allowed, for messages.
"""

from __future__ import annotations

import re
from fractions import Fraction
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

from attrs import frozen

from bgpd.family import IPV4_UNICAST, IPV6_UNICAST, Family, network_key

__all__ = [
    "Community",
    "PeerAddress",
    "Prefix",
    "asn",
    "community",
    "duration",
    "host_address",
    "label_text",
    "peer_address",
    "prefix",
]

ASN_FORM = 'an AS number 1-4294967295: 64512, "64512" or "hi.lo" in two halves of 0-65535'
DURATION_FORM = 'a Go duration such as "60s" or "1m30s"'
PREFIX_FORM = 'a prefix such as "10.0.0.0/16" or "fd00::/64"'
ADDRESS_FORM = "an IPv4 or IPv6 address"
PEER_FORM = 'an address, "a.b.c.d:port" or "[v6]:port"'
COMMUNITY_FORM = '"aa:nn" (0-65535 each) or "aa:nn:mm" (0-4294967295 each), in quotes'

Community = int | tuple[int, int, int]
"""A standard community (RFC 1997, 32 bits) or a large one (RFC 8092)."""

_LIMIT32 = 0xFFFFFFFF
_DURATION = re.compile(r"([0-9]{1,18}(?:\.[0-9]{0,18})?|\.[0-9]{1,18})(ns|us|µs|μs|ms|s|m|h)")
_UNITS = {
    "ns": Fraction(1, 10**9),
    "us": Fraction(1, 10**6),
    "µs": Fraction(1, 10**6),
    "μs": Fraction(1, 10**6),
    "ms": Fraction(1, 1000),
    "s": Fraction(1),
    "m": Fraction(60),
    "h": Fraction(3600),
}


def label_text(value: object) -> str:
    """A label's value as Kubernetes keeps it, which knows text alone: true is "true", and 3 is "3"."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def number(text: str, limit: int) -> int:
    """A plain decimal of at most `limit`: ASCII digits only, which `int` alone does not ask for."""
    if not (text.isascii() and text.isdigit()) or len(text) > 20:
        raise ValueError("not a decimal number")
    value = int(text)
    if value > limit:
        raise ValueError(f"above {limit}")
    return value


def asn(value: str | int) -> int:
    """An AS number as number, "n" or "hi.lo" (two 16-bit halves). 0 is accepted here."""
    if isinstance(value, int):
        if not 0 <= value <= _LIMIT32:
            raise ValueError("out of range")
        return value
    high, dot, low = value.partition(".")
    if not dot:
        return number(value, _LIMIT32)
    return number(high, 0xFFFF) << 16 | number(low, 0xFFFF)


def duration(text: str) -> Fraction:
    """A Go duration in seconds; not negative."""
    if text == "0":
        return Fraction(0)
    body = text.removeprefix("+")
    parts = _DURATION.findall(body)
    if not parts or "".join(count + unit for count, unit in parts) != body:
        raise ValueError("no duration" if not text.startswith("-") else "negative")
    return sum((Fraction(_decimal(count)) * _UNITS[unit] for count, unit in parts), Fraction(0))


def _decimal(text: str) -> str:
    return "0" + text + "0" if "." in text else text


def seconds(value: Fraction) -> int:
    """Whole seconds, the nearest, halves up (Go's Duration.Round)."""
    return int(value + Fraction(1, 2))


@frozen
class Prefix:
    """A prefix with host bits cleared."""

    family: Family
    key: bytes
    length: int

    def covers(self, other: Prefix) -> bool:
        """Whether `other` lies inside, or is equal."""
        if other.family != self.family or other.length < self.length:
            return False
        whole, bits = divmod(self.length, 8)
        if other.key[1 : 1 + whole] != self.key[1 : 1 + whole]:
            return False
        return not bits or (other.key[1 + whole] ^ self.key[1 + whole]) >> (8 - bits) == 0

    def __str__(self) -> str:
        return f"{ip_address(self.key[1:].ljust(self.family.octets, bytes(1)))}/{self.length}"


def prefix(text: str, *, strict: bool = False) -> Prefix:
    """A prefix in text form; `strict` refuses host bits and a missing length."""
    if strict and "/" not in text:
        raise ValueError("the prefix length is missing")
    if "%" in text:
        raise ValueError("a prefix has no zone")
    _, slash, length = text.partition("/")
    if slash and not (length.isascii() and length.isdigit()):
        raise ValueError("the prefix length is no number")
    try:
        network = ip_network(text, strict=strict)
    except ValueError as error:
        raise ValueError("host bits are set" if "host bits" in str(error) else "no prefix") from None
    family = IPV4_UNICAST if network.version == 4 else IPV6_UNICAST
    return Prefix(family, network_key(network), network.prefixlen)


def host_address(text: str) -> IPv4Address | IPv6Address:
    """An address without a zone; an IPv4 address in IPv6 form is the IPv4 address, as to Calico's own reader."""
    if "%" in text:
        raise ValueError("addresses with a zone are not supported")
    try:
        address = ip_address(text)
    except ValueError:
        raise ValueError("no address") from None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return address if mapped is None else mapped


@frozen
class PeerAddress:
    """BGPPeer.spec.peerIP: canonical address text, and the port if one was written."""

    address: str
    port: int | None = None

    @property
    def family(self) -> Family:
        """The family of the session."""
        return IPV6_UNICAST if ":" in self.address else IPV4_UNICAST


def peer_address(text: str) -> PeerAddress:
    """ "a.b.c.d", "v6", "a.b.c.d:port" or "[v6]:port"."""
    host, port = text, ""
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            raise ValueError("brackets are wrong")
        port = rest[1:] if rest else ""
        if rest == ":":
            raise ValueError("the port is missing")
    elif text.count(":") == 1:
        host, _, port = text.partition(":")
        if not port:
            raise ValueError("the port is missing")
    address = host_address(host)
    if not port:
        return PeerAddress(str(address))
    value = number(port, 65535)
    if value == 0:
        raise ValueError("port 0")
    return PeerAddress(str(address), value)


def community(text: str) -> Community:
    """ "aa:nn" or "aa:nn:mm" (RFC 1997, RFC 8092)."""
    parts = text.split(":")
    if len(parts) == 2:
        high, low = (number(part, 0xFFFF) for part in parts)
        return high << 16 | low
    if len(parts) == 3:
        a, b, c = (number(part, _LIMIT32) for part in parts)
        return (a, b, c)
    raise ValueError("neither two nor three parts")
