"""A score is the candidate's own: alone, in any batch, in chunks, behind a cached prefix."""

from __future__ import annotations

import copy

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from engine.families import tiny_family
from engine.tiny import plain_margin, random_segment, tiny_decoder, weights_of
from rankloom_engine.attention import wire
from rankloom_engine.buckets import bucket
from rankloom_engine.expert_bank import MixtureWeights
from rankloom_engine.model import Decoder, ForwardInput
from rankloom_engine.packing import PackedRow, Segment, collate, pack

TOLERANCE = 1e-5


def random_inputs(random: np.random.Generator, num: int) -> list[ForwardInput]:
    return [
        ForwardInput(
            random_segment(random, int(random.integers(0, 40))),
            [
                random_segment(random, int(random.integers(1, 9)))
                for _ in range(random.integers(1, 6))
            ],
            weights_of(random, 3),
            keep_prefix=True,
        )
        for _ in range(num)
    ]


def alone(decoder: Decoder, one: ForwardInput) -> list[float]:
    """Each candidate in a forward pass of its own."""
    return [
        float(decoder.forward([ForwardInput(one.prefix, [candidate], one.weights)])[0].margins[0])
        for candidate in one.candidates
    ]


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), num=st.integers(1, 5))
def test_score_is_independent_of_items_and_rows(seed: int, num: int) -> None:
    decoder, _ = tiny_decoder()
    inputs = random_inputs(np.random.default_rng(seed), num)
    for one, output in zip(inputs, decoder.forward(inputs), strict=True):
        assert np.abs(output.margins - alone(decoder, one)).max() <= TOLERANCE


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), num=st.integers(1, 5))
def test_only_bucket_sizes_are_run(seed: int, num: int) -> None:
    decoder, _ = tiny_decoder()
    seen: list[int] = []
    for module in decoder.model.get_submodule("model.layers").modules():
        if isinstance(module, nn.Linear):
            module.register_forward_hook(lambda _, args, __: seen.append(args[0].shape[1]))
    decoder.forward(random_inputs(np.random.default_rng(seed), num))
    assert seen
    assert set(seen) == {bucket(size) for size in seen}


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), cut=st.integers(1, 4))
def test_score_behind_a_cached_prefix_is_the_same(seed: int, cut: int) -> None:
    """In chunks of any size, in batches of cached and new prefixes."""
    decoder, _ = tiny_decoder()
    random = np.random.default_rng(seed)
    first, other = random_inputs(random, 2)
    whole = decoder.forward([first])[0]
    cached = decoder.forward(
        [ForwardInput(first.prefix, first.candidates[:1], first.weights, True)]
    )[0].prefix
    assert cached is not None
    assert len(cached) == len(first.prefix)
    found: list[float] = []
    for at in range(0, len(first.candidates), cut):
        chunk = ForwardInput(cached, first.candidates[at : at + cut], first.weights)
        found += decoder.forward([other, chunk])[1].margins.tolist()
    assert np.abs(whole.margins - found).max() <= TOLERANCE


@torch.inference_mode()
def test_a_candidate_that_sees_part_of_the_prefix_scores_as_behind_that_part() -> None:
    decoder, _ = tiny_decoder()
    random = np.random.default_rng(5)
    parts = [random_segment(random, 4) for _ in range(4)]
    candidates = [random_segment(random, 3) for _ in range(4)]
    lengths = np.cumsum([len(part) for part in parts]).tolist()
    window = pack(Segment.joined(parts), candidates, lengths)
    together = decoder.margins(collate([window]))
    for place, candidate in enumerate(candidates):
        behind = pack(Segment.joined(parts[: place + 1]), [candidate])
        assert abs(float(together[place] - decoder.margins(collate([behind]))[0])) <= TOLERANCE


def test_the_margin_is_the_plain_models() -> None:
    """Compared with transformers' own forward of each full prompt, whole head and all layers."""
    decoder, _ = tiny_decoder()
    decoder.bank = None
    random = np.random.default_rng(2)
    prefix = random_segment(random, 30, soft=False)
    candidates = [random_segment(random, n, soft=False) for n in (3, 1, 7)]
    found = decoder.forward(
        [ForwardInput(prefix, candidates, MixtureWeights(np.zeros(3, np.float32)))]
    )[0].margins
    for margin, candidate in zip(found, candidates, strict=True):
        ids = [*prefix.ids.tolist(), *candidate.ids.tolist()]
        assert abs(margin - plain_margin(decoder, ids)) <= TOLERANCE


def test_results_do_not_depend_on_the_number_of_threads() -> None:
    decoder, _ = tiny_decoder()
    inputs = random_inputs(np.random.default_rng(9), 4)
    before, found = torch.get_num_threads(), []
    try:
        for num in (1, 2):
            torch.set_num_threads(num)
            found.append(np.concatenate([output.margins for output in decoder.forward(inputs)]))
    finally:
        torch.set_num_threads(before)
    assert np.abs(found[0] - found[1]).max() <= TOLERANCE


def test_a_copy_of_a_wired_model_is_its_own() -> None:
    decoder, _ = tiny_decoder()
    decoder.bank = None
    twin = Decoder(copy.deepcopy(decoder.model), decoder.projector, yes=3, no=4)
    one = random_inputs(np.random.default_rng(3), 1)[0]
    before = decoder.forward([one])[0].margins
    for parameter in twin.model.parameters():
        parameter.data.mul_(1.5)
    assert np.abs(twin.forward([one])[0].margins - before).max() > 1e-2
    assert np.array_equal(decoder.forward([one])[0].margins, before)


def test_gradients_reach_every_weight_that_learning_needs() -> None:
    decoder, _ = tiny_decoder()
    decoder.bank = None
    random = np.random.default_rng(4)
    row = pack(random_segment(random, 9), [random_segment(random, 3) for _ in range(2)])
    decoder.margins(collate([row, row])).sum().backward()
    for name, parameter in decoder.model.named_parameters():
        assert parameter.grad is not None, name
        assert float(parameter.grad.abs().sum()) > 0.0, name


def test_a_pass_has_the_gradients_of_its_rows_alone() -> None:
    decoder, _ = tiny_decoder()
    decoder.bank = None
    random = np.random.default_rng(4)
    lengths = ((9, (3, 5)), (4, (2,)), (0, (6, 1, 2)))
    rows = [
        pack(random_segment(random, prefix), [random_segment(random, n) for n in own])
        for prefix, own in lengths
    ]

    def gradients(passes: list[list[PackedRow]]) -> list[torch.Tensor]:
        decoder.model.zero_grad()
        for each in passes:
            decoder.margins(collate(each)).square().sum().backward()
        return [p.grad.clone() for p in decoder.model.parameters() if p.grad is not None]

    together, alone = gradients([rows]), gradients([[row] for row in rows])
    for found, expected in zip(together, alone, strict=True):
        torch.testing.assert_close(found, expected, atol=TOLERANCE, rtol=1e-4)
        assert float(expected.abs().max()) > 10 * TOLERANCE


def test_outside_of_a_pass_a_model_computes_as_in_transformers() -> None:
    model = tiny_family("llama")
    ids = torch.arange(12)[None]
    before = model(ids).logits
    wire(model)
    model.set_attn_implementation("eager")
    assert torch.equal(model(ids).logits, before)
