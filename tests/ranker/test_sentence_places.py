"""Every sentence that is offered holds: of the verdict, of opinions, of what is in common."""

from __future__ import annotations

import itertools
import re

import pytest

from rankloom_features.catalogue import Item
from rankloom_ranker.phrasing.places import WORDINGS, CitedItem, sentence_places
from rankloom_ranker.phrasing.statements import SENTENCES, Statement

CANDIDATE = Item("c", "The Candidate", 1999, ("War", "Drama"))
ALIKE, OTHER = Item("a", "The First", 1990, ("War", "Comedy")), Item("b", "The Second", 1991, ())
UNTITLED = Item("u", "", None, ("War",))
QUOTED = re.compile(r'"([^"]*)"')


def states(sentence: str, name: str, cited: list[Item]) -> bool:
    """Whether the sentence is one of the patterns of a statement, with its blanks filled."""
    bare = sentence.lower()
    for item in cited:
        bare = bare.replace(f'"{item.title.lower()}"', "{titles}")
    bare = re.sub(r"this (one|title|pick|choice|item)\b", "{this}", bare)
    bare = re.sub(r"\bwar\b", "{shared}", bare)
    return bare in PATTERNS[Statement(name)]


def worded(pattern: str) -> set[str]:
    parts = re.split(r"\[([^\[\]]*)\]", pattern.lower())
    choices = [part.split("|") if at % 2 else [part] for at, part in enumerate(parts)]
    texts = map("".join, itertools.product(*choices))
    return {
        re.sub(r"\{this\}|this (one|title|pick|choice|item)\b", "{this}", text) for text in texts
    }


PATTERNS = {
    statement: set().union(*map(worded, sentences))
    for statement, sentences in SENTENCES.items()
    if not statement.startswith("profile")
}


@pytest.mark.parametrize("liked", [True, False])
@pytest.mark.parametrize("opinion", [True, False])
@pytest.mark.parametrize("against", [None, True, False])
def test_sentences_state_verdict_opinions_and_sides(
    liked: bool, opinion: bool, against: bool | None
) -> None:
    cited = [CitedItem(ALIKE, opinion, liked)]
    cited += [] if against is None else [CitedItem(OTHER, against, not liked)]
    places = sentence_places(CANDIDATE, cited, liked=liked)
    side, word = ("yes" if liked else "no"), {True: "liked", False: "disliked"}
    expected = [f"{side}_for_{word[opinion]}"]
    expected += [f"{side}_shared"] if opinion == liked else []
    expected += [] if against is None else [f"{side}_against_{word[against]}"]
    expected += [f"{side}_end"]
    assert len(places) == len(expected)
    for place, name in zip(places, expected, strict=True):
        assert all(states(each, name, [ALIKE, OTHER]) for each in place.sentences)
        assert place.is_optional == name.endswith(("_shared", "_end"))
        assert 1 < len(place.sentences) <= WORDINGS


def test_only_what_is_cited_is_quoted_and_each_event_in_its_sentence() -> None:
    cited = [CitedItem(ALIKE, True, True), CitedItem(OTHER, True, True)]
    first, *rest = sentence_places(CANDIDATE, cited, liked=True)
    assert all(QUOTED.findall(each) == ["The First", "The Second"] for each in first.sentences)
    assert not any(QUOTED.findall(each) for place in rest for each in place.sentences)


def test_attributes_are_named_where_all_cited_events_have_them() -> None:
    both = [CitedItem(ALIKE, True, True), CitedItem(OTHER, True, True)]
    alone = sentence_places(CANDIDATE, both[:1], liked=True)
    assert all("War" in each and "Drama" not in each for each in alone[1].sentences)
    together = sentence_places(CANDIDATE, both, liked=True)
    assert not any("War" in each for place in together for each in place.sentences)


def test_where_nothing_speaks_for_the_verdict_the_text_says_so() -> None:
    [thin, end] = sentence_places(CANDIDATE, [CitedItem(ALIKE, True, False)], liked=True)
    assert all(states(each, "yes_thin", [ALIKE]) for each in thin.sentences)
    assert (thin.is_optional, end.is_optional) == (False, True)


@pytest.mark.parametrize("cited", [(), (CitedItem(UNTITLED, True, True),)])
def test_without_a_title_to_cite_only_the_verdict_is_told(cited: tuple[CitedItem, ...]) -> None:
    [end] = sentence_places(CANDIDATE, cited, liked=False)
    assert not end.is_optional
    assert all(states(each, "no_end", []) for each in end.sentences)


def test_an_explanation_is_offered_the_same_wordings_again_and_another_one_others() -> None:
    cited = [CitedItem(ALIKE, True, True)]
    assert sentence_places(CANDIDATE, cited, liked=True) == sentence_places(
        CANDIDATE, cited, liked=True
    )
    other = Item("d", "The Candidate", 1999, ("War", "Drama"))
    assert sentence_places(CANDIDATE, cited, liked=True) != sentence_places(
        other, cited, liked=True
    )


def test_a_quote_in_a_title_does_not_end_the_quotation() -> None:
    odd = Item("o", 'The "Odd" One', None, ())
    first, *_ = sentence_places(CANDIDATE, [CitedItem(odd, True, True)], liked=True)
    assert all(QUOTED.findall(each) == ["The 'Odd' One"] for each in first.sentences)


def test_no_sentence_claims_what_one_explanation_cannot_know() -> None:
    """Of other items, of all evidence, of how sure or how strong: scores of a side differ in it."""
    beyond = re.compile(
        r"\b(only|just|best|strongest|clearest|most|every|everything|no other|the one|few|many"
        r"|suggestions|choices|confiden\w+|certain\w*|sure|small|slight\w*|a little|a bit"
        r"|narrow)\b",
        re.IGNORECASE,
    )
    told = [
        (statement, sentence)
        for statement, sentences in SENTENCES.items()
        if re.search(r"_(for|against)_|_thin$|_end$|_shared$", statement)
        for sentence in sentences
    ]
    assert len(told) > 150
    assert [(of, each) for of, each in told if beyond.search(each)] == []
