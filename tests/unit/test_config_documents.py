"""Text to plain values: YAML without YAML 1.1's traps, bounded in depth, one bad document costing no other."""

from __future__ import annotations

import pytest

from config.documents import DocumentError, dump_yaml, load_json, load_yaml, locate, parse_path, split


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("5663:12", "5663:12"),
        ("yes", True),
        ("off", False),
        ("'yes'", "yes"),
        ("yes, no", "yes, no"),
        ("y", "y"),
        ("2026-01-01", "2026-01-01"),
        ("1.10", "1.10"),
        ("1e3", "1e3"),
        ("064512", "064512"),
        ("1_000", "1_000"),
        ("64512", 64512),
        ("-7", -7),
        ("0x10", 16),
        ("0o17", 15),
        ("'64512'", "64512"),
        ('"true"', "true"),
        ("!!str 5", "5"),
        ("true", True),
        ("False", False),
        ("~", None),
        ("null", None),
        ("", None),
        (".nan", ".nan"),
        ("[a, 1, [true]]", ["a", 1, [True]]),
        ("{a: {b: 1}}", {"a": {"b": 1}}),
        ("1: x", {"1": "x"}),
        ("a: &x {b: 1}\nc: *x", {"a": {"b": 1}, "c": {"b": 1}}),
        ("|\n  a\n  b", "a\nb"),
    ],
)
def test_yaml_values(text: str, value: object) -> None:
    found = load_yaml(text)
    assert found == value and type(found) is type(value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: 1\na: 2", "twice"),
        ("a: &x [*x]", "names nothing"),
        ("a: *x", "names nothing"),
        ("<<: {a: 1}", "merge keys"),
        ("!!python/object:os.system x", "not supported"),
        ("!!binary aGk=", "not supported"),
        ("!mine {a: 1}", "not supported"),
        ("[a]: 1", "key"),
        ("a: b: c", "not readable"),
        ("a: \x00", "not readable"),
        ("a: [", "not readable"),
        ("a\n---\nb", "two documents"),
        ("[" * 100_000, "levels deep"),
        ("{a: " * 100_000, "levels deep"),
    ],
)
def test_yaml_refused(text: str, words: str) -> None:
    with pytest.raises(DocumentError, match=words):
        load_yaml(text)


@pytest.mark.parametrize(
    ("text", "words"),
    [('{"a": 1, "a": 2}', "twice"), ("[" * 200_000, "deeply"), ("[NaN]", "NaN"), ("{", "JSON"), ("9" * 9999, "JSON")],
)
def test_json_refused(text: str, words: str) -> None:
    with pytest.raises(DocumentError, match=words):
        load_json(text)


def test_json_keeps_fractions_as_text() -> None:
    assert load_json('{"asNumber": 1.10}') == {"asNumber": "1.10"}


def test_error_names_the_line() -> None:
    with pytest.raises(DocumentError) as caught:
        load_yaml("a: 1\nb: 2\nb: 3\n")
    assert caught.value.line == 3


def test_split_passes_over_empty_documents_and_counts_lines() -> None:
    found = list(split("# only a comment\n---\na: 1\n---\n\n# nothing\n---\nb: |\n  text\n --- no separator\n"))
    assert [document.offset for document in found] == [1, 6]
    assert load_yaml(found[0].text) == {"a": 1}


def test_separator_with_a_comment_behind_it() -> None:
    assert [load_yaml(document.text) for document in split("--- # first\na: 1\n--- \nb: 2\n")] == [{"a": 1}, {"b": 2}]


def test_locate() -> None:
    text = "spec:\n  list:\n  - a: 1\n  - b: 2\n    c: 3\n"
    assert locate(text, parse_path("spec.list[1].c")) == 5
    assert locate(text, parse_path("spec.list[1].missing")) == 4
    assert locate("---\n" + text, parse_path("nothing")) == 2
    assert locate("[", ("a",)) == 0


@pytest.mark.parametrize(
    "text", ["1e3", "1234e5", "5e-3", "+1.E2", ".5e1", "0o17", "-0o7", "5663:12", "1.10", "yes", "012"]
)
def test_texts_that_look_like_numbers_are_quoted(text: str) -> None:
    """A label 1e3 that is written bare is 1000 for kubectl and calicoctl."""
    written = dump_yaml({"a": text})
    assert written == f"a: '{text}'\n" and load_yaml(written) == {"a": text}
    assert dump_yaml({"a": "e1", "b": "1e", "c": 5}) == "a: e1\nb: 1e\nc: 5\n"
