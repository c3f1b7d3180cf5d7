"""`bgpctl health`: what `calico component node health` is asked, in the same words and with the same texts.

Each check runs beside the others; the first that fails is the answer. Felix is asked where it listens itself, the
speaker over its socket.
"""

from __future__ import annotations

import http.client
import os
import re
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Any

import click

from bgpd.ctl.client import Client, CtlError

__all__ = ["health"]

NOT_READY = "calico/node is not ready: "
_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_PART = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h)")


def duration(ctx: click.Context, param: click.Parameter, text: str) -> float:
    """Seconds of a Go duration ("30s", "1m30s") or a plain number."""
    try:
        return float(text)
    except ValueError:
        pass
    if not re.fullmatch(f"(?:{_PART.pattern})+", text):
        raise click.BadParameter(f"{text!r} is no duration; write it like 30s or 1m30s", ctx, param)
    return sum(float(number) * _UNITS[unit] for number, unit in _PART.findall(text))


@click.command()
@click.option("--felix-live", is_flag=True, help="Felix answers that it is alive.")
@click.option("--felix-ready", is_flag=True, help="Felix answers that it is ready.")
@click.option("--bird-live", is_flag=True, help="The speaker turns (also: --bird6-live).")
@click.option("--bird-ready", is_flag=True, help="IPv4 sessions are up.")
@click.option("--bird6-live", is_flag=True, hidden=True)
@click.option("--bird6-ready", is_flag=True, help="IPv6 sessions are up.")
@click.option(
    "--threshold-time", callback=duration, default="30s", metavar="TIME", show_default=True,
    help="Wait so long for an answer; and for so long a node counts as just started: all its sessions must be up.",
)  # fmt: skip
@click.pass_obj
def health(client: Client, /, threshold_time: float, **wanted: bool) -> None:
    """Calico's probe of a node: the first failure on standard output and status 1, or silence.

    All sessions must be up while the node is young (its nodename file is), later one is enough.
    """
    names = [name.replace("_", "-") for name, asked in wanted.items() if asked]
    if not names:
        raise click.UsageError("at least one check is needed, such as --bird-ready or --felix-live")
    client.timeout = threshold_time
    pool = ThreadPoolExecutor(len(names))
    checks = [pool.submit(_check, name, client, threshold_time, os.environ) for name in names]
    try:
        for done in as_completed(checks, timeout=threshold_time + 1):
            if text := done.result():
                click.echo(NOT_READY + text)
                raise SystemExit(1)
    except TimeoutError:
        click.echo(f"{NOT_READY}no answer within {threshold_time:g} s")
        raise SystemExit(1) from None
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _check(name: str, client: Client, threshold: float, env: Mapping[str, str]) -> str:
    """What is wrong; "" if nothing is."""
    kind = _KINDS[name]
    try:
        text = kind[1](client, name, threshold, env)
    except CtlError as error:
        text = str(error)
    return f"{kind[0]} is not {'live' if name.endswith('live') else 'ready'}: {text}" if text else ""


def _bird_ready(client: Client, name: str, threshold: float, env: Mapping[str, str]) -> str:
    return _first(client.health("readyz", **{name: "1", "threshold": f"{threshold:g}"}))


def _bird_live(client: Client, name: str, threshold: float, env: Mapping[str, str]) -> str:
    return _first(client.health("livez"))


def _first(answer: Mapping[str, Any]) -> str:
    return next((str(check["text"]) for check in answer["checks"] if not check["ok"]), "")


def _felix(client: Client, name: str, threshold: float, env: Mapping[str, str]) -> str:
    """HTTP status 200 to 399 is good."""
    host, port = env.get("FELIX_HEALTHHOST") or "localhost", env.get("FELIX_HEALTHPORT") or "9099"
    path = "/liveness" if name == "felix-live" else "/readiness"
    try:
        connection = http.client.HTTPConnection(host, int(port), timeout=threshold)
        connection.request("GET", path)
        status = connection.getresponse().status
        connection.close()
    except (OSError, ValueError, http.client.HTTPException) as error:
        return f"Get http://{host}:{port}{path}: {error}"
    return "" if 200 <= status < 400 else f"Felix answers with HTTP status {status}"


_KINDS: dict[str, tuple[str, Callable[[Client, str, float, Mapping[str, str]], str]]] = {
    "felix-live": ("felix", _felix),
    "felix-ready": ("felix", _felix),
    "bird-live": ("bird/confd", _bird_live),
    "bird6-live": ("bird/confd", _bird_live),
    "bird-ready": ("BIRD", _bird_ready),
    "bird6-ready": ("BIRD6", _bird_ready),
}
