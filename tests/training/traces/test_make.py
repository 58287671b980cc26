"""Making traces: which rows, in which order, and what stays when the teacher cannot go on."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from rankloom._cli.main import main
from rankloom_features.catalogue import Item
from rankloom_features.events import Event
from rankloom_training.data import Dataset, Split, load_dataset
from rankloom_training.reasons.case import TraceCase
from rankloom_training.reasons.grounding import Grounding
from rankloom_training.reasons.influences import MeasuredScore
from rankloom_training.reasons.trace import Trace
from rankloom_training.teachers.asking import ask_all
from rankloom_training.teachers.evidence import EvidenceTeacher
from rankloom_training.teachers.teacher import TeacherError
from rankloom_training.traces.cases import MAX_EVENTS, CaseMaker, CaseOptions
from rankloom_training.traces.trace_file import read_traces
from rankloom_training.visibility import Protocol
from training.reasons.random_cases import random_case


class CountingInfluences:
    """An event's influence is its place in the history."""

    def measure(self, events: Sequence[Event], candidate: Item, newest: int) -> MeasuredScore:
        del candidate
        return MeasuredScore(0.5, np.arange(len(events))[-newest:].astype(np.float64))


class TiringTeacher(EvidenceTeacher):
    """Gives up at a row."""

    def __init__(self, last: int) -> None:
        super().__init__()
        self._last = last

    def trace(self, case: TraceCase) -> Trace:
        if case.row == self._last:
            raise TeacherError("tired; let it rest")
        return super().trace(case)


def maker(data: Dataset, **changes: object) -> CaseMaker:
    options = dataclasses.replace(CaseOptions(), **changes)  # type: ignore[arg-type]
    return CaseMaker(data, CountingInfluences(), options)


@pytest.fixture
def log(small_data: Path) -> Dataset:
    return load_dataset(small_data)


def test_a_case_has_the_newest_visible_events_and_their_influences(log: Dataset) -> None:
    rows = maker(log).rows
    found = {case.row: case for case in maker(log).cases()}
    assert list(found) == rows.tolist()
    for row, case in found.items():
        start = int(log.log.start[log.log.user[row]])
        seen = list(range(start, row))[-MAX_EVENTS:]
        assert [each.item for each in case.events] == [
            log.catalogue.items[log.log.item[at]] for at in seen
        ]
        assert [each.liked for each in case.events] == log.log.liked[seen].tolist()
        assert case.events[-1].influence == row - start - 1
        assert case.liked == log.log.liked[row]


def test_protocol_p0_hides_later_dislikes(log: Dataset) -> None:
    cases = list(maker(log, protocol=Protocol.P0, split=Split.TEST).cases())
    train = log.log.split == Split.TRAIN
    disliked = {
        (int(log.log.user[row]), log.catalogue.items[log.log.item[row]].item_id)
        for row in np.flatnonzero(~log.log.liked & ~train)
    }
    shown = {
        (int(log.log.user[case.row]), each.item.item_id) for case in cases for each in case.events
    }
    assert shown
    assert not shown & disliked


def test_a_smaller_draw_is_part_of_a_larger_one(log: Dataset) -> None:
    few, many = maker(log, rows=10).rows, maker(log, rows=50).rows
    assert set(few.tolist()) < set(many.tolist())
    assert (log.log.split[many] == Split.TRAIN).all()
    assert set(maker(log, rows=10, seed=1).rows.tolist()) != set(few.tolist())


@pytest.mark.parametrize("concurrency", [1, 4])
def test_what_is_finished_stays_when_the_teacher_cannot_go_on(concurrency: int) -> None:
    cases = [random_case(seed) for seed in range(12)]
    cases = [dataclasses.replace(case, row=row) for row, case in enumerate(cases)]
    made = ask_all(TiringTeacher(6).trace, iter(cases), concurrency, lambda done: None)
    assert made.stopped == "tired; let it rest"
    rows = [trace.row for trace in made.written]
    assert rows[:6] == list(range(6))
    assert len(rows) < 6 + concurrency


def test_the_command_writes_grounded_traces(
    small_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "traces.parquet"
    words = ["traces", "make", "--data", small_data, "--out", out, "--rows", 20]
    assert main([str(word) for word in words]) == 0
    assert capsys.readouterr().out == f"{out}: 20 of 20 traces are sound\n"
    data = load_dataset(small_data)
    grounding = Grounding(data.catalogue)
    traces = read_traces(out)
    assert len(traces) == 20
    for trace in traces:
        assert trace.verdict == data.log.liked[trace.row]
        assert trace.item_id == data.catalogue.items[data.log.item[trace.row]].item_id
        ids = [*(event.item_id for event in trace.events), trace.item_id]
        items = [item for each in ids if (item := data.catalogue.get(each))]
        assert grounding.problem(trace.text, items) is None


def test_the_command_refuses_to_write_over_another_file(
    small_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "out").write_text("years of work")
    words = ["traces", "make", "--data", str(small_data), "--out", str(tmp_path / "out")]
    assert main(words) == 2
    printed = capsys.readouterr().err
    assert printed.startswith("rankloom traces: ")
    assert "is not a file of traces; move it away" in printed
    assert printed.count("\n") == 1
