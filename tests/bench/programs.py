"""Where the other daemons are: on this machine, or in the folder tree PEERS_ROOT (made by peers_root.sh)."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

from tests.bench.lab import Lab, command_output
from tests.interop.daemons.base import find_program

PEERS_ROOT = os.environ.get("PEERS_ROOT", "").rstrip("/")
FRR_BGPD = "/usr/lib/frr/bgpd"
OPENBGPD = "/usr/sbin/bgpd"
BIRD3 = "/opt/bird3/usr/sbin/bird"
BINARIES = {"bird": "bird", "bird3": BIRD3, "frr": FRR_BGPD, "gobgp": "gobgpd", "openbgpd": OPENBGPD}
"""Program of each daemon; a full path where another program has the same name."""
DAEMONS = tuple(BINARIES)
MISSING = "missing"


def program(name: str) -> str | None:
    """Where a peer's program is: inside PEERS_ROOT when that is set, else on this machine."""
    if name.startswith("/"):
        return name if os.access(PEERS_ROOT + name, os.X_OK) else None
    if not PEERS_ROOT:
        return find_program(name)
    candidates = (f"/usr/sbin/{name}", f"/usr/bin/{name}", f"/usr/lib/frr/{name}")
    return next((path for path in candidates if os.access(PEERS_ROOT + path, os.X_OK)), None)


def required(name: str) -> str:
    """The same, for one that has to be there. Raises FileNotFoundError."""
    found = program(name)
    if found is None:
        raise FileNotFoundError(name)
    return found


def versions() -> dict[str, str]:
    """Each daemon's version; "missing" where it is not installed."""
    return {name: _version(name, path) if (path := program(BINARIES[name])) else MISSING for name in DAEMONS}


def _version(name: str, path: str) -> str:
    if name == "openbgpd":
        # It has no option for it.
        package = command_output([*root(), "dpkg-query", "-W", "-f", "${Version}", "openbgpd"])
        return f"OpenBGPD {package}" if re.match(r"\d", package) else "OpenBGPD, unknown version"
    return command_output([*root(), path, "--version"]).splitlines()[0]


def root() -> list[str]:
    """What stands before a program's command line."""
    return ["chroot", PEERS_ROOT] if PEERS_ROOT else []


def directory(lab: Lab, name: str) -> tuple[Path, str]:
    """A fresh folder: its path here, and its path as the daemon sees it."""
    if not PEERS_ROOT:
        path = lab.directory(name)
        return path, str(path)
    path = Path(PEERS_ROOT, "var", "cbi-bench", name)
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True)
    path.chmod(0o777)
    return path, f"/var/cbi-bench/{name}"
