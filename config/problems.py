"""What is wrong with a resource, said so that a person can mend it."""

from __future__ import annotations

import reprlib
from collections.abc import Iterable

from attrs import evolve, frozen
from attrs import field as attrs_field

__all__ = ["Problem", "ResourceError", "show"]

_LONGEST = 80


def _printable(text: str) -> str:
    """Keys and names can hold anything: no line of a log must end, or a terminal obey, because of them."""
    return text if text.isprintable() else text.encode("unicode_escape").decode()


@frozen(kw_only=True)
class Problem:
    """One fault: where, what, and what would be right.

    `object` is "BGPPeer/tor-rack1" or "" for a file that holds no readable object. `refused` False marks a notice:
    the object is in force, but something about it is without effect.
    """

    object: str = attrs_field(converter=_printable)
    field: str = attrs_field(default="", converter=_printable)
    """Path from the top of the object: "spec.exportV4[0].cidr"; "" when the whole object is meant."""
    value: str = attrs_field(default="", converter=_printable)
    allowed: str = attrs_field(default="", converter=_printable)
    text: str = attrs_field(converter=_printable)
    """One sentence; names neither file, object nor field."""
    file: str = attrs_field(default="", converter=_printable)
    line: int = 0
    """Counted from 1; 0 = unknown."""
    refused: bool = True

    def of(self, key: tuple[str, str]) -> Problem:
        """The same problem, of the object that the store knows by `key`, whatever the object says that it is."""
        return self if self.object == "/".join(key) else evolve(self, object="/".join(key))

    def at(self, file: str, line: int = 0) -> Problem:
        """The same problem with its place."""
        return evolve(self, file=file, line=line or self.line)

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else self.file
        parts = [place, self.object, self.field, self.text]
        sentence = ": ".join(part for part in parts if part)
        if self.value:
            sentence += f" (value {self.value})"
        return f"{sentence}; allowed: {self.allowed}" if self.allowed else sentence


class ResourceError(Exception):
    """The only error that leaves parsing: an object that cannot be used, with every reason found."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("; ".join(map(str, self.problems)))


def show(value: object) -> str:
    """A value for a message: short, on one line, whatever it is (also nested, huge or full of control characters)."""
    writer = reprlib.Repr()
    writer.maxstring = writer.maxother = writer.maxlong = _LONGEST
    writer.maxlevel = 3
    text = writer.repr(value)
    if isinstance(value, bool) or value is None:
        text = {True: "true", False: "false", None: "null"}[value]
    return text if len(text) <= 2 * _LONGEST else text[: 2 * _LONGEST] + "..."
