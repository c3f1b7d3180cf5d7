"""A change without harm, live: one row of the change table for each kind of cost. All rows: `tests.netns.change_table`.

BIRD and FRR are the peers and the witnesses.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

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
