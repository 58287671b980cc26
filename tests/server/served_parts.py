"""A bundle in memory, for many servers."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from rankloom_adapters.bundle import open_bundle
from rankloom_engine.loading import Hardware, load_decoder
from rankloom_engine.model import Decoder
from rankloom_features.event_store.sqlite import SqliteEventStore
from rankloom_features.event_store.store import events_beside
from rankloom_ranker.loaded import LoadedBundle, load_bundle
from rankloom_server.app import servers
from rankloom_server.rpc.lifecycle import RpcServer
from server.servers import settings

PATIENCE_S = 30.0


@dataclass(frozen=True, slots=True, eq=False)
class ServedParts:
    """``decoder``: what servers of this bundle score with."""

    loaded: LoadedBundle
    decoder: Decoder


def load_parts(folder: Path, hardware: Hardware | None = None) -> ServedParts:
    loaded = load_bundle(open_bundle(folder), events=SqliteEventStore(events_beside(folder)))
    return ServedParts(loaded, load_decoder(loaded.engine_parts(), hardware))


@asynccontextmanager
async def ranking_server(parts: ServedParts, **values: object) -> AsyncIterator[RpcServer]:
    """A server that does not listen yet; it loads all but the decoder from the folder."""
    given = settings(bundle=parts.loaded.bundle.folder, **values)
    others = model_threads()
    try:
        async with servers(given, load=lambda *_: parts.decoder) as (server, _):
            yield server
    finally:
        # A slow pass outlives its server, and the next server has the same decoder: two passes at
        # once would mix their experts.
        for thread in model_threads() - others:
            thread.join(PATIENCE_S)


def model_threads() -> set[threading.Thread]:
    return {each for each in threading.enumerate() if each.name == "rankloom-model"}
