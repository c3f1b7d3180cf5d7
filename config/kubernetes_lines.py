"""Octets of a watch -> its lines. Pure. Each octet is looked at once, however long a line is and however it is cut."""

from __future__ import annotations

from collections.abc import Iterator

__all__ = ["Lines", "TooLong"]

LIMIT = 32 << 20
"""Octets of a line. The API server takes objects of 3 MiB at most, and a line holds one."""


class TooLong(ValueError):
    """A line that no API server sends."""


class Lines:
    """Cuts a stream at its line ends; what is left without an end when the stream breaks off is never a line."""

    def __init__(self, limit: int = LIMIT) -> None:
        self._limit = limit
        self._pieces: list[bytes] = []
        self._size = 0

    @property
    def pending(self) -> int:
        """Octets of the unfinished line."""
        return self._size

    def feed(self, data: bytes) -> Iterator[bytes]:
        """The lines that end in `data`, without their ends; empty ones are left out. Raises TooLong."""
        *whole, rest = data.split(b"\n")
        for piece in whole:
            line = b"".join((*self._pieces, piece)) if self._pieces else piece
            self._pieces, self._size = [], 0
            if line.strip():
                yield line
        if rest:
            self._pieces.append(rest)
            self._size += len(rest)
            if self._size > self._limit:
                raise TooLong(f"a line of more than {self._limit} octets")
