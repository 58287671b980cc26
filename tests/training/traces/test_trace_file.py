"""The file of traces keeps every field, and other files stay as they are."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from pyarrow import parquet

from rankloom_training.data import DataError, load_dataset
from rankloom_training.reasons.problems import TraceProblem
from rankloom_training.reasons.trace import TraceKind
from rankloom_training.teachers.evidence import EvidenceTeacher
from rankloom_training.traces.trace_file import read_traces, sound, traces_of, write_traces
from training.reasons.random_cases import random_case

TRACES = [EvidenceTeacher().trace(random_case(seed)) for seed in range(6)]


def test_traces_are_read_as_they_were_written(tmp_path: Path) -> None:
    unusual = dataclasses.replace(
        TRACES[0],
        kind=TraceKind.RATIONALE,
        blind_verdict=None,
        profile="Likes heists.",
        attempts=3,
        problem=TraceProblem.INVENTED_TITLE,
    )
    write_traces(tmp_path / "traces.parquet", [*TRACES, unusual])
    found = read_traces(tmp_path / "traces.parquet")
    assert found == [*TRACES, unusual]
    assert sound(found) == TRACES


def test_verdicts_are_words_in_the_file(tmp_path: Path) -> None:
    write_traces(tmp_path / "traces.parquet", TRACES)
    rows = parquet.read_table(tmp_path / "traces.parquet").to_pylist()
    assert [row["verdict"] for row in rows] == ["Yes" if t.verdict else "No" for t in TRACES]
    assert [row["repaired"] for row in rows] == [t.attempts > 1 for t in TRACES]


def test_another_kind_of_file_is_neither_read_nor_replaced(tmp_path: Path) -> None:
    thesis = tmp_path / "thesis.parquet"
    thesis.write_text("years of work")
    for act in (lambda: read_traces(thesis), lambda: write_traces(thesis, TRACES)):
        with pytest.raises(DataError, match="is not a file of traces; "):
            act()
    assert thesis.read_text() == "years of work"


def test_an_earlier_file_of_traces_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "traces.parquet"
    write_traces(path, TRACES)
    write_traces(path, TRACES[:2])
    assert read_traces(path) == TRACES[:2]
    assert [file.name for file in path.parent.iterdir()] == ["traces.parquet"]


def test_traces_of_another_log_or_other_labels_are_refused(
    small_data: Path, tmp_path: Path
) -> None:
    data, path = load_dataset(small_data), tmp_path / "traces.parquet"
    rows = range(5, 9)
    good = [
        dataclasses.replace(
            TRACES[0],
            row=row,
            item_id=data.catalogue.items[data.log.item[row]].item_id,
            verdict=bool(data.log.liked[row]),
        )
        for row in rows
    ]
    write_traces(path, good)
    assert traces_of(path, data) == good
    for change in ({"row": 10**9}, {"item_id": "i999"}, {"verdict": not good[1].verdict}):
        write_traces(path, [good[0], dataclasses.replace(good[1], **change)])
        with pytest.raises(DataError, match=r"1 traces are not of this log \(first: row"):
            traces_of(path, data)
