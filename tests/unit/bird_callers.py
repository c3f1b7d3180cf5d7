"""What Calico's programs do with a control socket, written anew from the description of their dialogue.

`peers_table` is `calicoctl node status`, `ready` the probe `--bird-ready`, `routes` the reporter of CalicoNodeStatus.
Each fails, as its model does, on any line that it does not expect.
"""

from __future__ import annotations

import re
import socket
from pathlib import Path
from typing import Any

TYPES = {"Mesh": "node-to-node mesh", "Global": "global", "Node": "node specific"}
_HEADER = "2002-name     proto    table    state  since       info"
_NAME = re.compile(r"(Mesh|Global|Node)_(.+)")
_ROUTE = re.compile(
    r"(?P<prefix>\S*) +(?:via (?P<gw>\S+) on (?P<via>\S+)|dev (?P<dev>\S+)|(?P<none>blackhole|unreachable)) "
    r"\[(?P<proto>\S+) (?P<time>[^\]]+)\]( (?P<primary>\*))?.*"
)


class Unexpected(Exception):
    """The caller would give up here."""


class Dialogue:
    """One connection: greeting, then one command and its lines at a time. Two seconds without data are an error."""

    def __init__(self, path: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.settimeout(2)
        self.socket.connect(str(path))
        self.file = self.socket.makefile("r", encoding="utf-8", newline="\n")
        greeting = self.file.readline()
        match = re.fullmatch(r"0001 BIRD (\S+) ready\.\n", greeting)
        if match is None:
            raise Unexpected(greeting)
        self.version = match[1]

    def ask(self, command: str) -> list[str]:
        """The lines of the answer, up to and with the one that ends it (a code, then a blank)."""
        self.socket.sendall(command.encode() + b"\n")
        lines: list[str] = []
        while True:
            line = self.file.readline()
            if not line.endswith("\n"):
                raise Unexpected(f"the connection ended in the middle of an answer: {lines}")
            lines.append(line[:-1])
            if re.match(r"\d{4} ", line):
                return lines

    def close(self) -> None:
        self.file.close()
        self.socket.close()


def protocols(lines: list[str]) -> list[list[str]]:
    """Columns of `show protocols`: name, proto, table, state, since, BGP state, the rest."""
    rows: list[list[str]] = []
    for line in lines:
        if line == _HEADER:
            continue
        if line == "0000 ":
            return rows
        if not line.startswith(("1002-", " ")):
            raise Unexpected(line)
        columns = line.removeprefix("1002-").split(None, 6)
        if len(columns) < 5:
            raise Unexpected(line)
        rows.append(columns)
    raise Unexpected("no end")


def peers_table(path: Path, separator: str) -> list[tuple[str, str, str, str, str]]:
    """Peer address, type, state, since and info, as calicoctl prints them."""
    dialogue = Dialogue(path)
    table = []
    for columns in protocols(dialogue.ask("show protocols")):
        match = _NAME.fullmatch(columns[0])
        if match is None or columns[1] != "BGP":
            continue
        info = " ".join(column.strip() for column in columns[5:])
        address = match[2].replace("_", separator)
        table.append((address, TYPES[match[1]], columns[3], columns[4], info))
    dialogue.close()
    return table


def ready(path: Path, young: bool) -> str:
    """ "" if ready, else why not: the rule of the readiness probe."""
    dialogue = Dialogue(path)
    rows = [row for row in protocols(dialogue.ask("show protocols")) if row[1] == "BGP" and _NAME.fullmatch(row[0])]
    down = [row[0] for row in rows if row[5:6] != ["Established"]]
    if not rows:
        return ""
    if not young:
        return "" if len(down) < len(rows) else f"BGP not established with {','.join(down)}"
    if down:
        return f"BGP not established with {','.join(down)}"
    status = dialogue.ask("show status")
    if status[0] != f"1000-BIRD {dialogue.version}" or not status[1].startswith("1011-Router ID is "):
        raise Unexpected(str(status))
    if any(line.startswith("0024-") for line in status):
        return "graceful restart in progress"
    if status[-1] != "0013 Daemon is up and running":
        raise Unexpected(status[-1])
    return ""


def routes(lines: list[str]) -> list[dict[str, Any]]:
    """Rows of `show route`; a missing prefix is that of the row before. `multipath` is not understood."""
    rows: list[dict[str, Any]] = []
    for line in lines:
        if line == "0000 ":
            return rows
        if not line.startswith(("1007-", " ")):
            raise Unexpected(line)
        text = line[5:] if line.startswith("1007-") else line[1:]
        match = _ROUTE.fullmatch(text)
        if match is None:
            raise Unexpected(line)
        row = match.groupdict()
        row["prefix"] = row["prefix"] or rows[-1]["prefix"]
        rows.append(row)
    raise Unexpected("no end")
