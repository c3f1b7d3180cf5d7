"""The collector: cycles go, bursts are set aside without a look, until the next full pass."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator

import pytest

from bgpd.shell.collector import BURST, Collector
from tests.unit.shell_support import LOOPS, run_on, until


class Node:
    """Something that can be in a cycle."""

    def __init__(self) -> None:
        self.own = self


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    yield
    gc.unfreeze()
    gc.enable()


@pytest.mark.parametrize("kind", LOOPS)
def test_cycles_go_within_a_look(kind: str) -> None:
    async def work() -> None:
        collector = Collector(look_time=0.01)
        collector.start()
        assert not gc.isenabled()
        gone = weakref.ref(Node())
        await until(lambda: gone() is None)
        collector.stop()
        assert gc.isenabled()
        assert gc.get_freeze_count() == 0

    run_on(kind, work)


def test_a_burst_is_set_aside_and_seen_later() -> None:
    collector = Collector()
    gc.disable()
    collector._full_pass()
    frozen = gc.get_freeze_count()
    gone = weakref.ref(Node())
    table = [[number] for number in range(2 * BURST)]
    collector.look()
    assert gc.get_freeze_count() >= frozen + len(table)
    assert gone() is not None
    collector.look()
    assert gone() is not None
    collector._full_at = 0.0
    collector.look()
    assert gone() is None
    assert len(table) == 2 * BURST


def test_what_was_set_aside_is_looked_at_again() -> None:
    collector = Collector(full_time=0.0)
    gc.disable()
    node = Node()
    gone = weakref.ref(node)
    collector._full_pass()
    del node
    gc.collect()
    assert gone() is not None
    collector.look()
    assert gone() is None
