"""The daemon with settings from a JSON file instead of Calico resources, composed as bgpd/__main__.py composes it.

For tests of what resources cannot express (both families on one session, max-prefix, passive peers) and for benchmarks.
SIGHUP reads the file again. `python -m tests.interop.speaker_main --settings FILE [--socket PATH] [--no-kernel] ...`
"""

from __future__ import annotations

import argparse
import asyncio
import cProfile
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from bgpd.__main__ import Daemon
from bgpd.options import parse_arguments
from bgpd.program import StartError, loop_factory
from bgpd.settings import SpeakerSettings
from bgpd.shell.logs import LogWriter
from config.compile import Compiled
from tests.interop.settings_json import speaker_settings

BEAT = 0.02


class JsonDaemon(Daemon):
    """The daemon's own composition; only where the settings come from differs."""

    def __init__(self, options: argparse.Namespace, writer: LogWriter, file: Path, stall: Path | None) -> None:
        super().__init__(options, writer)
        self._file = file
        self._stall = stall

    async def _first_settings(self) -> SpeakerSettings | None:
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGHUP, self._reload)
        if self._stall is not None:
            self._background.append(asyncio.create_task(_watch_stalls(self._stall)))
        self._reload()
        return self._settings

    def _reload(self) -> None:
        settings = self._override(speaker_settings(json.loads(self._file.read_text())))
        self._compiled = Compiled(self._options.node, settings, ())
        self._apply(settings)


async def _watch_stalls(file: Path) -> None:
    """Keep the times for which the loop did not turn, beyond its beat. They are written when the daemon ends."""
    stalls: list[tuple[float, float]] = []
    last = time.monotonic()
    try:
        while True:
            await asyncio.sleep(BEAT)
            now = time.monotonic()
            if now - last > 2 * BEAT:
                stalls.append((last, now - last - BEAT))
            last = now
    finally:
        file.write_text(json.dumps({"stalls": stalls}))


def main() -> int:
    """Run until a signal; the exit status."""
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--settings", type=Path, required=True)
    parser.add_argument("--stall", type=Path)
    parser.add_argument("--profile", type=Path)
    mine, rest = parser.parse_known_args()
    defaults: list[Any] = ["--node", "test", "--datastore", f"file:{mine.settings.resolve().parent}"]
    options = parse_arguments([*defaults, *rest])
    writer = LogWriter(options.log_level or "info", options.log_format)
    writer.start()
    profile = cProfile.Profile() if mine.profile else None

    async def run() -> None:
        if profile is not None:
            profile.enable()
        try:
            await JsonDaemon(options, writer, mine.settings, mine.stall).run()
        finally:
            if profile is not None:
                profile.disable()
                profile.dump_stats(mine.profile)

    try:
        with asyncio.Runner(loop_factory=loop_factory(options.loop)) as runner:
            runner.run(run())
    except StartError as error:
        print(f"bgpd: {error}", file=sys.stderr)
        return 1
    finally:
        writer.stop()
    return 0


if __name__ == "__main__":
    os.environ.setdefault("PYTHONUNBUFFERED", "1")
    sys.exit(main())
