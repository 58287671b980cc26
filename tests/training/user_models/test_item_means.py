"""Item means: the Gaussian posterior, and the prior of the highest evidence."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from rankloom_training.user_models.item_features import ItemFeatures
from rankloom_training.user_models.item_means import (
    ItemAverages,
    fitted_mean_prior,
    item_means,
)
from rankloom_training.user_models.labels import Labels
from rankloom_training.user_models.variances import MeanPrior

PRIOR = MeanPrior((0.01, 0.02), own=0.005, row=0.2)
NUM_ITEMS = 30


def features(seed: int = 0) -> ItemFeatures:
    random = np.random.default_rng(seed)
    return ItemFeatures((random.normal(size=(NUM_ITEMS, 3)), random.normal(size=(NUM_ITEMS, 2))))


def averages(seed: int = 1) -> ItemAverages:
    random = np.random.default_rng(seed)
    rows = random.integers(0, 6, NUM_ITEMS).astype(np.float64)
    return ItemAverages(np.where(rows > 0, random.normal(0, 0.3, NUM_ITEMS), 0.0), rows)


def covariance(prior: MeanPrior) -> NDArray[np.float64]:
    weighted = features().weighted(prior.blocks)
    return np.asarray(weighted @ weighted.T + prior.own * np.eye(NUM_ITEMS))


def loss(prior: MeanPrior) -> float:
    return averages().posterior(features().weighted(prior.blocks), prior).loss


def test_means_are_those_of_the_gaussian_process() -> None:
    found = averages()
    rated = found.rows > 0
    full = covariance(PRIOR)
    noisy = full[np.ix_(rated, rated)] + np.diag(PRIOR.row / found.rows[rated])
    expected = full[:, rated] @ np.linalg.solve(noisy, found.average[rated])
    means = found.posterior(features().weighted(PRIOR.blocks), PRIOR).means(PRIOR.own)
    np.testing.assert_allclose(means, expected, atol=1e-12)


def test_the_loss_is_the_negative_log_evidence() -> None:
    found = averages()
    rated = found.rows > 0
    noisy = covariance(PRIOR)[np.ix_(rated, rated)] + np.diag(PRIOR.row / found.rows[rated])
    average = found.average[rated]
    expected = 0.5 * (np.linalg.slogdet(noisy)[1] + average @ np.linalg.solve(noisy, average))
    assert loss(PRIOR) == pytest.approx(expected)


def test_gradients_are_those_of_the_loss() -> None:
    step = 1e-5
    found = averages().posterior(features().weighted(PRIOR.blocks), PRIOR)
    by_feature, by_variance = found.gradients()
    blocks = np.bincount(features().block_of, by_feature)
    for block in range(2):
        up, down = (
            MeanPrior(
                tuple(v * np.exp(sign * step * (b == block)) for b, v in enumerate(PRIOR.blocks)),
                PRIOR.own,
                PRIOR.row,
            )
            for sign in (1, -1)
        )
        assert blocks[block] == pytest.approx((loss(up) - loss(down)) / (2 * step), rel=1e-4)
    up, down = (MeanPrior(PRIOR.blocks, PRIOR.own + sign * step, PRIOR.row) for sign in (1, -1))
    assert by_variance.sum() == pytest.approx((loss(up) - loss(down)) / (2 * step), rel=1e-4)


def labels(num_rows: int = 6_000, seed: int = 2) -> tuple[Labels, NDArray[np.float64]]:
    """Rows whose items have means by their features, and whose users are strict or mild."""
    random = np.random.default_rng(seed)
    true = 0.5 + 0.12 * features().blocks[0][:, 0]
    user, item = random.integers(0, 200, num_rows), random.integers(0, NUM_ITEMS, num_rows)
    mild = random.normal(0, 0.1, 200)
    return Labels(user, item, random.random(num_rows) < true[item] + mild[user]), true


def blocks_of_means() -> ItemFeatures:
    """All but the first two have nothing to say: one is noise, the others have no column."""
    noise = np.random.default_rng(9).normal(size=(NUM_ITEMS, 1))
    none = np.zeros((NUM_ITEMS, 0))
    return ItemFeatures((*features().blocks, noise, none, none))


def test_the_fitted_prior_finds_what_means_depend_on() -> None:
    found, true = labels()
    prior = fitted_mean_prior(found, blocks_of_means())
    assert prior.blocks[0] > 5 * max(prior.blocks[1], prior.blocks[2])
    means = found.overall + item_means(found, blocks_of_means(), prior)
    assert np.abs(means - true).mean() < 0.04


def test_an_item_without_rows_is_as_its_features_say() -> None:
    found, true = labels()
    seen = found.item != int(np.argmax(true))
    fewer = Labels(found.user[seen], found.item[seen], found.liked[seen])
    means = item_means(fewer, blocks_of_means(), fitted_mean_prior(fewer, blocks_of_means()))
    assert means.argmax() == true.argmax()


@pytest.mark.parametrize("liked", [True, False])
def test_labels_of_one_class_have_no_means(liked: bool) -> None:
    one = Labels(np.arange(20), np.arange(20), np.full(20, liked))
    prior = fitted_mean_prior(one, blocks_of_means())
    assert not item_means(one, blocks_of_means(), prior).any()
    assert np.isfinite([*prior.blocks, prior.own, prior.row]).all()


def test_no_rows_are_no_error() -> None:
    none = np.zeros(0, np.int64)
    empty = Labels(none, none, none.astype(np.bool_))
    assert empty.overall == 0.5
    prior = fitted_mean_prior(empty, blocks_of_means())
    assert not item_means(empty, blocks_of_means(), prior).any()
