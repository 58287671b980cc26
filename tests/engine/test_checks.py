"""An architecture is accepted if packed scoring is plain scoring, or refused with the cause."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import CONFIG_MAPPING, PreTrainedConfig

from engine.families import FAMILIES, tiny_family
from engine.tiny import VOCABULARY
from rankloom_engine import checks
from rankloom_engine.attention import AttentionRule
from rankloom_engine.checks import check_architecture, check_once
from rankloom_engine.errors import ModelError
from rankloom_engine.small import small_config, small_model
from rankloom_engine.structure import text_part

TOKENS, POSITIONS = 100, 356


def config_of(kind: str, **fields: object) -> PreTrainedConfig:
    """A type's default settings, whose sizes are real, with some changed."""
    made: Any = CONFIG_MAPPING[kind]
    return text_part(made(**fields))


def refusal(config: PreTrainedConfig, tokens: int = TOKENS, positions: int = POSITIONS) -> str:
    with pytest.raises(ModelError) as raised:
        check_architecture(config, tokens, positions)
    text = str(raised.value)
    assert "\n" not in text
    assert text.startswith(f"base: {config.model_type}: ")
    return text


@pytest.mark.parametrize("name", FAMILIES)
def test_the_family_is_accepted(name: str) -> None:
    check_architecture(tiny_family(name, **FAMILIES[name]).config, TOKENS, POSITIONS)


def test_what_was_found_sound_is_not_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    sound, longer = (config_of("mistral", sliding_window=size) for size in (9, 10))
    check_once(sound, TOKENS, POSITIONS)
    monkeypatch.setattr("rankloom_engine.attention.AttentionRule", _without_window)
    check_once(config_of("mistral", sliding_window=9), TOKENS, POSITIONS)
    for config, tokens in ((longer, TOKENS), (longer, TOKENS), (sound, TOKENS + 1)):
        with pytest.raises(ModelError, match="more than masks and positions"):
            check_once(config, tokens, POSITIONS)


def test_positions_end_where_they_were_learned() -> None:
    config = config_of("opt", max_position_embeddings=512)
    check_architecture(config, TOKENS, 512)
    assert "learned too few positions" in refusal(config, TOKENS, 513)
    check_architecture(config_of("llama"), TOKENS, 1 << 20)


@pytest.mark.parametrize(
    ("window", "cause"),
    [(8, "more than masks and positions"), (90, "something changes within 100 tokens (a window")],
)
def test_a_mask_without_the_window_would_be_found(
    window: int, cause: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The check can fail: the same model without its window is refused."""
    monkeypatch.setattr("rankloom_engine.attention.AttentionRule", _without_window)
    assert cause in refusal(config_of("mistral", sliding_window=window))


def _without_window(scale: float | None, window: int | None, softcap: float | None) -> object:
    del window
    return AttentionRule(scale, None, softcap)


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        (
            "llama",
            {
                "max_position_embeddings": 3000,
                "rope_parameters": {"rope_type": "dynamic", "factor": 4.0, "rope_theta": 1e4},
            },
        ),
        (
            "phi3",
            {
                "max_position_embeddings": 131_072,
                "original_max_position_embeddings": 3000,
                "rope_parameters": {
                    "rope_type": "longrope",
                    "rope_theta": 1e4,
                    "original_max_position_embeddings": 3000,
                    "short_factor": [1.0] * 48,
                    "long_factor": [4.0] * 48,
                },
            },
        ),
    ],
)
def test_rotary_scaling_that_follows_the_longest_row(
    kind: str, fields: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Right where no prompt reaches it, refused beyond: the scores of other rows would change."""
    monkeypatch.setattr(checks, "MAX_TOKENS", 64)  # it is found by positions, not by length
    config = config_of(kind, **fields)
    check_architecture(config, 2744, 3000)
    assert "longest row" in refusal(config, 2794, 3050)


@pytest.mark.parametrize(
    ("kind", "cause"),
    [
        ("mamba", "another kind (MambaMixer)"),
        ("gptj", "another kind (GPTJAttention)"),
        ("bloom", "another kind (BloomAttention)"),
        ("gpt2", "no linear layers for experts (Conv1D)"),
        ("gpt_oss", "sinks"),
        ("gemma3n_text", "reads token ids beside their vectors"),
        ("gemma4_text", "reads token ids beside their vectors"),
        ("qwen3_next", "GatedDeltaNet"),
        ("bert", "as in an encoder"),
        ("t5", "no causal language model of transformers"),
    ],
)
def test_the_cause_is_named(kind: str, cause: str) -> None:
    assert cause in refusal(config_of(kind))


def test_quantised_weights_are_refused() -> None:
    config = config_of("llama", quantization_config={"quant_method": "awq", "bits": 4})
    assert "its weights are quantised (awq); use the model that it was made from" in refusal(config)


@pytest.mark.parametrize("kind", ["gemma3", "llama4"])
def test_a_model_of_text_and_images_is_its_part_for_text(kind: str) -> None:
    config = config_of(kind)
    assert config.model_type == f"{kind}_text"
    check_architecture(config, TOKENS, POSITIONS)


@pytest.mark.parametrize("kind", ["llama", "phi3", "deepseek_v3", "qwen3_moe", "gemma3_text"])
def test_a_small_model_is_small(kind: str) -> None:
    model = small_model(config_of(kind), TOKENS)
    assert sum(weight.numel() for weight in model.parameters()) < 20e6
    assert model.get_input_embeddings().num_embeddings <= VOCABULARY  # type: ignore[operator]


def test_a_small_model_has_layers_of_each_kind() -> None:
    """Of Gemma 3's 26 layers, every sixth sees all tokens."""
    kinds = small_config(config_of("gemma3_text"), TOKENS).layer_types
    assert set(kinds) == {"sliding_attention", "full_attention"}
    assert len(kinds) < 8


def test_a_window_is_outgrown_by_a_short_prompt_if_the_longest_outgrows_it() -> None:
    config = config_of("gemma3_text", sliding_window=512)
    assert small_config(config, 600).sliding_window == 16
    assert small_config(config, 512).sliding_window == 512


def test_the_check_draws_no_numbers_that_others_would_draw() -> None:
    """Training draws from the same generator, and the same seed must give the same bundle."""
    torch.manual_seed(5)
    expected = torch.rand(4)
    torch.manual_seed(5)
    check_architecture(config_of("llama"), TOKENS, POSITIONS)
    assert torch.equal(torch.rand(4), expected)


def test_an_endless_prompt_is_checked_up_to_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "MAX_TOKENS", 64)
    check_architecture(config_of("llama"), 1 << 40, 1 << 40)
