"""The model thread: micro-batches of several users, deadlines, cancellation, failure."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import numpy as np
import pytest
import torch

from engine.tiny import random_segment, tiny_decoder
from rankloom_engine.errors import EngineClosedError, EngineFailedError, WorkExpiredError
from rankloom_engine.packing import collate, pack
from rankloom_engine.prompt import Prompt
from rankloom_engine.runner import EngineRunner


def prompt_of(seed: int, num_rows: int = 1) -> Prompt:
    random = np.random.default_rng(seed)
    prefix = random_segment(random, 5)
    rows = tuple(
        pack(prefix, [random_segment(random, 3) for _ in range(2)]) for _ in range(num_rows)
    )
    return Prompt(rows, 2 * num_rows, 0)


def mix(place: int) -> np.ndarray:
    return np.eye(3, dtype=np.float32)[place]


@pytest.fixture
async def runner() -> AsyncIterator[EngineRunner]:
    made = EngineRunner(tiny_decoder()[0], max_batch_tokens=4096)
    await made.start()
    yield made
    await made.close()


async def test_many_users_at_once_get_what_each_gets_alone(runner: EngineRunner) -> None:
    prompts = [prompt_of(seed, num_rows=1 + seed % 3) for seed in range(12)]
    found = await asyncio.gather(
        *(runner.score(prompt, mix(n % 3)) for n, prompt in enumerate(prompts))
    )
    decoder = tiny_decoder()[0]
    for n, (prompt, scored) in enumerate(zip(prompts, found, strict=True)):
        with torch.inference_mode():
            alone = [
                decoder.mixed_margins(collate([row]), torch.from_numpy(mix(n % 3)[None])).numpy()
                for row in prompt.rows
            ]
        assert np.abs(scored.margins - np.concatenate(alone)).max() <= 1e-5
        assert scored.queue_s >= 0.0
        assert scored.model_s > 0.0


async def test_expired_work_never_reaches_the_model(runner: EngineRunner) -> None:
    with pytest.raises(WorkExpiredError):
        await runner.score(prompt_of(0), mix(0), deadline=time.monotonic() - 1.0)
    assert (await runner.score(prompt_of(0), mix(0))).margins.shape == (2,)


async def test_a_cancelled_call_leaves_the_queue(runner: EngineRunner) -> None:
    calls = [asyncio.create_task(runner.score(prompt_of(n), mix(0))) for n in range(20)]
    await asyncio.sleep(0)
    for call in calls:
        call.cancel()
    await asyncio.gather(*calls, return_exceptions=True)
    assert all(call.cancelled() for call in calls)
    assert (await runner.score(prompt_of(0), mix(0))).margins.shape == (2,)


async def test_a_failing_batch_fails_its_callers_only(runner: EngineRunner) -> None:
    broken = prompt_of(0)
    broken.rows[0].tokens.ids[0] = 10_000  # no such token
    with pytest.raises(EngineFailedError):
        await runner.score(broken, mix(0))
    assert (await runner.score(prompt_of(1), mix(1))).margins.shape == (2,)


async def test_a_non_finite_score_is_a_failure(runner: EngineRunner) -> None:
    poisoned = prompt_of(0)
    poisoned.rows[0].tokens.latent[0][:] = np.inf
    with pytest.raises(EngineFailedError, match="non-finite"):
        await runner.score(poisoned, mix(0))


async def test_close_finishes_what_was_submitted() -> None:
    runner = EngineRunner(tiny_decoder()[0])
    await runner.start()
    calls = [asyncio.create_task(runner.score(prompt_of(n), mix(0))) for n in range(5)]
    await asyncio.sleep(0)
    await runner.close()
    assert all(len(scored.margins) == 2 for scored in await asyncio.gather(*calls))
    with pytest.raises(EngineClosedError):
        await runner.score(prompt_of(0), mix(0))
