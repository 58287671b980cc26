"""A base model works, or is refused at once with the cause.

tests/benchmarks/test_bases_benchmark.py has a sample of families.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from rankloom_features.catalogue import Catalogue, Item
from rankloom_training.base import (
    BaseModelError,
    check_base,
    fetch_base,
    read_base,
    write_base,
)
from rankloom_training.embedded import train_tokenizer
from rankloom_training.options import TrainOptions
from rankloom_training.progress import Progress
from rankloom_training.train import train_bundle

TEXTS = "What the user thought of items so far. Item: Liked: Yes No " * 3


def saved(folder: Path, kind: str, dtype: torch.dtype = torch.float32, **fields: Any) -> Any:  # noqa: ANN401
    """A small model with its tokenizer, in a folder as the hub's libraries save it."""
    tokenizer = train_tokenizer(Catalogue([Item("texts", TEXTS)]))
    PreTrainedTokenizerFast(tokenizer_object=tokenizer).save_pretrained(folder)
    torch.manual_seed(0)
    config = AutoConfig.for_model(kind, **fields)
    model = AutoModelForCausalLM.from_config(config, dtype=dtype).eval()
    model.save_pretrained(folder)
    return model


SIZES: dict[str, Any] = {
    "vocab_size": 400, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "pad_token_id": 0,
}  # fmt: skip
EYES = {
    "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
    "image_size": 28, "patch_size": 14,
}  # fmt: skip


def test_a_base_that_cannot_be_served_is_refused_before_any_stage(
    small_data: Path, tmp_path: Path
) -> None:
    saved(tmp_path / "gpt2", "gpt2", vocab_size=400, n_embd=32, n_layer=2, n_head=4)
    options = TrainOptions(base=str(tmp_path / "gpt2"))
    with pytest.raises(BaseModelError, match=r"gpt2.*no linear layers for experts \(Conv1D\)"):
        train_bundle(small_data, tmp_path / "out", options, Progress())
    assert not list(tmp_path.glob("out*"))


def test_of_a_model_of_text_and_images_the_text_part_is_taken(tmp_path: Path) -> None:
    whole = saved(
        tmp_path / "gemma3", "gemma3", text_config=SIZES, vision_config=EYES, mm_tokens_per_image=4
    )
    check_base(str(tmp_path / "gemma3"), max_events=5)
    model, tokenizer, _ = fetch_base(str(tmp_path / "gemma3"), max_events=5)
    write_base(tmp_path / "copy" / "base", model, tokenizer)
    copy, _ = read_base(tmp_path / "copy")
    assert not [name for name, _ in copy.named_parameters() if "vision" in name]
    ids = torch.arange(3, 20)[None]
    with torch.inference_mode():
        assert torch.allclose(copy(ids).logits, whole(ids).logits, atol=1e-6)


def test_weights_keep_their_number_format_in_the_bundle(tmp_path: Path) -> None:
    saved(tmp_path / "llama", "llama", torch.bfloat16, **SIZES)
    model, tokenizer, _ = fetch_base(str(tmp_path / "llama"), max_events=5)
    write_base(tmp_path / "copy" / "base", model, tokenizer)
    tensors = safetensors.torch.load_file(tmp_path / "copy" / "base" / "model.safetensors")
    assert {tensor.dtype for tensor in tensors.values()} == {torch.bfloat16}
    assert {weight.dtype for weight in read_base(tmp_path / "copy")[0].parameters()} == {
        torch.float32
    }


@pytest.mark.parametrize(
    ("fields", "cause"),
    [
        ({"model_type": "newer_than_that"}, "its type 'newer_than_that' is not known"),
        ({"model_type": "own", "auto_map": {"AutoConfig": "x.Y"}}, "needs code of its own"),
        ({"model_type": "llama", "num_hidden_layers": "many"}, "config.json: "),
    ],
)
def test_a_config_that_cannot_be_used_says_why(
    fields: dict[str, object], cause: str, tmp_path: Path
) -> None:
    saved(tmp_path, "llama", **SIZES)
    (tmp_path / "config.json").write_text(json.dumps(fields))
    with pytest.raises(BaseModelError) as raised:
        check_base(str(tmp_path), max_events=5)
    assert cause in str(raised.value)
    assert "\n" not in str(raised.value)
