"""Calico's selector language (calico-bgp.md §5)."""

from __future__ import annotations

import pytest

from config.selector import SelectorError, parse_selector

LABELS = {"a": "x", "in": "1", "rack": "rack-1", "all": "y", "dot.ted/name_1-2": "z", "quote": "it's"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", True),
        (" \t ", True),
        ("all()", True),
        ("all( )", True),
        ("global()", True),
        ("a == 'x'", True),
        ('a=="x"', True),
        ("a == 'X'", False),
        ("a != 'x'", False),
        ("a in {'w', 'x'}", True),
        ("a in {'x',}", True),
        ("a in {}", False),
        ("a not in {}", True),
        ("a notin {'x'}", False),
        ("a not \t in {'y'}", True),
        ("rack contains 'ck-'", True),
        ("rack starts with 'rack'", True),
        ("rack startswith 'ack'", False),
        ("rack ends \t with '-1'", True),
        ("rack endswith '1'", True),
        ("has(a)", True),
        ("has( a )", True),
        ("has(b)", False),
        ("dot.ted/name_1-2 == 'z'", True),
        ('quote == "it\'s"', True),
        # Operator words are labels where a label is expected.
        ("in == '1'", True),
        ("in in {'1'}", True),
        ("all in {'y'}", True),
        ("has(all)", True),
    ],
)
def test_primary(text: str, expected: bool) -> None:
    assert parse_selector(text).matches(LABELS) is expected


@pytest.mark.parametrize(
    ("operation", "expected"),
    [
        ("== 'x'", False),
        ("in {'x'}", False),
        ("contains 'x'", False),
        ("starts with 'x'", False),
        ("ends with ''", False),
        ("!= 'x'", True),
        ("not in {'x'}", True),
    ],
)
def test_missing_label(operation: str, expected: bool) -> None:
    assert parse_selector(f"missing {operation}").matches(LABELS) is expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # && binds tighter than ||.
        ("has(a) || has(a) && has(b)", True),
        ("has(b) && has(a) || has(a)", True),
        ("(has(a) || has(a)) && has(b)", False),
        # ! applies to the next primary only; pairs cancel.
        ("!has(b) && has(a)", True),
        ("!has(a) || has(a)", True),
        ("!(has(b) || has(a))", False),
        ("!!has(a)", True),
        ("! ! !has(a)", False),
        ("!a == 'x'", False),
    ],
)
def test_precedence(text: str, expected: bool) -> None:
    assert parse_selector(text).matches(LABELS) is expected


@pytest.mark.parametrize(
    "text",
    [
        "a",
        "all",
        "a ==",
        "a == x",
        "a = 'x'",
        "has (a)",
        "has()",
        "all(a)",
        "a in 'x'",
        "a in {'x' 'y'}",
        "a in {,}",
        "(has(a)",
        "has(a))",
        "has(a) &&",
        "&& has(a)",
        "has(a) has(b)",
        "a == 'x",
        "a\n== 'x'",
        "!",
        "()",
        "a & b",
        "has(a) &&& has(b)",
        "a not 'x'",
        "é == 'x'",
        "a" * 513 + " == 'x'",
    ],
)
def test_does_not_parse(text: str) -> None:
    with pytest.raises(SelectorError):
        parse_selector(text)


def test_depth_costs_no_stack() -> None:
    assert parse_selector("(" * 5000 + "!" * 5000 + "all()" + ")" * 5000).matches({})


def test_global_is_told_apart() -> None:
    assert parse_selector("has(a) || global()").uses_global()
    assert not parse_selector("has(a) || all()").uses_global()
