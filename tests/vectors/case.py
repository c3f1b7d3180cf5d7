"""Message cases as they lie in `messages.jsonl`, typed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from attrs import frozen

OWN_ORIGIN = "own"


@frozen
class Case:
    """One whole message, and what must come of it. `expect` and `context` are the file's objects, unchanged."""

    id: str
    name: str
    origin: str
    octets: bytes
    kind: str
    """Message type by its type octet: OPEN, UPDATE, ... or type-N."""
    expect: dict[str, Any]
    context: dict[str, Any]

    @property
    def action(self) -> str:
        """The wanted outcome, in the file's words."""
        return str(self.expect["action"])

    @property
    def is_own(self) -> bool:
        """Written by this project: the peer is AS 65001 at 10.0.0.2, we are AS 65000 with identifier 10.0.0.1."""
        return self.origin.startswith(OWN_ORIGIN)

    @property
    def peer(self) -> str | None:
        """ebgp, ibgp, or None where the origin says nothing."""
        return self.context.get("peer")

    def __str__(self) -> str:
        return f"{self.id} {self.name}"


def read_cases(path: Path) -> Iterator[Case]:
    """The cases of a .jsonl file. Raises ValueError as `read_case`."""
    return map(read_case, read_lines(path))


def read_lines(path: Path) -> list[str]:
    """The lines of a .jsonl file that hold something."""
    return [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def read_case(line: str) -> Case:
    """One line. Raises ValueError if it is no case, with the reason."""
    try:
        return _case(json.loads(line))
    except (AttributeError, LookupError, TypeError) as error:
        raise ValueError(f"no case: {type(error).__name__}: {error}") from error


def _case(entry: dict[str, Any]) -> Case:
    return Case(
        id=entry["id"],
        name=entry["name"],
        origin=entry["origin"],
        octets=bytes.fromhex(entry["hex"]),
        kind=str(entry.get("type")),
        expect=entry["expect"],
        context=entry.get("context") or {},
    )
