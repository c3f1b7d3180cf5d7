"""Which peers there are, by name, by address and by connection."""

from __future__ import annotations

from ipaddress import ip_address

from bgpd.peer import Peer


class Directory:
    """Finds peers. A name has one peer; an address has several where they differ in port."""

    def __init__(self) -> None:
        self.by_name: dict[str, Peer] = {}
        self.by_conn: dict[int, Peer] = {}
        self._by_address: dict[str, list[Peer]] = {}
        """By canonical address."""

    def add(self, peer: Peer) -> None:
        """A peer was made."""
        self.by_name[peer.settings.name] = peer
        self._by_address.setdefault(str(ip_address(peer.settings.address)), []).append(peer)

    def remove(self, peer: Peer) -> list[int]:
        """A peer is gone; returns the connections that it leaves behind."""
        self.by_name.pop(peer.settings.name, None)
        address = str(ip_address(peer.settings.address))
        # Where two peers change places, another may have the address already.
        others = [other for other in self._by_address.get(address, ()) if other is not peer]
        if others:
            self._by_address[address] = others
        else:
            self._by_address.pop(address, None)
        conns = self.connections(peer)
        for conn in conns:
            del self.by_conn[conn]
        return conns

    def connections(self, peer: Peer) -> list[int]:
        """A peer's connections: two at most, while they collide (RFC 4271 §6.8)."""
        return [conn for conn, other in self.by_conn.items() if other is peer]

    def configured_at(self, remote_address: str) -> list[Peer]:
        """Peers of an address, those that are held down among them."""
        return self._by_address.get(remote_address, [])

    def at(self, remote_address: str) -> Peer | None:
        """The peer that a connection from this address is for; None: no peer has it, or all that do are held down.

        Peers at one address differ in port only, which an incoming connection does not show: one that has no session
        comes first, one without any connection before that, else the order is that of names.
        """
        enabled = [peer for peer in self._by_address.get(remote_address, ()) if not peer.settings.disabled]
        return min(enabled, key=lambda peer: (peer.session.state, peer.settings.name), default=None)
