from __future__ import annotations

import math

import numpy as np
import pytest

from feature_service.small_catalogue import NUM_ITEMS, random_history
from rankloom_features.events import History
from rankloom_features.session_columns import (
    DECAY,
    MAX_PAUSE_H,
    SESSION_S,
    WINDOW,
    SessionColumns,
)

FACTORS = np.random.default_rng(0).normal(size=(NUM_ITEMS, 4)).astype(np.float32)
COLUMNS = SessionColumns(FACTORS)
EVERY = np.arange(NUM_ITEMS)


def columns(past: History, now: float, index: np.ndarray = EVERY) -> np.ndarray:
    profile = COLUMNS.profile(past, np.array([len(past)]))
    moment = np.zeros(len(index), np.int64)
    return COLUMNS.columns(profile, index, moment, np.full(len(index), now))


def just_after(past: History) -> float:
    return float(past.time[-1]) + 7200.0


@pytest.mark.parametrize("length", [1, 3, 40])
def test_a_candidate_is_compared_with_the_last_likes_the_last_most(length: int) -> None:
    past = random_history(np.random.default_rng(length), length)
    past.liked[0] = True
    lately = past.index[past.liked][::-1][:WINDOW]
    found = columns(past, just_after(past))
    for index in EVERY:
        products = [float(FACTORS[index] @ FACTORS[like]) for like in lately]
        lift = sum(DECAY**back * product for back, product in enumerate(products))
        assert found[index].tolist() == pytest.approx(
            [math.log1p(2.0), lift, products[0]], abs=1e-5
        )


def test_a_user_who_comes_back_is_in_no_session() -> None:
    past = random_history(np.random.default_rng(1), 9)
    end = float(past.time[-1])
    assert not np.isnan(columns(past, end + SESSION_S - 1.0)).any()
    assert np.isnan(columns(past, end + SESSION_S)[:, 1:]).all()
    long = columns(past, end + 20 * 365 * 86_400.0)
    assert long[:, 0].tolist() == pytest.approx([math.log1p(MAX_PAUSE_H)] * NUM_ITEMS)


def test_what_is_not_known_is_nan() -> None:
    past = random_history(np.random.default_rng(2), 9)
    unknown = columns(past, just_after(past), np.array([-1]))[0]
    assert np.isnan(unknown).tolist() == [False, True, True]
    untimed = History.untimed(past.index, past.liked)
    assert np.isnan(columns(untimed, 0.0)).all()
    assert np.isnan(columns(past, math.nan)).all()
    assert np.isnan(columns(History.untimed(past.index[:0], past.liked[:0]), 0.0)).all()


def test_a_moment_equals_the_history_cut_there() -> None:
    past = random_history(np.random.default_rng(3), 30)
    seen = np.arange(31)
    profile = COLUMNS.profile(past, seen)
    for num in (1, 7, 30):
        cut = History(past.index[:num], past.liked[:num], past.time[:num])
        now = np.full(NUM_ITEMS, float(cut.time[-1]) + 60.0)
        found = COLUMNS.columns(profile, EVERY, np.full(NUM_ITEMS, num), now)
        assert found.tobytes() == columns(cut, float(now[0])).tobytes()


def test_an_event_before_the_clock_of_another_machine_is_of_this_moment() -> None:
    past = random_history(np.random.default_rng(4), 5)
    assert columns(past, float(past.time[-1]) - 30.0)[0, 0] == 0.0
