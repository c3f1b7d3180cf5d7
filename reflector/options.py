"""The command line of bgp-reflector. Every mistake is one sentence and exit status 2."""

from __future__ import annotations

import argparse
import os
import socket
from collections.abc import Callable
from ipaddress import IPv4Address, ip_address, ip_network
from typing import TypeVar

from bgpd.api.schema import DEFAULT_HEALTH, socket_paths
from bgpd.family import IPV4_UNICAST, IPV6_UNICAST
from bgpd.shell.boot import DEFAULT_STATE_DIR
from bgpd.shell.logs import LEVELS
from bgpd.shell.sockopt import canonical
from config.datastore import FORMS

__all__ = ["FAMILIES", "parse_arguments"]

FAMILIES = {"ipv4": IPV4_UNICAST, "ipv6": IPV6_UNICAST}
MAX_PREFIXES = 100_000
MAX_OCTETS = 64 * 1024 * 1024
MAX_SESSIONS = 10_000
CONNECTION_RATE = 10
SETS_SHARE = 5
"""A peer may have one attribute set for this many prefixes: 20,000 where 100,000 prefixes are allowed."""

T = TypeVar("T")


def parse_arguments(arguments: list[str] | None, version: str) -> argparse.Namespace:
    """The command line, checked as a whole."""
    parser = argparse.ArgumentParser(
        "bgp-reflector",
        description="BGP route reflector (RFC 4456). Either --clients, or --datastore.",
        allow_abbrev=False,
    )
    _add_identity(parser)
    _add_limits(parser)
    _add_process(parser, version)
    options = parser.parse_args(arguments)
    options.clients = tuple(dict.fromkeys(options.clients))
    options.peers = tuple(dict(options.peers).items())
    _check(parser, options)
    if options.max_attribute_sets is None:
        options.max_attribute_sets = -(-options.max_prefixes // SETS_SHARE)
    return options


def _add_identity(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--listen", action="append", type=_typed(endpoint), metavar="ADDR:PORT",
        help="listen here (0.0.0.0:179 and [::]:179); may be repeated")  # fmt: skip
    add("--asn", type=_typed(asn), metavar="N", help="our AS number, which is the clients' too")
    add("--router-id", type=_typed(identifier("router id")), metavar="A", help="our BGP identifier, a dotted quad")
    add("--cluster-id", type=_typed(identifier("cluster id")), metavar="A", help="of our clients' cluster, dotted quad")
    add("--clients", action="extend", type=_typed(ranges), default=[], metavar="CIDR[,CIDR...]",
        help="who connects from one of these ranges is a client; may be repeated")  # fmt: skip
    add("--peers", action="extend", type=_typed(peers), default=[], metavar="ADDR[,ADDR...]",
        help="non-clients to connect to, as a twin reflector; [ADDR]:PORT where it is not our port; "
        "may be repeated")  # fmt: skip
    add("--password-file", metavar="FILE", help="file with the TCP-MD5 key of all sessions")
    add("--families", type=_typed(families), default=tuple(FAMILIES), metavar="ipv4,ipv6",
        help="offered on every session (both)")  # fmt: skip
    add("--datastore", metavar="URL", help=f"find the clients in Calico's resources instead: {FORMS}")
    add("--node", default=os.environ.get("NODENAME") or socket.gethostname().lower(), metavar="NAME",
        help="with --datastore: our Node resource, or our name without one ($NODENAME, host name)")  # fmt: skip
    add("--address", type=_typed(addresses), default=(), metavar="ADDR[,ADDR]",
        help="with --datastore, without Node resource: the peerIP that means us (that of --listen)")  # fmt: skip


def _add_limits(parser: argparse.ArgumentParser) -> None:
    add, number = parser.add_argument, _typed(_number(0, 1 << 40))
    add("--hold-time", type=_typed(hold_time), default=90, metavar="S", help="seconds offered (%(default)s)")
    add("--restart-time", type=_typed(_number(0, 4095)), default=120, metavar="S",
        help="seconds for which clients keep our routes while we restart (%(default)s)")  # fmt: skip
    add("--max-prefixes", type=number, default=MAX_PREFIXES, metavar="N",
        help="per peer and family, 0: any number (%(default)s)")  # fmt: skip
    add("--max-attribute-sets", type=number, metavar="N", help="per peer (a fifth of --max-prefixes)")
    add("--max-octets", type=number, default=MAX_OCTETS, metavar="N",
        help="octets of attributes and prefixes kept per peer (%(default)s)")  # fmt: skip
    add("--max-sessions", type=number, default=MAX_SESSIONS, metavar="N", help="dynamic clients (%(default)s)")
    add("--connection-rate", type=_typed(_number(0, 1_000_000)), default=CONNECTION_RATE, metavar="N",
        help="new connections a second from one address (%(default)s)")  # fmt: skip


def _add_process(parser: argparse.ArgumentParser, version: str) -> None:
    add = parser.add_argument
    add("--health", metavar="ADDR:PORT", help=f"/readyz, /livez and /metrics ({DEFAULT_HEALTH}); 'none': not at all")
    add("--api", metavar="ADDR:PORT", help="the api over HTTP as well; beyond loopback it needs --api-token-file")
    add("--api-token-file", metavar="FILE", help="file with the token that --api asks for")
    add("--socket", metavar="PATH", help=f"Unix socket of the api ({socket_paths()[0]}); 'none': no socket")
    add("--state-dir", default=DEFAULT_STATE_DIR, metavar="DIR",
        help="with --datastore: the last good copy of the resources (%(default)s)")  # fmt: skip
    add("--cease-on-exit", action="store_true",
        help="tell peers when stopping, so that they drop our routes; else they keep them for a restart")  # fmt: skip
    add("--log-level", choices=LEVELS, help="default: info")
    add("--log-format", choices=("human", "json"), default="human")
    add("--loop", choices=("auto", "asyncio", "uvloop"), default="auto", help="auto: uvloop where it is installed")
    add("--version", action="version", version=f"bgp-reflector {version}")


def _check(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """What no option can know alone."""
    if options.datastore is not None:
        if not options.node.strip():
            parser.error("--node is empty: give a name, or leave the option out")
        if options.clients:
            parser.error("--clients and --datastore exclude each other: clients are ranges, or Calico's resources")
        if options.password_file is not None:
            parser.error("--password-file is for --clients; with --datastore, BGPPeers name Secrets")
        return
    for name in ("asn", "router_id", "cluster_id", "clients"):
        if not getattr(options, name):
            parser.error(f"--{name.replace('_', '-')} is required without --datastore")
    own = {address for address, _ in options.listen or ()}
    for address, _ in options.peers:
        if address in own:
            parser.error(f"--peers {address} is our own --listen address; name the other reflector")


def _typed(parse: Callable[[str], T]) -> Callable[[str], T]:
    """For argparse: a ValueError's own words in the message."""

    def convert(text: str) -> T:
        try:
            return parse(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return convert


def endpoint(text: str) -> tuple[str, int]:
    """ "ADDR:PORT", "[ADDR]:PORT" or ":PORT" (every IPv4 address) -> address and port. Raises ValueError."""
    address, colon, port = text.rpartition(":")
    if not colon or not port.isdigit() or int(port) > 65535:
        raise ValueError(f"{text!r} is not ADDR:PORT")
    return canonical(address.strip("[]")) if address else "0.0.0.0", int(port)


def asn(text: str) -> int:
    """1 to 4294967294, also as "1.10" (RFC 5396). Raises ValueError."""
    high, dot, low = text.rpartition(".")
    parts = (high, low) if dot else (low,)
    if not all(part.isdigit() for part in parts) or (dot and max(map(int, parts)) > 65535):
        raise ValueError(f"{text!r} is no AS number")
    value = int(high) << 16 | int(low) if dot else int(low)
    if not 0 < value < 0xFFFFFFFF or value == 23456:
        raise ValueError(f"{text} cannot be used as AS number (1 to 4294967294, not 23456)")
    return value


def identifier(what: str) -> Callable[[str], str]:
    """A parser of dotted quads other than 0.0.0.0."""

    def parse(text: str) -> str:
        try:
            value = IPv4Address(text)
        except ValueError:
            raise ValueError(f"{text!r} is no {what}: it is a dotted quad such as 192.0.2.1") from None
        if not int(value):
            raise ValueError(f"0.0.0.0 is no {what}")
        return str(value)

    return parse


def ranges(text: str) -> tuple[str, ...]:
    """Address ranges. Raises ValueError."""
    return tuple(dict.fromkeys(str(ip_network(item.strip())) for item in text.split(",")))


def addresses(text: str) -> tuple[str, ...]:
    """Addresses, at most one of a family. Raises ValueError."""
    found = tuple(str(ip_address(item.strip())) for item in text.split(","))
    if len({":" in item for item in found}) < len(found):
        raise ValueError(f"{text!r} has two addresses of one family")
    return found


def peers(text: str) -> tuple[tuple[str, int | None], ...]:
    """Addresses, each with the port or None. Raises ValueError."""
    found: dict[str, int | None] = {}
    for item in map(str.strip, text.split(",")):
        port: int | None = None
        if item.startswith("[") or item.count(":") == 1:
            item, port = endpoint(item)
        found[str(ip_address(item))] = port
    return tuple(found.items())


def families(text: str) -> tuple[str, ...]:
    """Names of families. Raises ValueError."""
    names = tuple(dict.fromkeys(item.strip() for item in text.split(",")))
    if unknown := [name for name in names if name not in FAMILIES]:
        raise ValueError(f"{unknown[0]!r} is no family; allowed: {', '.join(FAMILIES)}")
    return names


def hold_time(text: str) -> int:
    """0, or 3 to 65535 (RFC 4271 §4.2). Raises ValueError."""
    value = _number(0, 65535)(text)
    if value in (1, 2):
        raise ValueError(f"a hold time of {value} s is not allowed (RFC 4271 §4.2): 0, or 3 to 65535")
    return value


def _number(low: int, high: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not text.isascii() or not text.isdigit() or not low <= int(text) <= high:
            raise ValueError(f"{text!r} is not a number from {low} to {high}")
        return int(text)

    return parse
