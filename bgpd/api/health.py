"""Whether the daemon is ready and alive, with reasons."""

from __future__ import annotations

from bgpd.api.schema import Check, Health
from bgpd.api.state import DaemonState
from bgpd.session.fsm import State

ALIVE_TIME = 30.0
"""Seconds without a turn of the runner after which the daemon counts as hung."""


def readiness(state: DaemonState) -> Health:
    """200 of /readyz: configured, kernel read, and with sessions (or done waiting for them, or none to wait for)."""
    return _health([_configured(state), _kernel(state), _sessions(state)])


def liveness(state: DaemonState) -> Health:
    """200 of /livez: the runner turns. That this is answered at all says that the loop does."""
    silence = max(state.clock() - state.alive_at(), 0.0)
    ok = silence <= ALIVE_TIME
    text = "the event loop turns" if ok else f"the speaker has not run for {silence:.0f} s"
    return _health([{"name": "loop", "ok": ok, "text": text}])


def _health(checks: list[Check]) -> Health:
    return {"ok": all(check["ok"] for check in checks), "checks": checks}


def _configured(state: DaemonState) -> Check:
    if state.speaker is not None:
        return {"name": "configuration", "ok": True, "text": "a snapshot is compiled and in force"}
    store = state.datastore()
    reason = f": {store['text']}" if store["text"] else ""
    return {"name": "configuration", "ok": False, "text": f"no snapshot from {store['url'] or 'the datastore'}{reason}"}


def _kernel(state: DaemonState) -> Check:
    if not state.kernel_wanted:
        return {"name": "kernel", "ok": True, "text": "no kernel role"}
    if state.kernel is not None:
        return {"name": "kernel", "ok": True, "text": "the kernel's tables are read"}
    return {"name": "kernel", "ok": False, "text": "the kernel's tables are not read yet"}


def _sessions(state: DaemonState) -> Check:
    speaker = state.speaker
    if speaker is None or not speaker.started:
        return {"name": "sessions", "ok": False, "text": "the speaker has not started"}
    total = len(speaker.peers)
    up = sum(peer.session.state is State.ESTABLISHED for peer in speaker.peers.values())
    if total == 0:
        text = "no dynamic peer is connected" if speaker.dynamic else "no peer is configured"
        return {"name": "sessions", "ok": True, "text": text}
    text = f"{up} of {total} sessions are established"
    if up or speaker.dynamic or not speaker.restart.active:
        # Who serves dynamic peers waits for nobody in particular, and they may wait for us to be ready.
        return {"name": "sessions", "ok": True, "text": text}
    return {"name": "sessions", "ok": False, "text": f"{text}, and the restart phase is not over"}
