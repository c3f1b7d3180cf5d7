"""All that the pure core can ask of the world. The shell carries effects out in the order in which it takes them.

Connections have integer ids that the shell gives and never uses again. `Connect` is answered by the Speaker's
`on_connected` or `on_connect_failed`; nothing else is answered: the shell drops a closed id at once, and what is still
on its way from that connection never reaches the Speaker.
"""

from __future__ import annotations

from bgpd.family import Family
from bgpd.routes import FibRoute
from bgpd.settings import PeerSettings

__all__ = [
    "Close",
    "Connect",
    "Effect",
    "ListenersChanged",
    "Log",
    "Program",
    "Ready",
    "Rekey",
    "ReleaseKernel",
    "Send",
    "Spread",
]

# Plain slotted classes: these are made by the thousand in one turn of the loop, where attrs' frozen `__init__` costs
# about twice as much.


class Connect:
    """Dial this peer, from its source address, with its port, key and TTL rule."""

    __slots__ = ("peer",)

    def __init__(self, peer: PeerSettings) -> None:
        self.peer = peer

    def __repr__(self) -> str:
        return f"Connect({self.peer.name!r})"


class Send:
    """Write these octets (whole messages) to a connection now, ahead of what `pull` would still give."""

    __slots__ = ("conn", "data")

    def __init__(self, conn: int, data: bytes) -> None:
        self.conn = conn
        self.data = data

    def __repr__(self) -> str:
        return f"Send({self.conn}, {len(self.data)} octets)"


class Close:
    """Close a connection; octets sent before (a NOTIFICATION) still go out, within about a second."""

    __slots__ = ("conn",)

    def __init__(self, conn: int) -> None:
        self.conn = conn

    def __repr__(self) -> str:
        return f"Close({self.conn})"


class Rekey:
    """Another TCP-MD5 key from here on, for the segments of this connection; if the kernel refuses, it is lost."""

    __slots__ = ("address", "conn", "password")

    def __init__(self, conn: int, address: str, password: str) -> None:
        self.conn = conn
        self.address = address
        self.password = password

    def __repr__(self) -> str:
        return f"Rekey({self.conn})"


class Ready:
    """`Speaker.pull` has something for these connections; the shell pulls as long as their transports take it."""

    __slots__ = ("conns",)

    def __init__(self, *conns: int) -> None:
        self.conns = conns

    def __repr__(self) -> str:
        return f"Ready{self.conns}"


class Spread:
    """Write these octets (whole messages) to each of several connections, of which none is blocked."""

    __slots__ = ("conns", "data")

    def __init__(self, conns: list[int], data: bytes) -> None:
        self.conns = conns
        self.data = data

    def __repr__(self) -> str:
        return f"Spread({self.conns}, {len(self.data)} octets)"


class Program:
    """Changed forwarding entries of one family by NLRI key; None: the entry shall go."""

    __slots__ = ("family", "routes")

    def __init__(self, family: Family, routes: dict[bytes, FibRoute | None]) -> None:
        self.family = family
        self.routes = routes

    def __repr__(self) -> str:
        return f"Program({self.family}, {len(self.routes)} routes)"


class ReleaseKernel:
    """The restart phase is over: own kernel routes that nothing asked for since the start may go (RFC 4724 §4.1)."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "ReleaseKernel()"


class Log:
    """One line for the log: `level` of the logging module, text for people, fields for the JSON form."""

    __slots__ = ("fields", "level", "text")

    def __init__(self, level: int, text: str, fields: dict[str, object] | None = None) -> None:
        self.level = level
        self.text = text
        self.fields = fields if fields is not None else {}

    def __repr__(self) -> str:
        return f"Log({self.level}, {self.text!r})"


class ListenersChanged:
    """Listen addresses, peers, keys or TTL rules changed: the shell compares `Speaker.settings` with its listeners."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "ListenersChanged()"


Effect = Connect | Send | Spread | Close | Rekey | Ready | Program | ReleaseKernel | Log | ListenersChanged
