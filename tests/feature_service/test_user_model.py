"""The user model equals a Gaussian process over the user's events, event by event."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import safetensors.numpy
from numpy.typing import NDArray

from feature_service.small_catalogue import NUM_ITEMS, random_history
from feature_service.user_models import PRIOR, random_user_model
from rankloom_features.events import History
from rankloom_features.user_model import USER_MODEL_COLUMNS, UserModel, UserModelError

MODEL = random_user_model(NUM_ITEMS)
EVERY_ITEM = np.arange(NUM_ITEMS)


def columns(model: UserModel, history: History) -> dict[str, NDArray[np.float64]]:
    """Of every item, after all events."""
    states = model.states(history, np.array([len(history)]))
    return model.columns(states, EVERY_ITEM, np.zeros(NUM_ITEMS, np.int64))


def first(history: History, num: int) -> History:
    return History(history.index[:num], history.liked[:num], history.time[:num])


def by_kernel(history: History) -> dict[str, NDArray[np.float64]]:
    """The posterior at the time of the last event, from the covariances of all pairs of events."""
    factors, means = MODEL.factors.astype(float), MODEL.means.astype(float)
    own = factors[history.index]
    session = PRIOR.session * np.exp(
        -np.abs(history.time[:, None] - history.time) / PRIOR.session_s
    )
    noise = np.diag(MODEL.noise.astype(float)[history.index])
    inverse = np.linalg.inv(own @ own.T + PRIOR.level + session + noise)
    solved = inverse @ (history.liked - means[history.index])
    ones = np.ones((NUM_ITEMS, len(history)))
    parts = {
        "user_model_level": ones * PRIOR.level,
        "user_model_session": ones * session[-1],
        "user_model_affinity": factors @ own.T,
    }
    found = {name: covariance @ solved for name, covariance in parts.items()}
    covariance = np.sum(list(parts.values()), axis=0)
    before = PRIOR.level + PRIOR.session + (factors**2).sum(axis=1)
    return found | {
        "user_model_item_mean": means,
        "user_model_mean": means + covariance @ solved,
        "user_model_variance": before - np.einsum("ni,ij,nj->n", covariance, inverse, covariance),
    }


@pytest.mark.parametrize("seed", range(4))
def test_columns_are_those_of_the_gaussian_process(seed: int) -> None:
    history = random_history(np.random.default_rng(seed), 60)
    expected = by_kernel(history)
    for name, found in columns(MODEL, history).items():
        np.testing.assert_allclose(found, expected[name], rtol=0, atol=1e-9, err_msg=name)


def test_a_moment_equals_the_history_that_is_cut_there() -> None:
    """To the last bit: later events, whatever they are, leave no trace."""
    history = random_history(np.random.default_rng(1), 30)
    seen = np.array([17, 0, 30, 17])
    states = MODEL.states(history, seen)
    for moment, num in enumerate(seen.tolist()):
        found = MODEL.columns(states, EVERY_ITEM, np.full(NUM_ITEMS, moment))
        for name, expected in columns(MODEL, first(history, num)).items():
            np.testing.assert_array_equal(found[name], expected, err_msg=name)


def test_a_candidate_has_the_same_columns_alone() -> None:
    states = MODEL.states(random_history(np.random.default_rng(2), 25), np.array([25]))
    together = MODEL.columns(states, EVERY_ITEM, np.zeros(NUM_ITEMS, np.int64))
    for item in EVERY_ITEM:
        alone = MODEL.columns(states, np.array([item]), np.zeros(1, np.int64))
        assert {name: values[0] for name, values in alone.items()} == {
            name: values[item] for name, values in together.items()
        }


def test_one_update_is_what_a_new_start_gives() -> None:
    history = random_history(np.random.default_rng(3), 40)
    before = MODEL.new_user()
    for at in range(len(history)):
        time = float(history.time[at])
        before = MODEL.updated(before, int(history.index[at]), bool(history.liked[at]), time)
    again = MODEL.states(history, np.array([40]))
    np.testing.assert_array_equal(before.mean, again.mean[0])
    np.testing.assert_array_equal(before.covariance, again.covariance[0])


def test_a_like_raises_what_is_like_it_and_a_dislike_lowers_it() -> None:
    time = np.array([0.0])
    for liked in (True, False):
        history = History(np.array([2]), np.array([liked]), time)
        mean = columns(MODEL, history)["user_model_affinity"]
        like_it = MODEL.factors @ MODEL.factors[2]
        assert (np.sign(mean) == np.sign(like_it) * (1 if liked else -1)).all()


def test_the_sessions_level_fades_and_the_level_stays() -> None:
    start = [(0, True, 0.0), (1, True, 60.0)]
    now, later = (
        columns(MODEL, history_of([*start, (2, True, time)])) for time in (120.0, 86_400.0 * 30)
    )
    assert 0 < later["user_model_session"][0] < 0.7 * now["user_model_session"][0]
    assert later["user_model_level"][0] > 0.9 * now["user_model_level"][0]


@pytest.mark.parametrize("times", [(100.0, math.nan, 100.0), (100.0, 40.0, 100.0)])
def test_without_a_later_time_no_time_passes(times: tuple[float, ...]) -> None:
    liked = [(0, True), (1, False), (2, True)]
    history = history_of([(*event, time) for event, time in zip(liked, times, strict=True)])
    together = history_of([(*event, 100.0) for event in liked])
    for name, found in columns(MODEL, history).items():
        np.testing.assert_array_equal(found, columns(MODEL, together)[name])


def history_of(events: list[tuple[int, bool, float]]) -> History:
    index, liked, time = zip(*events, strict=True)
    return History(np.array(index), np.array(liked), np.array(time))


def test_an_item_that_nobody_knows_has_the_users_level_alone() -> None:
    states = MODEL.states(random_history(np.random.default_rng(4), 9), np.array([9]))
    found = MODEL.columns(states, np.array([-1]), np.zeros(1, np.int64))
    levels = found["user_model_level"] + found["user_model_session"]
    assert found["user_model_affinity"] == [0.0]
    assert found["user_model_mean"] == pytest.approx(PRIOR.overall + levels)


def test_a_user_without_events_is_the_prior() -> None:
    found = columns(MODEL, random_history(np.random.default_rng(0), 0))
    np.testing.assert_array_equal(found["user_model_mean"], MODEL.means.astype(float))
    assert tuple(found) == USER_MODEL_COLUMNS


def test_events_make_the_user_surer() -> None:
    history = random_history(np.random.default_rng(5), 50)
    states = MODEL.states(history, np.arange(51))
    found = MODEL.columns(states, np.full(51, 3), np.arange(51))["user_model_variance"]
    assert found[0] > found[10] > found[50] > 0


def test_bytes_give_the_same_model() -> None:
    again = UserModel.from_bytes(MODEL.to_bytes(), NUM_ITEMS)
    history = random_history(np.random.default_rng(6), 20)
    for name, found in columns(again, history).items():
        np.testing.assert_array_equal(found, columns(MODEL, history)[name])


def damaged() -> dict[str, bytes]:
    tensors = safetensors.numpy.load(MODEL.to_bytes())

    def saved(**changed: NDArray[np.generic]) -> bytes:
        return bytes(safetensors.numpy.save(tensors | changed))

    return {
        "no safetensors": b"{}",
        "a part is missing": bytes(safetensors.numpy.save({"means": tensors["means"]})),
        "one more part": saved(more=tensors["means"]),
        "another type": saved(factors=tensors["factors"].astype(np.float64)),
        "another shape": saved(noise=tensors["noise"][1:]),
        "no number": saved(means=tensors["means"] * np.float32(np.nan)),
        "a negative variance": saved(noise=-tensors["noise"]),
        "no session": saved(prior=np.array([0.1, 0.1, 0.0, 0.5])),
    }


@pytest.mark.parametrize("kind", damaged())
def test_damaged_bytes_are_refused(kind: str) -> None:
    with pytest.raises(UserModelError, match="user model: "):
        UserModel.from_bytes(damaged()[kind], NUM_ITEMS)


def test_a_model_of_another_catalogue_is_refused() -> None:
    with pytest.raises(UserModelError, match="another catalogue"):
        UserModel.from_bytes(MODEL.to_bytes(), NUM_ITEMS + 1)


def test_a_prior_of_one_level_alone_is_a_model() -> None:
    """No factors, no session: the level is a shrunk mean of residuals."""
    none = np.zeros((NUM_ITEMS, 0), np.float32)
    model = UserModel(none, MODEL.means, MODEL.noise * 0 + np.float32(0.2),
                      dataclasses.replace(PRIOR, session=0.0))  # fmt: skip
    history = random_history(np.random.default_rng(7), 12)
    residual = history.liked - MODEL.means[history.index]
    found = columns(model, history)["user_model_level"][0]
    assert found == pytest.approx(residual.sum() / (12 + np.float32(0.2) / PRIOR.level))
