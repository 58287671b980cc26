"""All ways to run a pass give the same result."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.families import FAMILIES, tiny_family
from engine.test_packing import TOLERANCE, random_inputs
from engine.tiny import COLUMNS, HIDDEN, LATENT, random_segment, tiny_decoder, weights_of
from rankloom_adapters.router import Fusion
from rankloom_engine import graphs
from rankloom_engine.attention import PrefixKV
from rankloom_engine.expert_bank import MixtureWeights
from rankloom_engine.graphs import MAX_TOKENS, MIN_TOKENS
from rankloom_engine.model import DecodeInput, Decoder, ForwardInput, ForwardOutput
from rankloom_engine.passes import AllAtOnce, Passes, Recorded
from rankloom_engine.projector import Projector


def run_again(work: Callable[[], Any]) -> Callable[[], Any]:
    """Like a CUDA graph: the same work on the same memory, overwriting its results."""
    states, seen = work()

    def again() -> Any:  # noqa: ANN401
        now, seen_now = work()
        states.copy_(now)
        for layer, sides in seen_now.items():
            for mine, found in zip(seen[layer], sides, strict=True):
                mine.copy_(found)
        return states, seen

    return again


def recorded(decoder: Decoder) -> Recorded:
    return Recorded(decoder.model, decoder.bank, run_again)


RANKS = (2, 1, 2)  # so low that all three can be stacked


def by(
    make: Callable[[Decoder], Passes], ranks: tuple[int, ...] = RANKS
) -> tuple[Decoder, Decoder]:
    """Two equal decoders: one that runs row by row, and one with other passes."""
    plain, other = tiny_decoder(ranks)[0], tiny_decoder(ranks)[0]
    other.passes = make(other)
    return plain, other


def assert_alike(found: list[ForwardOutput], expected: list[ForwardOutput]) -> None:
    for one, other in zip(found, expected, strict=True):
        assert np.abs(one.margins - other.margins).max() <= TOLERANCE
        assert (one.prefix is None) == (other.prefix is None)
        if one.prefix and other.prefix:
            assert_same_prefix(one.prefix, other.prefix)


def assert_same_prefix(one: PrefixKV, other: PrefixKV) -> None:
    for mine, theirs in zip((*one.keys, *one.values), (*other.keys, *other.values), strict=True):
        assert mine.shape == theirs.shape
        assert mine.numel() == 0 or float((mine - theirs).abs().max()) <= TOLERANCE


WAYS = [pytest.param(lambda _: AllAtOnce(), id="at once"), pytest.param(recorded, id="recorded")]


@pytest.mark.parametrize("way", WAYS)
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000), num=st.integers(1, 5))
def test_rankings_are_the_same(way: Callable[[Decoder], Passes], seed: int, num: int) -> None:
    """New prefixes first, then the cached ones together with new ones."""
    plain, other = by(way)
    random = np.random.default_rng(seed)
    inputs = random_inputs(random, num)
    expected, found = plain.forward(inputs), other.forward(inputs)
    new = random_inputs(random, 2)
    assert_alike(other.forward(new), plain.forward(new))  # the cached prefixes do not change
    assert_alike(found, expected)
    again = [
        ForwardInput(cached.prefix, one.candidates, one.weights)
        for one, cached in zip(inputs, found, strict=True)
        if cached.prefix is not None
    ]
    assert_alike(other.forward([*again, *new]), plain.forward([*again, *new]))
    assert not isinstance(other.passes, Recorded) or len(other.passes.recordings) > 1


@pytest.mark.parametrize("way", [pytest.param(lambda own: own.passes, id="row by row"), *WAYS])
def test_a_pass_that_has_the_size_of_one_is_not_padded(way: Callable[[Decoder], Passes]) -> None:
    plain, other = by(way)
    random = np.random.default_rng(5)
    inputs = [
        ForwardInput(
            random_segment(random, 61),
            [random_segment(random, 13) for _ in range(8)],
            weights_of(random, len(RANKS)),
            keep_prefix=True,
        )
        for _ in range(2)
    ]
    sizes: list[int] = []
    layer = other.model.get_submodule("model.layers.0.mlp")
    hook = layer.register_forward_hook(lambda _, args, __: sizes.append(args[0].shape[1]))
    found = other.forward(inputs)
    again = [
        ForwardInput(each.prefix or one.prefix, one.candidates, one.weights)
        for one, each in zip(inputs, found, strict=True)
    ]
    second = other.forward(again)
    hook.remove()
    assert set(sizes) == {2 * (64 + 8 * 16), 2 * 8 * 16} or isinstance(other.passes, Recorded)
    padded = plain.forward([*inputs, *random_inputs(random, 1)])[:2]
    assert_alike(found, padded)
    for one, two in zip(second, padded, strict=True):
        assert np.abs(one.margins - two.margins).max() <= TOLERANCE


@pytest.mark.parametrize("way", WAYS)
def test_decoded_logits_are_the_same(way: Callable[[Decoder], Passes]) -> None:
    """Several texts, one token at a time behind the cached text."""
    plain, other = by(way)
    random = np.random.default_rng(3)
    texts = [
        DecodeInput(None, random_segment(random, n), weights_of(random, 3)) for n in (30, 4, 11)
    ]
    steps = [texts, texts]
    for _ in range(4):
        expected, found = plain.decode(steps[0]), other.decode(steps[1])
        for one, two in zip(found, expected, strict=True):
            assert np.abs(one.logits - two.logits).max() <= TOLERANCE
            assert_same_prefix(one.cached, two.cached)
        word = random_segment(random, 0, soft=False)
        steps = [
            [
                DecodeInput(each.cached, word, text.weights)
                for each, text in zip(read, texts, strict=True)
            ]
            for read in (expected, found)
        ]


def test_a_size_is_recorded_once() -> None:
    _, decoder = by(recorded)
    random = np.random.default_rng(0)
    assert isinstance(decoder.passes, Recorded)
    for _ in range(30):
        decoder.forward(random_inputs(random, 1))
    sizes = MAX_TOKENS.bit_length() - MIN_TOKENS.bit_length() + 1
    assert 1 <= len(decoder.passes.recordings) <= sizes


@pytest.mark.parametrize("ranks", [RANKS, (4, 8, 2, 8, 8)], ids=["few experts", "many experts"])
def test_a_size_of_the_warm_up_is_not_recorded_again(ranks: tuple[int, ...]) -> None:
    _, decoder = by(recorded, ranks=ranks)
    assert isinstance(decoder.passes, Recorded)
    decoder.warm_up(256)
    known = len(decoder.passes.recordings)
    assert known == 2 * len(list(decoder.passes.sizes(256))) > 0
    random = np.random.default_rng(7)
    for length, num in ((20, 20), (100, 1), (150, 10), (200, 3)):
        candidates = [random_segment(random, 3) for _ in range(num)]
        one = MixtureWeights(np.eye(len(ranks), dtype=np.float32)[num % len(ranks)])
        [left] = decoder.forward(
            [ForwardInput(random_segment(random, length), candidates, one, True)]
        )
        assert left.prefix is not None
        decoder.forward([ForwardInput(left.prefix, candidates, one)])
    assert len(decoder.passes.recordings) == known


def test_a_size_that_cannot_be_recorded_runs_unrecorded() -> None:
    plain, decoder = by(recorded)

    def short_of_memory(_: Callable[[], object]) -> Callable[[], object]:
        raise torch.OutOfMemoryError("synthetic")

    decoder.passes = Recorded(decoder.model, decoder.bank, short_of_memory)
    inputs = random_inputs(np.random.default_rng(3), 2)
    for _ in range(2):
        assert_alike(decoder.forward(inputs), plain.forward(inputs))
    assert len(decoder.passes.recordings) == 0


def test_the_least_recently_used_recordings_go_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graphs, "MAX_RECORDINGS", 2)
    plain, decoder = by(recorded)
    assert isinstance(decoder.passes, Recorded)
    random = np.random.default_rng(0)
    for length in (10, 100, 200, 400, 10):
        inputs = [
            ForwardInput(
                random_segment(random, length), [random_segment(random, 3)], weights_of(random, 3)
            )
        ]
        assert_alike(decoder.forward(inputs), plain.forward(inputs))
        assert len(decoder.passes.recordings) <= 2


def linear(random: np.random.Generator) -> MixtureWeights:
    return MixtureWeights(weights_of(random, 3).values, Fusion.PEFT_LINEAR)


def many(random: np.random.Generator) -> MixtureWeights:
    return weights_of(random, 9)


@pytest.mark.parametrize(
    ("ranks", "weights", "length"),
    [
        pytest.param(RANKS, linear, 20, id="no sum"),
        pytest.param((2,) * 9, many, 20, id="too many experts"),
        pytest.param(RANKS, lambda random: weights_of(random, 3), MAX_TOKENS, id="too long"),
    ],
)
def test_a_pass_that_cannot_be_recorded_runs_unrecorded(
    ranks: tuple[int, ...], weights: Callable[[np.random.Generator], MixtureWeights], length: int
) -> None:
    plain, decoder = by(recorded, ranks=ranks)
    assert isinstance(decoder.passes, Recorded)
    random = np.random.default_rng(1)
    inputs = [
        ForwardInput(random_segment(random, length), [random_segment(random, 3)], weights(random))
    ]
    assert_alike(decoder.forward(inputs), plain.forward(inputs))
    assert len(decoder.passes.recordings) == 0


def test_other_experts_need_no_other_recording() -> None:
    plain, decoder = by(recorded)
    assert isinstance(decoder.passes, Recorded)
    random = np.random.default_rng(4)
    prefix, candidates = random_segment(random, 20), [random_segment(random, 3)]
    for values in ([1.0, 0.0, 0.0], [0.0, 0.2, 0.8], [0.0, 0.0, 0.0]):
        inputs = [
            ForwardInput(prefix, candidates, MixtureWeights(np.array(values, dtype=np.float32)))
        ]
        assert_alike(decoder.forward(inputs), plain.forward(inputs))
    assert len(decoder.passes.recordings) == 1


@torch.inference_mode()
def test_a_model_without_experts_is_recorded_too() -> None:
    plain, decoder = by(recorded)
    plain.bank = decoder.bank = None
    decoder.passes = recorded(decoder)
    inputs = random_inputs(np.random.default_rng(6), 3)
    assert_alike(decoder.forward(inputs), plain.forward(inputs))


def test_padding_has_a_position_that_every_model_has() -> None:
    """275 tokens are recorded as 512, and this model has learned 64 positions."""
    fields = {**FAMILIES["opt"], "max_position_embeddings": 64}
    model = tiny_family("opt", **fields)
    decoder = Decoder(model, Projector(LATENT, COLUMNS, HIDDEN).eval(), yes=3, no=4)
    random, none = np.random.default_rng(7), MixtureWeights(np.zeros(0, np.float32))
    inputs = [
        ForwardInput(
            random_segment(random, 50, soft=False), [random_segment(random, 3, soft=False)], none
        )
        for _ in range(5)
    ]
    plain = [output.margins for output in decoder.forward(inputs)]
    decoder.passes = recorded(decoder)
    found = [output.margins for output in decoder.forward(inputs)]
    assert np.abs(np.array(found) - np.array(plain)).max() <= TOLERANCE
