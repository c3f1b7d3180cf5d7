"""The JSON that the API speaks. Stable: fields are added, never renamed, removed or given another meaning.

Times are seconds (float) unless a field ends in `_at`, which is UTC in ISO 8601 form. Families are "ipv4" and "ipv6".
Prefixes and addresses are text. A field whose value is not known is null, never absent.
"""

from __future__ import annotations

import os
from typing import Final, Literal, TypedDict

SCHEMA_VERSION: Final = 1
API_ROOT: Final = "/v1"
DEFAULT_SOCKET: Final = "/var/run/calico/bgpd.sock"
BIRD_DIRECTORY: Final = "/var/run/calico"
"""Where Calico's BIRD has its control sockets."""
DEFAULT_HEALTH: Final = "127.0.0.1:9178"
LINES: Final = "application/x-ndjson"
"""Content type of /v1/routes: a `Route` a line, last line a `RoutesEnd`."""


def socket_paths() -> tuple[str, ...]:
    """Where the daemon puts its socket when none is named, in order; bgpctl looks in the same places."""
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    private = runtime if runtime else f"/tmp/calico-{os.getuid()}"
    return (DEFAULT_SOCKET, os.path.join(private, "calico-bgpd.sock"))


ErrorCode = Literal[
    "bad-request",
    "unauthorized",
    "unknown-peer",
    "ambiguous-peer",
    "unknown-path",
    "method-not-allowed",
    "too-busy",
    "too-large",
    "not-started",
    "internal",
]


class Error(TypedDict):
    """The body of every answer whose HTTP status is 400 or more: {"error": Error}."""

    code: ErrorCode
    text: str
    """One sentence."""
    hint: str
    """The way out; may be empty."""


class Check(TypedDict):
    """One condition of readiness or liveness."""

    name: str
    ok: bool
    text: str


class Health(TypedDict):
    """/readyz and /livez: HTTP status 200 if `ok`, else 503."""

    ok: bool
    checks: list[Check]


class Problem(TypedDict):
    """A resource, or a field of one, that configuration refused; the last good version stays in force."""

    object: str
    file: str
    field: str
    value: str
    allowed: str
    text: str


class Datastore(TypedDict):
    """Where the configuration comes from, and how it is."""

    url: str
    connected: bool
    text: str
    """Why not connected, or what is held back; else ""."""
    age_seconds: float
    """Since when what is in force is older than the datastore may be; 0.0 while it is the datastore's state."""
    applied_at: str | None
    """When the last compiled snapshot was applied."""
    problems: list[Problem]


class FamilyCounts(TypedDict):
    """Size of one family's Loc-RIB."""

    family: str
    prefixes: int
    paths: int
    best: int
    """Prefixes with an eligible path."""
    local: int
    """Paths from the kernel, interfaces and static configuration."""


class Restart(TypedDict):
    """Our own restart (RFC 4724 §4.1)."""

    active: bool
    """Our End-of-RIB waits."""
    holds_kernel: bool
    """Kernel routes found at the start that nobody has claimed stay; they may do so when `active` is over."""
    waiting_for: list[str]
    """Names of the peers whose End-of-RIB has not come."""
    ends_in: float | None


class KernelSummary(TypedDict):
    """What the kernel has of ours."""

    enabled: bool
    table: int
    protocol: int
    nexthop_objects: bool
    states: dict[str, dict[str, int]]
    """Family -> number of routes wanted, and by `KernelState`."""
    counters: dict[str, int]
    """Operations by outcome, since the start."""


class PeerCounts(TypedDict):
    """Peers by state."""

    configured: int
    dynamic: int
    established: int


class PeerLimits(TypedDict):
    """What one peer may cost (RFC 4486): one row for all peers of the same limits. 0 = no limit."""

    peers: int
    """Configured peers with these limits."""
    ranges: list[str]
    """CIDRs whose dynamic peers have these limits, each by itself."""
    prefixes: dict[str, int]
    """By family: beyond it the session ends with Cease/1."""
    attribute_sets: int
    """Distinct attribute sets; beyond it the session ends with Cease/8."""
    octets: int
    """Of attribute sets and NLRI; beyond it the session ends with Cease/8."""


class Limits(TypedDict):
    """What peers may cost. 0 = no limit."""

    dynamic_peers: int
    connection_rate: int
    """New connections a second from one address; more are refused with Cease/5."""
    refused: dict[str, int]
    """Connections refused since the start, by reason: "unknown-address", "connection-rate", "ttl", "dynamic-peers"."""
    peers: list[PeerLimits]


class Status(TypedDict):
    """GET /v1/status"""

    schema: int
    version: str
    node: str
    pid: int
    asn: int | None
    router_id: str | None
    cluster_id: str | None
    listen: list[str]
    started_at: str
    uptime: float
    ready: Health
    restart: Restart
    peers: PeerCounts
    limits: Limits | None
    """null before there is a speaker."""
    families: list[FamilyCounts]
    kernel: KernelSummary | None
    """null: started without a kernel role, or the kernel has not been read yet."""
    datastore: Datastore


class Prefixes(TypedDict):
    """One family of one peer."""

    received: int
    """Adj-RIB-In: paths received, after loop checks and before policy."""
    accepted: int
    """Of those, not rejected by import policy."""
    stale: int
    """Of those, kept from before a session loss (RFC 4724)."""
    advertised: int
    """Adj-RIB-Out: paths that the peer is to have."""
    queued: int
    """Of the table, prefixes or paths not yet sent or looked at again for a peer that is behind."""
    end_of_rib: bool
    """The peer's End-of-RIB has come in this session."""
    limit: int
    """max_prefixes; 0 = none."""


class Peer(TypedDict):
    """One row of GET /v1/peers"""

    name: str
    address: str
    port: int
    asn: int
    kind: str
    """"ebgp", "ibgp" or "ibgp-client"."""
    label: str
    """Which configuration object the peer comes from."""
    state: str
    """RFC 4271 §8.2.2: Idle, Connect, Active, OpenSent, OpenConfirm, Established."""
    disabled: str | None
    """Why the session is held down; null = it is not."""
    uptime: float | None
    """Seconds in Established; null in any other state."""
    flaps: int
    """How often Established was left."""
    last_error: str | None
    """Why the last connection ended; stays after the session is back."""
    dynamic: bool
    prefixes: dict[str, Prefixes]
    """By family: those negotiated, or configured while there is no session."""
    messages_in: dict[str, int]
    """By message type."""
    messages_out: dict[str, int]


class Negotiated(TypedDict):
    """What the two OPEN messages agreed on."""

    peer_asn: int
    peer_id: str
    local_asn: int
    local_id: str
    internal: bool
    hold_time: float
    keepalive_time: float
    four_octet_as: bool
    families: list[str]
    add_path_receive: list[str]
    add_path_send: list[str]
    route_refresh: bool
    enhanced_refresh: bool
    extended_message: bool
    extended_next_hop: list[str]
    graceful_restart: GracefulRestart | None


class GracefulRestart(TypedDict):
    """The peer's Graceful Restart capability (RFC 4724 §3, RFC 8538 §2)."""

    restarting: bool
    notification: bool
    restart_time: int
    families: dict[str, bool]
    """Family -> the F bit."""


class Chain(TypedDict):
    """A policy chain, as labels in the order in which a route meets the rules."""

    family: str
    imports: list[str]
    exports: list[str]


class PeerDetail(TypedDict):
    """GET /v1/peers/PEER"""

    peer: Peer
    local_address: str | None
    local_asn: int
    passive: bool
    password: bool
    """A TCP-MD5 key is set; the key itself is never shown."""
    ttl_security_hops: int | None
    hold_time: float
    """As configured (offered); the negotiated one is in `negotiated`."""
    connect_retry_time: float
    graceful_restart: bool
    restart_time: int
    next_hop_mode: str
    negotiated: Negotiated | None
    idle_for: float | None
    """Seconds until the peer is tried again after an error."""
    chains: list[Chain]
    findings: dict[str, int]
    """Attributes repaired or routes withdrawn for malformed ones (RFC 7606), by "attribute: action"."""


class UnknownAttribute(TypedDict):
    """A path attribute without a meaning here, passed on octet for octet."""

    code: int
    flags: int
    value: str
    """Hexadecimal."""


class Attributes(TypedDict):
    """Path attributes (RFC 4271 §5), as effective after import or as sent."""

    origin: str
    """"igp", "egp" or "incomplete"."""
    as_path: str
    """"64512 64513 {64514 64515}"; empty for routes of our own AS."""
    next_hop: str
    med: int | None
    local_pref: int | None
    communities: list[str]
    large_communities: list[str]
    extended_communities: list[str]
    originator_id: str | None
    cluster_list: list[str]
    unknown: list[UnknownAttribute]


class RouteSource(TypedDict):
    """Where a path comes from."""

    kind: str
    """"ebgp", "ibgp", "ibgp-client", "static", "kernel" or "direct"."""
    peer: str | None
    """The peer's name, for paths learned by BGP."""
    address: str | None
    label: str


class Route(TypedDict):
    """One path: a line of GET /v1/routes"""

    family: str
    prefix: str
    source: RouteSource
    path_id: int | None
    """Received or sent ADD-PATH identifier (RFC 7911); null without ADD-PATH."""
    best: bool
    multipath: bool
    """One of several paths that share the traffic (ECMP), the best one included. Told of Loc-RIB only."""
    eligible: bool
    """False: rejected by import policy, or its next hop does not resolve."""
    stale: bool
    preference: int
    """Step 0 of the decision."""
    rule: str
    """Label of the rule that decided: import's for Loc-RIB and received, export's for advertised."""
    attributes: Attributes
    kernel: str | None
    """`KernelState` of the prefix, on its best path; null on others and without a kernel role."""


class RoutesEnd(TypedDict):
    """The last line of GET /v1/routes: the answer is whole. Without it, the connection broke."""

    end: Literal[True]
    routes: int
    truncated: bool
    """`limit` was reached; there are more."""


KernelState = Literal["installed", "pending", "refused", "foreign", "held", "unwanted", "absent"]
"""installed; pending: being written; refused: by the kernel, retried; foreign: another's route holds the prefix; held:
a deletion that waits for the end of the restart phase; unwanted: kept out of the kernel by policy or because it is
the kernel's own route; absent: nothing to install."""


class KernelRoute(TypedDict):
    """One prefix as wanted in the kernel."""

    family: str
    prefix: str
    state: KernelState
    kind: str
    """"unicast", "blackhole" or "unreachable"."""
    hops: list[str]
    """"via 10.0.0.2 dev eth0"."""
    metric: int
    errno: int | None
    text: str
    """Why not installed, in words; else ""."""
    retry_in: float | None


class KernelTable(TypedDict):
    """GET /v1/kernel"""

    summary: KernelSummary | None
    troubles: list[KernelRoute]
    """Routes that are not in the kernel though wanted; at most 1,000."""
    more: int
    """How many troubles were left off."""


class ExplainPath(TypedDict):
    """One path of the explained prefix."""

    route: Route
    verdict: str
    """"accepted" or "rejected"."""
    rule: str
    """Label of the rule that gave the verdict, or the loop check that did."""
    passed: list[str]
    """Labels of the import rules before it that changed the path."""
    received_attributes: Attributes | None
    """Where import changed them; else null."""
    next_hop: str
    """Resolution in words: "10.0.0.2 is on the link eth0", "192.0.2.1: no route covers it"."""
    resolved: bool
    rank: int | None
    """1 = best; null for paths that do not take part."""
    lost_step: str | None
    """The step of the decision process that it lost: "4271 9.1.2.2 (a) AS_PATH length"."""
    lost_text: str | None
    """The comparison in words: "3 ASes against 2"."""
    session_uptime: float | None
    """Seconds since the session came up in which it was heard, which bounds its age; null for local routes and for
    stale ones, which were heard in an earlier session."""
    hint: str
    """What would let it through where it was stopped; "" where it was not, or nothing is known."""


class ExplainPeer(TypedDict):
    """One peer's Adj-RIB-Out for the explained prefix."""

    peer: str
    state: str
    announced: bool
    text: str
    """Why announced or withheld, in words, with the rule's label."""
    rule: str
    """Label of the rule that decided."""
    passed: list[str]
    """Labels of the export rules before it that changed the path."""
    attributes: Attributes | None
    """As sent; null if withheld."""
    path_ids: list[int]
    """Of ADD-PATH (RFC 7911): the ids under which paths are announced."""
    withheld: list[str]
    """Where something is announced: why other paths are not."""
    hint: str
    """What would let it through; "" where it is announced, or nothing is known."""


class ExplainSilent(TypedDict):
    """A peer that might have announced a prefix which is not there, and has not."""

    peer: str
    state: str
    text: str
    """Why nothing came: no session, another family, or how much else has come."""
    hint: str


class Explain(TypedDict):
    """GET /v1/explain: the fate of one prefix"""

    family: str
    prefix: str
    present: bool
    """Some path for exactly this prefix is known."""
    covering: str | None
    """For a prefix that is not there: the longest known one that covers it."""
    origin: str
    """For a prefix that is not there: whose it is by configuration's resources; "" = they say nothing."""
    local: str
    """For a prefix that is not there: what the host's kernel has of it that is not learned, and why; else ""."""
    paths: list[ExplainPath]
    kernel: KernelRoute | None
    kernel_rule: str
    """Label of the rule by which it is wanted there; "" where it is not."""
    kernel_hint: str
    """What would bring it into the kernel; "" where it is there, or nothing is known."""
    peers: list[ExplainPeer]
    silent: list[ExplainSilent]
    """For a prefix that is not there; else empty."""
    hint: str
    """What would let it through where `stopped` says that it ended."""
    stopped: str
    """Where its way ended, in one sentence: the first of received, accepted, resolved, best, kernel, announced
    that did not happen; "" when all did."""


# POST /v1/plan: {"objects": [resource, …], "delete": ["KIND/NAME", …], "whole": bool} -> Plan. Nothing is changed.
# `whole`: the objects are all there would be; else they are added to, or stand in place of, what is in force.


class PlanObject(TypedDict):
    """One of the proposed objects."""

    object: str
    """"KIND/NAME"."""
    action: str
    """"created", "configured", "unchanged", "deleted", "refused" or "missing" (to be deleted, and not there)."""


class PlanProblem(TypedDict):
    """A problem that would come, or go."""

    object: str
    field: str
    value: str
    allowed: str
    text: str
    refused: bool
    """False: a notice."""


class PlanSetting(TypedDict):
    """One setting that would differ. Passwords are hidden."""

    field: str
    family: str
    """"ipv4" or "ipv6" where it belongs to one family of a peer; else ""."""
    old: str
    new: str
    cost: str
    """"nothing", "chain" (policy is run again, differences are sent), "refresh", "reset" (the session), "restart"
    (every session)."""


class PlanSession(TypedDict):
    """A session that would differ."""

    peer: str
    address: str
    asn: int
    label: str
    action: str
    """"added", "removed", "reset" (it ends and comes back) or "changed" (without a reset)."""
    settings: list[PlanSetting]


class PlanRoute(TypedDict):
    """A route of configuration's own (own block, service range, reachableBy) that would differ."""

    prefix: str
    action: str
    """"added", "removed" or "changed"."""
    label: str


class PlanPrefixes(TypedDict):
    """Some prefixes."""

    count: int
    prefixes: list[str]
    """The first ones in order, at most as many as were asked for (`limit`, 100)."""


class PlanTable(TypedDict):
    """What some peers would be told otherwise."""

    family: str
    peers: list[str]
    established: bool
    """False: the sessions are not there; this is what they would be told if they were."""
    announced: PlanPrefixes
    withdrawn: PlanPrefixes
    changed: PlanPrefixes
    """Announced before and after, with other attributes."""


class PlanKernel(TypedDict):
    """Routes of ours that would come to, go from or change in the kernel."""

    family: str
    added: PlanPrefixes
    removed: PlanPrefixes
    changed: PlanPrefixes


class Plan(TypedDict):
    """What would change on one node, before anything does."""

    node: str
    running: bool
    """Against a running speaker and its tables; else against a datastore, with routes of configuration alone."""
    can_tell: bool
    """False: with these resources the node's settings could not be told, and what is in force would stay."""
    objects: list[PlanObject]
    problems: list[PlanProblem]
    mended: list[PlanProblem]
    sessions: list[PlanSession]
    routes: list[PlanRoute]
    settings: list[PlanSetting]
    """Of the speaker as a whole."""
    tables: list[PlanTable]
    kernel: list[PlanKernel]
    notes: list[str]
    """What was assumed."""
