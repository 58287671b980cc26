"""A candidate's score is its own: alone, in bulk, and in any batch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoConfig, AutoModelForCausalLM

from engine.tiny import VOCABULARY, random_segment, tiny_decoder
from rankloom_engine.errors import ModelError
from rankloom_engine.model import self_check
from rankloom_engine.packing import Segment, collate, pack

TOLERANCE = 1e-5


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), num=st.integers(1, 6), others=st.integers(0, 3))
@torch.inference_mode()
def test_score_is_independent_of_items_and_rows(seed: int, num: int, others: int) -> None:
    decoder, _ = tiny_decoder()
    random = np.random.default_rng(seed)
    prefix = random_segment(random, int(random.integers(0, 30)))
    candidates = [random_segment(random, int(random.integers(1, 9))) for _ in range(num)]
    neighbours = [
        pack(random_segment(random, int(random.integers(1, 60))), [random_segment(random, 3)])
        for _ in range(others)
    ]
    weights = torch.softmax(torch.randn(1 + others, 3), dim=1)
    bulk = decoder.mixed_margins(collate([pack(prefix, candidates), *neighbours]), weights)
    for place, candidate in enumerate(candidates):
        alone = decoder.mixed_margins(collate([pack(prefix, [candidate])]), weights[:1])
        assert abs(float(bulk[place] - alone[0])) <= TOLERANCE


@torch.inference_mode()
def test_a_candidate_that_sees_part_of_the_prefix_scores_as_behind_that_part() -> None:
    decoder, _ = tiny_decoder()
    random = np.random.default_rng(5)
    parts = [random_segment(random, 4) for _ in range(4)]
    candidates = [random_segment(random, 3) for _ in range(4)]
    lengths = np.cumsum([len(part) for part in parts]).tolist()
    weights = torch.tensor([[0.5, 0.2, 0.3]])
    window = pack(Segment.joined(parts), candidates, lengths)
    together = decoder.mixed_margins(collate([window]), weights)
    for place, candidate in enumerate(candidates):
        behind = pack(Segment.joined(parts[: place + 1]), [candidate])
        alone = decoder.mixed_margins(collate([behind]), weights)
        assert abs(float(together[place] - alone[0])) <= TOLERANCE


FAMILIES = {
    "llama": {},
    "qwen2": {},
    "qwen3": {"head_dim": 8},
    "mistral": {"sliding_window": None},
    "gemma": {"head_dim": 8},
    "gpt_neox": {},
    "opt": {"word_embed_proj_dim": 32, "ffn_dim": 64, "max_position_embeddings": 512},
}


def tiny_family(name: str, **fields: object) -> torch.nn.Module:
    torch.manual_seed(0)
    config = AutoConfig.for_model(
        name, vocab_size=VOCABULARY, hidden_size=32, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, initializer_range=0.2,
        pad_token_id=0, bos_token_id=1, eos_token_id=2, **fields,
    )  # fmt: skip
    return AutoModelForCausalLM.from_config(config, attn_implementation="sdpa").eval()


@pytest.mark.parametrize("name", FAMILIES)
def test_packed_scoring_holds_for_the_family(name: str) -> None:
    self_check(tiny_family(name, **FAMILIES[name]), VOCABULARY)


def test_a_sliding_window_is_refused_by_name() -> None:
    model = tiny_family("mistral", sliding_window=8)
    with pytest.raises(ModelError, match="MistralForCausalLM"):
        self_check(model, VOCABULARY)


def test_position_biases_are_refused_by_name() -> None:
    torch.manual_seed(0)
    config = AutoConfig.for_model(
        "bloom", vocab_size=VOCABULARY, hidden_size=32, n_layer=2, n_head=4
    )
    model = AutoModelForCausalLM.from_config(config).eval()
    with pytest.raises(ModelError, match="BloomForCausalLM"):
        self_check(model, VOCABULARY)
