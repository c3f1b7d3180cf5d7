"""bgpctl's hand in a folder of resource files: objects are changed where they are, all else in a file stays as it is.

A new object gets a file of its own. In a file with several documents only the object's own is written anew (its
comments are lost with it); an object inside a List is changed inside it. Files are replaced in one step, so that the
daemon that watches the folder never sees half of one.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any

from attrs import frozen

from config.documents import DocumentError, dump_yaml, load_json, load_yaml
from config.folder import Folder, read_text
from config.parse import identify, identify_known, unfold
from config.problems import ResourceError
from config.snapshot import Key
from config.source import DatastoreError

__all__ = ["FileEditor"]

_SEPARATOR = re.compile(r"^---(?=[ \t\r\n]|\Z)", re.MULTILINE)
_SERVERS = ("uid", "creationTimestamp", "resourceVersion", "managedFields", "generation")


@frozen
class _Found:
    """Where an object is: which piece of which file, and which item of the List there (None: no List)."""

    path: str
    pieces: tuple[str, ...]
    piece: int
    item: int | None
    document: Any
    value: dict[str, Any]


class FileEditor:
    """get, apply and delete; see config.source.Editor."""

    def __init__(self, directory: str) -> None:
        self.directory = os.path.abspath(directory)
        self.url = f"file:{self.directory}"

    async def close(self) -> None:
        """Nothing is held open."""

    async def get(self, kind: str, name: str | None = None) -> list[dict[str, Any]]:
        """The objects of a kind, or the one of this name, sorted by name. Of two files, the first counts."""
        found: dict[str, dict[str, Any]] = {}
        for (its_kind, its_name), place in self._objects():
            if its_kind == kind and name in (None, its_name):
                found.setdefault(its_name, place.value)
        return [found[its_name] for its_name in sorted(found)]

    def key_of(self, value: Mapping[str, Any]) -> Key:
        """(kind, name) of an object."""
        try:
            identity = identify_known(value)
        except ResourceError as error:
            raise DatastoreError(str(error)) from None
        return (identity.kind, identity.name)

    async def apply(self, value: dict[str, Any]) -> str:
        """Write an object: "created", "configured" or "unchanged". Raises DatastoreError."""
        kind, name = self.key_of(value)
        new = _clean(value)
        place = self._find(kind, name)
        if place is None:
            os.makedirs(self.directory, exist_ok=True)
            self._write(self._new_path(kind, name), dump_yaml(new))
            return "created"
        if _clean(place.value) == new:
            return "unchanged"
        self._put(place, new)
        return "configured"

    async def delete(self, kind: str, name: str) -> bool:
        """Remove an object, from every file that has it; False where there is none."""
        deleted = False
        while (place := self._find(kind, name)) is not None:
            self._put(place, None)
            deleted = True
        return deleted

    def _find(self, kind: str, name: str) -> _Found | None:
        return next((place for key, place in self._objects() if key == (kind, name)), None)

    def _objects(self) -> Iterator[tuple[Key, _Found]]:
        """Every object that can be told, in the order of paths, which is that in which they count."""
        paths = Folder(self.directory).walk()
        if paths is None:
            raise DatastoreError(f"the folder {self.directory} cannot be read; create it or name another folder")
        for path in sorted(paths):
            try:
                pieces = _pieces(path, read_text(path))
            except (OSError, ValueError) as error:
                reason = (error.strerror or str(error)) if isinstance(error, OSError) else str(error)
                raise DatastoreError(f"the file {path} cannot be read: {reason}; mend it, or take it away") from None
            yield from _of_file(path, pieces)

    def _put(self, place: _Found, new: dict[str, Any] | None) -> None:
        """Write the file with this object in place of the old one, or without it."""
        document = new
        if place.item is not None:
            items = list(place.document["items"])
            items[place.item : place.item + 1] = [] if new is None else [new]
            document = {**place.document, "items": items} if items else None
        pieces = list(place.pieces)
        if place.path.endswith(".json"):
            pieces = [] if document is None else [json.dumps(document, indent=2) + "\n"]
        else:
            head = "---\n" if pieces[place.piece].startswith("---") else ""
            pieces[place.piece : place.piece + 1] = [] if document is None else [head + dump_yaml(document)]
        text = "".join(pieces)
        if any(map(_says_something, pieces)):
            self._write(place.path, text)
            return
        try:
            os.unlink(place.path)
        except OSError as error:
            raise DatastoreError(f"the file {place.path} cannot be removed: {error.strerror}") from None

    def _new_path(self, kind: str, name: str) -> str:
        base = f"{kind.lower()}-{name.strip('/').replace('/', '-')}"
        path, number = os.path.join(self.directory, f"{base}.yaml"), 1
        while os.path.lexists(path):
            path, number = os.path.join(self.directory, f"{base}-{number}.yaml"), number + 1
        return path

    def _write(self, path: str, text: str) -> None:
        """In one step; a file keeps its mode and owner, a symbolic link stays one, a new file is its owner's only."""
        path = os.path.realpath(path)
        try:
            descriptor, temporary = tempfile.mkstemp(dir=os.path.dirname(path), prefix=".bgpctl-")
            try:
                with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                    file.write(text)
                    file.flush()
                    os.fsync(file.fileno())
                with contextlib.suppress(FileNotFoundError):
                    status = os.stat(path)
                    os.chown(temporary, status.st_uid, status.st_gid)
                    os.chmod(temporary, status.st_mode & 0o7777)
                os.replace(temporary, path)
            except OSError:
                os.unlink(temporary)
                raise
        except OSError as error:
            raise DatastoreError(f"the file {path} cannot be written: {error.strerror}") from None


def _of_file(path: str, pieces: tuple[str, ...]) -> Iterator[tuple[Key, _Found]]:
    load = load_json if path.endswith(".json") else load_yaml
    for number, piece in enumerate(pieces):
        if not _says_something(piece):
            continue
        try:
            document = load(piece)
        except DocumentError:
            # The daemon and `bgpctl validate` name it; here it is only left alone.
            continue
        for index, (item, base) in enumerate(unfold(document)):
            try:
                identity = identify(item)
            except ResourceError:
                continue
            if identity.known and isinstance(item, dict):
                place = _Found(path, pieces, number, index if base else None, document, item)
                yield (identity.kind, identity.name), place


def _pieces(path: str, text: str) -> tuple[str, ...]:
    """A file cut before each `---` line; together they are the file again."""
    if path.endswith(".json"):
        return (text,)
    cuts = [0, *(match.start() for match in _SEPARATOR.finditer(text)), len(text)]
    return tuple(text[start:end] for start, end in pairwise(cuts) if start < end)


def _says_something(piece: str) -> bool:
    lines = piece.removeprefix("---").splitlines()
    return any(line.strip() and not line.lstrip().startswith("#") for line in lines)


def _clean(value: Mapping[str, Any]) -> dict[str, Any]:
    """An object without what only a server gives: in files there is none."""
    metadata = {key: item for key, item in value["metadata"].items() if key not in _SERVERS}
    return {**value, "metadata": metadata}
