"""The same calls without a server: prepared prompts, an event loop and the model thread.

Features, trees, router and prompt are worked out before the clock runs, by the server's
own code: what a server costs beyond this is what everything around the engine costs.
It runs in a process of its own, which keeps what it has loaded.
"""

from __future__ import annotations

import asyncio
import statistics
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import cache

import torch
from rankloom_server.scoring import Prepared, Served, prepare
from serve_load import Call, closed_loop

from rankloom_engine.loading import Hardware
from rankloom_engine.memory import keep_freed_memory
from rankloom_engine.runner import EngineLimits, EngineRunner
from rankloom_features.provider import UserQuery
from rankloom_server.app import Parts, load_parts
from rankloom_server.config import Settings
from rankloom_server.features import EmbeddedFeatures, space_of
from rankloom_server.parse import RankQuery

Calls = tuple[Call, ...]


@dataclass(frozen=True, slots=True)
class Prompts:
    """What the prompts are like: medians of tokens, and how many mixtures took each route."""

    prefix_tokens: float
    candidate_tokens: float
    routes: dict[str, int]


@dataclass(frozen=True, slots=True)
class Scoring:
    """Seconds of each call, and how many of them found their prefix kept from another."""

    latencies: list[float]
    num_reused: int


@dataclass(frozen=True, slots=True, eq=False)
class Loaded:
    """A bundle as a server loads it, and all that its engine needs for each call."""

    settings: Settings
    parts: Parts
    prepared: tuple[Prepared, ...]

    @asynccontextmanager
    async def running(self) -> AsyncIterator[EngineRunner]:
        """The engine, taking work."""
        runner = _runner(self.settings, self.parts)
        await runner.start()
        try:
            yield runner
        finally:
            await runner.close()


def describe(settings: Settings, calls: Calls) -> Prompts:
    """The prompts of the calls."""
    prepared = load(settings, calls).prepared
    return Prompts(
        statistics.median(len(each.prompt.prefix) for each in prepared),
        statistics.median(len(one) for each in prepared for one in each.prompt.candidates),
        dict(Counter(each.mixture.route.value for each in prepared)),
    )


def score(
    settings: Settings, calls: Calls, in_flight: int, seconds: float, first: int = 0
) -> Scoring:
    """Scores in the calls' order, again and again, as ``closed_loop`` does."""
    loaded, reused = load(settings, calls), []

    async def run() -> list[float]:
        async with loaded.running() as runner:

            async def work(each: Prepared) -> None:
                reused.append((await runner.score(each.prompt, each.weights)).reused)

            return await closed_loop(work, loaded.prepared, in_flight, seconds, first)

    return Scoring(asyncio.run(run()), sum(reused))


def scores(settings: Settings, calls: Calls, num: int) -> list[dict[str, float]]:
    """The score of each item of the first ``num`` calls, one call after the other."""
    loaded = load(settings, calls)

    async def run() -> list[dict[str, float]]:
        async with loaded.running() as runner:
            pairs = list(zip(calls, loaded.prepared, strict=True))[:num]
            return [await _scores(loaded, runner, *pair) for pair in pairs]

    return asyncio.run(run())


@cache
def load(settings: Settings, calls: Calls) -> Loaded:
    """Loads and prepares what this process is to score, once."""
    keep_freed_memory()
    torch.set_num_threads(settings.threads)
    hardware = Hardware(settings.device, settings.dtype, settings.compile)
    parts = load_parts(settings.bundle, hardware)
    served = _served(settings, parts)
    return Loaded(settings, parts, tuple(_prepare(served, parts, call) for call in calls))


async def _scores(
    loaded: Loaded, runner: EngineRunner, call: Call, prepared: Prepared
) -> dict[str, float]:
    scored = await runner.score(prepared.prompt, prepared.weights)
    tree_logits = prepared.tree_logits()[prepared.order]
    found = loaded.parts.engine.weaver.finish(scored.margins, tree_logits).score.tolist()
    return {call.items[place]: one for place, one in zip(prepared.order, found, strict=True)}


def _prepare(served: Served, parts: Parts, call: Call) -> Prepared:
    catalogue = parts.own.provider.catalogue
    items = tuple(catalogue.items[catalogue.index(item)] for item in call.items)
    query = RankQuery("", UserQuery(call.user, None, items))
    features = parts.own.provider.features(query.user)
    return asyncio.run(prepare(served, query, features, None))


def _served(settings: Settings, parts: Parts) -> Served:
    """As the server puts it together."""
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
        max_chunk_tokens=settings.max_batch_tokens // 2,
        prefix_cache_bytes=settings.prefix_cache_mib << 20,
    )
    return EngineRunner(parts.engine.decoder, limits)
