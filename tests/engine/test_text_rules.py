"""The names of a catalogue, and what a text about some of its items may say."""

from __future__ import annotations

import pytest

from engine.tiny import TinyItem
from rankloom_engine.lexicon import Lexicon, folded, names_of, numbers_of, title_forms, words_of
from rankloom_engine.text_rules import TextRules, TextState

CATALOGUE = (
    TinyItem("Matrix, The (1999)", 1999, ("Sci-Fi", "Action")),
    TinyItem("Toy Story", 1995, ("Children's",)),
    TinyItem("Toy Story 2", 1999, ("Children's", "Comedy")),
    TinyItem("Heat", 1995, ("Crime",)),
    TinyItem('"Crocodile" Dundee', 1986, ("Comedy",)),
    TinyItem("Amélie", None, ("Romance",)),
    TinyItem("2001: A Space Odyssey", 1968, ("Sci-Fi",)),
    TinyItem("Game, The", 1997, ("Thriller",)),
)
LEXICON = Lexicon(CATALOGUE)


def allows(text: str, *items: TinyItem) -> bool:
    """Whether a text may be written about these items, quoted titles included."""
    rules, state = TextRules(LEXICON, items), TextState()
    outside, *rest = text.split('"')
    found = rules.read(state, outside)
    for title, behind in zip(rest[::2], rest[1::2], strict=True):
        if found is None or (opened := rules.read(found, '"')) is None:
            return False
        closed = rules.behind_title(opened, title) if title in rules.titles else None
        found = None if closed is None else rules.read(closed, behind)
    return found is not None and rules.end(found) is not None


@pytest.mark.parametrize(
    "text",
    [
        "You liked the matrix.",
        "You liked The Matrix",
        "matrix, the",
        "a toy story for you",
        "It is THE GAME",
        "Heat",
        "a crime film",
        "for children's eyes",
        "some sci-fi",
        "crocodile dundee",
        "Amelie",
        "Ame\u0301lie",
        "of 1999",
        "7 of 20",
        "\uff34\uff4f\uff59 Story",
        "a space odyssey of 2001: a space odyssey",
        "Toy\u00ad Story",
        "\u201eToy Story\u201c",
        '"Toy Story"',
    ],
)
def test_what_belongs_to_others_is_refused(text: str) -> None:
    assert not allows(text, TinyItem("Another One", 1980, ("Western",)))


@pytest.mark.parametrize(
    ("text", "item"),
    [
        ("You liked the Matrix of 1999, a sci-fi film of the 1990s", 0),
        ('You liked "Toy Story", for children\'s sake', 1),
        ('"Toy Story 2" holds another title, and it is a comedy', 2),
        ("Heat (1995), all crime", 3),
        ("\"'Crocodile' Dundee\" has quotes of its own", 4),
        ("amelie and Amélie are one", 5),
        ("the heat of the day, toys and stories, a game", 7),
        ("", 0),
    ],
)
def test_what_belongs_to_the_prompt_may_be_said(text: str, item: int) -> None:
    assert allows(text, CATALOGUE[item])


@pytest.mark.parametrize(
    "text",
    [
        "Toy Story 2 without quotes begins like another title",
        '"Toy Story 2" is a toy story',
        'a toy "Story"',
        '"Toy Story 2 and more"',
    ],
)
def test_a_title_within_another_one_needs_its_quotes(text: str) -> None:
    assert not allows(text, CATALOGUE[2])


def test_no_title_ends_behind_the_quotes_of_another_one() -> None:
    """`"Toy Story" 2` would name the second film."""
    assert allows('"Toy Story" is fine', CATALOGUE[1])
    assert not allows('"Toy Story" 2', CATALOGUE[1], TinyItem("2", None, ()))
    assert not allows('the "Game"', TinyItem("Game", None, ()))


def test_forms_words_and_numbers() -> None:
    assert list(title_forms("Matrix, The (1999)")) == ["Matrix, The", "The Matrix"]
    assert list(title_forms("Yes, Minister")) == ["Yes, Minister"]
    assert words_of("Été: L'Année—2, ½") == ["Ete", "L", "Annee", "2", "1", "2"]
    assert folded("  The   MATRIX! ") == "the matrix"
    assert names_of(CATALOGUE[:1]) == {"matrix the", "the matrix", "sci fi", "action"}
    assert numbers_of([CATALOGUE[2], CATALOGUE[6]]) == {"1999", "1990", "2", "1968", "1960", "2001"}
    assert LEXICON.single == {"Heat", "Amelie"}
