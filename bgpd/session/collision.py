"""Which of two connections to one peer stays (RFC 4271 §6.8, RFC 6286 §2.3)."""

from __future__ import annotations


def local_wins(local_id: bytes, local_asn: int, peer_id: bytes, peer_asn: int) -> bool:
    """True: the connection that we opened stays. False: the one that the peer opened.

    Identifiers compare as unsigned 32-bit numbers (four octets in network order do so as bytes). Equal identifiers,
    which only external peers can have, leave it to the larger AS number.
    """
    if local_id != peer_id:
        return local_id > peer_id
    return local_asn > peer_asn
