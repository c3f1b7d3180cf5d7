"""One Calico cluster as plain documents, and what its fields say by calico-bgp.md: the ground that the model stands on.

Written from the reference alone: nothing of `config` is imported here, nor by the other modules of the model
(`calico_sessions`, `calico_services`, `calico_routes`). Families are called "ipv4" and "ipv6", as in Calico's cases.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from types import MappingProxyType
from typing import Any

from attrs import frozen

from tests.property.calico_selectors import meaning

__all__ = ["FAMILIES", "MAXIMUM", "NODE", "Cluster", "Spec", "asn", "host", "inside", "net", "seconds"]

Spec = Mapping[str, Any]
Labels = Mapping[str, str]
FAMILIES = ("ipv4", "ipv6")
NODE = "a"
"""The node whose settings are worked out."""
MAXIMUM = 2**31 - 1
"""M of the reference."""
_UNITS = MappingProxyType({"ms": 0.001, "s": 1, "m": 60, "h": 3600})


def asn(value: object) -> int | None:
    """An AS number as number, decimal text or hi.lo; 0 is how an unset one is written (1.3)."""
    if value is None:
        return None
    high, dot, low = str(value).partition(".")
    return (int(high) << 16 | int(low) if dot else int(high)) or None


@lru_cache(4096)
def net(text: str) -> IPv4Network | IPv6Network:
    """A prefix, or an address as the prefix of one address; host bits are tolerated (4.2)."""
    return ip_network(text, strict=False)


@lru_cache(65536)
def inside(inner: str, outer: str) -> bool:
    """Equal or longer, and contained (7.4)."""
    one, other = net(inner), net(outer)
    if isinstance(one, IPv4Network) and isinstance(other, IPv4Network):
        return one.subnet_of(other)
    return isinstance(one, IPv6Network) and isinstance(other, IPv6Network) and one.subnet_of(other)


def host(text: str) -> str:
    """The address part, as sessions and their names have it."""
    return str(ip_address(text.partition("/")[0]))


def seconds(text: str) -> int:
    """A Go duration of one unit, to the nearest second (3, maxRestartTime)."""
    parts = re.fullmatch(r"(\d+(?:\.\d+)?)(ms|s|m|h)", text)
    assert parts is not None
    return int(float(parts[1]) * _UNITS[parts[2]] + 0.5)


@frozen(eq=False)
class Cluster:
    """Everything that the node is told: resources, Felix's status files by path, the environment."""

    documents: tuple[Spec, ...]
    files: Mapping[str, Any]
    env: Mapping[str, str]

    def of(self, kind: str) -> Iterator[Spec]:
        """Whole documents of a kind, by name."""
        found = (document for document in self.documents if document["kind"] == kind)
        return iter(sorted(found, key=lambda document: str(document["metadata"]["name"])))

    def specs(self, kind: str) -> dict[str, Any]:
        """Name -> spec, by name."""
        return {document["metadata"]["name"]: document["spec"] for document in self.of(kind)}

    # BGPConfiguration (2)

    @property
    def default(self) -> Spec:
        """The one for all nodes; without it, all defaults apply (2.3)."""
        return self._config("default")

    @property
    def own(self) -> Spec:
        """The node's own, of which listenPort, logSeverityScreen and prefixAdvertisements count (2.3)."""
        return self._config(f"node.{NODE}")

    def _config(self, name: str) -> Spec:
        found: Spec = self.specs("BGPConfiguration").get(name, {})
        return found

    @property
    def asn(self) -> int:
        """That of all nodes that have none of their own."""
        return asn(self.default.get("asNumber")) or 64512

    def priority(self, family: str) -> int:
        """P of a family."""
        return self.default.get(f"{family}NormalRoutePriority") or 1024

    def cidrs(self, field: str, family: str = "") -> list[str]:
        """Prefixes of one of the lists of service ranges."""
        found = [entry["cidr"] for entry in self.default.get(field) or () if entry.get("cidr")]
        return [cidr for cidr in found if not family or self.is_of(family, cidr)]

    @staticmethod
    def is_of(family: str, text: str) -> bool:
        """Whether an address or prefix is of the family."""
        return (":" in text) == (family == "ipv6")

    # Nodes (6)

    @property
    def nodes(self) -> list[str]:
        """Names, in order."""
        return list(self.specs("Node"))

    def _bgp(self, node: str) -> Spec:
        found: Spec = self.specs("Node")[node].get("bgp", {})
        return found

    def labels(self, node: str) -> Labels:
        """A Node's labels."""
        return next(d["metadata"].get("labels", {}) for d in self.of("Node") if d["metadata"]["name"] == node)

    def selects(self, selector: str, node: str) -> bool:
        """Whether a selector over Node labels matches a node."""
        return meaning(selector)(self.labels(node))

    def asn_of(self, node: str) -> int:
        """Its own AS number, else the cluster's."""
        return asn(self._bgp(node).get("asNumber")) or self.asn

    def address(self, node: str, family: str) -> str:
        """A4 or A6; "" where there is none."""
        text = self._bgp(node).get(f"{family}Address")
        return host(text) if text else ""

    def ipv4_network(self) -> str:
        """The local subnet of 8.3; "" where there is none."""
        return str(self._bgp(NODE).get("ipv4Address") or "")

    def cluster_id(self, node: str) -> str:
        """The node's route-reflector cluster id, or ""."""
        return self._bgp(node).get("routeReflectorClusterID") or ""

    def port(self, node: str) -> int | None:
        """The listenPort that configuration gives a node; None = none, so 179 (6.2)."""
        return self._config(f"node.{node}").get("listenPort") or self.default.get("listenPort") or None

    def wireguard(self, node: str, family: str) -> bool:
        """Whether the node has a WireGuard address of the family (8.2)."""
        field = "interfaceIPv4Address" if family == "ipv4" else "interfaceIPv6Address"
        return bool(self.specs("Node")[node].get("wireguard", {}).get(field))
