"""Warm-up: passes that run before there are requests."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
from torch import nn

from engine.test_packing import random_inputs
from engine.test_runner import mixture, prompt_of
from engine.tiny import tiny_decoder
from rankloom_engine.buckets import buckets
from rankloom_engine.model import Decoder
from rankloom_engine.model_thread import ModelThread
from rankloom_engine.runner import EngineRunner


@contextmanager
def sizes_of(module: nn.Module) -> Iterator[set[int]]:
    """Collects the numbers of tokens that go through a module inside the block."""
    seen: set[int] = set()
    hook = module.register_forward_hook(lambda _, args, __: seen.add(args[0].shape[1]))
    yield seen
    hook.remove()


def first_and_second(decoder: Decoder) -> list[nn.Module]:
    return [decoder.model.get_submodule(f"model.layers.{n}.mlp.up_proj") for n in range(2)]


def test_kernels_are_made_for_every_size_by_the_first_layer() -> None:
    decoder, _ = tiny_decoder()
    decoder.kernels_by_size = True
    first, second = first_and_second(decoder)
    with sizes_of(first) as seen, sizes_of(second) as seen_by_second:
        decoder.warm_up(700)
    assert seen | {1} == set(buckets(701)), "one is a number of verdicts alone"
    assert seen_by_second == {2, 4}


def test_nothing_is_prepared_if_kernels_take_any_size() -> None:
    decoder, _ = tiny_decoder()
    first, _ = first_and_second(decoder)
    with sizes_of(first) as seen:
        decoder.warm_up(700)
    assert seen == {2, 4}


@pytest.mark.parametrize("by_size", [False, True])
def test_scores_are_the_same_afterwards(by_size: bool) -> None:
    decoder, _ = tiny_decoder()
    decoder.kernels_by_size = by_size
    inputs = random_inputs(np.random.default_rng(1), 3)
    before = decoder.forward(inputs)
    decoder.warm_up(100)
    for one, other in zip(before, decoder.forward(inputs), strict=True):
        assert np.array_equal(one.margins, other.margins)


@pytest.mark.parametrize("experts", [True, False])
def test_a_decoder_of_one_layer_is_warmed_up_too(experts: bool) -> None:
    decoder, _ = tiny_decoder(num_layers=1)
    decoder.kernels_by_size = True
    if not experts:
        decoder.bank = None
    layer = decoder.model.get_submodule("model.layers.0.self_attn.k_proj")
    with sizes_of(layer) as seen:
        decoder.warm_up(100)
    assert {size for size in seen if size >= 16} == set(list(buckets(101))[4:])


def test_no_row_is_longer_than_models_have_learned_positions() -> None:
    decoder, _ = tiny_decoder()
    decoder.kernels_by_size = True
    positions: set[int] = set()
    rotary = decoder.model.get_submodule("model.rotary_emb")
    hook = rotary.register_forward_hook(
        lambda _, __, given, ___: positions.add(int(given["position_ids"].max())), with_kwargs=True
    )
    decoder.warm_up(2048)
    hook.remove()
    assert 100 < max(positions) < 512


async def test_other_decoders_use_the_thread_during_a_warm_up() -> None:
    thread = ModelThread()
    (one, _), (other, _) = tiny_decoder(), tiny_decoder(seed=1)
    other.kernels_by_size = True
    runner, late = EngineRunner(one, thread=thread), EngineRunner(other, thread=thread)
    await runner.start()
    warming = asyncio.create_task(late.warm_up())
    await asyncio.sleep(0)
    num_scored = 0
    while not warming.done():
        await runner.score(prompt_of(num_scored), mixture(0))
        num_scored += 1
    await warming
    await runner.close()
    await thread.close(1.0)
    assert num_scored > 10
