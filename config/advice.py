"""What would let a route through where it was stopped, in Calico's words: for `bgpctl explain`. Pure.

The core says by which rule or check a route was stopped: a label that this package gave to a term (`config.chains`), or
a sentence of its own. Here that becomes what a person can do about it. Tests hold that every label of a rejecting term
and every sentence of the core has an answer.
"""

from __future__ import annotations

import re

__all__ = ["advice"]

_FILTER_OR_NOT = "an export BGPFilter rule that accepts it"
_NOTHING = "needs nothing: "

_ADVICE: tuple[tuple[str, str], ...] = (
    # --- terms of config.chains
    (r"BGPFilter (\S+) does not exist", r"creating BGPFilter \1, or taking it out of spec.filters of the BGPPeer"),
    (
        r"BGPFilter (\S+), (\w+) rule (\d+)",
        r"another rule before rule \3 in spec.\2 of BGPFilter \1 that accepts it, or a change of that rule",
    ),
    (r"IPPool (\S+): disableBGPExport", rf"disableBGPExport: false in IPPool \1, or {_FILTER_OR_NOT}"),
    (
        r"route through Felix's device (\S+)",
        rf"{_FILTER_OR_NOT}; routes through Felix's tunnels are kept from peers on purpose, as each node has its own",
    ),
    (
        r"own block (\S+): covers this address",
        rf"{_NOTHING}the block \1 is announced, and covers it; to announce the address itself, {_FILTER_OR_NOT}",
    ),
    (
        r"outside every IPPool, own block and service range",
        f"an IPPool that covers it, a service range of BGPConfiguration, or {_FILTER_OR_NOT}",
    ),
    (r"the kernel has it already", f"{_NOTHING}the kernel has the route from elsewhere"),
    (
        r"service range (\S+): not for the kernel",
        rf"{_NOTHING}the addresses of Services in \1 are handled by kube-proxy or Felix on every node",
    ),
    (r"WireGuard peer: Felix programs it", f"{_NOTHING}Felix routes it through wireguard.cali; look at `wg` and Felix"),
    (
        r"IPPool (\S+): VXLAN, Felix programs it",
        rf"{_NOTHING}Felix routes IPPool \1 through vxlan.calico; look at Felix",
    ),
    (
        r"IPPool (\S+): .*programClusterRoutes.*",
        r"another programClusterRoutes in BGPConfiguration default (and its counterpart in FelixConfiguration); as it "
        r"is, Felix has to write the routes of IPPool \1",
    ),
    # --- the core's own checks
    (
        r"own AS (\d+) is in AS_PATH.*",
        r"numAllowedLocalASNumbers of the BGPPeer, if a path through AS \1 is meant; else it is a loop, and right so",
    ),
    (
        r"AS_PATH does not begin with the peer's AS (\d+).*",
        r"a peer that puts its own AS \1 first; a route server that does not is no ordinary eBGP peer",
    ),
    (
        r"ORIGINATOR_ID is our own identifier.*",
        f"{_NOTHING}a route of this node has come back; if not, another node has the same router id (CALICO_ROUTER_ID)",
    ),
    (
        r"our cluster id (\S+) is in CLUSTER_LIST.*",
        rf"{_NOTHING}it has been through cluster \1 already; if not, give the other reflectors another "
        r"routeReflectorClusterID",
    ),
    (
        r"learned from a non-client over iBGP.*",
        f"{_NOTHING}in a full mesh each node tells its routes itself; without one, a routeReflectorClusterID on this "
        "Node makes it a reflector",
    ),
    (
        r"community (NO_\w+)",
        r"the sender leaving out the community \1 (RFC 1997): a BGPFilter adds communities, and takes none away",
    ),
    (r"no own (\w+) address on this session.*", r"spec.bgp.\1Address of this Node, or a session of that family"),
    (r"next hop is IPv6, and the peer.*", "a peer that takes IPv6 next hops for IPv4 (RFC 8950), or an IPv4 session"),
    (r"the path comes from this peer", f"{_NOTHING}a peer is not told its own routes"),
    (r"this peer is itself the next hop.*", f"{_NOTHING}the peer is the way there; nextHopMode Self would announce us"),
    # --- next hops
    (
        r".*no local route covers it.*",
        "a route of this host's own that covers the next hop (routes learned by BGP do not count), reachableBy on the "
        "BGPPeer, or a sender that says another next hop",
    ),
    (
        r".*covered by an unreachable or blackhole route \((.*)\).*",
        r"a longer route of this host's own to the next hop than \1, which drops packets",
    ),
    (
        r".*next hop is an address of this host.*",
        "a sender that says its own address as next hop (nextHopMode: Self there)",
    ),
    (
        r".*next hop (0\.0\.0\.0|is a loopback address|is a multicast.*|is :: or ::1).*|.*no next hop.*",
        "a sender that says a next hop which packets can be sent to (RFC 4271 §5.1.3)",
    ),
    # --- sessions
    (r"held down: Secret (\S+) .*", r"creating Secret \1 in that namespace, with the key that the password names"),
    (r"held down: (.*)", r"mending what holds the session down: \1"),
    (
        r"no session.*the peer sent.*maximum number of prefixes.*",
        "fewer prefixes announced to this peer, or a higher limit there",
    ),
    (
        r"no session.*maximum number of prefixes.*",
        "fewer prefixes from this peer, or a higher limit (--max-prefixes of bgp-reflector; Calico sets none)",
    ),
    (
        r"no session.*bad peer AS \(the peer says AS (\d+), configured is (\d+)\).*",
        r"asNumber: \1 in the BGPPeer, if that is the peer that is meant; else AS \2 on the peer's side",
    ),
    (r"no session.*cannot connect.*", "a peer that listens, no firewall between, and the same password on both sides"),
    (r"no session.*", "the session coming up: `bgpctl peers PEER` says why it is not"),
    (r"(\w+) is not negotiated.*", r"a session that carries \1: an address of that family on both sides"),
    (
        r"none of the sessions carries (\w+)",
        r"spec.bgp.\1Address of this Node where it has none, and a peer of that family",
    ),
    (r"this session carries no (\w+)", rf"{_NOTHING}Calico has one session a family; look at the peer's other one"),
    (
        r"malformed UPDATE",
        "an UPDATE without that error from the peer; the log has its octets, and the next good one brings the route",
    ),
    # --- nothing there
    (
        r"no route of this host",
        "a route of Felix's in this node's main table, if it is a pod's here (`ip route get`; protocol 80 or 3); else "
        "the node or router that has it announcing it (`bgpctl explain` there)",
    ),
    (r"no route of a peer", "the node or router that has it announcing it (`bgpctl explain` there)"),
    (
        r"another program's route.*",
        "removing that route, or giving it another metric: `ip route show PREFIX`; it is tried again by itself",
    ),
    (
        r"another program keeps changing.*",
        "finding that program (`ip monitor route`) and having it leave the prefix alone; it is tried again by itself",
    ),
    (
        r"the kernel refuses it: .*",
        "another next hop or device, or mending what the kernel complains of (`ip route add` by hand is told the same);"
        " it is tried again by itself",
    ),
    (r"the best path is the host's own.*", f"{_NOTHING}the kernel has the route from elsewhere"),
    (
        r"its attributes leave no room.*",
        "fewer communities or a shorter AS_PATH; or extended messages (RFC 8654) on the peer's side",
    ),
    (r"kept until the restart phase is over", f"{_NOTHING}it goes with the end of the restart phase: `bgpctl status`"),
    (r"it is being written", f"{_NOTHING}the kernel is being written to at this moment"),
    (r"no (term|export term|import term|kernel term) accepts it", "a rule that accepts it"),
)
_COMPILED = tuple((re.compile(pattern), text) for pattern, text in _ADVICE)


def advice(reason: str) -> str:
    """What would let a route through that was stopped for this reason, or why it needs nothing; "" = not known."""
    for pattern, text in _COMPILED:
        match = pattern.fullmatch(reason)
        if match is not None:
            return match.expand(text) if match.re.groups else text
    return ""
