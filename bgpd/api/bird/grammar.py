"""BIRD's commands, as far as they are understood here. Pure.

BIRD's own client checks and completes words before it sends them, so whole words are all that comes.
"""

from __future__ import annotations

from ipaddress import ip_address, ip_network

from attrs import frozen

__all__ = [
    "ACCESS_DENIED",
    "NOT_IN_TABLE",
    "NOT_A_PROTOCOL",
    "NO_SUCH_PROTOCOL",
    "SYNTAX_ERROR",
    "TOO_LONG",
    "BirdError",
    "Command",
    "parse",
]

NOT_IN_TABLE = 8001
NO_SUCH_PROTOCOL = 8003
ACCESS_DENIED = 8007
TOO_LONG = 9000
SYNTAX_ERROR = 9001
NOT_A_PROTOCOL = 9002

_CHANGING = frozenset(
    ("configure", "down", "disable", "enable", "restart", "reload", "debug", "dump", "mrtdump", "eval", "graceful")
)
_UNANSWERED = ("filter", "where")
"""Expressions of BIRD's filter language."""


class BirdError(Exception):
    """An answer that is an error: BIRD's code, and a text."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text


@frozen
class Command:
    """One question. `verb`: protocols, status, route, memory, restrict, nothing."""

    verb: str
    all: bool = False
    name: str = ""
    """protocols: a name, or a pattern where it stood in quotes."""
    pattern: bool = False
    prefix: str = ""
    longest: bool = False
    """route for: the longest prefix that covers."""
    protocol: str = ""
    export: str = ""
    """Of the peer in `peer`: export, preexport or noexport."""
    peer: str = ""
    primary: bool = False
    filtered: bool = False
    count: bool = False


def parse(line: str) -> Command:
    """A command line. Raises BirdError."""
    words = line.split()
    if not words:
        raise _unexpected("the end of the line")
    match words:
        case ["show", "status"]:
            return Command("status")
        case ["show", "memory"]:
            return Command("memory")
        case ["show", "protocols", *rest]:
            return _protocols(rest)
        case ["show", "route", *rest]:
            return _route(rest)
        case ["show"]:
            raise _unexpected("the end of the line")
        case ["restrict"]:
            return Command("restrict")
        case ["echo", *_]:
            return Command("nothing")
    if words[0] in _CHANGING:
        raise BirdError(ACCESS_DENIED, "Access denied")
    raise _unexpected(words[1] if words[0] == "show" else words[0])


def _protocols(words: list[str]) -> Command:
    everything = bool(words) and words[0] == "all"
    rest = words[1:] if everything else words
    if len(rest) > 1:
        raise _unexpected(rest[1])
    name = rest[0] if rest else ""
    quoted = len(name) >= 2 and name[0] == name[-1] == '"'
    return Command("protocols", all=everything, name=name.strip('"') if quoted else name, pattern=quoted)


def _route(words: list[str]) -> Command:
    found: dict[str, object] = {}
    rest = iter(words)
    for word in rest:
        if word in ("all", "primary", "filtered", "count"):
            found[word] = True
        elif word == "stats":
            found["count"] = True
        elif word == "for":
            found |= {"prefix": _prefix(_next(rest)), "longest": True}
        elif word == "protocol":
            found["protocol"] = _next(rest)
        elif word in ("export", "preexport", "noexport"):
            found |= {"export": word, "peer": _next(rest)}
        elif word == "table":
            _table(_next(rest))
        elif word in _UNANSWERED:
            raise BirdError(SYNTAX_ERROR, f"{word}: expressions are not evaluated here, see `bgpctl routes`")
        else:
            found["prefix"] = _prefix(word)
    return Command("route", **found)  # type: ignore[arg-type]


def _next(words: object) -> str:
    word = next(words, None)  # type: ignore[call-overload]
    if word is None:
        raise _unexpected("the end of the line")
    return str(word)


def _table(name: str) -> None:
    if name not in ("master", "master4", "master6", "all"):
        raise BirdError(SYNTAX_ERROR, f"{name[:80]} is not a table")


def _prefix(text: str) -> str:
    """A prefix or an address, in canonical form. Raises BirdError."""
    try:
        return str(ip_network(text)) if "/" in text else str(ip_address(text))
    except ValueError:
        raise _unexpected(text) from None


def _unexpected(word: str) -> BirdError:
    return BirdError(SYNTAX_ERROR, f"syntax error, unexpected {word[:80]}")
