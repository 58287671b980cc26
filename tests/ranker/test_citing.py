from __future__ import annotations

import pytest

from rankloom_ranker.answers import EventEvidence
from rankloom_ranker.citing import to_cite


def evidence(**influences: float) -> list[EventEvidence]:
    """Names that begin with "no" are of disliked items."""
    return [
        EventEvidence(name, not name.startswith("no"), value) for name, value in influences.items()
    ]


@pytest.mark.parametrize(
    ("influences", "liked", "cited"),
    [
        ({}, True, []),
        ({"a": 0.4, "b": 0.9, "c": 0.3}, True, ["b", "a"]),
        ({"a": 0.4, "b": 0.9, "c": 0.1}, False, ["b"]),
        ({"a": -0.4, "b": -0.9, "c": -0.8}, False, ["b", "c"]),
        ({"a": 0.9, "b": 0.1}, True, ["a"]),
        ({"a": 0.9, "no_b": 0.8}, True, ["a"]),
        ({"no_a": 0.9, "b": 0.8, "no_c": 0.7}, True, ["no_a", "no_c"]),
        ({"a": 0.5, "b": -0.4}, True, ["a"]),
        ({"a": 0.5, "b": -0.5, "c": -0.6}, True, ["a", "c"]),
        ({"a": -0.5, "b": -0.7, "c": 0.0}, True, ["b"]),
        ({"a": 0.0}, True, []),
    ],
)
def test_the_strongest_events_for_the_verdict_are_cited_first(
    influences: dict[str, float], liked: bool, cited: list[str]
) -> None:
    assert [each.item_id for each in to_cite(evidence(**influences), liked=liked)] == cited
