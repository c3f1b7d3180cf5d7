"""`python -m tests.kube PORT`: an API server on 127.0.0.1 until it is stopped."""

from __future__ import annotations

import asyncio
import sys

from tests.kube.server import KubeServer


async def main(port: int) -> None:
    async with KubeServer(port=port) as server:
        # The daemon is to be told of changes by bookmarks as well, in a test's time.
        server.faults.bookmarks = 2.0
        print(f"ready {server.url}", flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
