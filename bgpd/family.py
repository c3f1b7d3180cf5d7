"""Address families, and NLRI keys: the form in which a prefix travels through the whole program.

An NLRI key is `bytes`: the length octet and the octets that length needs, trailing bits cleared (RFC 4271 §4.3's own
encoding). It equals the wire form, hashes fast and orders by length first.
"""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import NamedTuple


class Family(NamedTuple):
    """An (AFI, SAFI) pair (RFC 4760)."""

    afi: int
    safi: int

    @property
    def bits(self) -> int:
        """Length of an address in bits: 32 or 128."""
        return 32 if self.afi == 1 else 128

    @property
    def octets(self) -> int:
        """Length of an address in octets: 4 or 16."""
        return 4 if self.afi == 1 else 16

    def __str__(self) -> str:
        return _NAMES.get((self.afi, self.safi), f"afi {self.afi} safi {self.safi}")


IPV4_UNICAST = Family(1, 1)
IPV6_UNICAST = Family(2, 1)
FAMILIES = (IPV4_UNICAST, IPV6_UNICAST)
_NAMES = {(1, 1): "ipv4", (2, 1): "ipv6"}


def family_of(address: str) -> Family:
    """The unicast family of an address or prefix in text form."""
    return IPV6_UNICAST if ":" in address else IPV4_UNICAST


def parse_prefix(text: str) -> tuple[Family, bytes]:
    """Text ("10.0.0.0/8", "fd00::1"; host bits are cleared) to family and NLRI key. Raises ValueError."""
    network = ip_network(text, strict=False)
    family = IPV4_UNICAST if network.version == 4 else IPV6_UNICAST
    return family, network_key(network)


def network_key(network: IPv4Network | IPv6Network) -> bytes:
    """The NLRI key of an `ipaddress` network."""
    length = network.prefixlen
    return bytes((length,)) + network.network_address.packed[: (length + 7) >> 3]


def format_prefix(family: Family, key: bytes) -> str:
    """NLRI key to text: "10.0.0.0/8"."""
    address = ip_address(key[1:].ljust(family.octets, b"\0"))
    return f"{address}/{key[0]}"


def format_address(packed: bytes) -> str:
    """Packed address (4 or 16 octets; of 32, the first 16) to text; "-" for none."""
    return str(ip_address(packed[:16])) if packed else "-"


def parse_address(text: str) -> bytes:
    """Text to packed address. Raises ValueError."""
    return ip_address(text).packed
