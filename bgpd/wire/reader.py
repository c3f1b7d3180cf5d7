"""Reading the NLRI of one negotiated family, as a session agreed on it."""

from __future__ import annotations

from bgpd.family import IPV6_UNICAST, Family
from bgpd.wire import nlri
from bgpd.wire.examine import Finding
from bgpd.wire.rules import Action


class FamilyReader:
    """How one negotiated family's NLRI are read."""

    __slots__ = ("_find_behind_id", "add_path", "family", "find", "next_hop_lengths")

    def __init__(self, family: Family, add_path: bool, extended_next_hop: bool) -> None:
        self.family = family
        self.add_path = add_path
        self.find = nlri.finder(family, add_path)
        self._find_behind_id = nlri.finder_behind_id(family)
        lengths = (16, 32) if family == IPV6_UNICAST else (4,)
        self.next_hop_lengths = (4, 16, 32) if extended_next_hop else lengths

    def read(self, field: bytes) -> tuple[bytes, list[bytes]] | None:
        """(path identifier, keys) of a clean field that is not empty; b"" where there are none, or several, which are
        then before each key. None: something in it is dirty or wrong."""
        if self.add_path:
            path_id = field[: nlri.PATH_ID_LENGTH]
            keys = self._find_behind_id(field)
            if keys and path_id + path_id.join(keys) == field:
                return path_id, keys
        keys = self.find(field)
        return (b"", keys) if b"".join(keys) == field else None

    def split(self, data: bytes, findings: list[Finding]) -> list[bytes]:
        """The field's keys behind their path identifiers, multicast ones left out with a finding. Raises BGPError
        3/10."""
        keys = self.find(data)
        if b"".join(keys) == data:
            return keys
        keys = nlri.split_carefully(data, self.family, self.add_path)
        skip = nlri.PATH_ID_LENGTH if self.add_path else 0
        unicast = [key for key in keys if not nlri.is_multicast(key[skip:], self.family)]
        if len(unicast) != len(keys):
            reason = f"{len(keys) - len(unicast)} multicast prefixes"
            findings.append(Finding(0, "NLRI", Action.IGNORE, reason, "RFC 4271 §6.3"))
        return unicast


def family_octets(family: Family) -> bytes:
    """AFI and SAFI as they begin MP_REACH_NLRI and MP_UNREACH_NLRI."""
    return family.afi.to_bytes(2, "big") + bytes((family.safi,))
