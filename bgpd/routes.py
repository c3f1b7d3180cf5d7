"""Values that the RIB, the kernel side and the shell exchange about local routes and forwarding.

They are plain and frozen, name no kernel interface, and are compared by value. What is made for each attribute set
is a named tuple: half the price of a frozen class, and hashed in C.
"""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

from attrs import frozen

from bgpd.family import Family
from bgpd.policy.terms import SourceKind


class RouteKind(IntEnum):
    """What a forwarding entry does with packets."""

    UNICAST = 0
    BLACKHOLE = 1
    UNREACHABLE = 2


class Hop(NamedTuple):
    """One next hop of a forwarding entry: packed gateway (b"" = on the link itself) and interface index."""

    gateway: bytes
    interface: int
    onlink: bool = False


class FibRoute(NamedTuple):
    """A forwarding entry as wanted in the kernel. `hops` is empty unless `kind` is UNICAST."""

    kind: RouteKind
    hops: tuple[Hop, ...]
    metric: int
    """Kernel priority; 0 = none given (IPv6 kernels show it as 1024)."""


@frozen
class LocalRoute:
    """A route that this host has without BGP: learned from the kernel, or from an interface's address."""

    family: Family
    key: bytes
    kind: SourceKind
    """KERNEL or DIRECT."""
    hops: tuple[Hop, ...]
    metric: int
    interface: str
    """Name of the outgoing interface; "" for blackholes, unreachables and multipath routes."""
    protocol: int
    """rtm_protocol (80 = Felix); 0 for direct routes."""
    label: str
    """For people: "kernel route, protocol 80 (Felix)", "address of eth0"."""
    reachable: bool = True
    """False for blackhole, unreachable and prohibit: nothing resolves through them."""


@frozen
class LocalChange:
    """One change of the host's own routes. `route` None: gone. At most one route per (kind, family, key) exists."""

    kind: SourceKind
    family: Family
    key: bytes
    route: LocalRoute | None
