"""What proposed settings would change in a speaker's tables, as JSON; nothing of the speaker is touched."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from heapq import nsmallest
from typing import Any

from bgpd.api import render
from bgpd.api.limits import Pace
from bgpd.api.lookup import Refused, speaker_of
from bgpd.api.schema import Plan, PlanKernel, PlanPrefixes, PlanTable
from bgpd.api.state import DaemonState
from bgpd.family import Family
from bgpd.preview import Difference, KernelDifference, Preview
from bgpd.routes import LocalChange
from bgpd.settings import SpeakerSettings
from bgpd.speaker import Speaker

__all__ = ["PREFIXES", "Propose", "plan", "tables"]

PREFIXES = 100
"""Prefixes that are named, of each sort."""

Propose = Callable[[bytes], tuple[dict[str, Any], SpeakerSettings | None]]
"""The body of a request -> (a Plan without tables, the settings there would be). Raises ValueError: one sentence. Runs
in a thread; must not touch the speaker."""


async def plan(state: DaemonState, body: bytes, limit: int, pace: Pace) -> Plan:
    """POST /v1/plan. Refused where the proposal is malformed, or this daemon has no resources."""
    speaker = speaker_of(state)
    if state.propose is None:
        text = "this daemon is configured by flags alone: there are no resources to change"
        raise Refused("bad-request", text, "change its flags, and restart it")
    try:
        answer, settings = await asyncio.to_thread(state.propose, body)
    except ValueError as error:
        raise Refused("bad-request", str(error), "see Plan in bgpd/api/schema.py") from None
    pace.resume()
    before = speaker.settings
    if settings is not None:
        local: list[LocalChange] = []
        if state.kernel is not None and settings.learn != before.learn:
            local = state.kernel.local_under(settings.learn)
        answer["tables"], answer["kernel"] = await tables(speaker, settings, limit, pace, local)
        if local:
            named = ", ".join(sorted({render.prefix(change.family, change.key) for change in local}))
            answer["notes"].append(f"next hops that resolve through {named} are taken to stay as they are")
    if speaker.settings is not before:
        answer["notes"].append("the configuration in force changed while this was worked out: ask again")
    return answer  # type: ignore[return-value]


async def tables(
    speaker: Speaker, settings: SpeakerSettings, limit: int, pace: Pace, local: Iterable[LocalChange] = ()
) -> tuple[list[PlanTable], list[PlanKernel]]:
    """What peers would be told otherwise, and what the kernel would get. In slices; sorting is done in a thread.

    `local`: what the settings change in the host's own routes.
    """
    preview = Preview(speaker, settings, local)
    await asyncio.to_thread(preview.compile)
    pace.resume()
    for _ in preview.steps():
        await pace.rest()
    answer = await asyncio.to_thread(_shown, preview, limit)
    pace.resume()
    for _ in preview.release():
        await pace.rest()
    return answer


def _shown(preview: Preview, limit: int) -> tuple[list[PlanTable], list[PlanKernel]]:
    told, kernel = preview.results()
    told.sort(key=lambda one: (one.family, one.peers))
    return [_table(one, limit) for one in told], [_kernel(one, limit) for one in kernel]


def _table(one: Difference, limit: int) -> PlanTable:
    return {
        "family": str(one.family),
        "peers": sorted(one.peers),
        "established": one.established,
        "announced": _prefixes(one.family, one.announced, limit),
        "withdrawn": _prefixes(one.family, one.withdrawn, limit),
        "changed": _prefixes(one.family, one.changed, limit),
    }


def _kernel(one: KernelDifference, limit: int) -> PlanKernel:
    return {
        "family": str(one.family),
        "added": _prefixes(one.family, one.added, limit),
        "removed": _prefixes(one.family, one.removed, limit),
        "changed": _prefixes(one.family, one.changed, limit),
    }


def _prefixes(family: Family, keys: list[bytes], limit: int) -> PlanPrefixes:
    # Not sorted as a whole: that would be one long step, for which the other threads wait.
    found = nsmallest(limit, keys, key=lambda key: (key[1:], key[0]))
    return {"count": len(keys), "prefixes": [render.prefix(family, key) for key in found]}
