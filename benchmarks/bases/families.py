"""All decoders that transformers knows, and settings that change how they attend."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from transformers import CONFIG_MAPPING, PreTrainedConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from rankloom_engine.structure import text_part

_WINDOW: dict[str, object] = {"sliding_window": 100}
_POSITIONS: dict[str, object] = {"max_position_embeddings": 2048}
_NO_EMBEDDINGS_BY_LAYER: dict[str, object] = {
    "hidden_size_per_layer_input": 0,
    "vocab_size_per_layer_input": 0,
}
_ROTARY: dict[str, object] = {"rope_theta": 10_000.0}


def _rotary(kind: str, **fields: object) -> dict[str, object]:
    return {"rope_parameters": {"rope_type": kind, **_ROTARY, **fields}}


def _long(original: int, half: int) -> dict[str, object]:
    """LongRoPE with other factors beyond ``original`` tokens; ``half``: of a head's rotary size."""
    factors = {"short_factor": [1.0] * half, "long_factor": [4.0] * half}
    fields = _rotary("longrope", original_max_position_embeddings=original, **factors)
    return {
        **fields,
        "max_position_embeddings": 16 * original,
        "original_max_position_embeddings": original,
    }


# Settings that a type's defaults leave out, or leave in a state that it cannot be made in.
_COMPLETE: Mapping[str, dict[str, object]] = {
    "cohere_compass_text": {
        "rope_parameters": {
            kind: {"rope_type": "default", **_ROTARY}
            for kind in ("full_attention", "sliding_attention")
        }
    },
    "dbrx": {"attn_config": {**_ROTARY, "kv_n_heads": 8, "clip_qkv": 8.0}},
    "deepseek_v2": {"num_experts_per_tok": 6},
    "dots1": {"n_routed_experts": 8, "n_shared_experts": 1, "num_experts_per_tok": 2},
    "gemma4_assistant": {"text_config": _NO_EMBEDDINGS_BY_LAYER},
    "gemma4_unified_assistant": {"text_config": _NO_EMBEDDINGS_BY_LAYER},
    "hunyuan_v1_dense": {"head_dim": 128},
    "hunyuan_v1_moe": {"head_dim": 128},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"] * 16},
    "marian": {"decoder_vocab_size": 58_101},
    "ministral": {"head_dim": 128},
    "nemotron": {"num_key_value_heads": 8},
    "reformer": {"is_decoder": True},
}
# Name → type of the model, and the settings that differ from its defaults.
VARIANTS: Mapping[str, tuple[str, dict[str, object]]] = {
    "llama, tied": ("llama", {"tie_word_embeddings": True}),
    "llama, grouped": ("llama", {"num_key_value_heads": 8}),
    "llama, one group": ("llama", {"num_key_value_heads": 1}),
    "llama, biases": ("llama", {"attention_bias": True, "mlp_bias": True}),
    "llama, linear scaling": ("llama", _rotary("linear", factor=4.0)),
    "llama, yarn": (
        "llama",
        _rotary("yarn", factor=4.0, original_max_position_embeddings=2048),
    ),
    "llama, llama3 scaling": (
        "llama",
        _rotary(
            "llama3",
            factor=8.0,
            low_freq_factor=1.0,
            high_freq_factor=4.0,
            original_max_position_embeddings=8192,
        ),
    ),
    "llama, dynamic NTK from 512": (
        "llama",
        {**_rotary("dynamic", factor=4.0), "max_position_embeddings": 512},
    ),
    "llama, dynamic NTK from 8192": (
        "llama",
        {**_rotary("dynamic", factor=4.0), "max_position_embeddings": 8192},
    ),
    "phi3, longrope from 512": ("phi3", _long(512, 48)),
    "phi3, longrope from 4096": ("phi3", _long(4096, 48)),
    "phi3, window": ("phi3", _WINDOW),
    "phimoe, window": ("phimoe", _WINDOW),
    "qwen2, window": ("qwen2", {"use_sliding_window": True, **_WINDOW, "max_window_layers": 2}),
    "qwen3, window": ("qwen3", {"use_sliding_window": True, **_WINDOW, "max_window_layers": 2}),
    "qwen2_moe, window": (
        "qwen2_moe",
        {"use_sliding_window": True, **_WINDOW, "max_window_layers": 2},
    ),
    "qwen3_moe, window": (
        "qwen3_moe",
        {"use_sliding_window": True, **_WINDOW, "max_window_layers": 2},
    ),
    "qwen3_moe, dense layers": ("qwen3_moe", {"mlp_only_layers": [0, 2]}),
    "mistral, window": ("mistral", _WINDOW),
    "mistral, no window": ("mistral", {"sliding_window": None}),
    "mixtral, window": ("mixtral", _WINDOW),
    "ministral, window": ("ministral", _WINDOW),
    "starcoder2, window": ("starcoder2", _WINDOW),
    "smollm3, no rotary layers": ("smollm3", {"no_rope_layer_interval": 2}),
    "gemma2, no caps": (
        "gemma2",
        {"attn_logit_softcapping": None, "final_logit_softcapping": None},
    ),
    "gemma2, window": ("gemma2", _WINDOW),
    "gemma3_text, window": ("gemma3_text", _WINDOW),
    "gemma4_text, no per-layer embeddings": ("gemma4_text", _NO_EMBEDDINGS_BY_LAYER),
    "cohere, normalised queries": ("cohere", {"use_qk_norm": True}),
    "cohere2, window": ("cohere2", _WINDOW),
    "olmo3, window": ("olmo3", _WINDOW),
    "exaone4, window": ("exaone4", {**_WINDOW, "sliding_window_pattern": 4}),
    "llama4_text, short chunks": ("llama4_text", {"attention_chunk_size": 100}),
    "llama4_text, tempered by position": ("llama4_text", {"floor_scale": 100}),
    "phi, normalised queries": ("phi", {"qk_layernorm": True}),
    "stablelm, parallel": ("stablelm", {"use_parallel_residual": True, "qk_layernorm": True}),
    "gpt_neox, sequential": ("gpt_neox", {"use_parallel_residual": False}),
    "opt, norm behind": ("opt", {"do_layer_norm_before": False}),
    "opt, 512 positions": ("opt", {"max_position_embeddings": 512}),
    "falcon, ALiBi": ("falcon", {"alibi": True}),
    "deepseek_v2, plain queries": ("deepseek_v2", {"q_lora_rank": None}),
    "deepseek_v3, plain queries": ("deepseek_v3", {"q_lora_rank": None}),
    "glm4_moe, normalised queries": ("glm4_moe", {"use_qk_norm": True}),
    "granite, multipliers": (
        "granite",
        {"embedding_multiplier": 12.0, "logits_scaling": 8.0, "residual_multiplier": 0.22},
    ),
    "granitemoe, multipliers": (
        "granitemoe",
        {"embedding_multiplier": 12.0, "logits_scaling": 8.0, "residual_multiplier": 0.22},
    ),
    "hyperclovax, multipliers": ("hyperclovax", {"logits_scaling": 0.125}),
    "bert, decoder": ("bert", {"is_decoder": True, **_POSITIONS}),
    "roberta, decoder": ("roberta", {"is_decoder": True, **_POSITIONS}),
    "electra, decoder": ("electra", {"is_decoder": True, **_POSITIONS}),
    "bert, encoder": ("bert", _POSITIONS),
    "bert-generation, decoder": ("bert-generation", {"is_decoder": True, **_POSITIONS}),
    "biogpt, 2048 positions": ("biogpt", _POSITIONS),
    "gpt_bigcode, 2048 positions": ("gpt_bigcode", {"n_positions": 2048}),
    "lfm2, convolutions": ("lfm2", {"layer_types": ["conv", "full_attention"] * 16}),
    "granitemoehybrid, attention": (
        "granitemoehybrid",
        {"layer_types": ["attention"] * 32, "position_embedding_type": "rope"},
    ),
    "llama, quantised": ("llama", {"quantization_config": {"quant_method": "awq", "bits": 4}}),
}


def all_families() -> list[str]:
    """Names of all families: transformers' types of causal models, and the variants."""
    return sorted({*MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, *VARIANTS})


def config_of(family: str) -> PreTrainedConfig:
    """The family's config, of its part for text. Raises what the config's class raises."""
    kind, fields = VARIANTS.get(family, (family, {}))
    made: Any = CONFIG_MAPPING[kind]
    return text_part(made(**_COMPLETE.get(kind, {}) | fields))
