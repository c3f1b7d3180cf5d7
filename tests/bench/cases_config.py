"""Cases about configuration: a large cluster's resources in a folder or in etcd, read, compiled, and changed.

Latency is from the change in the datastore (rename of a file, answer of etcd) to the UPDATE at a peer. CPU is the
daemon's, over all its threads, a change.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial

from tests.bench import cluster, our_side
from tests.bench.cases import Bench
from tests.bench.cluster import Resource
from tests.bench.lab import LOAD_CORE, Running, client
from tests.bench.measure import percentile
from tests.interop.namespace import Process, wait_until
from tests.interop.scripted import UPDATE, OpenOptions, Speaker, decode_update

ETCD_PORT = 2379
MOST_IN_ONE = 128
"""Operations of a transaction that etcd takes by default."""
SIZES = {"1,000 nodes": (1000, 4000, 50, 500), "5,000 nodes": (5000, 20000, 50, 500)}
LIMITS = {"1,000 nodes": {"first": 1.5, "block": 5.0}, "5,000 nodes": {"first": 6.0, "node": 20.0}}
RESIDENT = {"file": 120.0, "etcd": 140.0}
FIRST_COPY = 7.0
"""Seconds after the start by which the daemon has written the last good copy for the first time."""
CHANGES = 100
BURST = 1000
SPARE = 100_000
"""Blocks from here on are not the cluster's own."""


class Folder:
    """The datastore file:, with what changes in a file of its own for each object."""

    name = "file"

    def __init__(self, bench: Bench, items: list[Resource]) -> None:
        self._path = bench.lab.directory("resources")
        self.url = f"file:{self._path}"
        cluster.write_folder(self._path, items)

    def put(self, item: Resource) -> float:
        """Write an object; the time at which it was there."""
        path = self._path / "changes" / f"{item['kind'].lower()}-{item['metadata']['name']}.json"
        path.parent.mkdir(exist_ok=True)
        temporary = path.with_suffix(".tmp")
        temporary.write_text(cluster.as_json(item))
        temporary.rename(path)
        return time.monotonic()

    def close(self) -> None:
        """Nothing is left."""


class Etcd:
    """A real etcd on the load's side and core; Services are not in etcd, so the cluster here has none."""

    name = "etcd"

    def __init__(self, bench: Bench, items: list[Resource]) -> None:
        folder, address = bench.lab.directory("etcd"), client(0)
        self.url = f"etcd://{address}:{ETCD_PORT}"
        own, peer = f"http://{address}:{ETCD_PORT}", f"http://{address}:{ETCD_PORT + 1}"
        argv = ["taskset", "-c", LOAD_CORE, "etcd", "--name", "one", "--data-dir", str(folder / "data")]
        argv += ["--listen-client-urls", own, "--advertise-client-urls", own, "--listen-peer-urls", peer]
        argv += ["--initial-advertise-peer-urls", peer, "--initial-cluster", f"one={peer}", "--log-level", "error"]
        argv += ["--unsafe-no-fsync"]
        self._process = Process(bench.lab.load, argv, folder / "log")
        self._connection = http.client.HTTPConnection(address, ETCD_PORT, timeout=30)
        self._bench = bench
        wait_until(self._connected, 30, "etcd serves", 0.1)
        pairs = list(cluster.in_etcd(items))
        for start in range(0, len(pairs), MOST_IN_ONE):
            puts = [{"requestPut": _encoded(*pair)} for pair in pairs[start : start + MOST_IN_ONE]]
            self._call("txn", {"success": puts})

    def _connected(self) -> bool:
        sock = self._bench.lab.load.socket()
        try:
            sock.connect((client(0), ETCD_PORT))
        except OSError:
            sock.close()
            return False
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._connection.sock = sock
        return True

    def _call(self, name: str, value: Resource) -> None:
        self._connection.request("POST", f"/v3/kv/{name}", json.dumps(value), {"Content-Type": "application/json"})
        answer = self._connection.getresponse()
        body = answer.read()
        if answer.status != 200:
            raise RuntimeError(f"etcd: {answer.status} {body[:200]!r}")

    def put(self, item: Resource) -> float:
        """Write an object; the time at which etcd was asked to (its answer comes after its watchers' news)."""
        ((key, value),) = cluster.in_etcd([item])
        began = time.monotonic()
        self._call("put", _encoded(key, value))
        return began

    def close(self) -> None:
        """Stop it."""
        self._connection.close()
        self._process.stop()


def _encoded(key: str, value: str) -> dict[str, str]:
    """As etcd's JSON gateway wants it."""
    return {"key": base64.b64encode(key.encode()).decode(), "value": base64.b64encode(value.encode()).decode()}


STORES: dict[str, type[Folder] | type[Etcd]] = {"file": Folder, "etcd": Etcd}


def case_config(bench: Bench, store: str, size: str) -> None:
    """One datastore at one size: first settings, memory, a change's latency and CPU, and 1,000 in a second."""
    if "ours" not in bench.daemons:
        return
    if store == "etcd" and shutil.which("etcd") is None:
        bench.report.remark("config: etcd is not installed, so its rows are missing")
        return
    bench.attempt(f"config, {store}, {size}", "ours", partial(_turn, bench, store, size))


def _turn(bench: Bench, store: str, size: str) -> None:
    items = list(cluster.resources(*SIZES[size]))
    peer = {"peerIP": client(5000), "asNumber": cluster.ASN, "node": cluster.NODE}
    items.append(cluster.make("BGPPeer", "measuring", peer))
    datastore = STORES[store](bench, items)
    try:
        if isinstance(datastore, Folder):
            took = _first(datastore.url.removeprefix("file:"))
            bench.report.add(f"config, file, {size}", "folder read to settings", "s", "ours", took,
                             limit=LIMITS[size]["first"])  # fmt: skip
        _measure(bench, datastore, size)
    finally:
        datastore.close()


def _first(folder: str) -> float:
    """Seconds from a folder to compiled settings, in a process of its own."""
    code = "import gc, sys, time; gc.disable(); from config.compile import compile; from config.files import *\n"
    code += "t = time.monotonic(); s = FileDatastore(sys.argv[1]).load(); c = compile(s, sys.argv[2], {})\n"
    code += "assert c.settings; print(time.monotonic() - t)"
    argv = [sys.executable, "-c", code, folder, cluster.NODE]
    done = subprocess.run(
        argv, capture_output=True, text=True, check=True, env={**os.environ, **our_side.environment()}
    )
    return float(done.stdout)


def _start(bench: Bench, datastore: Folder | Etcd) -> Running:
    path = bench.lab.directory("ours")
    argv = [sys.executable, "-m", "bgpd", "--node", cluster.NODE, "--datastore", datastore.url,
            "--socket", str(path / "api.sock"), "--state-dir", str(path / "state")]  # fmt: skip
    return Running("ours", [bench.lab.spawn(argv, path / "log", our_side.environment())])


def _measure(bench: Bench, datastore: Folder | Etcd, size: str) -> None:
    lab, case, limits = bench.lab, f"config, {datastore.name}, {size}", LIMITS[size]

    def add(what: str, unit: str, value: float, limit: float | None = None) -> None:
        bench.report.add(case, what, unit, "ours", value, limit=limit)

    began = time.monotonic()
    running = lab.keep(lab.ready(_start(bench, datastore)))
    add("process start to ready", "s", time.monotonic() - began)
    speaker = lab.speaker(OpenOptions(cluster.ASN, client(5000), families=((1, 1),)), client(5000), dial_for=60)
    _drain(speaker, FIRST_COPY)
    blocks = partial(_change, datastore, speaker, running)
    times, spent = blocks(_own_block, expect=True)
    add("own block to UPDATE, p50", "ms", percentile(times, 0.5), 100.0)
    add("own block to UPDATE, p99", "ms", percentile(times, 0.99), 500.0)
    add("own block, CPU", "ms", spent, limits.get("block"))
    _, spent = blocks(lambda n: cluster.block(SPARE + 1000 + n, cluster.name(8)), expect=False)
    add("another node's block, CPU", "ms", spent, limits.get("block"))
    _, spent = blocks(lambda n: cluster.node(100, f"172.31.{n}.1"), expect=False)
    add("another node's address, CPU", "ms", spent, limits.get("node"))
    _, spent = blocks(lambda n: cluster.bgp_filter(0, n + 1), expect=False)
    add("a filter, CPU", "ms", spent)
    add("resident", "MiB", running.rss_mib, RESIDENT[datastore.name] if size == "1,000 nodes" else None)
    _burst(add, datastore, speaker, running)
    speaker.close()


def _own_block(number: int) -> Resource:
    """Four blocks beside the node's own come and go."""
    item = cluster.block(SPARE + number % 4, cluster.NODE)
    item["spec"]["state"] = "confirmed" if number // 4 % 2 == 0 else "pending"
    return item


def _change(
    datastore: Folder | Etcd, speaker: Speaker, running: Running, make: Callable[[int], Resource], *, expect: bool
) -> tuple[list[float], float]:
    """Milliseconds from each change to its UPDATE (where one is due), and CPU milliseconds a change."""
    items, times = [make(number) for number in range(CHANGES if expect else CHANGES // 5)], []
    time.sleep(0.5)
    before = running.cpu
    for item in items:
        began = datastore.put(item)
        if expect:
            times.append((_until(speaker, item["spec"]["cidr"], 5.0) - began) * 1e3)
        time.sleep(0.01 if expect else 0.2)
    time.sleep(0.5)
    return times, (running.cpu - before) * 1e3 / len(items)


def _burst(
    add: Callable[[str, str, float, float | None], None], datastore: Folder | Etcd, speaker: Speaker, running: Running
) -> None:
    """1,000 changes as fast as a second allows; the last of them counts."""
    before, began = running.cpu, time.monotonic()
    last = cluster.block(SPARE + 5000 + BURST, cluster.NODE)
    for number in range(BURST - 1):
        datastore.put(cluster.block(SPARE + 5000 + number, cluster.NODE))
        if (ahead := began + number / BURST - time.monotonic()) > 0:
            time.sleep(ahead)
    written = datastore.put(last)
    add("1,000 changes, written in", "s", written - began, None)
    arrived = _until(speaker, last["spec"]["cidr"], 20.0)
    add("1,000 changes, last one to UPDATE", "s", arrived - written, None)
    time.sleep(1.0)
    add("1,000 changes, CPU", "s", running.cpu - before, None)


def _until(speaker: Speaker, cidr: str, seconds: float) -> float:
    """Read until a prefix is announced or withdrawn; when. Raises TimeoutError after `seconds` of silence."""
    key = _key(cidr)
    for kind, body in speaker.messages(timeout=seconds):
        now = time.monotonic()
        if kind == UPDATE:
            update = decode_update(body)
            if any(item[2] == key for item in (*update.announced, *update.withdrawn)):
                return now
    raise AssertionError("unreachable")


def _key(cidr: str) -> bytes:
    address, _, length = cidr.partition("/")
    return bytes((int(length), *map(int, address.split("."))))[: 1 + (int(length) + 7) // 8]


def _drain(speaker: Speaker, seconds: float) -> None:
    """Read until it is silent for so long."""
    with contextlib.suppress(TimeoutError):
        for _ in speaker.messages(seconds):
            pass
