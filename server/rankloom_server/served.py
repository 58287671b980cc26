"""From a bundle's folder to what a revision serves, while other revisions go on serving."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Thread
from typing import TypeVar

from rankloom_adapters import bundle as parts
from rankloom_adapters.bundle import Bundle, BundleError, open_bundle
from rankloom_adapters.expert_cache import ExpertCache
from rankloom_adapters.rate_limit import RateLimiter
from rankloom_adapters.rollout.loaded import NoRoomError, NotServableError
from rankloom_engine.errors import NoFreeSlotError
from rankloom_engine.loading import Engine, Hardware, load_engine
from rankloom_engine.pool import EngineHandle, EnginePool
from rankloom_engine.runner import EngineLimits
from rankloom_features.events import Event
from rankloom_features.provider import UserQuery
from rankloom_features.ranker import TreeRanker
from rankloom_server.config import Settings
from rankloom_server.errors import StartError
from rankloom_server.features import EmbeddedFeatures, FeatureSource, RemoteFeatures, space_of
from rankloom_server.loading import (
    FEATURE_PARTS,
    FeatureParts,
    features_of,
    keyring_of,
    load_features,
)
from rankloom_server.parse import RankQuery
from rankloom_server.scoring import Served, rank_with_features

T = TypeVar("T")


@dataclass(frozen=True, slots=True, eq=False)
class Parts:
    """A loaded bundle."""

    own: FeatureParts
    engine: Engine
    trees: TreeRanker


def load_parts(folder: Path, hardware: Hardware | None = None, expert_bytes: int = 0) -> Parts:
    """Loads a whole bundle; takes seconds, and blocks. Raises StartError."""
    own = load_features(folder)
    try:
        engine = load_engine(own.bundle, hardware, expert_bytes)
        return Parts(own, engine, _trees(own.bundle))
    except ValueError as error:
        raise StartError(f"{folder}: {error}") from error


@dataclass(frozen=True, slots=True, eq=False)
class _Kept:
    """What one revision serves with."""

    own: FeatureParts
    trees: TreeRanker
    handle: EngineHandle


class ServedLoader:
    """Loads revisions into one pool of engines. Use it from one event loop.

    Files are read on a thread of their own, at a pace: requests go first. No thread has a low
    priority: on busy cores it would hold the interpreter's lock, and with it every request,
    while it waits for its turn. What a revision has in common with another that serves is
    shared, and not loaded again.
    """

    def __init__(self, settings: Settings, first: Parts | None = None) -> None:
        """``first``: what is loaded already of the first bundle that will be asked for."""
        self.files = ThreadPoolExecutor(1, "rankloom-loader")
        self._fetching = asyncio.Lock()
        self._limiter = RateLimiter(settings.load_mib_s << 20)
        hardware = Hardware(settings.device, settings.dtype, settings.compile)
        expert_bytes = settings.expert_slots_mib << 20
        self.experts = ExpertCache(settings.expert_cache_mib << 20)
        limits = _limits(settings)
        self.pool = EnginePool(hardware, limits, expert_bytes, self.files, self.experts)
        self._remote = RemoteFeatures(settings.features) if settings.features else None
        self._kept: dict[Served, _Kept] = {}
        self._loop = asyncio.get_running_loop()
        self.keyring = keyring_of(settings)
        self._first = first

    async def load(self, folder: Path) -> Served:
        """Loads and tries a bundle. Raises NotServableError, BundleError or NoFreeSlotError."""
        first = self._first if self._first and _is_in(self._first, folder) else None
        self._first = None
        try:
            bundle = first.own.bundle if first else await self.read(self.open, folder)
            self.check_signature(bundle)
            own = first.own if first else await self._features_of(bundle)
            trees = first.trees if first else await self._trees_of(bundle)
            admitted = self.pool.adopt(first.engine, bundle) if first else self.pool.admit(bundle)
            return await self._tried(_Kept(own, trees, await admitted))
        except NoFreeSlotError as error:
            raise NoRoomError(str(error)) from error
        except (StartError, ValueError) as error:
            raise NotServableError(str(error)) from error

    def open(self, folder: Path) -> Bundle:
        """A bundle whose parts are read at the pace of what loads beside requests."""
        return open_bundle(folder, self._limiter)

    def check_signature(self, bundle: Bundle) -> None:
        """Raises SignatureError where keys are known and none of them signed the bundle."""
        if self.keyring is not None:
            self.keyring.check(bundle)

    def release(self, served: Served) -> None:
        """Lets go of what a revision served; from any thread."""
        self._loop.call_soon_threadsafe(self._release, served)

    def _release(self, served: Served) -> None:
        self.pool.release(self._kept.pop(served).handle)

    async def close(self) -> None:
        """Finishes what was submitted, then stops."""
        await self.pool.close()
        if self._remote:
            await self._remote.close()
        self.files.shutdown()

    async def read(self, function: Callable[..., T], *arguments: object) -> T:
        """Runs what reads or writes files."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self.files, function, *arguments)

    async def fetch(self, function: Callable[..., T], *arguments: object) -> T:
        """Runs what may wait long for another machine.

        No file here waits behind it, and once its caller has left, neither does the next one
        nor the end of the process.
        """
        async with self._fetching:
            return await asyncio.wrap_future(_left_alone(function, *arguments))

    async def _features_of(self, bundle: Bundle) -> FeatureParts:
        for kept in self._kept.values():
            if _are_same(FEATURE_PARTS, kept.own.bundle, bundle):
                return replace(kept.own, bundle=bundle)
        return await self.read(features_of, bundle)

    async def _trees_of(self, bundle: Bundle) -> TreeRanker:
        for kept in self._kept.values():
            if _are_same((parts.TREES,), kept.own.bundle, bundle):
                return kept.trees
        return await self.read(_trees, bundle)

    async def _tried(self, new: _Kept) -> Served:
        served = self._served(new)
        try:
            _check_fit(new)
            await _try_out(served, new.own)
        except BaseException:
            self.pool.release(new.handle)
            raise
        self._kept[served] = new
        return served

    def _served(self, new: _Kept) -> Served:
        provider = new.own.provider
        source: FeatureSource = self._remote or EmbeddedFeatures(provider)
        return Served(
            bundle_digest=new.own.bundle.digest,
            catalogue=provider.catalogue,
            popularity=new.own.popularity,
            features=source,
            space=space_of(provider),
            trees=new.trees,
            weaver=new.handle.weaver,
            runner=new.handle,
        )


def _check_fit(new: _Kept) -> None:
    """Raises BundleError where one part was made for another than those beside it."""
    provider = new.own.provider
    if new.handle.weaver.router.dim != provider.encoder.dim:
        raise BundleError(parts.ROUTER, "not of the feature model's latent space")
    if new.trees.num_columns != provider.num_columns:
        raise BundleError(parts.TREES, "not of the features' columns")


def _limits(settings: Settings) -> EngineLimits:
    return EngineLimits(
        max_batch_tokens=settings.max_batch_tokens,
        max_piece_tokens=settings.max_batch_tokens // 2,
        prefix_cache_bytes=settings.prefix_cache_mib << 20,
    )


def _is_in(loaded: Parts, folder: Path) -> bool:
    """Whether it is what was loaded: from there, or from where it was kept by its digest."""
    bundle = loaded.own.bundle
    return folder == bundle.folder or folder.name == bundle.digest


def _are_same(names: Sequence[str], one: Bundle, other: Bundle) -> bool:
    """Whether these parts of two bundles are; a part that is missing is found when it is read."""
    return all(one.parts.get(name) == other.parts.get(name) for name in names)


def _left_alone(function: Callable[..., T], *arguments: object) -> Future[T]:
    """What the function gives, on a thread that the end of the process does not wait for."""
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(function(*arguments))
        except BaseException as error:  # whatever it is, it belongs to who waits
            future.set_exception(error)

    # Running, the future cannot be cancelled any more, and so always takes what is given.
    future.set_running_or_notify_cancel()
    Thread(target=run, name="rankloom-fetcher", daemon=True).start()
    return future


def _trees(bundle: Bundle) -> TreeRanker:
    return TreeRanker(bundle.read(parts.TREES))


async def _try_out(served: Served, own: FeatureParts) -> None:
    """Ranks once with the bundle's own features. Raises NotServableError."""
    items = served.catalogue.items[:2]
    user = UserQuery(None, tuple(Event(item.item_id, True) for item in items), items)
    query = RankQuery("", user, allow_fallback=False)
    try:
        features = await asyncio.to_thread(own.provider.features, user)
        await rank_with_features(served, query, features, None, math.inf)
    except Exception as error:  # whatever it is, such a bundle cannot be served
        raise NotServableError(f"the bundle's parts do not work together: {error}") from error
