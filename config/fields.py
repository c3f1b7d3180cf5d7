"""Reading fields of an unvalidated mapping, and collecting every fault on the way.

An absent field, null and (for texts) "" mean the same, as in Go's zero values: the default. A wrong field is noted with
its path and gives the default too, so that one pass names all faults; the caller raises when any was noted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from enum import Enum
from fractions import Fraction
from typing import TypeVar

from config import values
from config.problems import Problem, show
from config.selector import Selector, parse_selector

__all__ = ["Fields", "Sink"]

T = TypeVar("T")
E = TypeVar("E", bound=Enum)


class Sink:
    """Where the faults of one object gather."""

    def __init__(self, name: str) -> None:
        self.object = name
        self.problems: list[Problem] = []

    @property
    def refused(self) -> bool:
        """Whether one of them makes the object unusable."""
        return any(problem.refused for problem in self.problems)

    def note(self, field: str, text: str, *, value: object = None, allowed: str = "", refused: bool = True) -> None:
        """Add a fault; `value` None = nothing to show."""
        shown = "" if value is None else show(value)
        self.problems.append(
            Problem(object=self.object, field=field, value=shown, allowed=allowed, text=text, refused=refused)
        )


class Fields:
    """One mapping and its path in the object."""

    def __init__(self, value: Mapping[object, object], path: str, sink: Sink) -> None:
        self.value = value
        self.path = path
        self.sink = sink

    def name(self, field: str) -> str:
        """The path of a field."""
        return f"{self.path}.{field}" if self.path else field

    def has(self, field: str) -> bool:
        """Whether the field says anything."""
        return self.value.get(field) not in (None, "", [], {})

    def wrong(self, field: str, text: str, allowed: str = "", *, refused: bool = True) -> None:
        """Note a fault of one field."""
        self.sink.note(self.name(field), text, value=self.value.get(field), allowed=allowed, refused=refused)

    def mapping(self, field: str) -> Fields:
        """A nested mapping; empty where there is none."""
        value = self.value.get(field)
        if value is not None and not isinstance(value, Mapping):
            self.wrong(field, "must be a mapping", "a mapping")
            value = None
        return Fields(value or {}, self.name(field), self.sink)

    def items(self, field: str, limit: int = 100_000) -> Iterator[tuple[str, object]]:
        """(path, value) of each item of a list; more than `limit` is a fault."""
        value = self.value.get(field)
        if value is None:
            return
        if not isinstance(value, Sequence) or isinstance(value, (str, bytes)):
            self.wrong(field, "must be a list", "a list")
            return
        if len(value) > limit:
            self.sink.note(self.name(field), f"has {len(value)} entries", allowed=f"at most {limit}")
            return
        for index, item in enumerate(value):
            yield f"{self.name(field)}[{index}]", item

    def mappings(self, field: str, limit: int = 100_000) -> Iterator[Fields]:
        """Each item of a list of mappings."""
        for path, item in self.items(field, limit):
            if isinstance(item, Mapping):
                yield Fields(item, path, self.sink)
            else:
                self.sink.note(path, "must be a mapping", value=item, allowed="a mapping")

    def parsed(self, field: str, parse: Callable[[str], T], allowed: str, limit: int = 1024) -> T | None:
        """A text that `parse` understands (ValueError: a fault); None where absent."""
        value = self.value.get(field)
        if value is None or value == "":
            return None
        return convert(self.sink, self.name(field), value, parse, allowed, limit)

    def parsed_list(self, field: str, parse: Callable[[str], T], allowed: str, limit: int = 100_000) -> tuple[T, ...]:
        """Each text of a list, through `parse`."""
        found = (convert(self.sink, path, item, parse, allowed) for path, item in self.items(field, limit))
        return tuple(item for item in found if item is not None)

    def text(self, field: str, limit: int = 253) -> str:
        """A text; "" where absent."""
        return self.parsed(field, str, f"text of at most {limit} characters", limit) or ""

    def boolean(self, field: str) -> bool | None:
        """true or false; the words "true" and "false" as text are taken too (the v1 CRDs have them)."""
        value = self.value.get(field)
        if value is None or isinstance(value, bool):
            return value
        if value in ("true", "false"):
            return value == "true"
        self.wrong(field, "is no boolean", "true or false")
        return None

    def integer(self, field: str, low: int, high: int) -> int | None:
        """An integer in low..high; None where absent."""
        value = self.value.get(field)
        if value is None:
            return None
        if isinstance(value, int) and not isinstance(value, bool) and low <= value <= high:
            return value
        self.wrong(field, "is no integer" if not isinstance(value, int) else "is out of range", f"{low}-{high}")
        return None

    def choice(self, field: str, kind: type[E]) -> E | None:
        """One of an enum's values, exactly as written there; None where absent."""
        value = self.value.get(field)
        if value is None or value == "":
            return None
        for member in kind:
            if member.value == value:
                return member
        self.wrong(field, "is none of the known values", ", ".join(str(member.value) for member in kind))
        return None

    def asn(self, field: str, *, zero_is_unset: bool = False) -> int | None:
        """An AS number; None where absent. 0 is no AS number (RFC 7607), but for some fields means "unset"."""
        value = self.value.get(field)
        if value is None or value == "":
            return None
        if not isinstance(value, (int, str)) or isinstance(value, bool):
            self.wrong(field, "is no AS number", values.ASN_FORM)
            return None
        try:
            number = values.asn(value)
        except ValueError as error:
            self.wrong(field, f"is no AS number: {error}", values.ASN_FORM)
            return None
        if number == 0 and not zero_is_unset:
            self.wrong(field, "is AS 0, which no speaker may use (RFC 7607)", values.ASN_FORM)
        return number or None

    def duration(self, field: str) -> Fraction | None:
        """A duration in seconds; None where absent."""
        return self.parsed(field, values.duration, values.DURATION_FORM, 64)

    def selector(self, field: str) -> Selector | None:
        """A selector; None where absent or ""."""
        return self.parsed(field, parse_selector, "a selector, at most 1024 characters")


def convert(
    sink: Sink, path: str, value: object, parse: Callable[[str], T], allowed: str, limit: int = 1024
) -> T | None:
    """A value through `parse`; a fault gives None."""
    if not isinstance(value, str):
        sink.note(path, "must be text", value=value, allowed=allowed)
        return None
    if len(value) > limit:
        sink.note(path, f"is {len(value)} characters long", value=value, allowed=allowed)
        return None
    try:
        return parse(value)
    except ValueError as error:
        words = str(error)
        sink.note(path, f"is not understood: {words}" if words else "is not understood", value=value, allowed=allowed)
        return None
