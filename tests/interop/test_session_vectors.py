"""Message vectors over live sessions: no unwanted reset, no stale route at another peer (method: vectors_live.py)."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.interop.daemons.base import find_program, require
from tests.interop.live_cases import generated, given
from tests.interop.vectors_live import SHARED, run_cases


@pytest.fixture(autouse=True)
def _root() -> None:
    require(os.geteuid() == 0, "the live vectors need root: they make network namespaces")
    require(find_program("ip") is not None, "iproute2 is not installed (ip not found); apt-get install iproute2")


def test_malformed_attributes_in_every_place(tmp_path: Path) -> None:
    tally = run_cases(list(generated()), tmp_path, f"{os.getpid()}g")
    assert not tally.failures, "\n".join(tally.failures[:20])


def test_given_vectors(tmp_path: Path) -> None:
    if not SHARED.exists():
        pytest.skip("../shared/vectors/bgp is absent: the given message vectors are not played over live sessions")
    tally = run_cases(list(given(SHARED)), tmp_path, f"{os.getpid()}v")
    assert tally.unwanted_resets == 0, "\n".join(tally.failures[:20])
    assert tally.stale_routes == 0, "\n".join(tally.failures[:20])
    assert not tally.failures, "\n".join(tally.failures[:20])
