"""The user model of a log."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from rankloom_features.user_model import UserModel
from rankloom_training.data import Dataset, Split
from rankloom_training.trees import held_out_prior, item_statistics
from rankloom_training.user_models.fit import RANK, fitted_user_model
from rankloom_training.user_models.item_features import ItemFeatures
from rankloom_training.user_models.labels import labels_of
from rankloom_training.user_models.variances import USUAL_PRIOR, UserModelPrior
from training.logs import random_log


def features_of(dataset: Dataset) -> ItemFeatures:
    train = dataset.log.split == Split.TRAIN
    statistics = item_statistics(dataset.log, dataset.catalogue, train)
    labels = labels_of(dataset.log, train)
    return ItemFeatures.of(dataset, statistics, labels)


def fitted(dataset: Dataset, prior: UserModelPrior = USUAL_PRIOR) -> UserModel:
    labels = labels_of(dataset.log, dataset.log.split == Split.TRAIN)
    return fitted_user_model(labels, features_of(dataset), prior)


def test_a_models_covariances_are_those_of_all_features() -> None:
    """What the factors leave out of an item's own variance is noise of its events."""
    dataset = random_log(1, num_users=40, num_items=30)
    model, prior = fitted(dataset), USUAL_PRIOR.users
    own = (features_of(dataset).weighted(prior.blocks) ** 2).sum(axis=1)
    assert model.factors.shape == (30, RANK)
    found = (model.factors.astype(float) ** 2).sum(axis=1) + model.noise - prior.noise
    np.testing.assert_allclose(found, own, atol=1e-6)


@pytest.mark.parametrize("liked", [None, True, False])
@pytest.mark.parametrize("num_users", [2, 30])
def test_any_log_has_a_prior_and_a_model(liked: bool | None, num_users: int) -> None:
    dataset = random_log(2, num_users=num_users, num_items=9)
    if liked is not None:
        same = np.full(len(dataset.log), liked)
        dataset = dataclasses.replace(dataset, log=dataclasses.replace(dataset.log, liked=same))
    prior = held_out_prior(dataset, 0)
    model = fitted(dataset, prior)
    assert np.isfinite(model.means).all()
    assert (model.noise > 0).all()


def test_users_who_agree_with_their_past_have_a_higher_level() -> None:
    """Half of the users like all, half nothing: the level says more than what they like."""
    dataset = random_log(3, num_users=60, num_items=40)
    log = dataclasses.replace(dataset.log, liked=dataset.log.user % 2 == 0)
    found = held_out_prior(dataclasses.replace(dataset, log=log), 0).users
    chance = held_out_prior(dataset, 0).users
    assert found.level + found.session > 5 * (chance.level + chance.session)


def test_what_users_think_of_an_item_does_not_move_what_its_mean_depends_on() -> None:
    """Otherwise an item that few rated gets a mean that repeats their labels."""
    dataset = random_log(4, num_users=40, num_items=30)
    other = dataclasses.replace(dataset.log, liked=~dataset.log.liked)
    found, flipped = features_of(dataset), features_of(dataclasses.replace(dataset, log=other))
    pairs = zip(found.of_means.blocks, flipped.of_means.blocks, strict=True)
    assert all(np.array_equal(block, same) for block, same in pairs)
    assert not np.array_equal(found.blocks[-1], flipped.blocks[-1])
