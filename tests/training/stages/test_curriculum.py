"""Which rows experts learn from: ReasoningRec's K is drawn with both classes alike."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankloom_training.data import Split
from rankloom_training.stages.curriculum import Curriculum, CurriculumError, balanced_rows
from rankloom_training.stages.rows import LogRows
from rankloom_training.visibility import Protocol
from training.logs import random_log

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


@pytest.fixture(scope="module")
def rows() -> LogRows:
    return LogRows.of(random_log(11, num_users=24, mean_rows=18), Protocol.P1, 0)


def test_without_shots_all_rows_of_some_users_are_learnt_from(rows: LogRows) -> None:
    chosen = Curriculum(with_words=True, shots=None).train_rows(rows, 100, ())
    users = rows.for_language_model(Split.TRAIN, 100)
    assert (chosen == users[rows.log.user]).all()


def test_each_group_has_its_own_balanced_sample_of_rows_with_a_text(rows: LogRows) -> None:
    train = np.flatnonzero(rows.log.split == Split.TRAIN)
    texts, group = train[::2], rows.log.user % 2
    curriculum = Curriculum(with_words=True, shots=10, group=group)
    chosen = np.flatnonzero(curriculum.train_rows(rows, 10**6, texts.tolist()))
    assert set(chosen) <= set(texts)
    for index in (0, 1):
        liked = rows.log.liked[chosen[group[chosen] == index]]
        assert (liked.sum(), (~liked).sum()) == (5, 5)


def test_texts_about_one_class_teach_nothing(rows: LogRows) -> None:
    likes = np.flatnonzero((rows.log.split == Split.TRAIN) & rows.log.liked)
    for texts in ([], likes.tolist()):
        with pytest.raises(CurriculumError, match="shots: no texts about likes and about dislikes"):
            Curriculum(with_words=True, shots=10).train_rows(rows, 10**6, texts)
