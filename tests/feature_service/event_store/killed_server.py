"""Feature servers that are killed: each line of standard input starts one, by a fork, which saves
the imports.

    ["BUNDLE", "FOLDER/FILE"]

The line of JSON that answers has its process and its port. The next line is read once it is dead.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path

from rankloom_features.event_store.sqlite import SqliteEventStore
from rankloom_server import logs
from rankloom_server.feature_app import feature_server, opened_features
from server.servers import settings


async def serve(bundle: Path, events: Path) -> None:
    """Serves until it is killed."""
    logs.configure("error")  # else standard output has them too
    digest, features = opened_features(bundle, events=SqliteEventStore(events))
    server = feature_server(settings().server, features, digest)
    port = await server.start("127.0.0.1", 0)
    await server.open()
    print(json.dumps([os.getpid(), port]), flush=True)
    await server.grpc.wait_for_termination()


if __name__ == "__main__":
    for line in sys.stdin:
        if not (child := os.fork()):
            asyncio.run(serve(*map(Path, json.loads(line))))
        os.waitpid(child, 0)
