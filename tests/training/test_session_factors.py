from __future__ import annotations

import numpy as np

from rankloom_features.session_columns import SESSION_S
from rankloom_training.data import Interactions
from rankloom_training.data.interactions import make_log
from rankloom_training.session_factors import RANK, session_factors

NUM_ITEMS = 12


def log_of(sessions: list[list[int]], pause_s: float) -> Interactions:
    """One user for each session; ``pause_s``: between two likes of a session."""
    rows = [(user, item, at) for user, each in enumerate(sessions) for at, item in enumerate(each)]
    user, item, at = (np.array(column) for column in zip(*rows, strict=True))
    liked = np.ones(len(item), np.bool_)
    time = at * pause_s
    split = np.zeros(len(item), np.int8)
    return make_log([f"u{n}" for n in user], item, liked, time, at.astype(float), split)


def halves(num: int = 60) -> list[list[int]]:
    """Each session draws four items of one half of the catalogue."""
    random = np.random.default_rng(0)
    return [(6 * (n % 2) + random.permutation(6)[:4]).tolist() for n in range(num)]


def products(log: Interactions) -> np.ndarray:
    factors = session_factors(log, np.ones(len(log), np.bool_), NUM_ITEMS)
    assert factors.shape == (NUM_ITEMS, RANK)
    found = factors @ factors.T
    np.fill_diagonal(found, np.nan)
    return found


def test_items_of_one_session_are_near_and_others_are_not() -> None:
    found = products(log_of(halves(), 60.0))
    assert np.nanmin(found[:6, :6]) > np.nanmax(found[:6, 6:])
    assert np.nanmax(np.abs(found[:6, 6:])) < 0.1


def test_likes_with_a_long_pause_between_them_say_nothing() -> None:
    assert not np.nan_to_num(products(log_of(halves(), SESSION_S))).any()
    assert np.nan_to_num(products(log_of(halves(), SESSION_S - 1.0))).any()


def test_one_pair_says_less_than_many() -> None:
    once, often = (products(log_of([[0, 1], *[[2, 3], [4, 5]]] * num, 1.0)) for num in (1, 30))
    assert 0.0 < once[0, 1] < often[0, 1]


def test_rows_that_are_left_out_count_nothing() -> None:
    log = log_of(halves(), 60.0)
    chosen = log.user % 2 == 0
    factors = session_factors(log, chosen, NUM_ITEMS)
    assert factors[:6].any()
    assert not factors[6:].any()


def test_the_same_log_gives_the_same_bits() -> None:
    log = log_of(halves(), 60.0)
    every = np.ones(len(log), np.bool_)
    made = {session_factors(log, every, NUM_ITEMS).tobytes() for _ in range(3)}
    assert len(made) == 1
