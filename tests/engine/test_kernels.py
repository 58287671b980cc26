"""Faster modules compute the same as those that they replace, or are not used."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from torch import nn

from engine.families import FAMILIES, tiny_family
from engine.test_expert_bank import BF16_TOLERANCE, inputs_of, margins_of, random_mixtures
from engine.tiny import COLUMNS, LATENT, tiny_decoder
from rankloom_engine.kernels import speed_up
from rankloom_engine.model import Decoder
from rankloom_engine.projector import Projector

pytestmark = pytest.mark.skipif(
    not torch.ops.mkldnn._is_mkldnn_bf16_supported(), reason="this CPU has no bf16 arithmetic"
)


def kinds(model: nn.Module) -> Counter[str]:
    return Counter(type(module).__name__ for module in model.modules())


def test_scores_stay_within_bf16_rounding() -> None:
    decoder, _ = tiny_decoder()
    decoder.model.bfloat16()
    inputs = inputs_of(random_mixtures(8, 3))
    before = margins_of(decoder, inputs)
    speed_up(decoder.model)
    error = np.sqrt(np.square(margins_of(decoder, inputs) - before).mean())
    assert error <= BF16_TOLERANCE * before.std()
    found = kinds(decoder.model)
    # Three modules per layer have experts: they keep their wrapper around a packed layer.
    assert (found["_GatedUnit"], found["_RootMeanSquareNorm"]) == (3, 7)
    assert found["PackedLinear"] == 3 * 7
    assert found["Linear"] == 1, "only the head's few rows are read"


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_keeps_its_arithmetic(name: str) -> None:
    """Gemma's norms and gated units compute something else: they are kept."""
    model = tiny_family(name, **FAMILIES[name])
    projector = Projector(LATENT, COLUMNS, 32).eval()
    decoder = Decoder(model.bfloat16(), projector, yes=3, no=4)
    inputs = inputs_of(random_mixtures(8, 1))
    before = margins_of(decoder, inputs)
    speed_up(model)
    error = np.sqrt(np.square(margins_of(decoder, inputs) - before).mean())
    assert error <= BF16_TOLERANCE * before.std()
    assert kinds(model)["PackedLinear"]


def test_other_number_formats_are_left_alone() -> None:
    decoder, _ = tiny_decoder()
    before = kinds(decoder.model)
    speed_up(decoder.model)
    assert kinds(decoder.model) == before


def test_an_expert_can_be_loaded_into_a_packed_model() -> None:
    decoder, experts = tiny_decoder([4, 4])
    decoder.model.bfloat16()
    speed_up(decoder.model)
    assert decoder.bank is not None
    inputs = inputs_of(random_mixtures(1, 2))
    before = margins_of(decoder, inputs)
    decoder.bank.load(1, experts[0])
    assert np.abs(margins_of(decoder, inputs) - before).max() > 0
