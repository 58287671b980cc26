"""Base models: the embedded one, and any causal LM by its path."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import (
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from rankloom_features.catalogue import Catalogue, Item
from rankloom_training.base import (
    BaseModelError,
    check_base,
    fetch_base,
    read_base,
    write_base,
)
from rankloom_training.embedded import embedded_format, train_tokenizer

CATALOGUE = Catalogue(Item(f"i{n}", f"The Film No {n}", 1990 + n, ("Drama",)) for n in range(30))
TEXTS = "What the user thought of items so far. Item: Liked: Yes No " * 3


def small_model(kind: str, vocabulary: int) -> PreTrainedModel:
    torch.manual_seed(0)
    sizes = {
        "vocab_size": vocabulary, "hidden_size": 32, "intermediate_size": 64,
        "num_hidden_layers": 2, "num_attention_heads": 4,
    }  # fmt: skip
    if kind == "llama":
        return LlamaForCausalLM(LlamaConfig(**sizes, tie_word_embeddings=True)).eval()
    return GPTNeoXForCausalLM(GPTNeoXConfig(**sizes)).eval()


@pytest.fixture(params=["llama", "gpt_neox"])
def hub_folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A folder as the hub's libraries save it: config, safetensors, fast tokenizer."""
    tokenizer = train_tokenizer(Catalogue([*CATALOGUE.items, Item("texts", TEXTS)]))
    PreTrainedTokenizerFast(tokenizer_object=tokenizer).save_pretrained(tmp_path)
    small_model(request.param, tokenizer.get_vocab_size()).save_pretrained(tmp_path)
    return tmp_path


def test_a_causal_lm_is_taken_from_its_folder(hub_folder: Path, tmp_path: Path) -> None:
    check_base(str(hub_folder), max_events=7)
    model, tokenizer, fmt = fetch_base(str(hub_folder), max_events=7)
    assert tokenizer.decode([fmt.liked]) == " Yes"
    assert tokenizer.decode([fmt.disliked]) == " No"
    assert fmt.liked != fmt.disliked
    assert fmt.max_events == 7
    write_base(tmp_path / "copy" / "base", model, tokenizer)
    copy, same_tokenizer = read_base(tmp_path / "copy")
    ids = torch.tensor([tokenizer.encode("The Film No 3").ids])
    with torch.inference_mode():
        assert torch.allclose(model(ids).logits, copy(ids).logits, atol=1e-6)
    assert same_tokenizer.get_vocab() == tokenizer.get_vocab()


@pytest.mark.parametrize(
    ("name", "cause"),
    [
        ("./no-such-folder", "no causal LM"),
        ("no/such-model", "the hub cannot be reached, and its cache lacks the model"),
    ],
)
def test_a_name_without_a_model_is_refused(name: str, cause: str) -> None:
    """Tests run without a hub."""
    with pytest.raises(BaseModelError, match=cause):
        check_base(name, max_events=5)
    with pytest.raises(BaseModelError, match=cause):
        fetch_base(name, max_events=5)


def test_pickled_weights_are_refused(tmp_path: Path) -> None:
    tokenizer = train_tokenizer(CATALOGUE)
    PreTrainedTokenizerFast(tokenizer_object=tokenizer).save_pretrained(tmp_path)
    model = small_model("llama", tokenizer.get_vocab_size())
    model.config.save_pretrained(tmp_path)
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    for refuses in (check_base, fetch_base):
        with pytest.raises(BaseModelError, match="safetensors"):
            refuses(str(tmp_path), max_events=5)


def test_the_embedded_tokenizer_gives_structure_tokens_of_its_own() -> None:
    tokenizer = train_tokenizer(CATALOGUE)
    fmt = embedded_format(tokenizer, max_events=9)
    structural = {*fmt.begin, *fmt.item, *fmt.ask, fmt.liked, fmt.disliked}
    assert len(structural) == 5
    assert not structural & set(tokenizer.encode("The Film No 3 (1993). Drama").ids)
