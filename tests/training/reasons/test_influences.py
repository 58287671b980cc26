"""An event's influence is what the score loses without it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rankloom_features.events import Event
from rankloom_training.data import Dataset, load_dataset
from rankloom_training.reasons.fitting import fit_influences
from rankloom_training.reasons.influences import TreeInfluences
from rankloom_training.visibility import Protocol


@pytest.fixture(scope="module")
def log(small_data: Path) -> Dataset:
    return load_dataset(small_data)


@pytest.fixture(scope="module")
def influences(log: Dataset) -> TreeInfluences:
    return fit_influences(log, Protocol.P1, seed=0)


def history(log: Dataset, user: int) -> tuple[Event, ...]:
    rows = np.flatnonzero(log.log.user == user)
    items = log.catalogue.items
    return tuple(Event(items[log.log.item[at]].item_id, bool(log.log.liked[at])) for at in rows)


def test_an_influence_is_the_difference_of_two_scores(
    log: Dataset, influences: TreeInfluences
) -> None:
    events, candidate = history(log, 3), log.catalogue.items[7]
    measured = influences.measure(events, candidate, newest=5)
    assert measured.influences.shape == (5,)
    for at in range(5):
        left_out = len(events) - 5 + at
        without = influences.measure(
            events[:left_out] + events[left_out + 1 :], candidate, newest=0
        )
        assert measured.influences[at] == measured.score - without.score


def test_a_history_shorter_than_asked_is_measured_whole(
    log: Dataset, influences: TreeInfluences
) -> None:
    events = history(log, 3)[:2]
    assert influences.measure(events, log.catalogue.items[0], 20).influences.shape == (2,)
    assert influences.measure((), log.catalogue.items[0], 20).influences.shape == (0,)


def test_the_fitted_score_knows_the_two_tastes(log: Dataset, influences: TreeInfluences) -> None:
    """Users like comedies or dramas: a like speaks for its own kind, and against the other."""
    comedies, dramas = (
        [item for item in log.catalogue.items if kind in item.attributes]
        for kind in ("Comedy", "Drama")
    )
    pairs = zip(comedies[:3], dramas[:3], strict=True)
    events = tuple(Event(item.item_id, True) for pair in pairs for item in pair)
    of_comedies, of_dramas = (
        np.mean([influences.measure(events, item, 6).influences for item in kind[6:]], axis=0)
        for kind in (comedies, dramas)
    )
    assert of_comedies[::2].mean() > 0.1 > -0.1 > of_comedies[1::2].mean()
    assert of_dramas[1::2].mean() > 0.1 > -0.1 > of_dramas[::2].mean()
