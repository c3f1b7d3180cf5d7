"""Lines as BIRD's control protocol has them: `NNNN-text` begins a code, ` text` goes on with it, `NNNN text` ends the
answer."""

from __future__ import annotations

__all__ = ["Replies"]

GREETING = 1
OK = 0


class Replies:
    """Collects the lines of one answer; `take` gives what there is so far, as octets."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._last = -1
        self.size = 0

    def line(self, code: int, text: str) -> None:
        """One line of an answer that goes on. The code is written where it differs from the line before."""
        written = f" {text}\n" if code == self._last else f"{code:04d}-{text}\n"
        self._last = code
        self._lines.append(written)
        self.size += len(written)

    def end(self, code: int = OK, text: str = "") -> None:
        """The last line."""
        self._lines.append(f"{code:04d} {text}\n")
        self._last = -1

    def take(self) -> bytes:
        """The lines since the last call."""
        lines, self._lines = self._lines, []
        self.size = 0
        return "".join(lines).encode(errors="backslashreplace")
