from __future__ import annotations

from feature_service.small_catalogue import CATALOGUE
from rankloom_features.events import Event, history_of, known_events


def test_unknown_items_are_left_out_in_order() -> None:
    made = [Event("i3", True), Event("gone", False), Event("i1", False, 2.0), Event("", True)]
    known = known_events(made, CATALOGUE)
    assert known == (made[0], made[2])
    history = history_of(known, CATALOGUE)
    assert history.index.tolist() == [3, 1]
    assert history.liked.tolist() == [True, False]
    assert len(history_of((), CATALOGUE)) == 0
