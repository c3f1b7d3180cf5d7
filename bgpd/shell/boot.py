"""Whether this host's forwarding state can have outlived the last process: the truth behind the F bit (RFC 4724 §3).

The boot id and the network namespace of the last start are kept in a small file. The same ones at the next start mean
that nothing but us can have removed our kernel routes.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

__all__ = ["DEFAULT_STATE_DIR", "current_boot", "recorded_boot", "record_boot"]

DEFAULT_STATE_DIR = "/var/lib/calico/bgpd"


def current_boot() -> str:
    """One line that names this boot of the host and this network namespace; "" where the kernel tells neither."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        namespace = os.stat("/proc/self/ns/net").st_ino
    except OSError:
        return ""
    return f"boot {boot} netns {namespace}"


def recorded_boot(directory: str, node: str) -> str | None:
    """What `record_boot` wrote last; None if there is nothing to read."""
    try:
        return _path(directory, node).read_text().strip()
    except (OSError, UnicodeDecodeError):
        return None


def record_boot(directory: str, node: str, boot: str) -> bool:
    """Keep it for the next start; False if the directory cannot be written."""
    path = _path(directory, node)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=".boot-")
        try:
            with os.fdopen(descriptor, "w") as file:
                file.write(boot + "\n")
            os.replace(name, path)
        except OSError:
            os.unlink(name)
            raise
    except OSError:
        return False
    return True


def _path(directory: str, node: str) -> Path:
    return Path(directory) / f"{node.replace('/', '_')}.boot"
