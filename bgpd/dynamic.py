"""Dynamic neighbours: peers that nobody configured one by one, made from a template when one connects from its
range."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

from attrs import evolve

from bgpd.peer import Peer
from bgpd.session.fsm import State
from bgpd.settings import PeerSettings, SpeakerSettings


class DynamicPeers:
    """The templates by range, and which dynamic peers there are.

    A peer without a connection stays while its stale routes do, or the memory of its errors; it is *dormant* then, and
    makes room where the limit is reached.
    """

    def __init__(self, settings: SpeakerSettings) -> None:
        self.peers: dict[str, Peer] = {}
        self.dormant: dict[str, Peer] = {}
        self.refused = 0
        """Connections refused because the limit was reached."""
        self.use(settings)

    def use(self, settings: SpeakerSettings) -> None:
        """Put other templates and another limit into force, for connections to come."""
        self.limit = settings.max_dynamic
        ranges = [(ip_network(cidr, strict=False), template) for cidr, template in settings.dynamic]
        # The longest range that fits decides, as in the listener.
        self._ranges = sorted(ranges, key=lambda entry: -entry[0].prefixlen)

    def __bool__(self) -> bool:
        return bool(self._ranges)

    def template(self, remote_address: str) -> PeerSettings | None:
        """The template for an address, or None."""
        if not self._ranges:
            return None
        address = ip_address(remote_address)
        return next((template for network, template in self._ranges if address in network), None)

    def settings_for(self, remote_address: str) -> PeerSettings | None:
        """Settings of the peer at an address in a range, or None."""
        template = self.template(remote_address)
        if template is None:
            return None
        name = f"{template.name}_{remote_address.replace('.', '_').replace(':', '_')}"
        return evolve(template, name=name, address=remote_address, passive=True)

    def full(self) -> bool:
        """Whether there is no room for another one."""
        return bool(self.limit) and len(self.peers) >= self.limit

    def add(self, peer: Peer) -> None:
        """A peer was made."""
        peer.dynamic = True
        self.peers[peer.settings.name] = peer

    def note(self, peer: Peer, state: State) -> None:
        """A peer's session has changed its state."""
        name = peer.settings.name
        if state <= State.ACTIVE and name in self.peers:
            self.dormant[name] = peer
        else:
            self.dormant.pop(name, None)

    def discard(self, peer: Peer) -> None:
        """A peer is gone, or about to."""
        self.peers.pop(peer.settings.name, None)
        self.dormant.pop(peer.settings.name, None)
