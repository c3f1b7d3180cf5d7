"""`python -m tests.bench.workers`: would several reflector processes on one host pay?

One is measured against several that share the clients and peer with each other, as workers behind one address would.

Printed is the CPU time of each process from the clients' first connection to the end: what the busiest one needs bounds
what any number of cores can gain, so the answer does not depend on how many there are here. Needs root and two cores.
"""

from __future__ import annotations

import argparse
import sys

from tests.bench.lab import DAEMON_CORE, LOAD_CORE, Lab, Running, alone
from tests.bench.load import phase, run_load
from tests.bench.measure import cpu_seconds, descendants, median, memory_kib
from tests.bench.our_side import environment
from tests.bench.reflector_peers import ASN
from tests.bench.scenarios import SCENARIOS
from tests.interop.namespace import Process, wait_until


def address(number: int) -> str:
    """Where worker 0, 1, ... listens; clients are outside of 172.30.0.0/24."""
    return f"172.30.0.{1 + number}"


def start(lab: Lab, workers: int, cores: tuple[str, ...]) -> Running:
    """So many reflectors; each has a cluster id of its own, or the others would not take its clients' routes."""
    path = lab.directory("ours")
    processes = []
    for number in range(workers):
        own = address(number)
        argv = [sys.executable, "-m", "reflector", "--listen", f"{own}:179", "--asn", str(ASN), "--router-id", own,
                "--cluster-id", own, "--clients", ",".join(f"172.30.{n}.0/24" for n in range(1, 24)),
                "--max-sessions", "10000", "--max-prefixes", "1000000",
                "--socket", str(path / f"api-{number}.sock"), "--log-level", "error",
                "--health", f"127.0.0.1:{9178 + number}"]  # fmt: skip
        others = [address(other) for other in range(workers) if other != number]
        argv += ["--peers", ",".join(others)] if others else []
        core = cores[number % len(cores)]
        process = Process(lab.daemon, ["taskset", "-c", core, *argv], path / f"log-{number}", environment())
        processes.append(process)
    running = lab.keep(Running("ours", processes))
    lab.ready(running, lambda: _established(lab, workers))
    return running


def _established(lab: Lab, workers: int) -> bool:
    """Whether all listen, and each two are connected."""
    listening = lab.daemon.run("ss", "-Hltn", "sport", "=", ":179").count(":179 ")
    connected = lab.daemon.run("ss", "-Htn", "state", "established", "dport", "=", ":179").splitlines()
    return listening >= workers and len(connected) >= workers * (workers - 1) // 2


def measure(lab: Lab, workers: int, load: str, cores: tuple[str, ...]) -> tuple[float, list[float], list[float]]:
    """One run: seconds of the flood, CPU seconds of each worker, and MB of each."""
    running = start(lab, workers, cores)
    pids = [descendants(process.pid) for process in running.processes]
    before = [cpu_seconds(group) for group in pids]
    try:
        result = run_load(lab, running, ASN, f"{load} --targets {workers}")
        used = [cpu_seconds(group) - was for group, was in zip(pids, before, strict=True)]
        memory = [memory_kib(group, "VmHWM") * 1024 / 1e6 for group in pids]
    finally:
        lab.stop_all()
        wait_until(lambda: not lab.listening(), 10, "the workers are gone")
    return phase(result, "flood", "storm")["seconds"], used, memory


def main() -> int:
    """Print a line for each scenario and number of workers."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.workers", description=__doc__)
    parser.add_argument("--only", default="S2,storm,S3,5k", help="scenarios (%(default)s)")
    parser.add_argument("--workers", default="1,2", help="numbers of processes (%(default)s)")
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    with alone():
        return _run(options)


def _run(options: argparse.Namespace) -> int:
    lab = Lab()
    try:
        lab.daemon.address("vd", [f"{address(number)}/16" for number in range(1, max(numbers(options.workers)))])
        for name in options.only.split(","):
            _compare(lab, name, numbers(options.workers), options.runs)
    finally:
        lab.stop_all()
        lab.close()
    return 0


def numbers(text: str) -> list[int]:
    """ "1,2" as numbers."""
    return [int(part) for part in text.split(",")]


def _compare(lab: Lab, name: str, workers: list[int], runs: int) -> None:
    scenario = SCENARIOS[name]
    lab.one_neighbour(scenario.known)
    found: dict[tuple[int, str], list[tuple[float, list[float], list[float]]]] = {}
    for _ in range(runs):
        for many in workers:
            for where, cores in (("one core", (DAEMON_CORE,)), ("two cores", (DAEMON_CORE, LOAD_CORE))):
                if many > 1 or where == "one core":
                    found.setdefault((many, where), []).append(measure(lab, many, scenario.arguments(False), cores))
    for (many, where), results in found.items():
        busiest = median([max(used) for _, used, _ in results])
        print(f"{name}, {many} processes on {where}: {median([seconds for seconds, _, _ in results]):.3f} s, CPU of "
              f"the busiest {busiest:.3f} s, of all {median([sum(used) for _, used, _ in results]):.3f} s, "
              f"memory of all {median([sum(memory) for _, _, memory in results]):.0f} MB", flush=True)  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
