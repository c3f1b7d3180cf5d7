"""The benchmark's cases. Each takes the Bench and adds rows; daemons take turns within a run."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

from attrs import define, field

from tests.bench import bird_side, our_side
from tests.bench.collector import UNEXPLAINED, Attributes, collect, compare
from tests.bench.lab import Lab, Running, client
from tests.bench.load import phase, run_load
from tests.bench.measure import wait_for_rest
from tests.bench.report import Report
from tests.bench.tables import full_table
from tests.interop.scripted import OpenOptions

IGP_TABLE = "ipv4 table igp4;\nprotocol static { ipv4 { table igp4; }; route 0.0.0.0/0 via 172.30.1.1; }"
"""BIRD resolves next hops in a table of their own, as ours does: else it re-evaluates them all the time."""
DEFAULT_IN_MAIN = "protocol static { ipv4; route 0.0.0.0/0 via 172.30.1.1; }"
BIRD_MAIN = "bird, next hops in its main table"
SINK = "--clients 1 --prefixes 100000 --plen mix --set-size 8 --realistic --mode sink"


LONG = 35.0
"""Seconds that a case's first two runs may take where it has a third."""
SHORT = 60.0
"""Seconds for which a case goes on beyond the runs that all have: 15 ms are half as many or twice from run to run."""
MOST = 9


@define(eq=False)
class Bench:
    """What a case needs: the lab, the table of results, and which daemons are there."""

    lab: Lab
    report: Report
    runs: int
    daemons: tuple[str, ...]
    """"ours", "bird", "frr": those that are to be run."""
    slow_peers: bool = False
    """Also those that take very long for a case."""
    all_runs: bool = False
    """As many runs as asked for also of long cases."""
    failed: list[float] = field(factory=lambda: [0.0])
    """How many runs of our reflector failed so far."""
    profile_folder: Path | None = None
    """Where cProfile files of our daemon go; None: not profiled (profiling makes it slower)."""

    def profile(self, name: str) -> Path | None:
        """The profile file of a case."""
        return self.profile_folder / f"{name}.prof" if self.profile_folder else None

    def turns(self, *names: str, most: int = MOST) -> Iterator[str]:
        """Daemon names run after run, so that a busy moment hits all alike; the order turns round each time.

        If no number was asked for, a case whose first two runs took long has no third, and short ones go on for a
        minute.
        """
        present = [name for name in names if name in self.daemons]
        began = time.monotonic()
        for number in range(min(self.runs, most) if self.all_runs else most):
            limit = LONG if number < self.runs else SHORT
            if number > 1 and time.monotonic() - began > limit and not self.all_runs:
                return
            yield from present if number % 2 == 0 else reversed(present)

    def each(self, *names: str) -> list[str]:
        """Those of these daemons that are there, once."""
        return [name for name in names if name in self.daemons]

    def attempt(self, case: str, who: str, action: Callable[[], None]) -> None:
        """Run one turn; a failure becomes a remark, so that the other figures still come."""
        try:
            action()
        except Exception as error:
            self.report.remark(f"{case}, {who}: {type(error).__name__}: {error}")
        finally:
            self.lab.stop_all()
            self.lab.fresh_kernel()


def case_full_table(bench: Bench) -> None:
    """The full table over one real session: CPU, wall time, memory, and the table itself compared."""
    table = full_table()
    lab, report = bench.lab, bench.report
    case = "full table"
    report.remark(f"{case}: {table.name}, {len(table.messages)} UPDATEs, {table.prefixes} prefixes at the end")
    if not table.name.startswith("MRT"):
        report.remark(f"{case}: ../shared is absent, so the table of 2015 is not played and the figures are no verdict")
    held: dict[str, dict[bytes, Attributes]] = {}

    def turn(who: str) -> None:
        lab.daemon.run("ip", "route", "replace", "default", "via", "172.30.1.1", "proto", "static")
        running = _start_receiver(bench, who, table.asn)
        before_cpu, before_rss = running.cpu, running.rss_mib
        sender = lab.speaker(OpenOptions(table.asn, client(0), families=((1, 1),)), client(0))
        time.sleep(0.5)
        began, before_cpu = time.monotonic(), running.cpu
        sender.blast(table.messages)
        rest = wait_for_rest(running.pids, 1.0)
        name = {"bird-main": BIRD_MAIN}.get(who, who)
        report.add(case, "CPU", "s", name, rest.cpu - before_cpu, ratio_limit=4.0, goal=2.5)
        report.add(case, "wall", "s", name, rest.busy_until - began)
        report.add(case, "resident", "MiB", name, running.rss_mib, limit=350)
        report.add(case, "octets a route", "B", name, (running.rss_mib - before_rss) * 1048576 / table.prefixes)
        told, gone = time.monotonic(), 0.0
        if who in ("ours", "bird") and not bench.profile_folder:
            before_cpu = running.cpu
            held[who] = collect(lab, table.asn, 1, table.prefixes)
            took, gone = time.monotonic() - told, time.monotonic()
            report.add("full table to a client", "CPU", "s", who, running.cpu - before_cpu)
            report.add("full table to a client", "wall, decoding included", "s", who, took)
            sender.close()
            wait_for_rest(running.pids, 1.0)
        sender.close()
        lab.stop_all()
        if who == "ours":
            stall = our_side.longest_stall(lab, began, told)
            report.add(case, "longest loop stall", "s", who, stall, limit=0.5)
        if who == "ours" and gone:
            stall = our_side.longest_stall(lab, told, gone)
            report.add("full table to a client", "longest loop stall", "s", who, stall, limit=0.5)
            stall = our_side.longest_stall(lab, gone, time.monotonic())
            report.add("full table lost again", "longest loop stall", "s", who, stall, limit=0.5)

    for who in bench.turns("ours", "bird", "bird-main"):
        bench.attempt(case, who, lambda: turn(who))  # noqa: B023
    if (main := report.row(case, "CPU", "s").peer(BIRD_MAIN)) is not None:
        report.remark(
            f"{case}: BIRD with next hops in its main table, as Calico configures it, takes {main:.2f} s of CPU"
        )
    for who, routes in held.items():
        report.remark(f"{case}: {who} gave a second peer {len(routes)} prefixes (expected {table.prefixes})")
    if len(held) == 2:
        reasons = compare(held["ours"], held["bird"])
        report.add(case, "prefixes unlike BIRD's, unexplained", "", "ours", float(reasons.pop(UNEXPLAINED, 0)), limit=0)
        text = ", ".join(f"{count} ({reason})" for reason, count in sorted(reasons.items())) or "none"
        report.remark(f"{case}: every attribute of every prefix was compared; explained differences: {text}")


def _start_receiver(bench: Bench, who: str, asn: int) -> Running:
    if who == "ours":
        peers = [our_side.peer(0, asn), our_side.peer(1, asn, reflector_client=True)]
        data = our_side.settings(asn, peers, cluster_id="172.30.0.1", fib={"enabled": False})
        return bench.lab.keep(our_side.start_speaker(bench.lab, data, kernel=True, profile=bench.profile("full")))
    config = bird_side.bird_config(asn, 2, reflect=True)
    # The sender is an ordinary peer; the second, which takes the table afterwards, is a reflector client.
    config = config.replace("protocol bgp c0 from cl {", "protocol bgp c0 from cl { rr client off;")
    if who == "bird":
        config = config.replace("ipv4 { import all;", "ipv4 { igp table igp4; import all;")
        config = config.replace("template bgp", IGP_TABLE + "\ntemplate bgp")
    else:
        config += DEFAULT_IN_MAIN + "\n"
    return bench.lab.keep(bird_side.start_bird(bench.lab, config))


def case_sink(bench: Bench) -> None:
    """Reception of 100,000 prefixes, eight to an attribute set, from one iBGP peer."""
    lab, report = bench.lab, bench.report
    case = "sink100k"

    def turn(who: str) -> None:
        if who == "ours":
            data = our_side.settings(64512, [our_side.peer(0, 64512)], fib={"enabled": False})
            running = our_side.start_speaker(lab, data, kernel=True, profile=bench.profile("sink"))
        elif who == "bird":
            running = bird_side.start_bird(lab, bird_side.bird_config(64512, 1))
        else:
            running = bird_side.start_frr(lab, bird_side.frr_config(64512, 1), kernel=False)
        lab.keep(running)
        before = running.rss_mib
        found = phase(run_load(lab, running, 64512, SINK), "sink")
        report.add(case, "CPU", "s", who, found["daemon_cpu_s"], ratio_limit=4.0, goal=2.5)
        report.add(case, "wall", "s", who, found["seconds"])
        report.add(case, "octets a route", "B", who, (running.rss_mib - before) * 1048576 / 100_000)

    for who in bench.turns("ours", "bird", "frr"):
        bench.attempt(case, who, lambda: turn(who))  # noqa: B023
