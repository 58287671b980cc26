"""The collaborative stage: a training row's logit never comes from its own user's labels."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from rankloom_training.data import Dataset, Split
from rankloom_training.folds import user_folds
from rankloom_training.options import TrainOptions
from rankloom_training.progress import Progress
from rankloom_training.stages.artefacts import CollaborativeFiles
from rankloom_training.stages.collaborative import CollaborativeStage
from rankloom_training.stages.stage import StageInputs
from training.logs import random_log, relabelled

OPTIONS = TrainOptions()


def logits_of(dataset: Dataset, folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Logits of the training and of the validation rows."""
    folder.mkdir()
    stage = CollaborativeStage.configured(OPTIONS)
    stage.run(StageInputs(dataset, folder, {}, Progress(), folder))
    made = CollaborativeFiles(folder)
    return made.logits(Split.TRAIN), made.logits(Split.VALID)


def last_training_row_of_each_user(dataset: Dataset) -> np.ndarray:
    rows = np.flatnonzero(dataset.log.split == Split.TRAIN)
    return rows[np.flatnonzero(np.diff(dataset.log.user[rows], append=-1))]


def test_logits_of_training_rows_are_out_of_fold(tmp_path: Path) -> None:
    dataset = random_log(2, num_users=20, num_items=12)
    log = dataset.log
    fold = user_folds(log.num_users, OPTIONS.seed)[log.user]
    last = last_training_row_of_each_user(dataset)
    own = last[fold[last] == fold[0]]
    changed = relabelled(log, np.isin(np.arange(len(log)), own))
    before, valid_before = logits_of(dataset, tmp_path / "before")
    after, valid_after = logits_of(dataclasses.replace(dataset, log=changed), tmp_path / "after")
    train = np.flatnonzero(log.split == Split.TRAIN)
    same = fold[train] == fold[0]
    assert np.isfinite(before).all()
    assert before[same].tolist() == after[same].tolist()
    assert before[~same].tolist() != after[~same].tolist()
    assert valid_before.tolist() != valid_after.tolist()
