"""Capabilities (RFC 5492): one frozen class each, with its length rule, parser and builder.

A capability whose length contradicts its own definition makes the OPEN malformed (2/0). Unknown capabilities are kept
as octets and ignored; ADD-PATH modes that nobody defined are dropped (RFC 7911 §4).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import MappingProxyType
from typing import TypeAlias

from attrs import frozen

from bgpd.errors import BGPError, ErrorCode
from bgpd.family import Family


@frozen
class MultiProtocol:
    """RFC 4760 §8."""

    family: Family


@frozen
class RouteRefreshCapability:
    """RFC 2918."""


@frozen
class EnhancedRouteRefresh:
    """RFC 7313."""


@frozen
class FourOctetAs:
    """RFC 6793: the speaker's AS number in full."""

    asn: int


@frozen
class AddPathCapability:
    """RFC 7911: (family, mode) pairs; mode 1 receive, 2 send, 3 both."""

    modes: tuple[tuple[Family, int], ...]


@frozen
class GracefulRestartCapability:
    """RFC 4724, N bit of RFC 8538. `families`: (family, forwarding state preserved). `time` in seconds, 0-4095."""

    restarting: bool
    notification: bool
    time: int
    families: tuple[tuple[Family, bool], ...]


@frozen
class ExtendedMessageCapability:
    """RFC 8654."""


@frozen
class ExtendedNextHopCapability:
    """RFC 8950: (NLRI family, AFI of the next hop) pairs."""

    families: tuple[tuple[Family, int], ...]


@frozen
class LongLivedGracefulRestartCapability:
    """RFC 9494: (family, forwarding state preserved, stale time in seconds)."""

    families: tuple[tuple[Family, bool, int], ...]


@frozen
class UnknownCapability:
    """Any other, as octets."""

    code: int
    value: bytes


Capability: TypeAlias = (
    MultiProtocol
    | RouteRefreshCapability
    | EnhancedRouteRefresh
    | FourOctetAs
    | AddPathCapability
    | GracefulRestartCapability
    | ExtendedMessageCapability
    | ExtendedNextHopCapability
    | LongLivedGracefulRestartCapability
    | UnknownCapability
)

_ORF, _ROLE, _FQDN = 3, 9, 73


def _groups(value: bytes, size: int, skip: int = 0) -> Iterator[bytes]:
    return (value[i : i + size] for i in range(skip, len(value), size))


def _family(octets: bytes) -> Family:
    return Family(octets[0] << 8 | octets[1], octets[2])


def _pack(family: Family) -> bytes:
    return family.afi.to_bytes(2, "big") + bytes((family.safi,))


def _multi_protocol(value: bytes) -> Capability:
    return MultiProtocol(Family(value[0] << 8 | value[1], value[3]))


def _add_path(value: bytes) -> Capability:
    return AddPathCapability(tuple((_family(g), g[3]) for g in _groups(value, 4) if 1 <= g[3] <= 3))


def _graceful_restart(value: bytes) -> Capability:
    flags = value[0] >> 4
    families = tuple((_family(g), bool(g[3] & 0x80)) for g in _groups(value, 4, 2))
    return GracefulRestartCapability(bool(flags & 8), bool(flags & 4), (value[0] & 0x0F) << 8 | value[1], families)


def _extended_next_hop(value: bytes) -> Capability:
    groups = _groups(value, 6)
    return ExtendedNextHopCapability(tuple((Family(g[0] << 8 | g[1], g[3]), g[4] << 8 | g[5]) for g in groups))


def _long_lived(value: bytes) -> Capability:
    groups = _groups(value, 7)
    return LongLivedGracefulRestartCapability(
        tuple((_family(g), bool(g[3] & 0x80), int.from_bytes(g[4:], "big")) for g in groups)
    )


def _names_fit(value: bytes) -> bool:
    """Host and domain name of the FQDN capability, each behind its length."""
    if not value or len(value) < 2 + value[0]:
        return False
    return len(value) >= 2 + value[0] + value[1 + value[0]]


_Row: TypeAlias = tuple[Callable[[bytes], bool], Callable[[bytes], Capability] | None]
_TABLE: MappingProxyType[int, _Row] = MappingProxyType(
    {
        1: (lambda v: len(v) == 4, _multi_protocol),
        # RFC 2918 §2 says length 0; octets that should not be there hurt nobody and are dropped.
        2: (lambda v: True, lambda v: RouteRefreshCapability()),
        _ORF: (lambda v: len(v) >= 5, None),
        5: (lambda v: len(v) % 6 == 0, _extended_next_hop),
        6: (lambda v: True, lambda v: ExtendedMessageCapability()),
        _ROLE: (lambda v: len(v) == 1, None),
        64: (lambda v: len(v) >= 2 and len(v) % 4 == 2, _graceful_restart),
        65: (lambda v: len(v) == 4, lambda v: FourOctetAs(int.from_bytes(v, "big"))),
        69: (lambda v: len(v) % 4 == 0, _add_path),
        70: (lambda v: True, lambda v: EnhancedRouteRefresh()),
        71: (lambda v: len(v) % 7 == 0, _long_lived),
        _FQDN: (_names_fit, None),
    }
)


def parse_capabilities(data: bytes) -> list[Capability]:
    """The capabilities of one optional parameter, in order, repeats included. Raises BGPError 2/0."""
    found: list[Capability] = []
    start = 0
    while start < len(data):
        header = data[start : start + 2]
        value = data[start + 2 : start + 2 + header[-1]]
        if len(header) < 2 or len(value) < header[1]:
            raise BGPError(ErrorCode.OPEN_MESSAGE, 0, reason="capability runs over its parameter")
        found.append(parse_capability(header[0], value))
        start += 2 + len(value)
    return found


def parse_capability(code: int, value: bytes) -> Capability:
    """One capability; unknown ones, and known ones that we have no use for, as octets. Raises BGPError 2/0."""
    row = _TABLE.get(code)
    if row is None:
        return UnknownCapability(code, value)
    fits, parse = row
    if not fits(value):
        raise BGPError(ErrorCode.OPEN_MESSAGE, 0, reason=f"capability {code} of length {len(value)}")
    return UnknownCapability(code, value) if parse is None else parse(value)


def build_capability(capability: Capability) -> bytes:
    """Code, length and value."""
    code, value = _encode(capability)
    return bytes((code, len(value))) + value


def _encode(capability: Capability) -> tuple[int, bytes]:
    match capability:
        case MultiProtocol(family):
            return 1, family.afi.to_bytes(2, "big") + bytes((0, family.safi))
        case RouteRefreshCapability():
            return 2, b""
        case ExtendedNextHopCapability(families):
            return 5, b"".join(_encode_next_hop_family(family, afi) for family, afi in families)
        case ExtendedMessageCapability():
            return 6, b""
        case GracefulRestartCapability():
            return 64, _encode_graceful_restart(capability)
        case FourOctetAs(asn):
            return 65, asn.to_bytes(4, "big")
        case AddPathCapability(modes):
            return 69, b"".join(_pack(family) + bytes((mode,)) for family, mode in modes)
        case EnhancedRouteRefresh():
            return 70, b""
        case LongLivedGracefulRestartCapability(long_lived):
            return 71, b"".join(_encode_long_lived(*entry) for entry in long_lived)
        case UnknownCapability(code, value):
            return code, value
    raise TypeError(f"not a capability: {capability!r}")


def _encode_next_hop_family(family: Family, afi: int) -> bytes:
    return family.afi.to_bytes(2, "big") + family.safi.to_bytes(2, "big") + afi.to_bytes(2, "big")


def _encode_long_lived(family: Family, kept: bool, time: int) -> bytes:
    return _pack(family) + bytes((0x80 if kept else 0,)) + time.to_bytes(3, "big")


def _encode_graceful_restart(capability: GracefulRestartCapability) -> bytes:
    flags = (8 if capability.restarting else 0) | (4 if capability.notification else 0)
    head = flags << 12 | min(capability.time, 4095)
    rows = (_pack(family) + bytes((0x80 if kept else 0,)) for family, kept in capability.families)
    return head.to_bytes(2, "big") + b"".join(rows)
