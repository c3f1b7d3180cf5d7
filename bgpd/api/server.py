"""The HTTP server: api on a Unix socket (and, asked for, on TCP), health, metrics and status page on TCP.

Everything is GET and changes nothing. A request has no body and short headers, a listener takes so many connections
and so many requests a second, long answers are written as fast as the reader takes them and given up when it takes
nothing.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
import os
import socket
from collections.abc import Awaitable, Callable
from ipaddress import ip_address

from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from bgpd.api.bird.ready import CHECKS, THRESHOLD, bird_ready
from bgpd.api.endpoints import NONE, ServeError, is_loopback, parse_endpoint, read_token, tcp_socket, unix_socket
from bgpd.api.explain import explain
from bgpd.api.health import liveness, readiness
from bgpd.api.limits import Pace, Rate
from bgpd.api.lookup import STATUS, Refused, RouteQuery, find_family, find_prefix
from bgpd.api.page import page
from bgpd.api.plan import PREFIXES, plan
from bgpd.api.schema import API_ROOT, DEFAULT_HEALTH, LINES, Health
from bgpd.api.state import DaemonState
from bgpd.api.tables import routes
from bgpd.api.views import Views

__all__ = ["ApiServer", "ServeError"]

MAX_CONNECTIONS = 64
"""At once, on each listener."""
FIRST_REQUEST_TIME = 10.0
"""Seconds that a new connection has to say what it wants."""
WRITE_TIME = 30.0
"""Seconds that a reader may take nothing of an answer."""
STREAMS = 4
"""Route tables written at once."""
MAX_PROPOSAL = 32 * 1024 * 1024
"""Octets of a proposal: the resources of a large cluster as JSON."""
BODY_TIME = 30.0
"""Seconds in which a proposal has to come."""
PLAN = f"{API_ROOT}/plan"
_RATE, _BURST = 50.0, 200.0
_LIMIT = 100_000_000
_CLOSE_TIME = 2.0

_log = logging.getLogger("bgpd.api")

Answer = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


class ApiServer:
    """All listeners of one daemon."""

    def __init__(self, state: DaemonState) -> None:
        self.state = state
        self.views = Views(state)
        self.addresses: dict[str, str] = {}
        """"socket", "health" and "api" -> where each listens."""
        self.longest_slice = 0.0
        """Seconds of the longest piece of work without a turn of the loop."""
        self._listeners: list[_Listener] = []
        self._streams = 0
        self._planning = False
        self._path = ""
        self._metrics: Answer | None = None

    async def start(
        self, socket_path: str | None, health: str | None, api: str | None, token_file: str | None = None
    ) -> None:
        """Listen. None = the usual place (for `api`: nowhere), "none" = nowhere. Raises ServeError."""
        try:
            if health != NONE:
                self._listen_health(health or DEFAULT_HEALTH)
            if api is not None and api != NONE:
                self._listen_api(api, token_file)
            elif token_file is not None:
                raise ServeError("--api-token-file is of use with --api only: give --api ADDR:PORT, or leave it out")
            if socket_path != NONE:
                self._listen_unix(socket_path)
            for listener in self._listeners:
                await listener.start()
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Stop listening, end open connections, remove the socket."""
        listeners, self._listeners = self._listeners, []
        for listener in listeners:
            await listener.close()
        if self._path:
            try:
                os.unlink(self._path)
            except OSError:
                pass  # somebody cleaned up before us
            self._path = ""

    # Listeners

    def _listen_health(self, text: str) -> None:
        address, port = parse_endpoint(text, "--health")
        sock = tcp_socket(address, port, "--health ADDR:PORT (or --health none)")
        self._add("health", sock, self._open_answers(), local=is_loopback(address))

    def _listen_api(self, text: str, token_file: str | None) -> None:
        address, port = parse_endpoint(text, "--api")
        token = read_token(token_file) if token_file is not None else ""
        if not token and not is_loopback(address):
            raise ServeError(
                f"--api {text} can be reached from outside this host: give --api-token-file, or listen on 127.0.0.1"
            )
        answers = self._open_answers() | self._api_answers()
        self._add("api", tcp_socket(address, port, "--api ADDR:PORT"), answers, is_loopback(address), token)

    def _listen_unix(self, path: str | None) -> None:
        sock, self._path, why = unix_socket(path)
        if why:
            _log.warning("%s", why)
        self._add("socket", sock, self._open_answers() | self._api_answers())

    def _add(
        self, name: str, sock: socket.socket, answers: dict[str, Answer], local: bool = False, token: str = ""
    ) -> None:
        where = sock.getsockname()
        self.addresses[name] = where if isinstance(where, str) else _shown(where[0], where[1])
        self._listeners.append(_Listener(sock, answers, local, token))

    # Answers

    def _open_answers(self) -> dict[str, Answer]:
        return {
            "/readyz": self._readyz,
            "/livez": self._livez,
            "/metrics": self._metrics_text,
            "/": self._page,
        }

    def _api_answers(self) -> dict[str, Answer]:
        return {
            f"{API_ROOT}/status": self._status,
            f"{API_ROOT}/peers": self._peers,
            f"{API_ROOT}/peer": self._peer,
            f"{API_ROOT}/routes": self._routes,
            f"{API_ROOT}/explain": self._explain,
            f"{API_ROOT}/kernel": self._kernel,
            PLAN: self._plan,
        }

    async def _readyz(self, request: web.BaseRequest) -> web.StreamResponse:
        asked = [name for name in CHECKS if name in request.query]
        if not asked:
            return _health(readiness(self.state))
        threshold = _seconds(request.query.get("threshold", ""))
        checks = [bird_ready(self.state, name, threshold) for name in asked]
        return _health({"ok": all(check["ok"] for check in checks), "checks": checks})

    async def _livez(self, request: web.BaseRequest) -> web.StreamResponse:
        return _health(liveness(self.state))

    async def _metrics_text(self, request: web.BaseRequest) -> web.StreamResponse:
        if self._metrics is None:
            # First scrape: what it needs costs memory that a daemon nobody scrapes need not have.
            from bgpd.api.metrics import CONTENT_TYPE, Exposition

            exposition = Exposition(self.views)

            async def answer(request: web.BaseRequest) -> web.StreamResponse:
                pace = Pace()
                text = await exposition.text(pace)
                self._note(pace)
                return web.Response(body=text, headers={"Content-Type": CONTENT_TYPE})

            self._metrics = answer
        return await self._metrics(request)

    async def _page(self, request: web.BaseRequest) -> web.StreamResponse:
        pace = Pace()
        status = await self.views.status(pace, max_age=5.0)
        peers = await self.views.peers(pace, max_age=5.0) if self.state.speaker is not None else []
        self._note(pace)
        policy = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"
        headers = {"Content-Security-Policy": policy, "Cache-Control": "no-store"}
        return web.Response(text=page(status, peers), content_type="text/html", headers=headers)

    async def _status(self, request: web.BaseRequest) -> web.StreamResponse:
        pace = Pace()
        return self._json(await self.views.status(pace), pace)

    async def _peers(self, request: web.BaseRequest) -> web.StreamResponse:
        pace = Pace()
        parts: list[str] = []
        for row in await self.views.peers(pace):
            parts.append(json.dumps(row, separators=(",", ":")))
            await pace.rest()
        self._note(pace)
        return _body(f"[{','.join(parts)}]\n".encode())

    async def _peer(self, request: web.BaseRequest) -> web.StreamResponse:
        pace = Pace()
        return self._json(await self.views.peer(_required(request, "name"), pace), pace)

    async def _kernel(self, request: web.BaseRequest) -> web.StreamResponse:
        pace = Pace()
        return self._json(await self.views.kernel(pace), pace)

    async def _explain(self, request: web.BaseRequest) -> web.StreamResponse:
        pace = Pace()
        prefix = _required(request, "prefix")
        return self._json(await explain(self.state, prefix, request.query.get("peer", ""), pace), pace)

    async def _plan(self, request: web.BaseRequest) -> web.StreamResponse:
        if self._planning:
            raise Refused("too-busy", "another plan is being worked out", "try again in a moment")
        limit = _number(request.query.get("limit", str(PREFIXES)), "prefixes", 1_000_000)
        self._planning = True
        try:
            body = await _body_of(request)
            pace = Pace()
            return self._json(await plan(self.state, body, limit, pace), pace)
        finally:
            self._planning = False

    async def _routes(self, request: web.BaseRequest) -> web.StreamResponse:
        pace = Pace()
        body = routes(self.state, route_query(request.query), pace)
        if self._streams >= STREAMS:
            raise Refused("too-busy", f"{STREAMS} route tables are being written already", "try again in a moment")
        response = web.StreamResponse(headers={"Content-Type": LINES})
        self._streams += 1
        try:
            await response.prepare(request)
            async for chunk in body:
                async with asyncio.timeout(WRITE_TIME):
                    await response.write(chunk)
                await asyncio.sleep(0)
                pace.resume()
            await response.write_eof()
        except TimeoutError:
            # The reader has stopped reading. What is left in the buffer would wait for it, too.
            if request.transport is not None:
                request.transport.abort()
        except ConnectionError:
            pass  # the reader has gone: it had what it wanted
        finally:
            self._streams -= 1
            self._note(pace)
        return response

    def _json(self, value: object, pace: Pace) -> web.Response:
        self._note(pace)
        return _json(value)

    def _note(self, pace: Pace) -> None:
        self.longest_slice = max(self.longest_slice, pace.longest)


class _Listener:
    """One socket, and who may ask what on it."""

    def __init__(self, sock: socket.socket, answers: dict[str, Answer], local: bool, token: str) -> None:
        self._sock = sock
        self._answers = answers
        self._local = local
        self._token = token
        self._rate = Rate(_RATE, _BURST)
        self._server: asyncio.AbstractServer | None = None
        self._silent: set[object] = set()
        # Short request lines and headers; a body is read for a plan only.
        self._http = web.Server(
            self._handle, access_log=None, keepalive_timeout=15, max_line_size=4096, max_field_size=4096,
            lingering_time=0, read_bufsize=16384,
        )  # fmt: skip

    async def start(self) -> None:
        loop = asyncio.get_running_loop()
        if self._sock.family == socket.AF_UNIX:
            self._server = await loop.create_unix_server(self._protocol, sock=self._sock)
        else:
            self._server = await loop.create_server(self._protocol, sock=self._sock)

    async def close(self) -> None:
        if self._server is None:
            self._sock.close()
            return
        self._server.close()
        await self._http.shutdown(_CLOSE_TIME)

    def _protocol(self) -> asyncio.Protocol:
        if len(self._http.connections) >= MAX_CONNECTIONS:
            return _Closed()
        protocol = self._http()
        self._silent.add(protocol)
        asyncio.get_running_loop().call_later(FIRST_REQUEST_TIME, self._reap, protocol)
        return protocol

    def _reap(self, protocol: RequestHandler) -> None:
        """A connection that has asked nothing by now holds a place for nobody."""
        if protocol in self._silent:
            self._silent.discard(protocol)
            if protocol.transport is not None:
                protocol.transport.abort()

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        self._silent.discard(request.protocol)
        try:
            self._check(request)
            answer = self._answers.get(request.path)
            if answer is None:
                raise Refused("unknown-path", f"there is nothing at {request.path[:80]}", f"see {API_ROOT}/status")
            return await answer(request)
        except Refused as error:
            return _json(error.body(), STATUS[error.code])
        except asyncio.CancelledError:
            raise
        except ConnectionError:
            return _body(b"", 499)  # nobody reads this: who asked has gone
        except Exception:
            _log.exception("internal error while answering %s", request.path)
            return _json(Refused("internal", "internal error", "the log has the details").body(), 500)

    def _check(self, request: web.BaseRequest) -> None:
        if self._token:
            given = request.headers.get("Authorization", "")
            if not hmac.compare_digest(given.encode(), f"Bearer {self._token}".encode()):
                raise Refused("unauthorized", "this address needs a token", "send it as `Authorization: Bearer TOKEN`")
        elif self._local and not _is_local_name(request.headers.get("Host", "")):
            # A page in a browser on this host could make a name of its own point here.
            raise Refused("bad-request", "the Host header names another host", "ask by address or as localhost")
        asks_for_plan = request.path == PLAN
        if request.method not in (("POST",) if asks_for_plan else ("GET", "HEAD")):
            text = f"{request.method[:20]} is not answered"
            hint = "use POST here" if asks_for_plan else "use GET: the api changes nothing"
            raise Refused("method-not-allowed", text, hint)
        if asks_for_plan:
            # A page in a browser may not send this type to another site without being asked first.
            if request.content_type != "application/json":
                raise Refused("bad-request", "the proposal is no application/json", "say so in Content-Type")
            if (request.content_length or 0) > MAX_PROPOSAL:
                raise _too_large()
        elif request.can_read_body:
            raise Refused("too-large", "a request has no body here", "put the question into the address")
        if not self._rate.take():
            raise Refused("too-busy", "too many requests", "try again in a moment")


class _Closed(asyncio.Protocol):
    """A connection too many: closed at once."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.close()


def route_query(given: object) -> RouteQuery:
    """The query of /v1/routes. Refused where it is malformed."""
    get = given.get  # type: ignore[attr-defined]
    prefix, match = get("prefix", ""), get("match", "exact")
    if match not in ("exact", "longer", "covering"):
        raise Refused("bad-request", f"{match[:80]!r} is no way to match", "use exact, longer or covering")
    return RouteQuery(
        find_family(get("family", "")),
        find_prefix(prefix) if prefix else None,
        match,
        get("received", ""),
        get("advertised", ""),
        _number(get("limit", "0"), "routes", _LIMIT),
    )


def _number(text: str, what: str, most: int) -> int:
    if not (text.isascii() and text.isdigit() and int(text[:12]) <= most):
        raise Refused("bad-request", f"{text[:80]!r} is not a number of {what}", f"use 0 to {most}")
    return int(text)


async def _body_of(request: web.BaseRequest) -> bytes:
    """The body, within its limits of size and time."""
    parts, size = [], 0
    try:
        async with asyncio.timeout(BODY_TIME):
            while part := await request.content.readany():
                parts.append(part)
                size += len(part)
                if size > MAX_PROPOSAL:
                    raise _too_large()
    except TimeoutError:
        raise Refused(
            "bad-request", "the proposal did not come to its end", f"send it within {BODY_TIME:g} s"
        ) from None
    return b"".join(parts)


def _too_large() -> Refused:
    text = f"a proposal may have {MAX_PROPOSAL >> 20} MiB"
    return Refused("too-large", text, "propose less at once, or plan against a datastore")


def _required(request: web.BaseRequest, name: str) -> str:
    value = request.query.get(name, "")
    if not value:
        raise Refused("bad-request", f"the question has no {name}", f"add ?{name}=…")
    return value


def _seconds(text: str) -> float:
    try:
        value = float(text) if text else THRESHOLD
    except ValueError:
        value = -1.0
    if not 0 <= value <= 86400:
        raise Refused("bad-request", f"{text[:80]!r} is no number of seconds", "use 0 to 86400")
    return value


def _is_local_name(host: str) -> bool:
    name = host.rpartition(":")[0] if not host.endswith("]") and ":" in host else host
    if name.lower() in ("localhost", ""):
        return True
    try:
        ip_address(name.strip("[]"))
    except ValueError:
        return False
    return True


def _health(health: Health) -> web.Response:
    return _json(health, 200 if health["ok"] else 503)


def _json(value: object, status: int = 200) -> web.Response:
    return _body(json.dumps(value, separators=(",", ":")).encode() + b"\n", status)


def _body(body: bytes, status: int = 200) -> web.Response:
    headers = {"Content-Type": "application/json", "Cache-Control": "no-store"}
    if status == 429:
        headers["Retry-After"] = "1"
    return web.Response(body=body, status=status, headers=headers)


def _shown(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
