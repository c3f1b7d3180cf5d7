"""The program bgp-reflector: composition root of reflector mode. Its life is the node daemon's, without a kernel."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from collections.abc import Callable

from bgpd.__main__ import Daemon
from bgpd.options import version
from bgpd.program import StartError, run
from bgpd.shell.logs import LogWriter
from config.compile import Compiled
from config.datastore import Datastore
from config.memory import Memory
from config.snapshot import Snapshot
from config.source import Status
from reflector.flags import flag_settings
from reflector.options import parse_arguments
from reflector.resources import IdentityError, compile_reflector

PASSWORD_LIMIT = 80
"""Octets of a TCP-MD5 key (Linux)."""


def main(arguments: list[str] | None = None) -> int:
    """Run the reflector; the exit status."""
    options = parse_arguments(arguments, version())
    options.no_kernel = True
    return run("bgp-reflector", Flags if options.datastore is None else Standalone, options)


class Standalone(Daemon):
    """A reflector that finds its clients in Calico's resources."""

    def compile_snapshot(self, snapshot: Snapshot, memory: Memory | None = None) -> Compiled:
        try:
            return compile_reflector(snapshot, self._options, os.environ, memory)
        except IdentityError as error:
            raise StartError(str(error)) from None


class Flags(Daemon):
    """A reflector that knows what its command line says."""

    def __init__(self, options: argparse.Namespace, writer: LogWriter) -> None:
        super().__init__(options, writer)
        self._state.propose = None

    def open_datastore(self) -> Datastore:
        self._password = _password(self._options.password_file)
        self._options.datastore = ""
        return _Nothing()

    def compile_snapshot(self, snapshot: Snapshot, memory: Memory | None = None) -> Compiled:
        return Compiled(self._options.node, flag_settings(self._options, self._password), ())


class _Nothing:
    """A datastore without resources, for flags alone."""

    def __init__(self) -> None:
        self.snapshot = Snapshot()

    def status(self) -> Status:
        return Status(connected=True)

    async def run(self, on_snapshot: Callable[[Snapshot], None]) -> None:
        on_snapshot(self.snapshot)
        await asyncio.Event().wait()


def _password(path: str | None) -> str | None:
    """The key in a file, without the line's end; a file that cannot be used means no start, not no key."""
    if path is None:
        return None
    try:
        with open(path, encoding="utf-8") as file:
            key = file.read(4096).rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no UTF-8 text"
        raise StartError(f"--password-file {path} cannot be read: {reason}") from None
    if not 1 <= len(key.encode()) <= PASSWORD_LIMIT or "\0" in key:
        raise StartError(f"--password-file {path}: a TCP-MD5 key has 1 to {PASSWORD_LIMIT} octets")
    return key


if __name__ == "__main__":
    sys.exit(main())
