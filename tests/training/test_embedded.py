"""The embedded decoder learns sequences, and words that hang behind some verdicts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional
from transformers import LlamaConfig, LlamaForCausalLM

from rankloom_engine import attention
from rankloom_features.catalogue import Catalogue, Item
from rankloom_training import checkpoints
from rankloom_training.checkpoints import NO_CHECKPOINT, Checkpoint
from rankloom_training.data import Split
from rankloom_training.embedded import (
    BATCH_TOKENS,
    DecoderShape,
    batches,
    embedded_format,
    lesson,
    next_token_loss,
    train_decoder,
    train_tokenizer,
)
from rankloom_training.words import Words
from training.logs import random_log

CATALOGUE = Catalogue(Item(f"i{n}", f"The Film No {n}", 1990 + n, ("Drama",)) for n in range(30))
IDS = [3, 9, 4, 1, 7, 5, 2, 8, 6, 11]
SAID = (
    (4, Words((), (20, 21, 22), frozenset())),
    (6, Words((25,), (26, 27), frozenset())),
    (8, Words((28, 29, 30), (23, 24), frozenset())),
)


def small_llama() -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=32,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
    )
    return LlamaForCausalLM(config).eval()


def plain_losses(ids: list[int], first: int) -> list[float]:
    """The cross-entropy of each token from ``first`` on, by the library's own forward."""
    with torch.inference_mode():
        logits = small_llama()(torch.tensor([ids])).logits[0]
    losses = functional.cross_entropy(logits[:-1], torch.tensor(ids[1:]), reduction="none")
    return list(losses[first - 1 :].tolist())


def test_words_are_learnt_as_if_they_alone_followed_their_verdict() -> None:
    model = small_llama()
    attention.wire(model)
    with torch.inference_mode():
        found = next_token_loss(model, [lesson(IDS, SAID), lesson(IDS)]).item()
    in_log, said = plain_losses(IDS, 1), list[float]()
    for end, words in SAID:
        before = [*IDS[:end], *words.given]
        said += plain_losses([*before, *words.ids], len(before))
    assert abs(found - np.mean(in_log) - np.mean(said)) < 1e-5


def test_a_title_cannot_write_a_special_token_into_the_base() -> None:
    tokenizer = train_tokenizer(
        Catalogue([*CATALOGUE.items, Item("bad", "A <|yes|> film <|item|>")])
    )
    fmt = embedded_format(tokenizer, 5)
    special = {*fmt.begin, *fmt.item, *fmt.ask, fmt.liked, fmt.disliked}
    ids = tokenizer.encode("A <|yes|> film <|item|>", add_special_tokens=False).ids
    assert special.isdisjoint(ids)
    assert tokenizer.decode(ids) == "A <|yes|> film <|item|>"


def test_each_lesson_stands_in_one_batch_within_the_budget() -> None:
    random = np.random.default_rng(0)
    lessons = [[1] * int(length) for length in random.integers(5, 400, 300)]
    made = batches(lessons, np.random.default_rng(1))
    assert sorted(index for batch in made for index in batch) == list(range(300))
    assert max(sum(len(lessons[index]) for index in batch) for batch in made) <= BATCH_TOKENS
    assert made != batches(lessons, np.random.default_rng(2))


def test_the_tokenizer_knows_the_words_that_are_said() -> None:
    text = "because of the moonlight"
    with_words = train_tokenizer(CATALOGUE, [text] * 20)
    assert len(with_words.encode(text).ids) < len(train_tokenizer(CATALOGUE).encode(text).ids)


def test_a_token_that_teaches_nothing_is_left_out() -> None:
    model = small_llama()
    attention.wire(model)
    with torch.inference_mode():
        found = next_token_loss(model, [lesson(IDS)], but=7).item()
    losses = [loss for loss, token in zip(plain_losses(IDS, 1), IDS[1:], strict=True) if token != 7]
    assert abs(found - np.mean(losses)) < 1e-5


class CutError(Exception):
    """A training ends in the middle."""


def test_a_cut_training_goes_on_to_the_same_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoints, "EVERY_S", 0.0)
    data, steps = random_log(3, num_users=12), list[int]()
    tokenizer = train_tokenizer(data.catalogue)

    def trained(last: int, checkpoint: Checkpoint) -> LlamaForCausalLM:
        def on_step(step: int, _: int) -> None:
            steps.append(step)
            if step > last:
                raise CutError

        return train_decoder(
            tokenizer,
            embedded_format(tokenizer, 8),
            data.catalogue,
            data.log,
            np.flatnonzero(data.log.split == Split.TRAIN),
            {},
            shape=DecoderShape(16, 1, 2, 1, 32),
            epochs=6,
            seed=0,
            on_step=on_step,
            checkpoint=checkpoint,
        )

    undisturbed = trained(10**6, NO_CHECKPOINT).state_dict()
    total = steps[-1]
    with pytest.raises(CutError):
        trained(2, Checkpoint(tmp_path / "loop.pt"))
    steps.clear()
    resumed = trained(10**6, Checkpoint(tmp_path / "loop.pt")).state_dict()
    assert steps == list(range(3, total + 1))
    assert all(torch.equal(value, resumed[name]) for name, value in undisturbed.items())
