"""Loads bundles into revisions that serve, while other revisions go on serving."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import TypeVar

from rankloom_adapters.bundle import Bundle, open_bundle
from rankloom_adapters.expert_cache import ExpertCache
from rankloom_adapters.rate_limit import RateLimiter
from rankloom_adapters.rollout.loaded import NoRoomError, NotServableError
from rankloom_engine.errors import NoFreeSlotError
from rankloom_engine.loading import Hardware, dtype_on, load_decoder
from rankloom_engine.pool import DecoderLoader, EngineHandle, EnginePool
from rankloom_engine.runner import EngineLimits
from rankloom_features.event_store.memory import NO_EVENTS
from rankloom_features.event_store.store import EventStore
from rankloom_features.events import Event
from rankloom_features.provider import UserQuery
from rankloom_ranker.loaded import LoadedBundle, load_bundle
from rankloom_ranker.query import RankQuery
from rankloom_ranker.ranker import Ranker
from rankloom_ranker.ranking import rank_with_features
from rankloom_server.config import EngineSettings, LoadingSettings
from rankloom_server.features import EmbeddedFeatures, FeatureSource, RemoteFeatures
from rankloom_server.keys import keyring_of

T = TypeVar("T")


@dataclass(frozen=True, slots=True, eq=False)
class ServedRevision:
    """Everything that answers the requests of one revision."""

    ranker: Ranker
    engine: EngineHandle
    features: FeatureSource

    @property
    def loaded(self) -> LoadedBundle:
        return self.ranker.loaded


class RevisionLoader:
    """Loads revisions into one pool of engines. Use it from one event loop.

    Files are read on a thread of their own, and at a limited rate while something serves:
    requests go first. No thread has a low priority: on busy cores it would hold the
    interpreter's lock, and with it every request, while it waits for its turn. What a revision
    has in common with another one in memory is shared, and not loaded again.
    """

    def __init__(
        self,
        engine: EngineSettings,
        loading: LoadingSettings,
        feature_address: str | None = None,
        limiter: RateLimiter | None = None,
        load: DecoderLoader = load_decoder,
        events: EventStore = NO_EVENTS,
    ) -> None:
        """``limiter``: shared with all that reads bundles. ``load``: makes decoders.

        ``events``: where the histories of user ids are, for every revision.
        """
        self._events = events
        self.files = ThreadPoolExecutor(1, "rankloom-loader")
        self._fetching = asyncio.Lock()
        self._limiter = limiter or RateLimiter(loading.load_mib_s << 20)
        dtype = dtype_on(engine.device, engine.dtype)
        hardware = Hardware(engine.device, dtype, engine.compile)
        expert_bytes = engine.expert_slots_mib << 20
        self.experts = ExpertCache(loading.expert_cache_mib << 20)
        limits = _limits(engine)
        self.pool = EnginePool(hardware, limits, expert_bytes, self.files, self.experts, load)
        self._remote = RemoteFeatures(feature_address) if feature_address else None
        self._served: list[ServedRevision] = []
        self._loop = asyncio.get_running_loop()
        self._keyring = keyring_of(loading.bundle_keys)

    async def load(self, folder: Path) -> ServedRevision:
        """Loads and tries a bundle. Raises NotServableError, BundleError or NoRoomError."""
        try:
            bundle = await self.read(self.open, folder)
            like = [each.loaded for each in self._served]
            loaded = await self.read(load_bundle, bundle, like, self._events)
            engine = await self.pool.admit(loaded.engine_parts())
        except NoFreeSlotError as error:
            raise NoRoomError(str(error)) from error
        except ValueError as error:
            raise NotServableError(str(error)) from error
        return await self._tried(loaded, engine)

    def open(self, folder: Path) -> Bundle:
        """A bundle whose parts are read at the limited rate while something serves.

        The only way to a bundle here. Raises BundleError, or SignatureError where keys are
        configured and none of them signed the bundle: then nothing of it has been parsed.
        """
        check = self._keyring.check_manifest if self._keyring else None
        return open_bundle(folder, self._limiter if self._served else None, check=check)

    @property
    def needs_signatures(self) -> bool:
        """Whether only bundles signed by a configured key are loaded."""
        return self._keyring is not None

    def release(self, served: ServedRevision) -> None:
        """Releases a revision's engine handle; from any thread."""
        self._loop.call_soon_threadsafe(self._release, served)

    async def close(self) -> None:
        """Finishes what was submitted, then stops."""
        await self.pool.close()
        if self._remote:
            await self._remote.close()
        self.files.shutdown()

    async def read(self, function: Callable[..., T], *arguments: object) -> T:
        """Runs a function that reads or writes files, on the loader thread."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self.files, function, *arguments)

    async def fetch(self, function: Callable[..., T], *arguments: object) -> T:
        """Runs a function that may wait long for another machine.

        No file here waits behind it. Once its caller has left, neither the next fetch nor the
        end of the process waits for it.
        """
        async with self._fetching:
            return await asyncio.wrap_future(_abandonable(function, *arguments))

    def _release(self, served: ServedRevision) -> None:
        self._served.remove(served)
        self.pool.release(served.engine)

    async def _tried(self, loaded: LoadedBundle, engine: EngineHandle) -> ServedRevision:
        features = self._remote or EmbeddedFeatures(loaded.provider)
        served = ServedRevision(Ranker(loaded), engine, features)
        try:
            await _try_out(served)
        except BaseException:
            self.pool.release(engine)
            raise
        self._served.append(served)
        return served


def _limits(settings: EngineSettings) -> EngineLimits:
    return EngineLimits(
        max_batch_tokens=settings.max_batch_tokens,
        max_chunk_tokens=settings.max_batch_tokens // 2,
        prefix_cache_bytes=settings.prefix_cache_mib << 20,
    )


def _abandonable(function: Callable[..., T], *arguments: object) -> Future[T]:
    """The function's result, from a thread that the end of the process does not wait for."""
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(function(*arguments))
        except BaseException as error:  # whatever it is, it belongs to the caller
            future.set_exception(error)

    # Running, the future cannot be cancelled any more, and so always takes the result.
    future.set_running_or_notify_cancel()
    Thread(target=run, name="rankloom-fetcher", daemon=True).start()
    return future


async def _try_out(served: ServedRevision) -> None:
    """Ranks once with the bundle's own features. Raises NotServableError."""
    items = served.loaded.catalogue.items[:2]
    user = UserQuery(None, tuple(Event(item.item_id, True) for item in items), items)
    query = RankQuery("", user, allow_fallback=False)
    try:
        features = await asyncio.to_thread(served.loaded.provider.features, user)
        await rank_with_features(served.ranker, served.engine, query, features, None, math.inf)
    except Exception as error:  # whatever it is, such a bundle cannot be served
        raise NotServableError(f"the bundle's parts do not work together: {error}") from error
