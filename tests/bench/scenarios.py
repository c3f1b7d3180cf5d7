"""What the reflector's scenarios play, which figures they give, and what is to be reached."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from attrs import evolve, field, frozen

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
    """A variant's figure may be at most so many times ours without it; False: the figure is no cost."""


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
    return float(result["daemon_hwm_kb"]) / 1024


def _core(result: Result) -> float:
    phase = next(item for item in result["phases"] if item["name"] == "keepalive")
    return float(100 * phase["daemon_cpu_s"] / phase["seconds"])


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
    variants: bool = True
    """Ours is also measured with a datastore and with a BGPFilter."""
    against: str = "best"
    words: str = field(default="", kw_only=True)

    @property
    def known(self) -> int:
        """Clients that the daemon is to know; a late joiner is one."""
        return self.clients + self.absent

    @property
    def arguments(self) -> str:
        """bgpload's whole command line for it."""
        more = " --add-path" * self.add_path + " --graceful" * self.graceful + " --family both" * self.ipv6
        return self.load + more

    def targets(self, figure: Figure) -> dict[str, Any]:
        """What Report.add is told about the row of a figure."""
        ratio = figure.best if self.against == "best" or figure.costs else None
        return {"ratio_limit": ratio, "limit": figure.limit, "against": self.against}


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
    Figure("CPU", "s", _phase("flood", "daemon_cpu_s"), limit=8.0, costs=False),
    Figure("time", "s", _phase("flood", "seconds"), costs=False),
    Figure("peak memory", "MiB", _peak, limit=200, costs=False),
)
_S4 = (*_both("flood", 0.8, 0.8), Figure("peak memory", "MiB", _peak, limit=250, costs=False))
_GRACEFUL = (
    Figure("back, time", "s", _phase("up", "seconds"), costs=False),
    Figure("stale route gone, time", "s", _phase("swept", "seconds"), costs=False),
)

PLAIN: dict[str, Scenario] = {
    "S1": Scenario("--clients 100 --prefixes 10", 100, _both("flood", 0.4, 0.4), words="100 clients x 10 blocks"),
    "S1d": Scenario("--clients 100 --prefixes 10", 100, _both("flood", 0.4, 0.4), ipv6=True, variants=False,
                    words="S1 in both families"),
    "S2": Scenario("--clients 500 --prefixes 4", 500, _both("flood", 0.35, 0.35), words="500 clients x 4 blocks"),
    "S3": Scenario(_S3, 20, _both("flood", 0.4, 0.4), words="20 clients x 5,000"),
    "S4": Scenario("--clients 5 --senders 1 --prefixes 500000 --plen mix --set-size 8 --realistic --timeout 110", 5,
                   _S4, many_prefixes=True, words="500,000 prefixes, 8 to an attribute set, 4 receivers"),
    "S5": Scenario(f"{_S3} --mode late-joiner --rounds 3", 23, _both("join", 0.3, 0.3),
                   words="late joiner to S3's table"),
    "S6": Scenario("--clients 500 --prefixes 4 --mode trickle --changes 200", 500, _S6,
                   words="one new prefix at S2's size, until the last client has it"),
    "S7": Scenario(f"{_S3} --mode flap --fraction 0.1 --rounds 5", 20,
                   (*_both("withdraw", 0.8, 0.8, "withdrawn, "), *_both("announce", 0.5, 0.5, "announced, ")),
                   words="10 % withdrawn, then announced, at S3's size"),
    "storm": Scenario("--clients 500 --prefixes 4 --mode storm", 500, _both("storm", 0.7, 0.7),
                      words="500 clients connect and send at once"),
    "bounce": Scenario("--clients 100 --prefixes 10 --mode bounce --rounds 5", 100, _BOUNCE,
                       words="one of 100 clients dies, and comes back"),
    "keep": Scenario("--clients 500 --prefixes 4 --mode keepalive --hold 9 --seconds 30", 500, _KEEP,
                     words="500 sessions with a table, hold time 9 s"),
    "5k": Scenario("--clients 5000 --prefixes 4", 5000, _BIG, peers=(), words="5,000 clients x 4 blocks"),
    "paths": Scenario("--clients 100 --prefixes 10 --paths 5", 100, _both("flood", None, None), add_path=True,
                      variants=False, words="S1 with ADD-PATH, five paths to a prefix"),
    "storm-gr": Scenario("--clients 500 --prefixes 4 --mode storm", 500, _both("storm", None, None), graceful=True,
                         variants=False, words="storm, graceful restart offered by the clients"),
    "absent-gr": Scenario("--clients 100 --prefixes 10 --mode storm", 100, _both("storm", None, None), graceful=True,
                          absent=10, variants=False, words="the same with 100 clients, and 10 that never come"),
    "bounce-gr": Scenario("--clients 100 --prefixes 10 --mode bounce --rounds 5", 100, _GRACEFUL, graceful=True,
                          variants=False, words="bounce, graceful restart offered: no route may be lost"),
}  # fmt: skip
"""By name, as in the tables."""

_ADD_PATH = ("S1", "S1d", "S2", "S3", "S4", "S5", "S6", "S7", "storm", "bounce")


def _with_add_path(name: str) -> Scenario:
    """The same with ADD-PATH both ways: ours is measured against itself without."""
    scenario = PLAIN[name]
    limit = 1.5 if name == "S3" else 1.25
    figures = tuple(evolve(figure, best=limit if figure.costs else None) for figure in scenario.figures)
    words = f"{scenario.words}; ADD-PATH both ways"
    return evolve(scenario, figures=figures, add_path=True, variants=False, against=name, words=words)


SCENARIOS: dict[str, Scenario] = {**PLAIN, **{f"{name}+ap": _with_add_path(name) for name in _ADD_PATH}}
