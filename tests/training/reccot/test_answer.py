"""Answers of generators: only JSON of the right form counts, and repairs are told."""

from __future__ import annotations

import pytest

from rankloom_training.reccot.answer import AnswerProblem, ReviewAnswer, read_answer

GOOD = '{"think": "For it: wit.", "answer": 4}'


def test_json_as_it_is_asked_for() -> None:
    read = read_answer(GOOD)
    assert read.answer == ReviewAnswer(think="For it: wit.", answer=4)
    assert not read.repaired
    assert read.answer.to_json() == GOOD


@pytest.mark.parametrize(
    "raw",
    [
        f"```json\n{GOOD}\n```",
        f"Sure! {GOOD} Anything else?",
        GOOD[:-1],
        GOOD.replace("4", '"4"'),
    ],
)
def test_what_can_be_repaired(raw: str) -> None:
    read = read_answer(raw)
    assert read.answer == ReviewAnswer(think="For it: wit.", answer=4)
    assert read.repaired


@pytest.mark.parametrize(
    ("raw", "problem"),
    [
        ("", AnswerProblem.NO_OBJECT),
        ("Four stars", AnswerProblem.NO_OBJECT),
        ('{"think": "For it: wit."', AnswerProblem.OTHER_FORM),
        ('{"think": "", "answer": 4}', AnswerProblem.OTHER_FORM),
        ('{"think": "x", "answer": 0}', AnswerProblem.OTHER_FORM),
        ('{"think": "x", "answer": 6}', AnswerProblem.OTHER_FORM),
        ('{"think": "x", "answer": NaN}', AnswerProblem.OTHER_FORM),
        ('{"think": "x", "answer": "good"}', AnswerProblem.OTHER_FORM),
        ('{"think": "x", "answer": 4, "mood": "?"}', AnswerProblem.OTHER_FORM),
        ('{"think": "' + "x" * 3000 + '", "answer": 4}', AnswerProblem.OTHER_FORM),
        ("{" * 5000, AnswerProblem.OTHER_FORM),
    ],
)
def test_what_cannot(raw: str, problem: AnswerProblem) -> None:
    read = read_answer(raw)
    assert read.answer is None
    assert read.problem is problem
