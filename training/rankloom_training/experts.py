"""Trains experts: LoRA on the frozen base, first for all users, then for each user group."""

from __future__ import annotations

import copy
import hashlib
import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import peft
import safetensors.torch
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from rankloom_adapters.expert import BASE_DIGEST, WEIGHTS_FILE
from rankloom_engine.layers import decoder_layers
from rankloom_engine.model import Decoder, head_logits
from rankloom_engine.packing import collate
from rankloom_engine.recomputing import recompute_layers
from rankloom_training.checkpoints import NO_CHECKPOINT, Checkpoint, State
from rankloom_training.lora import train_in_low_rank
from rankloom_training.metrics import auc
from rankloom_training.objectives import (
    Answers,
    objective_of,
)
from rankloom_training.options import Recipe
from rankloom_training.windows import Window, batches

RANK, ALPHA = 8, 16
TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
MAX_BATCH_TOKENS = 4096  # of a pass without gradients
STEP_TOKENS = 1536  # a small model learns more from many steps than from large ones
WARM_UP = 0.3  # of all steps, while the learning rate rises
PATIENCE = 2  # epochs after that without a better validation AUC before training ends
OnStep = Callable[[int, int], None]


@dataclass(frozen=True, slots=True, eq=False)
class TrainedMargins:
    """(rows,) margins of the validation windows before and after a training, and the AUC after."""

    before: NDArray[np.float32]
    after: NDArray[np.float32]
    auc: float


@dataclass(frozen=True, slots=True, eq=False)
class _Judged:
    """Weights after an epoch, their validation AUC and their (rows,) margins."""

    epoch: int
    auc: float
    weights: dict[str, dict[str, Tensor]]
    margins: Tensor


class _Steps:
    """Optimiser steps on some parameters. ``done``: how many were taken, of ``total``."""

    def __init__(self, parameters: list[nn.Parameter], recipe: Recipe, total: int) -> None:
        rate = recipe.learning_rate
        self._parameters, self.total, self.done = parameters, total, 0
        self._optimiser = torch.optim.AdamW(
            parameters, lr=rate, weight_decay=recipe.weight_decay, fused=True
        )
        self._schedule = torch.optim.lr_scheduler.OneCycleLR(
            self._optimiser, rate, total_steps=max(total, 1), pct_start=WARM_UP
        )

    def take(self, loss: Tensor) -> None:
        self._optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self._parameters, 1.0)
        self._optimiser.step()
        self._schedule.step()
        self.done += 1

    def state(self) -> dict[str, Any]:
        optimiser, schedule = self._optimiser.state_dict(), self._schedule.state_dict()
        return {"done": self.done, "optimiser": optimiser, "schedule": schedule}

    def load(self, state: dict[str, Any]) -> None:
        """Restores what ``state`` returned."""
        self.done = state["done"]
        self._optimiser.load_state_dict(state["optimiser"])
        self._schedule.load_state_dict(state["schedule"])


class ExpertTrainer:
    """A base model with one trainable LoRA adapter. The base's own weights are frozen.

    It trains where the decoder is. ``recompute``: layers run once more in the backward pass.
    """

    def __init__(self, decoder: Decoder, seed: int, *, recompute: bool = False) -> None:
        torch.manual_seed(seed)
        self.decoder = decoder
        self._seed = seed
        config = peft.LoraConfig(
            r=RANK, lora_alpha=ALPHA, target_modules=_targets(decoder.model), bias="none"
        )
        with warnings.catch_warnings():
            # peft reads an attribute that transformers has renamed.
            warnings.simplefilter("ignore", FutureWarning)
            self._adapted: Any = peft.get_peft_model(cast("Any", decoder.model), config)
        train_in_low_rank(self._adapted)
        if recompute:
            recompute_layers(decoder.model)

    def train(
        self,
        windows: Sequence[Window],
        valid: Sequence[Window],
        recipe: Recipe,
        *,
        with_projector: bool,
        on_step: OnStep,
        on_epoch: Callable[[int, float], None],
        checkpoint: Checkpoint = NO_CHECKPOINT,
    ) -> TrainedMargins:
        """Trains the adapter in place and keeps the epoch with the best validation AUC.

        The start counts as epoch 0, so training never makes the adapter worse on ``valid``. It ends
        early if PATIENCE epochs after the learning rate's peak gain nothing; before the peak, steps
        are too small to tell. Goes on from ``checkpoint`` if an earlier run saved one.
        """
        random = np.random.default_rng(self._seed)
        plan = [batches(windows, STEP_TOKENS, random) for _ in range(recipe.epochs)]
        has_text = any(len(window.words) for window in windows)
        warm = math.ceil(WARM_UP * recipe.epochs)
        parameters = self._trainable(recipe.depth, with_projector=with_projector)
        objective = objective_of(recipe, has_text=has_text)
        steps = _Steps(parameters, recipe, sum(map(len, plan)))
        before, best, judged = self._restored(steps, checkpoint) or self._begun(valid)

        def state() -> State:
            now = {"weights": self.state(), "steps": steps.state(), "judged": judged}
            kept = (best.epoch, best.auc, best.weights, best.margins)
            return now | {"before": before, "best": kept}

        on_epoch(best.epoch, best.auc)
        for epoch in range(judged + 1, len(plan) + 1):
            if epoch > max(best.epoch, warm) + PATIENCE:
                break
            self.decoder.projector.train(with_projector)
            done_before = sum(map(len, plan[: epoch - 1]))
            for batch in plan[epoch - 1][steps.done - done_before :]:
                steps.take(objective.loss(self.answers(batch)))
                on_step(steps.done, steps.total)
                checkpoint.save_if_due(state)
            found, judged = self._judged(epoch, valid), epoch
            on_epoch(epoch, found.auc)
            best = found if found.auc > best.auc else best
        checkpoint.save(state)
        self.load(best.weights)
        return TrainedMargins(before.numpy(), best.margins.numpy(), best.auc)

    def _begun(self, valid: Sequence[Window]) -> tuple[Tensor, _Judged, int]:
        """What ``_restored`` returns, before any step."""
        start = self._judged(0, valid)
        return start.margins, start, start.epoch

    def _judged(self, epoch: int, valid: Sequence[Window]) -> _Judged:
        margins = self.margins(valid)
        return _Judged(epoch, _auc(valid, margins), self.state(), torch.from_numpy(margins))

    def _restored(
        self, steps: _Steps, checkpoint: Checkpoint
    ) -> tuple[Tensor, _Judged, int] | None:
        """Margins at the start, the best epoch and the last judged one of an earlier run.

        Its weights are loaded.
        """
        saved = checkpoint.load()
        if saved is None:
            return None
        self.load(saved["weights"])
        steps.load(saved["steps"])
        return saved["before"], _Judged(*saved["best"]), saved["judged"]

    def auc(self, windows: Sequence[Window]) -> float:
        """AUC of margin plus tree logit over the windows' rows."""
        return _auc(windows, self.margins(windows))

    @torch.inference_mode()
    def margins(self, windows: Sequence[Window]) -> NDArray[np.float32]:
        """(rows,) margins in the windows' order: the logit of yes minus the logit of no."""
        self.decoder.projector.eval()
        order = batches(windows, MAX_BATCH_TOKENS, np.random.default_rng(0))
        found: dict[int, NDArray[np.float32]] = {}
        for batch in order:
            margins = (
                self.decoder.margins(collate([window.packed for window in batch])).cpu().numpy()
            )
            ends = np.cumsum([len(window.packed.read_at) for window in batch])[:-1]
            for window, part in zip(batch, np.split(margins, ends), strict=True):
                found[id(window)] = part[: len(window.label)]
        return np.concatenate([found[id(window)] for window in windows])

    def state(self) -> dict[str, dict[str, Tensor]]:
        """A copy of the weights of adapter and projector."""
        now = {
            "adapter": dict(peft.get_peft_model_state_dict(self._adapted)),
            "projector": dict(self.decoder.projector.state_dict()),
        }
        return copy.deepcopy(now)

    def load(self, state: dict[str, dict[str, Tensor]]) -> None:
        """Restores what ``state`` returned."""
        peft.set_peft_model_state_dict(self._adapted, state["adapter"])
        self.decoder.projector.load_state_dict(state["projector"])

    def save(self, folder: Path, base_weights: Path) -> None:
        """Writes the adapter in PEFT's file format.

        The file names the digest of the base's weight file, so that no server puts the
        adapter on another base of the same shapes.
        """
        config = self._adapted.peft_config["default"]
        config.target_modules = sorted(config.target_modules)  # a set has any order
        self._adapted.save_pretrained(str(folder))
        (folder / "README.md").unlink(missing_ok=True)
        path = folder / WEIGHTS_FILE
        tensors = safetensors.torch.load(path.read_bytes())
        # One metadata entry only: the library writes several in any order, and equal experts must
        # have equal bytes.
        digest = hashlib.sha256(base_weights.read_bytes()).hexdigest()
        path.write_bytes(safetensors.torch.save(tensors, {BASE_DIGEST: digest}))

    def load_adapter(self, folder: Path) -> None:
        """Loads the adapter that ``save`` wrote."""
        weights = safetensors.torch.load_file(str(folder / WEIGHTS_FILE))
        peft.set_peft_model_state_dict(self._adapted, weights)

    def _trainable(self, depth: float, *, with_projector: bool) -> list[nn.Parameter]:
        """Of the last layers, a share ``depth`` of all, what the adapter has there."""
        layers = decoder_layers(self.decoder.model)
        first = round((1.0 - depth) * len(layers))
        for index, layer in enumerate(layers):
            for name, parameter in layer.named_parameters():
                parameter.requires_grad_("lora_" in name and index >= first)
        for parameter in self.decoder.projector.parameters():
            parameter.requires_grad_(with_projector)
        modules = (self.decoder.model, self.decoder.projector)
        return [p for module in modules for p in module.parameters() if p.requires_grad]

    def answers(self, batch: Sequence[Window]) -> Answers:
        """What the model answers for each row of the windows; gradients are recorded."""
        states = self.decoder.states(collate([window.packed for window in batch]))
        verdicts, words = _reads(batch)
        label = self._joined([window.label for window in batch])
        tree_logits = self._joined([window.tree_logits for window in batch])
        num_words = self._joined([_num_words(window) for window in batch])

        def token_loss() -> Tensor:
            """The tree logit counts for yes, as it does in the score."""
            logits = head_logits(self.decoder.model, states).float()
            at_verdicts = logits[verdicts]
            at_verdicts[:, self.decoder.yes] += tree_logits
            verdict = torch.where(label > 0, self.decoder.yes, self.decoder.no)
            first = functional.cross_entropy(at_verdicts, verdict, reduction="none")
            told = self._joined([window.words for window in batch])
            others = functional.cross_entropy(logits[words], told, reduction="none")
            row = torch.repeat_interleave(num_words)
            return first.index_add(0, row, others) / (1 + num_words)

        return Answers(
            self.decoder.margins_of(states[verdicts]) + tree_logits,
            label,
            [len(window.label) for window in batch],
            num_words > 0,
            token_loss,
        )

    def _joined(self, parts: Sequence[NDArray[Any]]) -> Tensor:
        return torch.from_numpy(np.concatenate(parts)).to(self.decoder.device)


def _auc(windows: Sequence[Window], margins: NDArray[np.float32]) -> float:
    tree_logits = np.concatenate([window.tree_logits for window in windows])
    label = np.concatenate([window.label for window in windows])
    return auc(label > 0, margins + tree_logits)


def _num_words(window: Window) -> NDArray[np.int64]:
    return np.bincount(window.word_of, minlength=len(window.label))


def _reads(batch: Sequence[Window]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Indices of the verdicts and of the words among all reads of a batch."""
    is_word = np.concatenate([np.arange(len(w.packed.read_at)) >= len(w.label) for w in batch])
    return np.flatnonzero(~is_word), np.flatnonzero(is_word)


def _targets(model: nn.Module) -> list[str]:
    names = {
        name.rsplit(".", 1)[-1] for name, m in model.named_modules() if isinstance(m, nn.Linear)
    }
    return sorted(names & set(TARGETS)) or sorted(names - {"lm_head", "embed_out"})
