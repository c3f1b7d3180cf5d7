"""The commands of bgpctl that look at resources: `validate` and `resolve`. Those that change them are in `ctl_edit`,
and `plan` is in `ctl_plan`; the entry point mounts `commands`.

Exit status: 0 all good; 1 something is refused, or the node's settings cannot be told; 2 wrong usage.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from operator import attrgetter

import click
from attrs import asdict

from bgpd.policy.terms import Term
from bgpd.settings import PeerSettings, SpeakerSettings
from config import ctl_edit
from config.compile import Compiled, compile
from config.crosscheck import crosscheck
from config.ctl_common import failing, load_copy, load_snapshot, needed_url, show_problems, table
from config.datastore import FORMS
from config.given import Given, read_given
from config.problems import Problem
from config.snapshot import Put, Snapshot
from config.view import plain, term_text

__all__ = ["commands", "table"]

_OUTPUT = click.option(
    "-o",
    "--output",
    type=click.Choice(["table", "json"]),
    default="table",
    show_default=True,
    help="Form of the output.",
)


# --- validate


@click.command(short_help="Check resource files, without a datastore.")
@click.argument("files", nargs=-1, required=True, type=click.Path(), metavar="FILE|DIR|-...")
@_OUTPUT
@failing
def validate(files: tuple[str, ...], output: str) -> None:
    """Check resource files, folders of them, or standard input (-), without a datastore.

    \b
    Names file, line, object, field, value and what is allowed for each fault. What may be elsewhere (a filter or a
    Secret that is named, but not among the files) is a notice.

    \b
    Examples:
      bgpctl validate /etc/calico/resources
      calicoctl get bgppeers -o yaml | bgpctl validate -
    """
    given = read_given(files)
    problems = [*given.problems, *_across(given)]
    refused = [problem for problem in problems if problem.refused]
    good = sum(item.good for item in given.objects)
    if output == "json":
        click.echo(json.dumps({"objects": good, "problems": [asdict(problem) for problem in problems]}, indent=2))
    else:
        for problem in problems:
            click.echo(("" if problem.refused else "notice: ") + str(problem))
        bad, notices = len(given.objects) - good, len(problems) - len(refused)
        unread = sum(not problem.object for problem in refused)
        other = f", {unread} not readable" if unread else ""
        objects, noted = "object" if good == 1 else "objects", "notice" if notices == 1 else "notices"
        click.echo(f"{good} {objects} good, {bad} refused{other}, {notices} {noted}")
    sys.exit(1 if refused else 0)


def _across(given: Given) -> list[Problem]:
    """What only all objects together show, with the place of the object that names it."""
    first = {item.key: item for item in reversed(given.objects)}
    changes = [item.entry.change for item in first.values() if isinstance(item.entry.change, Put)]
    found = []
    for problem in crosscheck(Snapshot().apply(changes)):
        kind, _, name = problem.object.partition("/")
        found.append(first[kind, name].placed(problem))
    return found


# --- resolve


@click.command(short_help="One node's whole compiled view.")
@click.option(
    "--datastore", metavar="URL", help=f"Where the resources are: {FORMS}.  [default: as Calico's variables say]"
)
@click.option(
    "--last-good-copy",
    "copy",
    metavar="DIR",
    is_flag=False,
    flag_value="/var/lib/calico/bgpd",
    type=click.Path(),
    help="The copy that bgpd keeps in DIR (its --state-dir) for starts without a datastore.",
)
@click.option(
    "--node",
    default=lambda: os.environ.get("NODENAME", ""),
    show_default="$NODENAME",
    help="The node whose settings are shown.",
)
@click.option(
    "--timeout",
    type=click.FloatRange(0.1),
    default=10.0,
    show_default=True,
    metavar="SECONDS",
    help="Wait so long for the datastore.",
)
@_OUTPUT
@click.pass_context
@failing
def resolve(
    ctx: click.Context, datastore: str | None, copy: str | None, node: str, timeout: float, output: str
) -> None:
    """Print the whole compiled view of one node: sessions, routes of its own, policy, kernel.

    \b
    Calico's variables (CALICO_ROUTER_ID, NAMESPACE, CALICO_ADVERTISE_CLUSTER_IPS) are taken from the environment.
    Passwords are hidden.

    \b
    Examples:
      bgpctl resolve --datastore kubernetes: --node node-a
      bgpctl resolve --last-good-copy --node node-a
    """
    if not node:
        raise click.UsageError("--node is needed, or the variable NODENAME")
    if copy is not None and datastore:
        raise click.UsageError("--datastore and --last-good-copy exclude each other")
    if copy is not None:
        snapshot, saved, path = load_copy(copy, node)
        click.echo(f"from {path}, true at {datetime.fromtimestamp(saved, UTC):%Y-%m-%dT%H:%M:%SZ}", err=True)
    else:
        snapshot = load_snapshot(needed_url(ctx, ctx.command.params[0], datastore), node, timeout)
    compiled = compile(snapshot, node, os.environ)
    _show(compiled, node, output)
    sys.exit(1 if compiled.settings is None else 0)


def _show(compiled: Compiled, node: str, output: str) -> None:
    if output == "json":
        shown = {
            "node": node,
            "settings": plain(compiled.settings.inlined()) if compiled.settings is not None else None,
            "problems": [asdict(problem) for problem in compiled.problems],
        }
        click.echo(json.dumps(shown, indent=2))
        return
    show_problems(compiled.problems)
    if compiled.settings is not None:
        click.echo("\n".join(_resolved(compiled.settings)))


def _resolved(settings: SpeakerSettings) -> list[str]:
    listen = ", ".join(
        f"[{address}]:{port}" if ":" in address else f"{address}:{port}" for address, port in settings.listen
    )
    lines = [
        f"AS {settings.asn}  router id {settings.router_id}  cluster id {settings.cluster_id or '-'}",
        f"listens on {listen or 'nothing'}",
        "direct routes from all interfaces but " + " ".join(settings.learn.ignored_interfaces),
        "",
        *_peers(settings),
        "",
        *_static_routes(settings),
    ]
    for heading, chain in _chains(settings):
        lines += ["", heading, *(f"  {number:3}  {term_text(term)}" for number, term in enumerate(chain, 1))]
    return lines


def _peers(settings: SpeakerSettings) -> list[str]:
    head = ("PEER", "ADDRESS", "PORT", "AS", "TYPE", "SIDE", "SOURCE", "NEXT HOP", "MD5", "GTSM", "FROM")
    rows = [
        (
            peer.name,
            peer.address,
            peer.port,
            peer.asn,
            _session_type(peer, settings.asn),
            "passive" if peer.passive else "active",
            peer.source_address or "-",
            peer.next_hop_mode.name.lower(),
            "yes" if peer.password else "-",
            peer.ttl_security_hops or "-",
            peer.label,
        )
        for peer in sorted(settings.peers, key=attrgetter("name"))
    ]
    return table(head, rows) if rows else ["no sessions"]


def _session_type(peer: PeerSettings, asn: int) -> str:
    if peer.asn != (peer.local_asn or asn):
        return "eBGP"
    return "iBGP client" if peer.reflector_client else "iBGP"


def _static_routes(settings: SpeakerSettings) -> list[str]:
    shown = [plain(route) for route in settings.static_routes]
    rows = [(route["prefix"], route["kind"], route["gateway"] or "-", route["label"]) for route in shown]
    return table(("ROUTE", "KIND", "GATEWAY", "FROM"), rows) if rows else ["no routes of configuration"]


def _chains(settings: SpeakerSettings) -> Iterable[tuple[str, Sequence[Term]]]:
    """(heading, terms) of every chain; equal ones of many peers once."""
    users: dict[tuple[str, str, tuple[Term, ...]], list[str]] = {}
    for peer in settings.peers:
        for entry in peer.families:
            family, exports, imports = str(entry.family), settings.export_terms(entry), settings.import_terms(entry)
            users.setdefault(("export", family, exports), []).append(peer.name)
            users.setdefault(("import", family, imports), []).append(peer.name)
    for (direction, family, chain), names in users.items():
        shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
        yield f"{direction} {family}, {'to' if direction == 'export' else 'from'} {shown}", chain
    for of_family, terms in settings.fib.chains:
        yield f"kernel {of_family}", terms


commands: list[click.Command] = [validate, resolve, *ctl_edit.commands()]
"""For bgpctl's entry point."""
