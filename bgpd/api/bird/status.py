"""`show status` and `show memory`."""

from __future__ import annotations

import os

from bgpd.api.bird.facts import agent, long_time
from bgpd.api.bird.replies import Replies
from bgpd.api.state import DaemonState

RUNNING = 13


def show_status(state: DaemonState, replies: Replies) -> None:
    """The daemon, and whether graceful restart recovery goes on: what the readiness probe looks for."""
    found = agent(state)
    replies.line(1000, f"BIRD {found.version}")
    replies.line(1011, f"Router ID is {found.router_id}")
    replies.line(1011, f"Current server time is {long_time(found.now)}")
    replies.line(1011, f"Last reboot on {long_time(found.boot)}")
    replies.line(1011, f"Last reconfiguration on {long_time(found.reconfigured)}")
    if found.recovering:
        replies.line(24, "Graceful restart recovery in progress")
        replies.line(24, f"  Waiting for {found.waiting} protocols to recover")
        replies.line(24, f"  Wait timer is {found.waits:.0f}/{found.limit:.0f}")
    replies.end(RUNNING, "Daemon is up and running")


def show_memory(replies: Replies) -> None:
    """The process as the kernel counts it; there is no account of its parts."""
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            resident = int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        resident = 0
    replies.line(1018, "BIRD memory usage")
    replies.line(1018, f"Total:            {resident / 1048576:7.1f} MB")
    replies.end()
