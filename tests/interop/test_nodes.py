"""The product with Calico resources and a foreign ToR: own blocks out, learned routes into the kernel, changes live."""

from __future__ import annotations

import json

import pytest

from tests.interop.common import PEER_AS, peer_config, session
from tests.interop.conftest import OURS4, OURS6, PEER4, PEER6, Pair
from tests.interop.model import IPV4, IPV6, Announcement, Route, route
from tests.interop.namespace import wait_until
from tests.interop.ours import Json, resource
from tests.interop.peers import TRAITS, Bird, Daemon, Frr, OpenBgpd, need

NODE_AS = 65001
BLOCK4, BLOCK6 = "10.244.7.0/26", "fd00:10:244::/122"


def resources() -> list[Json]:
    """One node, its blocks, and a ToR on each family."""
    objects = [
        resource("Node", "node-a", bgp={"ipv4Address": f"{OURS4}/24", "ipv6Address": f"{OURS6}/64"}),
        resource("BGPConfiguration", "default", asNumber=NODE_AS, nodeToNodeMeshEnabled=False),
        resource("BGPPeer", "tor-ipv4", node="node-a", peerIP=PEER4, asNumber=PEER_AS),
        resource("BGPPeer", "tor-ipv6", node="node-a", peerIP=PEER6, asNumber=PEER_AS),
        resource("IPPool", "pods-ipv4", cidr="10.244.0.0/16", ipipMode="Never", vxlanMode="Never"),
        resource("IPPool", "pods-ipv6", cidr="fd00:10:244::/48", ipipMode="Never", vxlanMode="Never"),
    ]
    for number, cidr in enumerate((BLOCK4, BLOCK6)):
        objects.append(resource("BlockAffinity", f"block-{number}", cidr=cidr, node="node-a", state="confirmed"))
    return objects


def kernel(pair: Pair, family: str) -> dict[str, Json]:
    """Routes of our protocol in the node's kernel."""
    flag = "-4" if family == IPV4 else "-6"
    items = json.loads(pair.ours.ip("-j", flag, "route", "show", "proto", "12") or "[]")
    return {item["dst"]: item for item in items}


def seen(kind: type[Daemon], prefixes: tuple[str, ...], hop: str) -> list[Route]:
    """Routes of the node as the ToR shows them."""
    traits = TRAITS[kind]
    return [route(p, hop, str(NODE_AS), local_pref=traits.shows_local_pref, med=traits.shows_med) for p in prefixes]


@pytest.mark.parametrize("kind", [Bird, Frr, OpenBgpd], ids=lambda kind: kind.name)
def test_node_and_tor(pair: Pair, kind: type[Daemon]) -> None:
    need(kind)
    items = (Announcement("10.2.0.0/24"), Announcement("10.2.1.0/24"), Announcement("fd02::/64"))
    daemon = pair.daemon(kind, peer_config(session(IPV4), session(IPV6), announcements=items))
    node = pair.node("node-a", resources())
    pair.ours.ip("link", "add", "cali0", "type", "veth", "peer", "name", "pod0")
    for link in ("cali0", "pod0"):
        pair.ours.ip("link", "set", link, "up")
    daemon.start()
    node.start()
    node.wait_established(PEER4, PEER6)
    daemon.wait_table(OURS4, seen(kind, (BLOCK4,), OURS4))
    daemon.wait_table(OURS6, seen(kind, (BLOCK6,), OURS6))

    # A pod with an address of its own block is inside the aggregate; one with a borrowed address is announced.
    for address in ("10.244.7.3", "10.244.99.5"):
        pair.ours.ip("route", "add", f"{address}/32", "dev", "cali0", "proto", "80", "metric", "1024")
    daemon.wait_table(OURS4, seen(kind, (BLOCK4, "10.244.99.5/32"), OURS4))
    pair.ours.ip("route", "del", "10.244.99.5/32", "dev", "cali0")
    daemon.wait_table(OURS4, seen(kind, (BLOCK4,), OURS4))

    # What the ToR announces is in the kernel, and goes with its withdrawal.
    def learned() -> set[str]:
        found = {dst for dst, item in kernel(pair, IPV4).items() if item.get("gateway") == PEER4}
        return found | {dst for dst, item in kernel(pair, IPV6).items() if item.get("gateway") == PEER6}

    wait_until(lambda: learned() == {"10.2.0.0/24", "10.2.1.0/24", "fd02::/64"}, 15, "the ToR's routes in the kernel")
    assert kernel(pair, IPV4)[BLOCK4]["type"] == "blackhole"
    daemon.reconfigure(daemon.config.withdraw("10.2.1.0/24"))
    wait_until(lambda: learned() == {"10.2.0.0/24", "fd02::/64"}, 15, "the withdrawn route leaves the kernel")

    # One session's parameters change; the other does not notice. A bad object changes nothing.
    node.put(resource("BGPPeer", "tor-ipv4", node="node-a", peerIP=PEER4, asNumber=PEER_AS, keepaliveTime="10s"))
    node.put(resource("BGPPeer", "tor-ipv6", node="node-a", peerIP="not an address", asNumber=PEER_AS))
    wait_until(lambda: bool(node.get("/status")["datastore"]["problems"]), 10, "the bad object is told")
    node.wait_established(PEER4, PEER6)
    assert node.peers()[PEER6]["flaps"] == 0, node.output()

    # A peer that is taken away gets its Cease/3, and its routes leave the kernel.
    node.delete("BGPPeer", "tor-ipv4")
    wait_until(lambda: learned() == {"fd02::/64"}, 15, "the removed peer's routes leave the kernel")
    wait_until(lambda: not daemon.established(OURS4), 10, "the ToR sees the session end")
