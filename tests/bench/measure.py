"""CPU, memory and rest of a process and its children, from /proc."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from attrs import frozen

_LAUNCHERS = {"ip", "taskset", "setpriv", "chroot", "sh"}


def descendants(pid: int) -> list[int]:
    """The process and all below it, without the launchers before the daemon proper."""
    found, todo = [], [pid]
    while todo:
        current = todo.pop()
        found.append(current)
        for task in Path(f"/proc/{current}/task").glob("*/children"):
            try:
                todo += map(int, task.read_text().split())
            except OSError:
                continue
    return [one for one in found if _name(one) not in _LAUNCHERS]


def _name(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


def cpu_seconds(pids: Iterable[int]) -> float:
    """CPU time of all threads, from the scheduler's nanosecond counters. Threads that have ended are missed."""
    total = 0
    for pid in pids:
        try:
            for task in os.scandir(f"/proc/{pid}/task"):
                with open(f"{task.path}/schedstat", "rb") as file:
                    total += int(file.read().split()[0])
        except OSError:
            continue
    return total / 1e9


def memory_kib(pids: Iterable[int], field: str = "VmRSS") -> int:
    """Sum of VmRSS (now) or VmHWM (peak) in KiB."""
    total = 0
    for pid in pids:
        try:
            status = Path(f"/proc/{pid}/status").read_text()
        except OSError:
            continue
        total += sum(int(line.split()[1]) for line in status.splitlines() if line.startswith(field + ":"))
    return total


@frozen
class Rest:
    """How a burst of work ended: `busy_until` is the monotonic time at which the CPU counter was last seen to move."""

    busy_until: float
    cpu: float


def wait_for_rest(pids: Sequence[int], quiet: float = 0.5, timeout: float = 300.0, floor: float = 0.0005) -> Rest:
    """Wait until the processes used at most `floor` CPU seconds in each 10 ms for `quiet` seconds."""
    start = busy = time.monotonic()
    last = cpu_seconds(pids)
    while True:
        time.sleep(0.01)
        now, used = time.monotonic(), cpu_seconds(pids)
        if used - last > floor:
            busy = now
        last = used
        if now - busy >= quiet:
            return Rest(busy, used)
        if now - start > timeout:
            raise TimeoutError(f"still busy after {timeout:g} s")


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which `share` (0..1) of them lie (nearest rank)."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def median(values: Sequence[float]) -> float:
    """The middle value; nan for none."""
    return statistics.median(values) if values else float("nan")
