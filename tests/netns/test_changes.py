"""A change without harm, live: one row of the change table for each kind of cost. All rows: `tests.netns.change_table`.

BIRD and FRR are the peers and the witnesses.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.lab import datastore as resources
from tests.lab.watch import wait_until
from tests.netns.changes.lab import ChangeLab
from tests.netns.changes.runner import Runner
from tests.netns.changes.table import rows
from tests.netns.e2e import require

pytestmark = [pytest.mark.netns, pytest.mark.slow]
SAMPLE = (
    "BGPConfiguration.listenPort",
    "BGPConfiguration.nodeMeshPassword",
    "BGPPeer.nextHopMode",
    "BGPPeer.keepaliveTime",
    "BGPPeer.numAllowedLocalASNumbers",
    "BGPFilter.spec.exportV4",
    "BlockAffinity.state",
    "IPPool.ipipMode",
)


@pytest.fixture(scope="module")
def runner() -> Iterator[Runner]:
    require("frr")
    require("bird")
    with ChangeLab() as lab:
        yield Runner(lab)


@pytest.mark.parametrize("name", SAMPLE)
def test_what_resets_is_what_was_announced(runner: Runner, name: str, figure: Callable[[str, object], None]) -> None:
    row = next(row for row in rows() if row.name == name)
    result = runner.run(row)
    assert result.seen == result.expected
    if result.seconds is not None:
        figure(row.effect, f"{result.seconds:.2f} s")


BLOCKS = [f"10.244.{64 + number // 4}.{number % 4 * 64}/26" for number in range(200)]
LAST = set(BLOCKS[::2])


def test_a_thousand_changes_in_a_second(runner: Runner, figure: Callable[[str, object], None]) -> None:
    """They are gathered, no session ends, and what counts in the end is what was written last."""
    lab, documents = runner.lab, list(_burst())
    lab.wait_base()
    marks, applied = lab.sessions(), _times_applied(lab)
    texts = [(document["kind"], document["metadata"]["name"], json.dumps(document)) for document in documents]
    began = time.monotonic()
    for number, text in enumerate(texts):
        lab.datastore.put_text(*text)
        time.sleep(max(0.0, began + number / len(texts) - time.monotonic()))
    written = time.monotonic()
    tag = documents[-1]["spec"]["exportV4"][0]["operations"][0]["addCommunity"]["value"]
    wait_until("FRR has the last state", lambda: _at_frr(lab) == _at_frr(lab, f"community {tag}") == LAST, 30, 0.05)
    wait_until("BIRD has the last state", lambda: _at_bird(lab) == LAST, 30, 0.05)
    seconds, times = time.monotonic() - written, _times_applied(lab) - applied
    assert lab.sessions() == marks and all(marks.values())
    assert 1 <= times <= len(documents) / 10
    figure(
        f"{len(documents)} changes in {written - began:.2f} s, {times} times applied; last state at both peers after",
        f"{seconds:.2f} s",
    )
    for cidr in BLOCKS:
        lab.datastore.delete("BlockAffinity", resources.block("node-a", cidr)["metadata"]["name"])
    lab.datastore.put(lab.base["BGPFilter/probe"])
    wait_until("all of it is gone", lambda: not _at_frr(lab) and not _at_bird(lab), 30, 0.05)
    assert lab.sessions() == marks


def _burst() -> Iterator[dict[str, Any]]:
    """200 blocks that come, turn pending, come again, and of which every other goes; and a filter, 200 times."""
    for number in range(1000):
        turn, place = divmod(number // 5 * 4 + number % 5, len(BLOCKS))
        if number % 5 == 4:
            tag = {"addCommunity": {"value": f"64512:{number}"}}
            rule = {"action": "Accept", "cidr": "10.244.64.0/18", "matchOperator": "In", "operations": [tag]}
            yield resources.resource("BGPFilter", "probe", {"exportV4": [rule]})
        else:
            pending = turn == 1 or (turn == 3 and BLOCKS[place] not in LAST)
            yield resources.block("node-a", BLOCKS[place], "pending" if pending else "confirmed")


def _times_applied(lab: ChangeLab) -> int:
    return sum(path.read_text().count("configuration applied") for path in lab.lab.folder.glob("node-a*.log"))


def _at_frr(lab: ChangeLab, words: str = "") -> set[str]:
    found = json.loads(lab.frr.control(f"show bgp ipv4 unicast {words} json") or "{}").get("routes", {})
    return {prefix for prefix in found if prefix in BLOCKS}


def _at_bird(lab: ChangeLab) -> set[str]:
    found = re.findall(r"^(10\.244\.\S+)", lab.bird.control("show route protocol node_a_4"), re.MULTILINE)
    return set(found).intersection(BLOCKS)
