"""The text encoder in torch: one by path or hub id, or a small one made on the spot."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from tokenizers import Tokenizer, normalizers, processors
from torch import Tensor, nn
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast
from transformers.utils.logging import disable_progress_bar

from rankloom_training.reccot.byte_pairs import byte_pairs
from rankloom_training.reccot.windows import TokenWindows, WindowTokenizer

disable_progress_bar()  # commands have bars of their own

MAX_TOKENS = 256  # of a window; a model that reads less is given less
_SPECIAL = ("[PAD]", "[CLS]", "[SEP]")


class TextModelError(ValueError):
    """There is no such text encoder; the message says what to do."""


@dataclass(frozen=True, slots=True)
class SmallShape:
    """Size of the text encoder that is made on the spot."""

    hidden: int = 64
    layers: int = 2
    heads: int = 4


class TextModel(nn.Module):
    """Windows of tokens to vectors, as a sentence-transformers model pools them."""

    def __init__(self, model: nn.Module, *, is_pretrained: bool) -> None:
        """``model``: a SentenceTransformer with a fast tokenizer."""
        super().__init__()
        self.model = model
        self.is_pretrained = is_pretrained
        own: Any = model
        self.dim = int(own.get_embedding_dimension())
        self.max_tokens = min(int(own.max_seq_length or MAX_TOKENS), MAX_TOKENS)
        self.tokenizer = Tokenizer.from_str(own.tokenizer.backend_tokenizer.to_str())
        self.padding = int(own.tokenizer.pad_token_id)
        self.windows = WindowTokenizer(self.tokenizer, self.max_tokens, self.padding)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """``ids``, ``mask``: (windows, tokens) int64. Returns (windows, dim)."""
        found: Tensor = self.model({"input_ids": ids, "attention_mask": mask})["sentence_embedding"]
        return found

    def vectors(self, windows: TokenWindows, number: int) -> Tensor:
        """(number, dim) the mean vector of each text's windows."""
        found = self(torch.from_numpy(windows.ids), torch.from_numpy(windows.mask))
        owner = torch.from_numpy(windows.owner)
        total = found.new_zeros(number, found.shape[1]).index_add(0, owner, found)
        mean: Tensor = total / torch.bincount(owner, minlength=number).clamp(min=1)[:, None]
        return mean


def open_text_model(name: str) -> TextModel:
    """A sentence-transformers or BERT-like model by path or hub id.

    A model without a pooling of its own gets the mean over tokens. Raises TextModelError.
    """
    from sentence_transformers import SentenceTransformer  # it takes seconds to import

    try:
        model = SentenceTransformer(
            name,
            device="cpu",
            trust_remote_code=False,
            model_kwargs={"attn_implementation": "eager"},
        )
        return TextModel(model, is_pretrained=True)
    except Exception as error:  # the libraries raise many kinds; all of them mean this
        raise TextModelError(
            f"text encoder {name!r}: no sentence-transformers or BERT-like model with a fast "
            f"tokenizer under that path or hub id; check the name"
        ) from error


def small_text_model(
    texts: Sequence[str], seed: int, shape: SmallShape = SmallShape()
) -> TextModel:
    """An untrained BERT with a tokenizer of these texts."""
    torch.manual_seed(seed)
    tokenizer = _tokenizer_of(texts)
    config = BertConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=shape.hidden,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        intermediate_size=4 * shape.hidden,
        max_position_embeddings=MAX_TOKENS,
        pad_token_id=0,
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, model_max_length=MAX_TOKENS,
        pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]",
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        BertModel(config).save_pretrained(folder)
        fast.save_pretrained(folder)
        made = open_text_model(folder)
    made.is_pretrained = False
    return made


def with_lora(model: TextModel, rank: int, dropout: float) -> None:
    """Freezes the model but for LoRA on its linear layers, whose alpha is its rank."""
    from peft import LoraConfig  # it takes seconds to import

    from rankloom_training.reccot.low_rank import in_low_rank

    inner: Any = model.model
    config = LoraConfig(r=rank, lora_alpha=rank, lora_dropout=dropout, target_modules="all-linear")
    inner[0].model = in_low_rank(inner[0].model, config)


def merge_lora(model: TextModel) -> None:
    inner: Any = model.model
    inner[0].model = inner[0].model.merge_and_unload()


def _tokenizer_of(texts: Sequence[str]) -> Tokenizer:
    """In lower case, with the begin and the end that BERT reads."""
    tokenizer = byte_pairs([text.lower() for text in texts], _SPECIAL)
    tokenizer.normalizer = normalizers.Lowercase()
    begin, end = (("[CLS]", _SPECIAL.index("[CLS]")), ("[SEP]", _SPECIAL.index("[SEP]")))
    tokenizer.post_processor = processors.BertProcessing(end, begin)
    return tokenizer
