"""Test rows explained by a real server, beside what a teacher wrote about the same rows."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from rankloom_training.data import DataError, Dataset, Split, load_dataset
from rankloom_training.explained import report_of
from rankloom_training.explaining import explain_rows, read_references
from rankloom_training.reasons.trace import Trace, TraceKind
from rankloom_training.traces.trace_file import write_traces
from rankloom_training.visibility import Protocol


def trace_of(data: Dataset, row: int) -> Trace:
    item = data.catalogue.items[data.log.item[row]]
    return Trace(
        row=row,
        item_id=item.item_id,
        verdict=bool(data.log.liked[row]),
        text=f"About row {row}.",
        teacher="a test",
        prompt_digest="",
        written=datetime.now(UTC),
        events=(),
        kind=TraceKind.RATIONALE,
    )


def file_of(data: Dataset, split: Split, folder: Path) -> Path:
    """Traces of three rows, the first and the last of different users."""
    rows = np.flatnonzero(data.log.split == split)[[3, 4, -1]]
    write_traces(folder / "traces.parquet", [trace_of(data, int(row)) for row in rows])
    return folder / "traces.parquet"


def test_rows_with_a_reference_are_explained_and_no_others(
    served_folder: Path, small_data: Path, tmp_path: Path
) -> None:
    data = load_dataset(small_data)
    references = read_references(file_of(data, Split.TEST, tmp_path), data)
    rows = explain_rows(served_folder, data, Protocol.P1, 10, lambda done, total: None, references)
    log = data.log
    found = {(row.user, row.candidate.item_id, row.reference) for row in rows}
    assert found == {
        (log.user_ids[log.user[row]], data.catalogue.items[log.item[row]].item_id, text)
        for row, text in references.items()
    }
    overlap = report_of(rows, data.catalogue).overlap
    assert overlap is not None
    assert overlap.num_rows == 3


def test_references_of_other_rows_are_refused(small_data: Path, tmp_path: Path) -> None:
    data = load_dataset(small_data)
    with pytest.raises(DataError, match="no trace is of a test row; make some with"):
        read_references(file_of(data, Split.VALID, tmp_path), data)
