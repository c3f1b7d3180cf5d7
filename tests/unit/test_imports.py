"""Who may import whom. Every module's imports are read from its syntax tree, those inside functions included.

The order of the layers is the design's: errors, settings <- wire <- policy <- rib <- speaker <- shell <- __main__, with
session beside rib and fib beside policy. Pure modules have no socket, clock, loop or randomness: time is an argument.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("bgpd", "config", "reflector")

SEAMS = (
    "bgpd.errors",
    "bgpd.family",
    "bgpd.sequences",
    "bgpd.settings",
    "bgpd.routes",
    "bgpd.effects",
    "bgpd.policy.terms",
)
PARTS = ("bgpd.outbound", "bgpd.peer", "bgpd.places", "bgpd.directory", "bgpd.restart", "bgpd.preview")
"""The speaker's parts that lie beside it."""

LAYERS: dict[str, tuple[str, ...]] = {
    # The longest name that fits a module decides. Each layer lists what of the project it may import, beside itself.
    # "bgpd" stands for the modules directly in it: the speaker and its parts.
    "bgpd": (*SEAMS, "bgpd.wire", "bgpd.session", "bgpd.policy", "bgpd.rib"),
    "bgpd.errors": (),
    "bgpd.family": (),
    "bgpd.sequences": (),
    "bgpd.policy.terms": ("bgpd.family",),
    "bgpd.settings": ("bgpd.family", "bgpd.policy.terms"),
    "bgpd.routes": ("bgpd.family", "bgpd.policy.terms"),
    "bgpd.effects": SEAMS,
    "bgpd.wire": ("bgpd.errors", "bgpd.family"),
    "bgpd.session": (*SEAMS, "bgpd.wire"),
    "bgpd.policy": (*SEAMS, "bgpd.wire"),
    "bgpd.rib": (*SEAMS, "bgpd.wire", "bgpd.policy"),
    "bgpd.fib": SEAMS,
    "bgpd.shell": (*SEAMS, "bgpd.speaker", "bgpd.fib"),
    "bgpd.api": (*SEAMS, "bgpd.speaker", "bgpd.wire", "bgpd.session", "bgpd.policy", "bgpd.rib", "bgpd.fib", *PARTS),
    "bgpd.ctl": ("bgpd.api.schema",),
    "bgpd.__main__": ("bgpd", "config"),
    "bgpd.reporting": ("bgpd", "config"),
    "bgpd.options": ("bgpd", "config"),
    "bgpd.program": ("bgpd.shell",),
    "config": SEAMS,
    "config.bgpctl": ("config", "bgpd"),
    "reflector": (*SEAMS, "bgpd.shell", "bgpd.api", "config"),
    "reflector.__main__": ("bgpd", "config", "reflector"),
}

WORLDLY = (
    *("bgpd.__main__", "bgpd.options", "bgpd.program", "bgpd.reporting", "config.reporter"),
    *("bgpd.shell", "bgpd.api", "bgpd.ctl", "bgpd.fib.netlink"),
    *("config.files", "config.folder", "config.inotify", "config.etcd", "config.kubernetes"),
    *("config.datastore", "config.follower", "config.joined", "config.copy", "config.keeper", "config.files_edit"),
    *("config.etcd_client", "config.etcd_edit", "config.tls", "config.workloads"),
    *("config.kubernetes_access", "config.kubernetes_client", "config.kubernetes_edit", "config.kubernetes_feed"),
    *(
        "config.ctl",
        "config.ctl_common",
        "config.ctl_edit",
        "config.ctl_rules",
        "config.ctl_plan",
        "config.plan_text",
        "config.given",
    ),
    *("config.bgpctl", "reflector"),
)
"""Modules that may know sockets, clocks, loops and chance. All others are pure."""

IMPURE = frozenset(
    {
        *("aiohttp", "asyncio", "concurrent", "ctypes", "datetime", "fcntl", "http", "multiprocessing", "os"),
        "pathlib",
        *("prometheus_client", "pyroute2", "random", "secrets", "select", "selectors", "shutil", "signal", "socket"),
        *("ssl", "subprocess", "tempfile", "threading", "time", "urllib", "uvloop", "uuid"),
    }
)
"""What a pure module must not import: the world, the clock and chance."""

ONLY_IN: dict[str, tuple[str, ...]] = {
    "asyncio": ("bgpd.shell", "bgpd.api", "bgpd.ctl", "bgpd.__main__", "bgpd.program", "config", "reflector"),
    "pyroute2": ("bgpd.fib.netlink",),
    "uvloop": ("bgpd.shell", "bgpd.program", "reflector"),
    "exabgp": ("bgpd.ctl.exabgp_text",),
    "grpc": ("config.etcd", "config.etcd_client"),
    "aiohttp": ("bgpd.api", "config.kubernetes_client"),
}
"""Packages with a place of their own."""


def modules() -> Iterator[tuple[str, Path]]:
    """Every module of the three packages."""
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


MODULES = dict(modules())


def imports(name: str, path: Path) -> Iterator[str]:
    """What a module imports, as full names; `from package import module` gives the module."""
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            submodules = [f"{base}.{alias.name}" for alias in node.names if f"{base}.{alias.name}" in MODULES]
            yield from submodules
            if len(submodules) < len(node.names):
                yield base


def inside(name: str, layers: tuple[str, ...] | frozenset[str]) -> bool:
    """Whether a module is one of these, or below one of them."""
    return any(name == layer or name.startswith(layer + ".") for layer in layers)


def layer_of(name: str) -> str:
    """The layer that a module belongs to."""
    return max((layer for layer in LAYERS if inside(name, (layer,))), key=len)


def breaches(name: str, wanted: str) -> Iterator[str]:
    """What is wrong with this import of this module."""
    top = wanted.partition(".")[0]
    if not inside(name, WORLDLY) and top in IMPURE:
        yield f"{name} is pure and imports {wanted}"
    if top in ONLY_IN and not inside(name, ONLY_IN[top]):
        yield f"{name} imports {wanted}, which is for {', '.join(ONLY_IN[top])} only"
    if top in PACKAGES:
        layer = layer_of(name)
        allowed = wanted == "bgpd" or inside(wanted, (layer, *LAYERS[layer]))
        if layer == "bgpd":
            beside = wanted.count(".") == 1 and wanted not in LAYERS
            allowed = wanted == "bgpd" or beside or inside(wanted, LAYERS["bgpd"])
        if not allowed:
            yield f"{name} (layer {layer}) imports {wanted}"
    if top == "tests":
        yield f"{name} imports {wanted}"


@pytest.mark.parametrize("name", sorted(MODULES))
def test_module_imports_only_its_layer(name: str) -> None:
    found = [breach for wanted in imports(name, MODULES[name]) for breach in breaches(name, wanted)]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("bgpd.wire.update", "asyncio"),
        ("bgpd.session.fsm", "time"),
        ("bgpd.rib.loc_rib", "bgpd.session.fsm"),
        ("bgpd.session.session", "bgpd.rib.loc_rib"),
        ("bgpd.wire.update", "bgpd.session.fsm"),
        ("bgpd.shell.runner", "config.compile"),
        ("bgpd.shell.runner", "reflector"),
        ("bgpd.ctl.client", "bgpd.speaker"),
        ("config.compile", "os"),
        ("config.compile", "bgpd.rib.loc_rib"),
        ("bgpd.policy.terms", "bgpd.settings"),
        ("bgpd.fib.table", "socket"),
        ("bgpd.speaker", "random"),
    ],
)
def test_rule_sees_a_breach(name: str, wanted: str) -> None:
    assert list(breaches(name, wanted))


def test_the_model_of_calicos_rules_takes_nothing_from_what_it_is_held_against() -> None:
    models = sorted((ROOT / "tests" / "property").glob("calico_*.py"))
    found = {wanted for path in models for wanted in imports(f"tests.property.{path.stem}", path)}
    ours = {wanted for wanted in found if wanted.partition(".")[0] in (*PACKAGES, "tests")}
    assert len(models) > 5 and all(wanted.startswith("tests.property.calico_") for wanted in ours), ours
