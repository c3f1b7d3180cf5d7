"""What the kernel is asked to hold: forwarding entries and nexthop objects, shared by all prefixes using them. Pure."""

from __future__ import annotations

from bgpd.fib import messages as nl
from bgpd.routes import FibRoute, RouteKind

ABSENT, FAILED, PRESENT, STALE = 0, 1, 2, 3
"""States of a nexthop object: not there, refused, there, there with another content than it should have."""

TYPES = {
    RouteKind.UNICAST: nl.RTN_UNICAST,
    RouteKind.BLACKHOLE: nl.RTN_BLACKHOLE,
    RouteKind.UNREACHABLE: nl.RTN_UNREACHABLE,
}
IPV6_DEFAULT_METRIC = 1024

Target = tuple[int, int, tuple[nl.HopKey, ...]]
"""What a route does, whatever its form in the kernel: (type, metric as the kernel shows it, sorted hops)."""
Content = tuple[int, tuple[nl.HopKey, ...]]
"""What a nexthop object leads to. The family is 0 where the gateways tell it."""


class Failure:
    """A refusal of the kernel, and when it is asked again."""

    __slots__ = ("attempts", "errno", "retry_at", "text")

    def __init__(self, errno: int, text: str, attempts: int, retry_at: float) -> None:
        self.errno = errno
        self.text = text
        self.attempts = attempts
        self.retry_at = retry_at


_UNPACKED = (None, None, None)


class _Packed:
    """Something with a message for each verb, packed on first use and shared by all its prefixes."""

    __slots__ = ("afi", "packer", "wires")

    def __init__(self, packer: nl.Packer, afi: int) -> None:
        self.packer = packer
        self.afi = afi
        self.wires: tuple[nl.Wire | None, nl.Wire | None, nl.Wire | None] = _UNPACKED

    def _keep(self, verb: int, wire: nl.Wire) -> nl.Wire:
        wires = list(self.wires)
        wires[verb] = wire
        self.wires = (wires[0], wires[1], wires[2])
        return wire

    def unpack(self) -> None:
        """An id in the messages changed: none that is packed holds."""
        self.wires = _UNPACKED


class Nexthop(_Packed):
    """One nexthop object of ours. A group's `members` are others; `groups` are the groups that it is in.

    There are thousands of them: containers are made only for those that need them.
    """

    __slots__ = ("attempts", "content", "doubt", "failure", "groups", "id", "members", "refs", "state", "waiting")

    def __init__(self, packer: nl.Packer, ident: int, afi: int, content: Content, members: tuple[Nexthop, ...]) -> None:
        self.packer, self.afi, self.wires = packer, afi, _UNPACKED  # as `_Packed` has it, without a call
        self.id = ident
        self.content = content
        self.members = members
        self.groups: tuple[Nexthop, ...] = ()
        self.refs = 0
        """Forms that lead to it."""
        self.state = ABSENT
        self.doubt = False
        """Asked for again because its being there is in doubt: that it exists is then no surprise."""
        self.attempts = 0
        self.failure: Failure | None = None
        self.waiting: dict[tuple[int, bytes], None] | None = None
        """(address family, key) of routes that cannot be written before it is there."""

    @property
    def hops(self) -> tuple[nl.HopKey, ...]:
        """Sorted."""
        return self.content[1]

    @property
    def used(self) -> bool:
        """Whether anything of ours refers to it."""
        return bool(self.refs or self.groups)

    def pack(self, verb: int) -> nl.Wire:
        """Prepare the message for a verb."""
        hop = None if self.members else self.content[1][0]
        members = [member.id for member in self.members]
        return self._keep(verb, self.packer.nexthop(verb, self.id, self.afi, hop, members))


class Form(_Packed):
    """One forwarding entry in the form in which it is written: with a nexthop object, or with plain hops.

    `refs` counts the prefixes for which it is wanted and those for which it is installed; `live` while there are any.
    """

    __slots__ = ("live", "metric", "nexthop", "nexthop_id", "refs", "target")

    def __init__(
        self, packer: nl.Packer, afi: int, target: Target, nexthop: Nexthop | None, nexthop_id: int = 0
    ) -> None:
        self.packer, self.afi, self.wires = packer, afi, _UNPACKED
        self.target = target
        self.metric = target[1]
        self.nexthop = nexthop
        self.nexthop_id = nexthop_id
        """Of an object that is not ours."""
        self.refs = 0
        self.live = False

    def uses(self, ifindex: int) -> bool:
        """Whether a hop leaves by the interface."""
        return any(hop[1] == ifindex for hop in self.target[2])

    def shown(self, ifindex: int) -> bool:
        """Whether a dump of the routes by one interface (0 = all) would show it for sure.

        With an object it would not: a group that lost a member no longer leads there. But with an object the route
        lives as long as the object does.
        """
        return not ifindex or (self.nexthop is None and self.uses(ifindex))

    def pack(self, verb: int) -> nl.Wire:
        """Prepare the message for a verb."""
        ident = self.nexthop.id if self.nexthop is not None else self.nexthop_id
        return self._keep(verb, self.packer.route(verb, self.afi, *self.target, ident))


def target_of(afi: int, route: FibRoute) -> Target:
    """The wanted route in the terms of the kernel."""
    metric = route.metric or (IPV6_DEFAULT_METRIC if afi == nl.AF_INET6 else 0)
    # A Hop is what HopKey says, as it is.
    if len(route.hops) == 1:
        return nl.RTN_UNICAST, metric, route.hops
    if route.kind != RouteKind.UNICAST:
        return TYPES[route.kind], metric, ()
    return nl.RTN_UNICAST, metric, tuple(sorted(set(route.hops)))
