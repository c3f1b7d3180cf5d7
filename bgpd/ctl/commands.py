"""The commands that click sees. Each asks the daemon and prints JSON or a table; errors are one sentence, status 1."""

from __future__ import annotations

import functools
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import click

from bgpd.api.schema import Route, RoutesEnd
from bgpd.ctl.client import Client, CtlError, NotRunning
from bgpd.ctl.health import health
from bgpd.ctl.words import printable

Clean = Callable[[int | None, int | None], dict[str, int]]
"""Removes our kernel routes of a table and protocol (None: the usual ones); how many went, by family.
Raises CtlError."""

_Command = TypeVar("_Command", bound=Callable[..., Any])
_FAMILIES = click.Choice(["ipv4", "ipv6"])


class Root(click.Group):
    """The command group; further commands are joined by the entry point when they are needed."""

    def __init__(self, more: Callable[[], list[click.Command]], **settings: Any) -> None:
        super().__init__(**settings)
        self._more = more

    def _join(self) -> None:
        more, self._more = self._more, list
        for command in more():
            self.add_command(command)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All names, for --help."""
        self._join()
        return sorted(self.commands)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """A command by name; what needs no further modules loads none."""
        if cmd_name not in self.commands:
            self._join()
        return self.commands.get(cmd_name)


def output_option(function: _Command) -> _Command:
    """-o json|table"""
    option: Callable[[_Command], _Command] = click.option(
        "-o", "--output", type=click.Choice(["table", "json"]), default="table", show_default=True, help="Output."
    )
    return option(function)


def answering(function: Callable[..., Any]) -> Callable[..., Any]:
    """CtlError becomes one sentence on standard error and status 1; a closed pipe ends quietly."""

    @functools.wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> None:
        try:
            function(*args, **kwargs)
            sys.stdout.flush()
        except CtlError as error:
            raise click.ClickException(str(error)) from None
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            raise SystemExit(141) from None

    return wrapped


def make_cli(clean: Clean, more: Callable[[], list[click.Command]] = list) -> click.Group:
    """bgpctl. `more` gives the commands that read resources instead of asking the daemon."""
    options = [
        click.Option(["--socket"], envvar="BGPCTL_SOCKET", default="", metavar="PATH|URL",
                     help="The daemon's Unix socket, or http://ADDR:PORT where its --api listens."),
        click.Option(["--token-file"], envvar="BGPCTL_TOKEN_FILE", type=click.File("r"), metavar="FILE",
                     help="Token for an http:// address."),
        click.Option(["--timeout"], type=click.FloatRange(0.1), default=15.0, show_default=True, metavar="SECONDS",
                     help="Wait so long for an answer."),
    ]  # fmt: skip
    root = Root(
        more, name="bgpctl", params=list[click.Parameter](options), callback=_root, help=_HELP,
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    )  # fmt: skip
    for command in (status, peers, routes, explain, health):
        root.add_command(command)
    root.add_command(_kernel_group(clean))
    return root


_HELP = """Look at a running bgpd, and check its configuration.

The daemon is asked over its Unix socket, which only the user that runs it may open.
"""


@click.pass_context
def _root(ctx: click.Context, socket: str, token_file: Any, timeout: float) -> None:
    token = token_file.read().strip() if token_file else ""
    ctx.obj = Client(socket, token, timeout)


@click.command(short_help="The daemon as a whole, and what is refused.")
@output_option
@click.pass_obj
@answering
def status(client: Client, output: str) -> None:
    """The daemon: readiness, peers, tables, kernel, datastore and its problems."""
    answer = client.status()
    if output == "json":
        _json(answer)
        return
    from bgpd.ctl.tables import show_status

    show_status(printable(answer))


@click.command(short_help="Peers and their sessions.")
@click.argument("peer", required=False)
@output_option
@click.pass_obj
@answering
def peers(client: Client, peer: str | None, output: str) -> None:
    """All peers and their sessions, or one PEER (name or address) in full."""
    if peer:
        detail = client.peer(peer)
        if output == "json":
            _json(detail)
            return
        from bgpd.ctl.tables import show_peer

        show_peer(printable(detail))
        return
    rows = client.peers()
    if output == "json":
        _json(rows)
        return
    from bgpd.ctl.tables import show_peers

    show_peers(printable(rows))


@click.command(short_help="The Loc-RIB, or a peer's Adj-RIB-In or Adj-RIB-Out.")
@click.argument("prefix", required=False)
@click.option("--received", metavar="PEER", default="", help="Adj-RIB-In: what PEER has sent, accepted or not.")
@click.option("--advertised", metavar="PEER", default="", help="Adj-RIB-Out: what PEER is told.")
@click.option("--family", type=_FAMILIES, help="One family only.")
@click.option("--longer", "match", flag_value="longer", help="PREFIX and everything inside it.")
@click.option("--covering", "match", flag_value="covering", help="PREFIX and everything around it.")
@click.option("--limit", type=click.IntRange(1), help="At most this many routes.")
@output_option
@click.pass_obj
@answering
def routes(client: Client, prefix: str | None, output: str, match: str | None, limit: int | None, **query: str) -> None:
    """The Loc-RIB: every path of every prefix, or of PREFIX. * best, = shares traffic, ! not usable, s stale.

    An address without a length means the prefixes that cover it.
    """
    if query["received"] and query["advertised"]:
        raise click.UsageError("--received and --advertised exclude each other")
    if prefix and "/" not in prefix:
        match = match or "covering"
    end: list[RoutesEnd] = []
    asked = {"prefix": prefix or "", "match": match or "", "limit": str(limit or ""), **query}
    found = _until_end(client.routes(**{name: value or "" for name, value in asked.items()}), end)
    if output == "json":
        number = _json_lines(found)
    else:
        from bgpd.ctl.route_tables import show_routes

        number = 0
        first = next(found, None)
        if first is not None:
            show_routes(map(printable, _put_back(first, found)))
            number = 1
    if end and end[0]["truncated"]:
        click.echo("there are more routes: --limit was reached", err=True)
    if number == 0:
        if prefix:
            raise CtlError(f"there is no route for {prefix}; `bgpctl explain {prefix}` says where it may have stopped")
        if output != "json":
            click.echo("no routes")


def _until_end(lines: Iterator[Route | RoutesEnd], end: list[RoutesEnd]) -> Iterator[Route]:
    for line in lines:
        if "end" in line:
            end.append(line)  # type: ignore[arg-type]
        else:
            yield line


def _put_back(first: Route, rest: Iterator[Route]) -> Iterator[Route]:
    yield first
    yield from rest


@click.command(short_help="The fate of one prefix, and where it stopped.")
@click.argument("prefix")
@click.option("--peer", default="", metavar="PEER", help="Look at this peer's Adj-RIB-Out only.")
@output_option
@click.pass_obj
@answering
def explain(client: Client, prefix: str, peer: str, output: str) -> None:
    """The fate of one PREFIX: who announced it, what policy and decision did, kernel, peers; and where it stopped."""
    answer = client.explain(prefix, peer)
    if output == "json":
        _json(answer)
    else:
        from bgpd.ctl.story import story

        columns = shutil.get_terminal_size((100, 24)).columns
        for line in story(printable(answer), min(columns, 120)):
            headline = line and not line.startswith(" ")
            click.echo(click.style(line, bold=True) if headline else line)
    if not answer["present"]:
        raise SystemExit(1)


def _kernel_group(clean: Clean) -> click.Group:
    group = click.Group("kernel", help="The routes that bgpd has put into the kernel.")
    group.add_command(_kernel_show)
    group.add_command(_kernel_clean(clean))
    return group


@click.command("show")
@output_option
@click.pass_obj
@answering
def _kernel_show(client: Client, output: str) -> None:
    """Counts, and the routes that are wanted but not in the kernel."""
    answer = client.kernel()
    if output == "json":
        _json(answer)
        return
    from bgpd.ctl.tables import show_kernel

    show_kernel(printable(answer))


def _kernel_clean(clean: Clean) -> click.Command:
    @click.command("clean")
    @click.option("--table", type=click.IntRange(1, 0xFFFFFFFF), help="Kernel table.  [default: 254, main]")
    @click.option("--protocol", type=click.IntRange(1, 255), help="Routes of this protocol number.  [default: 12]")
    @click.option("--yes", is_flag=True, help="Also while bgpd runs, which writes them again.")
    @output_option
    @click.pass_obj
    @answering
    def command(client: Client, table: int | None, protocol: int | None, yes: bool, output: str) -> None:
        """Remove all routes and nexthop objects of ours from the kernel. Needs no running daemon."""
        if not yes and _running(client):
            raise CtlError("bgpd is running and would write its routes again: stop it first, or add --yes")
        counts = clean(table, protocol)
        if output == "json":
            _json(counts)
        else:
            removed = ", ".join(f"{number:,} {name}" for name, number in counts.items() if name != "failed")
            click.echo(f"removed: {removed}")
        if counts.get("failed"):
            raise CtlError(f"the kernel refused to remove {counts['failed']:,}; see them with `ip route`")

    return command


def _running(client: Client) -> bool:
    try:
        client.status()
    except NotRunning:
        return False
    except CtlError:
        return True
    return True


def _json(value: object) -> None:
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))


def _json_lines(rows: Iterator[Route]) -> int:
    """A JSON array, one element a line, written as it comes."""
    number = 0
    write = sys.stdout.write
    for row in rows:
        write(("[\n" if not number else ",\n") + json.dumps(row, separators=(",", ":"), ensure_ascii=False))
        number += 1
    write("\n]\n" if number else "[]\n")
    return number
