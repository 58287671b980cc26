"""Which rows experts learn from: ReasoningRec's K is drawn with both classes alike."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankloom_training.stages.curriculum import balanced_rows

ROWS = np.arange(100, 160)
LIKED = ROWS % 3 == 0


@given(num=st.integers(2, 200), seed=st.integers(0, 1000))
def test_a_sample_has_as_many_likes_as_dislikes(num: int, seed: int) -> None:
    sample = balanced_rows(ROWS, LIKED, num, seed)
    assert len(sample) == 2 * min(num // 2, int(LIKED.sum()))
    assert (sample % 3 == 0).sum() == len(sample) // 2
    assert (np.diff(sample) > 0).all()
    assert set(sample) <= set(ROWS)
    assert (sample == balanced_rows(ROWS, LIKED, num, seed)).all()


def test_another_seed_gives_another_sample() -> None:
    assert (balanced_rows(ROWS, LIKED, 16, 1) != balanced_rows(ROWS, LIKED, 16, 2)).any()


@pytest.mark.parametrize("liked", [True, False])
def test_one_class_alone_gives_nothing(liked: bool) -> None:
    assert not len(balanced_rows(ROWS, np.full(len(ROWS), liked), 8, 0))
    assert not len(balanced_rows(ROWS[:0], LIKED[:0], 8, 0))
