"""Which update group an established peer belongs to for a family: all that shapes its outgoing bytes."""

from __future__ import annotations

from bgpd.family import IPV4_UNICAST, Family, parse_address
from bgpd.peer import Peer, cluster_id, kind_of, local_asn
from bgpd.policy.terms import SourceKind
from bgpd.rib.export import GroupKey
from bgpd.settings import FamilySettings, PeerSettings, SpeakerSettings


def group_key(settings: SpeakerSettings, peer: Peer, family: Family, instead: PeerSettings | None = None) -> GroupKey:
    """The key of an established peer's group, with its own settings or others `instead`. Raises KeyError for a family
    that is not configured."""
    negotiated = peer.session.negotiated
    assert negotiated is not None
    of = peer.settings if instead is None else instead
    wanted = _of_family(of, family)
    kind = kind_of(settings, of)
    cluster = cluster_id(settings, of) if kind is SourceKind.IBGP_CLIENT else own_cluster_id(settings)
    return GroupKey(
        family,
        kind,
        local_asn(settings, of),
        settings.export_terms(wanted),
        of.next_hop_mode,
        own_address(peer, family, of),
        cluster,
        negotiated.asn4,
        family in negotiated.add_path_send,
        negotiated.max_send_length,
        family in negotiated.extended_next_hop,
    )


def own_cluster_id(settings: SpeakerSettings) -> bytes:
    """The cluster id that we put into CLUSTER_LIST towards non-clients (RFC 4456 §7)."""
    return parse_address(settings.cluster_id or settings.router_id)


def family_settings(peer: Peer, family: Family) -> FamilySettings:
    """The settings of one family of a peer. Raises KeyError."""
    return _of_family(peer.settings, family)


def _of_family(settings: PeerSettings, family: Family) -> FamilySettings:
    for entry in settings.families:
        if entry.family == family:
            return entry
    raise KeyError(str(family))


def own_address(peer: Peer, family: Family, settings: PeerSettings) -> bytes:
    """Our next hop towards a peer: the configured one, else the session's own address.

    IPv6 routes on an IPv4 session without a configured address get it as an IPv4-mapped one, as RFC 4271 knows no
    better; IPv4 routes on an IPv6 session need RFC 8950, else they have no next hop (empty).
    """
    for configured, address in settings.own_addresses:
        if configured == family:
            return parse_address(address)
    local = parse_address((peer.session.local_address or "0.0.0.0").split("%")[0])
    if len(local) == family.octets:
        return local
    if family == IPV4_UNICAST:
        negotiated = peer.session.negotiated
        return local if negotiated is not None and family in negotiated.extended_next_hop else b""
    return b"\0" * 10 + b"\xff\xff" + local
