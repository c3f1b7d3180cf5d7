"""Prometheus families, made from the views when they are scraped. No metric object is touched while routes pass."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

from prometheus_client.exposition import generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector, CollectorRegistry

from bgpd.api.health import readiness
from bgpd.api.limits import Pace
from bgpd.api.schema import Peer, Status
from bgpd.api.views import Views

__all__ = ["CONTENT_TYPE", "Exposition"]

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
"""The text format that every Prometheus reads; our names need nothing newer."""

_MAX_AGE = 15.0
"""Seconds that counts which need a walk over the tables may be old in a scrape."""
_SAMPLES = 256
"""Samples rendered between two looks at the clock."""
_STATES = ("Idle", "Connect", "Active", "OpenSent", "OpenConfirm", "Established")


class _Spec(NamedTuple):
    """One family: name without "bgpd_", help, label names, and whether it only grows."""

    name: str
    text: str
    labels: tuple[str, ...] = ()
    counter: bool = False


Sample = tuple[tuple[str, ...], float]

_DAEMON: tuple[tuple[_Spec, Callable[[Status], Iterable[Sample]]], ...] = (
    (
        _Spec("info", "Version, node, AS and router id; always 1", ("version", "node", "asn", "router_id")),
        lambda s: [((s["version"], s["node"], str(s["asn"] or ""), s["router_id"] or ""), 1.0)],
    ),
    (_Spec("uptime_seconds", "Seconds since the daemon started"), lambda s: [((), s["uptime"])]),
    (_Spec("ready", "1 if /readyz answers 200"), lambda s: [((), float(s["ready"]["ok"]))]),
    (
        _Spec("restart_phase", "1 while our End-of-RIB waits after a start (RFC 4724)"),
        lambda s: [((), float(s["restart"]["active"]))],
    ),
    (
        _Spec("peers", "Peers by kind of configuration, and those with a session", ("kind",)),
        lambda s: [((kind,), float(n)) for kind, n in s["peers"].items()],  # type: ignore[arg-type]
    ),
    (
        _Spec("rib_prefixes", "Prefixes in the Loc-RIB", ("family",)),
        lambda s: [((f["family"],), f["prefixes"]) for f in s["families"]],
    ),
    (
        _Spec("rib_paths", "Paths in the Loc-RIB", ("family",)),
        lambda s: [((f["family"],), f["paths"]) for f in s["families"]],
    ),
    (
        _Spec("rib_reachable_prefixes", "Prefixes with an eligible path", ("family",)),
        lambda s: [((f["family"],), f["best"]) for f in s["families"]],
    ),
    (
        _Spec("rib_local_paths", "Paths from the kernel, interfaces and static configuration", ("family",)),
        lambda s: [((f["family"],), f["local"]) for f in s["families"]],
    ),
    (
        _Spec("kernel_routes", "Routes of ours by state in the kernel", ("family", "state")),
        lambda s: [
            ((family, state), float(n))
            for family, states in (s["kernel"]["states"] if s["kernel"] else {}).items()
            for state, n in states.items()
        ],
    ),
    (
        _Spec("kernel_operations", "Operations on kernel routes by outcome", ("outcome",), counter=True),
        lambda s: [((name,), float(n)) for name, n in (s["kernel"]["counters"] if s["kernel"] else {}).items()],
    ),
    (
        _Spec("connections_refused", "Connections refused before there was a session", ("reason",), counter=True),
        lambda s: [((reason,), float(n)) for reason, n in (s["limits"]["refused"] if s["limits"] else {}).items()],
    ),
    (
        _Spec("datastore_connected", "1 if the datastore can be read and watched"),
        lambda s: [((), float(s["datastore"]["connected"]))],
    ),
    (
        _Spec("datastore_age_seconds", "Since when what is in force may be older than the datastore's state; else 0"),
        lambda s: [((), s["datastore"]["age_seconds"])],
    ),
    (
        _Spec("datastore_problems", "Resources or fields that are refused at present"),
        lambda s: [((), float(len(s["datastore"]["problems"])))],
    ),
)

_PEER: tuple[tuple[_Spec, Callable[[Peer], Iterable[Sample]]], ...] = (
    (
        _Spec("peer_up", "1 if the session is established", ("address", "asn", "kind")),
        lambda p: [((p["address"], str(p["asn"]), p["kind"]), float(p["uptime"] is not None))],
    ),
    (
        _Spec("peer_state", "State of the session: 1 Idle to 6 Established (RFC 4273)"),
        lambda p: [((), float(_STATES.index(p["state"]) + 1 if p["state"] in _STATES else 0))],
    ),
    (
        _Spec("peer_held_down", "1 while configuration holds the session down, and why", ("reason",)),
        lambda p: [((p["disabled"],), 1.0)] if p["disabled"] else [],
    ),
    (
        _Spec("peer_established_seconds", "Seconds since the session came up; 0 while it is down"),
        lambda p: [((), p["uptime"] or 0.0)],
    ),
    (_Spec("peer_flaps", "Losses of an established session", counter=True), lambda p: [((), p["flaps"])]),
    (
        _Spec("peer_prefixes", "Routes of a peer by family and table", ("family", "table")),
        lambda p: [
            ((family, table), counts[table])
            for family, counts in p["prefixes"].items()
            for table in ("received", "accepted", "stale", "advertised", "queued")
        ],
    ),
    (
        _Spec("peer_messages_received", "Messages received", ("type",), counter=True),
        lambda p: [((kind,), n) for kind, n in p["messages_in"].items()],
    ),
    (
        _Spec("peer_messages_sent", "Messages sent", ("type",), counter=True),
        lambda p: [((kind,), n) for kind, n in p["messages_out"].items()],
    ),
)


class _Given(Collector):
    """A collector of metrics that are made already: generate_latest asks it."""

    def __init__(self, metrics: list[Metric]) -> None:
        self._metrics = metrics

    def collect(self) -> Iterable[Metric]:
        return self._metrics


class Exposition:
    """The text of /metrics."""

    def __init__(self, views: Views) -> None:
        self._views = views
        self._process = CollectorRegistry(auto_describe=False)
        ProcessCollector(registry=self._process)

    async def text(self, pace: Pace) -> bytes:
        """All families, worked out and rendered in slices."""
        state = self._views.state
        status = await self._views.status(pace, _MAX_AGE)
        peers = await self._views.peers(pace, _MAX_AGE) if state.speaker is not None else []
        parts = [self._own(status), generate_latest(self._process)]
        await pace.rest()
        for spec, samples in _PEER:
            parts += await _family(spec, peers, samples, pace)
        parts += await self._findings(pace)
        return b"".join(parts)

    def _own(self, status: Status) -> bytes:
        state = self._views.state
        metrics = [_metric(spec, samples(status)) for spec, samples in _DAEMON]
        stall = _Spec("loop_longest_turn_seconds", "Longest turn of the speaker so far")
        defects = _Spec("defects", "Internal errors caught; each is in the log", counter=True)
        checks = _Spec("ready_check", "1 for each condition of /readyz that holds", ("check",))
        metrics.append(_metric(stall, [((), state.loop_stall())]))
        metrics.append(_metric(defects, [((), float(state.defects()))]))
        metrics.append(_metric(checks, [((c["name"],), float(c["ok"])) for c in readiness(state)["checks"]]))
        return _render([metric for metric in metrics if metric.samples])

    async def _findings(self, pace: Pace) -> list[bytes]:
        speaker = self._views.state.speaker
        if speaker is None:
            return []
        spec = _Spec("peer_attribute_errors", "Malformed attributes by answer (RFC 7606)", ("error",), counter=True)
        counts = {name: dict(peer.findings) for name, peer in speaker.peers.items() if peer.findings}
        rows = [(name, [((error,), float(n)) for error, n in found.items()]) for name, found in counts.items()]
        return await _chunks(spec, rows, pace)


async def _family(
    spec: _Spec, peers: list[Peer], samples: Callable[[Peer], Iterable[Sample]], pace: Pace
) -> list[bytes]:
    return await _chunks(spec, ((peer["name"], samples(peer)) for peer in peers), pace)


async def _chunks(spec: _Spec, rows: Iterable[tuple[str, Iterable[Sample]]], pace: Pace) -> list[bytes]:
    """One family of all peers, in pieces; the header is in the first alone."""
    parts: list[bytes] = []
    waiting: list[Sample] = []
    labelled = spec._replace(labels=("peer", *spec.labels))
    for name, samples in rows:
        waiting += [((name, *labels), value) for labels, value in samples]
        if len(waiting) >= _SAMPLES:
            parts.append(_piece(labelled, waiting, not parts))
            waiting = []
            await pace.rest()
    if waiting:
        parts.append(_piece(labelled, waiting, not parts))
    return parts


def _piece(spec: _Spec, samples: list[Sample], first: bool) -> bytes:
    text = _render([_metric(spec, samples)])
    return text if first else b"\n".join(line for line in text.split(b"\n") if not line.startswith(b"#"))


def _metric(spec: _Spec, samples: Iterable[Sample]) -> Metric:
    make: Any = CounterMetricFamily if spec.counter else GaugeMetricFamily
    metric: Metric = make(f"bgpd_{spec.name}", spec.text, labels=spec.labels)
    for labels, value in samples:
        metric.add_metric(labels, value)  # type: ignore[attr-defined]
    return metric


def _render(metrics: list[Metric]) -> bytes:
    return generate_latest(_Given(metrics))


def names() -> Iterator[tuple[str, str, tuple[str, ...]]]:
    """(name, help, labels) of every family that the tables above define, for the documentation's test."""
    for spec, _ in _DAEMON:
        yield _full(spec), spec.text, spec.labels
    for spec, _ in _PEER:
        yield _full(spec), spec.text, ("peer", *spec.labels)


def _full(spec: _Spec) -> str:
    return f"bgpd_{spec.name}{'_total' if spec.counter else ''}"
