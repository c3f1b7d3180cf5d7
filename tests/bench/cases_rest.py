"""Cases about a node at rest and at its start."""

from __future__ import annotations

import time

from tests.bench import bird_side, our_side
from tests.bench.cases import Bench
from tests.bench.cases_kernel import ASN, POOL
from tests.bench.lab import client
from tests.bench.load import phase, run_load
from tests.interop.scripted import OpenOptions

PEERS = 100
IDLE_SECONDS = 30


def case_idle(bench: Bench) -> None:
    """100 established peers and nothing to do: CPU and memory. Ours with file datastore, health, metrics and api on."""
    lab = bench.lab

    def turn(who: str) -> None:
        if who == "ours":
            running = lab.keep(our_side.start_node(lab, our_side.node_objects(ASN, PEERS, (POOL,))))
        else:
            running = lab.keep(bird_side.start_bird(lab, bird_side.bird_config(ASN, PEERS, kernel=True, learn=True)))
        load = f"--clients {PEERS} --prefixes 4 --mode keepalive --hold 90 --seconds {IDLE_SECONDS} --no-check"
        result = run_load(lab, running, ASN, load + f" --fib-netns {lab.daemon.path}")
        rest = phase(result, "keepalive")
        case = f"idle, {PEERS} peers"
        bench.report.add(case, "CPU", "% of a core", who, 100 * rest["daemon_cpu_s"] / rest["seconds"], limit=0.5)
        bench.report.add(case, "resident", "MiB", who, running.rss_mib, limit=60)

    for who in bench.turns("ours", "bird", most=bench.runs if bench.all_runs else 1):
        bench.attempt("idle", who, lambda: turn(who))  # noqa: B023


def case_start(bench: Bench) -> None:
    """From the start of the process to Established, with a kernel that is empty or full of Felix's routes."""
    lab = bench.lab
    for routes in (0, 10_000, 100_000):
        _fill(bench, routes)

        def turn(who: str, routes: int = routes) -> None:
            began = time.monotonic()
            if who == "ours":
                objects = our_side.node_objects(ASN, 1, ("10.0.0.0/9",))
                running = lab.keep(our_side.start_node(lab, objects, wait=False))
            else:
                config = bird_side.bird_config(ASN, 1, kernel=True, learn=True)
                running = lab.keep(bird_side.start_bird(lab, config, wait=False))
            speaker = lab.speaker(OpenOptions(ASN, client(0), families=((1, 1),)), client(0), dial_for=60)
            took = time.monotonic() - began
            running.find()
            bench.report.add("start to Established", f"{routes:,} kernel routes", "s", who, took)
            time.sleep(1.0)
            bench.report.add("start to Established", f"resident, {routes:,} kernel routes", "MiB", who, running.rss_mib)
            speaker.close()

        for who in bench.turns("ours", "bird"):
            try:
                turn(who)
            except Exception as error:
                bench.report.remark(f"start with {routes:,} kernel routes, {who}: {type(error).__name__}: {error}")
            finally:
                lab.stop_all()
    lab.daemon.run("ip", "link", "del", "cali0", check=False)


def _fill(bench: Bench, routes: int) -> None:
    daemon = bench.lab.daemon
    bench.lab.fresh_kernel()
    bench.lab.pod_link()
    daemon.batch(
        f"route add 10.{64 + (n >> 16)}.{n >> 8 & 255}.{n & 255}/32 dev cali0 proto 80 metric 1024"
        for n in range(routes)
    )
