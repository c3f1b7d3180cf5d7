"""The API server's HTTP: discovery, reads, writes, watches with bookmarks, who may what, and faults on request."""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
from collections.abc import Callable
from typing import Any

from aiohttp import web
from attrs import define, evolve

from tests.kube.store import DEFINITIONS, Failure, Filter, Json, Kind, Name, Store

VERBS = {"GET": "get", "POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
Denial = Callable[[str, Kind, str, str], bool]
"""(verb, kind, namespace, name or "") -> whether that is forbidden."""


@define(eq=False)
class Faults:
    """What goes wrong. Each can be changed at any time."""

    broken_watches: int = 0
    """So many events are cut off in the middle of their line, with their connections."""
    garbage: int = 0
    """So many events are no JSON."""
    frozen: bool = False
    """Connections are held and nothing is said."""
    refusal: Failure | None = None
    """What every request is answered with."""
    pieces: int = 0
    """Events come in pieces of so many octets."""
    gone_as_event: bool = True
    """A revision that is too old is told by an ERROR event, as most servers do; else by the status 410."""
    bookmarks: float = 60.0
    """Seconds between bookmarks."""
    bend: Callable[[list[tuple[int, str, Json]]], list[tuple[int, str, Json]]] | None = None
    """What becomes of the events of one moment."""
    slow: float = 0.0
    """Seconds before each answer."""
    page: int = 0
    """The status of a page of HTML without a line end that stands for every answer, as a login's; 0: none."""
    short: bool = False
    """Watches end at once, with nothing in them."""


class KubeServer:
    """One server on 127.0.0.1. `start` and `stop` can follow each other; the store stays."""

    def __init__(self, store: Store | None = None, *, port: int = 0, tls: ssl.SSLContext | None = None) -> None:
        self.store = store or Store()
        self.faults = Faults()
        self.tokens: set[str] | None = None
        """Those that are let in; None: everybody is."""
        self.denied: Denial = lambda verb, kind, space, name: False
        self.status_apart = False
        """Whether `status` is a subresource: updates of objects leave it alone, and those of /status all else."""
        self.port = port
        self.requests: list[str] = []
        """METHOD path?query of each, in order."""
        self._tls = tls
        self._runner: web.AppRunner | None = None
        self._watches: set[web.StreamResponse] = set()
        self._transports: set[asyncio.BaseTransport] = set()
        self._thawed = asyncio.Event()

    @property
    def url(self) -> str:
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}"

    async def __aenter__(self) -> KubeServer:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self) -> None:
        app = web.Application(client_max_size=64 << 20)
        app.router.add_route("*", "/{path:.*}", self._answer)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1, access_log=None, handler_cancellation=True)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port, ssl_context=self._tls, reuse_address=True)
        await site.start()
        assert site._server is not None
        self.port = site._server.sockets[0].getsockname()[1]  # type: ignore[attr-defined]

    async def stop(self) -> None:
        """Cut every connection, as when the host dies."""
        self.cut()
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.cleanup()

    def cut(self) -> None:
        """Abort all connections."""
        for transport in list(self._transports):
            # Python 3.11.2: one over TLS that has ended by itself cannot be aborted any more.
            with contextlib.suppress(AttributeError):
                transport.abort()  # type: ignore[attr-defined]
        self._transports.clear()

    def thaw(self) -> None:
        """After `faults.frozen`."""
        self.faults.frozen = False
        self._thawed.set()
        self._thawed = asyncio.Event()

    async def _wait(self) -> None:
        while self.faults.frozen:
            await self._thawed.wait()

    # --- one request

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(f"{request.method} {request.path_qs}")
        if request.transport is not None:
            self._transports.add(request.transport)
        await self._wait()
        if self.faults.slow:
            await asyncio.sleep(self.faults.slow)
        if self.faults.page:
            headers = {"Location": "https://login.example/"} if 300 <= self.faults.page < 400 else {}
            text = "<html><title>Log in</title></html>"
            return web.Response(text=text, status=self.faults.page, content_type="text/html", headers=headers)
        try:
            if self.faults.refusal is not None:
                raise self.faults.refusal
            self._authenticate(request)
            if (found := self._discovery(request.path)) is not None:
                return web.json_response(found)
            return await self._resource(request)
        except Failure as failure:
            return web.json_response(failure.status(), status=failure.code)

    def _authenticate(self, request: web.Request) -> None:
        if self.tokens is None:
            return
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme != "Bearer" or token not in self.tokens:
            raise Failure(401, "Unauthorized", "Unauthorized")

    def _discovery(self, path: str) -> Json | None:
        parts = path.strip("/").split("/")
        if path == "/version":
            return {"major": "1", "minor": "33", "gitVersion": "v1.33.0"}
        if path == "/api":
            return {"kind": "APIVersions", "versions": ["v1"]}
        groups: dict[str, list[str]] = {}
        for kind in self.store.kinds:
            if kind.group and kind.version not in groups.setdefault(kind.group, []):
                groups[kind.group].append(kind.version)
        if path == "/apis":
            return {"kind": "APIGroupList", "apiVersion": "v1", "groups": [_group(*item) for item in groups.items()]}
        if parts[0] == "apis" and len(parts) == 2 and parts[1] in groups:
            return {**_group(parts[1], groups[parts[1]]), "kind": "APIGroup", "apiVersion": "v1"}
        if parts == ["api", "v1"] or (parts[0] == "apis" and len(parts) == 3):
            group, version = ("", "v1") if parts[0] == "api" else (parts[1], parts[2])
            served = [kind for kind in self.store.kinds if (kind.group, kind.version) == (group, version)]
            if served:
                return {
                    "kind": "APIResourceList",
                    "apiVersion": "v1",
                    "groupVersion": served[0].api_version,
                    "resources": list(map(_described, served)),
                }
        return None

    async def _resource(self, request: web.Request) -> web.StreamResponse:
        kind, space, name = self._place(request.path)
        query = request.query
        watching = query.get("watch") in ("true", "1")
        verb = "watch" if watching else "list" if request.method == "GET" and not name else VERBS[request.method]
        fields = query.get("fieldSelector", "")
        named = name or (fields.removeprefix("metadata.name=") if fields.startswith("metadata.name=") else "")
        asked = evolve(kind, plural=f"{kind.plural}/status") if request.path.endswith("/status") else kind
        if self.denied(verb, asked, space, named):
            raise _forbidden(verb, asked, space, name)
        wanted = Filter(kind, space, query.get("labelSelector", ""), fields)
        if watching:
            return await self._watch(request, wanted)
        if verb == "list":
            return web.json_response(self._list(query, wanted))
        return await self._one(request, kind, space, name)

    async def _one(self, request: web.Request, kind: Kind, space: str, name: str) -> web.Response:
        key: Name = (space, name)
        match request.method:
            case "GET":
                return web.json_response(self.store.get(kind, key))
            case "DELETE":
                gone = self.store.delete(kind, key)
                if kind == DEFINITIONS:
                    self.store.undefine(gone["spec"]["names"]["plural"])
                details = {"name": name, "kind": kind.plural, "uid": gone["metadata"]["uid"]}
                return web.json_response(
                    {"kind": "Status", "apiVersion": "v1", "status": "Success", "details": details}
                )
            case "POST":
                return web.json_response(self.store.create(kind, await request.json(), space), status=201)
            case "PUT":
                value = await request.json()
                if self.status_apart:
                    value = _apart(self.store.get(kind, key), value, status=request.path.endswith("/status"))
                return web.json_response(self.store.update(kind, key, value))
            case "PATCH":
                content = request.content_type
                return web.json_response(self.store.patch(kind, key, json.loads(await request.read()), content))
        raise Failure(405, "MethodNotAllowed", "the server does not allow this method on the requested resource")

    def _place(self, path: str) -> tuple[Kind, str, str]:
        parts = [*path.strip("/").split("/"), "", "", ""]
        group, version, rest = ("", "v1", parts[2:]) if parts[0] == "api" else (parts[1], parts[2], parts[3:])
        rest = [part for part in rest if part]
        space = ""
        if len(rest) > 2 and rest[0] == "namespaces":
            space, rest = rest[1], rest[2:]
        for kind in self.store.kinds:
            if (kind.group, kind.version) == (group, version) and rest and kind.plural == rest[0]:
                return kind, space, rest[1] if len(rest) > 1 else ""
        raise Failure(404, "NotFound", "the server could not find the requested resource")

    def _list(self, query: Any, wanted: Filter) -> Json:
        items, revision, token = self.store.list(wanted, int(query.get("limit") or 0), query.get("continue", ""))
        metadata: Json = {"resourceVersion": str(revision)}
        if token:
            metadata["continue"] = token
        if not wanted.kind.group or wanted.kind.group.endswith("k8s.io"):
            # Kubernetes' own lists leave these out of their items.
            items = [{key: item[key] for key in item if key not in ("kind", "apiVersion")} for item in items]
        kind = wanted.kind
        return {"kind": f"{kind.kind}List", "apiVersion": kind.api_version, "metadata": metadata, "items": items}

    # --- watching

    async def _watch(self, request: web.Request, wanted: Filter) -> web.StreamResponse:
        given = request.query.get("resourceVersion", "")
        revision = int(given or 0)
        if revision and revision < self.store.compacted and not self.faults.gone_as_event:
            raise Failure(410, "Expired", f"too old resource version: {revision} ({self.store.compacted})")
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        response.enable_chunked_encoding()
        await response.prepare(request)
        if self.faults.short:
            return response
        loop = asyncio.get_running_loop()
        end = loop.time() + float(request.query.get("timeoutSeconds") or 1800)
        bookmarks = request.query.get("allowWatchBookmarks") in ("true", "1")
        with contextlib.suppress(ConnectionError, asyncio.TimeoutError):
            if not revision:
                revision = self.store.revision
                items, _, _ = self.store.list(wanted, 0, "")
                for item in items:
                    await self._send(response, "ADDED", item)
            await self._follow(response, wanted, revision, end, bookmarks)
        return response

    async def _follow(
        self, response: web.StreamResponse, wanted: Filter, revision: int, end: float, bookmarks: bool
    ) -> None:
        loop = asyncio.get_running_loop()
        bookmark_at = loop.time() + self.faults.bookmarks
        while loop.time() < end:
            news = self.store.news
            try:
                events = list(self.store.since(revision, wanted))
            except Failure as failure:
                await self._send(response, "ERROR", failure.status())
                return
            revision = self.store.revision
            for _, kind, value in self.faults.bend(events) if self.faults.bend else events:
                await self._send(response, kind, value)
            if bookmarks and loop.time() >= bookmark_at:
                metadata = {"resourceVersion": str(revision), "creationTimestamp": None}
                value = {"kind": wanted.kind.kind, "apiVersion": wanted.kind.api_version, "metadata": metadata}
                await self._send(response, "BOOKMARK", value)
                bookmark_at = loop.time() + self.faults.bookmarks
            if revision == self.store.revision:
                with contextlib.suppress(asyncio.TimeoutError):
                    due = min(end, bookmark_at if bookmarks else end, loop.time() + 1.0)
                    await asyncio.wait_for(news.wait(), max(0.0, due - loop.time()))

    async def _send(self, response: web.StreamResponse, kind: str, value: Json) -> None:
        await self._wait()
        line = json.dumps({"type": kind, "object": value}, separators=(",", ":")).encode() + b"\n"
        if self.faults.garbage and kind != "BOOKMARK":
            self.faults.garbage -= 1
            line = b'{"type": oops}\n'
        if self.faults.broken_watches and kind != "BOOKMARK":
            self.faults.broken_watches -= 1
            await response.write(line[: len(line) // 2])
            await asyncio.sleep(0.01)
            transport = response._req.transport if response._req is not None else None
            if transport is not None:
                transport.abort()
            raise ConnectionResetError
        size = self.faults.pieces or len(line)
        for start in range(0, len(line), size):
            await response.write(line[start : start + size])
            if self.faults.pieces:
                await asyncio.sleep(0)


def _apart(old: Json, new: Json, *, status: bool) -> Json:
    """What an update of an object, or of its status, makes of it."""
    if status:
        return {**old, "metadata": {**old["metadata"], **new["metadata"]}, "status": new["status"]}
    value = {key: item for key, item in new.items() if key != "status"}
    return {**value, "status": old["status"]} if "status" in old else value


def _group(name: str, versions: list[str]) -> Json:
    shown = [{"groupVersion": f"{name}/{version}", "version": version} for version in versions]
    return {"name": name, "versions": shown, "preferredVersion": shown[0]}


def _described(kind: Kind) -> Json:
    return {
        "name": kind.plural,
        "singularName": kind.kind.lower(),
        "namespaced": kind.namespaced,
        "kind": kind.kind,
        "verbs": ["create", "delete", "get", "list", "patch", "update", "watch"],
    }


def _forbidden(verb: str, kind: Kind, space: str, name: str) -> Failure:
    """In the words of RBAC."""
    resource = f"{kind.plural}.{kind.group}" if kind.group else kind.plural
    scope = f'in the namespace "{space}"' if space else "at the cluster scope"
    shown = f'{resource} "{name}" is forbidden' if name else f"{resource} is forbidden"
    user = "system:serviceaccount:kube-system:calico-bgpd"
    text = f'User "{user}" cannot {verb} resource "{kind.plural}" in API group "{kind.group}" {scope}'
    return Failure(403, "Forbidden", f"{shown}: {text}")
