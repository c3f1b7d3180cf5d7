"""YAML and JSON text to plain values: dict, list, str, int, bool, None.

PyYAML reads YAML 1.1, in which the community 5663:12 is a base-60 integer, 1.10 is 1.1 and 2026-01-01 is a date. Here a
plain scalar is null, true or false, a decimal, 0x or 0o integer, or text; nothing else. Fractions stay text, since the
only dotted numbers in these resources are AS numbers ("1.10" is not "1.1"). `yes` and `on` are true, as they are for
calicoctl and kubectl: the label `route-reflector: yes` is the text "true" in every datastore that they wrote it to.

The reader walks libyaml's events with a stack of its own instead of subclassing a loader: depth is bounded, so that
hostile nesting cannot exhaust the interpreter's stack; a mapping with the same key twice is an error; no tag can make
an object.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import yaml
from attrs import frozen

__all__ = [
    "Document",
    "DocumentError",
    "FieldPath",
    "dump_yaml",
    "load_json",
    "load_yaml",
    "locate",
    "parse_path",
    "split",
]

MAX_DEPTH = 64
FieldPath = tuple[str | int, ...]

_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_INTEGER = re.compile(r"[-+]?(?:0|[1-9][0-9]{0,39})|0x[0-9a-fA-F]{1,32}|0o[0-7]{1,40}")
_WORDS: dict[str, bool | None] = {
    "": None,
    "~": None,
    "null": None,
    "Null": None,
    "NULL": None,
    "true": True,
    "True": True,
    "TRUE": True,
    "false": False,
    "False": False,
    "FALSE": False,
    **dict.fromkeys(("yes", "Yes", "YES", "on", "On", "ON"), True),
    **dict.fromkeys(("no", "No", "NO", "off", "Off", "OFF"), False),
}
_TAG = "tag:yaml.org,2002:"
_SEPARATOR = re.compile(r"^---(?=[ \t\r\n]|\Z)", re.MULTILINE)


class DocumentError(ValueError):
    """Text that is no readable document; `line` counts from 1 within it, 0 = unknown."""

    def __init__(self, text: str, line: int = 0) -> None:
        super().__init__(text)
        self.line = line


@frozen
class Document:
    """One document of a file: its text, and the number of the line before its first."""

    text: str
    offset: int


def split(text: str) -> Iterator[Document]:
    """Cut a file at its `---` lines, so that a document that cannot be read costs no other (kubectl cuts alike)."""
    start = lines = 0
    for end in [*(match.start() for match in _SEPARATOR.finditer(text)), len(text)]:
        piece = text[start:end]
        if _has_content(piece):
            yield Document(piece, lines)
        lines += piece.count("\n")
        start = end


def _has_content(piece: str) -> bool:
    lines = piece.removeprefix("---").splitlines()
    return any(line.strip() and not line.lstrip().startswith("#") for line in lines)


def load_yaml(text: str) -> object:
    """The value of one document. Raises DocumentError."""
    reader = _Reader()
    try:
        for event in yaml.parse(text, Loader=_LOADER):
            reader.take(event)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        words = " ".join(part for part in (error.context, error.problem) if part)
        raise DocumentError(f"not readable as YAML: {words}", mark.line + 1 if mark else 0) from None
    except (yaml.YAMLError, UnicodeError) as error:
        raise DocumentError("not readable as YAML: " + " ".join(str(error).split())) from None
    if reader.documents > 1:
        raise DocumentError("two documents without a --- line between them")
    return reader.value


class _Dumper(yaml.SafeDumper):
    """Quotes texts that any reader may take for something else. PyYAML leaves 1e3 and 0o17 as they are."""


_Dumper.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)[eE][-+]?[0-9]+\Z"),
    list("-+.0123456789"),
)
_Dumper.add_implicit_resolver("tag:yaml.org,2002:int", re.compile(r"[-+]?0o[0-7]+\Z"), list("-+0"))


def dump_yaml(value: object) -> str:
    """YAML that readers of YAML 1.1 and 1.2 understand alike: texts that look like numbers are quoted."""
    return str(yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120))


def load_json(text: str) -> object:
    """The value of a JSON text. Raises DocumentError."""
    try:
        return json.loads(text, object_pairs_hook=_pairs, parse_float=str, parse_constant=_constant)
    except json.JSONDecodeError as error:
        raise DocumentError(f"not readable as JSON: {error.msg}", error.lineno) from None
    except RecursionError:
        raise DocumentError("not readable as JSON: nested too deeply") from None
    except ValueError as error:
        raise DocumentError(f"not readable as JSON: {error}") from None


def _pairs(pairs: list[tuple[str, object]]) -> dict[str, object]:
    value = dict(pairs)
    if len(value) != len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"the key {twice[:80]!r} is there twice")
    return value


def _constant(word: str) -> object:
    raise ValueError(f"{word} is no JSON value")


class _Frame:
    """A mapping or list that is being filled; `key` is a mapping's key that waits for its value."""

    __slots__ = ("anchor", "items", "key", "mapping")

    def __init__(self, items: Any, anchor: str | None) -> None:
        self.items = items
        self.anchor = anchor
        self.mapping = type(items) is dict
        self.key: str | None = None


class _Reader:
    """Builds a value from parser events."""

    def __init__(self) -> None:
        self.value: object = None
        self.documents = 0
        self._open: list[_Frame] = []
        self._anchors: dict[str, object] = {}

    def take(self, event: Any) -> None:
        kind = type(event)
        if kind is yaml.ScalarEvent:
            value = _scalar(event)
            self._remember(event.anchor, value)
            self._add(value, event)
        elif kind is yaml.MappingStartEvent:
            self._begin({}, event, "map")
        elif kind is yaml.SequenceStartEvent:
            self._begin([], event, "seq")
        elif kind is yaml.MappingEndEvent or kind is yaml.SequenceEndEvent:
            frame = self._open.pop()
            # Only whole values can be named by an alias, so no value contains itself.
            self._remember(frame.anchor, frame.items)
        elif kind is yaml.AliasEvent:
            if event.anchor not in self._anchors:
                raise DocumentError(f"the alias *{event.anchor} names nothing before it", _line(event))
            self._add(self._anchors[event.anchor], event)
        elif kind is yaml.DocumentStartEvent:
            self.documents += 1

    def _remember(self, anchor: str | None, value: object) -> None:
        if anchor is not None:
            self._anchors[anchor] = value

    def _begin(self, items: Any, event: Any, tag: str) -> None:
        if event.tag not in (None, _TAG + tag):
            raise DocumentError(f"the tag {event.tag} is not supported", _line(event))
        if len(self._open) >= MAX_DEPTH:
            raise DocumentError(f"nested more than {MAX_DEPTH} levels deep", _line(event))
        self._add(items, event)
        self._open.append(_Frame(items, event.anchor))

    def _add(self, value: Any, event: Any) -> None:
        if not self._open:
            self.value = value
            return
        frame = self._open[-1]
        if not frame.mapping:
            frame.items.append(value)
        elif frame.key is None:
            frame.key = _key(frame.items, value, event)
        else:
            frame.items[frame.key] = value
            frame.key = None


def _key(mapping: dict[str, object], value: object, event: Any) -> str:
    if type(event) is not yaml.ScalarEvent:
        raise DocumentError("a key must be plain text", _line(event))
    key = event.value if not isinstance(value, str) else value
    if key == "<<" and event.implicit[0]:
        raise DocumentError("merge keys (<<) are not supported; write the fields out", _line(event))
    if key in mapping:
        raise DocumentError(f"the key {key[:80]!r} is there twice", _line(event))
    return str(key)


def _scalar(event: Any) -> object:
    text: str = event.value
    if event.tag is None or event.tag == "!":
        return _plain(text) if event.implicit[0] else text
    kind = event.tag.removeprefix(_TAG)
    if kind == "str" and event.tag != kind:
        return text
    if kind in ("int", "bool", "null") and event.tag != kind:
        return _plain(text)
    raise DocumentError(f"the tag {event.tag} is not supported", _line(event))


def _plain(text: str) -> object:
    if text in _WORDS:
        return _WORDS[text]
    if _INTEGER.fullmatch(text):
        if text[:2] in ("0x", "0o"):
            return int(text, 0)
        return int(text)
    return text


def _line(event: Any) -> int:
    line: int = event.start_mark.line
    return line + 1


_STEP = re.compile(r"([^.\[\]]+)|\[([0-9]+)\]")


def parse_path(path: str) -> FieldPath:
    """ "spec.exportV4[0].cidr" to ("spec", "exportV4", 0, "cidr")."""
    return tuple(name if name else int(index) for name, index in _STEP.findall(path))


def locate(text: str, path: FieldPath) -> int:
    """The line (from 1) of a field in a document, or of the nearest field around it, at last its first; 0 = unknown.

    Slow, for messages only. `text` must have passed `load_yaml` (which bounds its depth) or `load_json`.
    """
    try:
        node = yaml.compose(text, Loader=_LOADER)
    except (yaml.YAMLError, UnicodeError, RecursionError):
        return 0
    line = node.start_mark.line + 1 if node is not None else 0
    for step in path:
        if isinstance(node, yaml.MappingNode):
            found = [(key, value) for key, value in node.value if getattr(key, "value", None) == step]
            if not found:
                break
            line, node = found[0][0].start_mark.line + 1, found[0][1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
            node = node.value[step]
            line = node.start_mark.line + 1
        else:
            break
    return line
