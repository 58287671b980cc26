"""Items that came later have text, and no other number than what the old columns say."""

from __future__ import annotations

import numpy as np

from rankloom_features.item_columns import ItemColumns
from rankloom_training.added_items import grown_columns


def test_old_columns_get_rows_and_new_columns_are_left_out() -> None:
    before = ItemColumns(("price", "domain=films"), np.array([[9, 1], [3, 0]], np.float32))
    given = ItemColumns(("domain=games", "price"), np.array([[0, 9], [1, 4], [1, 5]], np.float32))
    grown = grown_columns(before, given, np.array([1, 2]))
    assert grown.names == before.names
    assert np.array_equal(grown.values[:2], before.values)
    assert grown.values[2:, 0].tolist() == [4.0, 5.0]
    assert np.isnan(grown.values[2:, 1]).all()
