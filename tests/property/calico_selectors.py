"""Calico's selector language read straight from its grammar (calico-bgp.md 5): a function for each line of it.

Naive and recursive, where `config.selector` makes a program for a stack. With random selectors, right and damaged.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from random import Random

__all__ = ["LABELS", "NotASelector", "damaged", "meaning", "selector"]

Labels = Mapping[str, str]
Meaning = Callable[[Labels], bool]


class NotASelector(Exception):
    """The text is not of the language."""


class _Reader:
    """What is left of a text."""

    def __init__(self, text: str) -> None:
        self.rest = text

    def space(self) -> None:
        self.rest = self.rest.lstrip(" \t")

    def take(self, word: str) -> bool:
        """Whether the text goes on with this word, which is then taken."""
        if not self.rest.startswith(word):
            return False
        self.rest = self.rest[len(word) :]
        return True

    def need(self, word: str) -> None:
        self.space()
        if not self.take(word):
            raise NotASelector(self.rest)

    def match(self, pattern: str) -> str:
        found = re.match(pattern, self.rest)
        if found is None:
            raise NotASelector(self.rest)
        self.rest = self.rest[found.end() :]
        return found[0]

    def label(self) -> str:
        name = self.match(r"[A-Za-z0-9_./-]+")
        if len(name) > 512:
            raise NotASelector(name)
        return name

    def string(self) -> str:
        self.space()
        return self.match("""'[^']*'|"[^"]*\"""")[1:-1]


def meaning(text: str) -> Meaning:
    """What a selector says of labels. Raises NotASelector. An empty or blank one is all()."""
    reader = _Reader(text)
    reader.space()
    if not reader.rest:
        return lambda labels: True
    found = _or(reader)
    reader.space()
    if reader.rest:
        raise NotASelector(reader.rest)
    return found


def _or(reader: _Reader) -> Meaning:
    parts = [_and(reader)]
    while _goes_on(reader, "||"):
        parts.append(_and(reader))
    return lambda labels: any(part(labels) for part in parts)


def _and(reader: _Reader) -> Meaning:
    parts = [_unary(reader)]
    while _goes_on(reader, "&&"):
        parts.append(_unary(reader))
    return lambda labels: all(part(labels) for part in parts)


def _goes_on(reader: _Reader, word: str) -> bool:
    reader.space()
    return reader.take(word)


def _unary(reader: _Reader) -> Meaning:
    if _goes_on(reader, "!"):
        inner = _unary(reader)
        return lambda labels: not inner(labels)
    return _primary(reader)


def _primary(reader: _Reader) -> Meaning:
    if reader.take("("):
        inner = _or(reader)
        reader.need(")")
        return inner
    # Between these words and their "(" there is no space: with one, they are labels.
    if reader.take("all(") or reader.take("global("):
        reader.need(")")
        return lambda labels: True
    if reader.take("has("):
        reader.space()
        name = reader.label()
        reader.need(")")
        return lambda labels: name in labels
    return _comparison(reader)


def _comparison(reader: _Reader) -> Meaning:
    name = reader.label()
    reader.space()
    operator = re.sub(r"[ \t]", "", reader.match(r"==|!=|not[ \t]*in|in|contains|starts[ \t]*with|ends[ \t]*with"))
    if operator in ("in", "notin"):
        values = _set(reader)
        return lambda labels: (labels.get(name) in values) == (operator == "in")
    value = reader.string()
    holds: dict[str, Meaning] = {
        "==": lambda labels: labels.get(name) == value,
        "!=": lambda labels: labels.get(name) != value,
        "contains": lambda labels: name in labels and value in labels[name],
        "startswith": lambda labels: name in labels and labels[name].startswith(value),
        "endswith": lambda labels: name in labels and labels[name].endswith(value),
    }
    return holds[operator]


def _set(reader: _Reader) -> list[str]:
    reader.need("{")
    found: list[str] = []
    while not _goes_on(reader, "}"):
        found.append(reader.string())
        if not _goes_on(reader, ","):
            reader.need("}")
            return found
    return found


# --- random selectors

LABELS: tuple[Labels, ...] = (
    {},
    {"a": "x"},
    {"b": "y"},
    {"a": "", "b": "x"},
    {"in": "x", "all": "x"},
    {"a": "xyx", "b": 'it"s'},
    {"not": "x", "has": "x", "contains": "x"},
    {"a.b/c-d": "x", "starts": "xy"},
)
_NAMES = ("a", "b", "in", "all", "has", "not", "contains", "a.b/c-d", "starts", "x.all")
_STRINGS = ("'x'", '"x"', "'it\"s'", '""', "'y'", '"it\'s"')
_SPACES = ("", " ", "  ", "\t")
_DAMAGE = (
    "a", "b", "in", "all", "has", "not", "contains", "==", "!=", " in ", "not in", "notin", "starts with", "startswith",
    "'x'", '"x"', '""', "'", "{", "}", ",", "{'x'}", "{'x','y',}", "{}", "{,}", "(", ")", "!", "&&", "||", "&", "|",
    "has(a)", "has( a )", "all()", "all( )", "global()", "has (a)", " ", "\t", "has()", "all(a)", "\n", "é", "",
)  # fmt: skip


def selector(r: Random, depth: int = 4) -> str:
    """One of the language."""
    kind = r.random()
    if depth == 0 or kind < 0.4:
        return _one(r)
    if kind < 0.55:
        return "!" + r.choice(_SPACES) + selector(r, depth - 1)
    if kind < 0.7:
        return "(" + r.choice(_SPACES) + selector(r, depth - 1) + r.choice(_SPACES) + ")"
    joint = r.choice(_SPACES) + r.choice(("&&", "||")) + r.choice(_SPACES)
    return selector(r, depth - 1) + joint + selector(r, depth - 1)


def _one(r: Random) -> str:
    name, string, one, two = r.choice(_NAMES), r.choice(_STRINGS), r.choice(_SPACES), r.choice(_SPACES)
    values = r.choice((f"{{{one}{string}{two},'y'}}", f"{{{string},}}", "{}", f"{{ {string} {one}}}"))
    return r.choice(
        (
            f"{name}{one}=={two}{string}",
            f"{name}{one}!={two}{string}",
            f"{name} in{one}{values}",
            f"{name} not{one}in{two}{values}",
            f"{name} contains{one}{string}",
            f"{name} starts{one}with{two}{string}",
            f"{name} ends{one}with{two}{string}",
            f"has({one}{name}{two})",
            f"all({one})",
            "global()",
        )
    )


def damaged(r: Random) -> str:
    """One with something put in or taken out, so that it may or may not be of the language."""
    text = selector(r, 2)
    for _ in range(r.choice((1, 1, 2))):
        place = r.randint(0, len(text))
        text = text[:place] + r.choice(_DAMAGE) + text[place + r.choice((0, 0, 1, 3)) :]
    return text
