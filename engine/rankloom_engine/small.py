"""A small model of a decoder's architecture: its code and settings, with fewer numbers.

Whether packed scoring equals plain scoring is a matter of the code that runs and of its settings,
not of sizes and weights. So it is tried on a model that is made in a moment, in float32, whatever
the size and the number format of the one that serves.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import torch
from torch import nn
from transformers import AutoModelForCausalLM, PreTrainedConfig

VOCABULARY = 96
SEED = 20
_NUM_LAYERS = 4  # and more if they are of more kinds
_SHORT_WINDOW = 16  # tokens
_OF_LAYERS = "per_layer_config"  # settings of single layers, by their number

_ABOUT_THE_FILE = frozenset(
    {"_name_or_path", "architectures", "dtype", "model_type", "torch_dtype", "transformers_version"}
)
# Which settings are sizes, and how large they may be.
_LARGEST: tuple[tuple[re.Pattern[str], int], ...] = tuple(
    (re.compile(pattern), largest)
    for pattern, largest in (
        (r"intermediate|ffn|inner|d_ff", 64),
        (r"lora_rank", 32),
        (r"num_(\w+_)?experts$|n_routed_experts|expert_num$", 8),
        (r"experts_per_tok|topk$|top_k$|moe_k$|top_k_experts", 2),
        (r"^n_group$|num_expert_group|^kv_n_heads$", 2),
        (r"^topk_group$|dense_replace|dense_layers|kv_shared_layers", 1),
        (r"vocab", VOCABULARY),
        (r"token_id$|token_index$|(pad|bos|eos)_id$", 2),
    )
)
_LENGTH = re.compile(
    r"sliding_window(_size)?$|window_size$|local_attention$|attention_chunk_size$|floor"
)


def small_model(config: PreTrainedConfig, num_tokens: int) -> nn.Module:
    """A model of the config's architecture with random weights, in float32.

    ``num_tokens``: of the longest prompt. A window that such a prompt outgrows is made so short
    that a short one outgrows it too. Raises what the architecture raises if it cannot be built.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        small = small_config(config, num_tokens)
        model = AutoModelForCausalLM.from_config(
            small, attn_implementation="eager", dtype=torch.float32
        )
        _draw_weights(model)
    return cast("nn.Module", model.eval())


def small_config(config: PreTrainedConfig, num_tokens: int) -> PreTrainedConfig:
    """The config with small sizes and few layers, one of each kind among them."""
    fields = {n: v for n, v in config.to_dict().items() if n not in _ABOUT_THE_FILE}
    fields = _with_fewer_layers(fields, config.attribute_map)
    sizes = _with_fewer_heads(fields, config.attribute_map)
    small = _shrunk(fields, num_tokens) | sizes
    for name in ("attn_config", "ffn_config"):  # where DBRX has its sizes
        if isinstance(own := fields.get(name), dict):
            small[name] = _shrunk(own, num_tokens)
    if isinstance(by_layer := fields.get(_OF_LAYERS), dict):
        small[_OF_LAYERS] = {
            layer: _shrunk(own, num_tokens) | {n: v for n, v in sizes.items() if n in own}
            for layer, own in by_layer.items()
        }
    return type(config)(**small)


def _shrunk(fields: Mapping[str, Any], num_tokens: int) -> dict[str, Any]:
    found = dict(fields)
    for name, value in fields.items():
        if _LENGTH.search(name):
            found[name] = _every(value, lambda n: min(n, _SHORT_WINDOW) if n < num_tokens else n)
        for pattern, largest in _LARGEST:
            if pattern.search(name):
                found[name] = _every(value, _at_most(largest))
                break
    return found


@torch.no_grad()
def _draw_weights(model: nn.Module) -> None:
    """Numbers that let every part of the model matter; many architectures start at 0 or 1."""
    for weight in model.parameters():
        if weight.ndim > 1:
            weight.normal_(0.0, weight.shape[-1] ** -0.5)
        else:
            weight.add_(torch.randn_like(weight), alpha=0.1)


def _at_most(largest: int) -> Callable[[int], int]:
    return lambda number: min(number, largest)


def _every(value: Any, change: Callable[[int], int]) -> Any:  # noqa: ANN401
    """The number changed, or each number of a list; anything else as it is."""
    if isinstance(value, list):
        return [_every(each, change) for each in value]
    return change(value) if type(value) is int else value


def _with_fewer_heads(fields: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """Fewer heads of the same size, in groups if they were: their size has settings of its own."""
    hidden, heads, groups, size = (
        names.get(name, name)
        for name in ("hidden_size", "num_attention_heads", "num_key_value_heads", "head_dim")
    )
    if type(fields.get(hidden)) is not int or type(fields.get(heads)) is not int:
        return {}
    num_heads, num_groups = fields[heads], fields.get(groups) or fields[heads]
    per_group = min(num_heads // num_groups, 2)
    few = min(num_groups, 2)
    own = fields.get(size) or fields[hidden] // num_heads
    free = own * num_heads != fields[hidden]  # the layers do not expect one to be the other's part
    width = 64 if free else own * few * per_group
    same = [n for n, v in fields.items() if v == fields[hidden] and type(v) is int and _is_width(n)]
    changed: dict[str, Any] = dict.fromkeys(same, width)
    changed |= {hidden: width, heads: few * per_group}
    changed |= {groups: few} if fields.get(groups) else {}
    changed |= {
        n: [few * per_group for _ in v] for n, v in fields.items() if n.endswith("heads_per_layer")
    }
    if "mamba_n_heads" in fields:  # a config is checked for them even if no layer is of that kind
        changed |= {"mamba_n_heads": 2, "mamba_d_head": fields["mamba_expand"] * width // 2}
    return changed


def _is_width(name: str) -> bool:
    return re.search(r"hidden|embed|d_model|dim$|width", name) is not None


def _with_fewer_layers(fields: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """Keeps the first layers, the last one, and the first of each kind."""
    name = names.get("num_hidden_layers", "num_hidden_layers")
    num = fields.get(name)
    if type(num) is not int or num <= _NUM_LAYERS:
        return dict(fields)
    by_layer = {
        n: v for n, v in fields.items()
        if isinstance(v, list) and len(v) == num and v != list(range(num))
    }  # fmt: skip
    own = {int(layer): value for layer, value in (fields.get(_OF_LAYERS) or {}).items()}
    kept = {*range(_NUM_LAYERS - 1), num - 1}
    seen: set[str] = set()
    for layer in range(num):
        kind = repr([*(values[layer] for values in by_layer.values()), own.get(layer)])
        if kind not in seen:
            seen.add(kind)
            kept.add(layer)
    layers = sorted(kept)
    chosen = {n: [values[layer] for layer in layers] for n, values in by_layer.items()}
    others = {
        n: _renumbered(v, layers) for n, v in fields.items() if n not in chosen and _lists_layers(n)
    }
    if own:
        others[_OF_LAYERS] = {layers.index(n): own[n] for n in own.keys() & set(layers)}
    return {**fields, **chosen, **others, name: len(layers)}


def _lists_layers(name: str) -> bool:
    return re.search(r"layers$|layer_ids$|layer_idx|layers_ids|indices$", name) is not None


def _renumbered(value: Any, layers: Sequence[int]) -> Any:  # noqa: ANN401
    """A list of layers after the other layers have gone."""
    if not isinstance(value, list) or not all(type(each) is int for each in value):
        return value
    return [layers.index(each) for each in value if each in layers]
