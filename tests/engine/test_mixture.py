"""Fused experts equal merged weights, for every row of a batch with its own mix."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np
import pytest
import torch

from engine.tiny import random_expert, random_segment, tiny_decoder, tiny_model
from rankloom_adapters.expert import Expert, ExpertError
from rankloom_engine.mixture import install, merged_delta
from rankloom_engine.model import Decoder
from rankloom_engine.packing import PackedRow, collate, pack

FP32_TOLERANCE = 1e-5
BF16_TOLERANCE = 0.06  # root mean square, in standard deviations of the margins


def rows_of(num: int, seed: int = 0) -> list[PackedRow]:
    random = np.random.default_rng(seed)
    return [
        pack(
            random_segment(random, int(random.integers(3, 20))),
            [random_segment(random, int(random.integers(2, 7))) for _ in range(3)],
        )
        for _ in range(num)
    ]


def random_weights(num_rows: int, num_experts: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(num_experts)
    return torch.softmax(torch.randn(num_rows, num_experts, generator=generator), dim=1)


def merged_margins(
    decoder: Decoder, experts: Sequence[Expert], weights: Sequence[float], row: PackedRow
) -> torch.Tensor:
    """The same model with the weighted deltas added to its weights."""
    merged = Decoder(copy.deepcopy(tiny_model()), decoder.projector, yes=3, no=4)
    merged.model.to(next(decoder.model.parameters()).dtype)
    for path, delta in merged_delta(experts, weights).items():
        linear = merged.model.get_submodule(path)
        linear.weight.data += delta.to(linear.weight.dtype)
    return merged.margins(collate([row]))


def fused_and_merged(num_experts: int, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """Margins of eight rows with mixes of their own: fused, and by merged weights."""
    ranks = [1 + 3 * (n % 3) for n in range(num_experts)]  # mixed ranks
    decoder, experts = tiny_decoder(ranks)
    decoder.model.to(dtype)
    rows, weights = rows_of(8), random_weights(8, num_experts)
    fused = decoder.mixed_margins(collate(rows), weights)
    pairs = zip(rows, weights, strict=True)
    merged = [merged_margins(decoder, experts, own.tolist(), row) for row, own in pairs]
    return fused, torch.cat(merged)


@pytest.mark.parametrize("num_experts", range(1, 9))
@torch.inference_mode()
def test_fused_equals_merged_weights(num_experts: int) -> None:
    fused, merged = fused_and_merged(num_experts, torch.float32)
    assert float((fused - merged).abs().max()) <= FP32_TOLERANCE * float(merged.abs().max())


@pytest.mark.parametrize("num_experts", range(1, 9))
@torch.inference_mode()
def test_fused_equals_merged_weights_in_bf16(num_experts: int) -> None:
    fused, merged = fused_and_merged(num_experts, torch.bfloat16)
    error = (fused - merged).square().mean().sqrt()
    assert float(error) <= BF16_TOLERANCE * float(merged.std())


@torch.inference_mode()
def test_two_users_in_one_micro_batch_get_their_own_mixes() -> None:
    """The published code of ThinkRec gives the second user of a batch the first one's mix."""
    decoder, experts = tiny_decoder((4, 4))
    row = rows_of(1)[0]
    mixes = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    first, second = decoder.mixed_margins(collate([row, row]), mixes).split(3)
    for found, own in ((first, [1.0, 0.0]), (second, [0.0, 1.0])):
        assert torch.allclose(found, merged_margins(decoder, experts, own, row), atol=1e-5)
    assert float((first - second).abs().min()) > 1e-2


@torch.inference_mode()
def test_a_mix_of_identical_experts_is_that_expert() -> None:
    model = tiny_model()
    same = random_expert("same", model, 4, 1)
    decoder = Decoder(model, tiny_decoder()[0].projector, yes=3, no=4)
    decoder.mixture = install(model, [same, same, same])
    batch = collate(rows_of(1))
    mixed = decoder.mixed_margins(batch, torch.tensor([[0.2, 0.5, 0.3]]))
    alone = decoder.mixed_margins(batch, torch.tensor([[0.0, 1.0, 0.0]]))
    assert torch.allclose(mixed, alone, atol=1e-5)


@torch.inference_mode()
def test_without_weights_the_base_model_answers() -> None:
    decoder, _ = tiny_decoder()
    plain = Decoder(tiny_model(), decoder.projector, yes=3, no=4)
    batch = collate(rows_of(2))
    assert torch.equal(decoder.margins(batch), plain.margins(batch))
    zero = decoder.mixed_margins(batch, torch.zeros(2, 3))
    assert torch.allclose(zero, plain.margins(batch), atol=1e-6)


def test_an_expert_of_another_base_is_refused() -> None:
    model = tiny_model()
    expert = random_expert("wide", model, 4, 1)
    path, pair = next(iter(expert.modules.items()))
    wrong = type(pair)(pair.a[:, :-1], pair.b)
    misfit = type(expert)("wide", expert.digest, 4, 1.0, {**expert.modules, path: wrong})
    with pytest.raises(ExpertError, match=r"wide: .*shape"):
        install(model, [misfit])
