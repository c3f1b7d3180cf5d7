"""What the interop tests say to a peer and read back from it, in one vocabulary for every daemon."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from ipaddress import ip_address, ip_network

from attrs import evolve, frozen

IPV4 = "ipv4"
IPV6 = "ipv6"
BOTH = (IPV4, IPV6)


def family_name(text: str) -> str:
    """ "ipv6" for an address or prefix with a colon, else "ipv4"."""
    return IPV6 if ":" in text else IPV4


@frozen(order=True)
class Route:
    """One path as a daemon tells it. AS_PATH is text ("65001 65002 {65003}"); absent attributes are None or empty."""

    prefix: str
    next_hop: str
    as_path: str = ""
    origin: str = "igp"
    local_pref: int | None = None
    med: int | None = None
    communities: tuple[str, ...] = ()
    large_communities: tuple[str, ...] = ()

    def without(self, *names: str) -> Route:
        """The route with these fields set back to their defaults, for daemons that cannot tell them."""
        defaults = Route(self.prefix, "")
        return evolve(self, **{name: getattr(defaults, name) for name in names})


def route(
    prefix: str,
    next_hop: str,
    as_path: str = "",
    origin: str = "igp",
    local_pref: int | None = None,
    med: int | None = None,
    communities: Iterable[str] = (),
    large_communities: Iterable[str] = (),
) -> Route:
    """A Route in normal form: canonical addresses, AS_SETs and communities sorted."""
    return Route(
        str(ip_network(prefix)),
        str(ip_address(next_hop)) if next_hop else "",
        normal_as_path(as_path),
        origin.lower(),
        local_pref,
        med,
        tuple(sorted(set(communities), key=_numbers)),
        tuple(sorted(set(large_communities), key=_numbers)),
    )


def _numbers(community: str) -> tuple[int, ...]:
    return tuple(int(part) if part.isdigit() else 0 for part in community.split(":"))


def normal_as_path(text: str) -> str:
    """Sequences as plain numbers, sets as {a b} with their numbers in order, whatever the daemon's own punctuation."""
    out: list[str] = []
    members: list[int] | None = None
    spaced = text.replace("{", " { ").replace("[", " { ").replace("}", " } ").replace("]", " } ").replace(",", " ")
    for word in spaced.split():
        if word == "{":
            members = []
        elif word == "}":
            out.append("{" + " ".join(map(str, sorted(members or []))) + "}")
            members = None
        elif members is None:
            out.append(word)
        else:
            members.append(int(word))
    return " ".join(out)


@frozen
class Announcement:
    """A route that a peer is told to announce. `next_hop` None: the daemon's own address."""

    prefix: str
    next_hop: str | None = None
    med: int | None = None
    local_pref: int | None = None
    communities: tuple[str, ...] = ()
    large_communities: tuple[str, ...] = ()
    prepend: tuple[int, ...] = ()
    """AS numbers after the peer's own."""


@frozen
class SessionSpec:
    """One session as the peer daemon is to configure it. `local` and `remote` are addresses, seen from the peer."""

    local: str
    remote: str
    remote_as: int
    families: tuple[str, ...] = BOTH
    password: str | None = None
    ttl_security: bool = False
    add_path: bool = False
    graceful: int | None = None
    """Restart time in seconds; None = the capability is not offered."""
    max_prefixes: int = 0
    passive: bool = False
    hold_time: int = 90
    reflector_client: bool = False


@frozen
class PeerConfig:
    """The whole wanted state of one peer daemon."""

    asn: int
    router_id: str
    sessions: tuple[SessionSpec, ...]
    announcements: tuple[Announcement, ...] = ()

    def session(self, remote: str) -> SessionSpec:
        """The session with this remote address. Raises StopIteration where there is none."""
        return next(session for session in self.sessions if session.remote == remote)

    def announce(self, *more: Announcement) -> PeerConfig:
        """This configuration with more announcements; equal prefixes are replaced."""
        fresh = {item.prefix for item in more}
        kept = tuple(item for item in self.announcements if item.prefix not in fresh)
        return evolve(self, announcements=kept + more)

    def withdraw(self, *prefixes: str) -> PeerConfig:
        """This configuration without the announcements of these prefixes."""
        return evolve(self, announcements=tuple(a for a in self.announcements if a.prefix not in prefixes))


def difference(ours: Iterable[Route], theirs: Iterable[Route], limit: int = 5) -> str:
    """The first differences of two tables as text; "" where they are equal, path by path."""
    left, right = Counter(ours), Counter(theirs)
    lines = [f"only ours:   {item}" for item in sorted((left - right).elements(), key=str)[:limit]]
    lines += [f"only theirs: {item}" for item in sorted((right - left).elements(), key=str)[:limit]]
    return "\n".join(lines)
