"""Times evidence beside a ranking of 20 candidates, and grounding beside a step of words.

Every user is a new one with a history of 20 events, so that no cached prefix helps the ranking.
Ranking and evidence take turns user by user, each with its features, router, prompts and passes.
"""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Awaitable, Iterator, Set
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from benchmarks.common.bundles import with_random_decoder
from benchmarks.common.workload import ModelShape
from rankloom_adapters import bundle as parts
from rankloom_adapters.bundle import expert_part, open_bundle, seal
from rankloom_adapters.expert import CONFIG_FILE, WEIGHTS_FILE
from rankloom_adapters.router import GLOBAL, Router
from rankloom_engine.explain import SamplingParams
from rankloom_engine.grounding import GroundedText
from rankloom_engine.loading import Hardware
from rankloom_engine.pool import EngineHandle, EnginePool
from rankloom_engine.prompt import PromptFormat
from rankloom_engine.runner import EngineLimits
from rankloom_features.events import Event
from rankloom_features.provider import UserFeatures, UserQuery
from rankloom_ranker.evidence import ScoredQuery, evidence_of
from rankloom_ranker.loaded import load_bundle
from rankloom_ranker.query import RankQuery
from rankloom_ranker.ranker import Ranker
from rankloom_ranker.ranking import prepare, score

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
NUM_EVENTS, NUM_CANDIDATES, NUM_TOKENS = 20, 20, 48
FOREVER: Final = float("inf")


@dataclass(frozen=True, slots=True)
class RouterKind:
    """``alike``: every group has the global expert, as where no group's own was better."""

    temperature: float
    alike: bool = False


# Where the router chooses one expert, a user's variants mostly share a mixture; where it fuses,
# each has its own, and the variants share no keys and values unless the experts are alike.
KINDS: Final = {
    "single": RouterKind(0.05),
    "fused": RouterKind(0.3),
    "fused_alike": RouterKind(0.3, alike=True),
}


@dataclass(frozen=True, slots=True)
class ExplainRun:
    """One user. Seconds of CPU time; ``num_mixtures``: of the history's variants."""

    ranking_s: float
    evidence_s: float
    num_mixtures: int
    num_events: int


@dataclass(frozen=True, slots=True)
class WordsRun:
    """One text. Seconds of wall time."""

    step_s: float
    choose_s: float
    num_tokens: int


@dataclass(frozen=True, slots=True)
class ExplainStudy:
    """``evidence``: runs by kind of router; ``words``: of grounded texts."""

    evidence: dict[str, list[ExplainRun]]
    words: list[WordsRun]


def run_explain_study(trained: Path, folder: Path, shape: ModelShape, num: int) -> ExplainStudy:
    """Measures ``num`` users with each router. ``trained``: a bundle of the embedded data."""
    with_random_decoder(trained, folder / "random", shape)
    evidence: dict[str, list[ExplainRun]] = {}
    for name, kind in KINDS.items():
        bundle = with_router(folder / "random", folder / name, kind)
        evidence[name] = asyncio.run(_on(bundle, _evidence_runs, num))
    return ExplainStudy(evidence, asyncio.run(_on(folder / "single", _words_runs, num)))


def with_router(bundle: Path, out: Path, kind: RouterKind) -> Path:
    """A copy of a bundle with room for all events, and with a router of this kind."""
    shutil.copytree(bundle, out)
    opened = open_bundle(bundle)
    fmt = PromptFormat.from_bytes(opened.read(parts.PROMPT))
    router = Router.from_bytes(opened.read(parts.ROUTER))
    (out / parts.PROMPT).write_bytes(replace(fmt, max_events=NUM_EVENTS).to_bytes())
    (out / parts.ROUTER).write_bytes(replace(router, temperature=kind.temperature).to_bytes())
    for name in router.groups if kind.alike else ():
        for file in (WEIGHTS_FILE, CONFIG_FILE):
            shutil.copyfile(out / expert_part(GLOBAL, file), out / expert_part(name, file))
    seal(out, opened.metadata)
    return out


class _Bench:
    """A loaded bundle on a running engine, and random users."""

    def __init__(self, ranker: Ranker, engine: EngineHandle) -> None:
        self.ranker, self.engine = ranker, engine
        self._random = np.random.default_rng(0)

    def users(self, num: int) -> Iterator[UserQuery]:
        items = self.ranker.loaded.catalogue.items
        for _ in range(num):
            history = self._random.choice(len(items), NUM_EVENTS, replace=False)
            candidates = self._random.choice(len(items), NUM_CANDIDATES, replace=False)
            events = tuple(
                Event(items[index].item_id, bool(self._random.random() < 0.6)) for index in history
            )
            yield UserQuery(None, events, tuple(items[index] for index in candidates))

    async def ranked(self, user: UserQuery) -> ScoredQuery:
        query = RankQuery("", user)
        features = self.ranker.loaded.provider.features(user)
        job = await prepare(self.ranker, query, features, None)
        scored = await score(self.ranker, self.engine, query, job, FOREVER)
        return ScoredQuery(query, features, job, scored.scores)

    async def ablated(self, query: UserQuery) -> tuple[UserFeatures, ...]:
        return await asyncio.to_thread(self._features, query)

    def _features(self, query: UserQuery) -> tuple[UserFeatures, ...]:
        return self.ranker.loaded.provider.features(query).ablated


async def _on(folder: Path, measure: _Measure[T], num: int) -> T:
    pool = EnginePool(Hardware(), EngineLimits(), 0)
    loaded = load_bundle(open_bundle(folder))
    try:
        return await measure(_Bench(Ranker(loaded), await pool.admit(loaded.engine_parts())), num)
    finally:
        await pool.close()


class _Measure(Protocol[T_co]):
    def __call__(self, bench: _Bench, num: int, /) -> Awaitable[T_co]: ...


async def _evidence_runs(bench: _Bench, num: int) -> list[ExplainRun]:
    found = []
    for user in bench.users(num + 1):
        started = time.process_time()
        await bench.ranked(user)
        ranking_s = time.process_time() - started
        one = await bench.ranked(replace(user, candidates=user.candidates[:1]))
        started = time.process_time()
        [evidence] = await evidence_of(
            bench.ranker, bench.engine, one, bench.ablated, None, FOREVER
        )
        evidence_s = time.process_time() - started
        num_mixtures = await _num_mixtures(bench, one)
        found.append(ExplainRun(ranking_s, evidence_s, num_mixtures, len(evidence)))
    return found[1:]  # the first one warms up


async def _num_mixtures(bench: _Bench, scored: ScoredQuery) -> int:
    ablated = await bench.ablated(replace(scored.query.user, ablate_newest=NUM_EVENTS))
    jobs = [bench.ranker.prepare(scored.query, each) for each in ablated]
    return len({bench.engine.over_slots(job.weights).values.tobytes() for job in jobs})


class _TimedGuide:
    """A guide, and the seconds that it takes."""

    def __init__(self, guide: GroundedText) -> None:
        self._guide, self.seconds = guide, 0.0

    def choose(self, scores: NDArray[np.floating], stops: Set[int]) -> int | None:
        with self._timed():
            return self._guide.choose(scores, stops)

    @contextmanager
    def _timed(self) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self.seconds += time.perf_counter() - started


async def _words_runs(bench: _Bench, num: int) -> list[WordsRun]:
    return [await _words_run(bench, user, seed) for seed, user in enumerate(bench.users(num))]


async def _words_run(bench: _Bench, user: UserQuery, seed: int) -> WordsRun:
    scored = await bench.ranked(replace(user, candidates=user.candidates[:1]))
    loaded = bench.ranker.loaded
    guide = _TimedGuide(loaded.grounder.guide(scored.prompt_items(loaded.catalogue, 0)))
    sampling = SamplingParams(NUM_TOKENS, temperature=1.0, seed=seed)
    started, num_tokens = time.perf_counter(), 0
    async for chunk in bench.engine.explain(
        scored.job.prompt, scored.job.weights, liked=True, sampling=sampling, guide=guide
    ):
        num_tokens += len(chunk.token_ids)
    seconds = time.perf_counter() - started
    steps = num_tokens + 1
    return WordsRun(seconds / steps, guide.seconds / steps, num_tokens)
