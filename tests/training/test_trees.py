from __future__ import annotations

import dataclasses

import lightgbm
import numpy as np
import pytest

from rankloom_features.item_columns import ItemColumns
from rankloom_features.model_columns import COLLABORATIVE
from rankloom_features.ranker import TreeRanker
from rankloom_features.tree_export import TOLERANCE, export_trees, raw_scores
from rankloom_features.user_model import USER_MODEL_COLUMNS
from rankloom_training.data import Dataset, Split
from rankloom_training.item_factors import FACTOR_RANK
from rankloom_training.trees import (
    Boosters,
    FeatureTable,
    HeldOutFeatures,
    item_statistics,
    joined,
)
from rankloom_training.visibility import Protocol, scoring_view, training_views
from training.logs import random_log

NAMES = ("item_mean", "noise")


def table_of(seed: int, num_users: int = 20, rows_each: int = 40) -> FeatureTable:
    """Rows whose first column decides the label, one user after the other."""
    random = np.random.default_rng(seed)
    user = np.repeat(np.arange(num_users), rows_each)
    features = random.random((len(user), 2)).astype(np.float32)
    return FeatureTable(features, random.random(len(user)) < features[:, 0], user)


def test_counts_and_means_are_those_of_the_rows() -> None:
    dataset = random_log(3)
    log, rows = dataset.log, dataset.log.split == Split.TRAIN
    statistics = item_statistics(log, dataset.catalogue, rows)
    for index in range(len(dataset.catalogue)):
        own = rows & (log.item == index)
        assert statistics.rows[index] == own.sum()
        assert statistics.likes[index] == log.liked[own].sum()


def test_factors_are_larger_for_items_liked_together() -> None:
    dataset = random_log(5, num_users=40, num_items=10)
    log = dataset.log
    together = (log.item < 5) == (log.user % 2 == 0)
    liked = type(log)(log.user, log.item, together, log.time, log.split, log.start, log.user_ids)
    factors = item_statistics(liked, dataset.catalogue, np.ones(len(log), np.bool_)).co_liking
    closeness = factors @ factors.T
    np.fill_diagonal(closeness, np.nan)
    assert np.nanmin(closeness[:5, :5]) > np.nanmax(closeness[:5, 5:])


@pytest.mark.parametrize("liked", [True, False])
def test_a_log_of_low_rank_gives_few_factors(liked: bool) -> None:
    """Two kinds of users, each with one item, who like everything or nothing."""
    dataset = random_log(5, num_users=40, num_items=50)
    log = dataset.log
    same = dataclasses.replace(log, item=log.user % 2, liked=np.full(len(log), liked))
    found = item_statistics(same, dataset.catalogue, np.ones(len(log), np.bool_))
    assert found.co_liking.shape == found.co_rating.shape == (50, FACTOR_RANK)
    assert np.count_nonzero(found.co_liking.any(axis=0)) == (2 if liked else 0)


@pytest.mark.parametrize("num_items", [1, 2])
def test_one_or_two_items_are_enough(num_items: int) -> None:
    dataset = random_log(5, num_items=num_items)
    rows = np.ones(len(dataset.log), np.bool_)
    assert item_statistics(dataset.log, dataset.catalogue, rows).co_liking.shape[0] == num_items


@pytest.mark.parametrize("seed", [11, 12])
def test_the_same_log_gives_the_same_bits(seed: int) -> None:
    dataset = random_log(seed, num_users=24, num_items=40, mean_rows=18)
    view = training_views(dataset.log, Protocol.P1, 0)[0]
    none = np.zeros(len(view.rows), np.float32)
    made = [HeldOutFeatures(dataset, 5).table(view, none) for _ in range(3)]
    assert len({table.features.tobytes() for table in made}) == 1


def test_rows_that_are_not_for_training_have_the_served_features(dataset: Dataset) -> None:
    features = HeldOutFeatures(dataset, 0)
    view = scoring_view(dataset.log, Protocol.P1, Split.TEST)
    logits = np.random.default_rng(0).normal(size=len(view.rows)).astype(np.float32)
    table = features.table(view, logits)
    assert features.names == (*features.served.names, COLLABORATIVE)
    assert table.features[:, -1].tolist() == logits.tolist()
    for index in range(0, len(view.rows), 1 + len(view.rows) // 100):
        row = int(view.rows[index])
        candidate = dataset.catalogue.traits_at(dataset.log.item[row : row + 1])
        served = features.served.matrix(
            features.served.profile(view.history_before(dataset.log, row)), candidate
        )[0]
        assert served.tobytes() == table.features[index, :-1].tobytes()
        assert table.label[index] == dataset.log.liked[row]
        assert table.user[index] == dataset.log.user[row]


def boosters(train: FeatureTable, valid: FeatureTable) -> Boosters:
    return Boosters(train, valid, NAMES, lambda done, total: None)


def test_boosters_learn_keep_monotone_columns_and_are_reproducible() -> None:
    train, valid = table_of(0), table_of(1)
    steps: list[tuple[int, int]] = []
    model = Boosters(train, valid, NAMES, lambda *step: steps.append(step)).ranker()
    assert model == boosters(train, valid).ranker()
    assert steps == sorted(steps)
    assert steps[-1][0] < steps[-1][1]
    grid = np.column_stack([np.linspace(0, 1, 50), np.full(50, 0.5)]).astype(np.float32)
    logits = TreeRanker(model).logits(grid)
    assert (np.diff(logits) >= -1e-6).all()
    assert logits[-1] > logits[0] + 1


def test_a_users_own_labels_do_not_move_the_users_out_of_fold_logits() -> None:
    train, valid = table_of(0), table_of(1)
    fold = np.random.default_rng(0).integers(0, 5, 20)
    logits = boosters(train, valid).out_of_fold_logits(fold)
    own = fold[train.user] == fold[0]
    turned = FeatureTable(train.features, train.label ^ own, train.user)
    after = boosters(turned, valid).out_of_fold_logits(fold)
    assert after[own].tolist() == logits[own].tolist()
    assert after[~own].tolist() != logits[~own].tolist()


def test_trees_leave_out_what_sampling_adds_to_the_rows() -> None:
    """The labels follow the offset alone, and the first column shows it."""
    random = np.random.default_rng(0)
    offset = random.choice([-2.0, 2.0], 4000)
    features = np.stack([offset, random.random(4000)], axis=1).astype(np.float32)
    label = random.random(4000) < 1 / (1 + np.exp(-offset))
    user = np.arange(4000)
    spread = {}
    for name, start in (("with", offset), ("without", None)):
        table = FeatureTable(features, label, user, start)
        boosters = Boosters(table, table, ("one", "two"), lambda done, total: None)
        logits = boosters.out_of_fold_logits(user % 5)
        spread[name] = logits[offset > 0].mean() - logits[offset < 0].mean()
    assert abs(spread["with"]) < 0.2
    assert spread["without"] > 3.0


def counted(seed: int, num: int = 3000) -> FeatureTable:
    """Rows whose label follows from the first column alone, as the logarithm of its odds."""
    random = np.random.default_rng(seed)
    features = np.stack([random.uniform(-4, 4, num), random.random(num)], axis=1)
    label = random.random(num) < 1 / (1 + np.exp(1.0 - features[:, 0]))
    return FeatureTable(features.astype(np.float32), label, np.arange(num))


def test_trees_add_to_the_column_that_they_start_from() -> None:
    train, valid = counted(0), counted(1)
    made = Boosters(train, valid, ("start", "noise"), lambda done, total: None, "start")
    grid = np.column_stack([np.linspace(-8, 8, 50), np.full(50, 0.5)]).astype(np.float32)
    served = TreeRanker(made.ranker()).logits(grid)
    assert served == pytest.approx(grid[:, 0] - 1.0, abs=0.6)  # far beyond the rows, too
    held_out = made.out_of_fold_logits(train.user % 5)
    assert held_out == pytest.approx(train.features[:, 0] - 1.0, abs=0.6)


def test_the_exported_start_is_that_of_the_boosters() -> None:
    train, valid = counted(0), counted(1)
    start = train.start_from(0)
    rows = train.rows(start)
    booster = lightgbm.train({"verbose": -1, "num_leaves": 4}, rows, 5)
    exported = TreeRanker(export_trees([booster], start)).logits(valid.features)
    expected = raw_scores([booster], valid.features) + start.of(valid.features)
    assert exported == pytest.approx(expected, abs=TOLERANCE)


def test_the_mean_probability_at_the_start_is_the_share_of_likes() -> None:
    table = counted(2)
    weight = np.where(table.label, 3.0, 1.0)
    for each in (table, dataclasses.replace(table, weight=weight, offset=np.full(3000, 2.0))):
        start = each.start_from(0)
        logit = start.of(each.features) + (0.0 if each.offset is None else each.offset)
        probability = np.average(1 / (1 + np.exp(-logit)), weights=each.weight)
        assert probability == pytest.approx(np.average(each.label, weights=each.weight))


def test_rows_count_by_their_weight() -> None:
    """Two kinds of rows contradict each other; the heavier ones are believed."""
    random = np.random.default_rng(0)
    features = random.random((2000, 2)).astype(np.float32)
    label = features[:, 1] > 0.5
    turned = np.arange(2000) % 2 == 0
    weight = np.where(turned, 9.0, 1.0)
    table = FeatureTable(features, label ^ turned, np.arange(2000), None, weight)
    logits = TreeRanker(boosters(table, table).ranker()).logits(features)
    assert logits[label].mean() < logits[~label].mean() - 1.0


def test_tables_are_joined_in_order() -> None:
    one, other = table_of(0, 2, 3), table_of(1, 2, 3)
    both = joined([one, other])
    assert both.features.tolist() == [*one.features.tolist(), *other.features.tolist()]
    assert both.label.tolist() == [*one.label.tolist(), *other.label.tolist()]
    assert both.user.tolist() == [*one.user.tolist(), *other.user.tolist()]


def test_item_columns_and_their_gaps_to_liked_items_are_features() -> None:
    dataset = random_log(3, num_users=20, num_items=30, mean_rows=20)
    values = np.arange(30, dtype=np.float32)[:, None]
    values[::7] = np.nan
    columns = ItemColumns(("votes",), values)
    features = HeldOutFeatures(dataclasses.replace(dataset, item_columns=columns), 0)
    view = scoring_view(dataset.log, Protocol.P1, Split.TEST)
    table = features.table(view, np.zeros(len(view.rows), np.float32))
    fact, gap = (
        table.features[:, features.names.index(f"{kind}:votes")] for kind in ("item", "gap")
    )
    items = dataset.log.item[view.rows]
    assert np.array_equal(fact, columns.values[items, 0], equal_nan=True)
    for row, found in zip(view.rows, gap, strict=True):
        past = view.history_before(dataset.log, int(row))
        liked = columns.values[past.index[past.liked], 0]
        mean = liked[~np.isnan(liked)].mean() if (~np.isnan(liked)).any() else np.nan
        expected = columns.values[dataset.log.item[row], 0] - mean
        assert found == pytest.approx(expected, rel=1e-5, nan_ok=True)


def test_item_vectors_reach_the_columns_of_the_user_model_alone() -> None:
    dataset = random_log(3, num_users=40, num_items=30, mean_rows=20)
    likes = np.bincount(dataset.log.item, dataset.log.liked, minlength=30)
    rows = np.bincount(dataset.log.item, minlength=30)
    vectors = np.random.default_rng(0).normal(size=(30, 8)).astype(np.float32)
    vectors[:, 0] += 20.0 * likes / np.maximum(rows, 1)
    known = dataclasses.replace(dataset, item_vectors=vectors)
    view = scoring_view(dataset.log, Protocol.P1, Split.TEST)
    none = np.zeros(len(view.rows), np.float32)
    without, found = (HeldOutFeatures(each, 0).table(view, none) for each in (dataset, known))
    names = np.array(HeldOutFeatures(dataset, 0).names)
    differ = ~np.isclose(without.features, found.features, equal_nan=True).all(axis=0)
    changed = set(names[differ])
    assert {"user_model_mean", "user_model_item_mean", "user_model_affinity"} <= changed
    assert changed <= set(USER_MODEL_COLUMNS)
