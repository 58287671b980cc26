from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rankloom_features.session_columns import SESSION_S
from rankloom_training.data import DataError, Interactions, Split, load_dataset
from rankloom_training.visibility import (
    Protocol,
    coming_back,
    sampled_users,
    scoring_view,
    sessions,
    training_views,
    validation_view,
)
from training.logs import random_log, write_csv

seeds = st.integers(0, 2**32 - 1)


def earlier_rows(log: Interactions, row: int) -> list[int]:
    return [other for other in range(row) if log.user[other] == log.user[row]]


def slow_visible(log: Interactions, protocol: Protocol, row: int) -> list[int]:
    """The two protocols, as the data set's README defines them."""
    seen = []
    for other in earlier_rows(log, row):
        known = log.split[other] == Split.TRAIN or protocol is Protocol.P1
        if log.liked[other] or known:
            seen.append(other)
    return seen


@settings(deadline=None)
@given(seeds, st.sampled_from(Protocol), st.sampled_from(Split))
def test_a_scored_row_sees_what_its_protocol_allows(
    seed: int, protocol: Protocol, split: Split
) -> None:
    log = random_log(seed).log
    view = scoring_view(log, protocol, split)
    assert view.rows.tolist() == [row for row in range(len(log)) if log.split[row] == split]
    for row in view.rows.tolist():
        expected = slow_visible(log, protocol, row)
        assert view.visible_before(log, row).tolist() == expected
        history = view.history_before(log, row)
        assert history.index.tolist() == [int(log.item[other]) for other in expected]
        assert history.liked.tolist() == [bool(log.liked[other]) for other in expected]


@settings(deadline=None)
@given(seeds, seeds)
def test_p1_trains_on_all_training_rows_with_all_earlier_events(seed: int, draw: int) -> None:
    log = random_log(seed).log
    (view,) = training_views(log, Protocol.P1, draw)
    assert view.rows.tolist() == np.flatnonzero(log.split == Split.TRAIN).tolist()
    for row in view.rows.tolist():
        assert view.visible_before(log, row).tolist() == earlier_rows(log, row)


@settings(deadline=None)
@given(seeds, seeds)
def test_p0_trains_with_dislikes_up_to_a_moment_and_with_none(seed: int, draw: int) -> None:
    log = random_log(seed).log
    some, none = training_views(log, Protocol.P0, draw)
    train = np.flatnonzero(log.split == Split.TRAIN)
    assert none.rows.tolist() == train.tolist()
    for row in none.rows.tolist():
        expected = [other for other in earlier_rows(log, row) if log.liked[other]]
        assert none.visible_before(log, row).tolist() == expected
    for user in np.unique(log.user[train]):
        own = train[log.user[train] == user]
        rows = some.rows[log.user[some.rows] == user]
        cut = int(some.cutoff[user])
        assert cut in own
        assert rows.tolist() == own[own >= cut].tolist()
        for row in rows.tolist():
            expected = [o for o in earlier_rows(log, row) if log.liked[o] or o < cut]
            assert some.visible_before(log, row).tolist() == expected


def test_the_moment_of_known_dislikes_differs_by_seed_and_user() -> None:
    log = random_log(1, num_users=30).log
    cuts = [training_views(log, Protocol.P0, seed)[0].cutoff - log.start for seed in (0, 0, 1)]
    assert cuts[0].tolist() == cuts[1].tolist() != cuts[2].tolist()
    assert len(set(cuts[0].tolist())) > 3


@pytest.mark.parametrize("protocol", list(Protocol))
def test_a_first_row_sees_nothing(protocol: Protocol) -> None:
    log = random_log(4).log
    for split in Split:
        view = scoring_view(log, protocol, split)
        for row in set(view.rows.tolist()) & set(log.start.tolist()):
            assert len(view.history_before(log, row)) == 0


def test_splits_that_run_backwards_are_refused_or_leak_nothing(tmp_path: Path) -> None:
    """If a split may contradict the time order, dislikes of test rows stay hidden."""
    random = np.random.default_rng(0)
    rows = [
        {
            "user_id": f"u{index % 4}",
            "item_id": f"i{random.integers(9)}",
            "label": int(random.random() < 0.5),
            "timestamp": index,
            "split": ("train", "valid", "test")[random.integers(3)],
        }
        for index in range(120)
    ]
    write_csv(tmp_path / "interactions.csv", rows)
    write_csv(tmp_path / "items.csv", [{"item_id": f"i{n}", "title": ""} for n in range(9)])
    try:
        log = load_dataset(tmp_path).log
    except DataError:
        return
    view = scoring_view(log, Protocol.P0, Split.TEST)
    for row in view.rows.tolist():
        assert view.visible_before(log, row).tolist() == slow_visible(log, Protocol.P0, row)


def test_a_sample_of_rows_has_whole_users_and_keeps_to_its_size() -> None:
    user = np.repeat(np.arange(50), np.arange(1, 51))
    chosen = sampled_users(user, 60, 300, seed=1)
    assert 250 <= chosen[user].sum() <= 300
    assert not chosen[50:].any()
    assert chosen.tolist() == sampled_users(user, 60, 300, seed=1).tolist()
    assert chosen.tolist() != sampled_users(user, 60, 300, seed=2).tolist()
    assert sampled_users(user, 60, len(user), seed=1)[:50].all()
    assert sampled_users(user, 60, 1, seed=1).sum() == 1


def likes_alone(seed: int) -> Interactions:
    """A log whose dislikes are sampled, with some pauses that end a session."""
    log = random_log(seed, num_users=30, mean_rows=18).log
    pauses = np.random.default_rng(seed).choice([60.0, SESSION_S], len(log), p=[0.7, 0.3])
    return dataclasses.replace(log, time=np.cumsum(pauses), sampled=True)


def test_a_session_ends_with_the_user_or_with_a_long_pause() -> None:
    log = likes_alone(0)
    found = sessions(log)
    for row in range(1, len(log)):
        ends = log.user[row] != log.user[row - 1] or log.time[row] - log.time[row - 1] >= SESSION_S
        assert found[row] - found[row - 1] == int(ends)


def test_in_half_of_the_sessions_of_likes_alone_a_row_sees_what_was_before_the_session() -> None:
    log = likes_alone(1)
    session = sessions(log)
    (train,), valid = training_views(log, Protocol.P1, 0), validation_view(log, Protocol.P1, 0)
    hidden = dict[int, set[bool]]()
    for view in (train, valid):
        histories = view.histories(log)
        for at, row in enumerate(view.rows.tolist()):
            liked = [other for other in earlier_rows(log, row) if log.liked[other]]
            earlier = [other for other in liked if session[other] < session[row]]
            found = view.visible_before(log, row).tolist()
            assert found in (liked, earlier)
            assert histories.end[at] - histories.first[at] == len(found)
            asked = int(view.ends[at])
            assert asked == row or session[asked - 1] != session[row] == session[asked]
            if liked != earlier:
                hidden.setdefault(int(session[row]), set()).add(found == earlier)
        assert view.as_they_come().rows.tolist() == view.rows.tolist()
        assert view.as_they_come().ends.tolist() == view.rows.tolist()
    assert all(len(each) == 1 for each in hidden.values())
    share = np.mean([each == {True} for each in hidden.values()])
    assert 0.3 < share < 0.7


def test_which_sessions_are_hidden_follows_from_the_seed() -> None:
    log = likes_alone(2)
    one, same, other = (coming_back(log, seed).tolist() for seed in (0, 0, 1))
    assert one == same != other


def test_ratings_are_seen_as_they_come() -> None:
    log = random_log(3).log
    for protocol in Protocol:
        assert all(view.asked is None for view in training_views(log, protocol, 0))
        assert validation_view(log, protocol, 0).asked is None
