"""Calico's datastore in Kubernetes: a list and a watch for each kind, followed side by side.

Each kind has a feed of its own (`config.kubernetes_feed`) with a resourceVersion of its own: a revision here is a
mapping of feed to resourceVersion. A feed that fails goes on by itself, while the others are followed; only when all
have failed is the API taken for unreachable. Of Secrets, only those are read that a BGPPeer or BGPConfiguration names,
each by a feed of its own, so that rights to single names suffice; a password is there before the peer that names it is
told.
"""

from __future__ import annotations

import asyncio
import builtins
import logging
import random
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping

from attrs import field, frozen

from config import resources as r
from config.kubernetes_access import access
from config.kubernetes_client import KubernetesClient, Missing
from config.kubernetes_edit import KubernetesEditor
from config.kubernetes_feed import SILENCE, Feed, Scope
from config.kubernetes_objects import HOST_LABEL, V1, V3, api_of, choose_group, host_label
from config.resources import KINDS
from config.snapshot import Key, Put, Remove, StoreChange
from config.source import Batch, DatastoreError, Expired, Listing, Unavailable

__all__ = ["KubernetesEditor", "KubernetesSource", "Pace"]

log = logging.getLogger(__name__)
OPTIONAL = frozenset({"Secret", "Service", "EndpointSlice", "CalicoNodeStatus"})
"""Kinds without which a node goes on, when it may not read them."""

UNLABELLED = "BlockAffinity/unlabelled"
MOVE = 0.1
"""Seconds within which an affinity that is labelled comes from its other feed."""
LASTED = 1.0
"""Seconds after which a watch that ends has not failed."""
SHORT = 4
"""Watches in a row that end before that, and say nothing; behind one more, everything is listed."""


@frozen
class Pace:
    """Seconds."""

    retry: tuple[float, float] = (0.2, 5.0)
    """The first and the longest pause of a feed that has failed."""
    refused: float = 15.0
    """The pause of one that may not."""
    missing: float = 60.0
    """The pause of one whose kind does not exist (calico-bgp.md 1.5)."""
    quiet: float = 20.0
    """Silence of all feeds after which the API is asked whether it lives."""
    silence: float = SILENCE
    """Silence of one feed after which its watch is made anew."""


@frozen
class _News:
    """What a feed has to say."""

    feed: Feed | None = None
    """None: only that there may be other Secrets to read."""
    changes: builtins.list[StoreChange] = field(factory=list)
    failure: Exception | None = None


class KubernetesSource:
    """Reads what BGP needs: Calico's resources, Nodes, own blocks, named Secrets, Services, EndpointSlices."""

    def __init__(
        self,
        url: str,
        *,
        node: str = "",
        env: Mapping[str, str],
        kinds: Iterable[str] = KINDS,
        pace: Pace | None = None,
        jitter: Callable[[], float] = lambda: random.uniform(0.5, 1.0),
    ) -> None:
        """`node`: whose block affinities are read, "": all. Raises DatastoreError for what cannot be used."""
        self._client = KubernetesClient(access(url, env))
        self.url = f"kubernetes: ({self._client.access.url})"
        self._node = node
        self._kinds = frozenset(kinds)
        self._wanted_group = env.get("CALICO_API_GROUP", "")
        self._space = env.get("NAMESPACE") or "kube-system"
        if env.get("USE_POD_CIDR") == "true":
            # The Nodes' pod CIDRs stand for the blocks (calico-bgp.md 1.4).
            self._kinds -= {"BlockAffinity"}
        self._pace = pace or Pace()
        self._jitter = jitter
        self._group = ""
        self._feeds: dict[str, Feed] = {}
        self._named: dict[Key, frozenset[str]] = {}
        """Secrets that an object names."""
        self._asked: frozenset[str] | None = frozenset() if "BGPPeer" in self._kinds else None
        """Secrets that others have asked for; None: nobody who knows them has spoken yet."""
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._news: asyncio.Queue[_News] = asyncio.Queue()
        self._troubles: dict[str, str] = {}
        self._absent: set[str] = set()
        """Feeds whose kind does not exist."""
        self._unread: frozenset[str] = frozenset()
        """Feeds that the last listing had to leave out."""

    async def close(self) -> None:
        """Let go of all connections."""
        await self._client.close()

    def want_secrets(self, names: Iterable[str]) -> None:
        """Read these Secrets too: for peers that another datastore holds."""
        asked = frozenset(names)
        if asked != self._asked:
            self._asked = asked
            self._news.put_nowait(_News())

    # --- which feeds there are

    async def _discover(self) -> None:
        """Find Calico's group, and make the feeds."""
        group = await self._find_group()
        if group != self._group:
            self._group = group
            self._feeds = {scope.name: self._feed(scope) for scope in self._scopes()}

    async def _find_group(self) -> str:
        if self._wanted_group in (V1, V3):
            return self._wanted_group
        try:
            answer = await self._client.call("get", None, "/apis")
        except (Missing, DatastoreError):
            # Whoever may not look around can still read. What is wrong beyond that shows there.
            return self._group or V1
        groups = answer.get("groups") or ()
        return choose_group({str(item.get("groupVersion")) for found in groups for item in found["versions"]})

    def _feed(self, scope: Scope) -> Feed:
        return Feed(self._client, scope, silence=self._pace.silence)

    def _scopes(self) -> Iterable[Scope]:
        for kind in KINDS:
            if kind not in self._kinds or kind == "Secret":
                continue
            api = api_of(kind, self._group)
            if kind != "BlockAffinity" or not self._node:
                yield Scope(api, kind, api.path())
                continue
            yield Scope(api, kind, api.path(), labels=f"{HOST_LABEL}={host_label(self._node)}", node=self._node)
            # Releases of Calico before that label left affinities without it.
            yield Scope(api, UNLABELLED, api.path(), labels=f"!{HOST_LABEL}", node=self._node)

    def _note_names(self, changes: Iterable[StoreChange]) -> None:
        """Which Secrets the objects name now. A refused one keeps its good version, and so its Secret."""
        for item in changes:
            if isinstance(item, Remove):
                self._named.pop(item.key, None)
            elif isinstance(item, Put) and isinstance(item.resource, r.BGPPeer | r.BGPConfiguration):
                resource = item.resource
                reference = resource.password if isinstance(resource, r.BGPPeer) else resource.mesh_password
                self._named[item.key] = frozenset({reference.name} if reference else ())

    def _secret_scopes(self) -> dict[str, Scope]:
        """By the feed's name, in the speaker's namespace."""
        if "Secret" not in self._kinds:
            return {}
        api = api_of("Secret", self._group)
        names = (self._asked or frozenset()).union(*self._named.values())
        scopes = (
            Scope(api, f"Secret/{name}", api.path(space=self._space), fields=f"metadata.name={name}")
            for name in sorted(names)
        )
        return {scope.name: scope for scope in scopes}

    # --- listing

    async def list(self, *, partial: bool = False) -> Listing:
        """Everything; with `partial` at least something. Raises Unavailable, or DatastoreError (who we are, what we
        may)."""
        await self._discover()
        self._troubles.clear()
        await self._list_all([f for name, f in self._feeds.items() if not name.startswith("Secret/")], partial)
        wanted = self._secret_scopes()
        for name in [name for name in self._feeds if name.startswith("Secret/") and name not in wanted]:
            del self._feeds[name]
        secrets = [self._feeds.setdefault(name, self._feed(scope)) for name, scope in wanted.items()]
        await self._list_all(secrets, partial)
        changes: dict[Key, StoreChange] = {}
        for feed in self._feeds.values():
            changes.update((item.key, item) for item in feed.changes())
        self._unread = frozenset(name for name, feed in self._feeds.items() if not feed.revision)
        unknown = {self._feeds[name].api.kind for name in self._unread}
        if self._asked is None or unknown & {"BGPPeer", "BGPConfiguration"}:
            # Who names them is not known.
            unknown.add("Secret")
        return Listing(self._revisions(), tuple(changes.values()), frozenset(unknown), self._trouble())

    async def _list_all(self, feeds: Iterable[Feed], partial: bool) -> None:
        """Feeds that cannot be listed, and need not be, have no revision afterwards.

        None need be with `partial`, as long as others are.
        """
        feeds = tuple(feeds)
        results = await asyncio.gather(*(feed.list() for feed in feeds), return_exceptions=True)
        fatal: builtins.list[BaseException] = []
        for feed, result in zip(feeds, results, strict=True):
            self._absent.discard(feed.scope.name)
            if not isinstance(result, BaseException):
                self._note_names((*result, *feed.changes()))
                continue
            feed.revision = ""
            failure = self._fail(feed, result)
            optional = isinstance(failure, DatastoreError) and feed.api.kind in OPTIONAL
            if not optional and not isinstance(failure, Missing):
                fatal.append(failure)
        if fatal and not (partial and any(feed.revision for feed in self._feeds.values())):
            # What waiting does not mend says more than what it does.
            raise next((error for error in fatal if isinstance(error, DatastoreError)), fatal[0])

    def _fail(self, feed: Feed, failure: BaseException) -> BaseException:
        """Note why a feed has nothing to say. Missing: one of Calico's kinds does not exist, which is no fault."""
        name = feed.scope.name
        if isinstance(failure, Missing):
            if not feed.api.custom:
                text = f"{self._client.where} has no {feed.api.resource} ({failure}); check its address"
                failure = Unavailable(text)
            elif feed.keys():
                self._troubles[name] = f"{feed.api.resource} does not exist any more; what it held stays"
                self._absent.add(name)
                return failure
            else:
                self._troubles.pop(name, None)
                self._absent.add(name)
                return failure
        self._troubles[name] = str(failure)
        return failure

    def _trouble(self) -> str:
        return "; ".join(dict.fromkeys(self._troubles.values()))

    def _revisions(self) -> dict[str, str]:
        return {name: feed.revision for name, feed in self._feeds.items()}

    # --- watching

    async def watch(self, revision: object) -> AsyncGenerator[Batch, None]:
        """What happens after a listing or a batch. Raises Expired, Unavailable or DatastoreError."""
        assert isinstance(revision, Mapping)
        self._troubles.clear()
        self._news = asyncio.Queue()
        for name, feed in self._feeds.items():
            feed.revision = revision.get(name, "")
        try:
            for feed in self._feeds.values():
                self._start(feed)
            while True:
                news = await self._next()
                if isinstance(news.failure, Missing) and await self._find_group() != self._group:
                    raise Expired("Calico's resources are in another API group now")
                if _may_have_moved(news):
                    await asyncio.sleep(MOVE)
                changes = self._merged(news)
                changes += await self._follow_secrets()
                yield Batch(self._revisions(), tuple(changes), self._trouble())
        finally:
            tasks, self._tasks = builtins.list(self._tasks.values()), {}
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _start(self, feed: Feed) -> None:
        self._tasks[feed.scope.name] = asyncio.create_task(self._run(feed))

    async def _next(self) -> _News:
        """What a feed says; when all are silent, first make sure that the API lives."""
        while True:
            try:
                async with asyncio.timeout(self._pace.quiet):
                    return await self._news.get()
            except TimeoutError:
                try:
                    await self._client.call("get", None, "/version")
                except (Missing, DatastoreError):
                    pass  # an answer, whatever it says

    def _merged(self, news: _News) -> builtins.list[StoreChange]:
        """The changes of a feed, as they are for all feeds of its kind together. Raises when all feeds have failed."""
        if news.feed is None:
            return []
        if news.failure is None:
            self._note_names(news.changes)
            if news.feed.scope.name in self._unread:
                # What went meanwhile is found by comparing.
                raise Expired(f"{news.feed.api.resource} could not be read before")
            self._troubles.pop(news.feed.scope.name, None)
            self._absent.discard(news.feed.scope.name)
            return [item for item in news.changes if not (isinstance(item, Remove) and self._held(item.key))]
        if not isinstance(news.failure, Missing) and self._tasks.keys() <= self._troubles.keys() | self._absent:
            raise news.failure
        return []

    def _held(self, key: Key) -> bool:
        """Whether another feed has an object: one that is labelled moves from one feed to the other."""
        return any(feed.holds(key) for feed in self._feeds.values() if feed.api.kind == key[0])

    async def _run(self, feed: Feed) -> None:
        """List where it is due, watch, and again."""
        loop = asyncio.get_running_loop()
        failures = 0
        while True:
            began = loop.time()
            try:
                if not feed.revision:
                    self._news.put_nowait(_News(feed, await feed.list()))
                async for changes in feed.watch():
                    if changes or loop.time() - began >= LASTED:
                        failures = 0
                    self._news.put_nowait(_News(feed, changes))
                if loop.time() - began >= LASTED:
                    continue
                if failures >= SHORT:
                    # Somebody between us lets no stream through: what happens is found by listing.
                    raise Expired("its watches end at once, with nothing in them")
                pause = self._pause(failures)
            except Expired as error:
                log.info("%s: %s: %s; listed again", self.url, feed.scope.name, error)
                feed.revision, pause = "", self._pause(failures)
            except Exception as error:
                pause = self._on_failure(feed, error, failures)
            failures += 1
            await asyncio.sleep(pause)

    def _on_failure(self, feed: Feed, error: Exception, failures: int) -> float:
        """Tell it; the seconds to wait."""
        if not isinstance(error, Missing | Unavailable | DatastoreError):
            log.error("internal error in the watch of %s", feed.scope.name, exc_info=error)
            error = Unavailable(f"internal error: {error!r}")
            feed.revision = ""
        failure = self._fail(feed, error)
        assert isinstance(failure, Exception)
        self._news.put_nowait(_News(feed, [], failure))
        if isinstance(failure, Missing):
            feed.revision = ""
            return self._pace.missing * self._jitter()
        if isinstance(failure, DatastoreError):
            return self._pace.refused * self._jitter()
        return self._pause(failures)

    def _pause(self, failures: int) -> float:
        shortest, longest = self._pace.retry
        return min(longest, shortest * (1 << min(failures, 16))) * self._jitter()

    async def _follow_secrets(self) -> builtins.list[StoreChange]:
        """Begin with Secrets that are named now, and leave those that are not; what that brings."""
        wanted = self._secret_scopes()
        changes: builtins.list[StoreChange] = []
        for name in [name for name in self._feeds if name.startswith("Secret/") and name not in wanted]:
            if task := self._tasks.pop(name, None):
                task.cancel()
            changes += map(Remove, self._feeds.pop(name).keys())
            self._troubles.pop(name, None)
        for name, scope in wanted.items():
            if name in self._feeds:
                continue
            feed = self._feeds[name] = self._feed(scope)
            try:
                changes += await feed.list()
            except (Unavailable, DatastoreError, Expired, Missing) as error:
                self._fail(feed, error)
            self._start(feed)
        return changes


def _may_have_moved(news: _News) -> bool:
    """Whether an affinity has left the feed of those without a label: perhaps it only has one now."""
    left = news.feed is not None and news.feed.scope.name == UNLABELLED
    return left and any(isinstance(item, Remove) for item in news.changes)
