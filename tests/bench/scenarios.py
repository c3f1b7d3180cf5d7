"""What the reflector's scenarios play, which figures they give, and what is to be reached."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from attrs import field, frozen

from tests.bench.measure import median
from tests.bench.report import PEERS

Result = dict[str, Any]


@frozen
class Figure:
    """One figure of bgpload's result."""

    what: str
    unit: str
    of: Callable[[Result], float]
    best: float | None = None
    """At most so many times the best peer's."""
    limit: float | None = None
    costs: bool = True
    """A variant's may be at most so many times ours without it; False: it keeps this figure's own limit."""


def _phase(name: str, key: str, scale: float = 1.0) -> Callable[[Result], float]:
    """The median over the phases whose name begins so."""

    def read(result: Result) -> float:
        return scale * median([item[key] for item in result["phases"] if item["name"].startswith(name)])

    return read


def _both(name: str, time: float | None, cpu: float | None, words: str = "") -> tuple[Figure, ...]:
    return (
        Figure(f"{words}time".lstrip(), "s", _phase(name, "seconds"), time),
        Figure(f"{words}CPU".lstrip(), "s", _phase(name, "daemon_cpu_s"), cpu),
    )


def _peak(result: Result) -> float:
    return float(result["daemon_hwm_kb"]) * 1024 / 1e6


def _core(result: Result) -> float:
    phase = next(item for item in result["phases"] if item["name"] == "keepalive")
    return float(100 * phase["daemon_cpu_s"] / phase["seconds"])


FLAGS, FILE, FILTER, ADD_PATH = "ours", "ours-file", "ours-filter", "ours-add-path"
"""Ours: from flags alone; from a file datastore; the same and a BGPFilter on every client; flags and ADD-PATH."""
OURS = {FLAGS: "", FILE: ", datastore", FILTER: ", BGPFilter", ADD_PATH: ", ADD-PATH"}
"""How a case's name ends in each."""
_VARIANTS = {FILE: 1.3, FILTER: 1.6, ADD_PATH: 1.25}


@frozen
class Scenario:
    """One scenario. `load`: bgpload's arguments."""

    load: str
    clients: int
    figures: tuple[Figure, ...]
    ipv6: bool = False
    add_path: bool = False
    graceful: bool = False
    many_prefixes: bool = False
    """More prefixes from one client than our default limit allows."""
    absent: int = 0
    """Clients that the daemon knows and that do not come."""
    peers: tuple[str, ...] = tuple(PEERS)
    slow: tuple[str, ...] = ()
    """Peers that take 20 s and more for one run, left out if not asked for: they are never the best."""
    runs: int = 9
    """At most so many runs: what takes long and hardly varies has one."""
    variants: dict[str, float] = _VARIANTS
    """Ours run in other ways, and how many times its cost with flags alone each may take."""
    words: str = field(default="", kw_only=True)

    @property
    def known(self) -> int:
        """Clients that the daemon is to know; a late joiner is one."""
        return self.clients + self.absent

    def arguments(self, add_path: bool) -> str:
        """bgpload's whole command line for it."""
        more = " --add-path" * add_path + " --graceful" * self.graceful + " --family both" * self.ipv6
        return self.load + more


_SLOW = ("gobgp",)
_S3 = "--clients 20 --prefixes 5000 --timeout 110"
_S6 = (
    Figure("p50 to the last client", "ms", _phase("trickle", "last_receiver_p50", 1000), 1.0),
    Figure("p99 to the last client", "ms", _phase("trickle", "last_receiver_p99", 1000), 1.0),
)
_BOUNCE = (
    Figure("down, time", "s", _phase("down", "seconds"), 1.0),
    Figure("up, time", "s", _phase("up", "seconds"), 1.0),
)
_KEEP = (
    Figure("dropped", "sessions", lambda result: float(result["drops"]), limit=0, costs=False),
    Figure("CPU", "% of a core", _core, limit=1.0, costs=False),
)
_BIG = (
    Figure("CPU", "s", _phase("flood", "daemon_cpu_s"), limit=8.0),
    Figure("time", "s", _phase("flood", "seconds")),
    Figure("peak memory", "MB", _peak, limit=200, costs=False),
)
_S4 = (*_both("flood", 0.8, 0.8), Figure("peak memory", "MB", _peak, limit=250, costs=False))
_GRACEFUL = (
    Figure("back, time", "s", _phase("up", "seconds"), costs=False),
    Figure("stale route gone, time", "s", _phase("swept", "seconds"), costs=False),
)
_ABSENT = (Figure("time", "s", _phase("storm", "seconds"), limit=1.0, costs=False),)

SCENARIOS: dict[str, Scenario] = {
    "S1": Scenario("--clients 100 --prefixes 10", 100, _both("flood", 0.4, 0.4), words="100 clients x 10 blocks"),
    "S1d": Scenario("--clients 100 --prefixes 10", 100, _both("flood", 0.4, 0.4), ipv6=True, slow=_SLOW,
                    variants={ADD_PATH: 1.25}, words="S1 in both families"),
    "S2": Scenario("--clients 500 --prefixes 4", 500, _both("flood", 0.35, 0.35), slow=_SLOW,
                   words="500 clients x 4 blocks"),
    "S3": Scenario(_S3, 20, _both("flood", 0.4, 0.4), slow=_SLOW, variants={**_VARIANTS, ADD_PATH: 1.5},
                   words="20 clients x 5,000"),
    "S4": Scenario("--clients 5 --senders 1 --prefixes 500000 --plen mix --set-size 8 --realistic --timeout 110", 5,
                   _S4, many_prefixes=True, slow=_SLOW, words="500,000 prefixes, 8 to an attribute set, 4 receivers"),
    "S5": Scenario(f"{_S3} --mode late-joiner --rounds 3", 23, _both("join", 0.3, 0.3), slow=_SLOW,
                   words="late joiner to S3's table"),
    "S6": Scenario("--clients 500 --prefixes 4 --mode trickle --changes 200", 500, _S6, slow=_SLOW, runs=2,
                   words="one new prefix at S2's size, until the last client has it"),
    "S7": Scenario(f"{_S3} --mode flap --fraction 0.1 --rounds 5", 20,
                   (*_both("withdraw", 0.8, 0.8, "withdrawn, "), *_both("announce", 0.5, 0.5, "announced, ")),
                   slow=_SLOW, words="10 % withdrawn, then announced, at S3's size"),
    "storm": Scenario("--clients 500 --prefixes 4 --mode storm", 500, _both("storm", 0.7, 0.7), slow=_SLOW,
                      words="500 clients connect and send at once"),
    "bounce": Scenario("--clients 100 --prefixes 10 --mode bounce --rounds 5", 100, _BOUNCE, slow=_SLOW,
                       words="one of 100 clients dies, and comes back"),
    "keep": Scenario("--clients 500 --prefixes 4 --mode keepalive --hold 9 --seconds 30", 500, _KEEP,
                     peers=(), runs=1, variants={FILE: 1.3}, words="500 sessions with a table, hold time 9 s"),
    "5k": Scenario("--clients 5000 --prefixes 4", 5000, _BIG, peers=(), runs=1, variants={FILE: 1.3},
                   words="5,000 clients x 4 blocks"),
    "paths": Scenario("--clients 100 --prefixes 10 --paths 5", 100, _both("flood", None, None), add_path=True,
                      variants={}, words="S1 with ADD-PATH, five paths to a prefix"),
    "storm-gr": Scenario("--clients 500 --prefixes 4 --mode storm", 500, _both("storm", None, None), graceful=True,
                         slow=_SLOW, variants={}, words="storm, graceful restart offered by the clients"),
    "absent-gr": Scenario("--clients 100 --prefixes 10 --mode storm", 100, _ABSENT, graceful=True, absent=10,
                          variants={FILE: 1.3}, words="the same, 100 clients, and 10 that never come: no wait"),
    "bounce-gr": Scenario("--clients 100 --prefixes 10 --mode bounce --rounds 5", 100, _GRACEFUL, graceful=True,
                          slow=_SLOW, variants={}, words="bounce, graceful restart offered: no route may be lost"),
}  # fmt: skip
"""By name, as in the tables."""
