"""Items that nobody rated yet: what is like them says how much they are liked."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from rankloom_features.item_columns import ItemColumns
from rankloom_features.user_model import UserModel
from rankloom_training.data import Dataset, load_dataset
from rankloom_training.synthetic import read_truth, write_synthetic
from rankloom_training.trees import item_statistics
from rankloom_training.user_models.fit import fitted_prior, fitted_user_model
from rankloom_training.user_models.item_features import ItemFeatures
from rankloom_training.user_models.labels import labels_of

COLD = slice(0, None, 5)  # of the films


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("films")
    write_synthetic(path)
    return path


@pytest.fixture(scope="module")
def dataset(folder: Path) -> Dataset:
    return load_dataset(folder)


@pytest.fixture(scope="module")
def true_means(folder: Path, dataset: Dataset) -> NDArray[np.float64]:
    """(items,) the mean probability of a like."""
    log, truth = dataset.log, read_truth(folder)
    chance = np.zeros(len(dataset.catalogue))
    rows = np.bincount(log.item, minlength=len(chance))
    for row, (user, item) in enumerate(zip(log.user, log.item, strict=True)):
        position = row - int(log.start[user])
        chance[item] += truth[log.user_ids[user], position][1]
    return chance / np.maximum(rows, 1)


def model_without_cold_rows(dataset: Dataset) -> UserModel:
    log, cold = dataset.log, np.zeros(len(dataset.catalogue), np.bool_)
    cold[COLD] = True
    warm, own = ~cold[log.item], log.user % 5 == 0
    statistics = item_statistics(log, dataset.catalogue, warm & ~own)
    labels = labels_of(log, warm & ~own)
    features = ItemFeatures.of(dataset, statistics, labels)
    return fitted_user_model(labels, features, fitted_prior(log, features, warm & ~own, warm & own))


def agreement(model: UserModel, true: NDArray[np.float64]) -> float:
    """The correlation of the cold films' means and the true ones."""
    return float(np.corrcoef(model.means[COLD], true[COLD])[0, 1])


def test_a_cold_item_is_as_items_with_its_columns(
    dataset: Dataset, true_means: NDArray[np.float64]
) -> None:
    noise = np.random.default_rng(0).normal(0.0, 0.05, len(true_means))
    columns = ItemColumns(("review",), (true_means + noise)[:, None].astype(np.float32))
    model = model_without_cold_rows(dataclasses.replace(dataset, item_columns=columns))
    shown = model.means[COLD] - model.prior.overall
    true = true_means[COLD] - model.prior.overall
    clear = np.abs(true) > 0.1
    assert clear.sum() >= 10
    assert (np.sign(shown) == np.sign(true))[clear].mean() > 0.9
    assert agreement(model, true_means) > 0.8


def test_a_cold_item_is_as_items_with_like_vectors(
    dataset: Dataset, true_means: NDArray[np.float64]
) -> None:
    """As of a text encoder: what the means depend on is one direction among many."""
    random = np.random.default_rng(2)
    vectors = random.normal(0.0, 0.02, (len(true_means), 300)) + random.normal(size=300)
    vectors += true_means[:, None] * random.normal(size=300)
    known = dataclasses.replace(dataset, item_vectors=vectors.astype(np.float32))
    assert agreement(model_without_cold_rows(known), true_means) > 0.8
    assert agreement(model_without_cold_rows(dataset), true_means) < 0.6


def test_a_column_without_meaning_says_little(
    dataset: Dataset, true_means: NDArray[np.float64]
) -> None:
    noise = np.random.default_rng(1).normal(size=(len(true_means), 1)).astype(np.float32)
    columns = ItemColumns(("noise",), noise)
    model = model_without_cold_rows(dataclasses.replace(dataset, item_columns=columns))
    assert agreement(model, true_means) < 0.6
