"""The foreign daemons that the interop tests know, and what each can do.

`Daemon` (daemons/base.py) is the common interface: start with a PeerConfig, reconfigure, read tables, refresh, shut
down.
"""

from __future__ import annotations

from attrs import frozen

from tests.interop.daemons.base import Daemon, require
from tests.interop.daemons.bird import Bird
from tests.interop.daemons.exabgp import ExaBgp
from tests.interop.daemons.frr import Frr
from tests.interop.daemons.gobgp import GoBgp
from tests.interop.daemons.openbgpd import OpenBgpd
from tests.interop.model import Announcement, PeerConfig, Route, SessionSpec, family_name, route

__all__ = ["ALL", "TRAITS", "Bird", "Daemon", "ExaBgp", "Frr", "GoBgp", "OpenBgpd", "Traits", "expected", "need"]

ALL: tuple[type[Daemon], ...] = (Bird, Frr, GoBgp, OpenBgpd, ExaBgp)


@frozen
class Traits:
    """Where a daemon differs from the others in ways that no RFC forbids."""

    default_med: int | None = None
    """MED of its own routes where none is set."""
    shows_local_pref: int | None = None
    """LOCAL_PREF that it shows on eBGP routes, which carry none."""
    shows_med: int | None = None
    """MED that it shows where none came."""
    foreign_prepend: bool = True
    """It can put AS numbers of others behind its own."""
    mixed_session: bool = True
    """It can announce IPv6 routes with a usable next hop over IPv4 transport."""
    shutdown_text: bool = True
    changes_sessions: bool = True
    """It can change a session's key without a restart of its own."""
    keeps_table: bool = True
    """It has a table of its own, so that it can be a graceful restart helper."""
    limits_prefixes: bool = True
    asks_refresh: bool = True
    """It can be told to send a ROUTE-REFRESH."""


TRAITS: dict[type[Daemon], Traits] = {
    Bird: Traits(shows_local_pref=100),
    Frr: Traits(default_med=0),
    GoBgp: Traits(mixed_session=False, asks_refresh=False),
    OpenBgpd: Traits(shows_local_pref=100, shows_med=0, foreign_prepend=False, mixed_session=False),
    ExaBgp: Traits(shutdown_text=False, changes_sessions=False, keeps_table=False, limits_prefixes=False),
}


def need(kind: type[Daemon]) -> None:
    """Skip (in CI: fail) with a sentence where the daemon is not installed."""
    missing = kind.missing()
    require(missing is None, f"{kind.package} is not installed ({missing} not found); apt-get install {kind.package}")


def expected(kind: type[Daemon], config: PeerConfig, spec: SessionSpec, item: Announcement) -> Route:
    """What the other end of an eBGP session must hold for an announcement of this daemon."""
    traits = TRAITS[kind]
    external = spec.remote_as != config.asn
    local = next((s.local for s in config.sessions if family_name(s.local) == family_name(item.prefix)), spec.local)
    path = " ".join(map(str, (*((config.asn,) if external else ()), *item.prepend)))
    med = item.med if item.med is not None else traits.default_med
    local_pref = None if external else item.local_pref if item.local_pref is not None else 100
    return route(
        item.prefix,
        item.next_hop or local,
        path,
        "igp",
        local_pref,
        med,
        item.communities,
        item.large_communities,
    )
