"""`python -m tests.kube PORT FILE`: an API server on 127.0.0.1 until SIGTERM; FILE keeps its store over restarts."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from pathlib import Path

from tests.kube.server import KubeServer
from tests.kube.store import Kind, Store, Written


def save(store: Store, file: Path) -> None:
    """Everything but who waits for news."""
    kinds = [[kind.group, kind.version, kind.plural, kind.kind, kind.namespaced] for kind in store.kinds]

    def index(kind: Kind) -> int:
        return store.kinds.index(kind)

    document = {
        "kinds": kinds,
        "revision": store.revision,
        "compacted": store.compacted,
        "objects": [[index(kind), list(found.items())] for kind, found in store.objects.items() if kind in store.kinds],
        "history": [[w.revision, index(w.kind), w.name, w.old, w.new] for w in store.history if w.kind in store.kinds],
    }
    file.write_text(json.dumps(document))


def load(file: Path) -> Store:
    """What `save` wrote; a new store where there is nothing."""
    if not file.exists():
        return Store()
    document = json.loads(file.read_text())
    kinds = [Kind(*item) for item in document["kinds"]]
    store = Store(kinds, document["revision"], document["compacted"])
    for number, found in document["objects"]:
        store.objects[kinds[number]] = {tuple(name): value for name, value in found}
    store.history = [
        Written(at, kinds[kind], tuple(name), old, new) for at, kind, name, old, new in document["history"]
    ]
    return store


async def main(port: int, file: Path) -> None:
    server = KubeServer(load(file), port=port)
    # Bookmarks in a test's time.
    server.faults.bookmarks = 1.0
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    async with server:
        print(f"ready {server.url}", flush=True)
        await stopped.wait()
    save(server.store, file)


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), Path(sys.argv[2])))
