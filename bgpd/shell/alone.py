"""One writer of kernel routes: a second daemon for the same table and protocol would undo what the first one does.

The mark is an abstract Unix socket, as the kernel gives it back however its owner dies, and has one name space for each
network namespace, which is just what routes have.
"""

from __future__ import annotations

import os
import socket
import struct


class AlreadyRunning(Exception):
    """Another daemon writes these routes; one sentence with the way out."""


def claim(table: int, protocol: int) -> socket.socket | None:
    """The mark, to be kept open as long as we write; None: it cannot be had, and nobody who counts has it.

    Raises AlreadyRunning.
    """
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    name = f"\0calico-bgpd/kernel/{table}/{protocol}"
    try:
        sock.bind(name)
        sock.listen(1)
    except OSError:
        sock.close()
        pid, uid = _owner(name)
        # Anybody on this host may take the name; only who could write routes as we do is taken seriously.
        if pid and uid in (0, os.geteuid()):
            raise AlreadyRunning(
                f"another bgpd (process {pid}) writes the kernel's routes here (table {table}, protocol {protocol}): "
                "stop it, or start this one with --no-kernel"
            ) from None
        return None
    return sock


def _owner(name: str) -> tuple[int, int]:
    """(process, user) of who listens there; (0, 0) if nobody does."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1)
        try:
            probe.connect(name)
            pid, uid, _gid = struct.unpack("3i", probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        except OSError:
            return 0, 0
    return pid, uid
