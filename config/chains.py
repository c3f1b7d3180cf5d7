"""Policy chains: Calico's export, import and kernel decisions (calico-bgp.md 7.4, 8.1, 8.2) as terms.

The order of terms is the order of the numbered steps there. Labels name resource and rule; explain prints them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain

from attrs import frozen

from bgpd.family import Family, parse_address
from bgpd.policy import terms as t
from bgpd.policy.terms import SourceKind, Term, Verdict
from bgpd.settings import FamilySettings
from config import resources as r
from config.cluster import Block, Cluster
from config.memory import Memory
from config.values import Community, Prefix

__all__ = ["MAXIMUM", "Chains", "Policy", "families", "kernel_chain", "programs"]

MAXIMUM = 2147483647
"""Priority and LOCAL_PREF are two forms of one number: LOCAL_PREF = MAXIMUM - priority."""
TUNNEL = "tunl0"
"""Felix makes and addresses the IPIP device."""
_HIGHEST_LOCAL_PREF = 0xFFFFFFFF
_ELEVATED_PREFERENCE = 200
_LOCAL_KINDS = frozenset({SourceKind.STATIC, SourceKind.KERNEL, SourceKind.DIRECT})
Terms = tuple[Term, ...]


def _inside(*prefixes: Prefix) -> t.MatchPrefix:
    return t.MatchPrefix(tuple(t.PrefixRange(p.family, p.key, p.length, p.family.bits) for p in prefixes))


def _exactly(prefix: Prefix) -> t.MatchPrefix:
    return t.MatchPrefix((t.PrefixRange(prefix.family, prefix.key, prefix.length, prefix.length),))


@frozen(order=True)
class Policy:
    """What decides a session's chains."""

    family: Family
    internal: bool
    """iBGP."""
    filters: tuple[str, ...] = ()
    """Names of BGPFilters, in order."""

    @property
    def name(self) -> str:
        """That of its chains; no two policies have the same."""
        return f"{'iBGP' if self.internal else 'eBGP'} {self.family} {list(self.filters)}"


class Chains:
    """Makes the chains of one node, by policy, as the same objects from one compile to the next."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._memory = cluster.memory
        self._filters = cluster.snapshot.of(r.BGPFilter)
        self._around: dict[tuple[Family, bool], tuple[Terms, Terms, Terms, Terms]] = {}

    def named(self, policies: Iterable[Policy]) -> tuple[dict[str, Terms], dict[str, Terms]]:
        """The import and the export chains of these policies, by name."""
        imports = {policy.name: self.import_(policy) for policy in policies}
        exports = {policy.name: self.export(policy) for policy in policies}
        return self._memory.shared("import chains", imports), self._memory.shared("export chains", exports)

    def export(self, policy: Policy) -> Terms:
        """The export chain of a session."""
        place = policy.family, policy.internal
        if place not in self._around:
            self._around[place] = self._beside_filters(*place)
        head, *rest = self._around[place]
        parts = (head, self._filter_terms(policy, export=True), *rest)
        return self._memory.made(("export", policy), parts, lambda: tuple(chain.from_iterable(parts)))

    def _beside_filters(self, family: Family, internal: bool) -> tuple[Terms, Terms, Terms, Terms]:
        """Step 1, and 3 to 10 in three parts: what all policies of a family and kind of session have in common."""
        cluster = self._cluster
        head = self._memory.made(("priority", family), (cluster.config,), lambda: _priority(cluster, family))
        before, after = self._around_blocks(family, internal)
        blocks = cluster.blocks(family)
        own = self._memory.made(
            ("block terms", family), (blocks, cluster.config), lambda: self._block_terms(blocks, family)
        )
        return head, before, own, after

    def _around_blocks(self, family: Family, internal: bool) -> tuple[Terms, Terms]:
        """Steps 3 to 5, and 7 to 10."""
        cluster, memory, pools = self._cluster, self._memory, self._cluster.pools(family)
        mine = (cluster.config, cluster.own_config, cluster.own, pools)
        services = (cluster.services(family), cluster.reflected_services(family), cluster.service_addresses(family))
        before = memory.made(
            ("before blocks", family, internal), mine, lambda: tuple(_before_blocks(cluster, family, internal))
        )
        after = memory.made(("after blocks", family), (*mine, *services), lambda: tuple(_after_blocks(cluster, family)))
        return before, after

    def _block_terms(self, blocks: Sequence[Block], family: Family) -> Terms:
        known = self._memory.table(("block", family), (self._cluster.config,))
        normal = self._cluster.config.priority(family)
        for block in blocks:
            if block not in known:
                known[block] = _block_terms(block, normal)
        Memory.trim(known, blocks)
        return tuple(chain.from_iterable(known[block] for block in blocks))

    def import_(self, policy: Policy) -> Terms:
        """The import chain of a session."""
        filters = self._filter_terms(policy, export=False)
        config = self._cluster.config
        return self._memory.made(
            ("import", policy), (filters, config), lambda: filters + _import_policy(config.priority(policy.family))
        )

    def _filter_terms(self, policy: Policy, *, export: bool) -> Terms:
        resources = tuple(self._filters.get(name) for name in policy.filters)
        return self._memory.made(
            ("filters", policy, export), resources, lambda: tuple(_filter_terms(policy, resources, export))
        )


def families(cluster: Cluster, policy: Policy) -> tuple[FamilySettings, ...]:
    """The one family of a session, with both chains by name: a new block changes what they are, and no session."""

    def make() -> tuple[FamilySettings, ...]:
        return (FamilySettings(policy.family, import_chain=policy.name, export_chain=policy.name),)

    return cluster.memory.made(("families", policy), (), make)


def _filter_terms(policy: Policy, resources: Sequence[r.BGPFilter | None], export: bool) -> Iterator[Term]:
    family = policy.family
    for name, resource in zip(policy.filters, resources, strict=True):
        if resource is None:
            # A filter that is missing fails closed: what it might have rejected must not pass.
            yield Term(f"BGPFilter {name} does not exist", Verdict.REJECT)
            return
        for number, rule in enumerate(resource.rules(family, export=export), 1):
            label = f"BGPFilter {name}, {_list_name(family, export)} rule {number}"
            term = _rule_term(label, rule, policy.internal, export)
            if term is not None:
                yield term


def _import_policy(normal: int) -> Terms:
    """8.1."""
    return (
        Term(
            "priority above normal: preference 200",
            Verdict.NEXT,
            (t.MatchLocalPref(MAXIMUM - normal + 1, _HIGHEST_LOCAL_PREF),),
            (t.SetPreference(_ELEVATED_PREFERENCE),),
        ),
        Term("accepted from every peer", Verdict.ACCEPT),
    )


def _list_name(family: Family, export: bool) -> str:
    return ("exportV" if export else "importV") + ("4" if family.afi == 1 else "6")


def _priority(cluster: Cluster, family: Family) -> Terms:
    """Step 1: metric and LOCAL_PREF in step, before any filter looks at them."""
    normal = cluster.config.priority(family)
    return (
        Term("metric from LOCAL_PREF", Verdict.NEXT, (t.MatchSource(t.BGP_KINDS),), (t.MetricFromLocalPref(MAXIMUM),)),
        Term(
            f"LOCAL_PREF from metric, {normal} where there is none",
            Verdict.NEXT,
            (t.MatchSource(_LOCAL_KINDS),),
            (t.LocalPrefFromMetric(MAXIMUM, normal),),
        ),
    )


def _before_blocks(cluster: Cluster, family: Family, internal: bool) -> Iterator[Term]:
    for pool in cluster.pools(family):
        if not pool.export:
            yield Term(f"IPPool {pool.name}: disableBGPExport", Verdict.REJECT, (_inside(pool.cidr),))
    yield from _interface_terms(cluster, internal)
    for entry in cluster.advertisements():
        if entry.prefix.family == family and entry.communities:
            actions = tuple(_add_community(community) for community in entry.communities)
            label = f"BGPConfiguration: prefixAdvertisements {entry.prefix}"
            yield Term(label, Verdict.NEXT, (_inside(entry.prefix),), actions)


def _after_blocks(cluster: Cluster, family: Family) -> Iterator[Term]:
    if not cluster.excluded_from_services:
        yield from _accept_inside("service range", cluster.services(family))
        addresses = cluster.service_addresses(family)
        if addresses:
            yield Term("single service address", Verdict.ACCEPT, (_inside(*(a.prefix for a in addresses)),))
    if cluster.own.node.cluster_id:
        yield from _accept_inside("route reflector: service range", cluster.reflected_services(family))
    for pool in cluster.pools(family):
        if pool.export:
            yield Term(f"IPPool {pool.name}", Verdict.ACCEPT, (_inside(pool.cidr),))
    yield Term("outside every IPPool, own block and service range", Verdict.REJECT)


def _accept_inside(label: str, prefixes: Iterable[Prefix]) -> list[Term]:
    return [Term(f"{label} {prefix}", Verdict.ACCEPT, (_inside(prefix),)) for prefix in prefixes]


def _interface_terms(cluster: Cluster, internal: bool) -> list[Term]:
    """Steps 4 and 5: tunnel routes of Felix stay here; to eBGP peers they may go, on purpose."""
    patterns: list[str] = []
    if internal:
        patterns += ["*.cali", "*.calico"]
        if not programs(cluster.config, r.ProgramClusterRoutes.IPIP_ONLY):
            patterns.append("tunl0")
    patterns.append("bpf*.cali")
    return [
        Term(f"route through Felix's device {pattern}", Verdict.REJECT, (t.MatchInterface(pattern),))
        for pattern in patterns
    ]


def _block_terms(block: Block, normal: int) -> list[Term]:
    """Step 6. A block on its way out (pendingDeletion) still hides its addresses; Calico lets them leak."""
    label = f"own block {block.cidr}"
    return [
        Term(label, Verdict.ACCEPT, (_exactly(block.cidr),)),
        Term(
            f"{label}: address with priority above normal",
            Verdict.ACCEPT,
            # Step 1 has made LOCAL_PREF and metric one; above MAXIMUM BIRD's subtraction wraps to the lowest priority.
            (_inside(block.cidr), t.MatchLocalPref(MAXIMUM - normal + 1, MAXIMUM)),
        ),
        Term(f"{label}: covers this address", Verdict.REJECT, (_inside(block.cidr),)),
    ]


def _add_community(community: Community) -> t.Action:
    return t.AddCommunity(community) if isinstance(community, int) else t.AddLargeCommunity(community)


def _rule_term(label: str, rule: r.FilterRule, internal: bool, export: bool) -> Term | None:
    """A filter rule as a term; None where it is for the other kind of session."""
    if rule.peer_type is not None and (rule.peer_type is r.PeerType.IBGP) != internal:
        return None
    verdict = Verdict.ACCEPT if rule.action is r.FilterAction.ACCEPT else Verdict.REJECT
    actions = tuple(_operation(operation) for operation in rule.operations)
    return Term(label, verdict, tuple(_conditions(rule, export)), actions)


def _conditions(rule: r.FilterRule, export: bool) -> Iterable[t.Condition]:
    # All routes of an import chain are a peer's, so `source` says nothing there.
    if rule.source is not None and export:
        yield t.MatchSource(t.BGP_KINDS)
    if rule.interface:
        yield t.MatchInterface(rule.interface)
    if rule.community is not None:
        if isinstance(rule.community, int):
            yield t.MatchCommunity(rule.community)
        else:
            yield t.MatchLargeCommunity(rule.community)
    if rule.as_path_prefix:
        yield t.MatchAsPathPrefix(rule.as_path_prefix)
    if rule.priority is not None:
        yield t.MatchLocalPref(MAXIMUM - rule.priority, MAXIMUM - rule.priority)
    if rule.cidr is not None and rule.operator is not None:
        yield _cidr_condition(rule.cidr, rule.operator, rule.length)


def _cidr_condition(cidr: Prefix, operator: r.MatchOperator, length: tuple[int, int] | None) -> t.MatchPrefix:
    """prefixLength makes any operator compare with the range (BIRD's Equal then never matches, NotEqual always)."""
    exact = operator in (r.MatchOperator.EQUAL, r.MatchOperator.NOT_EQUAL)
    invert = operator in (r.MatchOperator.NOT_EQUAL, r.MatchOperator.NOT_IN)
    low, high = length if length is not None else (cidr.length, cidr.length if exact else cidr.family.bits)
    return t.MatchPrefix((t.PrefixRange(cidr.family, cidr.key, low, high),), invert)


def _operation(operation: r.Operation) -> t.Action:
    if operation.add_community is not None:
        return _add_community(operation.add_community)
    if operation.set_priority is not None:
        return t.SetLocalPref(MAXIMUM - operation.set_priority)
    return t.PrependAsPath(operation.prepend_as_path)


def programs(config: r.BGPConfiguration, what: r.ProgramClusterRoutes) -> bool:
    """Whether the BGP side writes routes of one sort of pool (IPIP_ONLY or NO_ENCAP_ONLY) to the kernel."""
    return config.program_cluster_routes in (r.ProgramClusterRoutes.ENABLED, what)


def kernel_chain(cluster: Cluster, family: Family) -> Terms:
    """Which best routes are written to the kernel (8.2)."""
    # Other nodes matter for their WireGuard addresses alone.
    hosts = cluster.hosts if cluster.own.node.wireguard(family) else None
    inputs = (cluster.config, cluster.own, cluster.pools(family), cluster.services(family), hosts)
    return cluster.memory.made(("kernel", family), inputs, lambda: _kernel_chain(cluster, family))


def _kernel_chain(cluster: Cluster, family: Family) -> Terms:
    found = [
        Term(
            "the kernel has it already",
            Verdict.REJECT,
            (t.MatchSource(frozenset({SourceKind.KERNEL, SourceKind.DIRECT})),),
        )
    ]
    for prefix in cluster.services(family):
        found.append(Term(f"service range {prefix}: not for the kernel", Verdict.REJECT, (_inside(prefix),)))
    encrypted = _wireguard_peers(cluster, family)
    if encrypted:
        conditions = (t.MatchSource(t.BGP_KINDS), t.MatchNextHop(encrypted))
        found.append(Term("WireGuard peer: Felix programs it", Verdict.REJECT, conditions))
    if family.afi != 1 or cluster.own.node.ipv4_network is not None:
        for pool in cluster.pools(family):
            found += _pool_terms(cluster, pool)
    found.append(Term("outside every IPPool", Verdict.ACCEPT))
    return tuple(found)


def _wireguard_peers(cluster: Cluster, family: Family) -> frozenset[bytes]:
    own = cluster.own.node
    if not own.wireguard(family):
        return frozenset()
    others: Sequence[r.Node] = [host.node for host in cluster.hosts if host.node is not own]
    return frozenset(
        parse_address(node.address(family)) for node in others if node.wireguard(family) and node.address(family)
    )


def _pool_terms(cluster: Cluster, pool: r.IPPool) -> Iterable[Term]:
    """Rule 4 (8.3): what is not ours to write is Felix's."""
    never = r.Encapsulation.NEVER
    value = cluster.config.program_cluster_routes.value
    inside = _inside(pool.cidr)
    if pool.vxlan is not never:
        yield Term(f"IPPool {pool.name}: VXLAN, Felix programs it", Verdict.REJECT, (inside,))
        return
    ours = r.ProgramClusterRoutes.NO_ENCAP_ONLY if pool.ipip is never else r.ProgramClusterRoutes.IPIP_ONLY
    if not programs(cluster.config, ours):
        kind = "no encapsulation" if pool.ipip is never else "IPIP"
        label = f"IPPool {pool.name}: {kind} and programClusterRoutes {value}, Felix programs it"
        yield Term(label, Verdict.REJECT, (inside,))
        return
    if pool.ipip is not never:
        yield from _tunnel_terms(cluster, pool, inside)
    else:
        yield Term(f"IPPool {pool.name}: no encapsulation", Verdict.ACCEPT, (inside,))


def _tunnel_terms(cluster: Cluster, pool: r.IPPool, inside: t.MatchPrefix) -> Iterable[Term]:
    """Routes go through the tunnel, but for those of the own subnet if the pool says CrossSubnet.

    Static routes have no BGP next hop to send packets to: for them the word has no effect.
    """
    network = cluster.own.node.ipv4_network
    if pool.ipip is r.Encapsulation.CROSS_SUBNET and network is not None:
        near = t.MatchNextHopInside(network.family, network.key)
        yield Term(f"IPPool {pool.name}: IPIP CrossSubnet, same subnet", Verdict.ACCEPT, (near, inside))
    label = f"IPPool {pool.name}: IPIP {pool.ipip.value}"
    yield Term(label, Verdict.ACCEPT, (inside,), (t.SetTunnel(TUNNEL),))
