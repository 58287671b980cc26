"""Scoring without an event loop: the same margins in any micro-batch, and errors passed on."""

from __future__ import annotations

import numpy as np
import pytest

from engine.test_runner import alone, mixture, prompt_of
from engine.tiny import tiny_decoder
from rankloom_engine.offline import score_all


@pytest.mark.parametrize("max_batch_tokens", [1, 40, 4096])
def test_every_prompt_gets_what_it_gets_alone(max_batch_tokens: int) -> None:
    prompts = [
        (prompt_of(seed, 1 + seed % 7, prefix=3 + seed % 4), mixture(seed % 3))
        for seed in range(12)
    ]
    steps: list[tuple[int, int]] = []
    found = score_all(
        tiny_decoder()[0],
        prompts,
        max_batch_tokens,
        lambda num_scored, num_prompts: steps.append((num_scored, num_prompts)),
    )
    for (prompt, weights), margins in zip(prompts, found, strict=True):
        assert np.abs(margins - alone(prompt, weights)).max() <= 1e-5
    assert steps == sorted(steps)
    assert steps[-1] == (12, 12)


def test_no_prompts_are_no_work() -> None:
    assert score_all(tiny_decoder()[0], [], 100) == []


def test_what_the_model_raises_is_passed_on() -> None:
    broken = prompt_of(0)
    broken.prefix.ids[0] = 10_000  # no such token
    with pytest.raises(IndexError):
        score_all(tiny_decoder()[0], [(broken, mixture(0))], 100)
