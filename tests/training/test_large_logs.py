"""A large log: rounds within an epoch, and features for all rows of some users."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from torch import Tensor

from rankloom_features import fit as fitting
from rankloom_features.fit import Examples, fit
from rankloom_features.histories import Histories
from rankloom_features.models.mf import MatrixFactorisation
from rankloom_training.data import Dataset, Split
from rankloom_training.options import TrainOptions
from rankloom_training.progress import Progress
from rankloom_training.stages import rows as stage_rows
from rankloom_training.stages.artefacts import CollaborativeFiles
from rankloom_training.stages.collaborative import LATENT_DIM, CollaborativeStage
from rankloom_training.stages.rows import LogRows, limits_of
from rankloom_training.stages.stage import StageInputs
from rankloom_training.visibility import VALID_SHARE, Protocol
from training.logs import random_log

NUM_ROWS = 100


class RecordingModel(MatrixFactorisation):
    """Remembers the items that it was trained on and validated on, batch by batch."""

    def __init__(self) -> None:
        super().__init__(NUM_ROWS, 4)
        self.trained: list[list[int]] = []
        self.validated: list[list[int]] = []

    def forward(self, items: Tensor, liked: Tensor, candidates: Tensor) -> tuple[Tensor, Tensor]:
        batches = self.trained if self.training else self.validated
        batches.append(candidates[:, 0].tolist())
        return super().forward(items, liked, candidates)


def examples() -> Examples:
    """Rows without a history, each about an item of its own."""
    none, nothing = np.zeros(NUM_ROWS, np.int64), np.zeros(0)
    histories = Histories(none[:0], nothing.astype(np.bool_), nothing, none, none)
    label = np.random.default_rng(0).random(NUM_ROWS) < 0.5
    return Examples(histories, np.arange(1, NUM_ROWS + 1), label)


def test_an_epoch_goes_in_rounds_and_takes_each_row_once(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = {"ROUND_ROWS": 40, "LARGE_BATCH": 30, "MAX_ROUNDS": 4, "PATIENCE": 9, "VALID_ROWS": 10}
    for name, value in sizes.items():
        monkeypatch.setattr(fitting, name, value)
    model, rows, epochs, rounds = RecordingModel(), examples(), list[int](), list[int]()

    def train(epoch: int) -> Examples:
        epochs.append(epoch)
        return rows

    fit(model, train, rows, seed=0, on_round=lambda number, loss: rounds.append(number))
    assert (epochs, rounds) == ([1, 2], [1, 2, 3, 4]), "two rounds each"
    seen = [item for batch in model.trained for item in batch]
    assert sorted(seen[:NUM_ROWS]) == sorted(seen[NUM_ROWS:]) == rows.target.tolist()
    assert list(map(len, model.trained)) == 4 * [30, 20]
    assert set(map(len, model.validated)) == {10}
    assert len(set(map(tuple, model.validated))) == 1, "the same rows after each round"


def test_an_epoch_of_a_usual_log_is_one_round() -> None:
    model, rounds = RecordingModel(), list[int]()
    fit(model, lambda epoch: examples(), examples(), seed=0, on_round=lambda n, _: rounds.append(n))
    assert [len(batch) for batch in model.trained] == [NUM_ROWS] * len(rounds)


@pytest.fixture
def some(monkeypatch: pytest.MonkeyPatch) -> Dataset:
    """A log with more rows than have features."""
    monkeypatch.setattr(stage_rows, "TABLE_ROWS", 60)
    return random_log(7, num_users=12, mean_rows=20)


@pytest.mark.parametrize("protocol", Protocol)
@pytest.mark.parametrize("split", [Split.TRAIN, Split.VALID])
def test_features_are_of_all_rows_of_some_users(
    some: Dataset, protocol: Protocol, split: Split
) -> None:
    chosen, every = LogRows.of(some, protocol, 1), LogRows.every_of(some, protocol, 1)
    found, whole = chosen.indices(split), every.indices(split)
    assert 0 < len(found) <= 60 // (1 if split is Split.TRAIN else VALID_SHARE) < len(whole)
    users = np.unique(some.log.user[found])
    assert found.tolist() == whole[np.isin(some.log.user[whole], users)].tolist()
    for view, all_of_it in zip(chosen.views(split), every.views(split), strict=True):
        assert view.cutoff.tolist() == all_of_it.cutoff.tolist()


def test_what_is_limited_is_said(some: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    features = ("features", "of 60 training rows at most: all rows of some users")
    assert list(limits_of(some.log)) == [features]
    for module in (fitting, stage_rows):
        monkeypatch.setattr(module, "ROUND_ROWS", 40)
    rounds = ("rounds", "early stopping of the collaborative model looks every 40 rows")
    assert list(limits_of(some.log)) == [rounds, features]


@pytest.mark.parametrize("protocol", Protocol)
def test_a_usual_log_has_features_of_all_rows(protocol: Protocol) -> None:
    data = random_log(7)
    for split in (Split.TRAIN, Split.VALID):
        found = LogRows.of(data, protocol, 1).indices(split)
        assert found.tolist() == LogRows.every_of(data, protocol, 1).indices(split).tolist()
    assert not list(limits_of(data.log))


@pytest.mark.parametrize("protocol", Protocol)
def test_a_user_is_grouped_by_the_newest_row_of_the_longest_history(protocol: Protocol) -> None:
    rows = LogRows.of(random_log(9), protocol, 1)
    sizes = np.cumsum([0, *(len(view.rows) for view in rows.train)])
    slow = dict[int, int]()
    for first, view in list(zip(sizes, rows.train, strict=False))[::-1]:
        slow |= {int(rows.log.user[row]): int(first) + at for at, row in enumerate(view.rows)}
    assert rows.newest_of_users().tolist() == [slow[user] for user in sorted(slow)]


def test_the_collaborative_model_learns_from_every_row(
    some: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fitting, "ROUND_ROWS", 40)
    progress = Progress()
    with progress.stage("collaborative") as shown:
        stage = CollaborativeStage.configured(TrainOptions())
        stage.run(StageInputs(some, tmp_path, {}, progress, tmp_path))
    files, rows = CollaborativeFiles(tmp_path), LogRows.of(some, Protocol.P1, 0)
    train = some.log.item[some.log.split == Split.TRAIN]
    assert (
        files.item_vectors().any(axis=1).tolist()
        == np.isin(np.arange(len(some.catalogue)), train).tolist()
    )
    for split in (Split.TRAIN, Split.VALID):
        num = len(rows.indices(split))
        assert files.vectors(split).shape == (num, LATENT_DIM)
        assert np.isfinite(files.logits(split)).all()
        assert len(files.logits(split)) == num
    assert shown.last_note.startswith("round ")
