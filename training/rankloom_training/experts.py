"""Trains experts: LoRA on the frozen base, first for all users, then for each user group."""

from __future__ import annotations

import copy
import hashlib
import itertools
import warnings
from collections.abc import Callable, Sequence
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
from rankloom_engine.model import Decoder
from rankloom_engine.packing import collate
from rankloom_training.metrics import auc
from rankloom_training.options import Recipe
from rankloom_training.windows import Window, batches

RANK, ALPHA = 8, 16
TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
MAX_BATCH_TOKENS = 4096
PATIENCE = 2  # epochs without a better validation AUC before training ends
OnStep = Callable[[int, int], None]


class ExpertTrainer:
    """A base model with one trainable LoRA adapter. The base's own weights are frozen."""

    def __init__(self, decoder: Decoder, seed: int) -> None:
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

    def train(
        self,
        windows: Sequence[Window],
        valid: Sequence[Window],
        recipe: Recipe,
        *,
        with_projector: bool,
        on_step: OnStep,
        on_epoch: Callable[[int, float], None],
    ) -> float:
        """Trains the adapter in place and keeps the epoch with the best validation AUC.

        The start counts as epoch 0, so training never makes the adapter worse on ``valid``.
        Returns the best AUC.
        """
        random = np.random.default_rng(self._seed)
        plan = [batches(windows, MAX_BATCH_TOKENS, random) for _ in range(recipe.epochs)]
        step = self._stepper(recipe, sum(map(len, plan)), on_step, with_projector=with_projector)
        best, best_epoch, best_state = self.auc(valid), 0, self.state()
        on_epoch(0, best)
        for epoch, epoch_batches in enumerate(plan, 1):
            self.decoder.projector.train(with_projector)
            for batch in epoch_batches:
                step(batch)
            found = self.auc(valid)
            on_epoch(epoch, found)
            if found > best:
                best, best_epoch, best_state = found, epoch, self.state()
            if epoch - best_epoch == PATIENCE:
                break
        self.load(best_state)
        return best

    def _stepper(
        self, recipe: Recipe, num_steps: int, on_step: OnStep, *, with_projector: bool
    ) -> Callable[[Sequence[Window]], None]:
        """A function that takes one optimiser step on a batch and reports it to ``on_step``."""
        parameters = self._trainable(with_projector=with_projector)
        optimiser = torch.optim.AdamW(
            parameters, lr=recipe.learning_rate, weight_decay=recipe.weight_decay
        )
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimiser, recipe.learning_rate, total_steps=max(num_steps, 1)
        )
        done = itertools.count(1)

        def step(batch: Sequence[Window]) -> None:
            optimiser.zero_grad()
            self._loss(batch, recipe.pairwise).backward()
            nn.utils.clip_grad_norm_(parameters, 1.0)
            optimiser.step()
            schedule.step()
            on_step(next(done), num_steps)

        return step

    def auc(self, windows: Sequence[Window]) -> float:
        """AUC of margin plus tree logit over the windows' rows."""
        margins = self.margins(windows)
        tree_logits = np.concatenate([window.tree_logits for window in windows])
        label = np.concatenate([window.label for window in windows])
        return auc(label > 0, margins + tree_logits)

    @torch.inference_mode()
    def margins(self, windows: Sequence[Window]) -> NDArray[np.float32]:
        """(rows,) margins in the windows' order: the logit of yes minus the logit of no."""
        self.decoder.projector.eval()
        order = batches(windows, MAX_BATCH_TOKENS, np.random.default_rng(0))
        found: dict[int, NDArray[np.float32]] = {}
        for batch in order:
            margins = self.decoder.margins(collate([window.packed for window in batch])).numpy()
            ends = np.cumsum([len(window.label) for window in batch])[:-1]
            for window, part in zip(batch, np.split(margins, ends), strict=True):
                found[id(window)] = part
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

    def _trainable(self, *, with_projector: bool) -> list[nn.Parameter]:
        for parameter in self.decoder.projector.parameters():
            parameter.requires_grad_(with_projector)
        modules = (self.decoder.model, self.decoder.projector)
        return [p for module in modules for p in module.parameters() if p.requires_grad]

    def _loss(self, batch: Sequence[Window], pairwise: float) -> Tensor:
        """Log-loss of margin + tree logit, plus a logistic loss over each window's pairs."""
        margins = self.decoder.margins(collate([window.packed for window in batch]))
        logits = margins + torch.from_numpy(np.concatenate([w.tree_logits for w in batch]))
        label = torch.from_numpy(np.concatenate([w.label for w in batch]))
        loss = functional.binary_cross_entropy_with_logits(logits, label)
        sizes = [len(window.label) for window in batch]
        parts = zip(logits.split(sizes), label.split(sizes), strict=True)
        pairs = [_pair_loss(*part) for part in parts]
        return loss + pairwise * torch.stack(pairs).mean()


def _pair_loss(logits: Tensor, label: Tensor) -> Tensor:
    """Mean softplus(disliked − liked) over all pairs; 0 if the window has one class only."""
    gaps = logits[label > 0][:, None] - logits[label == 0][None, :]
    return functional.softplus(-gaps).mean() if gaps.numel() else logits.sum() * 0.0


def _targets(model: nn.Module) -> list[str]:
    names = {
        name.rsplit(".", 1)[-1] for name, m in model.named_modules() if isinstance(m, nn.Linear)
    }
    return sorted(names & set(TARGETS)) or sorted(names - {"lm_head", "embed_out"})
