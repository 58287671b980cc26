"""The evidence teacher says only what the case proves, and says it in many ways."""

from __future__ import annotations

import dataclasses
import re
from itertools import pairwise

import pytest

from rankloom_ranker.phrasing.statements import SENTENCES, TAUGHT, Statement
from rankloom_training.reasons.case import TraceCase
from rankloom_training.reasons.grounding import Grounding
from rankloom_training.reasons.problems import TraceProblem
from rankloom_training.teachers.evidence import (
    MAX_WORDS,
    MIN_WORDS,
    EvidenceTeacher,
    EvidenceText,
    write_evidence,
)
from training.reasons.random_cases import CATALOGUE, case_of, random_case

CASES = [random_case(seed) for seed in range(500)]


def written(case: TraceCase, verdict: bool | None = None) -> EvidenceText:
    found = write_evidence(case, case.liked if verdict is None else verdict, seed=0)
    assert found is not None
    return found


TEXTS = [written(case) for case in CASES]


def test_texts_have_fifteen_to_forty_five_words() -> None:
    lengths = [len(each.text.split()) for each in TEXTS]
    assert min(lengths) >= MIN_WORDS
    assert max(lengths) <= MAX_WORDS


def test_what_is_cited_for_a_verdict_has_its_sign_and_the_strongest_stands_first() -> None:
    for case, each in zip(CASES, TEXTS, strict=True):
        sign = 1 if case.liked else -1
        assert each.cited
        assert all(sign * event.influence > 0 for event in each.cited)
        assert each.cited[0] == max(case.events, key=lambda event: sign * event.influence)
        strength = [abs(event.influence) for event in each.cited]
        assert strength == sorted(strength, reverse=True)


def test_counter_evidence_has_the_other_sign_and_is_named_if_it_weighs_more() -> None:
    for case, each in zip(CASES, TEXTS, strict=True):
        sign = 1 if case.liked else -1
        assert all(sign * event.influence < 0 for event in each.against)
        strongest = max(abs(event.influence) for event in case.events)
        assert strongest in {abs(event.influence) for event in (*each.cited, *each.against)}


def test_quoted_titles_are_those_cited_and_the_candidate() -> None:
    for case, each in zip(CASES, TEXTS, strict=True):
        quoted = re.findall(r'"([^"]*)"', each.text)
        named = [event.item.title for event in (*each.cited, *each.against)]
        assert [title for title in quoted if title != case.candidate.title] == named
        assert quoted.count(case.candidate.title) <= 1


def test_texts_are_grounded() -> None:
    grounding = Grounding(CATALOGUE)
    assert not [
        each.text
        for case, each in zip(CASES, TEXTS, strict=True)
        if grounding.problem(each.text, case.items)
    ]


def test_texts_vary() -> None:
    bigrams = [pair for each in TEXTS for pair in pairwise(each.text.split())]
    assert len(set(bigrams)) >= 0.25 * len(bigrams)
    assert len({each.text for each in TEXTS}) >= 0.98 * len(TEXTS)


def test_the_same_case_and_seed_give_the_same_text_and_another_seed_another() -> None:
    case = CASES[0]
    assert write_evidence(case, True, 1) == write_evidence(case, True, 1)
    assert len({write_evidence(case, True, seed) for seed in range(20)}) >= 18


def test_a_liked_and_a_disliked_event_are_spoken_of_as_such() -> None:
    first, second, candidate, *_ = CATALOGUE.items
    for opinion, verdict in ((True, True), (False, True), (True, False), (False, False)):
        influence = 0.5 if verdict else -0.5
        case = case_of([first, second], [opinion] * 2, [influence, 0.0], candidate, liked=verdict)
        side = "YES" if verdict else "NO"
        kind = "LIKED" if opinion else "DISLIKED"
        assert any(pattern.match(written(case).text) for pattern in openings(f"{side}_FOR_{kind}"))


def openings(statement: str) -> list[re.Pattern[str]]:
    """What a text that begins with this statement looks like."""
    return [
        re.compile(
            re.sub(
                r"\\\[(.*?)\\\]",
                lambda found: f"(?:{found[1].replace(chr(92) + '|', '|')})",
                re.sub(r"\\\{\w+\\\}", ".+", re.escape(line)),
            ),
            re.IGNORECASE,
        )
        for line in TAUGHT[Statement[statement]]
    ]


def test_texts_begin_with_sentences_that_are_taught() -> None:
    kinds = [f"{side}_FOR_{kind}" for side in ("YES", "NO") for kind in ("LIKED", "DISLIKED")]
    patterns = [pattern for kind in kinds for pattern in openings(kind)]
    assert all(any(pattern.match(each.text) for pattern in patterns) for each in TEXTS)
    further = set(SENTENCES[Statement.YES_FOR_LIKED]) - set(TAUGHT[Statement.YES_FOR_LIKED])
    assert further


def lines() -> list[tuple[str, str]]:
    return [(of.name, line) for of, found in SENTENCES.items() for line in found]


def test_no_event_with_a_title_that_moves_the_score_gives_no_text() -> None:
    first, second, candidate, *_ = CATALOGUE.items
    untitled = dataclasses.replace(second, title="")
    case = case_of([first, untitled], [True, True], [0.0, 0.4], candidate, liked=True)
    assert write_evidence(case, True, 0) is None
    trace = EvidenceTeacher().trace(case)
    assert (trace.text, trace.problem) == ("", TraceProblem.NO_EVIDENCE)


def test_without_supporting_events_the_opposing_one_is_named_as_such() -> None:
    first, second, candidate, *_ = CATALOGUE.items
    case = case_of([first, second], [True, True], [-0.2, -0.1], candidate, liked=True)
    found = written(case)
    assert (found.cited, found.against) == ((), case.events[:1])


def test_the_first_verdict_does_not_see_the_label() -> None:
    for case in CASES[:50]:
        trace, other = (
            EvidenceTeacher().trace(dataclasses.replace(case, liked=liked))
            for liked in (True, False)
        )
        assert (trace.blind_verdict, trace.blind_text) == (other.blind_verdict, other.blind_text)
        assert trace.blind_verdict == (case.score > 0.0)
        assert {trace.repaired, other.repaired} == {True, False}


def test_there_are_four_hundred_sentences() -> None:
    assert len({line for _, line in lines()}) >= 400
    assert all(SENTENCES.values())


@pytest.mark.parametrize(("of", "line"), lines())
def test_a_sentence_is_well_formed(of: str, line: str) -> None:
    blanks = set(re.findall(r"\{(\w+)\}", line))
    assert not re.search(r"\d", line)
    assert line[-1] in ".]"
    assert line.count("[") == line.count("]")
    expected = {"SHARED": {"shared"}, "TASTE": {"taste"}, "THIN": {"titles", "this"}}
    kind = of.partition("_")[2]
    if of.startswith("PROFILE"):
        assert blanks == {"LO": {"labels"}, "AV": {"labels"}}.get(kind[:2], blanks)
        assert blanks <= {"labels", "titles"}
    elif kind.startswith("AGAINST"):
        assert blanks == {"titles"}
    elif kind.startswith("FOR"):
        assert blanks == {"titles", "this"}
    elif kind in expected:
        assert "titles" in blanks or blanks == expected[kind]
    else:
        assert not blanks
