"""`birdcl` for what people and probes ask: `birdcl -s SOCKET show status`, or commands from standard input.

Output and exit status are those of BIRD's own client: greeting first, codes taken off, status 1 where the daemon cannot
be reached or refuses the command. Made of the standard library alone, so that a probe every ten seconds costs little.
"""

from __future__ import annotations

import getopt
import os
import socket
import sys
from collections.abc import Iterator
from typing import TextIO

__all__ = ["main"]

DIRECTORY = "/var/run/calico"
TIMEOUT = 10.0
"""Seconds without an answer."""
NO_SUCH_COMMAND = "No such command. Press `?' for help."
_LONGEST = 65536
_WORDS: dict[str, tuple[str, ...]] = {
    "": ("show", "restrict", "echo", "configure", "down", "disable", "enable", "restart", "reload", "debug", "dump"),
    "show": ("status", "protocols", "route", "memory"),
}
_HELP = """Use `?' for context-sensitive help.
show memory                                    Show memory usage
show protocols [all] [<protocol> | "<pattern>"]  Show routing protocols
show route ...                                 Show routing table
show status                                    Show router status
quit                                           Quit the client"""


class Refused(Exception):
    """The daemon does not answer; one sentence."""


class Connection:
    """One connection to a control socket."""

    def __init__(self, path: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(TIMEOUT)
        try:
            self._socket.connect(path)
        except OSError as error:
            reason = error.strerror or str(error)
            raise Refused(f"Unable to connect to server control socket ({path}): {reason}") from None
        self._file = self._socket.makefile("rb")

    def ask(self, command: str) -> None:
        """Send one command."""
        try:
            self._socket.sendall(command.encode() + b"\n")
        except OSError:
            raise Refused("Connection closed by server") from None

    def answer(self) -> Iterator[str]:
        """The lines of one answer, the last with a blank behind its code."""
        while True:
            try:
                line = self._file.readline(_LONGEST)
            except OSError as error:
                raise Refused(f"Server does not answer: {error}") from None
            if not line:
                raise Refused("Connection closed by server")
            text = line.decode(errors="replace").rstrip("\n")
            yield text
            if text[:4].isdigit() and text[4:5] == " ":
                return


def main(arguments: list[str] | None = None, default: str = "bird.ctl") -> int:
    """Run the client; the exit status. `default` is the socket's name where none is given."""
    program = "birdcl6" if default == "bird6.ctl" else "birdcl"
    try:
        options, words = getopt.getopt(sys.argv[1:] if arguments is None else arguments, "s:vrl")
    except getopt.GetoptError as error:
        print(f"{program}: {error}\nUsage: {program} [-s <control-socket>] [-v] [-r] [-l]", file=sys.stderr)
        return 1
    flags = dict(options)
    name = default if "-l" in flags else os.path.join(DIRECTORY, default)
    try:
        return _run(flags.get("-s", name), "-v" in flags, "-r" in flags, words)
    except Refused as error:
        print(error, file=sys.stderr)
        return 1
    except (BrokenPipeError, KeyboardInterrupt):
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 1


def _run(path: str, verbose: bool, restricted: bool, words: list[str]) -> int:
    connection = Connection(path)
    _show(connection.answer(), verbose)
    if restricted:
        connection.ask("restrict")
        _show(connection.answer(), verbose)
    if not words:
        _interactive(connection, verbose, sys.stdin)
        return 0
    status = 0 if _command(connection, " ".join(words), verbose) else 1
    sys.stdout.flush()
    return status


def _interactive(connection: Connection, verbose: bool, lines: TextIO) -> None:
    """Commands from standard input until its end, or `quit`."""
    while True:
        print("bird> ", end="", flush=True)
        line = lines.readline()
        if not line:
            print()
            return
        if not lines.isatty():
            print(line, end="")
        words = line.split()
        if words and words[0] in ("quit", "exit"):
            return
        if words:
            _command(connection, line.strip(), verbose)


def _command(connection: Connection, line: str, verbose: bool) -> bool:
    """Ask, and show the answer; whether it is none of an error."""
    if line in ("?", "help"):
        print(_HELP)
        return True
    expanded = expand(line)
    if expanded is None:
        print(NO_SUCH_COMMAND)
        return False
    connection.ask(expanded)
    return _show(connection.answer(), verbose)


def expand(line: str) -> str | None:
    """A command with its first words written out; None where there is none, or more than one."""
    words = line.split()
    place = ""
    for number, word in enumerate(words[:2]):
        known = _WORDS.get(place, ()) if number == 0 or place == "show" else ()
        if not known:
            break
        found = [word] if word in known else [one for one in known if one.startswith(word)]
        if len(found) != 1:
            return None
        words[number] = place = found[0]
    return " ".join(words)


def _show(lines: Iterator[str], verbose: bool) -> bool:
    """Print an answer as BIRD's client does; whether it is none of an error."""
    code = 0
    for line in lines:
        if line[:1] in (" ", "+"):
            print(f"     {line[1:]}" if verbose else line[1:])
        elif line[:4].isdigit() and line[4:5] in (" ", "-"):
            code = int(line[:4])
            if code:
                print(line if verbose else line[5:])
        else:
            print(f"??? <{line}>")
    return code < 8000


if __name__ == "__main__":
    sys.exit(main(default="bird6.ctl" if os.environ.get("BIRDCL_FAMILY") == "6" else "bird.ctl"))
