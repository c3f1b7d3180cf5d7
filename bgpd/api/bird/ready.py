"""Calico's own conditions of readiness (calico-bgp.md 9.4): sessions by name, strict for a node that has just started.

`/readyz?bird-ready&bird6-ready&threshold=30` asks for these instead of the daemon's.
"""

from __future__ import annotations

import os

from bgpd.api.bird.facts import agent, protocols
from bgpd.api.schema import Check
from bgpd.api.state import DaemonState
from bgpd.family import IPV4_UNICAST, IPV6_UNICAST, Family

__all__ = ["CHECKS", "THRESHOLD", "bird_ready"]

CHECKS: dict[str, Family] = {"bird-ready": IPV4_UNICAST, "bird6-ready": IPV6_UNICAST}
THRESHOLD = 30.0
"""Seconds for which a node counts as just started."""
_COUNTED = ("Global_", "Node_", "Mesh_")
"""Sessions with local workloads do not count: pods come and go."""


def bird_ready(state: DaemonState, check: str, threshold: float = THRESHOLD) -> Check:
    """One of CHECKS. A node is as old as its nodename file, which each start of calico-node writes anew."""
    family = CHECKS[check]
    try:
        age = state.wall() - os.stat(state.nodename_file).st_mtime
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        return _failed(check, f"Failed to stat() nodename file: stat {state.nodename_file}: {reason}")
    if state.speaker is None:
        return _failed(check, "the speaker has not started")
    counted = [row for row in protocols(state, family) if row.kind == "BGP" and row.name.startswith(_COUNTED)]
    down = [row.address for row in counted if row.state != "up"]
    if not counted:
        return _passed(check, "no session is configured")
    if age >= threshold:
        if len(down) == len(counted):
            return _failed(check, f"BGP not established with {','.join(down)}")
        return _passed(check, f"{len(counted) - len(down)} of {len(counted)} sessions are established")
    if down:
        return _failed(check, f"BGP not established with {','.join(down)}")
    if agent(state).recovering:
        return _failed(check, "graceful restart in progress")
    return _passed(check, "all sessions are established")


def _passed(name: str, text: str) -> Check:
    return {"name": name, "ok": True, "text": text}


def _failed(name: str, text: str) -> Check:
    return {"name": name, "ok": False, "text": text}
