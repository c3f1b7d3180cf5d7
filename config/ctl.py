"""The commands of bgpctl that read resources: `validate` and `resolve`. The entry point mounts `commands`.

Exit status: 0 all good; 1 something is refused, or the node's settings cannot be told; 2 wrong usage.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Sequence

import click
from attrs import asdict

from bgpd.policy.terms import Term
from bgpd.settings import PeerSettings, SpeakerSettings
from config.compile import Compiled, compile
from config.files import DatastoreError, FileDatastore
from config.folder import Entry, Folder, read_file
from config.problems import Problem
from config.snapshot import Key, Put
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


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    """Lines of a table with aligned columns; nothing is cut, so that it can be searched."""
    cells = [list(map(str, row)) for row in (head, *rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]


# --- validate


@click.command()
@click.argument("files", nargs=-1, required=True, type=click.Path())
@_OUTPUT
def validate(files: tuple[str, ...], output: str) -> None:
    """Check resource FILES, or folders of them, without a datastore.

    Names file, line, object, field, value and what is allowed for each fault.
    """
    entries, problems = _read_all(files)
    refused = [problem for problem in problems if problem.refused]
    good = sum(isinstance(entry.change, Put) for entry in entries)
    if output == "json":
        click.echo(json.dumps({"objects": good, "problems": [asdict(problem) for problem in problems]}, indent=2))
    else:
        for problem in problems:
            click.echo(("" if problem.refused else "notice: ") + str(problem))
        click.echo(f"{good} objects good, {len(entries) - good} refused, {len(problems) - len(refused)} notices")
    sys.exit(1 if refused else 0)


def _read_all(files: Iterable[str]) -> tuple[list[Entry], list[Problem]]:
    entries: list[Entry] = []
    problems: list[Problem] = []
    first: dict[Key, str] = {}
    for path in _paths(files, problems):
        content = read_file(path)
        problems += [*content.problems, *content.notices]
        for entry in content.entries:
            entries.append(entry)
            change = entry.change
            problems += change.notices if isinstance(change, Put) else change.problems
            if first.setdefault(entry.key, path) != path:
                problems.append(_twice(entry.key, path, first[entry.key]))
    return entries, problems


def _paths(files: Iterable[str], problems: list[Problem]) -> list[str]:
    found: dict[str, None] = {}
    for path in files:
        if not os.path.isdir(path):
            found[path] = None
            continue
        below = Folder(path).walk()
        if below is None:
            problems.append(Problem(object="", file=path, text="cannot be read", allowed="a readable folder"))
        found.update(dict.fromkeys(sorted(below or ())))
    return list(found)


def _twice(key: Key, path: str, first: str) -> Problem:
    return Problem(
        object="/".join(key),
        field="metadata.name",
        value=key[1],
        file=path,
        text=f"is in {first} too, and the first by path counts",
        allowed="each object once; delete one of the two",
    )


# --- resolve


@click.command()
@click.option("--datastore", required=True, metavar="file:DIR", help="Where the resources are.")
@click.option("--node", required=True, help="The node whose settings are shown.")
@_OUTPUT
def resolve(datastore: str, node: str, output: str) -> None:
    """Print the whole compiled view of one node: sessions, routes of its own, policy, kernel.

    Calico's variables (CALICO_ROUTER_ID, NAMESPACE, CALICO_ADVERTISE_CLUSTER_IPS) are taken from the environment.
    """
    compiled = _compile(datastore, node)
    if output == "json":
        shown = {
            "node": node,
            "settings": plain(compiled.settings),
            "problems": [asdict(problem) for problem in compiled.problems],
        }
        click.echo(json.dumps(shown, indent=2))
    else:
        for problem in compiled.problems:
            click.echo(("problem: " if problem.refused else "notice: ") + str(problem), err=True)
        if compiled.settings is not None:
            click.echo("\n".join(_resolved(compiled.settings)))
    sys.exit(1 if compiled.settings is None else 0)


def _compile(datastore: str, node: str) -> Compiled:
    scheme, _, directory = datastore.partition(":")
    if scheme != "file" or not directory:
        raise click.UsageError(f"--datastore {datastore}: only file:DIR can be read; give a folder of resource files")
    try:
        snapshot = FileDatastore(directory).load()
    except DatastoreError as error:
        raise click.ClickException(str(error)) from None
    return compile(snapshot, node, os.environ)


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
        for peer in settings.peers
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
            users.setdefault(("export", str(entry.family), entry.export_chain), []).append(peer.name)
            users.setdefault(("import", str(entry.family), entry.import_chain), []).append(peer.name)
    for (direction, family, chain), names in users.items():
        shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
        yield f"{direction} {family}, {'to' if direction == 'export' else 'from'} {shown}", chain
    for of_family, terms in settings.fib.chains:
        yield f"kernel {of_family}", terms


commands: list[click.Command] = [validate, resolve]
"""For bgpctl's entry point."""
