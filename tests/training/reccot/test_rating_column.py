"""What towers say of reviews, as a column: as it is served, and blind to what it predicts."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from rankloom_features.events import Event
from rankloom_features.rated_reviews import RatedReviews, event_key
from rankloom_features.review_ratings import ReviewRatings
from rankloom_training.checkpoints import NO_CHECKPOINT, Checkpoint
from rankloom_training.data import Dataset, Split, load_dataset
from rankloom_training.data.reviews import Reviews, load_reviews
from rankloom_training.metrics import auc
from rankloom_training.reccot.factors import fit_factors
from rankloom_training.reccot.histories import NOTHING
from rankloom_training.reccot.rating_column import LoggedReviews, OnStep, RatingColumn
from rankloom_training.reccot.tower_rows import TowerRows, with_ratings
from rankloom_training.reccot.tower_training import TowerOptions
from rankloom_training.stages.rows import LogRows
from rankloom_training.synthetic_reviews import write_reviews
from rankloom_training.visibility import Protocol, View, scoring_view
from training.logs import write_csv

ENCODER = "digest of an encoder"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("rated")
    write_reviews(found, 12)
    return found


@pytest.fixture(scope="module")
def data(folder: Path) -> Dataset:
    return load_dataset(folder)


@pytest.fixture(scope="module")
def reviews(folder: Path) -> Reviews:
    return load_reviews(folder)


@pytest.fixture(scope="module")
def logged(data: Dataset, reviews: Reviews) -> LoggedReviews:
    return LoggedReviews.of(data, reviews)


@pytest.fixture(scope="module")
def column(logged: LoggedReviews, reviews: Reviews) -> RatingColumn:
    return column_of(logged, reviews)


def column_of(
    logged: LoggedReviews,
    reviews: Reviews,
    on_step: OnStep = lambda *_: None,
    checkpoint: Callable[[str], Checkpoint] = lambda _: NO_CHECKPOINT,
) -> RatingColumn:
    random = np.random.default_rng(0).normal(size=(len(reviews), 6)).astype(np.float32)
    vectors = with_ratings(random, reviews.rating)
    return RatingColumn(logged, vectors, TowerOptions(epochs=1), on_step, checkpoint)


@pytest.fixture(scope="module")
def rater(column: RatingColumn, tmp_path_factory: pytest.TempPathFactory) -> ReviewRatings:
    program, file = column.parts(ENCODER)
    path = tmp_path_factory.mktemp("part") / "reviews.sqlite"
    path.write_bytes(file)
    return ReviewRatings(program, RatedReviews(path))


def events_before(data: Dataset, view: View, row: int) -> list[Event]:
    log, items = data.log, data.catalogue.items
    return [
        Event(items[log.item[at]].item_id, bool(log.liked[at]), float(log.time[at]))
        for at in view.visible_before(log, row).tolist()
    ]


def served(data: Dataset, view: View, rater: ReviewRatings) -> NDArray[np.float32]:
    items = data.catalogue.items
    return np.concatenate(
        [
            rater.ratings(None, events_before(data, view, row), [items[data.log.item[row]].item_id])
            for row in view.rows.tolist()
        ]
    )


@pytest.mark.parametrize("protocol", Protocol)
@pytest.mark.parametrize("split", [Split.VALID, Split.TEST])
def test_rows_after_training_have_what_a_server_gives_them(
    data: Dataset, column: RatingColumn, rater: ReviewRatings, protocol: Protocol, split: Split
) -> None:
    view = scoring_view(data.log, protocol, split)
    found = column.served([view])
    np.testing.assert_allclose(found, served(data, view, rater), atol=1e-5)
    assert np.isfinite(found).mean() > 0.9
    assert np.nanstd(found) > 0.01


def test_a_review_of_the_history_changes_the_rating(data: Dataset, rater: ReviewRatings) -> None:
    row = int(np.flatnonzero(data.log.split == Split.TEST)[0])
    events = events_before(data, scoring_view(data.log, Protocol.P1, Split.TEST), row)
    [item] = [data.catalogue.items[data.log.item[row]].item_id]
    [whole], [cut] = rater.ratings(None, events, [item]), rater.ratings(None, events[:9], [item])
    later = [each._replace(time=(each.time or 0.0) + 1.0) for each in events]
    [none] = rater.ratings(None, later, [item])
    assert len({float(whole), float(cut), float(none)}) == 3
    assert none == rater.ratings(None, [Event(e.item_id, e.liked) for e in events], [item])[0]


def test_of_long_histories_the_newest_reviews_count(data: Dataset, rater: ReviewRatings) -> None:
    row = int(np.flatnonzero(data.log.split == Split.TEST)[-1])
    events = events_before(data, scoring_view(data.log, Protocol.P1, Split.TEST), row)
    new = [Event("elsewhere", liked=True, time=1e9 + at) for at in range(200)]
    known, longer = rater.known(None, events), rater.known("anyone", [*events, *new])
    assert len(known.times) == 10
    assert longer.vectors.tobytes() == known.vectors.tobytes()
    assert list(known.times) == sorted(known.times)


def test_towers_know_no_user_and_the_file_names_none(
    column: RatingColumn, reviews: Reviews, rater: ReviewRatings
) -> None:
    _, file = column.parts(ENCODER)
    assert not any(name.encode() in file for name in reviews.user_ids)
    assert not any(item.item_id.encode() in file for item in reviews.catalogue.items)
    assert rater.origin.encoder == ENCODER
    assert column.parts(ENCODER)[1] == file


def test_training_rows_are_rated_without_their_user(data: Dataset, column: RatingColumn) -> None:
    views = LogRows.of(data, Protocol.P1, 0).views(Split.TRAIN)
    found = column.out_of_fold(views)
    assert len(found) == sum(len(view.rows) for view in views)
    assert np.isfinite(found).mean() > 0.9
    assert np.nanmax(np.abs(found - column.served(views))) > 0.01, "other towers rated them"


def test_a_rating_does_not_depend_on_what_it_predicts(
    data: Dataset, reviews: Reviews, logged: LoggedReviews
) -> None:
    row = last_of_user_and_item(data)
    rating, at = reviews.rating.copy(), logged.of_row[row]
    rating[at] = 6.0 - rating[at] if rating[at] != 3.0 else 1.0
    changed = dataclasses.replace(reviews, rating=rating)
    other = LoggedReviews.of(data, changed)
    views = LogRows.of(data, Protocol.P1, 0).views(Split.TRAIN)
    before = column_of(logged, reviews).out_of_fold(views)
    after = column_of(other, changed).out_of_fold(views)
    [own] = np.flatnonzero(views[0].rows == row)
    assert before[own] == after[own]
    assert not np.array_equal(before, after, equal_nan=True), "others learn from it"


def last_of_user_and_item(data: Dataset) -> int:
    """A training row that no later training row may see."""
    log, train = data.log, np.flatnonzero(data.log.split == Split.TRAIN)
    later = log.time[train][:, None] < log.time[train]
    same = (log.user[train][:, None] == log.user[train]) | (
        log.item[train][:, None] == log.item[train]
    )
    return int(train[~(later & same).any(axis=1)][0])


def test_a_killed_run_goes_on_with_the_towers_that_it_had(
    data: Dataset, reviews: Reviews, logged: LoggedReviews, column: RatingColumn, tmp_path: Path
) -> None:
    views = LogRows.of(data, Protocol.P1, 0).views(Split.TRAIN)
    steps: list[int] = []

    def interrupted(done: int, total: int) -> None:
        if done > 3:
            raise KeyboardInterrupt

    def checkpoint(name: str) -> Checkpoint:
        return Checkpoint(tmp_path / f"{name}.pt")

    with pytest.raises(KeyboardInterrupt):
        column_of(logged, reviews, interrupted, checkpoint).out_of_fold(views)
    assert {path.stem for path in tmp_path.iterdir()} == {"served", "fold-0", "fold-1"}
    again = column_of(logged, reviews, lambda done, _: steps.append(done), checkpoint)
    assert np.array_equal(again.out_of_fold(views), column.out_of_fold(views), equal_nan=True)
    assert again.parts(ENCODER) == column.parts(ENCODER)
    assert steps == [4, 5, 6]


def test_towers_start_from_what_raters_say_of_items(
    data: Dataset, reviews: Reviews, logged: LoggedReviews
) -> None:
    """And from a user who may be any of them: with items' means alone they may learn no more."""
    vectors = with_ratings(np.zeros((len(reviews), 3), np.float32), reviews.rating)
    options = TowerOptions(epochs=1, learning_rate=0.0)
    column = RatingColumn(logged, vectors, options, lambda *_: None)
    named = TowerRows.of(logged.reviews, vectors)
    fitted = fit_factors(logged.reviews, named, options.hidden, options.seed)
    anyone = fitted.for_anyone(np.unique(named.user[reviews.rows(Split.TRAIN)]))
    view = scoring_view(data.log, Protocol.P1, Split.VALID)
    item = torch.from_numpy(named.item[logged.of_row[view.rows]])
    with torch.inference_mode():
        expected = anyone(torch.zeros_like(item), item).numpy()
        some = np.unique(named.user[reviews.rows(Split.TRAIN)])
        of_each = [fitted(torch.full_like(item, int(user)), item).numpy() for user in some]
    np.testing.assert_allclose(column.served([view]), expected, atol=1e-6)
    np.testing.assert_allclose(expected, np.mean(of_each, axis=0), atol=1e-5)


def test_strangers_are_told_apart_by_what_they_wrote(tmp_path: Path) -> None:
    """Half of the users love one half of the items and dislike the other."""
    random = np.random.default_rng(0)
    write_csv(tmp_path / "items.csv", [{"item_id": f"i{n}", "title": f"T{n}"} for n in range(16)])
    pairs = [(user, item) for user in range(30) for item in random.permutation(16)[:12].tolist()]
    loved = [user % 2 == item % 2 for user, item in pairs]
    random.shuffle(times := list(range(len(pairs))))
    rows = [
        {"user_id": f"u{user}", "item_id": f"i{item}", "rating": 5 if fits else 2, "text": "Seen.",
         "timestamp": 1_000 + time}
        for (user, item), fits, time in zip(pairs, loved, times, strict=True)
    ]  # fmt: skip
    write_csv(tmp_path / "interactions.csv", rows)
    data, reviews = load_dataset(tmp_path), load_reviews(tmp_path)
    kind = np.eye(2, dtype=np.float32)[reviews.item % 2]
    vectors = with_ratings(kind * reviews.rating[:, None].astype(np.float32), reviews.rating)
    logged, options = LoggedReviews.of(data, reviews), TowerOptions(epochs=12)
    column = RatingColumn(logged, vectors, options, lambda *_: None)
    view = scoring_view(data.log, Protocol.P1, Split.VALID)
    assert auc(data.log.liked[view.rows], column.served([view])) > 0.9
    views = LogRows.of(data, Protocol.P1, 0).views(Split.TRAIN)
    late = np.concatenate([np.arange(len(each.rows)) % 9 > 5 for each in views])
    labels = np.concatenate([data.log.liked[each.rows] for each in views])
    assert auc(labels[late], column.out_of_fold(views)[late]) > 0.8


def test_no_row_sees_its_own_review_or_one_that_it_may_not_see(
    data: Dataset, reviews: Reviews, logged: LoggedReviews
) -> None:
    for protocol in Protocol:
        for view in LogRows.of(data, protocol, 0).views(Split.TRAIN):
            seen = logged.user_reviews(view)
            for row, own in zip(view.rows.tolist(), seen, strict=True):
                visible = set(logged.of_row[view.visible_before(data.log, row)].tolist())
                assert set(own[own != NOTHING].tolist()) <= visible
                assert logged.of_row[row] not in own
    assert (reviews.split[logged.spoken] == Split.TRAIN).all()


def test_an_item_that_the_user_knows_has_no_rating(data: Dataset, logged: LoggedReviews) -> None:
    view = scoring_view(data.log, Protocol.P1, Split.VALID)
    twice = dataclasses.replace(data.log, item=np.zeros_like(data.log.item))
    again = dataclasses.replace(logged, data=dataclasses.replace(data, log=twice))
    assert again.is_known(view).all()
    pair = list(zip(data.log.user.tolist(), data.log.item.tolist(), strict=True))
    expected = [
        pair[row] in {pair[at] for at in view.visible_before(data.log, row)}
        for row in view.rows.tolist()
    ]
    assert logged.is_known(view).tolist() == expected


def test_events_are_one_where_item_time_and_label_are() -> None:
    key = event_key("a", 10.0, liked=True)
    assert key == event_key("a", 10.0 + 1e-7, liked=True)
    others = (
        event_key("b", 10.0, liked=True),
        event_key("a", 10.001, liked=True),
        event_key("a", 10.0, liked=False),
    )
    assert len({key, *others}) == 4
