"""A score is the candidate's own: alone, in any batch, in chunks, behind a cached prefix."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM

from engine.families import FAMILIES, tiny_family
from engine.tiny import VOCABULARY, plain_margin, random_segment, tiny_decoder, weights_of
from rankloom_engine import attention
from rankloom_engine.attention import AttentionRule, wire
from rankloom_engine.buckets import bucket
from rankloom_engine.errors import ModelError
from rankloom_engine.expert_bank import MixtureWeights
from rankloom_engine.model import (
    SELF_CHECK_TOKENS,
    Decoder,
    ForwardInput,
    check_positions,
    self_check,
)
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


@pytest.mark.parametrize("name", FAMILIES)
def test_packed_scoring_holds_for_the_family(name: str) -> None:
    model = tiny_family(name, **FAMILIES[name])
    self_check(model, VOCABULARY, 100)  # raises where the scores differ
    assert model.config._attn_implementation == attention.NAME, "checked, and wired"


@pytest.mark.parametrize("name", FAMILIES)
def test_positions_end_where_they_were_learned(name: str) -> None:
    """All families but OPT compute them."""
    model = tiny_family(name, **FAMILIES[name])
    check_positions(model, 512)
    if name != "opt":
        check_positions(model, 1 << 20)
        return
    with pytest.raises(ModelError, match=r"OPTForCausalLM has learned too few positions: .* 513"):
        check_positions(model, 513)


@pytest.mark.parametrize("window", [8, 90])
def test_a_mask_without_the_window_would_be_found(
    window: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The check can fail: the same model without its window is refused by name."""
    model = tiny_family("mistral", sliding_window=window)
    monkeypatch.setattr("rankloom_engine.attention.AttentionRule", _without_window)
    with pytest.raises(ModelError, match="MistralForCausalLM scores differently"):
        self_check(model, VOCABULARY, 100)


def test_positions_that_depend_on_the_longest_row_are_refused() -> None:
    """Beyond its own length, such a model changes all positions: a row would depend on others."""
    stretched = {"rope_type": "dynamic", "factor": 4.0, "rope_theta": 10_000.0}
    model = tiny_family("llama", max_position_embeddings=64, rope_parameters=stretched)
    with pytest.raises(ModelError, match="LlamaForCausalLM scores differently"):
        self_check(model, VOCABULARY, 100)


def _without_window(scale: float | None, window: int | None, softcap: float | None) -> object:
    del window
    return AttentionRule(scale, None, softcap)


def test_an_endless_prompt_is_checked_up_to_a_bound() -> None:
    model, lengths = tiny_family("llama"), set[int]()
    model.get_input_embeddings().register_forward_hook(
        lambda _, __, embedded: lengths.add(embedded.shape[-2])
    )
    self_check(model, VOCABULARY, 1 << 60)
    assert SELF_CHECK_TOKENS in lengths
    # A packed pass has rows of several lengths, and is padded.
    assert max(lengths) < 2 * SELF_CHECK_TOKENS


def test_position_biases_are_refused_by_name() -> None:
    torch.manual_seed(0)
    config = AutoConfig.for_model(
        "bloom", vocab_size=VOCABULARY, hidden_size=32, n_layer=2, n_head=4
    )
    model = AutoModelForCausalLM.from_config(config).eval()
    with pytest.raises(ModelError, match="BloomForCausalLM"):
        self_check(model, VOCABULARY, 100)


def test_outside_of_a_pass_a_model_computes_as_in_transformers() -> None:
    model = tiny_family("llama")
    ids = torch.arange(12)[None]
    before = model(ids).logits
    wire(model)
    model.set_attn_implementation("eager")
    assert torch.equal(model(ids).logits, before)
