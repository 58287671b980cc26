"""Four ways in which this kind of split has leaked labels elsewhere; none of them does here."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from numpy.typing import NDArray

from rankloom_features.encoder import pad_events
from rankloom_features.events import History
from rankloom_training.data import Dataset, Interactions, Split
from rankloom_training.trees import FeatureTable, HeldOutFeatures
from rankloom_training.visibility import Protocol, View, scoring_view, training_views
from training.logs import hidden_under_p0, relabelled, without

SEED = 5
MAX_ROWS = 150
NOISE = 1e-6  # one label moves an item's mean by a hundred times as much
protocols = pytest.mark.parametrize("protocol", list(Protocol))


@pytest.fixture(scope="session")
def features(dataset: Dataset) -> HeldOutFeatures:
    return HeldOutFeatures(dataset, SEED)


def features_of(dataset: Dataset, log: Interactions) -> HeldOutFeatures:
    return HeldOutFeatures(dataclasses.replace(dataset, log=log), SEED)


def some_rows(rows: NDArray[np.int64]) -> NDArray[np.int64]:
    random = np.random.default_rng(SEED)
    return np.sort(random.permutation(rows)[:MAX_ROWS])


def one_row_per_user(log: Interactions, split: Split) -> NDArray[np.int64]:
    """A random row of the split for each of some users."""
    rows = np.random.default_rng(SEED).permutation(np.flatnonzero(log.split == split))
    _, first = np.unique(log.user[rows], return_index=True)
    return some_rows(rows[first])


def from_own_row_on(log: Interactions, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Marks each of the rows and all later rows of the same user."""
    first = np.full(log.num_users, len(log), dtype=np.int64)
    first[log.user[rows]] = rows
    return np.arange(len(log)) >= first[log.user]


def same(one: History, other: History) -> bool:
    return np.array_equal(one.index, other.index) and np.array_equal(one.liked, other.liked)


def table_of(features: HeldOutFeatures, view: View, rows: NDArray[np.int64]) -> FeatureTable:
    """The features of some rows under ``view``, with zero collaborative logits."""
    return features.table(View(rows, view.cutoff), np.zeros(len(rows), np.float32))


def differing(one: FeatureTable, other: FeatureTable) -> int:
    """How many rows differ by more than the noise between two factorisations."""
    close = np.isclose(one.features, other.features, rtol=0, atol=NOISE, equal_nan=True)
    return int((~close.all(axis=1)).sum())


@protocols
def test_no_row_sees_its_own_label_or_a_later_one(
    dataset: Dataset, features: HeldOutFeatures, protocol: Protocol
) -> None:
    log = dataset.log
    rows = one_row_per_user(log, Split.TEST)
    others = (log.split == Split.TEST) & ~np.isin(log.user, log.user[rows])
    changed = relabelled(log, from_own_row_on(log, rows) | others)
    view = scoring_view(log, protocol, Split.TEST)
    for row in rows:
        found = scoring_view(changed, protocol, Split.TEST).history_before(changed, int(row))
        assert same(found, view.history_before(log, int(row)))
    one = table_of(features, view, rows)
    other = table_of(features_of(dataset, changed), view, rows)
    assert differing(one, other) == 0
    assert (one.label != other.label).all()


@protocols
def test_no_row_sees_that_later_rows_exist(
    dataset: Dataset, features: HeldOutFeatures, protocol: Protocol
) -> None:
    log = dataset.log
    rows = one_row_per_user(log, Split.TEST)
    later = from_own_row_on(log, rows)
    later[rows] = False
    shorter = without(log, later)
    moved = np.flatnonzero(~later).searchsorted(rows)
    view, after = (scoring_view(one, protocol, Split.TEST) for one in (log, shorter))
    for row, new_row in zip(rows.tolist(), moved.tolist(), strict=True):
        assert same(view.history_before(log, row), after.history_before(shorter, new_row))
    one = table_of(features, view, rows)
    other = table_of(features_of(dataset, shorter), after, moved)
    assert differing(one, other) == 0


def p0_views(log: Interactions) -> list[View]:
    scored = [scoring_view(log, Protocol.P0, split) for split in (Split.VALID, Split.TEST)]
    return [*training_views(log, Protocol.P0, SEED), *scored]


def test_hidden_rows_may_be_shuffled_without_a_trace(
    dataset: Dataset, features: HeldOutFeatures
) -> None:
    log = dataset.log
    hidden = np.flatnonzero(hidden_under_p0(log))
    shuffled = log.item.copy()
    shuffled[hidden] = np.random.default_rng(1).permutation(shuffled[hidden])
    assert (shuffled != log.item).sum() > len(hidden) // 2
    changed = Interactions(
        log.user, shuffled, log.liked, log.time, log.split, log.start, log.user_ids
    )
    other = features_of(dataset, changed)
    for view, after in zip(p0_views(log), p0_views(changed), strict=True):
        for row in some_rows(view.rows).tolist():
            assert same(view.history_before(log, row), after.history_before(changed, row))
        rows = some_rows(np.setdiff1d(view.rows, hidden))
        assert differing(table_of(features, view, rows),
                         table_of(other, after, rows)) == 0  # fmt: skip


def test_hidden_rows_leave_no_gap(dataset: Dataset, features: HeldOutFeatures) -> None:
    """The visible history is the same as if hidden rows did not exist."""
    log = dataset.log
    hidden = hidden_under_p0(log)
    closed = without(log, hidden)
    other = features_of(dataset, closed)
    for view, after in zip(p0_views(log), p0_views(closed), strict=True):
        rows = some_rows(np.setdiff1d(view.rows, np.flatnonzero(hidden)))
        moved = np.flatnonzero(~hidden).searchsorted(rows)
        before = [view.history_before(log, int(row)) for row in rows]
        found = [after.history_before(closed, int(row)) for row in moved]
        assert [a.tolist() for a in pad_events(before)] == [a.tolist() for a in pad_events(found)]
        assert differing(table_of(features, view, rows),
                         table_of(other, after, moved)) == 0  # fmt: skip


@protocols
def test_p0_never_shows_a_hidden_row_and_p1_does(dataset: Dataset, protocol: Protocol) -> None:
    log = dataset.log
    view = scoring_view(log, protocol, Split.TEST)
    hidden = hidden_under_p0(log)
    seen = sum(int(hidden[view.visible_before(log, int(row))].sum()) for row in view.rows)
    assert (seen > 0) == (protocol is Protocol.P1)


def test_statistics_never_hold_the_rows_own_fold(
    dataset: Dataset, features: HeldOutFeatures
) -> None:
    """Flipping the labels of a row's fold changes nothing, except those that the row sees."""
    log = dataset.log
    view = training_views(log, Protocol.P1, SEED)[0]
    fold = features.fold[log.user]
    for index in np.unique(features.fold)[:2]:
        rows = one_row_per_user(log, Split.TRAIN)
        rows = rows[fold[rows] == index]
        seen = np.isin(log.user, log.user[rows]) & ~from_own_row_on(log, rows)
        own = features_of(dataset, relabelled(log, (fold == index) & ~seen))
        one, other = (table_of(f, view, rows) for f in (features, own))
        assert len(rows) > 0
        assert differing(one, other) == 0
        assert (one.label != other.label).all()


def test_statistics_do_hold_the_other_folds(dataset: Dataset, features: HeldOutFeatures) -> None:
    """Otherwise the test above would pass with constant features."""
    log = dataset.log
    view = training_views(log, Protocol.P1, SEED)[0]
    rows = some_rows(view.rows[features.fold[log.user[view.rows]] == features.fold[0]])
    others = features_of(dataset, relabelled(log, features.fold[log.user] != features.fold[0]))
    one, other = (table_of(f, view, rows) for f in (features, others))
    assert differing(one, other) == len(rows)


def test_a_rows_statistics_column_is_that_of_the_other_folds(
    dataset: Dataset, features: HeldOutFeatures
) -> None:
    log = dataset.log
    rows = some_rows(np.flatnonzero(log.split == Split.TRAIN))
    table = table_of(features, training_views(log, Protocol.P1, SEED)[0], rows)
    column = features.served.names.index("item_log_count")
    fold = features.fold[log.user]
    for row, found in zip(rows.tolist(), table.features[:, column], strict=True):
        held_out = (log.split == Split.TRAIN) & (fold != fold[row]) & (log.item == log.item[row])
        assert found == pytest.approx(np.log1p(held_out.sum()))
