"""A text is faithful if it leads with what speaks for its verdict, and names what weighs most."""

from __future__ import annotations

import dataclasses
import math

import pytest

from rankloom_training.reasons.faithfulness import faithfulness
from rankloom_training.reasons.trace import Trace
from rankloom_training.teachers.evidence import EvidenceTeacher
from training.reasons.random_cases import CATALOGUE, case_of, random_case

FIRST, SECOND, THIRD, FOURTH, FIFTH, CANDIDATE, *_ = CATALOGUE.items
CASE = case_of(
    [FIRST, SECOND, THIRD, FOURTH, FIFTH],
    [True] * 5,
    [0.5, -0.4, 0.3, 0.05, -0.01],
    CANDIDATE,
    liked=True,
)


def saying(text: str) -> Trace:
    return dataclasses.replace(EvidenceTeacher().trace(CASE), text=text)


@pytest.mark.parametrize(
    ("text", "agreeing", "strongest"),
    [
        (f'Since "{FIRST.title}", though not "{SECOND.title}".', 1.0, 1.0),
        (f'Not "{SECOND.title}", but "{FIRST.title}".', 0.0, 1.0),
        (f'For "{FOURTH.title}" alone.', 1.0, 0.0),
        (f'For "{FIFTH.title}" alone.', 0.0, 0.0),
    ],
)
def test_the_first_event_and_the_heaviest_count(
    text: str, agreeing: float, strongest: float
) -> None:
    found = faithfulness([saying(text)], CATALOGUE)
    assert found is not None
    assert (found.num_texts, found.agreeing, found.strongest) == (1, agreeing, strongest)


def test_the_evidence_teacher_is_faithful() -> None:
    traces = [EvidenceTeacher().trace(random_case(seed)) for seed in range(300)]
    found = faithfulness(traces, CATALOGUE)
    assert found is not None
    assert found.num_texts == 300
    assert found.agreeing == 1.0
    assert found.strongest >= 0.95


def test_unmeasured_influences_and_unnamed_events_give_no_figure() -> None:
    unmeasured = tuple(dataclasses.replace(e, influence=math.nan) for e in CASE.trace_events)
    foreign = dataclasses.replace(saying(f'"{FIRST.title}"'), events=unmeasured)
    assert faithfulness([foreign, saying("Nothing named.")], CATALOGUE) is None
