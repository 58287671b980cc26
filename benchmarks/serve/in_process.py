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
from rankloom_adapters.bundle import open_bundle
from rankloom_engine.loading import Hardware, load_decoder
from rankloom_engine.memory import keep_freed_memory
from rankloom_engine.model import Decoder
from rankloom_engine.runner import EngineLimits, EngineRunner
from rankloom_features.event_store.sqlite import SqliteEventStore
from rankloom_features.event_store.store import events_beside
from rankloom_features.provider import UserQuery
from rankloom_ranker.loaded import load_bundle
from rankloom_ranker.query import RankQuery
from rankloom_ranker.ranker import Ranker, RankingJob
from rankloom_server.config import EngineSettings, Settings

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
    ranker: Ranker
    decoder: Decoder
    jobs: tuple[RankingJob, ...]

    @asynccontextmanager
    async def running(self) -> AsyncIterator[EngineRunner]:
        """The engine, started; closed when the block ends."""
        runner = EngineRunner(self.decoder, _limits(self.settings.engine))
        await runner.start()
        try:
            yield runner
        finally:
            await runner.close()


def server_settings(bundle: Path, dtype: str, threads: int) -> Settings:
    """Settings for both sides. Neither keeps prefixes, so every call costs the same."""
    return Settings(
        bundle=bundle,
        engine=EngineSettings(
            dtype=cast("Literal['float32', 'bfloat16']", dtype),
            threads=threads,
            prefix_cache_mib=0,
        ),
    )


def describe(settings: Settings, calls: BenchmarkCalls) -> PromptFacts:
    """Facts about the prompts of the calls."""
    jobs = load(settings, calls).jobs
    return PromptFacts(
        statistics.median(len(each.prompt.prefix) for each in jobs),
        statistics.median(len(one) for each in jobs for one in each.prompt.candidates),
        dict(Counter(each.mixture.route.value for each in jobs)),
    )


def score(
    settings: Settings, calls: BenchmarkCalls, in_flight: int, seconds: float, first: int = 0
) -> CallTimes:
    """Scores the calls again and again; arguments as for ``closed_loop``."""
    loaded, reused = load(settings, calls), list[bool]()

    async def run() -> list[float]:
        async with loaded.running() as runner:

            async def work(each: RankingJob) -> None:
                reused.append(bool((await runner.score(each.prompt, each.weights)).reused))

            return await closed_loop(work, loaded.jobs, in_flight, seconds, first)

    return CallTimes(asyncio.run(run()), sum(reused))


def scores(settings: Settings, calls: BenchmarkCalls, num: int) -> list[dict[str, float]]:
    """Scores by item of the first ``num`` calls, one call after the other."""
    loaded = load(settings, calls)

    async def run() -> list[dict[str, float]]:
        async with loaded.running() as runner:
            pairs = list(zip(calls, loaded.jobs, strict=True))[:num]
            return [await _scores(loaded, runner, *pair) for pair in pairs]

    return asyncio.run(run())


@cache
def load(settings: Settings, calls: BenchmarkCalls) -> PreparedCalls:
    """Loads the bundle and prepares the calls, once per process."""
    keep_freed_memory()
    torch.set_num_threads(settings.engine.threads)
    store = SqliteEventStore(events_beside(settings.bundle))
    loaded = load_bundle(open_bundle(settings.bundle), events=store)
    engine = settings.engine
    hardware = Hardware(engine.device, engine.dtype, engine.compile)
    ranker, decoder = Ranker(loaded), load_decoder(loaded.engine_parts(), hardware)
    return PreparedCalls(settings, ranker, decoder, tuple(_prepare(ranker, call) for call in calls))


async def _scores(
    loaded: PreparedCalls, runner: EngineRunner, call: BenchmarkCall, job: RankingJob
) -> dict[str, float]:
    scored = await runner.score(job.prompt, job.weights)
    found = loaded.ranker.finish(job, scored.margins).score.tolist()
    return dict(zip(call.items, found, strict=True))


def _prepare(ranker: Ranker, call: BenchmarkCall) -> RankingJob:
    catalogue, provider = ranker.loaded.catalogue, ranker.loaded.provider
    items = tuple(catalogue.items[catalogue.index(item)] for item in call.items)
    query = RankQuery("", UserQuery(call.user, None, items))
    return ranker.prepare(query, provider.features(query.user))


def _limits(settings: EngineSettings) -> EngineLimits:
    return EngineLimits(
        max_batch_tokens=settings.max_batch_tokens,
        max_chunk_tokens=settings.max_batch_tokens // 2,
        prefix_cache_bytes=settings.prefix_cache_mib << 20,
    )
