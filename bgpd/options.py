"""The command line of `bgpd`, and what its defaults depend on: a part of the composition root."""

from __future__ import annotations

import argparse
import os
import socket
from collections.abc import Mapping
from importlib import metadata

from bgpd.api.schema import BIRD_DIRECTORY, DEFAULT_HEALTH, socket_paths
from bgpd.shell.boot import DEFAULT_STATE_DIR
from bgpd.shell.logs import LEVELS
from config.datastore import FORMS, default_url
from config.environment import node_name, nodename_file


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line; exits with status 2 and a usage line when it is wrong."""
    parser = argparse.ArgumentParser("bgpd", description="BGP speaker of a Calico node.", allow_abbrev=False)
    add = parser.add_argument
    add("--node", default=own_name(os.environ), metavar="NAME",
        help="name of this node's Node resource (default: $NODENAME, else what Calico's nodename file says, else the "
        "host name)")  # fmt: skip
    add("--datastore", default=default_url(os.environ), metavar="URL",
        help=f"where Calico's resources are: {FORMS} (default: as DATASTORE_TYPE and ETCD_ENDPOINTS say)")  # fmt: skip
    add("--listen", action="append", type=_endpoint, metavar="ADDR:PORT",
        help="listen here instead of where the resources say; may be repeated")  # fmt: skip
    add("--no-kernel", action="store_true", help="neither learn routes from the kernel nor program any")
    add("--health", metavar="ADDR:PORT", help=f"/readyz, /livez and /metrics ({DEFAULT_HEALTH}); 'none': not at all")
    add("--api", metavar="ADDR:PORT", help="the api over HTTP as well; beyond loopback it needs --api-token-file")
    add("--api-token-file", metavar="FILE", help="file with the token that --api asks for")
    add("--socket", metavar="PATH", help=f"Unix socket of the api ({socket_paths()[0]}); 'none': no socket")
    add("--bird-sockets", metavar="DIR",
        help="BIRD's control sockets bird.ctl and bird6.ctl, for Calico's own tools, in DIR; 'none': none "
        f"({BIRD_DIRECTORY}, where the api socket is there)")  # fmt: skip
    add(
        "--state-dir", default=DEFAULT_STATE_DIR, metavar="DIR", help="what must be known after a restart (%(default)s)"
    )
    add("--no-node-status", action="store_true",
        help="leave CalicoNodeStatus to calico-node's own reporter, which asks BIRD's control sockets")  # fmt: skip
    add("--cease-on-exit", action="store_true",
        help="tell peers when stopping, so that they drop our routes; else they keep them for a restart")  # fmt: skip
    add("--log-level", choices=LEVELS, help="default: what BGPConfiguration says, else info")
    add("--log-format", choices=("human", "json"), default="human")
    add("--loop", choices=("auto", "asyncio", "uvloop"), default="auto", help="auto: uvloop where it is installed")
    add("--version", action="version", version=f"bgpd {version()}")
    options = parser.parse_args(arguments)
    if not options.node.strip():
        parser.error("--node is empty: name this node's Node resource, or leave the option out")
    if options.datastore is None and (kind := os.environ.get("DATASTORE_TYPE")):
        parser.error(f"DATASTORE_TYPE is {kind!r}: give kubernetes or etcdv3, or --datastore")
    if options.datastore is None:
        parser.error("the following arguments are required: --datastore (or the variable DATASTORE_TYPE)")
    return options


def own_name(env: Mapping[str, str]) -> str:
    """The node's name, as each part of calico-node finds it (calico-bgp.md 11.1)."""
    try:
        with open(nodename_file(env), encoding="utf-8") as file:
            recorded = file.read(4096)
    except (OSError, UnicodeDecodeError):
        recorded = ""
    return node_name(env, recorded, socket.gethostname())


def endpoint(text: str) -> tuple[str, int]:
    """ "ADDR:PORT", "[ADDR]:PORT" or ":PORT" (every IPv4 address) -> address and port. Raises ValueError."""
    from bgpd.shell.sockopt import canonical

    address, colon, port = text.rpartition(":")
    if not colon or not port.isdigit() or int(port) > 65535:
        raise ValueError(f"{text!r} is not ADDR:PORT")
    return canonical(address.strip("[]")) if address else "0.0.0.0", int(port)


def _endpoint(text: str) -> tuple[str, int]:
    try:
        return endpoint(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def version() -> str:
    """Of the package that is installed."""
    try:
        return metadata.version("calico-bgpd")
    except metadata.PackageNotFoundError:
        return "0 (not installed)"
