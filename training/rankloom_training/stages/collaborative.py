"""The stage of the collaborative model: a vector of every user, and a first logit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from rankloom_features.encoder import Encoder
from rankloom_features.export import export
from rankloom_features.fit import (
    MAX_EPOCHS,
    Examples,
    add_to_biases,
    fit,
    forget_untrained,
    one_thread,
    score,
)
from rankloom_features.models import create_model
from rankloom_features.models.base import CollaborativeModel
from rankloom_training.data import Split
from rankloom_training.folds import NUM_FOLDS, user_folds
from rankloom_training.progress import Progress
from rankloom_training.stages.artefacts import CollaborativeFiles
from rankloom_training.stages.rows import LogRows
from rankloom_training.stages.stage import Stage, StageInputs
from rankloom_training.visibility import Protocol

LATENT_DIM = 64


@dataclass(frozen=True, slots=True)
class CollaborativeStage(Stage):
    """The collaborative model as ONNX, and the user vector and logit of every row."""

    protocol: Protocol
    collaborative: str
    seed: int
    makes = CollaborativeFiles
    code = (
        "rankloom_features.encoder",
        "rankloom_features.export",
        "rankloom_features.fit",
        "rankloom_features.histories",
        "rankloom_features.models",
        "rankloom_training.data.negatives",
        "rankloom_training.folds",
        "rankloom_training.stages.rows",
    )

    def run(self, given: StageInputs) -> None:
        """Trains the model, and one more for each fold of users."""
        rows = LogRows.of(given.dataset, self.protocol, self.seed)
        train, valid = rows.examples(Split.TRAIN), rows.examples(Split.VALID)
        fits = _Fits(self, rows, valid, given.progress)
        files, model = CollaborativeFiles(given.folder), fits.fit(np.ones(len(train), np.bool_))
        onnx = export(model)
        files.write_model(onnx, model.vectors.weight.detach().numpy()[1:].copy())
        encoder = Encoder(onnx)
        own_fold = user_folds(rows.log.num_users, self.seed)[
            rows.log.user[rows.indices(Split.TRAIN)]
        ]
        vectors = encoder.encode_all(train.histories)
        files.write_rows(Split.TRAIN, vectors, _out_of_fold(train, own_fold, fits.fit))
        files.write_rows(Split.VALID, encoder.encode_all(valid.histories), score(model, valid))


class _Fits:
    """Fits models of one kind, stopped early on the same validation rows, and reports progress."""

    def __init__(
        self, stage: CollaborativeStage, rows: LogRows, valid: Examples, progress: Progress
    ) -> None:
        self._stage, self._rows, self._valid = stage, rows, valid
        self._progress, self._done = progress, 0

    def fit(self, chosen: NDArray[np.bool_]) -> CollaborativeModel:
        """A model of the training rows that are ``chosen``, with fresh negatives every epoch."""

        def train(epoch: int) -> Examples:
            return self._rows.examples(Split.TRAIN, epoch).only(chosen)

        dataset, seed = self._rows.dataset, self._stage.seed
        torch.manual_seed(seed)
        model = create_model(self._stage.collaborative, len(dataset.catalogue), LATENT_DIM)
        model.learn_graph(*self._likes(chosen))
        with one_thread():
            fit(
                model,
                train,
                self._valid,
                seed=seed,
                like_weight=self._like_weight(model),
                on_epoch=self._on_epoch,
            )
        model.settle()
        forget_untrained(model, np.unique(train(0).target) - 1)
        if dataset.negatives is not None:
            add_to_biases(model, -dataset.negatives.offset)
        self._done += 1
        return model

    def _like_weight(self, model: CollaborativeModel) -> float:
        dataset = self._rows.dataset
        if dataset.sampling is None:
            return 1.0
        return model.like_weight(dataset.sampling.per_like, len(dataset.catalogue))

    def _likes(self, chosen: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """User and item of the liked rows among the ``chosen`` training rows."""
        log, rows = self._rows.log, self._rows.indices(Split.TRAIN)[chosen]
        liked = rows[log.liked[rows]]
        return log.user[liked], log.item[liked]

    def _on_epoch(self, epoch: int, loss: float) -> None:
        self._progress.note(f"epoch {epoch}: log-loss {loss:.4f}")
        self._progress.step(self._done * MAX_EPOCHS + epoch, (NUM_FOLDS + 1) * MAX_EPOCHS)


def _out_of_fold(
    train: Examples,
    own_fold: NDArray[np.int64],
    fit: Callable[[NDArray[np.bool_]], CollaborativeModel],
) -> NDArray[np.float32]:
    """(rows,) logits of the training rows, from models that never saw the row's user.

    ``own_fold``: (rows,) the fold of each row's user.
    """
    logits = np.zeros(len(train), dtype=np.float32)
    for held_out in range(NUM_FOLDS):
        own = own_fold == held_out
        logits[own] = score(fit(~own), train.only(own))
    return logits
