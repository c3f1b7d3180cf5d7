"""What the commands of bgpctl that read resources share: options, tables, and the way to say no."""

from __future__ import annotations

import asyncio
import functools
import os
import sys
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, TypeVar

import click

from config.copy import CopyFile
from config.datastore import FORMS, Editor, default_url, open_datastore, open_editor
from config.given import Object, read_given
from config.parse import NAMESPACED
from config.problems import Problem
from config.snapshot import Key, Put, Snapshot
from config.source import DatastoreError

__all__ = [
    "checked_given",
    "datastore_option",
    "failing",
    "file_option",
    "load_copy",
    "load_snapshot",
    "read_all",
    "use",
    "needed_url",
    "show_problems",
    "table",
]

T = TypeVar("T")
_Command = TypeVar("_Command", bound=Callable[..., Any])


def needed_url(ctx: click.Context, option: click.Parameter, url: str | None) -> str:
    """The URL given, or what Calico's variables say. Raises click.UsageError where neither says anything."""
    url = url or default_url(os.environ)
    if url is None:
        raise click.UsageError(f"--datastore is needed ({FORMS}), or one of Calico's variables (DATASTORE_TYPE, ...)")
    return url


datastore_option: Callable[[_Command], _Command] = click.option(
    "--datastore",
    metavar="URL",
    callback=needed_url,
    help=f"Where the resources are: {FORMS}.  [default: as Calico's variables say]",
)


def file_option(*, required: bool = False, help: str = "") -> Callable[[_Command], _Command]:
    """-f FILE, which may be repeated."""
    option: Callable[[_Command], _Command] = click.option(
        "-f", "--filename", "files", multiple=True, required=required, metavar="FILE|DIR|-",
        help=help or "Objects as YAML or JSON; a folder means all files below it, - standard input. May be repeated.",
    )  # fmt: skip
    return option


def failing(function: Callable[..., Any]) -> Callable[..., Any]:
    """A reader that goes away ends the command quietly, as with other tools."""

    @functools.wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> None:
        try:
            function(*args, **kwargs)
            sys.stdout.flush()
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            raise SystemExit(141) from None

    return wrapped


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    """Lines of a table with aligned columns; nothing is cut, so that it can be searched."""
    cells = [list(map(str, row)) for row in (head, *rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]


def show_problems(problems: Iterable[Problem]) -> None:
    """One line each on standard error."""
    for problem in problems:
        click.echo(("refused: " if problem.refused else "notice: ") + str(problem), err=True)


def checked_given(files: Sequence[str]) -> list[Object]:
    """The objects of files. Raises click.ClickException where one is refused, names none, or is of an unknown kind."""
    given = read_given(files)
    show_problems(given.problems)
    unread = [problem for problem in given.notices if problem.field == "kind"]
    if given.refused or unread:
        raise click.ClickException("nothing was done: mend what is named above, or leave it out")
    if not given.objects:
        raise click.ClickException("the files hold no objects; nothing was done")
    return list(given.objects)


def use(url: str, work: Callable[[Editor], Awaitable[T]]) -> T:
    """Do something with a datastore's editor. Raises click.ClickException in the client's words."""

    async def run() -> T:
        editor = open_editor(url, env=os.environ)
        try:
            return await work(editor)
        finally:
            await editor.close()

    try:
        return asyncio.run(run())
    except DatastoreError as error:
        raise click.ClickException(str(error)) from None


def read_all(url: str, kinds: Iterable[str]) -> list[tuple[Key, dict[str, Any]]]:
    """Every object of these kinds, as a datastore has it. Raises click.ClickException."""

    async def fetch(editor: Editor) -> list[tuple[Key, dict[str, Any]]]:
        found = []
        for kind in kinds:
            for value in await editor.get(kind):
                metadata = value.get("metadata", {})
                space = f"{metadata.get('namespace', '')}/" if kind in NAMESPACED else ""
                found.append(((kind, f"{space}{metadata.get('name', '')}"), value))
        return found

    return use(url, fetch)


def load_snapshot(url: str, node: str, timeout: float = 10.0) -> Snapshot:
    """A datastore's first complete snapshot. Raises click.ClickException.

    `node` "": with the blocks of every node. No last good copy is used or written.
    """
    try:
        return asyncio.run(_first(url, node, timeout))
    except DatastoreError as error:
        raise click.ClickException(str(error)) from None


async def _first(url: str, node: str, timeout: float) -> Snapshot:
    store = open_datastore(url, node=node, state_dir=None, env=os.environ)
    got: asyncio.Future[Snapshot] = asyncio.get_running_loop().create_future()

    def take(snapshot: Snapshot) -> None:
        if not got.done():
            got.set_result(snapshot)

    run = asyncio.ensure_future(store.run(take))
    waiting: list[asyncio.Future[Any]] = [run, got]
    try:
        await asyncio.wait(waiting, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        if got.done():
            return got.result()
        if run.done():
            run.result()
        raise DatastoreError(
            f"{url} did not answer within {timeout:g} s: {store.status().text or 'no reason is known'}"
        )
    finally:
        run.cancel()
        await asyncio.gather(run, return_exceptions=True)


def load_copy(directory: str, node: str) -> tuple[Snapshot, float, str]:
    """(snapshot, until when it was true, path) of the newest last good copy of a node. Raises click.ClickException."""
    candidates = []
    for schemes in (("kubernetes",), ("etcd", "etcd-kubernetes"), ("file",)):
        files = [CopyFile(directory, node, scheme) for scheme in schemes]
        # In etcd mode Secrets and Services are in a copy of their own.
        copies = [(copy, str(file.path)) for file in files if (copy := file.load()) is not None]
        if copies:
            candidates.append(copies)
    if not candidates:
        raise click.ClickException(f"{directory} holds no last good copy of node {node}; see bgpd's option --state-dir")
    newest = max(candidates, key=lambda copies: copies[0][0].saved)
    changes = [Put(resource) for copy, _ in newest for resource in copy.objects]
    return Snapshot().apply(changes), newest[0][0].saved, newest[0][1]
