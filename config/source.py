"""The words in which a datastore speaks to whoever follows it, whatever its protocol: listings, batches, errors.

A `Source` speaks one datastore's protocol and has no policy; `config.follower` turns it into a `Datastore`, which has
the policy and no protocol. An `Editor` is the other direction: bgpctl get, apply, delete and export.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, Protocol

from attrs import frozen

from config.snapshot import Snapshot, StoreChange

__all__ = ["Batch", "Datastore", "DatastoreError", "Editor", "Expired", "Listing", "Source", "Status", "Unavailable"]


class DatastoreError(Exception):
    """The datastore cannot be used at all; one sentence with the way out."""


class Expired(Exception):
    """The revision to go on from is gone (etcd compaction, HTTP 410): list again."""


class Unavailable(Exception):
    """The datastore cannot be reached now; the client's real reason in one sentence."""


@frozen
class Listing:
    """Everything that the datastore holds, at one moment."""

    revision: object
    """Where `watch` goes on. Opaque to the follower: etcd an int, Kubernetes a mapping of kind to resourceVersion."""
    changes: tuple[StoreChange, ...]
    """Put or Refuse for each object that is there; never Remove."""
    unknown: frozenset[str] = frozenset()
    """Kinds that could not be read: what is held of them stays."""
    trouble: str = ""
    """Why not; "" where that is no fault."""


@frozen
class Batch:
    """What a watch brought."""

    revision: object
    """Where to go on after it."""
    changes: tuple[StoreChange, ...]
    """In order. Empty: the datastore says that it is alive and nothing has happened (bookmark, progress)."""
    trouble: str = ""
    """Why a part of the datastore cannot be followed now, while the rest is."""


class Source(Protocol):
    """One datastore's protocol."""

    url: str
    """For people; without secrets."""

    async def list(self, *, partial: bool = False) -> Listing:
        """Everything. Raises Unavailable, and DatastoreError for what waiting does not mend (wrong credentials).

        `partial`: there are earlier objects, so that kinds which cannot be read may be left out (`Listing.unknown`).
        """

    def watch(self, revision: object) -> AsyncIterator[Batch]:
        """What happens after a revision. Raises Expired, Unavailable or DatastoreError; never ends quietly."""

    async def close(self) -> None:
        """Let go of connections."""


@frozen
class Status:
    """How a datastore is, for people and metrics."""

    connected: bool
    text: str = ""
    """Why not connected, or what is held back; "" where all is well."""
    age: float = 0.0
    """Seconds since what is in force was last known to be what the datastore holds; 0.0 while it is."""


class Datastore(Protocol):
    """What the daemon uses."""

    snapshot: Snapshot

    def status(self) -> Status:
        """How it is at this moment."""

    async def run(self, on_snapshot: Callable[[Snapshot], None]) -> None:
        """Call `on_snapshot` with the first snapshot and after every change, until cancelled.

        Raises DatastoreError where the datastore cannot be used at the start; later that is a problem in the snapshot.
        """


class Editor(Protocol):
    """bgpctl get, apply, delete and export. Objects are plain JSON values in projectcalico.org/v3 form."""

    async def get(self, kind: str, name: str | None = None) -> list[dict[str, Any]]:
        """The objects of a kind, or the one of this name, sorted by name; an unknown name gives none."""

    def key_of(self, value: Mapping[str, Any]) -> tuple[str, str]:
        """(kind, name) under which an object is kept. Raises DatastoreError for what is not written here at all."""

    async def apply(self, value: dict[str, Any]) -> str:
        """Write an object: "created", "configured" or "unchanged". Raises DatastoreError.

        Where the object carries a resourceVersion that is not the stored one ("0": there is none), that is a conflict
        and nothing is written; without one, whatever is stored is replaced, but never what somebody else writes at the
        same moment.
        """

    async def delete(self, kind: str, name: str) -> bool:
        """Remove an object; False where there is none."""

    async def close(self) -> None:
        """Let go of connections."""
