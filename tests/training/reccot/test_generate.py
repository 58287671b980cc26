"""Cross-fitting, the file of rationales, and runs that are cut short."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from rankloom_training.data import DataError, Split
from rankloom_training.data.reviews import Reviews
from rankloom_training.reccot.answer import AnswerProblem
from rankloom_training.reccot.folds import CrossFit
from rankloom_training.reccot.generate import GenerateOptions, generate
from rankloom_training.reccot.generators import EvidenceGenerator, Rows
from rankloom_training.reccot.rationale_file import rationales_of, read_rationales
from rankloom_training.teachers.teacher import TeacherError
from training.reccot.few_reviews import few_reviews, without_text


class Betrayer:
    """Answers with what it has learnt of the very row: a leak would show in its answers."""

    name: ClassVar[str] = "betrayer"
    options: ClassVar[Mapping[str, object]] = {}

    def __init__(self, dies_after: int | None = None) -> None:
        self.dies_after, self.num_trained, self.num_written = dies_after, 0, 0

    def train(self, reviews: Reviews, rows: Rows, folder: Path, unfinished: Path) -> None:
        self.num_trained += 1
        np.save(folder / "rows.npy", rows)

    def write(self, reviews: Reviews, rows: Rows, folder: Path) -> Iterator[str | None]:
        learnt = set(np.load(folder / "rows.npy").tolist())
        for row in rows.tolist():
            if self.num_written == self.dies_after:
                raise TeacherError("out of budget")
            self.num_written += 1
            yield None if row in learnt else '{"think": "unseen", "answer": 3}'


@pytest.mark.parametrize("number", [2, 3, 5])
def test_no_row_is_written_by_a_generator_that_saw_it(number: int, tmp_path: Path) -> None:
    reviews = few_reviews()
    generate(reviews, Betrayer(), GenerateOptions(folds=number), tmp_path / "r", lambda *_: None)
    found = rationales_of(tmp_path / "r", reviews)
    assert {one.think for one in found} == {"unseen"}
    assert {one.fold for one in found} == set(range(number))


def test_folds_have_the_same_ratings_and_no_other_split() -> None:
    reviews = few_reviews(1000)
    cross_fit = CrossFit.of(reviews, 2, seed=0)
    training = reviews.rows(Split.TRAIN)
    written = [np.intersect1d(cross_fit.written_by(fold), training) for fold in range(2)]
    np.testing.assert_array_equal(np.sort(np.concatenate(written)), training)
    first, second = (np.bincount(reviews.rating[rows].astype(int)) for rows in written)
    assert abs(first - second).max() <= 1
    for fold in range(2):
        learnt = cross_fit.learnt_by(fold)
        assert not np.intersect1d(learnt, cross_fit.written_by(fold)).size
        assert set(reviews.split[learnt]) == {Split.TRAIN}


def test_too_many_folds_are_refused() -> None:
    with pytest.raises(DataError, match="fewer than 20 folds"):
        CrossFit.of(few_reviews(20), 20, seed=0)


def test_evidence_cites_the_review_and_the_item(tmp_path: Path) -> None:
    reviews = few_reviews()
    written = generate(
        reviews, EvidenceGenerator(), GenerateOptions(), tmp_path / "r", lambda *_: None
    )
    assert (written.total, written.sound, written.repaired) == (300, 300, 0)
    found = rationales_of(tmp_path / "r", reviews)
    answers = np.array([one.answer for one in found])
    assert np.mean((answers - reviews.rating) ** 2) < 0.5 * reviews.rating.var()
    for one, text, item in zip(found, reviews.texts, reviews.item, strict=True):
        labels, _, terms = one.think.rstrip(".").partition(". ")
        assert labels == reviews.catalogue.items[item].attributes[0]
        for side in filter(None, terms.split(". ")):
            for term in side.partition(": ")[2].split(", "):
                assert set(term.split()) <= set(text.replace(",", "").rstrip(".").split())


def test_a_run_that_ends_early_goes_on(tmp_path: Path) -> None:
    reviews, out = few_reviews(1400), tmp_path / "r"
    first = Betrayer(dies_after=900)
    with pytest.raises(TeacherError, match="out of budget"):
        generate(reviews, first, GenerateOptions(), out, lambda *_: None)
    assert not out.exists()
    second = Betrayer()
    generate(reviews, second, GenerateOptions(), out, lambda *_: None)
    assert first.num_trained + second.num_trained == 2
    assert 1400 <= 900 + second.num_written < 1400 + 512
    assert len(rationales_of(out, reviews)) == 1400
    assert not (tmp_path / "r.work").exists()


def test_a_review_without_words_has_no_rationale(tmp_path: Path) -> None:
    reviews = without_text(few_reviews(), 7)
    written = generate(
        reviews, EvidenceGenerator(), GenerateOptions(), tmp_path / "r", lambda *_: None
    )
    assert written.problems == {str(AnswerProblem.NO_TEXT): 1}
    assert rationales_of(tmp_path / "r", reviews)[7].text == ""


def test_rationales_of_other_reviews_are_refused(tmp_path: Path) -> None:
    reviews, out = few_reviews(), tmp_path / "r"
    generate(reviews, EvidenceGenerator(), GenerateOptions(), out, lambda *_: None)
    with pytest.raises(DataError, match="is not of these reviews"):
        rationales_of(out, few_reviews(seed=1))
    (tmp_path / "x").write_text("x")
    with pytest.raises(DataError, match="is not a file of rationales"):
        read_rationales(tmp_path / "x")
    with pytest.raises(DataError, match="is not a file of rationales"):
        generate(reviews, EvidenceGenerator(), GenerateOptions(), tmp_path / "x", lambda *_: None)
