"""Rows are ordered as by numpy's lexsort, whose time grows faster than the rows; repeats leave."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from rankloom_training.data.interactions import first_of_duplicates
from rankloom_training.data.ordering import stable_order

_WHOLE = st.one_of(st.integers(-(2**63), 2**63 - 1), st.integers(-3, 3), st.integers(0, 2**17))
_FLOATS = st.one_of(st.floats(allow_nan=False), st.sampled_from([-0.0, 0.0, 1.5e9, 1.5e9 + 60]))
_ROWS = st.tuples(_WHOLE, _FLOATS, st.booleans())


@given(st.lists(_ROWS, max_size=40), st.permutations(range(3)))
def test_any_rows_are_ordered_as_by_lexsort(
    rows: list[tuple[int, float, bool]], order: list[int]
) -> None:
    columns: list[NDArray[np.generic]] = [
        np.array([row[0] for row in rows], np.int64),
        np.array([row[1] for row in rows], np.float64),
        np.array([row[2] for row in rows], np.bool_),
    ]
    keys = [columns[at] for at in order]
    assert stable_order(*keys).tolist() == np.lexsort(keys[::-1]).tolist()


@pytest.mark.parametrize("num_rows", [0, 1, 200_000])
def test_many_rows_of_a_log_are_ordered_as_by_lexsort(num_rows: int) -> None:
    random = np.random.default_rng(0)
    user = random.integers(0, 100_000, num_rows)  # more than 16 bits
    time = 1.5e9 + random.integers(0, 50, num_rows) + random.choice([0.0, 0.25], num_rows)
    found = stable_order(user, time, time)
    assert found.tolist() == np.lexsort((time, user)).tolist()


@pytest.mark.parametrize("num_different", [2, 30])
def test_the_first_of_rows_that_are_equal_stays(num_different: int) -> None:
    random = np.random.default_rng(0)
    user, item = random.integers(0, num_different, (2, 1_000))
    time, liked = random.integers(0, 3, 1_000) / 2, random.random(1_000) < 0.5
    rows = list(zip(user.tolist(), item.tolist(), time.tolist(), liked.tolist(), strict=True))
    firsts = [rows.index(row) == number for number, row in enumerate(rows)]
    assert 0 < sum(firsts) < len(rows)
    assert first_of_duplicates(user, item, time, liked).tolist() == firsts
