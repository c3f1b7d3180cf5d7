"""The entry point of `bgpctl`: a composition root.

It joins the commands that ask a running daemon (bgpd.ctl), those that read resources (config.ctl), and the kernel's
broom, and is the only file that knows all three.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from typing import TYPE_CHECKING, Any

import click
from attrs import evolve

from bgpd.ctl.client import CtlError
from bgpd.ctl.commands import answering, make_cli

if TYPE_CHECKING:
    from bgpd.settings import SpeakerSettings


def clean_kernel(table: int | None, protocol: int | None) -> dict[str, int]:
    """Remove our routes from the kernel, with no daemon's help. Raises CtlError."""
    from bgpd.settings import FibSettings
    from bgpd.shell.kernel import KernelError, clean

    settings = FibSettings()
    settings = evolve(settings, table=table or settings.table, protocol=protocol or settings.protocol)
    try:
        return clean(settings)
    except KernelError as error:
        raise CtlError(str(error)) from None


def resource_commands() -> list[click.Command]:
    """Commands that read resources; loaded when one of them, or the list of all, is asked for."""
    from config import ctl
    from config.ctl_plan import make_plan

    plan = make_plan(offline_tables)
    assert plan.callback is not None
    plan.callback = answering(plan.callback)
    return [*ctl.commands, plan]


def offline_tables(old: SpeakerSettings, new: SpeakerSettings, limit: int) -> tuple[list[Any], list[Any]]:
    """What a speaker would tell its peers otherwise, as far as routes of configuration go (`bgpctl plan`)."""
    from bgpd.api.limits import Pace
    from bgpd.api.plan import tables
    from bgpd.speaker import Speaker

    # Without a kernel no next hop resolves; here each counts as reachable.
    speaker = Speaker(evolve(old, resolve_next_hops=False), 0.0, lambda: 1.0)
    told, kernel = asyncio.run(tables(speaker, evolve(new, resolve_next_hops=False), limit, Pace()))
    return list(told), list(kernel)


def command_line() -> click.Group:
    """bgpctl with all that it can do."""
    cli = make_cli(clean_kernel, resource_commands)
    option = click.Option(
        ["--version"], is_flag=True, expose_value=False, is_eager=True, callback=_version,
        help="Show bgpctl's version and exit; the daemon's is in `status -o json`.",
    )  # fmt: skip
    cli.params.append(option)
    return cli


def _version(context: click.Context, option: click.Parameter, asked: bool) -> None:
    if asked:
        from bgpd.options import version

        click.echo(f"bgpctl {version()}")
        context.exit()


def main() -> None:
    """Run bgpctl."""
    # What goes wrong is said by the commands themselves, once.
    logging.getLogger().addHandler(logging.NullHandler())
    try:
        try:
            command_line()(prog_name="bgpctl")
        finally:
            sys.stdout.flush()
    except OSError as error:
        # Commands tell what fails for them; what is left is an output that takes nothing, such as a full disk.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        sys.exit(f"Error: the output cannot be written: {error.strerror}")


if __name__ == "__main__":
    main()
