"""One family's half of the table: plain state and the small moves that keep it consistent. Pure."""

from __future__ import annotations

from bgpd.fib.entries import Failure, Form
from bgpd.fib.messages import RouteShape


class Side:
    """Routes of one address family by NLRI key.

    `installed` holds the route that counts; `extra` holds further ones of ours under the same prefix with other
    metrics, which are to go. A key in `extra` is in `installed`. `refused` outlives the retries of a prefix, to count
    them.
    """

    __slots__ = ("afi", "deferred", "extra", "foreign", "installed", "pending", "ready", "refused", "touched", "wanted")

    def __init__(self, afi: int) -> None:
        self.afi = afi
        self.wanted: dict[bytes, Form] = {}
        self.installed: dict[bytes, Form] = {}
        self.extra: dict[bytes, list[Form]] = {}
        self.pending: dict[bytes, None] = {}
        """Keys that are to be looked at: each once, in the order of the first wish."""
        self.ready: list[bytes] = []
        """A part of the pending keys, last first, from which the writer takes."""
        self.deferred: dict[bytes, None] = {}
        """Keys whose route is to be replaced once a dump has shown that it is still ours."""
        self.refused: dict[bytes, Failure] = {}
        self.foreign: dict[bytes, dict[int, RouteShape]] = {}
        """Key -> metric -> a route that is not ours."""
        self.touched: set[bytes] | None = None
        """Keys that changed since the running dump began, which therefore knows less of them."""

    def take_few(self) -> list[bytes]:
        """All pending keys, in their order; they are pending no more."""
        keys = list(self.pending)
        self.pending.clear()
        self.ready.clear()
        return keys

    def take_next(self, limit: int) -> list[bytes]:
        """At most so many of the pending keys, in their order; they are pending no more."""
        keys = self.next_keys(limit)
        self.take_keys(keys)
        return keys

    def next_keys(self, limit: int) -> list[bytes]:
        """At most so many of the pending keys, in their order; some may be pending no more. `take_keys` follows."""
        if not self.ready:
            # Not by iterating over `pending`: a dict whose front was deleted is slow to begin with.
            self.ready.extend(self.pending)
            self.ready.reverse()
        return self.ready[: -limit - 1 : -1]

    def take_keys(self, keys: list[bytes]) -> None:
        """These, from `next_keys`, are pending no more; those that were not are taken out of `keys`."""
        pending = self.pending
        del self.ready[-len(keys) :]
        if not all(map(pending.__contains__, keys)):
            keys[:] = [key for key in keys if key in pending]
        for key in keys:
            del pending[key]
        if not pending:
            pending.clear()
            self.ready.clear()

    def remove(self, key: bytes, form: Form) -> bool:
        """Our route `form` is gone; an extra one takes its place as the one that counts. Whether it was known."""
        extra = self.extra.get(key)
        if self.installed.get(key) is form:
            if extra:
                self.installed[key] = extra.pop(0)
            else:
                del self.installed[key]
        elif extra and form in extra:
            extra.remove(form)
        else:
            return False
        if extra is not None and not extra:
            del self.extra[key]
        return True

    def knows(self, key: bytes, forms: list[Form]) -> bool:
        """Whether we know of a route of ours for each metric of these."""
        return all(self.stands(key, form.metric) for form in forms)

    def stands(self, key: bytes, metric: int) -> bool:
        """Whether we know of a route of ours with this metric."""
        have = self.installed.get(key)
        return have is not None and any(form.metric == metric for form in (have, *self.extra.get(key, ())))

    def swap(self, key: bytes, metric: int) -> Form | None:
        """Our route of this metric under the prefix, made the one that counts; None if there is none."""
        have = self.installed.get(key)
        if have is None or have.metric == metric:
            return have
        extra = self.extra.get(key, [])
        for place, form in enumerate(extra):
            if form.metric == metric:
                extra[place] = have
                self.installed[key] = form
                return form
        return None

    def beyond(self, key: bytes, ifindex: int) -> list[Form]:
        """Our known routes under the prefix that a dump of one interface need not show; none for a dump of all (0)."""
        if not ifindex or key not in self.installed:
            return []
        return [form for form in (self.installed[key], *self.extra.get(key, ())) if not form.shown(ifindex)]

    def remove_foreign(self, key: bytes, metric: int) -> None:
        """A foreign route is gone."""
        routes = self.foreign.get(key)
        if routes is not None:
            routes.pop(metric, None)
            if not routes:
                del self.foreign[key]

    def end_foreign(
        self, seen: dict[bytes, dict[int, RouteShape]], touched: set[bytes], ifindex: int, complete: bool
    ) -> list[bytes]:
        """Take over what a dump shows of others; returns the keys that lost a foreign route."""
        freed: list[bytes] = []
        if complete:
            for key, routes in list(self.foreign.items()):
                if key in touched:
                    continue
                there = seen.get(key, {})
                for metric, shape in list(routes.items()):
                    if metric not in there and (not ifindex or shape.uses(ifindex)):
                        self.remove_foreign(key, metric)
                        freed.append(key)
        for key, routes in seen.items():
            if key not in touched:
                self.foreign.setdefault(key, {}).update(routes)
        return freed
