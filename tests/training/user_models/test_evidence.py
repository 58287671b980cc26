"""The users' prior: the evidence is that of a Gaussian, and its maximum is where it should be."""

from __future__ import annotations

import numpy as np
import pytest

from rankloom_training.user_models.evidence import (
    MAX_EVENTS,
    UserCovariances,
    UserEvidence,
    fitted_user_prior,
)
from rankloom_training.user_models.variances import NUM_BLOCKS, SESSION_S, USUAL_PRIOR

VARIANCES = np.array([0.02, 0.03, 0.01, 0.15])  # one block, level, session, noise


def users(num: int, lengths: tuple[int, int], blocks: int = 1, seed: int = 0) -> list[UserEvidence]:
    """Users drawn from VARIANCES, who depend on the first block alone."""
    random = np.random.default_rng(seed)
    made = []
    for length in random.integers(*lengths, num):
        inputs = [random.normal(size=(length, 2)) for _ in range(blocks)]
        time = np.cumsum(random.exponential(2_000.0, length))
        session = np.exp(-np.abs(time[:, None] - time) / SESSION_S)
        parts = (inputs[0] @ inputs[0].T, np.ones((length, length)), session, np.eye(length))
        covariance = np.tensordot(VARIANCES, np.stack(parts), axes=1)
        residual = random.multivariate_normal(np.zeros(length), covariance)
        made.append(UserEvidence(residual, inputs, time))
    return made


def test_the_loss_is_the_sum_of_each_users() -> None:
    several = users(5, (1, 9))
    alone = [UserCovariances.of([user]).loss(VARIANCES)[0] for user in several]
    assert UserCovariances.of(several).loss(VARIANCES)[0] == pytest.approx(sum(alone))


def test_the_loss_is_the_negative_log_evidence() -> None:
    (user,) = users(1, (8, 9))
    covariance = np.tensordot(VARIANCES, user.parts(), axes=1)
    solved = np.linalg.solve(covariance, user.residual)
    expected = 0.5 * (np.linalg.slogdet(covariance)[1] + user.residual @ solved)
    assert UserCovariances.of([user]).loss(VARIANCES)[0] == pytest.approx(expected)


def test_the_gradient_is_that_of_the_loss() -> None:
    covariances, step = UserCovariances.of(users(6, (2, 12))), 1e-6
    _, gradient = covariances.loss(VARIANCES)
    for part, found in enumerate(gradient):
        moved = step * (np.arange(len(VARIANCES)) == part)
        rise = covariances.loss(VARIANCES + moved)[0] - covariances.loss(VARIANCES - moved)[0]
        assert found == pytest.approx(rise / (2 * step), rel=1e-4)


def test_the_fitted_prior_is_what_users_were_drawn_from() -> None:
    found = fitted_user_prior(users(150, (20, 40), NUM_BLOCKS))
    assert found.blocks[0] == pytest.approx(VARIANCES[0], rel=0.4)
    assert max(found.blocks[1:]) < 0.2 * found.blocks[0]
    assert found.level + found.session == pytest.approx(VARIANCES[1] + VARIANCES[2], rel=0.4)
    assert found.noise == pytest.approx(VARIANCES[3], rel=0.1)


def test_the_newest_events_of_a_long_history_count() -> None:
    (user,) = users(1, (MAX_EVENTS + 20, MAX_EVENTS + 21))
    assert np.array_equal(user.newest().residual, user.residual[-MAX_EVENTS:])
    assert len(user.newest().inputs[0]) == len(user.newest().time) == MAX_EVENTS


def test_users_without_times_are_one_session() -> None:
    (user,) = users(1, (5, 6))
    untimed = UserEvidence(user.residual, user.inputs, np.full(5, np.nan))
    assert (untimed.parts()[-2] == 1.0).all()


def test_without_users_the_prior_is_a_usual_one() -> None:
    assert fitted_user_prior([]) == USUAL_PRIOR.users
