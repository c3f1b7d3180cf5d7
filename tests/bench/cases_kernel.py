"""Cases about the kernel: learned routes into it, and its routes to the peers."""

from __future__ import annotations

import json
import time
from functools import partial
from threading import Thread

from tests.bench import bird_side, our_side
from tests.bench.cases import Bench
from tests.bench.lab import Running, client
from tests.bench.load import phase, run_load
from tests.bench.measure import percentile
from tests.bench.netlink_probe import RouteWriter
from tests.interop.scripted import UPDATE, OpenOptions, Speaker, decode_update

ASN = 64512
_FIB = "--clients 2 --fib-netns {netns} --no-check"
FLOODS = {
    "N1": ("2,000 routes, 500 next hops", "--prefixes 2000 --nodes 500", {"ratio_limit": 0.5}),
    "N2": ("20,000 routes, 5,000 next hops", "--prefixes 20000 --nodes 5000", {"ratio_limit": 0.5}),
    "N100k": ("100,000 routes, 5,000 next hops", "--prefixes 100000 --nodes 5000", {"limit": 2.0}),
}
POOL = "10.244.0.0/16"


def start(bench: Bench, who: str, clients: int, kernel: bool = True, learn: bool = False) -> Running:
    """A node with so many iBGP peers: ours as the product from a file datastore."""
    lab = bench.lab
    if who == "ours":
        return lab.keep(our_side.start_node(lab, our_side.node_objects(ASN, clients, (POOL,))))
    if who == "bird":
        return lab.keep(bird_side.start_bird(lab, bird_side.bird_config(ASN, clients, kernel=kernel, learn=learn)))
    return lab.keep(bird_side.start_frr(lab, bird_side.frr_config(ASN, clients), kernel))


def kernel_table(bench: Bench) -> dict[str, frozenset[str]]:
    """Learned routes in the kernel: destination -> gateways."""
    table = {}
    for item in json.loads(bench.lab.daemon.ip("-j", "route", "show") or "[]"):
        if item.get("protocol") in ("bird", "bgp", "12"):
            hops = item.get("nexthops", [item])
            table[item["dst"]] = frozenset(hop.get("gateway", "-") for hop in hops)
    return table


def case_kernel(bench: Bench) -> None:
    """N1, N2 and 100,000 routes: two reflectors feed one node, the kernel table is the receiver."""
    for case, (words, arguments, limits) in FLOODS.items():
        names = ("ours", "bird", "frr") if case != "N100k" else ("ours", "bird")
        for who in bench.turns(*names):
            bench.attempt(case, who, partial(_flood, bench, who, case, words, arguments, limits))
        tables: dict[str, dict[str, frozenset[str]]] = {}
        for who in bench.each("ours", "bird"):
            bench.attempt(f"{case}, table", who, partial(_flooded_table, bench, who, arguments, tables))
        if len(tables) == 2:
            ours, bird = tables["ours"], tables["bird"]
            wrong = sum(ours.get(key) != bird.get(key) for key in ours.keys() | bird.keys())
            bench.report.add(case, "kernel routes unlike BIRD's", "", "ours", float(wrong), limit=0)


def _load(bench: Bench, arguments: str, linger: int) -> str:
    return f"{arguments} {_FIB.format(netns=bench.lab.daemon.path)} --linger-ms {linger}"


def _flood(bench: Bench, who: str, case: str, words: str, arguments: str, limits: dict[str, float]) -> None:
    running = start(bench, who, 2)
    time.sleep(0.5)
    result = run_load(bench.lab, running, ASN, _load(bench, arguments, 200))
    flood = phase(result, "flood")
    bench.report.add(case, f"time: {words}", "s", who, flood["seconds"], **limits)
    both = phase(result, "linger")["daemon_cpu_s"]  # counted from the first UPDATE on, with what followed
    bench.report.add(case, "CPU", "s", who, both, ratio_limit=limits.get("ratio_limit"))


def _flooded_table(bench: Bench, who: str, arguments: str, tables: dict[str, dict[str, frozenset[str]]]) -> None:
    """The kernel's table while the sessions are still up, in a run of its own."""
    running = start(bench, who, 2)
    time.sleep(0.5)
    load = Thread(target=run_load, args=(bench.lab, running, ASN, _load(bench, arguments, 3000)))
    load.start()
    wanted, end = int(arguments.split()[1]), time.monotonic() + 60
    try:
        while len(table := kernel_table(bench)) < wanted and time.monotonic() < end:
            time.sleep(0.5)
        tables[who] = table
    finally:
        load.join()


def case_one_change(bench: Bench) -> None:
    """N3: one changed route at a time, UPDATE to kernel route."""

    def turn(who: str) -> None:
        running = start(bench, who, 2)
        time.sleep(0.5)
        load = f"--prefixes 2000 --nodes 500 --mode trickle --changes 200 {_FIB.format(netns=bench.lab.daemon.path)}"
        found = phase(run_load(bench.lab, running, ASN, load), "trickle")
        case = "N3"
        add = bench.report.add
        add(case, "UPDATE to kernel route p50", "ms", who, found["last_receiver_p50"] * 1e3, ratio_limit=1.2)
        add(case, "UPDATE to kernel route p99", "ms", who, found["last_receiver_p99"] * 1e3, ratio_limit=1.2)
        add(case, "CPU of 200 changes", "s", who, found["daemon_cpu_s"])

    for who in bench.turns("ours", "bird", "frr"):
        bench.attempt("N3", who, lambda: turn(who))  # noqa: B023


def case_felix(bench: Bench, changes: int = 200) -> None:
    """A Felix-like route appears in the kernel: time until its UPDATE is at a peer."""
    lab = bench.lab
    lab.pod_link()
    interface = int(lab.daemon.run("cat", "/sys/class/net/cali0/ifindex"))

    def turn(who: str) -> None:
        start(bench, who, 1, kernel=False, learn=True)
        speaker = lab.speaker(OpenOptions(ASN, client(0), families=((1, 1),)), client(0))
        writer = RouteWriter(lab.daemon)
        time.sleep(1.0)
        times = []
        for number in range(changes):
            key = bytes((32, 10, 244, number >> 8, number & 255))
            began = writer.write(f"10.244.{number >> 8}.{number & 255}/32", interface, 80, 1024)
            times.append((_arrival(speaker, key) - began) * 1e3)
            time.sleep(0.005)
        writer.close()
        speaker.close()
        case = "Felix route to UPDATE"
        bench.report.add(case, "p50", "ms", who, percentile(times, 0.5), limit=2.0)
        bench.report.add(case, "p99", "ms", who, percentile(times, 0.99), limit=10.0)

    try:
        for who in bench.turns("ours", "bird"):
            bench.attempt("Felix route to UPDATE", who, lambda: turn(who))  # noqa: B023
    finally:
        lab.daemon.run("ip", "link", "del", "cali0", check=False)


def _arrival(speaker: Speaker, key: bytes) -> float:
    for kind, body in speaker.messages(timeout=5.0):
        now = time.monotonic()
        if kind == UPDATE and any(item[2] == key for item in decode_update(body).announced):
            return now
    raise AssertionError("unreachable")
