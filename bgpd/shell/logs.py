"""Logging that never blocks the loop: records go through a bounded queue to a thread that formats and writes them.

A full disk or a stuck pipe stops the thread, never a session; what the queue cannot hold is counted, and the count is
logged as soon as there is room again.
"""

from __future__ import annotations

import json
import logging
import sys
import threading
import time
from queue import Empty, Full, Queue
from typing import TextIO

__all__ = ["LEVELS", "LogWriter", "RateLimit", "log_event"]

LEVELS = ("debug", "info", "warning", "error")
QUEUE_LENGTH = 8192

# Line feeds and other controls in what a peer or a file gave must not forge log lines or reach a terminal.
_CONTROLS = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160))} | {0x2028: "\\u2028", 0x2029: "\\u2029"}


def log_event(logger: logging.Logger, level: int, text: str, fields: dict[str, object]) -> None:
    """One line with fields: the JSON form has them as members, the human form after the text."""
    if logger.isEnabledFor(level):
        logger.log(level, "%s", text, extra={"fields": fields})


def _timestamp(created: float) -> str:
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(created))}.{int(created % 1 * 1000):03d}Z"


class HumanFormatter(logging.Formatter):
    """`2026-01-31T12:00:00.123Z INFO text (name=value …)`; a traceback follows on lines of its own."""

    def format(self, record: logging.LogRecord) -> str:
        """One record as text."""
        text = record.getMessage().translate(_CONTROLS)
        # The text names the peer already.
        fields = {name: value for name, value in (getattr(record, "fields", None) or {}).items() if name != "peer"}
        if fields:
            text += f" ({' '.join(f'{name}={value}' for name, value in fields.items()).translate(_CONTROLS)})"
        if record.exc_info:
            text += "\n" + self.formatException(record.exc_info)
        return f"{_timestamp(record.created)} {record.levelname} {text}"


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, logger, message, then the record's fields."""

    def format(self, record: logging.LogRecord) -> str:
        """One record as JSON."""
        value: dict[str, object] = {
            "time": _timestamp(record.created),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        for name, field in (getattr(record, "fields", None) or {}).items():
            value.setdefault(name, field)
        if record.exc_info:
            value["traceback"] = self.formatException(record.exc_info)
        return json.dumps(value, default=str)


class _QueueHandler(logging.Handler):
    """Hands records to the writer's thread, or counts them where the queue is full."""

    def __init__(self, queue: Queue[logging.LogRecord | None]) -> None:
        super().__init__()
        self.queue = queue
        self.dropped = 0

    def emit(self, record: logging.LogRecord) -> None:
        """Put without waiting."""
        try:
            self.queue.put_nowait(record)
        except Full:
            self.dropped += 1


class LogWriter:
    """The process's log: `start` makes it the root logger's only handler, `stop` writes what is left."""

    def __init__(self, level: str = "info", form: str = "human", stream: TextIO | None = None) -> None:
        """`level`: one of LEVELS; `form`: "human" or "json"; `stream`: standard error by default."""
        self._queue: Queue[logging.LogRecord | None] = Queue(QUEUE_LENGTH)
        self._handler = _QueueHandler(self._queue)
        self._formatter = JsonFormatter() if form == "json" else HumanFormatter()
        self._stream = stream if stream is not None else sys.stderr
        self._level = level
        self._reported = 0
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)

    @property
    def dropped(self) -> int:
        """Lines lost so far because nobody took them."""
        return self._handler.dropped

    def set_level(self, level: str) -> None:
        """Change the level at run time; unknown names raise ValueError."""
        root, number = logging.getLogger(), logging.getLevelNamesMapping().get(level.upper())
        if number is None or root.level != number:
            # Every logger forgets what it knows of levels.
            root.setLevel(level.upper())

    def start(self) -> None:
        """Take over the root logger."""
        root = logging.getLogger()
        root.handlers[:] = [self._handler]
        self.set_level(self._level)
        logging.raiseExceptions = False
        # What no line of ours shows need not be found out for each: it is half of what one costs the loop.
        logging._srcfile = None
        logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
        self._thread.start()

    def stop(self, patience: float = 1.0) -> None:
        """Write what is queued, waiting at most `patience` seconds for a stuck stream."""
        logging.getLogger().removeHandler(self._handler)
        try:
            self._queue.put(None, timeout=patience)
        except Full:
            return
        self._thread.join(patience)

    def _run(self) -> None:
        while (record := self._queue.get()) is not None:
            lines = [self._format(record)]
            try:
                # One write for what has piled up: a burst must not cost a system call a line.
                while len(lines) < 256:
                    following = self._queue.get_nowait()
                    if following is None:
                        self._write(lines)
                        return
                    lines.append(self._format(following))
            except Empty:
                pass
            self._write(lines)

    def _format(self, record: logging.LogRecord) -> str:
        try:
            return self._formatter.format(record)
        except Exception as error:  # a bad line must not end the thread
            return f"a log line of {record.name} could not be formatted: {error!r}"

    def _write(self, lines: list[str]) -> None:
        if (dropped := self._handler.dropped) > self._reported:
            count, self._reported = dropped - self._reported, dropped
            record = logging.LogRecord("bgpd.log", logging.WARNING, "", 0, "%d log lines were dropped", (count,), None)
            lines.append(self._format(record))
        try:
            self._stream.write("\n".join(lines) + "\n")
            self._stream.flush()
        except (OSError, ValueError):
            self._handler.dropped += len(lines)


class RateLimit:
    """A token bucket for log lines: `burst` at once, `rate` a second; says how many it held back."""

    __slots__ = ("_at", "_burst", "_rate", "_tokens", "suppressed")

    def __init__(self, burst: int, rate: float) -> None:
        self._burst = float(burst)
        self._rate = rate
        self._tokens = float(burst)
        self._at = 0.0
        self.suppressed = 0
        """Calls refused since the last one that was allowed."""

    def allow(self, now: float) -> bool:
        """True: log it (and mention `suppressed`, then call `reset`); False: counted."""
        self._tokens = min(self._burst, self._tokens + (now - self._at) * self._rate)
        self._at = now
        if self._tokens < 1:
            self.suppressed += 1
            return False
        self._tokens -= 1
        return True

    def reset(self) -> str:
        """ " (and N more since the last line)" or "", and the count starts again."""
        count, self.suppressed = self.suppressed, 0
        return f" (and {count} more since the last line)" if count else ""
