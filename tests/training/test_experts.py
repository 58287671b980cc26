from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional
from transformers import LlamaConfig, LlamaForCausalLM

from rankloom_engine.loading import Hardware, move
from rankloom_engine.model import Decoder, head_logits
from rankloom_engine.packing import collate
from rankloom_engine.projector import Projector
from rankloom_engine.prompt import PromptAssembler
from rankloom_training import checkpoints, experts
from rankloom_training.checkpoints import NO_CHECKPOINT, Checkpoint
from rankloom_training.embedded import embedded_format, train_tokenizer
from rankloom_training.experts import PATIENCE, ExpertTrainer, TrainedMargins
from rankloom_training.machine import CPU, Machine
from rankloom_training.options import Recipe
from rankloom_training.visibility import Protocol, training_views
from rankloom_training.windows import Inputs, Window, WindowMaker
from rankloom_training.words import Words
from training.logs import random_log

DIM, COLUMNS, HIDDEN = 3, 2, 32
RECIPE = Recipe(epochs=2, learning_rate=1e-2)
WORDS = (30, 31, 32)
ON_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no GPU")


@pytest.fixture(scope="module")
def made() -> tuple[Callable[..., ExpertTrainer], list[Window]]:
    """A factory of equal trainers, and windows to train on; words follow every fourth row."""
    dataset = random_log(3, num_users=12)
    tokenizer = train_tokenizer(dataset.catalogue)
    fmt = embedded_format(tokenizer, 8)
    random = np.random.default_rng(0)
    vectors = random.normal(size=(len(dataset.catalogue), DIM)).astype(np.float32)
    builder = PromptAssembler(tokenizer, fmt, vectors)
    view = training_views(dataset.log, Protocol.P1, 0)[0]
    num = len(view.rows)
    inputs = Inputs(
        view,
        random.normal(size=(num, DIM)).astype(np.float32),
        random.normal(size=(num, COLUMNS)).astype(np.float32),
        np.zeros(num),
    )
    said = {int(row): Words((28, 29), WORDS, frozenset()) for row in view.rows[::4]}
    windows = WindowMaker(dataset.log, dataset.catalogue, builder, said).windows(inputs)

    def trainer(machine: Machine = CPU) -> ExpertTrainer:
        torch.manual_seed(0)
        config = LlamaConfig(
            vocab_size=tokenizer.get_vocab_size(),
            hidden_size=HIDDEN,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=1,
        )
        model = LlamaForCausalLM(config).eval()
        move(model, Hardware(machine.device, machine.dtype))
        projector = Projector(DIM, COLUMNS, HIDDEN).to(machine.device)
        decoder = Decoder(model, projector, yes=fmt.liked, no=fmt.disliked)
        return ExpertTrainer(decoder, 0, recompute=machine.recompute)

    return trainer, windows


def train(trainer: ExpertTrainer, windows: list[Window], recipe: Recipe = RECIPE) -> list[float]:
    """Trains and validates on the windows. Returns the AUC of each epoch, the start first."""
    return trained(trainer, windows, recipe)[0]


def trained(
    trainer: ExpertTrainer, windows: list[Window], recipe: Recipe = RECIPE
) -> tuple[list[float], TrainedMargins]:
    """Trains and validates on the windows. Returns the AUC of each epoch too."""
    aucs: list[float] = []
    found = trainer.train(
        windows,
        windows,
        recipe,
        with_projector=False,
        on_step=lambda step, steps: None,
        on_epoch=lambda epoch, auc: aucs.append(auc),
    )
    return aucs, found


def test_experts_with_one_start_are_independent(
    made: tuple[Callable[[], ExpertTrainer], list[Window]],
) -> None:
    """A group's expert starts from the global expert, not from the previous group's."""
    new, windows = made
    half = len(windows) // 2
    after_another, alone = new(), new()
    start = after_another.state()
    moved = train(after_another, windows[:half])
    assert max(moved[1:]) > moved[0], "the first training must have moved the weights"
    after_another.load(start)
    assert train(after_another, windows[half:]) == train(alone, windows[half:])


@pytest.mark.parametrize(
    ("machine", "tolerance"),
    [
        (Machine(recompute=True), 1e-6),
        # In bfloat16 a score has two or three digits.
        pytest.param(Machine("cuda"), 0.03, marks=ON_GPU),
        pytest.param(Machine("cuda", recompute=True), 0.03, marks=ON_GPU),
    ],
    ids=str,
)
def test_the_machine_does_not_decide_what_is_learnt(
    made: tuple[Callable[..., ExpertTrainer], list[Window]], machine: Machine, tolerance: float
) -> None:
    new, windows = made
    aucs = train(new(), windows)
    assert aucs[-1] > aucs[0] + 0.01
    assert train(new(machine), windows) == pytest.approx(aucs, abs=tolerance)


def test_the_best_epoch_is_kept(
    made: tuple[Callable[[], ExpertTrainer], list[Window]],
) -> None:
    new, windows = made
    trainer = new()
    before = trainer.margins(windows)
    aucs, found = trained(trainer, windows)
    assert trainer.auc(windows) == found.auc == max(aucs)
    assert np.array_equal(found.before, before)
    assert np.array_equal(found.after, trainer.margins(windows))
    assert not np.array_equal(found.after, before)


def test_patience_begins_when_the_learning_rate_is_at_its_peak(
    made: tuple[Callable[[], ExpertTrainer], list[Window]],
) -> None:
    new, windows = made
    still = Recipe(epochs=10, learning_rate=1e-30, weight_decay=0.0)
    aucs = train(new(), windows[:2], still)
    peak = 3
    assert len(aucs) == 1 + peak + PATIENCE
    assert len(set(aucs)) == 1


def test_a_saved_expert_is_loaded(
    made: tuple[Callable[[], ExpertTrainer], list[Window]], tmp_path: Path
) -> None:
    new, windows = made
    trainer, other = new(), new()
    train(trainer, windows)
    (tmp_path / "base").write_bytes(b"weights")
    trainer.save(tmp_path, tmp_path / "base")
    other.load_adapter(tmp_path)
    assert np.array_equal(trainer.margins(windows), other.margins(windows))


@torch.inference_mode()
def test_the_token_loss_is_the_mean_over_verdict_and_words_of_each_row(
    made: tuple[Callable[[], ExpertTrainer], list[Window]],
) -> None:
    """In plain forwards of one row each; the tree logit counts for yes."""
    new, windows = made
    trainer = new()
    window = next(w for w in windows if len(w.words) > len(WORDS))
    window = dataclasses.replace(window, tree_logits=window.tree_logits + 0.7)
    answers = trainer.answers([window])
    assert (
        answers.has_text.tolist() == np.isin(np.arange(len(window.rows)), window.word_of).tolist()
    )
    states = trainer.decoder.states(collate([window.packed]))
    chances = head_logits(trainer.decoder.model, states)
    num = len(window.rows)
    chances[:num, trainer.decoder.yes] += 0.7
    for row, label in enumerate(window.label):
        verdict = trainer.decoder.yes if label else trainer.decoder.no
        own = num + np.flatnonzero(window.word_of == row)
        told = [verdict, *window.words[window.word_of == row].tolist()]
        expected = functional.cross_entropy(chances[[row, *own]], torch.tensor(told))
        assert abs(float(answers.token_loss()[row] - expected)) < 1e-5


def test_half_the_depth_leaves_the_first_layers_as_they_were(
    made: tuple[Callable[[], ExpertTrainer], list[Window]],
) -> None:
    new, windows = made
    trainer = new()
    start = trainer.state()["adapter"]
    train(trainer, windows, dataclasses.replace(RECIPE, depth=0.5))
    changed = {
        name for name, tensor in trainer.state()["adapter"].items()
        if not torch.equal(tensor, start[name])
    }  # fmt: skip
    assert changed
    assert all(".layers.1." in name for name in changed)


class EndedError(Exception):
    """A training ends in the middle."""


@pytest.mark.parametrize("last", [1, 2, 3])
@pytest.mark.parametrize("with_projector", [False, True])
def test_an_ended_training_goes_on_to_the_same_weights(
    made: tuple[Callable[[], ExpertTrainer], list[Window]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    last: int,
    with_projector: bool,
) -> None:
    monkeypatch.setattr(checkpoints, "EVERY_S", 0.0)
    monkeypatch.setattr(experts, "MAX_BATCH_TOKENS", 1500)
    new, windows = made
    steps: list[int] = []

    def train_until(
        trainer: ExpertTrainer, stop: int, checkpoint: Checkpoint
    ) -> tuple[float, list[float], list[float]]:
        def on_step(step: int, _: int) -> None:
            steps.append(step)
            if step > stop:
                raise EndedError

        found = trainer.train(
            windows,
            windows,
            RECIPE,
            with_projector=with_projector,
            on_step=on_step,
            on_epoch=lambda epoch, auc: None,
            checkpoint=checkpoint,
        )
        return found.auc, found.before.tolist(), found.after.tolist()

    undisturbed, resumed = new(), new()
    best = train_until(undisturbed, 10**6, NO_CHECKPOINT)
    total = steps[-1]
    assert total > last
    with pytest.raises(EndedError):
        train_until(new(), last, Checkpoint(tmp_path / "loop.pt"))
    steps.clear()
    assert train_until(resumed, 10**6, Checkpoint(tmp_path / "loop.pt")) == best
    assert steps == list(range(last + 1, total + 1))
    steps.clear()
    assert train_until(new(), 0, Checkpoint(tmp_path / "loop.pt")) == best
    assert steps == []
    for part, weights in undisturbed.state().items():
        for name, value in weights.items():
            assert torch.equal(value, resumed.state()[part][name])
