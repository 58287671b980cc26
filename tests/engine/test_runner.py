"""The model thread: micro-batches of several users, chunks, deadlines, cancellation, failure."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Sequence

import numpy as np
import pytest

from engine.tiny import random_segment, tiny_decoder
from rankloom_adapters.router import Fusion
from rankloom_engine.errors import EngineClosedError, EngineFailedError, WorkExpiredError
from rankloom_engine.expert_bank import MixtureWeights
from rankloom_engine.model import ForwardInput, ForwardOutput
from rankloom_engine.passes import AllAtOnce, Passes, RowByRow
from rankloom_engine.prompt import Prompt
from rankloom_engine.runner import EngineLimits, EngineRunner
from rankloom_engine.sequence import RequestOptions, Scored

LIMITS = EngineLimits(max_batch_tokens=4096, max_chunk_tokens=2048, prefix_cache_bytes=1 << 20)
SMALL_CHUNKS = EngineLimits(max_batch_tokens=40, max_chunk_tokens=12, prefix_cache_bytes=0)


def prompt_of(seed: int, num_candidates: int = 2, prefix: int = 5) -> Prompt:
    random = np.random.default_rng(seed)
    candidates = tuple(random_segment(random, 3) for _ in range(num_candidates))
    return Prompt(random_segment(np.random.default_rng(prefix), prefix), candidates, 0)


def mixture(index: int) -> MixtureWeights:
    return MixtureWeights(np.eye(3, dtype=np.float32)[index])


def alone(prompt: Prompt, weights: MixtureWeights) -> np.ndarray:
    return (
        tiny_decoder()[0]
        .forward([ForwardInput(prompt.prefix, prompt.candidates, weights)])[0]
        .margins
    )


@pytest.fixture
async def runner() -> AsyncIterator[EngineRunner]:
    made = EngineRunner(tiny_decoder()[0], LIMITS)
    await made.start()
    yield made
    await made.close()


@pytest.mark.parametrize("limits", [LIMITS, SMALL_CHUNKS])
async def test_many_users_at_once_get_what_each_gets_alone(limits: EngineLimits) -> None:
    """Whatever the size of micro-batches and chunks."""
    runner = EngineRunner(tiny_decoder()[0], limits)
    await runner.start()
    prompts = [prompt_of(seed, 1 + seed % 7, prefix=3 + seed % 4) for seed in range(12)]
    found = await asyncio.gather(
        *(runner.score(prompt, mixture(n % 3)) for n, prompt in enumerate(prompts))
    )
    await runner.close()
    for n, (prompt, scored) in enumerate(zip(prompts, found, strict=True)):
        assert np.abs(scored.margins - alone(prompt, mixture(n % 3))).max() <= 1e-5
        assert scored.queue_s >= 0.0
        assert scored.model_s > 0.0


async def test_the_same_users_next_call_reuses_the_prefix(runner: EngineRunner) -> None:
    first, second = prompt_of(1), prompt_of(2)
    assert not (await runner.score(first, mixture(0))).reused
    again = await runner.score(second, mixture(0))
    assert again.reused
    assert np.abs(again.margins - alone(second, mixture(0))).max() <= 1e-5


@pytest.mark.parametrize(
    "other",
    [
        (prompt_of(2), mixture(1)),
        (prompt_of(2), MixtureWeights(np.array([0.9, 0.0, 0.0], np.float32))),
        (prompt_of(2), MixtureWeights(np.eye(3, dtype=np.float32)[0], Fusion.PEFT_LINEAR)),
        (prompt_of(2, prefix=6), mixture(0)),
    ],
    ids=["experts", "weights", "fusion", "tokens"],
)
async def test_other_content_never_reuses_a_prefix(
    runner: EngineRunner, other: tuple[Prompt, MixtureWeights]
) -> None:
    await runner.score(prompt_of(1), mixture(0))
    assert not (await runner.score(*other)).reused


async def test_a_soft_token_is_content_too(runner: EngineRunner) -> None:
    first = prompt_of(1)
    await runner.score(first, mixture(0))
    other = prompt_of(1)
    other.prefix.latent[0][0] += 1e-3
    assert not (await runner.score(other, mixture(0))).reused


async def test_another_experts_bytes_in_the_same_slot_are_other_content() -> None:
    decoder, experts = tiny_decoder((4, 4, 4))
    runner = EngineRunner(decoder, LIMITS)
    await runner.start()
    before = await runner.score(prompt_of(1), mixture(0))
    assert decoder.bank is not None
    decoder.bank.load(0, experts[1])
    after = await runner.score(prompt_of(1), mixture(0))
    await runner.close()
    assert not after.reused
    assert np.abs(before.margins - after.margins).max() > 1e-3


async def test_an_expired_request_never_reaches_the_model() -> None:
    decoder, runner = await gated_runner(LIMITS)
    decoder.passes.release(2)
    with pytest.raises(WorkExpiredError):
        await runner.score(prompt_of(0), mixture(0), RequestOptions(time.monotonic() - 1.0))
    assert (await runner.score(prompt_of(0, 3), mixture(0))).margins.shape == (3,)
    await runner.close()
    assert decoder.rows == [3]


async def test_a_cancelled_request_leaves_the_queue(runner: EngineRunner) -> None:
    calls = [asyncio.create_task(runner.score(prompt_of(n), mixture(0))) for n in range(20)]
    await asyncio.sleep(0)
    for call in calls:
        call.cancel()
    await asyncio.gather(*calls, return_exceptions=True)
    assert all(call.cancelled() for call in calls)
    assert runner.num_waiting == 0
    assert (await runner.score(prompt_of(0), mixture(0))).margins.shape == (2,)


class GatedDecoder:
    """A decoder whose passes wait until they are let through, one by one."""

    def __init__(self) -> None:
        self._decoder = tiny_decoder()[0]
        self.bank, self.digest = self._decoder.bank, self._decoder.digest
        self.passes = threading.Semaphore(0)
        self.rows: list[int] = []

    def forward(self, inputs: Sequence[ForwardInput]) -> list[ForwardOutput]:
        self.passes.acquire()
        self.rows.append(sum(len(one.candidates) for one in inputs))
        return self._decoder.forward(inputs)


async def gated_runner(limits: EngineLimits) -> tuple[GatedDecoder, EngineRunner]:
    decoder = GatedDecoder()
    runner = EngineRunner(decoder, limits)  # type: ignore[arg-type]
    await runner.start()
    return decoder, runner


async def test_a_caller_can_work_while_the_model_runs() -> None:
    """Once for each request, however many passes it takes."""
    decoder, runner = await gated_runner(SMALL_CHUNKS)
    done: list[int] = []

    async def score(seed: int) -> Scored:
        with runner.submit(prompt_of(seed, 8), mixture(0)) as request:
            assert await request.started()
            done.append(seed)
            return await request.result()

    calls = [asyncio.create_task(score(seed)) for seed in range(2)]
    async with asyncio.timeout(5.0):
        while not done:
            await asyncio.sleep(0.001)
    assert decoder.rows == [], "no pass has been let through yet"
    decoder.passes.release(100)
    for call in calls:
        assert not np.isnan((await call).margins).any()
    await runner.close()
    assert len(decoder.rows) > 2
    assert sorted(done) == [0, 1]


@pytest.mark.parametrize("partial", [False, True])
async def test_a_request_that_never_starts_ends_at_its_deadline(partial: bool) -> None:
    decoder, runner = await gated_runner(LIMITS)
    first = asyncio.create_task(runner.score(prompt_of(0), mixture(0)))
    await asyncio.sleep(0.01)
    options = RequestOptions(time.monotonic() + 0.05, partial=partial)
    with runner.submit(prompt_of(1), mixture(0), options) as request:
        assert not await request.started()
        if partial:
            assert np.isnan((await request.result()).margins).all()
        else:
            with pytest.raises(WorkExpiredError):
                await request.result()
    assert runner.num_waiting == 0
    decoder.passes.release(20)
    await first
    await runner.close()
    assert len(decoder.rows) == 1


async def test_an_error_of_the_caller_takes_its_request_off_the_queue() -> None:
    """Between submission and result, as a cancellation there does."""
    decoder, runner = await gated_runner(SMALL_CHUNKS)

    async def fail() -> None:
        with runner.submit(prompt_of(3, num_candidates=40), mixture(0)) as request:
            assert await request.started()
            assert runner.num_waiting == 1
            raise ArithmeticError

    with pytest.raises(ArithmeticError):
        await fail()
    assert runner.num_waiting == 0
    decoder.passes.release(50)
    await runner.close()
    assert len(decoder.rows) == 1


async def test_a_failing_request_starts_and_then_raises(runner: EngineRunner) -> None:
    broken = prompt_of(0)
    broken.prefix.ids[0] = 10_000  # no such token
    with runner.submit(broken, mixture(0)) as request:
        assert await request.started()
        with pytest.raises(EngineFailedError):
            await request.result()


async def test_at_the_deadline_a_partial_answer_holds_what_was_scored() -> None:
    decoder, runner = await gated_runner(SMALL_CHUNKS)
    prompt = prompt_of(3, num_candidates=8)
    options = RequestOptions(time.monotonic() + 1.0, partial=True)
    decoder.passes.release()
    scored = await runner.score(prompt, mixture(0), options)
    done = ~np.isnan(scored.margins)
    assert done.tolist() == [True] * decoder.rows[0] + [False] * (8 - decoder.rows[0])
    assert 0 < done.sum() < 8
    assert np.abs(scored.margins[done] - alone(prompt, mixture(0))[done]).max() <= 1e-5
    decoder.passes.release(20)
    await runner.close()


async def test_a_partial_answer_may_be_empty() -> None:
    decoder, runner = await gated_runner(LIMITS)
    options = RequestOptions(time.monotonic() + 0.05, partial=True)
    scored = await runner.score(prompt_of(0, 3), mixture(0), options)
    assert np.isnan(scored.margins).tolist() == [True] * 3
    decoder.passes.release(20)
    await runner.close()


async def test_without_a_partial_answer_the_deadline_is_an_error() -> None:
    decoder, runner = await gated_runner(LIMITS)
    with pytest.raises(WorkExpiredError):
        await runner.score(prompt_of(0), mixture(0), RequestOptions(time.monotonic() + 0.05))
    decoder.passes.release(20)
    await runner.close()


async def test_a_cancelled_request_takes_no_further_pass() -> None:
    """The next micro-batch is formed without it."""
    decoder, runner = await gated_runner(SMALL_CHUNKS)
    call = asyncio.create_task(runner.score(prompt_of(3, num_candidates=40), mixture(0)))
    await asyncio.sleep(0.05)
    call.cancel()
    decoder.passes.release(50)
    other: Scored = await runner.score(prompt_of(4), mixture(1))
    assert np.isfinite(other.margins).all()
    await runner.close()
    assert sum(decoder.rows[1:]) == 2  # the pass that was running, and the other call's


async def test_a_flood_of_one_caller_lets_another_through() -> None:
    decoder, runner = await gated_runner(EngineLimits(60, 30, 0))
    flood = [
        asyncio.create_task(runner.score(prompt_of(n), mixture(0), RequestOptions(caller="many")))
        for n in range(60)
    ]
    await asyncio.sleep(0.05)
    one = asyncio.create_task(runner.score(prompt_of(99), mixture(1), RequestOptions(caller="one")))
    await asyncio.sleep(0)
    decoder.passes.release(3)
    await asyncio.wait_for(one, 5.0)
    assert sum(call.done() for call in flood) < len(flood) / 2
    decoder.passes.release(100)
    await asyncio.gather(*flood)
    await runner.close()


async def test_a_failing_batch_fails_its_callers_only(runner: EngineRunner) -> None:
    broken = prompt_of(0)
    broken.prefix.ids[0] = 10_000  # no such token
    with pytest.raises(EngineFailedError):
        await runner.score(broken, mixture(0))
    assert (await runner.score(prompt_of(1), mixture(1))).margins.shape == (2,)


async def test_a_non_finite_score_is_a_failure(runner: EngineRunner) -> None:
    poisoned = prompt_of(0)
    poisoned.prefix.latent[0][:] = np.inf
    with pytest.raises(EngineFailedError, match="non-finite"):
        await runner.score(poisoned, mixture(0))
    assert len(runner.prefixes) == 0, "a poisoned prefix must not be cached"


@pytest.mark.parametrize("way", [RowByRow, AllAtOnce])
@pytest.mark.parametrize("harm", ["overflow", "no such token"])
async def test_one_callers_fault_fails_no_other_caller(way: type[Passes], harm: str) -> None:
    """Where all rows attend at once, a value that is not finite reaches every row."""
    decoder, _ = tiny_decoder()
    decoder.passes = way()
    runner = EngineRunner(decoder)
    expected = alone(prompt_of(1), mixture(1))
    await runner.start()
    harmed = prompt_of(0)
    if harm == "overflow":
        harmed.prefix.latent[0][:] = 3e38
    else:
        harmed.prefix.ids[0] = 10_000
    calls = [runner.score(harmed, mixture(0)), runner.score(prompt_of(1), mixture(1))]
    failure, scored = await asyncio.gather(*calls, return_exceptions=True)
    await runner.close()
    assert isinstance(failure, EngineFailedError)
    assert isinstance(scored, Scored)
    assert np.abs(scored.margins - expected).max() < 1e-5


async def test_close_finishes_what_was_submitted() -> None:
    runner = EngineRunner(tiny_decoder()[0])
    await runner.start()
    calls = [asyncio.create_task(runner.score(prompt_of(n), mixture(0))) for n in range(5)]
    await asyncio.sleep(0)
    await runner.close()
    assert all(len(scored.margins) == 2 for scored in await asyncio.gather(*calls))
    with pytest.raises(EngineClosedError):
        await runner.score(prompt_of(0), mixture(0))
