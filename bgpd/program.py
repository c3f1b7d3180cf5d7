"""A daemon as a program: its log, its event loop, its exit status, and the one sentence when it cannot start."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from collections.abc import Callable, Coroutine
from importlib.util import find_spec
from typing import Any, Protocol

from bgpd.shell.logs import LogWriter


class StartError(Exception):
    """The daemon cannot start; one sentence with the way out."""


class Runnable(Protocol):
    """A daemon."""

    def run(self) -> Coroutine[Any, Any, None]:
        """From start to stop. Raises StartError."""


def run(program: str, daemon: Callable[[argparse.Namespace, LogWriter], Runnable], options: argparse.Namespace) -> int:
    """Run a daemon with its log and its loop until it ends; the exit status."""
    _open_standard_streams()
    writer = LogWriter(options.log_level or "info", options.log_format)
    writer.start()
    try:
        with asyncio.Runner(loop_factory=loop_factory(options.loop)) as runner:
            runner.run(daemon(options, writer).run())
    except StartError as error:
        writer.stop()
        print(f"{program}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    finally:
        writer.stop()
    return 0


def _open_standard_streams() -> None:
    """Descriptors 0 to 2 that whoever started us has closed lead to /dev/null. A socket in the place of one would get
    what others print there, and uvloop's library ends the process when it closes it."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest number that is free
    if sys.stderr is None:
        sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115


def loop_factory(wanted: str) -> Callable[[], asyncio.AbstractEventLoop] | None:
    if wanted == "asyncio":
        return None
    if find_spec("uvloop") is None:
        if wanted == "uvloop":
            raise StartError("--loop uvloop: the package uvloop is not installed; pip install 'calico-bgpd[uvloop]'")
        return None
    import uvloop

    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory
