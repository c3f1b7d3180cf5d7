"""Configuration of the other daemons: BIRD and FRR as top-of-rack router, BIRD as Calico configures it on a node."""

from __future__ import annotations

from attrs import field, frozen

MAXIMUM = 2147483647
"""Kernel metric + LOCAL_PREF of a route of Calico's: two forms of one priority."""


@frozen
class TorPeer:
    """A node as the top-of-rack router's configuration names it."""

    name: str
    ipv4: str
    ipv6: str


@frozen
class TorPlan:
    """What any program needs to be the top-of-rack router."""

    asn: int
    node_asn: int
    ipv4: str
    ipv6: str
    prefix4: str
    prefix6: str
    peers: tuple[TorPeer, ...] = field(default=())


def bird_tor(plan: TorPlan) -> str:
    """BIRD as top-of-rack router: one eBGP session for each node and family, helper for graceful restart."""
    parts = [
        f"router id {plan.ipv4};",
        "protocol device { scan time 60; }",
        f"protocol static s4 {{ ipv4; route {plan.prefix4} blackhole; }}",
        f"protocol static s6 {{ ipv6; route {plan.prefix6} blackhole; }}",
        "protocol kernel k4 { persist; ipv4 { import none; export where source = RTS_BGP; }; }",
        "protocol kernel k6 { persist; ipv6 { import none; export where source = RTS_BGP; }; }",
        f"template bgp node {{ local as {plan.asn}; connect delay time 1; connect retry time 1; error wait time 1, 4;",
        "  graceful restart on; }",
    ]
    for peer in plan.peers:
        for version, own, theirs in (("4", plan.ipv4, peer.ipv4), ("6", plan.ipv6, peer.ipv6)):
            name = f"{peer.name.replace('-', '_')}_{version}"
            parts.append(
                f"protocol bgp {name} from node {{ source address {own}; neighbor {theirs} as {plan.node_asn};"
                f" ipv{version} {{ import all; export where source = RTS_STATIC; }}; }}"
            )
    return "\n".join(parts) + "\n"


def frr_tor(plan: TorPlan) -> str:
    """FRR as top-of-rack router (helper for graceful restart is its default)."""
    lines = [
        f"router bgp {plan.asn}",
        f" bgp router-id {plan.ipv4}",
        " no bgp ebgp-requires-policy",
        " no bgp default ipv4-unicast",
        " no bgp network import-check",
        " bgp bestpath as-path multipath-relax",
    ]
    for peer in plan.peers:
        for address in (peer.ipv4, peer.ipv6):
            lines += [
                f" neighbor {address} remote-as {plan.node_asn}",
                f" neighbor {address} timers connect 1",
                f" neighbor {address} advertisement-interval 0",
            ]
    for version, prefix in (("4", plan.prefix4), ("6", plan.prefix6)):
        lines += [f" address-family ipv{version} unicast", f"  network {prefix}"]
        lines += [f"  neighbor {p.ipv4 if version == '4' else p.ipv6} activate" for p in plan.peers]
        lines.append(" exit-address-family")
    return "\n".join(lines) + "\n"


@frozen
class NodePlan:
    """What BIRD needs to do a node's work as confd would have told it."""

    name: str
    asn: int
    ipv4: str
    ipv6: str
    blocks: tuple[str, ...]
    pools: tuple[str, ...]
    mesh: tuple[TorPeer, ...]
    tor_asn: int
    tor4: str
    tor6: str


def bird_node(plan: NodePlan) -> str:
    """BIRD 2 configured as Calico configures its BIRD, both families in one process."""
    parts = [
        f"router id {plan.ipv4};",
        "protocol device { scan time 2; }",
        'protocol direct { ipv4; ipv6; interface -"cali*", -"kube-ipvs*", "*"; }',
    ]
    for version in ("4", "6"):
        blocks = [b for b in plan.blocks if (":" in b) == (version == "6")]
        pools = [p for p in plan.pools if (":" in p) == (version == "6")]
        parts += [
            f"protocol static s{version} {{ ipv{version};",
            *(f"  route {block} blackhole;" for block in blocks),
            "}",
            f"filter to_peers{version} {{",
            f"  if source = RTS_BGP then krt_metric = {MAXIMUM} - bgp_local_pref;",
            f"  else {{ if !defined(krt_metric) then krt_metric = 1024; bgp_local_pref = {MAXIMUM} - krt_metric; }}",
            '  if ifname ~ "*.cali" || ifname ~ "*.calico" || ifname ~ "tunl0" then reject;',
            *(
                f"  if net = {block} then accept;\n  if net ~ {block} && krt_metric < 1024 then accept;\n"
                f"  if net ~ {block} then reject;"
                for block in blocks
            ),
            *(f"  if net ~ {pool} then accept;" for pool in pools),
            "  reject;\n}",
            f"filter from_peers{version} {{",
            f"  if defined(bgp_local_pref) && bgp_local_pref > {MAXIMUM} - 1024 then preference = 200;",
            "  accept;\n}",
            f"filter to_kernel{version} {{",
            "  if source = RTS_DEVICE then reject;",
            f"  if source = RTS_BGP then krt_metric = {MAXIMUM} - bgp_local_pref;",
            "  accept;\n}",
            f"protocol kernel k{version} {{ learn; persist; scan time 2; metric 0;",
            f"  merge paths on; graceful restart; ipv{version} {{ import all; export filter to_kernel{version}; }}; }}",
        ]
    parts += [
        f"template bgp any {{ local as {plan.asn}; connect delay time 1; connect retry time 1; error wait time 1, 4;",
        "  graceful restart on; multihop; }",
    ]
    peers = [(peer.name, peer.ipv4, peer.ipv6, plan.asn, True) for peer in plan.mesh]
    peers.append(("tor", plan.tor4, plan.tor6, plan.tor_asn, False))
    for name, ipv4, ipv6, asn, mesh in peers:
        for version, own, theirs in (("4", plan.ipv4, ipv4), ("6", plan.ipv6, ipv6)):
            # The side whose peer has the greater address, compared as text, waits for the other.
            side = " passive on;" if mesh and theirs > own else ""
            parts.append(
                f"protocol bgp {name.replace('-', '_')}_{version} from any {{ source address {own};{side}"
                f" neighbor {theirs} as {asn}; ipv{version} {{ add paths on; import filter from_peers{version};"
                f" export filter to_peers{version}; }}; }}"
            )
    return "\n".join(parts) + "\n"
