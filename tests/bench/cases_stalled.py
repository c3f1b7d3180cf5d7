"""A client that reads nothing while a full table is loaded: the memory that it costs, and the time of the others."""

from __future__ import annotations

import socket
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from tests.bench import reflector_ours, reflector_peers
from tests.bench.cases import Bench
from tests.bench.lab import DAEMON_ADDRESS, Running, client
from tests.bench.load import phase, run_load
from tests.bench.measure import wait_for_rest
from tests.bench.reflector_peers import ASN, Wanted
from tests.bench.scenarios import FLAGS, SCENARIOS
from tests.interop.scripted import UPDATE, OpenOptions, Speaker, decode_update

CASE = "stalled"
TABLE = SCENARIOS["S4"]
PREFIXES = 500_000
PER_PEER = 128 * 1024
"""Octets beside the table that each peer may cost."""
CHANGES = " --mode replace --fraction 1 --rounds 3"
"""Then the whole table is announced anew, three times: what waits may grow with the table, not with the messages."""
READING = " --stay 15"
"""Seconds for which the others stay in the end: the stalled client must have read all within them."""


def case_stalled(bench: Bench) -> None:
    """S4 without and with a sixth client whose window is closed; in the end it reads, and must get the whole table."""
    for who in bench.turns(FLAGS, *(["bird"] if bench.slow_peers else []), most=1):
        bench.attempt(CASE, who, partial(_turn, bench, who))


def _turn(bench: Bench, who: str) -> None:
    began, running = _start(bench, who)
    table = phase(_load(bench, running, " --linger-ms 1000"), "linger")["daemon_rss_kb"] * 1024 - began
    bench.lab.stop_all()
    began, running = _start(bench, who)
    stalled = _closed_window(bench)
    with ThreadPoolExecutor(1) as pool:
        load = pool.submit(_load, bench, running, CHANGES + READING)
        wait_for_rest(running.pids, 2.0)
        missing = PREFIXES - _read(stalled)
        result = load.result()
    peak = result["daemon_hwm_kb"] * 1024 - began
    for what, unit, value, limit in (
        ("the loaded table", "MB", table / 1e6, None),
        ("peak with a client that never reads, over the start", "MB", peak / 1e6, None),
        ("that peak, of 2 x table + 128 KiB x peers", "x", peak / (2 * table + (TABLE.clients + 1) * PER_PEER), 1.0),
        ("time of the others", "s", phase(result, "flood")["seconds"], None),
        ("prefixes that it did not get when it read at last", "", missing, 0),
    ):
        bench.report.add(CASE, what, unit, who, float(value), limit=limit, against="best")


def _start(bench: Bench, who: str) -> tuple[int, Running]:
    """The daemon, and the octets that it has at rest."""
    wanted = Wanted(TABLE.clients + 1)
    bench.lab.one_neighbour(wanted.clients)
    if who == FLAGS:
        running = reflector_ours.start(bench.lab, who, wanted, many_prefixes=True)
    else:
        running = reflector_peers.start(bench.lab, who, wanted)
    return int(running.rss_mib * 1048576), running


def _load(bench: Bench, running: Running, more: str) -> dict[str, Any]:
    return run_load(bench.lab, running, ASN, TABLE.arguments(False) + more)


def _closed_window(bench: Bench) -> Speaker:
    """A session of the last client, whose socket takes a few KiB and then no more. It has no hold time."""
    sock = bench.lab.load.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.settimeout(10)
    address = client(TABLE.clients)
    sock.bind((address, 0))
    sock.connect((DAEMON_ADDRESS, 179))
    speaker = Speaker(sock, OpenOptions(ASN, address, hold_time=0, families=((1, 1),)))
    speaker.handshake()
    return speaker


def _read(speaker: Speaker) -> int:
    """Read on until the whole table has come or nothing does for 5 s; the prefixes that are there then."""
    found: set[bytes] = set()
    try:
        for kind, body in speaker.messages(timeout=5.0):
            if kind == UPDATE:
                update = decode_update(body)
                found.update(key for _, _, key in update.announced)
                found.difference_update(key for _, _, key in update.withdrawn)
            if len(found) >= PREFIXES:
                break
    except TimeoutError:
        pass
    finally:
        speaker.close()
    return len(found)
