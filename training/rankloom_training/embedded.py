"""The embedded decoder: a small causal LM, trained here on the catalogue and the log."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor, nn
from torch.nn import functional
from transformers import LlamaConfig, LlamaForCausalLM

from rankloom_engine import attention
from rankloom_engine.model import head_logits
from rankloom_engine.packing import PackedRow, Segment, collate, pack, pack_more
from rankloom_engine.passes import passes_on
from rankloom_engine.profile import MAX_PROFILE_EVENTS
from rankloom_engine.prompt import PromptFormat, clean, item_ids, opening_ids, render
from rankloom_features.catalogue import Catalogue
from rankloom_training.checkpoints import NO_CHECKPOINT, Checkpoint, State
from rankloom_training.data import Interactions
from rankloom_training.words import Words

BEGIN, ITEM, ASK, YES, NO = "<|begin|>", "<|item|>", "<|verdict|>", "<|yes|>", "<|no|>"
MARKS = (
    "<|disliked, against|>",
    "<|disliked, for|>",
    "<|liked, against|>",
    "<|liked, for|>",
)
SPECIAL_TOKENS = (BEGIN, ITEM, ASK, YES, NO, *MARKS)
VOCABULARY = 4096
EVENTS_PER_SEQUENCE = 24
BATCH_TOKENS = 1536
LEARNING_RATE = 2e-3
NO_TOKEN = -1
OnStep = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class DecoderShape:
    """Size of the embedded decoder."""

    hidden: int = 96
    layers: int = 3
    heads: int = 4
    key_value_heads: int = 2
    intermediate: int = 256


@dataclass(frozen=True, slots=True, eq=False)
class Lesson:
    """A stretch of a user's log to read, with words behind some events.

    ``next_token``: the token behind each position that is read. ``is_word``: whether it is said,
    not read in the log.
    """

    packed: PackedRow
    next_token: NDArray[np.int64]
    is_word: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.packed)


def train_tokenizer(catalogue: Catalogue, texts: Iterable[str] = ()) -> Tokenizer:
    """A byte-pair tokenizer of the catalogue and of ``texts``, with the prompt's special tokens."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.encode_special_tokens = True  # in a title they are plain text, as when it is served
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    items = (render(item) for item in catalogue.items)
    tokenizer.train_from_iterator((*items, *map(clean, texts)), trainer)
    return tokenizer


def embedded_format(
    tokenizer: Tokenizer, max_events: int, *, is_phrased: bool = False
) -> PromptFormat:
    """The prompt of the embedded decoder; the mark of the next item ends words.

    ``is_phrased``: it is taught the sentences that the server offers it.
    """
    token = {name: cast("int", tokenizer.token_to_id(name)) for name in SPECIAL_TOKENS}
    return PromptFormat(
        begin=(token[BEGIN],),
        item=(token[ITEM],),
        ask=(token[ASK],),
        liked=token[YES],
        disliked=token[NO],
        marks=tuple((token[mark],) for mark in MARKS),
        max_events=max_events,
        stop=token[ITEM],
        is_phrased=is_phrased,
    )


def train_decoder(
    tokenizer: Tokenizer,
    fmt: PromptFormat,
    catalogue: Catalogue,
    log: Interactions,
    rows: NDArray[np.int64],
    words: Mapping[int, Words],
    *,
    shape: DecoderShape,
    epochs: int,
    seed: int,
    on_step: OnStep,
    checkpoint: Checkpoint = NO_CHECKPOINT,
    device: str = "cpu",
) -> LlamaForCausalLM:
    """Trains a decoder on next-token prediction over sequences of these rows of the log.

    Goes on from ``checkpoint`` if an earlier run saved one.

    ``words``: row of the log → what to say about it, where all it cites stands before it. It hangs
    behind the row's verdict, and no later event sees it. Where dislikes are sampled, ``rows`` are
    likes, whose verdicts teach nothing.
    """
    but = fmt.liked if log.sampled else NO_TOKEN
    torch.manual_seed(seed)
    model = LlamaForCausalLM(_config(tokenizer, shape))
    cast("Any", model).to(device)
    attention.wire(model)
    lessons = list(lessons_of(tokenizer, fmt, catalogue, log, rows, words))
    random = np.random.default_rng(seed)
    plan = [batch for _ in range(epochs) for batch in batches(lessons, random)]
    steps = len(plan)
    optimiser = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, LEARNING_RATE, total_steps=steps)
    loop = {"model": model, "optimiser": optimiser, "schedule": schedule}
    done = _restore(loop, checkpoint)
    model.train()
    for step, batch in enumerate(plan[done:], done + 1):
        optimiser.zero_grad()
        next_token_loss(model, [lessons[index] for index in batch], but).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        on_step(step, steps)
        checkpoint.save_if_due(partial(_state, loop, step))
    plain = LlamaForCausalLM(_config(tokenizer, shape))
    plain.load_state_dict(model.state_dict())
    return plain.eval()


def _state(loop: Mapping[str, Any], step: int) -> State:
    return {"step": step} | {name: part.state_dict() for name, part in loop.items()}


def _restore(loop: Mapping[str, Any], checkpoint: Checkpoint) -> int:
    """Restores what ``_state`` returned in an earlier run; returns the steps that it took."""
    saved = checkpoint.load()
    if saved is None:
        return 0
    for name, part in loop.items():
        part.load_state_dict(saved[name])
    return int(saved["step"])


def next_token_loss(
    model: LlamaForCausalLM, lessons: Sequence[Lesson], but: int = NO_TOKEN
) -> Tensor:
    """Mean cross-entropy of the log's tokens, plus that of the words. The model is wired.

    ``but``: a token not to learn.
    """
    batch = collate([lesson.packed for lesson in lessons])
    device = model.device
    embeddings = model.get_input_embeddings()(torch.from_numpy(batch.ids).to(device))[None]
    states = passes_on(device).states(model, embeddings, batch)
    told = torch.from_numpy(np.concatenate([each.next_token for each in lessons])).to(device)
    is_word = torch.from_numpy(np.concatenate([each.is_word for each in lessons])).to(device)
    losses = functional.cross_entropy(head_logits(model, states), told, reduction="none")
    in_log = ~is_word & (told != but)
    return sum(
        (losses[part].mean() for part in (in_log, is_word) if part.any()), losses.new_zeros(())
    )


def _config(tokenizer: Tokenizer, shape: DecoderShape) -> LlamaConfig:
    return LlamaConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=shape.hidden,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.key_value_heads,
        intermediate_size=shape.intermediate,
        max_position_embeddings=4096,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=None,
    )


def lessons_of(
    tokenizer: Tokenizer,
    fmt: PromptFormat,
    catalogue: Catalogue,
    log: Interactions,
    rows: NDArray[np.int64],
    words: Mapping[int, Words],
) -> Iterator[Lesson]:
    """Consecutive rows of one user: each item's text and its verdict."""
    structural = tokenizer.get_added_tokens_decoder().keys()
    items = [item_ids(tokenizer, fmt, structural, item) for item in catalogue.items]
    for own in np.split(rows, np.flatnonzero(np.diff(log.user[rows])) + 1):
        for at in range(0, len(own), EVENTS_PER_SEQUENCE):
            opinions = [
                (catalogue.items[log.item[row]].attributes, bool(log.liked[row]))
                for row in own[:at][-MAX_PROFILE_EVENTS:]
            ]
            ids, ends = list(opening_ids(tokenizer, fmt, structural, opinions)), []
            stretch = own[at : at + EVENTS_PER_SEQUENCE]
            for row in stretch:
                verdict = fmt.liked if log.liked[row] else fmt.disliked
                ids += [*fmt.item, *items[log.item[row]], *fmt.ask, verdict]
                ends.append(len(ids))
            own_words = [words.get(int(row)) for row in stretch]
            said = [
                (end, told)
                for at, (told, end) in enumerate(zip(own_words, ends, strict=True))
                if told is not None and told.known(log.item[stretch[: at + 1]].tolist())
            ]
            yield lesson(ids, said)


def lesson(ids: Sequence[int], said: Sequence[tuple[int, Words]] = ()) -> Lesson:
    """Every token of ``ids`` but the first is learnt, and every word that is said.

    ``said``: how many of the ids are seen, and what is said then, in two or more words.
    """
    events = Segment.of_ids(ids)
    read, told = list(range(len(ids) - 1)), list(ids[1:])
    if not said:
        return _reading(pack_more(0, events), read, told, 0)
    behind = [Segment.of_ids([*words.given, *words.ids[:-1]]) for _, words in said]
    packed = pack(events, behind, [end for end, _ in said])
    for last, (end, words) in zip(packed.read_at.tolist(), said, strict=True):
        at = list(range(last - len(words.ids) + 1, last + 1))
        read += at if words.given else [end - 1, *at[1:]]
        told += words.ids
    return _reading(packed, read, told, len(told) - len(ids) + 1)


def _reading(packed: PackedRow, read: Sequence[int], told: Sequence[int], num_words: int) -> Lesson:
    at, is_word = np.array(read, dtype=np.int64), np.arange(len(told)) >= len(told) - num_words
    packed = dataclasses.replace(packed, read_at=at)
    return Lesson(packed, np.array(told, dtype=np.int64), is_word)


def batches(lessons: Sequence[Sized], random: np.random.Generator) -> list[list[int]]:
    """Each lesson once, in batches of at most BATCH_TOKENS tokens, or one longer lesson."""
    made: list[list[int]] = []
    room = 0
    for index in random.permutation(len(lessons)):
        if not made or len(lessons[index]) > room:
            made.append([])
            room = BATCH_TOKENS
        made[-1].append(int(index))
        room -= len(lessons[index])
    return made
