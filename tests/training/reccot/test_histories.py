"""A row sees earlier reviews alone: written down here once more, the slow way."""

from __future__ import annotations

import numpy as np
import pytest

from rankloom_training.reccot.histories import MOST_REVIEWS, NOTHING, ReviewHistories
from training.reccot.few_reviews import few_reviews, without_text


@pytest.mark.parametrize("seed", range(3))
def test_each_row_sees_what_came_before(seed: int) -> None:
    reviews = without_text(few_reviews(600, seed), 3)
    histories = ReviewHistories.of(reviews)
    for row in range(len(reviews)):
        for group, seen in (
            (reviews.user, histories.user[row]),
            (reviews.item, histories.item[row]),
        ):
            earlier = [
                at
                for at in range(len(reviews))
                if group[at] == group[row] and reviews.time[at] < reviews.time[row]
                if reviews.texts[at]
            ][-MOST_REVIEWS:]
            assert seen.tolist() == [NOTHING] * (MOST_REVIEWS - len(earlier)) + earlier


def test_first_rows_see_nothing() -> None:
    histories = ReviewHistories.of(few_reviews())
    assert (histories.user[0] == NOTHING).all()
    assert (histories.item[0] == NOTHING).all()
    assert np.max(histories.user) > 0
