"""The rows: what is changed, what the neighbours change with it, and how its effect shows outside."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from attrs import field, frozen

from tests.netns.changes.lab import BirdPlan, ChangeLab, Edit

Seen = Callable[[ChangeLab], object]
BIRD4, BIRD6, FRR4, FRR6 = SESSIONS = ("BIRD IPv4", "BIRD IPv6", "FRR IPv4", "FRR IPv6")
MAXIMUM = 2147483647


@frozen
class Row:
    """One field, changed once."""

    name: str
    """As Calico names it: "BGPPeer.spec.nextHopMode"."""
    attributes: tuple[str, ...]
    """Which attributes of `config.resources` it fills: "BGPPeer.next_hop_mode"."""
    what: str
    edits: Sequence[Edit]
    effect: str
    """How it shows; "" = it is not to show at all (`seen` None)."""
    seen: Seen | None = None
    before: Sequence[Edit] = ()
    """Puts the base into the state that the change begins with."""
    bird: BirdPlan = field(factory=BirdPlan)
    """BIRD's configuration that fits the change; set together with it."""
    bird_before: BirdPlan = field(factory=BirdPlan)
    frr: Sequence[str] = ()
    """Lines below FRR's `router bgp`, set together with the change, and those that take them back."""
    frr_undo: Sequence[str] = ()
    frr_before: Sequence[str] = ()
    gone: tuple[str, ...] = ()
    """Sessions that do not come back under the change."""
    next_session: Callable[[ChangeLab], object] | None = None
    """It is in effect with the next OPEN: this makes the neighbour begin anew."""


def row(
    field: str,
    attributes: str,
    what: str,
    edits: Sequence[Edit] | Any,
    effect: str = "",
    seen: Seen | None = None,
    **more: Any,
) -> Row:
    """A Row; `edits` may be the new value of the field, where the object has the usual name."""
    return Row(field, tuple(attributes.split()), what, edits, effect, seen, **more)


def metric_of(prefix: str, metric: int) -> Seen:
    """Node-a's kernel has our route with this metric."""
    return lambda lab: (found := lab.kernel(prefix)) is not None and found.metric == metric


def in_kernel(prefix: str, present: bool = True) -> Seen:
    """Node-a's kernel has our route, or not."""
    return lambda lab: (lab.kernel(prefix) is not None) == present


def at_frr(prefix: str, present: bool = True) -> Seen:
    """FRR has the route, or not."""
    return lambda lab: bool(lab.at_frr(prefix)) == present


def at_bird(prefix: str, present: bool = True) -> Seen:
    """BIRD has the route, or not."""
    return lambda lab: bool(lab.at_bird(prefix)) == present


def bird_says(prefix: str, words: str) -> Seen:
    """BIRD's route has these words among its attributes."""
    return lambda lab: words in lab.at_bird(prefix)


def frr_path(prefix: str, path: str) -> Seen:
    """FRR's route has this AS_PATH."""
    return lambda lab: lab.at_frr(prefix).get("aspath", {}).get("string") == path


def frr_community(prefix: str, community: str) -> Seen:
    """FRR's route has this community."""
    return lambda lab: community in lab.at_frr(prefix).get("community", {}).get("string", "")


def frr_next_hop(prefix: str, address: str) -> Seen:
    """FRR's route has this next hop."""
    return lambda lab: any(hop.get("ip") == address for hop in lab.at_frr(prefix).get("nexthops", ()))


def established(*sessions: str) -> Seen:
    """These sessions stand (again)."""
    return lambda lab: all(lab.sessions()[name] for name in sessions)


def away(*sessions: str) -> Seen:
    """These sessions do not stand."""
    return lambda lab: not any(lab.sessions()[name] for name in sessions)


def restart_bird(lab: ChangeLab) -> None:
    """BIRD begins its sessions anew."""
    for protocol in ("node_a_4", "node_a_6"):
        lab.bird.control(f"restart {protocol}")


def restart_frr(lab: ChangeLab) -> None:
    """FRR begins its IPv4 session anew."""
    lab.frr.control("clear bgp 172.20.0.11")
