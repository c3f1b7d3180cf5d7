"""What the core needs to know, in BGP's words. `config` (Calico) and `reflector` (flags) compile to this.

Everything is frozen and compared by value: `Speaker.reconfigure` diffs two SpeakerSettings. Each field names, in its
metadata, what a change of it costs a running session (`Cost`), so that a plan can say so before anything happens.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from typing import Any

from attrs import evolve, field, fields, frozen

from bgpd.family import IPV4_UNICAST, IPV6_UNICAST, Family
from bgpd.policy.terms import ACCEPT_ALL, Term

__all__ = [
    "IMPORT_RULES",
    "AddPath",
    "ChainRef",
    "Cost",
    "FamilySettings",
    "FibSettings",
    "LearnSettings",
    "NextHopMode",
    "PeerSettings",
    "SpeakerSettings",
    "StaticKind",
    "StaticRoute",
    "cost_of",
]


class Cost(IntEnum):
    """What a changed setting costs; ordered, so that the cost of several changes is their maximum."""

    NOTHING = 0
    """Takes effect in place."""
    CHAIN = 1
    """Routes are run through a policy chain again; only differences are sent."""
    REFRESH = 2
    """The peer's routes are taken in again, from its Adj-RIB-In; only differences go further."""
    RESET = 3
    """The session ends (Cease/6) and comes back."""
    RESTART = 4
    """Every session of the speaker ends and comes back."""


class AddPath(IntEnum):
    """ADD-PATH modes (RFC 7911 §4); the values are those on the wire."""

    OFF = 0
    RECEIVE = 1
    SEND = 2
    BOTH = 3


class NextHopMode(IntEnum):
    """How the next hop of a route sent to a peer is chosen (RFC 4271 §5.1.3; Calico BGPPeer.nextHopMode)."""

    AUTO = 0
    """eBGP: own address. iBGP: unchanged for learned routes, own address for local ones without a gateway."""
    SELF = 1
    """Always own address."""
    KEEP = 2
    """As learned, also to eBGP peers."""


class StaticKind(IntEnum):
    """What a static route does with packets."""

    BLACKHOLE = 0
    UNREACHABLE = 1
    GATEWAY = 2


def _costs(cost: Cost, *, free_while_set: bool = False) -> dict[str, Any]:
    """`free_while_set`: a change from one value to another, neither of them unset, takes effect in place."""
    return {"cost": cost, "free_while_set": free_while_set}


Terms = tuple[Term, ...]
ChainRef = Terms | str
"""A policy chain: its terms, or its name in `SpeakerSettings.import_chains` or `export_chains`."""


@frozen
class FamilySettings:
    """One family of one peer."""

    family: Family = field(metadata=_costs(Cost.RESET))
    import_chain: ChainRef = field(default=ACCEPT_ALL, metadata=_costs(Cost.REFRESH))
    export_chain: ChainRef = field(default=ACCEPT_ALL, metadata=_costs(Cost.CHAIN))
    add_path: AddPath = field(default=AddPath.BOTH, metadata=_costs(Cost.RESET))
    max_prefixes: int = field(default=0, metadata=_costs(Cost.NOTHING))
    """Cease/1 beyond this many prefixes, counted before policy (RFC 4486); 0 = no limit."""
    extended_next_hop: bool = field(default=False, metadata=_costs(Cost.RESET))
    """Offer IPv4 NLRI with IPv6 next hops (RFC 8950). Means something for IPv4 only."""


@frozen(slots=False)  # `inlined` copies thousands
class PeerSettings:
    """One neighbour. `name` is the key by which two settings are compared: a peer of another name is another peer."""

    name: str
    address: str
    """The peer's address in text form; incoming connections are matched by it."""
    asn: int = field(metadata=_costs(Cost.RESET))
    local_asn: int | None = field(default=None, metadata=_costs(Cost.RESET))
    """The AS that we use in this session instead of the speaker's (Calico localASNumber)."""
    port: int = field(default=179, metadata=_costs(Cost.NOTHING))
    passive: bool = field(default=False, metadata=_costs(Cost.NOTHING))
    """Never dial; only accept."""
    source_address: str | None = field(default=None, metadata=_costs(Cost.RESET))
    password: str | None = field(default=None, metadata=_costs(Cost.RESET, free_while_set=True), repr=False)
    """TCP-MD5 key (RFC 2385), at most 80 octets. Another key goes onto the running connection; key or none is a
    reset."""
    disabled: str = field(default="", metadata=_costs(Cost.RESET, free_while_set=True))
    """Why the session is held down: it stays Idle, neither dials nor accepts; "" = enabled. A running one ends with
    Cease/2 when this is set (RFC 4486)."""
    ttl_security_hops: int | None = field(default=None, metadata=_costs(Cost.RESET))
    """GTSM (RFC 5082): accept only TTL >= 256 - hops, send 255. None: send `ttl`, accept any."""
    ttl: int = field(default=64, metadata=_costs(Cost.RESET))
    families: tuple[FamilySettings, ...] = field(
        default=(FamilySettings(IPV4_UNICAST), FamilySettings(IPV6_UNICAST)), metadata=_costs(Cost.RESET)
    )
    hold_time: int = field(default=240, metadata=_costs(Cost.NOTHING))
    """Seconds offered in OPEN; 0 or at least 3. Takes effect with the next session."""
    keepalive_time: int | None = field(default=None, metadata=_costs(Cost.NOTHING))
    """Seconds; None = negotiated hold time / 3."""
    connect_retry_time: float = field(default=5.0, metadata=_costs(Cost.NOTHING))
    connect_delay_time: float = field(default=0.1, metadata=_costs(Cost.NOTHING))
    idle_hold_time: float = field(default=5.0, metadata=_costs(Cost.NOTHING))
    """Wait after an error NOTIFICATION, doubled up to 30 s by further ones (DampPeerOscillations)."""
    send_hold_time: float | None = field(default=None, metadata=_costs(Cost.NOTHING))
    """Seconds without one octet accepted by the peer's TCP (RFC 9687); None = max(480, 2 x hold time), 0 = off."""
    graceful_restart: bool = field(default=True, metadata=_costs(Cost.RESET))
    restart_time: int = field(default=120, metadata=_costs(Cost.NOTHING))
    """Seconds in the Graceful Restart capability, 0-4095; takes effect with the next session."""
    notification_restart: bool = field(default=True, metadata=_costs(Cost.RESET))
    """Offer the N bit (RFC 8538)."""
    helper_second_loss_keeps: bool = field(default=True, metadata=_costs(Cost.NOTHING))
    """Keep stale routes over a second loss, until the restart time from the first (deviates from RFC 4724 §4.2)."""
    route_refresh: bool = field(default=True, metadata=_costs(Cost.RESET))
    extended_messages: bool = field(default=True, metadata=_costs(Cost.RESET))
    reflector_client: bool = field(default=False, metadata=_costs(Cost.RESET))
    """RFC 4456: this iBGP peer is our client."""
    cluster_id: str | None = field(default=None, metadata=_costs(Cost.RESET))
    """Dotted quad; the cluster that the client is in. None = the speaker's, else its router id."""
    next_hop_mode: NextHopMode = field(default=NextHopMode.AUTO, metadata=_costs(Cost.CHAIN))
    own_addresses: tuple[tuple[Family, str], ...] = field(default=(), metadata=_costs(Cost.CHAIN))
    """Our next hop by family, where it is not the session's own address (IPv6 routes on an IPv4 session)."""
    allow_local_as: int = field(default=0, metadata=_costs(Cost.REFRESH))
    """How often our AS may be in a received AS_PATH."""
    enforce_first_as: bool = field(default=True, metadata=_costs(Cost.REFRESH))
    """eBGP: the AS_PATH must begin with the peer's AS (RFC 4271 §6.3)."""
    allow_own_cluster: bool = field(default=False, metadata=_costs(Cost.REFRESH))
    """iBGP: our cluster id may be in a received CLUSTER_LIST, though RFC 4456 §8 says that such a route SHOULD be
    ignored. Two reflectors of one cluster then stand in for each other's sessions with clients."""
    max_attribute_sets: int = field(default=0, metadata=_costs(Cost.NOTHING))
    """Cease/8 beyond this many distinct attribute sets; 0 = no limit."""
    max_octets: int = field(default=0, metadata=_costs(Cost.NOTHING))
    """Cease/8 beyond this many octets of attribute sets and NLRI kept for the peer; 0 = no limit."""
    label: str = field(default="", metadata=_costs(Cost.NOTHING))
    """Where the peer comes from ("BGPPeer tor-rack1"): printed, never parsed."""

    def with_families(self, families: tuple[FamilySettings, ...]) -> PeerSettings:
        """A copy with other families, in a twentieth of the time of `attrs.evolve`."""
        made = object.__new__(PeerSettings)
        object.__setattr__(made, "__dict__", self.__dict__ | {"families": families})
        return made


@frozen(cache_hash=True)
class StaticRoute:
    """A route of configuration's own: a block's blackhole, a peer's reachableBy gateway."""

    family: Family
    key: bytes
    kind: StaticKind
    label: str
    gateway: bytes = b""


@frozen
class LearnSettings:
    """What of the kernel's state becomes local paths. Patterns are shell patterns with `*` (Calico §7.1, §7.2)."""

    kernel: bool = True
    direct: bool = True
    ignored_interfaces: tuple[str, ...] = ("cali*", "kube-ipvs*")
    """Interfaces whose addresses give no direct routes."""
    table: int = 254


@frozen
class FibSettings:
    """Which routes go into the kernel, and how."""

    enabled: bool = True
    table: int = 254
    protocol: int = 12
    """rtm_protocol of our routes and nexthop objects: 12, BIRD's."""
    chains: tuple[tuple[Family, tuple[Term, ...]], ...] = (
        (IPV4_UNICAST, ACCEPT_ALL),
        (IPV6_UNICAST, ACCEPT_ALL),
    )
    """Per family: which best routes are programmed. BGP routes' metric is `metric_base` - LOCAL_PREF."""
    metric_base: int = 2147483647
    multipath: int = 16
    """At most this many next hops to a route (ECMP)."""
    nexthop_objects: bool = True
    """Use kernel nexthop objects where the kernel has them."""
    nexthop_id_base: int = 0x0CA11000
    """First id of our range of nexthop objects, 2^20 ids wide."""
    resync_time: float = 300.0
    """Seconds between full dumps that check the picture events have drawn."""


@frozen
class SpeakerSettings:
    """The whole wanted state of one speaker."""

    asn: int = field(metadata=_costs(Cost.RESTART))
    router_id: str = field(metadata=_costs(Cost.RESTART))
    listen: tuple[tuple[str, int], ...] = field(default=(("0.0.0.0", 179), ("::", 179)), metadata=_costs(Cost.NOTHING))
    """(address, port) to listen on; empty = do not listen."""
    cluster_id: str | None = field(default=None, metadata=_costs(Cost.RESTART))
    peers: tuple[PeerSettings, ...] = field(default=(), metadata=_costs(Cost.NOTHING))
    import_chains: Mapping[str, Terms] = field(factory=dict, hash=False, metadata=_costs(Cost.REFRESH))
    """Policy chains by the names that peers' families give. Thousands of peers share one, and a change of it leaves
    their own settings the very same objects."""
    export_chains: Mapping[str, Terms] = field(factory=dict, hash=False, metadata=_costs(Cost.CHAIN))
    dynamic: tuple[tuple[str, PeerSettings], ...] = field(default=(), metadata=_costs(Cost.NOTHING))
    """(CIDR, template): a connection from an address in the CIDR makes a passive peer of the template."""
    max_dynamic: int = field(default=0, metadata=_costs(Cost.NOTHING))
    """At most this many dynamic peers (Cease/5 beyond); 0 = no limit."""
    connection_rate: int = field(default=10, metadata=_costs(Cost.NOTHING))
    """New connections a second from one address (Cease/5 beyond, with room for as many at once); 0 = no limit."""
    static_routes: tuple[StaticRoute, ...] = field(default=(), metadata=_costs(Cost.NOTHING))
    learn: LearnSettings = field(factory=LearnSettings, metadata=_costs(Cost.NOTHING))
    fib: FibSettings = field(factory=FibSettings, metadata=_costs(Cost.NOTHING))
    resolve_next_hops: bool = field(default=True, metadata=_costs(Cost.NOTHING))
    """False for a speaker without a kernel: every next hop counts as reachable."""
    forwarding_kept: bool = field(default=True, metadata=_costs(Cost.NOTHING))
    """The F bit of our Graceful Restart capability is the truth (RFC 4724 §3); False after a reboot."""

    def import_terms(self, entry: FamilySettings) -> Terms:
        """The import chain of a peer's family. A name that is not known lets nothing pass."""
        chain = entry.import_chain
        return self.import_chains.get(chain, ()) if isinstance(chain, str) else chain

    def export_terms(self, entry: FamilySettings) -> Terms:
        """The export chain of a peer's family. A name that is not known lets nothing pass."""
        chain = entry.export_chain
        return self.export_chains.get(chain, ()) if isinstance(chain, str) else chain

    def inlined(self) -> SpeakerSettings:
        """The same, with each chain in the place of its name: for whoever compares or shows peers one by one."""
        if not self.import_chains and not self.export_chains:
            return self
        known: dict[tuple[FamilySettings, ...], tuple[FamilySettings, ...]] = {}

        def inline(peer: PeerSettings) -> PeerSettings:
            families = known.get(peer.families)
            if families is None:
                families = known[peer.families] = tuple(map(self._inlined, peer.families))
            return peer.with_families(families)

        dynamic = tuple((cidr, inline(template)) for cidr, template in self.dynamic)
        return evolve(self, peers=tuple(map(inline, self.peers)), dynamic=dynamic, import_chains={}, export_chains={})

    def _inlined(self, entry: FamilySettings) -> FamilySettings:
        return evolve(entry, import_chain=self.import_terms(entry), export_chain=self.export_terms(entry))


def cost_of(cls: type, name: str, old: object = None, new: object = None) -> Cost:
    """What a change of the field `name` of a settings class costs; without the two values, at most."""
    metadata = getattr(fields(cls), name).metadata
    if metadata.get("free_while_set") and old and new:
        return Cost.NOTHING
    cost = metadata.get("cost", Cost.NOTHING)
    assert isinstance(cost, Cost)
    return cost


IMPORT_RULES = tuple(field.name for field in fields(PeerSettings) if cost_of(PeerSettings, field.name) is Cost.REFRESH)
"""Fields of a peer that decide, beside its chains, what becomes of its routes, and change without a reset."""
