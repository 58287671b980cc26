"""Explanations: the same text alone and in a batch, with the mixture of the ranking."""

from __future__ import annotations

import asyncio
import copy
import time
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, TypeVar

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from engine.test_prompt import TOKENIZER
from engine.tiny import random_segment, tiny_decoder, weights_of
from rankloom_engine.errors import EngineFailedError
from rankloom_engine.expert_bank import MixtureWeights, merged_delta
from rankloom_engine.explain import Detokenizer, SamplingParams, StopReason, TokenChunk
from rankloom_engine.prompt import Prompt
from rankloom_engine.runner import EngineLimits, EngineRunner
from rankloom_engine.sequence import RequestOptions

T = TypeVar("T")
EAGER = SamplingParams(max_tokens=12)


def prompt_of(seed: int, *, soft: bool = True) -> Prompt:
    random = np.random.default_rng(seed)
    return Prompt(
        random_segment(random, 6 + seed % 5, soft=soft), (random_segment(random, 4, soft=soft),), 0
    )


def mixture(seed: int) -> MixtureWeights:
    return weights_of(np.random.default_rng(seed), 3)


@pytest.fixture
async def runner() -> AsyncIterator[EngineRunner]:
    made = EngineRunner(tiny_decoder()[0], EngineLimits(prefix_cache_bytes=1 << 20))
    await made.start()
    yield made
    await made.close()


async def decoded(
    runner: EngineRunner,
    seed: int,
    sampling: SamplingParams = EAGER,
    options: RequestOptions | None = None,
    *,
    liked: bool = True,
    soft: bool = True,
) -> tuple[list[int], StopReason | None]:
    found: list[TokenChunk] = [
        chunk
        async for chunk in runner.explain(
            prompt_of(seed, soft=soft),
            mixture(seed),
            liked=liked,
            sampling=sampling,
            options=options,
        )
    ]
    assert all(chunk.stop is None for chunk in found[:-1])
    return [token for chunk in found for token in chunk.token_ids], found[-1].stop


def greedy(ids: Sequence[int], weights: MixtureWeights, num: int) -> list[int]:
    """Decoded by transformers' own forward with merged weights, the whole text for each token."""
    decoder, experts = tiny_decoder()
    decoder.bank = None
    model = copy.deepcopy(tiny_decoder()[0].model)
    for path, delta in merged_delta(experts, weights.values.tolist()).items():
        model.get_submodule(path).base.weight.data += delta  # type: ignore[union-attr,operator]
    model.set_attn_implementation("eager")  # type: ignore[operator]
    text = list(ids)
    with torch.inference_mode():
        for _ in range(num):
            text.append(int(model(torch.tensor([text])).logits[0, -1].argmax()))
    return text[len(ids) :]


@pytest.mark.parametrize("liked", [True, False])
async def test_the_text_is_that_of_the_merged_plain_model(
    runner: EngineRunner, liked: bool
) -> None:
    prompt = prompt_of(3, soft=False)
    ids = [*prompt.prefix.ids.tolist(), *prompt.candidates[0].ids.tolist(), 3 if liked else 4]
    found, stop = await decoded(runner, 3, liked=liked, soft=False)
    assert found == greedy(ids, mixture(3), EAGER.max_tokens)
    assert stop is StopReason.MAX_TOKENS


async def test_the_text_is_the_same_in_a_batch_and_behind_a_cached_prefix(
    runner: EngineRunner,
) -> None:
    alone = [(await decoded(runner, seed))[0] for seed in range(6)]
    await runner.score(prompt_of(0), mixture(0))  # its prefix is cached now
    calls = [decoded(runner, seed) for seed in range(6)]
    rankings = [runner.score(prompt_of(seed), mixture(seed)) for seed in range(10)]
    together = await asyncio.gather(*calls)
    await asyncio.gather(*rankings)
    assert [tokens for tokens, _ in together] == alone
    assert len({tuple(tokens) for tokens in alone}) == 6


async def test_sampled_text_follows_its_seed(runner: EngineRunner) -> None:
    one, same, other = [
        (await decoded(runner, 1, SamplingParams(12, temperature=1.5, seed=seed)))[0]
        for seed in (7, 7, 8)
    ]
    assert one == same != other


async def test_the_smallest_temperature_is_greedy(runner: EngineRunner) -> None:
    coldest = SamplingParams(12, temperature=5e-324, seed=3)
    assert await decoded(runner, 1, coldest) == await decoded(runner, 1)


async def test_a_stop_token_ends_the_text() -> None:
    decoder = tiny_decoder()[0]
    runner = EngineRunner(decoder)
    await runner.start()
    tokens, _ = await decoded(runner, 2)
    await runner.close()
    stopping = EngineRunner(decoder, stops={tokens[4]})
    await stopping.start()
    found, stop = await decoded(stopping, 2)
    await stopping.close()
    assert found == tokens[: tokens.index(tokens[4])]
    assert stop is StopReason.STOP_TOKEN


async def test_the_text_ends_at_the_deadline(runner: EngineRunner) -> None:
    options = RequestOptions(time.monotonic() + 1.0)
    found, stop = await decoded(runner, 1, SamplingParams(max_tokens=100_000), options)
    assert stop is StopReason.DEADLINE
    assert found


def noting(order: list[str], name: str, whole: Callable[[Any], T]) -> Callable[[Any], T]:
    """``whole``, which adds its name to ``order`` at each call."""

    def noted(work: Any) -> T:  # noqa: ANN401
        order.append(name)
        return whole(work)

    return noted


async def test_rankings_go_before_explanations(monkeypatch: pytest.MonkeyPatch) -> None:
    """An explanation takes no step while rankings wait."""
    decoder, _ = tiny_decoder()
    order: list[str] = []
    for name in ("decode", "forward"):
        monkeypatch.setattr(decoder, name, noting(order, name, getattr(decoder, name)))
    runner = EngineRunner(decoder, EngineLimits(max_batch_tokens=64, max_chunk_tokens=32))
    await runner.start()
    explanation = runner.explain(
        prompt_of(1), mixture(1), liked=True, sampling=SamplingParams(max_tokens=5_000)
    )
    await anext(explanation)
    await asyncio.gather(*(runner.score(prompt_of(n), mixture(n % 3)) for n in range(40)))
    await anext(explanation)
    await explanation.aclose()
    await runner.close()
    last = len(order) - 1 - order[::-1].index("forward")
    assert order.count("forward") > 5
    assert "decode" not in order[order.index("forward") : last]
    assert "decode" in order[last:]


async def test_a_closed_explanation_takes_no_further_step(runner: EngineRunner) -> None:
    explanation = runner.explain(
        prompt_of(1), mixture(1), liked=True, sampling=SamplingParams(max_tokens=100_000)
    )
    await anext(explanation)
    await explanation.aclose()
    await runner.score(prompt_of(2), mixture(2))
    assert not runner.num_waiting


async def test_a_failing_step_fails_the_explanation(runner: EngineRunner) -> None:
    broken = prompt_of(0)
    broken.candidates[0].ids[0] = 10_000  # no such token
    with pytest.raises(EngineFailedError):
        async for _ in runner.explain(broken, mixture(0), liked=True, sampling=EAGER):
            pass
    assert (await decoded(runner, 1))[0]


@given(st.text(max_size=40), st.integers(1, 4))
def test_text_comes_whole_and_in_order(text: str, size: int) -> None:
    """A character of several tokens never comes in part."""
    ids = TOKENIZER.encode(text, add_special_tokens=False).ids
    detokenizer = Detokenizer(TOKENIZER)
    texts = [detokenizer.add(tuple(ids[at : at + size])) for at in range(0, len(ids), size)]
    expected = TOKENIZER.decode(ids)
    assert "".join(texts) + detokenizer.end() == expected
    if "\N{REPLACEMENT CHARACTER}" not in expected:
        assert not any("\N{REPLACEMENT CHARACTER}" in part for part in texts)
