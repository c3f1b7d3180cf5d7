"""Certificates and keys that are given as files: whether they can be used, before a client's own words hide why not."""

from __future__ import annotations

import contextlib
import os
import re
import ssl
from datetime import UTC, datetime

__all__ = ["check_authorities", "check_pair", "context_for", "ended", "load_pair", "reason"]

_VALIDITY = re.compile(rb"(?:\x17\x0d[0-9]{12}Z|\x18\x0f[0-9]{14}Z)(?:\x17\x0d([0-9]{12})Z|\x18\x0f([0-9]{14})Z)")
"""Two times one behind the other, which in a certificate are notBefore and notAfter (RFC 5280 §4.1.2.5)."""


def context_for(authorities: bytes | None = None) -> ssl.SSLContext:
    """A client's context that trusts these authorities, as PEM; None: the system's. Raises ssl.SSLError.

    It asks of certificates what kubectl and calicoctl do, whichever Python runs it: one from an intermediate authority
    may be trusted by itself, and an extension that RFC 5280 wants, such as the authority key identifier, may be
    missing. Python asked too much before 3.13 in the first, and does so since in the second.
    """
    context = ssl.create_default_context(cadata=None if authorities is None else authorities.decode("ascii", "replace"))
    context.verify_flags = (context.verify_flags | ssl.VERIFY_X509_PARTIAL_CHAIN) & ~ssl.VERIFY_X509_STRICT
    return context


def check_authorities(data: bytes) -> None:
    """Raises ValueError, in a few words, for what holds no certificate as PEM."""
    try:
        context_for(data)
    except ssl.SSLError as error:
        raise ValueError(reason(error)) from None


def check_pair(cert: bytes, key: bytes) -> None:
    """Raises ValueError, in a few words, for a certificate and a key, as PEM, that cannot be used together."""
    load_pair(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), cert, key)


def load_pair(context: ssl.SSLContext, cert: bytes, key: bytes) -> None:
    """Put a client's certificate and key into a context. Raises ValueError, in a few words.

    The interpreter takes them from files only: this one is in memory, which needs no folder that can be written.
    """
    if b"ENCRYPTED" in key:
        raise ValueError("the key is encrypted, and there is nobody to ask for its passphrase: give it without one")
    descriptor = os.memfd_create("certificate")
    try:
        os.write(descriptor, cert + b"\n" + key)
        context.load_cert_chain(f"/proc/self/fd/{descriptor}")
    except ssl.SSLError as error:
        raise ValueError(reason(error)) from None
    finally:
        os.close(descriptor)


def ended(cert: bytes, now: datetime) -> str:
    """Since when a certificate, the first of a PEM file, is out of date; "" where it is not, or is unclear."""
    with contextlib.suppress(ValueError):
        start, end = cert.index(b"-----BEGIN CERTIFICATE-----"), cert.index(b"-----END CERTIFICATE-----")
        der = ssl.PEM_cert_to_DER_cert(cert[start:end].decode("ascii") + "-----END CERTIFICATE-----\n")
        if match := _VALIDITY.search(der):
            short, full = match.groups()
            # RFC 5280 §4.1.2.5.1: a year of two digits is one of 1950 to 2049.
            text = (full or (b"19" if short[:2] >= b"50" else b"20") + short).decode("ascii")
            last = datetime.strptime(text, "%Y%m%d%H%M%S").replace(tzinfo=UTC)
            if last < now:
                return f"has expired on {last.isoformat(timespec='seconds')}"
    return ""


def reason(error: ssl.SSLError) -> str:
    """OpenSSL's reason in small letters."""
    return str(error.reason or error).replace("_", " ").lower()
