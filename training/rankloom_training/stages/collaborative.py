"""The stage of the collaborative model: a vector of every user, and a first logit."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from rankloom_features.encoder import Encoder
from rankloom_features.export import export
from rankloom_features.fit import (
    MAX_ROUNDS,
    ROUND_ROWS,
    Examples,
    add_to_biases,
    fit,
    forget_untrained,
    num_rounds,
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
        every = LogRows.every_of(given.dataset, self.protocol, self.seed).as_they_come()
        fits = CollaborativeFits(self, every, given.progress)
        files = CollaborativeFiles(given.folder)
        model = fits.of_all()
        onnx = export(model)
        files.write_model(onnx, model.vectors.weight.detach().numpy()[1:].copy())
        encoder, rows = Encoder(onnx), LogRows.of(given.dataset, self.protocol, self.seed)
        valid, train = rows.examples(Split.VALID), rows.examples(Split.TRAIN)
        files.write_rows(Split.VALID, encoder.encode_all(valid.histories), score(model, valid))
        own_fold = fits.folds[rows.log.user[rows.indices(Split.TRAIN)]]
        vectors = encoder.encode_all(train.histories)
        files.write_rows(Split.TRAIN, vectors, _out_of_fold(train, own_fold, fits))


class CollaborativeFits:
    """Fits models of one kind, stopped early on the same validation rows, and reports progress.

    ``folds``: (users,) the fold of each user.
    """

    def __init__(self, stage: CollaborativeStage, rows: LogRows, progress: Progress) -> None:
        self._stage, self._rows, self._progress = stage, rows, progress
        self._valid, self._done = rows.examples(Split.VALID), 0
        self._is_large = num_rounds(len(rows.indices(Split.TRAIN))) > 1
        self.folds = user_folds(rows.log.num_users, stage.seed)

    def of_all(self) -> CollaborativeModel:
        """The model of all users' training rows."""
        return self.fit(self.folds >= 0)

    def fit(self, users: NDArray[np.bool_]) -> CollaborativeModel:
        """A model of the users' training rows, with fresh negatives every epoch."""
        chosen = users[self._rows.log.user[self._rows.indices(Split.TRAIN)]]

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
                on_round=self._on_round,
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

    def _on_round(self, number: int, loss: float) -> None:
        rows = f" ({ROUND_ROWS:,} rows each)" if self._is_large else ""
        self._progress.note(f"{'round' if rows else 'epoch'} {number}{rows}: log-loss {loss:.4f}")
        self._progress.step(self._done * MAX_ROUNDS + number, (NUM_FOLDS + 1) * MAX_ROUNDS)


def _out_of_fold(
    train: Examples, own_fold: NDArray[np.int64], fits: CollaborativeFits
) -> NDArray[np.float32]:
    """(rows,) logits of the training rows, from models that never saw the row's user.

    ``own_fold``: (rows,) the fold of each row's user.
    """
    logits = np.zeros(len(train), dtype=np.float32)
    for held_out in range(NUM_FOLDS):
        own = own_fold == held_out
        logits[own] = score(fits.fit(fits.folds != held_out), train.only(own))
    return logits
