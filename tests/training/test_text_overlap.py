"""ROUGE-L and METEOR beside values worked out by hand."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankloom_training.text_overlap import Overlap, meteor, overlap_of, rouge_l

texts = st.lists(st.sampled_from(["the", "cat", "sat", "on", "mat"]), max_size=9).map(" ".join)
WORDS = "the cat sat on the mat"


@pytest.mark.parametrize(
    ("text", "reference", "expected"),
    [
        (WORDS, WORDS, 1.0),
        # Lin, 2004, section 3: "police the gunman" and "police killed the gunman" have 3 in common.
        ("police the gunman", "police killed the gunman", 2 * 3 / (3 + 4)),
        ("the gunman police killed", "police killed the gunman", 2 * 2 / (4 + 4)),
        ("The cat!", "the, CAT", 1.0),
        ("a dog", WORDS, 0.0),
        ("", WORDS, 0.0),
        (WORDS, "", 0.0),
        ("", "", 0.0),
    ],
)
def test_rouge_l_by_hand(text: str, reference: str, expected: float) -> None:
    assert rouge_l(text, reference) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("text", "reference", "expected"),
    [
        (WORDS, WORDS, 1 - 0.5 * (1 / 6) ** 3),
        # All six words match, in three chunks: "on the mat", "sat", "the cat".
        ("on the mat sat the cat", WORDS, 1 - 0.5 * (3 / 6) ** 3),
        # P = 6/7, R = 1, two chunks: "the cat", "sat on the mat".
        ("the cat was sat on the mat", WORDS, 10 * (6 / 7) / (1 + 9 * 6 / 7) * (1 - 0.5 / 27)),
        # A word that stands once in the reference is matched once: P = 1/3, R = 1.
        ("cat cat cat", "cat", 10 / 3 / (1 + 9 / 3) * 0.5),
        ("a dog", WORDS, 0.0),
        ("", WORDS, 0.0),
        (WORDS, "", 0.0),
    ],
)
def test_meteor_by_hand(text: str, reference: str, expected: float) -> None:
    assert meteor(text, reference) == pytest.approx(expected)


@given(texts, texts)
def test_both_are_shares_and_whole_only_for_the_same_words(text: str, reference: str) -> None:
    for measure in (rouge_l, meteor):
        assert 0.0 <= measure(text, reference) <= 1.0
    assert (rouge_l(text, reference) == 1.0) == (text == reference != "")
    assert rouge_l(text, reference) == pytest.approx(rouge_l(reference, text))


@given(texts, texts)
def test_meteor_matches_each_word_as_often_as_both_have_it(text: str, reference: str) -> None:
    found = meteor(text, reference)
    assert bool(found) == bool(set(text.split()) & set(reference.split()))


def test_texts_are_held_against_their_own_reference_and_against_another() -> None:
    texts = ["the cat sat", "on the mat"]
    whole = 1 - 0.5 * (1 / 3) ** 3
    # "the" is one of three words of both: P = R = 1/3, one chunk.
    expected = Overlap(2, whole, 1.0, 10 / 9 / (1 / 3 + 3) * 0.5, 1 / 3)
    found = dataclasses.astuple(overlap_of(texts, texts))
    assert found == pytest.approx(dataclasses.astuple(expected))
