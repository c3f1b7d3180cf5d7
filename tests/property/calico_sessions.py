"""The model of a node's sessions (calico-bgp.md 6): who peers with whom, and how, in the form of Calico's cases.

Where docs/quirks.md departs from Calico, the page's rule is modelled, and its number named.
"""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Iterator
from typing import Any

from attrs import define, field

from tests.property.calico_cluster import NODE, Cluster, Spec, asn, host, seconds

__all__ = ["Session", "asked_for", "described", "matching_nodes"]


@define
class Session:
    """One session before its parameters are worked out."""

    kind: str
    """As Calico's cases call it: mesh, global, node, local_workload."""
    address: str
    asn: int
    port: int | None
    """As configured; None = nothing said."""
    name: str = ""
    """The BGPPeer's."""
    peer: Spec = field(factory=dict)
    """The BGPPeer's spec."""
    cluster_id: str = ""
    """The peer's, where it is known: never by peerIP (6.3)."""
    by_address: bool = False
    passive: bool = False

    @property
    def key(self) -> tuple[str, int]:
        """What one session has to itself (6.5); ports 0 and 179 are one."""
        return self.address, self.port or 179


# --- who peers with whom


def asked_for(cluster: Cluster, family: str) -> list[Session]:
    """Sessions of BGPPeers, in the order of their precedence (6.5): an earlier key wins. Quirk 1: by name in a pass."""
    found: dict[tuple[str, int], Session] = {}
    peers = cluster.specs("BGPPeer").items()
    passes = (
        (one for name, peer in peers if _is_global(peer) for one in _forward(cluster, family, "global", name, peer)),
        (
            one
            for name, peer in peers
            if not _is_global(peer) and _has_it(cluster, NODE, peer)
            for one in _forward(cluster, family, "node", name, peer)
        ),
        (one for name, peer in peers for one in _reverse(cluster, family, name, peer)),
    )
    for sessions in passes:
        for session in sessions:
            if cluster.is_of(family, session.address):
                found.setdefault(session.key, session)
    own = cluster.address(NODE, family)
    return [session for session in found.values() if session.address != own]


def _is_global(peer: Spec) -> bool:
    return not peer.get("node") and not peer.get("nodeSelector")


def _has_it(cluster: Cluster, node: str, peer: Spec) -> bool:
    """Whether a node has the peering (3: node, else nodeSelector, else all)."""
    if peer.get("nodeSelector"):
        return cluster.selects(peer["nodeSelector"], node)
    return _is_global(peer) or peer["node"] == node


def _forward(cluster: Cluster, family: str, kind: str, name: str, peer: Spec) -> Iterator[Session]:
    if peer.get("localWorkloadSelector"):
        yield from _pods(cluster, family, name, peer)
    elif peer.get("peerSelector"):
        for node in cluster.nodes:
            if cluster.selects(peer["peerSelector"], node) and (address := cluster.address(node, family)):
                yield _to_node(cluster, kind, node, address, name, peer)
    else:
        yield from _to_address(cluster, family, kind, name, peer)


def _pods(cluster: Cluster, family: str, name: str, peer: Spec) -> Iterator[Session]:
    """6.7: of each status file that names the BGPPeer, the first address of the family."""
    for path in sorted(cluster.files):
        status = cluster.files[path]
        if status.get("bgpPeerName") == name and status[f"{family}Nets"]:
            number = asn(peer["asNumber"])
            assert number is not None
            address = host(status[f"{family}Nets"][0])
            yield Session("local_workload", address, number, None, name, peer, by_address=True, passive=True)


def _to_node(cluster: Cluster, kind: str, node: str, address: str, name: str, peer: Spec) -> Session:
    """6.4."""
    number, port = cluster.asn_of(node), cluster.port(node)
    return Session(kind, address, number, port, name, peer, cluster.cluster_id(node))


def _to_address(cluster: Cluster, family: str, kind: str, name: str, peer: Spec) -> Iterator[Session]:
    """6.3. Quirk 14: without an AS number, the cluster's where the address is a node's of that AS, else nothing."""
    address, port = _split(peer["peerIP"])
    nodes = matching_nodes(cluster, peer)
    number = asn(peer.get("asNumber")) or (cluster.asn if nodes else None)
    if number is None:
        return
    if port is None and nodes:
        port = cluster.port(nodes[0])
    everybody = {cluster.address(node, either) for node in cluster.nodes for either in ("ipv4", "ipv6")}
    # Quirk 4: as text, and only where all nodes have the peering.
    passive = kind == "global" and address in everybody and address > cluster.address(NODE, family)
    yield Session(kind, address, number, port, name, peer, by_address=True, passive=passive)


def _split(text: str) -> tuple[str, int | None]:
    """peerIP's forms: a.b.c.d, v6, a.b.c.d:port, [v6]:port."""
    if text.startswith("["):
        address, _, rest = text[1:].partition("]")
        return host(address), int(rest[1:]) if rest else None
    if text.count(":") == 1:
        address, _, port = text.partition(":")
        return host(address), int(port)
    return host(text), None


def matching_nodes(cluster: Cluster, peer: Spec) -> list[str]:
    """Nodes that a peerIP means (6.3): address, AS, and the port where one is written. Quirk 5: the node's own port."""
    address, port = _split(peer["peerIP"])
    family = "ipv6" if ":" in address else "ipv4"
    return [
        node
        for node in cluster.nodes
        if cluster.address(node, family) == address
        and cluster.asn_of(node) == (asn(peer.get("asNumber")) or cluster.asn)
        and port in (None, cluster.port(node) or 179)
    ]


def _reverse(cluster: Cluster, family: str, name: str, peer: Spec) -> Iterator[Session]:
    """6.5, the third pass: the roles are swapped."""
    if peer.get("reversePeering") == "Manual" or peer.get("localWorkloadSelector"):
        return
    if peer.get("peerIP"):
        if NODE not in matching_nodes(cluster, peer) or not cluster.is_of(family, _split(peer["peerIP"])[0]):
            return
    elif not cluster.selects(peer["peerSelector"], NODE):
        return
    for node in cluster.nodes:
        if node != NODE and _has_it(cluster, node, peer) and (address := cluster.address(node, family)):
            yield _to_node(cluster, "node", node, address, name, peer)


def _mesh(cluster: Cluster, family: str) -> list[Session]:
    """6.2. Quirk 3: a peer without an AS number has the cluster's."""
    own = cluster.address(NODE, family)
    found: dict[str, Session] = {}
    if cluster.default.get("nodeToNodeMeshEnabled") is False or cluster.cluster_id(NODE):
        return []
    for node in cluster.nodes:
        address = cluster.address(node, family)
        if address and address != own and not cluster.cluster_id(node):
            session = Session("mesh", address, cluster.asn_of(node), cluster.port(node), passive=address > own)
            found.setdefault(address, session)
    return list(found.values())


# --- and how


def described(cluster: Cluster, family: str) -> list[dict[str, Any]]:
    """All sessions of the family, as Calico's cases state them; `held`: it is held down (docs/quirks.md)."""
    if not cluster.address(NODE, family):
        return []
    running: list[dict[str, Any]] = []
    found: list[dict[str, Any]] = []
    for session in (*asked_for(cluster, family), *_mesh(cluster, family)):
        entry = _parameters(cluster, family, session)
        clash = any(_cannot_share(entry, other) for other in running)
        entry["held"] = clash or _password(cluster, session) == ""
        if not entry["held"]:
            running.append(entry)
        found.append(entry)
    return found


def _cannot_share(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Quirk 2, and two sessions to different ports of an address: one password, one ttlSecurity."""
    if one["address"] != other["address"]:
        return False
    same = all(one[name] == other[name] for name in ("password", "ttl_security", "multihop"))
    return one["port"] == other["port"] or not same


def _parameters(cluster: Cluster, family: str, session: Session) -> dict[str, Any]:
    """3 and 6.2 to 6.9. A field that does not count for a pod's session is passed over (6.7)."""
    peer = session.peer
    said: Spec = {} if session.kind == "local_workload" else peer
    mine = (asn(peer.get("localASNumber")) if session.by_address else None) or cluster.asn_of(NODE)
    ibgp = session.asn == mine
    hops = said.get("ttlSecurity") or 0
    cluster_id = cluster.cluster_id(NODE)
    client = bool(cluster_id) and ibgp and session.cluster_id != cluster_id and session.kind != "mesh"
    mode = said.get("nextHopMode")
    keep = mode == "Keep" or (not mode and bool(said.get("keepOriginalNextHop")) and not ibgp)
    restart = cluster.default.get("nodeMeshMaxRestartTime") if session.kind == "mesh" else said.get("maxRestartTime")
    bound = session.kind != "local_workload" and said.get("sourceAddress") != "None"
    return {
        "name": _session_name(session),
        "kind": session.kind,
        "family": family,
        "address": session.address,
        "port": session.port or 179,
        "asn": session.asn,
        "local_as": mine,
        "ibgp": ibgp,
        "internal_peer": ibgp,
        "source_address": cluster.address(NODE, family) if bound else None,
        "passive": session.passive,
        "multihop": hops or True,
        "ttl_security": bool(hops),
        "password": _password(cluster, session) or None,
        "rr_client": client,
        "rr_cluster_id": cluster_id if client else None,
        # Looked for in what clients send, and nowhere else (6.6).
        "allow_own_cluster": not client,
        "next_hop_self": mode == "Self",
        "next_hop_keep": keep,
        "add_paths": True,
        "graceful_restart": True,
        "graceful_restart_time": None if restart is None else seconds(restart),
        "hold_time": 240,
        "keepalive_time": seconds(said.get("keepaliveTime") or "0s") or None,
        "allow_own_as": (said.get("numAllowedLocalASNumbers") or 0) if session.by_address else 0,
        "gateway": "recursive",
        "import_filters": peer.get("filters") or [],
        "export_filters": peer.get("filters") or [],
    }


def _session_name(session: Session) -> str:
    """6.8."""
    kind = "_".join(word.capitalize() for word in session.kind.split("_"))
    port = f"_port_{session.port}" if session.port is not None and session.kind != "mesh" else ""
    return f"{kind}_{session.address.replace('.', '_').replace(':', '_')}{port}"


def _password(cluster: Cluster, session: Session) -> str | None:
    """None: none is asked for. "": its Secret or key is missing (held down, docs/quirks.md)."""
    if session.kind == "local_workload":
        return None
    asked = cluster.default.get("nodeMeshPassword") if session.kind == "mesh" else session.peer.get("password")
    if asked is None:
        return None
    name, key = asked["secretKeyRef"]["name"], asked["secretKeyRef"]["key"]
    space = cluster.env.get("NAMESPACE") or "kube-system"
    for secret in cluster.of("Secret"):
        if (secret["metadata"]["namespace"], secret["metadata"]["name"]) == (space, name):
            plain = secret.get("stringData", {}).get(key)
            return str(plain) if plain is not None else b64decode(secret.get("data", {}).get(key, "")).decode()
    return ""
