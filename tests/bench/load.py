"""bgpload, the C load generator: built when needed, run pinned, its JSON read."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

from tests.bench.lab import DAEMON_ADDRESS, LOAD_CORE, Lab, Running

SOURCE = Path(__file__).with_name("bgpload")


def build() -> Path | None:
    """Compile bgpload; None without a C compiler."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    target, source = SOURCE / "bgpload", SOURCE / "bgpload.c"
    if target.exists() and target.stat().st_mtime > source.stat().st_mtime:
        return target
    if compiler is None:
        return None
    subprocess.run([compiler, "-O2", "-Wall", "-Wextra", "-o", str(target), str(source)], check=True)
    return target


def run_load(lab: Lab, running: Running, asn: int, arguments: str, timeout: float = 200.0) -> dict[str, Any]:
    """One run against the daemon; bgpload's JSON. Raises RuntimeError with its words when it fails."""
    binary = build()
    if binary is None:
        raise RuntimeError("no C compiler (cc) to build bgpload with")
    pids = ",".join(map(str, running.pids))
    argv = ["taskset", "-c", LOAD_CORE, str(binary), "--target", f"{DAEMON_ADDRESS}:179", "--source", "172.30.1.0",
            "--asn", str(asn), "--pid", pids, *arguments.split()]  # fmt: skip
    done = subprocess.run(lab.load.exec(*argv), capture_output=True, text=True, timeout=timeout, check=False)
    try:
        result: dict[str, Any] = json.loads(done.stdout)
    except ValueError:
        raise RuntimeError(f"bgpload: {done.stderr[-600:] or done.stdout[-600:]}") from None
    if not result.get("ok"):
        raise RuntimeError(f"bgpload: {result.get('error') or 'not converged'}")
    return result


def phase(result: dict[str, Any], *names: str) -> dict[str, Any]:
    """The first phase with one of these names. Raises KeyError."""
    for item in result["phases"]:
        if item["name"] in names:
            return dict(item)
    raise KeyError(f"{names} not among {[item['name'] for item in result['phases']]}")
