from __future__ import annotations

import numpy as np
import pytest

from rankloom_features.catalogue import Catalogue, Item
from rankloom_features.wire import MAX_CANDIDATES
from rankloom_training.data import Dataset, Split, make_log
from rankloom_training.scoring import requests_of
from rankloom_training.visibility import Protocol, scoring_view
from training.logs import random_log

MAX_CHECKED = 300


@pytest.mark.parametrize("protocol", list(Protocol))
@pytest.mark.parametrize("split", [Split.VALID, Split.TEST])
def test_requests_cover_each_row_once_and_show_it_what_it_may_see(
    dataset: Dataset, protocol: Protocol, split: Split
) -> None:
    log, items = dataset.log, dataset.catalogue.items
    view = scoring_view(log, protocol, split)
    requests = requests_of(dataset, view)
    assert np.concatenate([one.rows for one in requests]).tolist() == view.rows.tolist()
    for request in requests[:: 1 + len(requests) // MAX_CHECKED]:
        assert len(set(log.user[request.rows].tolist())) == 1
        assert len(request.rows) <= MAX_CANDIDATES
        ids = [item.item_id for item in request.items]
        assert len(set(ids)) == len(ids)
        assert ids == [items[item].item_id for item in log.item[request.rows]]
        events = [(event.item_id, event.liked, event.time) for event in request.events]
        for row in request.rows.tolist():
            seen = view.visible_before(log, row)
            assert events == [
                (items[log.item[o]].item_id, bool(log.liked[o]), float(log.time[o])) for o in seen
            ]


def test_hidden_rows_between_visible_events_share_a_request() -> None:
    """Under P0 a run of rows up to the next like sees the same; under P1 none does."""
    dataset = random_log(11)
    sizes = {
        protocol: [
            len(one.rows)
            for one in requests_of(dataset, scoring_view(dataset.log, protocol, Split.TEST))
        ]
        for protocol in Protocol
    }
    assert set(sizes[Protocol.P1]) == {1}
    assert max(sizes[Protocol.P0]) > 1


def test_an_item_that_stands_twice_is_asked_for_in_two_requests() -> None:
    catalogue = Catalogue([Item("a"), Item("b")])
    items, time = np.array([0, 1, 0, 1, 1]), np.arange(5.0)
    split = np.array([0, 2, 2, 2, 2], dtype=np.int8)
    log = make_log(["u"] * 5, items, np.zeros(5, np.bool_), time, time, split)
    requests = requests_of(Dataset(catalogue, log), scoring_view(log, Protocol.P0, Split.TEST))
    assert [one.rows.tolist() for one in requests] == [[1, 2], [3], [4]]
    assert [len(one.events) for one in requests] == [1, 1, 1]
