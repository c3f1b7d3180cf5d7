"""Calico's selector language over labels (nodeSelector, peerSelector, IPPool selectors, ...).

    selector := or                       empty or blank = all()
    or       := and { "||" and }
    and      := unary { "&&" unary }
    unary    := { "!" } primary
    primary  := "(" or ")" | "all()" | "global()" | "has(" LABEL ")" | LABEL operator STRING-or-SET

A selector is compiled to a postfix program and run with a stack: neither parsing nor matching recurses, so a
selector of a thousand parentheses is only a long one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Literal

from attrs import field, frozen

__all__ = ["Selector", "SelectorError", "parse_selector"]

_LABEL = r"[A-Za-z0-9_./-]{1,512}"
_STRING = r"""(?:'[^']*'|"[^"]*")"""
_SPACE = re.compile(r"[ \t]*")
_CALL = re.compile(rf"(all|global|has)\([ \t]*(?:({_LABEL})[ \t]*)?\)")
_NAME = re.compile(rf"{_LABEL}(?![A-Za-z0-9_./-])")
_OPERATOR = re.compile(r"==|!=|not[ \t]*in|in|contains|starts[ \t]*with|ends[ \t]*with")
_TEXT = re.compile(_STRING)
_SET = re.compile(rf"\{{[ \t]*(?:{_STRING}[ \t]*(?:,[ \t]*{_STRING}[ \t]*)*(?:,[ \t]*)?)?\}}")

Step = Literal["and", "or", "not"]


class SelectorError(ValueError):
    """A selector that does not parse; `offset` counts characters from 0."""

    def __init__(self, text: str, offset: int) -> None:
        super().__init__(f"{text} at character {offset + 1}")
        self.offset = offset


@frozen
class Test:
    """One comparison. `operator`: all, has, ==, !=, in, notin, contains, startswith, endswith."""

    operator: str
    label: str = ""
    values: frozenset[str] = frozenset()

    def holds(self, labels: Mapping[str, str]) -> bool:
        """Whether it is true of these labels. A missing label fails all but != and notin."""
        if self.operator == "all":
            return True
        actual = labels.get(self.label)
        if actual is None:
            return self.operator in ("!=", "notin")
        if self.operator == "has":
            return True
        if self.operator in ("==", "in"):
            return actual in self.values
        if self.operator in ("!=", "notin"):
            return actual not in self.values
        (value,) = self.values
        if self.operator == "contains":
            return value in actual
        return actual.startswith(value) if self.operator == "startswith" else actual.endswith(value)


@frozen
class Selector:
    """A parsed selector; equal when its text is."""

    text: str
    program: tuple[Test | Step, ...] = field(eq=False, repr=False)
    """Postfix."""

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Whether an object with these labels is selected."""
        stack: list[bool] = []
        for step in self.program:
            if isinstance(step, Test):
                stack.append(step.holds(labels))
            elif step == "not":
                stack[-1] = not stack[-1]
            else:
                right = stack.pop()
                stack[-1] = (stack[-1] and right) if step == "and" else (stack[-1] or right)
        return stack[-1]

    def uses_global(self) -> bool:
        """Whether `global()` occurs (IPPool selectors must not have it)."""
        return any(isinstance(step, Test) and step.label == "global()" for step in self.program)


def parse_selector(text: str) -> Selector:
    """Compile a selector. Raises SelectorError."""
    if not text.strip(" \t"):
        return Selector(text, (Test("all"),))
    return Selector(text, tuple(_Parser(text).run()))


_STRENGTH = {"or": 1, "and": 2, "not": 3}
_BINARY: dict[str, Step] = {"&&": "and", "||": "or"}


class _Parser:
    """Operator precedence with an explicit stack; "(" stays on it until its ")"."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.out: list[Test | Step] = []
        self.pending: list[Step | Literal["("]] = []

    def run(self) -> list[Test | Step]:
        while True:
            self._operand()
            if not self._after_operand():
                return self.out

    def _space(self) -> None:
        match = _SPACE.match(self.text, self.at)
        assert match is not None
        self.at = match.end()

    def _take(self, pattern: re.Pattern[str]) -> re.Match[str] | None:
        match = pattern.match(self.text, self.at)
        if match is not None:
            self.at = match.end()
        return match

    def _operand(self) -> None:
        while True:
            self._space()
            if self.text.startswith("!", self.at):
                self.pending.append("not")
            elif self.text.startswith("(", self.at):
                self.pending.append("(")
            else:
                self.out.append(self._test())
                return
            self.at += 1

    def _test(self) -> Test:
        call = self._take(_CALL)
        if call is not None:
            word, label = call.groups()
            if (word == "has") != (label is not None):
                raise SelectorError(f"{word}() takes {'a label' if word == 'has' else 'nothing'}", call.start())
            return Test("has", label) if word == "has" else Test("all", f"{word}()")
        name = self._take(_NAME)
        if name is None:
            raise SelectorError("a label, has(), all(), '(' or '!' is expected", self.at)
        self._space()
        return self._comparison(name.group())

    def _comparison(self, label: str) -> Test:
        operator = self._take(_OPERATOR)
        if operator is None:
            raise SelectorError("an operator is expected after the label", self.at)
        word = re.sub(r"[ \t]", "", operator.group())
        self._space()
        operand = self._take(_SET if word in ("in", "notin") else _TEXT)
        if operand is None:
            what = "a set such as {'a', 'b'}" if word in ("in", "notin") else "a string in quotes"
            raise SelectorError(f"{what} is expected after {operator.group()}", self.at)
        return Test(word, label, frozenset(piece[1:-1] for piece in _TEXT.findall(operand.group())))

    def _after_operand(self) -> bool:
        """Consume ")" and one binary operator; False at the end of the text."""
        while True:
            self._space()
            if self.at == len(self.text):
                self._reduce(0)
                if self.pending:
                    raise SelectorError("')' is missing", self.at)
                return False
            if self.text.startswith(")", self.at):
                self._reduce(0)
                if not self.pending:
                    raise SelectorError("')' without '('", self.at)
                self.pending.pop()
                self.at += 1
                continue
            step = _BINARY.get(self.text[self.at : self.at + 2])
            if step is None:
                raise SelectorError("&&, || or the end is expected", self.at)
            self._reduce(_STRENGTH[step])
            self.pending.append(step)
            self.at += 2
            return True

    def _reduce(self, strength: int) -> None:
        """Move waiting operators that bind at least as tightly to the program, down to the innermost "("."""
        while self.pending:
            step = self.pending[-1]
            if step == "(" or _STRENGTH[step] < strength:
                return
            self.out.append(step)
            self.pending.pop()
