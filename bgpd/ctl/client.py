"""Asking a running daemon: HTTP over its Unix socket, or over TCP with a token.

Made of the standard library alone, so that a command starts fast.
"""

from __future__ import annotations

import http.client
import json
import os
import socket
import stat
from collections.abc import Iterator
from typing import Any, cast
from urllib.parse import urlencode, urlsplit

from bgpd.api.schema import (
    API_ROOT,
    Explain,
    Health,
    KernelTable,
    Peer,
    PeerDetail,
    Plan,
    Route,
    RoutesEnd,
    Status,
    socket_paths,
)

MAX_ANSWER = 256 * 1024 * 1024
"""Octets of an answer that is read as a whole."""
_PLAN_TIME = 120.0
"""Seconds that a plan over full tables may take."""
_MAX_LINE = 4 * 1024 * 1024


class CtlError(Exception):
    """The command cannot do its work; one sentence with the way out."""


class NotRunning(CtlError):
    """No daemon answers."""


class Client:
    """One daemon's api. `where` is a socket's path or http://ADDR:PORT; "" = the usual places."""

    def __init__(self, where: str = "", token: str = "", timeout: float = 15.0) -> None:
        self.where = where
        self.timeout = timeout
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}

    def status(self) -> Status:
        """The daemon as a whole."""
        return cast(Status, self._get("status"))

    def peers(self) -> list[Peer]:
        """All peers."""
        return cast(list[Peer], self._get("peers"))

    def peer(self, name: str) -> PeerDetail:
        """One peer, by name or address."""
        return cast(PeerDetail, self._get("peer", name=name))

    def explain(self, prefix: str, peer: str = "") -> Explain:
        """The fate of one prefix."""
        return cast(Explain, self._get("explain", prefix=prefix, peer=peer))

    def plan(self, proposal: dict[str, Any], limit: int) -> Plan:
        """What would change, before anything does. `proposal`: see schema.Plan."""
        self.timeout = max(self.timeout, _PLAN_TIME)
        body = json.dumps(proposal, separators=(",", ":")).encode()
        return cast(Plan, self._get("plan", body, limit=str(limit)))

    def kernel(self) -> KernelTable:
        """What the kernel has of ours."""
        return cast(KernelTable, self._get("kernel"))

    def health(self, path: str, **query: str) -> Health:
        """/readyz or /livez, whatever the verdict."""
        connection, response = self._ask(path, query, root="", good=(200, 503))
        try:
            return cast(Health, _decode(response.read(65536)))
        except (OSError, http.client.HTTPException) as error:
            raise CtlError(f"the answer broke off: {error}; try again") from None
        finally:
            connection.close()

    def routes(self, **query: str) -> Iterator[Route | RoutesEnd]:
        """Routes as they come, then one RoutesEnd. Raises CtlError if the answer breaks off before that."""
        connection, response = self._ask("routes", query)
        try:
            while line := self._line(response):
                value = _decode(line)
                yield cast("Route | RoutesEnd", value)
                if "end" in value:
                    return
            raise CtlError("the answer broke off before its end: is bgpd being stopped? Try again")
        finally:
            connection.close()

    def _line(self, response: http.client.HTTPResponse) -> bytes:
        try:
            return response.readline(_MAX_LINE)
        except (OSError, http.client.HTTPException) as error:
            raise CtlError(f"the answer broke off: {error}; try again") from None

    def _get(self, path: str, body: bytes | None = None, **query: str) -> dict[str, Any]:
        connection, response = self._ask(path, query, body)
        try:
            if (response.length or 0) > MAX_ANSWER:
                raise CtlError(f"the answer has {response.length:,} octets; that is no answer of bgpd")
            answer = response.read()
        except (OSError, http.client.HTTPException) as error:
            raise CtlError(f"the answer broke off: {error}; try again") from None
        finally:
            connection.close()
        return _decode(answer)

    def _ask(
        self,
        path: str,
        query: dict[str, str],
        body: bytes | None = None,
        root: str = API_ROOT,
        good: tuple[int, ...] = (200,),
    ) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
        connection = self._connect()
        given = urlencode({name: value for name, value in query.items() if value})
        try:
            headers = self._headers | ({"Content-Type": "application/json"} if body is not None else {})
            url = f"{root}/{path}{'?' if given else ''}{given}"
            connection.request("GET" if body is None else "POST", url, body, headers)
            response = connection.getresponse()
        except TimeoutError:
            connection.close()
            raise CtlError(f"bgpd did not answer within {self.timeout:g} s; give it longer with --timeout") from None
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            reason = " ".join(str(error).split()) or type(error).__name__
            raise CtlError(f"bgpd closed the connection: {reason}; see its log") from None
        if response.status == http.HTTPStatus.UNAUTHORIZED:
            connection.close()
            what = "does not take this token" if self._headers else "asks for a token"
            raise CtlError(f"bgpd at {self.where} {what}: give --token-file FILE with what its --api-token-file holds")
        if response.status not in good:
            try:
                raise _error(response.status, response.read(65536))
            finally:
                connection.close()
        return connection, response

    def _connect(self) -> http.client.HTTPConnection:
        if self.where.startswith("http://"):
            return _tcp(self.where, self.timeout)
        paths = [self.where] if self.where else [p for p in socket_paths() if os.path.exists(p)]
        if not paths:
            raise NotRunning(
                f"bgpd is not running here: there is no socket at {' or '.join(socket_paths())}; start it, or name its "
                "socket with --socket"
            )
        for path in paths[:-1]:
            try:
                return _unix(path, self.timeout)
            except CtlError:
                continue
        return _unix(paths[-1], self.timeout)


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, sock: socket.socket, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self.sock = sock


def _unix(path: str, timeout: float) -> http.client.HTTPConnection:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.settimeout(timeout)
    try:
        sock.connect(path)
    except OSError as error:
        sock.close()
        raise _unreachable(path, error) from None
    return _UnixConnection(sock, timeout)


def _unreachable(path: str, error: OSError) -> CtlError:
    if isinstance(error, FileNotFoundError):
        return NotRunning(f"bgpd is not running, or not with this socket: {path} does not exist; see --socket")
    if isinstance(error, ConnectionRefusedError):
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            return CtlError(f"{path} is no socket: name bgpd's with --socket")
        return NotRunning(f"bgpd is not running: nobody answers on {path}; start it")
    if isinstance(error, PermissionError):
        return CtlError(f"no permission to use {path}: run bgpctl as the user that runs bgpd, usually root")
    if isinstance(error, TimeoutError | BlockingIOError):
        return CtlError(f"bgpd does not accept on {path}: it is overloaded or stopped; see its log")
    return CtlError(f"{path} cannot be used: {error.strerror or error}; name bgpd's socket with --socket")


def _tcp(url: str, timeout: float) -> http.client.HTTPConnection:
    parts = urlsplit(url)
    try:
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if not host or not port:
        raise CtlError(f"--socket {url}: write http://ADDR:PORT")
    connection = http.client.HTTPConnection(host, port, timeout=timeout)
    try:
        connection.connect()
    except OSError as error:
        raise NotRunning(f"bgpd does not answer at {url}: {error.strerror or error}; see its option --api") from None
    return connection


def _error(status: int, body: bytes) -> CtlError:
    try:
        error = json.loads(body)["error"]
        text, hint = str(error["text"]), str(error["hint"])
    except (ValueError, KeyError, TypeError):
        return CtlError(f"bgpd answered with HTTP status {status}; is it of another version?")
    return CtlError(f"{text}; {hint}" if hint else text)


def _decode(body: bytes) -> dict[str, Any]:
    try:
        return cast("dict[str, Any]", json.loads(body))
    except ValueError:
        raise CtlError("bgpd's answer is no JSON; is it of another version?") from None
