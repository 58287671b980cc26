"""Fused experts equal merged weights, for every row of a batch with its own mixture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import peft
import pytest
import torch
from transformers import LlamaForCausalLM

from engine.families import FAMILIES, tiny_family
from engine.tiny import (
    COLUMNS,
    HIDDEN,
    LATENT,
    plain_margin,
    random_expert,
    random_segment,
    tiny_decoder,
    tiny_model,
    weights_of,
)
from rankloom_adapters.expert import Expert, ExpertError
from rankloom_adapters.router import Fusion
from rankloom_engine.expert_bank import (
    MAX_STACKS,
    ExpertBank,
    MixtureWeights,
    install,
    merged_delta,
)
from rankloom_engine.model import Decoder, ForwardInput
from rankloom_engine.packing import collate
from rankloom_engine.projector import Projector

FP32_TOLERANCE = 1e-5
PROJECTIONS = (
    *("q_proj", "k_proj", "v_proj", "o_proj", "out_proj", "dense"),
    *("qkv_proj", "query_key_value"),
)
BF16_TOLERANCE = 0.06  # root mean square, in standard deviations of the margins


def inputs_of(weights: Sequence[MixtureWeights], seed: int = 0) -> list[ForwardInput]:
    random = np.random.default_rng(seed)
    return [
        ForwardInput(
            random_segment(random, int(random.integers(3, 20))),
            [random_segment(random, int(random.integers(2, 7))) for _ in range(3)],
            own,
        )
        for own in weights
    ]


def random_mixtures(num_rows: int, num_experts: int) -> list[MixtureWeights]:
    random = np.random.default_rng(num_experts)
    return [weights_of(random, num_experts) for _ in range(num_rows)]


def margins_of(decoder: Decoder, inputs: Sequence[ForwardInput]) -> np.ndarray:
    return np.concatenate([output.margins for output in decoder.forward(inputs)])


def merged_decoder(decoder: Decoder, experts: Sequence[Expert], weights: MixtureWeights) -> Decoder:
    """The same model with the weighted deltas added to its weights."""
    merged = Decoder(tiny_model(), decoder.projector, yes=3, no=4)
    merged.model.to(next(decoder.model.parameters()).dtype)
    for path, delta in merged_delta(experts, weights.values.tolist()).items():
        weight = merged.model.get_parameter(f"{path}.weight")
        weight.data += delta.to(weight.dtype)
    return merged


def merged_margins(
    decoder: Decoder, experts: Sequence[Expert], inputs: Sequence[ForwardInput]
) -> np.ndarray:
    return np.concatenate(
        [margins_of(merged_decoder(decoder, experts, one.weights), [one]) for one in inputs]
    )


def fused_and_merged(num_experts: int, dtype: torch.dtype) -> tuple[np.ndarray, np.ndarray]:
    """Margins of eight rows, each with its own mixture: fused, and by merged weights."""
    ranks = [1 + 3 * (n % 3) for n in range(num_experts)]  # mixed ranks
    decoder, experts = tiny_decoder(ranks)
    decoder.model.to(dtype)
    inputs = inputs_of(random_mixtures(8, num_experts))
    return margins_of(decoder, inputs), merged_margins(decoder, experts, inputs)


@pytest.mark.parametrize("num_experts", range(1, 9))
def test_fused_equals_merged_weights(num_experts: int) -> None:
    fused, merged = fused_and_merged(num_experts, torch.float32)
    assert np.abs(fused - merged).max() <= FP32_TOLERANCE * np.abs(merged).max()


@pytest.mark.parametrize("num_experts", range(1, 9))
def test_fused_equals_merged_weights_in_bf16(num_experts: int) -> None:
    fused, merged = fused_and_merged(num_experts, torch.bfloat16)
    exact, _ = fused_and_merged(num_experts, torch.float32)
    error = np.sqrt(np.square(fused - merged).mean())
    assert error <= BF16_TOLERANCE * merged.std()
    assert_same_order(exact, fused, BF16_TOLERANCE * exact.std())


def assert_same_order(exact: np.ndarray, found: np.ndarray, tolerance: float) -> None:
    """99 % of the pairs that differ by more than the tolerance keep their order."""
    gaps, kept = (one[:, None] - one[None, :] for one in (exact, found))
    clear = gaps > tolerance
    assert (kept[clear] > 0).mean() >= 0.99


@torch.inference_mode()
def test_full_prompts_of_the_merged_plain_model_agree() -> None:
    """Compared with transformers' own forward: no packing, no pruning, no mixture layer."""
    decoder, experts = tiny_decoder((4, 4))
    random = np.random.default_rng(8)
    prefix = random_segment(random, 25, soft=False)
    candidates = [random_segment(random, n, soft=False) for n in (2, 5, 3)]
    one = ForwardInput(prefix, candidates, weights_of(random, 2))
    merged = merged_decoder(decoder, experts, one.weights)
    for margin, candidate in zip(margins_of(decoder, [one]), candidates, strict=True):
        ids = [*prefix.ids.tolist(), *candidate.ids.tolist()]
        assert abs(margin - plain_margin(merged, ids)) <= FP32_TOLERANCE


@pytest.mark.parametrize("name", FAMILIES)
@torch.inference_mode()
def test_every_family_scores_as_its_merged_weights(name: str) -> None:
    """Experts on all projections of attention, compared with transformers on full prompts."""
    model, plain = (tiny_family(name, **FAMILIES[name]) for _ in range(2))
    experts = [random_expert(f"e{n}", model, 4, n, PROJECTIONS) for n in range(2)]
    random = np.random.default_rng(6)
    weights = weights_of(random, 2)
    for path, delta in merged_delta(experts, weights.values.tolist()).items():
        plain.get_parameter(f"{path}.weight").data += delta
    decoder = Decoder(model, Projector(LATENT, COLUMNS, HIDDEN).eval(), yes=3, no=4)
    decoder.bank = install(model, experts)
    prefix = random_segment(random, 60, soft=False)
    candidates = [random_segment(random, n, soft=False) for n in (2, 5, 3)]
    found = margins_of(decoder, [ForwardInput(prefix, candidates, weights)])
    ids = [[*prefix.ids.tolist(), *candidate.ids.tolist()] for candidate in candidates]
    logits = [plain(torch.tensor([each])).logits[0, -1] for each in ids]
    expected = np.array([float(each[3] - each[4]) for each in logits])
    assert np.abs(expected).max() > 0.1
    assert np.abs(found - expected).max() <= FP32_TOLERANCE * max(1.0, np.abs(expected).max())


def test_two_users_in_one_micro_batch_get_their_own_mixtures() -> None:
    """The published code of ThinkRec gives the second user of a batch the first one's mixture."""
    decoder, experts = tiny_decoder((4, 4))
    mixtures = [MixtureWeights(row) for row in np.eye(2, dtype=np.float32)]
    one = inputs_of(mixtures[:1])[0]
    inputs = [ForwardInput(one.prefix, one.candidates, own) for own in mixtures]
    first, second = (output.margins for output in decoder.forward(inputs))
    assert np.abs(np.append(first, second) - merged_margins(decoder, experts, inputs)).max() < 1e-5
    assert np.abs(first - second).min() > 1e-2


def test_a_mixture_of_identical_experts_is_that_expert() -> None:
    model = tiny_model()
    same = random_expert("same", model, 4, 1)
    decoder = Decoder(model, tiny_decoder()[0].projector, yes=3, no=4)
    decoder.bank = install(model, [same, same, same])
    mixed, alone = (
        margins_of(decoder, inputs_of([MixtureWeights(np.array(row, np.float32))]))
        for row in ([0.2, 0.5, 0.3], [0.0, 1.0, 0.0])
    )
    assert np.allclose(mixed, alone, atol=1e-5)


def test_without_weights_it_is_the_base_model() -> None:
    decoder, _ = tiny_decoder()
    plain = Decoder(tiny_model(), decoder.projector, yes=3, no=4)
    inputs = inputs_of([MixtureWeights(np.zeros(3, np.float32))] * 2)
    batch = collate([one.row() for one in inputs])
    with torch.inference_mode():
        assert torch.equal(decoder.margins(batch), plain.margins(batch))
    assert np.allclose(margins_of(decoder, inputs), margins_of(plain, inputs), atol=1e-6)


def sparse(num: int, chosen: Sequence[int], fusion: Fusion) -> MixtureWeights:
    values = np.zeros(num, dtype=np.float32)
    values[list(chosen)] = np.linspace(0.1, 0.5, len(chosen))
    return MixtureWeights(values, fusion)


def test_few_of_many_experts_equal_merged_weights_too() -> None:
    """Far beyond a quarter of the hidden size, each row goes through its own experts only."""
    decoder, experts = tiny_decoder([4] * 40)
    chosen = [[0, 39], [7], [3, 11, 12, 30], []]
    inputs = inputs_of([sparse(40, own, Fusion.EXACT_SUM) for own in chosen])
    assert (
        np.abs(margins_of(decoder, inputs) - merged_margins(decoder, experts, inputs)).max() <= 1e-5
    )


@pytest.mark.parametrize("fusion", list(Fusion))
def test_a_row_scores_the_same_stacked_and_row_by_row(fusion: Fusion) -> None:
    """The other rows decide which way the batch goes; all fusions share a batch."""
    decoder, _ = tiny_decoder([4] * 12)
    narrow = sparse(12, [1], fusion)
    alone = margins_of(decoder, inputs_of([narrow]))
    others = [sparse(12, range(12), other) for other in Fusion]
    together = margins_of(decoder, inputs_of([narrow, *others]))[: len(alone)]
    assert np.abs(alone - together).max() <= FP32_TOLERANCE


def peft_linear(experts: Sequence[Expert], weights: MixtureWeights) -> LlamaForCausalLM:
    """The deltas of PEFT's own add_weighted_adapter(combination_type="linear")."""
    rank = experts[0].rank
    config = peft.LoraConfig(
        r=rank, lora_alpha=rank * experts[0].scale, target_modules=["q_proj", "v_proj", "o_proj"]
    )
    model: Any = peft.get_peft_model(tiny_model(), config, adapter_name="0")
    for number in range(1, len(experts)):
        model.add_adapter(str(number), config)
    for number, expert in enumerate(experts):
        for path, factors in expert.modules.items():
            layer = model.base_model.model.get_submodule(path)
            layer.lora_A[str(number)].weight.data.copy_(torch.from_numpy(factors.a))
            layer.lora_B[str(number)].weight.data.copy_(torch.from_numpy(factors.b))
    names = [str(number) for number in range(len(experts))]
    model.add_weighted_adapter(names, weights.values.tolist(), "mixture", combination_type="linear")
    model.set_adapter("mixture")
    merged: LlamaForCausalLM = model.merge_and_unload()
    return merged


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore:Already found:UserWarning")
def test_peft_linear_is_what_peft_computes() -> None:
    decoder, experts = tiny_decoder([4] * 3)
    random = np.random.default_rng(6)
    values = weights_of(random, 3).values
    fusions = (Fusion.PEFT_LINEAR, Fusion.EXACT_SUM)
    linear, exact = (MixtureWeights(values, fusion) for fusion in fusions)
    found = margins_of(decoder, inputs_of([linear]))
    theirs = Decoder(peft_linear(experts, linear), decoder.projector, yes=3, no=4)
    assert np.abs(found - margins_of(theirs, inputs_of([linear]))).max() <= FP32_TOLERANCE
    assert np.abs(found - margins_of(decoder, inputs_of([exact]))).max() > 1e-2


def test_loading_a_slot_changes_that_slot_alone() -> None:
    decoder, experts = tiny_decoder([4] * 3)
    bank = decoder.bank
    assert isinstance(bank, ExpertBank)
    rows = [MixtureWeights(row) for row in np.eye(3, dtype=np.float32)]
    before = [margins_of(decoder, inputs_of([own])) for own in rows]
    other = random_expert("other", tiny_model(), 2, 99)
    bank.load(1, other)
    after = [margins_of(decoder, inputs_of([own])) for own in rows]
    changed = [bool(np.abs(a - b).max() > 1e-3) for a, b in zip(before, after, strict=True)]
    assert changed == [False, True, False]
    inputs = inputs_of(rows[1:2])
    expected = merged_margins(decoder, [experts[0], other, experts[2]], inputs)
    assert np.abs(after[1] - expected).max() <= FP32_TOLERANCE
    assert bank.digests == [experts[0].digest, other.digest, experts[2].digest]


def test_a_slot_takes_no_expert_of_a_higher_rank() -> None:
    decoder, experts = tiny_decoder([4, 4])
    assert decoder.bank is not None
    wide = random_expert("wide", tiny_model(), 5, 1)
    with pytest.raises(ExpertError, match="wide: rank 5 does not fit into slots of rank 4"):
        decoder.bank.load(0, wide)
    assert decoder.bank.digests == [expert.digest for expert in experts]


def test_an_expert_of_another_base_is_refused() -> None:
    model = tiny_model()
    expert = random_expert("wide", model, 4, 1)
    path, pair = next(iter(expert.modules.items()))
    wrong = type(pair)(pair.a[:, :-1], pair.b)
    misfit = type(expert)("wide", expert.digest, 4, 1.0, {**expert.modules, path: wrong})
    with pytest.raises(ExpertError, match=r"wide: .*shape"):
        install(model, [misfit])


def test_views_of_sparse_mixtures_are_few_and_right() -> None:
    """16 slots have 136 runs: a layer keeps views of some."""
    decoder, _ = tiny_decoder((4,) * 16)
    assert decoder.bank is not None
    layer = next(iter(decoder.bank._layers.values()))
    for first in range(16):
        for stop in range(first + 1, 17):
            a, b = layer.stacked(first, stop)
            assert torch.equal(a, layer.a[first:stop].flatten(0, 1).T)
            assert torch.equal(b, layer.b[first:stop].flatten(0, 1))
            assert len(layer._stacks) <= MAX_STACKS
