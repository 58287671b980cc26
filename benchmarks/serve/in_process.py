"""The same calls without a server: prepared prompts, an event loop and the model's thread.

The server's own code computes features, trees, routing and prompts before the clock runs, so the
difference to a real server is the cost of everything around the engine. It runs in its own
process, which keeps what it has loaded. Of the benchmarks' files, this one alone knows the
server's internals.
"""

from __future__ import annotations

import asyncio
import statistics
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal, cast

import torch

from benchmarks.common.rank_calls import BenchmarkCall
from benchmarks.serve.load import closed_loop
from rankloom_engine.loading import Hardware
from rankloom_engine.memory import keep_freed_memory
from rankloom_engine.runner import EngineLimits, EngineRunner
from rankloom_features.provider import UserQuery
from rankloom_server.app import Parts, load_parts
from rankloom_server.config import Settings
from rankloom_server.features import EmbeddedFeatures, space_of
from rankloom_server.parse import RankQuery
from rankloom_server.scoring import Prepared, Served, prepare

BenchmarkCalls = tuple[BenchmarkCall, ...]


@dataclass(frozen=True, slots=True)
class PromptFacts:
    """Medians of the prompts' tokens, and how many users' mixtures took each route."""

    prefix_tokens: float
    candidate_tokens: float
    routes: dict[str, int]


@dataclass(frozen=True, slots=True)
class CallTimes:
    """Seconds of each call, and how many calls found their prefix cached."""

    latencies: list[float]
    num_reused: int


@dataclass(frozen=True, slots=True, eq=False)
class PreparedCalls:
    """A bundle as a server loads it, and what its engine needs for each call."""

    settings: Settings
    parts: Parts
    prepared: tuple[Prepared, ...]

    @asynccontextmanager
    async def running(self) -> AsyncIterator[EngineRunner]:
        """The engine, started; closed when the block ends."""
        runner = _runner(self.settings, self.parts)
        await runner.start()
        try:
            yield runner
        finally:
            await runner.close()


def server_settings(bundle: Path, dtype: str, threads: int) -> Settings:
    """Settings for both sides. Neither keeps prefixes, so every call costs the same."""
    return Settings(
        bundle=bundle,
        dtype=cast("Literal['float32', 'bfloat16']", dtype),
        threads=threads,
        prefix_cache_mib=0,
    )


def describe(settings: Settings, calls: BenchmarkCalls) -> PromptFacts:
    """Facts about the prompts of the calls."""
    prepared = load(settings, calls).prepared
    return PromptFacts(
        statistics.median(len(each.prompt.prefix) for each in prepared),
        statistics.median(len(one) for each in prepared for one in each.prompt.candidates),
        dict(Counter(each.mixture.route.value for each in prepared)),
    )


def score(
    settings: Settings, calls: BenchmarkCalls, in_flight: int, seconds: float, first: int = 0
) -> CallTimes:
    """Scores the calls again and again; arguments as for ``closed_loop``."""
    loaded, reused = load(settings, calls), list[bool]()

    async def run() -> list[float]:
        async with loaded.running() as runner:

            async def work(each: Prepared) -> None:
                reused.append(bool((await runner.score(each.prompt, each.weights)).reused))

            return await closed_loop(work, loaded.prepared, in_flight, seconds, first)

    return CallTimes(asyncio.run(run()), sum(reused))


def scores(settings: Settings, calls: BenchmarkCalls, num: int) -> list[dict[str, float]]:
    """Scores by item of the first ``num`` calls, one call after the other."""
    loaded = load(settings, calls)

    async def run() -> list[dict[str, float]]:
        async with loaded.running() as runner:
            pairs = list(zip(calls, loaded.prepared, strict=True))[:num]
            return [await _scores(loaded, runner, *pair) for pair in pairs]

    return asyncio.run(run())


@cache
def load(settings: Settings, calls: BenchmarkCalls) -> PreparedCalls:
    """Loads the bundle and prepares the calls, once per process."""
    keep_freed_memory()
    torch.set_num_threads(settings.threads)
    hardware = Hardware(settings.device, settings.dtype, settings.compile)
    parts = load_parts(settings.bundle, hardware)
    served = _served(settings, parts)
    return PreparedCalls(settings, parts, tuple(_prepare(served, parts, call) for call in calls))


async def _scores(
    loaded: PreparedCalls, runner: EngineRunner, call: BenchmarkCall, prepared: Prepared
) -> dict[str, float]:
    scored = await runner.score(prepared.prompt, prepared.weights)
    tree_logits = prepared.tree_logits()[prepared.order]
    found = loaded.parts.engine.weaver.finish(scored.margins, tree_logits).score.tolist()
    return {call.items[index]: one for index, one in zip(prepared.order, found, strict=True)}


def _prepare(served: Served, parts: Parts, call: BenchmarkCall) -> Prepared:
    catalogue = parts.own.provider.catalogue
    items = tuple(catalogue.items[catalogue.index(item)] for item in call.items)
    query = RankQuery("", UserQuery(call.user, None, items))
    features = parts.own.provider.features(query.user)
    return asyncio.run(prepare(served, query, features, None))


def _served(settings: Settings, parts: Parts) -> Served:
    """The bundle as the server puts it together."""
    own = parts.own
    return Served(
        bundle_digest=own.bundle.digest,
        catalogue=own.provider.catalogue,
        popularity=own.popularity,
        features=EmbeddedFeatures(own.provider),
        space=space_of(own.provider),
        trees=parts.trees,
        weaver=parts.engine.weaver,
        runner=_runner(settings, parts),
    )


def _runner(settings: Settings, parts: Parts) -> EngineRunner:
    limits = EngineLimits(
        max_batch_tokens=settings.max_batch_tokens,
        max_piece_tokens=settings.max_batch_tokens // 2,
        prefix_cache_bytes=settings.prefix_cache_mib << 20,
    )
    return EngineRunner(parts.engine.decoder, limits)
