"""`bgpctl plan`: what proposed resources would change, told before anything does.

Against a running speaker the daemon answers, from its own tables; against a datastore the answer is worked out here,
for one node or for all. What is the same on many nodes is told once.

Exit status: 0 nothing would change; 1 an object is refused, or the plan failed; 2 wrong usage; 3 something would
change, and no session would end; 4 sessions would be reset or removed.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Protocol

import click

from bgpd.settings import SpeakerSettings
from config.compile import compile
from config.ctl_common import failing, file_option, load_snapshot, read_all, show_problems
from config.given import read_given
from config.kinds import KINDS
from config.memory import Memory
from config.plan import Proposal, key_of, node_plan, propose
from config.plan_text import plan_lines
from config.snapshot import Snapshot

__all__ = ["make_plan"]

Plan = dict[str, Any]
Tables = Callable[[SpeakerSettings, SpeakerSettings, int], tuple[list[Any], list[Any]]]
"""(settings now, settings then, limit) -> (`tables`, `kernel`) of a Plan, from routes of configuration alone."""
OFFLINE = (
    "worked out from own blocks, service ranges and other routes of configuration; routes of pods and of peers are not "
    "known here: ask the running speaker for them (without --datastore)"
)


class Daemon(Protocol):
    """A running daemon's api, as far as this needs it."""

    def plan(self, proposal: dict[str, Any], limit: int) -> Any:
        """Its answer to POST /v1/plan."""


def make_plan(tables: Tables) -> click.Command:
    """The command. `tables` works out what a speaker would tell its peers; the entry point joins it."""

    @click.command(short_help="What would change, before anything does.")
    @file_option(help="New or changed objects as YAML or JSON: a file, a folder, or - for standard input.")
    @click.option("--delete", "deleted", multiple=True, metavar="KIND/NAME", help="Also without this object.")
    @click.option(
        "--to", "target", metavar="URL", help="With the resources of this datastore in place of all there are."
    )
    @click.option("--datastore", metavar="URL", help="Against this datastore.  [default: against the running bgpd]")
    @click.option("--node", "nodes", multiple=True, metavar="NAME", help="With --datastore: this node only.")
    @click.option(
        "--limit", type=click.IntRange(0), default=20, show_default=True, help="Name so many prefixes of each sort."
    )
    @click.option("-o", "--output", type=click.Choice(["table", "json"]), default="table", show_default=True,
                  help="Form of the output; json is one Plan a node.")  # fmt: skip
    @click.pass_context
    @failing
    def plan(
        ctx: click.Context, files: tuple[str, ...], deleted: tuple[str, ...], target: str | None,
        datastore: str | None, nodes: tuple[str, ...], limit: int, output: str,
    ) -> None:  # fmt: skip
        """Say what would change, before anything does: sessions that come, go, are reset or merely changed; routes and
        prefixes that peers would be told otherwise; kernel routes; objects that would be refused, and why.

        Against the running bgpd (over its socket) it is worked out from its own tables. Against a datastore it is
        worked out for one node or all, from what configuration alone can tell.

        \b
        Exit status: 0 nothing would change; 1 something is refused or failed; 2 wrong usage;
        3 changes, and no session ends; 4 changes that reset or remove sessions.

        \b
        Examples:
          bgpctl plan -f tor.yaml && echo nothing to do
          bgpctl plan -f new/ --delete bgppeer/old-tor --datastore kubernetes: -o json
          bgpctl plan --to file:/etc/calico/resources
        """
        if not files and not deleted and target is None:
            raise click.UsageError("say what is proposed: -f FILE, --delete KIND/NAME or --to URL")
        if nodes and not datastore:
            raise click.UsageError("--node is of use with --datastore only: a running bgpd is one node")
        body, bad = _proposal(files, deleted, target)
        if datastore is None:
            plans = [ctx.find_root().obj.plan(body, limit)]
        else:
            plans = list(_offline(body, datastore, nodes, tables, limit))
        _print(plans, output)
        sys.exit(1 if bad else _status(plans))

    return plan


def _proposal(files: Sequence[str], deleted: Sequence[str], target: str | None) -> tuple[dict[str, Any], bool]:
    """(the body of POST /v1/plan, whether something in the files is refused; that is said with file and line)."""
    given = read_given(files)
    show_problems(given.problems)
    try:
        delete = ["/".join(key_of(text)) for text in deleted]
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    objects = [item.value for item in given.objects]
    if target is not None:
        proposed = {item.key for item in given.objects} | {key_of(text) for text in delete}
        kept = [value for key, value in read_all(target, [kind.name for kind in KINDS]) if key not in proposed]
        objects, delete = [*kept, *objects], []
    unread = any(problem.field == "kind" for problem in given.notices)
    return {"objects": objects, "delete": delete, "whole": target is not None}, bool(given.refused) or unread


def _offline(
    body: dict[str, Any], url: str, nodes: Sequence[str], tables: Tables, limit: int
) -> Iterator[Plan]:  # fmt: skip
    snapshot = load_snapshot(url, "")
    try:
        proposal = propose(body["objects"], body["delete"], whole=body["whole"])
    except ValueError as error:
        raise click.ClickException(str(error)) from None
    after = proposal.apply(snapshot)
    known = sorted({*snapshot.nodes(), *after.nodes()})
    for node in nodes:
        if node not in known:
            raise click.ClickException(f"there is no Node {node}, now or then; nodes known: {', '.join(known[:20])}")
    if not known:
        raise click.ClickException(f"{url} holds no Node, and none is proposed")
    chosen = list(nodes) or known
    show = sys.stderr.isatty() and len(chosen) > 20
    for number, node in enumerate(chosen, 1):
        yield _of_node(snapshot, after, proposal, node, tables, limit)
        if show:
            click.echo(f"\r{number} of {len(chosen)} nodes", nl=number == len(chosen), err=True)


def _of_node(
    snapshot: Snapshot, after: Snapshot, proposal: Proposal, node: str, tables: Tables, limit: int
) -> Plan:  # fmt: skip
    memory = Memory()
    now, then = compile(snapshot, node, os.environ, memory), compile(after, node, os.environ, memory)
    plan = node_plan(node, now, then, now.settings, then.settings)
    plan["objects"] = proposal.objects(snapshot)
    if then.settings is not None and now.settings != then.settings:
        old = now.settings or SpeakerSettings(then.settings.asn, then.settings.router_id)
        plan["tables"], plan["kernel"] = tables(old, then.settings, limit)
        plan["notes"].append(OFFLINE)
    return plan


def _status(plans: Iterable[Plan]) -> int:
    status = 0
    for plan in plans:
        gone = {"object": f"Node/{plan['node']}", "action": "deleted"} in plan["objects"] and not plan["running"]
        if any(item["action"] in ("refused", "missing") for item in plan["objects"]):
            return 1
        if not plan["can_tell"] and not gone:
            return 1
        if any(session["action"] in ("reset", "removed") for session in plan["sessions"]):
            status = 4
        elif _changes(plan):
            status = max(status, 3)
    return status


def _changes(plan: Plan) -> bool:
    return any(plan[part] for part in ("sessions", "routes", "settings", "tables", "kernel"))


def _print(plans: list[Plan], output: str) -> None:
    if output == "json":
        click.echo(json.dumps(plans, indent=2, ensure_ascii=False))
        return
    for line in plan_lines(plans):
        click.echo(line)
