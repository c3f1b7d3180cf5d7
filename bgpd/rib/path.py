"""Sources and paths: who said a route, and what was said."""

from __future__ import annotations

from bgpd.family import Family
from bgpd.policy.terms import BGP_KINDS, SourceKind
from bgpd.rib.nexthop import NextHop
from bgpd.routes import FibRoute
from bgpd.wire.attributes import PathAttributes

PREFERENCE = {
    SourceKind.DIRECT: 240,
    SourceKind.STATIC: 200,
    SourceKind.EBGP: 100,
    SourceKind.IBGP: 100,
    SourceKind.IBGP_CLIENT: 100,
    SourceKind.KERNEL: 10,
}
"""Step 0 of the decision process (Calico reference §8.1)."""


class Source:
    """Where paths come from: a configured peer, or one of the local kinds. Outlives sessions (RFC 4724).

    A lost session or the start of a refresh raises `epoch` of a family: paths of an older epoch are stale.
    """

    __slots__ = (
        "_renamed",
        "address",
        "epochs",
        "is_bgp",
        "kind",
        "name",
        "peer_asn",
        "preference",
        "router_id",
        "send_ids",
    )

    def __init__(self, name: str, kind: SourceKind, address: bytes = b"", peer_asn: int = 0) -> None:
        self.name = name
        self.become(kind)
        self.address = address
        self.peer_asn = peer_asn
        self.router_id = b"\0\0\0\0"
        self.epochs: dict[Family, int] = {}
        self._renamed: dict[Family, int] = {}
        """Since which epoch the peer has its present identifier; from the first one on where nothing is noted."""
        self.send_ids: dict[int, bytes] = {}

    def become(self, kind: SourceKind) -> None:
        """Where it stands to us; a peer's may change with settings."""
        self.kind = kind
        # These are asked for every path, and an enum's hash is a Python call.
        self.is_bgp = kind in BGP_KINDS
        """Learned from a BGP peer."""
        self.preference = PREFERENCE[kind]
        """What its paths have before policy."""

    def identify(self, router_id: bytes) -> None:
        """The peer's BGP identifier in the session that begins. Another one than before is news with each route that is
        kept from then: it decides (RFC 4271 §9.1.2.2 f), and is told on as ORIGINATOR_ID (RFC 4456 §8)."""
        if router_id != self.router_id:
            self.router_id = router_id
            self._renamed = self.epochs.copy()

    def renamed(self, family: Family, epoch: int, other: int) -> bool:
        """Whether the peer had different identifiers in these epochs."""
        since = self._renamed.get(family, 0)
        return (epoch < since) is not (other < since)

    def __repr__(self) -> str:
        return f"Source({self.name}, {self.kind.value})"


class Path:
    """One route as learned from one source, with the outcome of import. Shared by all its prefixes; compared by
    identity.

    `received` are the attributes as the peer sent them, `attrs` those in force after import. `rejected` is "" or the
    reason why the path is kept in Adj-RIB-In only. `label` names the import term that decided.
    """

    __slots__ = (
        "__weakref__",
        "attrs",
        "epoch",
        "head",
        "label",
        "next_hop",
        "path_id",
        "preference",
        "received",
        "rejected",
        "send_id",
        "source",
        "tail",
    )

    metric = -1
    """Kernel priority of a local path; -1 = none."""
    interface = ""
    """Outgoing interface of a local path."""
    fixed: FibRoute | None = None
    """The forwarding entry of a static route; None for all others."""

    def __init__(
        self,
        source: Source,
        path_id: int,
        epoch: int,
        received: PathAttributes,
        attrs: PathAttributes,
        next_hop: NextHop,
        send_id: bytes,
        preference: int,
        rejected: str = "",
        label: str = "",
    ) -> None:
        self.source = source
        self.path_id = path_id
        self.epoch = epoch
        self.received = received
        self.attrs = attrs
        self.next_hop = next_hop
        self.send_id = send_id
        self.preference = preference
        self.rejected = rejected
        self.label = label
        self.head: tuple[int, ...] | None = None
        self.tail: tuple[bytes, int, bytes, int] | None = None
        """Kept by the decision process: steps 0 to 4, and 8 to 11."""

    def same(self, other: Path) -> bool:
        """True where nothing that anyone downstream could see differs: a repeated announcement."""
        return (
            self.attrs is other.attrs
            and self.source is other.source
            and self.path_id == other.path_id
            and self.next_hop is other.next_hop
            and self.preference == other.preference
            and self.metric == other.metric
            and self.interface == other.interface
            and self.fixed == other.fixed
            and self.rejected == other.rejected
            and (self.epoch == other.epoch or not self.source.renamed(self.attrs.family, self.epoch, other.epoch))
        )

    @property
    def outgoing_interface(self) -> str:
        """Name of the interface that packets leave by, "" if none or not known."""
        return self.interface or self.next_hop.interface

    def __repr__(self) -> str:
        return f"Path({self.source.name}, id {self.path_id}, epoch {self.epoch})"


class LocalPath(Path):
    """A path of the host's own, with what only such have."""

    __slots__ = ("fixed", "interface", "metric")

    def __init__(
        self,
        source: Source,
        attrs: PathAttributes,
        next_hop: NextHop,
        send_id: bytes,
        label: str,
        metric: int,
        interface: str,
        fixed: FibRoute | None,
    ) -> None:
        super().__init__(source, 0, 0, attrs, attrs, next_hop, send_id, source.preference, label=label)
        self.metric = metric
        self.interface = interface
        self.fixed = fixed


Entry = Path | tuple[Path, ...]
"""What the Loc-RIB holds for a key: one path, or several with the best first."""
