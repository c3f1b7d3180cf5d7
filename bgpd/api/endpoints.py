"""Where the API listens: addresses, the Unix socket and its permissions, the token."""

from __future__ import annotations

import errno
import os
import socket
import stat
from ipaddress import ip_address

from bgpd.api.schema import socket_paths

NONE = "none"
"""Given instead of an address or path: do not listen."""
_BACKLOG = 64


class ServeError(Exception):
    """The API cannot be served as asked; one sentence with the way out."""


def parse_endpoint(text: str, option: str) -> tuple[str, int]:
    """ "ADDR:PORT", "[ADDR]:PORT", "localhost:PORT" or ":PORT" (every IPv4 address). Raises ServeError."""
    host, colon, port = text.rpartition(":")
    host = {"": "0.0.0.0", "localhost": "127.0.0.1"}.get(host, host.strip("[]"))
    try:
        address = str(ip_address(host))
        number = int(port) if port.isascii() and port.isdigit() else -1
        if not colon or not 0 <= number <= 65535:
            raise ValueError(port)
    except ValueError:
        raise ServeError(f"{option} {text}: write an address and a port, like 127.0.0.1:9178 or [::1]:9178") from None
    return address, number


def is_loopback(address: str) -> bool:
    """Whether only this host can reach it."""
    parsed = ip_address(address)
    mapped = getattr(parsed, "ipv4_mapped", None)
    return (mapped or parsed).is_loopback


def read_token(path: str) -> str:
    """The token in a file. Raises ServeError."""
    try:
        with open(path, encoding="ascii") as file:
            token = file.read(4096).strip()
    except OSError as error:
        raise ServeError(f"--api-token-file {path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        token = ""
    if not token or any(not 33 <= ord(char) <= 126 for char in token):
        raise ServeError(f"--api-token-file {path} holds no token: put one line of ASCII without blanks into it")
    return token


def tcp_socket(address: str, port: int, option: str) -> socket.socket:
    """A bound TCP socket. Raises ServeError."""
    sock = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if ":" in address:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind((address, port))
        sock.listen(_BACKLOG)
        sock.setblocking(False)
    except OSError as error:
        sock.close()
        shown = f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
        raise ServeError(f"cannot listen on {shown}: {_reason(error)}; choose another with {option}") from None
    return sock


def _reason(error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return "another program listens there"
    return error.strerror or str(error)


def unix_socket(wanted: str | None) -> tuple[socket.socket, str, str]:
    """(listening socket, its path, "" or a sentence why it is not at the usual place). Raises ServeError.

    A path that was asked for is taken or refused; without one the places of `socket_paths` are tried in order.
    """
    if wanted is not None:
        return _unix(wanted), wanted, ""
    paths, reasons = socket_paths(), list[str]()
    for path in paths:
        try:
            sock = _unix(path, private=path is not paths[0])
        except ServeError as error:
            reasons.append(str(error))
            if isinstance(error, _InUse):
                raise
            continue
        why = f"{reasons[0]}; the api is at {path}" if reasons else ""
        return sock, path, why
    raise ServeError(f"{' and '.join(r.partition(';')[0] for r in reasons)}; name a place with --socket")


def control_socket(path: str, option: str, mode: int) -> socket.socket:
    """A listening Unix socket at a place that was asked for with `option`. Raises ServeError."""
    return _unix(path, option=option, mode=mode)


class _InUse(ServeError):
    """Another daemon answers there."""


def _unix(path: str, private: bool = False, option: str = "--socket", mode: int = 0o600) -> socket.socket:
    if len(os.fsencode(path)) > 107:
        raise ServeError(f"{option} {path} is too long for a Unix socket: use a path of at most 107 octets")
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _directory(os.path.dirname(path) or ".", private)
        _remove_stale(path, option)
        sock.bind(path)
        # Nobody can connect before listen(), so the mode is right from the first moment that counts.
        os.chmod(path, mode)
        sock.listen(_BACKLOG)
        sock.setblocking(False)
    except OSError as error:
        sock.close()
        raise ServeError(f"the socket {path} cannot be made: {_reason(error)}; name another with {option}") from None
    except ServeError:
        sock.close()
        raise
    return sock


def _directory(path: str, private: bool) -> None:
    os.makedirs(path, mode=0o700 if private else 0o755, exist_ok=True)
    if private:
        found = os.lstat(path)
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o022:
            raise ServeError(f"{path} belongs to someone else or is open to others; name a socket with --socket")


def _remove_stale(path: str, option: str) -> None:
    """Take away a socket that a killed daemon left; one that answers stays."""
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            raise ServeError(f"{path} exists and is no socket: remove it, or name another with {option}")
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
            return
        except OSError:
            pass
    raise _InUse(f"another daemon answers on {path}: stop it, or give this one another place with {option}")
