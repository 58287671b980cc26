"""The Parquet file of traces: one row for each row of the log that a teacher wrote about."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import parquet

from rankloom_training.data import DataError, Dataset
from rankloom_training.reasons.problems import TraceProblem
from rankloom_training.reasons.trace import Trace, TraceEvent, TraceKind
from rankloom_training.reasons.verdicts import verdict_of, word_of

_MARK = {b"rankloom.traces": b"1"}  # the format's version
_EVENT = pa.struct(
    [
        pa.field("item_id", pa.string()),
        pa.field("liked", pa.bool_()),
        pa.field("influence", pa.float64()),
    ]
)
SCHEMA = pa.schema(
    [
        pa.field("row", pa.int64()),
        pa.field("item_id", pa.string()),
        pa.field("kind", pa.string()),
        pa.field("verdict", pa.string()),
        pa.field("text", pa.string()),
        pa.field("problem", pa.string()),
        pa.field("repaired", pa.bool_()),
        pa.field("attempts", pa.int16()),
        pa.field("blind_verdict", pa.string()),
        pa.field("blind_text", pa.string()),
        pa.field("profile", pa.string()),
        pa.field("teacher", pa.string()),
        pa.field("prompt_digest", pa.string()),
        pa.field("written", pa.timestamp("us", "UTC")),
        pa.field("events", pa.list_(_EVENT)),
    ],
    metadata=_MARK,
)


def write_traces(path: Path, traces: Iterable[Trace]) -> None:
    """Writes all at once or nothing, in place of an earlier file of traces. Raises DataError."""
    check_writable(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(path.name + ".tmp")
    parquet.write_table(
        pa.Table.from_pylist([_as_row(each) for each in traces], SCHEMA), unfinished
    )
    os.replace(unfinished, path)


def check_writable(path: Path) -> None:
    """Raises DataError if another kind of file is there."""
    if path.exists() and not is_trace_file(path):
        raise DataError(f"{path}: is not a file of traces; move it away or choose another path")


def read_traces(path: Path) -> list[Trace]:
    """All traces, also those with a problem. Raises DataError for another kind of file."""
    if not is_trace_file(path):
        raise DataError(f"{path}: is not a file of traces; make one with `rankloom traces make`")
    return [_of_row(row) for row in parquet.read_table(path).to_pylist()]


def sound(traces: Sequence[Trace]) -> list[Trace]:
    """Those without a problem: what may be learned from."""
    return [trace for trace in traces if trace.problem is None]


def traces_of(path: Path, data: Dataset) -> list[Trace]:
    """The sound traces of a file. Raises DataError if one is of another log or other labels."""
    traces = sound(read_traces(path))
    wrong = [trace.row for trace in traces if not _is_of(trace, data)]
    if wrong:
        raise DataError(
            f"{path}: {len(wrong):,} traces are not of this log (first: row {wrong[0]}); make them "
            f"anew, or keep the right ones with `rankloom traces check --keep`"
        )
    return traces


def _is_of(trace: Trace, data: Dataset) -> bool:
    log = data.log
    if not 0 <= trace.row < len(log) or log.liked[trace.row] != trace.verdict:
        return False
    return bool(data.catalogue.items[log.item[trace.row]].item_id == trace.item_id)


def is_trace_file(path: Path) -> bool:
    """Whether `rankloom traces make` wrote the file, in this format."""
    try:
        schema = parquet.read_schema(path)
    except (OSError, pa.ArrowException):
        return False
    return (schema.metadata or {}).items() >= _MARK.items() and schema.names == SCHEMA.names


def _as_row(trace: Trace) -> dict[str, Any]:
    blind = trace.blind_verdict
    return asdict(trace) | {
        "verdict": word_of(trace.verdict),
        "blind_verdict": None if blind is None else word_of(blind),
        "repaired": trace.repaired,
    }


def _of_row(row: dict[str, Any]) -> Trace:
    fields = {name: value for name, value in row.items() if name != "repaired"}
    return Trace(
        **fields
        | {
            "kind": TraceKind(row["kind"]),
            "verdict": row["verdict"] == word_of(True),
            "blind_verdict": verdict_of(row["blind_verdict"] or ""),
            "events": tuple(TraceEvent(**event) for event in row["events"]),
            "problem": TraceProblem(row["problem"]) if row["problem"] else None,
        }
    )
