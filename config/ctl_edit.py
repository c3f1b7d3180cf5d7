"""`bgpctl get`, `apply`, `create`, `replace`, `delete` and `export`: calicoctl's verbs for BGP's resources.

All of them go through `config.datastore.open_editor`, so they work alike on folders, etcd and Kubernetes. Every object
is checked by Calico's rules before the first one is written. Exit status: 0 done; 1 something was refused, is not
there, or could not be written; 2 wrong usage.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, TypeVar

import click
from attrs import frozen

from config.ctl_common import checked_given, datastore_option, failing, file_option, table, use
from config.ctl_rules import check_against
from config.datastore import Editor
from config.documents import dump_yaml
from config.given import Object
from config.kinds import KINDS, NAMESPACED_KINDS, Kind, asn_text, columns, custom_columns, find_kind
from config.parse import NAMESPACED
from config.source import DatastoreError

__all__ = ["commands"]

T = TypeVar("T")
Value = dict[str, Any]

_CLUSTER_METADATA = ("uid", "resourceVersion", "creationTimestamp", "generation", "managedFields", "selfLink")
_DEFAULT_ASN = "64512"
HIDDEN = "(hidden: add --secrets)"


# --- get


@click.command()
@click.argument("kind", required=False)
@click.argument("names", nargs=-1, metavar="[NAME]...")
@file_option(help="Show the objects that these files name, as the datastore has them.")
@click.option(
    "-o", "--output", default="ps", show_default=True, metavar="ps|wide|yaml|json|name|custom-columns=A,B",
    help="Form of the output. yaml and json can be given to `apply`; custom-columns takes headlines of ps and wide.",
)  # fmt: skip
@click.option("--export", "bare", is_flag=True, help="Leave out what only this datastore gives (uid, version, times).")
@click.option("--secrets", is_flag=True, help="Show the values of Secrets.")
@datastore_option
@failing
def get(
    kind: str | None, names: tuple[str, ...], files: tuple[str, ...], output: str, bare: bool, secrets: bool,
    datastore: str,
) -> None:  # fmt: skip
    """Show resources of a KIND, all or those with these NAMEs, in calicoctl's columns.

    \b
    KIND is one of bgpconfig, bgppeer, bgpfilter, ippool, node, nodestatus, blockaffinity, secret, service,
    endpointslice, or another of calicoctl's names for them, in any case.

    \b
    Examples:
      bgpctl get bgppeers -o wide
      bgpctl get bgppeer tor-rack1 -o yaml > tor.yaml
      bgpctl get nodes --datastore etcd://10.0.0.1:2379
    """
    form, wanted = _form(output), _wanted(kind, names, files)
    fetched = use(datastore, lambda editor: _fetch(editor, wanted, form))
    values, missing = fetched[0], fetched[1]
    values = [_shown(value, bare=bare, secrets=secrets) for value in values]
    single = len(wanted) == 1 and wanted[0].name is not None
    _print(values, form, output, fetched[2], single, {item.kind.name: item.kind for item in wanted})
    for gone in missing:
        click.echo(f"resource does not exist: {gone}", err=True)
    if missing:
        raise SystemExit(1)


def _form(output: str) -> str:
    form = output.partition("=")[0]
    if form not in ("ps", "wide", "yaml", "json", "name", "custom-columns") or (form == output) != ("=" not in output):
        raise click.UsageError(f"-o {output}: use ps, wide, yaml, json, name or custom-columns=A,B")
    if "=" in output and form != "custom-columns":
        raise click.UsageError(f"-o {output}: only custom-columns takes a value")
    return form


def named_kind(text: str) -> Kind:
    """A kind by a name that a person gave. Raises click.UsageError."""
    kind = find_kind(text)
    if kind is None:
        raise click.UsageError(
            f"{text!r} is no kind that BGP reads; use one of {', '.join(k.aliases[0] for k in KINDS)}"
        )
    return kind


@frozen
class _Wanted:
    """What is asked for: one name or, with None, all names of a kind; or what a file names."""

    kind: Kind
    name: str | None
    given: Value | None = None

    def name_in(self, editor: Editor) -> str | None:
        """Its name there, which for a BlockAffinity in etcd is not that of a file."""
        if self.given is None:
            return self.name
        try:
            return editor.key_of(self.given)[1]
        except DatastoreError:
            # Never written there, but perhaps read.
            return self.name


def _wanted(kind: str | None, names: Sequence[str], files: Sequence[str]) -> list[_Wanted]:
    if bool(kind) == bool(files):
        raise click.UsageError("give a KIND (and names), or -f FILE")
    if not files:
        assert kind is not None
        found = named_kind(kind)
        return [_Wanted(found, _full_name(found, name)) for name in names] or [_Wanted(found, None)]
    return [_Wanted(named_kind(item.key[0]), item.key[1], item.value) for item in checked_given(files)]


def _full_name(kind: Kind, name: str) -> str:
    return name if kind.name not in NAMESPACED_KINDS or "/" in name else f"/{name}"


async def _fetch(editor: Editor, wanted: Sequence[_Wanted], form: str) -> tuple[list[Value], list[str], str]:
    """(objects, what is not there, the cluster's AS number)."""
    values: list[Value] = []
    missing: list[str] = []
    for item in wanted:
        name = item.name_in(editor)
        found = await editor.get(item.kind.name, name)
        if not found and name is not None:
            missing.append(f"{item.kind.name}({name})")
        values += found
    asn = _DEFAULT_ASN
    if form in ("wide", "custom-columns") and any(item.kind.name == "Node" for item in wanted):
        for value in await editor.get("BGPConfiguration", "default"):
            asn = asn_text(value, "spec.asNumber", _DEFAULT_ASN)
    return values, missing, asn


def _shown(value: Value, *, bare: bool, secrets: bool) -> Value:
    if bare:
        metadata = {name: item for name, item in value.get("metadata", {}).items() if name not in _CLUSTER_METADATA}
        value = {**value, "metadata": metadata}
    if value.get("kind") == "Secret" and not secrets:
        hidden = {part: dict.fromkeys(value[part], HIDDEN) for part in ("data", "stringData") if value.get(part)}
        value = {**value, **hidden}
    return value


def _print(
    values: list[Value], form: str, output: str, asn: str, single: bool, kinds: dict[str, Kind]
) -> None:  # fmt: skip
    if form in ("yaml", "json"):
        whole: Any = values[0] if single and values else _list_of(values, kinds)
        if not (single and not values):
            click.echo(json.dumps(whole, indent=2) if form == "json" else dump_yaml(whole), nl=form == "json")
        return
    if form == "name":
        for value in values:
            click.echo(f"{value['kind'].lower()}/{value['metadata']['name']}")
        return
    for number, (name, kind) in enumerate(kinds.items()):
        of_kind = [value for value in values if value.get("kind") == name]
        if form == "custom-columns":
            try:
                head, rows = custom_columns(kind, of_kind, output.partition("=")[2].split(","), asn=asn)
            except KeyError as error:
                known = ", ".join(dict.fromkeys((*kind.normal.heads, *kind.wide.heads)))
                raise click.UsageError(f"{name} has no column {error}; known are {known}") from None
        else:
            head, rows = columns(kind, of_kind, wide=form == "wide", asn=asn)
        click.echo("\n" * bool(number) + "\n".join(table(head, rows)))


def _list_of(values: list[Value], kinds: dict[str, Kind]) -> Value:
    group = "projectcalico.org/v3"
    if len(kinds) == 1:
        (name,) = kinds
        return {"kind": f"{name}List", "apiVersion": NAMESPACED.get(name, group), "metadata": {}, "items": values}
    return {"kind": "List", "apiVersion": group, "metadata": {}, "items": values}


# --- apply, create, replace, delete


@click.command()
@file_option(required=True)
@datastore_option
@failing
def apply(files: tuple[str, ...], datastore: str) -> None:
    """Create the given objects, or replace those that are there.

    \b
    Everything is checked before the first object is written. An object that carries a resourceVersion is written
    only if the stored one still has it. See what would come of it first: bgpctl plan -f FILE

    \b
    Examples:
      bgpctl apply -f tor.yaml
      bgpctl get bgppeer tor -o yaml | sed s/65001/65002/ | bgpctl apply -f -
    """

    async def one(editor: Editor, item: Object) -> bool:
        await editor.apply(item.value)
        return True

    _write_each(datastore, checked_given(files), "apply", one)


@click.command()
@file_option(required=True)
@click.option("--skip-exists", is_flag=True, help="Pass over objects that are there already.")
@datastore_option
@failing
def create(files: tuple[str, ...], skip_exists: bool, datastore: str) -> None:
    """Create the given objects; one that is there already is an error."""

    async def one(editor: Editor, item: Object) -> bool:
        kind, name = editor.key_of(item.value)
        if not await editor.get(kind, name):
            # Version 0: whoever makes it at the same moment is not undone.
            await editor.apply({**item.value, "metadata": {**item.value["metadata"], "resourceVersion": "0"}})
            return True
        if skip_exists:
            return False
        raise DatastoreError(f"resource already exists: {kind}({name}); `bgpctl apply` replaces it")

    _write_each(datastore, checked_given(files), "create", one)


@click.command()
@file_option(required=True)
@datastore_option
@failing
def replace(files: tuple[str, ...], datastore: str) -> None:
    """Replace the given objects; one that is not there is an error."""

    async def one(editor: Editor, item: Object) -> bool:
        kind, name = editor.key_of(item.value)
        if not await editor.get(kind, name):
            raise DatastoreError(f"resource does not exist: {kind}({name}); `bgpctl apply` creates it")
        await editor.apply(item.value)
        return True

    _write_each(datastore, checked_given(files), "replace", one)


@click.command()
@click.argument("kind", required=False)
@click.argument("names", nargs=-1, metavar="[NAME]...")
@file_option(help="Delete the objects that these files name.")
@click.option("-s", "--skip-not-exists", is_flag=True, help="Objects that are not there are no error.")
@datastore_option
@failing
def delete(
    kind: str | None, names: tuple[str, ...], files: tuple[str, ...], skip_not_exists: bool, datastore: str
) -> None:
    """Delete resources of a KIND by NAME, or those that files name.

    \b
    Example:
      bgpctl delete bgppeer tor-rack1 tor-rack2
    """
    if kind and not names:
        raise click.UsageError("name what is to be deleted: bgpctl delete KIND NAME...")
    wanted = _wanted(kind, names, files)

    async def one(editor: Editor, item: _Wanted) -> bool:
        name = item.name_in(editor)
        assert name is not None
        if await editor.delete(item.kind.name, name):
            return True
        if skip_not_exists:
            return False
        raise DatastoreError(f"resource does not exist: {item.kind.name}({name})")

    _each(datastore, wanted, "delete", one, [item.kind.name for item in wanted])


_DONE = {"apply": "applied", "create": "created", "replace": "replaced", "delete": "deleted"}


def _write_each(
    url: str, items: Sequence[Object], verb: str, one: Callable[[Editor, Object], Awaitable[bool]]
) -> None:  # fmt: skip
    """As `_each`; what the datastore has no place for, or must not have, is told before the first object is written."""

    async def check(editor: Editor) -> None:
        for item in items:
            editor.key_of(item.value)
        await check_against(editor, items, replacing=verb != "create")

    _each(url, items, verb, one, [item.key[0] for item in items], check)


def _each(
    url: str,
    items: Sequence[T],
    verb: str,
    one: Callable[[Editor, T], Awaitable[bool]],
    kinds: Sequence[str],
    check: Callable[[Editor], Awaitable[None]] | None = None,
) -> None:
    """Do one thing after the other, stop at the first that fails, and say in calicoctl's words how far it got."""
    failure: list[str] = []
    done = passed = 0

    async def run(editor: Editor) -> None:
        nonlocal done, passed
        try:
            if check is not None:
                await check(editor)
            for item in items:
                changed = await one(editor, item)
                done, passed = done + changed, passed + (not changed)
        except DatastoreError as error:
            failure.append(str(error))

    use(url, run)
    name = f" '{kinds[0]}'" if len(set(kinds)) == 1 else ""
    past, total = _DONE[verb], len(items)
    if passed:
        click.echo(f"{passed} passed over: {'there already' if verb == 'create' else 'not there'}", err=True)
    if not failure:
        click.echo(f"Successfully {past} {done}{name} resource(s)")
        return
    if done:
        click.echo(f"Partial success: {past} the first {done} out of {total}{name} resources:")
        raise click.ClickException(f"Hit error: {failure[0]}")
    what = f"{name} resource" if total == 1 else f" any{name} resources"
    raise click.ClickException(f"Failed to {verb}{what}: {failure[0]}")


# --- export


@click.command()
@click.argument("directory", type=click.Path(file_okay=False))
@click.option("--secrets", is_flag=True, help="Secrets too: the files then hold passwords.")
@click.option("--force", is_flag=True, help="Replace files that are there.")
@datastore_option
@failing
def export(directory: str, secrets: bool, force: bool, datastore: str) -> None:
    """Write a datastore's BGP resources into DIRECTORY, which `--datastore file:DIRECTORY` reads.

    \b
    One file per kind, readable by their owner only. Secrets are left out unless asked for: peers that need a password
    then have no session.

    \b
    Example:
      bgpctl export --datastore etcd://10.0.0.1:2379 /etc/calico/resources
    """
    kinds = [kind for kind in KINDS if secrets or kind.name != "Secret"]

    async def fetch(editor: Editor) -> dict[str, list[Value]]:
        return {kind.name: await editor.get(kind.name) for kind in kinds}

    found = {name: values for name, values in use(datastore, fetch).items() if values}
    paths = {name: os.path.join(directory, f"{name.lower()}.yaml") for name in found}
    taken = [path for path in paths.values() if os.path.lexists(path)]
    if taken and not force:
        raise click.ClickException(f"{taken[0]} is there already; name another directory, or add --force")
    try:
        os.makedirs(directory, mode=0o700, exist_ok=True)
        for name, values in found.items():
            _write(paths[name], "---\n".join(dump_yaml(_shown(value, bare=True, secrets=True)) for value in values))
    except OSError as error:
        raise click.ClickException(f"{error.filename or directory} cannot be written: {error.strerror}") from None
    for name, values in found.items():
        click.echo(f"{len(values):6} {name}  {paths[name]}")
    if not found:
        raise click.ClickException("the datastore holds none of BGP's resources; nothing was written")


def _write(path: str, text: str) -> None:
    """In one step, for its owner only (mkstemp makes it 0600)."""
    descriptor, temporary = tempfile.mkstemp(dir=os.path.dirname(path) or ".", prefix=".bgpctl-")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def commands() -> Iterable[click.Command]:
    """For bgpctl's entry point."""
    return (get, apply, create, replace, delete, export)
