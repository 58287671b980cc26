from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feature_service.small_catalogue import (
    CATALOGUE,
    GENRES,
    NUM_ITEMS,
    history,
    random_history,
    random_statistics,
    traits,
)
from feature_service.user_models import random_user_model
from rankloom_features.catalogue import Catalogue, Item
from rankloom_features.events import History
from rankloom_features.item_statistics import ItemStatistics
from rankloom_features.model_columns import COLLABORATIVE, model_columns, with_columns
from rankloom_features.session_columns import SESSION_COLUMNS
from rankloom_features.tabular import MONOTONE, TabularFeatures, column_names
from rankloom_features.user_model import USER_MODEL_COLUMNS

STATISTICS = random_statistics()
USERS = random_user_model(NUM_ITEMS)
FEATURES = TabularFeatures(CATALOGUE, STATISTICS, USERS)
EVERY = tuple(range(NUM_ITEMS))
seeds = st.integers(0, 2**32 - 1)
CO = {name for name in FEATURES.names if name.startswith("pair_co_")}
OF_LIKED = {
    "user_liked_item_mean",
    "user_liked_log_count",
    "user_liked_year",
    "pair_year_gap",
    "pair_log_count_gap",
    "pair_item_mean_gap",
}
MIXED = history((0, True), (3, False), (7, True))


def row_of(past: History, item: Item) -> dict[str, float]:
    matrix = FEATURES.matrix(FEATURES.profile(past), CATALOGUE.traits_of([item]))
    return dict(zip(FEATURES.names, matrix[0].tolist(), strict=True))


def unknown_values(row: dict[str, float]) -> set[str]:
    assert not any(math.isinf(value) for value in row.values())
    return {name for name, value in row.items() if math.isnan(value)}


def test_shape_names_and_type() -> None:
    matrix = FEATURES.matrix(FEATURES.profile(MIXED), traits(1, 2))
    assert matrix.shape == (2, len(FEATURES.names))
    assert matrix.dtype == np.float32
    own = column_names(CATALOGUE)
    assert own[-3:] == tuple(f"attribute:{name}" for name in GENRES)
    assert FEATURES.names == (*own, *USER_MODEL_COLUMNS)
    assert len(set(FEATURES.names)) == len(FEATURES.names)
    others = model_columns(rates_reviews=True)
    assert {*FEATURES.names, *SESSION_COLUMNS, *others} >= MONOTONE
    assert others[1:] == model_columns(rates_reviews=False) == (COLLABORATIVE,)


def test_session_columns_come_last_where_sessions_are_known() -> None:
    factors = np.ones((NUM_ITEMS, 2), np.float32)
    statistics = dataclasses.replace(STATISTICS, co_session=factors)
    features = TabularFeatures(CATALOGUE, statistics, USERS)
    assert features.names == (*FEATURES.names, *SESSION_COLUMNS)
    past = dataclasses.replace(MIXED, time=np.arange(float(len(MIXED))))
    now = float(past.time[-1])
    found = features.matrix(features.profile(past), traits(1, 2), now=now)
    others = FEATURES.matrix(FEATURES.profile(past), traits(1, 2))
    assert found[:, :-3].tobytes() == others.tobytes()
    assert not np.isnan(found[:, -3:]).any()
    unknown = features.matrix(features.profile(past), traits(1, 2))
    assert np.isnan(unknown[:, -3:]).all()


def test_the_collaborative_logit_is_the_last_column() -> None:
    matrix = FEATURES.matrix(FEATURES.profile(MIXED), traits(1, 2, 3))
    found = with_columns(matrix, [np.array([0.5, np.nan, 2.0], np.float32)])
    assert found[:, :-1].tobytes() == matrix.tobytes()
    assert found[:, -1].tolist() == pytest.approx([0.5, math.nan, 2.0], nan_ok=True)
    assert found.dtype == np.float32


def test_no_candidates_give_no_rows() -> None:
    assert FEATURES.matrix(FEATURES.profile(MIXED), traits()).shape == (0, len(FEATURES.names))


def test_the_digest_tells_columns_apart() -> None:
    other = Catalogue([*CATALOGUE.items, Item("new", attributes=("Western",))])
    statistics = ItemStatistics(*(np.ones((len(other), 1), np.float32) for _ in range(4)))
    flat = ItemStatistics(
        statistics.rows[:, 0], statistics.likes[:, 0], statistics.co_liking, statistics.co_rating
    )
    assert (
        TabularFeatures(other, flat, random_user_model(len(other))).schema_digest
        != FEATURES.schema_digest
    )
    assert (
        TabularFeatures(CATALOGUE, random_statistics(1), USERS).schema_digest
        == FEATURES.schema_digest
    )


def test_a_known_candidate_of_a_known_user_has_every_value() -> None:
    assert unknown_values(row_of(MIXED, CATALOGUE.items[1])) == set()


def test_an_unknown_candidate_lacks_only_what_is_not_known() -> None:
    row = row_of(MIXED, Item("new"))
    assert unknown_values(row) == CO | {"item_year", "pair_year_gap"}
    assert row["item_mean"] == pytest.approx(STATISTICS.overall_mean)
    assert row["item_log_count"] == 0.0
    dated = row_of(MIXED, Item("new", year=1990, attributes=("Drama", "never seen")))
    assert unknown_values(dated) == CO
    assert dated["attribute:Drama"] == 1.0


def test_without_a_history_only_the_item_speaks() -> None:
    row = row_of(history(), CATALOGUE.items[1])
    assert unknown_values(row) == CO | OF_LIKED | {"user_disliked_item_mean"}
    assert row["user_level"] == row["user_likes_since_dislike"] == 0.0
    assert row["item_mean"] == pytest.approx(STATISTICS.mean[1])
    assert row["pair_expected"] == pytest.approx(row["item_mean"])


@pytest.mark.parametrize(
    ("past", "missing"),
    [
        (history((2, False)), OF_LIKED | {n for n in CO if "liking" in n}),
        (history((2, True)), {"user_disliked_item_mean"}),
    ],
    ids=["dislikes-only", "likes-only"],
)
def test_one_class_lacks_the_other_classes_values(past: History, missing: set[str]) -> None:
    assert unknown_values(row_of(past, CATALOGUE.items[1])) == missing


def test_liked_items_of_unknown_year_say_nothing_of_years() -> None:
    assert CATALOGUE.items[5].year is None
    row = row_of(history((5, True)), CATALOGUE.items[1])
    assert unknown_values(row) == {"user_liked_year", "pair_year_gap", "user_disliked_item_mean"}
    assert row["pair_year_level"] == 0.0


def slow_row(past: History, index: int) -> dict[str, float]:
    """Some columns computed with plain loops."""
    rows, likes = STATISTICS.rows.tolist(), STATISTICS.likes.tolist()
    overall = (sum(likes) + 0.5) / (sum(rows) + 1)
    mean = [(like + 10 * overall) / (row + 10) for like, row in zip(likes, rows, strict=True)]
    events = list(zip(past.index.tolist(), past.liked.tolist(), strict=True))
    surprise = [liked - mean[item] for item, liked in events]
    level = sum(surprise) / (len(events) + 5)
    liked_items = [item for item, liked in events if liked]
    own = CATALOGUE.items[index]
    levels = []
    for name in own.attributes:
        has = [name in CATALOGUE.items[item].attributes for item, _ in events]
        above = [s - level for s, flag in zip(surprise, has, strict=True) if flag]
        levels.append(sum(above) / (len(above) + 5))
    attribute_level = sum(levels) / max(len(levels), 1)
    weights, weighted = [], []
    for (item, _), s in zip(events, surprise, strict=True):
        year = CATALOGUE.items[item].year
        near = 0.0 if own.year is None or year is None else math.exp(-abs(own.year - year) / 6)
        weights.append(near)
        weighted.append(near * (s - level))
    year_level = sum(weighted) / (sum(weights) + 5)
    together = [float(STATISTICS.co_liking[index] @ STATISTICS.co_liking[i]) for i in liked_items]
    rating = [float(STATISTICS.co_rating[index] @ STATISTICS.co_rating[i]) for i, _ in events]
    centred = [s - sum(surprise) / len(events) for s in surprise]
    last = max((n for n, (_, liked) in enumerate(events) if not liked), default=-1)
    return {
        "item_log_count": math.log1p(rows[index]),
        "item_mean": mean[index],
        "user_log_liked": math.log1p(len(liked_items)),
        "user_log_disliked": math.log1p(len(events) - len(liked_items)),
        "user_level": level,
        "user_level_last_5": sum(surprise[-5:]) / (len(surprise[-5:]) + 5),
        "user_level_before_last_dislike": sum(surprise[: last + 1]) / (last + 1 + 5),
        "user_likes_since_dislike": math.log1p(len(events) - last - 1),
        "user_liked_item_mean": sum(mean[i] for i in liked_items) / len(liked_items),
        "pair_attribute_level_mean": attribute_level,
        "pair_attribute_level_min": min(levels, default=0.0),
        "pair_attribute_level_max": max(levels, default=0.0),
        "pair_year_level": year_level,
        "pair_expected": mean[index] + level + attribute_level + year_level,
        "pair_co_liking_mean": sum(together) / len(together),
        "pair_co_liking_max": max(together),
        "pair_co_liking_recent": sum(together[-10:]) / len(together[-10:]),
        "pair_co_rating_level": sum(a * b for a, b in zip(rating, surprise, strict=True))
        / (len(events) + 5),
        "pair_co_rating_lift": sum(a * b for a, b in zip(rating, centred, strict=True))
        / (len(events) + 5),
    }


@settings(deadline=None)
@given(seeds, st.integers(1, 40), st.integers(0, NUM_ITEMS - 1))
def test_values_are_what_the_names_say(seed: int, length: int, index: int) -> None:
    past = random_history(np.random.default_rng(seed), length)
    past.liked[0] = True
    row = row_of(past, CATALOGUE.items[index])
    for name, expected in slow_row(past, index).items():
        assert row[name] == pytest.approx(expected, abs=2e-5), name


@settings(deadline=None)
@given(seeds, st.integers(0, 60))
def test_one_candidate_alone_has_the_very_row_that_it_has_in_bulk(seed: int, length: int) -> None:
    past = random_history(np.random.default_rng(seed), length)
    bulk = FEATURES.matrix(FEATURES.profile(past), traits(*EVERY))
    for index in EVERY:
        alone = FEATURES.matrix(FEATURES.profile(past), traits(index))
        assert alone.tobytes() == bulk[index : index + 1].tobytes()


@settings(deadline=None)
@given(seeds)
def test_the_order_of_candidates_does_not_matter(seed: int) -> None:
    random = np.random.default_rng(seed)
    past, order = random_history(random, 9), random.permutation(NUM_ITEMS)
    bulk = FEATURES.matrix(FEATURES.profile(past), traits(*EVERY))
    assert (
        FEATURES.matrix(FEATURES.profile(past), traits(*order)).tobytes() == bulk[order].tobytes()
    )


def test_a_large_candidate_set_scores_as_its_rows_alone() -> None:
    """At the sizes of a real call, where matrix products use other code."""
    random = np.random.default_rng(5)
    num, rank = 600, 24
    catalogue = Catalogue(
        Item(str(n), year=1950 + n % 60, attributes=(GENRES[n % 3],)) for n in range(num)
    )
    rows = random.integers(1, 50, num).astype(np.float32)
    factors = random.normal(size=(2, num, rank)).astype(np.float32)
    statistics = ItemStatistics(rows, rows / np.float32(2), *factors)
    features = TabularFeatures(catalogue, statistics, random_user_model(num, 16))
    past = History.untimed(random.integers(0, num, 200), random.random(200) < 0.5)
    bulk = features.matrix(features.profile(past), catalogue.traits_at(np.arange(500)))
    for index in range(0, 500, 25):
        alone = features.matrix(features.profile(past), catalogue.traits_at(np.array([index])))[0]
        different = np.flatnonzero(alone != bulk[index])
        assert [features.names[column] for column in different] == []


def test_a_bundle_without_a_user_model_has_the_other_columns() -> None:
    without = TabularFeatures(CATALOGUE, STATISTICS)
    found = without.matrix(without.profile(MIXED), traits(1, 2))
    every = FEATURES.matrix(FEATURES.profile(MIXED), traits(1, 2))
    assert without.names == column_names(CATALOGUE)
    assert found.tobytes() == every[:, : found.shape[1]].tobytes()
