"""Measures of explanations, on texts whose faults are known."""

from __future__ import annotations

import dataclasses
import math

import pytest

import rankloom
from rankloom_features.catalogue import Catalogue, Item
from rankloom_training.explained import ExplainedRow, ExplanationReport, cited_for, report_of

CATALOGUE = Catalogue(
    [
        Item("a", "The Red Door", 1999, ("Heist",)),
        Item("b", "A Quiet Sea", 2001, ("Voyage",)),
        Item("c", "Nine Lanterns", 2004, ("Heist",)),
        Item("d", "The Long Road", 2010, ("Western",)),
        Item("e", "The Last Train", 2012, ("Western",)),
    ]
)
EVIDENCE = (
    rankloom.Evidence("a", True, 0.9),
    rankloom.Evidence("b", True, -0.4),
    rankloom.Evidence("c", False, 0.3),
    rankloom.Evidence("d", True, 0.1),
)


def row(
    text: str, *, user: str = "u", liked: bool = True, ranked: float = 0.8, item: str = "e"
) -> ExplainedRow:
    explanation = rankloom.Explanation(
        request_id="",
        text=text,
        verdict=rankloom.Verdict.LIKED if liked else rankloom.Verdict.DISLIKED,
        score=0.0,
        probability=ranked,
        revision=rankloom.Revision(1, "digest"),
        routing=rankloom.Routing(rankloom.Route.GLOBAL, (), 0.0, False, 4),
        prompt_tokens=1,
        generated_tokens=1,
        stop_reason=rankloom.StopReason.STOP_TOKEN,
        evidence=EVIDENCE,
    )
    candidate = CATALOGUE.get(item)
    assert candidate is not None
    return ExplainedRow(user, candidate, explanation, ranked)


def measured(*rows: ExplainedRow) -> ExplanationReport:
    return report_of(rows, CATALOGUE)


def test_a_true_text_is_right_in_all() -> None:
    found = measured(row('You liked "The Red Door". Still, "A Quiet Sea" speaks against it.'))
    assert (found.written, found.agreement, found.grounded) == (1.0, 1.0, 1.0)
    assert (found.faithful, found.largest) == (1.0, 1.0)
    assert found.words == 12.0


def test_the_first_sentence_that_cites_makes_the_case() -> None:
    text = 'A good pick. "Nine Lanterns" and "The Long Road" say so. Not so "A Quiet Sea".'
    assert cited_for(row(text).explanation, CATALOGUE) == [0.3, 0.1]


@pytest.mark.parametrize(
    ("text", "liked", "faithful", "largest"),
    [
        ('It follows "A Quiet Sea".', True, 0.0, 1.0),
        ('It follows "A Quiet Sea".', False, 1.0, 1.0),
        ('It follows "The Red Door" and "A Quiet Sea".', True, 0.5, 1.0),
        ('It follows "The Long Road".', True, 1.0, 0.0),
    ],
)
def test_citations_are_held_against_the_evidence(
    text: str, liked: bool, faithful: float, largest: float
) -> None:
    found = measured(row(text, liked=liked))
    assert (found.faithful, found.largest) == (faithful, largest)


def test_what_the_prompt_lacks_is_not_grounded() -> None:
    texts = (
        'Like "The Green Door".',
        "Pure Satire.",
        "A film of 1950.",
        "The Last Train, a Western.",
    )
    catalogue = Catalogue([*CATALOGUE.items, Item("x", "The Green Door", 1950, ("Satire",))])
    assert [report_of([row(text)], catalogue).grounded for text in texts] == [0.0, 0.0, 0.0, 1.0]


def test_a_verdict_on_the_other_side_of_the_ranking_disagrees() -> None:
    found = measured(row("Yes.", ranked=0.4), row("No.", liked=False, ranked=0.4), row(""))
    assert found.agreement == pytest.approx(2 / 3)
    assert found.written == pytest.approx(2 / 3)


def test_variety_counts_pairs_of_words_and_equal_texts_of_one_item() -> None:
    same = [row("one two three", user=user) for user in ("u", "v")]
    other = row("one two four", user="w")
    assert measured(*same).distinct_2 == 0.5
    assert measured(*same, other).repeated == pytest.approx(1 / 3)
    assert math.isnan(measured(row("one", item="d"), row("one", user="v")).repeated)


def test_words_are_held_against_what_a_teacher_wrote_where_there_is_such_a_text() -> None:
    assert measured(row("It is good.")).overlap is None
    told = [
        dataclasses.replace(row(text), reference=reference)
        for text, reference in (("It is good.", "it is good"), ("", "It is bad."))
    ]
    overlap = measured(*told, row("No reference.")).overlap
    assert overlap is not None
    assert (overlap.num_rows, overlap.rouge_l) == (2, 0.5)
