"""A client of the Kubernetes API on aiohttp: requests, streams of lines, credentials that are renewed, errors in words.

Certificates and keys are read again when their files change, a token file once a minute and whenever the API no longer
takes what it held, so that none of them needs a restart.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping
from typing import Any

import aiohttp

from config import tls
from config.kubernetes_access import Access
from config.kubernetes_lines import Lines, TooLong
from config.kubernetes_objects import Api
from config.source import DatastoreError, Expired, Unavailable

__all__ = ["Conflict", "KubernetesClient", "Missing"]

CONNECT = 10.0
"""Seconds until there must be a connection."""
TIMEOUT = 30.0
"""Seconds of silence in an answer."""
TOKEN_AGE = 60.0
"""Seconds after which a token file is read again."""
_KEEPALIVE = (("TCP_KEEPIDLE", 15), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 3), ("TCP_USER_TIMEOUT", 30_000))
"""A connection whose other end is gone without a word is found within half a minute."""
_CHUNK = 1 << 16
_BETWEEN = "check the address, and what is between"


class Missing(Exception):
    """404: no such object, or no such resource."""


class Conflict(Exception):
    """409: it is there already, or was changed meanwhile."""


class KubernetesClient:
    """Talks to one API server."""

    def __init__(self, access: Access, *, timeout: float = TIMEOUT) -> None:
        self.access = access
        self._timeout = timeout
        self._session: aiohttp.ClientSession | None = None
        self._context: ssl.SSLContext | None = None
        self._files: tuple[object, ...] = ()
        self._token = ""
        self._token_read = float("-inf")
        self._answered = False

    @property
    def where(self) -> str:
        """For messages."""
        return f"the Kubernetes API at {self.access.url}"

    async def close(self) -> None:
        """Close all connections; a later call opens new ones."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def call(
        self, verb: str, api: Api | None, path: str, params: Mapping[str, str] | None = None, body: Any = None
    ) -> dict[str, Any]:
        """The answer's JSON object. `verb` is RBAC's: get, list, create, update, patch, delete.

        Raises Missing, Conflict, Expired (410), Unavailable, or DatastoreError (who we are, what we may).
        """
        limits = aiohttp.ClientTimeout(total=4 * self._timeout, connect=CONNECT, sock_read=self._timeout)
        with self._words():
            async with self._answer(verb, api, path, params, body, limits) as response:
                data = await response.read()
        try:
            found = json.loads(data, parse_float=str)
        except (ValueError, RecursionError):
            raise Unavailable(f"{self.where}: the answer to {path} is no JSON") from None
        if not isinstance(found, dict):
            raise Unavailable(f"{self.where}: the answer to {path} is no object")
        return found

    async def lines(
        self, verb: str, api: Api, path: str, params: Mapping[str, str], silence: float
    ) -> AsyncGenerator[bytes, None]:
        """The lines of a stream until it ends; first b"" when it has begun. TimeoutError: silent for so many seconds.

        Raises as `call` does. A last line that was cut off is not given.
        """
        limits = aiohttp.ClientTimeout(total=None, connect=CONNECT, sock_read=None)
        lines = Lines()
        with self._words():
            async with contextlib.AsyncExitStack() as stack:
                async with asyncio.timeout(self._timeout):
                    answer = self._answer(verb, api, path, params, None, limits)
                    response = await stack.enter_async_context(answer)
                _keep_alive(response)
                yield b""
                while True:
                    try:
                        async with asyncio.timeout(silence):
                            data = await response.content.read(_CHUNK)
                    except TimeoutError:
                        raise _Silent from None
                    if not data:
                        return
                    for line in lines.feed(data):
                        yield line

    # --- one request

    @contextlib.asynccontextmanager
    async def _answer(
        self,
        verb: str,
        api: Api | None,
        path: str,
        params: Mapping[str, str] | None,
        body: Any,
        limits: aiohttp.ClientTimeout,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """A response with a status below 300. A token that is refused is read again, and it is tried once more."""
        method = _method(verb)
        content = "application/merge-patch+json" if verb == "patch" else "application/json"
        for again in (True, False):
            headers = {"Accept": "application/json", **self._authorization()}
            data = None
            if body is not None:
                data, headers["Content-Type"] = json.dumps(body).encode(), content
            async with self._open().request(
                method,
                self.access.url + path,
                params=dict(params or {}),
                headers=headers,
                data=data,
                timeout=limits,
                allow_redirects=False,
                proxy=self.access.proxy or None,
                **self._tls(),
            ) as response:
                self._answered = True
                if response.status == 401 and again and self._renew_token():
                    continue
                if response.status >= 300:
                    raise self._refusal(response, await response.content.read(_CHUNK), verb, api)
                if response.content_type != "application/json":
                    # A page of a proxy or gateway, perhaps instead of a watch: it would only seem to be silent.
                    raise Unavailable(
                        f"{self.where}: the answer to {path} is {response.content_type}, no JSON; {_BETWEEN}"
                    )
                yield response
                return

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None or self._session.closed:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0), cookie_jar=aiohttp.DummyCookieJar()
            )
        return self._session

    def _authorization(self) -> dict[str, str]:
        chosen = self.access
        if chosen.token_file:
            now = asyncio.get_running_loop().time()
            if now - self._token_read >= TOKEN_AGE:
                self._token = _read(chosen.token_file, "token").decode("ascii", "replace").strip()
                self._token_read = now
        token = self._token or chosen.token
        if token:
            return {"Authorization": f"Bearer {token}"}
        if chosen.username:
            return {"Authorization": aiohttp.BasicAuth(chosen.username, chosen.password, "utf-8").encode()}
        return {}

    def _renew_token(self) -> bool:
        """Read the token file again; whether that brought another token."""
        before, self._token_read = self._token, float("-inf")
        if not self.access.token_file:
            return False
        self._authorization()
        return self._token != before

    def _tls(self) -> dict[str, Any]:
        if not self.access.url.startswith("https:"):
            return {}
        found: dict[str, Any] = {"ssl": self._ssl_context()}
        if self.access.server_name:
            found["server_hostname"] = self.access.server_name
        return found

    def _ssl_context(self) -> ssl.SSLContext:
        """Made anew when a file has changed."""
        chosen = self.access
        files = tuple(map(_signature, (chosen.ca_file, chosen.cert_file, chosen.key_file)))
        if self._context is not None and files == self._files:
            return self._context
        try:
            context = tls.context_for()
            if chosen.insecure:
                context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            elif chosen.ca_data or chosen.ca_file:
                authorities = chosen.ca_data or _read(chosen.ca_file, "authority's certificate")
                context = tls.context_for(authorities)
        except ssl.SSLError as error:
            text = f"the authority's certificate of {chosen.origin} cannot be used: {tls.reason(error)}"
            raise DatastoreError(text) from None
        if chosen.cert_file or chosen.cert_data:
            cert = chosen.cert_data or _read(chosen.cert_file, "client certificate")
            key = chosen.key_data or _read(chosen.key_file, "client key")
            try:
                tls.load_pair(context, cert, key)
            except ValueError as error:
                text = f"the client certificate and key of {chosen.origin} cannot be used: {error}"
                raise DatastoreError(text) from None
        self._context, self._files = context, files
        return context

    # --- errors

    @contextlib.contextmanager
    def _words(self) -> Iterator[None]:
        """Around everything that goes over the network."""
        where = self.where
        try:
            yield
        except aiohttp.ClientConnectorCertificateError as error:
            raise self._untrusted(error.certificate_error) from None
        except _Silent:
            raise TimeoutError from None
        except (TimeoutError, aiohttp.ServerTimeoutError):
            raise Unavailable(f"{where} does not answer in time") from None
        except aiohttp.ClientConnectorDNSError as error:
            raise Unavailable(f"{where}: its name is not known ({error.os_error.strerror or error.os_error})") from None
        except TooLong as error:
            raise Unavailable(f"{where} sends {error}") from None
        except (aiohttp.ClientError, OSError) as error:
            raise self._explain(error) from None

    def _explain(self, error: Exception) -> Exception:
        where = self.where
        for cause in _causes(error):
            if isinstance(cause, ssl.SSLCertVerificationError):
                return self._untrusted(cause)
            if isinstance(cause, ssl.SSLError) and not isinstance(cause, aiohttp.ClientError):
                return DatastoreError(f"{where}: no TLS connection ({tls.reason(cause)}); {self._remedy()}")
        if isinstance(error, aiohttp.ClientConnectorError):
            return Unavailable(f"{where}: {_os(error.os_error)}")
        if isinstance(error, aiohttp.ServerDisconnectedError | aiohttp.ClientPayloadError):
            return Unavailable(f"{where} has broken off the connection{self._suspicion()}")
        if isinstance(error, OSError) and error.strerror:
            return Unavailable(f"{where}: {_os(error)}")
        return Unavailable(f"{where}: {' '.join(str(error).split()) or type(error).__name__}")

    def _suspicion(self) -> str:
        """What may be behind a server that hangs up without a word, if it has never answered."""
        if self._answered:
            return ""
        if not self.access.url.startswith("https:"):
            return "; if it wants TLS, write https:// in its address"
        return "" if self.access.cert_file or self.access.cert_data else "; it may ask for a client's certificate"

    def _untrusted(self, error: Exception) -> DatastoreError:
        text = getattr(error, "verify_message", "") or str(error)
        return DatastoreError(f"{self.where}: its certificate is not trusted ({text.rstrip('.')}); {self._remedy()}")

    def _remedy(self) -> str:
        own = "" if self.access.cert_file or self.access.cert_data else "; it may ask for a client's certificate"
        return f"check the authority (K8S_CA_FILE, or that of {self.access.origin}) and the name in the URL{own}"

    def _refusal(self, response: aiohttp.ClientResponse, body: bytes, verb: str, api: Api | None) -> Exception:
        """What a status of 300 and above means."""
        text, reason, seconds = _status(body)
        code = response.status
        if response.content_type == "text/html" or 300 <= code < 400:
            place = response.headers.get("Location", "")
            text = f"{response.reason or ''}{f', to {place[:200]}' if place else ''}; {_BETWEEN}"
        text = text or response.reason or str(code)
        if code == 401:
            who = f"the credentials of {self.access.origin} are not accepted"
            return DatastoreError(f"{self.where}: {who} ({text}); renew the token or certificate")
        if code == 403:
            resource = api.resource if api is not None else response.url.path
            remedy = f"grant the verb {verb} on {resource}"
            return DatastoreError(f"{self.where}: not allowed ({text}); {remedy}")
        if code == 404:
            return Missing(text)
        if code == 409 and _method(verb) != "GET":
            return Conflict(text)
        if code == 410 or "ResourceVersionTooLarge" in reason:
            return Expired(text)
        if code in (400, 405, 415, 422):
            return DatastoreError(f"{self.where}: {text}")
        later = f" (again in {seconds} s)" if seconds else ""
        return Unavailable(f"{self.where}: {code} {text}{later}")


def _method(verb: str) -> str:
    """HTTP's method for a verb of RBAC."""
    return {"create": "POST", "update": "PUT", "patch": "PATCH", "delete": "DELETE"}.get(verb, "GET")


class _Silent(Exception):
    """A stream has said nothing for too long."""


def _keep_alive(response: aiohttp.ClientResponse) -> None:
    connection = response.connection
    transport = connection.transport if connection is not None else None
    sock = transport.get_extra_info("socket") if transport is not None else None
    if sock is None:
        return
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in _KEEPALIVE:
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def _status(body: bytes) -> tuple[str, str, int]:
    """(message, reasons, seconds to wait) of a Status object; any other text is the message."""
    try:
        value = json.loads(body)
        details = value.get("details") or {}
        causes = [str(cause.get("reason")) for cause in details.get("causes") or ()]
        return str(value.get("message") or ""), " ".join(causes), int(details.get("retryAfterSeconds") or 0)
    except (ValueError, AttributeError, TypeError, RecursionError):
        return " ".join(body[:200].decode("utf-8", "replace").split()), "", 0


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        inner = getattr(error, "os_error", None)
        error = inner if isinstance(inner, BaseException) and inner is not error else error.__cause__


def _os(error: OSError) -> str:
    """The system's words: asyncio's own repeat the address."""
    return os.strerror(error.errno) if error.errno else str(error)


def _signature(path: str) -> object:
    if not path:
        return None
    try:
        status = os.stat(path)
    except OSError:
        return None
    return (status.st_ino, status.st_mtime_ns, status.st_size)


def _read(path: str, what: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise DatastoreError(f"the {what} file {path} cannot be read: {error.strerror}") from None
