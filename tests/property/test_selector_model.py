"""Calico's selectors against a parser written from the grammar: the same texts are refused, the rest mean the same."""

from __future__ import annotations

from random import Random

from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from config.selector import SelectorError, parse_selector
from tests.property import calico_selectors as model

ROUNDS = 100
"""Texts for each seed."""


def _answers(text: str) -> list[bool] | None:
    try:
        found = model.meaning(text)
    except model.NotASelector:
        return None
    return [found(labels) for labels in model.LABELS]


@settings(max_examples=60, deadline=None, derandomize=True, phases=(Phase.generate,))
@given(st.integers(0, 2**32))
def test_selectors_mean_what_the_grammar_says(seed: int) -> None:
    r = Random(seed)
    for number in range(ROUNDS):
        text = model.selector(r) if number % 2 else model.damaged(r)
        wanted = _answers(text)
        assert wanted is not None or not number % 2, "the model reads what it writes"
        try:
            parsed = parse_selector(text)
        except SelectorError:
            assert wanted is None, f"seed {seed}: {text!r} is refused"
        else:
            assert [parsed.matches(labels) for labels in model.LABELS] == wanted, f"seed {seed}: {text!r}"
