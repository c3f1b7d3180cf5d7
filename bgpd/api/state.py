"""What the composition root tells the API, by plain assignment. The API reads it and changes nothing.

The root makes one `DaemonState`, gives it to `Views`, and sets `speaker`, `kernel`, `datastore` and `alive_at` as they
come into being: the health answers are there from the first moment, before there is a speaker to ask.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import monotonic, time
from typing import Any, Protocol

from bgpd.api.schema import Datastore, Problem
from bgpd.family import Family
from bgpd.fib.table import FibTable
from bgpd.routes import LocalChange
from bgpd.settings import LearnSettings, SpeakerSettings
from bgpd.speaker import Speaker

DEFAULT_NODENAME = "/var/lib/calico/nodename"


class KernelSide(Protocol):
    """The kernel side, as far as the API sees it."""

    @property
    def fib(self) -> FibTable:
        """Wanted and installed routes."""

    @property
    def lost_events(self) -> int:
        """How often the kernel dropped events for want of room."""

    @property
    def dumps(self) -> int:
        """Full dumps."""

    def interface_name(self, ifindex: int, /) -> str:
        """Name of an interface."""

    def local_under(self, learn: LearnSettings, /) -> list[LocalChange]:
        """What other settings would change in the routes that addresses of interfaces give; nothing is changed."""

    def why_not_local(self, family: Family, key: bytes, /) -> str:
        """Why the host has no local route to exactly this prefix, where something of it is there; else ""."""


class DaemonState:
    """One daemon, as seen from the API."""

    def __init__(
        self, node: str, version: str, clock: Callable[[], float] = monotonic, wall: Callable[[], float] = time
    ) -> None:
        self.node = node
        self.version = version
        self.clock = clock
        self.wall = wall
        self.started_at = wall()
        self.began = clock()
        self.speaker: Speaker | None = None
        """None until the first snapshot is compiled."""
        self.kernel_wanted = True
        """False: started without a kernel role."""
        self.kernel: KernelSide | None = None
        """None until the first dump has been read, and without a kernel role."""
        self.propose: Callable[[bytes], tuple[dict[str, Any], SpeakerSettings | None]] | None = None
        """What proposed resources would mean; see bgpd.api.plan. None: this daemon has no resources."""
        self.nodename_file = DEFAULT_NODENAME
        """Calico's file with the node's name; its age is the node's (calico-bgp.md 9.4)."""
        self.advice: Callable[[str], str] = lambda reason: ""
        """What would let a route through that was stopped by this rule (its label) or check (its sentence)."""
        self.origin: Callable[[Family, bytes], str] = lambda family, key: ""
        """Whose prefix it is by configuration's resources: for prefixes that are not there."""
        self.datastore: Callable[[], Datastore] = lambda: no_datastore()
        self.alive_at: Callable[[], float] = clock
        """When the runner last turned, by `clock`."""
        self.loop_stall: Callable[[], float] = lambda: 0.0
        """Seconds of the longest turn so far."""
        self.refused: Callable[[], dict[str, int]] = dict
        """Connections that the listener refused, by reason; see bgpd.api.schema.Limits."""
        self.defects: Callable[[], int] = lambda: 0
        """Exceptions caught that should not have been."""


def no_datastore(url: str = "", problems: Sequence[Problem] = ()) -> Datastore:
    """The answer of a daemon that is configured by flags alone."""
    listed = list(problems)
    return {"url": url, "connected": True, "text": "", "age_seconds": 0.0, "applied_at": None, "problems": listed}
