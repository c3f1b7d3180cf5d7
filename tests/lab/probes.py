"""Traffic between the lab's endpoints, and the account of what was lost."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from attrs import define, field, frozen

from tests.lab.netns import LabError, Namespace

_FIRST_PORT = 7000


@frozen
class Endpoint:
    """Where packets start and end: a namespace and its address of each family."""

    name: str
    namespace: Namespace
    ipv4: str
    ipv6: str


@frozen
class Loss:
    """What the network lost of one direction of one flow. Outages are runs of missing packets, in seconds."""

    flow: str
    sent: int
    lost: int
    """Those that did not reach the receiving socket."""
    outages: tuple[float, ...]
    overflows: int
    """Those that reached the receiving socket and found its buffer full: this machine is too busy for the prober."""
    slowest: float
    """Longest way of a packet, in seconds."""
    duplicates: int

    @property
    def longest_outage(self) -> float:
        """Seconds; 0 if nothing was lost."""
        return max(self.outages, default=0.0)

    def __str__(self) -> str:
        text = f"{self.flow}: {self.sent} sent, {self.lost} lost"
        return text + (f", longest outage {self.longest_outage:.3f} s" if self.lost else "") + _unread(self.overflows)


@frozen
class Account:
    """The losses of all directions."""

    losses: tuple[Loss, ...]

    @property
    def sent(self) -> int:
        """Packets of all directions."""
        return sum(loss.sent for loss in self.losses)

    @property
    def lost(self) -> int:
        """Packets of all directions."""
        return sum(loss.lost for loss in self.losses)

    @property
    def longest_outage(self) -> float:
        """Seconds, over all directions."""
        return max((loss.longest_outage for loss in self.losses), default=0.0)

    def __str__(self) -> str:
        text = f"{self.sent} packets sent, {self.lost} lost"
        text += f", longest outage {self.longest_outage:.3f} s" if self.lost else ""
        return text + _unread(sum(loss.overflows for loss in self.losses))


def _unread(overflows: int) -> str:
    return f" ({overflows} more arrived and were not read in time)" if overflows else ""


def runs_of_missing(seen: bytes, sent: int) -> Iterator[int]:
    """Lengths of the runs of numbers below `sent` whose bit in `seen` is not set."""
    run = 0
    for number in range(sent):
        octet = number >> 3
        if octet < len(seen) and seen[octet] >> (number & 7) & 1:
            if run:
                yield run
            run = 0
        else:
            run += 1
    if run:
        yield run


@define
class _Process:
    endpoint: Endpoint
    flows: list[list[Any]] = field(factory=list)
    popen: subprocess.Popen[str] | None = None

    def start(self, rate: float) -> None:
        script = Path(__file__).with_name("prober.py")
        wanted = json.dumps({"rate": rate, "flows": self.flows})
        self.popen = subprocess.Popen(
            self.endpoint.namespace.command([sys.executable, "-I", str(script), wanted]),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def say(self, word: str) -> None:
        assert self.popen is not None and self.popen.stdin is not None
        self.popen.stdin.write(word + "\n")
        self.popen.stdin.flush()

    def hear(self) -> str:
        assert self.popen is not None and self.popen.stdout is not None and self.popen.stderr is not None
        line = self.popen.stdout.readline()
        if not line:
            raise LabError(f"the prober of {self.endpoint.name} died: {self.popen.stderr.read().strip()}")
        return line

    def end(self) -> None:
        if self.popen is None:
            return
        assert self.popen.stdin and self.popen.stdout and self.popen.stderr
        for pipe in (self.popen.stdin, self.popen.stdout, self.popen.stderr):
            try:
                pipe.close()
            except OSError:
                pass
        try:
            self.popen.wait(5)
        except subprocess.TimeoutExpired:
            self.popen.kill()
            self.popen.wait()


class Probes:
    """Flows in both directions between pairs of endpoints, both families, `rate` packets a second each way.

    A context manager: processes run inside it. `begin()` starts traffic, `finish()` stops it and accounts.
    """

    def __init__(self, pairs: Iterable[tuple[Endpoint, Endpoint]], rate: float = 1000.0, families: str = "46") -> None:
        self.rate = rate
        self._processes: dict[str, _Process] = {}
        self._directions: list[tuple[str, Endpoint, Endpoint]] = []
        port = _FIRST_PORT
        for one, other in pairs:
            for version in families:
                self._add(f"{one.name} - {other.name} IPv{version}", one, other, version, port)
                port += 1

    def _add(self, flow: str, one: Endpoint, other: Endpoint, version: str, port: int) -> None:
        for local, remote in ((one, other), (other, one)):
            addresses = (local.ipv4, remote.ipv4) if version == "4" else (local.ipv6, remote.ipv6)
            process = self._processes.setdefault(local.name, _Process(local))
            process.flows.append([flow, *addresses, port])
            self._directions.append((flow, local, remote))

    def __enter__(self) -> Probes:
        try:
            for process in self._processes.values():
                process.start(self.rate)
            for process in self._processes.values():
                process.hear()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the processes."""
        for process in self._processes.values():
            process.end()

    def begin(self) -> None:
        """Start sending, everywhere."""
        for process in self._processes.values():
            process.say("send")

    def reports(self) -> dict[str, dict[str, Any]]:
        """What each endpoint's process counts now: {endpoint: {flow: counters}}."""
        for process in self._processes.values():
            process.say("report")
        return {name: json.loads(process.hear()) for name, process in self._processes.items()}

    def forget_first(self) -> None:
        """The next arrival of each flow counts as its first."""
        for process in self._processes.values():
            process.say("first")

    def wait_flowing(self, timeout: float = 10.0) -> None:
        """Wait until something has arrived in every direction. Raises LabError naming the silent ones."""
        until = time.monotonic() + timeout
        while True:
            reports = self.reports()
            silent = [
                f"{flow} from {sender.name}"
                for flow, sender, receiver in self._directions
                if reports[receiver.name][flow]["first"] is None
            ]
            if not silent:
                return
            if time.monotonic() > until:
                raise LabError(f"nothing arrives in {timeout:.0f} s on: {', '.join(silent)}")
            time.sleep(0.05)

    def finish(self, settle: float = 0.5) -> Account:
        """Stop sending, let what is under way arrive, and account for every packet."""
        for process in self._processes.values():
            process.say("stop")
        for process in self._processes.values():
            process.hear()
        time.sleep(settle)
        reports = self.reports()
        return Account(tuple(self._loss(reports, *direction) for direction in self._directions))

    def _loss(self, reports: dict[str, dict[str, Any]], flow: str, sender: Endpoint, receiver: Endpoint) -> Loss:
        sent = reports[sender.name][flow]["sent"]
        arrived = reports[receiver.name][flow]
        missing = list(runs_of_missing(base64.b64decode(arrived["seen"]), sent))
        return Loss(
            flow=f"{flow}, {sender.name} to {receiver.name}",
            sent=sent,
            lost=sum(missing) - arrived["overflows"],
            outages=tuple(run / self.rate for run in missing),
            overflows=arrived["overflows"],
            slowest=arrived["slowest"],
            duplicates=arrived["duplicates"],
        )
