"""Exercises: texts about invented events that say what the events' evidence is, and no more."""

from __future__ import annotations

import pytest

from rankloom_engine.prompt import MAX_CITED_EVENTS
from rankloom_features.catalogue import Catalogue, Item
from rankloom_training.reasons.grounding import Grounding, named_items
from rankloom_training.teachers.exercises import exercises

GENRES = ("Comedy", "Drama", "War")
CATALOGUE = Catalogue(
    Item(f"i{n}", f"The {['Red', 'Green', 'Blue', 'Grey'][n % 4]} Film {n}", 1990, (GENRES[n % 3],))
    for n in range(30)
)


def test_an_exercise_names_what_it_cites_and_nothing_else() -> None:
    grounding, made = Grounding(CATALOGUE), list(exercises(CATALOGUE, 200, 3))
    assert len(made) > 190
    for each in made:
        cited = [CATALOGUE.items[event.item] for event in each.cited]
        assert 1 <= len(cited) <= MAX_CITED_EVENTS
        assert each.candidate not in {event.item for event in each.cited}
        named = named_items(each.text, CATALOGUE.items)
        assert {item.item_id for item in named} == {item.item_id for item in cited}
        assert grounding.problem(each.text, [*cited, CATALOGUE.items[each.candidate]]) is None


def test_every_verdict_opinion_and_side_is_exercised() -> None:
    kinds = {
        (each.liked, event.liked, event.speaks_for)
        for each in exercises(CATALOGUE, 300, 0)
        for event in each.cited
    }
    assert len(kinds) == 8


def test_the_first_cited_event_speaks_for_the_verdict_if_any_does() -> None:
    for each in exercises(CATALOGUE, 300, 1):
        sides = [event.speaks_for == each.liked for event in each.cited]
        assert sides == sorted(sides, reverse=True)


def test_a_seed_makes_the_same_exercises() -> None:
    first, again, other = (list(exercises(CATALOGUE, 40, seed)) for seed in (5, 5, 6))
    assert first == again
    assert first != other


@pytest.mark.parametrize("num_items", [1, 2, 3])
def test_a_catalogue_may_be_small(num_items: int) -> None:
    small = Catalogue(CATALOGUE.items[:num_items])
    made = list(exercises(small, 20, 0))
    assert bool(made) == (num_items > 1)
