"""Above its capacity an engine answers about as many requests in time as it can at its peak."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import suppress

import numpy as np
import pytest

from engine.tiny import random_segment, tiny_decoder
from rankloom_engine.errors import EngineOverloadedError, WorkExpiredError
from rankloom_engine.expert_bank import MixtureWeights
from rankloom_engine.model import ForwardInput, ForwardOutput
from rankloom_engine.prompt import Prompt
from rankloom_engine.runner import EngineLimits, EngineRunner
from rankloom_engine.sequence import RequestOptions

TOKENS, TOKEN_S = 40, 0.0002  # of a request; of the model
CAPACITY = 1.0 / (TOKENS * TOKEN_S)  # requests a second
DEADLINE_S, PLACES, SECONDS = 0.4, 64, 2.0
LIMITS = EngineLimits(max_batch_tokens=400, max_chunk_tokens=400, prefix_cache_bytes=0)
MIXTURE = MixtureWeights(np.eye(3, dtype=np.float32)[0])


class SteadyDecoder:
    """A decoder that takes its time for every token; ``factor``: times TOKEN_S."""

    def __init__(self) -> None:
        self._decoder = tiny_decoder()[0]
        self.bank, self.digest = self._decoder.bank, self._decoder.digest
        self.factor = 1.0

    def forward(self, inputs: Sequence[ForwardInput]) -> list[ForwardOutput]:
        tokens = sum(len(one.prefix) + sum(map(len, one.candidates)) for one in inputs)
        end = time.monotonic() + tokens * TOKEN_S * self.factor
        outputs = [ForwardOutput(np.zeros(len(one.candidates), np.float32), None) for one in inputs]
        time.sleep(max(0.0, end - time.monotonic()))
        return outputs


def prompt() -> Prompt:
    random = np.random.default_rng(0)
    return Prompt(random_segment(random, TOKENS // 2), (random_segment(random, TOKENS // 2),), 0)


async def answered(runner: EngineRunner, load: float, seconds: float = SECONDS) -> float:
    """Share of the capacity that is answered in time at ``load`` times the capacity."""
    asked, in_time, in_flight = prompt(), 0, 0

    async def call() -> None:
        nonlocal in_time, in_flight
        if in_flight >= PLACES:
            return
        in_flight += 1
        options = RequestOptions(time.monotonic() + DEADLINE_S)
        with suppress(EngineOverloadedError, WorkExpiredError):
            await runner.score(asked, MIXTURE, options)
            in_time += time.monotonic() < options.deadline
        in_flight -= 1

    start = time.monotonic()
    async with asyncio.TaskGroup() as group:
        for number in range(round(load * CAPACITY * seconds)):
            due = start + number / (load * CAPACITY)
            if (left := due - time.monotonic()) > 0:
                await asyncio.sleep(left)
            group.create_task(call())
    return in_time / (CAPACITY * seconds)


@pytest.mark.parametrize("load", [1.4, 5.0])
async def test_goodput_stays_near_the_peak(load: float) -> None:
    runner = EngineRunner(SteadyDecoder(), LIMITS)  # type: ignore[arg-type]
    await runner.start()
    found = await answered(runner, load)
    await runner.close()
    assert found > 0.75, "of what the model can do, with a machine that others use too"


async def test_a_wrong_estimate_locks_nobody_out() -> None:
    """Once slow, ever refused? An idle model is always tried."""
    decoder = SteadyDecoder()
    runner = EngineRunner(decoder, LIMITS)  # type: ignore[arg-type]
    await runner.start()
    decoder.factor = 20.0
    assert await answered(runner, 2.0, 1.0) < 0.3
    decoder.factor = 1.0
    await answered(runner, 1.0, 1.0)
    found = await answered(runner, 1.4)
    await runner.close()
    assert found > 0.75


async def test_a_refusal_comes_at_once_and_says_how_late_it_would_be() -> None:
    runner = EngineRunner(SteadyDecoder(), LIMITS)  # type: ignore[arg-type]
    await runner.start()
    await answered(runner, 3.0, 0.5)  # learns the speed
    patient = [asyncio.create_task(runner.score(prompt(), MIXTURE)) for _ in range(60)]
    await asyncio.sleep(0)
    began = time.monotonic()
    with pytest.raises(EngineOverloadedError) as refused:
        await runner.score(prompt(), MIXTURE, RequestOptions(began + 0.001))
    assert time.monotonic() - began < 0.05
    assert refused.value.excess_s > 0.0
    for each in patient:
        each.cancel()
    await asyncio.gather(*patient, return_exceptions=True)
    await runner.close()
