"""The entry point of `bgpctl`: a composition root.

It joins the commands that ask a running daemon (bgpd.ctl), those that read resources (config.ctl), and the kernel's
broom, and is the only file that knows all three.
"""

from __future__ import annotations

import logging

import click

from bgpd.ctl.client import CtlError
from bgpd.ctl.commands import make_cli


def clean_kernel(table: int | None, protocol: int | None) -> dict[str, int]:
    """Remove our routes from the kernel, with no daemon's help. Raises CtlError."""
    from attrs import evolve

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

    return list(ctl.commands)


def main() -> None:
    """Run bgpctl."""
    # What goes wrong is said by the commands themselves, once.
    logging.getLogger().addHandler(logging.NullHandler())
    make_cli(clean_kernel, resource_commands)(prog_name="bgpctl")


if __name__ == "__main__":
    main()
