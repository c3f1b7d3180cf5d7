"""Socket options of BGP's TCP connections: TCP-MD5 (RFC 2385), GTSM (RFC 5082), TTL, traffic class, timeouts.

Everything raises `SocketOptionError`, whose text is one sentence with the way out, and never holds a key.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import struct
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

__all__ = [
    "MAX_KEY",
    "SocketOptionError",
    "canonical",
    "reason",
    "saved_syn_ttl",
    "save_syn",
    "session_options",
    "set_md5",
    "set_min_ttl",
    "set_traffic_class",
    "set_ttl",
    "socket_address",
    "text_address",
    "unacknowledged",
]

# Linux numbers that the socket module lacks (include/uapi/linux/{in,in6,tcp}.h).
IP_MINTTL = 21
IP_BIND_ADDRESS_NO_PORT = 24
IPV6_MINHOPCOUNT = 73
TCP_MD5SIG = 14
TCP_USER_TIMEOUT = 18
TCP_NOTSENT_LOWAT = 25
TCP_SAVE_SYN = 27
TCP_SAVED_SYN = 28
TCP_MD5SIG_EXT = 32
TCP_MD5SIG_FLAG_PREFIX = 1
SIOCOUTQ = 0x5411

MAX_KEY = 80
"""Octets of the longest TCP-MD5 key that Linux takes (TCP_MD5SIG_MAXKEYLEN)."""
TRAFFIC_CLASS = 0xC0
"""DSCP CS6, internetwork control (RFC 4594 §3.2)."""
NOTSENT_LIMIT = 128 * 1024
"""Unsent octets that the kernel takes from us beyond the peer's window.

Without it a peer that reads slowly lets the send buffer grow to megabytes, and a KEEPALIVE waits behind all of them.
"""

_STORAGE = 128  # sizeof(struct sockaddr_storage)
_MD5 = struct.Struct("=BBHi80s")  # tcpm_flags, tcpm_prefixlen, tcpm_keylen, tcpm_ifindex, tcpm_key


class SocketOptionError(OSError):
    """An address or option of a socket that the kernel refused; `str()` is one sentence for people."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(code, text)
        self.text = text

    def __str__(self) -> str:
        return self.text


def canonical(address: str) -> str:
    """One text form per address: RFC 5952's, IPv4-mapped IPv6 as IPv4; a zone stays. Raises ValueError."""
    value: IPv4Address | IPv6Address = ip_address(address)
    if isinstance(value, IPv6Address) and value.ipv4_mapped is not None:
        value = value.ipv4_mapped
    return str(value)


def text_address(name: tuple[object, ...]) -> str:
    """What getpeername or getsockname gave -> canonical text; link-local with its interface ("fe80::1%eth0")."""
    text = str(name[0])
    if ":" not in text:
        return text
    text = canonical(text.partition("%")[0])
    if len(name) == 4 and isinstance(name[3], int) and name[3]:
        try:
            return f"{text}%{socket.if_indextoname(name[3])}"
        except OSError:
            return f"{text}%{name[3]}"
    return text


def socket_address(address: str, port: int) -> tuple[str, int] | tuple[str, int, int, int]:
    """Text ("10.0.0.1", "fd00::1", "fe80::1%eth0") -> what bind and connect take, without any look-up of names.

    Raises ValueError for what is no address, SocketOptionError for a zone that is no interface.
    """
    plain, _, zone = address.partition("%")
    if ip_address(plain).version == 4:
        return (plain, port)
    if not zone:
        return (plain, port, 0, 0)
    if zone.isdigit():
        return (plain, port, 0, int(zone))
    try:
        return (plain, port, 0, socket.if_nametoindex(zone))
    except OSError:  # what it says differs between Python's releases
        raise SocketOptionError(errno.ENODEV, f"there is no interface {zone}") from None


def reason(error: OSError) -> str:
    """An OSError in a few words, without "[Errno N]"."""
    if isinstance(error, SocketOptionError):
        return error.text
    if error.errno:
        return os.strerror(error.errno).lower()  # the loops put the address into `strerror`
    return str(error) or type(error).__name__


def md5_option(address: str, key: bytes) -> tuple[int, bytes]:
    """Option number and value that set (b"": remove) the key for a peer address or CIDR."""
    plain = address.partition("%")[0]
    if "/" in plain:
        network = ip_network(plain, strict=False)
        packed, version, prefix = network.network_address.packed, network.version, network.prefixlen
        option, flags = TCP_MD5SIG_EXT, TCP_MD5SIG_FLAG_PREFIX
    else:
        host = ip_address(plain)
        packed, version, prefix = host.packed, host.version, 0
        option, flags = TCP_MD5SIG, 0
    if version == 4:
        name = struct.pack("=HH", socket.AF_INET, 0) + packed
    else:
        name = struct.pack("=HHI", socket.AF_INET6, 0, 0) + packed
    return option, name.ljust(_STORAGE, b"\0") + _MD5.pack(flags, prefix, len(key), 0, key)


def set_md5(sock: socket.socket, address: str, password: str | None) -> None:
    """Set the TCP-MD5 key for segments to and from `address` (or a CIDR) on one socket; None removes it."""
    key = password.encode() if password else b""
    if len(key) > MAX_KEY:
        text = f"the TCP-MD5 key for {address} has {len(key)} octets, at most {MAX_KEY} are allowed"
        raise SocketOptionError(errno.EINVAL, text)
    option, value = md5_option(address, key)
    try:
        sock.setsockopt(socket.IPPROTO_TCP, option, value)
    except OSError as error:
        if not key and error.errno in (errno.ENOENT, errno.EINVAL, errno.ENOPROTOOPT):
            return  # nothing there to remove
        hint = {
            errno.ENOMEM: "the kernel has no room for more keys on one socket: raise net.core.optmem_max",
            errno.ENOPROTOOPT: "this kernel is built without TCP-MD5 (CONFIG_TCP_MD5SIG)",
            errno.EPERM: "the kernel forbids TCP-MD5 (FIPS mode)",
        }.get(error.errno or 0, reason(error))
        raise SocketOptionError(error.errno or 0, f"cannot set the TCP-MD5 key for {address}: {hint}") from None


def _set(sock: socket.socket, what: str, option4: tuple[int, int], option6: tuple[int, int], value: int) -> None:
    level, number = option4 if sock.family == socket.AF_INET else option6
    try:
        sock.setsockopt(level, number, value)
    except OSError as error:
        raise SocketOptionError(error.errno or 0, f"cannot set {what} to {value}: {reason(error)}") from None


def set_ttl(sock: socket.socket, ttl: int) -> None:
    """TTL or hop limit of what the socket sends."""
    _set(
        sock,
        "the TTL",
        (socket.IPPROTO_IP, socket.IP_TTL),
        (socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS),
        ttl,
    )


def set_min_ttl(sock: socket.socket, ttl: int) -> None:
    """The kernel drops segments with a smaller TTL before TCP sees them (RFC 5082); 0 = takes all."""
    _set(sock, "the minimum TTL", (socket.IPPROTO_IP, IP_MINTTL), (socket.IPPROTO_IPV6, IPV6_MINHOPCOUNT), ttl)


def set_traffic_class(sock: socket.socket) -> None:
    """Mark what the socket sends as routing traffic."""
    _set(
        sock,
        "the traffic class",
        (socket.IPPROTO_IP, socket.IP_TOS),
        (socket.IPPROTO_IPV6, socket.IPV6_TCLASS),
        TRAFFIC_CLASS,
    )


def session_options(sock: socket.socket, ttl_security_hops: int | None, ttl: int, user_timeout: float) -> None:
    """What both dialled and accepted connections of a peer need, before their first data.

    `user_timeout` (seconds, 0 = the kernel's own): TCP_USER_TIMEOUT counts a closed window as well, so it must be
    longer than the send hold time, whose NOTIFICATION comes first.
    """
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.IPPROTO_TCP, TCP_NOTSENT_LOWAT, NOTSENT_LIMIT)
    if user_timeout:
        sock.setsockopt(socket.IPPROTO_TCP, TCP_USER_TIMEOUT, int(user_timeout * 1000))
    set_traffic_class(sock)
    set_ttl(sock, ttl if ttl_security_hops is None else 255)
    set_min_ttl(sock, 0 if ttl_security_hops is None else 256 - ttl_security_hops)


def save_syn(sock: socket.socket, wanted: bool) -> None:
    """Let a listener keep each connection's SYN, so that its TTL can be checked after accept."""
    sock.setsockopt(socket.IPPROTO_TCP, TCP_SAVE_SYN, int(wanted))


def saved_syn_ttl(sock: socket.socket) -> int | None:
    """TTL or hop limit of the SYN that opened an accepted connection; None: not kept (SYN cookies)."""
    try:
        header = sock.getsockopt(socket.IPPROTO_TCP, TCP_SAVED_SYN, 120)
    except OSError:
        return None
    if len(header) < 20:
        return None
    return header[8] if header[0] >> 4 == 4 else header[7]


def unacknowledged(descriptor: int) -> int:
    """Octets that the kernel holds for a peer: unsent, or sent and not acknowledged yet."""
    count: int = struct.unpack("=i", fcntl.ioctl(descriptor, SIOCOUTQ, b"\0\0\0\0"))[0]
    return count
