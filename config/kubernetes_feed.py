"""One list and watch of the Kubernetes API: the objects of a kind, or those of them that selectors let through.

A watch ends when the server wants it to (`timeoutSeconds`), goes on at the last resourceVersion, and lists again where
that is gone: HTTP 410, an ERROR event with code 410, or a bookmark that is behind us, as after a restore of the
cluster's store. What a listing does not name any more is removed; what has the resourceVersion that is known is no
news.
"""

from __future__ import annotations

import asyncio
import builtins
import json
import random
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Any

from attrs import frozen

from config.kubernetes_client import KubernetesClient
from config.kubernetes_objects import Api, change, key_of
from config.snapshot import Key, Remove, StoreChange
from config.source import Expired, Unavailable

__all__ = ["SILENCE", "Feed", "Scope"]

PAGE = 250
"""Objects of one answer. Nodes are some 10 KB each, and a page is parsed in one go."""
SILENCE = 150.0
"""Seconds without a line after which a watch is made anew; bookmarks come once a minute."""
LASTING = (240, 480)
"""Seconds that the server is asked to keep a watch, at random, so that they do not all end at once."""


@frozen
class Scope:
    """What a feed is about."""

    api: Api
    name: str
    """Of the feed: "BGPPeer", "Secret/kube-system/bgp"."""
    path: str
    labels: str = ""
    fields: str = ""
    node: str = ""
    """Of block affinities: only those of this node; "": of all."""

    def params(self, **more: str) -> dict[str, str]:
        """The selectors and `more`, as a query."""
        given = {"labelSelector": self.labels, "fieldSelector": self.fields, **more}
        return {name: value for name, value in given.items() if value}


class Feed:
    """Follows a scope. Objects that were seen are remembered, so that only what changes is told."""

    def __init__(self, client: KubernetesClient, scope: Scope, *, silence: float = SILENCE) -> None:
        self.scope = scope
        self.revision = ""
        """The resourceVersion to go on from; "": list first."""
        self._client = client
        self._silence = silence
        self._known: dict[Key, tuple[str, StoreChange | None]] = {}
        """resourceVersion and meaning of each object's newest version; None: it is gone, or not meant for us."""

    @property
    def api(self) -> Api:
        """Of the kind."""
        return self.scope.api

    def holds(self, key: Key) -> bool:
        """Whether the object is there."""
        return self._known.get(key, ("", None))[1] is not None

    def keys(self) -> list[Key]:
        """Of all objects that are there."""
        return [key for key, (_, found) in self._known.items() if found is not None]

    def changes(self) -> list[StoreChange]:
        """What makes all objects that are there."""
        return [found for _, found in self._known.values() if found is not None]

    # --- listing

    async def list(self) -> list[StoreChange]:
        """List all, and tell what is new against what was known. Raises as KubernetesClient.call does."""
        try:
            known, revision = await self._pages(PAGE)
        except Expired:
            # A continue token has grown too old between two pages: all at once.
            known, revision = await self._pages(0)
        before, self._known, self.revision = self._known, known, revision
        news = [
            found for key, (_, found) in known.items()
            if found is not None and before.get(key, ("", None))[1] is not found
        ]  # fmt: skip
        gone = [key for key, (_, found) in before.items() if found is not None and not self.holds(key)]
        return [*news, *map(Remove, gone)]

    async def _pages(self, limit: int) -> tuple[dict[Key, tuple[str, StoreChange | None]], str]:
        known: dict[Key, tuple[str, StoreChange | None]] = {}
        params = self.scope.params(limit=str(limit) if limit else "")
        while True:
            answer = await self._client.call("list", self.api, self.scope.path, params)
            for item in answer.get("items") or ():
                if isinstance(item, dict) and (key := key_of(self.api.kind, item)) is not None:
                    known[key] = self._read(key, item)
            metadata = answer.get("metadata") or {}
            token = metadata.get("continue")
            if not token:
                return known, str(metadata.get("resourceVersion") or "0")
            params = {**params, "continue": token}
            # Sessions have their timers: a large cluster is read in pieces.
            await asyncio.sleep(0)

    def _read(self, key: Key, value: Mapping[str, Any]) -> tuple[str, StoreChange | None]:
        """What an object means; where it means what it did, the very same change."""
        revision = _revision(value)
        before = self._known.get(key)
        if before is not None and before[0] == revision and revision:
            return before
        if self.scope.node and (value.get("spec") or {}).get("node") != self.scope.node:
            return revision, None
        space, _, name = key[1].rpartition("/")
        found = change(key[0], value, self.api.path(name, space))
        if before is not None and found == before[1]:
            found = before[1]
        return revision, found

    # --- watching

    async def watch(self) -> AsyncGenerator[builtins.list[StoreChange], None]:
        """What happens after `revision`, until the server ends the watch or is silent for too long.

        First [] when the watch has begun. Raises Expired where a new listing is due, else as KubernetesClient.call.
        """
        lasting = random.randint(*LASTING)
        params = self.scope.params(
            watch="true", allowWatchBookmarks="true", resourceVersion=self.revision, timeoutSeconds=str(lasting)
        )
        try:
            lines = self._client.lines("watch", self.api, self.scope.path, params, self._silence)
            async with aclosing(lines):
                async for line in lines:
                    yield self._event(line) if line else []
        except TimeoutError:
            return

    def _event(self, line: bytes) -> builtins.list[StoreChange]:
        try:
            event = json.loads(line, parse_float=str)
            kind, value = event["type"], event["object"]
            if kind == "ERROR":
                raise _error(value)
            revision = _revision(value)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise Expired("an event of the watch is not readable") from None
        if kind == "BOOKMARK":
            if is_older(revision, self.revision):
                raise Expired(f"the revision has gone back from {self.revision} to {revision}")
            self.revision = revision or self.revision
            return []
        if kind not in ("ADDED", "MODIFIED", "DELETED"):
            return []
        if not is_older(revision, self.revision):
            self.revision = revision or self.revision
        return self._changed(kind, value, revision)

    def _changed(self, kind: str, value: Mapping[str, Any], revision: str) -> builtins.list[StoreChange]:
        key = key_of(self.api.kind, value)
        if key is None:
            return []
        before = self._known.get(key)
        # Events of one object that come twice or in the wrong order: the newest counts.
        if before is not None and (is_older(revision, before[0]) or (revision == before[0] and kind != "DELETED")):
            return []
        entry = self._known[key] = (revision, None) if kind == "DELETED" else self._read(key, value)
        if before is not None and entry[1] is before[1]:
            return []
        if entry[1] is not None:
            return [entry[1]]
        return [Remove(key)] if before is not None and before[1] is not None else []


def _revision(value: Mapping[str, Any]) -> str:
    return str((value.get("metadata") or {}).get("resourceVersion") or "")


def is_older(revision: str, than: str) -> bool:
    """Whether one resourceVersion is before another. They are numbers, or cannot be compared: then it is not."""
    return revision.isdecimal() and than.isdecimal() and int(revision) < int(than)


def _error(value: Any) -> Exception:
    """What an ERROR event means; its object is a Status."""
    message = str(value.get("message") or "no reason given")
    causes = (value.get("details") or {}).get("causes") or ()
    if value.get("code") == 410 or any(cause.get("reason") == "ResourceVersionTooLarge" for cause in causes):
        return Expired(message)
    return Unavailable(f"the watch has ended with an error: {message}")
