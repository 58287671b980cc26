"""Sampled negatives: never a like of the same user, by the stated weights, and out of sight."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from rankloom_training.data import DataError, Dataset, Interactions, Split, make_log
from rankloom_training.data.negatives import Negatives, NegativeSampling
from rankloom_training.scoring import requests_of
from rankloom_training.trees import item_statistics
from rankloom_training.user_events import event_batches, user_history
from rankloom_training.visibility import Protocol, scoring_view, training_views
from training.logs import random_log

PER_LIKE = 4


def likes_of(seed: int = 1, num_users: int = 20, num_items: int = 60) -> Dataset:
    """A random log of likes alone."""
    dataset = random_log(seed, num_users=num_users, num_items=num_items)
    return dataclasses.replace(
        dataset, log=dataclasses.replace(dataset.log, liked=np.ones(len(dataset.log), np.bool_))
    )


def sampled(dataset: Dataset, by: str = "uniform", seed: int = 0) -> Dataset:
    sampling = NegativeSampling(PER_LIKE, by)
    negatives = Negatives(dataset.log, len(dataset.catalogue), sampling, seed)
    return dataclasses.replace(dataset, log=negatives.log(), negatives=negatives)


def redrawn(dataset: Dataset, epoch: int) -> Interactions:
    assert dataset.negatives is not None
    return dataclasses.replace(dataset.log, item=dataset.negatives.items(dataset.log, epoch))


@pytest.mark.parametrize("by", ["uniform", "popularity"])
@pytest.mark.parametrize("epoch", [0, 1, 7])
def test_a_negative_is_no_like_that_is_known_at_the_end_of_its_split(by: str, epoch: int) -> None:
    log = redrawn(sampled(likes_of(), by), epoch)
    for row in np.flatnonzero(~log.liked):
        known = (log.user == log.user[row]) & log.liked & (log.split <= log.split[row])
        assert log.item[row] not in log.item[known]


def test_later_likes_may_be_negatives_of_earlier_splits() -> None:
    log = sampled(likes_of(num_users=60)).log
    later = set(zip(log.user[log.split > 0], log.item[log.split > 0], strict=True))
    early = ~log.liked & (log.split == Split.TRAIN)
    drawn = set(zip(log.user[early], log.item[early], strict=True))
    own = log.liked & (log.split > 0)
    assert drawn & later & set(zip(log.user[own], log.item[own], strict=True))


def test_each_like_stands_behind_its_own_negatives() -> None:
    likes, log = likes_of().log, sampled(likes_of()).log
    assert len(log) == (PER_LIKE + 1) * len(likes)
    blocks = [column.reshape(-1, PER_LIKE + 1) for column in (log.liked, log.user, log.item)]
    assert (blocks[0] == ([False] * PER_LIKE + [True])).all()
    assert (blocks[1] == likes.user[:, None]).all()
    assert (blocks[2][:, -1] == likes.item).all()
    assert all(len(set(row)) == PER_LIKE + 1 for row in blocks[2].tolist())
    assert (log.start == (PER_LIKE + 1) * likes.start).all()


def test_seed_and_epoch_decide_what_is_drawn() -> None:
    dataset = sampled(likes_of())
    first, second = redrawn(dataset, 1).item, redrawn(dataset, 2).item
    assert first.tolist() == redrawn(sampled(likes_of()), 1).item.tolist()
    assert first.tolist() != second.tolist()
    assert first.tolist() != redrawn(sampled(likes_of(), seed=1), 1).item.tolist()
    assert (first[dataset.log.liked] == second[dataset.log.liked]).all()
    assert redrawn(dataset, 0).item.tolist() == dataset.log.item.tolist()


@pytest.mark.parametrize(("by", "power"), [("uniform", 0.0), ("popularity", 0.75)])
def test_items_are_drawn_by_the_stated_weights(by: str, power: float) -> None:
    """One item is liked by half of the users, one by few; each user likes one item."""
    num, share = 6000, np.array([0.5, 0.3, 0.15, 0.05])
    item = np.random.default_rng(5).choice(4, num, p=share)
    users = [f"u{user}" for user in range(num)]
    time = np.arange(num, dtype=np.float64)
    log = make_log(users, item, np.ones(num, np.bool_), time, time)
    drawn = Negatives(log, 4, NegativeSampling(1, by), 0).log()
    found = np.bincount(drawn.item[~drawn.liked], minlength=4) / num
    weight = (np.bincount(log.item[log.split == Split.TRAIN], minlength=4) + 1.0) ** power
    chance = weight * (1 - np.eye(4))[log.item]  # a user's own item is not drawn
    expected = (chance / chance.sum(axis=1, keepdims=True)).mean(axis=0)
    assert found == pytest.approx(expected, abs=4 * 0.5 / np.sqrt(num))


def test_what_cannot_be_drawn_is_left_out() -> None:
    log = likes_of(num_items=3).log  # most users like all three items
    drawn = Negatives(log, 12, NegativeSampling(11), 0).log()
    assert len(drawn) < 12 * len(log)
    assert drawn.liked.sum() == len(log)


def test_a_log_whose_users_like_everything_is_refused() -> None:
    log = likes_of(num_items=1).log
    with pytest.raises(DataError, match="no negatives for the train split"):
        Negatives(log, 1, NegativeSampling(2), 0)


@pytest.mark.parametrize("protocol", Protocol)
def test_no_row_sees_a_negative(protocol: Protocol) -> None:
    dataset = sampled(likes_of())
    plain, log = likes_of().log, dataset.log
    for view in (*training_views(log, protocol, 0), scoring_view(log, protocol, Split.VALID)):
        assert view.histories(log).liked.all()
        histories = view.as_they_come().histories(log)
        num_likes: np.ndarray = np.cumsum(log.liked) - log.liked
        earlier = num_likes[view.rows] - plain.start[log.user[view.rows]]
        assert (histories.end - histories.first == earlier).all()
    assert len(training_views(log, protocol, 0)) == 1


def test_a_like_and_its_negatives_are_one_call() -> None:
    dataset = sampled(likes_of())
    view = scoring_view(dataset.log, Protocol.P1, Split.TEST)
    calls = requests_of(dataset, view)
    assert {len(call.rows) for call in calls} == {PER_LIKE + 1}
    assert all(event.liked for call in calls for event in call.events)


def test_what_did_not_happen_is_in_no_statistics_and_no_events() -> None:
    plain, dataset = likes_of(), sampled(likes_of())
    expected = item_statistics(plain.log, plain.catalogue, plain.log.split == Split.TRAIN)
    found = item_statistics(dataset.log, dataset.catalogue, dataset.log.split == Split.TRAIN)
    for name in ("rows", "likes", "co_liking", "co_rating"):
        assert (getattr(found, name) == getattr(expected, name)).all()
    assert list(event_batches(dataset)) == list(event_batches(plain))
    assert user_history(dataset, 0) == user_history(plain, 0) != ()
    warm = dataset.log.warm()[dataset.log.liked]
    assert warm.tolist() == plain.log.warm().tolist()
