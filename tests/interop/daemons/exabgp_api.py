"""ExaBGP's API process: commands come from a FIFO and go to ExaBGP, its JSON messages go to a file.

ExaBGP starts this with the two paths as arguments. Only the standard library, and only what Python 3.9 knows: it runs
under whatever interpreter ExaBGP has.
"""

import os
import sys
import threading


def main(commands: str, messages: str) -> None:
    """Copy lines both ways until ExaBGP goes."""

    def forward() -> None:
        # Opened for writing too, so that the end of one writer is not the end of the file.
        with os.fdopen(os.open(commands, os.O_RDWR), "r") as source:
            for line in source:
                sys.stdout.write(line)
                sys.stdout.flush()

    threading.Thread(target=forward, daemon=True).start()
    with open(messages, "a") as out:
        for line in sys.stdin:
            out.write(line)
            out.flush()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
