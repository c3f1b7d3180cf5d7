"""Objects that a command is given: files, folders, or "-" for standard input, each object checked by Calico's rules.

What `config.folder` is for a watched folder, this is for one look: the plain object stays beside what was made of it,
so that it can be written elsewhere as it was given.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from typing import Any

from attrs import field, frozen

from config.documents import DocumentError, load_json
from config.folder import Entry, Folder, Found, find_objects, read_text
from config.problems import Problem
from config.snapshot import Key, Put
from config.values import label_text

__all__ = ["STDIN", "Given", "Object", "read_given"]

STDIN = "-"


@frozen
class Object:
    """One object of a known kind; refused where `entry.change` is no Put."""

    value: dict[str, Any]
    entry: Entry
    file: str
    found: Found = field(repr=False)

    @property
    def key(self) -> Key:
        """(kind, name)."""
        return self.entry.key

    @property
    def good(self) -> bool:
        """Whether it passed every rule."""
        return isinstance(self.entry.change, Put)

    def placed(self, problem: Problem) -> Problem:
        """A problem of it with file and line."""
        return self.found.placed(self.file, problem)


@frozen
class Given:
    """All that was given, in order."""

    objects: tuple[Object, ...]
    problems: tuple[Problem, ...]
    """Refusals and notices, in the order of files."""

    @property
    def refused(self) -> list[Problem]:
        """What keeps a command from doing anything."""
        return [problem for problem in self.problems if problem.refused]

    @property
    def notices(self) -> list[Problem]:
        """What is without effect."""
        return [problem for problem in self.problems if not problem.refused]


def read_given(places: Iterable[str]) -> Given:
    """Read files, folders (every resource file below) and standard input ("-"). Never raises for what they hold."""
    objects: list[Object] = []
    problems: list[Problem] = []
    first: dict[Key, Object] = {}
    for path in _paths(places, problems):
        shown = "standard input" if path == STDIN else path
        try:
            text = sys.stdin.read() if path == STDIN else read_text(path)
        except (OSError, ValueError) as error:
            reason = (error.strerror or str(error)) if isinstance(error, OSError) else str(error)
            text = f"cannot be read: {reason}"
            problems.append(Problem(object="", file=shown, text=text, allowed="a readable file of YAML or JSON"))
            continue
        if not text.strip():
            problems.append(Problem(object="", file=shown, text="is empty", allowed="objects", refused=False))
        for item in _objects(shown, text, problems):
            objects.append(item)
            before = first.setdefault(item.key, item)
            if before is not item:
                problems.append(item.placed(_twice(item.key, before)))
    return Given(tuple(objects), tuple(problems))


def _objects(path: str, text: str, problems: list[Problem]) -> Iterator[Object]:
    for thing in find_objects(path, text, is_json=_is_json(path, text)):
        if isinstance(thing.outcome, Problem):
            problems.append(thing.outcome)
            continue
        change = thing.outcome.change
        problems += change.notices if isinstance(change, Put) else change.problems
        assert isinstance(thing.value, dict)
        yield Object(_texts(thing.value), thing.outcome, path, thing)


def _texts(value: dict[str, Any]) -> dict[str, Any]:
    """The object with labels and annotations that are text, as calicoctl writes them: `yes` is "true" and 3 is "3".

    Whoever else reads the datastore, Felix among them, takes nothing but text there.
    """
    metadata = dict(value.get("metadata") or {})
    for name in ("labels", "annotations"):
        if isinstance(mapping := metadata.get(name), dict):
            metadata[name] = {key: _text(item) for key, item in mapping.items()}
    return {**value, "metadata": metadata}


def _text(item: Any) -> Any:
    return label_text(item) if isinstance(item, int) else item


def _is_json(path: str, text: str) -> bool:
    """By its name, or because it reads as JSON: YAML may begin with a brace as well."""
    if path.endswith(".json"):
        return True
    if text.lstrip()[:1] not in ("{", "["):
        return False
    try:
        load_json(text)
    except DocumentError:
        return False
    return True


def _paths(places: Iterable[str], problems: list[Problem]) -> list[str]:
    found: dict[str, None] = {}
    for place in places:
        if place == STDIN or not os.path.isdir(place):
            found[place] = None
            continue
        below = Folder(place).walk()
        if below is None:
            problems.append(Problem(object="", file=place, text="cannot be read", allowed="a readable folder"))
        elif not below:
            text, allowed = "holds no resource file", "files that end in .yaml, .yml or .json"
            problems.append(Problem(object="", file=place, text=text, allowed=allowed, refused=False))
        found.update(dict.fromkeys(sorted(below or ())))
    return list(found)


def _twice(key: Key, before: Object) -> Problem:
    return Problem(
        object="/".join(key),
        field="metadata.name",
        value=key[1],
        text=f"is in {before.file} too, and the first one counts",
        allowed="each object once; delete one of the two",
    )
