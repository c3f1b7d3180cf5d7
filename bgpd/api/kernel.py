"""The kernel side as the API shows it: one prefix's state, counts, and what is in trouble."""

from __future__ import annotations

from collections.abc import Iterator
from errno import EEXIST
from itertools import islice
from math import inf

from attrs import asdict

from bgpd.api import render
from bgpd.api.schema import KernelRoute, KernelState, KernelSummary
from bgpd.api.state import DaemonState
from bgpd.family import FAMILIES, IPV4_UNICAST, IPV6_UNICAST, Family, format_address
from bgpd.fib import messages as nl
from bgpd.fib.entries import FAILED, TYPES
from bgpd.fib.learn import protocol_name
from bgpd.fib.side import Side
from bgpd.fib.table import FibState, FibStatus, FibTable

_STATES: dict[FibStatus, KernelState] = {
    FibStatus.ABSENT: "absent",
    FibStatus.INSTALLED: "installed",
    FibStatus.PENDING: "pending",
    FibStatus.REFUSED: "refused",
    FibStatus.FOREIGN: "foreign",
    FibStatus.HELD: "held",
}
_KINDS = {number: kind.name.lower() for kind, number in TYPES.items()}
_AFI = {IPV4_UNICAST: nl.AF_INET, IPV6_UNICAST: nl.AF_INET6}


def summary(state: DaemonState) -> KernelSummary | None:
    """Counts and counters; None without a kernel role, or before the first dump."""
    if state.kernel is None:
        return None
    fib = state.kernel.fib
    return {
        "enabled": state.speaker is not None and state.speaker.settings.fib.enabled,
        "table": fib.table,
        "protocol": fib.protocol,
        "nexthop_objects": fib.objects,
        "states": {str(family): _states(fib, fib.sides[_AFI[family]]) for family in FAMILIES},
        "counters": asdict(fib.counters) | {"lost_events": state.kernel.lost_events, "dumps": state.kernel.dumps},
    }


def _states(fib: FibTable, side: Side) -> dict[str, int]:
    foreign = sum(failure.errno == EEXIST for failure in side.refused.values())
    held = 0
    if fib.hold_deletes:
        held = len(side.installed) - sum(map(side.wanted.__contains__, side.installed))
    return {
        "wanted": len(side.wanted),
        "installed": len(side.installed) - held,
        "pending": len(side.pending),
        "refused": len(side.refused) - foreign + _waiting(fib, side.afi),
        "foreign": foreign,
        "held": held,
    }


def _waiting(fib: FibTable, afi: int) -> int:
    """Routes whose nexthop object the kernel refused."""
    return sum(family == afi for family, _ in _blocked(fib))


def _blocked(fib: FibTable) -> Iterator[tuple[int, bytes]]:
    for nexthop in fib.nexthops.by_id.values():
        if nexthop.state == FAILED:
            yield from nexthop.waiting or ()


def state_of(state: DaemonState, family: Family, key: bytes) -> KernelState | None:
    """One prefix with a best path, in a word; None without a kernel role."""
    if state.kernel is None:
        return None
    side = state.kernel.fib.sides[_AFI[family]]
    wanted, have = side.wanted.get(key), side.installed.get(key)
    if wanted is not None and have is not None and wanted.target == have.target:
        return "installed"  # as nearly all are: a walk over a table asks this for each prefix
    status = state.kernel.fib.state(family, key).status
    return "unwanted" if status is FibStatus.ABSENT else _STATES[status]


def route_of(state: DaemonState, family: Family, key: bytes) -> KernelRoute | None:
    """What is known of one prefix; None if nothing of ours is wanted and nothing is there."""
    if state.kernel is None:
        return None
    known = state.kernel.fib.state(family, key)
    return None if known.status is FibStatus.ABSENT else _route(state, family, key, known)


def troubles(state: DaemonState, limit: int) -> tuple[list[KernelRoute], int]:
    """Routes that are wanted and not in the kernel because it refuses them or another's stand there: the first `limit`,
    and how many more there are."""
    if state.kernel is None:
        return [], 0
    fib = state.kernel.fib
    shown = [_route(state, family, key, fib.state(family, key)) for family, key in islice(_troubled(fib), limit)]
    total = sum(len(side.refused) + _waiting(fib, side.afi) for side in fib.sides.values())
    return shown, max(total - len(shown), 0)


def _troubled(fib: FibTable) -> Iterator[tuple[Family, bytes]]:
    families = {afi: family for family, afi in _AFI.items()}
    for side in fib.sides.values():
        for key in side.refused:
            yield families[side.afi], key
    for afi, key in _blocked(fib):
        yield families[afi], key


def _route(state: DaemonState, family: Family, key: bytes, known: FibState) -> KernelRoute:
    assert state.kernel is not None
    side = state.kernel.fib.sides[_AFI[family]]
    form = side.wanted.get(key) or side.installed.get(key)
    retry = known.retry_at - state.clock() if known.retry_at != inf else None
    return {
        "family": str(family),
        "prefix": render.prefix(family, key),
        "state": _STATES[known.status],
        "kind": _KINDS.get(form.target[0], "other") if form is not None else "",
        "hops": [_hop(state, hop) for hop in known.hops],
        "metric": known.metric,
        "errno": known.errno or None,
        "text": _text(known),
        "retry_in": None if retry is None else max(retry, 0.0),
    }


def _hop(state: DaemonState, hop: nl.HopKey) -> str:
    assert state.kernel is not None
    gateway, interface, onlink = hop
    name = state.kernel.interface_name(interface)
    via = f"via {format_address(gateway)} " if gateway else ""
    return f"{via}dev {name}{' onlink' if onlink else ''}"


def _text(known: FibState) -> str:
    if known.status is FibStatus.FOREIGN:
        text = known.text or "another program's route has this prefix and metric"
        return f"{text} (its protocol is {protocol_name(known.foreign_protocol)})" if known.foreign_protocol else text
    if known.status is FibStatus.PENDING:
        return "it is being written"
    if known.status is FibStatus.HELD:
        return "kept until the restart phase is over"
    return known.text
