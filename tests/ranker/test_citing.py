from __future__ import annotations

import pytest

from rankloom_ranker.answers import EventEvidence
from rankloom_ranker.citing import cited_ids, nameable, to_cite
from rankloom_ranker.loaded import LoadedBundle
from rankloom_training.words import Cited, TaughtText, words_of


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
        ({"a": 0.5, "b": -0.5, "c": -0.5}, True, ["a"]),
        ({"a": 0.5, "b": -0.5, "no_c": -0.6}, True, ["a", "no_c"]),
        ({"a": 0.7, "b": 0.6, "c": 0.5, "d": -0.6, "no_e": -0.9}, True, ["a", "b", "no_e"]),
        ({"a": 0.7, "b": -0.6}, False, ["b", "a"]),
        ({"a": -0.5, "b": -0.7, "c": 0.0}, True, ["b"]),
        ({"a": 0.0}, True, []),
    ],
)
def test_the_strongest_events_for_the_verdict_are_cited_and_what_outweighs_them(
    influences: dict[str, float], liked: bool, cited: list[str]
) -> None:
    assert [each.item_id for each in to_cite(evidence(**influences), liked=liked)] == cited


@pytest.mark.parametrize("liked", [True, False])
def test_words_are_given_the_evidence_that_they_were_taught_with(
    liked: bool, loaded: LoadedBundle
) -> None:
    items, prompts = loaded.catalogue.items, loaded.prompts
    found = [
        EventEvidence(items[3].item_id, False, -0.5),
        EventEvidence(items[1].item_id, True, 0.6),
        EventEvidence(items[2].item_id, True, 0.4),
    ]
    against = Cited(1, True, True)
    cited = (against, Cited(2, True, True)) if liked else (Cited(3, False, False), against)
    taught = words_of(
        [TaughtText(0, "Words.", cited)], loaded.catalogue, prompts.tokenizer, prompts.format
    )
    given = cited_ids(loaded, to_cite(found, liked=liked))
    assert given == taught[0].given
    assert 0 < len(given) <= prompts.format.max_evidence_tokens
    assert cited_ids(loaded, ()) == ()


def test_words_may_name_the_events_that_they_cite_and_what_the_candidate_is(
    loaded: LoadedBundle,
) -> None:
    items = loaded.catalogue.items[:4]
    assert nameable(loaded, (), items) == items
    found = nameable(loaded, [EventEvidence(items[1].item_id, True, 0.5)], items)
    assert [item.title for item in found] == [items[1].title, ""]
    assert found[-1].attributes == items[-1].attributes
