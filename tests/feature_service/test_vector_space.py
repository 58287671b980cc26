"""What orders items in retrieval: who likes them, and how often they are chosen."""

from __future__ import annotations

import numpy as np
import pytest

from rankloom_features.scorer import Scorer
from rankloom_features.vector_space import CollaborativeSpace

RANDOM = np.random.default_rng(0)
SCORER = Scorer(
    RANDOM.normal(size=(6, 4)).astype(np.float32), RANDOM.normal(size=6).astype(np.float32)
)
ROWS = np.array([0.0, 1.0, 9.0, 99.0, 3.0, 0.0], np.float32)


@pytest.mark.parametrize("sampled", [False, True])
def test_counts_stand_beside_the_logit_unless_dislikes_were_sampled(sampled: bool) -> None:
    space = CollaborativeSpace(SCORER, ROWS, sampled=sampled)
    user = RANDOM.normal(size=4).astype(np.float32)
    logits = SCORER.logits(user, np.arange(6))
    expected = logits if sampled else logits + np.log(ROWS + 1)
    [vector] = space.users(user[None])
    # Not by `@`: BLAS has once warned of an invalid value here, among finite ones.
    assert (space.items * vector).sum(axis=1) == pytest.approx(expected, abs=1e-5)
    assert space.items.dtype == np.float32
    assert space.items.flags.c_contiguous
