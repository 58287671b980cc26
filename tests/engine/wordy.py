"""Small catalogues, tokenizers and random decoders that talk: much of it names titles."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from engine.tiny import TinyItem
from rankloom_engine.model import Decoder
from rankloom_engine.projector import Projector
from rankloom_engine.prompt import PromptAssembler, PromptFormat, load_tokenizer

WORDS = ("Last", "Mirror", "River", "Glass", "Night", "Storm", "Été", "North", "King", "Blue")
GENRES = ("Comedy", "Drama", "War", "Sci-Fi", "Film-Noir", "Children's", "Horror")
PHRASES = (
    'You liked "The Last Mirror" and the night of the blue storm in 1999, so a war drama is fine. '
    "It is no comedy, and the last mirror of the king: you gave it 3 of 5; a river, (1987)."
)
STOP = "<|stop|>"
LATENT, COLUMNS, MAX_EVENTS = 8, 5, 20


def catalogue(num: int = 160, seed: int = 1) -> list[TinyItem]:
    """Items with titles of one to four words; some titles hold others, and many share words."""
    random = np.random.default_rng(seed)
    titles: dict[str, None] = {}
    while len(titles) < num:
        words = random.choice(WORDS, 1 + len(titles) % 3, replace=False).tolist()
        titles[" ".join(["The", *words] if random.random() < 0.3 else words)] = None
        titles[f"{' '.join(words)} {random.integers(2, 5)}"] = None
    return [
        TinyItem(
            title,
            1960 + int(random.integers(50)) if random.random() < 0.9 else None,
            tuple(random.choice(GENRES, 2, replace=False).tolist()),
        )
        for title in list(titles)[:num]
    ]


def _texts(items: Iterable[TinyItem]) -> list[str]:
    listed = [f'"{item.title}" ({item.year}), {", ".join(item.attributes)}.' for item in items]
    return [*listed, *(each for each in [PHRASES] * 20)]


def byte_level(items: Sequence[TinyItem]) -> Tokenizer:
    """As GPT-2, Llama 3 and Qwen have it; accented letters are two tokens or more."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=[STOP],
        initial_alphabet=sorted({c for text in _texts(items) for c in _bytes_as_text(text)}),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_texts(items), trainer)
    return tokenizer


def _bytes_as_text(text: str) -> str:
    [(piece, _)] = pre_tokenizers.ByteLevel(False, use_regex=False).pre_tokenize_str(text)
    return piece


def metaspace(items: Sequence[TinyItem]) -> Tokenizer:
    """As Llama 2 and Mistral have it: a mark for spaces, and bytes for unknown characters."""
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=260, special_tokens=["<unk>", STOP], show_progress=False
    )
    tokenizer.train_from_iterator((text.replace("É", "") for text in _texts(items)), trainer)
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    return _with_byte_tokens(tokenizer)


def _with_byte_tokens(tokenizer: Tokenizer) -> Tokenizer:
    fields = json.loads(tokenizer.to_str())
    vocabulary = fields["model"]["vocab"]
    for byte in range(256):
        vocabulary[f"<0x{byte:02X}>"] = len(vocabulary)
    return Tokenizer.from_str(json.dumps(fields))


def llama(num_tokens: int) -> LlamaForCausalLM:
    return LlamaForCausalLM(LlamaConfig(**_sizes(num_tokens)))


def qwen3(num_tokens: int) -> Qwen3ForCausalLM:
    return Qwen3ForCausalLM(Qwen3Config(**_sizes(num_tokens), head_dim=8))


def _sizes(num_tokens: int) -> dict[str, Any]:
    return {
        "vocab_size": num_tokens + 7,  # heads are often wider than the tokenizer
        "hidden_size": 32,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "initializer_range": 0.3,
    }


def decoder_from_disk(
    folder: Path, make: Callable[[int], torch.nn.Module], tokenizer: Tokenizer
) -> tuple[Decoder, PromptAssembler]:
    """A random decoder and its tokenizer, saved as a hub has them and read again."""
    torch.manual_seed(0)
    cast("Any", make(tokenizer.get_vocab_size())).save_pretrained(folder)
    (folder / "tokenizer.json").write_text(tokenizer.to_str(), encoding="utf-8")
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    read = load_tokenizer((folder / "tokenizer.json").read_bytes())
    fmt = _format(read)
    projector = Projector(LATENT, COLUMNS, 32).eval()
    vectors = np.random.default_rng(0).normal(size=(500, LATENT)).astype(np.float32)
    assembler = PromptAssembler(read, fmt, vectors)
    return Decoder(model, projector, yes=fmt.liked, no=fmt.disliked), assembler


def _format(tokenizer: Tokenizer) -> PromptFormat:
    def ids(text: str) -> tuple[int, ...]:
        return tuple(tokenizer.encode(text, add_special_tokens=False).ids)

    return PromptFormat(
        begin=ids("So far."),
        item=ids(" It"),
        ask=ids(" so"),
        liked=ids(" liked")[-1],
        disliked=ids(" no")[-1],
        marks=tuple(
            ids(f" {opinion} {side}") for opinion in ("no", "liked") for side in ("so", "It")
        ),
        max_events=MAX_EVENTS,
    )
