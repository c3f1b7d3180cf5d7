"""The last good copy: what the datastore held when it was last heard, in a file of the state directory.

A start that cannot reach its datastore goes on with it. The file is a journal of lines: first the whole, written to a
new file that takes the old one's place, then one line per change, until the changes outgrow the whole. Every line has
a checksum. A line that was being written when the host stopped ends the journal; a broken line among good ones makes
the copy useless, for then nobody knows what else is wrong. The file's modification time says until when it was true.

It can hold the passwords of Secrets, without which sessions could not come back, so only its owner may read it (0600,
in a directory of mode 0700 where we make one).
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import tempfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from attrs import frozen

from config.encode import FORM, DecodeError, decode_resource, encode
from config.resources import Resource
from config.snapshot import Key, Put, Remove, changed_since

__all__ = ["Copy", "CopyFile"]

log = logging.getLogger(__name__)

SLACK = 1 << 20
"""Octets of changes that a journal may always have, however small the whole is."""


@frozen
class Copy:
    """What a copy says."""

    objects: tuple[Resource, ...]
    saved: float
    """Until when it was true: seconds since 1970."""


class CopyFile:
    """One node's copy of one kind of datastore. Blocking, but for `write` only a few lines at a time."""

    def __init__(self, directory: str, node: str, scheme: str, origin: str = "") -> None:
        """`scheme`: a copy from another kind of datastore does not count; its URL may change, as endpoints do.

        `origin`: where it is one place alone, as a folder is; a copy from another place does not count. "": any.
        """
        self.path = Path(directory) / f"{node.replace('/', '_') or 'all'}.{scheme}.resources"
        self._header = {"form": FORM, "node": node, "datastore": scheme} | ({"origin": origin} if origin else {})
        self._whole = 0
        self._changes = 0
        self._failed = False

    def load(self) -> Copy | None:
        """What the file holds; None where there is none that can be used. Never raises."""
        try:
            data = self.path.read_bytes()
            saved = self.path.stat().st_mtime
        except FileNotFoundError:
            return None
        except OSError as error:
            log.warning("the last good copy %s cannot be read: %s", self.path, error.strerror)
            return None
        try:
            return Copy(tuple(self._parse(data)), saved)
        except DecodeError as error:
            log.warning("the last good copy %s is not used: %s", self.path, error)
            return None

    def _parse(self, data: bytes) -> Iterable[Resource]:
        lines = list(_lines(data))
        head = lines[0] if lines and isinstance(lines[0], dict) else {}
        if any(head.get(name) != value for name, value in self._header.items()):
            said = lines[0] if lines else "nothing"
            raise DecodeError(f"it is of another node, datastore or release (it says {said})")
        objects: dict[Key, Resource] = {}
        for line in lines[1:]:
            if isinstance(line, list) and len(line) == 2:
                objects.pop((str(line[0]), str(line[1])), None)
                continue
            try:
                resource = decode_resource(line)
            except DecodeError as error:
                log.warning("the last good copy %s: one object is left out: %s", self.path, error)
                continue
            objects[type(resource).__name__, resource.name] = resource
        return objects.values()

    @property
    def outgrown(self) -> bool:
        """Whether the changes are more than the whole, or there is no whole yet: time for `write`."""
        return not self._whole or self._changes > self._whole + SLACK

    def write(self, objects: Mapping[str, Mapping[str, Resource]], saved: float) -> bool:
        """Write the whole (by kind and name), in one step; False, told once, where the directory does not allow it."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            # mkstemp makes files of mode 0600.
            descriptor, name = tempfile.mkstemp(dir=self.path.parent, prefix=".resources-")
            try:
                with os.fdopen(descriptor, "wb") as file:
                    file.write(_line(self._header))
                    for kind in objects:
                        for resource in list(objects[kind].values()):
                            file.write(_line(encode(resource)))
                    size = file.tell()
                    file.flush()
                    os.fsync(file.fileno())
                os.utime(name, (saved, saved))
                os.replace(name, self.path)
            except OSError:
                with contextlib.suppress(OSError):
                    os.unlink(name)
                raise
        except OSError as error:
            return self._fail(error)
        self._whole, self._changes, self._failed = size, 0, False
        return True

    def append(self, changes: Iterable[Put | Remove], saved: float) -> bool:
        """Add changes to what `write` wrote; False where that is not possible (then `write` again)."""
        data = b"".join(_line(encode(c.resource) if isinstance(c, Put) else list(c.key)) for c in changes)
        try:
            if data:
                with open(self.path, "r+b") as file:
                    file.seek(0, os.SEEK_END)
                    file.write(data)
            os.utime(self.path, (saved, saved))
        except OSError as error:
            self._whole = 0
            return self._fail(error)
        self._changes += len(data)
        return True

    def _fail(self, error: OSError) -> bool:
        if not self._failed:
            log.warning("the last good copy %s cannot be written: %s; a restart needs the datastore",
                        self.path, error.strerror)  # fmt: skip
        self._failed = True
        return False


def differences(
    old: Mapping[str, Mapping[str, Resource]], new: Mapping[str, Mapping[str, Resource]]
) -> Iterator[Put | Remove]:
    """What leads from one set of objects to another, by identity: objects that were kept are the very same."""
    for kind in old.keys() | new.keys():
        before, after = old.get(kind, {}), new.get(kind, {})
        if before is after:
            continue
        names = changed_since(after, before)
        if names is None:
            names = before.keys() | after.keys()
        for name in names - after.keys():
            if name in before:
                yield Remove((kind, name))
        for name in after.keys() & names:
            if before.get(name) is not after[name]:
                yield Put(after[name])


def _line(value: Any) -> bytes:
    text = json.dumps(value, separators=(",", ":")).encode()
    return b"%08x %s\n" % (zlib.crc32(text), text)


def _lines(data: bytes) -> Iterator[Any]:
    """The values of all lines but broken ones at the end. Raises DecodeError for a broken one before a good one."""
    broken = 0
    for number, line in enumerate(data.split(b"\n")[:-1], 1):
        checksum, _, text = line.partition(b" ")
        if checksum != b"%08x" % zlib.crc32(text):
            broken = broken or number
            continue
        if broken:
            raise DecodeError(f"line {broken} is damaged")
        try:
            yield json.loads(text)
        except ValueError:
            raise DecodeError(f"line {number} is no JSON") from None
