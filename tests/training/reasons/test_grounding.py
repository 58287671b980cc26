"""What a text names must stand in its prompt."""

from __future__ import annotations

import pytest

from rankloom_features.catalogue import Catalogue, Item
from rankloom_training.reasons.grounding import Grounding, named_items
from rankloom_training.reasons.problems import TraceProblem
from rankloom_training.reasons.text_check import TextCheck

SHOWN = (
    Item("a", "The Paper River", 1994, ("Heist", "Sci-Fi")),
    Item("b", 'Cats "Live"', 2001, ("Music",)),
    Item("c", "It", 1990, ("Horror",)),
)
HIDDEN = (
    Item("d", "The Paper River Returns", 1999, ("War",)),
    Item("e", "Glass Comet", 2010, ("Heist",)),
    Item("f", "Up", 2009, ()),
)
CATALOGUE = Catalogue((*SHOWN, *HIDDEN))
GROUNDING = Grounding(CATALOGUE)


@pytest.mark.parametrize(
    "text",
    [
        'You liked "The Paper River", and it is a Heist.',
        "You liked The Paper River and so on.",
        "You liked \u201cThe Paper River,\u201d a Sci-Fi of 1994.",
        'Since "Cats "Live"" pleased you, go on.',
        'You saw "It" and looked up to it.',
        "A war of words, glass comet and all.",
    ],
)
def test_what_stands_in_the_prompt_may_be_named(text: str) -> None:
    assert GROUNDING.problem(text, SHOWN) is None


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('You liked "Glass Comet".', TraceProblem.INVENTED_TITLE),
        ("You liked Glass Comet.", TraceProblem.INVENTED_TITLE),
        ('You liked "Up".', TraceProblem.INVENTED_TITLE),
        ('You liked "A Film of Dreams".', TraceProblem.INVENTED_TITLE),
        ("You liked The Paper River Returns", TraceProblem.INVENTED_TITLE),
        ('You liked "The Paper River', TraceProblem.INVENTED_TITLE),
        ("You like War.", TraceProblem.INVENTED_ATTRIBUTE),
        ('"It" was made in 1999.', TraceProblem.INVENTED_YEAR),
    ],
)
def test_what_does_not_stand_in_the_prompt_is_found(text: str, problem: TraceProblem) -> None:
    assert GROUNDING.problem(text, SHOWN) is problem


def test_a_title_inside_of_a_word_is_not_named() -> None:
    assert named_items("With It", SHOWN) == (SHOWN[2],)
    assert named_items("With Items", SHOWN) == ()


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (" \n", TraceProblem.NO_TEXT),
        ("x" * 100_000, TraceProblem.TOO_LONG),
        ('You will enjoy "It".', TraceProblem.NO_EVENT),
        ('After "The Paper River", try "It".', None),
    ],
)
def test_a_text_must_be_there_be_short_and_cite_an_event(
    text: str, problem: TraceProblem | None
) -> None:
    assert TextCheck(CATALOGUE).problem(text, SHOWN[:2], SHOWN[2]) is problem
