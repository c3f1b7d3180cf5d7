"""Linux inotify in forty lines of ctypes.

The packages for this bring more than they save: watchfiles carries a Rust runtime and a thread, watchdog a thread per
tree, inotify_simple is these forty lines. Events give no more than "look at this name again"; what they mean is found
out by reading the folder.
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Iterator

from attrs import frozen

__all__ = ["Event", "Inotify"]

MODIFY = 0x2
ATTRIB = 0x4
CLOSE_WRITE = 0x8
MOVED_FROM = 0x40
MOVED_TO = 0x80
CREATE = 0x100
DELETE = 0x200
DELETE_SELF = 0x400
MOVE_SELF = 0x800
UNMOUNT = 0x2000
OVERFLOW = 0x4000
IGNORED = 0x8000
ONLYDIR = 0x01000000
ISDIR = 0x40000000

WATCHED = MODIFY | ATTRIB | CLOSE_WRITE | MOVED_FROM | MOVED_TO | CREATE | DELETE | DELETE_SELF | MOVE_SELF | ONLYDIR
NAMES = MOVED_FROM | MOVED_TO | CREATE | DELETE | ONLYDIR
COMPLETED = CLOSE_WRITE | MOVED_TO | MOVED_FROM | DELETE
"""After one of these nobody is in the middle of writing the file."""
_HEADER = struct.Struct("iIII")
_READ = 65536


@frozen
class Event:
    """Something happened to `name` in the folder `directory` ("" = to the folder itself, or events were lost)."""

    directory: str
    name: str
    mask: int


class Inotify:
    """One inotify descriptor with watches on folders. Not blocking; `fileno` is for the event loop."""

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._fd: int = self._libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self._fd < 0:
            raise OSError(ctypes.get_errno(), f"inotify: {os.strerror(ctypes.get_errno())}")
        self._paths: dict[int, str] = {}

    def fileno(self) -> int:
        """The descriptor; readable when events wait."""
        return self._fd

    def watch(self, directory: str, *, names_only: bool = False) -> None:
        """Watch a folder (not what is below it), or only the names in it. Again is harmless. Raises OSError."""
        mask = NAMES if names_only else WATCHED
        watch: int = self._libc.inotify_add_watch(self._fd, os.fsencode(directory), mask)
        if watch < 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code), directory)
        self._paths[watch] = directory

    def forget_others(self, directories: set[str]) -> None:
        """Drop the watches of folders that are not among these."""
        for watch, directory in list(self._paths.items()):
            if directory not in directories:
                self._libc.inotify_rm_watch(self._fd, watch)
                # Its IGNORED event may have been read by now: events are read in another thread.
                self._paths.pop(watch, None)

    def read(self) -> Iterator[Event]:
        """All events that wait."""
        while True:
            try:
                data = os.read(self._fd, _READ)
            except BlockingIOError:
                return
            offset = 0
            while offset < len(data):
                watch, mask, _, length = _HEADER.unpack_from(data, offset)
                offset += _HEADER.size
                name = os.fsdecode(data[offset : offset + length].rstrip(b"\0"))
                offset += length
                directory = self._paths.get(watch, "")
                if mask & MOVE_SELF:
                    # The watch went with the folder; its old name may soon be another folder's.
                    self._libc.inotify_rm_watch(self._fd, watch)
                if mask & IGNORED:
                    self._paths.pop(watch, None)
                yield Event(directory, name, mask)

    def close(self) -> None:
        """Close the descriptor."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
