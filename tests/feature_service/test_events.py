from __future__ import annotations

import numpy as np

from feature_service.small_catalogue import CATALOGUE
from rankloom_features.events import Event, known_history


def test_unknown_items_are_left_out_in_order() -> None:
    made = [Event("i3", True), Event("gone", False), Event("i1", False, 2.0), Event("", True)]
    known, history = known_history(made, CATALOGUE)
    assert known == (made[0], made[2])
    assert history.index.tolist() == [3, 1]
    assert history.liked.tolist() == [True, False]
    assert np.isnan(history.time[0])
    assert history.time[1] == 2.0
    assert len(known_history((), CATALOGUE)[1]) == 0
