"""ExaBGP 5.0.15's codec as an oracle: a second opinion on messages that are valid.

Its interfaces change with every release and its state is global, so nothing else imports exabgp. It is lenient with
invalid messages and says nothing about them here. Results are copied out at once: two UPDATEs with equal attributes
share one mutable object in there.
"""

from __future__ import annotations

from ipaddress import ip_network
from typing import Any, NamedTuple

from exabgp.bgp.message import Action, Open, Update
from exabgp.bgp.message.direction import Direction
from exabgp.bgp.message.notification import Notify
from exabgp.bgp.message.open.asn import ASN
from exabgp.bgp.message.open.capability import Capabilities, Capability, Negotiated
from exabgp.bgp.message.open.capability.addpath import AddPath
from exabgp.bgp.message.open.capability.asn4 import ASN4
from exabgp.bgp.message.open.capability.mp import MultiProtocol
from exabgp.bgp.message.open.holdtime import HoldTime
from exabgp.bgp.message.open.routerid import RouterID
from exabgp.bgp.message.open.version import Version
from exabgp.bgp.neighbor import Neighbor
from exabgp.logger import log
from exabgp.protocol.family import AFI, SAFI

# Without this the first decoding fails on a logger that is not there.
log.disable()

_FAMILIES = ((AFI.ipv4, SAFI.unicast), (AFI.ipv6, SAFI.unicast))
_BOTH_WAYS = 3


class Refused(Exception):
    """ExaBGP would end the session."""


class OracleUpdate(NamedTuple):
    """Routes as (family name, path identifier, prefix text, next hop text); attributes as whole octets by code."""

    announced: set[tuple[str, int, str, str]]
    withdrawn: set[tuple[str, int, str]]
    attributes: dict[int, bytes]
    messages: list[bytes]
    """The same, in ExaBGP's own encoding."""


class Oracle:
    """One session's ExaBGP."""

    def __init__(self, external: bool, add_path: bool) -> None:
        local, peer = 65000, 65001 if external else 65000
        neighbor = Neighbor()
        neighbor["local-as"], neighbor["peer-as"] = ASN(local), ASN(peer)
        self._negotiated = Negotiated(neighbor)
        self._negotiated.sent(_open(local, "10.0.0.1", add_path))
        self._negotiated.received(_open(peer, "10.0.0.2", add_path))

    def read_update(self, body: bytes) -> OracleUpdate:
        """Decode a body. Raises Refused."""
        try:
            update = Update.unpack_message(body, Direction.IN, self._negotiated)
            announced: set[tuple[str, int, str, str]] = set()
            withdrawn: set[tuple[str, int, str]] = set()
            for nlri in update.nlris:
                route = (f"{nlri.afi} {nlri.safi}", _path_id(nlri), str(ip_network(nlri.cidr.prefix())))
                if nlri.action == Action.ANNOUNCE:
                    announced.add((*route, str(nlri.nexthop)))
                else:
                    withdrawn.add(route)
            attributes = {code: value.pack(self._negotiated) for code, value in update.attributes.items()}
            messages = list(update.messages(self._negotiated))
        except Notify as error:
            raise Refused(str(error)) from error
        return OracleUpdate(announced, withdrawn, attributes, messages)


def read_open(body: bytes) -> tuple[int, int, str, set[int]]:
    """(AS field, hold time, identifier, capability codes). Raises Refused."""
    try:
        message = Open.unpack_message(body)
    except Notify as error:
        raise Refused(str(error)) from error
    return (
        int(message.asn),
        int(message.hold_time),
        str(message.router_id),
        {int(code) for code in message.capabilities},
    )


def _open(asn: int, router_id: str, add_path: bool) -> Any:
    capabilities = Capabilities()
    families = MultiProtocol()
    families.extend(_FAMILIES)
    capabilities[Capability.CODE.MULTIPROTOCOL] = families
    capabilities[Capability.CODE.FOUR_BYTES_ASN] = ASN4(asn)
    if add_path:
        capabilities[Capability.CODE.ADD_PATH] = AddPath(_FAMILIES, _BOTH_WAYS)
    return Open(Version(4), ASN(asn), HoldTime(180), RouterID(router_id), capabilities)


def _path_id(nlri: Any) -> int:
    return int.from_bytes(nlri.path_info.path_info, "big")
