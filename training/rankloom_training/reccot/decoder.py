"""The decoder that writes rationales: any causal LM, or a small one made on the spot."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)
from transformers.utils.logging import disable_progress_bar

from rankloom_training.base import BaseModelError
from rankloom_training.checkpoints import Checkpoint, State
from rankloom_training.embedded import DecoderShape
from rankloom_training.reccot.byte_pairs import byte_pairs
from rankloom_training.reccot.low_rank import in_low_rank, lora_config

disable_progress_bar()  # commands have bars of their own

ANSWER_TOKENS = 128
CONTEXT = 1024
_PAD, _END = "<|pad|>", "<|end|>"
_IGNORED = -100  # what cross-entropy leaves out
_DRAWN: dict[str, Any] = {"do_sample": True, "temperature": 1.0, "top_k": 0, "top_p": 1.0}


@dataclass(frozen=True, slots=True)
class WarmStart:
    """How a decoder is first taught the form of answers. ``rows``: at most so many."""

    rows: int = 2000
    epochs: int = 3
    batch: int = 16
    learning_rate: float = 2e-3


@dataclass(slots=True)
class AnswerDecoder:
    """A causal LM and its tokenizer, which pads on the left.

    ``is_pretrained``: it learns in low rank alone.
    """

    model: Any
    tokenizer: Any
    is_pretrained: bool

    def answers(
        self, prompts: Sequence[str], batch: int = 64, draw: int | None = None
    ) -> list[str]:
        """The likeliest answer to each prompt; equal prompts get equal answers.

        ``draw``: a seed; the answers are drawn by their probability instead.
        """
        if draw is not None:
            torch.manual_seed(draw)
        order: list[int] = np.argsort([len(prompt) for prompt in prompts], kind="stable").tolist()
        found = [""] * len(prompts)
        for start in range(0, len(order), batch):
            rows = order[start : start + batch]
            texts = self._batch([prompts[row] for row in rows], drawn=draw is not None)
            for row, text in zip(rows, texts, strict=True):
                found[row] = text
        return found

    def save(self, folder: Path) -> None:
        self.model.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)

    @torch.inference_mode()
    def _batch(self, prompts: list[str], *, drawn: bool) -> list[str]:
        given = self.tokenizer(prompts, return_tensors="pt", padding=True)
        out = self.model.eval().generate(
            input_ids=given["input_ids"],
            attention_mask=given["attention_mask"],
            max_new_tokens=ANSWER_TOKENS,
            **(_DRAWN if drawn else {"do_sample": False}),
        )
        answers = out[:, given["input_ids"].shape[1] :]
        texts: list[str] = self.tokenizer.batch_decode(answers, skip_special_tokens=True)
        return texts


def open_decoder(name: str, *, is_pretrained: bool = True) -> AnswerDecoder:
    """A causal LM by path or hub id, in float32. Raises BaseModelError."""
    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(
            name, trust_remote_code=False, padding_side="left"
        )
        model: Any = AutoModelForCausalLM.from_pretrained(
            name, trust_remote_code=False, use_safetensors=True, dtype=torch.float32
        )
    except Exception as error:  # transformers raises many kinds; all of them mean this
        raise BaseModelError(
            f"generator {name!r}: no causal LM with safetensors weights under that path or hub id; "
            f"check the name, or leave --base out to train a small one"
        ) from error
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    return AnswerDecoder(model, tokenizer, is_pretrained)


def small_decoder(
    texts: Sequence[str], seed: int, shape: DecoderShape | None = None
) -> AnswerDecoder:
    """An untrained decoder with a byte-pair tokenizer of these texts."""
    torch.manual_seed(seed)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=byte_pairs(texts, (_PAD, _END)),
        pad_token=_PAD,
        eos_token=_END,
        padding_side="left",
        model_max_length=CONTEXT,
    )
    shape = shape or DecoderShape()
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=shape.hidden,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.key_value_heads,
        intermediate_size=shape.intermediate,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=cast("int", tokenizer.eos_token_id),
        pad_token_id=cast("int", tokenizer.pad_token_id),
    )
    return AnswerDecoder(LlamaForCausalLM(config), tokenizer, is_pretrained=False)


def warm_start(
    decoder: AnswerDecoder,
    pairs: Sequence[tuple[str, str]],
    options: WarmStart,
    seed: int,
    checkpoint: Checkpoint,
) -> None:
    """Teaches a decoder to answer: cross-entropy of the answers alone, in place.

    ``pairs``: prompt and answer. Goes on from ``checkpoint`` if an earlier run saved one.
    """
    torch.manual_seed(seed)
    model, rate = decoder.model, options.learning_rate
    if decoder.is_pretrained:
        model, rate = in_low_rank(model, lora_config()), rate / 10
    examples = [_example(decoder.tokenizer, *pair) for pair in pairs]
    plan = list(_plan(len(examples), options, np.random.default_rng(seed)))
    optimiser = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, total_steps=len(plan))
    loop = {"model": model, "optimiser": optimiser, "schedule": schedule}
    done = _restore(loop, checkpoint)
    for step, rows in enumerate(plan[done:], done + 1):
        optimiser.zero_grad()
        _loss(model.train(), [examples[row] for row in rows]).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        checkpoint.save_if_due(partial(_state, loop, step))
    decoder.model = (model.merge_and_unload() if decoder.is_pretrained else model).eval()


def _state(loop: dict[str, Any], step: int) -> State:
    return {"step": step} | {name: part.state_dict() for name, part in loop.items()}


def _restore(loop: dict[str, Any], checkpoint: Checkpoint) -> int:
    saved = checkpoint.load()
    if saved is None:
        return 0
    for name, part in loop.items():
        part.load_state_dict(saved[name])
    return int(saved["step"])


def _plan(
    number: int, options: WarmStart, random: np.random.Generator
) -> Iterator[NDArray[np.int64]]:
    for _ in range(options.epochs):
        order = random.permutation(number)
        for start in range(0, number, options.batch):
            yield order[start : start + options.batch]


def _example(tokenizer: Any, prompt: str, answer: str) -> tuple[list[int], int]:  # noqa: ANN401
    """Ids of prompt and answer with its end, and how many are the prompt's."""
    given = tokenizer(prompt)["input_ids"]
    said = tokenizer(answer, add_special_tokens=False)["input_ids"]
    return [*given, *said, tokenizer.eos_token_id], len(given)


def _loss(model: Any, examples: Sequence[tuple[list[int], int]]) -> Tensor:  # noqa: ANN401
    longest = max(len(ids) for ids, _ in examples)
    ids = torch.zeros(len(examples), longest, dtype=torch.int64)
    target = torch.full_like(ids, _IGNORED)
    for row, (own, num_given) in enumerate(examples):
        ids[row, : len(own)] = torch.tensor(own)
        target[row, num_given : len(own)] = torch.tensor(own[num_given:])
    mask = (torch.arange(longest) < torch.tensor([[len(own)] for own, _ in examples])).long()
    logits = model(input_ids=ids, attention_mask=mask).logits
    return functional.cross_entropy(
        logits[:, :-1].flatten(0, 1), target[:, 1:].flatten(), ignore_index=_IGNORED
    )
